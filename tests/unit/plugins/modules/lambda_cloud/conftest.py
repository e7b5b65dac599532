# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lambda Cloud's stand-in for the modules that talk to it."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import secrets
import subprocess
import sys
import urllib.request
from typing import Any

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[5] / "gateway_src/src"
NEEDED = ("httptools", "msgspec", "uvicorn", "uvloop")


class Cloud:
    """The stand-in in a process of its own; a second of it lasts three milliseconds."""

    def __init__(self) -> None:
        self.api_key = f"secret_unit_{secrets.token_hex(4)}.{secrets.token_hex(16)}"
        argv = [sys.executable, "-m", "sophia.sandbox.lambda_cloud", "--port", "0", "--time-scale", "300"]
        argv += ["--request-interval", "0", "--launch-interval", "0"]
        path = os.pathsep.join([str(SOURCE), os.environ.get("PYTHONPATH", "")])
        env = {**os.environ, "LAMBDA_API_KEY": self.api_key, "PYTHONPATH": path}
        self.process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), f"the sandbox did not start: {line!r}"
        self.url = line.split()[-1]

    def control(self, path: str, body: Any = None) -> Any:
        """Make a request of the stand-in's own."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}/_sandbox/{path}", data=data, timeout=30) as answer:
            return json.loads(answer.read())

    def empty(self) -> None:
        self.control("reset", {})
        self.control("seed", {"ssh_keys": {"ops": "ssh-ed25519 AAAA ops"}})

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


CLOUD = pytest.StashKey[Cloud]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start it once, and here: ansible-test forks for every test, so a fixture would start it every time."""
    wanted = any("cloud" in getattr(item, "fixturenames", ()) for item in session.items)
    there = SOURCE.is_dir() and all(importlib.util.find_spec(name) for name in NEEDED)
    if wanted and there and not session.config.option.collectonly:
        session.config.stash[CLOUD] = Cloud()


def pytest_unconfigure(config: pytest.Config) -> None:
    running = config.stash.get(CLOUD, None)
    if running:
        running.close()


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """An account with an SSH key and nothing else."""
    running = request.config.stash.get(CLOUD, None)
    if running is None:
        pytest.skip("the sandbox needs gateway_src and its dependencies")
    running.empty()
    return running
