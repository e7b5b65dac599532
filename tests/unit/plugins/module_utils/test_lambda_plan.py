# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Plans of pools: pure, so tested on any state there can be."""

from __future__ import annotations

import pathlib
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import Instance, Offer, cents_of, check_tags, identity, usd
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.plan import COMING, SICK, Desired, Member, decide, grid, plan

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[4]))

OFFERS = (
    Offer("a6000", 109, 1, "", ("east", "west")),
    Offer("a10", 129, 1, "", ("south", "east")),
    Offer("h100", 329, 1, "", ("west",)),
    Offer("b200", 699, 1, "", ()),
)
TYPES = tuple(offer.type for offer in OFFERS)
STATUSES = ["active", "booting", "pending", "unhealthy", "preempted", "stuck", "terminating"]


@st.composite
def members(draw):
    found = []
    for number in range(draw(st.integers(0, 6))):
        offer = draw(st.sampled_from(OFFERS))
        ordinal = draw(st.integers(0, 7))
        spec = draw(st.sampled_from(["new", "old"]))
        status = draw(st.sampled_from(STATUSES))
        region = draw(st.sampled_from(["east", "west", "north"]))
        found.append(Member(f"p-{ordinal}-{spec}", ordinal, spec, status, offer.type, region, offer.cents, f"id{number}"))
    return found


@st.composite
def pools(draw):
    surge, unavailable = draw(st.sampled_from([(1, 0), (0, 1), (1, 1), (2, 2), (3, 0)]))
    return Desired(
        pool="p",
        count=draw(st.integers(0, 6)),
        spec="new",
        types=tuple(draw(st.lists(st.sampled_from(TYPES), min_size=1, unique=True))),
        regions=tuple(draw(st.lists(st.sampled_from(["east", "west", "south"]), unique=True))),
        strategy=draw(st.sampled_from(["cheapest", "ranked", "spread"])),
        ceiling=draw(st.sampled_from([None, 120, 130, 400])),
        budget=draw(st.sampled_from([None, 200, 500, 1000, 3000])),
        max_surge=surge,
        max_unavailable=unavailable,
        protected=frozenset(draw(st.lists(st.sampled_from(["p-0-old", "p-1-new"]), unique=True))),
        drain_required=draw(st.booleans()),
        replace_unhealthy=draw(st.booleans()),
        replace_drifted=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=300)
@given(pools(), members())
def test_a_plan_keeps_its_promises(desired, there):
    todo = plan(desired, there, OFFERS)
    prices = {offer.type: offer.cents for offer in OFFERS}
    before = sum(member.cents for member in there)
    assert todo.before == before
    if desired.budget is not None:
        assert todo.peak <= max(desired.budget, before)
    launched = [step for step in todo.steps if step.do == "launch"]
    assert len({step.ordinal for step in launched} | {member.ordinal for member in there}) == len(launched) + len({member.ordinal for member in there})
    for step in launched:
        assert step.type in desired.types and step.cents == prices[step.type] <= (desired.ceiling or 10_000)
        assert not desired.regions or step.region in desired.regions
    assert not desired.protected & {step.name for step in todo.deletions}
    assert len({step.id for step in todo.deletions}) == len(todo.deletions)
    drained = list(todo.to_drain)
    serving = {member.id for member in there if member.status == "active"}
    if desired.drain_required:
        gone = [step.name for step in todo.deletions if step.why in ("surplus", "drifted") and step.id in serving]
        assert set(gone) <= set(drained)
    if todo.blocked is None:
        assert todo.shortfall == 0 or not desired.replace_unhealthy or any(member.status in SICK for member in todo.after_members)
        assert decide(desired, todo.after_members, OFFERS) is None
    assert todo.after == sum(member.cents for member in todo.after_members)


@settings(deadline=None, max_examples=300)
@given(pools(), members())
def test_no_step_takes_away_more_than_it_may(desired, there):
    step = decide(replace(desired, drain_required=False), there, OFFERS)
    if step is None or step.do != "delete" or step.why in (*SICK, "duplicate"):
        return
    victim = next(member for member in there if member.id == step.id)
    active = [member for member in there if member.status == "active"]
    if victim in active:
        assert len(active) - 1 >= desired.count - desired.max_unavailable


