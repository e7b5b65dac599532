# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against two stand-ins: what it does, what it says, what it refuses."""

from __future__ import annotations

import json
import pathlib
import threading
import time

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff
from ansible_collections.sophia.platform.plugins.modules import qdrant_collection_info, qdrant_migrate
from tests.bench.vectors.servers import Server, fill
from tests.bench.vectors.trial import unlike

ALIAS = {"alias": "live"}


def names(server):
    return [item["name"] for item in server.call("GET", "/collections")["collections"]]


def aliases(server):
    return {item["alias_name"]: item["collection_name"] for item in server.call("GET", "/aliases")["aliases"]}


def put(server, number, collection="docs"):
    body = {"points": [{"id": number, "vector": [1.0] * 8, "payload": {"late": True}}]}
    server.call("PUT", f"/collections/{collection}/points?wait=true", body)


def delete(server, number):
    server.call("POST", "/collections/docs/points/delete?wait=true", {"points": [number]})


@pytest.fixture
def migrate(run_module, pair):
    """Run the module with the pair's options; nothing it says may hold a key."""

    def run(check=False, diff=False, **args):
        ended = run_module(qdrant_migrate, check=check, diff=diff, **pair.args(**args))
        assert not any(key in ended.output for key in pair.keys)
        assert "warnings" not in ended.result
        return ended

    return run


@pytest.fixture
def impatient(monkeypatch):
    """Wait a hundredth of the time between two tries."""
    place = "ansible_collections.sophia.platform.plugins.module_utils._qdrant.options.Backoff"
    monkeypatch.setattr(place, lambda tries: Backoff(tries, base=0.01))


def code(ended):
    assert ended.failed
    return ended.result["failure"]["code"]


def test_a_migration_from_its_plan_to_its_end(migrate, pair):
    pair.fill()
    source = pair.source.call("GET", "/collections/docs")
    foretold = migrate(check=True, diff=True, state="switched", **ALIAS).result
    assert names(pair.target) == []
    assert not pathlib.Path(pair.journal).exists()
    assert foretold["changed"]
    assert foretold["migration"]["steps"] == ["create", "index", "copy", "restore", "delta", "verify", "switch"]
    assert foretold["migration"]["estimate"]["points"] == 400
    assert foretold["migration"]["estimate"]["bytes"] > 400 * 100

    done = migrate(diff=True, state="switched", **ALIAS).result
    assert done["changed"]
    assert done["migration"]["copied"] == 400
    assert done["migration"]["phase"] == "switched"
    assert [item["differing"] for item in done["migration"]["passes"]] == [0]
    assert done["migration"]["verified"]["points"] == {"source": 400, "target": 400}
    assert done["migration"]["verified"]["neighbours"]["exact"] == 1.0
    assert done["migration"]["verified"]["neighbours"]["searches"] >= 4
    assert done["diff"]["before"] == foretold["diff"]["before"] == {"collection": None, "alias": {"live": None}}
    assert done["diff"]["after"] == foretold["diff"]["after"]
    assert json.loads(pathlib.Path(done["migration"]["progress_file"]).read_text(encoding="utf-8"))["phase"] == "delta"

    target = pair.target.call("GET", "/collections/docs")
    assert (target["config"], target["payload_schema"]) == (source["config"], source["payload_schema"])
    assert unlike_docs(pair) == ([], [], [])
    assert aliases(pair.target) == {"live": "docs"}
    assert names(pair.target) == names(pair.source) == ["docs"]

    put(pair.target, 7)
    again = migrate(state="switched", **ALIAS).result
    assert not again["changed"]
    assert again["migration"]["steps"] == []

    assert migrate(check=True, state="finalized", delete=True, **ALIAS).result["changed"]
    assert names(pair.source) == ["docs"]
    assert migrate(state="finalized", delete=True, **ALIAS).result["changed"]
    assert names(pair.source) == []
    assert not migrate(state="finalized", delete=True, **ALIAS).result["changed"]
    assert list(pathlib.Path(pair.journal).glob("*.json*")) == []


def unlike_docs(pair):
    return unlike(pair.source, pair.target)


