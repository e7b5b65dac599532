# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send chats until a file named `stop` appears in the folder, then print how they were answered, as JSON.

usage: load.py URL FOLDER     the folder holds `key`

Some threads, each with a connection that it keeps, as clients do: a balancer that closes one at the wrong moment is found out.
"""

from __future__ import annotations

import collections
import http.client
import json
import sys
import threading
import time
import urllib.parse
from pathlib import Path

THREADS = 4
PAUSE = 0.1


class Load:
    def __init__(self, url: str, folder: Path) -> None:
        self.host = urllib.parse.urlsplit(url).netloc
        self.key = (folder / "key").read_text().strip()
        self.stop = folder / "stop"
        self.lock = threading.Lock()
        self.answers: collections.Counter[str] = collections.Counter()

    def repeat(self, thread: int) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        number = 0
        while not self.stop.exists():
            number += 1
            try:
                answer = self.ask(connection, f"{thread}/{number}")
            except (OSError, http.client.HTTPException) as error:
                answer = repr(error)
                connection.close()
            with self.lock:
                self.answers[answer] += 1
            time.sleep(PAUSE)

    def ask(self, connection: http.client.HTTPConnection, text: str) -> str:
        body = {"model": "openai/gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": text}]}
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        return str(answer.status)


def main() -> None:
    load = Load(sys.argv[1], Path(sys.argv[2]))
    threads = [threading.Thread(target=load.repeat, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(load.answers))


if __name__ == "__main__":
    main()
