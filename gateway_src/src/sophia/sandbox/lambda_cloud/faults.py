# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: which requests fail, and how.

A rule is ``{"match": {…}, "fault": {"kind": …}}``. All conditions of `match` must hold; a rule whose conditions hold is
then counted, so that `every_nth` and `times` are per rule. Of each stage the first rule that strikes wins: a fault of
the way (`before`), of the launch or termination itself (`during`), of the answer (`after`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Literal

import msgspec

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


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests. `path` is the end of the path (`/launch`); `region` and `instance_type` are of a launch."""

    path: str | None = None
    method: str | None = None
    region: str | None = None
    instance_type: str | None = None
    every_nth: int | None = None
    probability: float | None = None
    times: int | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault and when it strikes."""

    fault: Fault
    match: Match = Match()


@dataclass(slots=True)
class Armed:
    """A rule with its counters."""

    rule: Rule
    seen: int = 0
    struck: int = 0


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a request when faults are looked up."""

    path: str
    method: str
    region: str | None = None
    instance_type: str | None = None


@dataclass(slots=True)
class Faults:
    """The rules in force."""

    seed: int = 0
    armed: list[Armed] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)

    def set(self, rules: list[Rule]) -> None:
        """Replace all rules; counters and seed begin anew. Raises `CloudError` for a rule that cannot be."""
        for rule in rules:
            if rule.fault.kind.startswith("status") and not 400 <= rule.fault.status <= 599:
                raise CloudError("global/invalid-parameters", f"{rule.fault.status} is no error's status")
        self.armed = [Armed(rule) for rule in rules]
        self._random = random.Random(self.seed)  # noqa: S311 (reproducible on purpose)

    def find(self, stage: Stage, subject: Subject, *kinds: Kind) -> Fault | None:
        """The fault of a stage that strikes this request; with `kinds`, only one of those."""
        for armed in self.armed:
            fault = armed.rule.fault
            wanted = STAGE[fault.kind] == stage and (not kinds or fault.kind in kinds)
            if wanted and _holds(armed.rule.match, subject) and self._strikes(armed):
                return fault
        return None

    def _strikes(self, armed: Armed) -> bool:
        match = armed.rule.match
        if match.times is not None and armed.struck >= match.times:
            return False
        armed.seen += 1
        if match.every_nth is not None and armed.seen % match.every_nth:
            return False
        if match.probability is not None and self._random.random() >= match.probability:
            return False
        armed.struck += 1
        return True


def _holds(match: Match, subject: Subject) -> bool:
    return (
        (match.path is None or subject.path.endswith(match.path))
        and (match.method is None or match.method.upper() == subject.method)
        and (match.region is None or match.region == subject.region)
        and (match.instance_type is None or match.instance_type == subject.instance_type)
    )
