# SPDX-License-Identifier: GPL-3.0-or-later
"""Searches as the REST API writes them, for the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import qdrant_edge as edge

from .errors import wrong
from .filters import filter_of, point_id
from .records import vector_in

__all__ = ["Query", "Search", "as_query", "order_by", "request_of"]

Json = dict[str, Any]
# The vector of a point by its id and the vector's name, for queries that name a point.
Lookup = Callable[[Any, str], Any]


class Query(msgspec.Struct, kw_only=True):
    """The body of `POST …/points/query`, and a prefetch in it."""

    query: Any = None
    prefetch: Any = None
    using: str | None = None
    filter: Json | None = None
    params: Json | None = None
    score_threshold: float | None = None
    limit: int = 10
    offset: int | None = None
    with_payload: Any = None
    with_vector: Any = None
    lookup_from: Json | None = None
    shard_key: Any = None


class Search(msgspec.Struct, kw_only=True):
    """The body of the older `POST …/points/search`."""

    vector: Any
    limit: int
    filter: Json | None = None
    params: Json | None = None
    offset: int | None = None
    with_payload: Any = None
    with_vector: Any = None
    score_threshold: float | None = None
    shard_key: Any = None


def as_query(search: Search) -> Query:
    """The same as a query."""
    vector, using = search.vector, None
    if isinstance(vector, dict) and "name" in vector:
        vector, using = vector["vector"], vector["name"]
    return Query(
        query=vector,
        using=using,
        limit=search.limit,
        filter=search.filter,
        params=search.params,
        offset=search.offset,
        with_payload=search.with_payload,
        with_vector=search.with_vector,
        score_threshold=search.score_threshold,
        shard_key=search.shard_key,
    )


def request_of(body: Query, lookup: Lookup, payload: Any, vector: Any, limit: int) -> edge.QueryRequest:
    """The engine's request for `limit` points. Raises `ServiceError` 400."""
    return edge.QueryRequest(
        limit=limit,
        query=_scoring(body.query, body.using, lookup),
        prefetches=_prefetches(body.prefetch, lookup),
        filter=_without_named(body),
        score_threshold=body.score_threshold,
        params=_params(body.params),
        with_payload=payload,
        with_vector=vector,
    )


def _prefetches(given: Any, lookup: Lookup) -> list[edge.Prefetch] | None:
    if not given:
        return None
    made = []
    for item in given if isinstance(given, list) else [given]:
        body = msgspec.convert(item, Query)
        made.append(
            edge.Prefetch(
                limit=body.limit,
                query=_scoring(body.query, body.using, lookup),
                prefetches=_prefetches(body.prefetch, lookup),
                params=_params(body.params),
                filter=_without_named(body),
                score_threshold=body.score_threshold,
            )
        )
    return made


def _without_named(body: Query) -> edge.Filter | None:
    """The filter; the server leaves out the very points that the query names."""
    given = filter_of(body.filter)
    named: set[Any] = {point_id(item) for item in _named(body.query) if isinstance(item, int | str)}
    if not named:
        return given
    return edge.Filter(must=None if given is None else [given], must_not=[edge.HasIdCondition(named)])


def _named(given: Any) -> list[Any]:
    match given:
        case int() | str():
            return [given]
        case {"nearest": nearest}:
            return [nearest]
        case {"recommend": asked}:
            return [*(asked.get("positive") or []), *(asked.get("negative") or [])]
    return []


def _params(given: Json | None) -> edge.SearchParams | None:
    if not given:
        return None
    quantization = given.get("quantization")
    return edge.SearchParams(
        hnsw_ef=given.get("hnsw_ef"),
        exact=bool(given.get("exact")),
        quantization=edge.QuantizationSearchParams(
            bool(quantization.get("ignore")), quantization.get("rescore"), quantization.get("oversampling")
        )
        if quantization
        else None,
        indexed_only=bool(given.get("indexed_only")),
    )


def order_by(given: Any) -> edge.OrderBy:
    """An order by a payload field."""
    if isinstance(given, str):
        return edge.OrderBy(key=given)
    directions = {"asc": edge.Direction.Asc, "desc": edge.Direction.Desc}
    direction = directions[given["direction"]] if given.get("direction") else None
    return edge.OrderBy(key=given["key"], direction=direction, start_from=given.get("start_from"))


def _scoring(given: Any, using: str | None, lookup: Lookup) -> Any:
    def vector(value: Any) -> Any:
        if isinstance(value, (int, str)):
            return lookup(value, using or "")
        return vector_in(value)

    match given:
        case None:
            return None
        case {"fusion": "rrf"}:
            return edge.Fusion.Rrf(2)
        case {"rrf": {"k": k}}:
            return edge.Fusion.Rrf(k)
        case {"fusion": "dbsf"}:
            return edge.Fusion.Dbsf()
        case {"order_by": order}:
            return order_by(order)
        case {"sample": "random"}:
            return edge.Sample.Random
        case {"nearest": nearest, "mmr": mmr} if mmr is not None:
            diversity = mmr.get("diversity")
            return edge.Mmr(
                vector(nearest),
                1.0 - (0.5 if diversity is None else diversity),
                mmr.get("candidates_limit", 100),
                using,
            )
        case {"nearest": nearest}:
            return edge.Query.Nearest(vector(nearest), using)
        case {"recommend": asked}:
            return _recommend(asked, using, vector)
        case {"discover": asked}:
            return edge.Query.Discover(
                edge.DiscoverQuery(vector(asked["target"]), _pairs(asked["context"], vector)), using
            )
        case {"context": pairs}:
            return edge.Query.Context(edge.ContextQuery(_pairs(pairs, vector)), using)
        case {"formula": _} | {"relevance_feedback": _}:
            raise wrong("this kind of query is not served by this stand-in")
    return edge.Query.Nearest(vector(given), using)


def _recommend(asked: Json, using: str | None, vector: Callable[[Any], Any]) -> edge.Query:
    positive = [vector(item) for item in asked.get("positive") or []]
    negative = [vector(item) for item in asked.get("negative") or []]
    match asked.get("strategy"):
        case "best_score":
            return edge.Query.RecommendBestScore(edge.RecommendQuery(positive, negative), using)
        case "sum_scores":
            return edge.Query.RecommendSumScores(edge.RecommendQuery(positive, negative), using)
    if not positive:
        raise wrong("at least one positive vector is needed with the average_vector strategy")
    # The server's `average_vector`: mean(positive) twice, less mean(negative) (docs: "Recommendation API").
    wide = [sum(column) / len(positive) for column in zip(*positive, strict=True)]
    if negative:
        away = [sum(column) / len(negative) for column in zip(*negative, strict=True)]
        wide = [2 * a - b for a, b in zip(wide, away, strict=True)]
    return edge.Query.Nearest(wide, using)


def _pairs(given: Any, vector: Callable[[Any], Any]) -> list[edge.ContextPair]:
    pairs = given if isinstance(given, list) else [given]
    return [edge.ContextPair(vector(pair["positive"]), vector(pair["negative"])) for pair in pairs if pair]
