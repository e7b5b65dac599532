# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of a running process: it takes over what the dead left, and never what it has settled itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sophia.gateway.ledger import Ledger
from sophia.stores.database import Database
from sophia.stores.ledger import Entry, LedgerStore
from sophia.stores.model import Intent, Outcome, Settlement


def intent(attempt: str) -> Intent:
    return Intent(attempt, "req", 5, "org", None, "user", "key", "chat", "model", "slot", 100, ())


def end(attempt: str) -> Settlement:
    return Settlement(attempt, 6, Outcome.COMPLETE, 42)


async def test_what_is_settled_but_not_fed_is_not_taken_over(database: Database, tmp_path: Path) -> None:
    settled: list[str] = []

    async def settle(intent: Intent, cost: int) -> None:
        settled.append(intent.attempt)

    ledger = Ledger(LedgerStore(database, "instance"), tmp_path, "instance", settle)
    await ledger.start()
    names = [f"attempt_{number}" for number in range(200)]
    for name in names:
        await ledger.intend(intent(name))
        if len(settled) % 2:
            await ledger.flush()
        await asyncio.gather(ledger.settle(end(name)), ledger.adopt(), ledger.flush(), ledger.adopt())
    assert await ledger.adopt() == 0
    assert ledger.unconfirmed == {}
    assert settled == names
    await ledger.stop()


async def test_what_a_dead_process_left_is_taken_over_once(database: Database, tmp_path: Path) -> None:
    dead = LedgerStore(database, "dead")

    async def settle(intent: Intent, cost: int) -> None:
        pass

    first = Ledger(dead, tmp_path, "dead", settle)
    await first.start()
    await first.intend(intent("left"))
    await first.stop()
    ledger = Ledger(LedgerStore(database, "instance"), tmp_path, "instance", settle)
    await ledger.start()
    assert list(ledger.unconfirmed) == ["left"]
    await ledger.settle(end("left"))
    assert await ledger.adopt() == 0
    assert ledger.unconfirmed == {}
    await ledger.stop()


async def test_what_a_living_replica_elsewhere_has_open_is_left_to_it(database: Database, tmp_path: Path) -> None:
    async def settle(intent: Intent, cost: int) -> None:
        pass

    here = Ledger(LedgerStore(database, "here"), tmp_path / "here", "here", settle)
    there = Ledger(LedgerStore(database, "there"), tmp_path / "there", "there", settle)
    await here.start()
    await there.start()
    await there.intend(intent("streaming"))
    await there.flush()
    assert await here.adopt() == 0
    assert here.unconfirmed == {}
    await there.stop()
    assert await here.adopt() == 1
    await here.settle(end("streaming"))
    await here.stop()


async def test_what_another_has_settled_meanwhile_is_forgotten(database: Database, tmp_path: Path) -> None:
    async def settle(intent: Intent, cost: int) -> None:
        pass

    here = Ledger(LedgerStore(database, "here"), tmp_path, "here", settle)
    await here.start()
    there = LedgerStore(database, "there")
    await there.apply({"left": Entry(intent("left"))})
    assert await here.adopt() == 1
    generation = Settlement("left", 9, Outcome.ABORTED, None, generation="gen")
    await there.apply({"left": Entry(None, generation)})
    assert await here.adopt() == 0
    known = here.unconfirmed["left"][1]
    assert known is not None
    assert (known.at, known.generation) == (9, "gen")
    await there.apply({"left": Entry(None, end("left"))})
    assert await here.adopt() == 0
    assert here.unconfirmed == {}
    await here.stop()


async def test_who_waits_for_news_hears_of_what_became_unconfirmed(database: Database, tmp_path: Path) -> None:
    async def settle(intent: Intent, cost: int) -> None:
        pass

    ledger = Ledger(LedgerStore(database, "instance"), tmp_path, "instance", settle)
    await ledger.start()
    await ledger.intend(intent("cut"))
    waiting = asyncio.create_task(ledger.news(60.0))
    await asyncio.sleep(0)
    await ledger.settle(Settlement("cut", 6, Outcome.PARTIAL, None, generation="gen"))
    async with asyncio.timeout(30.0):
        await waiting
    await ledger.news(0.001)  # nothing new: it ends by its time
    await ledger.settle(end("cut"))
    await ledger.stop()


async def test_an_unforeseen_error_does_not_end_the_feeding(database: Database, tmp_path: Path) -> None:
    class Broken(LedgerStore):
        failures = 1

        async def apply(self, entries: dict[str, Entry]) -> None:
            if entries and self.failures:
                self.failures -= 1
                raise RuntimeError("unforeseen")
            await super().apply(entries)

    async def settle(intent: Intent, cost: int) -> None:
        pass

    store = Broken(database, "instance")
    ledger = Ledger(store, tmp_path, "instance", settle)
    await ledger.start()
    await ledger.intend(intent("kept"))
    await ledger.settle(end("kept"))
    async with asyncio.timeout(20):
        while await store.costs(["kept"]) != {"kept": 42}:  # noqa: ASYNC110 - a database has no event for it
            await asyncio.sleep(0.05)
    assert store.failures == 0
    await ledger.stop()
