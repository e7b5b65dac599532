# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module openrouter_key against the sandbox over HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import stat

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._openrouter import making
from ansible_collections.sophia.platform.plugins.modules import openrouter_key

CREATE = {"method": "POST", "path": "/keys"}
PATCH = {"method": "PATCH"}


@pytest.fixture
def key(sandbox, run_module, monkeypatch):
    monkeypatch.setattr(making, "LOOK_SLEEP", 0.01)

    def run(**args):
        return run_module(
            openrouter_key,
            **{"api_url": sandbox.url, "management_key": sandbox.management_key, "name": "production", "api_retries": 0, **args},
        )

    return run


def test_a_key_is_made_once_and_its_secret_returned_once(sandbox, key):
    first = key(limit="250.50", limit_reset="monthly", include_byok_in_limit=True)
    assert first.result["changed"]
    assert first.result["key"].startswith("sk-or-v1-")
    assert first.result["openrouter_key"]["limit"] == "250.5"
    second = key(limit="250.5", limit_reset="monthly", include_byok_in_limit=True)
    assert not second.result["changed"] and "key" not in second.result
    (made,) = sandbox.keys()
    assert (made["limit"], made["limit_reset"], made["include_byok_in_limit"]) == (250.5, "monthly", True)


def test_the_secret_goes_to_dest_and_nowhere_else(sandbox, key, tmp_path):
    dest = tmp_path / "key"
    ended = key(dest=str(dest), diff=True)
    secret = dest.read_text(encoding="utf-8")
    assert secret.startswith("sk-or-v1-")
    assert stat.S_IMODE(dest.stat().st_mode) == 0o600
    assert secret not in ended.output and "key" not in ended.result
    assert os.listdir(tmp_path) == ["key"]
    assert ended.result["dest_present"] is True
    assert not key(dest=str(dest)).result["changed"]


def test_check_mode_changes_nothing_and_foretells_the_truth(sandbox, key, tmp_path):
    dest = tmp_path / "key"
    settings = {"limit": "5", "dest": str(dest)}
    foretold = key(check=True, diff=True, **settings)
    assert foretold.result["changed"] and sandbox.keys() == [] and not dest.exists()
    assert foretold.result["diff"]["before"] == {}
    done = key(diff=True, **settings)
    assert done.result["diff"] == foretold.result["diff"]
    update = key(check=True, diff=True, limit="6")
    assert update.result["diff"]["before"]["limit"] == "5" and update.result["diff"]["after"]["limit"] == "6"
    assert sandbox.keys()[0]["limit"] == 5
    assert key(check=True, state="absent").result["changed"] and len(sandbox.keys()) == 1


def test_only_what_was_given_is_changed(sandbox, key):
    key(limit="5", limit_reset="daily")
    assert key(limit="unlimited").result["changed"]
    (made,) = sandbox.keys()
    assert (made["limit"], made["limit_reset"]) == (None, "daily")
    assert key(limit="0").result["changed"]
    assert sandbox.keys()[0]["limit"] == 0
    assert key(limit_reset="never").result["changed"]
    assert not key(limit_reset="never", limit="0.00").result["changed"]
    assert sandbox.keys()[0]["limit_reset"] is None


def test_a_disabled_key_is_still_found(sandbox, key):
    key()
    assert key(disabled=True).result["changed"]
    assert not key(disabled=True).result["changed"]
    assert key(disabled=False).result["changed"]
    assert len(sandbox.keys()) == 1


def test_more_than_a_page_of_keys(sandbox, key):
    key()
    for number in range(120):
        sandbox.call("POST", "keys", {"name": f"other-{number}"})
    assert not key().result["changed"]


def test_a_key_that_cannot_be_disabled_is_not_left_behind(sandbox, key, tmp_path):
    sandbox.faults({"match": PATCH, "fault": {"kind": "status", "status": 400}})
    ended = key(disabled=True, dest=str(tmp_path / "key"))
    assert ended.failed and ended.result["failure"]["status"] == 400
    assert sandbox.keys() == [] and os.listdir(tmp_path) == []


