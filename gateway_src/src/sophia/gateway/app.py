# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's ASGI application: the hot routes without a framework, the management API mounted beside them.

Every error is caught here, once, and answered as the client of that API expects it: OpenAI's envelope, Anthropic's
for `/v1/messages`, and for OpenRouter's own SDK the envelope with OpenRouter's numeric `code`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from sophia.errors import ApiError, BadRequest, Forbidden, NotFound, Unauthorized
from sophia.gateway.answer import SSE, cache_word, headers_of, open_stream
from sophia.gateway.asgi import (
    App,
    Receive,
    Scope,
    Send,
    deadline_of,
    disconnected,
    header,
    is_batch,
    is_final,
    read_body,
    respond,
    start,
)
from sophia.gateway.cache import CacheControls, Hit, replay
from sophia.gateway.chat import ChatApi
from sophia.gateway.dialects import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, Dialect
from sophia.gateway.exchange import Exchange
from sophia.gateway.idempotency import Idempotency
from sophia.gateway.listing import Listing
from sophia.gateway.metrics import Metrics
from sophia.gateway.pipeline import Journey, Pipeline
from sophia.gateway.relay import Relay
from sophia.gateway.running import Running, stopped
from sophia.gateway.trace import Tracer
from sophia.logs import AccessLog
from sophia.stores.model import Principal
from sophia.stores.registry import digest
from sophia.stores.tenancy import Tenancy

__all__ = ["Gateway"]

_LOG = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")

Handler = Callable[[Exchange], Awaitable[None]]


