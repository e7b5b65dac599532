# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Digests, pages and the journal: what must hold whatever the points are."""

from __future__ import annotations

import json
import random
import struct
import uuid

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse, StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._qdrant import page
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.digest import Digest, leaf
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.journal import Identity, Journal, Range

IDENTITY = Identity("http://a", "docs", "http://b", "docs")
NASTY = ['"next_page_offset":7},"status":"ok","time":0.1}', ']},"next_page_offset":"', '{"result":{"points":[', "],", "\\", "ü\u2028\x00", ""]


def f32(number):
    return struct.unpack("f", struct.pack("f", number))[0]


def next_float(number):
    """Return the float whose last bit is the other one."""
    (bits,) = struct.unpack("I", struct.pack("f", number))
    return struct.unpack("f", struct.pack("I", bits ^ 1))[0]


def value(rng, depth=0):
    """Return something that a payload may hold, with texts that look like the end of a page."""
    if depth < 3 and rng.random() < 0.4:
        items = [value(rng, depth + 1) for _number in range(rng.randrange(4))]
        names = [*NASTY, "next_page_offset", "points", "status"]
        return items if rng.random() < 0.5 else {rng.choice(names): item for item in items}
    return rng.choice([None, True, rng.randrange(-(1 << 63), 1 << 63), rng.random() * 1e9, rng.choice(NASTY), [], {}])


def point(rng):
    kinds = [
        [f32(rng.uniform(-1, 1)) for _number in range(3)],
        {"a": [f32(rng.random())], "b": [[f32(rng.random())], [0.5]], "c": {"indices": [5, 2], "values": [0.25, f32(rng.random())]}},
        {},
    ]
    point_id = rng.choice([rng.randrange(1 << 64), str(uuid.UUID(int=rng.getrandbits(128)))])
    payload = {rng.choice([*NASTY, "next_page_offset"]): value(rng) for _number in range(rng.randrange(4))}
    return {"id": point_id, "payload": payload, "vector": rng.choice(kinds)}


def shuffled(rng, item):
    """Return the same JSON value with its members in another order."""
    if isinstance(item, dict):
        names = list(item)
        rng.shuffle(names)
        return {name: shuffled(rng, item[name]) for name in names}
    return [shuffled(rng, part) for part in item] if isinstance(item, list) else item


@pytest.mark.parametrize("seed", range(40))
def test_a_leaf_is_the_same_for_the_same_point_and_another_for_any_other(seed):
    rng = random.Random(seed)
    given = point(rng)
    mine = leaf(given)
    assert leaf(shuffled(rng, given)) == mine
    assert leaf(json.loads(json.dumps(given))) == mine
    others = [
        {**given, "id": given["id"] + 1 if isinstance(given["id"], int) else str(uuid.uuid4())},
        {**given, "payload": {**given["payload"], "more": None}},
        {**given, "vector": [9.0]},
        {**given, "shard_key": "eu"},
    ]
    if isinstance(given["vector"], list):
        others.append({**given, "vector": [next_float(given["vector"][0]), *given["vector"][1:]]})
    assert len({mine, *map(leaf, others)}) == len(others) + 1


def test_what_means_the_same_has_the_same_leaf():
    plain = {"id": 1, "vector": [1.0], "payload": {}}
    assert leaf(plain) == leaf({"id": 1, "vector": {"": [1]}, "payload": None}) == leaf({"id": 1, "vector": [1.0]})
    capital = {"id": "5C56C793-69F3-4FBF-87E6-C4BF54C28C26", "vector": {}}
    assert leaf(capital) == leaf({**capital, "id": capital["id"].lower()})
    sparse = {"id": 1, "vector": {"s": {"indices": [1, 2], "values": [0.5, 0.25]}}}
    assert leaf(sparse) == leaf({"id": 1, "vector": {"s": {"indices": [2, 1], "values": [0.25, 0.5]}}})
    assert leaf(sparse) != leaf({"id": 1, "vector": {"s": {"indices": [2, 1], "values": [0.5, 0.25]}}})
    assert leaf({"id": 1, "payload": {"a": 1}}) != leaf({"id": 1, "payload": {"a": 1.0}})
    assert leaf({"id": 1, "vector": [[1.0, 2.0]]}) != leaf({"id": 1, "vector": [[1.0], [2.0]]})


