# SPDX-License-Identifier: GPL-3.0-or-later
"""The management API from a shell: one client, and how its answers are printed.

A resource is named by the names that lead to it (``acme``, ``acme/research``, ``acme/ada``, ``acme/ada/notebook``) or
by its identifier. The key comes from a file, never from the command line, which every user of the machine can read.

::

    AdminError      the gateway refused, or did not answer; carries its stable `code`
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["IDENTIFIER", "AdminError", "Client", "Session", "names_of", "reporting", "session_of"]

IDENTIFIER = re.compile(r"(org|team|user|key)_[0-9a-z]{26}")
_TIMEOUT = 30.0
_PAGE = 200


class AdminError(Exception):
    """The gateway refused a call, or did not answer it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class Client:
    """The management API behind one key. An answer may take so many `seconds`."""

    def __init__(self, url: str, key: str, seconds: float = _TIMEOUT) -> None:
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise AdminError("invalid_url", f"{url!r} is not an http or https URL")
        self._base = url.rstrip("/") + "/admin/v1"
        self._key = key
        self._seconds = seconds

    def call(self, method: str, path: str, body: object = None, **query: object) -> Any:
        """One call; the answer's JSON, None where it has none.

        Raises:
            AdminError: it was refused, or not answered.
        """
        given = {name.rstrip("_"): value for name, value in query.items() if value is not None}
        url = self._base + path + ("?" + urllib.parse.urlencode(given) if given else "")
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked
            url,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=self._seconds) as answer:  # noqa: S310
                content = answer.read()
                return json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            raise _refusal(error) from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise AdminError("unreachable", f"no answer from {self._base}: {reason}; check --url") from error

    def all(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        cursor = None
        while True:
            page = self.call("GET", path, limit=_PAGE, cursor=cursor, **query)
            yield from page["data"]
            cursor = page.get("next")
            if cursor is None:
                return

    def find(self, kind: str, reference: str) -> str:
        """The identifier of what is named by its path or by itself."""
        if IDENTIFIER.fullmatch(reference):
            return reference
        *above, name = names_of(kind, reference)
        query = {"name": name}
        if above:
            parent = "user" if kind == "key" else "organization"
            query[parent] = self.find(parent, "/".join(above))
        found = self.call("GET", f"/{kind}s", **query)["data"]
        if not found:
            raise AdminError(f"{kind}_not_found", f"there is no {kind} {reference!r}")
        return str(found[0]["id"])


def _refusal(error: urllib.error.HTTPError) -> AdminError:
    try:
        told = json.loads(error.read())["error"]
        return AdminError(told["code"], told["message"])
    except (ValueError, KeyError, TypeError):
        return AdminError("unknown_answer", f"HTTP {error.code} without our error envelope: is --url a Sophia gateway?")


def names_of(kind: str, reference: str) -> list[str]:
    depth = {"organization": 1, "team": 2, "user": 2, "key": 3}[kind]
    names = reference.split("/")
    if len(names) != depth or not all(names):
        shape = {1: "NAME", 2: "ORGANIZATION/NAME", 3: "ORGANIZATION/USER/NAME"}[depth]
        raise AdminError("invalid_reference", f"a {kind} is named {shape}, or by its identifier, not {reference!r}")
    return names


@dataclass(frozen=True, slots=True)
class Session:
    """What every command has: the client, and how to print."""

    url: str
    key_file: Path | None
    as_json: bool

    def client(self, seconds: float = _TIMEOUT) -> Client:
        """The client, with the key read from its file."""
        if self.key_file is None:
            raise AdminError("missing_key", "give the file of your key: --key-file or SOPHIA_ADMIN_KEY_FILE")
        try:
            lines = self.key_file.read_text(encoding="utf-8").split()
        except OSError as error:
            raise AdminError("missing_key", f"{self.key_file}: {error.strerror}") from error
        if not lines:
            raise AdminError("missing_key", f"{self.key_file} is empty")
        return Client(self.url, lines[0], seconds)

    def show(self, answer: Any, columns: Sequence[str] = ()) -> None:
        """Print a list as a table of `columns`, anything else as its fields; all of it as JSON when asked for."""
        if self.as_json:
            typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))
        elif isinstance(answer, list):
            _print_rows(answer, columns)
        else:
            _print_fields(answer)


def _print_rows(rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> None:
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*(Text(_cell(_dig(row, column))) for column in columns))
    _console().print(table)


def _print_fields(record: dict[str, Any]) -> None:
    table = Table(box=None, show_header=False)
    for name, value in record.items():
        table.add_row(name, Text(_cell(value)))
    _console().print(table)


def _console() -> Console:
    console = Console(soft_wrap=True)
    # A pipe has no width: what is cut there cannot be seen anywhere.
    return console if console.is_terminal else Console(width=10_000, soft_wrap=True)


def _dig(row: dict[str, Any], column: str) -> Any:
    value: Any = row
    for step in column.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_cell(item)}" for name, item in value.items() if item is not None) or "-"
    return str(value)


@contextmanager
def reporting() -> Iterator[None]:
    """Every command's edge: an error is one line, and the exit status 1."""
    try:
        yield
    except AdminError as error:
        typer.echo(f"{error.code}: {error.message}", err=True)
        raise typer.Exit(1) from error


def session_of(context: typer.Context) -> Session:
    session = context.find_object(Session)
    assert session is not None  # noqa: S101 - the callback of `sophia admin` has set it
    return session
