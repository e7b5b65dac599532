# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Send requests until a file named `stop` appears in the folder, then print what came back as JSON.

usage: load.py URL FOLDER     the folder holds `key`

One thread asks for /health/live without a pause, a new connection each time, so that a socket that is closed for
a moment shows; one streams a chat every second, below the default rate limit, and wants its end.
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

CHAT = {"model": "openai/gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": "Count to ten."}]}


class Load:
    def __init__(self, url: str, folder: Path) -> None:
        self.host = urllib.parse.urlsplit(url).netloc
        self.key = (folder / "key").read_text().strip()
        self.stop = folder / "stop"
        self.live = 0
        self.chats = 0
        self.failed: collections.Counter[str] = collections.Counter()

    def ask_live(self) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=30)
        connection.request("GET", "/health/live")
        status = connection.getresponse().status
        connection.close()
        if status != 200:
            raise ValueError(f"live: {status}")
        self.live += 1

    def stream_chat(self) -> None:
        connection = http.client.HTTPConnection(self.host, timeout=60)
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT), headers)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        if answer.status != 200 or "data: [DONE]" not in body:
            raise ValueError(f"chat: {answer.status} {body[-200:]}")
        self.chats += 1
        time.sleep(1)

    def repeat(self, request: str) -> None:
        while not self.stop.exists():
            try:
                getattr(self, request)()
            except (OSError, ValueError, http.client.HTTPException) as error:
                self.failed[f"{request}: {error!r}"] += 1
                time.sleep(0.1)


def main() -> None:
    load = Load(sys.argv[1], Path(sys.argv[2]))
    threads = [threading.Thread(target=load.repeat, args=(name,)) for name in ("ask_live", "stream_chat")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"live": load.live, "chats": load.chats, "failed": load.failed}))


if __name__ == "__main__":
    main()
