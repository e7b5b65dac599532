# SPDX-License-Identifier: GPL-3.0-or-later
"""The spend ledger's table: applied any number of times in any order, it says the same."""

from __future__ import annotations

import itertools

import pytest

from sophia.stores.database import Database
from sophia.stores.ledger import Entry, LedgerStore, merge
from sophia.stores.model import Intent, Level, Outcome, Period, Settlement, Tokens, window_start
from sophia.stores.reservations import window_end

DAY = 86_400_000_000_000
NOW = 20_000 * DAY + 5


def intent(attempt: str, reserved: int = 100, at: int = NOW, team: str | None = "team") -> Intent:
    return Intent(attempt, "req", at, "org", team, "user", "key", "chat", "model", "slot", reserved, ("tag",))


def end(attempt: str, cost: int | None, generation: str | None = "gen") -> Settlement:
    return Settlement(attempt, NOW + 1, Outcome.COMPLETE, cost, "served", "provider", generation, Tokens(1, 2), "usage")


@pytest.fixture
def store(database: Database) -> LedgerStore:
    return LedgerStore(database, "instance")


async def spent(store: LedgerStore, level: Level = Level.ORGANIZATION, owner: str = "org") -> object:
    window = window_start(Period.DAY, NOW)
    return await store.seed(level, owner, Period.DAY, window, window_end(Period.DAY, window))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_order_and_repetition_do_not_matter(store: LedgerStore, order: tuple[int, ...]) -> None:
    records = [intent("a"), end("a", None), end("a", 42)]
    for index in order:
        # An end without its intent finds no row: the journal's order (intent first) is what `merge` keeps.
        await store.apply(merge([records[0], records[index]]))
    for record in records:
        await store.apply(merge([record]))
    assert await store.pending() == []
    assert await spent(store) == (42, [])


async def test_a_confirmed_cost_is_final(store: LedgerStore) -> None:
    await store.apply({"a": Entry(intent("a"), end("a", 42))})
    await store.apply({"a": Entry(intent("a"), end("a", 99))})
    await store.apply({"a": Entry(None, end("a", 77))})
    await store.apply({"a": Entry(intent("a"), None)})
    assert await spent(store) == (42, [])


async def test_pending_tells_what_is_known(store: LedgerStore) -> None:
    await store.apply(
        {"a": Entry(intent("a")), "b": Entry(intent("b"), end("b", None)), "c": Entry(intent("c"), end("c", 1))}
    )
    (first, second) = await store.pending()
    assert (first[0].attempt, first[1], first[2]) == ("a", None, "instance")
    assert first[0].tags == ("tag",)
    assert second[0].attempt == "b"
    assert second[1] is not None
    assert second[1].generation == "gen"
    assert await spent(store) == (1, [("a", 100), ("b", 100)])
    await store.apply({"a": Entry(None, end("a", 5, None)), "b": Entry(None, end("b", 6, None))})
    assert await store.pending() == []
    assert await store.generations(0) == {"gen"}


async def test_windows_and_levels_are_apart(store: LedgerStore) -> None:
    await store.apply(
        {
            "today": Entry(intent("today"), end("today", 3)),
            "before": Entry(intent("before", at=NOW - DAY), end("before", 5)),
            "teamless": Entry(intent("teamless", team=None), end("teamless", 7)),
        }
    )
    assert await spent(store) == (10, [])
    assert await spent(store, Level.TEAM, "team") == (3, [])
    assert await spent(store, Level.KEY, "other") == (0, [])


def test_merge_keeps_the_first_confirmed_settlement() -> None:
    entry = merge([intent("a"), end("a", None), end("a", 1), end("a", 2), end("a", None)])["a"]
    assert entry.settlement is not None
    assert entry.settlement.cost == 1
