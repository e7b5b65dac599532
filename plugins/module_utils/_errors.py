# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""The collection's errors: one tree, raised anywhere, caught once in a module's ``main()``.

::

    PlatformError                  what every module may fail with
    ├── InvalidInput               what the user asked for cannot be done as asked
    ├── StateConflict              what is there contradicts what was asked for, or a saved state
    ├── WaitTimeout                a condition did not come true in time; carries the last seen object
    └── ApiError                   a call over HTTP did not give the answer that was wanted
        ├── ConnectFailed          no connection: nothing was sent, so nothing can have happened
        ├── Timeout                no answer in time: a write may or may not have happened
        ├── ConnectionLost         connection broke before the whole answer: as above
        ├── BadResponse            an answer that cannot be used: not JSON, too large, a redirect
        ├── Rejected               400, 405, 406, 411-415, 422 and other 4xx: the request itself is wrong
        ├── Unauthenticated        401
        ├── PaymentRequired        402
        ├── Forbidden              403
        ├── NotFound               404, 410
        ├── Conflict               409, 412, 423
        ├── RateLimited            429
        └── ServerError            5xx

``str(error)`` and ``error.as_failure()`` go into results and logs, so they never hold a secret:
whoever makes an error from foreign text passes it through :func:`scrub`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

MASK = "********"

# Long enough not to eat words like "sk-or-v1-" in an explanation, short enough to catch a key cut off by a log.
_TOKEN = re.compile(r"(?i)\b(sk-[a-z0-9]+(?:-v\d+)?-|secret_|bearer\s+|basic\s+)[a-z0-9._~+/=-]{8,}")
_USERINFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s@]+@")


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """Return ``text`` without the given secrets and without anything that looks like a bearer token."""
    # The longest first: a secret that contains another must not leave its remainder behind.
    for secret in sorted((s for s in secrets if s), key=len, reverse=True):
        text = text.replace(secret, MASK)
    text = _USERINFO.sub(r"\1" + MASK + "@", text)
    return _TOKEN.sub(lambda match: match.group(1) + MASK, text)


class PlatformError(Exception):
    """The root. ``code`` is a stable word for programs, ``message`` a sentence for people."""

    code = "error"
    retryable = False

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retryable: bool | None = None,
        request_id: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = self.code if code is None else code
        self.status = status
        self.retryable = self.retryable if retryable is None else retryable
        self.request_id = request_id
        self.details = {} if details is None else details

    def as_failure(self) -> dict[str, dict[str, Any]]:
        """Return keyword arguments for ``fail_json``: the error as data under ``failure``."""
        return {
            "failure": {
                "code": self.code,
                "message": self.message,
                "status": self.status,
                "retryable": self.retryable,
                "request_id": self.request_id,
                "details": self.details,
            }
        }


class InvalidInput(PlatformError):
    """What the user asked for cannot be done as asked; running again will not help."""

    code = "invalid_input"


class StateConflict(PlatformError):
    """What is there contradicts what was asked for, or what an earlier run wrote down."""

    code = "state_conflict"


class WaitTimeout(PlatformError):
    """A condition did not come true in time. ``last`` is what was seen last, ``elapsed`` is in seconds."""

    code = "wait_timeout"
    retryable = True

    def __init__(
        self, message: str, *, last: Any = None, elapsed: float = 0.0, details: dict[str, Any] | None = None
    ) -> None:
        super().__init__(message, details={**(details or {}), "last": last, "elapsed": round(elapsed, 3)})
        self.last = last
        self.elapsed = elapsed


class ApiError(PlatformError):
    """A call over HTTP did not give the answer that was wanted.

    ``ambiguous`` says that a write may have happened although no success was reported: read back before
    trying again. ``retry_after`` is the server's wish in seconds, where it had one.
    """

    code = "api_error"
    ambiguous = False
    retry_after: float | None = None


class ConnectFailed(ApiError):
    """No connection could be made. Nothing was sent."""

    code = "connect_failed"
    retryable = True


class Timeout(ApiError):
    """No whole answer within the time allowed."""

    code = "timeout"
    retryable = True
    ambiguous = True


class ConnectionLost(ApiError):
    """The connection broke after the request may have been sent."""

    code = "connection_lost"
    retryable = True
    ambiguous = True


class BadResponse(ApiError):
    """An answer that cannot be used: not JSON, too large, a redirect, or of the wrong shape.

    The request was processed by somebody, so a write may have happened.
    """

    code = "bad_response"
    ambiguous = True


class Rejected(ApiError):
    """A 4xx without a class of its own: the request itself is wrong."""

    code = "rejected"


class Unauthenticated(ApiError):
    """401: no credential, or one that is not valid (any more)."""

    code = "unauthenticated"


class PaymentRequired(ApiError):
    """402: the account cannot pay."""

    code = "payment_required"


class Forbidden(ApiError):
    """403: the credential is valid but may not do this."""

    code = "forbidden"


class NotFound(ApiError):
    """404 or 410: there is no such thing."""

    code = "not_found"


class Conflict(ApiError):
    """409, 412 or 423: somebody else changed it, or it exists already."""

    code = "conflict"


class RateLimited(ApiError):
    """429: refused before anything was done."""

    code = "rate_limited"
    retryable = True


class ServerError(ApiError):
    """5xx: the server failed, possibly after it did what was asked."""

    code = "server_error"
    ambiguous = True


_BY_STATUS: dict[int, type[ApiError]] = {
    401: Unauthenticated,
    402: PaymentRequired,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    423: Conflict,
    429: RateLimited,
}


def class_for(status: int) -> type[ApiError]:
    """Return the class of error for an HTTP status that is not a success."""
    if 300 <= status < 400:
        return BadResponse
    if status >= 500:
        return ServerError
    return _BY_STATUS.get(status, Rejected)
