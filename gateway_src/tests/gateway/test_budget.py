# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting for money: order, deadlines, and answers that say what to do."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from functools import partial

import pytest

from sophia.errors import PaymentRequired, TooManyRequests
from sophia.gateway.budget import Budget, Granted
from sophia.settings import BudgetSettings
from sophia.stores.model import Account, Level, Period, Refusal
from sophia.stores.reservations import LocalReservations, Reservations, StoreAway
from sophia.stores.reservations_redis import RedisReservations
from sophia.stores.scripts import open_redis

SECOND = 1_000_000_000
NOON = 1_791_979_200 * SECOND  # 14 October 2026, a Wednesday
LATER = NOON + 3600 * SECOND
ORG = Account(Level.ORGANIZATION, "org_a", Period.DAY, 1000)
ANN = Account(Level.USER, "usr_ann", Period.DAY, 300)
BOB = Account(Level.USER, "usr_bob", Period.DAY, 300)
PATIENT = BudgetSettings(wait=30.0)
HURRIED = BudgetSettings(wait=0.05)


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


MakeBudget = Callable[[BudgetSettings], Budget]


@pytest.fixture
async def make(store: Reservations) -> AsyncIterator[MakeBudget]:
    made: list[Budget] = []

    def make(settings: BudgetSettings) -> Budget:
        made.append(Budget(store, settings, lambda: NOON))
        return made[-1]

    yield make
    for budget in made:
        await budget.close()


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(5000):
        if await condition():
            return
        await asyncio.sleep(0.002)
    pytest.fail("it did not become true")


async def started(call: Coroutine[None, None, Granted], budget: Budget, waiting: int) -> asyncio.Task[Granted]:
    """The call as a task, once so many requests wait."""
    task = asyncio.create_task(call)

    async def all_wait() -> bool:
        return len(budget._waiters) >= waiting

    await eventually(all_wait)
    return task


