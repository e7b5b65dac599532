# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guards let pass, in the worst case: every pair counts as near as can be, and they alone decide."""

from __future__ import annotations

from collections import Counter
from typing import Any

from sophia.gateway.guards import objection
from sophia.gateway.learn import upper_limit

from .heldout import FIRST, heldout
from .pairs import adversarial
from .paraphrases import paraphrases

__all__ = ["run"]


def run() -> dict[str, Any]:
    """Counts by kind, with the one-sided 95 % Clopper-Pearson upper limit of the false hits' share."""
    false, pairs = Counter[str](), adversarial()
    of = Counter(pair.kind for pair in pairs)
    for pair in pairs:
        false[pair.kind] += objection(pair.one, pair.other) is None
    others = heldout()
    passed, same = Counter[str](), paraphrases()
    same_of = Counter(pair.kind for pair in same)
    for pair in same:
        passed[pair.kind] += objection(pair.one, pair.other) is None
    return {
        "pairs": len(pairs),
        "false": sum(false.values()),
        "at_most": upper_limit(len(pairs), sum(false.values())),
        "kinds": {kind: [of[kind], false[kind]] for kind in of},
        "heldout": len(others),
        "heldout_first": FIRST,
        "heldout_now": [[pair.one, pair.other] for pair in others if objection(pair.one, pair.other) is None],
        "paraphrases": len(same),
        "passed": sum(passed.values()),
        "same_kinds": {kind: [same_of[kind], passed[kind]] for kind in same_of},
    }
