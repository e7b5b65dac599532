# SPDX-License-Identifier: GPL-3.0-or-later
"""The operational flags reach a plan as they stand for its subject, and no flag switches what is another's."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.gateway.flags import NO_SWITCHES, FlagSet, Switches
from sophia.stores.model import Flag

NAMES = ("fallback_mode", "disable_model", "force_healthy_models")


def test_without_flags_nothing_is_switched() -> None:
    assert FlagSet().switches("o", "u") is NO_SWITCHES
    assert FlagSet({"other": Flag("other", enabled=True)}).switches("o", "u") is NO_SWITCHES


def test_a_flag_that_does_not_exist_is_off() -> None:
    assert not FlagSet().on("no_such", "o", "u")
    assert FlagSet().values("no_such", "o", "u") is None


def test_flags_become_switches_for_each_organization() -> None:
    on = FlagSet(
        {
            "disable_model": Flag("disable_model", enabled=True, values=("a/*",)),
            "fallback_mode": Flag("fallback_mode", enabled=True, organizations={"o": False}),
            "force_healthy_models": Flag("force_healthy_models", enabled=False, values=("b/b",)),
        }
    )
    assert on.switches("o", "u") == Switches(None, ("a/*",), None)
    assert on.switches("p", "u") == Switches((), ("a/*",), None)


@given(st.sampled_from(NAMES), st.text(min_size=1), st.floats(0, 100), st.floats(0, 100))
@settings(max_examples=200, deadline=None)
def test_a_growing_percentage_keeps_everybody_who_was_in(name: str, subject: str, one: float, other: float) -> None:
    low, high = (FlagSet({name: Flag(name, True, share)}) for share in sorted((one, other)))
    assert high.on(name, "o", subject) or not low.on(name, "o", subject)


@given(st.dictionaries(st.sampled_from(NAMES), st.booleans()), st.sampled_from(NAMES), st.booleans())
@settings(deadline=None)
def test_a_change_to_one_flag_switches_no_other(before: dict[str, bool], name: str, on: bool) -> None:
    taken = {each: Flag(each, enabled=state, values=(each,)) for each, state in before.items()}
    old = FlagSet(taken).switches("o", "u")
    new = FlagSet({**taken, name: Flag(name, enabled=on, values=(name,))}).switches("o", "u")
    fields = dict(zip(NAMES, ("fallback", "disabled", "healthy"), strict=True))
    for each, field in fields.items():
        if each != name:
            assert getattr(new, field) == getattr(old, field)
    assert bool(getattr(new, fields[name])) is on
