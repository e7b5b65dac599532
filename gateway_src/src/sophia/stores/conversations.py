# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversations of `POST /v1/chat`: the turns before, kept per user for thirty days."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from sophia.errors import NotFound
from sophia.stores.database import Database
from sophia.stores.model import Principal
from sophia.stores.schema import conversation_turns

__all__ = ["Conversations", "Said"]

_TURNS = 40
_KEPT = 30 * 86_400 * 1_000_000_000


class Said(msgspec.Struct, frozen=True):
    """One turn."""

    role: Literal["user", "assistant"]
    text: str


class Conversations:
    """Turns by conversation; a conversation belongs to the user (or key) that began it, and nobody else sees it."""

    def __init__(self, database: Database, clock: Callable[[], int] = time.time_ns) -> None:
        self._database = database
        self._clock = clock

    async def turns(self, principal: Principal, conversation: str) -> list[Said]:
        """The latest turns, oldest first.

        Raises:
            NotFound: there is no such conversation of this user.
        """
        table = conversation_turns
        query = (
            sa.select(table.c.role, table.c.text)
            .where(
                table.c.conversation == conversation,
                table.c.organization == principal.organization,
                table.c.owner == _owner(principal),
                table.c.at > self._clock() - _KEPT,
            )
            .order_by(table.c.at.desc(), table.c.place.desc())
            .limit(_TURNS)
        )
        async with self._database.read() as connection:
            rows = (await connection.execute(query)).all()
        if not rows:
            raise NotFound(
                "conversation_not_found",
                'No such conversation; begin one with "conversation": "new".',
                param="conversation",
            )
        return [Said(role, text) for role, text in reversed(rows)]

    async def add(self, principal: Principal, conversation: str, said: Sequence[Said]) -> None:
        """Append turns."""
        now = self._clock()
        rows = [
            {
                "conversation": conversation,
                "organization": principal.organization,
                "owner": _owner(principal),
                "at": now,
                "place": place,
                "role": turn.role,
                "text": turn.text,
            }
            for place, turn in enumerate(said)
        ]
        async with self._database.write() as connection:
            await connection.execute(sa.insert(conversation_turns), rows)

    async def expire(self) -> int:
        """Delete what is older than thirty days; returns how many turns."""
        query = sa.delete(conversation_turns).where(conversation_turns.c.at <= self._clock() - _KEPT)
        async with self._database.write() as connection:
            return (await connection.execute(query)).rowcount


def _owner(principal: Principal) -> str:
    return principal.user or principal.key
