# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults on demand: which requests fail, and how.

Rules are those of `sophia.sandbox.faults`. The first rule that strikes wins. A single request may ask
for a fault itself with the header ``x-sandbox-fault: kind[:argument[:argument]]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from sophia.sandbox import faults

from .errors import VendorError

__all__ = ["Fault", "Faults", "Match", "Rule", "parse"]

Kind = Literal[
    "status",
    "error_200",
    "choice_error",
    "midstream_error",
    "cut",
    "stall",
    "trickle",
    "malformed_chunk",
    "slow_headers",
    "reset",
    "reset_after_accept",
    "timeout_after_success",
    "empty",
]
STATUSES = frozenset((400, 401, 402, 403, 404, 408, 409, 412, 413, 422, 429, 500, 502, 503, 504, 524, 529))


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What happens.

    - `status`: of `status` and of the error that `error_200`, `choice_error` and `midstream_error` carry.
    - `variant`: which of the vendor's bodies for that status (`errors.by_status`).
    - `retry_after`: seconds, for the Retry-After header where the vendor sends one.
    - `after`: chunks with content that go out before `cut`, `stall`, `malformed_chunk` and `midstream_error`.
    - `seconds`: how long `stall` and `slow_headers` wait, and `trickle` between two bytes.
    - `message`: the error's text instead of the vendor's.
    """

    kind: Kind
    status: int | None = None
    variant: str | None = None
    retry_after: float | None = None
    after: int = 1
    seconds: float = 1.0
    message: str | None = None


class Match(faults.Match, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests. `path` is the end of the path (`/chat/completions`); `header` is `name` or `name: value`."""

    model: str | None = None
    provider: str | None = None
    key_hash: str | None = None
    header: str | None = None
    stream: bool | None = None


class Rule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A fault and when it strikes."""

    fault: Fault
    match: Match = Match()


@dataclass(frozen=True, slots=True)
class Subject:
    """What is known of a request when faults are looked up."""

    path: str
    method: str
    headers: Mapping[bytes, bytes]
    key_hash: str | None = None
    model: str | None = None
    provider: str | None = None
    stream: bool = False


class Faults(faults.Counted[Rule]):
    """The rules in force."""

    def set(self, rules: list[Rule]) -> None:
        """Replace all rules; counters and seed begin anew. Raises `VendorError` 400 for a rule that cannot be."""
        for rule in rules:
            check(rule.fault)
        self.arm(rules)

    def idle(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether no fault can strike a request with these headers."""
        return not self.armed and b"x-sandbox-fault" not in headers

    def find(self, subject: Subject) -> Fault | None:
        """The fault that strikes this request. Raises `VendorError` 400 for a header that names none."""
        asked = subject.headers.get(b"x-sandbox-fault")
        if asked is not None:
            return parse(asked.decode("latin-1"))
        rule = self.first(lambda rule: _holds(rule.match, subject))
        return rule.fault if rule is not None else None


def parse(text: str) -> Fault:
    """A fault from a header. Raises `VendorError` 400 for a text that names none.

    ``status:429:upstream:2`` (status, variant, Retry-After), ``midstream_error:3:502`` (after, status), ``cut:3``,
    ``stall:3:30`` (after, seconds), ``trickle:0.01``, ``slow_headers:5``, ``error_200:502``, ``choice_error:502``.
    """
    kind, *arguments = text.strip().split(":")
    names = {
        "status": ("status", "variant", "retry_after"),
        "error_200": ("status", "variant"),
        "choice_error": ("status", "variant"),
        "midstream_error": ("after", "status"),
        "cut": ("after",),
        "malformed_chunk": ("after",),
        "stall": ("after", "seconds"),
        "trickle": ("seconds",),
        "slow_headers": ("seconds",),
    }.get(kind, ())
    values: dict[str, Any] = {"kind": kind}
    values.update((name, value) for name, value in zip(names, arguments, strict=False) if value)
    try:
        fault = msgspec.convert(values, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise VendorError(400, f"x-sandbox-fault: {error}") from error
    check(fault)
    return fault


def check(fault: Fault) -> None:
    """Raise `VendorError` 400 for a fault that cannot be."""
    if fault.kind == "status" and fault.status is None:
        raise VendorError(400, "a fault of kind status needs a status")
    if fault.status is not None and fault.status not in STATUSES:
        raise VendorError(400, f"status {fault.status} is none that the vendor sends")


def _holds(match: Match, subject: Subject) -> bool:
    return (
        (match.model is None or match.model == subject.model)
        and (match.provider is None or match.provider == subject.provider)
        and (match.key_hash is None or match.key_hash == subject.key_hash)
        and match.names(subject.method, subject.path)
        and (match.stream is None or match.stream == subject.stream)
        and (match.header is None or _has(subject.headers, match.header))
    )


def _has(headers: Mapping[bytes, bytes], condition: str) -> bool:
    name, colon, value = condition.partition(":")
    sent = headers.get(name.strip().lower().encode("latin-1"))
    return sent is not None and (not colon or sent.decode("latin-1") == value.strip())
