# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One question to the platform, over real connections."""

from __future__ import annotations

import json
import pathlib
import shutil
import socket
import ssl
import subprocess

import pytest

from ansible_collections.sophia.platform.plugins.modules import chat_info

KEY = "sk-sophia-of-the-test-0123456789"
ANSWER = (
    b'{"id": "x", "text": "Yes", "model": "m/one", "reason": "r", "preference": "fast", "tokens": {}, "cost": 0.00000310, "cache": "miss", "budget_left": null}'
)


def test_answer_is_returned_with_its_exact_cost(script, run_module) -> None:
    script.reply(200, ANSWER)
    done = run_module(chat_info, url=script.url, key=KEY)
    assert not done.failed
    assert {name: done.result[name] for name in ("text", "model", "cost", "cache", "tries")} == {
        "text": "Yes",
        "model": "m/one",
        "cost": "0.00000310",
        "cache": "miss",
        "tries": 1,
    }
    assert script.seen[0].path == "/v1/chat"
    assert json.loads(script.seen[0].body)["model_preference"] == "fast"
    assert script.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert KEY not in done.output


def test_the_address_is_where_it_connects_and_the_name_is_what_it_asks_for(script, run_module, tmp_path: pathlib.Path) -> None:
    script.reply(200, ANSWER)
    (tmp_path / "key").write_text(KEY + "\n", encoding="utf-8")
    port = script.url.rpartition(":")[2]
    done = run_module(chat_info, url=f"http://api.sophia.test:{port}", address="127.0.0.1", key_file=str(tmp_path / "key"))
    assert not done.failed
    assert script.seen[0].headers["host"] == f"api.sophia.test:{port}"


def test_what_does_not_answer_yet_is_asked_again(script, run_module) -> None:
    script.reply(503, b'{"error": {"message": "stores are away", "code": "unavailable"}}')
    script.hang_up()
    script.reply(200, ANSWER)
    assert run_module(chat_info, url=script.url, key=KEY, wait_timeout=30, wait_sleep=0).result["tries"] == 3


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (401, b'{"error": {"message": "this key is not known", "code": "invalid_api_key"}}', "invalid_api_key", "HTTP 401: this key is not known"),
        (403, b"RBAC: access denied", "forbidden", "HTTP 403: RBAC: access denied"),
        (200, b"{}", "bad_response", "no text and model in the answer"),
    ],
)
def test_refusals_say_why(status: int, body: bytes, code: str, said: str, script, run_module) -> None:
    script.reply(status, body)
    done = run_module(chat_info, url=script.url, key=KEY)
    assert done.failed
    assert said in done.result["msg"]
    assert done.result["failure"]["code"] == code


def test_nobody_there(run_module) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        done = run_module(chat_info, url=f"http://127.0.0.1:{bound.getsockname()[1]}", key=KEY)
    assert done.result["failure"]["code"] == "connect_failed"


def test_patience_ends(clock) -> None:
    def once() -> dict:
        raise chat_info.ConnectFailed("no")

    with pytest.raises(chat_info.ConnectFailed):
        chat_info.patiently(once, 10, 3, clock, clock.sleep)
    assert clock.slept == [3, 3, 3]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_certificate_is_verified_for_the_name(script, run_module, tmp_path: pathlib.Path) -> None:
    certificate, secret = tmp_path / "cert.pem", tmp_path / "key.pem"
    request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=api.sophia.test"]
    names = ["-addext", "subjectAltName=DNS:api.sophia.test", "-keyout", str(secret), "-out", str(certificate)]
    subprocess.run(["openssl", *request, *names], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, secret)
    script.server.socket = context.wrap_socket(script.server.socket, server_side=True)
    port = script.url.rpartition(":")[2]
    where = {"address": "127.0.0.1", "key": KEY, "ca_path": str(certificate)}
    script.reply(200, ANSWER)
    assert not run_module(chat_info, url=f"https://api.sophia.test:{port}", **where).failed
    other = run_module(chat_info, url=f"https://other.sophia.test:{port}", **where)
    assert other.result["failure"]["code"] == "tls_failed"
