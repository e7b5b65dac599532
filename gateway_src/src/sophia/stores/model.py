# SPDX-License-Identifier: GPL-3.0-or-later
"""The values that pass between the gateway's rooms and the stores.

Amounts are integer nano-dollars, instants are integer nanoseconds since the epoch (UTC), identifiers are the
strings of `new_id`.
"""

from __future__ import annotations

import enum
import random
import time
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

__all__ = [
    "Account",
    "Flag",
    "Intent",
    "Level",
    "Limit",
    "Outcome",
    "Period",
    "Principal",
    "Refusal",
    "Role",
    "Settlement",
    "Tokens",
    "new_id",
    "window_start",
]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(first + second for first in _ALPHABET for second in _ALPHABET)


def new_id(prefix: str, now_ns: int | None = None) -> str:
    """A sortable identifier ``<prefix>_<26 characters>``: 48 bits of milliseconds, 82 random bits (as a ULID)."""
    millis = (time.time_ns() if now_ns is None else now_ns) // 1_000_000
    value = (millis << 82) | random.getrandbits(82)
    return f"{prefix}_{''.join([_PAIRS[(value >> shift) & 1023] for shift in _SHIFTS])}"


_SHIFTS = range(120, -1, -10)


class Level(enum.StrEnum):
    """A level of the tenancy hierarchy; every one may carry budgets and limits."""

    ORGANIZATION = "organization"
    TEAM = "team"
    USER = "user"
    KEY = "key"


class Period(enum.StrEnum):
    """A budget's period. Windows start at 00:00 UTC; weeks start on Monday, as OpenRouter's `limit_reset` does."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class Role(enum.StrEnum):
    """What a principal may do in `/admin/v1`."""

    PLATFORM_ADMIN = "platform_admin"
    ORGANIZATION_ADMIN = "organization_admin"
    MEMBER = "member"


def window_start(period: Period, at_ns: int) -> int:
    """The start of the window of `period` that holds the instant `at_ns`, both in nanoseconds since the epoch."""
    at = datetime.fromtimestamp(at_ns // 1_000_000_000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period is Period.WEEK:
        at -= timedelta(days=at.weekday())
    elif period is Period.MONTH:
        at = at.replace(day=1)
    return int(at.timestamp()) * 1_000_000_000


class Account(msgspec.Struct, frozen=True):
    """One budget that a request is charged to: a level's resource, a period and a cap in nano-dollars."""

    level: Level
    owner: str
    period: Period
    cap: int


class Limit(msgspec.Struct, frozen=True):
    """Rates of one level's resource: requests and estimated tokens per minute. None means no limit."""

    level: Level
    owner: str
    requests_per_minute: int | None
    tokens_per_minute: int | None


class Principal(msgspec.Struct, frozen=True):
    """Who a key speaks for, with everything that a request's way through the gateway asks of it.

    `accounts` holds the budgets of all four levels, `limits` the rates of all four. `models` is None where every
    model is allowed, else the allowed model identifiers or ``prefix/*`` patterns; it is the intersection over the
    levels. `disabled` covers the whole chain: a disabled organisation disables its keys.
    """

    key: str
    organization: str
    team: str | None
    user: str | None
    role: Role
    scopes: frozenset[str]
    models: tuple[str, ...] | None
    accounts: tuple[Account, ...]
    limits: tuple[Limit, ...]
    expires_at: int | None = None
    disabled: bool = False
    zero_data_retention: bool = False
    regions: tuple[str, ...] | None = None
    organization_name: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Why a reservation was not granted.

    `spent`: settled spend plus the amount passes the cap, waiting will not help before `retry_after` seconds (the
    window's end). `reserved`: it would fit once other requests in flight have settled.
    """

    kind: Literal["spent", "reserved"]
    account: Account
    headroom: int
    retry_after: float


class Tokens(msgspec.Struct, frozen=True):
    """Token counts of one generation, as OpenRouter's `usage` gives them (native tokenizer)."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


class Intent(msgspec.Struct, frozen=True, tag="intent"):
    """One attempt that is about to be sent upstream: durable before its first byte.

    `attempt` is the identity of the spend (one request may make several attempts). The accounts of its owners are
    charged `reserved` until the settlement replaces it.
    """

    attempt: str
    request: str
    at: int
    organization: str
    team: str | None
    user: str | None
    key: str
    api: str
    model: str
    slot: str
    reserved: int
    tags: tuple[str, ...] = ()


class Outcome(enum.StrEnum):
    """How an attempt ended, as far as money is concerned."""

    COMPLETE = "complete"
    PARTIAL = "partial"
    ABORTED = "aborted"
    FAILED = "failed"
    UNSENT = "unsent"


class Settlement(msgspec.Struct, frozen=True, tag="settlement"):
    """What became of an attempt.

    `cost` is None while it is not confirmed: the reservation then stays charged until reconciliation with
    OpenRouter's own record (`GET /generation`) brings the settlement that closes it.
    """

    attempt: str
    at: int
    outcome: Outcome
    cost: int | None
    model: str | None = None
    provider: str | None = None
    generation: str | None = None
    tokens: Tokens = Tokens()
    source: Literal["usage", "generation", "none", "operator"] = "none"


class Flag(msgspec.Struct, frozen=True):
    """A feature flag: on for an organisation by override, else for `percentage` of subjects (sticky by hash).

    `values` parameterises the flag (as the models that `disable_model` disables). `version` counts its own changes:
    an update names the version it was made from, and touches no other flag.
    """

    name: str
    enabled: bool = False
    percentage: float = 100.0
    organizations: dict[str, bool] = {}
    values: tuple[str, ...] = ()
    description: str = ""
    version: int = 1
    updated_at: int = 0
