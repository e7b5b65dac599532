# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Runs a pool to where it should be: look, decide, do, and look again.

The one place that acts. What keeps it honest where the API does not:

* a launch is written down before it is sent; if its outcome is unknown, instances are listed for ``reconcile`` seconds
  for the tag it was sent with, and nothing else is launched for its ordinal until then;
* a host that a list does not show (lists may be stale, or shift between two pages) is asked for by its id before it
  counts as missing, and one that was terminated counts, and costs, until the API says by its id that it is gone;
* a termination that does not begin is asked for again.

One run of a pool at a time and machine: the pool's lock is held throughout.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import (
    ApiError,
    PlatformError,
    StateConflict,
    WaitTimeout,
)
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud import api as vendor
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.journal import Journal, Sent
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import (
    TAG_CREATED,
    TAG_LAUNCH,
    TAG_ORDINAL,
    TAG_POOL,
    TAG_SPEC,
    Instance,
    Offer,
    identity,
    named_alike,
)
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.plan import (
    COMING,
    Desired,
    Member,
    Plan,
    Step,
    decide,
    leaving,
    plan,
    shortfall,
)

# Offers older than this many seconds are read again before they are used.
_FRESH = 60.0
# A launch that was refused for want of capacity is tried again after this many seconds, then twice as many.
_REFUSED = 30.0
_REFUSED_MAX = 480.0
# How long a termination may take to begin before it is asked for again, in seconds.
_AGAIN = 30.0
_GONE = frozenset({"terminated"})


@dataclass(frozen=True)
class Limits:
    """How far a run may go. Times in seconds; ``relaunches`` are hosts made by this run that did not come up."""

    max_deletions: int = 1
    force: bool = False
    relaunches: int = 3
    allow_partial: bool = False
    wait: bool = True
    timeout: float = 1800.0
    interval: float = 10.0
    reconcile: float = 120.0
    boot_timeout: float = 1800.0


@dataclass
class Report:
    """What a run did: ``steps`` that were done, ``plan`` as it was at the start, the hosts as they were seen last."""

    plan: Plan | None = None
    before: tuple[Member, ...] = ()
    steps: list[Step] = field(default_factory=list)
    members: tuple[Member, ...] = ()
    instances: dict[str, Instance] = field(default_factory=dict)
    shortfall: int = 0
    waiting_for: str | None = None
    to_drain: tuple[str, ...] = ()
    elapsed: float = 0.0


@dataclass
class _Refusal:
    until: float
    seconds: float


