# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests under way, so that a key that stops working stops what it has begun as well.

`sweep` follows `sophia.stores.changes`, behind the tenants' own refresh: within a second of a change, on every replica,
the requests of keys that are disabled (or whose user, team or organisation is), deleted, or rotated without an overlap
are cancelled. They unwind as they do when a client leaves: the upstream connection is closed, what was generated stays
charged and is settled by reconciliation. The edge then tells the client.
"""

from __future__ import annotations

import asyncio

from sophia.errors import Forbidden
from sophia.gateway.exchange import Exchange
from sophia.stores.tenancy import Tenancy

__all__ = ["Running", "stopped"]


class Running:
    """The exchanges that are served at the moment, with the tasks that serve them."""

    def __init__(self, tenancy: Tenancy) -> None:
        self._tenancy = tenancy
        self._tasks: dict[Exchange, asyncio.Task[object]] = {}

    def enter(self, exchange: Exchange) -> None:
        """The exchange's key is good, and this task serves it."""
        task = asyncio.current_task()
        if task is not None:
            self._tasks[exchange] = task

    def leave(self, exchange: Exchange) -> None:
        """The exchange is over, or nothing more is done for it but its answer; safe to call again."""
        self._tasks.pop(exchange, None)

    async def sweep(self) -> None:
        """Stop what is served for a key that does not work any more."""
        for exchange, task in list(self._tasks.items()):
            principal = self._tenancy.by_key(exchange.key)
            if principal is None or principal.disabled:
                self.leave(exchange)
                exchange.stopped = True
                task.cancel()


def stopped() -> Forbidden:
    """What the client of a stopped request is told."""
    return Forbidden(
        "key_disabled",
        "This key, or the user, team or organisation it belongs to, was disabled while the request ran: what has "
        "arrived is incomplete, and what was generated is billed.",
    )
