# SPDX-License-Identifier: GPL-3.0-or-later
"""The three-way match against the stand-in's account: nothing where the books are right, each error where they are not."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from tests.e2e.account import account
from tests.e2e.bed import Bed

MODEL = "openai/gpt-4o-mini"


@pytest.fixture
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    bed = Bed(tmp_path_factory.mktemp("match"), upstream={"head_timeout": 1.0, "settled_after": 1.0})
    bed.start_sandbox("--generation-delay", "0.1")
    bed.start_gateway()
    yield bed
    bed.close()


def ask(url: str, key: str, number: int, **more: Any) -> httpx.Response:
    body = {"model": MODEL, "max_tokens": 32, "messages": [{"role": "user", "content": f"How many is {number}?"}]}
    return httpx.post(url, json=body | more, headers={"authorization": f"Bearer {key}"}, timeout=30)


def matched(bed: Bed) -> dict[str, Any]:
    today = datetime.now(UTC).date().isoformat()
    found: dict[str, Any] = bed.admin("GET", f"/spend/match?day={today}")
    return found


def change(bed: Bed, statement: str) -> None:
    """Put an error into the books, behind the back of a gateway that does not run."""
    bed.stop_gateway()
    with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
        assert database.execute(statement).rowcount == 1
    bed.start_gateway()


def test_books_that_are_right_and_each_error_that_can_be(bed: Bed) -> None:
    key = bed.tenant("match")
    for number in range(6):
        assert ask(f"{bed.url}/v1/chat/completions", key, number).status_code == 200
    bed.faults([{"match": {"times": 1, "method": "POST"}, "fault": {"kind": "timeout_after_success"}}])
    assert ask(f"{bed.url}/v1/chat/completions", key, 6).status_code == 200, "the second attempt answers"
    assert account(bed) == []
    right = matched(bed)
    assert (right["ok"], right["generations"], right["different"], right["foreign"]) == (True, 8, 0, 0)
    assert right["booked"] == right["billed"] == right["ledger"] == right["account"]
    assert not right["over"] and right["activity"] is None
    assert right["models"][0]["recounted"] == right["models"][0]["booked"], "the stand-in bills at list price"

    assert ask(f"{bed.sandbox_url}/api/v1/chat/completions", bed.upstream_key, 9).status_code == 200
    time.sleep(1.5)  # settled_after
    foreign = matched(bed)
    assert (foreign["ok"], foreign["foreign"], foreign["different"]) == (True, 1, 0)

    some = "(SELECT attempt FROM spend WHERE cost > 0 ORDER BY attempt LIMIT 1 OFFSET {})"
    change(bed, f"UPDATE spend SET cost = cost + 1 WHERE attempt = {some.format(0)}")
    change(bed, f"UPDATE spend SET prompt_tokens = prompt_tokens + 1 WHERE attempt = {some.format(1)}")
    change(bed, f"DELETE FROM spend WHERE attempt = {some.format(2)}")
    wrong = matched(bed)
    assert not wrong["ok"]
    assert sorted(each["kind"] for each in wrong["differences"]) == ["cost", "not_booked", "tokens"]
    assert all(each["attempt"].startswith("att_") for each in wrong["differences"])


def test_the_command_shows_it_and_fails_where_it_must(bed: Bed) -> None:
    key = bed.tenant("command")
    assert ask(f"{bed.url}/v1/chat/completions", key, 1).status_code == 200
    assert account(bed) == []
    today = datetime.now(UTC).date().isoformat()
    right = reconcile(bed, today)
    assert right.returncode == 0, right.stderr
    assert MODEL in right.stdout
    change(bed, "UPDATE spend SET cost = cost + 1000")
    wrong = reconcile(bed, today, "--json")
    assert wrong.returncode == 1
    assert json.loads(wrong.stdout)["drift"] == "0.000001"
    metrics = httpx.get(f"http://127.0.0.1:{bed.metrics_port}/metrics", timeout=10).text
    assert "sophia_spend_match_ok 0.0" in metrics
    future = reconcile(bed, "2999-01-01")
    assert future.returncode == 1 and "day_not_begun" in future.stderr


def reconcile(bed: Bed, day: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sophia", "admin", "--url", bed.url, *options, "reconcile", "--day", day]
    environment = os.environ | {"SOPHIA_ADMIN_KEY_FILE": str(bed.folder / "admin.key")}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
