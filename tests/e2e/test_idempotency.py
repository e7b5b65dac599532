# SPDX-License-Identifier: GPL-3.0-or-later
"""A client's retry with its `Idempotency-Key` is neither run nor billed twice; across SIGKILL and replicas as well."""

from __future__ import annotations

import concurrent.futures
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.bed import Bed
from tests.e2e.conftest import account
from tests.e2e.test_replicas import replicas

SEA = [{"role": "user", "content": "Tell me about the sea."}]
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "openai/gpt-4o-mini", "messages": SEA},
    "/v1/chat": {"message": "Tell me about the sea.", "conversation": "new"},
    "/v1/responses": {"model": "openai/gpt-4o-mini", "input": "Tell me about the sea."},
    "/v1/messages": {"model": "anthropic/claude-haiku-4.5", "messages": SEA, "max_tokens": 100},
    "/v1/embeddings": {"model": "openai/text-embedding-3-small", "input": "The sea."},
}
CHAT = "/v1/chat/completions"
STREAMS = [path for path in ROUTES if path != "/v1/embeddings"]


@pytest.fixture(scope="module")
def bed(open_bed: Callable[..., Bed]) -> Bed:
    return open_bed("idempotency", idempotency={"max_answer": 20_000})


@pytest.fixture(scope="module")
def key(bed: Bed) -> str:
    return bed.tenant("retrying")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Bed]:
    """A bed to kill; at the end its ledger must equal what was billed."""
    bed = Bed(tmp_path, upstream={"settled_after": 12.0})
    try:
        bed.start_sandbox("--generation-delay", "9")  # longer than a start takes
        bed.start_gateway()
        yield bed
        assert account(bed) == []
    finally:
        bed.close()


def post(bed: Bed, key: str, name: str | None, path: str = CHAT, **more: Any) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"} | more.pop("headers", {})
    if name is not None:
        headers["idempotency-key"] = name
    return httpx.post(f"{bed.url}{path}", json=ROUTES[path] | more, headers=headers, timeout=60)


def code(answer: httpx.Response) -> str:
    found: str = answer.json()["error"]["code"]
    return found


def generations(bed: Bed) -> int:
    return len(bed.truth()["generations"])


def struck(bed: Bed) -> bool:
    """Whether the fault has met a request: it is at the upstream."""
    rules = bed.call("GET", f"{bed.sandbox_url}/_sandbox/faults")["data"]
    return bool(rules[0]["struck"])


def until(good: Callable[[], Any], seconds: float = 30) -> Any:
    """What `good` gives once it gives something."""
    end = time.monotonic() + seconds
    while not (found := good()):
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.02)
    return found


@pytest.mark.parametrize("path", ROUTES)
def test_the_answer_is_given_again(bed: Bed, key: str, path: str) -> None:
    before = generations(bed)
    first = post(bed, key, f"again {path}", path)
    assert first.status_code == 200, first.text
    assert "idempotent-replayed" not in first.headers
    second = post(bed, key, f'"again {path}"', path)  # the draft's own form is the same key
    assert second.status_code == 200
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["x-sophia-original-request"] == first.headers["x-request-id"]
    assert second.headers["x-sophia-model"] == first.headers["x-sophia-model"]
    assert second.headers["x-sophia-cost"] == "0"
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert generations(bed) == before + 1


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_is_given_again_as_a_stream(bed: Bed, key: str, path: str) -> None:
    before = generations(bed)
    first, second = (post(bed, key, f"stream {path}", path, stream=True) for _ in range(2))
    assert first.headers["content-type"] == second.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" not in second.headers
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"
    assert generations(bed) == before + 1


def test_without_the_header_nothing_is_remembered(bed: Bed, key: str) -> None:
    before = generations(bed)
    assert {post(bed, key, None).status_code for _ in range(2)} == {200}
    assert generations(bed) == before + 2


def test_a_key_stands_for_one_request(bed: Bed, key: str) -> None:
    assert post(bed, key, "one request").status_code == 200
    for other in (
        post(bed, key, "one request", temperature=0.5),
        post(bed, key, "one request", "/v1/responses"),
    ):
        assert (other.status_code, code(other)) == (422, "idempotency_key_reused")
        assert other.headers["x-should-retry"] == "false"


def test_keys_of_others_are_other_keys(bed: Bed, key: str) -> None:
    before = generations(bed)
    other = bed.tenant("others")
    first, second = post(bed, key, "same"), post(bed, other, "same")
    assert first.json()["id"] != second.json()["id"]
    assert "idempotent-replayed" not in second.headers
    assert post(bed, other, "same", temperature=0.7).status_code == 422
    assert generations(bed) == before + 2


