# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Play random histories and report. usage: python -m tests.bench.pools [--histories N] [--seed N]"""

from __future__ import annotations

import argparse
import collections
import sys
import time

from .history import play


def main() -> int:
    parser = argparse.ArgumentParser(description="Play random histories of a pool against the Lambda Cloud stand-in")
    parser.add_argument("--histories", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, help="the first one's; each has the next")
    arguments = parser.parse_args()
    started = time.monotonic()
    tallies = []
    for seed in range(arguments.seed, arguments.seed + arguments.histories):
        tally = play(seed)
        tallies.append(tally)
        for problem in tally.problems:
            print(f"seed {seed}: {problem}", flush=True)
    total = collections.Counter()
    for tally in tallies:
        for name in ("runs", "kills", "failures", "launches", "calls", "struck"):
            total[name] += getattr(tally, name)
    bad = sum(bool(tally.problems) for tally in tallies)
    ways = collections.Counter(tally.runs_to_converge for tally in tallies if tally.runs_to_converge)
    print(f"{len(tallies)} histories, {bad} with a problem, in {time.monotonic() - started:.0f} s")
    print(", ".join(f"{count} {name}" for name, count in total.items()))
    print("runs until converged: " + ", ".join(f"{number} in {count}" for number, count in sorted(ways.items())))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
