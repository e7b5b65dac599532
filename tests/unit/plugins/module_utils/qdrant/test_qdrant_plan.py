# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run decides to do, and how it goes about it, without a server."""

from __future__ import annotations

import random
import threading

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._errors import (
    BadResponse,
    Forbidden,
    InvalidInput,
    NotFound,
    Rejected,
    ServerError,
    StateConflict,
    Timeout,
)
from ansible_collections.sophia.platform.plugins.module_utils._qdrant import model, verify
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.copying import lay, range_size
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Range, Story
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.model import Collection
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.page import Page, below
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.plan import Seen, Wanted, plan
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.work import Pace, Progress, Size, adapting, in_parallel

CONFIG = {
    "params": {"vectors": {"size": 4, "distance": "Cosine"}, "shard_number": 1, "on_disk_payload": True, "replication_factor": 1},
    "hnsw_config": {"m": 16, "ef_construct": 100},
    "optimizer_config": {"indexing_threshold": 10000, "max_segment_size": None},
    "wal_config": {"wal_capacity_mb": 32},
    "quantization_config": None,
}
SCHEMA = {"tenant": {"data_type": "keyword", "params": {"type": "keyword", "is_tenant": True}}, "n": {"data_type": "integer"}}
OFF = {**CONFIG, "optimizer_config": {"indexing_threshold": 0}}


def collection(name="docs", config=None, schema=None, points=10, **more):
    return Collection(name, CONFIG if config is None else config, SCHEMA if schema is None else schema, points, **more)


def decide(state="verified", source="docs", target=None, story=None, aliases=None, names=("docs",), same=False, **wanted):
    source = collection() if source == "docs" else source
    seen = Seen(source, target, tuple(names), aliases or {}, story, same)
    return plan(Wanted(state, "docs", wanted.pop("to", "docs"), **wanted), seen)


def told(phase, created=True, **more):
    return Story(created=created, config=model.config_hash(collection()), phase=phase, **more)


def code(state="verified", error=StateConflict, **given):
    with pytest.raises(error) as raised:
        decide(state, **given)
    return raised.value.code


def test_a_first_run_does_everything_and_says_so():
    todo = decide("switched", alias="live", aliases={"live": "old"})
    assert todo.steps == ("create", "index", "copy", "restore", "delta", "verify", "switch")
    assert todo.indexes == ("n", "tenant")
    assert todo.created
    assert (todo.alias_from, todo.alias_to) == ("old", "docs")
    assert decide("copied").steps == ("create", "index", "copy", "restore", "delta")


def test_a_run_that_was_cut_off_goes_on():
    bare = collection(config=OFF, schema={}, points=3)
    assert decide(target=bare, story=told("copy")).steps == ("index", "copy", "restore", "delta", "verify")
    assert decide(target=collection(config=OFF), story=told("copied")).steps == ("restore", "delta", "verify")
    assert decide(target=collection(), story=told("verified")).steps == ("delta", "verify")
    # The journal comes first, so a collection may be missing that it says is made.
    assert decide(target=None, story=told("create")).created


def test_a_target_that_exists():
    assert decide(target=collection(points=0)).steps == ("copy", "delta", "verify")
    unknown = decide(target=collection())
    assert unknown.check
    assert unknown.steps == ("delta", "verify")
    other = collection(config={**CONFIG, "hnsw_config": {"m": 32, "ef_construct": 100}})
    assert code(target=other) == "target_differs"
    assert code(target=collection(config=OFF)) == "target_differs"
    assert code(target=collection(schema={**SCHEMA, "n": {"data_type": "float"}})) == "target_differs"
    adopted = decide(target=other, adopt=True)
    assert not adopted.check
    assert [item.as_result() for item in adopted.differences] == [{"path": "hnsw_config.m", "source": 16, "target": 32}]
    assert code(target=collection(), story=Story(created=True, config="another", phase="copy")) == "source_changed"


def test_an_alias_that_was_switched_ends_the_copying():
    live = {"live": "docs"}
    for state in ("copied", "verified", "switched"):
        assert decide(state, target=collection(points=99), story=told("switched"), alias="live", aliases=live).steps == ()
        assert decide(state, source=None, target=collection(), alias="live", aliases=live).steps == ()
    assert code("switched", target=collection(), story=told("copy"), alias="live", aliases=live) == "switched_early"


def test_what_cannot_be():
    assert code(source=None, error=NotFound) == "no_source"
    assert code(same=True, error=InvalidInput) == "invalid_input"
    assert code(alias="docs", error=InvalidInput) == "invalid_input"


