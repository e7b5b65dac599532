# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""JSON over HTTP for every module of the collection, on ``ansible.module_utils.urls`` alone.

Bounded in every direction: seconds to connect and between bytes (``timeout``), seconds for the whole answer
(``deadline``), bytes of the answer, tries, and seconds slept. Redirects are never followed, so a credential never
goes to a host the user did not name, and neither ``.netrc`` nor anything else replaces the credential given.

What may be retried is decided by what may have happened:

* never connected, or 429: nothing happened, so every method may try again;
* 502, 503, 504, time-out, broken connection: the server may have done it, so only methods whose repetition changes
  nothing (GET, HEAD, PUT, DELETE, and others if the caller vouches for them by ``idempotent=True``) try again;
* everything else: the caller decides.

Waiting follows Retry-After (RFC 9110, section 10.2.3: seconds or an HTTP date), else exponential backoff with full
jitter (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).

``Request.open`` installs its opener process-wide: clients used from several threads at once must agree on
``validate_certs``, ``ca_path`` and ``use_proxy``.
"""

from __future__ import annotations

import email.utils
import errno
import http.client
import json
import random
import socket
import ssl
import time
import urllib.error
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible.module_utils.urls import ConnectionError as UrlsConnectionError
from ansible.module_utils.urls import Request, SSLValidationError, make_context

from ansible_collections.sophia.platform.plugins.module_utils._errors import (
    ApiError,
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    InvalidInput,
    RateLimited,
    Timeout,
    class_for,
    scrub,
)

COLLECTION_VERSION = "0.1.0"
USER_AGENT = f"sophia.platform/{COLLECTION_VERSION}"

IDEMPOTENT = frozenset({"GET", "HEAD", "PUT", "DELETE"})
# 524 and 529 are what Cloudflare and OpenRouter answer for "origin too slow" and "provider overloaded".
RETRIED_STATUS = frozenset({502, 503, 504, 524, 529})
MAX_BYTES = 32 * 1024 * 1024
_CHUNK = 64 * 1024
_MESSAGE_MAX = 500
_UNREACHABLE = frozenset({errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL})


@dataclass(frozen=True)
class Backoff:
    """How often and how long to wait: ``tries`` in all, seconds for the rest."""

    tries: int = 5
    base: float = 1.0
    factor: float = 2.0
    cap: float = 60.0

    def delay(self, attempt: int, retry_after: float | None, rng: Callable[[], float]) -> float:
        """Return the seconds to sleep after failed attempt number ``attempt`` (from 1)."""
        if retry_after is not None:
            return min(max(retry_after, 0.0), self.cap)
        return rng() * min(self.cap, self.base * self.factor ** (attempt - 1))


@dataclass(frozen=True)
class Response:
    """A successful answer. ``body`` is decoded JSON, text, or bytes, as it was asked for; header names are lower case."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def request_id(self) -> str | None:
        return request_id(self.headers)


@dataclass(frozen=True)
class Explanation:
    """What an error body says: a word for programs, a sentence for people, the rest."""

    code: str | None
    message: str
    details: dict[str, Any] = field(default_factory=dict)


def request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's name for the request, which its support will ask for."""
    for name in ("x-request-id", "x-generation-id", "cf-ray"):
        if headers.get(name):
            return headers[name]
    return None


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that Retry-After asks for, ``now`` being Unix time; None where it is absent or nonsense."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    if not value:
        return None
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (TypeError, ValueError, OverflowError):
        return None


def explain(status: int, body: Any) -> Explanation:
    """Read the error bodies of OpenRouter, Lambda Cloud, Qdrant, Prometheus and RFC 9457 problem documents."""
    details: dict[str, Any] = {}
    if isinstance(body, dict):
        error = body.get("error")
        if isinstance(error, dict):
            details = {key: value for key, value in error.items() if key not in ("message", "code")}
            code = error.get("code")
            message = str(error.get("message") or f"HTTP {status}")
            # A number is the status over again; only a word tells a program more.
            return Explanation(code if isinstance(code, str) else None, message, details)
        if isinstance(error, str) and error:
            kind = body.get("errorType")
            return Explanation(kind if isinstance(kind, str) else None, error)
        state = body.get("status")
        if isinstance(state, dict) and state.get("error"):
            return Explanation(None, str(state["error"]))
        for key in ("detail", "title", "message"):
            if isinstance(body.get(key), str) and body[key]:
                return Explanation(None, body[key])
    if isinstance(body, str) and body.strip():
        return Explanation(None, " ".join(body.split()))
    return Explanation(None, http.client.responses.get(status, f"HTTP {status}"))