def test_a_key_that_cannot_be_guarded_is_not_left_behind(sandbox, key):
    ended = key(guardrail_id="550e8400-e29b-41d4-a716-446655440000")
    assert ended.failed and ended.result["failure"]["status"] == 404
    assert sandbox.keys() == []


@pytest.mark.parametrize("kind", ["timeout_after_success", "reset"])
def test_a_create_without_an_answer_leaves_one_key(sandbox, key, kind):
    sandbox.faults({"match": {**CREATE, "times": 1}, "fault": {"kind": kind}})
    ended = key(api_timeout=1)
    assert not ended.failed and len(sandbox.keys()) == 1
    assert sandbox.call("GET", "/_sandbox/truth?summary=1")["totals"]["requests"] == 0


@pytest.mark.parametrize("kind", ["timeout_after_success", "reset"])
def test_a_create_that_never_answers_leaves_no_key(sandbox, key, kind):
    sandbox.faults({"match": CREATE, "fault": {"kind": kind}})
    ended = key(api_timeout=1)
    assert ended.failed and ended.result["failure"]["code"] in ("timeout", "connection_lost")
    assert sandbox.keys() == []


def kill_at(monkeypatch, what, times=1):
    """Let the process die the moment it wants to do something for the ``times``-th time."""
    original = getattr(making.Destination, what)
    calls = []

    class Killed(BaseException):
        pass

    def die(self, *args):
        calls.append(what)
        if len(calls) == times:
            raise Killed
        return original(self, *args)

    monkeypatch.setattr(making.Destination, what, die)
    return Killed


@pytest.mark.parametrize(("what", "times", "orphans"), [("note", 1, 0), ("note", 2, 1), ("store", 1, 1), ("forget", 2, 0)])
def test_a_run_killed_while_making_a_key_is_made_good_by_the_next(sandbox, key, tmp_path, monkeypatch, what, times, orphans):
    dest = tmp_path / "key"
    with monkeypatch.context() as patched:
        killed = kill_at(patched, what, times)
        with pytest.raises(killed):
            key(dest=str(dest))
    ended = key(dest=str(dest))
    assert len(ended.result["orphans"]) == orphans
    (made,) = sandbox.keys()
    assert made["hash"] not in ended.result["orphans"]
    assert os.listdir(tmp_path) == ["key"]
    assert made["label"][-4:] == dest.read_text(encoding="utf-8")[-4:]


def test_dest_without_a_directory_is_told_before_a_key_is_made(sandbox, key, tmp_path):
    ended = key(dest=str(tmp_path / "nowhere" / "key"))
    assert ended.failed and ended.result["failure"]["code"] == "invalid_input"
    assert sandbox.keys() == []


def test_two_of_a_name_need_a_hash(sandbox, key):
    hashes = sorted(sandbox.call("POST", "keys", {"name": "production"})["data"]["hash"] for _number in range(2))
    ended = key(limit="5")
    assert ended.failed and ended.result["failure"]["code"] == "ambiguous_name"
    assert ended.result["failure"]["details"]["hashes"] == hashes
    assert key(limit="5", hash=hashes[0]).result["changed"]
    assert key(state="absent", hash=hashes[1]).result["changed"]
    assert [made["hash"] for made in sandbox.keys()] == [hashes[0]]


def test_a_key_is_renamed_by_its_hash(sandbox, key):
    made = key().result["openrouter_key"]["hash"]
    assert key(name="renamed", hash=made).result["openrouter_key"]["name"] == "renamed"
    assert not key(name="renamed").result["changed"]


def test_an_expiry_is_set_once(sandbox, key):
    assert key(expires_at="2099-12-31T23:59:59+01:00").result["openrouter_key"]["expires_at"].startswith("2099-12-31T22:59:59")
    assert not key(expires_at="2099-12-31T22:59:59Z").result["changed"]
    ended = key(expires_at="2098-12-31T23:59:59Z")
    assert ended.failed and ended.result["failure"]["code"] == "immutable"
    assert "rotate" in ended.result["msg"]


