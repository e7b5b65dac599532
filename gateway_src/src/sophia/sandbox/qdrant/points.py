# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens to points: the bodies of the API's requests and what they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import qdrant_edge as edge

from .collection import Collection, Piece
from .errors import ServiceError, wrong
from .filters import filter_of, point_id
from .queries import Query, order_by, request_of
from .records import Batch, PointStruct, batched, json_id, points_of, record, scored, sort_key, vector_in, wanted

__all__ = ["OPERATIONS", "count", "facet", "query", "retrieve", "scroll"]

Json = dict[str, Any]
Ids = list[int | str]


class Upsert(msgspec.Struct, kw_only=True):
    """Points to put."""

    points: list[PointStruct] | None = None
    batch: Batch | None = None
    shard_key: Any = None


class Selection(msgspec.Struct, kw_only=True):
    """Points by ids or by a filter."""

    points: Ids | None = None
    filter: Json | None = None
    shard_key: Any = None


class SetPayload(Selection, kw_only=True):
    """Payload to set, below `key` if given."""

    payload: Json
    key: str | None = None


class DeletePayload(Selection, kw_only=True):
    """Members of the payload to delete."""

    keys: list[str]


class PointVectors(msgspec.Struct):
    """Vectors of a point."""

    id: int | str
    vector: Any


class UpdateVectors(msgspec.Struct, kw_only=True):
    """Vectors to put to points that exist."""

    points: list[PointVectors]
    shard_key: Any = None


class DeleteVectors(Selection, kw_only=True):
    """Vectors to delete, by name."""

    vector: list[str]


class Scroll(msgspec.Struct, kw_only=True):
    """A page of points."""

    offset: int | str | None = None
    limit: int = 10
    filter: Json | None = None
    with_payload: Any = True
    with_vector: Any = False
    order_by: Any = None
    shard_key: Any = None


class Retrieve(msgspec.Struct, kw_only=True):
    """Points by their ids."""

    ids: Ids
    with_payload: Any = True
    with_vector: Any = False
    shard_key: Any = None


class Count(msgspec.Struct, kw_only=True):
    """How many points; the stand-in always counts exactly."""

    filter: Json | None = None
    exact: bool = True
    shard_key: Any = None


class Facet(msgspec.Struct, kw_only=True):
    """How many points for each value of a payload field."""

    key: str
    limit: int = 10
    filter: Json | None = None
    exact: bool = False
    shard_key: Any = None


def upsert(collection: Collection, body: Upsert) -> int:
    """Put points."""
    points = body.points if body.points is not None else batched(body.batch) if body.batch is not None else None
    if points is None:
        raise ServiceError(400, "Format error in JSON body: neither points nor batch")
    if not points:
        raise ServiceError(422, "Validation error in JSON body: [points: Empty update request]")
    made = points_of(points)
    return collection.update(collection.for_writing(body.shard_key), lambda: edge.UpdateOperation.upsert_points(made))


def update_vectors(collection: Collection, body: UpdateVectors) -> int:
    """Put vectors. Raises `ServiceError` 404 for a point that is not there."""
    pieces = _existing(collection, [item.id for item in body.points], body.shard_key)
    vectors = [edge.PointVectors(point_id(item.id), vector_in(item.vector)) for item in body.points]
    return collection.update(pieces, lambda: edge.UpdateOperation.update_vectors(vectors))


def delete(collection: Collection, body: Selection) -> int:
    """Delete points."""
    return _on(collection, body, edge.UpdateOperation.delete_points, edge.UpdateOperation.delete_points_by_filter)


def delete_vectors(collection: Collection, body: DeleteVectors) -> int:
    """Delete vectors of points."""
    return _on(
        collection,
        body,
        lambda ids: edge.UpdateOperation.delete_vectors(ids, body.vector),
        lambda by: edge.UpdateOperation.delete_vectors_by_filter(by, body.vector),
        must_exist=True,
    )


def set_payload(collection: Collection, body: SetPayload) -> int:
    """Set members of the payload."""
    return _on(
        collection,
        body,
        lambda ids: edge.UpdateOperation.set_payload(ids, body.payload, body.key),
        lambda by: edge.UpdateOperation.set_payload_by_filter(by, body.payload, body.key),
        must_exist=True,
    )


def overwrite_payload(collection: Collection, body: SetPayload) -> int:
    """Replace the payload."""
    return _on(
        collection,
        body,
        lambda ids: edge.UpdateOperation.overwrite_payload(ids, body.payload, body.key),
        lambda by: edge.UpdateOperation.overwrite_payload_by_filter(by, body.payload, body.key),
        must_exist=True,
    )


def delete_payload(collection: Collection, body: DeletePayload) -> int:
    """Delete members of the payload."""
    return _on(
        collection,
        body,
        lambda ids: edge.UpdateOperation.delete_payload(ids, body.keys),
        lambda by: edge.UpdateOperation.delete_payload_by_filter(by, body.keys),
        must_exist=True,
    )


def clear_payload(collection: Collection, body: Selection) -> int:
    """Delete the payload."""
    return _on(
        collection,
        body,
        edge.UpdateOperation.clear_payload,
        edge.UpdateOperation.clear_payload_by_filter,
        must_exist=True,
    )


# The operations of `POST …/points/batch` by their names; the single endpoints do the same.
OPERATIONS: dict[str, tuple[type, Callable[[Collection, Any], int]]] = {
    "upsert": (Upsert, upsert),
    "delete": (Selection, delete),
    "set_payload": (SetPayload, set_payload),
    "overwrite_payload": (SetPayload, overwrite_payload),
    "delete_payload": (DeletePayload, delete_payload),
    "clear_payload": (Selection, clear_payload),
    "update_vectors": (UpdateVectors, update_vectors),
    "delete_vectors": (DeleteVectors, delete_vectors),
}


