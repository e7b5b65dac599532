# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From what is wanted and what is there to the steps between: pure functions."""

from __future__ import annotations

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._gateway.model import (
    Found,
    body_of,
    dollars,
    instant,
    listing_of,
)
from ansible_collections.sophia.platform.plugins.module_utils._gateway.plan import plan, plan_flag

ORGANIZATION = {
    "budgets.day": None,
    "budgets.week": None,
    "budgets.month": None,
    "limits.requests_per_minute": None,
    "limits.tokens_per_minute": None,
    "models": None,
    "disabled": False,
}
USER = {**ORGANIZATION, "email": None, "role": "member", "team": None}
KEY = {**ORGANIZATION, "scopes": ["chat"], "expires_at": None}


def item(name, **fields):
    return {"name": name, "state": "present", "dest": None, **fields}


def steps(organizations, found=None, **options):
    todo = plan(listing_of(organizations, options.pop("present", True)), found or {}, **options)
    return [(step.do, *step.place[1]) for step in todo.steps]


def existing():
    return {
        ("organization", ("acme",)): Found("o", dict(ORGANIZATION)),
        ("team", ("acme", "core")): Found("t", dict(ORGANIZATION)),
        ("user", ("acme", "ada")): Found("u", {**USER, "team": "core"}),
        ("key", ("acme", "ada", "laptop")): Found("k", dict(KEY)),
    }


def test_parents_are_made_before_children():
    user = item("ada", keys=[item("laptop")])
    made = steps([item("acme", users=[item("bob")], teams=[item("core", users=[user])])])
    assert made == [
        ("create", "acme"),
        ("create", "acme", "core"),
        ("create", "acme", "ada"),
        ("create", "acme", "bob"),
        ("create", "acme", "ada", "laptop"),
    ]


def test_what_is_as_wanted_or_not_given_is_left_alone():
    assert steps([item("acme")], existing()) == []
    same = item("acme", budgets={"day": "unlimited", "week": None}, models=["*"], disabled=False, limits={"tokens_per_minute": 0})
    assert steps([same], existing()) == []
    assert steps([item("acme", teams=[item("core", users=[item("ada", keys=[item("laptop", scopes=["chat"])])])])], existing()) == []


def test_a_change_sets_what_differs_and_nothing_else():
    listing = listing_of([item("acme", users=[item("ada", team="", role="member", budgets={"day": "1.50"})])], True)
    todo = plan(listing, existing())
    (step,) = todo.steps
    assert (step.do, step.id, step.settings) == ("update", "u", {"team": None, "budgets.day": "1.5"})
    assert todo.before["user acme/ada"]["team"] == "core" and todo.after["user acme/ada"]["team"] is None
    assert body_of(step.settings) == {"team": None, "budgets": {"day": "1.5"}}


def test_absent_goes_from_the_leaves_and_parents_take_their_children_with_them():
    found = existing()
    assert steps([item("acme")], found, present=False) == [("delete", "acme")]
    assert steps([{**item("acme"), "state": "absent", "users": [item("ada")]}], found) == [("delete", "acme")]
    gone = {"state": "absent"}
    listed = [item("acme", teams=[{**item("core"), **gone}], users=[{**item("ada"), **gone, "keys": [item("laptop")]}])]
    assert steps(listed, found) == [("delete", "acme", "ada"), ("delete", "acme", "core")]
    assert steps([{**item("nobody"), **gone}], found) == []


def test_purge_counts_only_lists_that_are_given():
    found = existing()
    assert steps([item("acme")], found, purge=True) == []
    assert steps([item("acme", teams=[])], found, purge=True) == [("delete", "acme", "core")]
    assert steps([item("acme", users=[])], found, purge=True) == [("delete", "acme", "ada")]
    assert steps([item("acme", users=[item("ada")])], found, purge=True) == []
    assert steps([item("acme", users=[item("ada", keys=[])])], found, purge=True) == [("delete", "acme", "ada", "laptop")]
    assert steps([item("acme", users=[item("ada", keys=[])])], found) == []


def test_a_lost_secret_is_made_anew():
    found = existing()
    lost = [("key", ("acme", "ada", "laptop"))]
    assert steps([item("acme", users=[item("ada", keys=[item("laptop")])])], found, lost=lost) == [("rotate", "acme", "ada", "laptop")]


@pytest.mark.parametrize(
    ("organizations", "told"),
    [
        ([item("acme"), item("acme")], "organization acme is listed twice"),
        ([item("acme", users=[item("ada")], teams=[item("core", users=[item("ada")])])], "user acme/ada is listed twice"),
        ([item("acme", users=[item("ada", team="none")])], "there is no team 'none'"),
        ([item("acme", teams=[{**item("core"), "state": "absent"}], users=[item("ada", team="core")])], "there is no team 'core'"),
        ([item("acme", budgets={"day": "a lot"})], "budgets.day: 'a lot' is not an amount"),
        ([item("acme", users=[item("ada", keys=[item("k", expires_at="2027-01-01")])])], "not a time with its zone"),
    ],
)
def test_what_makes_no_sense_is_refused(organizations, told):
    with pytest.raises(InvalidInput, match=told):
        steps(organizations, existing())


@pytest.mark.parametrize(
    ("given", "plain"),
    [("5", "5"), ("5.00", "5"), ("0", "0"), ("100", "100"), ("1e2", "100"), ("0.000000001", "0.000000001"), ("unlimited", None)],
)
def test_amounts_have_one_form(given, plain):
    assert dollars(given, "x") == plain


@pytest.mark.parametrize("given", ["", "-1", "NaN", "Infinity", "1e9", "0.0000000001", "$5"])
def test_other_amounts_are_refused(given):
    with pytest.raises(InvalidInput):
        dollars(given, "x")


def test_times_are_told_in_utc():
    assert instant("2027-01-01T01:00:00+01:00") == instant("2027-01-01T00:00:00Z") == "2027-01-01T00:00:00Z"


FLAG = {"enabled": True, "percentage": 10.0, "organizations": {}, "values": [], "description": "", "version": 4, "name": "x"}
GIVEN = dict.fromkeys(("enabled", "percentage", "organizations", "values", "description"))


def test_a_flag_keeps_what_is_not_given():
    todo = plan_flag(True, {**GIVEN, "percentage": 20.0}, FLAG)
    assert todo.action == "update" and todo.body() == {**todo.before, "percentage": 20.0, "version": 4}
    assert plan_flag(True, {**GIVEN, "percentage": 10.0}, FLAG).action == "none"
    assert plan_flag(True, GIVEN, None).body() == {
        "enabled": False,
        "percentage": 100.0,
        "organizations": {},
        "values": [],
        "description": "",
        "version": 0,
    }
    assert plan_flag(False, GIVEN, FLAG).action == "delete" and plan_flag(False, GIVEN, None).action == "none"
