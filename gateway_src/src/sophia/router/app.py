# SPDX-License-Identifier: GPL-3.0-or-later
"""The router's ASGI application: routes, and the edge where every error becomes an answer in OpenAI's envelope."""

from __future__ import annotations

import asyncio
import hmac
import logging
import math
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from sophia.errors import ApiError, BadRequest, NotFound, Unauthorized
from sophia.gateway.asgi import (
    Headers,
    Receive,
    Scope,
    Send,
    deadline_of,
    disconnected,
    header,
    read_body,
    respond,
    start,
)
from sophia.gateway.sse import encode
from sophia.logs import AccessLog
from sophia.router.ask import Route, read
from sophia.router.dispatch import Answer, Caller, Dispatcher
from sophia.router.fleet import Fleet
from sophia.router.metrics import Metrics
from sophia.router.settings import Settings

__all__ = ["Router"]

_LOG = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")
_ROUTES: dict[str, Route] = {
    "/v1/chat/completions": "/v1/chat/completions",
    "/v1/completions": "/v1/completions",
    "/v1/embeddings": "/v1/embeddings",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_TENANT = re.compile(r"[A-Za-z0-9._:@/\-]{1,128}")
_PASSED = (b"traceparent", b"tracestate", b"accept", b"user-agent")
_LEFT = 499  # nginx's status for a client that went away; only in metrics and logs


@dataclass(slots=True)
class _Exchange:
    """What the edge notes of a request while it is served."""

    scope: Scope
    receive: Receive
    send: Send
    identity: str
    arrived: float = field(default_factory=time.monotonic)
    model: str = "-"
    tenant: str = "-"
    placement: str = "none"
    backend: str = "-"
    cost: int = 0
    status: int = 0
    code: str | None = None
    first: float | None = None
    started: bool = False
    over: bool = False


class Router:
    """Routes, and who may use them. `settings` and `key` may be replaced between two requests."""

    def __init__(
        self,
        settings: Settings,
        key: str | None,
        fleet: Fleet,
        dispatcher: Dispatcher,
        metrics: Metrics,
        access: AccessLog,
        draining: Callable[[], bool],
    ) -> None:
        self.settings = settings
        self.key = key
        self._fleet = fleet
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._access = access
        self._draining = draining

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] != "http":
            return
        exchange = _Exchange(scope, receive, send, _identity(scope))
        path: str = scope["path"]
        if path.startswith("/health/"):
            await self._health(exchange, path)
            return
        try:
            await self._route(exchange, path)
        except ApiError as error:
            await self._refuse(exchange, error)
        except Exception:
            _LOG.exception("request failed", extra={"request": exchange.identity})
            text = "The router failed; the request's identifier helps to find why."
            await self._refuse(exchange, ApiError("internal_error", text))
        finally:
            self._finish(exchange)

    async def _route(self, exchange: _Exchange, path: str) -> None:
        method: str = exchange.scope["method"]
        route = _ROUTES.get(path)
        if route is None and path != "/v1/models":
            raise NotFound("unknown_path", f"There is no {path} here; the API starts at /v1.")
        wanted = "GET" if route is None else "POST"
        if method != wanted:
            raise BadRequest("method_not_allowed", f"{path} takes {wanted} only.", status=405)
        self._authenticate(exchange)
        if route is None:
            await self._models(exchange)
        else:
            await self._complete(exchange, route)

    def _authenticate(self, exchange: _Exchange) -> None:
        if self.key is None:
            return
        scheme, _, given = (header(exchange.scope, b"authorization") or "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.key.encode()):
            raise Unauthorized("invalid_key", "Send the router's key as Authorization: Bearer <key>.")

    async def _complete(self, exchange: _Exchange, route: Route) -> None:
        """Answer a request; when its client goes away, its task is cancelled wherever it stands."""
        body = await read_body(exchange.scope, exchange.receive, self.settings.max_body)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a server runs every request in a task
        gone = asyncio.create_task(disconnected(exchange.receive))
        gone.add_done_callback(lambda done: None if exchange.over or done.cancelled() else task.cancel())
        try:
            await self._answer(exchange, route, body)
        except asyncio.CancelledError:
            if not gone.done() or gone.cancelled() or task.uncancel():
                raise
            exchange.status = _LEFT
        finally:
            exchange.over = True
            gone.cancel()

    async def _answer(self, exchange: _Exchange, route: Route, body: bytes) -> None:
        affinity = self.settings.affinity
        ask = read(route, body, output=self.settings.queue.output, leading=affinity.leading)
        if not affinity.enabled:
            ask = msgspec.structs.replace(ask, key=None)
        exchange.model = ask.model if self._fleet.known(ask.model) else "-"
        exchange.cost = ask.cost
        caller = self._caller(exchange)
        exchange.tenant = caller.tenant
        answer = await self._dispatcher.answer(ask, caller)
        exchange.placement, exchange.backend = answer.placement, answer.backend
        exchange.first = time.monotonic() - exchange.arrived
        self._metrics.first_token(exchange.model, answer.placement, exchange.first)
        await self._deliver(exchange, answer)

    async def _deliver(self, exchange: _Exchange, answer: Answer) -> None:
        headers: Headers = [
            (b"content-type", answer.content_type.encode("latin-1")),
            (b"x-sophia-placement", answer.placement.encode()),
            (b"x-sophia-backend", answer.backend.encode("latin-1", "replace")),
            *self._common(exchange),
        ]
        exchange.status = answer.status
        exchange.started = True
        if answer.relay is None:
            exchange.over = True
            await respond(exchange.send, answer.status, headers, answer.body)
            return
        pieces = answer.relay.pieces()
        try:
            await start(exchange.send, answer.status, [*headers, (b"cache-control", b"no-cache")])
            async for piece in pieces:
                await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
            exchange.over = True
            await exchange.send({"type": "http.response.body", "body": b""})
        finally:
            await pieces.aclose()  # type: ignore[attr-defined]
            await answer.relay.close()

    def _caller(self, exchange: _Exchange) -> Caller:
        """Who asks, by the headers that the gateway sets.

        Raises:
            BadRequest: a header that says nothing we know.
        """
        scope = exchange.scope
        tenant = header(scope, b"x-sophia-tenant") or "anonymous"
        if _TENANT.fullmatch(tenant) is None:
            raise BadRequest("invalid_value", "x-sophia-tenant: at most 128 letters, digits and ._:@/-")
        policy = header(scope, b"x-sophia-overflow")
        if policy not in (None, "allow", "never"):
            raise BadRequest("invalid_value", "x-sophia-overflow: must be allow or never")
        overflow = self.settings.overflow
        unmarked = overflow is not None and overflow.unmarked
        returned = header(scope, b"x-sophia-overflowed") is not None  # the gateway sent it back here: not once more
        seconds = deadline_of(scope)
        passed = {name.decode(): value for name in _PASSED if (value := header(scope, name)) is not None}
        return Caller(
            tenant,
            None if seconds is None else exchange.arrived + seconds,
            (policy == "allow" or (policy is None and unmarked)) and not returned,
            passed | {"content-type": "application/json", "x-request-id": exchange.identity},
        )

    async def _models(self, exchange: _Exchange) -> None:
        data = [
            {"id": model.id, "object": "model", "created": model.created, "owned_by": "vllm"}
            | ({} if model.max_model_len is None else {"max_model_len": model.max_model_len})
            for model in self._fleet.listed()
        ]
        exchange.status = 200
        body = msgspec.json.encode({"object": "list", "data": data})
        await respond(exchange.send, 200, [_JSON, *self._common(exchange)], body)

    async def _health(self, exchange: _Exchange, path: str) -> None:
        """`/health/live`: the process runs. `/health/ready`: somebody can answer, and it is not draining."""
        if path == "/health/live":
            await respond(exchange.send, 200, [_JSON], b'{"status":"live"}')
            return
        if path != "/health/ready":
            await self._refuse(exchange, NotFound("unknown_path", f"There is no {path} here."))
            return
        problems: dict[str, str] = {}
        if self._draining():
            problems["draining"] = "this process is about to stop"
        states = {each.name: each.state for each in self._fleet.standings()}
        if not self._fleet.up() and self.settings.overflow is None:
            problems["backends"] = "none is up"
        status = {"status": "not ready" if problems else "ready", "problems": problems, "backends": states}
        await respond(exchange.send, 503 if problems else 200, [_JSON], msgspec.json.encode(status))

    def _common(self, exchange: _Exchange) -> Headers:
        headers: Headers = [(b"x-request-id", exchange.identity.encode())]
        if self._draining():
            headers.append((b"connection", b"close"))
        return headers

    async def _refuse(self, exchange: _Exchange, error: ApiError) -> None:
        self._metrics.refused(error.code)
        exchange.code = error.code
        exchange.over = True
        body = msgspec.json.encode(error.envelope())
        if exchange.started:
            await exchange.send({"type": "http.response.body", "body": encode(body)})
            return
        exchange.status = error.status
        headers = [_JSON, *self._common(exchange)]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after))))
        await respond(exchange.send, error.status, headers, body)

    def _finish(self, exchange: _Exchange) -> None:
        self._metrics.request(exchange.model, exchange.placement, exchange.status)
        if self._access.enabled:
            self._access.write(
                request=exchange.identity,
                trace=header(exchange.scope, b"traceparent"),
                path=exchange.scope["path"],
                tenant=exchange.tenant,
                model=exchange.model,
                placement=exchange.placement,
                backend=exchange.backend,
                status=exchange.status,
                code=exchange.code,
                tokens=exchange.cost,
                first_ms=None if exchange.first is None else round(exchange.first * 1000, 1),
                total_ms=round((time.monotonic() - exchange.arrived) * 1000, 1),
            )


def _identity(scope: Scope) -> str:
    given = header(scope, b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
