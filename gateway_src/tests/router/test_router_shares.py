# SPDX-License-Identifier: GPL-3.0-or-later
"""Prefix affinity, fairness between tenants, and what happens when there is too much."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from router.conftest import MODEL, QUICK, Park, Start
from sophia.router.settings import AffinitySettings, QueueSettings
from standin import Vllm

Ask = Callable[[dict[str, Any]], Awaitable[httpx.Response]]


async def converse(ask: Ask, number: int, turns: int) -> None:
    """One conversation: each turn repeats all that was said."""
    messages = [{"role": "system", "content": f"You are assistant {number}. " + "Keep to the facts you know. " * 20}]
    for turn in range(turns):
        messages.append({"role": "user", "content": f"Question {turn} of {number}: " + "what else is there? " * 5})
        answer = await ask({"model": MODEL, "messages": messages, "max_tokens": 40})
        assert answer.status_code == 200, answer.text
        messages.append({"role": "assistant", "content": answer.json()["choices"][0]["message"]["content"]})


async def hit_share(vllms: list[Vllm], ask: Ask, conversations: int = 24, turns: int = 5) -> float:
    """The share of prompt tokens that the servers found in their prefix caches."""
    for vllm in vllms:
        vllm.reset()

    def totals() -> tuple[float, float]:
        names = ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total")
        hits, queries = (sum(vllm.metric(name) for vllm in vllms) for name in names)
        return hits, queries

    before = totals()
    await asyncio.gather(*(converse(ask, number, turns) for number in range(conversations)))
    after = totals()
    return (after[0] - before[0]) / (after[1] - before[1])


async def test_affinity_finds_more_in_the_prefix_caches_than_round_robin(start: Start, three: list[Vllm]) -> None:
    async with httpx.AsyncClient(timeout=60, verify=False) as direct:
        turn = 0

        async def round_robin(body: dict[str, Any]) -> httpx.Response:
            nonlocal turn
            turn += 1
            return await direct.post(f"{three[turn % 3].url}/v1/chat/completions", json=body)

        spread = await hit_share(three, round_robin)
    router = await start(three)
    kept = await hit_share(three, lambda body: router.client.post("/v1/chat/completions", json=body))
    print(f"prefix hits: round robin {spread:.3f}, affinity {kept:.3f}")
    assert kept > spread * 1.3
    assert router.metric("sophia_router_affinity_total", result="kept") >= 24 * 5 * 0.9
    served = [router.metric("sophia_router_attempts_total", backend=f"vllm-{n}") for n in range(3)]
    assert min(served) >= 5, served


async def test_affinity_overloads_nobody(start: Start, parked: Park) -> None:
    """Everybody asks over one document: its favourite server takes its share, and the rest is spread."""
    slow = parked.take(3, "--tokens-per-second", "100", "--prefill-tokens-per-second", "0")
    router = await start(slow, affinity=AffinitySettings(bound=1.25, slack=0), concurrency=100)
    for vllm in slow:
        vllm.pace(0.01)  # so that all are under way at the same time, however slow this machine is
    document = {"role": "system", "content": "All of it is said here. " * 300}
    asked = [
        asyncio.create_task(router.chat(messages=[document, {"role": "user", "content": str(number)}], max_tokens=100))
        for number in range(48)
    ]
    await router.until(lambda: router.metric("sophia_router_running") == 48)
    running = [router.metric("sophia_router_running", backend=f"vllm-{number}") for number in range(3)]
    assert max(running) <= 1.25 * 48 / 3 + 1, running
    for vllm in slow:
        vllm.pace(1)
    await asyncio.gather(*asked)
    assert router.metric("sophia_router_affinity_total", result="spilled") > 0


async def test_a_flood_of_one_tenant_does_not_starve_another(start: Start, parked: Park) -> None:
    """One tenant has fifty times the other's requests; they must cost the other about one place's turn, no more."""
    slow = parked.take(2, "--tokens-per-second", "500", "--prefill-tokens-per-second", "0")
    router = await start(slow, concurrency=2, queue=QueueSettings(requests=400, wait=3600.0))

    async def timed(tenant: str, number: int) -> float:
        begun = time.monotonic()
        answer = await router.chat(f"{tenant} {number}", max_tokens=40, headers={"x-sophia-tenant": tenant})
        assert answer.status_code == 200, answer.text
        return time.monotonic() - begun

    alone = statistics.median([await timed("quiet", number) for number in range(5)])
    for vllm in slow:
        vllm.pace(0.01)
    flood = [asyncio.create_task(timed("loud", number)) for number in range(250)]
    await router.until(lambda: router.metric("sophia_router_queue_depth") > 200)
    for vllm in slow:
        vllm.pace(1)
    beside = [await timed("quiet", number) for number in range(5)]
    depth = router.metric("sophia_router_queue_depth")
    waited = await asyncio.gather(*flood)
    print(f"quiet alone {alone:.3f} s, beside the flood {statistics.median(beside):.3f} s, loud {max(waited):.3f} s")
    assert depth > 100, "the flood was over before the other tenant had been measured"
    assert max(beside) < max(waited) / 4
    assert statistics.median(beside) < statistics.median(waited) / 5


async def test_weights_share_what_there_is(start: Start, parked: Park) -> None:
    slow = parked.take(1, "--tokens-per-second", "1000", "--prefill-tokens-per-second", "0")
    queue = QueueSettings(requests=400, wait=120.0, weights={"large": 3.0})
    router = await start(slow, concurrency=1, queue=queue)
    done: list[str] = []

    async def one(tenant: str, number: int) -> None:
        await router.chat(f"{tenant} {number}", max_tokens=16, headers={"x-sophia-tenant": tenant})
        done.append(tenant)

    await asyncio.gather(*(one(tenant, n) for n in range(60) for tenant in ("large", "small")))
    first = done[:60]  # both still wait in all of this
    assert 40 <= first.count("large") <= 50, first.count("large")


async def test_a_full_queue_says_when_there_is_room(start: Start, parked: Park) -> None:
    slow = parked.take(1, "--tokens-per-second", "200", "--prefill-tokens-per-second", "0")
    router = await start(slow, concurrency=1, queue=QueueSettings(requests=6, wait=60.0))

    async def ask(tenant: str, number: int) -> httpx.Response:
        return await router.chat(f"{tenant} {number}", max_tokens=100, headers={"x-sophia-tenant": tenant})

    for number in range(3):  # so that the pace is known
        assert (await ask("a", number)).status_code == 200
    slow[0].pace(0.01)
    asked = [asyncio.create_task(ask("a", number)) for number in range(20)]
    await router.until(lambda: sum(task.done() for task in asked) >= 13)
    refused = [task.result() for task in asked if task.done() and task.result().status_code == 429]
    assert len(refused) == 13
    assert {answer.json()["error"]["code"] for answer in refused} == {"queue_full"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    other = asyncio.create_task(ask("b", 0))  # a tenant with nothing in the queue takes a place of who has most
    await router.until(lambda: router.metric("sophia_router_refused_total", code="queue_full") == len(refused) + 1)
    slow[0].pace(1)
    again = refused[0]
    for _ in range(3):  # the first time, but for a machine that is too busy to keep the pace
        await asyncio.sleep(int(again.headers["retry-after"]))
        again = await ask("a", 99)
        if again.status_code == 200:
            break
    assert again.status_code == 200
    assert (await other).status_code == 200
    rest = await asyncio.gather(*asked)
    assert sum(answer.status_code == 200 for answer in rest) == 6


async def test_who_cannot_wait_is_told_at_once(start: Start, parked: Park) -> None:
    slow = parked.take(1, "--tokens-per-second", "100", "--prefill-tokens-per-second", "0")
    router = await start(slow, concurrency=1, queue=QueueSettings(wait=600.0))
    for number in range(3):
        await router.chat(str(number), max_tokens=20)
    held = [asyncio.create_task(router.chat(f"held {number}", max_tokens=1500)) for number in range(5)]
    await router.until(lambda: router.metric("sophia_router_queue_depth") == 4)
    begun = time.monotonic()
    answer = await router.chat("in a hurry", headers={"x-request-timeout": "20"})
    assert time.monotonic() - begun < 10
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_slow")
    assert int(answer.headers["retry-after"]) >= 1
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)


async def test_a_deadline_that_passes_before_the_answer_begins_is_told_as_such(start: Start, parked: Park) -> None:
    slow = parked.take(1, "--tokens-per-second", "20")
    router = await start(slow)
    answer = await router.chat(max_tokens=400, headers={"x-request-timeout": "0.5"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    await router.until(lambda: slow[0].truth()["running"] == 0)
    assert router.metric("sophia_router_backend_up", state="up") == 1


async def test_overflow_is_for_who_may_when_local_is_full(start: Start, parked: Park) -> None:
    slow = parked.take(1, "--tokens-per-second", "100")
    (large,) = parked.take(1, *QUICK, "--served-model-name", "vendor/large", api_key="key-of-the-overflow")
    router = await start(slow, overflow=large, concurrency=1)
    held = asyncio.create_task(router.chat("held", max_tokens=1500))
    await router.until(lambda: router.metric("sophia_router_running") == 1)
    allowed = await router.chat(headers={"x-sophia-overflow": "allow"})
    assert allowed.status_code == 200
    assert (allowed.headers["x-sophia-placement"], allowed.json()["model"]) == ("overflow", "vendor/large")
    assert router.metric("sophia_router_overflow_total", reason="slow") == 1
    streamed = await router.chat(stream=True, headers={"x-sophia-overflow": "allow"})
    assert streamed.text.endswith("data: [DONE]\n\n")
    for headers in (
        {"x-sophia-overflow": "never"},
        {},
        {"x-sophia-overflow": "allow", "x-sophia-overflowed": "full"},
    ):
        answer = await router.chat(headers=headers | {"x-request-timeout": "0.5"})
        assert answer.status_code in (429, 504), headers
    assert (await router.chat(headers={"x-sophia-overflow": "perhaps"})).status_code == 400
    assert router.metric("sophia_router_overflow_total") == 2
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)


async def test_overflow_is_for_who_may_when_local_is_down(start: Start, parked: Park) -> None:
    (large,) = parked.take(1, *QUICK, "--served-model-name", "vendor/large", api_key="key-of-the-overflow")
    local = Vllm(*QUICK)
    try:
        router = await start([local], overflow=large, queue=QueueSettings(wait=0.3))
        assert (await router.chat()).headers["x-sophia-placement"] == "local"
        local.kill()
        marked = {"x-sophia-overflow": "allow"}
        answers = [await router.chat(headers=marked) for _ in range(4)]
        assert {(answer.status_code, answer.headers["x-sophia-placement"]) for answer in answers} == {(200, "overflow")}
        only = await router.chat(headers={"x-sophia-overflow": "never"})
        assert (only.status_code, only.json()["error"]["code"]) == (503, "backends_down")
        assert int(only.headers["retry-after"]) >= 1
        assert (await router.client.get("/health/ready")).status_code == 200, "the overflow answers still"
        large.faults({"match": {"path": "/completions"}, "fault": {"kind": "cut", "after": 3}})
        broken = await router.chat(stream=True, headers=marked)
        assert "stream_cut" in broken.text
        assert "[DONE]" not in broken.text
        local.start()
        await router.until(lambda: router.metric("sophia_router_backend_up", state="up") == 1)
        assert (await router.chat(headers=marked)).headers["x-sophia-placement"] == "local"
    finally:
        local.kill()
