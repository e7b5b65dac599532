# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""usage: python -m tests.bench.vectors kills [--runs N] [--seed N] | live [--points N] [--dims N] | speed [--points N] [--dims N] [--workers N]

With ``--keep`` the result is kept in ``docs/bench``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time

from . import kills, live, record


def killing(given: argparse.Namespace) -> int:
    began = time.monotonic()
    toll = kills.run(given.runs, seed=given.seed)
    print(kills.report(toll, time.monotonic() - began))
    if given.keep:
        record.keep(f"kills {given.seed}", {"seed": given.seed, **dataclasses.asdict(toll)})
    return 1 if toll.lost or toll.extra or toll.wrong or toll.repaired or toll.left_behind else 0


def living(given: argparse.Namespace) -> int:
    points = given.points or 6_000
    dims = given.dims or live.DIMS
    # The rate is held by several writers: one that waits for each answer writes no faster than the stand-in answers beside the copy.
    written = live.write_through(points, dims, seed=given.seed, seconds=given.seconds, writers=given.writers)
    print(json.dumps(dataclasses.asdict(written)))
    read = live.read_through()
    print(json.dumps(dataclasses.asdict(read)))
    if given.keep:
        record.keep(f"live {points} {dims}", dataclasses.asdict(written))
        record.keep("live readers", dataclasses.asdict(read))
    return 0 if written.digests[0] == written.digests[1] and not written.unlike and not read.failed_reads + read.mixed_reads else 1


def speeding(given: argparse.Namespace) -> int:
    from . import speed

    points, dims = given.points or 100_000, given.dims or 384
    tuning = {} if given.workers is None else {"workers": given.workers}
    runs = speed.run(points, dims, given.states, tuning)
    if given.keep:
        result = {"points": points, "dims": dims, "tuning": tuning, "runs": [dataclasses.asdict(item) for item in runs]}
        record.keep(f"speed {points:09d} {dims}", result)
    return 0


def step(given: argparse.Namespace) -> int:
    from . import speed

    speed.step(given.step)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kills", "live", "speed", "step"])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int)
    parser.add_argument("--dims", type=int)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--writers", type=int, default=8)
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--states", nargs="+", default=["copied", "verified", "verified"])
    parser.add_argument("--step", help=argparse.SUPPRESS)
    given = parser.parse_args()
    return {"kills": killing, "live": living, "speed": speeding, "step": step}[given.what](given)


if __name__ == "__main__":
    sys.exit(main())