def test_an_end():
    live, there = {"live": "new"}, collection("new")
    given = {"target": there, "to": "new", "alias": "live", "same": True}
    assert code("finalized", story=told("verified"), aliases={"live": "docs"}, **given) == "not_switched"
    assert decide("finalized", story=told("switched"), aliases=live, **given).steps == ("forget",)
    ended = decide("finalized", story=told("switched"), aliases=live, delete=True, **given)
    assert ended.steps == ("delete", "forget")
    assert ended.delete == ("docs",)
    assert decide("finalized", source=None, aliases=live, delete=True, **given).steps == ()
    used = collection(aliases=("archive",))
    assert code("finalized", source=used, story=told("switched"), aliases=live, delete=True, **given) == "in_use"
    assert code("finalized", aliases=live, delete=True, **given) == "not_verified"
    assert code("finalized", target=there, to="new", story=told("copied")) == "not_verified"


def test_a_way_back():
    live, there = {"live": "new"}, collection("new")
    given = {"target": there, "to": "new", "alias": "live", "same": True}
    back = decide("rolled_back", story=told("switched", switched_from="docs"), aliases=live, **given)
    assert (back.steps, back.alias_to, back.delete) == (("switch", "forget"), "docs", ())
    assert decide("rolled_back", story=told("switched"), aliases=live, delete=True, **given).delete == ("new",)
    early = decide("rolled_back", story=told("copy"), aliases={"live": "docs"}, **given)
    assert (early.steps, early.delete) == (("delete", "forget"), ("new",))
    kept = decide("rolled_back", story=told("copy", created=False), aliases={"live": "docs"}, delete=True, **given)
    assert (kept.steps, kept.delete) == (("forget",), ())
    assert decide("rolled_back", aliases={"live": "docs"}, **given).steps == ()
    assert code("rolled_back", aliases=live, **given) == "nothing_to_roll_back"


def test_a_creation_takes_everything_over_but_the_index():
    config = {
        **CONFIG,
        "params": {**CONFIG["params"], "sharding_method": "custom", "read_fan_out_factor": 2, "sparse_vectors": {"s": {"modifier": "idf", "index": None}}},
        "quantization_config": {"scalar": {"type": "int8", "always_ram": None}},
        "strict_mode_config": {"enabled": True},
    }
    assert model.creation(collection(config=config)) == {
        "vectors": {"size": 4, "distance": "Cosine"},
        "sparse_vectors": {"s": {"modifier": "idf"}},
        "shard_number": 1,
        "sharding_method": "custom",
        "replication_factor": 1,
        "on_disk_payload": True,
        "hnsw_config": {"m": 16, "ef_construct": 100},
        "optimizers_config": {"indexing_threshold": 0},
        "wal_config": {"wal_capacity_mb": 32},
        "quantization_config": {"scalar": {"type": "int8"}},
        "strict_mode_config": {"enabled": True},
    }
    assert model.later(collection(config=config)) == {"read_fan_out_factor": 2}
    assert model.index_schema(SCHEMA["tenant"]) == {"type": "keyword", "is_tenant": True}
    assert model.index_schema(SCHEMA["n"]) == "integer"


def test_what_is_written_otherwise_but_means_the_same_is_no_difference():
    written = {**CONFIG, "optimizer_config": {"indexing_threshold": None}, "metadata": None}
    written["params"] = {**CONFIG["params"], "sharding_method": "auto", "read_fan_out_factor": None}
    assert model.differences(collection(), collection(config=written)) == []
    assert model.config_hash(collection()) == model.config_hash(collection(config=written))
    assert model.differences(collection(), collection(config=OFF), copying=True) == []
    assert [item.path for item in model.differences(collection(), collection(config=OFF))] == ["optimizer_config.indexing_threshold"]
    keyed = {**CONFIG, "params": {**CONFIG["params"], "sharding_method": "custom"}}
    one, other = (collection(config=keyed, shard_keys=keys) for keys in (("a", "b"), ("a",)))
    assert [item.path for item in model.differences(one, other)] == ["shard_keys"]


class Ids:
    """A server that has ids and nothing else."""

    def __init__(self, parts):
        self.parts = parts

    def ids(self, name, offset, limit, part):
        left = [number for number in self.parts[part] if offset is None or number >= offset]
        return left[:limit], left[limit] if len(left) > limit else None


