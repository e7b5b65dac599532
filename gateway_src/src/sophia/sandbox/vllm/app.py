# SPDX-License-Identifier: GPL-3.0-or-later
"""The ASGI application: routes, and the edge where every error becomes an answer."""

from __future__ import annotations

import base64
import hmac
import struct
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import msgspec

from sophia.sandbox.wire import lifespan

from . import answers
from .blocks import count
from .bodies import Chat, Completion, Embedding
from .config import VERSION, Config
from .engine import Engine
from .errors import ServiceError
from .faults import Faults, Rule
from .figures import Figures
from .generate import Generation
from .wire import ConnectionGone, Exchange, Receive, Scope, Send

__all__ = ["Application", "create_app"]

Handler = Callable[[Exchange], Awaitable[None]]

_TEXT = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]


class _Pace(msgspec.Struct):
    pace: float


class Application:
    """The stand-in. `engine` and `faults` are open to tests that run it in their own process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.faults = Faults(config.seed)
        self._figures = Figures(config.model)
        self.engine = Engine(config, self._figures)
        self._figures.watch(self.engine)
        self._started = int(time.time())
        self._routes: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self.health,
            ("GET", "/ping"): self.health,
            ("GET", "/version"): self.version,
            ("GET", "/metrics"): self.metrics,
            ("GET", "/v1/models"): self.models,
            ("POST", "/v1/chat/completions"): self.chat,
            ("POST", "/v1/completions"): self.completions,
            ("POST", "/v1/embeddings"): self.embeddings,
            ("POST", "/reset_prefix_cache"): self.reset_prefix_cache,
            ("GET", "/_sandbox/truth"): self.truth,
            ("GET", "/_sandbox/faults"): self.read_faults,
            ("POST", "/_sandbox/faults"): self.set_faults,
            ("POST", "/_sandbox/pace"): self.set_pace,
            ("POST", "/_sandbox/reset"): self.reset,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the sandbox speaks HTTP only, not {scope['type']}")
        exchange = Exchange(scope, receive, send)
        with suppress(ConnectionGone):
            try:
                await self._answer(exchange)
            except ServiceError as error:
                headers = [(b"content-type", b"application/json")]
                if error.retry_after is not None:
                    headers.append((b"retry-after", f"{error.retry_after:g}".encode()))
                exchange.fault = None
                await exchange.reply(error.body(), error.status, headers)

    async def _answer(self, exchange: Exchange) -> None:
        handler = self._routes.get((exchange.method, exchange.path))
        if handler is None:
            known = any(path == exchange.path for _, path in self._routes)
            raise ServiceError(405, "Method Not Allowed") if known else ServiceError(404, "Not Found")
        if exchange.path.startswith("/v1/"):
            self._authenticate(exchange)
        if not exchange.path.startswith("/_sandbox/"):
            await self._strike(exchange)
        await handler(exchange)

    def _authenticate(self, exchange: Exchange) -> None:
        key = self.config.api_key
        scheme, _, token = (exchange.header(b"authorization") or "").partition(" ")
        if key is not None and not (scheme.lower() == "bearer" and hmac.compare_digest(token.encode(), key.encode())):
            raise ServiceError(401, "Unauthorized")

    async def _strike(self, exchange: Exchange) -> None:
        fault = self.faults.find(exchange.method, exchange.path, exchange.header(b"x-sandbox-fault"))
        if fault is None:
            return
        if fault.kind == "status":
            raise ServiceError(fault.status, f"fault {fault.status} on purpose", retry_after=fault.retry_after)
        if fault.kind == "reset":
            await exchange.cut(reset=True)
        if fault.kind == "slow":
            await exchange.pause(fault.seconds)
        exchange.fault = fault

    async def health(self, exchange: Exchange) -> None:
        """`GET /health`, `/ping`: an empty 200."""
        await exchange.reply(b"")

    async def version(self, exchange: Exchange) -> None:
        """`GET /version`."""
        await exchange.reply({"version": VERSION})

    async def metrics(self, exchange: Exchange) -> None:
        """`GET /metrics`."""
        await exchange.reply(self._figures.render(), headers=_TEXT)

    async def models(self, exchange: Exchange) -> None:
        """`GET /v1/models`."""
        names = self.config.served_model_name
        listed: list[dict[str, Any]] = [
            {
                "id": name,
                "object": "model",
                "created": self._started,
                "owned_by": "vllm",
                "root": self.config.model,
                "parent": None,
                "max_model_len": self.config.max_model_len,
                "permission": [],
            }
            for name in names
        ]
        await exchange.reply({"object": "list", "data": listed})

    async def chat(self, exchange: Exchange) -> None:
        """`POST /v1/chat/completions`."""
        await self._generate(exchange, Chat)

    async def completions(self, exchange: Exchange) -> None:
        """`POST /v1/completions`."""
        await self._generate(exchange, Completion)

    async def _generate(self, exchange: Exchange, kind: type[Chat] | type[Completion]) -> None:
        body: Chat | Completion = await exchange.read(kind, self.config.max_body)
        self._serves(body.model, "generate", exchange.path)
        generation = Generation(self.config, self.engine, body)
        await (generation.stream(exchange) if body.stream else generation.whole(exchange))

    async def embeddings(self, exchange: Exchange) -> None:
        """`POST /v1/embeddings`, where the runner is `pooling`."""
        body = await exchange.read(Embedding, self.config.max_body)
        self._serves(body.model, "pooling", exchange.path)
        texts = [text.encode() for text in ([body.input] if isinstance(body.input, str) else body.input)]
        tokens = sum(map(count, texts))
        data: list[dict[str, Any]] = []
        for index, text in enumerate(texts):
            values: Any = answers.vector(text, body.dimensions or self.config.dimensions)
            if body.encoding_format == "base64":
                values = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
            data.append({"index": index, "object": "embedding", "embedding": values})
        usage = {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None}
        head = {"id": f"embd-{uuid.uuid4().hex}", "object": "list", "created": int(time.time())}
        await exchange.reply(head | {"model": body.model or self.config.model, "data": data, "usage": usage})

    def _serves(self, model: str | None, runner: str, path: str) -> None:
        if model is not None and model not in self.config.served_model_name:
            raise ServiceError(404, f"The model `{model}` does not exist.", param="model")
        if self.config.runner != runner:
            raise ServiceError(400, f"The model does not support {path}")

    async def reset_prefix_cache(self, exchange: Exchange) -> None:
        """`POST /reset_prefix_cache` (vLLM's development mode)."""
        self.engine.blocks.forget()
        await exchange.reply(b"")

    async def truth(self, exchange: Exchange) -> None:
        """`GET /_sandbox/truth`: what runs, waits, and was aborted."""
        engine = self.engine
        state = {"running": len(engine.running), "waiting": len(engine.waiting), "aborted": self._figures.aborted}
        await exchange.reply(state)

    async def read_faults(self, exchange: Exchange) -> None:
        """`GET /_sandbox/faults`: the rules in force and how often they have struck."""
        rules = [{"rule": armed.rule, "seen": armed.seen, "struck": armed.struck} for armed in self.faults.armed]
        await exchange.reply({"data": rules})

    async def set_faults(self, exchange: Exchange) -> None:
        """`POST /_sandbox/faults`: replace the rules by a list of rules."""
        self.faults.set(await exchange.read(list[Rule], self.config.max_body))
        await self.read_faults(exchange)

    async def set_pace(self, exchange: Exchange) -> None:
        """`POST /_sandbox/pace` ``{"pace": 0.1}``: the engine's speed, 1 as configured."""
        self.engine.pace = (await exchange.read(_Pace, 1024)).pace
        await exchange.reply({"pace": self.engine.pace})

    async def reset(self, exchange: Exchange) -> None:
        """`POST /_sandbox/reset`: no faults, the configured pace, an empty prefix cache; counters go on."""
        self.faults.set([])
        self.engine.pace = 1.0
        self.engine.blocks.forget()
        await exchange.reply({"reset": True})


def create_app(config: Config | None = None) -> Application:
    """The stand-in as an ASGI application."""
    return Application(config or Config())