@pytest.mark.parametrize("name", ["", '""', "x" * 256])
def test_a_key_that_is_none(bed: Bed, key: str, name: str) -> None:
    answer = post(bed, key, name)
    assert (answer.status_code, code(answer)) == (400, "invalid_idempotency_key")


def test_a_retry_meets_the_first_still_running(bed: Bed, key: str) -> None:
    before = generations(bed)
    bed.faults([{"match": {"times": 1}, "fault": {"kind": "slow_headers", "seconds": 1.5}}])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        running = pool.submit(post, bed, key, "slow")
        until(lambda: struck(bed))
        meeting = post(bed, key, "slow")
        assert code(meeting) == "idempotency_in_progress"
        assert int(meeting.headers["retry-after"]) >= 1
        assert "x-should-retry" not in meeting.headers
        first = running.result()
    assert first.status_code == 200
    assert post(bed, key, "slow").content == first.content
    assert generations(bed) == before + 1


def test_openai_s_client_that_gives_up_and_tries_again(bed: Bed, key: str) -> None:
    before = generations(bed)
    bed.faults([{"match": {"times": 1}, "fault": {"kind": "slow_headers", "seconds": 1.5}}])
    client = openai.OpenAI(base_url=f"{bed.url}/v1", api_key=key, max_retries=6)
    raw = client.with_options(timeout=httpx.Timeout(60, read=0.7)).chat.completions.with_raw_response.create(
        model="openai/gpt-4o-mini",
        messages=SEA,  # type: ignore[arg-type]
        extra_headers={"idempotency-key": "sdk", "x-request-timeout": "60"},
    )
    assert raw.headers["idempotent-replayed"] == "true"
    assert raw.parse().choices[0].message.content
    assert generations(bed) == before + 1


def test_a_client_that_leaves_finds_the_whole_answer(bed: Bed, key: str) -> None:
    before = generations(bed)
    bed.faults([{"match": {"times": 1}, "fault": {"kind": "trickle", "seconds": 0.0005}}])
    headers = {"authorization": f"Bearer {key}", "idempotency-key": "left"}
    body = ROUTES[CHAT] | {"stream": True}
    with httpx.stream("POST", f"{bed.url}{CHAT}", json=body, headers=headers, timeout=60) as answer:
        begun = next(answer.iter_bytes())
    found = until(lambda: (answer := post(bed, key, "left", stream=True)).status_code == 200 and answer)
    assert found.headers["idempotent-replayed"] == "true"
    assert found.content.startswith(begun)
    assert found.content.endswith(b"data: [DONE]\n\n")
    assert generations(bed) == before + 1


@pytest.mark.parametrize("status", [429, 502])
def test_what_failed_at_no_cost_runs_again(bed: Bed, key: str, status: int) -> None:
    name = f"failing {status}"
    bed.faults([{"fault": {"kind": "status", "status": status, "retry_after": 30}}])
    assert post(bed, key, name).status_code == status
    bed.faults([])
    # A 502 that names a generation may have been billed: it is asked for first.
    answer = until(lambda: (answer := post(bed, key, name)).status_code != 409 and answer)
    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers


def test_what_never_went_upstream_runs_again(bed: Bed, key: str) -> None:
    assert post(bed, key, "wrong", model="nobody/nothing").status_code == 404
    assert post(bed, key, "wrong").status_code == 200


def test_what_failed_and_cost_is_told_again(bed: Bed, key: str) -> None:
    before = generations(bed)
    bed.faults([{"match": {"times": 1}, "fault": {"kind": "cut", "after": 3}}])
    first = post(bed, key, "cut", stream=True)
    assert b"stream_cut" in first.content

    def settled() -> httpx.Response | None:
        answer = post(bed, key, "cut", stream=True)
        if answer.status_code == 200:
            return answer
        assert (answer.status_code, code(answer)) == (409, "idempotency_unsettled")
        return None

    second = until(settled)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.content == first.content
    assert generations(bed) == before + 1


def test_answers_that_are_not_kept(bed: Bed, key: str) -> None:
    before = generations(bed)
    private = bed.tenant("private")
    organization = next(each["id"] for each in bed.admin("GET", "/organizations")["data"] if each["name"] == "private")
    bed.admin("PATCH", f"/organizations/{organization}", {"zero_data_retention": True})
    for who, name, more in (
        (private, "zdr", {}),
        (key, "no store", {"headers": {"cache-control": "no-store"}}),
        (key, "large", {"model": "openai/text-embedding-3-small", "input": ["a", "b", "c", "d"], "path": "/v1/embeddings"}),
    ):
        first = post(bed, who, name, **more)  # type: ignore[arg-type]
        assert first.status_code == 200, first.text
        second = post(bed, who, name, **more)  # type: ignore[arg-type]
        assert (second.status_code, code(second)) == (409, "idempotency_not_kept")
        assert second.headers["x-should-retry"] == "false"
    assert generations(bed) == before + 3
    with sqlite3.connect(bed.folder / "state" / "gateway.db") as database:
        rows = database.execute("SELECT state, answer FROM idempotency WHERE organization = ?", (organization,))
        assert rows.fetchall() == [("done", None)]


