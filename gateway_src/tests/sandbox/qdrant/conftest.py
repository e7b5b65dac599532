# SPDX-License-Identifier: GPL-3.0-or-later
"""The stand-in as a process of its own, and the real `qdrant-client` for it.

Where `QDRANT_URL` (and `QDRANT_API_KEY`) name a real server, every test that asks for `client` runs against it as well.
Collections of such a run are called `sophia-test-…` and removed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import settings as hypothesis_settings
from qdrant_client import QdrantClient

# This machine may be busy with anything else; how long an example takes says nothing.
unhurried = hypothesis_settings(deadline=None)


class Sandbox:
    """The stand-in; `kill` and `start` again keep its storage."""

    def __init__(self, storage: Path, *options: str, api_key: str = "") -> None:
        self._argv = [sys.executable, "-m", "sophia.sandbox.qdrant", "--port", "0", "--storage", str(storage), *options]
        self._environ = {**os.environ, "QDRANT_API_KEY": api_key}
        self.url = ""
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv, env=self._environ, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("listening on "), line
        self.url = line.split()[-1]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def client(self, **options: object) -> QdrantClient:
        return QdrantClient(self.url, timeout=60, **options)  # type: ignore[arg-type]

    def faults(self, *rules: object) -> None:
        httpx.post(f"{self.url}/_sandbox/faults", json=list(rules)).raise_for_status()

    def reset(self) -> None:
        httpx.post(f"{self.url}/_sandbox/reset").raise_for_status()


@pytest.fixture(scope="session", autouse=True)
def source_on_path() -> None:
    """The processes run the source that is tested."""
    source = str(Path(__file__).parents[3] / "src")
    os.environ["PYTHONPATH"] = os.pathsep.join([source, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, source_on_path: None) -> Iterator[Sandbox]:
    sandbox = Sandbox(tmp_path_factory.mktemp("qdrant"))
    yield sandbox
    sandbox.kill()


@pytest.fixture
def sandbox(running: Sandbox) -> Sandbox:
    """The running stand-in with nothing in it."""
    running.reset()
    return running


@pytest.fixture(params=["sandbox", *(["server"] if os.environ.get("QDRANT_URL") else [])])
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    """A client of the stand-in, and of a real server where there is one."""
    if request.param == "sandbox":
        made: QdrantClient = request.getfixturevalue("sandbox").client()
    else:
        made = QdrantClient(os.environ["QDRANT_URL"], api_key=os.environ.get("QDRANT_API_KEY"), timeout=60)
    yield made
    if request.param == "server":
        for found in made.get_collections().collections:
            if found.name.startswith("sophia-test-"):
                made.delete_collection(found.name)
    made.close()


@pytest.fixture
def name() -> str:
    """A collection's name that is nobody else's."""
    return f"sophia-test-{uuid.uuid4().hex[:12]}"