@pytest.mark.parametrize("seed", range(15))
def test_ranges_cover_every_id_once(seed, monkeypatch):
    monkeypatch.setattr("ansible_collections.sophia.platform.plugins.module_utils._qdrant.copying.LONGEST_PAGE", 7)
    rng = random.Random(seed)
    parts = {part: sorted(rng.sample(range(1000), rng.randrange(60))) for part in ([None] if seed % 2 else ["a", 3])}
    keyed = {**CONFIG, "params": {**CONFIG["params"], "sharding_method": "custom"}}
    seen = collection() if seed % 2 else collection(config=keyed, shard_keys=tuple(parts))
    ranges = lay(Ids(parts), seen, rng.randrange(1, 20))
    for part, ids in parts.items():
        its = [item for item in ranges if item.part == part]
        assert its[0].start is None and its[-1].end is None
        assert [item.end for item in its[:-1]] == [item.start for item in its[1:]]
        for number in range(-1, 1001):
            assert sum((item.start is None or number >= item.start) and below(number, item.end) for item in its) == 1
        assert sum(item.count for item in its) == len(ids)


def test_ranges_have_a_bearable_size():
    assert range_size(10, 2) == 1_000
    assert range_size(100_000, 2) == 6_250
    assert range_size(100_000_000, 2) == 50_000


def test_samples_are_spread_over_the_ranges():
    ranges = [Range("eu", number, number + 1, 1) for number in range(32)]
    places = verify.sample(ranges, 20)
    assert len(set(places)) == 20
    assert places[0] == ("eu", 0) and places[-1][1] >= 30
    assert verify.sample(ranges, 99) == [("eu", number) for number in range(32)]
    assert verify.sample(ranges, 0) == verify.sample([], 5) == []


def test_pages_grow_and_shrink():
    size = Size(target=10_000)
    for _number in range(10):
        size.saw(Page(b"x" * 100 * size.points, next=1), size.points)
    assert size.points == 100
    size.saw(Page(b"x" * 50_000 * size.points, next=1), size.points)
    assert size.points == 1
    asked = []

    def attempt(points, error):
        asked.append(points)
        if points > 20:
            raise error
        return points

    size.points = 100
    for error in (Timeout("slow"), Rejected("large", status=413), ServerError("no", status=500), BadResponse("long", code="too_large")):
        size.points = 100
        assert adapting(size, lambda points, error=error: attempt(points, error)) == 12
    for error in (Forbidden("no"), Rejected("no", status=400), ServerError("down", status=503), BadResponse("not JSON")):
        size.points = 100
        with pytest.raises(type(error)):
            adapting(size, lambda points, error=error: attempt(points, error))
        assert size.points == 100
    size.points = 4
    with pytest.raises(Timeout):
        adapting(size, lambda points: attempt(99, Timeout("slow")))


def test_a_pace_is_kept_over_all_threads(clock):
    pace = Pace(100, clock, clock.sleep)
    began = clock.now
    for _number in range(10):
        pace.take(50)
    assert clock.now - began == pytest.approx(4.5)
    Pace(0, clock, None).take(10**9)


def test_the_first_error_of_parallel_work_ends_it():
    done = []
    lock = threading.Lock()

    def act(number):
        with lock:
            done.append(number)
        if number == 5:
            raise Timeout("slow")

    with pytest.raises(Timeout):
        in_parallel(range(1000), act, 3)
    assert len(done) < 1000
    done.clear()
    in_parallel(range(50), done.append, 3)
    assert sorted(done) == list(range(50))


def test_progress_is_a_file_for_people(tmp_path, clock):
    import json

    path = tmp_path / "x.progress.json"
    progress = Progress(path, clock)
    with progress.phase("copy", 100):
        clock.sleep(2)
        progress.add(50)
        shown = json.loads(path.read_text(encoding="utf-8"))
    assert {name: shown[name] for name in ("phase", "done", "total", "points_per_second", "seconds_left")} == {
        "phase": "copy",
        "done": 50,
        "total": 100,
        "points_per_second": 25.0,
        "seconds_left": 2.0,
    }
    assert [item.name for item in tmp_path.iterdir()] == ["x.progress.json"]


def test_neighbours_in_common():
    truth = [{"id": number, "score": 1.0 - number / 10} for number in range(4)]
    assert verify.common(truth, truth) == 1.0
    assert verify.common(truth, truth[:3]) == 0.75
    tied = [*truth[:3], {"id": 9, "score": truth[3]["score"] + 1e-7}]
    assert verify.common(truth, tied) == 1.0
    assert verify.common(truth, [*truth[:3], {"id": 9, "score": 0.1}]) == 0.75
    assert verify.common([], []) == 1.0
    assert verify.common([], truth) == 0.0
