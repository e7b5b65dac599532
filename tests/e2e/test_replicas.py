# SPDX-License-Identifier: GPL-3.0-or-later
"""Two gateways over one Postgres and one Redis: one budget, one set of tenants and flags, one ledger."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import asyncpg
import httpx
import pytest

from gateway_src.tests import servers
from sophia.money import nano
from tests.e2e.bed import Bed

SMALL = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 5}


@contextmanager
def replicas(tmp_path: Path) -> Iterator[tuple[Bed, Bed]]:
    with servers.postgres() as postgres, servers.redis() as redis:
        stores = {"database": f"postgresql://postgres@/postgres?host={postgres}", "redis": f"unix://{redis}"}
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        one = Bed(tmp_path / "one", stores=stores)
        two = Bed(tmp_path / "two", stores=stores, upstream={"base_url": f"{one.sandbox_url}/api/v1"})
        for name in ("admin", "primary", "management"):
            (two.folder / f"{name}.key").write_text((one.folder / f"{name}.key").read_text())
        two.admin_key = one.admin_key
        try:
            one.start_sandbox("--latency-scale", "0.02")
            one.start_gateway()
            two.start_gateway()
            yield one, two
        finally:
            one.close()
            two.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Bed, Bed]]:
    with replicas(tmp_path) as found:
        yield found


def ask(bed: Bed, key: str) -> httpx.Response:
    return httpx.post(
        f"{bed.url}/v1/chat/completions", json=SMALL, headers={"authorization": f"Bearer {key}"}, timeout=60
    )


def until(seconds: float, good: object) -> float:
    """How long it took until `good()` was true."""
    started = time.monotonic()
    while not good():  # type: ignore[operator]
        if time.monotonic() - started > seconds:
            pytest.fail(f"not within {seconds} s")
        time.sleep(0.01)
    return time.monotonic() - started


async def storm(beds: tuple[Bed, Bed], key: str, count: int) -> Counter[str]:
    results: Counter[str] = Counter()

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        body = {
            "model": "anthropic/claude-haiku-4.5",
            "messages": [{"role": "user", "content": f"Number {number}."}],
            "max_tokens": 60,
        }
        url = f"{beds[number % 2].url}/v1/chat/completions"
        async with session.post(url, json=body, headers={"authorization": f"Bearer {key}"}) as answer:
            content = await answer.json()
            results[f"{answer.status} {content['error']['code'] if 'error' in content else ''}".strip()] += 1

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=200)) as session:
        await asyncio.gather(*(one(session, number) for number in range(count)))
    return results


def test_one_budget_one_ledger_and_changes_everywhere(pair: tuple[Bed, Bed]) -> None:
    one, two = pair
    key = one.tenant("shared", budgets={"month": "0.01"})
    until(10, lambda: ask(two, key).status_code == 200)
    results = asyncio.run(storm(pair, key, 200))
    assert results["200"] > 0
    assert set(results) <= {"200", "402 budget_exceeded", "429 budget_in_flight"}
    until(60, lambda: not one.admin("GET", "/spend/unsettled?limit=1")["data"])
    billed = one.truth(summary=True)["totals"]["cost_nano"]
    assert 0 < billed <= nano("0.01")
    until(10, lambda: asyncio.run(booked(pair)) == billed)
    organization = one.admin("GET", "/organizations")["data"][0]["id"]
    one.admin("PATCH", f"/organizations/{organization}", {"budgets": {"month": "1"}})
    until(10, lambda: ask(two, key).status_code == 200)
    one.admin("POST", f"/organizations/{organization}/disable")
    until(10, lambda: ask(two, key).status_code == 403)
    one.admin("POST", f"/organizations/{organization}/enable")
    until(10, lambda: ask(two, key).status_code == 200)
    flag = {"enabled": True, "values": ["openai/gpt-4o-mini"], "version": 0}
    one.admin("PUT", "/flags/disable_model", flag)
    until(10, lambda: ask(two, key).headers.get("x-sophia-model") != "openai/gpt-4o-mini")


async def booked(pair: tuple[Bed, Bed]) -> int:
    url = pair[0].config.read_text().split("database: ")[1].splitlines()[0].strip()
    connection = await asyncpg.connect(host=url.partition("host=")[2], user="postgres", database="postgres")
    try:
        return int(await connection.fetchval("SELECT coalesce(sum(cost), 0) FROM spend"))
    finally:
        await connection.close()


def test_without_redis_nothing_is_spent_and_it_says_so(tmp_path: Path) -> None:
    with replicas(tmp_path) as (one, _):
        key = one.tenant("careful", budgets={"month": "1"})
        assert ask(one, key).status_code == 200
        before = one.truth(summary=True)["totals"]["requests"]
        socket = one.config.read_text().split("unix://")[1].splitlines()[0].strip()
        pids = subprocess.run(["pgrep", "-f", f"redis-server.*{socket}"], capture_output=True, text=True, check=False)
        for pid in pids.stdout.split():
            subprocess.run(["kill", "-STOP", pid], check=True)
        try:
            answer = ask(one, key)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "reservations_unavailable"
            assert int(answer.headers["retry-after"]) >= 1
            assert httpx.get(f"{one.url}/health/ready", timeout=30).status_code == 503
            assert httpx.get(f"{one.url}/health/live", timeout=30).status_code == 200
        finally:
            for pid in pids.stdout.split():
                subprocess.run(["kill", "-CONT", pid], check=True)
        until(30, lambda: ask(one, key).status_code == 200)
        assert one.truth(summary=True)["totals"]["requests"] >= before + 1