def test_a_purge_takes_kept_answers(bed: Bed) -> None:
    purged = bed.tenant("purged")
    organization = next(each["id"] for each in bed.admin("GET", "/organizations")["data"] if each["name"] == "purged")
    assert post(bed, purged, "gone").status_code == 200
    bed.admin("POST", "/cache/purge", {"organization": organization})
    answer = post(bed, purged, "gone")
    assert (answer.status_code, code(answer)) == (409, "idempotency_not_kept")


def test_answers_outlive_the_process(own: Bed) -> None:
    key = own.tenant("outliving")
    first = post(own, key, "kept", stream=True)
    own.kill_gateway()
    own.start_gateway()
    second = post(own, key, "kept", stream=True)
    assert second.headers["idempotent-replayed"] == "true"
    assert second.content == first.content
    assert generations(own) == 1


def killed_meanwhile(bed: Bed, key: str, fault: dict[str, Any], pause: float = 0.0) -> None:
    """Kill the gateway while a request with the key `killed` waits for an upstream that has its request."""
    bed.faults([{"match": {"times": 1}, "fault": fault}])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        lost = pool.submit(post, bed, key, "killed")
        until(lambda: struck(bed))
        time.sleep(pause)
        bed.kill_gateway()
        assert isinstance(lost.exception(), httpx.TransportError)
    bed.start_gateway()


def settle(bed: Bed, key: str) -> tuple[httpx.Response, set[str]]:
    """The first answer to the retry that does not say to come again, and the codes of those that did."""
    seen: set[str] = set()

    def answer() -> httpx.Response | None:
        found = post(bed, key, "killed")
        if found.status_code == 409 and "retry-after" in found.headers:
            seen.add(code(found))
            return None
        return found

    return until(answer, 60), seen


def test_a_request_that_was_killed_and_billed_is_not_run_again(own: Bed) -> None:
    key = own.tenant("killed")
    # The model answers, and bills, whatever becomes of the connection.
    killed_meanwhile(own, key, {"kind": "timeout_after_success", "seconds": 30})
    found, before = settle(own, key)
    assert before == {"idempotency_unsettled"}
    assert (found.status_code, code(found)) == (409, "idempotency_answer_lost")
    assert found.headers["x-should-retry"] == "false"
    billed = own.truth()["generations"]
    assert len(billed) == 1
    assert billed[0]["cost_nano"] > 0
    assert "$" in found.json()["error"]["message"]
    assert post(own, key, "another").status_code == 200
    assert code(post(own, key, "killed")) == "idempotency_answer_lost"


def test_a_request_that_was_killed_and_not_billed_runs(own: Bed) -> None:
    key = own.tenant("free")
    # It was refused, and waits to try again; half a second later the journal says so.
    killed_meanwhile(own, key, {"kind": "status", "status": 429, "retry_after": 8}, pause=0.5)
    found = post(own, key, "killed")
    assert found.status_code == 200
    assert "idempotent-replayed" not in found.headers
    assert len([each for each in own.truth()["generations"] if each["cost_nano"]]) == 1
    assert post(own, key, "killed").content == found.content


def test_two_replicas_run_it_once(tmp_path: Path) -> None:
    with replicas(tmp_path) as (one, two):
        key = one.tenant("both")
        until(lambda: post(two, key, None, max_tokens=5).status_code == 200)
        before = generations(one)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda number: post((one, two)[number % 2], key, "storm"), range(16)))
        good = [answer for answer in answers if answer.status_code == 200]
        assert good
        assert len({answer.content for answer in good}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in good) == 1
        assert {code(answer) for answer in answers if answer not in good} <= {"idempotency_in_progress"}
        assert post(two, key, "storm").content == post(one, key, "storm").content == good[0].content
        assert generations(one) == before + 1
        # One dies with its request; the other cannot know what it spent until one's journal has been read.
        one.faults([{"match": {"times": 1}, "fault": {"kind": "timeout_after_success", "seconds": 30}}])
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            pool.submit(post, one, key, "killed")
            until(lambda: generations(one) == before + 2)
            one.kill_gateway()
        assert code(post(two, key, "killed")) == "idempotency_in_progress"
        one.start_gateway()
        found, _ = settle(two, key)
        assert (found.status_code, code(found)) == (409, "idempotency_answer_lost")
        assert generations(one) == before + 2
