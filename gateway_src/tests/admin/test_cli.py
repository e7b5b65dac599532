# SPDX-License-Identifier: GPL-3.0-or-later
"""``sophia admin`` against the management API over HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from typer.testing import CliRunner

from conftest import Cache, no_match
from sophia.admin_cli import admin
from sophia.gateway.admin import Services, create_admin
from tenants import Tenants, until


class Shell:
    """Runs the command as a shell would, away from the loop that the server runs in."""

    def __init__(self, url: str, key_file: Path) -> None:
        self.url = url
        self.key_file = key_file

    async def __call__(self, *words: str, code: int = 0, key_file: Path | None = None) -> str:
        """What it prints: its output on success, else its errors."""
        environment = {"SOPHIA_URL": self.url, "SOPHIA_ADMIN_KEY_FILE": str(key_file or self.key_file)}
        result = await asyncio.to_thread(CliRunner().invoke, admin, list(words), env=environment)
        assert result.exit_code == code, result.output
        return result.stdout if code == 0 else result.stderr

    async def json(self, *words: str) -> Any:
        return json.loads(await self("--json", *words))


# The command knows nothing of the engine.
@pytest.fixture(params=["sqlite"])
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'gateway.db'}"


@pytest.fixture
async def shell(tenants: Tenants) -> AsyncIterator[Shell]:
    app = create_admin(
        Services(
            tenants.database, tenants.registry, tenants.tenancy, tenants.flags, tenants.audit, Cache().purge, no_match
        )
    )
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        running = asyncio.create_task(server.serve(sockets=[listener]))
        await until(lambda: server.started)
        yield Shell(f"http://127.0.0.1:{listener.getsockname()[1]}", tenants.admin_key_file)
        server.should_exit = True
        await running


async def test_tenants_from_the_first_to_the_last(shell: Shell, tmp_path: Path) -> None:
    await shell("organization", "create", "acme", "--budget-day", "5", "--model", "openai/*", "--region", "eu")
    await shell("team", "create", "acme/core", "--budget-month", "3", "--tokens-per-minute", "900")
    await shell("user", "create", "acme/ada", "--team", "core", "--role", "organization_admin")
    out = tmp_path / "ada"
    shown = await shell("key", "create", "acme/ada/laptop", "--scope", "admin", "--scope", "chat", "--out", str(out))
    secret = out.read_text()
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert secret not in shown
    me = await shell("me", key_file=out)
    assert "organization_admin" in me
    assert [row["name"] for row in await shell.json("user", "list", "--organization", "acme")] == ["ada"]
    changed = await shell.json("organization", "update", "acme", "--budget-day", "unlimited", "--model", "*")
    assert (changed["budgets"]["day"], changed["models"], changed["regions"]) == (None, None, ["eu"])
    changed = await shell.json("team", "update", "acme/core", "--tokens-per-minute", "0", "--name", "kernel")
    assert (changed["limits"]["tokens_per_minute"], changed["budgets"]["month"]) == (None, "3")
    assert (await shell.json("user", "update", "acme/ada", "--team", ""))["team"] is None
    assert (await shell.json("user", "update", "acme/ada", "--team", "kernel"))["team"] == changed["id"]
    key = await shell.json("key", "update", "acme/ada/laptop", "--expires-at", "2099-01-01T00:00:00Z")
    assert key["expires_at"] == "2099-01-01T00:00:00Z"
    rotated = await shell.json("key", "rotate", "acme/ada/laptop", "--overlap", "0")
    assert rotated["secret"] != secret
    assert (await shell.json("key", "show", key["id"]))["prefix"] == rotated["prefix"]
    assert (await shell.json("user", "disable", "acme/ada"))["disabled"]
    assert not (await shell.json("user", "enable", "acme/ada"))["disabled"]
    await shell("organization", "delete", "acme", "--yes")
    assert "organization_not_found" in await shell("user", "show", "acme/ada", code=1)


async def test_flags_audit_usage_and_cache(shell: Shell) -> None:
    await shell("organization", "create", "acme")
    flag = await shell.json("flag", "set", "new", "--on", "--percentage", "5", "--organization", "acme=on")
    assert (flag["enabled"], flag["percentage"], list(flag["organizations"].values())) == (True, 5.0, [True])
    flag = await shell.json("flag", "set", "new", "--organization", "acme=share", "--value", "a", "--value", "b")
    assert (flag["percentage"], flag["organizations"], flag["values"], flag["version"]) == (5.0, {}, ["a", "b"], 2)
    assert "new" in await shell("flag", "list")
    await shell("flag", "delete", "new")
    assert "flag_not_found" in await shell("flag", "show", "new", code=1)
    assert "flag.delete" in await shell("audit", "list")
    head = (await shell.json("audit", "verify"))["head"]
    assert head["sequence"] == 4
    await shell("audit", "verify", "--sequence", "4", "--hash", head["hash"])
    await shell("audit", "verify", "--sequence", "4", "--hash", "0" * 64, code=1)
    assert await shell.json("usage", "--by", "day", "--organization", "acme") == []
    assert await shell.json("unsettled") == []
    assert await shell.json("cache", "purge", "--model", "openai/*") == {"purged": 3}
    assert await shell.json("cache", "lessons", "--organization", "acme") == []


async def test_names_are_shown_as_they_are(shell: Shell) -> None:
    await shell("organization", "create", "[bold]a & b")
    assert "[bold]a & b" in await shell("organization", "list")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["organization", "show", "a/b"], "invalid_reference"),
        (["organization", "show", "nobody"], "organization_not_found"),
        (["user", "create", "nobody/ada"], "organization_not_found"),
        (["organization", "create", "acme", "--budget-day", "much"], "invalid_request"),
        (["flag", "set", "new", "--organization", "acme=perhaps"], "invalid_override"),
        (["--url", "http://127.0.0.1:9", "me"], "unreachable"),
        (["--url", "file:///etc/passwd", "me"], "invalid_url"),
        (["--key-file", "/nonexistent", "me"], "missing_key"),
        (["key", "create", "a/b/c", "--out", "/nonexistent/key"], "folder_not_writable"),
    ],
)
async def test_what_is_wrong_is_one_line(shell: Shell, words: list[str], told: str) -> None:
    errors = await shell(*words, code=1)
    assert errors.startswith(told)
    assert len(errors.strip().splitlines()) == 1


async def test_a_deletion_is_asked_for(shell: Shell) -> None:
    await shell("organization", "create", "acme")
    await shell("organization", "delete", "acme", code=1)
    assert len(await shell.json("organization", "list")) == 1
