# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenRouter's own records of what was used: generations, what each cost, the account's credits, sums by day.

`GET /generation?id=` answers any key of the account, 404 for a while after the answer; the rest needs the management
key: `POST /analytics/query` (rows cut at a limit: the time range is halved until they fit), `GET /credits`,
`GET /activity` (the last 30 completed UTC days).
"""

from __future__ import annotations

import enum
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from sophia import __version__
from sophia.gateway.slots import Slots
from sophia.gateway.upstream import Upstream, UpstreamFailure
from sophia.money import nano

__all__ = ["Absent", "Billed", "Generation", "Records", "attempt_of", "user_agent"]

T = TypeVar("T")

_SECOND = 1_000_000_000
_BODY_LIMIT = 8 * 1024 * 1024
_PAGE = 1000
_ATTEMPT = re.compile(r"\battempt/(att_[0-9a-z]{26})\b")


def user_agent(attempt: str) -> str:
    """The User-Agent of an attempt (RFC 9110, 10.1.5: product, then products)."""
    return f"sophia-gateway/{__version__} attempt/{attempt}"


def attempt_of(agent: str | None) -> str | None:
    """The attempt that a generation's recorded User-Agent names."""
    found = _ATTEMPT.search(agent or "")
    return found[1] if found else None


class Generation(msgspec.Struct):
    """What `GET /generation` says."""

    id: str
    total_cost: Decimal
    model: str | None = None
    provider_name: str | None = None
    native_tokens_prompt: int | None = None
    native_tokens_completion: int | None = None
    native_tokens_cached: int | None = None
    native_tokens_reasoning: int | None = None
    cancelled: bool | None = None
    user_agent: str | None = None


class Billed(msgspec.Struct, frozen=True):
    """What one generation cost by OpenRouter's account (nano-dollars), and the tokens it counted."""

    generation: str
    model: str
    cost: int
    prompt: int
    completion: int


class Absent(enum.Enum):
    """Why there is no record: OpenRouter has none, or did not answer."""

    RECORD = enum.auto()
    ANSWER = enum.auto()


class _GenerationBody(msgspec.Struct):
    data: Generation


class _Row(msgspec.Struct):
    generation_id: str | None = None
    model: str | None = None
    total_usage: Decimal | None = None
    tokens_prompt: int | None = None
    tokens_completion: int | None = None


class _Metadata(msgspec.Struct):
    truncated: bool = False


class _Analytics(msgspec.Struct):
    data: list[_Row]
    metadata: _Metadata


class _AnalyticsBody(msgspec.Struct):
    data: _Analytics


class _Credits(msgspec.Struct):
    total_credits: Decimal
    total_usage: Decimal


class _CreditsBody(msgspec.Struct):
    data: _Credits


class _Day(msgspec.Struct):
    model: str
    usage: Decimal


class _ActivityBody(msgspec.Struct):
    data: list[_Day]


