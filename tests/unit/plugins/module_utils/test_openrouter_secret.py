# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots in a Kubernetes Secret: conditional writes, the lease, Pods, and whole rotations killed at every write."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ansible_collections.sophia.platform.plugins.module_utils import _http
from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.cluster import connect
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Secret
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.pods import Pods
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.secret import JOURNAL, SecretSlots
from ansible_collections.sophia.platform.plugins.modules import openrouter_key

SECRET = "/api/v1/namespaces/production/secrets/openrouter-secrets"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/production/leases"
PODS = "/api/v1/namespaces/production/pods"


class Killed(BaseException):
    pass


class ApiServer:
    """What a rotation sees of an API server: conditional merge patches and updates, Leases, and Pods that mount a Secret.

    ``lose`` counts writes that are done and not answered.
    """

    def __init__(self):
        self.lock = threading.RLock()
        self.version = 1
        self.objects = {SECRET: self.stamped({"metadata": {"name": "openrouter-secrets", "labels": {}}, "data": {}})}
        self.pods = []
        self.lose = 0
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stamped(self, thing):
        self.version += 1
        thing["metadata"]["resourceVersion"] = str(self.version)
        return thing

    @property
    def data(self):
        return {name: base64.b64decode(text).decode() for name, text in self.objects[SECRET]["data"].items()}

    def edit(self, **metadata):
        """Somebody else changes the Secret."""
        self.objects[SECRET]["metadata"].update(metadata)
        self.stamped(self.objects[SECRET])

    def answer(self, method, path, body):
        path, _mark, query = path.partition("?")
        if method == "GET" and path == PODS:
            assert urllib.parse.parse_qs(query) == {"labelSelector": ["app=gateway"]}
            return 200, {"items": self.pods}
        if method == "GET" and path.endswith("/proxy/metrics"):
            lines = ["# TYPE openrouter_key_loaded gauge"]
            for slot in ("primary", "secondary"):
                key = self.data.get(slot)
                if key:
                    lines.append(f'openrouter_key_loaded{{slot="{slot}",hash="{hashlib.sha256(key.encode()).hexdigest()[:12]}"}} 1')
            return 200, "\n".join(lines) + "\n"
        found = self.objects.get(path)
        if method == "GET":
            return (200, found) if found else (404, {"message": "not found"})
        if method == "POST":
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return 409, {"message": "already exists"}
            self.objects[path] = self.stamped(body)
            return 201, body
        if found is None:
            return 404, {"message": "not found"}
        if body["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            return 409, {"message": "the object has been modified"}
        self.objects[path] = self.stamped(merged(found, body) if method == "PATCH" else body)
        return 200, self.objects[path]


def merged(target, patch):
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def handler_of(api):
    class Handler(BaseHTTPRequestHandler):
        def do(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            with api.lock:
                status, answer = api.answer(self.command, self.path, copy.deepcopy(body))
                lost = self.command != "GET" and api.lose > 0
                api.lose -= lost
            if lost:
                self.close_connection = True
                return
            raw = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_PATCH = do

        def log_message(self, format, *args):
            pass

    return Handler


@pytest.fixture
def api():
    server = ApiServer()
    yield server
    server.server.shutdown()
    server.server.server_close()


def options(api, **other):
    return {"host": api.url, "api_key": None, "ca_cert": None, "client_cert": None, "client_key": None, "validate_certs": True, **other}


def slots_of(api, tmp_path, identity="me", **clocks):
    return SecretSlots(connect(options(api), timeout=5, folder=str(tmp_path)), "production", "openrouter-secrets", identity=identity, **clocks)


def test_slots_and_journal_survive_lost_answers_and_others_changes(api, tmp_path):
    slots = slots_of(api, tmp_path)
    slots.check()
    assert slots.load_journal() == {} and slots.get("primary") is None
    api.lose = 1
    slots.put("primary", Secret("sk-one"))
    api.edit(labels={"team": "other"})
    slots.put("secondary", Secret("sk-two"))
    slots.save_journal({"version": 1, "active": None})
    slots.clear("secondary")
    slots.clear("previous")
    assert api.data == {"primary": "sk-one", "secondary": ""}
    assert slots.load_journal() == {"version": 1, "active": None}
    assert slots.get("primary").reveal() == "sk-one" and slots.get("secondary") is None
    assert api.objects[SECRET]["metadata"]["labels"] == {"team": "other"}


def test_a_write_upon_slots_that_another_changed_is_refused(api, tmp_path):
    slots = slots_of(api, tmp_path)
    slots.load_journal()
    other = slots_of(api, tmp_path, "other")
    other.put("primary", Secret("sk-other"))
    with pytest.raises(StateConflict, match="somebody else changed"):
        slots.put("primary", Secret("sk-mine"))
    assert api.data == {"primary": "sk-other"}


def test_a_journal_that_cannot_be_read_is_no_empty_one(api, tmp_path):
    api.edit(annotations={JOURNAL: "{"})
    with pytest.raises(StateConflict, match="cannot be read"):
        slots_of(api, tmp_path).load_journal()


def test_no_secret_is_told_as_such(api, tmp_path):
    del api.objects[SECRET]
    with pytest.raises(InvalidInput, match="there is no Secret openrouter-secrets"):
        slots_of(api, tmp_path).check()


def test_one_run_holds_the_lease_and_a_dead_one_loses_it(api, tmp_path, clock):
    first = slots_of(api, tmp_path, "first", clock=clock, wall=clock, sleep=clock.sleep)
    with first.lock():
        def renewed(seconds):
            clock.sleep(seconds)
            api.objects[f"{LEASES}/openrouter-secrets-rotation"]["spec"]["renewTime"] = f"at {clock.now}"

        second = slots_of(api, tmp_path, "second", clock=clock, wall=clock, sleep=renewed)
        with pytest.raises(StateConflict, match="first"), second.lock():
            pass
        third = slots_of(api, tmp_path, "third", clock=clock, wall=clock, sleep=clock.sleep)
        before = clock.now
        with third.lock():
            assert 15 <= clock.now - before <= 17
            clock.sleep(6)
            with pytest.raises(StateConflict, match="third"):
                first.hold()
            third.hold()
    before = clock.now
    with slots_of(api, tmp_path, "fourth", clock=clock, wall=clock, sleep=clock.sleep).lock():
        assert clock.now == before


def test_pods_are_those_of_the_moment_and_none_is_trouble(api, tmp_path):
    client = connect(options(api), timeout=5, folder=str(tmp_path))
    pods = Pods(client, client, "production", "app=gateway", [9090], 1)
    (nobody,) = pods.look()
    assert "0 Pods run" in nobody.trouble
    api.pods = [pod("a"), pod("unscheduled", node=None), pod("done", phase="Succeeded")]
    (replica,) = pods.look()
    assert replica.url == "a:9090" and replica.trouble is None


def pod(name, node="node-1", phase="Running"):
    return {"metadata": {"name": name}, "spec": {"nodeName": node} if node else {}, "status": {"phase": phase}}


@pytest.fixture
def rotate(api, sandbox, run_module):
    cluster = {"host": api.url, "namespace": "production", "selector": "app=gateway"}

    def run(state="rotated", **args):
        haste = {"quiet": 0, "soak": 0, "wait_sleep": 0.01, "wait_timeout": 10, "api_retries": 1}
        given = {"api_url": sandbox.url, "management_key": sandbox.management_key, "name": "production", **haste, **args}
        return run_module(openrouter_key, state=state, kubernetes=cluster, **given)

    return run


def test_a_rotation_in_a_secret_shows_nothing_of_the_keys(api, sandbox, rotate):
    api.pods = [pod("a"), pod("b")]
    first = rotate()
    assert not first.failed, first.output
    key = api.data["primary"]
    second = rotate(diff=True)
    assert second.result["rotation"]["outcome"] == "rotated"
    assert api.data["primary"] != key and not api.data.get("secondary") and "previous" not in api.data
    assert [each["name"] for each in sandbox.keys()] == ["production"]
    assert not [word for word in (key, api.data["primary"]) if word in first.output + second.output + api.objects[SECRET]["metadata"]["annotations"][JOURNAL]]
    assert not rotate(max_age=3600).result["changed"]


def test_without_pods_nothing_is_promoted(api, sandbox, rotate):
    api.pods = [pod("a")]
    rotate()
    key = api.data["primary"]
    api.pods = []
    ended = rotate(wait_timeout=0)
    assert ended.failed and "at least 1 are expected" in ended.result["msg"]
    assert api.data["primary"] == key


def test_a_kill_at_any_write_is_made_good_by_the_next_run(api, sandbox, rotate, monkeypatch):
    monkeypatch.setattr(f"{SecretSlots.__module__}.LEASE_SECONDS", 0)
    monkeypatch.setattr(f"{SecretSlots.__module__}.LOOK_SECONDS", 0.001)
    writes = Writes(_http.Client.request)

    def request(*args, **options):
        return writes(*args, **options)

    monkeypatch.setattr(_http.Client, "request", request)
    api.pods = [pod("a")]
    rotate()
    for point in range(1, 100):
        writes.arm(point, ("before", "after")[point % 2])
        with contextlib.suppress(Killed):
            rotate()
        killed = writes.dead
        writes.disarm()
        if not killed:
            break
        assert len([key for key in sandbox.keys() if not key["disabled"]]) <= 2
        rotate(("rotated", "rolled_back")[point // 2 % 2])
        again = rotate(max_age=3600)
        assert not again.failed, again.output
        assert [key["name"] for key in sandbox.keys()] == ["production"]
        assert not api.data.get("secondary") and api.data["primary"]
    assert 10 < point < 99


class Writes:
    """Lets the process die just before or after a write, to OpenRouter or the API server; dead, it makes no call."""

    def __init__(self, request):
        self.request = request
        self.disarm()

    def arm(self, point, moment):
        self.left, self.moment = point, moment

    def disarm(self):
        self.left, self.moment, self.dead = 0, "", False

    def __call__(self, client, method, *args, **options):
        if method != "GET" and self.left > 0:
            self.left -= 1
            self.dead = self.left == 0
        if self.dead and self.moment != "after":
            raise Killed
        answer = self.request(client, method, *args, **options)
        if self.dead:
            self.moment = "over"
            raise Killed
        return answer
