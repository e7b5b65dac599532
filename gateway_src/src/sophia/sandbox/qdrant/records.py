# SPDX-License-Identifier: GPL-3.0-or-later
"""Points between the wire and the engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np
import qdrant_edge as edge

from .errors import wrong
from .filters import point_id

__all__ = ["Batch", "Key", "PointStruct", "json_id", "points_of", "record", "scored", "sort_key", "vector_in", "wanted"]

Json = dict[str, Any]
Key = int | str | None


class PointStruct(msgspec.Struct):
    """A point of an upsert."""

    id: int | str
    vector: Any
    payload: Json | None = None


class Batch(msgspec.Struct):
    """Points column by column."""

    ids: list[int | str]
    vectors: Any
    payloads: list[Json | None] | None = None


def points_of(points: Iterable[PointStruct]) -> list[edge.Point]:
    """The engine's points."""
    return [edge.Point(id=point_id(p.id), vector=vector_in(p.vector), payload=p.payload or None) for p in points]


def batched(batch: Batch) -> list[PointStruct]:
    """Row by row. Raises `ServiceError` 400 where the columns differ in length."""
    count = len(batch.ids)
    payloads = batch.payloads or [None] * count
    if isinstance(batch.vectors, dict):
        columns = batch.vectors
        if any(len(column) != count for column in columns.values()):
            raise wrong("number of ids and vectors must be equal")
        rows: list[Any] = [{name: column[row] for name, column in columns.items()} for row in range(count)]
    else:
        rows = batch.vectors
    if len(rows) != count or len(payloads) != count:
        raise wrong("number of ids, vectors and payloads must be equal")
    return [PointStruct(*row) for row in zip(batch.ids, rows, payloads, strict=True)]


def vector_in(given: Any) -> Any:
    """A vector, or vectors by name, for the engine."""
    if isinstance(given, dict):
        if "indices" in given:
            return edge.SparseVector(given["indices"], given["values"])
        return {name: vector_in(value) for name, value in given.items()}
    return given


def vector_out(value: Any) -> Any:
    """A vector, or vectors by name, for the wire."""
    if isinstance(value, list):
        if value and isinstance(value[0], list):
            return [_floats(row) for row in value]
        return _floats(value)
    if isinstance(value, dict):
        # The unnamed vector beside named ones has no place in the server's answer but the empty name.
        return {name: vector_out(item) for name, item in sorted(value.items())}
    if isinstance(value, edge.SparseVector):
        order = sorted(zip(value.indices, value.values, strict=True))
        return {"indices": [i for i, _ in order], "values": _floats([v for _, v in order])}
    return value


def _floats(values: list[float]) -> Any:
    """32-bit floats for the encoder, which writes them as the server does; faster than `np.array`."""
    return np.fromiter(values, np.float32, len(values))


def json_id(value: Any) -> int | str:
    """An id for the wire."""
    return value if isinstance(value, int) else str(value)


def sort_key(value: Any) -> tuple[int, int]:
    """The server's order of ids: integers ascending, then UUIDs."""
    return (0, value) if isinstance(value, int) else (1, value.int)


def record(found: edge.Record, payload: bool, vector: bool, key: Key) -> Json:
    """A point as `scroll` and `retrieve` answer it."""
    shown: Json = {"id": json_id(found.id)}
    if payload:
        shown["payload"] = found.payload or {}
    if vector:
        shown["vector"] = vector_out(found.vector)
    if key is not None:
        shown["shard_key"] = key
    if found.order_value is not None:
        shown["order_value"] = found.order_value
    return shown


def scored(found: edge.ScoredPoint, payload: bool, vector: bool, key: Key) -> Json:
    """A point as a search answers it."""
    shown: Json = {"id": json_id(found.id), "version": found.version, "score": np.float32(found.score)}
    if payload:
        shown["payload"] = found.payload or {}
    if vector:
        shown["vector"] = vector_out(found.vector)
    if key is not None:
        shown["shard_key"] = key
    if found.order_value is not None:
        shown["order_value"] = found.order_value
    return shown


def wanted(given: Any) -> tuple[bool, Any]:
    """Return whether payload or vectors are wanted, and which for the engine."""
    if isinstance(given, dict):
        names = given.get("include")
        if names is not None:
            return True, edge.PayloadSelector.Include(names)
        return True, edge.PayloadSelector.Exclude(given.get("exclude") or [])
    return bool(given), given
