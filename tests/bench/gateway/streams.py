# SPDX-License-Identifier: GPL-3.0-or-later
"""Streams through gateways: how many a second, how much later each piece comes, and what an idle one costs in memory.

    python -m tests.bench.gateway.streams --cache FOLDER [--rounds 1] [--seconds 12] [--idle 1000] [--output docs/bench]

As `tests.bench.gateway`: all contenders run at the same time, idle but for the one that is measured, on core 0; load and
upstream have core 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.gateway.__main__ import machine, measure, rss
from tests.bench.gateway.peers import MODEL, QUESTION, Contender, contenders, models, pinned, running
from tests.e2e.bed import free_port

CHUNKS, CONNECTIONS = 100, 64
_PACED_CHUNKS, _PACE, _PACED = 50, 0.02, 16


@contextmanager
def source(folder: Path, chunks: int, pace: float) -> Iterator[int]:
    """The upstream on core 1; its port."""
    port = free_port()
    listing = folder / "models.json"
    if not listing.exists():
        listing.write_bytes(models(folder))
    command = [sys.executable, "-m", "tests.bench.gateway.source", str(port), listing, str(chunks), str(pace)]
    with running(pinned(1, *command), folder / "source.log"):
        _listens(port)
        yield port


def _listens(port: int, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


class Streaming(Contender):
    """A contender that is asked for a stream."""

    def body(self) -> bytes:
        """The request."""
        turns = [{"role": "user", "content": QUESTION}]
        return json.dumps({"model": MODEL, "max_tokens": 256, "stream": True, "messages": turns}).encode()


def _streaming(each: Contender) -> Streaming:
    return Streaming(each.name, each.version, each.url, each.headers, each.pids)


async def _open(each: Contender) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which a stream has been asked for."""
    parts = urlsplit(each.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    body = each.body()
    headers = {"host": "bench", "content-type": "application/json", "content-length": str(len(body))} | each.headers
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"POST {parts.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
    return reader, writer


async def _stamps(each: Contender) -> list[float]:
    """Milliseconds that each piece of one stream was under way."""
    reader, writer = await _open(each)
    delays = []
    try:
        async for line in reader:
            place = line.find(b'"content": "0') if b'"content": "' in line else line.find(b'"content":"0')
            if place >= 0:
                sent = int(line[line.index(b'"0', place) + 1 :][:20])
                delays.append((time.monotonic_ns() - sent) / 1e6)
            if b"[DONE]" in line:
                break
    finally:
        writer.close()
    return delays


async def _paced(each: Contender) -> list[float]:
    many = await asyncio.gather(*(_stamps(each) for _ in range(_PACED)))
    return [delay for delays in many for delay in delays]


async def _idle(each: Contender, count: int) -> float | None:
    """KB that an idle stream costs; None where not all could be opened."""
    before = sum(map(rss, each.pids))
    opened = []
    try:
        for start in range(0, count, 50):
            opened += await asyncio.gather(*(_open(each) for _ in range(min(50, count - start))))
        for reader, _ in opened:
            async with asyncio.timeout(60):
                await reader.readuntil(b"data: ")
        return (sum(map(rss, each.pids)) - before) * 1e6 / 1024 / count
    except (TimeoutError, asyncio.IncompleteReadError, OSError):
        return None
    finally:
        for _, writer in opened:
            writer.close()


def _rates(names: list[str], cache: Path, seconds: float, rounds: int) -> dict[str, tuple[str, list[float], int]]:
    found: dict[str, tuple[str, list[float], int]] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(source(folder, CHUNKS, 0))
        every = [_streaming(stack.enter_context(start(folder, port))) for start in contenders(names, cache)]
        direct = Streaming("upstream", "", f"http://127.0.0.1:{port}/api/v1/chat/completions")
        for number in range(rounds):
            for each in [direct, *every]:
                sample = measure(each, CONNECTIONS, seconds, folder)
                version, rates, bad = found.get(each.name, (each.version, [], 0))
                found[each.name] = (version, [*rates, sample.rate], bad + sample.bad)
            print(f"streams: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


def _delays(names: list[str], cache: Path) -> dict[str, list[float]]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(source(folder, _PACED_CHUNKS, _PACE))
        every = [_streaming(stack.enter_context(start(folder, port))) for start in contenders(names, cache)]
        direct = Streaming("upstream", "", f"http://127.0.0.1:{port}/api/v1/chat/completions")
        return {each.name: asyncio.run(_paced(each)) for each in [direct, *every]}


def _memory(names: list[str], cache: Path, count: int) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        port = stack.enter_context(source(folder, 2, 600.0))
        every = [_streaming(stack.enter_context(start(folder, port))) for start in contenders(names, cache)]
        return {each.name: asyncio.run(_idle(each, count)) for each in every}


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--contenders", nargs="+", default=["nginx", "sophia", "litellm"])
    parser.add_argument("--seconds", type=float, default=12)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--idle", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    rates = _rates(given.contenders, given.cache, given.seconds, given.rounds)
    delays = _delays(given.contenders, given.cache)
    memory = _memory(given.contenders, given.cache, given.idle)
    lines = [
        "# Streams through the gateway and its peers",
        "",
        f"Made by `make bench`. Streams/s: {CHUNKS} pieces each, {CONNECTIONS} connections. Added time of a piece: {_PACED} streams side by",
        f"side, a piece each {_PACE * 1000:g} ms, over the way without a gateway. Memory: {given.idle} streams that have begun and wait.",
        "",
        "| gateway | streams/s | of nginx | added p50 (ms) | added p99 (ms) | KB an idle stream | bad |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    yardstick = rates.get("nginx", rates["upstream"])[1]
    bare = statistics.quantiles(delays["upstream"], n=100)
    for name, (version, own, bad) in rates.items():
        if name == "upstream":
            continue
        ratio = statistics.median(one / other for one, other in zip(own, yardstick, strict=True))
        late = statistics.quantiles(delays[name], n=100)
        kilobytes = "-" if memory[name] is None else f"{memory[name]:.0f}"
        lines.append(
            f"| {name} {version} | {statistics.median(own):,.0f} | {ratio:.3f} | {late[49] - bare[49]:.2f} | "
            f"{late[98] - bare[98]:.2f} | {kilobytes} | {bad} |"
        )
    text = "\n".join([*lines, "", f"{machine()}. {given.rounds} rounds of {given.seconds:g} s, medians."]) + "\n"
    print(text)
    if given.output is not None:
        (given.output / "streams.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
