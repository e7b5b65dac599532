# SPDX-License-Identifier: GPL-3.0-or-later
"""Flags: sticky shares, overrides, one change at a time, and the read-only file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.errors import Conflict, NotFound
from sophia.stores.audit import Actor
from sophia.stores.flags import FlagFileError, Flags, bucket, is_on, parse
from sophia.stores.model import Flag
from tenants import Tenants, until

ACTOR = Actor("key_test")


@given(subject=st.text(), low=st.floats(0, 100), high=st.floats(0, 100))
def test_a_larger_share_keeps_everybody_who_was_in(subject: str, low: float, high: float) -> None:
    low, high = sorted((low, high))
    inside = [is_on(Flag("new", True, share), organization="o", subject=subject) for share in (low, high)]
    assert inside in ([False, False], [False, True], [True, True])


@given(subject=st.text())
def test_the_ends_of_the_scale_are_nobody_and_everybody(subject: str) -> None:
    assert 0 <= bucket("new", subject) < 100
    assert not is_on(Flag("new", True, 0.0), organization="o", subject=subject)
    assert is_on(Flag("new", True, 100.0), organization="o", subject=subject)


def test_shares_are_as_large_as_they_say_and_independent_between_flags() -> None:
    subjects = [f"user_{number}" for number in range(4000)]
    one = {subject for subject in subjects if bucket("one", subject) < 30}
    two = {subject for subject in subjects if bucket("two", subject) < 30}
    assert abs(len(one) - 1200) < 150
    assert abs(len(one & two) - 360) < 90


def test_an_override_beats_the_share_and_the_switch_beats_both() -> None:
    flag = Flag("new", True, 0.0, {"org_a": True})
    assert is_on(flag, organization="org_a", subject="x")
    assert not is_on(flag, organization="org_b", subject="x")
    assert not is_on(Flag("new", True, 100.0, {"org_a": False}), organization="org_a", subject="x")
    assert not is_on(Flag("new", False, 100.0, {"org_a": True}), organization="org_a", subject="x")
    assert not is_on(None, organization="org_a", subject="x")


async def test_a_change_is_in_force_at_once_and_touches_no_other_flag(tenants: Tenants) -> None:
    flags = tenants.flags
    other = await flags.put(ACTOR, Flag("other", True, values=("a", "b")), 0)
    first = await flags.put(ACTOR, Flag("new", True, 10.0, {"org": True}), 0)
    second = await flags.put(ACTOR, Flag("new", True, 20.0), first.version)
    assert (first.version, second.version) == (1, 2)
    assert flags.get("new") == second
    assert flags.get("other") == other
    assert flags.all() == [second, other]
    assert (await tenants.audit.verify()).entries == 3


async def test_a_change_made_from_an_old_version_is_refused(tenants: Tenants) -> None:
    flags = tenants.flags
    await flags.put(ACTOR, Flag("new", True), 0)
    for version in (0, 2):
        with pytest.raises(Conflict, match="at version 1"):
            await flags.put(ACTOR, Flag("new"), version)
    results = await asyncio.gather(
        *(flags.put(ACTOR, Flag("new", percentage=share), 1) for share in (1.0, 2.0, 3.0)), return_exceptions=True
    )
    assert sum(isinstance(result, Flag) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 2


async def test_a_removed_flag_is_off_and_its_versions_go_on(tenants: Tenants) -> None:
    flags = tenants.flags
    await flags.put(ACTOR, Flag("new", True), 0)
    with pytest.raises(Conflict):
        await flags.delete(ACTOR, "new", 5)
    await flags.delete(ACTOR, "new", 1)
    assert flags.get("new") is None
    with pytest.raises(NotFound):
        await flags.delete(ACTOR, "new", 2)
    assert (await flags.put(ACTOR, Flag("new", True), 0)).version == 3


async def test_the_file_wins_is_followed_and_is_read_only(
    tenants: Tenants, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "flags.yml"
    file.write_text("flags:\n  disable_model: {enabled: true, values: [openai/gpt-4o]}\n")
    flags = Flags(tenants.database, tenants.audit, tenants.changes, file)
    tenants.changes.follow(flags.refresh)
    await flags.load()
    following = asyncio.create_task(flags.run())
    try:
        found = flags.get("disable_model")
        assert found is not None
        assert found.values == ("openai/gpt-4o",)
        for change in (flags.put(ACTOR, Flag("disable_model"), 1), flags.delete(ACTOR, "disable_model", 1)):
            with pytest.raises(Conflict, match="flags file"):
                await change
        file.write_text("flags: {disable_model: {enabled: 3}, Bad: {}, ok: {nope: 1}}")
        await until(lambda: "flags stay as they were" in caplog.text)
        assert flags.get("disable_model") == found
        file.write_text("flags: {other: {}}")
        await until(lambda: flags.get("disable_model") is None)
        assert flags.read_only("other")
        await flags.put(ACTOR, Flag("disable_model", True), 0)
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


def test_every_problem_of_a_file_is_named() -> None:
    with pytest.raises(FlagFileError) as raised:
        parse("flags: {one: {enabled: 3}, Two: {}, three: {nope: 1}, four: {percentage: 101}}", 0)
    assert [problem.split(":")[0] for problem in raised.value.problems] == [
        "flags.one",
        "flags.Two",
        "flags.three",
        "flags.four",
    ]


@pytest.mark.parametrize("text", ["[1]", "flag: {}", "flags: [1]", "{"])
def test_a_file_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(FlagFileError):
        parse(text, 0)


@pytest.mark.parametrize("text", ["", "flags:", "flags: {}"])
def test_an_empty_file_has_no_flags(text: str) -> None:
    assert parse(text, 0) == {}


async def test_a_file_that_is_not_there_is_an_error_at_start(tenants: Tenants, tmp_path: Path) -> None:
    flags = Flags(tenants.database, tenants.audit, tenants.changes, tmp_path / "none.yml")
    with pytest.raises(FlagFileError, match=r"none\.yml"):
        await flags.load()
