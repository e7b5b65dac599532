# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Qdrant's REST API (api.qdrant.tech) as far as a migration needs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse, NotFound
from ansible_collections.sophia.platform.plugins.module_utils._http import Client, segment
from ansible_collections.sophia.platform.plugins.module_utils._qdrant import page
from ansible_collections.sophia.platform.plugins.module_utils._qdrant.page import Page, PointId

WAIT = {"wait": "true"}


class Api:
    """One server."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.url = client.base_url

    def version(self) -> str:
        """Return the server's version."""
        body = self._client.get("").body
        return str(body.get("version", "unknown")) if isinstance(body, dict) else "unknown"

    def collections(self) -> list[str]:
        """Return the names of the collections."""
        return sorted(item["name"] for item in self._result("GET", "collections")["collections"])

    def info(self, collection: str) -> dict[str, Any] | None:
        """Return a collection's status, counts and configuration; None if there is none."""
        try:
            found: dict[str, Any] = self._result("GET", _path(collection))
        except NotFound:
            return None
        return found

    def create(self, collection: str, body: dict[str, Any]) -> None:
        """Make a collection. A repetition after an unknown outcome is the caller's, who looks first."""
        self._client.request("PUT", _path(collection), body=body, idempotent=False)

    def update(self, collection: str, body: dict[str, Any]) -> None:
        """Change a collection's configuration."""
        self._client.patch(_path(collection), body, idempotent=True)

    def delete(self, collection: str) -> None:
        """Delete a collection, if there is one."""
        self._client.delete(_path(collection))

    def create_index(self, collection: str, field: str, schema: Any) -> None:
        """Make a payload index."""
        self._client.request(
            "PUT", _path(collection, "index"), query=WAIT, body={"field_name": field, "field_schema": schema}
        )

    def shard_keys(self, collection: str) -> list[Any]:
        """Return the shard keys of a collection, in a fixed order."""
        cluster = self._result("GET", _path(collection, "cluster"))
        shards = [*cluster.get("local_shards", []), *cluster.get("remote_shards", [])]
        keys = {shard["shard_key"] for shard in shards if shard.get("shard_key") is not None}
        return sorted(keys, key=lambda key: (isinstance(key, str), key))

    def create_shard_key(self, collection: str, key: Any) -> None:
        """Make a shard key. A repetition after an unknown outcome is the caller's, who looks first."""
        self._client.request("PUT", _path(collection, "shards"), body={"shard_key": key}, idempotent=False)

    def aliases(self) -> dict[str, str]:
        """Return which collection each alias means."""
        return {item["alias_name"]: item["collection_name"] for item in self._result("GET", "aliases")["aliases"]}

    def switch(self, alias: str, collection: str | None, *, existing: bool) -> None:
        """Make the alias mean the collection, or be gone for None: one call, all or nothing."""
        actions: list[dict[str, Any]] = [{"delete_alias": {"alias_name": alias}}] if existing else []
        if collection is not None:
            actions.append({"create_alias": {"alias_name": alias, "collection_name": collection}})
        self._client.post("collections/aliases", {"actions": actions}, idempotent=True)

    def count(self, collection: str, key: Any = None) -> int:
        """Return the exact number of points."""
        body = {"exact": True, **_keyed(key)}
        return int(self._result("POST", _path(collection, "points/count"), body)["count"])

    def scroll(self, collection: str, offset: PointId | None, limit: int, key: Any = None) -> Page:
        """Return a page of points with everything they have, from the id ``offset`` on."""
        body = {"limit": limit, "with_payload": True, "with_vector": True, **_keyed(key)}
        if offset is not None:
            body["offset"] = offset
        answer = self._client.request("POST", _path(collection, "points/scroll"), body=body, idempotent=True, undecoded=True)
        return page.read(answer.body)

    def ids(self, collection: str, offset: PointId | None, limit: int, key: Any = None) -> tuple[list[PointId], PointId | None]:
        """Return a page of ids and the one that the next page begins with."""
        body = {"limit": limit, "with_payload": False, "with_vector": False, **_keyed(key)}
        if offset is not None:
            body["offset"] = offset
        result = self._result("POST", _path(collection, "points/scroll"), body)
        return [point["id"] for point in result["points"]], result["next_page_offset"]

    def retrieve(self, collection: str, ids: Sequence[PointId], key: Any = None) -> list[dict[str, Any]]:
        """Return points by their ids, with their vectors."""
        body = {"ids": list(ids), "with_payload": False, "with_vector": True, **_keyed(key)}
        found: list[dict[str, Any]] = self._result("POST", _path(collection, "points"), body)
        return found

    def upsert(self, collection: str, points: bytes, key: Any = None) -> None:
        """Put points given as they are written; return once they are applied."""
        keyed = b"" if key is None else b',"shard_key":' + json.dumps(key).encode()
        body = b"".join((b'{"points":[', points, b"]", keyed, b"}"))
        headers = {"Content-Type": "application/json"}
        self._client.request("PUT", _path(collection, "points"), query=WAIT, body=body, headers=headers)

    def delete_points(self, collection: str, ids: Sequence[PointId], key: Any = None) -> None:
        """Delete points by their ids; return once that is applied."""
        body = {"points": list(ids), **_keyed(key)}
        self._client.request("POST", _path(collection, "points/delete"), query=WAIT, body=body, idempotent=True)

    def nearest(self, collection: str, vector: Any, name: str, limit: int, *, exact: bool, key: Any = None) -> list[dict[str, Any]]:
        """Return the points nearest to a vector, the best first, with their scores."""
        body: dict[str, Any] = {"query": vector, "limit": limit, "params": {"exact": exact}, **_keyed(key)}
        if name:
            body["using"] = name
        found: list[dict[str, Any]] = self._result("POST", _path(collection, "points/query"), body)["points"]
        return found

    def _result(self, method: str, path: str, body: Any = None) -> Any:
        """Make a call that changes nothing."""
        answer = self._client.request(method, path, body=body, idempotent=True).body
        if not isinstance(answer, dict) or "result" not in answer:
            raise BadResponse(f"{method} {path}: an answer without a result")
        return answer["result"]


def _path(collection: str, rest: str = "") -> str:
    return f"collections/{segment(collection)}" + (f"/{rest}" if rest else "")


def _keyed(key: Any) -> dict[str, Any]:
    return {} if key is None else {"shard_key": key}
