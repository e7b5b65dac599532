# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backend serves a request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sophia.router.choice import Rules, Seat, choose, ranked

unhurried = settings(deadline=None)

names = st.lists(st.text("abcdef", min_size=1, max_size=4), min_size=1, max_size=6, unique=True)
keys = st.binary(min_size=1, max_size=16)
costs = st.integers(1, 20_000)


@st.composite
def fleets(draw: st.DrawFn) -> list[Seat]:
    return [
        Seat(name, draw(st.integers(0, 100_000)), draw(st.integers(0, 8)), draw(st.integers(1, 8)))
        for name in draw(names)
    ]


@given(fleets(), costs, st.none() | keys, keys)
@unhurried
def test_somebody_free_is_chosen_wherever_there_is_one(
    seats: list[Seat], cost: int, key: bytes | None, tie: bytes
) -> None:
    choice = choose(seats, cost, key, tie, Rules())
    free = {seat.name for seat in seats if seat.running < seat.limit}
    assert (choice is None) == (not free)
    assert choice is None or choice.name in free


@given(fleets(), costs, keys, keys, st.floats(1.0, 3.0), st.integers(0, 20_000))
@unhurried
def test_affinity_gives_nothing_to_a_backend_over_its_bound(
    seats: list[Seat], cost: int, key: bytes, tie: bytes, bound: float, slack: int
) -> None:
    choice = choose(seats, cost, key, tie, Rules(bound, slack))
    assume(choice is not None)
    assert choice is not None
    chosen = next(seat for seat in seats if seat.name == choice.name)
    most = max(slack, bound * (sum(seat.outstanding for seat in seats) + cost) / len(seats))
    if chosen.outstanding > most:  # then load alone decided, because everybody free is over the bound
        free = [seat for seat in seats if seat.free]
        assert all(seat.outstanding > most for seat in free)
        assert chosen.outstanding == min(seat.outstanding for seat in free)


@dataclass
class _Server:
    outstanding: int = 0
    running: int = 0


@given(st.lists(st.tuples(keys, costs), min_size=1, max_size=120), st.integers(2, 5))
@unhurried
def test_no_backend_ever_holds_more_than_the_bound_and_one_request(work: list[tuple[bytes, int]], count: int) -> None:
    """Mirrokni et al., for requests that never end: the worst that a choice can build up."""
    rules = Rules(1.25, 0)
    servers = {f"vllm-{i}": _Server() for i in range(count)}
    total = largest = 0
    for key, cost in work:
        seats = [Seat(name, server.outstanding, server.running, 1000) for name, server in servers.items()]
        choice = choose(seats, cost, key, b"tie", rules)
        assert choice is not None
        servers[choice.name].outstanding += cost
        servers[choice.name].running += 1
        total += cost
        largest = max(largest, cost)
        assert max(server.outstanding for server in servers.values()) <= rules.bound * total / count + largest


@given(fleets(), costs, keys)
@unhurried
def test_without_a_prefix_the_least_loaded_is_chosen(seats: list[Seat], cost: int, tie: bytes) -> None:
    choice = choose(seats, cost, None, tie, Rules())
    free = [seat.outstanding for seat in seats if seat.free]
    if choice is not None:
        assert next(seat.outstanding for seat in seats if seat.name == choice.name) == min(free)


@given(names, keys)
@unhurried
def test_who_leaves_moves_only_its_own_prefixes(everybody: list[str], key: bytes) -> None:
    order = ranked(key, everybody)
    assert sorted(order) == sorted(everybody)
    for gone in everybody:
        assert ranked(key, [name for name in everybody if name != gone]) == [name for name in order if name != gone]


def test_prefixes_are_spread_evenly_and_stay_where_they_are() -> None:
    seats = [Seat(f"vllm-{i}", 0, 0, 10) for i in range(4)]
    places = Counter[str]()
    for number in range(2000):
        key = number.to_bytes(4, "big")
        choice = choose(seats, 100, key, b"one", Rules())
        assert choice == choose(seats[::-1], 100, key, b"two", Rules())
        assert choice is not None
        assert choice.affinity == "kept"
        places[choice.name] += 1
    assert len(places) == 4
    assert min(places.values()) > 400


def test_an_overloaded_backend_hands_its_prefix_to_the_next_in_rank() -> None:
    first, second, third = ranked(b"key", ["a", "b", "c"])
    seats = [Seat(first, 90_000, 1, 10), Seat(second, 100, 1, 10), Seat(third, 100, 1, 10)]
    choice = choose(seats, 100, b"key", b"tie", Rules(1.25, 1000))
    assert choice is not None
    assert (choice.name, choice.affinity) == (second, "spilled")
