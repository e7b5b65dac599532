# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured, kept in ``docs/bench/vectors.json`` and shown in ``docs/bench/vectors.md``."""

from __future__ import annotations

import importlib.metadata
import json
import os
import pathlib
import platform
import time
from typing import Any

from . import ROOT

PLACE = ROOT / "docs" / "bench"
PACKAGES = ("ansible-core", "qdrant-edge-py", "orjson", "numpy", "uvicorn", "uvloop")
Json = dict[str, Any]


def keep(name: str, result: Any, folder: pathlib.Path = PLACE) -> None:
    """Put a result in the place of the one of that name, and write the page anew."""
    kept = folder / "vectors.json"
    known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    known[name] = {"result": result, **machine()}
    kept.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "vectors.md").write_text(page(known), encoding="utf-8")


def machine() -> Json:
    """Return where and when it was measured."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = next((line.split(":", 1)[1].strip() for line in cpuinfo.splitlines() if line.startswith("model name")), platform.machine())
    return {
        "at": time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime()),
        "cores": os.cpu_count(),
        "processor": model,
        "system": f"{platform.system()} {platform.release()}",
        "versions": {"Python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}},
        "load": round(os.getloadavg()[0], 1),
    }


def page(known: Json) -> str:
    """Return the page of all results."""
    speeds = [item for name, item in sorted(known.items()) if name.startswith("speed")]
    kills = [item for name, item in sorted(known.items()) if name.startswith("kills")]
    lives = [item for name, item in sorted(known.items()) if name.startswith("live")]
    parts = [
        "# Migrations of Qdrant collections, measured",
        "Made by `python -m tests.bench.vectors`. Source and target are stand-ins ([sandbox-qdrant](../sandbox-qdrant.md)) on the same machine as the module, "
        "JSON over HTTP. Processor time is that of each process; *others* is what everything else on the machine took meanwhile, in cores.",
        *map(_speed, speeds),
        *([_kills(kills)] if kills else []),
        *map(_live, lives),
        *([_machines([*speeds, *kills, *lives])] if known else []),
    ]
    return "\n\n".join(parts) + "\n"


def _speed(item: Json) -> str:
    result = item["result"]
    lines = [
        f"## {result['points']:,} points of {result['dims']} dimensions",
        "",
        "| run | phase | seconds | points/s | module (µs/point) | source (µs/point) | target (µs/point) | others (cores) | module's memory (MiB) |",
        "|---|---|---:|---:|---:|---:|---:|---:|---|",
    ]
    for number, run in enumerate(result["runs"], 1):
        changed = "changed" if run["changed"] else "unchanged"
        lines.append(f"| {number}: {run['state']}, {changed} | whole | {run['seconds']:.1f} | | | | | | peak {run['peak']} |")
        for phase in run["phases"]:
            count = phase["points"]
            spent = [phase[name] for name in ("module", "source", "target")]
            cells = [f"{seconds * 1e6 / count:.0f}" if count else f"{seconds:.1f} s" for seconds in spent]
            rate = f"{count / phase['seconds']:,.0f}" if count else ""
            sizes = phase["resident"]
            shown = f"{min(sizes)} to {max(sizes)}" if sizes else ""
            lines.append(f"| | {phase['name']} | {phase['seconds']:.1f} | {rate} | {' | '.join(cells)} | {phase['others']:.1f} | {shown} |")
    return "\n".join(lines)


def _kills(items: list[Json]) -> str:
    totals = {name: sum(item["result"][name] for item in items) for name in items[0]["result"] if name != "seed"}
    seeds = ", ".join(str(item["result"]["seed"]) for item in items)
    return (
        "## Kills\n\n"
        f"{totals['kills']} kills by the clock, before and after calls and within a line of the journal, in {totals['migrations']} migrations "
        f"of 600 points in 12 ranges (seeds {seeds}), the source changed between kills in half of them: "
        f"**{totals['lost']} points lost, {totals['extra']} extra, "
        f"{totals['wrong']} wrong**, {totals['repaired']} missed by the copy alone where nothing wrote to the source, "
        f"{totals['left_behind']} collections left behind."
    )


def _live(item: Json) -> str:
    result = item["result"]
    if "switches" in result:
        return (
            "## Readers at the switch\n\n"
            f"{result['reads']} searches through an alias that was flipped {result['switches']} times: **{result['failed_reads']} failed, "
            f"{result['mixed_reads']} mixed**; the longest flip took {result['switch_seconds'] * 1000:.0f} ms."
        )
    equal = "equal" if result["digests"][0] == result["digests"][1] else "unequal"
    passes = ", ".join(map(str, result["differing"]))
    return (
        f"## A live writer, {result['points']:,} points of {result['dims']} dimensions\n\n"
        f"{result['writes']} upserts, updates and deletes at {result['writes_per_second']:.0f} a second from before the copy until after its passes. "
        f"Points that each pass found to differ: {passes}, the writer stopped before the last {result['quiet_passes']}. "
        f"At the end the digests are **{equal}**, and {result['unlike']} points of all that were read one by one are unlike."
    )


def _machines(items: list[Json]) -> str:
    found = []
    for item in items:
        versions = ", ".join(f"{name} {version}" for name, version in sorted(item["versions"].items()))
        line = f"{item['cores']} cores ({item['processor']}), {item['system']}, {versions}"
        if line not in found:
            found.append(line)
    loads = [item["load"] for item in items]
    times = [item["at"] for item in items]
    return f"{'; '.join(found)}. Load average at the end of each: {min(loads)} to {max(loads)}; measured {min(times)} to {max(times)}."