def test_a_second_run_repairs_what_changed_and_a_third_has_nothing_to_do(migrate, pair):
    pair.fill()
    assert migrate().result["migration"]["phase"] == "verified"
    assert not migrate().result["changed"]
    put(pair.source, 100_000)
    put(pair.source, 1)
    delete(pair.source, 2)
    put(pair.target, 200_000)
    foretold = migrate(check=True).result
    assert foretold["changed"]
    assert foretold["migration"]["passes"] == [{"added": 1, "changed": 1, "removed": 2, "differing": 4, "points": 400}]
    assert sorted(foretold["migration"]["examples"]) == ["1", "100000", "2", "200000"]
    repaired = migrate(digests=True).result
    assert repaired["changed"]
    passes = repaired["migration"]["passes"]
    assert [item["differing"] for item in passes] == [4, 0]
    assert passes[0]["source_digest"] != passes[0]["target_digest"]
    assert passes[1]["source_digest"] == passes[1]["target_digest"]
    assert unlike_docs(pair) == ([], [], [])
    assert not migrate().result["changed"]
    assert not migrate(check=True).result["changed"]


def test_vectors_of_every_kind_and_shard_keys_are_moved(migrate, pair, run_module):
    body = {
        "vectors": {
            "dense": {"size": 4, "distance": "Cosine", "on_disk": True, "hnsw_config": {"m": 24}},
            "half": {"size": 4, "distance": "Dot", "datatype": "float16"},
            "many": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
        },
        "sparse_vectors": {"words": {"modifier": "idf"}},
        "sharding_method": "custom",
        "quantization_config": {"scalar": {"type": "int8", "quantile": 0.99}},
        "optimizers_config": {"indexing_threshold": 0},
    }
    pair.source.call("PUT", "/collections/docs", body)
    schema = {"type": "text", "tokenizer": "word", "lowercase": True, "min_token_len": 2}
    pair.source.call("PUT", "/collections/docs/index", {"field_name": "text", "field_schema": schema})
    for key in ("eu", 7):
        pair.source.call("PUT", "/collections/docs/shards", {"shard_key": key})
        points = [
            {
                "id": number,
                "vector": {
                    "dense": [0.1 * number, 0.2, 0.3, 0.4],
                    "half": [0.1, 0.2, 0.3, number / 7],
                    "many": [[1.0, 2.0], [number, 4.0]],
                    "words": {"indices": [9, number % 5], "values": [0.5, 1.5]},
                },
                "payload": {"text": f"in {key}"},
            }
            for number in range(1, 60)
        ]
        points.append({"id": 99, "vector": {"dense": [1, 0, 0, 0]}, "payload": {}})
        pair.source.call("PUT", "/collections/docs/points?wait=true", {"points": points, "shard_key": key})
    done = migrate(batch_bytes=2_000).result
    assert done["migration"]["copied"] == 120
    assert done["migration"]["passes"][0]["differing"] == 0
    infos = []
    for server in (pair.source, pair.target):
        args = {"url": server.url, "api_key": server.headers["api-key"], "digest": True}
        infos.append(run_module(qdrant_collection_info, **args).result["qdrant_collections"])
    assert infos[0] == infos[1]
    assert infos[0][0]["shard_keys"] == [7, "eu"]
    assert infos[0][0]["digest"].startswith("120:")
    assert not migrate().result["changed"]


def test_a_way_back_before_and_after_the_switch(migrate, pair):
    pair.fill(50)
    fill(pair.target, "older", 5, 8)
    pair.target.call("POST", "/collections/aliases", {"actions": [{"create_alias": {"alias_name": "live", "collection_name": "older"}}]})
    migrate(state="copied", **ALIAS)
    assert migrate(state="rolled_back", **ALIAS).result["migration"]["steps"] == ["delete", "forget"]
    assert names(pair.target) == ["older"]
    assert not migrate(state="rolled_back", **ALIAS).result["changed"]

    migrate(state="switched", **ALIAS)
    assert aliases(pair.target) == {"live": "docs"}
    foretold = migrate(check=True, diff=True, state="rolled_back", **ALIAS).result
    assert foretold["diff"]["after"]["alias"] == {"live": "older"}
    assert migrate(state="rolled_back", **ALIAS).result["changed"]
    assert aliases(pair.target) == {"live": "older"}
    assert names(pair.target) == ["docs", "older"]


