# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is served next."""

from __future__ import annotations

from collections import Counter, defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sophia.fairness.queue import Entry, FairQueue

unhurried = settings(deadline=None)

TENANTS = "abcde"
tenants = st.sampled_from(TENANTS)
costs = st.integers(1, 5000)
weights = st.fixed_dictionaries({tenant: st.sampled_from([0.5, 1.0, 2.0, 5.0]) for tenant in TENANTS})


def entry(tenant: str, cost: int = 100, model: str = "m") -> Entry[None]:
    return Entry(tenant, model, cost, None)


def anything(_: Entry[None]) -> bool:
    return True


@given(st.dictionaries(tenants, st.lists(costs, min_size=30, max_size=30), min_size=2), weights, st.data())
@unhurried
def test_service_is_shared_by_weight_to_within_one_request_each(
    work: dict[str, list[int]], shares: dict[str, float], data: st.DataObject
) -> None:
    """The theorem of start-time fair queueing, over any stretch in which both tenants wait all the time."""
    queue: FairQueue[None] = FairQueue(10_000, shares)
    for tenant, sizes in work.items():
        for cost in sizes:
            queue.push(entry(tenant, cost))
    left = Counter({tenant: len(sizes) for tenant, sizes in work.items()})
    served: dict[str, float] = defaultdict(float)
    begin = dict(served)
    skip = data.draw(st.integers(0, 10))
    while min(left.values()):
        taken = queue.take(anything)
        assert taken is not None
        left[taken.tenant] -= 1
        served[taken.tenant] += taken.cost / shares[taken.tenant]
        skip -= 1
        if skip == 0:
            begin = dict(served)
        for one in work:
            for other in work:
                apart = (served[one] - begin.get(one, 0.0)) - (served[other] - begin.get(other, 0.0))
                assert apart <= max(work[one]) / shares[one] + max(work[other]) / shares[other] + 1e-6


@given(st.lists(st.tuples(st.sampled_from("bcde"), costs), min_size=1, max_size=200), st.integers(0, 100), costs)
@unhurried
def test_a_newcomer_waits_for_at_most_one_request_of_each_other_tenant(
    flood: list[tuple[str, int]], after: int, cost: int
) -> None:
    queue: FairQueue[None] = FairQueue(10_000)
    for tenant, size in flood:
        queue.push(entry(tenant, size))
    for _ in range(min(after, len(flood) - 1)):
        queue.take(anything)
    ours = entry("a", cost)
    queue.push(ours)
    before = Counter[str]()
    while (taken := queue.take(anything)) is not ours:
        assert taken is not None
        before[taken.tenant] += 1
        queue.push(entry(taken.tenant, 1))  # they never cease
    assert all(count <= 1 for count in before.values()), before


@given(st.lists(st.tuples(tenants, costs), min_size=1, max_size=80), weights, st.integers(1, 20))
@unhurried
def test_only_the_longest_backlog_is_shed(work: list[tuple[str, int]], shares: dict[str, float], limit: int) -> None:
    queue: FairQueue[None] = FairQueue(limit, shares)
    for tenant, cost in work:
        queue.push(entry(tenant, cost))
        lengths = Counter(each.tenant for each in queue.waiting())
        shed = queue.shed()
        assert (shed is not None) == (lengths.total() > limit)
        if shed is not None:
            longest = max(length / shares[name] for name, length in lengths.items())
            assert lengths[shed.tenant] / shares[shed.tenant] == longest
        assert len(queue) <= limit


def test_a_flood_does_not_push_out_another_tenants_first_request() -> None:
    queue: FairQueue[None] = FairQueue(10)
    for _ in range(500):
        queue.push(entry("flood"))
        queue.shed()
    ours = entry("quiet")
    queue.push(ours)
    shed = queue.shed()
    assert shed is not None
    assert shed.tenant == "flood"
    assert ours in list(queue.waiting())


