# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server that speaks the part of Prometheus' query API which canary_gate uses, with scripted series.

usage: prometheus.py FILE [SPEED]

Writes its URL and process id to FILE, as JSON, once it listens. Its clock runs SPEED times as fast as the machine's, so that an hour of traffic
can be judged in seconds. `URL/good`, `URL/bad`, `URL/dear`, `URL/slow`, `URL/silent`, `URL/idle` and `URL/down` are
worlds of their own. As in Prometheus 2, ranges include both ends.
"""

from __future__ import annotations

import json
import math
import os
import re
import sys
import time
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCRAPE = 15
_RANGE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)\{(.*)\}\[(\d+)s\]$", re.DOTALL)
_MATCHER = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')


@dataclass
class Counter:
    """A series; its samples are given, or a function of time scraped every 15 s."""

    labels: dict[str, str]
    samples: list[tuple[float, float]] = field(default_factory=list)
    value: Callable[[float], float] | None = None

    def between(self, start: float, end: float) -> list[tuple[float, float]]:
        if self.value is None:
            return [(t, v) for t, v in self.samples if start <= t <= end]
        first = math.ceil(start / SCRAPE)
        return [(float(i * SCRAPE), self.value(i * SCRAPE)) for i in range(first, math.floor(end / SCRAPE) + 1)]


@dataclass
class World:
    """The series of one server, its clock, and what goes wrong: answers given instead of the next ones."""

    series: list[Counter]
    now: Callable[[], float]
    faults: list[str] = field(default_factory=list)
    queries: list[str] = field(default_factory=list)

    def answer(self, query: str, at: float | None) -> tuple[int, dict]:
        self.queries.append(query)
        if query == "time()":
            now = self.now()
            return 200, success("scalar", [now, str(now)])
        found = _RANGE.match(query)
        if not found or at is None:
            return 400, {"status": "error", "errorType": "bad_data", "error": f"cannot parse {query}"}
        name, inner, seconds = found.groups()
        chosen = select(self.series, name, inner)
        end = min(at, self.now())
        result = [
            {"metric": item.labels, "values": [[t, text(v)] for t, v in item.between(at - int(seconds), end)]} for item in chosen
        ]
        return 200, success("matrix", [item for item in result if item["values"]])


def select(series: Iterable[Counter], name: str, inner: str) -> list[Counter]:
    """Return the series of a name that all matchers match; an absent label is an empty one."""
    tests = {
        "=": lambda value, wanted: value == wanted,
        "!=": lambda value, wanted: value != wanted,
        "=~": lambda value, wanted: re.fullmatch(wanted, value) is not None,
        "!~": lambda value, wanted: re.fullmatch(wanted, value) is None,
    }
    matchers = _MATCHER.findall(inner)
    return [
        item
        for item in series
        if item.labels["__name__"] == name and all(tests[op](item.labels.get(label, ""), wanted) for label, op, wanted in matchers)
    ]


def success(kind: str, result: object) -> dict:
    return {"status": "success", "data": {"resultType": kind, "result": result}}


def text(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return {math.inf: "+Inf", -math.inf: "-Inf"}.get(value, repr(value))


def serve(world_of: Callable[[str], World | None]) -> ThreadingHTTPServer:
    """Return a server on a free port of loopback; the first part of a path may name a world."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urllib.parse.urlsplit(self.path)
            prefix, _slash, rest = parts.path.rpartition("/api/v1/")
            world = world_of(prefix.strip("/"))
            asked = urllib.parse.parse_qs(parts.query)
            fault = world.faults.pop(0) if world and world.faults else ""
            if world is None or rest != "query":
                self.reply(404, b"404 page not found")
            elif fault == "hang up":
                self.connection.close()
            elif fault == "html":
                self.reply(200, b"<html>sign in</html>")
            elif fault:
                self.reply(int(fault), json.dumps({"status": "error", "errorType": "unavailable", "error": "out of service"}).encode())
            else:
                at = asked.get("time")
                status, body = world.answer(asked.get("query", [""])[0], float(at[0]) if at else None)
                self.reply(status, json.dumps(body).encode())

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def gateway(version: str, rps: float, errors: float, slow: float, cost: float, began: float) -> list[Counter]:
    """Return the series of one version of the gateway with steady traffic since ``began``."""

    def count(rate: float, phase: float = 0.0) -> Callable[[float], float]:
        return lambda t: float(math.floor(max(0.0, t - began) * rate + phase))

    def series(name: str, value: Callable[[float], float], **labels: str) -> Counter:
        return Counter({"__name__": name, "version": version, **labels}, value=value)

    duration = "openrouter_response_duration_seconds"
    return [
        series("openrouter_requests_total", count(rps * (1 - errors)), status="200", model="m"),
        series("openrouter_requests_total", count(rps * errors, 0.5), status="502", model="m"),
        series(f"{duration}_count", count(rps), model="m"),
        series(f"{duration}_bucket", count(rps * (1 - slow)), model="m", le="2.0"),
        series(f"{duration}_bucket", count(rps), model="m", le="+Inf"),
        series("openrouter_cost_dollars_total", lambda t: max(0.0, t - began) * rps * cost, model="m"),
    ]


def main() -> int:
    speed = float(sys.argv[2]) if len(sys.argv) > 2 else 1.0
    began = time.time()

    def now() -> float:
        return began + (time.time() - began) * speed

    def world(errors: float = 1.0, slow: float = 1.0, cost: float = 1.0, rps: float = 100.0) -> World:
        old = gateway("v1", 400, 0.004, 0.01, 0.02, began - 7200)
        new = gateway("v2", rps, 0.004 * errors, 0.01 * slow, 0.02 * cost, began - 7200)
        return World(old + new, now)

    old_only = World(gateway("v1", 400, 0.004, 0.01, 0.02, began - 7200), now)
    worlds = {
        "good": world(), "bad": world(errors=3), "slow": world(slow=2), "dear": world(cost=2), "idle": world(rps=0), "silent": old_only,
        "down": World([], now, faults=["503"] * 10**6),
    }
    server = serve(worlds.get)
    with open(sys.argv[1] + ".new", "w", encoding="utf-8") as file:
        json.dump({"url": f"http://127.0.0.1:{server.server_address[1]}", "pid": os.getpid(), "began": int(began)}, file)
    os.replace(sys.argv[1] + ".new", sys.argv[1])
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
