# SPDX-License-Identifier: GPL-3.0-or-later
"""Unconfirmed spend, settled by OpenRouter's own record.

An attempt whose cost is not known (client gone, stream cut, process killed) stays charged until OpenRouter says
what it billed: `GET /generation?id=` where the generation's identifier is known, which answers 404 for a while.
Where it is not known (killed before the answer's head), the generations that the account has and the ledger has
not are listed (`POST /analytics/query` by `generation_id`, with the management key), and each is asked for the
attempt that it carries: every attempt sends itself as the product comment of its User-Agent, and the generation's
record returns that.

An attempt that no generation claims, or whose generation has no record, is settled as not billed once it is old
enough for the records to be complete.
"""

from __future__ import annotations

import asyncio
import enum
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import msgspec

from sophia import __version__
from sophia.errors import ApiError
from sophia.gateway.ledger import Ledger
from sophia.gateway.slots import Slots
from sophia.gateway.upstream import Upstream, UpstreamFailure
from sophia.money import nano
from sophia.stores.ledger import LedgerStore
from sophia.stores.model import Intent, Outcome, Settlement, Tokens

__all__ = ["Reconciler", "attempt_of", "user_agent"]

_LOG = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_SKEW = 300 * _SECOND
_SETTLED_AFTER = 900 * _SECOND
_BODY_LIMIT = 8 * 1024 * 1024
_PAGE = 1000
_REST = 0.2
_ATTEMPT = re.compile(r"\battempt/(att_[0-9a-z]{26})\b")


def user_agent(attempt: str) -> str:
    """The User-Agent of an attempt (RFC 9110, 10.1.5: product, then products)."""
    return f"sophia-gateway/{__version__} attempt/{attempt}"


def attempt_of(agent: str | None) -> str | None:
    """The attempt that a generation's recorded User-Agent names."""
    found = _ATTEMPT.search(agent or "")
    return found[1] if found else None


class _Generation(msgspec.Struct):
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


class _GenerationBody(msgspec.Struct):
    data: _Generation


class _Absent(enum.Enum):
    """Why there is no record: OpenRouter has none, or did not answer."""

    RECORD = enum.auto()
    ANSWER = enum.auto()


class _Row(msgspec.Struct):
    generation_id: str | None = None


class _Metadata(msgspec.Struct):
    truncated: bool = False


class _Analytics(msgspec.Struct):
    data: list[_Row]
    metadata: _Metadata


class _AnalyticsBody(msgspec.Struct):
    data: _Analytics


