# SPDX-License-Identifier: GPL-3.0-or-later
"""``sophia admin organization|team|user|key``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sophia.console.admin import IDENTIFIER, AdminError, Client, Session, names_of, reporting, session_of

__all__ = ["GROUPS"]

_UNLIMITED = "unlimited"

Reference = Annotated[str, typer.Argument(help="Names that lead to it, with slashes between; or its identifier.")]
Day = Annotated[str | None, typer.Option("--budget-day", help="USD a day, or `unlimited`.")]
Week = Annotated[str | None, typer.Option("--budget-week", help="USD a week, or `unlimited`.")]
Month = Annotated[str | None, typer.Option("--budget-month", help="USD a month, or `unlimited`.")]
Requests = Annotated[int | None, typer.Option("--requests-per-minute", min=0, help="0 takes the limit away.")]
Tokens = Annotated[int | None, typer.Option("--tokens-per-minute", min=0, help="0 takes the limit away.")]
ModelList = Annotated[list[str] | None, typer.Option("--model", help="Allowed model or prefix*; repeat. `*`: all.")]
RegionList = Annotated[list[str] | None, typer.Option("--region", help="Allowed region; repeat.")]
Retention = Annotated[bool | None, typer.Option("--zero-data-retention/--any-retention")]
InTeam = Annotated[str | None, typer.Option("--team", help="Its name in the organisation; empty: none.")]
Email = Annotated[str | None, typer.Option(help="Empty: none.")]
RoleName = Annotated[str | None, typer.Option("--role", help="member, organization_admin or platform_admin.")]
ScopeList = Annotated[list[str] | None, typer.Option("--scope", help="chat, embeddings, models or admin; repeat.")]
Expiry = Annotated[str | None, typer.Option("--expires-at", help="As 2027-01-31T00:00:00Z; empty: never.")]
Rename = Annotated[str | None, typer.Option("--name", help="A new name.")]
Out = Annotated[Path | None, typer.Option("--out", help="Write the secret to this new file, mode 0600.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
OfOrganization = Annotated[str | None, typer.Option("--organization", help="Only of this one.")]

_COLUMNS = {
    "organization": ("id", "name", "disabled", "budgets", "limits", "models"),
    "team": ("id", "name", "disabled", "budgets", "limits", "models"),
    "user": ("id", "name", "role", "email", "team", "disabled", "budgets", "limits"),
    "key": ("id", "name", "user", "prefix", "scopes", "expires_at", "disabled", "budgets"),
}


def _fields(
    budget_day: str | None,
    budget_week: str | None,
    budget_month: str | None,
    requests: int | None,
    tokens: int | None,
    models: list[str] | None,
    *,
    regions: list[str] | None = None,
    **others: str | list[str] | None,
) -> dict[str, Any]:
    """A body of what was given; what was not given is left out, and what was given empty is taken away."""
    caps = {"day": budget_day, "week": budget_week, "month": budget_month}
    rates = {"requests_per_minute": requests, "tokens_per_minute": tokens}
    body: dict[str, Any] = {}
    if any(cap is not None for cap in caps.values()):
        body["budgets"] = {name: None if cap == _UNLIMITED else cap for name, cap in caps.items() if cap is not None}
    if any(rate is not None for rate in rates.values()):
        body["limits"] = {name: rate or None for name, rate in rates.items() if rate is not None}
    for name, patterns in (("models", models), ("regions", regions)):
        if patterns:
            body[name] = None if "*" in patterns else patterns
    return body | {name: value or None for name, value in others.items() if value is not None and value != []}


def _group(kind: str) -> typer.Typer:
    """The commands that every level has."""
    group = typer.Typer(no_args_is_help=True, help=f"The {kind}s.")

    @group.command("list")
    def list_(context: typer.Context, organization: OfOrganization = None) -> None:
        with reporting():
            client = session_of(context).client()
            query: dict[str, object] = {}
            if organization is not None and kind != "organization":
                query["organization"] = client.find("organization", organization)
            session_of(context).show(list(client.all(f"/{kind}s", **query)), _COLUMNS[kind])

    @group.command()
    def show(context: typer.Context, reference: Reference) -> None:
        with reporting():
            client = session_of(context).client()
            session_of(context).show(client.call("GET", f"/{kind}s/{client.find(kind, reference)}"))

    @group.command()
    def delete(context: typer.Context, reference: Reference, yes: Yes = False) -> None:
        with reporting():
            client = session_of(context).client()
            found = client.find(kind, reference)
            if not yes:
                typer.confirm(f"Delete the {kind} {reference} and everything below it?", abort=True, err=True)
            client.call("DELETE", f"/{kind}s/{found}")

    for verb, meaning in (("disable", "Stop it and everything below at once."), ("enable", "Undo `disable`.")):
        group.command(verb, help=meaning)(_switch(kind, verb))
    list_.__doc__ = f"List {kind}s."
    return group


def _switch(kind: str, verb: str) -> Callable[[typer.Context, str], None]:
    def switch(context: typer.Context, reference: Reference) -> None:
        with reporting():
            client = session_of(context).client()
            session_of(context).show(client.call("POST", f"/{kind}s/{client.find(kind, reference)}/{verb}"))

    return switch


def _create(context: typer.Context, kind: str, reference: str, body: dict[str, Any]) -> dict[str, Any]:
    client = session_of(context).client()
    *above, name = names_of(kind, reference)
    body["name"] = name
    if above:
        parent = "user" if kind == "key" else "organization"
        body[parent] = client.find(parent, "/".join(above))
    _resolve_team(client, body, above[:1])
    made: dict[str, Any] = client.call("POST", f"/{kind}s", body)
    return made


def _update(context: typer.Context, kind: str, reference: str, body: dict[str, Any]) -> None:
    with reporting():
        client = session_of(context).client()
        found = client.find(kind, reference)
        if body.get("team"):
            organization = client.call("GET", f"/users/{found}")["organization"]
            _resolve_team(client, body, [organization])
        session_of(context).show(client.call("PATCH", f"/{kind}s/{found}", body))


def _resolve_team(client: Client, body: dict[str, Any], organization: list[str]) -> None:
    team = body.get("team")
    if not team or IDENTIFIER.fullmatch(team):
        return
    owner = client.find("organization", organization[0])
    found = client.call("GET", "/teams", organization=owner, name=team)["data"]
    if not found:
        raise AdminError("team_not_found", f"there is no team {team!r} in the organisation")
    body["team"] = found[0]["id"]


organization_group = _group("organization")
team_group = _group("team")
user_group = _group("user")
key_group = _group("key")


@organization_group.command("create")
def create_organization(
    context: typer.Context,
    reference: Reference,
    day: Day = None,
    week: Week = None,
    month: Month = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: ModelList = None,
    regions: RegionList = None,
    zero_data_retention: Retention = None,
) -> None:
    """Make an organisation."""
    body = _fields(day, week, month, requests, tokens, models, regions=regions)
    if zero_data_retention is not None:
        body["zero_data_retention"] = zero_data_retention
    with reporting():
        session_of(context).show(_create(context, "organization", reference, body))


@organization_group.command("update")
def update_organization(
    context: typer.Context,
    reference: Reference,
    name: Rename = None,
    day: Day = None,
    week: Week = None,
    month: Month = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: ModelList = None,
    regions: RegionList = None,
    zero_data_retention: Retention = None,
) -> None:
    """Change what is given; the rest stays."""
    body = _fields(day, week, month, requests, tokens, models, regions=regions, name=name)
    if zero_data_retention is not None:
        body["zero_data_retention"] = zero_data_retention
    _update(context, "organization", reference, body)


@team_group.command("create")
def create_team(
    context: typer.Context,
    reference: Reference,
    day: Day = None,
    week: Week = None,
    month: Month = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: ModelList = None,
) -> None:
    """Make a team."""
    with reporting():
        body = _fields(day, week, month, requests, tokens, models)
        session_of(context).show(_create(context, "team", reference, body))


@team_group.command("update")
def update_team(
    context: typer.Context,
    reference: Reference,
    name: Rename = None,
    day: Day = None,
    week: Week = None,
    month: Month = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: ModelList = None,
) -> None:
    """Change what is given; the rest stays."""
    _update(context, "team", reference, _fields(day, week, month, requests, tokens, models, name=name))


@user_group.command("create")
def create_user(
    context: typer.Context,
    reference: Reference,
    team: InTeam = None,
    email: Email = None,
    role: RoleName = None,
    day: Day = None,
    week: Week = None,
    month: Month = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: ModelList = None,
) -> None:
    """Make a user."""
    with reporting():
        body = _fields(day, week, month, requests, tokens, models, team=team, email=email, role=role)
        session_of(context).show(_create(context, "user", reference, body))


@user_group.command("update")
def update_user(
    context: typer.Context,
    reference: Reference,
    name: Rename = None,
    team: InTeam = None,
    email: Email = None,
    role: RoleName = None,
    day: Day = None,
    week: Week = None,
    month: Month = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: ModelList = None,
) -> None:
    """Change what is given; the rest stays."""
    body = _fields(day, week, month, requests, tokens, models, name=name, team=team, email=email, role=role)
    _update(context, "user", reference, body)


@key_group.command("create")
def create_key(
    context: typer.Context,
    reference: Reference,
    scopes: ScopeList = None,
    expires_at: Expiry = None,
    out: Out = None,
    day: Day = None,
    week: Week = None,
    month: Month = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: ModelList = None,
) -> None:
    """Make a key; its secret is shown this once."""
    with reporting():
        _check_out(out)
        body = _fields(day, week, month, requests, tokens, models, scopes=scopes, expires_at=expires_at)
        _hand_over(session_of(context), _create(context, "key", reference, body), out)


@key_group.command("update")
def update_key(
    context: typer.Context,
    reference: Reference,
    name: Rename = None,
    scopes: ScopeList = None,
    expires_at: Expiry = None,
    day: Day = None,
    week: Week = None,
    month: Month = None,
    requests: Requests = None,
    tokens: Tokens = None,
    models: ModelList = None,
) -> None:
    """Change what is given; the rest stays."""
    body = _fields(day, week, month, requests, tokens, models, name=name, scopes=scopes, expires_at=expires_at)
    _update(context, "key", reference, body)


@key_group.command("rotate")
def rotate_key(
    context: typer.Context,
    reference: Reference,
    overlap: Annotated[int, typer.Option(min=0, help="Seconds for which the old secret works as well.")] = 3600,
    out: Out = None,
) -> None:
    """Give a key a new secret, shown this once."""
    with reporting():
        _check_out(out)
        client = session_of(context).client()
        found = client.find("key", reference)
        _hand_over(session_of(context), client.call("POST", f"/keys/{found}/rotate", {"overlap": overlap}), out)


def _check_out(out: Path | None) -> None:
    """Before anything is made: the secret must have somewhere to go."""
    if out is None:
        return
    if out.exists():
        raise AdminError("file_exists", f"{out} exists; choose another file")
    if not os.access(out.absolute().parent, os.W_OK):
        raise AdminError("folder_not_writable", f"{out.absolute().parent} cannot be written to")


def _hand_over(session: Session, made: dict[str, Any], out: Path | None) -> None:
    if out is not None:
        _write_secret(out, made.pop("secret"))
    session.show(made)


def _write_secret(path: Path, secret: str) -> None:
    """A file is there with the whole secret, readable by its owner alone, or not at all."""
    descriptor, temporary = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(secret)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


GROUPS = {"organization": organization_group, "team": team_group, "user": user_group, "key": key_group}
