# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache in a running gateway: exact and semantic, apart by tenant, purged for good, its embeddings billed."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator

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