class Records:
    """Asks OpenRouter for its records. `last_error` says why the last question had no answer."""

    def __init__(self, upstream: Upstream, slots: Slots, management_key_file: Path | None = None) -> None:
        self._upstream = upstream
        self._slots = slots
        self._management_key_file = management_key_file
        self.last_error: str | None = None

    @property
    def managed(self) -> bool:
        """Whether there is a management key, which all but `generation` needs."""
        return self._management_key() is not None

    async def generation(self, generation_id: str, slot: str | None = None) -> Generation | Absent:
        """The record of a generation, or what keeps it from us. `slot` is the key that made it."""
        absent = Absent.ANSWER
        for key in self._keys_for(slot):
            headers = {"authorization": f"Bearer {key}"}
            try:
                reply = await self._upstream.get(f"/generation?id={generation_id}", headers, timeout=30.0)
                body = await reply.read(_BODY_LIMIT)
            except UpstreamFailure as error:
                self.last_error = f"generation: {error}"
                return Absent.ANSWER
            if reply.status == 200:
                return msgspec.json.decode(body, type=_GenerationBody).data
            absent = Absent.RECORD if reply.status == 404 else Absent.ANSWER
            self.last_error = f"generation {generation_id}: status {reply.status}"
        return absent

    async def generations(self, start: int, end: int) -> list[str] | None:
        """The identifiers of the account's generations between two instants (ns); None without an answer."""
        rows = await self._query(["request_count"], ["generation_id"], start, end)
        if rows is None:
            return None
        return list(dict.fromkeys(row.generation_id for row in rows if row.generation_id))

    async def billed(self, start: int, end: int) -> dict[str, Billed] | None:
        """What each generation between two instants (ns) cost, by its identifier; None without an answer."""
        metrics = ["total_usage", "tokens_prompt", "tokens_completion"]
        rows = await self._query(metrics, ["generation_id", "model"], start, end)
        if rows is None:
            return None
        return {
            row.generation_id: Billed(
                row.generation_id,
                row.model or "",
                nano(row.total_usage or Decimal(0)),
                row.tokens_prompt or 0,
                row.tokens_completion or 0,
            )
            for row in rows
            if row.generation_id
        }

    async def usage(self) -> int | None:
        """What the account has ever used (nano-dollars); None without an answer."""
        body = await self._get("/credits", _CreditsBody)
        return None if body is None else nano(body.data.total_usage)

    async def activity(self, day: date) -> int | None:
        """What the account used on a completed UTC day of the last 30 (nano-dollars); None without an answer."""
        body = await self._get(f"/activity?date={day.isoformat()}", _ActivityBody)
        return None if body is None else sum(nano(row.usage) for row in body.data)

    async def _get(self, path: str, kind: type[T]) -> T | None:
        headers = {"authorization": f"Bearer {self._management_key()}"}
        try:
            reply = await self._upstream.get(path, headers, timeout=30.0)
            body = await reply.read(_BODY_LIMIT)
        except UpstreamFailure as error:
            self.last_error = f"{path}: {error}"
            return None
        if reply.status != 200:
            self.last_error = f"{path}: status {reply.status}"
            return None
        return msgspec.json.decode(body, type=kind)

    async def _query(self, metrics: list[str], dimensions: list[str], start: int, end: int) -> list[_Row] | None:
        query: dict[str, Any] = {
            "metrics": metrics,
            "dimensions": dimensions,
            "time_range": {"start": _iso(start), "end": _iso(end)},
            "limit": _PAGE,
        }
        headers = {"authorization": f"Bearer {self._management_key()}", "content-type": "application/json"}
        try:
            reply = await self._upstream.post(
                "/analytics/query", headers, msgspec.json.encode(query), head_timeout=60.0, stream=False
            )
            body = await reply.read(_BODY_LIMIT)
        except UpstreamFailure as error:
            self.last_error = f"analytics: {error}"
            return None
        if reply.status != 200:
            self.last_error = f"analytics: status {reply.status}"
            return None
        answer = msgspec.json.decode(body, type=_AnalyticsBody).data
        if not answer.metadata.truncated or end - start <= _SECOND:
            return answer.data
        middle = (start + end) // 2
        first = await self._query(metrics, dimensions, start, middle)
        second = await self._query(metrics, dimensions, middle, end)
        return None if first is None or second is None else first + second

    def _keys_for(self, slot: str | None) -> list[str]:
        """The key that made the attempt first, then the others: any key of the account may ask."""
        loaded = sorted(self._slots.loaded.values(), key=lambda one: one.hash != slot)
        return [one.key for one in loaded]

    def _management_key(self) -> str | None:
        if self._management_key_file is None:
            return None
        try:
            return self._management_key_file.read_text(encoding="utf-8").strip() or None
        except OSError as error:
            self.last_error = f"{self._management_key_file}: {error.strerror}"
            return None


def _iso(at: int) -> str:
    return datetime.fromtimestamp(at / _SECOND, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
