# SPDX-License-Identifier: GPL-3.0-or-later
"""Flags stick to their subjects, an override wins, one change touches no other flag, a file is in force in no time."""

from __future__ import annotations

import asyncio
import inspect
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.gateway.flags import NO_SWITCHES, FlagFileError, Flags, FlagSet, enabled, place, read_flag_file
from sophia.stores.model import Flag

SUBJECTS = [f"user_{number}" for number in range(4000)]


@given(st.text(), st.text(), st.floats(0, 100), st.floats(0, 100))
@settings(max_examples=300, deadline=None)
def test_a_growing_percentage_keeps_everybody_who_was_in(name: str, subject: str, one: float, other: float) -> None:
    low, high = sorted((one, other))
    before = enabled(Flag(name, enabled=True, percentage=low), "o", subject)
    after = enabled(Flag(name, enabled=True, percentage=high), "o", subject)
    assert after or not before


@given(st.text(), st.text())
def test_a_place_is_within_the_hundred_and_stays(name: str, subject: str) -> None:
    assert 0.0 <= place(name, subject) < 100.0
    assert place(name, subject) == place(name, subject)
    assert not enabled(Flag(name, enabled=True, percentage=0.0), "o", subject)
    assert enabled(Flag(name, enabled=True, percentage=100.0), "o", subject)


def test_a_place_is_the_same_in_every_version_and_process() -> None:
    assert place("new_cache", "user_1") == 99.41923196008047


@pytest.mark.parametrize("percentage", [1.0, 10.0, 50.0, 90.0])
def test_a_percentage_is_that_share_of_the_subjects(percentage: float) -> None:
    share = sum(enabled(Flag("f", enabled=True, percentage=percentage), "o", each) for each in SUBJECTS) / len(SUBJECTS)
    # Four standard deviations of a binomial share over 4,000 subjects; the hash is fixed, so this cannot flake.
    p = percentage / 100
    assert abs(share - p) < 4 * (p * (1 - p) / len(SUBJECTS)) ** 0.5


def test_two_flags_do_not_pick_the_same_subjects() -> None:
    both = sum(place("a", each) < 50 and place("b", each) < 50 for each in SUBJECTS) / len(SUBJECTS)
    assert 0.22 < both < 0.28


@pytest.mark.parametrize(
    ("flag", "on"),
    [
        (Flag("f", enabled=False), False),
        (Flag("f", enabled=True), True),
        (Flag("f", enabled=True, percentage=0.0), False),
        (Flag("f", enabled=True, percentage=0.0, organizations={"o": True}), True),
        (Flag("f", enabled=True, percentage=100.0, organizations={"o": False}), False),
        (Flag("f", enabled=True, percentage=100.0, organizations={"other": False}), True),
        (Flag("f", enabled=False, organizations={"o": True}), False),
    ],
)
def test_an_override_wins_over_the_percentage_and_off_over_all(flag: Flag, on: bool) -> None:
    assert enabled(flag, "o", "u") is on


def test_operational_flags_become_switches() -> None:
    assert FlagSet({"other": Flag("other", enabled=True)}).switches("o", "u") is NO_SWITCHES
    on = FlagSet(
        {
            "disable_model": Flag("disable_model", enabled=True, values=("a/*",)),
            "fallback_mode": Flag("fallback_mode", enabled=True, organizations={"o": False}),
            "force_healthy_models": Flag("force_healthy_models", enabled=True),
        }
    )
    here, there = on.switches("o", "u"), on.switches("p", "u")
    assert (here.disabled, here.fallback, here.healthy) == (("a/*",), None, ())
    assert there.fallback == ()
    assert not on.on("no_such", "o", "u")
    assert on.values("no_such", "o", "u") is None


names = st.sampled_from(["a", "b", "c", "d"])
made = st.builds(Flag, names, st.booleans(), st.floats(0, 100), version=st.integers(1, 5))


