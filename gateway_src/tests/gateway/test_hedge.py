# SPDX-License-Identifier: GPL-3.0-or-later
"""Two attempts of which the first answer is taken: who wins, what is dropped, and how often it may be done."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.gateway.hedge import Hedges, race
from sophia.gateway.pace import Pace


class Attempt:
    """Waits to be told how it ends; notes how it did."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.state = "new"

    async def run(self) -> str:
        self.state = "running"
        try:
            await self.end
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # it settles itself
            self.state = "cancelled"
            raise
        except ValueError:
            self.state = "failed"
            raise
        self.state = "done"
        return self.name


class Both:
    """A race of two, and what it drops."""

    def __init__(self, *, allowed: bool = True, prepared: bool = True) -> None:
        self.first, self.second = Attempt("first"), Attempt("second")
        self.dropped: list[str] = []
        self.over: bool | None = None
        self.preparing = asyncio.Event()
        if prepared:
            self.preparing.set()

        async def second(over: Callable[[], bool]) -> Coroutine[Any, Any, str] | None:
            await self.preparing.wait()
            self.over = over()
            return self.second.run() if allowed and not self.over else None

        async def drop(result: str) -> None:
            self.dropped.append(result)

        self.task = asyncio.create_task(race(self.first.run(), 0.001, second, drop))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what is waited for has no event
                await asyncio.sleep(0.001)

    async def under_way(self) -> None:
        await self.until(lambda: self.second.state == "running")


async def test_what_is_in_time_is_not_hedged() -> None:
    both = Both()
    both.first.end.set_result(None)
    assert await both.task == ("first", None)
    assert both.second.state == "new"


async def test_the_second_wins_and_the_first_has_unwound() -> None:
    both = Both()
    await both.under_way()
    both.second.end.set_result(None)
    assert await both.task == ("second", True)
    assert both.first.state == "cancelled"


async def test_the_first_wins_and_the_second_has_unwound() -> None:
    both = Both()
    await both.under_way()
    both.first.end.set_result(None)
    assert await both.task == ("first", False)
    assert both.second.state == "cancelled"


async def test_of_two_that_succeed_one_is_dropped() -> None:
    both = Both()
    await both.under_way()
    both.first.end.set_result(None)
    both.second.end.set_result(None)
    assert await both.task == ("first", False)
    assert both.dropped == ["second"]


@pytest.mark.parametrize("failing", ["first", "second"])
async def test_a_failure_leaves_it_to_the_other(failing: str) -> None:
    both = Both()
    await both.under_way()
    bad, good = (both.first, both.second) if failing == "first" else (both.second, both.first)
    bad.end.set_exception(ValueError(failing))
    await both.until(lambda: bad.state == "failed")
    assert not both.task.done()
    good.end.set_result(None)
    assert await both.task == (good.name, failing == "first")


async def test_when_both_fail_it_is_the_first_s_failure() -> None:
    both = Both()
    await both.under_way()
    both.second.end.set_exception(ValueError("second"))
    await both.until(lambda: both.second.state == "failed")
    both.first.end.set_exception(ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        await both.task


async def test_a_first_that_fails_in_time_is_told_at_once() -> None:
    both = Both()
    both.first.end.set_exception(ValueError("first"))
    with pytest.raises(ValueError, match="first"):
        await both.task
    assert both.second.state == "new"


async def test_a_first_that_ends_while_the_second_is_prepared_stays_alone() -> None:
    both = Both(prepared=False)
    await asyncio.sleep(0.02)
    both.first.end.set_result(None)
    await both.until(lambda: both.first.state == "done")
    both.preparing.set()
    assert await both.task == ("first", None)
    assert both.over is True
    assert both.second.state == "new"


async def test_without_a_second_the_first_is_waited_for() -> None:
    both = Both(allowed=False)
    await asyncio.sleep(0.02)
    both.first.end.set_result(None)
    assert await both.task == ("first", None)


async def test_who_is_cancelled_leaves_nothing_running() -> None:
    both = Both()
    await both.under_way()
    both.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await both.task
    assert (both.first.state, both.second.state) == ("cancelled", "cancelled")


def test_a_tenant_is_measured_by_itself_once_it_is_known() -> None:
    pace = Pace()
    hedges = Hedges(pace, 0.05)
    assert hedges.after("org", "model", True) is None
    for _ in range(30):
        pace.note("model", True, 2.0)
    assert hedges.after("org", "model", True) == 2.0
    for _ in range(30):
        pace.note(("org", "model"), True, 1.0)
    assert hedges.after("org", "model", True) == 1.0
    assert hedges.after("other", "model", True) == 2.0
    assert hedges.after("org", "model", False) is None
    assert Hedges(pace, 0.0).after("org", "model", True) is None


@given(st.floats(0.01, 0.5), st.integers(1, 2000))
def test_hedges_stay_a_share_however_late_all_are(share: float, requests: int) -> None:
    pace = Pace()
    hedges = Hedges(pace, share)
    made = 0
    for _ in range(requests):
        hedges.after("org", "model", True)
        made += hedges.withdraw("org")
    assert made <= 1 + share * requests
    assert made >= int(share * requests)
    assert hedges.withdraw("other")  # a share of its own
