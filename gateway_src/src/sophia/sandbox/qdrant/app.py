# SPDX-License-Identifier: GPL-3.0-or-later
"""The ASGI application: routes, and the edge where every error becomes an answer."""

from __future__ import annotations

import hmac
import re
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import suppress
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec

from . import points
from .collection import Collection
from .config import VERSION, Config
from .errors import ServiceError, engine, wrong
from .faults import Faults, Rule
from .queries import Query, Search, as_query
from .schema import CreateCollection, UpdateCollection
from .store import Store
from .wire import ConnectionGone, Exchange, Receive, Scope, Send

__all__ = ["Application", "create_app"]

Json = dict[str, Any]
Handler = Callable[..., Awaitable[Any]]
OPEN = frozenset(("/", "/healthz", "/livez", "/readyz"))


class FieldIndex(msgspec.Struct):
    """The body of `PUT …/index`."""

    field_name: str
    field_schema: Any = "keyword"


class ShardKey(msgspec.Struct):
    """The body of `PUT …/shards` and `POST …/shards/delete`."""

    shard_key: int | str


class Recover(msgspec.Struct):
    """The body of `PUT …/snapshots/recover`."""

    location: str
    checksum: str | None = None


class Aliases(msgspec.Struct):
    """The body of `POST /collections/aliases`."""

    actions: list[Json]


class Batch(msgspec.Struct):
    """The body of `POST …/points/batch`."""

    operations: list[dict[str, Json]]


class Queries(msgspec.Struct):
    """The body of `POST …/points/query/batch`."""

    searches: list[Query]


class Searches(msgspec.Struct):
    """The body of `POST …/points/search/batch`."""

    searches: list[Search]


