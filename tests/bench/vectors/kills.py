# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kill migrations at random moments, go on with them, and look at what came out."""

from __future__ import annotations

import os
import random
import tempfile
import time
from dataclasses import dataclass

from .servers import Server, fill
from .trial import DIMS, SMALL, WANTED, Migration, doomed_run, missed, stir, unlike
from .trial import api as api_of


@dataclass
class Toll:
    """What came of it. ``repaired``: what comparisons found although nothing was written to the source."""

    kills: int = 0
    migrations: int = 0
    lost: int = 0
    extra: int = 0
    wrong: int = 0
    left_behind: int = 0
    repaired: int = 0


def run(kills: int, points: int = 600, seed: int = 1) -> Toll:
    """Kill until there were so many kills, each migration until it ends by itself."""
    rng = random.Random(seed)
    toll = Toll()
    source, target = Server(index=False), Server(index=False)
    try:
        fill(source, "docs", points, DIMS, seed=seed)
        calls, seconds = _measure(source, target)
        while toll.kills < kills:
            with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
                while not doomed_run(rng, source, target, folder, calls, seconds):
                    toll.kills += 1
                    if toll.migrations % 2:
                        stir(rng, source, points)
                if not toll.migrations % 2:
                    toll.repaired += missed(folder)
                toll.migrations += 1
                lost, extra, wrong = unlike(source, target)
                toll.lost += len(lost)
                toll.extra += len(extra)
                toll.wrong += len(wrong)
                names = [item["name"] for item in target.call("GET", "/collections")["collections"]]
                toll.left_behind += len(set(names) - {"docs"})
                assert target.call("GET", "/collections/docs")["config"] == source.call("GET", "/collections/docs")["config"]
                target.call("DELETE", "/collections/docs")
    finally:
        source.close()
        target.close()
    return toll


def _measure(source: Server, target: Server) -> tuple[int, float]:
    """Return how many calls and seconds one undisturbed migration takes."""
    made = api_of(source)
    calls = 0
    original = made._client.request

    def counted(*args, **kwargs):
        nonlocal calls
        calls += 1
        return original(*args, **kwargs)

    made._client.request = counted
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
        Migration(made, api_of(target), WANTED, folder, SMALL).run(False)
    seconds = time.monotonic() - began
    target.call("DELETE", "/collections/docs")
    # Both sides are called about as often; the process's start-up is not counted.
    return 2 * calls, seconds


def report(toll: Toll, seconds: float) -> str:
    load = os.getloadavg()[0]
    return (
        f"{toll.kills} kills in {toll.migrations} migrations ({seconds:.0f} s, load {load:.1f}): "
        f"{toll.lost} points lost, {toll.extra} extra, {toll.wrong} wrong, {toll.repaired} missed by the copy, {toll.left_behind} collections left behind"
    )
