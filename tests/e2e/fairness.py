# SPDX-License-Identifier: GPL-3.0-or-later
"""One organisation at fifty times the load of another: what the quiet one feels, and what the busy one is told.

The stand-in answers at a model's real pace and the gateway has few connections to it, so that these are what is short.

    python -m tests.e2e.fairness [--seconds 20] [--output docs/bench]
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.e2e.bed import Bed

__all__ = ["Seen", "run"]

MODEL = "openai/gpt-4o-mini"
CONNECTIONS, BUSY = 16, 50
_LATENCY_SCALE = 0.2


@dataclass
class Seen:
    """What one organisation saw: seconds of each good answer, and how often which status came. `waits` are the
    `Retry-After` of the refusals."""

    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)

    def quantile(self, share: float) -> float:
        """Seconds within which that share of the good answers came."""
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[round(share * 100) - 1]


async def _client(client: httpx.AsyncClient, bed: Bed, key: str, until: float, seen: Seen) -> None:
    """One after the other."""
    body = {"model": MODEL, "max_tokens": 32, "messages": [{"role": "user", "content": "Tell me about queues."}]}
    headers = {"authorization": f"Bearer {key}", "x-sophia-cache": "off"}
    while time.monotonic() < until:
        started = time.monotonic()
        answer = await client.post(f"{bed.url}/v1/chat/completions", json=body, headers=headers)
        seen.statuses[answer.status_code] += 1
        if answer.status_code == 200:
            seen.seconds.append(time.monotonic() - started)
        else:
            seen.waits.append(float(answer.headers["retry-after"]))
            await asyncio.sleep(0.2)


async def _load(bed: Bed, clients: dict[str, int], seconds: float) -> dict[str, Seen]:
    seen = {key: Seen() for key in clients}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(timeout=60, limits=limits) as client:
        until = time.monotonic() + seconds
        everybody = [key for key, count in clients.items() for _ in range(count)]
        await asyncio.gather(*(_client(client, bed, key, until, seen[key]) for key in everybody))
    return seen


def run(folder: Path, seconds: float) -> tuple[Seen, Seen, Seen]:
    """The quiet organisation alone, then beside the busy one, and the busy one."""
    bed = Bed(folder, upstream={"connections": CONNECTIONS}, dispatch={"queue": 40, "queue_wait": 5.0})
    try:
        bed.start_sandbox("--latency-scale", str(_LATENCY_SCALE))
        bed.start_gateway()
        quiet, busy = bed.tenant("quiet"), bed.tenant("busy")
        alone = asyncio.run(_load(bed, {quiet: 1}, seconds))[quiet]
        both = asyncio.run(_load(bed, {quiet: 1, busy: BUSY}, seconds))
        return alone, both[quiet], both[busy]
    finally:
        bed.close()


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        alone, beside, busy = run(Path(folder), given.seconds)
    lines = [
        "# Fair turns",
        "",
        f"Made by `make fairness`: one client of one organisation beside {BUSY} of another, {CONNECTIONS} connections to the",
        f"stand-in, which answers at {_LATENCY_SCALE:g} of a model's time; {given.seconds:g} s each.",
        "",
        "| organisation | answers | p50 (ms) | p95 (ms) | p99 (ms) | refused (503) |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, seen in (("quiet, alone", alone), ("quiet, beside the busy one", beside), ("busy", busy)):
        figures = " | ".join(f"{seen.quantile(share) * 1000:.0f}" for share in (0.5, 0.95, 0.99))
        lines.append(f"| {name} | {len(seen.seconds)} | {figures} | {seen.statuses[503]} |")
    ratio = beside.quantile(0.99) / alone.quantile(0.99)
    lines += ["", f"The quiet one's p99 is {ratio:.2f} × what it is alone. Python {platform.python_version()}, two cores."]
    text = "\n".join(lines) + "\n"
    print(text)
    if given.output is not None:
        (given.output / "fairness.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
