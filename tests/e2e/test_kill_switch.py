# SPDX-License-Identifier: GPL-3.0-or-later
"""The kill switch: within a second, on two replicas, nothing is served and nothing runs for who is disabled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest

from tests.e2e.bed import Bed
from tests.e2e.test_replicas import booked, replicas

SEA = [{"role": "user", "content": "Tell me about the sea."}]
CHAT = {"model": "openai/gpt-4o-mini", "messages": SEA}
SILENT = "google/gemini-2.5-flash"
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat completions": ("/v1/chat/completions", CHAT | {"stream": True}),
    "messages": (
        "/v1/messages",
        {"model": "anthropic/claude-haiku-4.5", "messages": SEA, "max_tokens": 100, "stream": True},
    ),
    "responses": ("/v1/responses", {"model": CHAT["model"], "input": "The sea.", "stream": True}),
    "chat": ("/v1/chat", {"message": "The sea.", "stream": True}),
    "with an idempotency key": ("/v1/chat/completions", CHAT | {"stream": True}),
    "before the first token": ("/v1/chat/completions", CHAT | {"stream": True, "model": SILENT}),
    "whole": ("/v1/chat/completions", CHAT),
}
FIGURES: list[float] = []
BEGUN = tuple(KINDS)[:5]
FAULTS = [
    {"match": {"model": SILENT}, "fault": {"kind": "stall", "after": 0, "seconds": 60}},
    {"match": {"stream": False}, "fault": {"kind": "stall", "after": 0, "seconds": 60}},
    {"fault": {"kind": "stall", "after": 2, "seconds": 60}},
]


class Ended(NamedTuple):
    """How a request ended, and when."""

    status: int
    content: bytes
    at: float


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Bed, Bed]]:
    with replicas(tmp_path_factory.mktemp("kill")) as found:
        yield found


def run(bed: Bed, key: str, kind: str) -> Ended:
    path, body = KINDS[kind]
    headers = {"authorization": f"Bearer {key}"}
    if kind == "with an idempotency key":
        headers["idempotency-key"] = bed.folder.name
    answer = httpx.post(f"{bed.url}{path}", json=body, headers=headers, timeout=60)
    return Ended(answer.status_code, answer.content, time.monotonic())


def until(good: Any, seconds: float = 30) -> float:
    end = time.monotonic() + seconds
    while not good():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.01)
    return time.monotonic()


def struck(bed: Bed) -> int:
    """How many requests wait at the upstream."""
    rules = bed.call("GET", f"{bed.sandbox_url}/_sandbox/faults")["data"]
    return sum(rule["struck"] for rule in rules)


def status(bed: Bed, key: str) -> int:
    return httpx.get(f"{bed.url}/v1/models", headers={"authorization": f"Bearer {key}"}, timeout=30).status_code


def identifiers(bed: Bed, name: str) -> dict[str, str]:
    """The organisation `name` and what is below it, by level."""
    organization = next(each["id"] for each in bed.admin("GET", "/organizations")["data"] if each["name"] == name)
    below = {level: bed.admin("GET", f"/{level}s?organization={organization}")["data"][0]["id"] for level in LEVELS[1:]}
    return {"organization": organization} | below


LEVELS = ("organization", "team", "user", "key")


@pytest.mark.parametrize("level", LEVELS)
def test_everything_stops_everywhere(pair: tuple[Bed, Bed], level: str) -> None:
    one, two = pair
    key, other = one.tenant(f"killed-{level}"), one.tenant(f"spared-{level}")
    until(lambda: status(two, key) == status(two, other) == 200)
    one.faults(FAULTS)
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        doomed = {(bed.folder.name, kind): pool.submit(run, bed, key, kind) for bed in pair for kind in KINDS}
        spared = pool.submit(run, two, other, "chat completions")
        until(lambda: struck(one) >= len(doomed) + 1)
        time.sleep(0.5)  # what has begun shall have reached its client
        name = identifiers(one, f"killed-{level}")[level]
        one.admin("POST", f"/{level}s/{name}/disable")
        began = time.monotonic()
        refused = [until(lambda bed=bed: status(bed, key) == 403) - began for bed in pair]
        ended = {who: each.result() for who, each in doomed.items()}
        assert not spared.done()
        one.admin("POST", f"/organizations/{identifiers(one, f'spared-{level}')['organization']}/disable")
        spared.result()
    for (_, kind), end in ended.items():
        assert end.status == (200 if kind in BEGUN else 403), (kind, end)
        assert b"key_disabled" in end.content, (kind, end)
        assert b"[DONE]" not in end.content
        assert b"message_stop" not in end.content
        assert b"response.completed" not in end.content
    seconds = sorted(end.at - began for end in ended.values())
    print(f"{level}: refused after {max(refused):.3f} s; stopped after {seconds[0]:.3f} to {seconds[-1]:.3f} s")
    FIGURES.append(max(*refused, statistics.quantiles(seconds, n=10)[-1]))
    assert seconds[-1] < 20  # and not the minute that the upstream would take
    one.faults([])
    one.admin("POST", f"/{level}s/{name}/enable")
    until(lambda: status(one, key) == status(two, key) == 200)
    log = one.admin("GET", "/audit?limit=10")["data"]
    actions = [(each["action"], each["resource"]) for each in log]
    assert (f"{level}.disable", name) in actions
    assert (f"{level}.enable", name) in actions


def test_it_took_less_than_a_second() -> None:
    assert statistics.median(FIGURES) < 1  # of four, on two noisy cores


def test_a_deleted_key_stops_what_it_runs(pair: tuple[Bed, Bed]) -> None:
    one, two = pair
    key = one.tenant("deleted")
    until(lambda: status(two, key) == 200)
    one.faults(FAULTS[2:])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, two, key, "chat completions")
        until(lambda: struck(one) == 1)
        one.admin("DELETE", f"/keys/{identifiers(one, 'deleted')['key']}")
        assert b"key_disabled" in running.result().content
    one.faults([])
    assert status(two, key) == 401


def test_it_is_a_command(pair: tuple[Bed, Bed]) -> None:
    one, two = pair
    key = one.tenant("shell")
    until(lambda: status(two, key) == 200)
    one.faults(FAULTS[2:])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, two, key, "chat completions")
        until(lambda: struck(one) == 1)
        command = [sys.executable, "-m", "sophia", "admin", "organization", "disable", "shell"]
        settings = {"SOPHIA_URL": one.url, "SOPHIA_ADMIN_KEY_FILE": str(one.folder / "admin.key")}
        subprocess.run(command, env=os.environ | settings, check=True, capture_output=True)
        assert b"key_disabled" in running.result().content
    one.faults([])


def test_what_was_stopped_is_billed_and_booked(pair: tuple[Bed, Bed]) -> None:
    one, _ = pair
    until(lambda: not one.admin("GET", "/spend/unsettled?limit=1")["data"] and not one.truth(summary=True)["open"], 90)
    billed = one.truth(summary=True)["totals"]["cost_nano"]
    assert billed > 0
    until(lambda: asyncio.run(booked(pair)) == billed)
