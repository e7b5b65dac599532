#!/usr/bin/env python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start two Qdrant stand-ins in the background and fill the first; print where they are, as JSON.

usage: start.py FOLDER

FOLDER gets ``pids`` (one a line), the logs, and the storage. If ``sophia`` is not installed, it is run from the source of
the tree this file is in. The API keys come from the environment.
"""

from __future__ import annotations

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import time
import urllib.request

SECONDS = 60
POINTS = 1200
DIMS = 16


def start(argv: list[str], folder: pathlib.Path, name: str, environ: dict[str, str]) -> str:
    """Start a server; return its URL once it says that it listens."""
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            argv, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    with (folder / "pids").open("a", encoding="utf-8") as pids:
        pids.write(f"{process.pid}\n")
    for _look in range(SECONDS * 20):
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("listening on "):
                return line.split()[-1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"{name} did not start: {log.read_text(encoding='utf-8')[-2000:]}")


def source() -> pathlib.Path:
    """Return where sophia's source is; ansible-test runs a copy of this file some folders below the tree."""
    for folder in pathlib.Path(__file__).resolve().parents:
        if (folder / "gateway_src/src/sophia").is_dir():
            return folder / "gateway_src/src"
    sys.exit("neither the command sophia nor gateway_src can be found")


def fill(url: str, key: str) -> None:
    """Make a collection with an alias, payload indexes and points."""

    def call(method: str, path: str, body: object) -> None:
        headers = {"Content-Type": "application/json", "api-key": key}
        request = urllib.request.Request(url + path, method=method, data=json.dumps(body).encode(), headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            answer.read()

    rng = random.Random(1)
    place = "/collections/documents_v1"
    call("PUT", place, {"vectors": {"size": DIMS, "distance": "Cosine"}, "hnsw_config": {"m": 24}})
    call("PUT", f"{place}/index?wait=true", {"field_name": "tenant", "field_schema": {"type": "keyword", "is_tenant": True}})
    points = [
        {"id": number, "vector": [rng.uniform(-1, 1) for _dim in range(DIMS)], "payload": {"tenant": f"t{number % 5}", "text": "ä"}}
        for number in range(POINTS)
    ]
    call("PUT", f"{place}/points?wait=true", {"points": points})
    call("POST", "/collections/aliases", {"actions": [{"create_alias": {"alias_name": "documents", "collection_name": "documents_v1"}}]})


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    command, environ = ["sophia", "sandbox", "qdrant"], {}
    if not shutil.which("sophia"):
        command, environ = [sys.executable, "-m", "sophia.sandbox.qdrant"], {"PYTHONPATH": str(source())}
    urls = {}
    for name in ("source", "target"):
        key = os.environ[f"QDRANT_{name.upper()}_API_KEY"]
        argv = [*command, "--port", "0", "--storage", str(folder / name)]
        urls[name] = start(argv, folder, name, {**environ, "QDRANT_API_KEY": key})
    fill(urls["source"], os.environ["QDRANT_SOURCE_API_KEY"])
    print(json.dumps(urls))


if __name__ == "__main__":
    main()
