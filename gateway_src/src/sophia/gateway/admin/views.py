# SPDX-License-Identifier: GPL-3.0-or-later
"""What the management API takes and gives. Money is a decimal string of USD, time is RFC 3339.

A field that a change leaves out stays as it is; ``null`` takes the bound away.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from sophia.errors import BadRequest
from sophia.money import dollars, nano
from sophia.stores.flags import NAME_PATTERN
from sophia.stores.model import Flag, Level, Period, Role
from sophia.stores.registry import Key, Organization, Record, Team, User

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(2200, 1, 1, tzinfo=UTC)

Identifier = Annotated[str, Meta(pattern="^[a-z]+_[0-9a-z]{26}$", examples=["org_01kaxsqkyc8nncr6zjv6m3v5gt"])]
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern="^[^\\u0000-\\u001f\\u007f]*$", examples=["acme"])]
Email = Annotated[str, Meta(max_length=254, pattern="^[^\\s@\\u0000-\\u001f\\u007f]+@[^\\s@\\u0000-\\u001f\\u007f]+$")]
Dollars = Annotated[str, Meta(pattern="^[0-9]{1,9}(\\.[0-9]{1,9})?$", examples=["25.00"])]
Rate = Annotated[int, Meta(ge=1, le=1_000_000_000)]
ModelPattern = Annotated[str, Meta(max_length=200, pattern="^([A-Za-z0-9~._:/@+-]+[*]?|[*])$", examples=["openai/*"])]
Models = Annotated[list[ModelPattern], Meta(max_length=1000)]
Region = Annotated[str, Meta(pattern="^[a-z0-9-]{2,20}$", examples=["eu"])]
Regions = Annotated[list[Region], Meta(max_length=50)]
Scope = Literal["chat", "embeddings", "models", "admin"]
Scopes = Annotated[set[Scope], Meta(min_length=1)]
Instant = Annotated[datetime, Meta(tz=True)]
FlagName = Annotated[str, Meta(pattern=NAME_PATTERN)]
Text = Annotated[str, Meta(max_length=1000, pattern="^[^\\u0000]*$")]


class _In(Struct, kw_only=True, forbid_unknown_fields=True):
    """What is taken: a field that is not known is an error, because it would otherwise silently do nothing."""

    def __post_init__(self) -> None:
        name = getattr(self, "name", UNSET)
        if isinstance(name, str) and name != name.strip():
            raise ValueError("a name must not begin or end with white space")


class Budgets(_In, kw_only=True):
    """Caps in USD per period; periods begin at 00:00 UTC, weeks on Monday."""

    day: Dollars | UnsetType | None = UNSET
    week: Dollars | UnsetType | None = UNSET
    month: Dollars | UnsetType | None = UNSET


class Limits(_In, kw_only=True):
    """Rates per minute."""

    requests_per_minute: Rate | UnsetType | None = UNSET
    tokens_per_minute: Rate | UnsetType | None = UNSET


class _Bounds(_In, kw_only=True):
    budgets: Budgets | UnsetType = UNSET
    limits: Limits | UnsetType = UNSET
    models: Models | UnsetType | None = UNSET
    disabled: bool | UnsetType = UNSET


class _OrganizationBounds(_Bounds, kw_only=True):
    zero_data_retention: bool | UnsetType = UNSET
    regions: Regions | UnsetType | None = UNSET


class NewOrganization(_OrganizationBounds, kw_only=True):
    """An organisation to be made."""

    name: Name


class OrganizationChange(_OrganizationBounds, kw_only=True):
    """What is to change of an organisation."""

    name: Name | UnsetType = UNSET


class NewTeam(_Bounds, kw_only=True):
    """A team to be made."""

    organization: Identifier
    name: Name


class TeamChange(_Bounds, kw_only=True):
    """What is to change of a team."""

    name: Name | UnsetType = UNSET


class NewUser(_Bounds, kw_only=True):
    """A user to be made."""

    organization: Identifier
    name: Name
    team: Identifier | None = None
    email: Email | None = None
    role: Role = Role.MEMBER


class UserChange(_Bounds, kw_only=True):
    """What is to change of a user."""

    name: Name | UnsetType = UNSET
    team: Identifier | UnsetType | None = UNSET
    email: Email | UnsetType | None = UNSET
    role: Role | UnsetType = UNSET


class NewKey(_Bounds, kw_only=True):
    """A key to be made. Without `scopes` it can do all but administer, as far as the caller's own key can."""

    user: Identifier
    name: Name
    scopes: Scopes | UnsetType = UNSET
    expires_at: Instant | None = None


