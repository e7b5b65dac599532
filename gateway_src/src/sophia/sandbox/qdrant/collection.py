# SPDX-License-Identifier: GPL-3.0-or-later
"""One collection: a folder with its configuration and a shard of the engine for every shard key.

Everything but the building of indexes happens where it is called, on the event loop's thread: no request ever sees half
of another.
"""

from __future__ import annotations

import asyncio
import datetime
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import qdrant_edge as edge

from .errors import ServiceError, engine, wrong
from .files import write
from .records import Key, sort_key
from .schema import UpdateCollection, changed, edge_config, index_params

__all__ = ["Collection", "Piece"]

Json = dict[str, Any]
QUIET = 0.3  # seconds without a write after which indexes are built


@dataclass(slots=True)
class Piece:
    """The points of one shard key; `None` where sharding is automatic."""

    key: Key
    folder: str
    shard: edge.EdgeShard


class Collection:
    """An open collection. Made by `create`, opened by the constructor."""

    def __init__(self, folder: Path, *, optimize: bool) -> None:
        document = orjson.loads((folder / "collection.json").read_bytes())
        self.folder = folder
        self.name: str = document["name"]
        self.config: Json = document["config"]
        self.created_at: str = document["created_at"]
        self.schema: dict[str, Json] = document["schema"]
        self.pieces = [
            Piece(item["key"], item["folder"], edge.EdgeShard.load(str(folder / "shards" / item["folder"])))
            for item in document["pieces"]
        ]
        self.operations: int = 0
        self._optimize = optimize
        self._task: asyncio.Task[None] | None = None
        self._wrote = False

    @staticmethod
    def create(folder: Path, name: str, config: Json) -> None:
        """Make the folder of a collection, all or nothing. Raises `ServiceError` 400."""
        fresh = folder.with_name(".new-" + folder.name)
        shutil.rmtree(fresh, ignore_errors=True)
        custom = config["params"].get("sharding_method") == "custom"
        edge_config(config)
        fresh.mkdir(parents=True)
        try:
            pieces = [] if custom else [{"key": None, "folder": "0"}]
            for piece in pieces:
                _make_shard(fresh / "shards" / str(piece["folder"]), config)
            now = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
            document = {"name": name, "config": config, "created_at": now, "schema": {}, "pieces": pieces}
            write(fresh / "collection.json", orjson.dumps(document))
            fresh.rename(folder)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    @property
    def custom(self) -> bool:
        """Whether points are told apart by shard keys."""
        return bool(self.config["params"].get("sharding_method") == "custom")

    @property
    def count(self) -> int:
        """How many points there are."""
        return sum(piece.shard.count(edge.CountRequest(exact=True)) for piece in self.pieces)

    def selected(self, keys: Any) -> list[Piece]:
        """The pieces of one key, of several, or all. Raises `ServiceError` 404."""
        if keys is None:
            return self.pieces
        if isinstance(keys, dict):
            # A selector with a fallback: the target where it exists.
            keys = keys["target"] if any(p.key == keys["target"] for p in self.pieces) else keys["fallback"]
        found = []
        for key in keys if isinstance(keys, list) else [keys]:
            matching = [piece for piece in self.pieces if piece.key == key]
            if not matching:
                raise ServiceError(404, f"Not found: Shard key {key} not found")
            found += matching
        return found

    def for_writing(self, keys: Any) -> list[Piece]:
        """As `selected`, for points that are to be put somewhere. Raises `ServiceError` 400 without a key."""
        if self.custom and keys is None:
            raise wrong("Shard key not specified")
        return self.selected(keys)

    def update(self, pieces: list[Piece], operation: Callable[[], edge.UpdateOperation]) -> int:
        """Apply an operation; return its number."""
        for piece in pieces:
            with engine():
                piece.shard.update(operation())
        self.operations += 1
        self._wrote = True
        self._schedule()
        return self.operations

    def reconfigure(self, body: UpdateCollection) -> None:
        """Change the configuration. The indexes must be at rest (`settle`)."""
        config = changed(self.config, body)
        settings = edge_config(config)
        for piece in self.pieces:
            path = str(self.folder / "shards" / piece.folder)
            piece.shard.close()
            try:
                with engine():
                    piece.shard = edge.EdgeShard.load(path, settings)
            except ServiceError:
                piece.shard = edge.EdgeShard.load(path)
                raise
        self.config = config
        self.save()
        self._wrote = True
        self._schedule()

    def create_index(self, field: str, schema: Any) -> int:
        """Make a payload index; the same again changes nothing."""
        kind, params, made = index_params(schema)
        number = self.update(self.pieces, lambda: edge.UpdateOperation.create_field_index(field, made))
        self.schema[field] = {"data_type": kind} | ({"params": params} if params else {})
        self.save()
        return number

    def delete_index(self, field: str) -> int:
        """Remove a payload index, if there is one."""
        number = self.update(self.pieces, lambda: edge.UpdateOperation.delete_field_index(field))
        if self.schema.pop(field, None):
            self.save()
        return number

    def add_key(self, key: Key) -> None:
        """Make a shard key. Raises `ServiceError` 400 where it is there already or sharding is automatic."""
        if not self.custom:
            raise wrong("Shard Key cannot be created with Auto sharding method")
        if any(piece.key == key for piece in self.pieces):
            raise wrong(f"Shard key {key} already exists")
        name = str(1 + max((int(piece.folder) for piece in self.pieces), default=-1))
        path = self.folder / "shards" / name
        shutil.rmtree(path, ignore_errors=True)
        _make_shard(path, self.config)
        piece = Piece(key, name, edge.EdgeShard.load(str(path)))
        for field, index in self.schema.items():
            params = index_params(index.get("params") or index["data_type"])[2]
            piece.shard.update(edge.UpdateOperation.create_field_index(field, params))
        self.pieces.append(piece)
        self.save()

    def drop_key(self, key: Key) -> None:
        """Remove a shard key with its points. Raises `ServiceError` 404."""
        (piece,) = self.selected(key)
        self.pieces.remove(piece)
        self.save()
        piece.shard.close()
        shutil.rmtree(self.folder / "shards" / piece.folder)

    def info(self) -> Json:
        """What `GET /collections/{name}` answers."""
        infos = [piece.shard.info() for piece in self.pieces]
        schema = {}
        for field, index in sorted(self.schema.items()):
            points = sum(info.payload_schema[field].points for info in infos if field in info.payload_schema)
            schema[field] = {**index, "points": points}
        return {
            "status": "yellow" if self._task is not None else "green",
            "optimizer_status": "ok",
            "indexed_vectors_count": sum(info.indexed_vectors_count for info in infos),
            "points_count": self.count,
            "segments_count": sum(info.segments_count for info in infos),
            "config": self.config,
            "payload_schema": schema,
            "created_at": self.created_at,
        }

    def save(self) -> None:
        """Write the sidecar, all or nothing."""
        document = {
            "name": self.name,
            "config": self.config,
            "created_at": self.created_at,
            "schema": self.schema,
            "pieces": [{"key": piece.key, "folder": piece.folder} for piece in self.pieces],
        }
        write(self.folder / "collection.json", orjson.dumps(document))

    def flush(self) -> None:
        """Write what the engine holds back."""
        for piece in self.pieces:
            piece.shard.flush()

    async def settle(self) -> None:
        """Wait until no index is being built."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    def close(self) -> None:
        """Flush and close the shards. The indexes must be at rest."""
        for piece in self.pieces:
            piece.shard.close()

    def _schedule(self) -> None:
        if not self._optimize or self._task is not None or not self.config["optimizer_config"]["indexing_threshold"]:
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        self._task = loop.create_task(self._build())

    async def _build(self) -> None:
        try:
            while self._wrote:
                self._wrote = False
                await asyncio.sleep(QUIET)
            for shard in [piece.shard for piece in self.pieces]:
                await asyncio.to_thread(shard.optimize)
        finally:
            self._task = None

    def merged(self, keys: Any, scroll: Callable[[edge.EdgeShard], list[Any]]) -> Iterator[tuple[Key, Any]]:
        """What `scroll` finds in the selected pieces, in the order of ids."""
        pieces = self.selected(keys)
        found = []
        for piece in pieces:
            with engine():
                found += [(piece.key, item) for item in scroll(piece.shard)]
        if len(pieces) > 1:
            found.sort(key=lambda pair: sort_key(pair[1].id))
        return iter(found)


def _make_shard(path: Path, config: Json) -> None:
    path.mkdir(parents=True)
    with engine():
        edge.EdgeShard.create(str(path), edge_config(config)).close()
