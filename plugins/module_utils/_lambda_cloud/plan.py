# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What it takes to make a pool as asked: from (desired, what is there, what is on sale) to a plan. No I/O.

::

    decide(desired, members, offers) -> Step | None     the next thing to do
    plan(desired, members, offers)   -> Plan            all of them, as if each went well

A run decides again after every step, on what it sees then; check mode shows the plan. Both come from the same rules, so
what check mode shows is what is done if nothing interferes. What holds at every step:

* no ordinal has two hosts: an ordinal is free only once its host is known to be gone;
* what all hosts cost together, those that are ending or may have been launched included, stays within the budget, and
  what one host costs within the ceiling;
* no more than ``max_unavailable`` of ``count`` hosts are taken away by the pool itself, and none that is protected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import Offer, name_of, usd

# pending: a launch that may have made a host which no list shows yet.
SICK = frozenset({"unhealthy", "preempted", "stuck", "broken"})
COMING = frozenset({"booting", "pending"})


@dataclass(frozen=True)
class Desired:
    """A pool as the user wants it; money in cents an hour, None for no limit. Empty ``regions`` means any."""

    pool: str
    count: int
    spec: str
    types: tuple[str, ...]
    regions: tuple[str, ...] = ()
    strategy: str = "cheapest"
    ceiling: int | None = None
    budget: int | None = None
    max_surge: int = 1
    max_unavailable: int = 0
    protected: frozenset[str] = frozenset()
    drain_required: bool = False
    drained: frozenset[str] = frozenset()
    replace_unhealthy: bool = True
    replace_drifted: bool = True
    broken: frozenset[str] = frozenset()

    def check(self) -> None:
        """Raise :class:`InvalidInput` for what can never come about."""
        if self.max_surge < 0 or self.max_unavailable < 0 or self.count < 0:
            raise InvalidInput("count, max_surge and max_unavailable are not negative")
        if self.max_surge + self.max_unavailable == 0:
            raise InvalidInput("max_surge and max_unavailable: with neither no host can be replaced")
        if self.count and not self.types:
            raise InvalidInput("instance_types: at least one is needed")


@dataclass(frozen=True)
class Member:
    """A host of the pool. ``status`` is the vendor's, or pending, stuck or broken; ``since`` is Unix time, None if not known."""

    name: str
    ordinal: int
    spec: str
    status: str
    type: str
    region: str
    cents: int
    id: str | None = None
    since: float | None = None


@dataclass(frozen=True)
class Step:
    """Something to do: launch, delete or drain; or what stands in the way: shop (offers are needed), wait, blocked."""

    do: str
    why: str
    name: str = ""
    ordinal: int | None = None
    type: str = ""
    region: str = ""
    cents: int = 0
    id: str | None = None


@dataclass(frozen=True)
class Plan:
    """Steps in order; money in cents an hour. ``peak`` is the most that is paid on the way."""

    steps: tuple[Step, ...]
    before: int
    after: int
    peak: int
    shortfall: int
    blocked: str | None = None
    after_members: tuple[Member, ...] = field(default=(), repr=False)

    @property
    def deletions(self) -> tuple[Step, ...]:
        return tuple(step for step in self.steps if step.do == "delete")

    @property
    def to_drain(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps if step.do == "drain")


@dataclass(frozen=True)
class _View:
    """The members, sorted by what they are good for."""

    here: tuple[Member, ...]
    sick: tuple[Member, ...]
    outdated: tuple[Member, ...]
    ending: tuple[Member, ...]
    cents: int

    @property
    def moving(self) -> bool:
        return bool(self.ending) or any(member.status in COMING for member in self.here)

    def ready(self) -> int:
        return sum(member.status == "active" for member in self.here)


def drifted(desired: Desired, member: Member) -> bool:
    """Return whether a host is not what would be launched now."""
    return (
        member.spec != desired.spec
        or (bool(desired.types) and member.type not in desired.types)
        or (bool(desired.regions) and member.region not in desired.regions)
    )


def decide(
    desired: Desired,
    members: Sequence[Member],
    offers: Sequence[Offer] | None,
    refused: Iterable[tuple[str, str]] = (),
    left: frozenset[int] = frozenset(),
) -> Step | None:
    """Return the next step, or None where all is as desired.

    ``offers`` None means that nobody has looked yet; ``refused`` are pairs of type and region not to be tried now.
    ``left`` are ordinals whose hosts were ending when the run began or were deleted by it: they are not used again before
    the next run, so that names do not depend on how long a termination takes.
    """
    view = _look(desired, members)
    for member in _duplicates(desired, view.here):
        return _delete(member, "duplicate")
    if desired.replace_unhealthy:
        for member in view.sick:
            if member.name not in desired.protected:
                return _delete(member, member.status)
    need = _need(desired, view)
    room = desired.count + (desired.max_surge if view.outdated else 0) - len(view.here)
    hindrance: Step | None = None
    if need > 0 and room > 0:
        launch = _launch(desired, view, left.union(member.ordinal for member in members), offers, refused)
        if launch.do in ("launch", "shop") or not view.outdated:
            return launch
        hindrance = launch
    if len(view.here) > desired.count or (need > 0 and view.outdated):
        return _shrink(desired, view, need, offers, refused, hindrance)
    if any(member.status in COMING for member in view.here):
        return Step("wait", "boot")
    if view.ending:
        return Step("wait", "termination")
    return None