class KeyChange(_Bounds, kw_only=True):
    """What is to change of a key."""

    name: Name | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    expires_at: Instant | UnsetType | None = UNSET


class Rotation(_In, kw_only=True):
    """How to rotate a key: for `overlap` seconds the old secret works as well (at most 30 days)."""

    overlap: Annotated[int, Meta(ge=0, le=30 * 24 * 3600)] = 3600


class FlagChange(_In, kw_only=True):
    """A flag as it shall be, made from `version` of it; 0 makes a new one."""

    version: Annotated[int, Meta(ge=0, le=2**53)]
    enabled: bool = False
    percentage: Annotated[float, Meta(ge=0, le=100)] = 100.0
    organizations: Annotated[dict[Identifier, bool], Meta(max_length=1000)] = {}
    values: Annotated[list[Text], Meta(max_length=1000)] = []
    description: Text = ""


class CachePurge(_In, kw_only=True):
    """Which cached answers to drop: those that meet every criterion given."""

    organization: Identifier | None = None
    model: ModelPattern | None = None
    tag: Text | None = None


class BudgetsView(Struct, frozen=True):
    """Caps in USD per period; null is no cap."""

    day: str | None
    week: str | None
    month: str | None


class LimitsView(Struct, frozen=True):
    """Rates per minute; null is no limit of this level's own."""

    requests_per_minute: int | None
    tokens_per_minute: int | None


class _View(Struct, frozen=True, kw_only=True):
    id: str
    name: str
    budgets: BudgetsView
    limits: LimitsView
    models: list[str] | None
    disabled: bool
    created_at: datetime
    updated_at: datetime


class OrganizationView(_View, frozen=True, kw_only=True):
    """An organisation."""

    zero_data_retention: bool
    regions: list[str] | None


class TeamView(_View, frozen=True, kw_only=True):
    """A team."""

    organization: str


class UserView(_View, frozen=True, kw_only=True):
    """A user."""

    organization: str
    team: str | None
    email: str | None
    role: Role


class KeyView(_View, frozen=True, kw_only=True):
    """A key, without its secret. `prefix` is how to recognise it."""

    organization: str
    user: str
    prefix: str
    scopes: list[str]
    expires_at: datetime | None
    retiring_until: datetime | None


class KeySecret(KeyView, frozen=True, kw_only=True):
    """A key with its secret: shown this once, and never again."""

    secret: str


class OrganizationPage(Struct, frozen=True):
    """Organisations; `next` is the cursor of the following page, null on the last."""

    data: list[OrganizationView]
    next: str | None


class TeamPage(Struct, frozen=True):
    """Teams; `next` is the cursor of the following page, null on the last."""

    data: list[TeamView]
    next: str | None


class UserPage(Struct, frozen=True):
    """Users; `next` is the cursor of the following page, null on the last."""

    data: list[UserView]
    next: str | None


class KeyPage(Struct, frozen=True):
    """Keys; `next` is the cursor of the following page, null on the last."""

    data: list[KeyView]
    next: str | None


class FlagView(Struct, frozen=True, kw_only=True):
    """A flag. One from the file is read-only."""

    name: str
    enabled: bool
    percentage: float
    organizations: dict[str, bool]
    values: list[str]
    description: str
    version: int
    updated_at: datetime
    source: Literal["api", "file"]


class FlagList(Struct, frozen=True):
    """Every flag in force."""

    data: list[FlagView]