@pytest.mark.parametrize("seed", range(20))
def test_a_digest_does_not_depend_on_order_or_on_ranges(seed):
    rng = random.Random(seed)
    leaves = [rng.getrandbits(128) for _number in range(50)]
    whole = Digest()
    for one in leaves:
        whole = whole.plus(one)
    rng.shuffle(leaves)
    cut = rng.randrange(len(leaves))
    parts = [Digest(), Digest()]
    for place, one in enumerate(leaves):
        parts[place < cut] = parts[place < cut].plus(one)
    assert parts[0] + parts[1] == whole
    assert str(whole).startswith("50:")


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("ascii_only", [False, True])
def test_a_page_is_what_stands_between_the_brackets(seed, ascii_only):
    rng = random.Random(seed)
    points = [point(rng) for _number in range(rng.randrange(4))]
    following = rng.choice([None, 7, str(uuid.uuid4())])
    text = json.dumps({"result": {"points": points, "next_page_offset": following}, "status": "ok", "time": 0.1}, ensure_ascii=ascii_only)
    if rng.random() < 0.5:
        text = json.dumps(json.loads(text), separators=(",", ":"))
    read = page.read(text.encode())
    assert (read.points(), read.next) == (points, following)
    assert read.empty == (not points)
    assert json.loads(b"[" + page.written(points) + b"]") == points


@pytest.mark.parametrize("seed", range(60))
def test_a_page_is_cut_into_its_points_before_an_end(seed):
    rng = random.Random(seed)
    points = sorted((point(rng) for _number in range(8)), key=lambda item: page.order(item["id"]))
    shown = [shuffled(rng, item) if rng.random() < 0.5 else {"id": item["id"], **item} for item in points]
    space = rng.choice(["", " ", "\n\t"])
    raw = f",{space}".join(json.dumps(item, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])) for item in shown)
    end = rng.choice([None, *(item["id"] for item in points)])
    found = page.Page(raw.encode(), None).before(end)
    assert [json.loads(piece) for piece in found.values()] == [item for item in points if page.below(item["id"], end)]
    assert list(found) == [item["id"] for item in points if page.below(item["id"], end)]
    assert all(piece in raw.encode() for piece in found.values())


def test_points_that_are_not_json_are_refused():
    whole = b'{"id":1,"payload":{"a":"}"}},{"id":2}'
    assert list(page.Page(whole, None).before(None)) == [1, 2]
    assert page.Page(b" ", None).before(None) == {}
    strange = [b'{"payload":nonsense,"id":1}', b'{"payload":"\xff","id":1}', b"7", b'{"id":1}{"id":2}', b'{"id":1},{"id":2},', b'}{"id":1}']
    for raw in [whole[:cut] for cut in range(1, len(whole)) if cut != whole.index(b",{")] + strange:
        with pytest.raises(BadResponse):
            page.Page(raw, None).before(None)
    with pytest.raises(BadResponse):
        page.Page(whole[:-1], None).points()


@pytest.mark.parametrize("seed", range(20))
def test_a_page_with_members_in_another_order_is_decoded(seed):
    rng = random.Random(seed)
    points = [point(rng) for _number in range(3)]
    usage = {"hardware": {"cpu": 1}} if seed % 2 else None
    answers = [
        {"status": "ok", "time": 0.1, "result": {"points": points, "next_page_offset": 9}},
        {"result": {"next_page_offset": 9, "points": points}, "status": "ok"},
        {"result": {"points": points, "next_page_offset": 9}, "usage": usage, "status": "ok", "time": 1e-05},
        {"usage": usage, "result": {"points": points, "next_page_offset": 9}},
    ]
    for answer in answers:
        read = page.read(json.dumps(answer).encode())
        assert (read.points(), read.next) == (points, 9)