class Reconciler:
    """Settles what `ledger.unconfirmed` holds. `clock` gives nanoseconds since the epoch.

    `settled_after` is the age from which a listing without the attempt proves that it was not billed.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: LedgerStore,
        upstream: Upstream,
        slots: Slots,
        clock: Callable[[], int],
        management_key_file: Path | None = None,
        settled_after: int = _SETTLED_AFTER,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._upstream = upstream
        self._slots = slots
        self._clock = clock
        self._management_key_file = management_key_file
        self._settled_after = settled_after
        self._due: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, _Generation] = {}
        self._pass = asyncio.Lock()
        self.last_error: str | None = None

    async def run(self) -> None:
        """Reconcile for ever."""
        while True:
            try:
                await self._ledger.adopt()
                pause = await self.once()
            except ApiError as error:
                self.last_error = error.message
                pause = 2.0
            await asyncio.sleep(_REST)
            await self._ledger.news(min(max(pause, _REST), 30.0))

    async def once(self, *, force: bool = False) -> float:
        """One pass over what is due (all with `force`); returns the seconds until the next is due.

        Raises:
            Unavailable: the database does not answer.
        """
        async with self._pass:
            now = self._clock()
            unknown: list[Intent] = []
            for attempt, (intent, settlement) in list(self._ledger.unconfirmed.items()):
                due, tries = self._due.get(attempt, (0, 0))
                if due > now and not force:
                    continue
                generation = settlement.generation if settlement is not None else None
                if generation is None:
                    unknown.append(intent)
                elif await self._confirm(intent, settlement, generation):
                    self._due.pop(attempt, None)
                    continue
                self._due[attempt] = (now + min(2**tries, 300) * _SECOND // 2, tries + 1)
            if unknown:
                await self._find(unknown)
            self._due = {attempt: due for attempt, due in self._due.items() if attempt in self._ledger.unconfirmed}
            if not self._due:
                return 1.0
            return (min(due for due, _ in self._due.values()) - self._clock()) / _SECOND

    async def _confirm(self, intent: Intent, settlement: Settlement | None, generation_id: str) -> bool:
        asked = self._clock()
        generation = await self._generation(generation_id, intent.slot)
        if isinstance(generation, _Generation):
            await self._settle(intent, settlement, generation)
            return True
        ended = settlement.at if settlement is not None else intent.at
        if generation is _Absent.RECORD and asked - ended > self._settled_after:
            outcome = settlement.outcome if settlement is not None else Outcome.FAILED
            await self._ledger.settle(
                Settlement(intent.attempt, asked, outcome, 0, generation=generation_id, source="generation")
            )
            return True
        return False

    async def _settle(self, intent: Intent, settlement: Settlement | None, generation: _Generation) -> None:
        outcome = settlement.outcome if settlement is not None else Outcome.ABORTED
        await self._ledger.settle(
            Settlement(
                attempt=intent.attempt,
                at=self._clock(),
                outcome=outcome,
                cost=nano(generation.total_cost),
                model=generation.model,
                provider=generation.provider_name,
                generation=generation.id,
                tokens=Tokens(
                    generation.native_tokens_prompt or 0,
                    generation.native_tokens_completion or 0,
                    generation.native_tokens_cached or 0,
                    generation.native_tokens_reasoning or 0,
                ),
                source="generation",
            )
        )

    async def _find(self, unknown: list[Intent]) -> None:
        """Look for the generations of attempts whose generation is not known."""
        management_key = self._management_key()
        if management_key is None:
            self.last_error = "unconfirmed spend without a generation needs upstream.management_key_file"
            return
        since = min(intent.at for intent in unknown) - _SKEW
        asked = self._clock()
        listed = await self._list(management_key, since, asked + _SKEW)
        if listed is None:
            return
        booked = await self._store.generations(since)
        candidates = [generation for generation in listed if generation not in booked]
        wanted = {intent.attempt: intent for intent in unknown}
        complete = True
        for generation_id in candidates:
            generation = self._seen.get(generation_id) or await self._generation(generation_id, None)
            if not isinstance(generation, _Generation):
                complete = False
                continue
            self._seen[generation_id] = generation
            intent = wanted.pop(attempt_of(generation.user_agent) or "", None)
            if intent is not None:
                known = self._ledger.unconfirmed.get(intent.attempt)
                await self._settle(intent, known[1] if known else None, generation)
        self._seen = {name: kept for name, kept in self._seen.items() if name in candidates}
        for intent in wanted.values():
            known = self._ledger.unconfirmed.get(intent.attempt)
            ended = known[1].at if known is not None and known[1] is not None else intent.at
            if complete and asked - ended > self._settled_after:
                await self._ledger.settle(Settlement(intent.attempt, asked, Outcome.UNSENT, 0, source="generation"))

    async def _list(self, management_key: str, start: int, end: int) -> list[str] | None:
        """Generation identifiers between two instants, halving the window where the answer is truncated."""
        query = {
            "metrics": ["request_count"],
            "dimensions": ["generation_id"],
            "time_range": {"start": _iso(start), "end": _iso(end)},
            "limit": _PAGE,
        }
        headers = {"authorization": f"Bearer {management_key}", "content-type": "application/json"}
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
        found = [row.generation_id for row in answer.data if row.generation_id]
        if not answer.metadata.truncated or end - start <= _SECOND:
            return found
        middle = (start + end) // 2
        first = await self._list(management_key, start, middle)
        second = await self._list(management_key, middle, end)
        return None if first is None or second is None else list(dict.fromkeys(first + second))

    async def _generation(self, generation_id: str, slot: str | None) -> _Generation | _Absent:
        """OpenRouter's record of a generation, or what keeps it from us."""
        absent = _Absent.ANSWER
        for key in self._keys_for(slot):
            headers = {"authorization": f"Bearer {key}"}
            try:
                reply = await self._upstream.get(f"/generation?id={generation_id}", headers, timeout=30.0)
                body = await reply.read(_BODY_LIMIT)
            except UpstreamFailure as error:
                self.last_error = f"generation: {error}"
                return _Absent.ANSWER
            if reply.status == 200:
                return msgspec.json.decode(body, type=_GenerationBody).data
            absent = _Absent.RECORD if reply.status == 404 else _Absent.ANSWER
            self.last_error = f"generation {generation_id}: status {reply.status}"
        return absent

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
