# SPDX-License-Identifier: GPL-3.0-or-later
"""Spend across crashes: the ledger against what the stand-in has billed.

Each run puts load with faults on a gateway, aborts some clients at random chunks, and kills the gateway with SIGKILL
at a random instant: its worker alone, or all of it. After the last run the gateway is started once more and has to
come to the very same account as the stand-in: every generation booked once, at its cost, nothing else billed.

    python -m tests.e2e.crash --runs 300 --seed 1
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
import urllib.error
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.bed import Bed

__all__ = ["Report", "run"]

_MODELS = (
    "openai/gpt-4o-mini",
    "anthropic/claude-haiku-4.5",
    "google/gemini-2.5-flash",
    "auto:fast",
    "auto:code",
    "auto:balanced",
)
_QUESTIONS = (
    "What is 12 * 12?",
    "Write a Python function that reverses a list.",
    "Tell me about the sea in five sentences.",
    "Translate good morning into French.",
)


def _fault(probability: float, **fault: Any) -> dict[str, Any]:
    return {"match": {"probability": probability, "method": "POST", "path": "/chat/completions"}, "fault": fault}


_FAULTS = [
    _fault(0.02, kind="status", status=500),
    _fault(0.02, kind="status", status=429),
    _fault(0.02, kind="status", status=503),
    _fault(0.02, kind="error_200", status=502),
    _fault(0.03, kind="cut", after=2),
    _fault(0.02, kind="midstream_error", after=2),
    _fault(0.02, kind="malformed_chunk", after=2),
    _fault(0.02, kind="reset_after_accept"),
    _fault(0.02, kind="timeout_after_success"),
]


@dataclass
class Report:
    """What came of it. Amounts in nano-dollars."""

    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    generations: int = 0
    billed: int = 0
    booked: int = 0
    problems: list[str] = field(default_factory=list)
    unsettled: int = 0
    recovered: int = 0
    seconds: float = 0.0


async def _client(bed: Bed, key: str, session: aiohttp.ClientSession, luck: random.Random, report: Report) -> None:
    headers = {"authorization": f"Bearer {key}"}
    while True:
        stream = luck.random() < 0.6
        body = {
            "model": luck.choice(_MODELS),
            "stream": stream,
            "messages": [{"role": "user", "content": f"{luck.choice(_QUESTIONS)} ({luck.random()})"}],
        }
        if luck.random() < 0.5:
            body["max_tokens"] = luck.choice((16, 64, 256))
        abort_after = luck.randrange(1, 30) if stream and luck.random() < 0.3 else None
        try:
            async with session.post(f"{bed.url}/v1/chat/completions", json=body, headers=headers) as answer:
                chunks = 0
                async for _ in answer.content.iter_any():
                    chunks += 1
                    if abort_after is not None and chunks >= abort_after:
                        answer.close()
                        report.answers["aborted"] += 1
                        break
                else:
                    report.answers[str(answer.status)] += 1
        except (aiohttp.ClientError, OSError, TimeoutError):
            report.answers["connection lost"] += 1
            await asyncio.sleep(0.05)


async def _load(bed: Bed, key: str, seconds: float, luck: random.Random, report: Report, kill: Any) -> None:
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=64)) as session:
        clients = [asyncio.create_task(_client(bed, key, session, luck, report)) for _ in range(16)]
        await asyncio.sleep(seconds)
        kill()
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)


def _kill(bed: Bed, luck: random.Random, report: Report) -> None:
    if luck.random() < 0.5:
        report.kills["everything"] += 1
        bed.kill_gateway()
        return
    report.kills["worker"] += 1
    status = bed.folder / "state" / "gateway.json"
    workers = json.loads(status.read_text())["workers"] if status.exists() else []
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def run(folder: Path, runs: int, seed: int, progress: bool = False) -> Report:
    """Do it."""
    luck = random.Random(seed)
    report = Report()
    started = time.monotonic()
    bed = Bed(folder)
    try:
        bed.start_sandbox("--latency-scale", "0.02", "--generation-delay", "0.2", "--seed", str(seed))
        bed.start_gateway()
        key = bed.tenant("crash")
        bed.faults(_FAULTS)
        for number in range(runs):
            if bed.gateway is None or bed.gateway.poll() is not None:
                bed.start_gateway()
            seconds = luck.uniform(0.05, 1.2)
            asyncio.run(_load(bed, key, seconds, luck, report, lambda: _kill(bed, luck, report)))
            report.runs += 1
            if progress and (number + 1) % 10 == 0:
                print(f"{number + 1}/{runs} runs, {sum(report.answers.values())} answers", flush=True)
        bed.faults([])
        if bed.gateway is None or bed.gateway.poll() is not None:
            bed.start_gateway()
        _until_settled(bed, report)
        _compare(bed, report)
        if bed.stop_gateway() != 0:
            report.problems.append("the gateway did not stop cleanly")
    finally:
        bed.close()
    report.seconds = time.monotonic() - started
    return report


def _until_settled(bed: Bed, report: Report, seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(OSError, urllib.error.URLError):
            if not bed.admin("GET", "/spend/unsettled?limit=1")["data"] and not bed.truth(summary=True)["open"]:
                return
        time.sleep(0.25)
    report.problems.append(f"not settled after {seconds:g} s: {bed.admin('GET', '/spend/unsettled?limit=5')}")


def _compare(bed: Bed, report: Report) -> None:
    truth = bed.truth()
    with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
        rows = database.execute("SELECT attempt, generation, cost, state, source, outcome FROM spend").fetchall()
    report.generations = len(truth["generations"])
    report.billed = truth["totals"]["cost_nano"]
    report.booked = sum(cost or 0 for _, _, cost, *_ in rows)
    report.unsettled = sum(state != "settled" for _, _, _, state, *_ in rows)
    report.recovered = sum(source == "generation" for *_, source, _ in rows)
    booked: dict[str, int] = {}
    for attempt, generation, cost, *_ in rows:
        if generation is None:
            if cost:
                report.problems.append(f"{attempt} cost {cost} without a generation")
        elif generation in booked:
            report.problems.append(f"{generation} is booked twice")
        else:
            booked[generation] = cost
    for generation in truth["generations"]:
        billed, found = generation["cost_nano"], booked.pop(generation["id"], None)
        if found is None and billed:
            report.problems.append(f"{generation['id']} was billed {billed} and is not booked")
        elif found is not None and found != billed:
            report.problems.append(f"{generation['id']} was billed {billed} and booked {found}")
    report.problems += [f"{name} is booked {cost} and was not billed" for name, cost in booked.items() if cost]
    if report.billed != report.booked:
        report.problems.append(f"billed {report.billed}, booked {report.booked}")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = run(Path(folder), given.runs, given.seed, progress=True)
    print(f"runs         {report.runs} ({dict(report.kills)}) in {report.seconds:.0f} s")
    print(f"answers      {dict(report.answers)}")
    print(f"generations  {report.generations}; recovered from OpenRouter's record: {report.recovered}")
    print(f"billed       {report.billed} nano-dollars")
    print(f"booked       {report.booked} nano-dollars; unsettled attempts: {report.unsettled}")
    for problem in report.problems[:20]:
        print(f"PROBLEM      {problem}")
    print("equal" if not report.problems else f"{len(report.problems)} problems")
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
