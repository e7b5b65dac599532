# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that leaves while the model is silent: upstream stops, and what it billed is booked."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from sophia.money import nano
from tests.e2e.bed import Bed


@pytest.fixture(scope="module", params=["pyreqwest", "aiohttp"])
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    bed = Bed(tmp_path_factory.mktemp("leaving"), upstream={"client": request.param})
    bed.start_sandbox("--latency-scale", "0.02", "--generation-delay", "0.1")
    bed.start_gateway()
    yield bed
    bed.close()


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat"])
def test_upstream_is_closed_when_the_client_leaves(bed: Bed, path: str) -> None:
    key = bed.tenant(f"leaving{path.count('/')}")
    bed.faults([{"fault": {"kind": "stall", "after": 2, "seconds": 300}}])
    question = "Tell me about the sea."
    body = (
        {"message": question, "stream": True}
        if path == "/v1/chat"
        else {"model": "openai/gpt-4o-mini", "stream": True, "messages": [{"role": "user", "content": question}]}
    )
    headers = {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{bed.url}{path}", json=body, headers=headers, timeout=30) as answer:
        pieces = answer.iter_bytes()
        while not bed.truth(summary=True)["open"]:
            next(pieces)
    bed.faults([])
    end = time.monotonic() + 30
    while bed.truth(summary=True)["open"] or booked(bed) != bed.truth(summary=True)["totals"]["cost_nano"]:
        assert time.monotonic() < end, "still open upstream, or not booked"
        time.sleep(0.1)


def booked(bed: Bed) -> int:
    """What the ledger has confirmed, in nano-dollars."""
    usage = bed.admin("GET", "/usage?group_by=organization")["data"]
    return sum(nano(each["cost"]) for each in usage)
