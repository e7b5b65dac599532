# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-in refuses, in the server's envelope (vLLM, `entrypoints/openai`: ErrorResponse).

::

    ServiceError      status and the message that callers read
"""

from __future__ import annotations

from typing import Any

__all__ = ["ServiceError"]

_TYPES = {400: "BadRequestError", 404: "NotFoundError", 405: "MethodNotAllowed", 413: "BadRequestError"}


class ServiceError(Exception):
    """An answer that is not a success."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The error as it goes over the wire; 401 has a form of its own."""
        if self.status == 401:
            return {"error": self.message}
        kind = _TYPES.get(self.status, "InternalServerError")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}
