# SPDX-License-Identifier: GPL-3.0-or-later
"""The room where a client's retry is told from a new request (`Idempotency-Key`, draft-ietf-httpapi-idempotency-key-
header-07; what it leaves open is done as Stripe's API does it).

A key belongs to the API key that it came with, for the retention's time. Its first request holds it, and its answer is
recorded on the way out, before the client has its end. What another request with the same key meets::

    another body or path     422  idempotency_key_reused
    the first still runs     409  idempotency_in_progress   come again after `retry-after`
    the first has its answer      that answer, with ``idempotent-replayed: true``
    it failed, at no cost         the key is free: this request runs
    it failed, and cost           its error, as it was
    its cost is not known    409  idempotency_unsettled     come again: reconciliation will tell which of these it is
    its process was killed        as above, by the ledger: the key is free, unsettled, or
                             409  idempotency_answer_lost   billed, and nobody has the answer
    its answer is not kept   409  idempotency_not_kept      zero data retention, `no-store`, or too large

A request that holds a key goes on when its client leaves, so that the retry finds the answer; except where the answer
is not kept. The database must answer: without it nothing is sent (503).
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import NoReturn

import msgspec

from sophia.errors import BadRequest, Conflict, Unavailable
from sophia.gateway.asgi import Headers, Message, Send, header, respond, start
from sophia.gateway.exchange import Exchange
from sophia.gateway.ledger import Ledger
from sophia.gateway.metrics import Metrics
from sophia.money import show
from sophia.settings import IdempotencySettings
from sophia.stores.idempotency import Claim, IdempotencyStore, Kept, Record
from sophia.stores.ledger import LedgerStore
from sophia.stores.model import Principal

__all__ = ["Idempotency", "Recording"]

_LOG = logging.getLogger(__name__)

_NAME = b"idempotency-key"
_KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
_SOON = 1.0
_UNSETTLED = 5.0
_TRIES = 60
_OF_THE_ATTEMPT = frozenset({b"connection", b"content-length", b"x-request-id", b"x-sophia-cost"})
_FINAL = ((b"x-should-retry", b"false"),)  # OpenAI's and Anthropic's SDKs would repeat a 409 by themselves

_pack = msgspec.msgpack.Encoder().encode


class Idempotency:
    """Keys, who holds them, and their answers. `instance` names this process, as in the ledger.

    `clock` gives nanoseconds since the epoch.
    """

    def __init__(
        self,
        store: IdempotencyStore,
        ledger: Ledger,
        spend: LedgerStore,
        metrics: Metrics,
        settings: IdempotencySettings,
        instance: str,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._spend = spend
        self._metrics = metrics
        self.max_answer = settings.max_answer
        self._retention = int(settings.retention * 1e9)
        self._instance = instance
        self._clock = clock
        self._running: set[tuple[bytes, int]] = set()
        self._late: set[asyncio.Task[None]] = set()

    async def replayed(self, exchange: Exchange, body: bytes, rate_headers: Sequence[tuple[bytes, bytes]]) -> bool:
        """Whether the request has been answered from here. If not, it is to be run; where it holds a key from here on,
        its answer is recorded.

        Raises:
            ApiError: it must not be run (see this module's table).
        """
        name = header(exchange.scope, _NAME)
        if name is None:
            return False
        principal = exchange.principal
        assert principal is not None  # noqa: S101 - authenticated on every route that comes here
        claim = self._claim(exchange, principal, name, body)
        # Known before it is in the database, where others of this process see it at once.
        self._running.add((claim.key, claim.at))
        holds = False
        try:
            kept = await self._take(claim, principal)
            holds = kept is None
        finally:
            if not holds:
                self._running.discard((claim.key, claim.at))
        if kept is None:
            self._metrics.idempotency("first")
            exchange.recording = Recording(self, exchange, claim, keep=_may_keep(exchange, principal))
            return False
        self._metrics.idempotency("replayed")
        await _replay(exchange, kept[0], kept[1], rate_headers)
        return True

    def _claim(self, exchange: Exchange, principal: Principal, name: str, body: bytes) -> Claim:
        now = self._clock()
        path: str = exchange.scope["path"]
        key = sha256(_pack((principal.key, _read(name)))).digest()
        while (key, now) in self._running:  # together they name the request
            now += 1
        return Claim(
            key=key,
            organization=principal.organization,
            owner=principal.key,
            fingerprint=sha256(_pack((path, body))).digest(),
            request=exchange.identity,
            instance=self._instance,
            at=now,
            expires=now + self._retention,
        )

    async def _take(self, claim: Claim, principal: Principal) -> tuple[str, Kept] | None:
        """None where the claim holds the key now, else the first request's identifier and its answer."""
        while True:
            found = await self._store.take(claim)
            if found is None:
                return None
            first = found.claim
            if first.organization != claim.organization or first.fingerprint != claim.fingerprint:
                self._refuse("reused", 422, "was sent before with another request; use a new key for each request")
            if found.state == "done":
                return first.request, self._answer(found, principal)
            if found.state == "running" and await self._runs(first):
                self._refuse("in_progress", 409, "came with a request that is still running; wait for it", wait=_SOON)
            cost, settled = await self._cost(first)
            if cost and found.state == "failed":
                return first.request, self._answer(found, principal)
            if cost:
                self._refuse(
                    "lost",
                    409,
                    f"came with the request {first.request}, which was carried out and cost {show(cost)}, but its "
                    "answer was lost when the gateway was stopped; with a new key it is run and billed again",
                )
            if not settled:
                self._refuse(
                    "unsettled",
                    409,
                    f"came with the request {first.request}, which ended without an answer, and what it cost is not "
                    "known yet; until it is, it is not run again",
                    wait=_UNSETTLED,
                )
            if await self._store.take_over(claim, first):
                return None

    async def _runs(self, first: Claim) -> bool:
        """Whether a request that is noted as running may be."""
        if first.instance == self._instance:
            return (first.key, first.at) in self._running
        return await self._store.lives(first.instance)

    async def _cost(self, first: Claim) -> tuple[int, bool]:
        """What a request that is over has cost so far (nano-dollars), and whether that is all."""
        await self._ledger.flush()
        return await self._spend.of_request(first.organization, first.owner, first.request, first.at)

    def _answer(self, found: Record, principal: Principal) -> Kept:
        if found.answer is None or principal.zero_data_retention:
            self._refuse(
                "not_kept",
                409,
                f"came with the request {found.claim.request}, which was carried out, and its answer was not kept; "
                "with a new key it is run and billed again",
            )
        return found.answer

    def _refuse(self, result: str, status: int, words: str, *, wait: float | None = None) -> NoReturn:
        self._metrics.idempotency(result)
        code = {"reused": "key_reused", "lost": "answer_lost"}.get(result, result)
        kind = BadRequest if status == 422 else Conflict
        error = kind(f"idempotency_{code}", f"This Idempotency-Key {words}.", status=status, retry_after=wait)
        error.headers = () if wait is not None else _FINAL
        raise error

    async def ended(self, claim: Claim, *, failed: bool, answer: Kept | None) -> None:
        """The request that holds the key is over; its key is free again where it has failed at no cost."""
        try:
            await self._end(claim, failed, answer)
        except Unavailable:
            task = asyncio.create_task(self._end_later(claim, failed, answer))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return
        except BaseException:
            self._running.discard((claim.key, claim.at))
            raise
        self._running.discard((claim.key, claim.at))

    async def _end(self, claim: Claim, failed: bool, answer: Kept | None) -> None:
        if not failed:
            await self._store.finish(claim, "done", answer)
        elif await self._cost(claim) == (0, True):
            await self._store.release(claim)
        else:
            await self._store.finish(claim, "failed", answer)

    async def _end_later(self, claim: Claim, failed: bool, answer: Kept | None) -> None:
        """Until the database answers again, the key is held as if the request were running."""
        try:
            for _ in range(_TRIES):
                await asyncio.sleep(1.0)
                try:
                    await self._end(claim, failed, answer)
                    return
                except Unavailable as error:
                    reason = error.message
            _LOG.warning("answer not kept for its idempotency key", extra={"request": claim.request, "reason": reason})
        finally:
            self._running.discard((claim.key, claim.at))

    async def expire(self) -> None:
        """Delete keys past their time.

        Raises:
            Unavailable: the database does not answer.
        """
        await self._store.expire(self._clock())

    async def close(self) -> None:
        """Give up on what the database has not taken; the ledger still knows what it cost."""
        for task in self._late:
            task.cancel()
        await asyncio.gather(*self._late, return_exceptions=True)


class Recording:
    """The answer of a request that holds a key, noted as it goes out; `finish` is called whatever happens."""

    def __init__(self, room: Idempotency, exchange: Exchange, claim: Claim, *, keep: bool) -> None:
        self._room = room
        self._exchange = exchange
        self._claim = claim
        self._send: Send = exchange.send
        self._body: bytearray | None = bytearray() if keep else None
        self._status = 0
        self._headers: Headers = []
        self._whole = False
        self._finished = False
        exchange.send = self._note
        if keep:
            exchange.receive = _never

    async def _note(self, message: Message) -> None:
        """Pass a message on; the last one only when the answer is kept."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = message["headers"]
        else:
            if self._body is not None:
                self._body += message.get("body", b"")
                if len(self._body) > self._room.max_answer:
                    self._body = None
            if not message.get("more_body"):
                self._whole = True
                await self.finish()
        await self._send(message)

    async def finish(self) -> None:
        """The exchange is over; nothing happens when it is said again."""
        if self._finished:
            return
        self._finished = True
        answer = None
        if self._whole and self._body is not None:
            headers = tuple((name, value) for name, value in self._headers if _is_kept(name))
            answer = Kept(self._status, headers, bytes(self._body))
        failed = not self._whole or self._exchange.code is not None
        await self._room.ended(self._claim, failed=failed, answer=answer)


async def _replay(exchange: Exchange, first: str, kept: Kept, rate_headers: Sequence[tuple[bytes, bytes]]) -> None:
    headers = [
        *kept.headers,
        *exchange.headers(
            (b"idempotent-replayed", b"true"),
            (b"x-sophia-original-request", first.encode()),
            (b"x-sophia-cost", b"0"),
            (b"x-sophia-overhead-ms", exchange.overhead()),
            *rate_headers,
        ),
    ]
    if kept.status >= 400:
        headers += _FINAL
    exchange.cost = 0
    exchange.status = kept.status
    exchange.started = True
    if any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in kept.headers):
        await start(exchange.send, kept.status, headers)
        await exchange.send({"type": "http.response.body", "body": kept.body})
    else:
        await respond(exchange.send, kept.status, headers, kept.body)


def _read(value: str) -> str:
    """The key itself: the draft makes it a quoted string (RFC 9651, 3.3.3), most clients send it bare."""
    name = value.strip()
    if len(name) >= 2 and name[0] == name[-1] == '"':
        name = name[1:-1]
    if _KEY.fullmatch(name) is None:
        raise BadRequest(
            "invalid_idempotency_key",
            "The header Idempotency-Key must have 1 to 255 printable ASCII characters, as a UUID has.",
            param="Idempotency-Key",
        )
    return name


def _may_keep(exchange: Exchange, principal: Principal) -> bool:
    """Whether the answer may be kept: not for tenants under zero data retention, nor against RFC 9111, 5.2.1.5."""
    control = header(exchange.scope, b"cache-control") or ""
    directives = {directive.strip().lower() for directive in control.split(",")}
    return not principal.zero_data_retention and "no-store" not in directives


def _is_kept(name: bytes) -> bool:
    return name not in _OF_THE_ATTEMPT and not name.startswith((b"x-ratelimit-", b"x-sophia-overhead"))


async def _never() -> Message:
    """What a request receives whose client may leave: nothing more."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")