def test_a_move_within_one_server(run_module, pair):
    pair.fill(50)
    args = {**pair.args(**ALIAS), "target_collection": "docs_2"}
    for name in ("target_url", "target_api_key"):
        del args[name]
    assert run_module(qdrant_migrate, state="switched", **args).result["changed"]
    assert aliases(pair.source) == {"live": "docs_2"}
    assert run_module(qdrant_migrate, state="finalized", delete=True, **args).result["changed"]
    assert names(pair.source) == ["docs_2"]
    assert aliases(pair.source) == {"live": "docs_2"}


def test_a_target_that_is_not_equal_is_left_alone_unless_adopted(migrate, pair):
    pair.fill(50)
    fill(pair.target, "docs", 60, 8, seed=2)
    before = pair.target.call("POST", "/collections/docs/points/scroll", {"limit": 100, "with_vector": True})
    for check in (False, True):
        refused = migrate(check=check)
        assert code(refused) == "target_differs"
        assert len(refused.result["failure"]["details"]["examples"]) == 60
    assert pair.target.call("POST", "/collections/docs/points/scroll", {"limit": 100, "with_vector": True}) == before
    pair.target.call("PATCH", "/collections/docs", {"hnsw_config": {"m": 32}})
    assert code(migrate()) == "target_differs"
    adopted = migrate(adopt=True).result
    assert adopted["migration"]["differences"] == [{"path": "hnsw_config.m", "source": 8, "target": 32}]
    assert unlike_docs(pair) == ([], [], [])
    assert not migrate(adopt=True).result["changed"]


def test_an_equal_target_without_a_journal_is_taken_as_it_is(migrate, pair, tmp_path):
    pair.fill(50)
    migrate()
    elsewhere = migrate(journal=str(tmp_path / "elsewhere"))
    assert not elsewhere.failed
    assert not elsewhere.result["changed"]


def test_what_is_refused(migrate, pair):
    assert code(migrate()) == "no_source"
    pair.fill(20)
    assert code(migrate(workers=0)) == "invalid_input"
    assert code(migrate(batch_bytes=17 << 20)) == "invalid_input"
    assert code(migrate(state="finalized", **ALIAS)) == "not_switched"
    assert code(migrate(source_api_key="wrong")) == "forbidden"
    assert code(migrate(target_api_key="")) == "unauthenticated"
    assert code(migrate(source_url="http://127.0.0.1:1", api_retries=0)) == "connect_failed"
    missing = migrate(state="switched")
    assert missing.failed and "alias" in missing.result["msg"]
    fill(pair.target, "taken", 1, 8)
    assert code(migrate(alias="taken")) == "invalid_input"


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 429, "retry_after": 0.01},
        {"kind": "status", "status": 503, "retry_after": 0.01},
        {"kind": "reset"},
        {"kind": "reset_after_accept"},
        {"kind": "cut"},
    ],
    ids=lambda fault: str(fault.get("status", fault["kind"])),
)
def test_faults_are_lived_through(migrate, pair, fault, impatient):
    pair.fill(100)
    pair.faults({"match": {"every_nth": 5}, "fault": fault})
    done = migrate(state="switched", batch_bytes=3_000, api_retries=8, **ALIAS)
    pair.faults()
    assert not done.failed, done.result
    assert unlike_docs(pair) == ([], [], [])
    assert names(pair.target) == ["docs"]
    assert aliases(pair.target) == {"live": "docs"}


def test_an_upsert_whose_answer_is_lost_is_repeated(migrate, pair):
    pair.fill(100)
    pair.faults({"match": {"path": "/points", "method": "PUT", "times": 1}, "fault": {"kind": "timeout_after_success"}})
    done = migrate(api_timeout=1, batch_bytes=3_000)
    assert not done.failed, done.result
    assert unlike_docs(pair) == ([], [], [])


