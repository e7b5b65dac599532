# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's management API for the modules that talk to it."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[4]
ADMIN = ROOT / "tests/integration/targets/setup_gateway/files/admin.py"
NEEDED = ("aiosqlite", "asyncpg", "litestar", "redis", "sqlalchemy", "swagger_ui_bundle", "uvicorn")


class Gateway:
    """The API of a process of its own, and what a test asks it beside the modules."""

    def __init__(self, interpreter: str, environ: dict[str, str]) -> None:
        self.folder = tempfile.TemporaryDirectory()
        folder = pathlib.Path(self.folder.name)
        self.admin_key = "sk-sophia-" + secrets.token_hex(24)
        self.admin_key_file = str(folder / "admin_key")
        folder.joinpath("admin_key").write_text(self.admin_key, encoding="utf-8")
        folder.joinpath("flags.yml").write_text("flags:\n  from_file: {enabled: true}\n", encoding="utf-8")
        argv = [interpreter, str(ADMIN), str(folder)]
        self.process = subprocess.Popen(argv, env={**os.environ, **environ}, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line.startswith("listening on "), f"the management API did not start: {line!r}"
        self.url = line.split()[-1]

    def call(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/admin/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {key or self.admin_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or b"null")

    def empty(self) -> None:
        for organization in self.call("GET", "organizations")["data"]:
            self.call("DELETE", f"organizations/{organization['id']}")
        for flag in self.call("GET", "flags")["data"]:
            if flag["source"] == "api":
                self.call("DELETE", f"flags/{flag['name']}?version={flag['version']}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.folder.cleanup()


GATEWAY = pytest.StashKey[Gateway]()


def python_of_sophia() -> tuple[str, dict[str, str]] | None:
    """Return what runs sophia here: the Python it is installed in, or this one with the source beside the collection."""
    command = shutil.which("sophia")
    if command:
        return str(pathlib.Path(command).parent / "python"), {}
    source = ROOT / "gateway_src" / "src"
    if not source.is_dir() or any(importlib.util.find_spec(name) is None for name in NEEDED):
        return None
    return sys.executable, {"PYTHONPATH": str(source)}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start it once, and here: ansible-test forks for every test, so a fixture would start it every time."""
    wanted = any("gateway" in getattr(item, "fixturenames", ()) for item in session.items)
    found = python_of_sophia()
    if wanted and found and not session.config.option.collectonly:
        session.config.stash[GATEWAY] = Gateway(*found)


def pytest_unconfigure(config: pytest.Config) -> None:
    running = config.stash.get(GATEWAY, None)
    if running:
        running.close()


@pytest.fixture
def gateway(request: pytest.FixtureRequest) -> Gateway:
    """The management API without tenants and flags."""
    running = request.config.stash.get(GATEWAY, None)
    if running is None:
        pytest.skip("the management API needs sophia on the path, or gateway_src and its dependencies")
    running.empty()
    return running
