# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stand-ins for Qdrant in processes of their own, and collections to fill them with."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
import uuid
from array import array
from collections.abc import Iterator
from typing import Any

from . import ROOT

NEEDED = ("msgspec", "numpy", "orjson", "qdrant_edge", "uvicorn", "uvloop", "httptools")


def command() -> tuple[list[str], dict[str, str]] | None:
    """Return how the stand-in is started here: from the source beside the collection, or as installed."""
    source = ROOT / "gateway_src" / "src"
    if source.is_dir() and all(importlib.util.find_spec(name) for name in NEEDED):
        return [sys.executable, "-m", "sophia.sandbox.qdrant", "--port", "0"], {"PYTHONPATH": str(source)}
    if shutil.which("sophia"):
        return ["sophia", "sandbox", "qdrant", "--port", "0"], {}
    return None


class Server:
    """One stand-in. ``storage`` is kept over a restart; without it, nothing is."""

    def __init__(self, storage: str | None = None, api_key: str | None = None, *, index: bool = True) -> None:
        found = command()
        if found is None:
            raise RuntimeError("the stand-in needs sophia on the path, or gateway_src and its dependencies")
        argv, environ = found
        # A stand-in that is killed removes nothing: what it keeps is in a folder of whoever kills it.
        self._folder = None if storage else tempfile.TemporaryDirectory(prefix="vectors-")
        argv = [*argv, "--storage", storage or self._folder.name]
        if not index:
            argv = [*argv, "--no-index"]
        environ = {**os.environ, **environ, **({"QDRANT_API_KEY": api_key} if api_key else {})}
        # A session of its own, as a service has: Linux may give each session, and not each process, its share of the processor.
        self.process = subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            self.close()
            raise RuntimeError(f"the stand-in did not start: {line!r}")
        self.url = line.split()[-1]
        self.headers = {"api-key": api_key} if api_key else {}

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call; return what it answers. Raises ``RuntimeError`` for what is not a success."""
        with self.connection() as connection:
            return connection.call(method, path, body)

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        connection = Connection(self.url, self.headers)
        try:
            yield connection
        finally:
            connection.close()

    def cpu(self) -> float:
        """Return the seconds of processor time it has used."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii")
        fields = stat.rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        if self._folder:
            self._folder.cleanup()


class Connection:
    """One connection that is kept."""

    def __init__(self, url: str, headers: dict[str, str]) -> None:
        self._http = http.client.HTTPConnection(urllib.parse.urlsplit(url).netloc, timeout=60)
        self._headers = {"Content-Type": "application/json", **headers}

    def send(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = body.encode() if isinstance(body, str) else None if body is None else json.dumps(body)
        self._http.request(method, path, data, self._headers)
        answer = self._http.getresponse()
        return answer.status, json.loads(answer.read() or b"null")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = self.send(method, path, body)
        if status >= 300:
            raise RuntimeError(f"{method} {path}: HTTP {status}: {answer}")
        return answer["result"] if isinstance(answer, dict) and "result" in answer else answer

    def close(self) -> None:
        self._http.close()


def vector(rng: random.Random, dims: int) -> list[float]:
    """Return a random vector of 32-bit floats, in few digits."""
    return array("f", [round(rng.uniform(-1, 1), 6) for _number in range(dims)]).tolist()


def point_id(number: int) -> int | str:
    """Return the id of the point of that number: two of three are integers, the others UUIDs."""
    return number if number % 3 else str(uuid.UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128)))


def payload(number: int) -> dict[str, Any]:
    text = "naïve \"text\" ]},\\ ünd mehr"
    return {"number": number, "group": f"g{number % 7}", "text": text, "nested": {"list": [1, 2.5, None]}}


def point(rng: random.Random, number: int, dims: int) -> dict[str, Any]:
    return {"id": point_id(number), "vector": vector(rng, dims), "payload": payload(number)}


def fill(server: Server, name: str, points: int, dims: int, *, seed: int = 1, index: bool = True) -> None:
    """Make a collection with payload indexes and so many points."""
    rng = random.Random(seed)
    with server.connection() as connection:
        body = {
            "vectors": {"size": dims, "distance": "Cosine"},
            "hnsw_config": {"m": 8},
            "optimizers_config": {"indexing_threshold": 20_000 if index else 1_000_000_000},
        }
        connection.call("PUT", f"/collections/{name}", body)
        for field, schema in {"group": "keyword", "number": {"type": "integer", "lookup": True, "range": True}}.items():
            connection.call("PUT", f"/collections/{name}/index?wait=true", {"field_name": field, "field_schema": schema})
        step = max(1, 200_000 // dims)
        for start in range(0, points, step):
            batch = [point(rng, number, dims) for number in range(start, min(points, start + step))]
            connection.call("PUT", f"/collections/{name}/points?wait=true", {"points": batch})
