# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache in a running gateway: exact and semantic, apart by tenant, purged for good, its embeddings billed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.bed import Bed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    bed = Bed(
        tmp_path_factory.mktemp("cache"), cache={"embedder": "provider", "embed_timeout": 10.0, "similarity": 0.8, "decision": "static"}
    )
    bed.start_sandbox()
    bed.start_gateway()
    yield bed
    bed.close()


def ask(bed: Bed, key: str, question: str, **headers: str) -> httpx.Response:
    body = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": question}], "temperature": 0}
    return httpx.post(
        f"{bed.url}/v1/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {key}", **headers},
        timeout=60,
    )


def until(bed: Bed, key: str, question: str, kind: str) -> httpx.Response:
    """Answers are kept beside the answer, so the next request may come too early."""
    end = time.monotonic() + 20
    while (answer := ask(bed, key, question)).headers["x-sophia-cache"] != kind and time.monotonic() < end:
        time.sleep(0.1)
    assert answer.headers["x-sophia-cache"] == kind
    return answer


def test_exact_then_semantic_then_purged(bed: Bed) -> None:
    key, stranger = bed.tenant("cached"), bed.tenant("stranger")
    question = "What is the capital of Portugal, and why is it there?"
    first = ask(bed, key, question)
    assert first.headers["x-sophia-cache"] == "miss"
    exact = until(bed, key, question, "exact")
    assert exact.headers["x-sophia-cost"] == "0"
    assert exact.json()["choices"] == first.json()["choices"]
    near = until(bed, key, "what is the capital of Portugal and why is it there", "semantic")
    assert near.json()["choices"] == first.json()["choices"]
    assert ask(bed, key, "What is the capital of Poland, and why is it there?").headers["x-sophia-cache"] == "miss"
    assert ask(bed, stranger, question).headers["x-sophia-cache"] == "miss"
    bed.admin("POST", "/cache/purge", {})
    assert ask(bed, key, question).headers["x-sophia-cache"] == "miss"


def test_embeddings_are_booked_on_the_tenant(bed: Bed) -> None:
    key = bed.tenant("embedder")
    ask(bed, key, "How does one test a backup?")
    until(bed, key, "how does one test a backup", "semantic")
    end = time.monotonic() + 20
    rows: list[tuple[str, int]] = []
    while time.monotonic() < end and not rows:
        with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
            rows = database.execute(
                "SELECT spend.model, spend.cost FROM spend JOIN organizations ON organizations.id = spend.organization"
                " WHERE spend.tags = 'semantic-cache' AND organizations.name = 'embedder' AND spend.state = 'settled'"
            ).fetchall()
        time.sleep(0.1)
    assert rows
    assert all(model == "openai/text-embedding-3-small" and cost > 0 for model, cost in rows)
    truth = bed.truth()
    with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
        (booked,) = database.execute("SELECT sum(cost) FROM spend").fetchone()
    assert booked <= truth["totals"]["cost_nano"]


def test_equal_requests_at_once_are_asked_and_billed_once(bed: Bed) -> None:
    """One of twelve goes upstream; the others wait for it and are served at no cost, streamed or whole."""
    key = bed.tenant("crowd")
    before = len(bed.truth()["generations"])
    bed.faults([{"fault": {"kind": "slow_headers", "seconds": 2.0}, "match": {"path": "/chat/completions"}}])
    try:
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda _: ask(bed, key, "Which river runs through Prague?"), range(12)))
    finally:
        bed.faults([])
    assert [answer.status_code for answer in answers] == [200] * 12
    words = [answer.headers["x-sophia-cache"] for answer in answers]
    assert (words.count("miss"), words.count("exact")) == (1, 11)
    assert sum(answer.headers["x-sophia-cost"] == "0" for answer in answers) == 11
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
    chats = [each for each in bed.truth()["generations"][before:] if "embedding" not in each["model"]]
    assert len(chats) == 1


def test_near_answers_are_checked_before_any_is_served(tmp_path: Path) -> None:
    """With the learned decision a near question goes upstream, is billed, and is compared; what it taught outlives a restart."""
    bed = Bed(tmp_path, cache={"embedder": "provider", "embed_timeout": 10.0, "floor": 0.5})
    try:
        bed.start_sandbox()
        bed.start_gateway()
        key = bed.tenant("learner")
        ask(bed, key, "What is the capital of Portugal, and why is it there?")
        end = time.monotonic() + 20
        lessons: list[dict[str, Any]] = []
        number = 0
        while not lessons and time.monotonic() < end:  # answers are kept beside the answer, so the first may come too early
            politeness = "please " * number
            answer = ask(bed, key, f"{politeness}tell me what is the capital of Portugal and why is it there")
            assert answer.headers["x-sophia-cache"] == "miss"
            assert answer.headers["x-sophia-cost"] != "0"
            lessons = bed.admin("GET", "/cache/lessons")["data"]
            number += 1
            time.sleep(0.2)
        (lesson,) = lessons
        assert lesson["threshold"] is None
        assert sum(lesson["checks"]) + lesson["episode"] >= 1
        assert "sophia_cache_checks_total" in httpx.get(f"http://127.0.0.1:{bed.metrics_port}/metrics").text
        assert bed.stop_gateway() == 0
        bed.start_gateway()
        (again,) = bed.admin("GET", "/cache/lessons")["data"]
        assert again["changed_at"] >= lesson["changed_at"]
        assert sum(again["checks"]) + again["episode"] >= 1
    finally:
        bed.close()
