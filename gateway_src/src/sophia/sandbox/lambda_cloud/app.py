# SPDX-License-Identifier: GPL-3.0-or-later
"""The ASGI application around `Cloud`: HTTP in and out, and answers that never come or break off."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import parse_qsl

from sophia.sandbox.wire import ConnectionGone, Receive, Scope, Send, cut, gone, lifespan

from .cloud import Cloud
from .config import Config
from .errors import CloudError
from .wire import Answer, Request

__all__ = ["Application", "create_app"]


class Application:
    """The stand-in. `cloud` is open to tests that run it in their own process."""

    def __init__(self, config: Config) -> None:
        self.cloud = Cloud(config)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the sandbox speaks HTTP only, not {scope['type']}")
        answer = await self._answer(scope, receive)
        if answer is None:
            return
        if answer.delivery == "never":
            await gone(receive)
            return
        if answer.delivery == "reset":
            with suppress(ConnectionGone):
                await cut(scope, receive, reset=True)
            return
        if answer.delay:
            await asyncio.sleep(answer.delay)
        headers = {**answer.headers, "content-length": str(len(answer.body))}
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": answer.status, "headers": fields})
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Answer | None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self.cloud.state.config.max_body:
                error = CloudError("global/invalid-parameters", "The request is too large.", status=413)
                return Answer.of(error.body(), error.status)
            if not message.get("more_body"):
                break
        request = Request(
            method=scope["method"],
            path=scope["path"],
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
            headers={name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]},
            body=body,
        )
        return self.cloud.handle(request)


def create_app(config: Config | None = None) -> Application:
    """The stand-in as an ASGI application."""
    return Application(config or Config())
