# SPDX-License-Identifier: GPL-3.0-or-later
"""Any sequence of calls over a hierarchy of budgets, against a model that is a few lines of dictionaries.

The clock passes midnights, week and month ends; caps change; attempts settle late, twice, or not at all; the process
restarts and Redis loses everything. At every step each account holds exactly what the model says, what is granted is
what fits, and in the end nothing is reserved and what fits is accepted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from sophia.stores.model import Account, Level, Period, Refusal, window_start
from sophia.stores.reservations import DAY, LocalReservations, Reservations, window_end
from sophia.stores.reservations_redis import RedisReservations
from sophia.stores.scripts import open_redis

SECOND = 1_000_000_000
START = 1_792_792_800 * SECOND  # a Friday, two hours before midnight
CHAINS = [
    ("org_a", "team_a", "usr_a", "key_a"),
    ("org_a", "team_a", "usr_b", "key_b"),
    ("org_a", "team_b", "usr_b", "key_c"),
    ("org_b", "team_c", "usr_c", "key_d"),
]
BUDGETS = sorted(
    {(level, owner, period) for chain in CHAINS for level, owner in zip(Level, chain, strict=True) for period in Period}
)
Budget = tuple[Level, str, Period]
Window = tuple[Level, str, Period, int]
caps = st.one_of(st.just(0), st.integers(1, 400), st.just(10**12))
_runs = itertools.count()


class Model:
    """Reservations as one would explain them."""

    def __init__(self) -> None:
        self.spent: dict[Window, int] = defaultdict(int)
        self.open: dict[str, tuple[tuple[Account, ...], int, int]] = {}

    def windows(self, accounts: tuple[Account, ...], at: int) -> list[Window]:
        return [(a.level, a.owner, a.period, window_start(a.period, at)) for a in accounts]

    def reserved(self, window: Window) -> int:
        return sum(amount for accounts, amount, at in self.open.values() if window in self.windows(accounts, at))

    def used(self, accounts: tuple[Account, ...], at: int) -> list[tuple[int, int]]:
        return [(self.spent[window], self.reserved(window)) for window in self.windows(accounts, at)]

    def headroom(self, accounts: tuple[Account, ...], at: int) -> int:
        used = self.used(accounts, at)
        return min((a.cap or -1) - spent - reserved for a, (spent, reserved) in zip(accounts, used, strict=True))

    def exhausted(self, accounts: tuple[Account, ...], amount: int, at: int) -> set[Account]:
        used = self.used(accounts, at)
        return {a for a, (spent, _) in zip(accounts, used, strict=True) if a.cap == 0 or spent + amount > a.cap}

    def settle(self, attempt: str, cost: int) -> None:
        accounts, _, at = self.open.pop(attempt)
        for window in self.windows(accounts, at):
            self.spent[window] += cost


class Machine(RuleBasedStateMachine):
    """The calls that are the same for every implementation."""

    make: ClassVar[Callable[[Machine], Reservations]]
    grows_what_was_lost = True  # whether a reservation can be resized by a process that did not make it

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.model = Model()
        self.now = START
        self.names = itertools.count()
        self.settled: list[str] = []
        self.held: set[str] = set()
        self.lost: set[str] = set()  # what was open when the store lost it: until it is seeded, it is not known there
        self.run_number = next(_runs)
        self.caps: dict[Budget, int | None] = {}
        self.store = self.make()

    def run(self, call: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(call)

    def chain(self, index: int) -> tuple[tuple[Account, ...], str]:
        accounts = []
        for level, owner in zip(Level, CHAINS[index], strict=True):
            for period in Period:
                cap = self.caps[level, owner, period]
                if cap is not None:
                    accounts.append(Account(level, owner, period, cap))
        return tuple(accounts), f"{CHAINS[index][0]}_{self.run_number}"

    def organization_of(self, attempt: str) -> str:
        return attempt.partition("/")[0]

    @initialize(chosen=st.lists(st.one_of(st.none(), caps), min_size=len(BUDGETS), max_size=len(BUDGETS)))
    def choose_budgets(self, chosen: list[int | None]) -> None:
        self.caps = dict(zip(BUDGETS, chosen, strict=True))

    @rule(
        index=st.integers(0, len(CHAINS) - 1),
        floor=st.integers(0, 200),
        more=st.one_of(st.just(0), st.integers(1, 400)),
        lag=st.one_of(st.just(0), st.integers(0, 7200)),
    )
    def take(self, index: int, floor: int, more: int, lag: int) -> None:
        accounts, organization = self.chain(index)
        at = max(START, self.now - lag * SECOND)
        attempt = f"{organization}/{next(self.names)}"
        want = floor + more
        taken = self.run(self.store.take(attempt, accounts, want, floor, 0.25, at, organization=organization))
        if not accounts:
            assert taken == want
            self.model.open[attempt] = ((), want, at)
            return
        headroom = self.model.headroom(accounts, at)
        expected = want if not more else min(want, max(floor, headroom // 4))
        if expected <= headroom:
            assert taken == expected
            self.model.open[attempt] = (accounts, expected, at)
            return
        assert isinstance(taken, Refusal)
        exhausted = self.model.exhausted(accounts, floor, at)
        assert taken.kind == ("spent" if exhausted else "reserved")
        assert taken.headroom == max(
            0, min(a.cap - s - r for a, (s, r) in zip(accounts, self.model.used(accounts, at), strict=True))
        )
        if exhausted:
            assert taken.account in exhausted
            ends = [window_end(a.period, window_start(a.period, at)) for a in exhausted]
            assert taken.retry_after == pytest.approx((max(ends) - at) / 1e9)

    @precondition(lambda self: self.model.open)
    @rule(data=st.data(), cost=st.integers(0, 500))
    def settle(self, data: st.DataObject, cost: int) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.model.open)))
        accounts, amount, _ = self.model.open[attempt]
        result = self.run(self.store.settle(attempt, cost, organization=self.organization_of(attempt)))
        if accounts and attempt not in self.lost:
            assert (result.booked, result.overrun) == (True, max(0, cost - amount))
        self.model.settle(attempt, cost)
        self.settled.append(attempt)

    @precondition(lambda self: self.settled)
    @rule(data=st.data(), cost=st.integers(0, 500))
    def settle_again(self, data: st.DataObject, cost: int) -> None:
        attempt = data.draw(st.sampled_from(self.settled))
        assert not self.run(self.store.settle(attempt, cost, organization=self.organization_of(attempt))).booked

    @precondition(lambda self: self.model.open)
    @rule(data=st.data())
    def hold(self, data: st.DataObject) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.model.open)))
        self.run(self.store.hold(attempt, organization=self.organization_of(attempt)))
        self.held.add(attempt)

    @precondition(lambda self: self.model.open.keys() - self.held)
    @rule(data=st.data(), amount=st.integers(0, 500))
    def resize(self, data: st.DataObject, amount: int) -> None:
        attempt = data.draw(st.sampled_from(sorted(self.model.open.keys() - self.held)))
        accounts, before, at = self.model.open[attempt]
        if not accounts or (attempt in self.lost and not self.grows_what_was_lost):
            return
        growth = amount - before
        refusal = self.run(self.store.resize(attempt, amount))
        fits = growth <= 0 or growth <= self.model.headroom(accounts, at)
        assert (refusal is None) == fits
        if fits:
            self.model.open[attempt] = (accounts, amount, at)

    @rule(seconds=st.one_of(st.integers(0, 7200), st.integers(0, 40 * 86400)))
    def wait(self, seconds: int) -> None:
        self.now += seconds * SECOND

    @rule(period=st.sampled_from(Period), before=st.booleans())
    def wait_for_the_windows_end(self, period: Period, before: bool) -> None:
        self.now = window_end(period, window_start(period, self.now)) - before

    @rule(data=st.data(), cap=caps)
    def change_a_cap(self, data: st.DataObject, cap: int) -> None:
        budget = data.draw(st.sampled_from(BUDGETS))
        if self.caps[budget] is not None:
            self.caps[budget] = cap

    async def seed(self, level: Level, owner: str, period: Period, window: int) -> tuple[int, list[tuple[str, int]]]:
        key = (level, owner, period, window)
        entries = self.model.open.items()
        opened = [(name, amount) for name, (accounts, amount, at) in entries if key in self.model.windows(accounts, at)]
        return self.model.spent[key], opened

    @rule()
    def restart(self) -> None:
        self.lose_everything()
        self.held.clear()

    def lose_everything(self) -> None:
        raise NotImplementedError

    @rule()
    def look(self) -> None:
        if self.caps:
            for index in range(len(CHAINS)):
                accounts, organization = self.chain(index)
                used = self.run(self.store.usage(accounts, self.now, organization=organization))
                assert used == self.model.used(accounts, self.now)

    def teardown(self) -> None:
        if self.caps:
            for attempt in sorted(self.model.open):
                self.run(self.store.settle(attempt, 1, organization=self.organization_of(attempt)))
                self.model.settle(attempt, 1)
            for index in range(len(CHAINS)):
                accounts, organization = self.chain(index)
                used = self.run(self.store.usage(accounts, self.now, organization=organization))
                assert used == [(spent, 0) for spent, _ in self.model.used(accounts, self.now)]
                headroom = self.model.headroom(accounts, self.now) if accounts else 1
                if headroom >= 0:
                    last = f"{organization}/last{index}"
                    assert (
                        self.run(self.store.reserve(last, accounts, headroom, self.now, organization=organization))
                        is None
                    )
                    self.run(self.store.release(last, organization=organization))
        self.run(self.close())
        self.loop.close()

    async def close(self) -> None:
        await self.store.close()


class LocalMachine(Machine):
    """One process, which restarts from the ledger."""

    def make(self) -> Reservations:
        return LocalReservations()

    def lose_everything(self) -> None:
        self.store = LocalReservations()
        spent = [(*window, amount) for window, amount in self.model.spent.items()]
        self.store.restore(spent, [(attempt, *entry) for attempt, entry in self.model.open.items()])

    @invariant()
    def counters_are_the_models(self) -> None:
        self.look()


class SeededMachine(Machine):
    """One process, which restarts with nothing and asks the ledger for each window when it needs it."""

    grows_what_was_lost = False

    def make(self) -> Reservations:
        return LocalReservations(self.seed)

    def lose_everything(self) -> None:
        self.store = self.make()
        self.lost |= self.model.open.keys()


class RedisMachine(Machine):
    """Redis, which loses its data; the same process goes on."""

    socket: ClassVar[Path]

    def make(self) -> Reservations:
        self.client: Redis = open_redis(f"unix://{self.socket}", connections=4)
        return RedisReservations(self.client, self.seed, "replica-1", timeout=30.0, grace=0.0)

    def lose_everything(self) -> None:
        self.run(self.client.flushall())
        self.lost |= self.model.open.keys()

    async def close(self) -> None:
        await super().close()
        await self.client.aclose()


@pytest.mark.parametrize("machine", [LocalMachine, SeededMachine])
def test_any_history_in_process(machine: type[Machine]) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=50, stateful_step_count=40, deadline=None))


def test_any_history_in_redis(redis_socket: Path) -> None:
    RedisMachine.socket = redis_socket
    run_state_machine_as_test(
        RedisMachine,
        settings=settings(
            max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


def test_the_start_is_where_the_rules_mean_it() -> None:
    assert window_start(Period.DAY, START) + 22 * 3600 * SECOND == START
    assert window_start(Period.WEEK, START) == window_start(Period.DAY, START) - 4 * DAY