class Application:
    """The stand-in. `store` and `faults` are open to tests that run it in their own process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.store = Store(config)
        self.faults = Faults(config.seed)
        self._routes = [(method, re.compile(pattern), handler) for method, pattern, handler in self._table()]

    def _table(self) -> list[tuple[str, str, Handler]]:
        c = "/collections/([^/]+)"
        p = c + "/points"
        s = c + "/snapshots"
        return [
            ("GET", "/", self.version),
            ("GET", "/(?:healthz|livez|readyz)", self.health),
            ("GET", "/telemetry", self.telemetry),
            ("GET", "/cluster", self.cluster),
            ("GET", "/collections", self.collections),
            ("POST", "/collections/aliases", self.change_aliases),
            ("GET", "/aliases", self.aliases),
            ("GET", c, self.info),
            ("PUT", c, self.create),
            ("PATCH", c, self.update),
            ("DELETE", c, self.delete),
            ("GET", c + "/exists", self.exists),
            ("GET", c + "/aliases", self.aliases),
            ("GET", c + "/cluster", self.shards),
            ("GET", c + "/shards", self.shard_keys),
            ("PUT", c + "/shards", self.add_shard_key),
            ("POST", c + "/shards/delete", self.drop_shard_key),
            ("PUT", c + "/index", self.create_index),
            ("DELETE", c + "/index/([^/]+)", self.delete_index),
            ("PUT", p, self.change("upsert")),
            ("POST", p, self.read(points.Retrieve, points.retrieve)),
            ("GET", p + "/([^/]+)", self.point),
            ("POST", p + "/delete", self.change("delete")),
            ("PUT", p + "/vectors", self.change("update_vectors")),
            ("POST", p + "/vectors/delete", self.change("delete_vectors")),
            ("POST", p + "/payload", self.change("set_payload")),
            ("PUT", p + "/payload", self.change("overwrite_payload")),
            ("POST", p + "/payload/delete", self.change("delete_payload")),
            ("POST", p + "/payload/clear", self.change("clear_payload")),
            ("POST", p + "/batch", self.batch),
            ("POST", p + "/scroll", self.read(points.Scroll, points.scroll)),
            ("POST", p + "/count", self.read(points.Count, points.count)),
            ("POST", c + "/facet", self.read(points.Facet, points.facet)),
            ("POST", p + "/query", self.read(Query, _query)),
            ("POST", p + "/query/batch", self.read(Queries, _queries)),
            ("POST", p + "/search", self.read(Search, _search)),
            ("POST", p + "/search/batch", self.read(Searches, _searches)),
            ("GET", s, self.snapshots),
            ("POST", s, self.snapshot),
            ("GET", s + "/([^/]+)", self.snapshot_file),
            ("DELETE", s + "/([^/]+)", self.delete_snapshot),
            ("PUT", s + "/recover", self.recover),
            ("POST", s + "/upload", self.upload),
            ("GET", "/_sandbox/faults", self.read_faults),
            ("POST", "/_sandbox/faults", self.set_faults),
            ("POST", "/_sandbox/reset", self.reset),
        ]

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
            except ServiceError as error:
                await exchange.refuse(error)

    async def _answer(self, exchange: Exchange) -> None:
        if not exchange.path.startswith("/_sandbox/"):
            self._authenticate(exchange)
            await self._strike(exchange)
        handler, arguments = self._match(exchange)
        try:
            await handler(exchange, *arguments)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            # Members of free-form parts of a body: filters, queries, vector parameters.
            raise ServiceError(400, f"Format error in JSON body: {type(error).__name__}: {error}") from error

    def _match(self, exchange: Exchange) -> tuple[Handler, list[str]]:
        for method, pattern, handler in self._routes:
            if method == exchange.method:
                found = pattern.fullmatch(exchange.raw_path)
                if found is not None:
                    return handler, [unquote(group) for group in found.groups()]
        raise ServiceError(404, "Not found")

    def _authenticate(self, exchange: Exchange) -> None:
        key = self.config.api_key
        if key is None or exchange.path in OPEN - {"/"}:
            return
        given = exchange.header(b"api-key")
        if given is None:
            scheme, _, token = (exchange.header(b"authorization") or "").partition(" ")
            given = token if scheme.lower() == "bearer" else None
        if given is None:
            raise ServiceError(401, "Must provide an API key or an Authorization bearer token")
        if not hmac.compare_digest(given.encode(), key.encode()):
            raise ServiceError(403, "Invalid API key or JWT")

    async def _strike(self, exchange: Exchange) -> None:
        fault = self.faults.find(exchange.method, exchange.path, exchange.header(b"x-sandbox-fault"))
        if fault is None:
            return
        if fault.kind == "status":
            async for _ in exchange.parts():
                pass
            raise ServiceError(fault.status, f"Service internal error: fault {fault.status}", fault.retry_after)
        if fault.kind == "reset":
            await exchange.cut(reset=True)
        if fault.kind == "slow":
            await exchange.linger(fault.seconds)
        exchange.fault = fault

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._settle()
                self.store.close()
                await send({"type": "lifespan.shutdown.complete"})
                return

    async def _settle(self) -> None:
        for found in list(self.store.collections.values()):
            await found.settle()

    def read(self, kind: type[Any], action: Callable[[Collection, Any], Any]) -> Handler:
        """A handler that reads points."""

        async def handle(exchange: Exchange, name: str) -> None:
            body = await exchange.read(kind, self.config.max_body)
            collection = self.store.get(name)
            with engine():
                found = action(collection, body)
            await exchange.result(found)

        return handle

    def change(self, operation: str) -> Handler:
        """A handler that writes points; what it answers has been applied and logged, whatever `wait` says."""
        kind, action = points.OPERATIONS[operation]

        async def handle(exchange: Exchange, name: str) -> None:
            body: Any = await exchange.read(kind, self.config.max_body)
            collection = self.store.get(name)
            with engine():
                number = action(collection, body)
            await exchange.result(_updated(exchange, number))

        return handle

    async def version(self, exchange: Exchange) -> None:
        """`GET /`."""
        await exchange.reply({"title": "qdrant - vector search engine", "version": VERSION, "commit": "sophia-sandbox"})

    async def health(self, exchange: Exchange) -> None:
        """`GET /healthz`, `/livez`, `/readyz`."""
        await exchange.reply({"title": "ok", "version": VERSION})

    async def telemetry(self, exchange: Exchange) -> None:
        """`GET /telemetry`."""
        app = {"name": "qdrant", "version": VERSION}
        await exchange.result({"app": app, "collections": {"number_of_collections": len(self.store.collections)}})

    async def cluster(self, exchange: Exchange) -> None:
        """`GET /cluster`."""
        await exchange.result({"status": "disabled"})

    async def collections(self, exchange: Exchange) -> None:
        """`GET /collections`."""
        await exchange.result({"collections": [{"name": name} for name in sorted(self.store.collections)]})

    async def info(self, exchange: Exchange, name: str) -> None:
        """`GET /collections/{name}`."""
        await exchange.result(self.store.get(name).info())

    async def exists(self, exchange: Exchange, name: str) -> None:
        """`GET …/exists`."""
        await exchange.result({"exists": self.store.aliases.get(name, name) in self.store.collections})

    async def create(self, exchange: Exchange, name: str) -> None:
        """`PUT /collections/{name}`."""
        self.store.create(name, await exchange.read(CreateCollection, self.config.max_body))
        await exchange.result(True)

    async def update(self, exchange: Exchange, name: str) -> None:
        """`PATCH /collections/{name}`."""
        body = await exchange.read(UpdateCollection, self.config.max_body)
        collection = self.store.get(name)
        await collection.settle()
        collection.reconfigure(body)
        await exchange.result(True)

    async def delete(self, exchange: Exchange, name: str) -> None:
        """`DELETE /collections/{name}`."""
        await exchange.result(await self.store.delete(name))

    async def change_aliases(self, exchange: Exchange) -> None:
        """`POST /collections/aliases`."""
        self.store.change_aliases((await exchange.read(Aliases, self.config.max_body)).actions)
        await exchange.result(True)

    async def aliases(self, exchange: Exchange, name: str | None = None) -> None:
        """`GET /aliases`, `GET …/aliases`."""
        target = None if name is None else self.store.get(name).name
        await exchange.result({"aliases": self.store.aliases_of(target)})

    async def shards(self, exchange: Exchange, name: str) -> None:
        """`GET …/cluster`."""
        collection = self.store.get(name)
        local = []
        for number, piece in enumerate(collection.pieces):
            shown = {"shard_id": number, "points_count": piece.shard.info().points_count, "state": "Active"}
            local.append(shown if piece.key is None else {**shown, "shard_key": piece.key})
        await exchange.result(
            {"peer_id": 1, "shard_count": len(local), "local_shards": local, "remote_shards": [], "shard_transfers": []}
        )

    async def shard_keys(self, exchange: Exchange, name: str) -> None:
        """`GET …/shards`."""
        keys = [{"key": piece.key} for piece in self.store.get(name).pieces if piece.key is not None]
        await exchange.result({"shard_keys": keys or None})

    async def add_shard_key(self, exchange: Exchange, name: str) -> None:
        """`PUT …/shards`."""
        body = await exchange.read(ShardKey, self.config.max_body)
        self.store.get(name).add_key(body.shard_key)
        await exchange.result(True)

    async def drop_shard_key(self, exchange: Exchange, name: str) -> None:
        """`POST …/shards/delete`."""
        body = await exchange.read(ShardKey, self.config.max_body)
        collection = self.store.get(name)
        await collection.settle()
        collection.drop_key(body.shard_key)
        await exchange.result(True)

    async def create_index(self, exchange: Exchange, name: str) -> None:
        """`PUT …/index`."""
        body = await exchange.read(FieldIndex, self.config.max_body)
        await exchange.result(_updated(exchange, self.store.get(name).create_index(body.field_name, body.field_schema)))

    async def delete_index(self, exchange: Exchange, name: str, field: str) -> None:
        """`DELETE …/index/{field}`."""
        await exchange.result(_updated(exchange, self.store.get(name).delete_index(field)))

    async def point(self, exchange: Exchange, name: str, point: str) -> None:
        """`GET …/points/{id}`."""
        given: int | str = int(point) if point.isdigit() else point
        found = points.retrieve(self.store.get(name), points.Retrieve(ids=[given], with_vector=True))
        if not found:
            raise ServiceError(404, f"Not found: Point with id {point} does not exists!")
        await exchange.result(found[0])

    async def batch(self, exchange: Exchange, name: str) -> None:
        """`POST …/points/batch`: one after the other; what fails ends it."""
        body = await exchange.read(Batch, self.config.max_body)
        collection = self.store.get(name)
        done = []
        for item in body.operations:
            ((operation, given),) = item.items()
            if operation not in points.OPERATIONS:
                raise ServiceError(400, f"Format error in JSON body: unknown operation {operation}")
            kind, action = points.OPERATIONS[operation]
            with engine():
                done.append(_updated(exchange, action(collection, msgspec.convert(given, kind))))
        await exchange.result(done)

    async def snapshots(self, exchange: Exchange, name: str) -> None:
        """`GET …/snapshots`."""
        await exchange.result(self.store.snapshots(name))

    async def snapshot(self, exchange: Exchange, name: str) -> None:
        """`POST …/snapshots`."""
        await self.store.get(name).settle()
        await exchange.result(self.store.snapshot(name))

    async def snapshot_file(self, exchange: Exchange, name: str, label: str) -> None:
        """`GET …/snapshots/{label}`."""
        await exchange.reply(self.store.snapshot_file(name, label).read_bytes())

    async def delete_snapshot(self, exchange: Exchange, name: str, label: str) -> None:
        """`DELETE …/snapshots/{label}`."""
        self.store.delete_snapshot(name, label)
        await exchange.result(True)

    async def recover(self, exchange: Exchange, name: str) -> None:
        """`PUT …/snapshots/recover` from a `file://` location; nothing is fetched."""
        body = await exchange.read(Recover, self.config.max_body)
        parts = urlsplit(body.location)
        if parts.scheme != "file":
            raise wrong("this stand-in recovers from file:// locations only")
        await self.store.recover(name, Path(unquote(parts.path)), body.checksum)
        await exchange.result(True)

    async def upload(self, exchange: Exchange, name: str) -> None:
        """`POST …/snapshots/upload`: the first file of a multipart form."""
        header = Message()
        header["content-type"] = exchange.header(b"content-type") or ""
        boundary = header.get_param("boundary")
        if not isinstance(boundary, str):
            raise ServiceError(400, "Content-Type is not multipart/form-data")
        raw = b"".join([part async for part in exchange.parts()])
        _, _, rest = raw.partition(b"\r\n\r\n")
        content, ending, _ = rest.rpartition(b"\r\n--" + boundary.encode("latin-1"))
        if not ending:
            raise ServiceError(400, "Multipart stream is incomplete")
        with tempfile.NamedTemporaryFile(dir=self.config.storage) as file:
            file.write(content)
            file.flush()
            await self.store.recover(name, Path(file.name), exchange.parameters().get("checksum"))
        await exchange.result(True)

    async def read_faults(self, exchange: Exchange) -> None:
        """`GET /_sandbox/faults`: the rules with their counters."""
        data = [
            {"rule": msgspec.to_builtins(armed.rule), "seen": armed.seen, "struck": armed.struck}
            for armed in self.faults.armed
        ]
        await exchange.reply({"data": data})

    async def set_faults(self, exchange: Exchange) -> None:
        """`POST /_sandbox/faults`: replace all rules; an empty list ends all faults."""
        self.faults.set(await exchange.read(list[Rule], self.config.max_body))
        await self.read_faults(exchange)

    async def reset(self, exchange: Exchange) -> None:
        """`POST /_sandbox/reset`: forget everything."""
        self.faults.set([])
        await self._settle()
        self.store.reset()
        await exchange.reply({"reset": True})


def create_app(config: Config) -> Application:
    """The ASGI application."""
    return Application(config)


def _updated(exchange: Exchange, number: int) -> Json:
    waited = exchange.parameters().get("wait") == "true"
    return {"operation_id": number, "status": "completed" if waited else "acknowledged"}


def _query(collection: Collection, body: Query) -> Json:
    return {"points": points.query(collection, body)}


def _queries(collection: Collection, body: Queries) -> list[Json]:
    return [{"points": points.query(collection, item)} for item in body.searches]


def _search(collection: Collection, body: Search) -> list[Json]:
    return points.query(collection, as_query(body))


def _searches(collection: Collection, body: Searches) -> list[list[Json]]:
    return [points.query(collection, as_query(item)) for item in body.searches]