def plan(
    desired: Desired,
    members: Sequence[Member],
    offers: Sequence[Offer] | None,
    refused: Iterable[tuple[str, str]] = (),
) -> Plan:
    """Return every step, as if each launch found its host; a deletion takes until something has to wait for it."""
    refused = tuple(refused)
    now = list(members)
    before = peak = _cents(now)
    steps: list[Step] = []
    blocked: str | None = None
    left = leaving(now)
    while (step := decide(desired, now, offers, refused, left)) is not None:
        if step.do in ("blocked", "shop"):
            blocked = step.why
            break
        if step.do == "wait":
            settled = [_settled(member) for member in now if member.status != "terminating"]
            if settled == now:
                blocked = step.why
                break
            now = settled
            continue
        steps.append(step)
        if step.do == "drain":
            desired = replace(desired, drained=desired.drained | {step.name})
        elif step.do == "delete":
            now = [replace(member, status="terminating") if member.id == step.id else member for member in now]
            left |= {step.ordinal or 0}
        else:
            now.append(_launched(step, desired.spec))
        peak = max(peak, _cents(now))
    after = tuple(member for member in now if member.status != "terminating")
    return Plan(tuple(steps), before, _cents(after), peak, shortfall(desired, after), blocked, after)


def leaving(members: Iterable[Member]) -> frozenset[int]:
    """Return the ordinals of hosts that are ending."""
    return frozenset(member.ordinal for member in members if member.status == "terminating")


def shortfall(desired: Desired, members: Sequence[Member]) -> int:
    """Return how many hosts are missing: neither there in good order nor on their way."""
    view = _look(desired, members)
    return max(0, desired.count - (len(view.here) - len(view.sick)))


def grid(
    desired: Desired, here: Sequence[Member], offers: Sequence[Offer], refused: Iterable[tuple[str, str]] = ()
) -> list[tuple[Offer, str]]:
    """Return types and regions to try, the best first: within the ceiling, said to have capacity, not just refused."""
    shunned = frozenset(refused)
    rank = {name: place for place, name in enumerate(desired.types)}
    found = [
        (offer, region)
        for offer in offers
        if offer.type in rank and (desired.ceiling is None or offer.cents <= desired.ceiling)
        for region in offer.regions
        if (not desired.regions or region in desired.regions) and (offer.type, region) not in shunned
    ]
    places = {name: place for place, name in enumerate(desired.regions)}
    hosts: dict[str, int] = {}
    for member in here:
        hosts[member.region] = hosts.get(member.region, 0) + 1

    def order(item: tuple[Offer, str]) -> tuple[int, int, int, int, str]:
        offer, region = item
        place = places.get(region, 0)
        if desired.strategy == "ranked":
            return (rank[offer.type], place, offer.cents, 0, region)
        if desired.strategy == "spread":
            return (hosts.get(region, 0), offer.cents, rank[offer.type], place, region)
        return (offer.cents, rank[offer.type], place, 0, region)

    return sorted(found, key=order)


def _look(desired: Desired, members: Sequence[Member]) -> _View:
    here = tuple(member for member in members if member.status != "terminating")
    sick = tuple(member for member in here if member.status in SICK)
    outdated = tuple(
        member
        for member in here
        if desired.replace_drifted
        and member not in sick
        and member.name not in desired.protected
        and drifted(desired, member)
    )
    ending = tuple(member for member in members if member.status == "terminating")
    return _View(here, sick, outdated, ending, _cents(members))


def _cents(members: Iterable[Member]) -> int:
    return sum(member.cents for member in members)


def _duplicates(desired: Desired, here: Sequence[Member]) -> list[Member]:
    """Return all but the best host of each ordinal that has several."""
    by_ordinal: dict[int, list[Member]] = {}
    for member in here:
        by_ordinal.setdefault(member.ordinal, []).append(member)

    def worth(member: Member) -> tuple[bool, bool, bool, bool, float]:
        return (
            member.name not in desired.protected,
            member.status in SICK,
            drifted(desired, member),
            member.status != "active",
            member.since or 0.0,
        )

    extra = [member for group in by_ordinal.values() for member in sorted(group, key=worth)[1:]]
    return [member for member in extra if member.id is not None and member.name not in desired.protected]


