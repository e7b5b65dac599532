# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP client against a real server on loopback: what it retries, what it refuses, what it never says."""

from __future__ import annotations

import email.utils
import pathlib
import re
import socket
import ssl
import subprocess
from decimal import Decimal

import pytest

from ansible_collections.sophia.platform.plugins.module_utils import _errors, _http

SECRET = "sk-or-v1-" + "ab12" * 16


def make(script, clock, **options):
    options.setdefault("rng", lambda: 1.0)
    options.setdefault("timeout", 5.0)
    return _http.Client(
        script.url + "/api/v1",
        headers={"Authorization": f"Bearer {SECRET}"},
        secrets=[SECRET],
        clock=clock,
        wall=lambda: 1_700_000_000.0,
        sleep=clock.sleep,
        **options,
    )


def test_says_who_it_is_and_sends_json(script, clock):
    script.reply(201, b'{"data": 1}')
    answer = make(script, clock).post("keys", {"name": "ä"})
    seen = script.seen[0]
    assert (answer.status, answer.body) == (201, {"data": 1})
    assert (seen.method, seen.path, seen.body) == ("POST", "/api/v1/keys", '{"name":"ä"}'.encode())
    assert seen.headers["user-agent"] == _http.USER_AGENT
    assert seen.headers["content-type"] == "application/json"
    assert seen.headers["authorization"] == f"Bearer {SECRET}"


def test_the_user_agent_has_the_version_of_galaxy_yml():
    galaxy = pathlib.Path(__file__).parents[4].joinpath("galaxy.yml").read_text(encoding="utf-8")
    assert re.search(r"(?m)^version: (\S+)$", galaxy).group(1) == _http.COLLECTION_VERSION


def test_query_leaves_out_none_and_spells_booleans(script, clock):
    script.reply(200)
    make(script, clock).get("keys", query={"offset": 0, "include_disabled": True, "workspace_id": None, "q": "a&b"})
    assert script.seen[0].path == "/api/v1/keys?offset=0&include_disabled=true&q=a%26b"


def test_money_is_read_exactly(script, clock):
    script.reply(200, b'{"limit": 0.1}')
    assert make(script, clock, parse_float=Decimal).get("key").body == {"limit": Decimal("0.1")}


@pytest.mark.parametrize("status", [429, 502, 503, 504, 524, 529])
def test_get_is_retried_with_exponential_backoff_then_given_up(script, clock, status):
    for _number in range(5):
        script.reply(status, b'{"error": {"message": "no"}}')
    with pytest.raises(_errors.ApiError) as caught:
        make(script, clock).get("keys")
    assert caught.value.status == status
    assert len(script.seen) == 5
    assert clock.slept == [1.0, 2.0, 4.0, 8.0]


def test_jitter_is_full_and_the_cap_holds():
    backoff = _http.Backoff()
    assert backoff.delay(1, None, lambda: 0.25) == 0.25
    assert backoff.delay(30, None, lambda: 1.0) == 60.0
    assert backoff.delay(1, 7200.0, lambda: 1.0) == 60.0


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 422, 500])
def test_other_answers_are_not_retried(script, clock, status):
    script.reply(status)
    with pytest.raises(_errors.class_for(status)):
        make(script, clock).get("keys")
    assert clock.slept == []


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_create_is_not_repeated_when_it_may_have_happened(script, clock, status):
    script.reply(status)
    with pytest.raises(_errors.ServerError) as caught:
        make(script, clock).post("keys", {})
    assert caught.value.ambiguous
    assert len(script.seen) == 1


def test_a_create_is_repeated_when_it_was_refused_unread(script, clock):
    script.reply(429, headers={"Retry-After": "3"})
    script.reply(201, b'{"ok": true}')
    assert make(script, clock).post("keys", {}).body == {"ok": True}
    assert clock.slept == [3.0]


def test_a_vouched_for_post_is_repeated(script, clock):
    script.reply(503)
    script.reply(200, b"[]")
    assert make(script, clock).post("search", {}, idempotent=True).body == []


def test_retry_after_as_a_date(script, clock):
    script.reply(503, headers={"Retry-After": email.utils.formatdate(1_700_000_009, usegmt=True)})
    script.reply(200)
    make(script, clock).get("keys")
    assert clock.slept == [9.0]


@pytest.mark.parametrize("value", ["soon", "-1", "1e3", "", "²"])
def test_a_nonsensical_retry_after_is_no_retry_after(value):
    assert _http.retry_after({"retry-after": value}, 0.0) is None


def test_a_broken_connection_is_ambiguous_for_a_create_and_retried_for_a_read(script, clock):
    script.hang_up()
    with pytest.raises(_errors.ConnectionLost) as caught:
        make(script, clock).post("keys", {})
    assert caught.value.ambiguous and caught.value.retryable
    script.hang_up()
    script.reply(200, b"[]")
    assert make(script, clock).get("keys").body == []


def test_a_short_answer_is_a_broken_connection(script, clock):
    script.reply(200, b'{"a": 1}', headers={"Content-Length": "100"})
    with pytest.raises(_errors.ConnectionLost):
        make(script, clock, backoff=_http.Backoff(tries=1)).get("keys")


