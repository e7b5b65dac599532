# SPDX-License-Identifier: GPL-3.0-or-later
"""The management API `/admin/v1`, as one ASGI application."""

from __future__ import annotations

from litestar import Litestar
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.middleware import DefineMiddleware

from sophia.errors import ApiError
from sophia.gateway.admin import docs, flags, keys, log, organizations, platform, teams, usage, users
from sophia.gateway.admin.edge import Authentication, BodyRequest, answer_error, answer_http_error, answer_unknown_error
from sophia.gateway.admin.services import Services, provide_call

__all__ = ["create_admin"]

_MAX_BODY = 1024 * 1024


def create_admin(services: Services) -> Litestar:
    """The application, to be mounted without cutting its path: it answers ``/admin/v1/…``.

    It opens and closes nothing; the stores belong to the caller.
    """
    return Litestar(
        path="/admin/v1",
        route_handlers=[
            organizations.router,
            teams.router,
            users.router,
            keys.router,
            flags.router,
            log.router,
            usage.router,
            platform.router,
            *docs.handlers,
        ],
        dependencies={"call": Provide(provide_call, sync_to_thread=False)},
        middleware=[DefineMiddleware(Authentication, exclude=docs.PUBLIC)],
        exception_handlers={
            ApiError: answer_error,
            HTTPException: answer_http_error,
            Exception: answer_unknown_error,
        },
        state=State({"services": services}),
        openapi_config=docs.config,
        request_class=BodyRequest,
        request_max_body_size=_MAX_BODY,
        logging_config=None,
    )
