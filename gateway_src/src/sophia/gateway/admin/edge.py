# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge of the management API: who asks, and how every error becomes OpenAI's envelope."""

from __future__ import annotations

import http
import logging
import math
from typing import Any

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.middleware import AbstractAuthenticationMiddleware, AuthenticationResult

from sophia.errors import ApiError, BadRequest, ErrorBody, ErrorEnvelope, Unauthorized
from sophia.gateway.admin.services import Services
from sophia.stores.model import Principal
from sophia.stores.registry import digest

__all__ = ["Authentication", "BodyRequest", "answer_error", "answer_http_error", "answer_unknown_error"]

_log = logging.getLogger(__name__)
_CODES = {400: "invalid_request", 404: "route_not_found", 405: "method_not_allowed", 413: "payload_too_large"}


class Authentication(AbstractAuthenticationMiddleware):
    """Finds the principal of ``Authorization: Bearer`` (or ``x-api-key``)."""

    async def authenticate_request(self, connection: ASGIConnection[Any, Any, Any, Any]) -> AuthenticationResult:
        """The caller.

        Raises:
            Unauthorized: no key, or none that works.
        """
        services: Services = connection.app.state.services
        scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            secret = connection.headers.get("x-api-key", "")
        secret = secret.strip()
        if not secret:
            raise Unauthorized("missing_key", "send a key as `Authorization: Bearer sk-sophia-…`")
        principal = services.tenancy.by_key(digest(secret))
        if principal is None:
            raise Unauthorized("invalid_key", "this key is not known; check it, or ask for a new one")
        if principal.disabled:
            raise Unauthorized("key_disabled", "this key, its user, team or organisation is disabled")
        if principal.expires_at is not None and principal.expires_at <= services.clock():
            raise Unauthorized("key_expired", "this key has expired; ask for a new one")
        return AuthenticationResult(user=principal, auth=None)


class BodyRequest(Request[Principal, None, State]):
    """A request whose body may be anything at all."""

    async def json(self) -> Any:
        """The decoded body.

        Raises:
            BadRequest: it is nested too deeply, or not UTF-8; what else is wrong with it the framework tells.
        """
        try:
            return await super().json()
        except (UnicodeDecodeError, RecursionError) as error:
            raise BadRequest(
                "invalid_request", "the body is not JSON of sensible depth in UTF-8", param="data"
            ) from error


def answer_error(_: Request[Any, Any, Any], error: ApiError) -> Response[ErrorEnvelope]:
    """Our own errors."""
    headers = {"retry-after": str(math.ceil(error.retry_after))} if error.retry_after is not None else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(error.envelope(), status_code=error.status, headers=headers, media_type="application/json")


def answer_http_error(_: Request[Any, Any, Any], error: HTTPException) -> Response[ErrorEnvelope]:
    """The framework's errors: validation, no such route, wrong method, body too large."""
    status = error.status_code
    if status >= 500:
        _log.error("the framework failed", exc_info=error)
    code = _CODES.get(status, http.HTTPStatus(status).phrase.lower().replace(" ", "_"))
    kind = "not_found_error" if status == 404 else "api_error" if status >= 500 else "invalid_request_error"
    param, message = _explain(error)
    return Response(
        ErrorEnvelope(ErrorBody(message, kind, param, code)),
        status_code=status,
        headers=error.headers or {},
        media_type="application/json",
    )


def answer_unknown_error(_: Request[Any, Any, Any], error: Exception) -> Response[ErrorEnvelope]:
    """A fault of ours: logged whole, told without detail."""
    _log.error("the management API failed", exc_info=error)
    body = ErrorBody("the server failed; the log says why", "api_error", None, "internal_error")
    return Response(ErrorEnvelope(body), status_code=500, media_type="application/json")


def _explain(error: HTTPException) -> tuple[str | None, str]:
    """The first wrong parameter, and a sentence that names all of them."""
    problems = error.extra if isinstance(error.extra, list) else []
    named = [(problem.get("key"), problem.get("message", "")) for problem in problems if isinstance(problem, dict)]
    if not named:
        return None, error.detail or "the request is not valid"
    text = "; ".join(f"{key}: {message}" if key else message for key, message in named)
    return named[0][0], text
