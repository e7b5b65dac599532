# SPDX-License-Identifier: GPL-3.0-or-later
"""The management API over real stores, asked in process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import httpx
import pytest

from sophia.gateway.admin import Services, create_admin
from sophia.gateway.match import Match
from tenants import Tenants


@dataclass
class Cache:
    """Records what was purged; the caches themselves are tested in their own rooms."""

    calls: list[dict[str, str | None]] = field(default_factory=list)

    async def purge(self, *, organization: str | None, model: str | None, tag: str | None) -> int:
        self.calls.append({"organization": organization, "model": model, "tag": tag})
        return 3


async def no_match(day: date | None) -> Match:
    """The match of a day on which nothing was spent."""
    return Match(
        day=day or date(2026, 8, 1),
        over=True,
        generations=0,
        booked=0,
        billed=0,
        unsettled=0,
        foreign=0,
        foreign_cost=0,
        unexamined=0,
        activity=0,
        account=0,
        ledger=0,
        models=[],
        differences=[],
    )


class Api:
    """A client that speaks for the platform unless told otherwise."""

    def __init__(self, client: httpx.AsyncClient, tenants: Tenants, cache: Cache) -> None:
        self.client = client
        self.tenants = tenants
        self.cache = cache

    async def send(
        self, method: str, path: str, *, key: str | None = None, json: object = None, **options: Any
    ) -> httpx.Response:
        """One request; `key` "" sends none."""
        secret = self.tenants.admin_secret if key is None else key
        headers = {"authorization": f"Bearer {secret}"} if secret else {}
        body = {} if json is None else {"json": json}
        return await self.client.request(method, f"/admin/v1{path}", headers=headers, **body, **options)

    async def ok(self, method: str, path: str, **options: Any) -> Any:
        """The answer's body, which must be a success."""
        answer = await self.send(method, path, **options)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    async def error(self, status: int, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The error that must come, in the envelope."""
        answer = await self.send(method, path, **options)
        assert answer.status_code == status, answer.text
        body = answer.json()
        assert set(body) == {"error"}
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert body["error"]["message"]
        assert body["error"]["code"]
        found: dict[str, Any] = body["error"]
        return found

    async def organization(self, name: str, **fields: Any) -> str:
        made = await self.ok("POST", "/organizations", json={"name": name, **fields})
        return str(made["id"])

    async def team(self, organization: str, name: str, **fields: Any) -> str:
        made = await self.ok("POST", "/teams", json={"organization": organization, "name": name, **fields})
        return str(made["id"])

    async def user(self, organization: str, name: str, **fields: Any) -> str:
        made = await self.ok("POST", "/users", json={"organization": organization, "name": name, **fields})
        return str(made["id"])

    async def key(self, user: str, name: str = "key", **fields: Any) -> tuple[str, str]:
        """Identifier and secret."""
        made = await self.ok("POST", "/keys", json={"user": user, "name": name, **fields})
        return str(made["id"]), str(made["secret"])


@pytest.fixture
async def api(tenants: Tenants) -> AsyncIterator[Api]:
    cache = Cache()
    app = create_admin(
        Services(
            tenants.database, tenants.registry, tenants.tenancy, tenants.flags, tenants.audit, cache.purge, no_match
        )
    )
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway.local") as client:
        yield Api(client, tenants, cache)
