# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault as a client sees it that only knows sockets."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from sophia.sandbox.openrouter import INFERENCE_KEY, MANAGEMENT_KEY, Config
from sophia.sandbox.openrouter.errors import VendorError
from sophia.sandbox.openrouter.faults import Fault, parse

from .conftest import QUESTION, Account, Served

LONG = [{"role": "user", "content": "Write 400 words about consensus and its cost."}]


class Raw:
    """What came back over one connection: everything until its end, and whether that was a reset."""

    def __init__(self, data: bytes, *, reset: bool) -> None:
        self.data = data
        self.reset = reset
        head, _, self.body = data.partition(b"\r\n\r\n")
        self.status = int(head.split(b" ")[1]) if head else 0
        self.head = head.lower()

    @property
    def whole(self) -> bool:
        """Whether the answer ended as HTTP says."""
        return self.body.endswith(b"0\r\n\r\n") if b"chunked" in self.head else True

    @property
    def events(self) -> list[str]:
        """The `data:` lines of a stream."""
        return [line[6:] for line in self.body.decode().splitlines() if line.startswith("data: ")]


def send(
    served: Served,
    fault: str | None,
    *,
    method: str = "POST",
    path: str = "/chat/completions",
    key: str = INFERENCE_KEY,
    patience: float = 30.0,
    until: int | None = None,
    **body: Any,
) -> Raw:
    """One request on its own connection, closed at the answer's end, at `until` events, or at the end of patience."""
    if path == "/chat/completions":
        body = {"model": "openai/gpt-4o", "messages": QUESTION} | body
    payload = json.dumps(body).encode()
    lines = [f"{method} /api/v1{path} HTTP/1.1", "Host: sandbox", f"Authorization: Bearer {key}", "Connection: close"]
    lines += [f"Content-Length: {len(payload)}"] + ([f"X-Sandbox-Fault: {fault}"] if fault else [])
    with socket.create_connection(("127.0.0.1", served.port), timeout=patience) as connection:
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + payload)
        data, reset = b"", False
        deadline = time.monotonic() + patience
        try:
            while time.monotonic() < deadline and (part := connection.recv(65536)):
                data += part
                if until is not None and data.count(b"data: ") >= until:
                    break
        except ConnectionResetError:
            reset = True
        except TimeoutError:
            pass
    return Raw(data, reset=reset)


def settled(served: Served, requests: int = 0) -> Any:
    """The truth once nothing is open any more and so many requests have been billed."""
    for _ in range(1000):
        truth = served.truth()
        if not truth["open"] and truth["totals"]["requests"] >= requests:
            return truth
        time.sleep(0.02)
    raise AssertionError("a request stays open")


