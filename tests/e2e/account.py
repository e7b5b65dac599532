# SPDX-License-Identifier: GPL-3.0-or-later
"""The account that a bed has to give of its money: what the ledger holds against what the stand-in has billed."""

from __future__ import annotations

import sqlite3
import time

from tests.e2e.bed import Bed

__all__ = ["account"]

_SETTLE_SECONDS = 60.0


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
