# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as the same answer."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.gateway.same import same, text_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris.", "Paris"),
        ("The capital of France is **Paris**.", "The capital of France is Paris."),
        ("# Answer\n42 km", "Answer\n42 kilometers"),
        ('{"city": "Paris", "n": 1}', '{"n":1,"city":"Paris"}'),
        ('```json\n{"a": [1, 2]}\n```', '{"a": [1,2]}'),
        ("[]", "[ ]"),
        ("It isn't safe.", "It is not safe."),
    ],
)
def test_the_same(one: str, other: str) -> None:
    assert same(one, other)
    assert same(other, one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris.", "Lyon."),
        ("It is safe.", "It is not safe."),
        ("It takes 3 days.", "It takes 4 days."),
        ("It takes 3 days.", "It takes 3 hours."),
        ("Ann owes Bob 5 euros.", "Bob owes Ann 5 euros."),
        ("Prices rise in summer.", "Prices fall in summer."),
        ('{"n": 1}', '{"n": 2}'),
        ('{"n": null}', "{}"),
        ("[1, 2]", "[2, 1]"),
        ('{"n": 1}', "n is 1"),
        ("if (a < b) { run(); }", "if (a <= b) { run(); }"),
        ("Yes", "Yes, but only at night"),
        ("Paris.", "The capital of France is Paris."),
    ],
)
def test_not_the_same(one: str, other: str) -> None:
    assert not same(one, other)
    assert not same(other, one)


@given(st.text(max_size=100))
def test_a_text_is_the_same_as_itself(text: str) -> None:
    assert same(text, text)


@given(st.text(max_size=60), st.text(max_size=60))
def test_sameness_is_mutual(one: str, other: str) -> None:
    assert same(one, other) == same(other, one)


BODIES = {
    "chat": {"choices": [{"message": {"content": "Hello"}}]},
    "messages": {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Hello"}]},
    "responses": {
        "output": [
            {"type": "reasoning"},
            {"type": "message", "content": [{"type": "output_text", "text": "Hello"}]},
        ]
    },
}


@pytest.mark.parametrize("api", BODIES)
def test_the_text_of_an_answer(api: str) -> None:
    assert text_of(api, msgspec.json.encode(BODIES[api])) == "Hello"
    for nothing in (b"", b"{}", b"[]", b'{"choices": [], "content": [], "output": []}'):
        assert text_of(api, nothing) is None
