# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send requests at a steady rate, and print every second, as one line of JSON, what has come back so far.

usage: load.py URL KEY_FILE RATE

Half of the workers keep their connection, as SDKs do, half open a new one for each request; every other request is
streamed, and only its whole end counts. Nothing is ever tried again: each failure is one that a user would see.
"""

from __future__ import annotations

import collections
import http.client
import json
import select
import socket
import sys
import threading
import time
import urllib.parse
from pathlib import Path

WORKERS = 20


class Load:
    def __init__(self, url: str, key: str, rate: float) -> None:
        # Resolved once: what is tried is the gateway behind its Service's address, not the cluster's DNS.
        parts = urllib.parse.urlsplit(url)
        self.host = f"{socket.gethostbyname(parts.hostname or '')}:{parts.port or 80}"
        self.headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        self.pause = WORKERS / rate
        self.lock = threading.Lock()
        self.answered = 0
        self.failed: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0

    def work(self, number: int) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        count = 0
        due = time.monotonic() + self.pause * number / WORKERS
        while True:
            time.sleep(max(0.0, due - time.monotonic()))
            due += self.pause
            count += 1
            if number % 2 or closed(connection):
                connection.close()
            began = time.monotonic()
            try:
                self.ask(connection, f"{number} {count}", stream=count % 2 == 0)
            except (OSError, ValueError, http.client.HTTPException) as error:
                connection.close()
                with self.lock:
                    self.failed[f"{time.strftime('%H:%M:%S')} {error!r}"] += 1
            else:
                with self.lock:
                    self.answered += 1
                    self.slowest = max(self.slowest, time.monotonic() - began)

    def ask(self, connection: http.client.HTTPConnection, text: str, *, stream: bool) -> None:
        chat = {"model": "openai/gpt-4o-mini", "stream": stream, "max_tokens": 20, "messages": [{"role": "user", "content": text}]}
        connection.request("POST", "/v1/chat/completions", json.dumps(chat), self.headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200 or ("data: [DONE]" if stream else '"choices"') not in body:
            raise ValueError(f"{answer.status} {body[-200:]}")


def closed(connection: http.client.HTTPConnection) -> bool:
    """Whether the other side has said good-bye: an idle connection has nothing to read."""
    return connection.sock is not None and bool(select.select([connection.sock], [], [], 0)[0])


def main() -> None:
    url, key_file, rate = sys.argv[1:]
    load = Load(url, Path(key_file).read_text(encoding="utf-8").strip(), float(rate))
    for number in range(WORKERS):
        threading.Thread(target=load.work, args=(number,), daemon=True).start()
    while True:
        time.sleep(1)
        with load.lock:
            print(json.dumps({"answered": load.answered, "slowest": round(load.slowest, 3), "failed": load.failed}), flush=True)


if __name__ == "__main__":
    main()
