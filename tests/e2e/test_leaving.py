# SPDX-License-Identifier: GPL-3.0-or-later
"""A client that leaves while the model is silent: upstream stops, and what it billed is booked."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from sophia.money import nano
from tests.e2e.bed import Bed


@pytest.fixture(scope="module")
def bed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    bed = Bed(tmp_path_factory.mktemp("leaving"), upstream={"client": request.param})
    bed.start_sandbox("--latency-scale", "0.02", "--generation-delay", "0.1")
    bed.start_gateway()
    yield bed
    bed.close()


PATHS = pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/chat"])


@pytest.mark.parametrize("bed", ["http1", "pyreqwest", "aiohttp"], indirect=True)
@PATHS
def test_upstream_is_closed_when_the_client_leaves(bed: Bed, path: str) -> None:
    key = bed.tenant(f"leaving{path.count('/')}")
    bed.faults([{"fault": {"kind": "stall", "after": 2, "seconds": 300}}])
    headers = {"authorization": f"Bearer {key}"}
    with httpx.stream("POST", f"{bed.url}{path}", json=question(path), headers=headers, timeout=30) as answer:
        pieces = answer.iter_bytes()
        while not bed.truth(summary=True)["open"]:
            next(pieces)
    settles(bed)


# pyreqwest 0.15.1 may go on with a request that is cancelled before its head, until its own time-out.
@pytest.mark.parametrize("bed", ["http1", "aiohttp"], indirect=True)
@PATHS
def test_upstream_is_closed_when_the_client_leaves_before_the_first_token(bed: Bed, path: str) -> None:
    key = bed.tenant(f"early{path.count('/')}")
    bed.faults([{"fault": {"kind": "stall", "after": 0, "seconds": 300}}])
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(timeout=1.0) as client, pytest.raises(httpx.ReadTimeout):
        client.post(f"{bed.url}{path}", json=question(path), headers=headers)
    settles(bed)


def question(path: str) -> dict[str, Any]:
    """A request for a stream."""
    if path == "/v1/chat":
        return {"message": "Tell me about the sea.", "stream": True}
    messages = [{"role": "user", "content": "Tell me about the sea."}]
    return {"model": "openai/gpt-4o-mini", "stream": True, "messages": messages}


def settles(bed: Bed) -> None:
    """Nothing stays open upstream, and what it billed is booked."""
    bed.faults([])
    end = time.monotonic() + 120  # reconciliation looks again after half a minute at most
    while bed.truth(summary=True)["open"] or booked(bed) != bed.truth(summary=True)["totals"]["cost_nano"]:
        assert time.monotonic() < end, "still open upstream, or not booked"
        time.sleep(0.1)


def booked(bed: Bed) -> int:
    """What the ledger has confirmed, in nano-dollars."""
    usage = bed.admin("GET", "/usage?group_by=organization")["data"]
    return sum(nano(each["cost"]) for each in usage)
