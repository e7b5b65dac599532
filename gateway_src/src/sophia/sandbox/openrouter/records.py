# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in remembers. Records go to the journal as they are; money is nano-dollars, time epoch seconds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

__all__ = ["Assignment", "Generation", "Guardrail", "Key", "Spend", "Workspace", "iso"]


def iso(moment: float) -> str:
    """ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(moment, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Spend:
    """Nano-dollars of one key, in all and in the running UTC day, week (from Monday) and month."""

    __slots__ = ("_day", "_month", "_week", "day", "month", "total", "week")

    def __init__(self) -> None:
        self.total = self.day = self.week = self.month = 0
        self._day = self._week = self._month = -1

    def add(self, amount: int, now: float) -> None:
        """Count an amount that was spent now."""
        self.roll(now)
        self.total += amount
        self.day += amount
        self.week += amount
        self.month += amount

    def roll(self, now: float) -> None:
        """Begin the windows anew whose end has passed."""
        day = int(now // 86_400)
        if day == self._day:
            return
        self._day, self.day = day, 0
        week = (day + 3) // 7  # 1970-01-01 was a Thursday
        if week != self._week:
            self._week, self.week = week, 0
        date = datetime.fromtimestamp(now, tz=UTC)
        month = date.year * 12 + date.month
        if month != self._month:
            self._month, self.month = month, 0

    def window(self, reset: str | None, now: float) -> int:
        """What counts against a limit with this reset."""
        self.roll(now)
        match reset:
            case "daily":
                return self.day
            case "weekly":
                return self.week
            case "monthly":
                return self.month
            case _:
                return self.total


class Key(msgspec.Struct, kw_only=True, tag="key"):
    """An API key. Only the digest of its secret is kept; `hash` is its name for the outside."""

    hash: str
    digest: str
    label: str
    name: str
    created_at: float
    workspace_id: str
    management: bool = False
    disabled: bool = False
    limit: int | None = None
    limit_reset: str | None = None
    include_byok_in_limit: bool = False
    expires_at: str | None = None
    expires: float | None = None
    updated_at: float | None = None
    creator_user_id: str | None = None
    external_user: str | None = None
    last_used_at: float | None = None


class KeyDeleted(msgspec.Struct, tag="key_deleted"):
    """A key that is gone."""

    hash: str


class Generation(msgspec.Struct, kw_only=True, tag="generation", gc=False):
    """One billed answer: what `GET /generation`, activity, analytics and the truth report. Durations are seconds."""

    id: str
    key_hash: str
    model: str
    provider: str
    api_type: str
    created_at: float
    ended_at: float
    cost: int
    cost_prompt: int
    cost_completion: int
    cache_discount: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    images: int
    streamed: bool
    cancelled: bool
    finish_reason: str | None
    latency: float
    router: str | None = None
    user: str | None = None
    session_id: str | None = None
    user_agent: str | None = None
    http_referer: str | None = None
    request_id: str | None = None
    workspace_id: str | None = None
    attempts: list[dict[str, Any]] | None = None


class Guardrail(msgspec.Struct, kw_only=True, tag="guardrail"):
    """A guardrail. `settings` holds the fields that a request may set, as they were sent."""

    id: str
    name: str
    workspace_id: str
    created_at: float
    updated_at: float | None = None
    settings: dict[str, Any] = {}


class GuardrailDeleted(msgspec.Struct, tag="guardrail_deleted"):
    """A guardrail that is gone, with its assignments."""

    id: str


class Assignment(msgspec.Struct, kw_only=True, tag="assignment"):
    """A guardrail on a key; a key has at most one."""

    id: str
    guardrail_id: str
    key_hash: str
    created_at: float


class Unassigned(msgspec.Struct, tag="unassigned"):
    """A key without its guardrail."""

    key_hash: str


class Workspace(msgspec.Struct, kw_only=True, tag="workspace"):
    """A workspace; keys and guardrails belong to one."""

    id: str
    name: str
    slug: str
    created_at: float
    default_guardrail_id: str
    updated_at: float | None = None
    settings: dict[str, Any] = {}


class WorkspaceDeleted(msgspec.Struct, tag="workspace_deleted"):
    """A workspace that is gone."""

    id: str


class Reset(msgspec.Struct, tag="reset"):
    """Everything before is forgotten."""

    at: float


Record = (
    Key
    | KeyDeleted
    | Generation
    | Guardrail
    | GuardrailDeleted
    | Assignment
    | Unassigned
    | Workspace
    | WorkspaceDeleted
    | Reset
)