class Client:
    """One HTTP API.

    ``base_url`` may have a path; requests are made below it. ``secrets`` are masked in every message. ``explain``
    reads the API's own error bodies. ``parse_float`` is ``Decimal`` where numbers are money. ``classify`` may turn
    an error into a more telling one of the same tree. ``on_retry(error, seconds)`` is told of every wait. ``context`` is
    used for TLS instead of one made from ``validate_certs`` and ``ca_path``.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Mapping[str, str] | None = None,
        secrets: Sequence[str] = (),
        timeout: float = 30.0,
        deadline: float | None = None,
        backoff: Backoff = Backoff(),
        max_bytes: int = MAX_BYTES,
        validate_certs: bool = True,
        ca_path: str | None = None,
        context: ssl.SSLContext | None = None,
        use_proxy: bool = True,
        parse_float: Callable[[str], Any] = float,
        explain: Callable[[int, Any], Explanation] = explain,
        classify: Callable[[ApiError], ApiError] | None = None,
        on_retry: Callable[[ApiError, float], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        rng: Callable[[], float] = random.random,
    ) -> None:
        parts = urllib.parse.urlsplit(base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"not an http or https URL: {scrub(base_url, secrets)}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InvalidInput(f"a base URL has no credentials, query or fragment: {scrub(base_url, secrets)}")
        self.base_url = base_url.rstrip("/")
        self.timeout = timeout
        self._headers = {"Accept": "application/json", "User-Agent": USER_AGENT, **(headers or {})}
        self._secrets = tuple(secrets)
        self._deadline = 4 * timeout if deadline is None else deadline
        self._backoff = backoff
        self._max_bytes = max_bytes
        self._parse_float = parse_float
        self._explain = explain
        self._classify = classify
        self._on_retry = on_retry
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._rng = rng
        self._opener = Request(
            http_agent=USER_AGENT,
            timeout=timeout,
            follow_redirects="none",
            use_netrc=False,
            decompress=False,
            use_proxy=use_proxy,
            context=context or _context(parts.scheme, validate_certs, ca_path),
        )

    def get(self, path: str, *, query: Mapping[str, Any] | None = None) -> Response:
        return self.request("GET", path, query=query)

    def put(self, path: str, body: Any = None) -> Response:
        return self.request("PUT", path, body=body)

    def post(self, path: str, body: Any = None, *, idempotent: bool = False) -> Response:
        return self.request("POST", path, body=body, idempotent=idempotent)

    def patch(self, path: str, body: Any, *, idempotent: bool = False) -> Response:
        return self.request("PATCH", path, body=body, idempotent=idempotent)

    def delete(self, path: str) -> Response:
        return self.request("DELETE", path)

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        idempotent: bool | None = None,
        text: bool = False,
        undecoded: bool = False,
    ) -> Response:
        """Make one call, with its retries, and return the answer.

        ``query`` values of None are left out and booleans become true/false. ``idempotent`` overrides what the method
        says about repetition. ``text`` asks for the body as text, ``undecoded`` as the bytes that came. Raises a leaf
        of :class:`ApiError`.
        """
        repeatable = method in IDEMPOTENT if idempotent is None else idempotent
        url = self.base_url + "/" + path.lstrip("/") if path else self.base_url
        if query:
            url += _query(query)
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._once(method, url, body, headers or {}, text, undecoded)
            except ApiError as raised:
                error = self._classify(raised) if self._classify else raised
                if attempt >= self._backoff.tries or not _may_retry(error, repeatable):
                    raise error from (raised if error is not raised else raised.__cause__)
                seconds = self._backoff.delay(attempt, error.retry_after, self._rng)
                if self._on_retry:
                    self._on_retry(error, seconds)
                self._sleep(seconds)

    def _once(self, method: str, url: str, body: Any, headers: Mapping[str, str], text: bool, undecoded: bool) -> Response:
        where = f"{method} {urllib.parse.urlsplit(self.base_url).netloc}{_path_only(url)}"
        sent = {**self._headers, **headers}
        data: bytes | None = None
        if isinstance(body, bytes):
            data = body
        elif body is not None:
            data = _encode(where, body)
            sent.setdefault("Content-Type", "application/json")
        deadline = self._clock() + self._deadline
        try:
            answer = self._opener.open(method, url, data=data, headers=sent)
        except urllib.error.HTTPError as error:
            answer = error
        except (OSError, http.client.HTTPException, UrlsConnectionError) as error:
            raise self._transport(where, error, connecting=True) from None
        except ValueError:
            # http.client puts the offending header, which may be the credential, into its message.
            raise InvalidInput(f"{where}: the URL or a header has characters that HTTP does not allow") from None
        with answer:
            status = int(answer.status)
            got = {name.lower(): value for name, value in answer.headers.items()}
            try:
                raw = self._read(answer, where, deadline)
            except (OSError, http.client.HTTPException) as error:
                raise self._transport(where, error, connecting=False) from None
        if not 200 <= status < 300:
            raise self._refused(where, status, got, raw)
        return Response(status, raw if undecoded else self._decode(where, status, got, raw, text), got)

    def _read(self, answer: Any, where: str, deadline: float) -> bytes:
        chunks: list[bytes] = []
        size = 0
        while chunk := answer.read(_CHUNK):
            size += len(chunk)
            if size > self._max_bytes:
                raise BadResponse(f"{where}: the answer is larger than {self._max_bytes} bytes", code="too_large")
            if self._clock() > deadline:
                raise Timeout(f"{where}: the answer did not end within {self._deadline:g} s")
            chunks.append(chunk)
        # Reading piecewise, http.client does not complain of an answer shorter than its Content-Length.
        if getattr(answer, "length", None):
            raise ConnectionLost(f"{where}: the answer ended {answer.length} bytes early")
        return b"".join(chunks)

    def _decode(self, where: str, status: int, headers: Mapping[str, str], raw: bytes, text: bool) -> Any:
        if text:
            return raw.decode("utf-8", "replace")
        if not raw.strip():
            return None
        try:
            return json.loads(raw, parse_float=self._parse_float)
        except ValueError:
            raise BadResponse(
                f"{where}: HTTP {status} with a body that is not JSON", status=status, request_id=request_id(headers)
            ) from None

    def _refused(self, where: str, status: int, headers: Mapping[str, str], raw: bytes) -> ApiError:
        """Make the error of an answer that is not a success."""
        if 300 <= status < 400:
            return BadResponse(f"{where}: HTTP {status}; redirects are not followed", code="redirected", status=status)
        body: Any
        try:
            body = json.loads(raw) if raw.strip() else None
        except ValueError:
            body = raw[: 4 * _MESSAGE_MAX].decode("utf-8", "replace")
        told = self._explain(status, body)
        error = class_for(status)(
            f"{where}: HTTP {status}: {self._clean(told.message)}",
            code=told.code,
            status=status,
            retryable=status in RETRIED_STATUS or status == 429 or None,
            request_id=request_id(headers),
            details=_scrub_all(told.details, self._secrets),
        )
        error.retry_after = retry_after(headers, self._wall())
        return error

    def _transport(self, where: str, error: Exception, *, connecting: bool) -> ApiError:
        """Make the error of a call without an answer, telling "nothing was sent" from "who knows"."""
        reason = error
        if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
            reason = error.reason
        said = self._clean(str(reason) or type(reason).__name__)
        if isinstance(reason, (TimeoutError, socket.timeout)):
            return Timeout(f"{where}: no answer within {self.timeout:g} s")
        if isinstance(reason, (ssl.SSLCertVerificationError, SSLValidationError)):
            return ConnectFailed(f"{where}: {said}", code="tls_failed", retryable=False)
        unreachable = isinstance(reason, OSError) and reason.errno in _UNREACHABLE
        if connecting and (unreachable or isinstance(reason, (socket.gaierror, UrlsConnectionError))):
            return ConnectFailed(f"{where}: {said}")
        return ConnectionLost(f"{where}: {said}")

    def _clean(self, message: str) -> str:
        message = scrub(message, self._secrets)
        return message if len(message) <= _MESSAGE_MAX else message[: _MESSAGE_MAX - 1] + "…"


def _context(scheme: str, validate_certs: bool, ca_path: str | None) -> ssl.SSLContext:
    """Make the TLS context once a client: left to itself, ``Request.open`` reads the system's certificates every time."""
    if scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return make_context(cafile=ca_path, validate_certs=validate_certs)


def segment(text: str) -> str:
    """Return ``text`` as one path segment: nothing in it can change which resource is meant."""
    return urllib.parse.quote(text, safe="")


def _encode(where: str, body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError):
        raise InvalidInput(f"{where}: the request body cannot be written as JSON") from None


def _may_retry(error: ApiError, repeatable: bool) -> bool:
    if not error.retryable:
        return False
    return repeatable or isinstance(error, (ConnectFailed, RateLimited))


def _query(query: Mapping[str, Any]) -> str:
    def plain(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    pairs = [
        (name, plain(item))
        for name, value in query.items()
        if value is not None
        for item in (value if isinstance(value, (list, tuple)) else [value])
    ]
    return "?" + urllib.parse.urlencode(pairs) if pairs else ""


def _path_only(url: str) -> str:
    """Return the path: a query may hold what belongs in no log."""
    return urllib.parse.urlsplit(url).path


def _scrub_all(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, str):
        return scrub(value, secrets)
    if isinstance(value, dict):
        return {scrub(str(name), secrets): _scrub_all(item, secrets) for name, item in value.items()}
    if isinstance(value, list):
        return [_scrub_all(item, secrets) for item in value]
    return value
