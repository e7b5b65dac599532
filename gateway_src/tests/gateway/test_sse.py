# SPDX-License-Identifier: GPL-3.0-or-later
"""Server-sent events: however the bytes arrive, the same events come out."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.gateway.sse import Event, Parser, encode

_TEXT = st.text(st.characters(exclude_characters="\r\n", exclude_categories=("Cs",)), max_size=40)


@given(
    events=st.lists(st.tuples(_TEXT, st.none() | st.sampled_from(["ping", "message_start"])), max_size=8),
    cuts=st.lists(st.integers(0, 500), max_size=12),
    breaks=st.sampled_from([b"\n", b"\r\n", b"\r"]),
)
def test_chunking_changes_nothing(events: list[tuple[str, str | None]], cuts: list[int], breaks: bytes) -> None:
    stream = b"".join(encode(data.encode(), name) for data, name in events).replace(b"\n", breaks)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    parser = Parser()
    found: list[Event] = []
    for start, end in itertools.pairwise(edges):
        found += parser.feed(stream[start:end])
    if breaks == b"\r":
        found += parser.feed(b"\n")  # a lone carriage return may be half of a line's end until the next byte
    assert [(event.data, event.name) for event in found] == [(data.encode(), name) for data, name in events]
    assert not parser.unfinished


def test_comments_and_many_lines() -> None:
    parser = Parser()
    (comment, event) = parser.feed(b": OPENROUTER PROCESSING\n\nevent: x\ndata: a\ndata:b\nid: 1\n\n")
    assert comment.data is None
    assert comment.raw == b": OPENROUTER PROCESSING\n\n"
    assert (event.data, event.name) == (b"a\nb", "x")
    assert parser.feed(b"data: half") == []
    assert parser.unfinished


def test_an_event_without_end_is_refused() -> None:
    parser = Parser()
    parser.feed(b"x" * 8 * 1024 * 1024)
    with pytest.raises(ValueError, match="8 MiB"):
        parser.feed(b"x")
