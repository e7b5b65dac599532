# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters as the REST API writes them, for the engine."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import qdrant_edge as edge

from .errors import wrong

__all__ = ["condition_of", "filter_of", "point_id"]

Json = dict[str, Any]


def point_id(value: Any) -> int | UUID | str:
    """A point's id: an unsigned integer or a UUID. Raises `ServiceError` 400."""
    if isinstance(value, bool):
        raise wrong("a point id is an unsigned integer or a UUID")
    if isinstance(value, int) and 0 <= value < 1 << 64:
        return value
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            pass
    raise wrong(f"value {value} is not a valid point ID, valid values are either an unsigned integer or a UUID")


def filter_of(given: Json | None) -> edge.Filter | None:
    """A filter; None for none. Raises `ServiceError` 400 for what is not a filter."""
    if given is None:
        return None
    unknown = set(given) - {"must", "should", "must_not", "min_should"}
    if unknown:
        raise wrong(f"unknown field of a filter: {sorted(unknown)[0]}")
    least = given.get("min_should")
    return edge.Filter(
        must=_conditions(given.get("must")),
        should=_conditions(given.get("should")),
        must_not=_conditions(given.get("must_not")),
        min_should=edge.MinShould(_conditions(least["conditions"]) or [], least["min_count"]) if least else None,
    )


def _conditions(given: Any) -> list[Any] | None:
    if given is None:
        return None
    return [condition_of(item) for item in (given if isinstance(given, list) else [given])]


def condition_of(given: Json) -> Any:
    """One condition, a filter among them."""
    match given:
        case {"has_id": ids}:
            return edge.HasIdCondition({point_id(item) for item in ids})
        case {"has_vector": name}:
            return edge.HasVectorCondition(name)
        case {"is_empty": {"key": key}}:
            return edge.IsEmptyCondition(key)
        case {"is_null": {"key": key}}:
            return edge.IsNullCondition(key)
        case {"nested": {"key": key, "filter": inner}}:
            found = filter_of(inner)
            if found is None:
                raise wrong("a nested condition needs a filter")
            return edge.NestedCondition(key, found)
        case {"key": _}:
            return _field(given)
    return filter_of(given)


def _field(given: Json) -> edge.FieldCondition:
    box, radius, polygon = given.get("geo_bounding_box"), given.get("geo_radius"), given.get("geo_polygon")
    return edge.FieldCondition(
        key=given["key"],
        match=_match(given["match"]) if given.get("match") is not None else None,
        range=_range(given["range"]) if given.get("range") is not None else None,
        geo_bounding_box=edge.GeoBoundingBox(_geo(box["top_left"]), _geo(box["bottom_right"])) if box else None,
        geo_radius=edge.GeoRadius(_geo(radius["center"]), radius["radius"]) if radius else None,
        geo_polygon=_polygon(polygon) if polygon else None,
        values_count=edge.ValuesCount(**given["values_count"]) if given.get("values_count") else None,
        is_empty=given.get("is_empty"),
        is_null=given.get("is_null"),
    )


def _match(given: Json) -> Any:
    match given:
        case {"value": value}:
            # The engine's bindings take Python's booleans for integers, and only NumPy's for booleans.
            return edge.MatchValue(np.bool_(value) if isinstance(value, bool) else value)  # type: ignore[arg-type]
        case {"text": text}:
            return edge.MatchText(text)
        case {"text_any": text}:
            return edge.MatchTextAny(text)
        case {"phrase": text}:
            return edge.MatchPhrase(text)
        case {"any": values}:
            return edge.MatchAny(values)
        case {"except": values}:
            return edge.MatchExcept(values)
    raise wrong("unknown match")


def _range(given: Json) -> Any:
    bounds = {name: given[name] for name in ("gte", "gt", "lte", "lt") if given.get(name) is not None}
    if any(isinstance(value, str) for value in bounds.values()):
        return edge.RangeDateTime(**bounds)
    return edge.RangeFloat(**bounds)


def _geo(given: Json) -> edge.GeoPoint:
    return edge.GeoPoint(given["lon"], given["lat"])


def _polygon(given: Json) -> edge.GeoPolygon:
    exterior = [_geo(point) for point in given["exterior"]["points"]]
    return edge.GeoPolygon(exterior, [[_geo(p) for p in line["points"]] for line in given.get("interiors") or []])
