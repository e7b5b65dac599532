# SPDX-License-Identifier: GPL-3.0-or-later
"""Both implementations of the reservations under the same tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from sophia.stores.model import Account, Level, Period, Refusal, window_start
from sophia.stores.reservations import DAY, LocalReservations, Reservations, Settled, window_end
from sophia.stores.reservations_redis import RedisReservations
from sophia.stores.scripts import open_redis

ORGANIZATION = "org_a"


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


NOON = at("2026-10-14T12:00:00")
ORG_DAY = Account(Level.ORGANIZATION, ORGANIZATION, Period.DAY, 1000)
ORG_MONTH = Account(Level.ORGANIZATION, ORGANIZATION, Period.MONTH, 5000)
USER_DAY = Account(Level.USER, "usr_a", Period.DAY, 300)
USER_WEEK = Account(Level.USER, "usr_a", Period.WEEK, 2000)
OTHER_DAY = Account(Level.USER, "usr_b", Period.DAY, 300)
CHAIN = (ORG_DAY, ORG_MONTH, USER_DAY, USER_WEEK)


async def nothing_spent(level: Level, owner: str, period: Period, window: int) -> tuple[int, list[tuple[str, int]]]:
    return 0, []


@pytest.fixture(params=["local", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Reservations]:
    if request.param == "local":
        yield LocalReservations()
        return
    client = open_redis(request.getfixturevalue("redis_url"))
    reservations = RedisReservations(client, nothing_spent, "replica-1", grace=0.0, timeout=30.0)
    yield reservations
    await reservations.close()
    await client.aclose()


async def test_a_reservation_charges_every_account_and_a_settlement_replaces_it(store: Reservations) -> None:
    assert await store.reserve("a1", CHAIN, 200, NOON) is None
    assert await store.usage(CHAIN, NOON) == [(0, 200)] * 4
    assert await store.settle("a1", 150) == Settled(True)
    assert await store.usage(CHAIN, NOON) == [(150, 0)] * 4


async def test_what_one_account_refuses_is_charged_to_none(store: Reservations) -> None:
    assert await store.reserve("a1", CHAIN, 200, NOON) is None
    refusal = await store.reserve("a2", CHAIN, 101, NOON)
    assert refusal == Refusal("reserved", USER_DAY, 100, 1.0)
    assert await store.usage(CHAIN, NOON) == [(0, 200)] * 4
    assert await store.reserve("a3", CHAIN, 100, NOON) is None


async def test_a_refusal_tells_spent_from_reserved_and_when_it_resets(store: Reservations) -> None:
    await store.reserve("a1", CHAIN, 200, NOON)
    await store.settle("a1", 200)
    assert await store.reserve("a2", CHAIN, 101, NOON) == Refusal("spent", USER_DAY, 100, 12 * 3600.0)
    week = Account(Level.USER, "usr_a", Period.WEEK, 250)
    refusal = await store.reserve("a3", (USER_DAY, week), 101, NOON)
    # 14 October 2026 is a Wednesday: both are exhausted, and the week is the longer wait.
    assert refusal == Refusal("spent", week, 50, 4.5 * 86400)


async def test_spent_goes_before_reserved(store: Reservations) -> None:
    await store.reserve("a1", (USER_DAY,), 250, NOON)
    await store.reserve("a2", (OTHER_DAY,), 250, NOON)
    await store.settle("a2", 250)
    refusal = await store.reserve("a3", (USER_DAY, OTHER_DAY), 100, NOON)
    assert refusal is not None
    assert (refusal.kind, refusal.account, refusal.headroom) == ("spent", OTHER_DAY, 50)


async def test_a_cap_of_nothing_refuses_even_what_is_free(store: Reservations) -> None:
    closed = Account(Level.KEY, "key_a", Period.DAY, 0)
    refusal = await store.reserve("a1", (ORG_DAY, closed), 0, NOON)
    assert refusal is not None
    assert (refusal.kind, refusal.account) == ("spent", closed)
    assert await store.usage((ORG_DAY, closed), NOON) == [(0, 0)] * 2


async def test_what_is_free_fits_into_a_budget_that_is_just_full(store: Reservations) -> None:
    await store.reserve("a1", (USER_DAY,), 300, NOON)
    assert await store.reserve("a2", (USER_DAY,), 0, NOON) is None
    await store.settle("a1", 300)
    assert await store.reserve("a3", (USER_DAY,), 0, NOON) is None
    assert await store.settle("a2", 0) == Settled(True)
    assert await store.settle("a3", 0) == Settled(True)
    assert await store.usage((USER_DAY,), NOON) == [(300, 0)]


async def test_a_settlement_counts_once(store: Reservations) -> None:
    await store.reserve("a1", CHAIN, 200, NOON)
    results = await asyncio.gather(*(store.settle("a1", cost) for cost in (50, 60, 70, 80)))
    assert sorted(result.booked for result in results) == [False, False, False, True]
    assert await store.release("a1") == Settled(False)
    [(spent, reserved), *_] = await store.usage(CHAIN, NOON)
    assert spent in (50, 60, 70, 80)
    assert reserved == 0


async def test_a_settlement_of_something_unknown_changes_nothing(store: Reservations) -> None:
    assert await store.settle("never", 50) == Settled(False)
    assert await store.usage(CHAIN, NOON) == [(0, 0)] * 4


async def test_an_overrun_is_booked_in_full_and_reported(store: Reservations) -> None:
    await store.reserve("a1", CHAIN, 200, NOON)
    assert await store.settle("a1", 350) == Settled(True, overrun=150)
    assert await store.usage(CHAIN, NOON) == [(350, 0)] * 4
    refusal = await store.reserve("a2", CHAIN, 0, NOON)
    assert refusal is not None
    assert (refusal.kind, refusal.headroom) == ("spent", 0)


async def test_a_release_leaves_nothing_behind(store: Reservations) -> None:
    await store.reserve("a1", CHAIN, 300, NOON)
    assert await store.release("a1") == Settled(True)
    assert await store.usage(CHAIN, NOON) == [(0, 0)] * 4
    assert await store.reserve("a2", CHAIN, 300, NOON) is None


async def test_a_reservation_repeated_while_open_is_charged_once(store: Reservations) -> None:
    for _ in range(3):
        assert await store.reserve("a1", CHAIN, 200, NOON) is None
    assert await store.usage(CHAIN, NOON) == [(0, 200)] * 4


async def test_a_settlement_books_in_the_windows_where_it_was_reserved(store: Reservations) -> None:
    late = at("2026-10-31T23:59:59")
    next_day = late + 2_000_000_000
    await store.reserve("a1", CHAIN, 200, late)
    assert await store.usage(CHAIN, next_day) == [(0, 0), (0, 0), (0, 0), (0, 200)]
    await store.settle("a1", 150)
    assert await store.usage(CHAIN, next_day) == [(0, 0), (0, 0), (0, 0), (150, 0)]
    assert await store.usage(CHAIN, late) == [(150, 0)] * 4


async def test_a_held_reservation_stays_charged_until_it_is_settled(store: Reservations) -> None:
    await store.reserve("a1", CHAIN, 200, NOON)
    await store.hold("a1")
    with pytest.raises(LookupError):
        await store.resize("a1", 100)
    assert await store.usage(CHAIN, NOON) == [(0, 200)] * 4
    assert await store.opened(NOON + DAY) == ["a1"]
    assert await store.settle("a1", 120) == Settled(True)
    assert await store.usage(CHAIN, NOON) == [(120, 0)] * 4


async def test_a_reservation_shrinks_and_grows_within_the_caps(store: Reservations) -> None:
    await store.reserve("a1", CHAIN, 200, NOON)
    assert await store.resize("a1", 50) is None
    assert await store.usage(CHAIN, NOON) == [(0, 50)] * 4
    await store.reserve("a2", CHAIN, 200, NOON)
    assert await store.resize("a1", 101) == Refusal("reserved", USER_DAY, 50, 1.0)
    assert await store.usage(CHAIN, NOON) == [(0, 250)] * 4
    assert await store.resize("a1", 100) is None
    assert await store.settle("a1", 130) == Settled(True, overrun=30)
    assert await store.usage(CHAIN, NOON) == [(130, 200)] * 4
    with pytest.raises(LookupError):
        await store.resize("a1", 10)


async def test_a_request_takes_what_there_is_between_floor_and_want(store: Reservations) -> None:
    assert await store.take("a1", (ORG_DAY,), 900, 10, 0.25, NOON) == 250
    assert await store.take("a2", (ORG_DAY,), 900, 10, 0.25, NOON) == 187
    assert await store.take("a3", (ORG_DAY,), 100, 10, 0.25, NOON) == 100
    assert await store.take("a4", (ORG_DAY,), 900, 400, 0.25, NOON) == 400
    assert await store.take("a5", (ORG_DAY,), 900, 63, 0.25, NOON) == 63
    assert await store.take("a6", (ORG_DAY,), 900, 1, 0.25, NOON) == Refusal("reserved", ORG_DAY, 0, 1.0)


async def test_nothing_to_charge_is_always_granted(store: Reservations) -> None:
    assert await store.reserve("a1", (), 10**18, NOON) is None
    assert await store.resize("a1", 2 * 10**18) is None
    assert await store.settle("a1", 10**18) == Settled(True)
    assert await store.settle("a1", 10**18) == Settled(False)
    assert await store.usage((), NOON) == []


async def test_a_cap_holds_as_it_is_now(store: Reservations) -> None:
    await store.reserve("a1", (USER_DAY,), 300, NOON)
    raised = Account(Level.USER, "usr_a", Period.DAY, 400)
    assert await store.reserve("a2", (raised,), 100, NOON) is None
    refusal = await store.reserve("a3", (USER_DAY,), 0, NOON)
    assert refusal is not None
    assert (refusal.kind, refusal.headroom) == ("reserved", 0)


async def test_amounts_are_exact(store: Reservations) -> None:
    large = Account(Level.ORGANIZATION, ORGANIZATION, Period.MONTH, 2**53 - 1)
    assert await store.reserve("a1", (large,), 2**53 - 2, NOON) is None
    assert await store.reserve("a2", (large,), 1, NOON) is None
    assert await store.reserve("a3", (large,), 1, NOON) == Refusal("reserved", large, 0, 1.0)
    await store.settle("a1", 2**53 - 3)
    assert await store.usage((large,), NOON) == [(2**53 - 3, 1)]


async def test_nonsense_is_refused(store: Reservations) -> None:
    with pytest.raises(ValueError, match="floor"):
        await store.reserve("a1", CHAIN, -1, NOON)
    with pytest.raises(ValueError, match="floor"):
        await store.take("a1", CHAIN, 10, 11, 0.5, NOON)
    with pytest.raises(ValueError, match="twice"):
        await store.reserve("a1", (USER_DAY, ORG_DAY, USER_DAY), 1, NOON)


async def test_open_attempts_are_listed_oldest_first(store: Reservations) -> None:
    for index, name in enumerate(["a3", "a1", "a2"]):
        await store.reserve(name, CHAIN, 10, NOON + index * 1_000_000_000)
    await store.settle("a1", 10)
    assert await store.opened(NOON + 3_000_000_000) == ["a3", "a2"]
    assert await store.opened(NOON + 2_000_000_000) == ["a3"]


async def test_a_settlement_wakes_the_one_who_waits(store: Reservations) -> None:
    await store.reserve("a1", CHAIN, 300, NOON)
    waiting = asyncio.create_task(store.changed(30.0))
    await asyncio.sleep(0)
    await store.settle("a1", 10)
    await asyncio.wait_for(waiting, 20.0)
    await store.changed(0.01)  # nothing more happened: it returns when the time is up


async def test_a_settlement_is_not_missed_between_two_waits(store: Reservations) -> None:
    await store.reserve("a1", CHAIN, 300, NOON)
    await store.settle("a1", 10)
    await asyncio.wait_for(store.changed(30.0), 20.0)


async def test_a_store_that_is_there_answers(store: Reservations) -> None:
    await store.ping()


async def test_a_thousand_at_once_never_pass_a_cap_and_leave_no_phantom(store: Reservations) -> None:
    cap = 100_000
    chain = (
        Account(Level.ORGANIZATION, ORGANIZATION, Period.DAY, cap),
        Account(Level.ORGANIZATION, ORGANIZATION, Period.MONTH, cap * 10),
        Account(Level.TEAM, "team_a", Period.WEEK, cap * 2),
    )
    random_amounts = random.Random(7)
    watched: list[tuple[int, int]] = []

    async def request(number: int) -> int | None:
        amount = random_amounts.randint(1, 1000)
        refusal = await store.reserve(f"a{number}", chain, amount, NOON)
        watched.extend(await store.usage(chain[:1], NOON))
        if refusal is not None:
            return None
        cost = random_amounts.randint(0, amount)
        await store.settle(f"a{number}", cost)
        watched.extend(await store.usage(chain[:1], NOON))
        return cost

    costs = await asyncio.gather(*(request(number) for number in range(1000)))
    assert max(spent + reserved for spent, reserved in watched) <= cap
    total = sum(cost for cost in costs if cost is not None)
    assert await store.usage(chain, NOON) == [(total, 0)] * 3
    assert await store.reserve("last", chain, cap - total, NOON) is None
    assert await store.reserve("beyond", chain, 1, NOON) is not None


@pytest.mark.parametrize(
    ("period", "start", "end"),
    [
        (Period.DAY, "2026-12-31T00:00:00", "2027-01-01T00:00:00"),
        (Period.WEEK, "2026-12-28T00:00:00", "2027-01-04T00:00:00"),
        (Period.MONTH, "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        (Period.MONTH, "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    ],
)
def test_windows_end_where_the_next_begins(period: Period, start: str, end: str) -> None:
    assert window_end(period, at(start)) == at(end)
    assert window_start(period, at(end)) == at(end)
    assert window_start(period, at(end) - 1) == at(start)


async def test_a_restart_of_one_process_restores_spend_and_open_reservations() -> None:
    store = LocalReservations()
    day, month = window_start(Period.DAY, NOON), window_start(Period.MONTH, NOON)
    store.restore(
        [(Level.USER, "usr_a", Period.DAY, day, 100), (Level.ORGANIZATION, ORGANIZATION, Period.MONTH, month, 4000)],
        [("a1", (USER_DAY, ORG_MONTH), 150, NOON - 1)],
    )
    assert await store.usage((USER_DAY, ORG_MONTH), NOON) == [(100, 150), (4000, 150)]
    refusal = await store.reserve("a2", (USER_DAY, ORG_MONTH), 51, NOON)
    assert refusal is not None
    assert refusal.kind == "reserved"
    assert await store.settle("a1", 10) == Settled(True)
    assert await store.reserve("a2", (USER_DAY, ORG_MONTH), 51, NOON) is None


async def test_old_windows_are_forgotten_in_memory() -> None:
    store = LocalReservations()
    for number in range(200):
        await store.reserve(f"a{number}", CHAIN, 1, NOON + number * DAY)
        await store.settle(f"a{number}", 1)
    assert len(store._cells) <= 2 * len(CHAIN)


async def test_growth_is_refused_also_where_a_window_joined_later() -> None:
    opened: list[tuple[str, int]] = []

    async def seed(level: Level, owner: str, period: Period, window: int) -> tuple[int, list[tuple[str, int]]]:
        return 0, opened

    store = LocalReservations(seed)
    await store.reserve("a1", (USER_DAY,), 200, NOON)
    opened.append(("a1", 200))
    assert await store.usage((ORG_DAY,), NOON) == [(0, 200)]
    assert await store.resize("a1", 301) == Refusal("reserved", USER_DAY, 100, 1.0)
    assert await store.resize("a1", 300) is None
    assert await store.settle("a1", 50) == Settled(True)
    assert await store.usage((ORG_DAY, USER_DAY), NOON) == [(50, 0)] * 2
