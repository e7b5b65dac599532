# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers for tests: a Postgres cluster and a Redis server of one's own, on unix sockets.

Debian's packages bring them (`postgresql-15`, `redis-server`). Where one is missing, the tests that need it are
skipped with that reason; with CI=true they fail instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from redis import Redis
from redis.exceptions import RedisError

__all__ = ["postgres", "redis"]

_START_SECONDS = 60.0


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not installed, and CI must test with it")
    pytest.skip(f"{what} is not installed")


def _program(name: str, package: str, *folders: Path) -> str:
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        _missing(package)
        raise AssertionError("unreachable")
    return found


def _server_user() -> str | None:
    """Postgres refuses to run as root; as anybody else it runs as who we are."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


@contextlib.contextmanager
def _folder(owner: str | None = None) -> Iterator[Path]:
    """A folder with a path short enough for a unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="sophia-", dir="/tmp"))
    try:
        if owner is not None:
            shutil.chown(folder, owner)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _running(
    command: list[str], log: Path, user: str | None, stop: signal.Signals
) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, user=user) as process,
    ):
        try:
            yield process
        finally:
            process.send_signal(stop)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def _until_ready(process: subprocess.Popen[bytes], log: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')}")
        time.sleep(0.05)


@contextlib.contextmanager
def postgres() -> Iterator[Path]:
    """The folder of a throw-away cluster's socket; its superuser is `postgres`, without a password."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    initdb = _program("initdb", "postgresql", *folders)
    postgres = _program("postgres", "postgresql", *folders)
    user = _server_user()
    with _folder(user) as folder:
        data = folder / "data"
        make = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, user=user)
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(folder),
            "fsync": "off",
            "full_page_writes": "off",
            "max_connections": "200",
            "shared_buffers": "32MB",
        }
        command = [postgres, "-D", str(data)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        log = folder / "log"
        with _running(command, log, user, signal.SIGINT) as process:
            _until_ready(process, log, lambda: _postgres_answers(folder))
            yield folder


def _postgres_answers(folder: Path) -> bool:
    async def connect() -> None:
        await (await asyncpg.connect(host=str(folder), user="postgres", database="postgres")).close()

    try:
        asyncio.run(connect())
    except (OSError, asyncpg.PostgresError):
        return False
    return True


@contextlib.contextmanager
def redis() -> Iterator[Path]:
    """The socket of a throw-away Redis server."""
    server = _program("redis-server", "redis-server")
    with _folder() as folder:
        socket = folder / "redis.sock"
        command = [server, "--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
        log = folder / "log"
        with _running([*command, "--dir", str(folder)], log, None, signal.SIGTERM) as process:
            _until_ready(process, log, lambda: _redis_answers(socket))
            yield socket


def _redis_answers(socket: Path) -> bool:
    with Redis(unix_socket_path=str(socket)) as client:
        try:
            return bool(client.ping())
        except RedisError:
            return False
