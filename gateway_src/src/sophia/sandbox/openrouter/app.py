# SPDX-License-Identifier: GPL-3.0-or-later
"""The ASGI application: routes, and the edge where every error becomes an answer."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress

from . import (
    analytics,
    auth,
    catalogue,
    chat,
    control,
    embeddings,
    generations,
    guardrails,
    keys,
    listing,
    messages,
    responses,
    workspaces,
)
from .config import Config
from .errors import VendorError
from .faults import Faults, Subject
from .inference import Platform, fault_error
from .state import State
from .wire import ConnectionGone, Exchange, Receive, ResetNow, Scope, Send

__all__ = ["Application", "create_app"]

BASE = "/api/v1"
Handler = Callable[..., Awaitable[None]]

# Handlers of inference look up faults themselves, once the model is known.
INFERENCE: dict[str, Handler] = {
    "/chat/completions": chat.completions,
    "/embeddings": embeddings.create,
    "/messages": messages.create,
    "/responses": responses.create,
}
FIXED: dict[tuple[str, str], Handler] = {
    ("GET", "/activity"): generations.activity,
    ("GET", "/analytics/meta"): analytics.meta,
    ("POST", "/analytics/query"): analytics.query,
    ("GET", "/credits"): generations.credit,
    ("GET", "/embeddings/models"): listing.embedding_models,
    ("GET", "/endpoints/zdr"): listing.zdr_endpoints,
    ("GET", "/generation"): generations.read,
    ("GET", "/guardrails"): guardrails.listed,
    ("POST", "/guardrails"): guardrails.create,
    ("GET", "/guardrails/assignments/keys"): guardrails.all_assignments,
    ("GET", "/key"): keys.current,
    ("GET", "/keys"): keys.listed,
    ("POST", "/keys"): keys.create,
    ("GET", "/models"): listing.models,
    ("GET", "/models/count"): listing.count,
    ("GET", "/models/user"): listing.models_of_key,
    ("GET", "/providers"): listing.providers,
    ("GET", "/workspaces"): workspaces.listed,
    ("POST", "/workspaces"): workspaces.create,
}
ONE = r"([^/]+)"
PATTERNS: list[tuple[str, re.Pattern[str], Handler]] = [
    (method, re.compile(pattern), handler)
    for method, pattern, handler in (
        ("GET", f"/keys/{ONE}", keys.read),
        ("PATCH", f"/keys/{ONE}", keys.update),
        ("DELETE", f"/keys/{ONE}", keys.delete),
        ("GET", r"/model/([^/]+/[^/]+)", listing.model),
        ("GET", r"/models/([^/]+/[^/]+)/endpoints", listing.endpoints),
        ("GET", f"/guardrails/{ONE}", guardrails.read),
        ("PATCH", f"/guardrails/{ONE}", guardrails.update),
        ("DELETE", f"/guardrails/{ONE}", guardrails.delete),
        ("GET", f"/guardrails/{ONE}/assignments/keys", guardrails.assignments),
        ("POST", f"/guardrails/{ONE}/assignments/keys", guardrails.assign),
        ("POST", f"/guardrails/{ONE}/assignments/keys/remove", guardrails.unassign),
        ("GET", f"/workspaces/{ONE}", workspaces.read),
        ("PATCH", f"/workspaces/{ONE}", workspaces.update),
        ("DELETE", f"/workspaces/{ONE}", workspaces.delete),
    )
]
CONTROL: dict[tuple[str, str], Handler] = {
    ("GET", "/_sandbox/faults"): control.read_faults,
    ("POST", "/_sandbox/faults"): control.set_faults,
    ("GET", "/_sandbox/truth"): control.truth,
    ("POST", "/_sandbox/reset"): control.reset,
    ("POST", "/_sandbox/seed"): control.seed,
}


class Application:
    """The stand-in. `platform` is open to tests that run it in their own process."""

    def __init__(self, config: Config) -> None:
        self.platform = Platform(State(config), catalogue.load(), Faults(config.seed), config.latency_scale)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the sandbox speaks HTTP only, not {scope['type']}")
        exchange = Exchange(scope, receive, send)
        with suppress(ConnectionGone):
            try:
                await self._answer(exchange)
            except VendorError as error:
                await _refuse(exchange, error)
            except ResetNow:
                await exchange.cut(reset=True)

    async def _answer(self, exchange: Exchange) -> None:
        path = exchange.path
        if path.startswith(BASE):
            await self._vendor(exchange, path[len(BASE) :])
            return
        handler = CONTROL.get((exchange.method, path))
        if handler is None:
            raise VendorError(404, "Not Found")
        await handler(self.platform, exchange)

    async def _vendor(self, exchange: Exchange, path: str) -> None:
        inference = INFERENCE.get(path)
        if inference is not None and exchange.method == "POST":
            await inference(self.platform, exchange)
            return
        handler = FIXED.get((exchange.method, path))
        arguments: tuple[str, ...] = ()
        if handler is None:
            handler, arguments = _match(exchange.method, path)
        await self._strike(exchange)
        await handler(self.platform, exchange, *arguments)

    async def _strike(self, exchange: Exchange) -> None:
        key_hash = auth.peek(self.platform.state, exchange)
        subject = Subject(path=exchange.path, method=exchange.method, headers=exchange.headers, key_hash=key_hash)
        fault = self.platform.faults.find(subject)
        if fault is None:
            return
        if fault.kind == "status":
            raise fault_error(fault, "", "", self.platform.state.clock())
        if fault.kind == "reset":
            raise ResetNow
        exchange.fault = fault

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.platform.state.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


def create_app(config: Config | None = None) -> Application:
    """The stand-in as an ASGI application."""
    return Application(config or Config())


def _match(method: str, path: str) -> tuple[Handler, tuple[str, ...]]:
    allowed = False
    for verb, pattern, handler in PATTERNS:
        found = pattern.fullmatch(path)
        if found is not None:
            if verb == method:
                return handler, found.groups()
            allowed = True
    if allowed or any(known == path for _, known in FIXED) or path in INFERENCE:
        raise VendorError(405, "Method Not Allowed", error_type="invalid_request")
    raise VendorError(404, "Not Found")


async def _refuse(exchange: Exchange, error: VendorError) -> None:
    path = exchange.path
    if path.endswith("/messages"):
        generation = dict(exchange.reply_headers).get(b"x-generation-id")
        body = error.messages_body(None if generation is None else generation.decode())
    elif path.endswith("/responses"):
        body = error.responses_body()
    else:
        body = error.body()
    await exchange.reply(body, error.status, error.headers)
