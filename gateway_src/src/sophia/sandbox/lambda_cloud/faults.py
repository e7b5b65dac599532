# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: which requests fail, and how.

Rules are those of `sophia.sandbox.faults`. Of each stage the first rule that strikes wins: a fault of
the way (`before`), of the launch or termination itself (`during`), of the answer (`after`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from sophia.sandbox import faults

from .errors import CloudError

__all__ = ["Fault", "Faults", "Match", "Rule", "Subject"]

Kind = Literal[
    "status",
    "timeout",
    "reset",
    "slow",
    "stale",
    "insufficient_capacity",
    "unhealthy",
    "slow_boot",
    "ignore_terminate",
    "slow_terminate",
    "status_after_success",
    "timeout_after_success",
    "reset_after_success",
]
Stage = Literal["before", "during", "after"]
STAGE: dict[str, Stage] = {
    "status": "before",
    "timeout": "before",
    "reset": "before",
    "slow": "before",
    "stale": "during",
    "insufficient_capacity": "during",
    "unhealthy": "during",
    "slow_boot": "during",
    "ignore_terminate": "during",
    "slow_terminate": "during",
    "status_after_success": "after",
    "timeout_after_success": "after",
    "reset_after_success": "after",
}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens.

    - `status`, `code`: of `status` and `status_after_success`; `retry_after` (s) goes with them.
    - `seconds`: how long `slow` holds the answer back (seconds of the clock), how old a `stale` list is, how much
      longer `slow_boot` and `slow_terminate` take (cloud seconds).
    """

    kind: Kind
    status: int = 500
    code: str | None = None
    retry_after: float | None = None
    seconds: float = 30.0


class Match(faults.Match, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests. `path` is the end of the path (`/launch`); `region` and `instance_type` are of a launch."""

    region: str | None = None
    instance_type: str | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault and when it strikes."""

    fault: Fault
    match: Match = Match()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a request when faults are looked up."""

    path: str
    method: str
    region: str | None = None
    instance_type: str | None = None


class Faults(faults.Counted[Rule]):
    """The rules in force."""

    def set(self, rules: list[Rule]) -> None:
        """Replace all rules; counters and seed begin anew. Raises `CloudError` for a rule that cannot be."""
        for rule in rules:
            if rule.fault.kind.startswith("status") and not 400 <= rule.fault.status <= 599:
                raise CloudError("global/invalid-parameters", f"{rule.fault.status} is no error's status")
        self.arm(rules)

    def find(self, stage: Stage, subject: Subject, *kinds: Kind) -> Fault | None:
        """The fault of a stage that strikes this request; with `kinds`, only one of those."""

        def holds(rule: Rule) -> bool:
            kind = rule.fault.kind
            return STAGE[kind] == stage and (not kinds or kind in kinds) and _holds(rule.match, subject)

        rule = self.first(holds)
        return rule.fault if rule is not None else None


def _holds(match: Match, subject: Subject) -> bool:
    return (
        match.names(subject.method, subject.path)
        and (match.region is None or match.region == subject.region)
        and (match.instance_type is None or match.instance_type == subject.instance_type)
    )