@pytest.mark.parametrize(
    "wrong", [{"limit": "-1"}, {"limit": "lots"}, {"limit": "NaN"}, {"expires_at": "2099-01-01T00:00:00"}, {"expires_at": "soon"}]
)
def test_what_cannot_be_is_refused(sandbox, key, wrong):
    ended = key(**wrong)
    assert ended.failed and ended.result["failure"]["code"] == "invalid_input"
    assert sandbox.keys() == []


def test_removing_what_is_not_there_is_nothing(sandbox, key, tmp_path):
    assert not key(state="absent").result["changed"]
    dest = tmp_path / "key"
    key(dest=str(dest))
    assert key(state="absent", dest=str(dest)).result["changed"]
    assert not dest.exists()
    assert not key(state="absent", dest=str(dest)).result["changed"]


def test_a_key_for_models_is_no_management_key(sandbox, key):
    secret = key().result["key"]
    ended = key(management_key=secret)
    assert ended.failed and ended.result["failure"]["code"] == "not_a_management_key"
    assert secret not in ended.output


def test_a_wrong_key_is_never_shown(sandbox, key):
    secret = "sk-or-v1-" + "0f" * 32
    ended = key(management_key=secret)
    assert ended.failed and ended.result["failure"]["code"] == "unauthenticated"
    assert secret not in ended.output


def test_the_older_variable_of_the_environment_serves_too(sandbox, run_module, monkeypatch):
    monkeypatch.delenv("OPENROUTER_MANAGEMENT_KEY", raising=False)
    monkeypatch.setenv("OPENROUTER_PROVISIONING_KEY", sandbox.management_key)
    ended = run_module(openrouter_key, api_url=sandbox.url, name="production", state="absent")
    assert not ended.failed and sandbox.management_key not in ended.output


def test_no_key_at_all_is_told(sandbox, run_module, monkeypatch):
    for name in ("OPENROUTER_MANAGEMENT_KEY", "OPENROUTER_PROVISIONING_KEY"):
        monkeypatch.delenv(name, raising=False)
    ended = run_module(openrouter_key, api_url=sandbox.url, name="production")
    assert ended.failed and ended.result["failure"]["code"] == "invalid_input"


def test_trouble_that_passes_is_a_warning(sandbox, key):
    sandbox.faults({"match": {"method": "GET", "times": 1}, "fault": {"kind": "status", "status": 503, "retry_after": 0}})
    ended = key(state="absent", api_retries=2)
    assert not ended.failed and "had to retry" in json.dumps(ended.result)


@pytest.fixture
def slots(tmp_path):
    path = tmp_path / "slots"
    path.mkdir()
    return path


@pytest.fixture
def rotate(key, replica, slots):
    urls = []

    def run(**args):
        if not urls:
            urls.extend(replica(slots) + "/metrics" for _number in range(2))
        return key(
            **{"state": "rotated", "slots": str(slots), "gateways": urls, "quiet": 0, "soak": 0, "wait_sleep": 0.05,
               "wait_timeout": 20, **args}
        )  # fmt: skip

    return run


def held(slots):
    return {path.name: path.read_text(encoding="utf-8") for path in slots.iterdir() if path.name in ("primary", "secondary", ".previous")}


def test_the_first_key_is_made_by_a_rotation_and_then_replaced_by_one(sandbox, rotate, slots):
    first = rotate(limit="7", limit_reset="daily")
    assert first.result["changed"] and first.result["rotation"]["outcome"] == "rotated"
    (old,) = sandbox.keys()
    old_secret = held(slots)["primary"]
    second = rotate(diff=True)
    (new,) = sandbox.keys()
    assert new["hash"] != old["hash"]
    assert (new["name"], new["limit"], new["limit_reset"]) == ("production", 7, "daily")
    assert held(slots).keys() == {"primary"} and held(slots)["primary"] != old_secret
    assert [step["phase"] for step in second.result["rotation"]["steps"] if step["do"] not in ("note", "wait")] == [
        "create", "create", "verify", "promote", "promote", "promote", "promote", "promote", "drain", "disable", "delete",
        "delete", "delete",
    ]  # fmt: skip
    for text in (old_secret, held(slots)["primary"], sandbox.management_key):
        assert text not in first.output + second.output
        assert text not in slots.joinpath("journal.json").read_text(encoding="utf-8")
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in slots.iterdir())
    assert not rotate(max_age=3600).result["changed"]


