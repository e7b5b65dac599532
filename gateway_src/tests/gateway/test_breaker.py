# SPDX-License-Identifier: GPL-3.0-or-later
"""A breaker opens on real trouble, lets one probe through, and retries stay a share of requests."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sophia.gateway.breaker import Breakers, RetryBudget


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def breakers(clock: Clock, jitter: float = 0.5) -> Breakers:
    return Breakers(3, 30.0, 10.0, probe_limit=20.0, clock=clock, jitter=lambda: jitter)


def trip(these: Breakers, model: str = "m", times: int = 3) -> None:
    for _ in range(times):
        these.failure(model)


def state(these: Breakers, model: str = "m") -> str:
    return these.health().of(model).state


def test_a_model_without_failures_is_healthy(clock: Clock) -> None:
    these = breakers(clock)
    these.success("m")
    assert these.admits("m")
    assert these.health().of("m").good
    assert list(these.states()) == []


def test_enough_failures_open_it_for_the_cooldown(clock: Clock) -> None:
    these = breakers(clock)
    trip(these, times=2)
    assert state(these) == "closed"
    assert not these.health().of("m").good
    trip(these, times=1)
    assert state(these) == "open"
    assert not these.admits("m")
    assert these.admits("other")
    assert these.health().of("m").retry_after == pytest.approx(10.0)
    assert list(these.states()) == [("m", "open")]
    clock.now += 9.9
    assert not these.admits("m")
    clock.now += 0.2
    assert state(these) == "half_open"


def test_few_failures_among_many_successes_do_not_open_it(clock: Clock) -> None:
    these = breakers(clock)
    these.failure("m")
    for _ in range(20):
        these.success("m")
    trip(these, times=5)
    assert state(these) == "closed"
    assert these.health().of("m").failing == pytest.approx(6 / 26)


def test_failures_far_apart_do_not_open_it(clock: Clock) -> None:
    these = breakers(clock)
    for _ in range(20):
        these.failure("m")
        clock.now += 20.0
    assert state(these) == "closed"


def test_half_open_lets_one_probe_through_and_its_success_closes(clock: Clock) -> None:
    these = breakers(clock)
    trip(these)
    clock.now += 11
    assert [these.admits("m") for _ in range(3)] == [True, False, False]
    assert state(these) == "open"
    these.success("m")
    assert state(these) == "closed"
    assert all(these.admits("m") for _ in range(5))
    trip(these, times=2)
    assert state(these) == "closed"


def test_a_failed_probe_doubles_the_cooldown_up_to_a_limit(clock: Clock) -> None:
    these = breakers(clock)
    trip(these)
    waits = []
    for _ in range(6):
        waits.append(these.health().of("m").retry_after)
        clock.now += waits[-1] + 0.001
        assert these.admits("m")
        these.failure("m")
    assert waits == pytest.approx([10, 20, 40, 80, 80, 80])


def test_a_probe_without_a_verdict_lets_the_next_one_go(clock: Clock) -> None:
    these = breakers(clock)
    trip(these)
    clock.now += 11
    assert these.admits("m")
    these.release("m")
    assert these.admits("m")
    assert not these.admits("m")


def test_a_lost_probe_blocks_no_longer_than_its_limit(clock: Clock) -> None:
    these = breakers(clock)
    trip(these)
    clock.now += 11
    assert these.admits("m")
    clock.now += 20.1
    assert these.admits("m")


def test_a_late_success_from_before_does_not_close_an_open_breaker(clock: Clock) -> None:
    these = breakers(clock)
    trip(these)
    these.success("m")
    assert not these.admits("m")


def test_the_upstreams_own_wish_lengthens_the_cooldown(clock: Clock) -> None:
    these = breakers(clock)
    trip(these, times=2)
    these.failure("m", retry_after=120.0)
    assert these.health().of("m").retry_after == pytest.approx(120.0)


def test_jitter_spreads_the_cooldown(clock: Clock) -> None:
    waits = []
    for jitter in (0.0, 0.5, 1.0):
        these = breakers(clock, jitter)
        trip(these)
        waits.append(these.health().of("m").retry_after)
    assert waits == pytest.approx([8.0, 10.0, 12.0])


def test_a_breaker_at_rest_is_forgotten(clock: Clock) -> None:
    these = breakers(clock)
    for number in range(100):
        these.failure(f"m{number}")
    clock.now += 31
    assert these.health().models == {}
    assert these._breakers == {}


@given(st.floats(0.01, 1.0), st.lists(st.tuples(st.sampled_from(["request", "retry", "wait"]), st.floats(0, 5))))
@settings(max_examples=200, deadline=None)
def test_retries_stay_within_share_trickle_and_stock(share: float, steps: list[tuple[str, float]]) -> None:
    clock = Clock()
    budget = RetryBudget(share, trickle=0.5, most=20.0, clock=clock)
    start, requests, retries = clock.now, 0, 0
    for step, seconds in steps:
        if step == "request":
            requests += 1
            budget.request()
        elif step == "retry":
            retries += budget.withdraw()
        else:
            clock.now += seconds
        assert retries <= 20.0 + share * requests + 0.5 * (clock.now - start)


def test_a_spent_budget_grows_with_requests_and_with_time(clock: Clock) -> None:
    budget = RetryBudget(0.2, trickle=1.0, most=100.0, clock=clock)
    while budget.withdraw():
        pass
    for _ in range(4):
        budget.request()
    assert not budget.withdraw()
    budget.request()
    assert budget.withdraw()
    assert not budget.withdraw()
    clock.now += 1.001
    assert budget.withdraw()


class BreakerMachine(RuleBasedStateMachine):
    """Any order of attempts, verdicts and time: never two probes at once, never shut for good."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.these = breakers(self.clock)
        self.probing_until = 0.0
        self.streak = 0

    @property
    def seen(self) -> str:
        return state(self.these)

    @rule(seconds=st.floats(0, 40))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def attempt(self) -> None:
        before = self.seen
        admitted = self.these.admits("m")
        assert admitted == (before != "open")
        if before == "half_open":
            assert self.clock.now >= self.probing_until
            self.probing_until = self.clock.now + 20.0

    @rule()
    def succeed(self) -> None:
        probing = self.these._breakers["m"].state == "half_open" if "m" in self.these._breakers else False
        before = self.seen
        self.these.success("m")
        if probing:
            assert self.seen == "closed"
            self.probing_until = 0.0
        else:
            assert self.seen == before

    @rule(retry_after=st.one_of(st.none(), st.floats(0, 60)))
    def fail(self, retry_after: float | None) -> None:
        probing = self.these._breakers["m"].state == "half_open" if "m" in self.these._breakers else False
        self.these.failure("m", retry_after)
        if probing:
            assert self.seen == "open"
            self.probing_until = 0.0

    @rule()
    def give_up(self) -> None:
        self.these.release("m")
        self.probing_until = 0.0

    @precondition(lambda self: self.seen == "open")
    @rule()
    def patience_is_rewarded(self) -> None:
        self.clock.now += self.these.health().of("m").retry_after + 0.001
        assert self.seen == "half_open"

    @invariant()
    def the_wait_is_bounded(self) -> None:
        condition = self.these.health().of("m")
        assert 0 <= condition.retry_after <= 80.0
        assert 0 <= condition.failing <= 1
        assert (condition.retry_after > 0) == (condition.state == "open")


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
