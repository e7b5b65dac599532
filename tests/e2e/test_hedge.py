# SPDX-License-Identifier: GPL-3.0-or-later
"""Hedged requests: a late first token is overtaken, both attempts are in the ledger, and neither goes beyond bounds."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from sophia.money import dollars
from tests.e2e.bed import Bed

MODEL = "openai/gpt-4o-mini"
SLOW = 8.0
WARM = 25
"""Requests after which it is known what is usual."""

_FED = 0.4
"""The ledger's table is fed every tenth of a second."""


@pytest.fixture(scope="module")
def bed(open_bed: Callable[..., Bed]) -> Bed:
    bed = open_bed("hedge", dispatch={"hedge_share": 0.2})
    bed.admin("PUT", "/flags/hedge", {"enabled": True, "percentage": 0, "version": 0})
    return bed


@pytest.fixture(autouse=True)
def calm(bed: Bed) -> Iterator[None]:
    yield
    bed.faults([])


def ask(bed: Bed, key: str, *, stream: bool = False, **more: Any) -> tuple[httpx.Response, float]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me about the sea."}], "max_tokens": 50}
    began = time.monotonic()
    headers = {"authorization": f"Bearer {key}"}
    url = f"{bed.url}/v1/chat/completions"
    answer = httpx.post(url, json=body | {"stream": stream} | more, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer, time.monotonic() - began


def identifier(bed: Bed, name: str) -> str:
    """An organisation's identifier."""
    found = bed.admin("GET", "/organizations?limit=200")["data"]
    return next(each["id"] for each in found if each["name"] == name)


def tenant(bed: Bed, name: str, *, hedge: bool = True, stream: bool = False, **more: Any) -> str:
    """A tenant's key, warmed up; where hedging is on for it, by the flag's override."""
    key = bed.tenant(name, **more)
    organization = identifier(bed, name)
    if hedge:
        flag = bed.admin("GET", "/flags/hedge")
        flag["organizations"][organization] = True
        body = {key: flag[key] for key in ("enabled", "percentage", "organizations", "version")}
        bed.admin("PUT", "/flags/hedge", body)
    with httpx.Client(headers={"authorization": f"Bearer {key}"}, timeout=60) as client:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5, "stream": stream}
        for _ in range(WARM):
            assert client.post(f"{bed.url}/v1/chat/completions", json=body).status_code == 200
    return key


def attempts(bed: Bed, answer: httpx.Response) -> list[tuple[str, str, int | None]]:
    """The outcome, state and cost of each attempt of a request, in their order."""
    request = answer.headers["x-request-id"]
    with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
        query = "SELECT outcome, state, cost FROM spend WHERE request = ? ORDER BY at, attempt"
        return database.execute(query, (request,)).fetchall()


def hedges(bed: Bed, result: str) -> int:
    page = httpx.get(f"http://127.0.0.1:{bed.metrics_port}/metrics", timeout=30).text
    lines = [line for line in page.splitlines() if line.startswith("sophia_hedges_total") and f'"{result}"' in line]
    return int(sum(float(line.rpartition(" ")[2]) for line in lines))


def late(times: int) -> list[dict[str, Any]]:
    return [{"match": {"times": times}, "fault": {"kind": "slow_headers", "seconds": SLOW}}]


@pytest.mark.parametrize("stream", [False, True])
def test_a_late_attempt_is_overtaken_and_both_are_booked(bed: Bed, stream: bool) -> None:
    key = tenant(bed, f"hedged-{stream}", stream=stream)
    won = hedges(bed, "won")
    bed.faults(late(1))
    answer, seconds = ask(bed, key, stream=stream)
    assert seconds < SLOW
    assert hedges(bed, "won") == won + 1
    end = time.monotonic() + 60
    while len(found := attempts(bed, answer)) < 2 or {state for _, state, _ in found} != {"settled"}:
        assert time.monotonic() < end, found
        time.sleep(0.1)
    (loser, _, lost), (winner, _, cost) = found
    assert (loser, winner) == ("aborted", "complete")
    billed = sorted(each["cost_nano"] for each in bed.truth()["generations"])
    assert cost in billed
    assert lost in (0, *billed)
    if not stream:
        assert float(answer.headers["x-sophia-overhead-ms"]) < seconds * 1000
    else:
        assert answer.content.endswith(b"data: [DONE]\n\n")


def test_who_has_not_asked_for_it_is_not_hedged(bed: Bed) -> None:
    key = tenant(bed, "plain", hedge=False)
    bed.faults(late(1))
    answer, seconds = ask(bed, key)
    assert seconds > SLOW
    time.sleep(_FED)
    assert len(attempts(bed, answer)) == 1


def test_hedges_stay_within_their_share(bed: Bed) -> None:
    key = tenant(bed, "unlucky")
    before = hedges(bed, "won") + hedges(bed, "lost")
    bed.faults([{"match": {"every_nth": 2}, "fault": {"kind": "slow_headers", "seconds": 0.4}}])
    requests = 30
    for _ in range(requests):
        ask(bed, key)
    made = hedges(bed, "won") + hedges(bed, "lost") - before
    assert 0 < made <= 1 + 0.2 * (requests + WARM)


def test_a_budget_that_does_not_hold_both_is_not_hedged(bed: Bed) -> None:
    key = tenant(bed, "poor", budgets={"month": "1"})
    ask(bed, key)
    time.sleep(_FED)
    organization = identifier(bed, "poor")
    with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
        query = "SELECT sum(cost), max(reserved) FROM spend WHERE organization = ?"
        spent, reserved = database.execute(query, (organization,)).fetchone()
    cap = dollars(spent + reserved * 3 // 2)
    bed.admin("PATCH", f"/organizations/{organization}", {"budgets": {"month": f"{cap:f}"}})
    unaffordable = hedges(bed, "unaffordable")
    bed.faults(late(1))
    answer, seconds = ask(bed, key)
    assert seconds > SLOW
    assert hedges(bed, "unaffordable") == unaffordable + 1
    time.sleep(_FED)
    assert len(attempts(bed, answer)) == 1


def test_a_client_that_leaves_stops_both(bed: Bed) -> None:
    key = tenant(bed, "leaving", stream=True)
    bed.faults([{"fault": {"kind": "slow_headers", "seconds": 30}}])
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{bed.url}/v1/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": "Hi."}], "stream": True},
            headers={"authorization": f"Bearer {key}"},
            timeout=1.5,
        )
    end = time.monotonic() + 20
    while bed.truth(summary=True)["open"]:
        assert time.monotonic() < end
        time.sleep(0.1)
