# SPDX-License-Identifier: GPL-3.0-or-later
"""Key slots: reloaded from their files, preferred in order, rested where a key is refused or spent."""

from __future__ import annotations

from pathlib import Path

import pytest

from sophia.gateway.slots import Slots, fingerprint
from sophia.settings import KeyFiles


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slots(tmp_path: Path, clock: Clock) -> Slots:
    (tmp_path / "primary").write_text("sk-one\n")
    (tmp_path / "secondary").write_text("sk-two\n")
    slots = Slots(KeyFiles(tmp_path / "primary", tmp_path / "secondary"), clock)
    slots.load()
    return slots


def key(slots: Slots, *without: str) -> str | None:
    slot = slots.pick(without)
    return slot.key if slot else None


def test_the_primary_is_preferred(slots: Slots) -> None:
    assert key(slots) == "sk-one"
    assert key(slots, fingerprint("sk-one")) == "sk-two"
    assert key(slots, fingerprint("sk-one"), fingerprint("sk-two")) is None


def test_a_refused_key_rests_and_is_tried_again(slots: Slots, clock: Clock) -> None:
    slots.reject(slots.loaded["primary"])
    assert key(slots) == "sk-two"
    clock.now += 31
    assert key(slots) == "sk-one"
    slots.limit(slots.loaded["primary"])
    slots.reject(slots.loaded["secondary"])
    assert key(slots) == "sk-one"  # with nothing better, what rests is tried


def test_a_replaced_file_is_loaded_and_clears_the_rest(slots: Slots, tmp_path: Path) -> None:
    slots.reject(slots.loaded["primary"])
    replacement = tmp_path / "new"
    replacement.write_text("sk-three")
    replacement.replace(tmp_path / "primary")
    assert slots.load()
    assert not slots.load()
    assert key(slots) == "sk-three"


def test_a_slot_whose_file_goes_is_empty(slots: Slots, tmp_path: Path) -> None:
    (tmp_path / "primary").unlink()
    assert slots.load()
    assert key(slots) == "sk-two"
    (tmp_path / "secondary").write_text("  \n")
    assert slots.load()
    assert key(slots) is None


def test_requests_in_flight_are_counted_by_hash(slots: Slots) -> None:
    slot = slots.loaded["primary"]
    slots.enter(slot)
    slots.enter(slot)
    assert slots.in_flight[slot.hash] == 2
    slots.leave(slot)
    slots.leave(slot)
    assert slots.in_flight[slot.hash] == 0
    assert "sk-one" not in repr(slot)