class AuditView(Struct, frozen=True, kw_only=True):
    """An audit entry; `before` and `after` hold the resource without secrets."""

    sequence: int
    at: datetime
    actor: str
    actor_user: str | None
    action: str
    resource: str
    organization: str | None
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    previous: str
    hash: str


class AuditPage(Struct, frozen=True):
    """Audit entries, the newest first; `next` is the cursor of the following page, null on the last."""

    data: list[AuditView]
    next: str | None


class UsageRow(Struct, frozen=True, kw_only=True):
    """Use of one group. `cost` is confirmed; `unsettled` is what is still reserved; both in USD."""

    group: str | None
    requests: int
    attempts: int
    cost: str
    unsettled: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int


class Usage(Struct, frozen=True):
    """Use between two instants."""

    group_by: str
    start: datetime
    end: datetime
    data: list[UsageRow]


class DifferenceView(Struct, frozen=True, kw_only=True):
    """A generation that is not booked as it was billed: not_booked, not_billed, cost or tokens. Amounts in USD, null
    where a side does not have it."""

    kind: str
    generation: str
    attempt: str | None
    model: str
    booked: str | None
    billed: str | None


class ModelSumView(Struct, frozen=True, kw_only=True):
    """One model's day in USD. `recounted`: the booked tokens at the catalogue's list price, null without one."""

    model: str
    generations: int
    booked: str
    billed: str
    recounted: str | None


class MatchView(Struct, frozen=True, kw_only=True):
    """The three-way match of a UTC day; amounts in USD.

    `ok`: nothing is booked wrongly. `drift`: what is. `over`: the day has ended. `unsettled`: attempts that
    reconciliation has in hand. `foreign`: generations that others made with the account; `unexamined`: those that
    could not be told. `activity`: OpenRouter's own sum of the day; `account` and `ledger`: all that was ever used,
    and booked. `differences` has the first 200 of `different`.
    """

    day: str
    ok: bool
    over: bool
    generations: int
    booked: str
    billed: str
    drift: str
    unsettled: int
    foreign: int
    foreign_cost: str
    unexamined: int
    activity: str | None
    account: str | None
    ledger: str
    different: int
    models: list[ModelSumView]
    differences: list[DifferenceView]


class UnsettledView(Struct, frozen=True, kw_only=True):
    """An attempt whose cost is not confirmed yet."""

    attempt: str
    request: str
    at: datetime
    state: str
    organization: str
    team: str | None
    user: str | None
    key: str
    model: str
    reserved: str
    generation: str | None
    instance: str


class UnsettledPage(Struct, frozen=True):
    """Unsettled attempts; `next` is the cursor of the following page, null on the last."""

    data: list[UnsettledView]
    next: str | None


class LessonView(Struct, frozen=True, kw_only=True):
    """What the semantic cache has learned of one unit (an opaque partition, or a model).

    Near answers are served from `threshold` on; null while all are only checked. `checks` and `wrong` count by band
    of similarity (lower edges in `bands`) before the band is served, `watched` and `watched_wrong` over all that is
    served; `at_most` is the 95 % upper limit of the share of wrong answers among these. `episode` counts beginnings,
    `failures` how often the threshold was given up.
    """

    organization: str
    unit: str
    model: str
    threshold: float | None
    bands: list[float]
    checks: list[int]
    wrong: list[int]
    watched: int
    watched_wrong: int
    at_most: float
    episode: int
    failures: int
    changed_at: datetime


class LessonPage(Struct, frozen=True):
    """What the semantic cache has learned; `next` is the cursor of the following page, null on the last."""

    data: list[LessonView]
    next: str | None


class Purged(Struct, frozen=True):
    """How many cached answers were dropped."""

    purged: int


class AccountView(Struct, frozen=True, kw_only=True):
    """One budget of the caller's hierarchy: cap, settled and reserved spend of the current window, and what is left."""

    level: Level
    owner: str
    period: Period
    cap: str
    spent: str
    left: str


class LimitView(Struct, frozen=True, kw_only=True):
    """One level's rates."""

    level: Level
    owner: str
    requests_per_minute: int | None
    tokens_per_minute: int | None


