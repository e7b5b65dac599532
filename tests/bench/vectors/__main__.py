# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""usage: python -m tests.bench.vectors kills [--runs N] | live | speed [--points N] [--dims N] [--workers N]"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from . import ROOT, kills, live
from .servers import Server, fill
from .trial import api, migrate


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
    """Migrate so many points; each step in a process of its own, whose memory is its own."""
    source, target = Server(), Server()
    try:
        began = time.monotonic()
        fill(source, "docs", given.points, given.dims, index=False)
        print(f"{given.points} points of {given.dims} dimensions made in {time.monotonic() - began:.0f} s")
        with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
            for state in ("copied", "verified", "verified"):
                before = (source.cpu(), target.cpu())
                argv = [sys.executable, "-m", "tests.bench.vectors", "step", "--urls", source.url, target.url]
                argv += ["--folder", folder, "--state", state, "--workers", str(given.workers)]
                done = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
                servers = f"source {source.cpu() - before[0]:.1f} s, target {target.cpu() - before[1]:.1f} s of processor time"
                print(f"{state}: {done.stdout.strip()}; {servers}; load {os.getloadavg()[0]:.1f}", flush=True)
        return 0
    finally:
        source.close()
        target.close()


def step(given: argparse.Namespace) -> int:
    class There:
        headers: dict = {}

        def __init__(self, url: str) -> None:
            self.url = url

    source, target = (api(There(url)) for url in given.urls)
    began = time.monotonic()
    report = migrate(source, target, given.folder, given.state, workers=given.workers)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    rate = report.as_result()["points_per_second"]
    copied = f"{report.copied} copied at {rate:.0f} points/s, " if rate else ""
    print(
        f"{copied}changed={report.changed}, {time.monotonic() - began:.1f} s in all, "
        f"peak {usage.ru_maxrss // 1024} MiB, {usage.ru_utime + usage.ru_stime:.1f} s of processor time",
        end="",
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["kills", "live", "speed", "step"])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=384)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--urls", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--state", help=argparse.SUPPRESS)
    given = parser.parse_args()
    return {"kills": killing, "live": living, "speed": speeding, "step": step}[given.what](given)


if __name__ == "__main__":
    sys.exit(main())