def _on(
    collection: Collection,
    body: Selection,
    by_ids: Callable[[list[Any]], edge.UpdateOperation],
    by_filter: Callable[[edge.Filter], edge.UpdateOperation],
    *,
    must_exist: bool = False,
) -> int:
    if body.points is not None:
        ids = [point_id(item) for item in body.points]
        pieces = (
            _existing(collection, body.points, body.shard_key) if must_exist else collection.selected(body.shard_key)
        )
        return collection.update(pieces, lambda: by_ids(ids))
    given = filter_of(body.filter)
    if given is None:
        raise ServiceError(400, "Format error in JSON body: neither points nor filter")
    return collection.update(collection.selected(body.shard_key), lambda: by_filter(given))


def _existing(collection: Collection, given: Ids, keys: Any) -> list[Piece]:
    """The pieces in which the points are. Raises `ServiceError` 404 where one of them is nowhere."""
    ids = [point_id(item) for item in given]
    pieces, seen = [], set()
    for piece in collection.selected(keys):
        found = {item.id for item in piece.shard.retrieve(ids, False, False)}
        if found:
            pieces.append(piece)
            seen |= found
    for item in ids:
        if item not in seen:
            raise ServiceError(404, f"Not found: No point with id {json_id(item)} found")
    return pieces


def scroll(collection: Collection, body: Scroll) -> Json:
    """A page in the order of ids, or of a payload field."""
    if body.limit < 1:
        raise ServiceError(
            422, f"Validation error in JSON body: [limit: value {body.limit} invalid, must be 1 or larger]"
        )
    if body.order_by is not None and body.offset is not None:
        raise wrong(
            "Cannot use an `offset` when using `order_by`. The alternative for paging is to use `order_by.start_from`"
        )
    payload, which_payload = wanted(body.with_payload)
    vector, which_vector = wanted(body.with_vector)
    request = edge.ScrollRequest(
        offset=None if body.offset is None else point_id(body.offset),
        limit=body.limit + (body.order_by is None),
        filter=filter_of(body.filter),
        with_payload=which_payload,
        with_vector=which_vector,
        order_by=None if body.order_by is None else order_by(body.order_by),
    )
    found = list(collection.merged(body.shard_key, lambda shard: shard.scroll(request)[0]))
    if body.order_by is not None and len(collection.pieces) > 1:
        descending = isinstance(body.order_by, dict) and body.order_by.get("direction") == "desc"
        found.sort(key=lambda pair: pair[1].order_value, reverse=descending)
    rest = found[body.limit :] if body.order_by is None else []
    points = [record(item, payload, vector, key) for key, item in found[: body.limit]]
    return {"points": points, "next_page_offset": json_id(rest[0][1].id) if rest else None}


def retrieve(collection: Collection, body: Retrieve) -> list[Json]:
    """Points in the order they were asked for; what is not there is left out."""
    payload, which_payload = wanted(body.with_payload)
    vector, which_vector = wanted(body.with_vector)
    ids = [point_id(item) for item in body.ids]
    found = collection.merged(body.shard_key, lambda shard: shard.retrieve(ids, which_payload, which_vector))
    place = {item: number for number, item in enumerate(dict.fromkeys(ids))}
    ordered = sorted(found, key=lambda pair: place[pair[1].id])
    return [record(item, payload, vector, key) for key, item in ordered]


def count(collection: Collection, body: Count) -> Json:
    """How many points."""
    request = edge.CountRequest(exact=True, filter=filter_of(body.filter))
    return {"count": sum(piece.shard.count(request) for piece in collection.selected(body.shard_key))}


def facet(collection: Collection, body: Facet) -> Json:
    """The most frequent values of an indexed field."""
    request = edge.FacetRequest(key=body.key, limit=body.limit, exact=body.exact, filter=filter_of(body.filter))
    totals: dict[Any, int] = {}
    for piece in collection.selected(body.shard_key):
        for hit in piece.shard.facet(request).hits:
            totals[hit.value] = totals.get(hit.value, 0) + hit.count
    ranked = sorted(totals.items(), key=lambda pair: (-pair[1], str(pair[0])))[: body.limit]
    return {"hits": [{"value": value, "count": number} for value, number in ranked]}


def query(collection: Collection, body: Query) -> list[Json]:
    """The best points. Over several shard keys each is asked by itself, and the answers are merged by score."""
    payload, which_payload = wanted(body.with_payload)
    vector, which_vector = wanted(body.with_vector)
    offset = body.offset or 0

    def lookup(given: Any, name: str) -> Any:
        for piece in collection.pieces:
            for item in piece.shard.retrieve([point_id(given)], False, [name] if name else True):
                found: Any = item.vector
                return found[name] if isinstance(found, dict) else found
        raise ServiceError(404, f"Not found: No point with id {given} found")

    request = request_of(body, lookup, which_payload, which_vector, offset + body.limit)
    found = list(collection.merged(body.shard_key, lambda shard: shard.query(request)))
    if len(collection.selected(body.shard_key)) > 1:
        found.sort(key=lambda pair: (_rank(collection, body, pair[1]), sort_key(pair[1].id)))
    return [scored(item, payload, vector, key) for key, item in found[offset : offset + body.limit]]


def _rank(collection: Collection, body: Query, item: edge.ScoredPoint) -> float:
    vectors = collection.config["params"]["vectors"]
    params = vectors if "size" in vectors else vectors.get(body.using or "", {})
    return item.score if params.get("distance") in ("Euclid", "Manhattan") else -item.score