def test_a_batch_that_is_too_large_is_halved(migrate, pair):
    pair.fill(400)
    pair.target.call("POST", "/_sandbox/faults", [{"match": {"path": "/points", "method": "PUT", "times": 3}, "fault": {"kind": "status", "status": 413}}])
    done = migrate()
    pair.faults()
    assert not done.failed, done.result
    assert done.result["migration"]["copied"] == 400
    assert done.result["migration"]["passes"][0]["differing"] == 0


def test_a_server_that_stays_down_fails_the_run_and_the_next_one_goes_on(migrate, pair):
    pair.fill(400)
    down = {"match": {"path": "/points", "method": "PUT", "every_nth": 3}, "fault": {"kind": "status", "status": 503}}
    pair.target.call("POST", "/_sandbox/faults", [down])
    broken = migrate(api_retries=0, batch_bytes=3_000, workers=1)
    assert code(broken) == "server_error"
    assert broken.result["changed"]
    copied = broken.result["migration"]["copied"]
    assert 0 < copied < 400
    pair.faults()
    done = migrate().result
    assert done["migration"]["copied"] == 400 - copied
    assert done["migration"]["passes"][0]["differing"] == 0


def test_a_writer_keeps_a_proof_from_being_made_but_not_a_copy(migrate, pair):
    pair.fill(300)
    stop = threading.Event()

    def write():
        number = 10_000
        while not stop.is_set():
            number += 1
            put(pair.source, number % 50 + 1)
            put(pair.source, number)
            time.sleep(0.002)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        lagging = migrate(state="copied", max_passes=2)
        assert not lagging.failed, lagging.result
        refused = migrate(state="switched", max_passes=2, **ALIAS)
    finally:
        stop.set()
        thread.join()
    assert code(refused) == "not_quiet"
    assert aliases(pair.target) == {}
    done = migrate(state="switched", **ALIAS)
    assert not done.failed
    assert unlike_docs(pair) == ([], [], [])


def test_a_rate_limit_is_kept(migrate, pair):
    pair.fill(300)
    began = time.monotonic()
    migrate(state="copied", rate_limit=300, batch_bytes=10_000)
    # 300 to copy and 300 to compare, less the last page of each thread.
    assert time.monotonic() - began > 1.2


def test_nothing_secret_is_written_down(migrate, pair):
    pair.fill(50)
    migrate(state="switched", **ALIAS)
    for path in pathlib.Path(pair.journal).iterdir():
        text = path.read_text(encoding="utf-8")
        assert not any(key in text for key in pair.keys)
        assert path.stat().st_mode & 0o077 == 0 or pathlib.Path(pair.journal).stat().st_mode & 0o077 == 0


def test_what_a_server_has(run_module, pair):
    pair.fill(30)
    pair.source.call("POST", "/collections/aliases", {"actions": [{"create_alias": {"alias_name": "live", "collection_name": "docs"}}]})
    args = {"url": pair.source.url, "api_key": pair.source.headers["api-key"]}
    found = run_module(qdrant_collection_info, **args)
    assert not found.result["changed"]
    assert pair.keys[0] not in found.output
    (docs,) = found.result["qdrant_collections"]
    assert (docs["name"], docs["aliases"], docs["points"], docs["shard_keys"]) == ("docs", ["live"], 30, [])
    assert docs["payload_schema"]["number"]["params"] == {"type": "integer", "lookup": True, "range": True}
    assert "digest" not in docs
    by_alias = run_module(qdrant_collection_info, name="live", check=True, **args).result
    assert by_alias["qdrant_collections"][0]["name"] == "docs"
    assert run_module(qdrant_collection_info, name="none", **args).result["qdrant_collections"] == []
    assert run_module(qdrant_collection_info, url=pair.source.url, api_key="wrong").result["failure"]["code"] == "forbidden"


def test_what_was_copied_outlives_the_target(run_module, pair, tmp_path):
    """The target is killed after the proof: what it answered to is still there."""
    pair.fill(200)
    target = Server(storage=str(tmp_path / "storage"), api_key=pair.keys[1])
    try:
        args = pair.args(target_url=target.url)
        assert not run_module(qdrant_migrate, **args).failed
    finally:
        target.close()
    again = Server(storage=str(tmp_path / "storage"), api_key=pair.keys[1])
    try:
        assert unlike(pair.source, again) == ([], [], [])
    finally:
        again.close()