async def test_what_fits_is_granted_at_once(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    assert await budget.acquire("a1", (ORG, ANN), 200, 200, LATER) == Granted(200)
    assert await store.usage((ORG, ANN), NOON) == [(0, 200), (0, 200)]
    assert await budget.headroom((ORG, ANN)) == 100
    assert await budget.headroom(()) is None


async def test_what_is_spent_is_refused_with_all_that_one_needs_to_know(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    await budget.acquire("a1", (ORG, ANN), 280, 280, LATER)
    await store.settle("a1", 280)
    with pytest.raises(PaymentRequired) as caught:
        await budget.acquire("a2", (ORG, ANN), 21, 21, LATER)
    error = caught.value
    assert error.code == "budget_exceeded"
    assert error.retry_after == 12 * 3600
    for part in ("day budget of user usr_ann", "$0.0000003", "$0.00000028", "$0.000000021", "2026-10-15T00:00:00Z"):
        assert part in error.message
    with pytest.raises(PaymentRequired, match="larger than the whole budget"):
        await budget.acquire("a3", (ORG, BOB), 301, 301, LATER)
    assert await store.usage((ORG,), NOON) == [(280, 0)]


async def test_a_request_that_can_shrink_takes_its_share_of_what_is_left(store: Reservations, make: MakeBudget) -> None:
    budget = make(BudgetSettings(wait=30.0, output_share=0.5))
    assert await budget.acquire("a1", (ANN,), 10_000, 20, LATER) == Granted(150)
    assert await budget.acquire("a2", (ANN,), 10_000, 20, LATER) == Granted(75)
    assert await budget.acquire("a3", (ANN,), 10_000, 60, LATER) == Granted(60)
    for name in ("a1", "a2", "a3"):
        await store.settle(name, 90)
    assert await budget.acquire("a4", (ANN,), 10_000, 30, LATER) == Granted(30)
    with pytest.raises(TooManyRequests):
        await make(HURRIED).acquire("a5", (ANN,), 10_000, 1, LATER)
    await store.settle("a4", 30)
    with pytest.raises(PaymentRequired):
        await budget.acquire("a6", (ANN,), 10_000, 1, LATER)


async def test_what_is_reserved_is_waited_for(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    await budget.acquire("a1", (ANN,), 300, 300, LATER)
    waiting = await started(budget.acquire("a2", (ANN,), 250, 250, LATER), budget, 1)
    await store.settle("a1", 50)
    granted = await asyncio.wait_for(waiting, 20.0)
    assert granted.amount == 250
    assert granted.waited > 0
    assert await store.usage((ANN,), NOON) == [(50, 250)]


async def test_a_wait_ends_with_402_when_the_others_spend_it_all(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    await budget.acquire("a1", (ANN,), 300, 300, LATER)
    waiting = await started(budget.acquire("a2", (ANN,), 10, 10, LATER), budget, 1)
    await store.settle("a1", 300)
    with pytest.raises(PaymentRequired):
        await asyncio.wait_for(waiting, 20.0)


@pytest.mark.parametrize(
    ("settings", "deadline"), [(HURRIED, LATER), (PATIENT, NOON + SECOND // 20), (PATIENT, NOON), (PATIENT, NOON - 1)]
)
async def test_a_wait_ends_with_429_when_its_time_is_up(
    store: Reservations, make: MakeBudget, settings: BudgetSettings, deadline: int
) -> None:
    budget = make(settings)
    await budget.acquire("a1", (ORG, ANN), 300, 300, LATER)
    with pytest.raises(TooManyRequests) as caught:
        await asyncio.wait_for(budget.acquire("a2", (ORG, ANN), 10, 10, deadline), 20.0)
    assert caught.value.code == "budget_in_flight"
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    assert "day budget of user usr_ann" in caught.value.message
    assert await store.usage((ORG, ANN), NOON) == [(0, 300), (0, 300)]
    assert not budget._waiters
    assert not budget._blocked
    await store.release("a1")
    assert await budget.acquire("a3", (ORG, ANN), 300, 300, LATER) == Granted(300)


async def test_retry_after_is_how_long_others_had_to_wait(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    budget._usual_wait = 4.0
    await budget.acquire("a1", (ANN,), 300, 300, LATER)
    with pytest.raises(TooManyRequests) as caught:
        await budget.acquire("a2", (ANN,), 10, 10, NOON)
    assert caught.value.retry_after == 4.0
    waiting = await started(budget.acquire("a3", (ANN,), 250, 250, LATER), budget, 1)
    await store.settle("a1", 0)
    granted = await waiting
    assert budget._usual_wait == pytest.approx(4.0 + (granted.waited - 4.0) / 8)


async def test_nobody_overtakes_who_waits_for_the_same_account(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    await budget.acquire("a1", (ORG, ANN), 150, 150, LATER)
    await budget.acquire("a2", (ORG, ANN), 100, 100, LATER)
    large = await started(budget.acquire("large", (ORG, ANN), 250, 250, LATER), budget, 1)
    small = [await started(budget.acquire(f"small{n}", (ORG, ANN), 10, 10, LATER), budget, n + 2) for n in range(3)]
    # Bob shares the organisation with them, but nobody waits for the organisation.
    assert await budget.acquire("bob", (ORG, BOB), 300, 300, LATER) == Granted(300)
    await store.settle("a1", 0)
    await asyncio.sleep(0.1)
    assert not any(task.done() for task in (large, *small))
    await store.settle("a2", 0)
    granted = await asyncio.wait_for(asyncio.gather(large, *small), 20.0)
    assert [grant.amount for grant in granted] == [250, 10, 10, 10]


async def test_nobody_overtakes_on_an_account_that_turns_out_to_be_short(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    ann, bob = (
        (ORG, Account(Level.USER, "usr_ann", Period.DAY, 700)),
        (ORG, Account(Level.USER, "usr_bob", Period.DAY, 100)),
    )
    await budget.acquire("a1", ann, 100, 100, LATER)
    await budget.acquire("b1", bob, 100, 100, LATER)
    first = await started(budget.acquire("a2", ann, 650, 650, LATER), budget, 1)
    second = await started(budget.acquire("b2", bob, 50, 50, LATER), budget, 2)
    await budget.acquire("c1", (ORG,), 400, 400, LATER)
    await asyncio.gather(store.settle("a1", 0), store.settle("b1", 0))
    await asyncio.sleep(0.15)
    # There are 600 left of the organisation's budget: not enough for the first, so not for the second either.
    assert not first.done()
    assert not second.done()
    await store.settle("c1", 0)
    granted = await asyncio.wait_for(asyncio.gather(first, second), 20.0)
    assert [grant.amount for grant in granted] == [650, 50]


async def test_who_is_served_leaves_in_order_of_arrival(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    await budget.acquire("a", (ANN,), 300, 300, LATER)
    order: list[int] = []

    async def request(number: int) -> Granted:
        granted = await budget.acquire(f"r{number}", (ANN,), 100 + number, 100 + number, LATER)
        order.append(number)
        await store.settle(f"r{number}", 0)
        return granted

    tasks = [await started(request(number), budget, number + 1) for number in range(30)]
    await store.settle("a", 0)
    await asyncio.wait_for(asyncio.gather(*tasks), 20.0)
    assert order == list(range(30))
    assert await store.usage((ANN,), NOON) == [(0, 0)]


async def test_a_waiter_that_goes_away_leaves_nothing_reserved(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    await budget.acquire("a1", (ANN,), 300, 300, LATER)
    gone = await started(budget.acquire("gone", (ANN,), 300, 300, LATER), budget, 1)
    stays = await started(budget.acquire("stays", (ANN,), 200, 200, LATER), budget, 2)
    gone.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await gone
    await store.settle("a1", 0)
    assert (await asyncio.wait_for(stays, 20.0)).amount == 200
    assert await store.usage((ANN,), NOON) == [(0, 200)]


async def test_a_waiter_cancelled_just_when_it_is_served_gives_back(store: Reservations, make: MakeBudget) -> None:
    async def nothing_is_used() -> bool:
        return await store.usage((ANN,), NOON) == [(0, 0)]

    for number in range(20):
        budget = make(PATIENT)
        await budget.acquire(f"a{number}", (ANN,), 300, 300, LATER)
        gone = await started(budget.acquire(f"gone{number}", (ANN,), 300, 300, LATER), budget, 1)
        budget._waiters[f"gone{number}"].answer.add_done_callback(partial(_cancel, gone))
        await store.settle(f"a{number}", 0)
        await asyncio.wait([gone], timeout=20.0)
        assert gone.cancelled()
        await eventually(nothing_is_used)


def _cancel(task: asyncio.Task[Granted], _: object) -> None:
    task.cancel()


async def test_a_thousand_at_once_all_get_through_a_narrow_budget(store: Reservations, make: MakeBudget) -> None:
    budget = make(PATIENT)
    cap = 100_000
    account = Account(Level.TEAM, "team_a", Period.MONTH, cap)
    serial = itertools.count()
    promised = most = 0

    async def request(number: int) -> int:
        nonlocal promised, most
        amount = 5_000 + next(serial) % 97 * 100
        attempt = f"r{number}"
        granted = await budget.acquire(attempt, (account,), amount, amount, LATER)
        promised += granted.amount
        most = max(most, promised)
        await asyncio.sleep(0.0005)
        cost = number % 80
        promised += cost - granted.amount
        await store.settle(attempt, cost)
        return cost

    costs = await asyncio.wait_for(asyncio.gather(*(request(number) for number in range(1000))), 60.0)
    assert most <= cap
    assert await store.usage((account,), NOON) == [(sum(costs), 0)]
    rest = cap - sum(costs)
    assert await budget.acquire("last", (account,), rest, rest, LATER) == Granted(rest)


async def test_a_store_that_goes_away_tells_those_who_wait() -> None:
    class GoesAway(LocalReservations):
        away = False

        async def take(self, *args: object, **kwargs: object) -> int | Refusal:
            if self.away:
                raise StoreAway("gone")
            return await super().take(*args, **kwargs)  # type: ignore[arg-type]

    store = GoesAway()
    budget = Budget(store, PATIENT, lambda: NOON)
    await budget.acquire("a1", (ANN,), 300, 300, LATER)
    waiting = await started(budget.acquire("a2", (ANN,), 10, 10, LATER), budget, 1)
    await asyncio.sleep(0.01)
    store.away = True
    await store.settle("a1", 0)
    with pytest.raises(StoreAway) as caught:
        await asyncio.wait_for(waiting, 20.0)
    assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
    await budget.close()
