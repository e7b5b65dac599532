# SPDX-License-Identifier: GPL-3.0-or-later
"""A cap under a thousand requests at once: never passed, and no phantom of it left behind."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import aiohttp
import pytest

from sophia.money import nano
from tests.e2e.bed import Bed

CAP = "0.02"
REQUESTS = 1000


@pytest.fixture
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    bed = Bed(tmp_path_factory.mktemp("budget"), budget={"wait": 2.0})
    bed.start_sandbox("--latency-scale", "0.02")
    bed.start_gateway()
    yield bed
    bed.close()


async def storm(bed: Bed, key: str) -> Counter[str]:
    results: Counter[str] = Counter()

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        body = {
            "model": "anthropic/claude-haiku-4.5",
            "messages": [{"role": "user", "content": f"Tell me about number {number}."}],
            "max_tokens": 100 if number % 2 else None,
        }
        body = {name: value for name, value in body.items() if value is not None}
        headers = {"authorization": f"Bearer {key}"}
        async with session.post(f"{bed.url}/v1/chat/completions", json=body, headers=headers) as answer:
            content = await answer.json()
            code = content["error"]["code"] if "error" in content else ""
            results[f"{answer.status} {code}".strip()] += 1

    connector = aiohttp.TCPConnector(limit=REQUESTS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=120)) as session:
        await asyncio.gather(*(one(session, number) for number in range(REQUESTS)))
    return results


def test_a_thousand_at_once_never_pass_the_cap(bed: Bed) -> None:
    key = bed.tenant("capped", budgets={"day": CAP})
    results = asyncio.run(storm(bed, key))
    assert results["200"] > 0
    assert set(results) <= {"200", "402 budget_exceeded", "429 budget_in_flight"}
    assert sum(results.values()) == REQUESTS
    end = time.monotonic() + 60
    while bed.admin("GET", "/spend/unsettled?limit=1")["data"] and time.monotonic() < end:
        time.sleep(0.2)
    assert not bed.admin("GET", "/spend/unsettled?limit=1")["data"], "not settled after a minute"
    spent = bed.truth(summary=True)["totals"]["cost_nano"]
    assert spent <= nano(CAP)
    organization = next(each for each in bed.admin("GET", "/organizations")["data"] if each["name"] == "capped")
    more = f"{(spent + 1_000_000) / 1e9:.9f}"
    bed.admin("PATCH", f"/organizations/{organization['id']}", {"budgets": {"day": more}})
    small = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5}
    answer = bed.call("POST", f"{bed.url}/v1/chat/completions", small, key)
    assert answer["choices"]
