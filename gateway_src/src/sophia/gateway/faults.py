# SPDX-License-Identifier: GPL-3.0-or-later
"""What an error answer of OpenRouter means, and so what to do next.

Sources: OpenRouter docs "Errors and debugging", "Limits"; the 403 text of an exhausted key from client trackers.
The order of the checks matters: a spent key limit comes as 403 too, and must not make a good key look bad.
"""

from __future__ import annotations

import enum
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

__all__ = ["Fault", "Kind", "classify", "retry_after_seconds"]


class Kind(enum.StrEnum):
    """What to do about an error, seen from the gateway."""

    BAD_KEY = "bad_key"  # the key is not (any longer) good: the other slot may be
    KEY_LIMIT = "key_limit"  # this key's own credit limit is spent: the other slot may have some
    CREDIT = "credit"  # the account has no credit: nothing will help but money
    AFFORD = "afford"  # the balance covers fewer output tokens than asked: shrink
    IN_FLIGHT = "in_flight"  # requests in flight hold the balance: wait
    RATE = "rate"  # the platform's rate limit: wait, or another model
    BUSY = "busy"  # this model's providers are rate limited or overloaded: another model
    REFUSED = "refused"  # moderation or a guardrail: the request's content, final
    INVALID = "invalid"  # the request itself: final
    CONTEXT = "context"  # too long for this model
    UNSERVED = "unserved"  # no endpoint serves this model under these conditions: another model
    FAILED = "failed"  # the upstream broke: another try may work


class Fault(msgspec.Struct, frozen=True):
    """A classified error. `retry_after` in seconds where the upstream gave one; `affordable` output tokens."""

    kind: Kind
    status: int
    message: str
    retry_after: float | None = None
    affordable: int | None = None
    error_type: str | None = None

    @property
    def breaks(self) -> bool:
        """Whether the fault says something about the model's health (what a circuit breaker counts)."""
        return self.kind in (Kind.FAILED, Kind.BUSY)


class _Availability(msgspec.Struct):
    code: str | None = None
    retryable: bool = False
    retry_after: float | None = None


class _Error(msgspec.Struct):
    message: str | None = None
    code: int | str | None = None
    http_status: int | None = None
    error_type: str | None = None
    type: str | None = None
    metadata: dict[str, Any] | None = None
    availability: _Availability | None = None


class _Body(msgspec.Struct):
    error: _Error | str | None = None
    error_type: str | None = None
    availability: _Availability | None = None
    metadata: dict[str, Any] | None = None


_BODY = msgspec.json.Decoder(_Body, strict=False)

_KEY_LIMIT = re.compile(r"key limit (has been )?(exceeded|reached)", re.I)
_AFFORD = re.compile(r"can only afford (\d+)", re.I)
_IN_FLIGHT = re.compile(r"in[- ]flight", re.I)
_REGION = re.compile(r"not available in your (region|country)", re.I)
_CONTEXT_TYPES = frozenset({"context_length_exceeded", "max_tokens_exceeded", "token_limit_exceeded"})
_CONTENT_TYPES = frozenset({"content_policy_violation", "refusal"})
_FAILED_STATUS = frozenset({408, 500, 502, 504, 524})


def classify(
    status: int, body: bytes, header_retry_after: str | None = None, *, own_limit: bool | None = None
) -> Fault:
    """Classify an error answer by status, `error_type`, `availability` and, last, its words.

    `own_limit` says whether the answer had `X-RateLimit` headers, which only OpenRouter's own limits send; None where
    that is not known. Errors of `/messages` have no `availability`, so that a 429 of theirs shows it in no other way.
    """
    try:
        parsed = _BODY.decode(body)
    except msgspec.MsgspecError:
        parsed = _Body()
    error = parsed.error if isinstance(parsed.error, _Error) else _Error(message=parsed.error or None)
    metadata = error.metadata or parsed.metadata or {}
    error_type = metadata.get("error_type") or error.error_type or parsed.error_type
    availability = error.availability or parsed.availability
    message = error.message or f"the upstream answered with status {status}"
    code = _status(status, error)
    retry_after = retry_after_seconds(header_retry_after)
    if retry_after is None and availability is not None:
        retry_after = availability.retry_after
    kind, affordable = _kind(code, message, error_type, metadata, availability)
    if kind is Kind.RATE and own_limit is False and "headers" not in metadata:
        kind = Kind.BUSY
    return Fault(kind, code, message, retry_after, affordable, error_type)


def _status(status: int, error: _Error) -> int:
    """`error.code`, else `error.http_status`, else the HTTP status: the body knows better once it is a 200."""
    for code in (error.code, error.http_status):
        if isinstance(code, int) and 400 <= code < 600:
            return code
        if isinstance(code, str) and code.isdigit() and 400 <= int(code) < 600:
            return int(code)
    return status if status >= 400 else 502


def _kind(
    code: int, message: str, error_type: str | None, metadata: dict[str, Any], availability: _Availability | None
) -> tuple[Kind, int | None]:
    if _KEY_LIMIT.search(message):
        return Kind.KEY_LIMIT, None
    if code == 401:
        return Kind.BAD_KEY, None
    if code == 402:
        return _payment(message, metadata)
    if error_type in _CONTEXT_TYPES:
        return Kind.CONTEXT, None
    if code == 403:
        if availability is not None or _REGION.search(message):
            return Kind.UNSERVED, None
        if "reasons" in metadata or "patterns" in metadata or error_type in _CONTENT_TYPES:
            return Kind.REFUSED, None
        return (Kind.BAD_KEY if error_type in (None, "authentication") else Kind.REFUSED), None
    if error_type in _CONTENT_TYPES:
        return Kind.REFUSED, None
    if code == 429:
        upstream = "provider_code" in metadata or "provider_name" in metadata or availability is not None
        return (Kind.BUSY if upstream else Kind.RATE), None
    if code in (503, 529):
        return Kind.BUSY, None
    if code == 404 or availability is not None:
        return Kind.UNSERVED, None
    if code in _FAILED_STATUS or code >= 500:
        return Kind.FAILED, None
    return Kind.INVALID, None


def _payment(message: str, metadata: dict[str, Any]) -> tuple[Kind, int | None]:
    afford = _AFFORD.search(message)
    if afford is not None:
        return Kind.AFFORD, int(afford[1])
    if metadata.get("limit_source") == "in_flight" or _IN_FLIGHT.search(message):
        return Kind.IN_FLIGHT, None
    if metadata.get("limit_source") == "key":
        return Kind.KEY_LIMIT, None
    return Kind.CREDIT, None


def retry_after_seconds(value: str | None) -> float | None:
    """A `Retry-After` header in seconds: delta-seconds or an HTTP-date (RFC 9110, 10.2.3); None where unusable."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        seconds = (at - datetime.now(UTC)).total_seconds()
    return min(max(seconds, 0.0), 3600.0) if seconds == seconds else None
