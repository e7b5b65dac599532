# SPDX-License-Identifier: GPL-3.0-or-later
"""The spend ledger's room: an intent is durable before anything is sent, and every attempt is settled once.

The local journal is what is durable on a request's way; a feeder carries it into the ledger's table in batches.
After a crash the journals of dead processes are replayed into the table, and what they left open is handed to
`reconcile`. Reservations follow the ledger: charged with the intent, replaced by the cost at the settlement.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from sophia.errors import ApiError, Unavailable
from sophia.gateway.pulse import BEAT_INTERVAL, Pulse
from sophia.stores import journal
from sophia.stores.journal import Journal, JournalError
from sophia.stores.ledger import Entry, LedgerStore, merge
from sophia.stores.model import Intent, Level, Outcome, Period, Settlement
from sophia.stores.reservations import window_end

__all__ = ["Ledger", "SettleReservation"]

_LOG = logging.getLogger(__name__)

_FEED_INTERVAL = 0.1
_SIBLINGS = 8  # with more requests than these in flight, an intent may wait for company
_RETRY_INTERVAL = 1.0

SettleReservation = Callable[[Intent, int], Awaitable[object]]


class Ledger:
    """Own journal, feeder and the attempts that are not settled yet.

    `settle_reservation(intent, cost)` replaces what the attempt had reserved; `on_settled` hears of every confirmed
    cost, `on_unconfirmed` of every attempt that reconciliation has to settle.
    """

    def __init__(self, store: LedgerStore, root: Path, instance: str, settle_reservation: SettleReservation) -> None:
        self._store = store
        self._root = root
        self._folder = root / instance
        self._settle_reservation = settle_reservation
        self._journal: Journal | None = None
        self._unfed: dict[str, Entry] = {}
        self._feeding = asyncio.Lock()
        self._feeder: asyncio.Task[None] | None = None
        self._pulse = Pulse()
        self._news = asyncio.Event()
        self.open: dict[str, Intent] = {}
        self.unconfirmed: dict[str, tuple[Intent, Settlement | None]] = {}
        self.on_settled: Callable[[Intent, Settlement], None] = lambda intent, settlement: None
        self.on_unconfirmed: Callable[[Intent, Settlement | None], None] = lambda intent, settlement: None

    async def start(self) -> None:
        """Take the own journal, replay those of the dead, and load what is not settled.

        Raises:
            Unavailable: the database does not answer.
        """
        self._journal = Journal(self._folder)
        await self._beat()
        await self.adopt()
        self._feeder = asyncio.create_task(self._feed_forever(), name="ledger feeder")

    async def adopt(self) -> int:
        """Replay the journals of dead processes and take over what they left unsettled; returns how much."""
        for folder, lock in journal.abandoned(self._root, self._folder):
            try:
                entries = await asyncio.to_thread(_replay, folder)
                await self._store.apply(entries)
                await self._store.bury(folder.name)
                await asyncio.to_thread(journal.remove, folder)
            finally:
                os.close(lock)
        living = {path.name for path in self._root.iterdir()} | await self._beat()
        adopted = 0
        # Fed meanwhile, an attempt settled here would be in neither place, and its old row would look abandoned.
        async with self._feeding:
            held = self.open.keys() | self._unfed.keys()
            rows = {row[0].attempt: row for row in await self._store.pending()}
            for attempt in self.unconfirmed.keys() - rows.keys() - held:
                del self.unconfirmed[attempt]  # another instance has settled it
            for attempt, (intent, settlement, instance) in rows.items():
                if attempt in held:
                    continue
                if attempt in self.unconfirmed:
                    self.unconfirmed[attempt] = (intent, settlement or self.unconfirmed[attempt][1])
                elif instance not in living - {self._folder.name}:
                    self.unconfirmed[attempt] = (intent, settlement)
                    self.on_unconfirmed(intent, settlement)
                    adopted += 1
        return adopted

    async def _beat(self) -> set[str]:
        """Show that this process lives; the instances that may live too."""
        self._pulse.observe(await self._store.beat(), time.monotonic())
        return self._pulse.living()

    def require_open(self) -> None:
        """Raise `Unavailable` until the ledger has been started: nothing may be sent before."""
        if self._journal is None:
            raise Unavailable("ledger_unavailable", "The spend ledger is not open yet; try again.", retry_after=1.0)

    async def intend(self, intent: Intent) -> None:
        """Make the intent durable. Nothing may be sent upstream before this returns.

        Raises:
            Unavailable: the journal cannot be written (disk full); the request must not go out.
        """
        self.require_open()
        # Known before it is written: a segment is discarded once all that is known has been fed.
        self.open[intent.attempt] = intent
        self._unfed.setdefault(intent.attempt, Entry()).intent = intent
        try:
            await self._journal.append_durable(intent, patient=len(self.open) > _SIBLINGS)  # type: ignore[union-attr]
        except JournalError as error:
            await self.unsent(intent, intent.at)
            raise Unavailable("ledger_unavailable", f"{error}; free disk space", retry_after=5.0) from error

    async def settle(self, settlement: Settlement) -> None:
        """Record how an attempt ended. With a cost of None it stays charged, and is handed to reconciliation.

        Called again for an attempt that is settled already, it does nothing.
        """
        known = self.open.pop(settlement.attempt, None)
        waiting = self.unconfirmed.get(settlement.attempt)
        if known is None and waiting is None:
            return
        intent = known if known is not None else waiting[0]  # type: ignore[index]
        self._record(settlement)
        if settlement.cost is None:
            self.unconfirmed[settlement.attempt] = (intent, settlement)
            if waiting is None:
                self._news.set()
                self.on_unconfirmed(intent, settlement)
            return
        self.unconfirmed.pop(settlement.attempt, None)
        self.on_settled(intent, settlement)
        try:
            await self._settle_reservation(intent, settlement.cost)
        except ApiError:
            # The reservation store is away; what it forgets or keeps is put right when it is seeded again.
            _LOG.warning("reservation not settled", extra={"attempt": settlement.attempt})

    async def news(self, seconds: float) -> None:
        """Wait until an attempt has become unconfirmed, for so many seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        self._news.clear()

    async def unsent(self, intent: Intent, at: int) -> None:
        """Settle an attempt that provably never reached the upstream."""
        await self.settle(Settlement(intent.attempt, at, Outcome.UNSENT, 0, source="none"))

    async def seed(self, level: Level, owner: str, period: Period, window: int) -> tuple[int, list[tuple[str, int]]]:
        """Spend and open reservations of a window, with everything that this process knows.

        Raises:
            Unavailable: the database does not answer.
        """
        async with self._feeding:
            await self._feed()
            spent, opened = await self._store.seed(level, owner, period, window, window_end(period, window))
            # What was settled while the database was asked is not fed before this returns.
            still: list[tuple[str, int]] = []
            for attempt, reserved in opened:
                entry = self._unfed.get(attempt)
                end = entry.settlement if entry is not None else None
                if end is not None and end.cost is not None:
                    spent += end.cost
                else:
                    still.append((attempt, reserved))
            return spent, still

    async def flush(self) -> None:
        """Carry everything recorded so far into the table. Raises `Unavailable`."""
        async with self._feeding:
            await self._feed()

    async def _feed(self) -> None:
        if not self._unfed or self._journal is None:
            return
        entries, self._unfed = self._unfed, {}
        segment = self._journal.segment
        try:
            await self._store.apply(entries)
        except BaseException:
            for attempt, entry in self._unfed.items():
                earlier = entries.setdefault(attempt, Entry())
                earlier.intent = entry.intent or earlier.intent
                earlier.settlement = entry.settlement or earlier.settlement
            self._unfed = entries
            raise
        self._journal.discard(segment - 1)

    async def stop(self) -> None:
        """Feed the rest and let go of the journal; what could not be fed stays in it for the next start."""
        if self._feeder is not None:
            self._feeder.cancel()
            await asyncio.gather(self._feeder, return_exceptions=True)
        if self._journal is None:
            return
        empty = True
        try:
            await self.flush()
            await self._store.bury(self._folder.name)
        except ApiError:
            empty = False
        await self._journal.close(empty=empty)

    def _record(self, settlement: Settlement) -> None:
        if self._journal is not None:
            self._journal.append(settlement)
        entry = self._unfed.setdefault(settlement.attempt, Entry())
        if entry.settlement is None or entry.settlement.cost is None:
            entry.settlement = settlement

    async def _feed_forever(self) -> None:
        beaten = time.monotonic()
        while True:
            await asyncio.sleep(_FEED_INTERVAL)
            if self._journal is not None:
                self._journal.nudge()
            try:
                await self.flush()
                if time.monotonic() - beaten >= BEAT_INTERVAL:
                    await self._beat()
                    beaten = time.monotonic()
            except ApiError as error:
                _LOG.warning("ledger not fed", extra={"reason": error.message, "waiting": len(self._unfed)})
                await asyncio.sleep(_RETRY_INTERVAL)
            except Exception:
                # Whatever it is, a ledger that is fed no more would be worse: what waits is tried again.
                _LOG.exception("ledger not fed", extra={"waiting": len(self._unfed)})
                await asyncio.sleep(_RETRY_INTERVAL)


def _replay(folder: Path) -> dict[str, Entry]:
    return merge(journal.read(folder))
