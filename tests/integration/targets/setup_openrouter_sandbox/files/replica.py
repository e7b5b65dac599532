#!/usr/bin/env python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The part of a gateway that a rotation sees: it reads slot files, uses the primary key, and says so in its metrics.

Serves ``/metrics`` and, for tests, ``/tally`` (answers by status, and what went wrong). Standard library only.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import json
import pathlib
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOTS = ("primary", "secondary")


class Replica:
    """Keys by slot and requests under way by key, changed under one lock."""

    def __init__(self, slots: pathlib.Path, api: str, model: str) -> None:
        self.slots = slots
        self.api = api
        self.model = model
        self.lock = threading.Lock()
        self.keys: dict[str, str] = {}
        self.in_flight: collections.Counter[str] = collections.Counter()
        self.tally: collections.Counter[str] = collections.Counter()
        self.troubles: list[str] = []

    def reload_for_ever(self, seconds: float) -> None:
        while True:
            found = {}
            for slot in SLOTS:
                try:
                    found[slot] = (self.slots / slot).read_text(encoding="utf-8").strip()
                except FileNotFoundError:
                    continue
            with self.lock:
                self.keys = found
            time.sleep(seconds)

    def ask_for_ever(self, seconds: float) -> None:
        while True:
            self.ask()
            time.sleep(seconds)

    def ask(self) -> None:
        with self.lock:
            key = self.keys.get("primary")
            if key is None:
                return
            self.in_flight[name(key)] += 1
        body = {"model": self.model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
        request = urllib.request.Request(
            self.api + "/chat/completions",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
                status = str(answer.status)
        except urllib.error.HTTPError as error:
            status = str(error.code)
            with self.lock:
                self.troubles.append(f"{name(key)}: {error.code} {error.read()[:200]!r}")
        except OSError as error:
            status = type(error).__name__
        with self.lock:
            self.in_flight[name(key)] -= 1
            self.tally[status] += 1

    def metrics(self) -> str:
        lines = ["# TYPE openrouter_key_loaded gauge", "# TYPE openrouter_key_in_flight gauge"]
        with self.lock:
            lines += [f'openrouter_key_loaded{{slot="{slot}",hash="{name(key)}"}} 1' for slot, key in self.keys.items()]
            lines += [f'openrouter_key_in_flight{{hash="{id}"}} {count}' for id, count in self.in_flight.items()]
        return "\n".join(lines) + "\n"


def name(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:12]


def handler_of(replica: Replica) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/tally":
                kind = "application/json"
                with replica.lock:
                    text = json.dumps({"tally": replica.tally, "troubles": replica.troubles})
            else:
                kind = "text/plain; version=0.0.4"
                text = replica.metrics()
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=pathlib.Path, required=True)
    parser.add_argument("--api", required=True)
    parser.add_argument("--model", default="openai/gpt-4o-mini")
    parser.add_argument("--reload", type=float, default=0.05, help="seconds between two readings of the slots")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds between two requests; 0 for no requests")
    given = parser.parse_args()
    replica = Replica(given.slots, given.api, given.model)
    threading.Thread(target=replica.reload_for_ever, args=(given.reload,), daemon=True).start()
    if given.pause:
        threading.Thread(target=replica.ask_for_ever, args=(given.pause,), daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(replica))
    print(f"listening on http://127.0.0.1:{server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
