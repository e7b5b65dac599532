# SPDX-License-Identifier: GPL-3.0-or-later
"""`/admin/v1/usage` and `/admin/v1/spend`: what was used, what it cost, what is not settled yet, and the daily match.

A request's attempts count where and when they were sent. Costs are those that OpenRouter has confirmed; the rest is
shown as `unsettled`, at what is reserved for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from litestar import Router, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from sophia.errors import BadRequest
from sophia.gateway.admin.paging import FilterId, Limit, cut
from sophia.gateway.admin.policy import Action, Resource
from sophia.gateway.admin.services import Call
from sophia.gateway.admin.views import (
    DifferenceView,
    MatchView,
    ModelSumView,
    UnsettledPage,
    UnsettledView,
    Usage,
    UsageRow,
    moment,
    money,
    nanoseconds,
)
from sophia.gateway.match import Difference, Match, ModelSum
from sophia.stores.model import Account, Level, Period, window_start
from sophia.stores.schema import spend

__all__ = ["router", "spent"]

GroupBy = Literal["organization", "team", "user", "key", "model", "day"]
Group = Annotated[GroupBy, QueryParameter(name="group_by")]
From = Annotated[
    str | None, QueryParameter(name="from", max_length=40, description="Date or time (default: the month's start)")
]
To = Annotated[
    str | None, QueryParameter(name="to", max_length=40, description="Date or time, exclusive (default: now)")
]
FilterModel = Annotated[str | None, QueryParameter(max_length=200, pattern="^[^\\u0000-\\u001f]*$")]
AttemptCursor = Annotated[str | None, QueryParameter(max_length=64, pattern="^[0-9a-z_]*$")]
Day = Annotated[date | None, QueryParameter(description="A UTC day (default: yesterday)")]
Groups = Annotated[int, QueryParameter(ge=1, le=1000, description="Groups at most")]

_SHOWN = 200
_DAY = 86_400_000_000_000
_SETTLED = spend.c.state == "settled"
_COLUMNS = {
    Level.ORGANIZATION: spend.c.organization,
    Level.TEAM: spend.c.team,
    Level.USER: spend.c.user,
    Level.KEY: spend.c.key,
}


@get("/usage")
async def get_usage(
    call: NamedDependency[Call],
    group: Group = "model",
    start: From = None,
    end: To = None,
    organization: FilterId = None,
    team: FilterId = None,
    user: FilterId = None,
    key: FilterId = None,
    model: FilterModel = None,
    limit: Groups = 100,
) -> Usage:
    """Use and cost by group: the dearest first, days in order."""
    filters = await call.narrow(Action.USAGE_READ, organization=organization, team=team, user=user)
    now = call.services.clock()
    since = window_start(Period.MONTH, now) if start is None else _instant(start, "from")
    until = now + 1 if end is None else _instant(end, "to")
    query = _usage(group).where(spend.c.at >= since, spend.c.at < until, *_conditions(filters))
    query = query.where(*_conditions({"key": key, "model": model})).limit(limit)
    async with call.services.database.read() as connection:
        rows = (await connection.execute(query)).mappings().all()
    return Usage(group, moment(since), moment(until), [_row(group, row) for row in rows])


@get("/spend/unsettled")
async def list_unsettled(
    call: NamedDependency[Call], limit: Limit = 50, cursor: AttemptCursor = None, organization: FilterId = None
) -> UnsettledPage:
    """Attempts whose cost OpenRouter has not confirmed yet; their reservations still count against budgets."""
    filters = await call.narrow(Action.USAGE_READ, organization=organization)
    query = sa.select(spend).where(spend.c.state != "settled", *_conditions(filters))
    query = query.where(spend.c.attempt > (cursor or "")).order_by(spend.c.attempt).limit(limit + 1)
    async with call.services.database.read() as connection:
        rows = (await connection.execute(query)).mappings().all()
    shown, following = cut(rows, limit, lambda row: str(row["attempt"]))
    return UnsettledPage([_unsettled(row) for row in shown], following)


@get("/spend/match")
async def match_day(call: NamedDependency[Call], day: Day = None) -> MatchView:
    """Compare the ledger of a day with OpenRouter's account, generation by generation. It may take a minute."""
    call.require(Action.SPEND_MATCH, Resource())
    return _match(await call.services.match(day))


