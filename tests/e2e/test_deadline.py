# SPDX-License-Identifier: GPL-3.0-or-later
"""A client's deadline holds for everything that is done for it, and is nobody else's concern."""

from __future__ import annotations

import concurrent.futures
import sqlite3
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.bed import Bed

MODEL = "openai/gpt-4o-mini"
LATE = 10.0
"""What may pass on two noisy cores where half a second was given and thirty would be taken."""

_FED = 0.4
"""The ledger's table is fed every tenth of a second."""


@pytest.fixture(scope="module")
def bed(open_bed: Callable[..., Bed]) -> Bed:
    return open_bed("deadline", dispatch={"breaker_failures": 3})


@pytest.fixture(scope="module")
def key(bed: Bed) -> str:
    return bed.tenant("hurried")


@pytest.fixture(autouse=True)
def calm(bed: Bed) -> Iterator[None]:
    yield
    bed.faults([])


def ask(bed: Bed, key: str, headers: dict[str, str], **more: Any) -> tuple[httpx.Response, float]:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me about the sea."}]} | more
    began = time.monotonic()
    answer = httpx.post(f"{bed.url}/v1/chat/completions", json=body, headers=headers | {"authorization": f"Bearer {key}"}, timeout=60)
    return answer, time.monotonic() - began


def attempts(bed: Bed) -> int:
    with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
        found: int = database.execute("SELECT count(*) FROM spend").fetchone()[0]
        return found


@pytest.mark.parametrize("header", ["x-request-timeout", "x-stainless-timeout", "x-stainless-read-timeout"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "slow_headers", "seconds": 30},
        {"kind": "stall", "after": 0, "seconds": 30},
        {"kind": "trickle", "seconds": 0.05},
    ],
    ids=lambda fault: fault["kind"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_it_ends_what_is_too_slow(bed: Bed, key: str, header: str, fault: dict[str, Any], stream: bool) -> None:
    bed.faults([{"fault": fault}])
    answer, seconds = ask(bed, key, {header: "0.5"}, stream=stream)
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert answer.json()["error"]["type"] == "timeout_error"
    assert seconds < LATE
    end = time.monotonic() + 10
    while bed.truth(summary=True)["open"]:  # the upstream is told to stop
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_stream_ends_with_the_client_s_own_deadline_and_says_so(bed: Bed, key: str) -> None:
    bed.faults([{"fault": {"kind": "stall", "after": 3, "seconds": 30}}])
    answer, seconds = ask(bed, key, {"x-request-timeout": "0.7"}, stream=True)
    assert answer.status_code == 200
    assert b'"error_type":"deadline_exceeded"' in answer.content.splitlines()[-2]
    assert b"[DONE]" not in answer.content
    assert seconds < LATE


def test_a_stream_goes_on_beyond_what_an_sdk_waits_for_its_first_token(bed: Bed, key: str) -> None:
    bed.faults([{"fault": {"kind": "stall", "after": 3, "seconds": 1.5}}])
    answer, seconds = ask(bed, key, {"x-stainless-read-timeout": "1"}, stream=True)
    assert answer.content.endswith(b"data: [DONE]\n\n")
    assert seconds > 1


def test_openai_s_client_is_not_outlived_by_its_request(bed: Bed, key: str) -> None:
    bed.faults([{"fault": {"kind": "slow_headers", "seconds": 30}}])
    client = openai.OpenAI(base_url=f"{bed.url}/v1", api_key=key, max_retries=0, timeout=0.5)
    with pytest.raises((openai.APITimeoutError, openai.InternalServerError)):
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi."}])
    end = time.monotonic() + LATE
    while bed.truth(summary=True)["open"]:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_attempts_and_pauses_stay_within_it(bed: Bed, key: str) -> None:
    bed.faults([{"fault": {"kind": "status", "status": 429, "retry_after": 9}}])
    answer, seconds = ask(bed, key, {"x-request-timeout": "6"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "upstream_rate_limited")
    assert seconds < 6  # a pause that does not fit is not begun


def test_waiting_for_another_s_answer_stays_within_it(bed: Bed, key: str) -> None:
    bed.faults([{"match": {"times": 1}, "fault": {"kind": "slow_headers", "seconds": 12}}])
    same = {"temperature": 0, "messages": [{"role": "user", "content": "The same question."}]}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(ask, bed, key, {}, **same)
        end = time.monotonic() + 10
        while not bed.call("GET", f"{bed.sandbox_url}/_sandbox/faults")["data"][0]["struck"]:
            assert time.monotonic() < end
        time.sleep(_FED)
        before = attempts(bed)
        answer, seconds = ask(bed, key, {"x-request-timeout": "0.5"}, **same)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
        assert seconds < LATE
        time.sleep(_FED)
        assert attempts(bed) == before
        assert first.result()[0].status_code == 200


def test_short_deadlines_do_not_make_a_model_look_ill(bed: Bed, key: str) -> None:
    bed.faults([{"fault": {"kind": "slow_headers", "seconds": 30}}])
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: ask(bed, key, {"x-request-timeout": "0.3"})[0].status_code, range(8)))
    assert answers == [504] * 8
    assert "sophia_breaker_open{" not in httpx.get(f"http://127.0.0.1:{bed.metrics_port}/metrics", timeout=30).text
    bed.faults([])
    assert ask(bed, key, {})[0].status_code == 200


def test_what_cannot_answer_in_time_is_not_asked(bed: Bed, key: str) -> None:
    model = "anthropic/claude-haiku-4.5"
    bed.faults([{"match": {"model": model}, "fault": {"kind": "slow_headers", "seconds": 3}}])
    assert ask(bed, key, {}, model=model, max_tokens=20)[0].headers["x-sophia-model"] == model
    # One of its fallbacks may be in time, and is.
    answer, _ = ask(bed, key, {"x-request-timeout": "1.4"}, model=model, max_tokens=20)
    assert (answer.status_code, answer.headers["x-sophia-model"] == model) == (200, False)
    # An embedding has none.
    bed.faults([{"fault": {"kind": "slow_headers", "seconds": 3}}])
    url, headers = f"{bed.url}/v1/embeddings", {"authorization": f"Bearer {key}"}
    body = {"model": "openai/text-embedding-3-small", "input": "The sea."}
    assert httpx.post(url, json=body, headers=headers, timeout=60).status_code == 200
    time.sleep(_FED)
    before = attempts(bed)
    late = httpx.post(url, json=body, headers=headers | {"x-request-timeout": "1.4"}, timeout=60)
    assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
    time.sleep(_FED)
    assert attempts(bed) == before


def test_a_deadline_that_is_none(bed: Bed, key: str) -> None:
    answer, _ = ask(bed, key, {"x-request-timeout": "soon"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-request-timeout")


@pytest.mark.parametrize("value", ["NOT_GIVEN", "None", "0", "nan"])
def test_what_an_sdk_says_may_be_anything(bed: Bed, key: str, value: str) -> None:
    assert ask(bed, key, {"x-stainless-timeout": value, "x-stainless-read-timeout": "600"})[0].status_code == 200