class Run:
    """One run of one pool. ``request`` makes the launch's body from type and region, without identity."""

    def __init__(
        self,
        api: Api,
        journal: Journal,
        desired: Desired,
        limits: Limits,
        request: Callable[[str, str], Mapping[str, Any]],
        *,
        tags: Mapping[str, str] | None = None,
        allowed: Callable[[Offer], Offer] = lambda offer: offer,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        token: Callable[[], str] = lambda: uuid.uuid4().hex,
    ) -> None:
        self._api = api
        self._journal = journal
        self._desired = desired
        self._limits = limits
        self._request = request
        self._tags = dict(tags or {})
        self._allowed = allowed
        self._clock = clock
        self._wall = wall
        self._sleep = sleep
        self._token = token
        self._started = clock()
        self._offers: tuple[Offer, ...] | None = None
        self._offered = 0.0
        self._refusals: dict[tuple[str, str], _Refusal] = {}
        self._mine: set[str] = set()
        self._left: set[int] = set()
        self._deleted = 0
        self._relaunched = 0
        self._quota = False
        self.report = Report()

    def run(self, check: bool) -> Report:
        """Make the pool be as desired, or in check mode say what that would take.

        Raises :class:`StateConflict` where it must not go on, :class:`WaitTimeout` where it took too long.
        """
        try:
            foretold = self._foretell()
            self._refuse(foretold)
            if not check:
                self._converge()
        finally:
            self.report.elapsed = self._clock() - self._started
            self.report.shortfall = shortfall(self._desired, self.report.members)
        if check:
            self.report.to_drain = foretold.to_drain
            self.report.waiting_for = foretold.blocked
            self.report.shortfall = foretold.shortfall
        return self.report

    def _foretell(self) -> Plan:
        self._look()
        self.report.before = self.report.members
        self._left.update(leaving(self.report.members))
        foretold = self._plan()
        if foretold.blocked == "capacity" and self._offers is None:
            self._shop()
            foretold = self._plan()
        self.report.plan = foretold
        return foretold

    def _plan(self) -> Plan:
        return plan(self._desired, self.report.members, self._offers, self._shunned())

    def _refuse(self, foretold: Plan) -> None:
        deletions = len(foretold.deletions)
        if deletions > self._limits.max_deletions and not self._limits.force:
            raise StateConflict(
                f"{self._desired.pool}: {deletions} hosts would be deleted, and max_deletions is {self._limits.max_deletions}: "
                + ", ".join(step.name for step in foretold.deletions),
                code="too_many_deletions",
            )

    def _converge(self) -> None:
        while True:
            step = decide(self._desired, self.report.members, self._offers, self._shunned(), frozenset(self._left))
            self.report.waiting_for = None
            if self._quota and step is not None and step.do == "launch":
                step = Step("blocked", "quota")
            if step is None or (step.do == "wait" and step.why == "boot" and not self._limits.wait):
                return
            if step.do == "shop":
                self._shop()
            elif step.do == "launch":
                self._launch(step)
            elif step.do == "delete":
                self._delete(step)
                self._look()
            elif step.do == "drain":
                self.report.to_drain = self._plan().to_drain
                return
            elif self._stuck(step):
                return

    def _stuck(self, step: Step) -> bool:
        """Wait for what stands in the way; return whether the run ends here, with less than was asked for."""
        self.report.waiting_for = step.why
        elapsed = self._clock() - self._started
        # What is on its way is waited for even if nothing can follow it: it may come up broken.
        hopeless = step.do == "blocked" and not (self._limits.wait and self._coming())
        if hopeless or elapsed >= self._limits.timeout:
            if self._limits.allow_partial:
                return True
            self._fail(step, elapsed)
        pause = self._limits.interval
        if step.why == "capacity":
            now = self._clock()
            pause = min([max(pause, item.until - now) for item in self._refusals.values()], default=_REFUSED)
            self._offers = None
        self._sleep(max(0.1, min(pause, self._limits.timeout - elapsed)))
        self._look()
        return False

    def _coming(self) -> bool:
        return any(member.status in COMING for member in self.report.members)

    def _fail(self, step: Step, elapsed: float) -> None:
        missing = shortfall(self._desired, self.report.members)
        about = f"{self._desired.pool}: {missing} of {self._desired.count} hosts missing"
        if step.do == "blocked":
            raise StateConflict(f"{about}, held up by {step.why}", code=step.why, details={"shortfall": missing})
        raise WaitTimeout(f"{about}, still waiting for {step.why}", elapsed=elapsed, details={"shortfall": missing})

    def _look(self) -> None:
        """List the instances and correct the list by what the journal and the API's single answers say."""
        now = self._wall()
        self._journal.sweep(now - 3 * self._limits.reconcile)
        listed = {instance.id: instance for instance in self._api.instances()}
        self._hide_ended(listed)
        pending = self._find_sent(listed, now)
        self._find_known(listed)
        mine: dict[str, Instance] = {}
        members: list[Member] = []
        for instance in listed.values():
            if named_alike(instance, self._desired.pool):
                raise StateConflict(
                    f"{instance.name} ({instance.id}) has a name of this pool but not its tags: rename or terminate it",
                    code="foreign_host",
                )
            own = identity(instance)
            if own is None or own.pool != self._desired.pool or instance.status in _GONE:
                continue
            mine[instance.id] = instance
            members.append(self._member(instance, own.ordinal, own.spec, now))
        self.report.members = tuple(sorted([*members, *pending], key=lambda member: (member.ordinal, member.name)))
        self.report.instances = mine
        self._journal.remember(frozenset(mine))

    def _hide_ended(self, listed: dict[str, Instance]) -> None:
        for instance_id, (_asked, gone) in list(self._journal.endings.items()):
            if gone:
                listed.pop(instance_id, None)
                continue
            truth = self._api.instance(instance_id)
            if truth is None or truth.status in _GONE:
                self._journal.gone(instance_id)
                listed.pop(instance_id, None)
            else:
                listed[instance_id] = truth

    def _find_sent(self, listed: dict[str, Instance], now: float) -> list[Member]:
        """Settle launches that a list need not show yet; return those that stay unsettled."""
        pending: list[Member] = []
        by_token = {instance.tags.get(TAG_LAUNCH): instance for instance in listed.values()}
        for sent in list(self._journal.launches.values()):
            found = by_token.get(sent.token)
            if found and sent.id is None:
                self._journal.identify(sent.token, found.id)
            if found or self._journal.endings.get(sent.id or "", (0.0, False))[1]:
                continue
            truth = self._api.instance(sent.id) if sent.id else None
            if truth is not None:
                listed[truth.id] = truth
            elif now - sent.sent < self._limits.reconcile:
                pending.append(_pending(sent))
            else:
                self._journal.drop(sent.token)
        return pending

    def _find_known(self, listed: dict[str, Instance]) -> None:
        """Ask for hosts that were there and are not listed: a list may be stale, or have shifted between two pages."""
        for instance_id in sorted(self._journal.known - listed.keys()):
            if self._journal.endings.get(instance_id, (0.0, False))[1]:
                continue
            truth = self._api.instance(instance_id)
            if truth is not None:
                listed[truth.id] = truth

    def _member(self, instance: Instance, ordinal: int, spec: str, now: float) -> Member:
        created = instance.tags.get(TAG_CREATED, "")
        since = float(created) if created.isdigit() else None
        status = instance.status
        if status == "active" and not instance.ip:
            status = "booting"
        if status == "booting" and since is not None and now - since > self._limits.boot_timeout:
            status = "stuck"
        if status == "active" and instance.id in self._desired.broken:
            status = "broken"
        return Member(
            name=instance.name,
            ordinal=ordinal,
            spec=spec,
            status=status,
            type=instance.type,
            region=instance.region,
            cents=instance.cents,
            id=instance.id,
            since=since,
        )

    def _shop(self) -> None:
        self._offers = tuple(self._allowed(offer) for offer in self._api.offers())
        self._offered = self._clock()

    def _shunned(self) -> list[tuple[str, str]]:
        now = self._clock()
        return [pair for pair, refusal in self._refusals.items() if refusal.until > now]

    def _launch(self, step: Step) -> None:
        """Launch one host; on return the members are as seen afterwards."""
        if self._clock() - self._offered > _FRESH:
            self._offers = None
            return
        idle = self._api.pace.until_launch()
        if idle > self._limits.interval / 2:
            # The list before a launch has to be one of right before it.
            self._sleep(idle)
            self._look()
            return
        sent = Sent(
            token=self._token(),
            name=step.name,
            ordinal=step.ordinal or 0,
            spec=self._desired.spec,
            type=step.type,
            region=step.region,
            cents=step.cents,
            sent=self._wall(),
        )
        try:
            made = self._api.launch(self._body(sent), lambda: self._journal.send(replace(sent, sent=self._wall())))
        except ApiError as error:
            self._launch_failed(step, sent, error)
        else:
            self._journal.identify(sent.token, made)
            self._refusals.pop((step.type, step.region), None)
            self._made(step, made)
        self._look()

    def _made(self, step: Step, instance_id: str) -> None:
        self._mine.add(instance_id)
        self.report.steps.append(replace(step, id=instance_id))

    def _launch_failed(self, step: Step, sent: Sent, error: ApiError) -> None:
        """Draw the conclusion: nothing was made and why, or nobody knows."""
        if vendor.refused(error):
            self._journal.drop(sent.token)
            if error.code in (vendor.NO_CAPACITY, vendor.WRONG_REGION):
                self._shun(step)
                return
            if error.code == vendor.QUOTA and error.status != 429 and self._limits.allow_partial:
                self._quota = True
                return
            raise error
        # From now on, not from when it was sent: it may have been under way that long.
        self._journal.send(replace(sent, sent=self._wall()))
        self._reconcile(step, sent)

    def _reconcile(self, step: Step, sent: Sent) -> None:
        """List until the launch shows or may be taken not to have happened."""
        while True:
            self._look()
            note = self._journal.launches.get(sent.token)
            if note is None:
                return
            if note.id is not None:
                self._made(step, note.id)
                return
            self._sleep(min(self._limits.interval, self._limits.reconcile))

    def _shun(self, step: Step) -> None:
        pair = (step.type, step.region)
        before = self._refusals.get(pair)
        seconds = min(_REFUSED_MAX, before.seconds * 2) if before else _REFUSED
        self._refusals[pair] = _Refusal(self._clock() + seconds, seconds)

    def _body(self, sent: Sent) -> dict[str, Any]:
        own = {
            TAG_POOL: self._desired.pool,
            TAG_ORDINAL: str(sent.ordinal),
            TAG_SPEC: sent.spec,
            TAG_LAUNCH: sent.token,
            TAG_CREATED: str(int(self._wall())),
        }
        tags = [{"key": key, "value": value} for key, value in {**self._tags, **own}.items()]
        return {
            **self._request(sent.type, sent.region),
            "region_name": sent.region,
            "instance_type_name": sent.type,
            "name": sent.name,
            "hostname": sent.name,
            "tags": tags,
        }

    def _delete(self, step: Step) -> None:
        """Ask for a host's end until it is seen to begin."""
        instance_id = step.id or ""
        self._account(step)
        self._journal.end(instance_id, self._wall())
        self._terminate(instance_id)
        self._left.add(step.ordinal or 0)
        self.report.steps.append(step)
        asked = self._clock()
        while True:
            seen = self._api.instance(instance_id)
            if seen is None or seen.status in _GONE or seen.status == "terminating":
                return
            elapsed = self._clock() - self._started
            if elapsed >= self._limits.timeout:
                raise WaitTimeout(f"{step.name} ({instance_id}) does not terminate", last=seen.as_result(), elapsed=elapsed)
            if self._clock() - asked >= _AGAIN:
                self._terminate(instance_id)
                asked = self._clock()
            self._sleep(self._limits.interval)

    def _terminate(self, instance_id: str) -> None:
        try:
            self._api.terminate(instance_id)
        except PlatformError as error:
            # Whether it worked is seen by looking; only what looking cannot cure is raised.
            if not (error.retryable or getattr(error, "ambiguous", False) or error.status == 409):
                raise

    def _account(self, step: Step) -> None:
        """Count a deletion. Raises :class:`StateConflict` before one too many."""
        if step.id in self._mine:
            self._relaunched += 1
            if self._relaunched > self._limits.relaunches:
                raise StateConflict(
                    f"{self._desired.pool}: {self._relaunched} hosts of this run did not come up; {step.name} is left for a look",
                    code="too_many_relaunches",
                )
            return
        if self._deleted >= self._limits.max_deletions and not self._limits.force:
            raise StateConflict(
                f"{self._desired.pool}: {step.name} ({step.why}) would be deleted beyond max_deletions", code="too_many_deletions"
            )
        self._deleted += 1


def _pending(sent: Sent) -> Member:
    return Member(sent.name, sent.ordinal, sent.spec, "pending", sent.type, sent.region, sent.cents, sent.id, sent.sent)