@given(st.lists(st.tuples(tenants, costs), min_size=1, max_size=60), weights, st.data())
@unhurried
def test_the_work_ahead_is_foretold_to_within_one_request_of_each_tenant(
    work: list[tuple[str, int]], shares: dict[str, float], data: st.DataObject
) -> None:
    queue: FairQueue[None] = FairQueue(1000, shares)
    entries = [entry(tenant, cost) for tenant, cost in work]
    for each in entries:
        queue.push(each)
    for _ in range(data.draw(st.integers(0, len(entries) - 1))):
        queue.take(anything)
    ours = data.draw(st.sampled_from([each for each in entries if each in list(queue.waiting())]))
    foretold = queue.ahead(ours)
    largest: dict[str, int] = defaultdict(int)
    for each in queue.waiting():
        largest[each.tenant] = max(largest[each.tenant], each.cost)
    real = 0
    while (taken := queue.take(anything)) is not ours:
        assert taken is not None
        real += taken.cost
    assert abs(foretold - real) <= sum(largest.values())


def test_a_model_that_has_no_room_does_not_hold_up_another() -> None:
    queue: FairQueue[None] = FairQueue(10)
    for model in ("full", "full", "free"):
        queue.push(entry("a", model=model))
    taken = queue.take(lambda each: each.model == "free")
    assert taken is not None
    assert taken.model == "free"
    assert queue.take(lambda each: each.model == "free") is None
    assert len(queue) == 2


def test_what_was_overcharged_is_given_back() -> None:
    """One tenant allows long answers and gets short ones, the other asks for just what it gets: equal shares."""
    queue: FairQueue[None] = FairQueue(1000)
    for _ in range(200):
        queue.push(entry("modest", 100))
        queue.push(entry("careful", 4000))
    served = Counter[str]()
    for _ in range(200):
        taken = queue.take(anything)
        assert taken is not None
        queue.settle(taken.tenant, taken.cost, 100)
        served[taken.tenant] += 1
    assert abs(served["modest"] - served["careful"]) <= 2


def test_nobody_saves_up_credit_by_asking_for_more_than_it_uses() -> None:
    """What comes back to one tenant must not let it go before another that comes later, request after request."""
    queue: FairQueue[None] = FairQueue(1000)
    for _ in range(100):
        queue.push(entry("grand", 4000))
    for _ in range(20):
        assert queue.take(anything) is not None
    ours = entry("quiet", 100)
    queue.push(ours)
    for _ in range(20):
        queue.settle("grand", 4000, 1)
    assert ours in (queue.take(anything), queue.take(anything))


class Machine(RuleBasedStateMachine):
    """Anything may happen in any order; what is counted stays true, and a tenant's own requests keep their order."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue(8, {"a": 3.0})
        self.lanes: dict[str, list[Entry[int]]] = defaultdict(list)
        self.taken: list[Entry[int]] = []
        self.number = 0

    @rule(tenant=tenants, cost=costs, model=st.sampled_from(["m", "n"]), front=st.booleans())
    def push(self, tenant: str, cost: int, model: str, front: bool) -> None:
        self.number += 1
        made = Entry(tenant, model, cost, self.number)
        self.queue.push(made, front=front)
        self.lanes[tenant].insert(0 if front else len(self.lanes[tenant]), made)
        shed = self.queue.shed()
        if shed is not None:
            assert self.lanes[shed.tenant].pop() is shed

    @rule(model=st.sampled_from(["m", "n", ""]))
    def take(self, model: str) -> None:
        found = self.queue.take(lambda each: not model or each.model == model)
        fitting = {
            tenant: [each for each in lane if not model or each.model == model] for tenant, lane in self.lanes.items()
        }
        if found is None:
            assert not any(fitting.values())
            return
        assert fitting[found.tenant][0] is found
        self.lanes[found.tenant].remove(found)
        self.taken.append(found)

    @precondition(lambda self: self.taken)
    @rule(used=costs)
    def settle(self, used: int) -> None:
        done = self.taken.pop()
        self.queue.settle(done.tenant, done.cost, used)

    @precondition(lambda self: any(self.lanes.values()))
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from([each for lane in self.lanes.values() for each in lane]))
        assert self.queue.remove(one)
        assert not self.queue.remove(one)
        self.lanes[one.tenant].remove(one)

    @invariant()
    def counts_are_true(self) -> None:
        everything = [each for lane in self.lanes.values() for each in lane]
        assert len(self.queue) == len(everything) <= 8
        assert self.queue.cost == sum(each.cost for each in everything)
        assert {id(each) for each in self.queue.waiting()} == {id(each) for each in everything}
        for tenant, lane in self.lanes.items():
            assert self.queue.first(tenant) is (lane[0] if lane else None)


TestMachine = Machine.TestCase
TestMachine.settings = settings(deadline=None, max_examples=60, stateful_step_count=40)
