# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure the semantic cache and write docs/bench/cache.{md,csv,svg}.

    python -m tests.bench.cache [--output docs/bench] [--work .cache/bench/cache] [--parts guards model rule index tenants trace]
                                [--runs 2000] [--probes 1000000] [--sizes 100000 1000000]

Each part leaves its figures in the work folder, so that parts can be measured one by one; the report is made of all that lie there.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import ROOT, guards, model, report, tenants, trace, trial
from .worlds import WORLDS

SEED = 20261


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the semantic cache")
    parts: dict[str, Callable[[argparse.Namespace], Any]] = {
        "guards": lambda _: guards.run(),
        "model": lambda _: model.run(),
        "index": _index,
        "tenants": lambda given: dataclasses.asdict(tenants.run(given.probes, SEED)),
        "trace": lambda given: [dataclasses.asdict(outcome) for outcome in trace.run(SEED, given.requests)],
    }
    parts |= {f"rule {world.name}": lambda given, world=world: _rule(given, world) for world in WORLDS}
    parser.add_argument("--output", type=Path, default=ROOT / "docs/bench")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache/bench/cache")
    parser.add_argument("--parts", nargs="*", default=list(parts), help="guards, model, index, tenants, trace, rule")
    parser.add_argument("--runs", type=int, default=2000, help="runs of each world")
    parser.add_argument("--length", type=int, default=3000, help="requests of a run")
    parser.add_argument("--probes", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=trace.REQUESTS)
    parser.add_argument("--sizes", type=int, nargs="*", default=[100_000, 1_000_000])
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    for name, measure in parts.items():
        if name in given.parts or name.split()[0] in given.parts:
            started = time.monotonic()
            figures = measure(given)
            made = {"at": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC", "load": os.getloadavg()[0], "figures": figures}
            (given.work / f"{name}.json").write_text(json.dumps(made), encoding="utf-8")
            print(f"{name}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return report.write(given.work, given.output, list(parts))


def _rule(given: argparse.Namespace, world: Any) -> list[dict[str, Any]]:
    return [dataclasses.asdict(row) | {"length": given.length} for row in trial.run(given.runs, given.length, SEED, [world])]


def _index(given: argparse.Namespace) -> list[dict[str, float]]:
    """Each size in a process of its own; the smaller ones also spread over a thousand partitions."""
    found = []
    for size in given.sizes:
        for partitions in (1, 1000) if size <= 100_000 else (1,):
            argv = [sys.executable, "-m", "tests.bench.cache.index", str(size), "--partitions", str(partitions)]
            done = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
            found.append(json.loads(done.stdout))
    return found


if __name__ == "__main__":
    sys.exit(main())
