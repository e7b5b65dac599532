# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Calls of the OpenRouter management API, one function a call; no decisions.

What the API does not do for its callers, and what is done about it here:

* lists hide disabled and expired keys unless asked, and have pages without a total: asked for, and read until a page
  adds nothing;
* a key limit that is used up comes as 403, like a missing permission: told apart by its message;
* DELETE of what is gone is 404: reported as "was not there".

Source: https://openrouter.ai/docs/api-reference/api-keys, …/guardrails, …/models (OpenAPI document of 2026-08-22).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import (
    ApiError,
    BadResponse,
    NotFound,
)
from ansible_collections.sophia.platform.plugins.module_utils._http import Client, segment
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key, Secret, body_of, parse_key

# "Key limit exceeded (total limit). Manage it using https://openrouter.ai/keys", seen with 403 and with 402.
_KEY_LIMIT = re.compile(r"key limit (has been )?(exceeded|reached)", re.IGNORECASE)
_NOT_MANAGEMENT = re.compile(r"only management keys|management key", re.IGNORECASE)
_PAGE = 100


def classify(error: ApiError) -> ApiError:
    """Give 402 and 403 the ``code`` that says which kind they are.

    ``key_limit_exceeded``: the key is good, its limit is used up. ``insufficient_credits``: the account cannot pay.
    ``not_a_management_key``: the key is good for other calls only.
    """
    if error.status in (402, 403) and _KEY_LIMIT.search(error.message):
        error.code = "key_limit_exceeded"
    elif error.status == 402:
        error.code = "insufficient_credits"
    elif error.status == 403 and _NOT_MANAGEMENT.search(error.message):
        error.code = "not_a_management_key"
    return error


class Api:
    """The management API behind one management key."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def keys(self, workspace_id: str | None = None) -> list[Key]:
        """Return every key of a workspace (the default one without an id), disabled and expired ones too."""
        query = {"include_disabled": True, "include_expired": True, "workspace_id": workspace_id}
        found: dict[str, Key] = {}
        for item in self._pages("keys", query):
            key = parse_key(item)
            found.setdefault(key.hash, key)
        return list(found.values())

    def key(self, hash: str) -> Key | None:
        try:
            return parse_key(_data(self._client.get(f"keys/{segment(hash)}").body))
        except NotFound:
            return None

    def create(self, name: str, settings: Mapping[str, Any], workspace_id: str | None = None) -> tuple[Key, Secret]:
        """Make a key; its secret is in this answer and never again. ``disabled`` cannot be among the settings.

        Never repeated where it may have happened: on an error with ``ambiguous`` the caller has to look.
        """
        body = {"name": name, **body_of(settings)}
        if workspace_id:
            body["workspace_id"] = workspace_id
        answer = self._client.post("keys", body).body
        secret = answer.get("key") if isinstance(answer, dict) else None
        if not isinstance(secret, str) or not secret:
            raise BadResponse("POST keys: the answer has no key")
        return parse_key(_data(answer)), Secret(secret)

    def update(self, hash: str, changes: Mapping[str, Any]) -> Key:
        """Set fields of a key to values; doing it twice is doing it once."""
        return parse_key(_data(self._client.patch(f"keys/{segment(hash)}", body_of(changes), idempotent=True).body))

    def delete(self, hash: str) -> bool:
        """Delete a key; return whether it was there."""
        try:
            self._client.delete(f"keys/{segment(hash)}")
        except NotFound:
            return False
        return True

    def assignments(self) -> dict[str, str]:
        """Return the guardrail of each key that has one: key hash to guardrail id."""
        try:
            return {
                item["key_hash"]: item["guardrail_id"]
                for item in self._pages("guardrails/assignments/keys", {"limit": _PAGE})
            }
        except (KeyError, TypeError):
            raise BadResponse("GET guardrails/assignments/keys: an assignment without key or guardrail") from None

    def assign(self, guardrail_id: str, hash: str) -> None:
        """Put a key under a guardrail, in place of the one it was under: a key has at most one."""
        self._assignment(guardrail_id, hash, "")

    def unassign(self, guardrail_id: str, hash: str) -> None:
        self._assignment(guardrail_id, hash, "/remove")

    def verify(self, secret: Secret) -> dict[str, Any]:
        """Return what OpenRouter says of a key that authenticates itself. Raises Unauthenticated where it does not."""
        headers = {"Authorization": f"Bearer {secret.reveal()}"}
        return _data(self._client.request("GET", "key", headers=headers).body)

    def probe(self, secret: Secret, model: str) -> None:
        """Let a key pay for one token. Raises what the API answers, an error inside a 200 included."""
        body = {"model": model, "messages": [{"role": "user", "content": "ping"}], "max_tokens": 1}
        headers = {"Authorization": f"Bearer {secret.reveal()}"}
        answer = self._client.request("POST", "chat/completions", body=body, headers=headers).body
        if not isinstance(answer, dict) or answer.get("error"):
            raise BadResponse(f"POST chat/completions: {model} answered with an error")

    def models(self, query: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Return the models on offer, filtered by OpenRouter."""
        return _list(self._client.get("models", query=query).body, "models")

    def zdr_models(self) -> frozenset[str]:
        """Return the ids of models that some provider serves without keeping data."""
        items = _list(self._client.get("endpoints/zdr").body, "endpoints/zdr")
        return frozenset(item["model_id"] for item in items if isinstance(item.get("model_id"), str))

    def _assignment(self, guardrail_id: str, hash: str, verb: str) -> None:
        path = f"guardrails/{segment(guardrail_id)}/assignments/keys{verb}"
        self._client.post(path, {"key_hashes": [hash]}, idempotent=True)

    def _pages(self, path: str, query: Mapping[str, Any]) -> Iterator[Any]:
        offset = 0
        before: list[Any] = []
        while True:
            page = _list(self._client.get(path, query={**query, "offset": offset}).body, path)
            # A server that does not know "offset" would send its first page for ever.
            if not page or page == before:
                return
            yield from page
            offset += len(page)
            before = page


def _data(answer: Any) -> Any:
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), dict):
        raise BadResponse("an answer without the object 'data'")
    return answer["data"]


def _list(answer: Any, path: str) -> list[dict[str, Any]]:
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise BadResponse(f"GET {path}: an answer without the list 'data'")
    return answer["data"]
