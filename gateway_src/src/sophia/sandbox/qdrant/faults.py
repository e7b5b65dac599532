# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: which requests fail, and how.

A rule is ``{"match": {…}, "fault": {"kind": …}}``. All conditions of `match` must hold; a rule whose conditions hold is
then counted, so that `every_nth` and `times` are per rule. The first rule that strikes wins. A single request may ask
for a fault itself with the header ``x-sandbox-fault: kind[:argument[:argument]]``.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from .errors import ServiceError

__all__ = ["Fault", "Faults", "Match", "Rule", "parse"]

Kind = Literal["status", "reset", "reset_after_accept", "timeout_after_success", "slow", "cut"]
ARGUMENTS: dict[str, tuple[str, ...]] = {"status": ("status", "retry_after"), "slow": ("seconds",)}


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens.

    - `status`: nothing is done; the answer is `status`, with Retry-After of `retry_after` seconds if given.
    - `reset`: nothing is done; the connection is reset.
    - `reset_after_accept`: it is done; the connection is reset instead of an answer.
    - `timeout_after_success`: it is done; no answer comes.
    - `slow`: it is done after `seconds`.
    - `cut`: it is done; half of the answer comes.
    """

    kind: Kind
    status: int = 503
    retry_after: float | None = None
    seconds: float = 1.0


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests. `path` is the end of the path (`/points/scroll`)."""

    path: str | None = None
    method: str | None = None
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


@dataclass(slots=True)
class Faults:
    """The rules in force."""

    seed: int = 0
    armed: list[Armed] = field(default_factory=list)
    _random: random.Random = field(default_factory=random.Random)

    def set(self, rules: list[Rule]) -> None:
        """Replace all rules; counters and seed begin anew. Raises `ServiceError` 400 for a status that is none."""
        for rule in rules:
            check(rule.fault)
        self.armed = [Armed(rule) for rule in rules]
        self._random = random.Random(self.seed)  # noqa: S311 (reproducible on purpose)

    def find(self, method: str, path: str, asked: str | None) -> Fault | None:
        """The fault that strikes this request; `asked` is its own header. Raises `ServiceError` 400."""
        if asked is not None:
            return parse(asked)
        for armed in self.armed:
            match = armed.rule.match
            if match.path is not None and not path.endswith(match.path):
                continue
            if match.method is not None and match.method.upper() != method:
                continue
            if self._strikes(armed):
                return armed.rule.fault
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


def parse(text: str) -> Fault:
    """A fault from a header: ``status:429:2`` (status, Retry-After), ``slow:5``, ``reset``. Raises `ServiceError`."""
    kind, *arguments = text.strip().split(":")
    values: dict[str, Any] = {"kind": kind}
    values.update(zip(ARGUMENTS.get(kind, ()), arguments, strict=False))
    try:
        fault = msgspec.convert(values, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise ServiceError(400, f"x-sandbox-fault: {error}") from error
    check(fault)
    return fault


def check(fault: Fault) -> None:
    """Raise `ServiceError` 400 for a fault that cannot be."""
    if not 400 <= fault.status <= 599:
        raise ServiceError(400, f"status {fault.status} is no failure")
