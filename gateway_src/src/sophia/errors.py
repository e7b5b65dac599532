# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors that a caller of our APIs can see, in OpenAI's envelope.

::

    ApiError                     status, type, stable `code`, message that says what to do
    ├── BadRequest               400  invalid_request_error
    ├── Unauthorized             401  authentication_error
    ├── PaymentRequired          402  insufficient_quota     a budget is spent
    ├── Forbidden                403  permission_error
    ├── NotFound                 404  not_found_error
    ├── Conflict                 409  conflict_error
    ├── PayloadTooLarge          413  invalid_request_error
    ├── TooManyRequests          429  rate_limit_error       carries `retry_after`
    ├── Upstream                 502  upstream_error         no candidate could answer
    ├── Unavailable              503  service_unavailable    a store or the upstream is away; carries `retry_after`
    └── DeadlineExceeded         504  timeout_error

Raised anywhere, caught once in each application's edge (`gateway.app`, `gateway.admin`). The wire form is
``{"error": {"message", "type", "param", "code"}}`` (OpenAI API reference, "Error codes").
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

__all__ = [
    "ApiError",
    "BadRequest",
    "Conflict",
    "DeadlineExceeded",
    "Forbidden",
    "NotFound",
    "PayloadTooLarge",
    "PaymentRequired",
    "TooManyRequests",
    "Unauthorized",
    "Unavailable",
    "Upstream",
]


class ErrorBody(msgspec.Struct, frozen=True, omit_defaults=False):
    """The inner object of OpenAI's error envelope."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorEnvelope(msgspec.Struct, frozen=True):
    """OpenAI's error envelope."""

    error: ErrorBody


class ApiError(Exception):
    """An answer that is not a success. `code` is stable; `message` says what happened and what to do.

    `headers` are sent with it (lower-case names).
    """

    status: int = 500
    type: str = "api_error"
    headers: Sequence[tuple[bytes, bytes]] = ()

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if status is not None:
            self.status = status

    def envelope(self) -> ErrorEnvelope:
        """The error as it goes over the wire."""
        return ErrorEnvelope(ErrorBody(self.message, self.type, self.param, self.code))


class BadRequest(ApiError):
    """400: the request itself is wrong; sending it again will not help."""

    status = 400
    type = "invalid_request_error"


class Unauthorized(ApiError):
    """401: no key, or not one of ours."""

    status = 401
    type = "authentication_error"


class PaymentRequired(ApiError):
    """402: a budget of the caller's hierarchy is spent."""

    status = 402
    type = "insufficient_quota"


class Forbidden(ApiError):
    """403: a good key that may not do this."""

    status = 403
    type = "permission_error"


class NotFound(ApiError):
    """404: no such resource, or none that the caller may see."""

    status = 404
    type = "not_found_error"


class Conflict(ApiError):
    """409: the resource is not in a state that allows this."""

    status = 409
    type = "conflict_error"


class PayloadTooLarge(ApiError):
    """413: the body is larger than the gateway takes."""

    status = 413
    type = "invalid_request_error"


class TooManyRequests(ApiError):
    """429: a rate limit; `retry_after` is when it will pass."""

    status = 429
    type = "rate_limit_error"


class Upstream(ApiError):
    """502: every candidate that the caller may use failed."""

    status = 502
    type = "upstream_error"


class Unavailable(ApiError):
    """503: something that the gateway stands on does not answer."""

    status = 503
    type = "service_unavailable"


class DeadlineExceeded(ApiError):
    """504: the request's own deadline passed."""

    status = 504
    type = "timeout_error"
