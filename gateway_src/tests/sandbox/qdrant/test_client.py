# SPDX-License-Identifier: GPL-3.0-or-later
"""The vendor's own client over HTTP: it is understood, and what it reads back is what was put."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client import models as m
from qdrant_client.http.exceptions import UnexpectedResponse

UUID = "5c56c793-69f3-4fbf-87e6-c4bf54c28c26"
EARLIER = "0c56c793-69f3-4fbf-87e6-c4bf54c28c26"


def small(client: QdrantClient, name: str, points: int = 10, distance: m.Distance = m.Distance.DOT) -> None:
    client.create_collection(name, vectors_config=m.VectorParams(size=2, distance=distance))
    given = [m.PointStruct(id=i, vector=[float(i), 1.0], payload={"n": i, "odd": bool(i % 2)}) for i in range(points)]
    client.upsert(name, given, wait=True)


def refusal(error: pytest.ExceptionInfo[UnexpectedResponse]) -> tuple[int | None, str]:
    return error.value.status_code, str(error.value.structured()["status"]["error"])


def test_a_collection_is_reported_as_it_was_made(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config={
            "text": m.VectorParams(
                size=4, distance=m.Distance.COSINE, on_disk=True, hnsw_config=m.HnswConfigDiff(m=24)
            ),
            "parts": m.VectorParams(
                size=2,
                distance=m.Distance.DOT,
                datatype=m.Datatype.FLOAT16,
                multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
            ),
        },
        sparse_vectors_config={"words": m.SparseVectorParams(modifier=m.Modifier.IDF)},
        hnsw_config=m.HnswConfigDiff(m=8, ef_construct=64),
        optimizers_config=m.OptimizersConfigDiff(indexing_threshold=5000),
        quantization_config=m.ScalarQuantization(
            scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8, quantile=0.99)
        ),
        on_disk_payload=False,
    )
    info = client.get_collection(name)
    config = info.config
    assert isinstance(config.params.vectors, dict)
    assert config.params.vectors["text"].size == 4
    assert config.params.vectors["text"].on_disk
    assert config.params.vectors["text"].hnsw_config is not None
    assert config.params.vectors["text"].hnsw_config.m == 24
    assert config.params.vectors["parts"].multivector_config is not None
    assert config.params.sparse_vectors is not None
    assert config.params.sparse_vectors["words"].modifier == m.Modifier.IDF
    assert (config.hnsw_config.m, config.hnsw_config.ef_construct) == (8, 64)
    assert config.optimizer_config.indexing_threshold == 5000
    assert isinstance(config.quantization_config, m.ScalarQuantization)
    assert config.params.on_disk_payload is False
    assert info.points_count == 0


def test_an_update_changes_what_it_names_and_keeps_the_points(client: QdrantClient, name: str) -> None:
    small(client, name)
    client.update_collection(
        name, optimizers_config=m.OptimizersConfigDiff(indexing_threshold=0), hnsw_config=m.HnswConfigDiff(m=4)
    )
    config = client.get_collection(name).config
    assert (config.optimizer_config.indexing_threshold, config.hnsw_config.m, config.hnsw_config.ef_construct) == (
        0,
        4,
        100,
    )
    assert client.count(name, exact=True).count == 10


def test_vectors_of_every_kind_come_back(client: QdrantClient, name: str) -> None:
    client.create_collection(
        name,
        vectors_config={
            "dense": m.VectorParams(size=3, distance=m.Distance.EUCLID),
            "many": m.VectorParams(
                size=2,
                distance=m.Distance.DOT,
                multivector_config=m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM),
            ),
        },
        sparse_vectors_config={"words": m.SparseVectorParams()},
    )
    words = m.SparseVector(indices=[7, 2], values=[0.5, 1.5])
    client.upsert(
        name,
        [
            m.PointStruct(id=1, vector={"dense": [0.1, 0.2, 0.3], "many": [[1, 2], [3, 4]], "words": words}),
            m.PointStruct(id=2, vector={"words": words}),
        ],
        wait=True,
    )
    one, two = client.retrieve(name, [1, 2], with_vectors=True)
    assert isinstance(one.vector, dict)
    assert isinstance(two.vector, dict)
    assert one.vector["dense"] == [0.1, 0.2, 0.3]
    assert one.vector["many"] == [[1.0, 2.0], [3.0, 4.0]]
    found = one.vector["words"]
    assert isinstance(found, m.SparseVector)
    assert dict(zip(found.indices, found.values, strict=True)) == {2: 1.5, 7: 0.5}
    assert set(two.vector) == {"words"}


def test_a_number_is_the_shortest_that_reads_back_as_the_same_float(sandbox, name: str) -> None:  # type: ignore[no-untyped-def]
    import httpx

    client = sandbox.client()
    client.create_collection(name, vectors_config=m.VectorParams(size=1, distance=m.Distance.DOT))
    client.upsert(name, [m.PointStruct(id=1, vector=[0.1])], wait=True)
    body = {"ids": [1], "with_vector": True}
    assert '"vector":[0.1]' in httpx.post(f"{sandbox.url}/collections/{name}/points", json=body).text
    client.close()


def test_cosine_vectors_are_normalised_and_stay_as_they_are_when_put_again(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=m.VectorParams(size=8, distance=m.Distance.COSINE))
    vectors = np.random.default_rng(1).random((50, 8), dtype=np.float32)
    client.upsert(name, [m.PointStruct(id=i, vector=v.tolist()) for i, v in enumerate(vectors)], wait=True)
    read = client.scroll(name, limit=50, with_vectors=True)[0]
    assert all(np.linalg.norm(np.array(r.vector)) == pytest.approx(1.0, abs=1e-6) for r in read)
    client.upsert(name, [m.PointStruct(id=r.id, vector=r.vector) for r in read], wait=True)  # type: ignore[arg-type]
    assert client.scroll(name, limit=50, with_vectors=True)[0] == read


def test_scroll_goes_through_integers_then_uuids(client: QdrantClient, name: str) -> None:
    client.create_collection(name, vectors_config=m.VectorParams(size=1, distance=m.Distance.DOT))
    ids = [UUID, 7, 2**64 - 1, 0, EARLIER, 2**63]
    client.upsert(name, [m.PointStruct(id=i, vector=[1.0]) for i in ids], wait=True)
    pages, offset = [], None
    while True:
        points, offset = client.scroll(name, limit=2, offset=offset)
        pages.append([point.id for point in points])
        if offset is None:
            break
    assert pages == [[0, 7], [2**63, 2**64 - 1], [EARLIER, UUID]]
    assert [p.id for p in client.scroll(name, offset=8, limit=1)[0]] == [2**63]


def test_payload_is_set_overwritten_and_deleted(client: QdrantClient, name: str) -> None:
    small(client, name, 4)
    client.set_payload(name, {"a": {"b": 1}}, points=[0], wait=True)
    client.set_payload(name, {"c": 2}, points=[0], key="a", wait=True)
    client.overwrite_payload(name, {"only": True}, points=[1], wait=True)
    client.delete_payload(
        name, ["n"], points=m.Filter(must=[m.FieldCondition(key="n", match=m.MatchValue(value=2))]), wait=True
    )
    client.clear_payload(name, points_selector=[3], wait=True)
    found = [point.payload for point in client.retrieve(name, [0, 1, 2, 3])]
    assert found == [{"n": 0, "odd": False, "a": {"b": 1, "c": 2}}, {"only": True}, {"odd": False}, {}]


def test_vectors_are_updated_and_deleted(client: QdrantClient, name: str) -> None:
    vectors = {which: m.VectorParams(size=1, distance=m.Distance.DOT) for which in ("a", "b")}
    client.create_collection(name, vectors_config=vectors)
    client.upsert(name, [m.PointStruct(id=1, vector={"a": [1.0], "b": [2.0]})], wait=True)
    client.update_vectors(name, [m.PointVectors(id=1, vector={"a": [3.0]})], wait=True)
    client.delete_vectors(name, vectors=["b"], points=[1], wait=True)
    assert client.retrieve(name, [1], with_vectors=True)[0].vector == {"a": [3.0]}


def test_a_batch_does_one_operation_after_the_other(client: QdrantClient, name: str) -> None:
    small(client, name, 3)
    client.batch_update_points(
        name,
        [
            m.DeleteOperation(delete=m.PointIdsList(points=[0])),
            m.UpsertOperation(
                upsert=m.PointsBatch(batch=m.Batch(ids=[9, 8], vectors=[[1, 1], [2, 2]], payloads=[{"n": 9}, {"n": 8}]))
            ),
            m.SetPayloadOperation(set_payload=m.SetPayload(payload={"x": 1}, points=[9])),
        ],
        wait=True,
    )
    found = {point.id: point.payload for point in client.scroll(name)[0]}
    assert found == {1: {"n": 1, "odd": True}, 2: {"n": 2, "odd": False}, 8: {"n": 8}, 9: {"n": 9, "x": 1}}


@pytest.mark.parametrize(
    "schema",
    [
        m.KeywordIndexParams(type=m.KeywordIndexType.KEYWORD, is_tenant=True),
        m.IntegerIndexParams(type=m.IntegerIndexType.INTEGER, lookup=False, range=True),
        m.FloatIndexParams(type=m.FloatIndexType.FLOAT, on_disk=True),
        m.DatetimeIndexParams(type=m.DatetimeIndexType.DATETIME, is_principal=True),
        m.TextIndexParams(type=m.TextIndexType.TEXT, tokenizer=m.TokenizerType.WORD, min_token_len=2, lowercase=True),
        m.PayloadSchemaType.GEO,
        m.PayloadSchemaType.BOOL,
        m.PayloadSchemaType.UUID,
    ],
    ids=lambda schema: getattr(schema, "type", schema).value,
)
def test_payload_indexes_keep_their_parameters(client: QdrantClient, name: str, schema: object) -> None:
    small(client, name)
    client.create_payload_index(name, "field.path", schema, wait=True)  # type: ignore[arg-type]
    index = client.get_collection(name).payload_schema["field.path"]
    if isinstance(schema, m.PayloadSchemaType):
        assert index.data_type == schema
    else:
        given = schema.model_dump(exclude_none=True)  # type: ignore[attr-defined]
        assert index.params is not None
        assert given.items() <= index.params.model_dump(exclude_none=True).items()
    client.delete_payload_index(name, "field.path", wait=True)
    assert client.get_collection(name).payload_schema == {}


def test_searches(client: QdrantClient, name: str) -> None:
    small(client, name)
    best = client.query_points(name, query=[1.0, 0.0], limit=3).points
    assert [(p.id, p.score) for p in best] == [(9, 9.0), (8, 8.0), (7, 7.0)]
    odd = m.Filter(must=[m.FieldCondition(key="odd", match=m.MatchValue(value=True))])
    found = client.query_points(name, query=[1.0, 0.0], query_filter=odd, limit=2, offset=1, with_vectors=True).points
    assert [(p.id, p.vector) for p in found] == [(7, [7.0, 1.0]), (5, [5.0, 1.0])]
    assert [p.id for p in client.query_points(name, query=9, limit=2).points] == [8, 7]
    threshold = client.query_points(
        name, query=[1.0, 0.0], score_threshold=7.5, search_params=m.SearchParams(exact=True)
    ).points
    assert [p.id for p in threshold] == [9, 8]
    fused = client.query_points(
        name,
        prefetch=[m.Prefetch(query=[1.0, 0.0], limit=3), m.Prefetch(query=[1.0, 0.0], filter=odd, limit=3)],
        query=m.FusionQuery(fusion=m.Fusion.RRF),
        limit=1,
    ).points
    assert [p.id for p in fused] == [9]
    batch = client.query_batch_points(
        name, [m.QueryRequest(query=[1.0, 0.0], limit=1), m.QueryRequest(query=[-1.0, 0.0], limit=1)]
    )
    assert [response.points[0].id for response in batch] == [9, 0]


def test_a_payload_field_orders_and_counts(client: QdrantClient, name: str) -> None:
    small(client, name)
    client.create_payload_index(name, "n", m.PayloadSchemaType.INTEGER, wait=True)
    client.create_payload_index(name, "odd", m.PayloadSchemaType.BOOL, wait=True)
    ordered = client.scroll(name, order_by=m.OrderBy(key="n", direction=m.Direction.DESC), limit=3)[0]
    assert [p.id for p in ordered] == [9, 8, 7]
    assert {hit.value: hit.count for hit in client.facet(name, "odd").hits} == {True: 5, False: 5}
    assert client.count(name, m.Filter(must=[m.FieldCondition(key="n", range=m.Range(gte=3, lt=6))])).count == 3


def test_aliases_change_all_at_once_or_not_at_all(client: QdrantClient, name: str) -> None:
    small(client, name, 1)
    small(client, name + "-2", 2)
    alias = name + "-live"

    def create(collection: str) -> m.CreateAliasOperation:
        return m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name=collection, alias_name=alias))

    remove = m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name=alias))
    client.update_collection_aliases([create(name)])
    assert client.count(alias).count == 1
    client.update_collection_aliases([remove, create(name + "-2")])
    assert client.count(alias).count == 2
    with pytest.raises(UnexpectedResponse) as error:
        client.update_collection_aliases([remove, create(name + "-none")])
    assert refusal(error)[0] == 404
    assert client.count(alias).count == 2
    assert [(a.alias_name, a.collection_name) for a in client.get_collection_aliases(name + "-2").aliases] == [
        (alias, name + "-2")
    ]
    client.delete_collection(name + "-2")
    assert alias not in [a.alias_name for a in client.get_aliases().aliases]


def test_refusals_are_worded_as_the_server_words_them(client: QdrantClient, name: str) -> None:
    small(client, name)
    with pytest.raises(UnexpectedResponse) as error:
        client.get_collection(name + "-none")
    assert refusal(error) == (404, f"Not found: Collection `{name}-none` doesn't exist!")
    with pytest.raises(UnexpectedResponse) as error:
        client.upsert(name, [m.PointStruct(id=1, vector=[1.0])], wait=True)
    assert refusal(error) == (400, "Wrong input: Vector dimension error: expected dim: 2, got 1")
    with pytest.raises(UnexpectedResponse) as error:
        client.create_collection(name, vectors_config=m.VectorParams(size=2, distance=m.Distance.DOT))
    assert refusal(error) == (409, f"Wrong input: Collection `{name}` already exists!")
    with pytest.raises(UnexpectedResponse) as error:
        client.scroll(name, limit=0)
    assert error.value.status_code == 422


# From here on what a single server without a cluster refuses, so the stand-in only.


def test_shard_keys_tell_points_apart(sandbox, name: str) -> None:  # type: ignore[no-untyped-def]
    client = sandbox.client()
    vectors = m.VectorParams(size=1, distance=m.Distance.DOT)
    client.create_collection(name, vectors_config=vectors, sharding_method=m.ShardingMethod.CUSTOM)
    for key in ("eu", 7):
        client.create_shard_key(name, key)
    client.upsert(name, [m.PointStruct(id=1, vector=[1.0])], shard_key_selector="eu", wait=True)
    client.upsert(
        name, [m.PointStruct(id=1, vector=[2.0]), m.PointStruct(id=2, vector=[3.0])], shard_key_selector=7, wait=True
    )
    with pytest.raises(UnexpectedResponse) as error:
        client.upsert(name, [m.PointStruct(id=1, vector=[1.0])], wait=True)
    assert refusal(error) == (400, "Wrong input: Shard key not specified")
    assert client.count(name).count == 3
    assert client.count(name, shard_key_selector=7).count == 2
    found = client.scroll(name, with_vectors=True, shard_key_selector=["eu"])[0]
    assert [(p.id, p.vector, p.shard_key) for p in found] == [(1, [1.0], "eu")]
    best = client.query_points(name, query=[1.0], limit=2).points
    assert [(p.id, p.shard_key) for p in best] == [(2, 7), (1, 7)]
    client.delete_shard_key(name, 7)
    assert client.count(name).count == 1
    client.close()


def test_a_snapshot_brings_a_collection_back(sandbox, name: str) -> None:  # type: ignore[no-untyped-def]
    import httpx

    client = sandbox.client()
    small(client, name)
    client.create_payload_index(name, "n", m.PayloadSchemaType.INTEGER, wait=True)
    made = client.create_snapshot(name, wait=True)
    assert made is not None
    assert made.checksum is not None
    assert [found.name for found in client.list_snapshots(name)] == [made.name]
    raw = httpx.get(f"{sandbox.url}/collections/{name}/snapshots/{made.name}").content
    assert len(raw) == made.size
    before, info = client.scroll(name, with_vectors=True)[0], client.get_collection(name)
    client.delete(name, [1, 2, 3], wait=True)
    upload = f"{sandbox.url}/collections/{name}-copy/snapshots/upload"
    wrong = httpx.post(upload, params={"checksum": "0" * 64}, files={"snapshot": raw})
    assert wrong.status_code == 400
    assert "checksum mismatch" in wrong.json()["status"]["error"]
    assert not client.collection_exists(name + "-copy")
    httpx.post(upload, params={"checksum": made.checksum}, files={"snapshot": raw}).raise_for_status()
    assert client.scroll(name + "-copy", with_vectors=True)[0] == before
    assert client.get_collection(name + "-copy").payload_schema == info.payload_schema
    client.delete_snapshot(name, made.name, wait=True)
    assert client.list_snapshots(name) == []
    client.close()