@given(st.lists(made, unique_by=lambda flag: flag.name), made)
@settings(deadline=None)
def test_a_change_to_one_flag_touches_no_other(rows: list[Flag], change: Flag) -> None:
    flags = Flags(rows=rows)
    before = flags.current
    flags.put(change)
    assert {**flags.current.flags, change.name: None} == {**before.flags, change.name: None}
    old = before.flags.get(change.name)
    assert flags.current.flags[change.name] == (old if old is not None and old.version > change.version else change)
    flags.drop(change.name)
    assert dict(flags.current.flags) == {name: flag for name, flag in before.flags.items() if name != change.name}


def test_a_snapshot_taken_does_not_change() -> None:
    flags = Flags(rows=[Flag("a")])
    taken = flags.current
    flags.put(Flag("a", enabled=True, version=2))
    flags.replace([])
    assert not taken.flags["a"].enabled


def write(path: Path, text: str) -> None:
    """Write as an editor and a ConfigMap do: a new file in the old one's place."""
    fresh = path.with_suffix(".new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def test_a_flag_of_the_file_hides_that_of_the_database(tmp_path: Path) -> None:
    file = tmp_path / "flags.yml"
    write(file, "a: {enabled: true, percentage: 25, organizations: {o: false}, values: [x]}\n")
    flags = Flags(file, [Flag("a"), Flag("b", enabled=True)])
    assert flags.current.readonly == {"a"}
    assert flags.current.flags["a"] == Flag("a", True, 25.0, {"o": False}, ("x",), "", version=0)
    assert flags.current.flags["b"].enabled
    flags.put(Flag("a", version=9))
    assert flags.current.flags["a"].percentage == 25.0
    write(file, "{}\n")
    assert flags.poll()
    assert flags.current.flags["a"] == Flag("a", version=9)
    assert flags.current.readonly == frozenset()


def test_a_wrong_change_keeps_the_last_good_state_and_is_told(tmp_path: Path) -> None:
    file = tmp_path / "flags.yml"
    write(file, "a: {enabled: true}\n")
    flags = Flags(file)
    assert not flags.poll()
    for text in ("a: {enabled: maybe}\n", "a: [\n", "- a\n", "a: {percentage: 101}\n", "a: {typo: 1}\n"):
        write(file, text)
        assert flags.poll()
        assert flags.problems
        assert str(file) in flags.problems[0]
        assert flags.current.on("a", "o", "u")
        assert not flags.poll()
    file.unlink()
    assert flags.poll()
    assert not flags.poll()
    assert flags.current.on("a", "o", "u")
    write(file, "a: {enabled: false}\n")
    assert flags.poll()
    assert flags.problems == ()
    assert not flags.current.on("a", "o", "u")


def test_a_file_that_is_wrong_from_the_start_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "flags.yml"
    write(file, "a: {enabled: 7}\nb: {percentage: -1}\nc: {enabled: true}\n")
    with pytest.raises(FlagFileError) as caught:
        Flags(file)
    assert len(caught.value.problems) == 2
    with pytest.raises(FlagFileError):
        Flags(tmp_path / "none.yml")


async def test_a_change_of_the_file_is_in_force_at_the_next_look(tmp_path: Path) -> None:
    file = tmp_path / "flags.yml"
    write(file, "a: {enabled: false}\n")
    flags = Flags(file)
    heard = asyncio.Event()
    task = asyncio.create_task(flags.watch(lambda _: heard.set()))
    try:
        await asyncio.sleep(0)
        write(file, "a: {enabled: true}\n")
        await asyncio.wait_for(heard.wait(), 10)
        assert flags.current.on("a", "o", "u")
        # Looking four times a second leaves fourfold room to "in force in less than a second".
        assert inspect.signature(flags.watch).parameters["interval"].default <= 0.25
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_text_is_flags_or_a_list_of_problems(text: str) -> None:
    try:
        found = read_flag_file(text, "flags.yml")
    except FlagFileError as error:
        found = ()
        problems = error.problems
    else:
        problems = []
    assert all(isinstance(each, Flag) for each in found)
    assert all(each.startswith("flags.yml: ") for each in problems)
