# SPDX-License-Identifier: GPL-3.0-or-later
"""Random operations on the stand-in and on the client's local mode: both must hold and answer the same.

Local mode is an implementation of its own, in Python, without the engine. It has no payload indexes, so none are made.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient
from qdrant_client import models as m

# A run against a real server must not meet a collection of somebody else.
NAME = "sophia-test-differential"
UUIDS = [f"{n}c56c793-69f3-4fbf-87e6-c4bf54c28c26" for n in (1, 5, 9)]
ids = st.sampled_from([0, 1, 2, 3, 2**63, *UUIDS])
# Eighths are exact in 32 bits, and so are their sums and products here: nothing differs by rounding.
numbers = st.integers(-16, 16).map(lambda n: n / 8)
vectors = st.fixed_dictionaries(
    {}, optional={"a": st.lists(numbers, min_size=3, max_size=3), "b": st.lists(numbers, min_size=2, max_size=2)}
)
values = st.one_of(
    st.integers(-3, 3),
    st.sampled_from(["red", "blue"]),
    st.booleans(),
    st.none(),
    st.lists(st.integers(0, 3), max_size=3),
)
payloads = st.dictionaries(st.sampled_from(["k", "l"]), values, max_size=2)
filters = st.one_of(
    st.builds(lambda i: m.Filter(must=[m.HasIdCondition(has_id=i)]), st.lists(ids, max_size=3)),
    st.builds(
        lambda k, v: m.Filter(must=[m.FieldCondition(key=k, match=m.MatchValue(value=v))]),
        st.sampled_from(["k", "l"]),
        st.one_of(st.integers(-3, 3), st.sampled_from(["red", "blue"]), st.booleans()),
    ),
    st.builds(
        lambda k, low: m.Filter(must_not=[m.FieldCondition(key=k, range=m.Range(gte=low))]),
        st.sampled_from(["k", "l"]),
        st.integers(-3, 3),
    ),
    st.builds(
        lambda k: m.Filter(should=[m.IsEmptyCondition(is_empty=m.PayloadField(key=k))]), st.sampled_from(["k", "l"])
    ),
)
operations = st.one_of(
    st.tuples(st.just("upsert"), ids, vectors, payloads),
    st.tuples(st.just("delete"), st.lists(ids, min_size=1, max_size=3)),
    st.tuples(st.just("delete_by"), filters),
    st.tuples(st.just("set"), filters, payloads),
    st.tuples(st.just("overwrite"), filters, payloads),
    st.tuples(st.just("unset"), filters, st.sampled_from(["k", "l"])),
    st.tuples(st.just("clear"), filters),
)


def apply(client: QdrantClient, operation: tuple[Any, ...]) -> None:
    match operation:
        case "upsert", point, vector, payload:
            client.upsert(NAME, [m.PointStruct(id=point, vector=vector, payload=payload)], wait=True)
        case "delete", points:
            client.delete(NAME, points, wait=True)
        case "delete_by", chosen:
            client.delete(NAME, m.FilterSelector(filter=chosen), wait=True)
        case "set", chosen, payload:
            client.set_payload(NAME, payload, points=chosen, wait=True)
        case "overwrite", chosen, payload:
            client.overwrite_payload(NAME, payload, points=chosen, wait=True)
        case "unset", chosen, key:
            client.delete_payload(NAME, [key], points=chosen, wait=True)
        case "clear", chosen:
            client.clear_payload(NAME, points_selector=m.FilterSelector(filter=chosen), wait=True)


def held(client: QdrantClient) -> dict[Any, Any]:
    points, rest = client.scroll(NAME, limit=100, with_vectors=True)
    assert rest is None
    return {str(point.id): (point.payload or {}, point.vector or {}) for point in points}


def best(client: QdrantClient, chosen: m.Filter) -> list[tuple[str, float]]:
    found = client.query_points(NAME, query=[1.0, -0.5, 0.25], using="a", query_filter=chosen, limit=100).points
    return sorted((str(point.id), round(point.score, 5)) for point in found)


@pytest.fixture
def local() -> Any:
    client = QdrantClient(":memory:")
    yield client
    client.close()


@hypothesis_settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(steps=st.lists(operations, min_size=1, max_size=25), chosen=filters)
def test_both_hold_the_same(
    client: QdrantClient, local: QdrantClient, steps: list[tuple[Any, ...]], chosen: m.Filter
) -> None:
    config = {
        "a": m.VectorParams(size=3, distance=m.Distance.DOT),
        "b": m.VectorParams(size=2, distance=m.Distance.EUCLID),
    }
    for one in (client, local):
        if one.collection_exists(NAME):
            one.delete_collection(NAME)
        one.create_collection(NAME, vectors_config=config)
        for step in steps:
            apply(one, step)
    assert held(client) == held(local)
    assert best(client, chosen) == best(local, chosen)
    assert client.count(NAME, chosen, exact=True) == local.count(NAME, chosen, exact=True)