class Me(Struct, frozen=True, kw_only=True):
    """What the caller's key is and may do."""

    key: str
    organization: str | None
    organization_name: str | None
    team: str | None
    user: str | None
    role: Role
    scopes: list[str]
    models: list[str] | None
    expires_at: datetime | None
    budgets: list[AccountView]
    limits: list[LimitView]


def money(amount: int) -> str:
    """Nano-dollars as a decimal string of USD, exact."""
    return f"{dollars(amount):f}"


def moment(at: int) -> datetime:
    """Nanoseconds since the epoch as a time in UTC, to the microsecond."""
    return _EPOCH + timedelta(microseconds=at // 1000)


def nanoseconds(at: datetime, param: str) -> int:
    """A time as nanoseconds since the epoch.

    Raises:
        BadRequest: outside 1970–2200.
    """
    if not _EPOCH <= at <= _LATEST:
        raise BadRequest("invalid_time", "must be between the years 1970 and 2200", param=param)
    return (at - _EPOCH) // timedelta(microseconds=1) * 1000


def fields_of(body: _In) -> dict[str, Any]:
    """What a body sets of a record, in the record's own fields and units."""
    fields: dict[str, Any] = {}
    for name in body.__struct_fields__:
        value = getattr(body, name)
        if value is UNSET:
            continue
        if isinstance(value, Budgets):
            caps = ((f"budget_{period}", getattr(value, period)) for period in Period)
            fields |= {name: _cap(cap) for name, cap in caps if cap is not UNSET}
        elif isinstance(value, Limits):
            fields |= {rate: limit for rate, limit in msgspec.structs.asdict(value).items() if limit is not UNSET}
        elif isinstance(value, datetime):
            fields[name] = nanoseconds(value, name)
        elif isinstance(value, list):
            fields[name] = tuple(dict.fromkeys(value))
        elif isinstance(value, set):
            fields[name] = frozenset(value)
        else:
            fields[name] = value
    return fields


def _cap(value: str | None) -> int | None:
    return None if value is None else nano(Decimal(value))


def organization_view(record: Organization) -> OrganizationView:
    """An organisation, as it is shown."""
    return OrganizationView(
        **_common(record),
        zero_data_retention=record.zero_data_retention,
        regions=None if record.regions is None else list(record.regions),
    )


def team_view(record: Team) -> TeamView:
    """A team, as it is shown."""
    return TeamView(**_common(record), organization=record.organization)


def user_view(record: User) -> UserView:
    """A user, as it is shown."""
    return UserView(
        **_common(record),
        organization=record.organization,
        team=record.team,
        email=record.email,
        role=record.role,
    )


def key_view(record: Key) -> KeyView:
    """A key, as it is shown."""
    return KeyView(**_key_fields(record))


def key_secret(record: Key, secret: str) -> KeySecret:
    """A key, as it is shown once."""
    return KeySecret(**_key_fields(record), secret=secret)


def flag_view(flag: Flag, read_only: bool) -> FlagView:
    """A flag, as it is shown."""
    fields = msgspec.structs.asdict(flag) | {
        "values": list(flag.values),
        "updated_at": moment(flag.updated_at),
        "source": "file" if read_only else "api",
    }
    return FlagView(**fields)


def _key_fields(record: Key) -> dict[str, Any]:
    return _common(record) | {
        "organization": record.organization,
        "user": record.user,
        "prefix": record.prefix,
        "scopes": sorted(record.scopes),
        "expires_at": None if record.expires_at is None else moment(record.expires_at),
        "retiring_until": None if record.retiring_until is None else moment(record.retiring_until),
    }


def _common(record: Record) -> dict[str, Any]:
    caps = {period: record.budget(period) for period in Period}
    return {
        "id": record.id,
        "name": record.name,
        "budgets": BudgetsView(**{period: None if cap is None else money(cap) for period, cap in caps.items()}),
        "limits": LimitsView(record.requests_per_minute, record.tokens_per_minute),
        "models": None if record.models is None else list(record.models),
        "disabled": record.disabled,
        "created_at": moment(record.created_at),
        "updated_at": moment(record.updated_at),
    }
