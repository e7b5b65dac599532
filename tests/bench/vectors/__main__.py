# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""usage: python -m tests.bench.vectors kills [--runs N] | live | speed [--points N] [--dims N] [--workers N]"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time

from . import kills, live


def killing(given: argparse.Namespace) -> int:
    began = time.monotonic()
    toll = kills.run(given.runs, seed=given.seed)
    print(kills.report(toll, time.monotonic() - began))
    return 1 if toll.lost or toll.extra or toll.wrong or toll.repaired or toll.left_behind else 0


def living(given: argparse.Namespace) -> int:
    written = live.write_through(seed=given.seed)
    print(json.dumps(dataclasses.asdict(written)))
    read = live.read_through()
    print(json.dumps(dataclasses.asdict(read)))
    return 0 if written.digests[0] == written.digests[1] and not written.unlike and not read.failed_reads + read.mixed_reads else 1


def speeding(given: argparse.Namespace) -> int:
    from . import speed

    tuning = {} if given.workers is None else {"workers": given.workers}
    speed.run(given.points, given.dims, ("copied", "verified", "verified"), tuning)
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
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    given = parser.parse_args()
    return {"kills": killing, "live": living, "speed": speeding, "step": step}[given.what](given)


if __name__ == "__main__":
    sys.exit(main())