async def spent(call: Call, account: Account) -> int:
    """Settled and reserved spend of the account's current window, in nano-dollars, as the ledger has it."""
    amount = sa.func.sum(sa.case((_SETTLED, spend.c.cost), else_=spend.c.reserved))
    since = window_start(account.period, call.services.clock())
    query = sa.select(sa.func.coalesce(amount, 0)).where(_COLUMNS[account.level] == account.owner, spend.c.at >= since)
    async with call.services.database.read() as connection:
        return int((await connection.execute(query)).scalar_one())


def _usage(group: GroupBy) -> sa.Select[Any]:
    by: sa.ColumnElement[Any] = spend.c.at // _DAY if group == "day" else spend.c[group]
    cost = _total(sa.case((_SETTLED, spend.c.cost), else_=0))
    return (
        sa.select(
            by.label("group"),
            sa.func.count(sa.distinct(spend.c.request)).label("requests"),
            sa.func.count().label("attempts"),
            cost.label("cost"),
            _total(sa.case((_SETTLED, 0), else_=spend.c.reserved)).label("unsettled"),
            *(_total(spend.c[name]).label(name) for name in _TOKENS),
        )
        .group_by(by)
        .order_by(by if group == "day" else cost.desc(), by)
    )


_TOKENS = ("prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens")


def _total(value: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.coalesce(sa.func.sum(value), 0)


def _conditions(filters: Mapping[str, str | None]) -> list[sa.ColumnElement[bool]]:
    return [spend.c[name] == value for name, value in filters.items() if value is not None]


def _row(group: GroupBy, row: sa.RowMapping) -> UsageRow:
    value = moment(int(row["group"]) * _DAY).date().isoformat() if group == "day" else row["group"]
    return UsageRow(
        group=value,
        requests=row["requests"],
        attempts=row["attempts"],
        cost=money(int(row["cost"])),
        unsettled=money(int(row["unsettled"])),
        **{name: int(row[name]) for name in _TOKENS},
    )


def _unsettled(row: sa.RowMapping) -> UnsettledView:
    fields = {name: row[name] for name in UnsettledView.__struct_fields__}
    return UnsettledView(**fields | {"at": moment(row["at"]), "reserved": money(row["reserved"])})


def _match(found: Match) -> MatchView:
    return MatchView(
        day=found.day.isoformat(),
        ok=found.ok,
        over=found.over,
        generations=found.generations,
        booked=money(found.booked),
        billed=money(found.billed),
        drift=money(found.drift),
        unsettled=found.unsettled,
        foreign=found.foreign,
        foreign_cost=money(found.foreign_cost),
        unexamined=found.unexamined,
        activity=_money(found.activity),
        account=_money(found.account),
        ledger=money(found.ledger),
        different=len(found.differences),
        models=[_model_sum(each) for each in found.models],
        differences=[_difference(each) for each in found.differences[:_SHOWN]],
    )


def _model_sum(each: ModelSum) -> ModelSumView:
    return ModelSumView(
        model=each.model,
        generations=each.generations,
        booked=money(each.booked),
        billed=money(each.billed),
        recounted=_money(each.recounted),
    )


def _difference(each: Difference) -> DifferenceView:
    return DifferenceView(
        kind=each.kind,
        generation=each.generation,
        attempt=each.attempt,
        model=each.model,
        booked=_money(each.booked),
        billed=_money(each.billed),
    )


def _money(amount: int | None) -> str | None:
    return None if amount is None else money(amount)


def _instant(text: str, param: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadRequest(
            "invalid_time", "must be a date or a time, as 2026-08-01 or 2026-08-01T12:00:00Z", param=param
        ) from error
    return nanoseconds(at if at.tzinfo is not None else at.replace(tzinfo=UTC), param)


router = Router("/", route_handlers=[get_usage, list_unsettled, match_day], tags=["usage"])
