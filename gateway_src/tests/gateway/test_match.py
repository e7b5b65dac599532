# SPDX-License-Identifier: GPL-3.0-or-later
"""The match of a day: every kind of difference is found, and nothing else."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sophia.gateway.match import match
from sophia.gateway.records import Billed
from sophia.stores.ledger import Booked

DAY = 86_400 * 10**9
NOON = DAY // 2


def booked(name: str, cost: int, at: int = NOON, tokens: int = 5) -> Booked:
    return Booked(name, f"att_{name}", at, "model", cost, tokens, 7, 0, 0)


def billed(name: str, cost: int, tokens: int = 5) -> Billed:
    return Billed(name, "model", cost, tokens, 7)


costs = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(0, 10**12), max_size=20)


@given(costs)
def test_equal_books_have_no_difference(amounts: dict[str, int]) -> None:
    ours = {name: booked(name, cost) for name, cost in amounts.items()}
    theirs = {name: billed(name, cost) for name, cost in amounts.items()}
    assert match(ours, theirs, {}, 0, DAY) == []


@given(costs, st.data())
def test_one_error_is_found_for_what_it_is(amounts: dict[str, int], data: st.DataObject) -> None:
    amounts |= {"g": data.draw(st.integers(1, 10**12))}
    ours = {name: booked(name, cost) for name, cost in amounts.items()}
    theirs = {name: billed(name, cost) for name, cost in amounts.items()}
    unbooked: dict[str, str | None] = {}
    kind = data.draw(st.sampled_from(("not_booked", "not_billed", "cost", "tokens")))
    match kind:
        case "not_booked":
            del ours["g"]
            unbooked = {"g": "att_g"}
        case "not_billed":
            del theirs["g"]
        case "cost":
            theirs["g"] = billed("g", amounts["g"] + data.draw(st.sampled_from((-1, 1))))
        case _:
            theirs["g"] = billed("g", amounts["g"], tokens=6)
    found = match(ours, theirs, unbooked, 0, DAY)
    assert [(each.kind, each.generation, each.attempt) for each in found] == [(kind, "g", "att_g")]


def test_what_another_clock_puts_on_another_day_is_not_missing() -> None:
    early = {"early": booked("early", 5, at=10**9)}
    late = {"late": booked("late", 5, at=DAY)}
    assert match(early | late, {}, {}, 0, DAY) == []
    assert match({"noon": booked("noon", 5)}, {}, {}, 0, DAY)


def test_what_cost_nothing_is_missed_by_nobody() -> None:
    assert match({"free": booked("free", 0)}, {}, {}, 0, DAY) == []
    assert match({}, {"free": billed("free", 0)}, {"free": None}, 0, DAY) == []
