# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests per second, added latency and memory of gateways, in one run.

    python -m tests.bench.gateway --cache FOLDER [--seconds 5] [--rounds 5] [--output docs/bench]

All contenders run at the same time, idle but for the one that is measured; rounds go through them in turn, so that
what else the machine does hits all of them. Figures are medians over the rounds. wrk makes the load from core 1, where the
upstream runs too; the gateways have core 0.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.bench.gateway.peers import Contender, contenders, upstream
from tests.bench.gateway.plot import bars

CONNECTIONS = (1, 16, 64)
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Sample:
    """One measurement: requests/s, milliseconds, CPU microseconds per request, bad answers."""

    rate: float
    p50: float
    p99: float
    cpu: float
    bad: int


def measure(contender: Contender, connections: int, seconds: float, folder: Path) -> Sample:
    """Load one contender."""
    script = folder / "request.lua"
    headers = {"Content-Type": "application/json"} | contender.headers
    lines = ['wrk.method = "POST"', f"wrk.body = {_lua(contender.body().decode())}"]
    lines += [f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in headers.items()]
    script.write_text("\n".join(lines))
    before = sum(map(_cpu, contender.pids))
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "--timeout", "30s"]
    output = subprocess.run(
        [*command, "-s", str(script), contender.url], capture_output=True, text=True, check=True
    ).stdout
    used = sum(map(_cpu, contender.pids)) - before
    count = int(_find(r"(\d+) requests in", output))
    return Sample(
        rate=float(_find(r"Requests/sec:\s+([\d.]+)", output)),
        p50=_milliseconds(_find(r"\n\s+50%\s+(\S+)", output)),
        p99=_milliseconds(_find(r"\n\s+99%\s+(\S+)", output)),
        cpu=used / _TICK * 1e6 / max(1, count),
        bad=int((re.search(r"Non-2xx or 3xx responses: (\d+)", output) or [0, 0])[1]),
    )


def _lua(text: str) -> str:
    """A Lua string; ASCII only, where JSON's escapes are Lua's."""
    return json.dumps(text)


def _find(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"wrk said something else:\n{text}")
    return found[1]


def _milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}[unit]


def _cpu(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return int(fields[11]) + int(fields[12])


def rss(pid: int) -> float:
    """Megabytes that a process has in memory; 0 for one that is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0


@dataclass(frozen=True)
class Row:
    """A contender at one number of connections, medians over the rounds. Latencies are added to the upstream's own."""

    name: str
    version: str
    connections: int
    rate: float
    relative: float
    p50: float
    p99: float
    cpu: float
    rss: float
    bad: int


def run(names: list[str], cache: Path, seconds: float, rounds: int) -> list[Row]:
    """Measure them all."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(upstream(folder))
        direct = Contender("upstream", "", f"http://127.0.0.1:{port}/api/v1/chat/completions")
        running = [stack.enter_context(start(folder, port)) for start in contenders(names, cache)]
        samples: dict[tuple[str, int], list[Sample]] = {}
        for connections in CONNECTIONS:
            for each in running:
                measure(each, connections, 1, folder)
            for number in range(rounds):
                for each in [direct, *running]:
                    sample = measure(each, connections, seconds, folder)
                    samples.setdefault((each.name, connections), []).append(sample)
                print(f"{connections} connections: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
        return [_row(each, connections, samples) for connections in CONNECTIONS for each in running]


def _row(each: Contender, connections: int, samples: dict[tuple[str, int], list[Sample]]) -> Row:
    own = samples[each.name, connections]
    bare = samples["upstream", connections]
    yardstick = samples.get(("nginx", connections), own)
    pairs = list(zip(own, bare, strict=True))
    ratios = [one.rate / other.rate for one, other in zip(own, yardstick, strict=True)]
    return Row(
        each.name,
        each.version,
        connections,
        statistics.median(sample.rate for sample in own),
        statistics.median(ratios),
        statistics.median(one.p50 - other.p50 for one, other in pairs),
        statistics.median(one.p99 - other.p99 for one, other in pairs),
        statistics.median(sample.cpu for sample in own),
        sum(map(rss, each.pids)),
        sum(sample.bad for sample in own),
    )


def table(rows: list[Row]) -> str:
    """Markdown."""
    lines = [
        "| connections | gateway | requests/s | of nginx | added p50 (ms) | added p99 (ms) | CPU (µs/request) | RSS (MB) | bad |",
        "|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.connections} | {row.name} {row.version} | {row.rate:,.0f} | {row.relative:.3f} | {row.p50:.2f} | "
        f"{row.p99:.2f} | {row.cpu:,.0f} | {row.rss:.0f} | {row.bad} |"
        for row in rows
    ]
    return "\n".join(lines)


def machine() -> str:
    """What it ran on."""
    model = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({model[1] if model else platform.processor()}), Linux {platform.release()}, "
        f"Python {platform.python_version()}; load average at the end {load:.1f}"
    )


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where the peers are installed (see tests/bench/run)")
    parser.add_argument("--contenders", nargs="+", default=["nginx", "nginx-keepalive", "sophia", "litellm", "portkey"])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="a folder for gateway.md, gateway.csv and gateway.svg")
    given = parser.parse_args()
    rows = run(given.contenders, given.cache, given.seconds, given.rounds)
    text = f"{table(rows)}\n\n{machine()}. {given.rounds} rounds of {given.seconds:g} s, medians.\n"
    print(text)
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        head = "# The gateway beside its peers\n\nMade by `make bench`. Added latencies are over the upstream's own.\n\n"
        (given.output / "gateway.md").write_text(f"{head}{text}\n![requests per second](gateway.svg)\n", encoding="utf-8")
        with (given.output / "gateway.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Row.__dataclass_fields__)
            writer.writerows([getattr(row, name) for name in Row.__dataclass_fields__] for row in rows)
        last = [row for row in rows if row.connections == CONNECTIONS[-1]]
        (given.output / "gateway.svg").write_text(
            bars(f"requests/s at {CONNECTIONS[-1]} connections, one core", [(row.name, row.rate) for row in last]),
            encoding="utf-8",
        )
    return 1 if any(row.bad for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
