# SPDX-License-Identifier: GPL-3.0-or-later
"""`/admin/v1/me` and `/admin/v1/cache`: what the caller is, and forgetting cached answers."""

from __future__ import annotations

from typing import Annotated

from litestar import Router, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from sophia.gateway.admin.paging import FilterId, Limit, cut
from sophia.gateway.admin.policy import Action, Resource
from sophia.gateway.admin.services import Call
from sophia.gateway.admin.usage import spent
from sophia.gateway.admin.views import (
    AccountView,
    CachePurge,
    LessonPage,
    LessonView,
    LimitView,
    Me,
    Purged,
    moment,
    money,
)
from sophia.gateway.learn import EDGES, upper_limit
from sophia.stores.lessons import Lesson, Lessons
from sophia.stores.model import Level
from sophia.stores.registry import Organization, not_found

__all__ = ["router"]


@get("/me", tags=["me"])
async def get_me(call: NamedDependency[Call]) -> Me:
    """The caller's key: whose it is, what it may do, and what is left of its budgets. Needs no scope."""
    call.require(Action.ME_READ, Resource())
    who = call.principal
    budgets = []
    for account in who.accounts:
        used = await spent(call, account)
        budgets.append(
            AccountView(
                level=account.level,
                owner=account.owner,
                period=account.period,
                cap=money(account.cap),
                spent=money(used),
                left=money(max(0, account.cap - used)),
            )
        )
    return Me(
        key=who.key,
        organization=who.organization or None,
        organization_name=who.organization_name or None,
        team=who.team,
        user=who.user,
        role=who.role,
        scopes=sorted(who.scopes),
        models=None if who.models is None else list(who.models),
        expires_at=None if who.expires_at is None else moment(who.expires_at),
        budgets=budgets,
        limits=[
            LimitView(
                level=limit.level,
                owner=limit.owner,
                requests_per_minute=limit.requests_per_minute,
                tokens_per_minute=limit.tokens_per_minute,
            )
            for limit in who.limits
        ],
    )


LessonCursor = Annotated[
    str | None,
    QueryParameter(pattern="^[0-9a-z_]{1,64}:[0-9a-f]{1,64}$", description="`next` of the page before"),
]


@get("/cache/lessons", tags=["cache"])
async def list_cache_lessons(
    call: NamedDependency[Call], limit: Limit = 50, cursor: LessonCursor = None, organization: FilterId = None
) -> LessonPage:
    """What the semantic cache has learned: from which similarity on near answers are served, and on what evidence."""
    filters = await call.narrow(Action.CACHE_READ, organization=organization)
    after = None
    if cursor is not None:
        owner, _, unit = cursor.partition(":")
        after = (owner, unit)
    found = await Lessons(call.services.database).all(filters["organization"], limit + 1, after)
    shown, following = cut(found, limit, lambda lesson: f"{lesson.organization}:{lesson.unit}")
    return LessonPage([_lesson_view(lesson) for lesson in shown], following)


def _lesson_view(lesson: Lesson) -> LessonView:
    known = lesson.standing
    return LessonView(
        organization=lesson.organization,
        unit=lesson.unit,
        model=lesson.model,
        threshold=EDGES[known.served - 1] if known.served else None,
        bands=list(EDGES),
        checks=list(known.checks),
        wrong=list(known.wrong),
        watched=known.watched,
        watched_wrong=known.watched_wrong,
        at_most=round(upper_limit(known.watched, known.watched_wrong), 6),
        episode=known.episode,
        failures=known.failures,
        changed_at=moment(lesson.changed),
    )


@post("/cache/purge", status_code=200, tags=["cache"])
async def purge_cache(call: NamedDependency[Call], data: JSONBody[CachePurge]) -> Purged:
    """Drop cached answers. Without an organisation: everybody's for the platform, else the caller's own."""
    organization = data.organization or call.principal.organization or None
    if organization is None or (data.organization is None and call.principal.user is None):
        resource = Resource()
    else:
        resource = Resource(Level.ORGANIZATION, organization)
    hidden = not_found(Organization, organization) if organization is not None else None
    call.require(Action.CACHE_PURGE, resource, hidden)
    services = call.services
    async with services.audit.change(call.actor) as change:
        criteria = {"model": data.model, "tag": data.tag}
        await change.append("cache.purge", "cache", organization, None, criteria)
    return Purged(await services.purge(organization=organization, model=data.model, tag=data.tag))


router = Router("/", route_handlers=[get_me, list_cache_lessons, purge_cache])
