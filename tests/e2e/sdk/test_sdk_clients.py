# SPDX-License-Identifier: GPL-3.0-or-later
"""The same behaviour over either upstream client (pyreqwest, aiohttp), where it depends on the client; two key slots.

These gateways wait 1.5 s at most for a head or the next piece, and try once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from tests.e2e.bed import Bed

MODEL = "openai/gpt-4o-mini"
LONG: Any = [{"role": "user", "content": "Tell me about rate limiting in API gateways, in five sentences."}]
Strike = Callable[..., None]


@pytest.fixture(scope="module")
def sdk(brief: Bed, brief_key: str) -> Iterator[OpenAI]:
    with OpenAI(api_key=brief_key, base_url=f"{brief.url}/v1", max_retries=0, timeout=60) as client:
        yield client


def ask(sdk: OpenAI, **fields: Any) -> Any:
    return sdk.chat.completions.create(**{"model": MODEL, "messages": LONG} | fields)


def last_generation(bed: Bed) -> Any:
    return bed.truth()["generations"][-1]


def test_whole_and_stream_agree(sdk: OpenAI) -> None:
    whole = ask(sdk).choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in ask(sdk, stream=True)) == whole != ""


def test_large_answer(sdk: OpenAI) -> None:
    texts = [f"text number {n}" for n in range(200)]
    answer = sdk.embeddings.create(model="openai/text-embedding-3-small", input=texts, encoding_format="float")
    assert len(answer.data) == 200


def test_large_request(sdk: OpenAI) -> None:
    messages = [{"role": "user", "content": "The quick brown fox. " * 40_000}]
    answer = ask(sdk, model="google/gemini-2.5-flash-lite", messages=messages, max_tokens=10)
    assert answer.usage.prompt_tokens > 100_000


def test_many_streams_one_after_the_other(sdk: OpenAI) -> None:
    for _ in range(20):
        assert list(ask(sdk, stream=True, max_tokens=8))[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "reset"},
        {"kind": "reset_after_accept"},
        {"kind": "timeout_after_success"},
        {"kind": "slow_headers", "seconds": 20},
        {"kind": "status", "status": 500},
    ],
    ids=lambda fault: fault["kind"],
)
def test_no_head(sdk: OpenAI, strike_brief: Strike, fault: dict[str, Any], stream: bool) -> None:
    strike_brief(**fault)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(sdk, stream=stream)
    assert caught.value.code == "upstream_failed"


@pytest.mark.parametrize("fault", [{"kind": "cut"}, {"kind": "stall", "seconds": 20}], ids=lambda fault: fault["kind"])
def test_broken_whole_answer(sdk: OpenAI, strike_brief: Strike, fault: dict[str, Any]) -> None:
    strike_brief(**fault)
    with pytest.raises(openai.InternalServerError) as caught:
        ask(sdk)
    assert caught.value.code == "upstream_failed"


@pytest.mark.parametrize(
    ("fault", "code"),
    [({"kind": "cut", "after": 3}, "stream_cut"), ({"kind": "stall", "after": 3, "seconds": 20}, "stream_stalled")],
    ids=["cut", "stall"],
)
def test_broken_stream(
    sdk: OpenAI, brief: Bed, brief_key: str, strike_brief: Strike, fault: dict[str, Any], code: str
) -> None:
    strike_brief(**fault)
    with pytest.raises(openai.APIError, match="incomplete"):
        list(ask(sdk, stream=True))
    headers = {"authorization": f"Bearer {brief_key}"}
    body = {"model": MODEL, "messages": LONG, "stream": True}
    text = httpx.post(f"{brief.url}/v1/chat/completions", json=body, headers=headers, timeout=60).text
    assert "[DONE]" not in text
    assert code in text.rstrip().rpartition("\n\n")[2]


def test_a_trickling_whole_answer_does_not_outlive_its_time(sdk: OpenAI, strike_brief: Strike) -> None:
    strike_brief("trickle", seconds=0.05)
    with pytest.raises(openai.InternalServerError):
        ask(sdk)


def test_the_requests_own_deadline(sdk: OpenAI, strike_brief: Strike) -> None:
    strike_brief("slow_headers", seconds=20)
    started = time.monotonic()
    with pytest.raises(openai.InternalServerError):
        ask(sdk, extra_headers={"x-request-timeout": "0.3"})
    assert time.monotonic() - started < 15


def test_a_client_that_goes_cancels_upstream(sdk: OpenAI, brief: Bed, strike_brief: Strike) -> None:
    strike_brief("trickle", seconds=0.0005)
    stream = ask(sdk, stream=True)
    first = next(chunk for chunk in stream if chunk.choices[0].delta.content)
    stream.close()
    end = time.monotonic() + 30
    while brief.truth(summary=True)["open"] and time.monotonic() < end:
        time.sleep(0.05)
    (generation,) = [each for each in brief.truth()["generations"] if each["id"] == first.id]
    assert generation["cancelled"]
    assert generation["completion_tokens"] < 40


class TestTwoSlots:
    @pytest.fixture
    def keys(self, brief: Bed) -> dict[str, str]:
        """The hashes by name."""
        listed = brief.call("GET", f"{brief.sandbox_url}/api/v1/keys?include_disabled=true", key=brief.management_key)
        return {"secondary" if each["name"] == "secondary" else "primary": each["hash"] for each in listed["data"]}

    @pytest.fixture
    def primary_disabled(self, brief: Bed, keys: dict[str, str]) -> Iterator[None]:
        url = f"{brief.sandbox_url}/api/v1/keys/{keys['primary']}"
        brief.call("PATCH", url, {"disabled": True}, brief.management_key)
        yield
        brief.call("PATCH", url, {"disabled": False}, brief.management_key)
        brief.folder.joinpath("primary.key").touch()  # the gateway reads it again: not the same key, not a rested one

    @pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
    @pytest.mark.usefixtures("primary_disabled")
    def test_the_secondary_answers_within_the_request(
        self, sdk: OpenAI, brief: Bed, keys: dict[str, str], stream: bool
    ) -> None:
        answer = ask(sdk, stream=stream)
        if stream:
            assert "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        else:
            assert answer.choices[0].message.content
        assert last_generation(brief)["key_hash"] == keys["secondary"]

    def test_a_spent_primary_is_relieved_as_well(
        self, sdk: OpenAI, brief: Bed, keys: dict[str, str], strike_brief: Strike
    ) -> None:
        strike_brief("status", status=403, variant="key_limit", match={"key_hash": keys["primary"]})
        assert ask(sdk).choices[0].message.content
        assert last_generation(brief)["key_hash"] == keys["secondary"]


def test_metrics_name_the_loaded_keys_and_nothing_is_left_in_flight(brief: Bed) -> None:
    end = time.monotonic() + 30
    url = f"http://127.0.0.1:{brief.metrics_port}/metrics"
    while time.monotonic() < end:
        text = httpx.get(url, timeout=60).text
        flying = [line for line in text.splitlines() if "in_flight" in line and not line.startswith("#")]
        if flying and all(float(line.rpartition(" ")[2]) == 0 for line in flying):
            break
        time.sleep(0.1)
    else:
        pytest.fail("\n".join(flying))
    assert brief.upstream_key not in text
    assert json.dumps(brief.upstream_key[-20:]) not in text
