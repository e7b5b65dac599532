# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream on its way to the client, whatever its chunks and its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.gateway.upstream import Lost, Stalled
from sophia.router.relay import Broken, Relay, used_tokens

DONE = b"data: [DONE]\n\n"
EVENTS = [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % number for number in range(6)]
EVENTS.append(b'data: {"choices":[],"usage":{"total_tokens":42}}\n\n')
WHOLE = b"".join([*EVENTS, DONE])

cuts = st.lists(st.integers(0, len(WHOLE)), max_size=12)


class Reply:
    """An answer that arrives in these chunks; `failure` comes after the last."""

    status = 200

    def __init__(self, chunks: list[bytes], failure: Exception | None = None) -> None:
        self._chunks = chunks
        self._failure = failure
        self.closed = 0

    def header(self, name: str) -> str | None:
        return None

    async def read(self, limit: int) -> bytes:
        raise NotImplementedError

    async def chunks(self, idle: float) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._failure is not None:
            raise self._failure

    async def close(self) -> None:
        self.closed += 1


class Progress:
    def __init__(self) -> None:
        self.starts = self.tokens = 0

    def begun(self) -> None:
        self.starts += 1

    def made(self, tokens: int) -> None:
        self.tokens += tokens


def parts(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place for place in places if place < len(data))})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


def relay(reply: Reply) -> tuple[bytes, list[tuple[str, int | None]], Progress]:
    """What the client gets, how the stream ended, and what was told meanwhile."""
    ends: list[tuple[str, int | None]] = []
    progress = Progress()

    async def run() -> bytes:
        made = Relay(reply, 1.0, progress, lambda ending, used: ends.append((ending, used)))
        await made.prime()
        return b"".join([piece async for piece in made.pieces()])

    return asyncio.run(run()), ends, progress


@given(cuts)
@settings(deadline=None)
def test_a_whole_stream_passes_unchanged_however_it_is_cut_into_chunks(places: list[int]) -> None:
    reply = Reply(parts(WHOLE, places))
    got, ends, progress = relay(reply)
    assert got == WHOLE
    assert ends == [("ok", 42)]
    assert (progress.starts, progress.tokens) == (1, len(EVENTS))
    assert reply.closed == 1


@given(st.integers(len(EVENTS[0]), len(WHOLE) - 1), cuts, st.sampled_from([None, Lost("x"), Stalled("x")]))
@settings(deadline=None)
def test_a_stream_that_ends_early_has_an_error_and_no_end_mark(
    end: int, places: list[int], failure: Exception | None
) -> None:
    got, ends, _ = relay(Reply(parts(WHOLE[:end], places), failure))
    ending = "stalled" if isinstance(failure, Stalled) else "cut"
    assert [each[0] for each in ends] == [ending]
    *events, last, rest = got.split(b"\n\n")
    assert rest == b""
    assert b"".join(event + b"\n\n" for event in events) == b"".join(EVENTS[: len(events)])
    assert msgspec.json.decode(last.removeprefix(b"data: "))["error"]["code"] == f"stream_{ending}"
    assert b"[DONE]" not in got


def test_an_unreadable_event_ends_the_stream_after_what_could_be_read() -> None:
    got, ends, _ = relay(Reply([EVENTS[0], EVENTS[1] + b"data: nonsense\n\n" + EVENTS[2], DONE]))
    assert got.startswith(EVENTS[0] + EVENTS[1])
    assert EVENTS[2] not in got
    assert b"stream_malformed" in got
    assert ends == [("malformed", None)]


def test_an_error_event_is_passed_on_and_the_end_mark_after_it_is_not() -> None:
    error = b'data: {"error": {"message": "no", "code": 500}}\n\n'
    got, ends, _ = relay(Reply([EVENTS[0], error + DONE]))
    assert got == EVENTS[0] + error
    assert ends == [("error", None)]


@pytest.mark.parametrize(
    "chunks",
    [[], [b"data: {"], [b'data: {"error": {}}\n\n'], [b"data: x\n\n"], [EVENTS[0] + b'data: {"error": {}}\n\n']],
)
def test_what_breaks_before_its_first_piece_is_not_begun(chunks: list[bytes]) -> None:
    reply = Reply(chunks)
    ends: list[str] = []

    async def run() -> None:
        await Relay(reply, 1.0, Progress(), lambda ending, used: ends.append(ending)).prime()

    with pytest.raises(Broken):
        asyncio.run(run())
    assert len(ends) == reply.closed == 1


@pytest.mark.parametrize(
    ("data", "tokens"),
    [(b"{}", None), (b'{"usage":null}', None), (b'{"usage":{"total_tokens":7}}', 7), (b'{"usage":', None)],
)
def test_usage_is_read_where_there_is_any(data: bytes, tokens: int | None) -> None:
    assert used_tokens(data) == tokens
