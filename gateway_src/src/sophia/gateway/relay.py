# SPDX-License-Identifier: GPL-3.0-or-later
"""A stream on its way from OpenRouter to the client, with an honest end.

A stream that is cut, stalls, turns malformed or carries an error never looks like a finished answer: the client
gets an error event and no end mark. Until the first piece of content nothing has been passed on, so that another
candidate can still take over (`prime`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import msgspec

from sophia.errors import ApiError, DeadlineExceeded, Upstream
from sophia.gateway.dialects import Dialect, Piece
from sophia.gateway.dialects.base import PieceKind, Usage
from sophia.gateway.faults import Fault, Kind, classify
from sophia.gateway.sse import Event, Parser, encode
from sophia.gateway.upstream import Lost, Reply, Stalled
from sophia.stores.model import Outcome, Tokens

__all__ = ["Broken", "End", "Relay"]

_DONE = b"data: [DONE]\n\n"
_TAIL = 0.25


class Broken(Exception):
    """The stream failed before any content: another candidate may take over. `fault` says how."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


class End(msgspec.Struct, frozen=True):
    """How a stream ended. `cost` None is not confirmed; `reason` is None for a whole answer; `primed` says whether
    anything had been passed on."""

    outcome: Outcome
    reason: str | None
    usage: Usage | None
    generation: str | None
    model: str | None
    provider: str | None
    finish: str | None
    primed: bool

    @property
    def cost(self) -> int | None:
        """What the upstream said it cost (nano-dollars)."""
        return self.usage.cost if self.usage is not None else None

    @property
    def tokens(self) -> Tokens:
        """The token counts, zero where unknown."""
        return self.usage.tokens if self.usage is not None else Tokens()


