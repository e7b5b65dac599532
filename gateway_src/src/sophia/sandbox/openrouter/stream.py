# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending a generation as a stream of events, at the model's pace, with the faults that happen on the way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from . import tokens
from .billing import Bill, Counts
from .drafts import Piece, pieces
from .errors import VendorError
from .faults import Fault
from .inference import Accepted, Platform, fault_error, settle
from .wire import ConnectionGone, Exchange

__all__ = ["KEEP_ALIVE", "Skin", "relay"]

KEEP_ALIVE = b": OPENROUTER PROCESSING\n\n"
DONE = b"data: [DONE]\n\n"
BURST = 8
MIDWAY = frozenset(("cut", "stall", "malformed_chunk", "midstream_error", "choice_error"))


class Skin(Protocol):
    """How one API writes its events."""

    def opening(self) -> bytes:
        """What comes before the first piece."""

    def piece(self, piece: Piece) -> bytes:
        """One part of the answer."""

    def closing(self, bill: Bill) -> bytes:
        """What comes after the last piece; with the usage."""

    def failure(self, error: VendorError) -> bytes:
        """An error in the middle of the stream."""


async def relay(platform: Platform, exchange: Exchange, accepted: Accepted, skin: Skin) -> None:
    """Send the answer and bill it: all of it, or what there was when the client was found gone."""
    sent = _Sent()
    finish: str | None = None
    free = False
    try:
        try:
            finish, free = await _send(platform, exchange, accepted, skin, sent)
        finally:
            exchange.stop_watching()
            if not sent.settled:
                _settle_partial(platform, exchange, accepted, sent, finish=finish, free=free)
    except ConnectionGone:
        return


class _Sent:
    """How far a stream has come."""

    __slots__ = ("lengths", "number", "settled")

    def __init__(self) -> None:
        self.number = 0
        self.lengths: dict[tuple[str, int, int], int] = {}
        self.settled = False

    def add(self, piece: Piece) -> None:
        """Count a piece that went out."""
        self.number += 1
        part = (piece.kind, piece.choice, piece.call)
        self.lengths[part] = self.lengths.get(part, 0) + tokens.size(piece.text)

    def counts(self, whole: Counts) -> Counts:
        """What had been generated when these pieces had gone out."""
        reasoning = completion = 0
        for (kind, _, _), length in self.lengths.items():
            part = -(-length // tokens.TOKEN_BYTES)
            completion += part
            if kind == "reasoning":
                reasoning += part
        return Counts(whole.prompt, completion, whole.cached, whole.written, reasoning, whole.images)


async def _send(
    platform: Platform, exchange: Exchange, accepted: Accepted, skin: Skin, sent: _Sent
) -> tuple[str | None, bool]:
    """Send everything. Returns the finish reason and whether the insurance applies. Raises `ConnectionGone`."""
    fault = exchange.fault
    await exchange.start_stream()
    await exchange.chunk(KEEP_ALIVE)
    await exchange.pause(accepted.seconds_to_first_token * platform.latency_scale)
    if exchange.gone:
        raise ConnectionGone
    if fault is not None and fault.kind == "error_200":
        return await _fail(platform, exchange, accepted, skin, fault)
    await exchange.chunk(skin.opening())
    if fault is not None and fault.kind == "empty":
        _settle_partial(platform, exchange, accepted, sent, finish=None, free=True)
        await exchange.chunk(DONE)
        await exchange.end_stream()
        return None, True
    per_token = accepted.seconds_to_generate(1) * platform.latency_scale
    after = fault.after if fault is not None and fault.kind in MIDWAY else None
    for number, piece in enumerate(_pieces(accepted)):
        if fault is not None and number == after and await _midway(platform, exchange, accepted, skin, fault):
            return "error", True
        # Without a pace, a turn of the event loop for every piece would cost more than the piece.
        if per_token or number % BURST == 0:
            await exchange.pause(per_token * tokens.count(piece.text))
        if exchange.gone:
            raise ConnectionGone
        await exchange.chunk(skin.piece(piece))
        sent.add(piece)
    late = fault is not None and after is not None and sent.number <= after
    if fault is not None and late and await _midway(platform, exchange, accepted, skin, fault):
        return "error", True
    finish = accepted.finish
    sent.settled = True
    bill = settle(platform, exchange, accepted, finish=finish)
    await exchange.chunk(skin.closing(bill))
    await exchange.end_stream()
    return finish, False


async def _midway(platform: Platform, exchange: Exchange, accepted: Accepted, skin: Skin, fault: Fault) -> bool:
    """Let the fault happen, between two pieces or behind the last. True when the stream has ended with it."""
    match fault.kind:
        case "cut":
            await exchange.cut(reset=False)
        case "stall":
            await exchange.pause(fault.seconds)
        case "malformed_chunk":
            await exchange.chunk(b'data: {"id":"' + accepted.id.encode() + b'","choices":[{"index":0,"del\n\n')
        case _:
            await _fail(platform, exchange, accepted, skin, fault)
            return True
    return False


async def _fail(
    platform: Platform, exchange: Exchange, accepted: Accepted, skin: Skin, fault: Fault
) -> tuple[str, bool]:
    error = fault_error(fault, accepted.model, accepted.provider, platform.state.clock())
    await exchange.chunk(skin.failure(error))
    await exchange.end_stream()
    return "error", True


def _settle_partial(
    platform: Platform, exchange: Exchange, accepted: Accepted, sent: _Sent, *, finish: str | None, free: bool
) -> None:
    """Bill a stream that did not come to its end.

    A provider that supports cancelling stops when the client goes, and what it had made by then is billed; another goes
    on and is paid in full. Zero-completion insurance: an error costs nothing, nor do no tokens without a finish.
    """
    sent.settled = True
    whole = not accepted.candidate.endpoint.supports_cancel and not free
    counts = accepted.counts if whole else sent.counts(accepted.counts)
    unused = counts.completion == 0 and finish is None
    settle(
        platform,
        exchange,
        accepted,
        counts=counts,
        cancelled=not free,
        finish=accepted.finish if whole else finish,
        free=free or unused,
    )


def _pieces(accepted: Accepted) -> Iterator[Piece]:
    for choice, made in enumerate(accepted.drafts):
        yield from pieces(made, choice)
