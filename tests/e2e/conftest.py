# SPDX-License-Identifier: GPL-3.0-or-later
"""Beds that outlive a test, and the account that each has to give of its money at the end."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.bed import Bed

_SETTLE_SECONDS = 60.0


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line("markers", "spends: the test costs something although others of its kind do not")


@pytest.fixture(scope="session")
def open_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Bed]]:
    """Start a bed with settings of its own; at the end of the session its ledger must equal the stand-in's truth."""
    beds: list[Bed] = []

    def start(name: str, *, sandbox: tuple[str, ...] = (), secondary: str | None = None, **settings: Any) -> Bed:
        folder = tmp_path_factory.mktemp(name)
        bed = Bed(folder, **settings)
        beds.append(bed)
        if secondary is not None:
            path = folder / "secondary.key"
            path.touch(mode=0o600)
            path.write_text(secondary)
        bed.start_sandbox("--generation-delay", "0.1", *sandbox)
        if secondary is not None:
            bed.call("POST", f"{bed.sandbox_url}/_sandbox/seed", {"keys": [{"key": secondary, "name": "secondary"}]})
        bed.start_gateway()
        return bed

    yield start
    problems: list[str] = []
    for bed in beds:
        try:
            problems += [f"{bed.folder.name}: {problem}" for problem in account(bed)]
        finally:
            bed.close()
    assert not problems, "\n".join(problems[:20])


def account(bed: Bed) -> list[str]:
    """What is wrong between the ledger and what was billed, once all is settled; nothing if they agree."""
    bed.faults([])
    end = time.monotonic() + _SETTLE_SECONDS
    while True:
        unsettled = bed.admin("GET", "/spend/unsettled?limit=5")["data"] or bed.truth(summary=True)["open"]
        problems = [f"not settled: {unsettled}"] if unsettled else differences(bed)
        if not problems or time.monotonic() > end:
            return problems
        time.sleep(0.2)  # the database is fed from the journal, the open from OpenRouter's record


def differences(bed: Bed) -> list[str]:
    """Generations that are not booked once, at what was billed."""
    billed = {each["id"]: each["cost_nano"] for each in bed.truth()["generations"] if each["cost_nano"]}
    with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
        rows = database.execute("SELECT generation, cost FROM spend WHERE cost > 0").fetchall()
    booked = dict(rows)
    problems = [] if len(booked) == len(rows) else ["a generation is booked twice, or costs have no generation"]
    problems += [
        f"{generation}: billed {billed.get(generation)}, booked {booked.get(generation)}"
        for generation in sorted(map(str, billed.keys() | booked.keys()))
        if billed.get(generation) != booked.get(generation)
    ]
    total = sum(cost for _, cost in rows)
    if not problems and total != bed.truth(summary=True)["totals"]["cost_nano"]:
        problems.append(f"{total} nano-dollars booked, {bed.truth(summary=True)['totals']['cost_nano']} billed")
    return problems