def test_a_rotation_in_check_mode_only_tells(sandbox, rotate, slots):
    rotate()
    before = (sandbox.keys(), held(slots))
    told = rotate(check=True, diff=True)
    assert told.result["changed"] and told.result["rotation"]["outcome"] == "rotated"
    assert "disable" in [step["do"] for step in told.result["rotation"]["steps"]]
    assert told.result["diff"]["before"] != told.result["diff"]["after"]
    assert (sandbox.keys(), held(slots)) == before


def test_a_rotation_step_by_step_and_back(sandbox, rotate, slots):
    rotate()
    (old,) = sandbox.keys()
    secret = held(slots)["primary"]
    ended = rotate(wait=False, quiet=3600)
    while ended.result["rotation"]["phase"] != "drain":
        ended = rotate(wait=False, quiet=3600)
    assert not ended.result["rotation"]["finished"]
    assert {made["name"].partition(" [")[0] for made in sandbox.keys()} == {"production"}
    assert held(slots)["secondary"] == secret
    back = rotate(state="rolled_back")
    assert back.result["rotation"]["outcome"] == "rolled_back"
    assert [made["hash"] for made in sandbox.keys()] == [old["hash"]]
    assert sandbox.keys()[0]["name"] == "production"
    assert held(slots) == {"primary": secret}
    assert not rotate(state="rolled_back").result["changed"]


def test_an_emergency(sandbox, rotate, slots):
    rotate()
    (old,) = sandbox.keys()
    ended = rotate(emergency=True)
    done = [step for step in ended.result["rotation"]["steps"] if step["do"] in ("disable", "create")]
    assert [step["do"] for step in done] == ["disable", "create"]
    (new,) = sandbox.keys()
    assert new["hash"] != old["hash"] and not new["disabled"]


def test_the_guardrail_goes_with_the_key(sandbox, rotate):
    guardrail = sandbox.call("POST", "guardrails", {"name": "careful", "limit_usd": 10})["data"]["id"]
    rotate(guardrail_id=guardrail)
    rotate()
    (new,) = sandbox.keys()
    assigned = sandbox.call("GET", "guardrails/assignments/keys")["data"]
    assert [(item["key_hash"], item["guardrail_id"]) for item in assigned] == [(new["hash"], guardrail)]


def test_a_gateway_that_does_not_take_the_key_ends_in_a_typed_failure(sandbox, rotate, script):
    rotate()
    script.answers = [lambda handler: handler.send_error(404)] * 100
    ended = rotate(gateways=[script.url + "/metrics"], wait_timeout=1)
    assert ended.failed and ended.result["failure"]["code"] == "wait_timeout"
    assert ended.result["rotation"]["phase"] == "distribute"
    assert "HTTP 404" in ended.result["rotation"]["waiting_for"]
    assert len([made for made in sandbox.keys() if not made["disabled"]]) == 2


def test_a_key_is_probed_with_a_model(sandbox, rotate):
    assert not rotate(probe_model="openai/gpt-4o-mini").failed
    (made,) = sandbox.keys()
    assert made["usage"] > 0
    ended = rotate(probe_model="nobody/nothing")
    assert ended.failed and ended.result["rotation"]["phase"] == "verify"


def test_one_rotation_at_a_time(sandbox, rotate, slots):
    import fcntl

    rotate()
    with open(slots / ".lock", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ended = rotate()
    assert ended.failed and ended.result["failure"]["code"] == "locked"


def test_the_gateways_name_for_a_key():
    from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Secret

    secret = Secret("sk-or-v1-abc")
    assert secret.id == hashlib.sha256(b"sk-or-v1-abc").hexdigest()[:12]
    assert "abc" not in f"{secret} {secret!r}"
