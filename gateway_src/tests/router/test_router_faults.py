# SPDX-License-Identifier: GPL-3.0-or-later
"""Backends that die, fail, stall and lie; clients that leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from router.conftest import HEALTH, MODEL, QUICK, Park, Running, Start
from standin import Vllm

STREAM: dict[str, Any] = {
    "model": MODEL,
    "stream": True,
    "max_tokens": 400,
    "ignore_eos": True,
    "messages": [{"role": "user", "content": "Once"}],
}


async def events(router: Running, body: dict[str, Any], **headers: str) -> tuple[int, list[str]]:
    """The status and the data of a stream's events."""
    async with router.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
        lines = [line async for line in answer.aiter_lines()]
    return answer.status_code, [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]


def served_by(router: Running) -> list[str]:
    """The backends by name, as many as there are."""
    return [backend.name for backend in router.settings.backends]


async def test_a_killed_backend_fails_no_request_that_has_not_begun(start: Start) -> None:
    vllms = [Vllm("--tokens-per-second", "400") for _ in range(3)]
    try:
        router = await start(vllms)
        for vllm in vllms:
            vllm.pace(0.01)  # so that all of them are under way at the same time, however slow this machine is
        asked = [asyncio.create_task(router.chat(f"Question {n}", max_tokens=200)) for n in range(24)]
        await router.until(lambda: router.metric("sophia_router_running") == 24)
        assert router.metric("sophia_router_running", backend="vllm-1") > 0
        vllms[1].kill()
        for vllm in (vllms[0], vllms[2]):
            vllm.pace(1)
        later = [asyncio.create_task(router.chat(f"Later {n}", max_tokens=20)) for n in range(12)]
        answers = await asyncio.gather(*asked, *later)
        assert [answer.status_code for answer in answers] == [200] * 36
        assert {answer.headers["x-sophia-backend"] for answer in answers} == {"vllm-0", "vllm-2"}
        assert router.metric("sophia_router_attempts_total", backend="vllm-1", result="lost") > 0
        await router.until(lambda: router.metric("sophia_router_backend_up", backend="vllm-1", state="down") == 0)
        vllms[1].start()
        await router.until(lambda: router.metric("sophia_router_backend_up", backend="vllm-1", state="up") == 1)
        answers = await asyncio.gather(*(router.chat(f"Again {n}") for n in range(24)))
        assert "vllm-1" in {answer.headers["x-sophia-backend"] for answer in answers}
        assert router.metric("sophia_router_outstanding_tokens") == router.metric("sophia_router_running") == 0
    finally:
        for vllm in vllms:
            vllm.kill()


async def test_a_request_waits_for_the_only_backend_to_come_back(start: Start) -> None:
    vllm = Vllm(*QUICK)
    try:
        router = await start([vllm])
        assert (await router.chat()).status_code == 200
        vllm.kill()
        asked = [asyncio.create_task(router.chat(f"Question {number}")) for number in range(4)]
        await router.until(lambda: router.metric("sophia_router_attempts_total", result="refused") > 0)
        vllm.start()
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 4
    finally:
        vllm.kill()


async def test_a_stream_that_is_cut_ends_with_an_error_and_no_end_mark(start: Start, three: list[Vllm]) -> None:
    router = await start(three)
    for fault, code in (("cut:5", "stream_cut"), ("error:5", 500)):
        for vllm in three:
            kind, after = fault.split(":")
            vllm.faults({"match": {"path": "/completions"}, "fault": {"kind": kind, "after": int(after)}})
        status, data = await events(router, STREAM)
        assert status == 200
        assert "[DONE]" not in data
        assert json.loads(data[-1])["error"]["code"] == code
        assert len(data) == 6
    assert router.metric("sophia_router_streams_broken_total", reason="cut") == 1
    assert router.metric("sophia_router_streams_broken_total", reason="error") == 1
    assert router.metric("sophia_router_outstanding_tokens") == 0


async def test_a_stream_that_stalls_is_ended(start: Start, three: list[Vllm]) -> None:
    router = await start(three, idle_timeout=0.3)
    for vllm in three:
        vllm.faults({"match": {"path": "/completions"}, "fault": {"kind": "stall", "after": 3, "seconds": 60}})
    _, data = await events(router, STREAM)
    assert json.loads(data[-1])["error"]["code"] == "stream_stalled"
    for vllm in three:  # the server was told to stop as well
        await router.until(lambda vllm=vllm: vllm.truth()["running"] == 0)


WHOLE = [
    {"kind": "status", "status": 500},
    {"kind": "status", "status": 429},
    {"kind": "reset"},
    {"kind": "cut", "after": 0},
    {"kind": "stall", "after": 0, "seconds": 60},
    {"kind": "slow", "seconds": 60},
]


