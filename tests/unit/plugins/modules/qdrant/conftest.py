# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two stand-ins for Qdrant in processes of their own; the real server that QDRANT_URL names, where it does."""

from __future__ import annotations

import os
import pathlib
import sys
from dataclasses import dataclass
from typing import Any

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[5]))

from tests.bench.vectors.servers import Server, command, fill

KEYS = {"source": "key-of-the-source-7d1f", "target": "key-of-the-target-93ab"}


@dataclass
class Pair:
    """Where a collection is moved from and to."""

    source: Server
    target: Server
    journal: str

    @property
    def keys(self) -> list[str]:
        return [server.headers["api-key"] for server in (self.source, self.target)]

    def args(self, **more: Any) -> dict[str, Any]:
        """Return the options of a migration of `docs` between the two."""
        given = {
            "source_url": self.source.url,
            "source_api_key": self.source.headers["api-key"],
            "target_url": self.target.url,
            "target_api_key": self.target.headers["api-key"],
            "collection": "docs",
            "journal": self.journal,
            "wait_sleep": 0.1,
            "samples": 4,
        }
        return {**given, **more}

    def faults(self, *rules: dict[str, Any]) -> None:
        for server in (self.source, self.target):
            server.call("POST", "/_sandbox/faults", list(rules))

    def fill(self, points: int = 400, dims: int = 8) -> None:
        fill(self.source, "docs", points, dims)


SERVERS = pytest.StashKey[dict[str, Server]]()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start them once, and here: ansible-test forks for every test, so a fixture would start them every time."""
    wanted = any("pair" in getattr(item, "fixturenames", ()) for item in session.items)
    if wanted and command() and not session.config.option.collectonly:
        session.config.stash[SERVERS] = {name: Server(api_key=key) for name, key in KEYS.items()}


def pytest_unconfigure(config: pytest.Config) -> None:
    for server in config.stash.get(SERVERS, {}).values():
        server.close()


@pytest.fixture
def pair(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Pair:
    """Two stand-ins with nothing in them."""
    servers = request.config.stash.get(SERVERS, None)
    if servers is None:
        pytest.skip("the stand-in needs sophia on the path, or gateway_src and its dependencies")
    for server in servers.values():
        server.call("POST", "/_sandbox/reset")
    return Pair(servers["source"], servers["target"], str(tmp_path / "journal"))


@pytest.fixture
def real_server() -> tuple[str, str]:
    """URL and key of a server that is not the stand-in; the tests that ask for it are not collected without one."""
    return os.environ["QDRANT_URL"], os.environ.get("QDRANT_API_KEY", "")