class Relay:
    """Relays one stream. `ended` is awaited once with how it ended, whatever happens.

    With `include_usage` the usage chunk is passed on as OpenAI sends it on request, with empty choices; else it is
    merged into the chunk that finishes the answer, because clients that did not ask for it index `choices[0]`.
    """

    def __init__(
        self,
        reply: Reply,
        dialect: Dialect,
        model: str,
        ended: Callable[[End], Awaitable[None]],
        *,
        idle: float,
        include_usage: bool,
        keep: bool = False,
    ) -> None:
        self.model = model
        self.generation = reply.header("x-generation-id")
        self.provider: str | None = None
        self.kept: list[bytes] | None = [] if keep else None
        self._reply = reply
        self._dialect = dialect
        self._ended = ended
        self._idle = idle
        self._merges = dialect.api == "chat" and not include_usage
        self._parser = Parser()
        self._chunks = reply.chunks(idle)
        self._ready: list[bytes] = []
        self._held: Event | None = None
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._done = False
        self._failure: str | None = None
        self._fault: Fault | None = None
        self._content = False
        self._closed = False
        self._left = False
        self._expired = False
        self._waiting: asyncio.Task[object] | None = None
        self._settled = False
        self._alive = time.monotonic()

    @property
    def cost(self) -> int | None:
        """What the upstream has said it cost so far (nano-dollars)."""
        return self._usage.cost if self._usage is not None else None

    @property
    def tokens(self) -> Tokens:
        """The token counts so far."""
        return self._usage.tokens if self._usage is not None else Tokens()

    @property
    def whole(self) -> bool:
        """Whether the answer has come to its own end."""
        return self._settled and self._failure is None and self._finish is not None

    @property
    def finish(self) -> str | None:
        """Why the model ended its answer, once it has."""
        return self._finish

    @property
    def failure(self) -> str | None:
        """How the stream broke: cut, stalled, malformed, error, or expired."""
        return self._failure

    async def prime(self) -> None:
        """Read up to the first content.

        Raises:
            Broken: the stream failed before it; it has been settled.
        """
        while not self._content and self._finish is None:
            out = await self._advance()
            if out is None:
                if self._failure is None and self._finish is None:
                    self._failure = "empty"
                if self._failure is not None:
                    await self._close()
                    raise Broken(self._fault or Fault(Kind.FAILED, 502, f"the stream was {self._failure}"))
                break
            if out:
                self._ready.append(out)
            if self._failure is not None:
                await self._close()
                raise Broken(self._fault or Fault(Kind.FAILED, 502, f"the stream was {self._failure}"))

    async def pieces(self) -> AsyncIterator[bytes]:
        """What goes to the client, as it arrives. The last piece is the end mark or an error event."""
        try:
            if self._ready:
                yield b"".join(self._ready)
                self._ready.clear()
            while self._failure is None and not self._done:
                out = await self._advance()
                if out is None:
                    break
                if out:
                    yield out
            if self._left:
                return
            if self._failure is None and self._finish is None:
                self._failure = "cut"
            last = self._last()
            await self._settle()
            yield last
        finally:
            await self._close()

    def leave(self) -> None:
        """The client is gone: end a wait for the next piece, so that upstream stops as well."""
        self._left = True
        if self._waiting is not None:
            self._waiting.cancel()

    def expire(self) -> None:
        """The client's deadline has passed: end the stream, and say so."""
        if not self._settled and self._finish is None and self._failure is None:
            self._expired = True
            self._failure = "expired"
            if self._waiting is not None:
                self._waiting.cancel()

    async def abort(self) -> None:
        """The client is gone: close the upstream connection; what was generated is billed and reconciled."""
        await self._close()

    def _last(self) -> bytes:
        if self._failure is not None:
            return self._dialect.error_event(self.error(), self.model, self.generation or "")
        rest = self._held.raw if self._held is not None else b""
        self._held = None
        if self._dialect.api == "chat":
            rest += _DONE
        return rest

    def error(self) -> ApiError:
        """What the client is told about a broken stream."""
        words = {
            "cut": "The answer was cut off upstream: what has arrived is incomplete.",
            "stalled": f"The model sent nothing for {self._idle:g} s: what has arrived is incomplete.",
            "malformed": "The model's stream became unreadable: what has arrived is incomplete.",
            "error": "The model failed while answering: what has arrived is incomplete.",
        }
        reason = self._failure or "cut"
        if reason == "expired":
            return DeadlineExceeded(
                "deadline_exceeded", "The request's deadline has passed: what has arrived is incomplete."
            )
        return Upstream(f"stream_{reason}", f"{words.get(reason, words['cut'])} Send the request again.")

    async def _advance(self) -> bytes | None:
        """The bytes to pass on from the next chunk; None at the end of the upstream's body."""
        self._waiting = asyncio.current_task()
        try:
            chunk = await anext(self._chunks, None)
        except Stalled:
            self._failure = "stalled"
            return None
        except Lost:
            if not self._done:
                self._failure = "cut"
            return None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not (self._left or self._expired) or task is None or task.uncancel():
                raise
            return None  # it was `leave` or `expire`, which end this wait and not the task
        finally:
            self._waiting = None
        if chunk is None:
            return None
        try:
            events = self._parser.feed(chunk)
            return b"".join([self._take(event) for event in events if self._failure is None])
        except ValueError:
            self._failure = "malformed"
            return None

    def _take(self, event: Event) -> bytes:
        """Note what an event says; the bytes to pass on for it now."""
        if event.data is None:
            return self._comment(event)
        piece = self._dialect.piece(event)
        kind = piece.kind
        if kind is PieceKind.CONTENT:
            self._content = True
            self._alive = time.monotonic()
            if self._held is None and self.kept is None:
                return event.raw
        elif kind is not PieceKind.OTHER:
            self._note(piece)
        if kind is PieceKind.ERROR:
            self._failure = "error"
            self._fault = classify(200, event.data)
            return b""
        if self.kept is not None and kind is not PieceKind.DONE:
            self.kept.append(event.data)
        if kind is PieceKind.DONE:
            self._done = True
            return b"" if self._dialect.api == "chat" else event.raw
        if self._merges:
            return self._merge(event, kind)
        return event.raw

    def _comment(self, event: Event) -> bytes:
        """A keep-alive counts as life only until the answer has begun."""
        if self._content and time.monotonic() - self._alive > self._idle:
            self._failure = "stalled"
        return event.raw

    def _note(self, piece: Piece) -> None:
        self._alive = time.monotonic()
        self.generation = self.generation or piece.generation
        self.model = piece.model or self.model
        self.provider = piece.provider or self.provider
        self._finish = piece.finish or self._finish
        self._usage = piece.usage or self._usage

    def _merge(self, event: Event, kind: PieceKind) -> bytes:
        before, self._held = self._held, None
        if kind is PieceKind.FINISH:
            self._held = event
            return before.raw if before is not None else b""
        if kind is PieceKind.USAGE and before is not None:
            return _with_usage(before, event)
        return (before.raw if before is not None else b"") + event.raw

    async def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._done:
            # The body's end is due at once; with it read, the connection can serve again.
            with suppress(TimeoutError, Lost):
                async with asyncio.timeout(_TAIL):
                    await anext(self._chunks, None)
        await self._reply.close()
        await self._settle()

    async def _settle(self) -> None:
        if self._settled:
            return
        self._settled = True
        if self._failure is not None:
            outcome, reason = Outcome.PARTIAL, self._failure
        elif self._finish is not None:
            outcome, reason = Outcome.COMPLETE, None
        else:
            outcome, reason = Outcome.ABORTED, "aborted"
        primed = self._content or self._finish is not None
        await self._ended(
            End(outcome, reason, self._usage, self.generation, self.model, self.provider, self._finish, primed)
        )


def _with_usage(finish: Event, usage: Event) -> bytes:
    """The finishing chunk with the usage of the chunk that followed it."""
    chunk = msgspec.json.decode(finish.data or b"", type=dict[str, msgspec.Raw])
    chunk["usage"] = msgspec.json.decode(usage.data or b"", type=dict[str, msgspec.Raw])["usage"]
    return encode(msgspec.json.encode(chunk))
