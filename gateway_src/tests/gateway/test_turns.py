# SPDX-License-Identifier: GPL-3.0-or-later
"""Turns: at most so many at a time, fair between organisations, interactive first, and honest refusals."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.errors import Unavailable
from sophia.gateway.turns import Turn, Turns


class Clock:
    """Seconds that pass when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def turns(limit: int = 1, queued: int = 100, patience: float = 60.0, **weights: float) -> Turns:
    return Turns(limit, queued, patience, weights, Clock())


async def begun(task: asyncio.Task[Turn]) -> asyncio.Task[Turn]:
    for _ in range(5):
        await asyncio.sleep(0)
    return task


def ask(room: Turns, tenant: str, cost: int = 10, *, batch: bool = False) -> asyncio.Task[Turn]:
    return asyncio.create_task(room.take(tenant, cost, 60.0, batch=batch))


async def served(room: Turns, first: Turn, waiting: dict[asyncio.Task[Turn], str]) -> list[str]:
    """Who gets the only turn, one after the other."""
    order = []
    turn = first
    while waiting:
        turn.close(10)
        for _ in range(5):
            await asyncio.sleep(0)
        task = next(task for task in waiting if task.done())
        order.append(waiting.pop(task))
        turn = task.result()
    turn.close()
    return order


async def test_a_flood_waits_behind_itself() -> None:
    room = turns()
    first = await room.take("busy", 10, 60.0)
    waiting = {await begun(ask(room, "busy")): "busy" for _ in range(50)}
    waiting[await begun(ask(room, "quiet"))] = "quiet"
    order = await served(room, first, waiting)
    assert order.index("quiet") <= 1


async def test_who_comes_finds_a_turn_that_no_flood_can_take() -> None:
    room = turns(16)
    held = [await room.take("busy", 10, 60.0) for _ in range(15)]
    flood = [await begun(ask(room, "busy")) for _ in range(5)]
    assert not any(task.done() for task in flood)
    quiet = await asyncio.wait_for(room.take("quiet", 10, 60.0), 5.0)
    other = await begun(ask(room, "other"))
    assert not other.done()
    quiet.close(10)
    held.append(await other)
    for turn in held:
        turn.close(10)
    for task in flood:
        (await task).close(10)
    assert room.waiting == (0, 0)


async def test_weights_are_shares() -> None:
    room = turns(heavy=3.0)
    first = await room.take("other", 10, 60.0)
    waiting = {await begun(ask(room, tenant)): tenant for _ in range(40) for tenant in ("heavy", "light")}
    order = await served(room, first, waiting)
    assert 28 <= Counter(order[:40])["heavy"] <= 32


async def test_batch_waits_behind_interactive() -> None:
    room = turns()
    first = await room.take("a", 10, 60.0)
    waiting = {await begun(ask(room, "a", batch=True)): "batch" for _ in range(3)}
    waiting |= {await begun(ask(room, "b")): "interactive" for _ in range(3)}
    assert room.waiting == (3, 3)
    assert await served(room, first, waiting) == ["interactive"] * 3 + ["batch"] * 3


async def test_a_full_queue_sheds_from_who_fills_it() -> None:
    room = turns(queued=4)
    first = await room.take("busy", 10, 60.0)
    flood = [await begun(ask(room, "busy")) for _ in range(4)]
    quiet = await begun(ask(room, "quiet"))
    shed = [task for task in flood if task.done()]
    assert len(shed) == 1
    assert not quiet.done()
    with pytest.raises(Unavailable) as refused:
        await shed[0]
    assert (refused.value.code, refused.value.retry_after) == ("overloaded", 1.0)
    flood.remove(shed[0])
    await served(room, first, dict.fromkeys(flood, "busy") | {quiet: "quiet"})


async def test_what_would_wait_too_long_is_refused_at_once_with_the_time_it_takes() -> None:
    room = turns(patience=3.0)
    clock: Clock = room._clock  # type: ignore[assignment]
    first = await room.take("a", 10, 60.0)
    clock.now += 2.0  # a turn of ten tokens takes two seconds
    first.close(10)
    second = await room.take("a", 10, 60.0)
    near = await begun(ask(room, "a", 30))  # nothing is before it
    assert not near.done()
    with pytest.raises(Unavailable) as refused:  # thirty tokens are, which take six seconds
        await asyncio.wait_for(room.take("a", 10, 60.0), 1.0)
    assert (refused.value.code, refused.value.retry_after) == ("overloaded", 3.0)
    near.cancel()
    await asyncio.gather(near, return_exceptions=True)
    second.close()


async def test_who_leaves_or_is_cancelled_takes_no_turn_along() -> None:
    room = turns()
    first = await room.take("a", 10, 60.0)
    leaving = await begun(ask(room, "b"))
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert room.waiting == (0, 0)
    leaving = await begun(ask(room, "b"))
    first.close()  # the turn is given in the moment in which its request is cancelled
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    turn = await asyncio.wait_for(room.take("c", 10, 60.0), 5.0)
    turn.close()
    turn.close()
    assert (await room.take("d", 10, 60.0)).charged is None


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50), st.booleans()), max_size=40), st.integers(1, 5))
def test_never_more_than_the_limit_and_everybody_in_the_end(requests: list[tuple[str, int, bool]], limit: int) -> None:
    async def scene() -> None:
        room = turns(limit)
        running = most = done = 0

        async def one(tenant: str, cost: int, batch: bool) -> None:
            nonlocal running, most, done
            turn = await room.take(tenant, cost, 60.0, batch=batch)
            running += 1
            most = max(most, running)
            await asyncio.sleep(0)
            running -= 1
            turn.close(cost)
            done += 1

        await asyncio.gather(*(one(*request) for request in requests))
        assert most <= limit
        assert done == len(requests)
        assert room.waiting == (0, 0)

    asyncio.run(scene())