def test_an_answer_without_points_is_refused():
    for text in ("", "[]", '{"result":null}', '{"result":{"points":[', '{"status":{"error":"x"}}'):
        with pytest.raises(BadResponse):
            page.read(text.encode())


def test_an_upsert_has_what_belongs_to_a_point():
    points = [{"id": 1, "vector": [1.0], "payload": {"a": 1}, "shard_key": "eu", "order_value": 3}, {"id": 2, "vector": {}, "payload": {}}]
    assert json.loads(b"[" + page.upserted(points) + b"]") == [{"id": 1, "vector": [1.0], "payload": {"a": 1}}, {"id": 2, "vector": {}, "payload": {}}]


def test_ids_are_ordered_as_the_server_orders_them():
    low, high = "0c56c793-69f3-4fbf-87e6-c4bf54c28c26", "FC56C793-69f3-4fbf-87e6-c4bf54c28c26"
    ordered = [0, 9, 10, 1 << 63, low, high]
    assert [*sorted({*ordered}, key=page.order)] == ordered
    assert all(page.below(one, other) for one, other in zip(ordered, [*ordered[1:], None]))
    assert not page.below(9, 9)
    assert page.first(None, 3) == page.first(3, None) == page.first(3, high) == 3
    assert page.first(None, None) is None


def tell(journal):
    """Write a whole migration; return the story after each line."""
    story = journal.begin(created=True, config="c")
    stories = [journal.read()]
    events = [
        {"ranges": [vars(Range(None, None, 5, 4)), vars(Range("eu", 5, None, 3))], "phase": "copy"},
        {"range": 0, "at": 3},
        {"range": 1, "at": str(uuid.UUID(int=7))},
        {"done": 0},
        {"done": 1},
        {"phase": "copied"},
        {"phase": "verified"},
        {"switching": "old"},
        {"phase": "switched"},
    ]
    for event in events:
        journal.note(story, **event)
        stories.append(journal.read())
        assert stories[-1] == story
    return stories


def test_a_journal_cut_at_any_byte_is_the_story_up_to_there(tmp_path):
    journal = Journal(str(tmp_path), IDENTITY)
    stories = tell(journal)
    journal.close()
    whole = journal.path.read_bytes()
    head = whole.index(b"\n") + 1
    for end in range(head, len(whole) + 1):
        journal.path.write_bytes(whole[:end])
        lines = whole[:end].count(b"\n")
        story = journal.read()
        assert story == stories[lines - 1]
        journal.note(story, phase="verified")
        journal.close()
        again = journal.read()
        assert again.phase == "verified"
        assert (again.ranges, again.cursors, again.done) == (story.ranges, story.cursors, story.done)


def test_a_journal_that_is_damaged_or_anothers_is_refused(tmp_path):
    journal = Journal(str(tmp_path), IDENTITY)
    tell(journal)
    whole = journal.path.read_bytes().splitlines(keepends=True)
    for bad in (b"garbage\n" + b"".join(whole[1:]), whole[0] + b"{]\n" + whole[1], b"", whole[0].replace(b"http://a", b"http://z")):
        journal.path.write_bytes(bad)
        with pytest.raises(StateConflict):
            journal.read()


def test_a_journal_begins_and_goes(tmp_path):
    journal = Journal(str(tmp_path / "new"), IDENTITY)
    assert journal.read() is None
    assert not journal.remove()
    with journal.locked():
        journal.begin(created=False, config="c")
        with pytest.raises(StateConflict) as error, Journal(str(tmp_path / "new"), IDENTITY).locked():
            raise AssertionError
        assert error.value.code == "locked"
    assert journal.remove()
    assert journal.read() is None
    assert Journal(str(tmp_path), Identity("http://a", "other", "http://b", "docs")).path != Journal(str(tmp_path), IDENTITY).path
