# SPDX-License-Identifier: GPL-3.0-or-later
"""``sophia admin``: the management API from a shell."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from sophia.console.admin import AdminError, Client, Session, reporting, session_of
from sophia.console.tenants import GROUPS

__all__ = ["admin"]

admin = typer.Typer(no_args_is_help=True, help="Manage tenants, keys and flags; read audit and usage.")
flag = typer.Typer(no_args_is_help=True, help="Feature flags.")
audit = typer.Typer(no_args_is_help=True, help="The log of every change.")
cache = typer.Typer(no_args_is_help=True, help="Cached answers.")
for _name, _group in (*GROUPS.items(), ("flag", flag), ("audit", audit), ("cache", cache)):
    admin.add_typer(_group, name=_name)

Limit = Annotated[int, typer.Option(min=1, max=200, help="Entries at most.")]
OfOrganization = Annotated[str | None, typer.Option("--organization", help="Only of this one.")]
FlagName = Annotated[str, typer.Argument(help="The flag's name.")]

_FLAG = ("name", "enabled", "percentage", "organizations", "values", "version", "source")
_ENTRY = ("sequence", "at", "actor", "action", "resource", "organization")
_LESSON = ("organization", "model", "unit", "threshold", "checks", "wrong", "watched", "watched_wrong", "failures")
_USAGE = ("group", "requests", "attempts", "cost", "unsettled", "prompt_tokens", "completion_tokens", "cached_tokens")
_MODEL_SUM = ("model", "generations", "booked", "billed", "recounted")
_DIFFERENCE = ("kind", "generation", "attempt", "model", "booked", "billed")
_MATCH_SECONDS = 600.0
_UNSETTLED = ("attempt", "at", "state", "organization", "key", "model", "reserved", "generation")


@admin.callback()
def _options(
    context: typer.Context,
    url: Annotated[str, typer.Option(envvar="SOPHIA_URL", help="The gateway.")] = "http://127.0.0.1:8080",
    key_file: Annotated[
        Path | None, typer.Option(envvar="SOPHIA_ADMIN_KEY_FILE", help="File that holds your key.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    context.obj = Session(url, key_file, as_json)


@admin.command()
def me(context: typer.Context) -> None:
    """Show whose key this is, what it may do, and what is left of its budgets."""
    with reporting():
        session_of(context).show(session_of(context).client().call("GET", "/me"))


@flag.command("list")
def list_flags(context: typer.Context) -> None:
    """List every flag in force."""
    with reporting():
        session_of(context).show(session_of(context).client().call("GET", "/flags")["data"], _FLAG)


@flag.command("show")
def show_flag(context: typer.Context, name: FlagName) -> None:
    """Show one flag."""
    with reporting():
        session_of(context).show(session_of(context).client().call("GET", f"/flags/{name}"))


@flag.command("set")
def set_flag(
    context: typer.Context,
    name: FlagName,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Whether it is on at all.")] = None,
    percentage: Annotated[float | None, typer.Option(min=0, max=100, help="For which share of subjects.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--organization", help="NAME=on, NAME=off or NAME=share; repeat.")
    ] = None,
    values: Annotated[list[str] | None, typer.Option("--value", help="Replaces all values; repeat.")] = None,
    description: Annotated[str | None, typer.Option(help="What it is for.")] = None,
) -> None:
    """Make or change one flag; what is not given stays, and so does every other flag."""
    with reporting():
        client = session_of(context).client()
        before = _flag(client, name)
        body = {key: before[key] for key in ("enabled", "percentage", "organizations", "values", "description")}
        given = {"enabled": enabled, "percentage": percentage, "values": values or None, "description": description}
        body |= {key: value for key, value in given.items() if value is not None}
        for override in overrides or []:
            _override(client, body["organizations"], override)
        session_of(context).show(client.call("PUT", f"/flags/{name}", body | {"version": before["version"]}))


@flag.command("delete")
def delete_flag(context: typer.Context, name: FlagName) -> None:
    """Remove one flag; it is off from now on."""
    with reporting():
        client = session_of(context).client()
        version = client.call("GET", f"/flags/{name}")["version"]
        client.call("DELETE", f"/flags/{name}", version=version)


def _flag(client: Client, name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = client.call("GET", f"/flags/{name}")
    except AdminError as error:
        if error.code != "flag_not_found":
            raise
        return {
            "enabled": False,
            "percentage": 100.0,
            "organizations": {},
            "values": [],
            "description": "",
            "version": 0,
        }
    return found


def _override(client: Client, organizations: dict[str, bool], text: str) -> None:
    name, _, word = text.rpartition("=")
    if not name or word not in ("on", "off", "share"):
        raise AdminError("invalid_override", f"{text!r} is not NAME=on, NAME=off or NAME=share")
    organization = client.find("organization", name)
    organizations.pop(organization, None)
    if word != "share":
        organizations[organization] = word == "on"


@audit.command("list")
def list_audit(context: typer.Context, limit: Limit = 50, organization: OfOrganization = None) -> None:
    """List changes, the newest first."""
    with reporting():
        client = session_of(context).client()
        owner = None if organization is None else client.find("organization", organization)
        session_of(context).show(client.call("GET", "/audit", limit=limit, organization=owner)["data"], _ENTRY)


@audit.command("verify")
def verify_audit(
    context: typer.Context,
    sequence: Annotated[int | None, typer.Option(help="The end noted earlier: its number …")] = None,
    hash_: Annotated[str | None, typer.Option("--hash", help="… and its hash.")] = None,
) -> None:
    """Walk the whole chain; exit status 1 when it has been tampered with."""
    with reporting():
        found = session_of(context).client().call("GET", "/audit/verify", sequence=sequence, hash=hash_)
        session_of(context).show(found)
        if not found["ok"]:
            raise typer.Exit(1)


@admin.command()
def usage(
    context: typer.Context,
    by: Annotated[str, typer.Option(help="model, organization, team, user, key or day.")] = "model",
    start: Annotated[str | None, typer.Option("--from", help="Date or time (default: the month's start).")] = None,
    end: Annotated[str | None, typer.Option("--to", help="Date or time, exclusive (default: now).")] = None,
    organization: OfOrganization = None,
) -> None:
    """Show use and cost."""
    with reporting():
        client = session_of(context).client()
        owner = None if organization is None else client.find("organization", organization)
        query = {"group_by": by, "from": start, "to": end, "organization": owner, "limit": 1000}
        session_of(context).show(client.call("GET", "/usage", **query)["data"], _USAGE)


@admin.command()
def unsettled(context: typer.Context, organization: OfOrganization = None) -> None:
    """List spend that OpenRouter has not confirmed yet."""
    with reporting():
        client = session_of(context).client()
        owner = None if organization is None else client.find("organization", organization)
        session_of(context).show(list(client.all("/spend/unsettled", organization=owner)), _UNSETTLED)


@admin.command()
def reconcile(
    context: typer.Context,
    day: Annotated[str | None, typer.Option(help="A UTC day, as 2026-08-01 (default: yesterday).")] = None,
) -> None:
    """Compare a day's ledger with OpenRouter's account and a recount of tokens; exit status 1 where they differ."""
    with reporting():
        session = session_of(context)
        found = session.client(_MATCH_SECONDS).call("GET", "/spend/match", day=day)
        if session.as_json:
            session.show(found)
        else:
            session.show({name: value for name, value in found.items() if not isinstance(value, list)})
            session.show(found["models"], _MODEL_SUM)
            if found["differences"]:
                session.show(found["differences"], _DIFFERENCE)
        if not found["ok"]:
            raise typer.Exit(1)


@cache.command("lessons")
def list_cache_lessons(context: typer.Context, organization: OfOrganization = None) -> None:
    """List what the semantic cache has learned: what is served near a question, and on what evidence."""
    with reporting():
        client = session_of(context).client()
        owner = None if organization is None else client.find("organization", organization)
        session_of(context).show(list(client.all("/cache/lessons", organization=owner)), _LESSON)


@cache.command("purge")
def purge_cache(
    context: typer.Context,
    organization: OfOrganization = None,
    model: Annotated[str | None, typer.Option(help="Only answers of this model.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only answers with this tag.")] = None,
) -> None:
    """Drop cached answers that meet every criterion given."""
    with reporting():
        client = session_of(context).client()
        owner = None if organization is None else client.find("organization", organization)
        criteria = {"organization": owner, "model": model, "tag": tag}
        body = {name: value for name, value in criteria.items() if value is not None}
        session_of(context).show(client.call("POST", "/cache/purge", body))
