# SPDX-License-Identifier: GPL-3.0-or-later
"""The stores of tenancy, put together as the gateway does it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from sophia.stores.audit import Audit
from sophia.stores.changes import Changes
from sophia.stores.database import Database
from sophia.stores.flags import Flags
from sophia.stores.registry import Registry, new_secret
from sophia.stores.tenancy import Tenancy


@dataclass(frozen=True)
class Tenants:
    """The stores of tenancy over one database, as the gateway builds them."""

    database: Database
    audit: Audit
    changes: Changes
    registry: Registry
    tenancy: Tenancy
    flags: Flags
    admin_secret: str
    admin_key_file: Path


async def open_tenants(database: Database, folder: Path, redis: Redis | None = None) -> Tenants:
    """Build the stores of one replica and load them."""
    admin_key_file = folder / "admin_key"
    if not admin_key_file.exists():
        admin_key_file.write_text(new_secret() + "\n")
    audit = Audit(database)
    changes = Changes(database, redis)
    tenancy = Tenancy(database, requests_per_minute=100, admin_key_file=admin_key_file)
    flags = Flags(database, audit, changes)
    changes.follow(tenancy.refresh)
    changes.follow(flags.refresh)
    await tenancy.load()
    await flags.load()
    registry = Registry(database, audit, changes)
    secret = admin_key_file.read_text().split()[0]
    return Tenants(database, audit, changes, registry, tenancy, flags, secret, admin_key_file)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Return once the condition holds; what is waited for has no event to wait on."""
    async with asyncio.timeout(20):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(0.005)