@pytest.mark.parametrize(
    ("fault", "stream"),
    [*((fault, False) for fault in WHOLE), *((fault, True) for fault in [*WHOLE, {"kind": "error", "after": 0}])],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else f"stream={value}",
)
async def test_what_fails_before_its_first_byte_is_answered_elsewhere(
    start: Start, three: list[Vllm], fault: dict[str, Any], stream: bool
) -> None:
    router = await start(three[:2], head_timeout=1.0, whole_timeout=1.0, idle_timeout=0.5)
    body = STREAM | {"max_tokens": 8, "stream": stream}
    first = await router.client.post("/v1/chat/completions", json=body)
    favourite = served_by(router).index(first.headers["x-sophia-backend"])
    three[favourite].faults({"match": {"path": "/completions"}, "fault": fault})
    second = await router.client.post("/v1/chat/completions", json=body)
    assert second.status_code == 200
    assert second.headers["x-sophia-backend"] == served_by(router)[1 - favourite]
    assert not stream or second.text.endswith("data: [DONE]\n\n")
    assert three[favourite].truth()["running"] == 0


async def test_a_backend_that_fails_although_its_probe_does_not_is_rested(start: Start, three: list[Vllm]) -> None:
    router = await start(three[:2], health=msgspec.structs.replace(HEALTH, cooldown=2.0))
    three[0].faults({"match": {"path": "/completions"}, "fault": {"kind": "status", "status": 500}})
    for number in range(30):
        assert (await router.chat(f"Question {number}")).status_code == 200
    tried = router.metric("sophia_router_attempts_total", backend="vllm-0", result="failed")
    assert 3 <= tried <= 10
    three[0].faults()
    async with asyncio.timeout(60):  # its rest gets longer with every vain try
        number = 0
        while (await router.chat(f"Question {number}")).headers["x-sophia-backend"] != "vllm-0":
            number += 1
            await asyncio.sleep(0.05)


async def test_a_poisonous_request_is_not_passed_from_server_to_server(start: Start, three: list[Vllm]) -> None:
    router = await start(three)
    for vllm in three:
        vllm.faults({"match": {"path": "/completions"}, "fault": {"kind": "reset"}})
    answer = await router.chat()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "backends_failed")
    assert router.metric("sophia_router_attempts_total") == router.settings.attempts == 2


async def test_what_the_server_refuses_goes_back_as_it_is(start: Start, three: list[Vllm]) -> None:
    router = await start(three)
    answer = await router.chat(max_tokens=100_000)
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "BadRequestError"
    assert router.metric("sophia_router_attempts_total", result="client") == 1
    unknown = await router.chat(model="other")
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_client_that_leaves_stops_its_backend(start: Start, parked: Park) -> None:
    slow = parked.take(1, "--tokens-per-second", "20", "--max-num-seqs", "2")
    router = await start(slow, concurrency=2)
    before = slow[0].truth()["aborted"]
    async with router.client.stream("POST", "/v1/chat/completions", json=STREAM) as answer:
        await anext(answer.aiter_bytes())
    with pytest.raises(httpx.ReadTimeout):
        await router.client.post("/v1/chat/completions", json=STREAM | {"stream": False}, timeout=2)
    # two run, the third waits in the router's own queue: nothing of it ever reaches the server
    held = [asyncio.create_task(router.chat(max_tokens=400)) for _ in range(2)]
    await router.until(lambda: slow[0].truth()["running"] == 2)
    with pytest.raises(httpx.ReadTimeout):
        await router.client.post("/v1/chat/completions", json=STREAM, timeout=2)
    for task in held:
        task.cancel()
    await asyncio.gather(*held, return_exceptions=True)
    await router.until(lambda: slow[0].truth() == {"running": 0, "waiting": 0, "aborted": before + 4})
    await router.until(lambda: router.metric("sophia_router_requests_total", status="499") == 5)
    assert router.metric("sophia_router_running") == router.metric("sophia_router_outstanding_tokens") == 0
    assert router.metric("sophia_router_queue_depth") == 0


async def test_the_trace_context_and_the_servers_own_key_are_passed_on(start: Start, tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    writers: list[asyncio.StreamWriter] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := (await reader.readuntil(b"\r\n\r\n")).decode():
                fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                await reader.readexactly(int(fields.get("content-length", "0")))
                if head.startswith("POST"):
                    seen.append(fields)
                body = b'{"object": "list", "data": [{"id": "sophia-local"}]}'
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    key = tmp_path / "vllm.key"
    key.touch(mode=0o600)
    key.write_text("key-of-a-server")
    try:
        router = await start([f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"], key_file=key)
        passed = {
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "tracestate": "a=b",
            "x-request-id": "req-1",
        }
        answer = await router.chat(headers=passed | {"authorization": "Bearer of-the-caller", "x-sophia-tenant": "t"})
        assert answer.headers["x-request-id"] == "req-1"
        (fields,) = seen
        assert passed.items() <= fields.items()
        assert fields["authorization"] == "Bearer key-of-a-server"
        assert "x-sophia-tenant" not in fields
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
