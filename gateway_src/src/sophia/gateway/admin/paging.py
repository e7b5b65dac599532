# SPDX-License-Identifier: GPL-3.0-or-later
"""Parameters that the lists share, and how a list becomes a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from litestar.params import PathParameter, QueryParameter

from sophia.gateway.admin.policy import Action, Reach, reach
from sophia.gateway.admin.services import Call
from sophia.stores.registry import Record, Team

IDENTIFIER = "^[a-z]+_[0-9a-z]{26}$"

PathId = Annotated[str, PathParameter(pattern=IDENTIFIER)]
FilterId = Annotated[str | None, QueryParameter(pattern=IDENTIFIER)]
FilterName = Annotated[
    str | None,
    QueryParameter(max_length=100, pattern="^[^\\u0000-\\u001f\\u007f]*$", description="Only the one of this name"),
]
Limit = Annotated[int, QueryParameter(ge=1, le=200, description="The page's size")]
Cursor = Annotated[str | None, QueryParameter(pattern=IDENTIFIER, description="`next` of the page before")]

T = TypeVar("T")
R = TypeVar("R", bound=Record)


async def page(
    call: Call,
    kind: type[R],
    action: Action,
    *,
    limit: int,
    cursor: str | None,
    name: str | None,
    organization: str | None = None,
    team: str | None = None,
    user: str | None = None,
) -> tuple[list[R], str | None]:
    """One page of what the caller may list, and the cursor of the next."""
    filters = await call.narrow(action, organization=organization, team=team, user=user)
    if kind is Team and reach(call.principal, action) is Reach.OWN:
        if call.principal.team is None:
            return [], None
        filters["team"] = call.principal.team
    columns = filters_of(kind, filters)
    found = await call.services.registry.find(kind, limit=limit + 1, after=cursor or "", name=name, **columns)
    return cut(found, limit, lambda record: record.id)


def filters_of(kind: type[Record], filters: dict[str, str | None]) -> dict[str, str | None]:
    """Filters by level, as conditions on the columns of one kind: a record's own level is its `id`."""
    own = kind.__name__.lower()
    known = set(kind.__struct_fields__)
    return {"id" if name == own else name: value for name, value in filters.items() if name == own or name in known}


def cut(found: Sequence[T], limit: int, key: Callable[[T], str]) -> tuple[list[T], str | None]:
    """A page of `limit` out of what was asked for with one more, and its cursor."""
    more = len(found) > limit
    shown = list(found[:limit])
    return shown, key(shown[-1]) if more else None
