# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast a migration is, and what it takes: wall and processor time of module and stand-ins by phase, and memory."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy
import orjson

from ansible_collections.sophia.platform.plugins.module_utils._qdrant.move import Migration, Tuning
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.plan import Wanted

from . import ROOT
from .servers import Server, payload, point_id
from .trial import api

SAMPLE_SECONDS = 0.2
BODY_BYTES = 4 * 1024 * 1024


@dataclass
class Phase:
    """One phase: seconds of the clock, seconds of processor time of the three processes, the module's memory (MiB).

    ``others`` is what everything else on the machine took meanwhile, in cores.
    """

    name: str
    points: int
    seconds: float
    module: float
    source: float
    target: float
    others: float
    resident: list[int] = field(default_factory=list)


@dataclass
class Run:
    """One run of the module, without the start of its process: ``peak`` is the most memory it had (MiB)."""

    state: str
    changed: bool
    seconds: float
    peak: int
    load: float
    phases: list[Phase]


class Measured(Migration):
    """A migration that looks at clock and processor time wherever a phase begins and ends."""

    def __init__(self, *args: Any, processes: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._processes = processes
        self.phases: list[Phase] = []

    def _copy(self, *args: Any) -> None:
        self._measured("copy", super()._copy, *args, points=lambda _none: self.report.copied)

    def _restore(self, *args: Any) -> None:
        self._measured("index", super()._restore, *args)

    def _compare(self, *args: Any, **kwargs: Any) -> Any:
        return self._measured("compare", lambda: super(Measured, self)._compare(*args, **kwargs), points=lambda tally: tally.source.count)

    def _verify(self, *args: Any) -> None:
        self._measured("prove", super()._verify, *args)

    def _measured(self, name: str, action: Callable[..., Any], *args: Any, points: Callable[[Any], int] = lambda _result: 0) -> Any:
        before = self._cpu()
        began = time.monotonic()
        with resident() as sizes:
            result = action(*args)
        seconds = time.monotonic() - began
        *spent, busy = (now - then for now, then in zip(self._cpu(), before, strict=True))
        self.phases.append(Phase(name, points(result), seconds, *spent, max(0.0, busy - sum(spent)) / seconds, sizes))
        return result

    def _cpu(self) -> list[float]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return [usage.ru_utime + usage.ru_stime, *map(cpu, self._processes), busy()]


@contextmanager
def resident() -> Iterator[list[int]]:
    """Give ten or more sizes of this process (MiB), evenly spread over the time, once the block has ended."""
    sizes: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(SAMPLE_SECONDS):
            sizes.append(int(pathlib.Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize() >> 20)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()
        sizes[:] = sizes[:: max(1, len(sizes) // 10)]


def cpu(process: int) -> float:
    """Return the seconds of processor time that a process has used."""
    fields = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy() -> float:
    """Return the seconds of processor time that the machine has been busy: user, nice, system, interrupts, stolen."""
    fields = pathlib.Path("/proc/stat").read_text(encoding="ascii").split(maxsplit=9)[1:9]
    return sum(int(fields[number]) for number in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")


def load(server: Server, points: int, dims: int, seed: int = 1) -> None:
    """Make the collection ``docs`` with two payload indexes and so many points; no index of vectors is built."""
    rng = numpy.random.default_rng(seed)
    step = BODY_BYTES // (16 * dims)
    with server.connection() as connection:
        optimizers = {"indexing_threshold": 1_000_000_000}
        vectors = {"size": dims, "distance": "Cosine"}
        connection.call("PUT", "/collections/docs", {"vectors": vectors, "optimizers_config": optimizers})
        for name, schema in {"group": "keyword", "number": {"type": "integer", "lookup": True, "range": True}}.items():
            connection.call("PUT", "/collections/docs/index?wait=true", {"field_name": name, "field_schema": schema})
        for start in range(0, points, step):
            numbers = range(start, min(points, start + step))
            rows = rng.random((len(numbers), dims), dtype=numpy.float32) * 2 - 1
            made = [{"id": point_id(number), "vector": row, "payload": payload(number)} for number, row in zip(numbers, rows, strict=True)]
            body = orjson.dumps({"points": made}, option=orjson.OPT_SERIALIZE_NUMPY)
            connection.call("PUT", "/collections/docs/points?wait=true", body.decode())


def run(points: int, dims: int, states: list[str], tuning: dict[str, Any]) -> list[Run]:
    """Migrate so many points, state by state; each in a process of its own, whose memory is its own."""
    source, target = Server(), Server()
    try:
        began = time.monotonic()
        load(source, points, dims)
        print(f"{points} points of {dims} dimensions made in {time.monotonic() - began:.0f} s", file=sys.stderr)
        found = []
        with tempfile.TemporaryDirectory(prefix="vectors-") as folder:
            for state in states:
                step = {"urls": (source.url, target.url), "processes": (source.process.pid, target.process.pid), "folder": folder}
                asked = json.dumps({**step, "state": state, "tuning": tuning})
                argv = [sys.executable, "-m", "tests.bench.vectors", "step", "--step", asked]
                done = subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, start_new_session=True)
                given = json.loads(done.stdout)
                found.append(Run(**{**given, "phases": [Phase(**phase) for phase in given["phases"]]}))
                print(told(found[-1]), file=sys.stderr, flush=True)
        return found
    finally:
        source.close()
        target.close()


def step(asked: str) -> None:
    """Do one run in this process and print what it took."""
    given = json.loads(asked)
    source, target = (api(url) for url in given["urls"])
    wanted = Wanted(state=given["state"], source="docs", target="docs")
    tuning = Tuning(**{"wait_sleep": 0.05, **given["tuning"]})
    job = Measured(source, target, wanted, given["folder"], tuning, processes=tuple(given["processes"]))
    report = job.run(False)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    load_now = round(os.getloadavg()[0], 1)
    print(json.dumps(dataclasses.asdict(Run(given["state"], report.changed, report.elapsed, peak, load_now, job.phases))))


def told(done: Run) -> str:
    """Say it in lines."""
    lines = [f"{done.state}: changed={done.changed}, {done.seconds:.1f} s in all, peak {done.peak} MiB, load {done.load}"]
    for phase in done.phases:
        rate = f", {phase.points / phase.seconds:,.0f} points/s" if phase.points else ""
        lines.append(
            f"  {phase.name}: {phase.seconds:.1f} s{rate}; processor time: module {phase.module:.1f} s, source {phase.source:.1f} s, "
            f"target {phase.target:.1f} s, others {phase.others:.1f} cores; MiB {' '.join(map(str, phase.resident))}"
        )
    return "\n".join(lines)
