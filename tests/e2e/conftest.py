# SPDX-License-Identifier: GPL-3.0-or-later
"""Beds that outlive a test, and the account that each has to give of its money at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.account import account
from tests.e2e.bed import Bed


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks."""
    config.addinivalue_line("markers", "spends: the test costs something although others of its kind do not")


@pytest.fixture(scope="session")
def open_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Bed]]:
    """Start a bed with settings of its own; at the end of the session its ledger must equal the stand-in's truth."""
    beds: list[Bed] = []

    def start(name: str, *, sandbox: tuple[str, ...] = (), secondary: str | None = None, **settings: Any) -> Bed:
        folder = tmp_path_factory.mktemp(name)
        bed = Bed(folder, **settings)
        beds.append(bed)
        if secondary is not None:
            path = folder / "secondary.key"
            path.touch(mode=0o600)
            path.write_text(secondary)
        bed.start_sandbox("--generation-delay", "0.1", *sandbox)
        if secondary is not None:
            bed.call("POST", f"{bed.sandbox_url}/_sandbox/seed", {"keys": [{"key": secondary, "name": "secondary"}]})
        bed.start_gateway()
        return bed

    yield start
    problems: list[str] = []
    for bed in beds:
        try:
            problems += [f"{bed.folder.name}: {problem}" for problem in account(bed)]
        finally:
            bed.close()
    assert not problems, "\n".join(problems[:20])
