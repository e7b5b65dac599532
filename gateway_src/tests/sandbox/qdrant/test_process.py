# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a process shows: kills, keys, faults on the wire."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path

import httpx
import pytest
from qdrant_client import models as m

from sandbox.qdrant.conftest import Sandbox

SCROLL = "/points/scroll"


def upsert(url: str, number: int, timeout: float = 10.0) -> httpx.Response:
    body = {"points": [{"id": number, "vector": [1.0, 2.0], "payload": {"n": number}}]}
    return httpx.put(f"{url}/collections/c/points?wait=true", json=body, timeout=timeout)


def create(url: str) -> None:
    httpx.put(f"{url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()


def count(url: str) -> int:
    answer = httpx.post(f"{url}/collections/c/points/count", json={"exact": True})
    return int(answer.json()["result"]["count"])


def test_what_was_answered_is_there_after_a_kill(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    try:
        create(sandbox.url)
        httpx.put(
            f"{sandbox.url}/collections/c/index", json={"field_name": "n", "field_schema": "integer"}
        ).raise_for_status()
        alias = {"actions": [{"create_alias": {"alias_name": "live", "collection_name": "c"}}]}
        httpx.post(f"{sandbox.url}/collections/aliases", json=alias).raise_for_status()
        answered = 0
        for _ in range(4):
            killer = threading.Timer(random.uniform(0.05, 0.2), sandbox.kill)
            killer.start()
            while True:
                try:
                    upsert(sandbox.url, answered).raise_for_status()
                except httpx.HTTPError:
                    break
                answered += 1
            killer.join()
            sandbox.start()
            # The one that was under way may have been written.
            assert answered <= count(sandbox.url) <= answered + 1
            answered = count(sandbox.url)
        info = httpx.get(f"{sandbox.url}/collections/live").json()["result"]
        assert info["payload_schema"] == {"n": {"data_type": "integer", "points": answered}}
    finally:
        sandbox.kill()


def test_a_collection_half_made_or_half_removed_is_swept(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path)
    create(sandbox.url)
    sandbox.kill()
    for left in (".new-d", ".trash-e"):
        (tmp_path / "collections" / left / "shards").mkdir(parents=True)
    sandbox.start()
    try:
        names = [item["name"] for item in httpx.get(f"{sandbox.url}/collections").json()["result"]["collections"]]
        assert names == ["c"]
        assert [path.name for path in (tmp_path / "collections").iterdir()] == ["c"]
    finally:
        sandbox.kill()


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    sandbox = Sandbox(tmp_path, api_key="secret-of-the-test")
    try:
        assert httpx.get(f"{sandbox.url}/healthz").status_code == 200
        assert httpx.get(f"{sandbox.url}/collections").status_code == 401
        assert httpx.get(f"{sandbox.url}/collections", headers={"api-key": "no"}).status_code == 403
        for headers in ({"api-key": "secret-of-the-test"}, {"authorization": "Bearer secret-of-the-test"}):
            assert httpx.get(f"{sandbox.url}/collections", headers=headers).status_code == 200
    finally:
        sandbox.kill()


def test_the_index_is_built_in_the_background_unless_it_is_off(sandbox: Sandbox) -> None:
    client = sandbox.client()
    dims = 64
    for name, threshold in (("on", 10), ("off", 0)):
        client.create_collection(
            name,
            vectors_config=m.VectorParams(size=dims, distance=m.Distance.COSINE),
            optimizers_config=m.OptimizersConfigDiff(indexing_threshold=threshold),
            hnsw_config=m.HnswConfigDiff(full_scan_threshold=10),
        )
        rng = random.Random(1)
        client.upsert(
            name, [m.PointStruct(id=i, vector=[rng.random() for _ in range(dims)]) for i in range(400)], wait=True
        )
    assert client.get_collection("on").status == m.CollectionStatus.YELLOW
    end = time.monotonic() + 60
    while client.get_collection("on").status != m.CollectionStatus.GREEN:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert client.get_collection("on").indexed_vectors_count == 400
    assert client.get_collection("off").indexed_vectors_count == 0
    client.update_collection("off", optimizers_config=m.OptimizersConfigDiff(indexing_threshold=10))
    while client.get_collection("off").status != m.CollectionStatus.GREEN:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert client.get_collection("off").indexed_vectors_count == 400
    client.close()


def test_a_status_does_nothing_and_says_when_to_come_again(sandbox: Sandbox) -> None:
    create(sandbox.url)
    sandbox.faults(
        {"match": {"path": "/points", "times": 1}, "fault": {"kind": "status", "status": 429, "retry_after": 2}}
    )
    answer = upsert(sandbox.url, 1)
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert "error" in answer.json()["status"]
    assert count(sandbox.url) == 0
    assert upsert(sandbox.url, 1).status_code == 200
    assert httpx.get(f"{sandbox.url}/_sandbox/faults").json()["data"][0]["struck"] == 1


@pytest.mark.parametrize(
    ("kind", "done"), [("reset", 0), ("reset_after_accept", 1), ("timeout_after_success", 1), ("cut", 1)]
)
def test_a_connection_ends_before_or_after_the_work(sandbox: Sandbox, kind: str, done: int) -> None:
    create(sandbox.url)
    sandbox.faults({"match": {"path": "/points", "method": "put"}, "fault": {"kind": kind}})
    with pytest.raises(httpx.TransportError):
        upsert(sandbox.url, 1, timeout=1.0)
    assert count(sandbox.url) == done


def test_slowness_and_a_fault_for_one_request(sandbox: Sandbox) -> None:
    create(sandbox.url)
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{sandbox.url}/collections/c", headers={"x-sandbox-fault": "slow:5"}, timeout=0.5)
    assert httpx.get(f"{sandbox.url}/collections/c", headers={"x-sandbox-fault": "status:503"}).status_code == 503
    assert httpx.get(f"{sandbox.url}/collections/c", headers={"x-sandbox-fault": "nonsense"}).status_code == 400
    rule = {"match": {"every_nth": 2}, "fault": {"kind": "status", "status": 500}}
    sandbox.faults(rule)
    assert [httpx.get(f"{sandbox.url}/collections/c").status_code for _ in range(4)] == [200, 500, 200, 500]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/collections/d", {"vectors": {"size": "x", "distance": "Dot"}}, 400),
        ("PUT", "/collections/d", {"vectors": {"size": 2, "distance": "None"}}, 400),
        ("PUT", "/collections/c/points", {"points": []}, 422),
        ("PUT", "/collections/c/points", {"points": [{"id": -1, "vector": [1, 2]}]}, 400),
        ("PUT", "/collections/c/points", {"points": [{"id": "x", "vector": [1, 2]}]}, 400),
        ("POST", "/collections/c/points/scroll", {"filter": {"must": [{"key": "a"}], "nonsense": 1}}, 400),
        ("POST", "/collections/c/points/query", {"query": {"formula": {"sum": []}}}, 400),
        ("POST", "/collections/c/points/delete", {}, 400),
        ("PUT", "/collections/c/index", {"field_name": "a", "field_schema": "nonsense"}, 400),
        ("POST", "/collections/c/nonsense", {}, 404),
        ("PUT", "/collections/c/snapshots/recover", {"location": "http://example.org/x"}, 400),
        ("PUT", "/collections/c/snapshots/recover", {"location": "file:///dev/null"}, 400),
    ],
)
def test_nonsense_is_refused(sandbox: Sandbox, method: str, path: str, body: object, status: int) -> None:
    create(sandbox.url)
    answer = httpx.request(method, sandbox.url + path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["status"]["error"]
    assert count(sandbox.url) == 0
