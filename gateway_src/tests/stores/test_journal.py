# SPDX-License-Identifier: GPL-3.0-or-later
"""The journal: durable, cut at torn tails, owned by one living process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.stores import journal
from sophia.stores.journal import Journal, JournalError, JournalLocked
from sophia.stores.model import Intent, Outcome, Settlement, Tokens


def intent(number: int) -> Intent:
    return Intent(
        attempt=f"att_{number}",
        request="req",
        at=number,
        organization="org",
        team=None,
        user="user",
        key="key",
        api="chat",
        model="model",
        slot="slot",
        reserved=number,
        tags=("a", "b"),
    )


def settlement(number: int) -> Settlement:
    return Settlement(f"att_{number}", number, Outcome.COMPLETE, 7 * number, tokens=Tokens(1, 2, 3, 4), source="usage")


async def test_what_was_awaited_is_on_the_disk(tmp_path: Path) -> None:
    own = Journal(tmp_path / "one")
    for number in range(50):
        await own.append_durable(intent(number))
        own.append(settlement(number))
        found = list(journal.read(tmp_path / "one"))
        assert intent(number) in found
    await own.close()
    records = list(journal.read(tmp_path / "one"))
    assert records == [record for number in range(50) for record in (intent(number), settlement(number))]


async def test_segments_are_rotated_and_discarded(tmp_path: Path) -> None:
    own = Journal(tmp_path / "one", segment_bytes=200)
    for number in range(40):
        await own.append_durable(intent(number))
    assert len(list((tmp_path / "one").glob("*.journal"))) > 5
    assert [record.attempt for record in journal.read(tmp_path / "one")] == [f"att_{n}" for n in range(40)]
    own.discard(own.segment - 1)
    assert len(list((tmp_path / "one").glob("*.journal"))) == 1
    await own.close(empty=True)
    assert not (tmp_path / "one").exists()


async def test_a_living_owner_keeps_its_folder(tmp_path: Path) -> None:
    own = Journal(tmp_path / "one")
    with pytest.raises(JournalLocked):
        Journal(tmp_path / "one")
    assert list(journal.abandoned(tmp_path, tmp_path / "two")) == []
    await own.close()
    ((folder, lock),) = journal.abandoned(tmp_path, tmp_path / "two")
    assert folder == tmp_path / "one"
    journal.remove(folder)
    os.close(lock)
    assert list(journal.abandoned(tmp_path, tmp_path / "two")) == []


async def test_a_full_disk_is_an_error_and_leaves_nothing_torn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = Journal(tmp_path / "one")
    await own.append_durable(intent(1))
    real_write = os.write
    budget = [10]

    def full(descriptor: int, data: bytes) -> int:
        if budget[0] <= 0:
            raise OSError(28, "No space left on device")
        written = real_write(descriptor, data[: budget[0]])
        budget[0] -= written
        return written

    monkeypatch.setattr("sophia.stores.journal.os.write", full)
    with pytest.raises(JournalError, match="No space left"):
        await own.append_durable(intent(2))
    budget[0] = 10**9
    await own.append_durable(intent(3))
    await own.close()
    assert [record.attempt for record in journal.read(tmp_path / "one")] == ["att_1", "att_3"]


@given(cut=st.integers(0, 2000), flip=st.none() | st.integers(0, 2000))
@settings(max_examples=60, deadline=None)
async def test_a_torn_or_damaged_tail_costs_only_what_follows(
    cut: int, flip: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("torn") / "one"
    own = Journal(folder)
    for number in range(8):
        await own.append_durable(intent(number))
    await own.close()
    (segment,) = folder.glob("*.journal")
    data = bytearray(segment.read_bytes()[:cut])
    if flip is not None and flip < len(data):
        data[flip] ^= 0x40
    segment.write_bytes(data)
    found = list(journal.read(folder))
    assert found == [intent(number) for number in range(len(found))]
