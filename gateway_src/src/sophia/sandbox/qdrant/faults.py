# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: which requests fail, and how.

Rules are those of `sophia.sandbox.faults`. The first rule that strikes wins. A single request may ask
for a fault itself with the header ``x-sandbox-fault: kind[:argument[:argument]]``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from sophia.sandbox.faults import Counted, Match, written

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


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault and when it strikes."""

    fault: Fault
    match: Match = Match()


class Faults(Counted[Rule]):
    """The rules in force."""

    def set(self, rules: list[Rule]) -> None:
        """Replace all rules; counters and seed begin anew. Raises `ServiceError` 400 for a status that is none."""
        for rule in rules:
            check(rule.fault)
        self.arm(rules)

    def find(self, method: str, path: str, asked: str | None) -> Fault | None:
        """The fault that strikes this request; `asked` is its own header. Raises `ServiceError` 400."""
        if asked is not None:
            return parse(asked)
        rule = self.first(lambda rule: rule.match.names(method, path))
        return rule.fault if rule is not None else None


def parse(text: str) -> Fault:
    """A fault from a header: ``status:429:2`` (status, Retry-After), ``slow:5``, ``reset``. Raises `ServiceError`."""
    try:
        fault = written(text, Fault, ARGUMENTS)
    except msgspec.ValidationError as error:
        raise ServiceError(400, f"x-sandbox-fault: {error}") from error
    check(fault)
    return fault


def check(fault: Fault) -> None:
    """Raise `ServiceError` 400 for a fault that cannot be."""
    if not 400 <= fault.status <= 599:
        raise ServiceError(400, f"status {fault.status} is no failure")