def test_silence_is_a_timeout(script, clock):
    script.stall(30)
    with pytest.raises(_errors.Timeout) as caught:
        make(script, clock, timeout=0.2).post("keys", {})
    assert caught.value.ambiguous


def test_a_refused_connection_is_not_ambiguous_and_a_create_may_try_again(clock):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    client = _http.Client(url, clock=clock, sleep=clock.sleep, rng=lambda: 1.0, backoff=_http.Backoff(tries=3))
    with pytest.raises(_errors.ConnectFailed) as caught:
        client.post("keys", {})
    assert not caught.value.ambiguous
    assert clock.slept == [1.0, 2.0]


def test_redirects_are_not_followed(script, clock):
    script.reply(302, headers={"Location": script.url + "/elsewhere"})
    with pytest.raises(_errors.BadResponse) as caught:
        make(script, clock).get("keys")
    assert caught.value.code == "redirected"
    assert [seen.path for seen in script.seen] == ["/api/v1/keys"]


def test_netrc_does_not_replace_the_credential(script, clock, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n", encoding="utf-8")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    script.reply(200)
    make(script, clock).get("keys")
    assert script.seen[0].headers["authorization"] == f"Bearer {SECRET}"


def test_the_size_of_an_answer_is_bounded(script, clock):
    script.reply(200, b'"' + b"x" * 100_000 + b'"')
    with pytest.raises(_errors.BadResponse) as caught:
        make(script, clock, max_bytes=50_000).get("keys")
    assert caught.value.code == "too_large"


def test_an_answer_that_is_not_json(script, clock):
    script.reply(200, b"<html>")
    with pytest.raises(_errors.BadResponse) as caught:
        make(script, clock).post("keys", {})
    assert caught.value.ambiguous
    script.reply(200, b"a 1\n")
    assert make(script, clock).request("GET", "metrics", text=True).body == "a 1\n"
    script.reply(200, b'{"a":\xff}')
    assert make(script, clock).request("GET", "keys", undecoded=True).body == b'{"a":\xff}'


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        (b'{"error": {"code": 403, "message": "no", "metadata": {"a": 1}}}', None, "no"),
        (b'{"error": {"code": "global/quota", "message": "no"}}', "global/quota", "no"),
        (b'{"status": {"error": "no"}, "time": 0.1}', None, "no"),
        (b'{"status": "error", "errorType": "bad_data", "error": "no"}', "bad_data", "no"),
        (b'{"title": "T", "detail": "no"}', None, "no"),
        (b"no\n way", None, "no way"),
        (b"", None, "Bad Request"),
    ],
)
def test_error_bodies(script, clock, body, code, message):
    script.reply(400, body, headers={"X-Request-Id": "r1"})
    with pytest.raises(_errors.Rejected) as caught:
        make(script, clock).get("keys")
    error = caught.value
    assert error.code == (code or "rejected")
    assert error.message.endswith(f"HTTP 400: {message}")
    assert error.as_failure()["failure"]["request_id"] == "r1"


@pytest.mark.parametrize("status", [400, 401, 500])
def test_no_error_says_the_secret(script, clock, status):
    other = "sk-or-v1-" + "cd" * 32
    body = f'{{"error": {{"message": "bad {SECRET} {other}", "metadata": {{"a": ["{SECRET}"]}}}}}}'
    script.reply(status, body.encode())
    with pytest.raises(_errors.ApiError) as caught:
        make(script, clock).get("keys", query={"q": SECRET})
    said = repr(caught.value) + str(caught.value.as_failure())
    assert SECRET not in said and other not in said


def test_a_credential_that_no_header_can_hold_is_not_quoted(script, clock):
    client = _http.Client(script.url, headers={"Authorization": "Bearer hush\nhush"}, clock=clock, sleep=clock.sleep)
    with pytest.raises(_errors.InvalidInput) as caught:
        client.get("keys")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("url", ["ftp://a/b", "localhost", "http://u:p@host/", "https://host/?k=v", ""])
def test_only_plain_urls_are_taken(url):
    with pytest.raises(_errors.InvalidInput) as caught:
        _http.Client(url)
    assert "u:p" not in str(caught.value)


def test_retries_are_told(script, clock):
    told = []
    script.reply(503, headers={"Retry-After": "2"})
    script.reply(200)
    make(script, clock, on_retry=lambda error, seconds: told.append((error.status, seconds))).get("keys")
    assert told == [(503, 2.0)]


def test_segment_keeps_to_one_path_segment():
    assert _http.segment("a/../b?c#d e") == "a%2F..%2Fb%3Fc%23d%20e"


def test_certificates_are_verified_unless_told_otherwise(script, clock, tmp_path):
    """A real TLS server with a certificate of its own making."""
    pem = tmp_path / "pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(pem), "-out", str(pem) + ".crt"]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(pem) + ".crt", str(pem))
    script.server.socket = context.wrap_socket(script.server.socket, server_side=True)
    url = script.url.replace("http:", "https:")
    for _number in range(2):
        script.reply(200)

    def get(**options):
        return _http.Client(url, timeout=5, clock=clock, sleep=clock.sleep, **options).get("a").status

    with pytest.raises(_errors.ConnectFailed) as caught:
        get()
    assert caught.value.code == "tls_failed" and clock.slept == []
    assert get(ca_path=str(pem) + ".crt") == 200
    assert get(validate_certs=False) == 200
