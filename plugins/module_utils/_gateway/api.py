# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Calls of the gateway's management API, one function a call; no decisions.

A creation is never repeated where it may have happened; everything else is, because doing it twice is doing it once.
Source: the gateway's own OpenAPI document, ``/admin/v1/openapi.json``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse, NotFound
from ansible_collections.sophia.platform.plugins.module_utils._http import Client, segment

_PAGE = 200


class Api:
    """The management API behind one key."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def list(self, kind: str, **filters: str) -> list[dict[str, Any]]:
        """Return every resource of a kind (``organization``, ``team``, ``user``, ``key``) that the filters leave."""
        return list(self._pages(f"{kind}s", filters))

    def create(self, kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make a resource. The answer for a key has its ``secret``, this once."""
        return _object(self._client.post(f"{kind}s", dict(body)).body)

    def update(self, kind: str, id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        return _object(self._client.patch(f"{kind}s/{segment(id)}", dict(body), idempotent=True).body)

    def delete(self, kind: str, id: str) -> None:
        """Delete a resource; it is no error if it is gone."""
        try:
            self._client.delete(f"{kind}s/{segment(id)}")
        except NotFound:
            return

    def rotate(self, id: str) -> dict[str, Any]:
        """Give a key a new ``secret``; the old one ends at once."""
        return _object(self._client.post(f"keys/{segment(id)}/rotate", {"overlap": 0}).body)

    def flags(self) -> list[dict[str, Any]]:
        return _list(self._client.get("flags").body)

    def flag(self, name: str) -> dict[str, Any] | None:
        try:
            return _object(self._client.get(f"flags/{segment(name)}").body)
        except NotFound:
            return None

    def put_flag(self, name: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Write a flag. Raises Conflict when it is not at the ``version`` in the body any more."""
        return _object(self._client.request("PUT", f"flags/{segment(name)}", body=dict(body), idempotent=False).body)

    def delete_flag(self, name: str, version: int) -> None:
        self._client.request("DELETE", f"flags/{segment(name)}", query={"version": version}, idempotent=False)

    def match(self, day: str | None) -> dict[str, Any]:
        """Return the three-way match of a UTC day, yesterday if None."""
        return _object(self._client.get("spend/match", query={"day": day}).body)

    def _pages(self, path: str, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        cursor = None
        while True:
            page = self._client.get(path, query={**filters, "limit": _PAGE, "cursor": cursor}).body
            yield from _list(page)
            cursor = page.get("next")
            if not cursor:
                return


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise BadResponse("an answer that is not an object")
    return answer


def _list(answer: Any) -> list[dict[str, Any]]:
    if not isinstance(answer, dict) or not isinstance(answer.get("data"), list):
        raise BadResponse("an answer without the list 'data'")
    return answer["data"]
