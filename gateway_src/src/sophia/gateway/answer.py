# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answers of all hot routes have in common: their headers, and how a stream is opened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from sophia.gateway.asgi import Headers
from sophia.gateway.exchange import Exchange
from sophia.gateway.pipeline import Journey, Pipeline
from sophia.gateway.plan import Candidate
from sophia.gateway.relay import Relay
from sophia.money import dollars

__all__ = ["SSE", "cache_word", "headers_of", "open_stream"]

SSE: Headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]

_PATIENCE = 10.0
_HEAD_MOMENT = 2.0
_KEEP_ALIVE = b": waiting for the model\n\n"


def headers_of(exchange: Exchange, journey: Journey, kind: Headers, model: str, cache: str) -> Headers:
    """The headers that tell what the gateway did; `kind` is what says of which type the body is."""
    headers = [
        *kind,
        *exchange.headers(
            (b"x-sophia-model", model.encode("latin-1", "replace")),
            (b"x-sophia-cache", cache.encode()),
            (b"x-sophia-reason", journey.plan.reason.encode("latin-1", "replace")),
            (b"x-sophia-overhead-ms", exchange.overhead()),
            *journey.rate_headers,
        ),
    ]
    if exchange.cost is not None:
        headers.append((b"x-sophia-cost", f"{dollars(exchange.cost):f}".encode()))
    return headers


def cache_word(journey: Journey) -> str:
    """What an answer from upstream says of the cache: it was a miss, or the cache was not asked."""
    return "off" if journey.query is None else "miss"


async def open_stream(
    pipeline: Pipeline,
    exchange: Exchange,
    journey: Journey,
    gone: asyncio.Task[None],
    begin: Callable[[str], Awaitable[None]],
) -> Relay | None:
    """The stream, past its first content; None where the client left meanwhile (`gone` is done then).

    Where the first token is long in coming, the head goes out before it by `begin(model)`, and comments keep the
    connection alive. The caller relays the stream and hands it to `pipeline.streamed`.

    Raises:
        ApiError: no candidate gave one.
    """
    opening = asyncio.create_task(pipeline.stream(journey))
    relay: Relay | None = None
    try:
        while not opening.done():
            await asyncio.wait((opening, gone), timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not opening.done():
                return None
            if not opening.done():
                await begin(exchange.model)
                await exchange.send({"type": "http.response.body", "body": _KEEP_ALIVE, "more_body": True})
        relay, candidate = opening.result()
    finally:
        if relay is None:
            await _abandon(pipeline, opening, journey, 0.0 if exchange.stopped else _HEAD_MOMENT)
    exchange.model = candidate.model.id
    exchange.waited = journey.request.waited
    gone.add_done_callback(lambda _: relay.leave())
    return relay


async def _abandon(
    pipeline: Pipeline, opening: asyncio.Task[tuple[Relay, Candidate]], journey: Journey, moment: float
) -> None:
    """Stop opening a stream that nobody waits for; what was sent upstream is settled on the way out.

    It is given a `moment` (s) for the answer's head, which names the generation that will be billed.
    """
    if not opening.done():
        await asyncio.wait((opening,), timeout=moment)
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
    if not opening.cancelled() and opening.exception() is None:
        relay, _ = opening.result()
        await relay.abort()
        await pipeline.streamed(journey, relay)