def _need(desired: Desired, view: _View) -> int:
    """Return how many hosts are to be launched for every place to have one that may stay."""
    staying = len(view.here) - len(view.outdated)
    return desired.count - staying


def _launch(
    desired: Desired,
    view: _View,
    taken: frozenset[int],
    offers: Sequence[Offer] | None,
    refused: Iterable[tuple[str, str]],
) -> Step:
    if offers is None:
        return Step("shop", "capacity")
    found = grid(desired, view.here, offers, refused)
    affordable = [
        (offer, region) for offer, region in found if desired.budget is None or view.cents + offer.cents <= desired.budget
    ]
    if affordable:
        offer, region = affordable[0]
        ordinal = next(number for number in range(len(taken) + 1) if number not in taken)
        name = name_of(desired.pool, ordinal, desired.spec)
        return Step("launch", "missing", name, ordinal, offer.type, region, offer.cents)
    return _hindrance(desired, view, offers)


def _hindrance(desired: Desired, view: _View, offers: Sequence[Offer]) -> Step:
    """Say why nothing can be launched, and whether waiting may help."""
    on_sale = [offer for offer in offers if offer.type in desired.types]
    if not on_sale:
        return Step("blocked", "instance_types")
    allowed = [offer for offer in on_sale if desired.ceiling is None or offer.cents <= desired.ceiling]
    if not allowed:
        return Step("blocked", "max_price_per_hour")
    if desired.budget is not None and view.cents + min(offer.cents for offer in allowed) > desired.budget:
        return Step("wait", "termination") if view.ending else Step("blocked", "budget_usd_per_hour")
    # A cheaper type within the budget may have capacity later.
    return Step("wait", "capacity")


def _shrink(
    desired: Desired,
    view: _View,
    need: int,
    offers: Sequence[Offer] | None,
    refused: Iterable[tuple[str, str]],
    hindrance: Step | None,
) -> Step:
    """Return the deletion that is due, or what it has to wait for."""
    free = [member for member in view.here if member.name not in desired.protected]
    if need > 0:
        free = [member for member in free if member in view.outdated]
    excess = max(1, len(view.here) - desired.count)
    victims = sorted(free, key=lambda member: _order(desired, view, member))[:excess]
    if not victims:
        return Step("wait", "boot") if view.moving else Step("blocked", "protected")
    # What may not exist cannot be deleted; taking another in its place would take one too many.
    victims = [member for member in victims if member.id is not None]
    if not victims:
        return Step("wait", "boot")
    # Of hosts that go anyway, those that are drained go first.
    victims.sort(key=lambda member: member.name not in desired.drained)
    victim = victims[0]
    left = view.ready() - (victim.status == "active")
    if victim.status == "active" and left < desired.count - desired.max_unavailable:
        return hindrance or (Step("wait", "boot") if view.moving else Step("blocked", "max_unavailable"))
    if need > 0 and len(view.here) <= desired.count:
        # The place is emptied before it is filled again: only if something can be had for it.
        if offers is None:
            return Step("shop", "capacity")
        rest = replace(view, cents=view.cents - victim.cents)
        found = grid(desired, view.here, offers, refused)
        if not any(desired.budget is None or rest.cents + offer.cents <= desired.budget for offer, _region in found):
            return _hindrance(desired, rest, offers)
    if desired.drain_required and victim.status == "active" and victim.name not in desired.drained:
        return replace(_delete(victim, _why(view, victim)), do="drain")
    return _delete(victim, _why(view, victim))


def _order(desired: Desired, view: _View, member: Member) -> tuple[bool, bool, int, int]:
    """Sort key of deletion: sick, drifted, the most expensive, the highest ordinal."""
    return (member not in view.sick, not drifted(desired, member), -member.cents, -member.ordinal)


def _why(view: _View, member: Member) -> str:
    return member.status if member in view.sick else "drifted" if member in view.outdated else "surplus"


def _delete(member: Member, why: str) -> Step:
    return Step("delete", why, member.name, member.ordinal, member.type, member.region, member.cents, member.id)


def _settled(member: Member) -> Member:
    return replace(member, status="active") if member.status in COMING else member


def _launched(step: Step, spec: str) -> Member:
    return Member(step.name, step.ordinal or 0, spec, "active", step.type, step.region, step.cents)


def rows(steps: Iterable[Step]) -> list[dict[str, object]]:
    """Return steps for people and programs."""
    return [
        {
            "do": step.do,
            "why": step.why,
            "name": step.name,
            "instance_type": step.type,
            "region": step.region,
            "price_per_hour": usd(step.cents),
        }
        for step in steps
    ]