@settings(deadline=None, max_examples=300)
@given(pools(), members(), st.sampled_from(["booting", "pending", "active"]))
def test_what_was_just_launched_is_not_deleted(desired, there, status):
    # A launch of unknown outcome has no id.
    there = [replace(member, id=None) if member.status == "pending" else member for member in there]
    step = decide(desired, there, OFFERS)
    if step is None or step.do != "launch":
        return
    new = Member(step.name, step.ordinal, desired.spec, status, step.type, step.region, step.cents, "new")
    following = decide(desired, [*there, new], OFFERS)
    assert following is None or following.id != "new"


@given(pools(), members())
def test_with_nothing_on_sale_nothing_is_emptied_to_be_filled(desired, there):
    todo = plan(replace(desired, replace_unhealthy=False), there, ())
    staying = [member for member in there if member.status != "terminating"]
    unique = {member.ordinal for member in staying}
    assert len(staying) - len(todo.deletions) >= min(desired.count, len(unique))
    assert all(step.do != "launch" for step in todo.steps)


def host(ordinal, type="a10", status="active", spec="new", region="east"):
    cents = next(offer.cents for offer in OFFERS if offer.type == type)
    return Member(f"p-{ordinal}-{spec}", ordinal, spec, status, type, region, cents, f"id{ordinal}")


POOL = Desired(pool="p", count=1, spec="new", types=("a6000", "a10", "h100"))


def test_scale_in_goes_by_health_drift_price_and_ordinal():
    there = [host(0), host(1, "h100"), host(2), host(3, spec="old"), host(4, status="unhealthy")]
    desired = replace(POOL, count=0, replace_unhealthy=False, replace_drifted=False)
    todo = plan(desired, there, None)
    assert [(step.ordinal, step.why) for step in todo.steps] == [(4, "unhealthy"), (3, "surplus"), (1, "surplus"), (2, "surplus"), (0, "surplus")]


@pytest.mark.parametrize(
    ("strategy", "first"),
    [("cheapest", ("a6000", "east")), ("ranked", ("a10", "south")), ("spread", ("a6000", "west"))],
)
def test_what_is_tried_first(strategy, first):
    desired = replace(POOL, types=("a10", "a6000"), regions=("south", "east", "west"), strategy=strategy)
    offer, region = grid(desired, [host(0), host(1, region="south")], OFFERS)[0]
    assert (offer.type, region) == first


def test_a_refused_pair_is_not_tried():
    found = [(offer.type, region) for offer, region in grid(POOL, [], OFFERS, [("a6000", "east")])]
    assert ("a6000", "east") not in found and ("a6000", "west") in found


def test_offers_are_asked_for_only_where_something_is_missing():
    assert decide(POOL, [host(0)], None) is None
    assert decide(POOL, [], None).do == "shop"
    assert decide(POOL, [host(0, status=sorted(COMING)[0])], None).do == "wait"


def test_the_plan_is_what_is_done():
    history = pytest.importorskip("tests.bench.pools.history")
    for seed in range(12):
        steps = history.quiet(seed)
        assert steps and all(foretold == done for foretold, done in steps)


@pytest.mark.parametrize(("text", "cents"), [("1", 100), ("1.299", 129), ("0", 0), (None, None)])
def test_money_is_rounded_down(text, cents):
    assert cents_of(text, "budget") == cents


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "", "1 USD"])
def test_what_is_no_money(text):
    with pytest.raises(InvalidInput):
        cents_of(text, "budget")


@given(st.integers(0, 10**7))
def test_money_survives_the_way_out_and_in(cents):
    assert cents_of(usd(cents), "budget") == cents


def test_who_a_host_is():
    tags = {"sophia-pool": "p", "sophia-ordinal": "3", "sophia-spec": "01234567"}
    renamed = Instance("id", "anything", "active", "a10", "east", 129, tags=tags)
    assert (identity(renamed).pool, identity(renamed).ordinal) == ("p", 3)
    assert identity(replace(renamed, tags={})) is None
    assert identity(replace(renamed, tags={**tags, "sophia-ordinal": "x"})) is None
    assert check_tags({"cost-centre": 7}) == {"cost-centre": "7"}
