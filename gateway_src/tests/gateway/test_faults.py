# SPDX-License-Identifier: GPL-3.0-or-later
"""OpenRouter's errors, told apart by what is to be done about them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.gateway.faults import Kind, classify, retry_after_seconds


def body(code: int | str | None, message: str = "no", **error: Any) -> bytes:
    inner: dict[str, Any] = {"message": message, **error}
    if code is not None:
        inner["code"] = code
    return json.dumps({"error": inner}).encode()


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (401, body(401), Kind.BAD_KEY),
        (
            403,
            body(403, "Key limit exceeded (total limit). Manage it using https://openrouter.ai/keys"),
            Kind.KEY_LIMIT,
        ),
        (402, body(402, "Key limit has been reached"), Kind.KEY_LIMIT),
        (403, body(403, "Forbidden"), Kind.BAD_KEY),
        (403, body(403, "flagged", metadata={"reasons": ["violence"], "flagged_input": "x"}), Kind.REFUSED),
        (403, body(403, "blocked", metadata={"patterns": ["x"]}), Kind.REFUSED),
        (403, body(403, "region", availability={"code": "region_restricted", "retryable": False}), Kind.UNSERVED),
        (402, body(402, "Insufficient credits"), Kind.CREDIT),
        (402, body(402, "You requested up to 4096 tokens, but can only afford 120"), Kind.AFFORD),
        (402, body(402, "x", metadata={"limit_source": "in_flight"}), Kind.IN_FLIGHT),
        (429, body(429, "Rate limit exceeded: free-models-per-min"), Kind.RATE),
        (429, body(429, "Provider returned error", metadata={"provider_code": 429}), Kind.BUSY),
        (503, body(503), Kind.BUSY),
        (529, body(529), Kind.BUSY),
        (404, body(404, "No endpoints found"), Kind.UNSERVED),
        (400, body(400, "bad", metadata={"error_type": "context_length_exceeded"}), Kind.CONTEXT),
        (400, body(400, "bad", metadata={"error_type": "content_policy_violation"}), Kind.REFUSED),
        (400, body(400), Kind.INVALID),
        (422, body(422), Kind.INVALID),
        (413, body(413), Kind.INVALID),
        (500, body(500), Kind.FAILED),
        (502, body(502), Kind.FAILED),
        (408, body(408), Kind.FAILED),
        (524, body(524), Kind.FAILED),
        (200, body(502), Kind.FAILED),
        (200, body("server_error"), Kind.FAILED),
        (200, body(None, http_status=429, error_type="rate_limit_exceeded"), Kind.RATE),
        (500, b"<html>bad gateway</html>", Kind.FAILED),
        (200, b'{"error": "text"}', Kind.FAILED),
    ],
)
def test_kinds(status: int, answer: bytes, kind: Kind) -> None:
    assert classify(status, answer).kind is kind


def test_a_limit_is_openrouters_own_only_where_its_headers_say_so() -> None:
    anthropic = b'{"type": "error", "error": {"type": "rate_limit_error", "message": "at capacity"}}'
    assert classify(429, anthropic, own_limit=True).kind is Kind.RATE
    assert classify(429, anthropic, own_limit=False).kind is Kind.BUSY
    upstream = b'{"type": "error", "error": {"message": "x"}, "metadata": {"provider_code": "rate_limit_exceeded"}}'
    assert classify(429, upstream, own_limit=True).kind is Kind.BUSY


def test_a_region_is_told_by_its_words_where_nothing_else_tells() -> None:
    answer = b'{"type": "error", "error": {"message": "This model is not available in your region.", '
    answer += b'"error_type": "permission_denied"}}'
    assert classify(403, answer).kind is Kind.UNSERVED


def test_what_a_fault_carries() -> None:
    fault = classify(402, body(402, "can only afford 120"))
    assert (fault.affordable, fault.breaks) == (120, False)
    assert classify(503, body(503), "7").retry_after == 7
    assert classify(503, body(503, availability={"retryable": True, "retry_after": 3})).retry_after == 3
    assert classify(502, body(502)).breaks


def test_retry_after() -> None:
    assert retry_after_seconds("2.5") == 2.5
    assert retry_after_seconds("-1") == 0
    assert retry_after_seconds("99999999") == 3600
    assert retry_after_seconds("soon") is None
    assert retry_after_seconds(None) is None
    assert retry_after_seconds("nan") is None
    in_a_minute = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    found = retry_after_seconds(in_a_minute)
    assert found is not None
    assert 50 < found <= 60


@given(status=st.integers(100, 599), answer=st.binary(max_size=200), header=st.none() | st.text(max_size=30))
def test_nothing_breaks_it(status: int, answer: bytes, header: str | None) -> None:
    fault = classify(status, answer, header)
    assert 400 <= fault.status < 600
