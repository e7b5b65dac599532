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
import logging
from collections.abc import Callable

from sophia.errors import ApiError
from sophia.gateway.ledger import Ledger
from sophia.gateway.records import Absent, Generation, Records, attempt_of
from sophia.money import nano
from sophia.stores.ledger import LedgerStore
from sophia.stores.model import Intent, Outcome, Settlement, Tokens

__all__ = ["Reconciler"]

_LOG = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_SKEW = 300 * _SECOND
_SETTLED_AFTER = 900 * _SECOND
_REST = 0.2


class Reconciler:
    """Settles what `ledger.unconfirmed` holds. `clock` gives nanoseconds since the epoch.

    `settled_after` is the age from which a listing without the attempt proves that it was not billed.
    """

    def __init__(
        self,
        ledger: Ledger,
        store: LedgerStore,
        records: Records,
        clock: Callable[[], int],
        settled_after: int = _SETTLED_AFTER,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._records = records
        self._clock = clock
        self._settled_after = settled_after
        self._due: dict[str, tuple[int, int]] = {}
        self._seen: dict[str, Generation] = {}
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
        generation = await self._records.generation(generation_id, intent.slot)
        if isinstance(generation, Generation):
            await self._settle(intent, settlement, generation)
            return True
        ended = settlement.at if settlement is not None else intent.at
        if generation is Absent.RECORD and asked - ended > self._settled_after:
            outcome = settlement.outcome if settlement is not None else Outcome.FAILED
            await self._ledger.settle(
                Settlement(intent.attempt, asked, outcome, 0, generation=generation_id, source="generation")
            )
            return True
        return False

    async def _settle(self, intent: Intent, settlement: Settlement | None, generation: Generation) -> None:
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
        if not self._records.managed:
            self.last_error = "unconfirmed spend without a generation needs upstream.management_key_file"
            return
        since = min(intent.at for intent in unknown) - _SKEW
        asked = self._clock()
        listed = await self._records.generations(since, asked + _SKEW)
        if listed is None:
            return
        booked = await self._store.generations(since)
        candidates = [generation for generation in listed if generation not in booked]
        wanted = {intent.attempt: intent for intent in unknown}
        complete = True
        for generation_id in candidates:
            generation = self._seen.get(generation_id) or await self._records.generation(generation_id, None)
            if not isinstance(generation, Generation):
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