@pytest.mark.parametrize(
    ("fault", "status", "error_type", "text"),
    [
        ("status:400", 400, "invalid_request", "Invalid request"),
        ("status:400:context_length", 400, "context_length_exceeded", "maximum context length"),
        ("status:401", 401, "authentication", "Missing Authentication"),
        ("status:402", 402, "payment_required", "Insufficient credits"),
        ("status:402:affordability", 402, "payment_required", "can only afford 117"),
        ("status:403", 403, "permission_denied", "management"),
        ("status:403:key_limit", 403, "permission_denied", "Key limit exceeded"),
        ("status:403:moderation", 403, "content_policy_violation", "flagged"),
        ("status:403:guardrail", 403, "permission_denied", "Request blocked"),
        ("status:404", 404, "not_found", "not found"),
        ("status:404:model_deprecated", 404, "not_found", "no longer available"),
        ("status:408", 408, "timeout", "timed out"),
        ("status:409", 409, None, "conflict"),
        ("status:413", 413, "payload_too_large", "too large"),
        ("status:422", 422, "unprocessable", "Invalid argument"),
        ("status:429", 429, "rate_limit_exceeded", "Rate limit exceeded"),
        ("status:429:upstream", 429, "rate_limit_exceeded", "Provider returned error"),
        ("status:500", 500, "server", "Internal Server Error"),
        ("status:502", 502, "provider_unavailable", "Provider returned error"),
        ("status:503", 503, "provider_overloaded", "unavailable"),
        ("status:524", 524, "timeout", "timed out"),
        ("status:529", 529, "provider_overloaded", "Provider returned error"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_status(served: Served, fault: str, status: int, error_type: str | None, text: str, *, stream: bool) -> None:
    answer = send(served, fault, stream=stream)
    assert answer.status == status
    error = json.loads(answer.body)["error"]
    assert error["code"] == status
    assert text.lower() in error["message"].lower()
    assert error.get("metadata", {}).get("error_type") == error_type
    assert b"x-generation-id" in answer.head
    assert settled(served)["totals"]["requests"] == 0


def test_availability_says_whether_to_retry(served: Served) -> None:
    busy = json.loads(send(served, "status:503::3").body)["error"]["availability"]
    gone = json.loads(send(served, "status:404:model_deprecated").body)["error"]["availability"]
    assert (busy["retryable"], busy["retry_after"]) == (True, 3)
    assert gone["retryable"] is False


def test_only_the_platforms_429_has_ratelimit_headers(served: Served) -> None:
    platform, upstream = send(served, "status:429:platform:5"), send(served, "status:429:upstream:5")
    assert b"x-ratelimit-reset" in platform.head
    assert b"x-ratelimit" not in upstream.head
    assert b"retry-after: 5" in platform.head
    assert b"retry-after: 5" in upstream.head
    assert b"x-ratelimit" not in send(served, None).head


def test_error_200(served: Served) -> None:
    plain, stream = send(served, "error_200:502"), send(served, "error_200:502", stream=True)
    assert plain.status == stream.status == 200
    assert json.loads(plain.body)["error"]["code"] == 502
    assert json.loads(stream.events[0])["error"]["code"] == 502
    assert settled(served)["totals"]["cost_nano"] == 0


def test_choice_error(served: Served) -> None:
    body = json.loads(send(served, "choice_error:502").body)
    (choice,) = body["choices"]
    assert choice["finish_reason"] == "error"
    assert choice["error"]["code"] == 502
    assert choice["message"]["content"]
    assert body["usage"]["cost"] == 0 == settled(served)["totals"]["cost_nano"]


def test_midstream_error(served: Served) -> None:
    answer = send(served, "midstream_error:3:503", stream=True)
    assert answer.whole
    assert "[DONE]" not in answer.events
    last = json.loads(answer.events[-1])
    assert last["error"]["code"] == 503
    assert last["choices"][0]["finish_reason"] == "error"
    assert len(answer.events) == 1 + 3 + 1
    assert settled(served)["totals"]["cost_nano"] == 0


def test_cut(served: Served) -> None:
    answer = send(served, "cut:4", stream=True)
    assert not answer.whole
    assert len(answer.events) == 1 + 4
    (generation,) = settled(served)["generations"]
    assert generation["cancelled"] is True
    assert generation["completion_tokens"] == 8
    assert generation["cost_nano"] == generation["prompt_tokens"] * 2500 + 8 * 10_000


def test_cut_before_the_first_token_costs_nothing(served: Served) -> None:
    assert not send(served, "cut:0", stream=True).whole
    (generation,) = settled(served)["generations"]
    assert (generation["cancelled"], generation["cost_nano"]) == (True, 0)


def test_cut_at_a_provider_that_goes_on_is_billed_in_full(served: Served) -> None:
    model = "google/gemini-2.5-flash"
    whole = json.loads(send(served, None, model=model).body)
    send(served, "cut:2", stream=True, model=model)
    first, second = settled(served)["generations"]
    assert second["cancelled"] is True
    assert first["cost_nano"] == second["cost_nano"] > 0
    assert second["completion_tokens"] == whole["usage"]["completion_tokens"]


def test_cut_of_an_answer_that_is_not_streamed(served: Served) -> None:
    answer = send(served, "cut")
    length = int(answer.head.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert 0 < len(answer.body) < length
    assert settled(served)["totals"]["cost_nano"] > 0


def test_stall(served: Served) -> None:
    answer = send(served, "stall:2:300", stream=True, until=3)
    assert len(answer.events) == 1 + 2
    (generation,) = settled(served, 1)["generations"]
    assert (generation["cancelled"], generation["completion_tokens"]) == (True, 4)


def test_stall_that_ends(served: Served) -> None:
    answer = send(served, "stall:2:0.05", stream=True)
    assert answer.whole
    assert answer.events[-1] == "[DONE]"


def test_trickle(served: Served) -> None:
    plain, trickled = send(served, None), send(served, "trickle:0")
    assert json.loads(plain.body)["choices"] == json.loads(trickled.body)["choices"]
    stream = send(served, "trickle:0", stream=True, max_tokens=4)
    assert stream.body.startswith(b"1\r\n:\r\n1\r\n ")


def test_malformed_chunk(served: Served) -> None:
    answer = send(served, "malformed_chunk:1", stream=True)
    assert answer.whole
    broken = []
    for event in answer.events[:-1]:
        try:
            json.loads(event)
        except ValueError:
            broken.append(event)
    assert len(broken) == 1
    with pytest.raises(ValueError, match=r"Expecting|delimiter|Unterminated"):
        json.loads(send(served, "malformed_chunk").body)


def test_slow_headers(served: Served) -> None:
    assert send(served, "slow_headers:300", patience=0.3).data == b""
    assert send(served, "slow_headers:0.01").status == 200


def test_reset_before_and_after(served: Served) -> None:
    before = send(served, "reset")
    assert (before.reset, before.data) == (True, b"")
    assert settled(served)["totals"]["requests"] == 0
    after = send(served, "reset_after_accept")
    assert (after.reset, after.data) == (True, b"")
    truth = settled(served)
    assert truth["totals"]["requests"] == 1
    assert truth["totals"]["cost_nano"] > 0


def test_reset_after_a_key_was_made(served: Served) -> None:
    answer = send(served, "reset_after_accept", path="/keys", key=MANAGEMENT_KEY, name="orphan")
    assert (answer.reset, answer.data) == (True, b"")
    names = [key["name"] for key in json.loads(_keys(served).body)["data"]]
    assert names == ["orphan", "sandbox"]


def test_timeout_after_success(served: Served) -> None:
    assert send(served, "timeout_after_success", patience=0.3).data == b""
    assert settled(served, 1)["totals"]["cost_nano"] > 0


def test_a_client_that_goes_away(running: Served) -> None:
    """A stream is billed until the cancel was noticed, an answer that is not streamed in full."""
    paced = Served(Config(latency_scale=0.2))
    paced.start()
    try:
        send(paced, None, stream=True, until=4, messages=LONG)
        (partial,) = settled(paced, 1)["generations"]
        send(paced, None, patience=0.05, messages=LONG, max_tokens=150)
        full = settled(paced, 2)["generations"][1]
    finally:
        paced.stop()
    whole = json.loads(send(running, None, messages=LONG).body)["usage"]
    assert partial["cancelled"] is True
    assert 0 < partial["completion_tokens"] < whole["completion_tokens"]
    assert (full["cancelled"], full["completion_tokens"]) == (False, 150)


@pytest.mark.parametrize("stream", [False, True])
def test_empty(served: Served, *, stream: bool) -> None:
    answer = send(served, "empty", stream=stream)
    assert answer.status == 200
    if not stream:
        body = json.loads(answer.body)
        assert body["choices"] == []
        assert body["usage"]["completion_tokens"] == 0
    assert settled(served)["totals"]["cost_nano"] == 0


def test_rules_count_and_end(served: Served) -> None:
    served.faults(
        {"match": {"path": "/chat/completions", "every_nth": 3}, "fault": {"kind": "status", "status": 500}},
        {"match": {"model": "openai/gpt-4o-mini", "times": 2}, "fault": {"kind": "status", "status": 429}},
        {"match": {"header": "x-team: a"}, "fault": {"kind": "status", "status": 402}},
    )
    statuses = [send(served, None).status for _ in range(7)]
    assert statuses == [200, 200, 500, 200, 200, 500, 200]
    statuses = [send(served, None, model="openai/gpt-4o-mini").status for _ in range(5)]
    assert statuses == [429, 500, 429, 200, 500]
    served.faults()
    assert [send(served, None).status for _ in range(3)] == [200, 200, 200]


async def test_probability_is_seeded(account: Account) -> None:
    rule = {"match": {"probability": 0.4}, "fault": {"kind": "status", "status": 503}}
    runs = []
    for _ in range(2):
        await account.user.post("http://sandbox/_sandbox/faults", json=[rule])
        runs.append([(await account.chat()).status_code for _ in range(60)])
    assert runs[0] == runs[1]
    assert 10 < runs[0].count(503) < 40


async def test_an_upstream_fault_leads_to_the_fallback_model(account: Account) -> None:
    rule = {"match": {"model": "openai/gpt-4o"}, "fault": {"kind": "status", "status": 503}}
    await account.user.post("http://sandbox/_sandbox/faults", json=[rule])
    answer = await account.chat(model="openai/gpt-4o", models=["deepseek/deepseek-chat-v3.1"])
    assert answer.status_code == 200
    assert answer.json()["model"] == "deepseek/deepseek-chat-v3.1"
    (generation,) = (await account.truth())["generations"]
    assert generation["model"] == "deepseek/deepseek-chat-v3.1"


async def test_a_platform_fault_does_not(account: Account) -> None:
    rule = {"match": {"model": "openai/gpt-4o"}, "fault": {"kind": "status", "status": 402}}
    await account.user.post("http://sandbox/_sandbox/faults", json=[rule])
    answer = await account.chat(model="openai/gpt-4o", models=["deepseek/deepseek-chat-v3.1"])
    assert answer.status_code == 402


def test_header_grammar() -> None:
    assert parse("status:429:upstream:2") == Fault(kind="status", status=429, variant="upstream", retry_after=2)
    assert parse("stall:3:0.5") == Fault(kind="stall", after=3, seconds=0.5)
    assert parse("midstream_error::502") == Fault(kind="midstream_error", status=502)
    for wrong in ("nothing", "status", "status:418", "cut:x", ""):
        with pytest.raises(VendorError) as caught:
            parse(wrong)
        assert caught.value.status == 400


def _keys(served: Served) -> Raw:
    return send(served, None, method="GET", path="/keys", key=MANAGEMENT_KEY)
