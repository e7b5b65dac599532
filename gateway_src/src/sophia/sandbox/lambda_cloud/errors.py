# SPDX-License-Identifier: GPL-3.0-or-later
"""The vendor's errors.

::

    CloudError       becomes {"error": {"code", "message", "suggestion"?}}

Codes and statuses are those of the vendor's OpenAPI document 1.10.0. 429 is in its text only, and without a body:
that it has one, and Retry-After, is a guess.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["STATUS", "CloudError"]

STATUS = {
    "global/invalid-api-key": 401,
    "global/account-inactive": 403,
    "global/invalid-address": 403,
    "global/forbidden": 403,
    "global/invalid-parameters": 400,
    "global/quota-exceeded": 400,
    "global/duplicate": 400,
    "global/object-does-not-exist": 404,
    "global/not-found": 404,
    "global/conflict": 409,
    "global/internal-error": 500,
    "instance-operations/launch/insufficient-capacity": 400,
    "instance-operations/launch/file-system-in-wrong-region": 400,
    "filesystems/filesystem-in-use": 400,
    "firewall-rulesets/firewall-ruleset-in-use": 400,
    "provider/internal-unavailable": 503,
}

MESSAGE = {
    "global/invalid-api-key": "API key was invalid, expired, or deleted.",
    "global/account-inactive": "Your account is inactive.",
    "global/invalid-address": "Your billing address is invalid.",
    "global/forbidden": "This action is not allowed.",
    "global/invalid-parameters": "Invalid request data.",
    "global/quota-exceeded": "Quota exceeded.",
    "global/duplicate": "Resource already exists.",
    "global/object-does-not-exist": "Specified object does not exist.",
    "global/not-found": "Not found.",
    "global/conflict": "The request conflicts with the current state of the resource.",
    "global/internal-error": "An internal error occurred.",
    "instance-operations/launch/insufficient-capacity": "Not enough capacity to fulfill launch request.",
    "instance-operations/launch/file-system-in-wrong-region": "The file system is in another region.",
    "filesystems/filesystem-in-use": "The file system is in use by an instance.",
    "firewall-rulesets/firewall-ruleset-in-use": "The firewall ruleset is in use by an instance.",
    "provider/internal-unavailable": "The provider is unavailable.",
}

SUGGESTION = {
    "global/invalid-api-key": "Check that you are using a valid API key.",
    "instance-operations/launch/insufficient-capacity": (
        "Choose an instance type with more availability, or try again later."
    ),
}


class CloudError(Exception):
    """An answer that is not a success. `status` overrides the code's own."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.message = message or MESSAGE.get(code, code)
        self.status = status or STATUS.get(code, 400)
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """The envelope."""
        error = {"code": self.code, "message": self.message}
        if self.code in SUGGESTION:
            error["suggestion"] = SUGGESTION[self.code]
        return {"error": error}