class Gateway:
    """Routes, authentication, the edge where errors become answers."""

    def __init__(
        self,
        *,
        tenancy: Tenancy,
        pipeline: Pipeline,
        chat: ChatApi,
        idempotency: Idempotency,
        running: Running,
        listing: Listing,
        admin: App,
        metrics: Metrics,
        tracer: Tracer,
        access: AccessLog,
        ready: Callable[[], Awaitable[dict[str, str]]],
        draining: Callable[[], bool],
        max_body: int,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._tenancy = tenancy
        self._pipeline = pipeline
        self._chat = chat
        self._idempotency = idempotency
        self._running = running
        self._listing = listing
        self._admin = admin
        self._metrics = metrics
        self._tracer = tracer
        self._access = access
        self._ready = ready
        self._draining = draining
        self._max_body = max_body
        self._clock = clock
        self._posts: dict[str, tuple[Handler, Dialect]] = {
            "/v1/chat/completions": (self._complete, CHAT),
            "/v1/responses": (self._complete, RESPONSES),
            "/v1/messages": (self._complete, MESSAGES),
            "/v1/embeddings": (self._complete, EMBEDDINGS),
            "/v1/chat": (self._own_chat, CHAT),
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http":
            return
        path: str = scope["path"]
        if path.startswith("/admin/"):
            await self._admin(scope, receive, send)
            return
        exchange = Exchange(
            scope, receive, self._closing(send) if self._draining() else send, self._tracer.begin(scope)
        )
        if path.startswith("/health/"):
            await self._health(exchange, path)
            return
        self._metrics.in_flight += 1
        try:
            await self._route(exchange, path)
        except ApiError as error:
            await self._answer_error(exchange, error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not exchange.stopped or task is None or task.uncancel():
                raise
            await self._answer_error(exchange, stopped())
        except Exception:
            _LOG.exception("request failed", extra={"request": exchange.identity})
            await self._answer_error(
                exchange, ApiError("internal_error", "The gateway failed; the request's identifier helps to find why.")
            )
        finally:
            self._running.leave(exchange)
            self._metrics.in_flight -= 1
            self._finish(exchange)
            if exchange.recording is not None:
                await exchange.recording.finish()

    async def _route(self, exchange: Exchange, path: str) -> None:
        method: str = exchange.scope["method"]
        found = self._posts.get(path)
        if found is not None:
            handler, exchange.dialect = found
            if method != "POST":
                raise _method_not_allowed(path, "POST")
            await handler(exchange)
        elif path == "/v1/models" or path.startswith("/v1/models/"):
            if method != "GET":
                raise _method_not_allowed(path, "GET")
            await self._models(exchange, path)
        else:
            if path.startswith("/v1/messages/"):
                exchange.dialect = MESSAGES
            raise NotFound("unknown_path", f"There is no {path} here; the API starts at /v1 (see /admin/v1/docs).")

    def _authenticate(self, exchange: Exchange, scope: str) -> Principal:
        """Whom the key speaks for.

        Raises:
            Unauthorized: no key, or not a good one.
            Forbidden: the key lacks the scope.
        """
        begun = time.perf_counter()
        key = header(exchange.scope, b"authorization")
        if key is not None and key[:7].lower() == "bearer ":
            key = key[7:].strip()
        else:
            key = header(exchange.scope, b"x-api-key")
        if not key:
            raise Unauthorized("missing_key", "Send your key as Authorization: Bearer <key>.")
        exchange.key = digest(key)
        principal = self._tenancy.by_key(exchange.key)
        if principal is None:
            raise Unauthorized("invalid_key", "This key is not known here; ask your administrator for one.")
        if principal.disabled:
            raise Forbidden("key_disabled", "This key, or the user, team or organisation it belongs to, is disabled.")
        if principal.expires_at is not None and principal.expires_at <= self._clock():
            raise Unauthorized("key_expired", "This key has expired; ask your administrator for a new one.")
        if scope not in principal.scopes:
            raise Forbidden("scope_missing", f"This key may not do this: it lacks the scope {scope!r}.")
        exchange.principal = principal
        self._running.enter(exchange)
        self._metrics.stage("auth", time.perf_counter() - begun)
        return principal

    async def _prepare(self, exchange: Exchange, body: bytes) -> Journey:
        """Everything up to the plan, for the hot routes."""
        principal = exchange.principal
        assert principal is not None  # noqa: S101 - _authenticate comes first on every route
        begun = time.perf_counter()
        call = exchange.dialect.read(body)
        self._metrics.stage("read", time.perf_counter() - begun)
        scope = exchange.scope
        return await self._pipeline.prepare(
            principal,
            exchange.dialect,
            call,
            exchange.identity,
            exchange.received,
            CacheControls.parse(scope["headers"]),
            self._tracer.outgoing(exchange.span),
            deadline_of(scope),
            is_final(scope),
            is_batch(scope),
        )

    async def _complete(self, exchange: Exchange) -> None:
        """Chat completions, responses, messages, embeddings."""
        self._authenticate(exchange, "embeddings" if exchange.dialect is EMBEDDINGS else "chat")
        body = await read_body(exchange.scope, exchange.receive, self._max_body)
        journey = await self._prepare(exchange, body)
        exchange.model = journey.plan.candidates[0].model.id
        if await self._idempotency.replayed(exchange, body, journey.rate_headers):
            return
        hit = await self._pipeline.lookup(journey)
        if hit is not None:
            await self._serve_hit(exchange, journey, hit)
        elif journey.request.call.stream:
            await self._stream(exchange, journey)
        else:
            await self._whole(exchange, journey)

    async def _whole(self, exchange: Exchange, journey: Journey) -> None:
        request = journey.request
        try:
            delivered = await self._pipeline.whole(journey)
        finally:
            exchange.waited = request.waited
        exchange.model = delivered.candidate.model.id
        exchange.cost = delivered.cost
        exchange.status = 200
        exchange.started = True
        model = delivered.result.model or exchange.model
        headers = headers_of(exchange, journey, [_JSON], model, cache_word(journey))
        if delivered.generation is not None:
            headers.append((b"x-generation-id", delivered.generation.encode("latin-1", "replace")))
        await respond(exchange.send, 200, headers, delivered.body)

    async def _stream(self, exchange: Exchange, journey: Journey) -> None:
        gone = asyncio.create_task(disconnected(exchange.receive))

        async def begin(model: str) -> None:
            await self._begin_stream(exchange, journey, model)

        try:
            relay = await open_stream(self._pipeline, exchange, journey, gone, begin)
            if relay is not None:
                await self._relay(exchange, journey, relay, gone)
        finally:
            gone.cancel()

    async def _relay(self, exchange: Exchange, journey: Journey, relay: Relay, gone: asyncio.Task[None]) -> None:
        pieces = relay.pieces()
        try:
            await self._begin_stream(exchange, journey, relay.model)
            send = exchange.send
            async for piece in pieces:
                if gone.done():
                    break
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if relay.failure is not None:
                exchange.code = relay.error().code
            await send({"type": "http.response.body", "body": b""})
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
            await relay.abort()
            exchange.cost = relay.cost
            await self._pipeline.streamed(journey, relay)

    async def _begin_stream(self, exchange: Exchange, journey: Journey, model: str) -> None:
        if exchange.started:
            return
        exchange.started = True
        exchange.status = 200
        await start(exchange.send, 200, headers_of(exchange, journey, SSE, model, cache_word(journey)))

    async def _serve_hit(self, exchange: Exchange, journey: Journey, hit: Hit) -> None:
        exchange.cost = 0
        exchange.status = 200
        exchange.started = True
        call = journey.request.call
        headers = headers_of(exchange, journey, SSE if call.stream else [_JSON], hit.answer.model, hit.kind)
        headers.append((b"age", b"%d" % (hit.age // 1_000_000_000)))
        if not call.stream:
            await respond(exchange.send, 200, headers, hit.answer.body)
            return
        await start(exchange.send, 200, headers)
        body = b"".join(replay(exchange.dialect.api, hit.answer, include_usage=call.include_usage))
        await exchange.send({"type": "http.response.body", "body": body})

    async def _own_chat(self, exchange: Exchange) -> None:
        """The plan's own `POST /v1/chat`."""
        principal = self._authenticate(exchange, "chat")
        body = await read_body(exchange.scope, exchange.receive, self._max_body)
        await self._chat.serve(exchange, principal, body)

    async def _models(self, exchange: Exchange, path: str) -> None:
        principal = self._authenticate(exchange, "models")
        body = self._listing.render(principal, path.removeprefix("/v1/models").removeprefix("/"))
        exchange.status = 200
        exchange.started = True
        await respond(exchange.send, 200, exchange.headers(_JSON), body)

    async def _health(self, exchange: Exchange, path: str) -> None:
        """`/health/live`: the process runs. `/health/ready`: its stores answer and it is not draining."""
        if path == "/health/live":
            await respond(exchange.send, 200, exchange.headers(_JSON), b'{"status":"live"}')
            return
        if path != "/health/ready":
            await self._answer_error(exchange, NotFound("unknown_path", f"There is no {path} here."))
            return
        problems = await self._ready()
        if self._draining():
            problems["draining"] = "this process is about to stop"
        status = {"status": "ready" if not problems else "not ready", "problems": problems}
        await respond(exchange.send, 503 if problems else 200, exchange.headers(_JSON), msgspec.json.encode(status))

    async def _answer_error(self, exchange: Exchange, error: ApiError) -> None:
        self._running.leave(exchange)
        self._metrics.refused(error.code)
        exchange.code = error.code
        body = _error_body(exchange, error)
        if exchange.started:
            event = exchange.dialect.error_event(error, exchange.model, "")
            await exchange.send({"type": "http.response.body", "body": event})
            return
        exchange.status = error.status
        headers = exchange.headers(_JSON, *error.headers)
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, -(-error.retry_after // 1))))
        if error.status == 405:
            headers.append((b"allow", b"GET" if exchange.scope["path"].startswith("/v1/models") else b"POST"))
        if isinstance(error, Unauthorized):
            headers.append((b"www-authenticate", b"Bearer"))
        await respond(exchange.send, error.status, headers, body)

    def _finish(self, exchange: Exchange) -> None:
        principal = exchange.principal
        tenant = (principal.organization_name or principal.organization) if principal is not None else "-"
        seconds = time.monotonic() - exchange.received
        self._metrics.request(exchange.model, exchange.status, tenant, seconds)
        if exchange.span.recording is not None:
            self._trace(exchange)
        if self._access.enabled:
            self._access.write(
                request=exchange.identity,
                path=exchange.scope["path"],
                status=exchange.status,
                organization=principal.organization if principal is not None else None,
                key=principal.key if principal is not None else None,
                model=exchange.model,
                cost_nano=exchange.cost,
                ms=round(seconds * 1000, 3),
                upstream_ms=round(exchange.waited * 1000, 3),
            )

    def _trace(self, exchange: Exchange) -> None:
        principal = exchange.principal
        self._tracer.end(
            exchange.span,
            {
                "gen_ai.operation.name": exchange.dialect.api,
                "gen_ai.provider.name": "openrouter",
                "gen_ai.request.model": exchange.model,
                "http.response.status_code": exchange.status,
                "sophia.organization": principal.organization if principal is not None else None,
                "sophia.request": exchange.identity,
                "sophia.cost_nano_dollars": exchange.cost,
            },
            exchange.code,
        )

    @staticmethod
    def _closing(send: Send) -> Send:
        """While draining, every answer ends its connection, so that the client's next request goes elsewhere."""

        async def closing(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        return closing


def _error_body(exchange: Exchange, error: ApiError) -> bytes:
    agent = header(exchange.scope, b"user-agent") or ""
    if "openrouter" in agent.lower():
        return msgspec.json.encode(
            {"error": {"code": error.status, "message": error.message, "metadata": {"error_type": error.code}}}
        )
    return exchange.dialect.error(error)


def _method_not_allowed(path: str, method: str) -> ApiError:
    return BadRequest("method_not_allowed", f"{path} answers {method} only.", status=405)
