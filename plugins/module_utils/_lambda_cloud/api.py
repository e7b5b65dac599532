# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Calls of the Lambda Cloud API, one function a call; no decisions.

What the API does not do for its callers, and what is done about it here:

* it allows a request a second and a launch in twelve: every try, repeated ones too, waits for its turn (``pace``);
* 429 is told by its status, before its body is read: a body may carry the code of another error;
* a launch has no idempotency key: it is repeated only after 429 or where nothing was sent; :func:`refused` says which
  errors of a launch mean that nothing was made, all others have to be looked into;
* terminating what is gone is 404: reported as "was not there";
* the list of instances may have pages, which version 1.10.0 does not document: ``page_token`` is followed.

Source: https://docs.lambda.ai/api/cloud (OpenAPI document 1.10.0).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import (
    ApiError,
    BadResponse,
    ConnectFailed,
    NotFound,
    RateLimited,
)
from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client, segment
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import (
    Instance,
    Offer,
    Place,
    parse_instance,
    parse_offers,
    parse_places,
)
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.pace import Pace

NO_CAPACITY = "instance-operations/launch/insufficient-capacity"
WRONG_REGION = "instance-operations/launch/file-system-in-wrong-region"
QUOTA = "global/quota-exceeded"
_REFUSED = frozenset(
    {
        NO_CAPACITY,
        WRONG_REGION,
        QUOTA,
        "global/invalid-parameters",
        "global/object-does-not-exist",
        "global/invalid-api-key",
        "global/account-inactive",
        "global/invalid-address",
        "global/forbidden",
    }
)
# A client that backs off from ten seconds after 429 is what the vendor is used to (SkyPilot's).
_TOO_MANY = Backoff(base=10.0, factor=1.6, cap=60.0)
_PAGES = 1000


def refused(error: ApiError) -> bool:
    """Return whether a failed launch made nothing for certain."""
    return isinstance(error, (RateLimited, ConnectFailed)) or (error.code in _REFUSED and 400 <= (error.status or 0) < 500)


class Api:
    """The API behind one key. ``tries`` are those of a call; ``client`` makes one try only."""

    def __init__(
        self,
        client: Client,
        pace: Pace,
        *,
        tries: int,
        sleep: Callable[[float], None] = time.sleep,
        rng: Callable[[], float] = random.random,
        on_retry: Callable[[ApiError, float], None] | None = None,
    ) -> None:
        self._client = client
        self.pace = pace
        self._tries = tries
        self._backoff = Backoff(tries=tries)
        self._sleep = sleep
        self._rng = rng
        self._on_retry = on_retry

    def instances(self) -> list[Instance]:
        """Return every instance of the account that the API lists."""
        found: dict[str, Instance] = {}
        token: str | None = None
        for _page in range(_PAGES):
            body = self._call("GET", "instances", query={"page_token": token})
            for raw in _list(body, "instances"):
                instance = parse_instance(raw)
                found[instance.id] = instance
            following = body.get("page_token")
            if not following or following == token:
                return list(found.values())
            token = following
        raise BadResponse(f"GET instances: more than {_PAGES} pages")

    def instance(self, instance_id: str) -> Instance | None:
        try:
            return parse_instance(_data(self._call("GET", f"instances/{segment(instance_id)}")))
        except NotFound:
            return None

    def offers(self) -> tuple[Offer, ...]:
        return parse_offers(_data(self._call("GET", "instance-types")))

    def file_systems(self) -> tuple[Place, ...]:
        return parse_places(_list(self._call("GET", "file-systems"), "file-systems"))

    def rulesets(self) -> tuple[Place, ...]:
        return parse_places(_list(self._call("GET", "firewall-rulesets"), "firewall-rulesets"))

    def launch(self, body: Mapping[str, Any], before: Callable[[], None]) -> str:
        """Launch one instance and return its id. ``before`` is called right before each try.

        On an error that is not :func:`refused` an instance may have been made.
        """
        data = _data(self._call("POST", "instance-operations/launch", body=body, before=before, launching=True))
        ids = data.get("instance_ids")
        if not isinstance(ids, list) or len(ids) != 1 or not isinstance(ids[0], str) or not ids[0]:
            raise BadResponse("POST instance-operations/launch: the answer does not name one instance")
        return ids[0]

    def terminate(self, instance_id: str) -> bool:
        """Ask for an instance's end; return whether it was there. That it ends has to be seen."""
        try:
            self._call("POST", "instance-operations/terminate", body={"instance_ids": [instance_id]}, repeatable=True)
        except NotFound:
            return False
        return True

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, Any] | None = None,
        repeatable: bool = False,
        launching: bool = False,
        before: Callable[[], None] | None = None,
    ) -> Any:
        attempt = 0
        while True:
            attempt += 1
            if launching:
                self.pace.launch()
            else:
                self.pace.request()
            if before:
                before()
            try:
                return self._client.request(method, path, body=body, query=query).body
            except ApiError as error:
                if attempt >= self._tries or not _again(error, repeatable or method == "GET"):
                    raise
                self._wait(error, attempt)

    def _wait(self, error: ApiError, attempt: int) -> None:
        limited = isinstance(error, RateLimited)
        if limited and error.retry_after is None:
            # All of it, not a random part: others are told to wait as long.
            seconds = _TOO_MANY.delay(attempt, None, lambda: 1.0)
        else:
            seconds = self._backoff.delay(attempt, error.retry_after, self._rng)
        if self._on_retry:
            self._on_retry(error, seconds)
        if limited:
            self.pace.hold(seconds)
        else:
            self._sleep(seconds)


def _again(error: ApiError, repeatable: bool) -> bool:
    if isinstance(error, (RateLimited, ConnectFailed)):
        return error.retryable
    # 409 and 500 with global/internal-error, and provider/…, are the vendor's own trouble.
    trouble = error.code in ("global/internal-error", "global/conflict") or error.code.startswith("provider/")
    return repeatable and (error.retryable or trouble)


def _data(body: Any) -> Any:
    if not isinstance(body, dict) or not isinstance(body.get("data"), dict):
        raise BadResponse("an answer without the object 'data'")
    return body["data"]


def _list(body: Any, path: str) -> list[Any]:
    if not isinstance(body, dict) or not isinstance(body.get("data"), list):
        raise BadResponse(f"GET {path}: an answer without the list 'data'")
    return body["data"]
