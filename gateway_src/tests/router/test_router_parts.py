# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request asks for, a backend's condition, and the pace of work."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.errors import BadRequest
from sophia.fairness.pace import Pace
from sophia.router.ask import Ask, read
from sophia.router.condition import Condition


def ask(**body: Any) -> Ask:
    return read("/v1/chat/completions", msgspec.json.encode({"model": "m"} | body), output=512, leading=1024)


def turns(*texts: str) -> list[dict[str, str]]:
    roles = ["system", *["user", "assistant"] * len(texts)]
    return [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]


texts = st.text(min_size=1, max_size=200)


@given(texts, texts, texts, texts)
@settings(deadline=None)
def test_all_turns_of_a_conversation_have_one_key(system: str, question: str, answer: str, more: str) -> None:
    first = ask(messages=turns(system, question))
    assert ask(messages=turns(system, question, answer, more)).key == first.key
    assert ask(messages=turns(system, question + "?")).key != first.key
    assert ask(messages=turns(system, question), model="other").key != first.key


def test_conversations_over_one_long_document_share_a_key_and_short_ones_do_not() -> None:
    document = "All of it is said here. " * 100
    assert ask(messages=turns(document, "one")).key == ask(messages=turns(document, "two")).key
    assert ask(messages=turns("brief", "one")).key != ask(messages=turns("brief", "two")).key


def test_a_client_may_name_its_prefix_itself() -> None:
    one, two = (
        ask(messages=turns("s", "one"), prompt_cache_key="k"),
        ask(messages=turns("s", "two"), prompt_cache_key="k"),
    )
    assert one.key == two.key


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({}, 512),
        ({"max_tokens": 10}, 10),
        ({"max_tokens": 10, "max_completion_tokens": 20}, 20),
        ({"max_tokens": 10, "n": 3}, 30),
        ({"max_tokens": None, "n": None}, 512),
    ],
)
def test_the_output_is_what_the_request_allows(body: dict[str, Any], output: int) -> None:
    assert ask(messages=turns("s", "q"), **body).output == output


def test_an_images_bytes_are_not_its_tokens() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}
    content = [{"type": "text", "text": "What is this?"}, image]
    assert ask(messages=[{"role": "user", "content": content}]).prompt < 2000
    assert ask(messages=[{"role": "user", "content": "x" * 4000}]).prompt == pytest.approx(1000, abs=10)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"model": ""}', b'{"model": "m", "max_tokens": "x"}', b"\xff"])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest):
        read("/v1/chat/completions", body, output=1, leading=1)


def test_embeddings_have_neither_output_nor_prefix() -> None:
    read_back = read("/v1/embeddings", b'{"model": "m", "input": ["a b c d"], "stream": true}', output=512, leading=99)
    assert (read_back.output, read_back.key, read_back.stream) == (0, None, False)


def condition() -> Condition:
    made = Condition(fall=2, failures=3, window=10.0, cooldown=5.0, trial=60.0)
    assert made.state(0.0) == "unknown"
    made.probed(True)
    return made


def test_probes_take_a_backend_out_and_back() -> None:
    one = condition()
    one.probed(False)
    assert one.usable(0.0)
    one.probed(False)
    assert one.state(0.0) == "down"
    one.probed(True)
    assert one.usable(0.0)


def test_a_refused_connection_takes_it_out_until_a_probe_succeeds() -> None:
    one = condition()
    one.sent(0.0)
    one.refused()
    assert one.state(0.0) == "down"
    one.probed(True)
    assert one.usable(0.0)


def test_failures_that_probes_do_not_see_open_the_breaker_and_one_request_tries_it() -> None:
    one = condition()
    for _ in range(3):
        one.sent(1.0)
        one.failed(1.0)
        one.probed(True)
    assert one.state(1.0) == "resting"
    assert one.usable(6.1)
    one.sent(6.1)
    assert not one.usable(6.1), "only one request tries"
    one.undecided()
    assert one.usable(6.1)
    one.sent(6.2)
    one.succeeded(6.3)
    assert one.usable(6.3)


@given(st.floats(10.0, 10_000.0), st.integers(1, 50), st.lists(st.integers(1, 5000), min_size=1, max_size=200))
@settings(deadline=None)
def test_the_pace_is_that_of_the_work(rate: float, places: int, costs: list[int]) -> None:
    pace = Pace()
    assert pace.seconds(1, places) is None
    for cost in costs:
        pace.note(cost, cost / rate)
    assert pace.seconds(10_000, places) == pytest.approx(10_000 / rate / places)
    assert pace.seconds(10_000, 0) is None


def test_the_pace_follows_what_has_changed() -> None:
    pace = Pace(memory=10)
    for _ in range(100):
        pace.note(100, 1.0)
    for _ in range(50):
        pace.note(100, 4.0)
    assert pace.seconds(100, 1) == pytest.approx(4.0, rel=0.02)
