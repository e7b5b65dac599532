# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault wall before our gateway: every case as it must be, and the ledger equal to what was billed."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.faults.cases import batches
from tests.e2e.faults.gateways import sophia_gateway
from tests.e2e.faults.wall import run


def test_every_fault_on_every_route(tmp_path: Path) -> None:
    with sophia_gateway(tmp_path) as gateway:
        outcomes = run(gateway)
        wrong = [f"{outcome.case.name}: {', '.join(outcome.wrong)}" for outcome in outcomes if outcome.wrong]
        wrong += gateway.account()
    assert len(outcomes) == sum(map(len, batches()))
    assert not wrong, "\n".join(wrong)
