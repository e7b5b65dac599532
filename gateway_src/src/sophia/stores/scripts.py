# SPDX-License-Identifier: GPL-3.0-or-later
"""Lua scripts in Redis, called by their hash, and the connections that they are called over.

Scripts lie in `lua/` beside this file. A server that does not know one yet (it is new, or has restarted) is sent the
text. Nothing is retried here: whether a call may be repeated only its caller knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib import resources
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import NoScriptError

__all__ = ["Script", "open_redis"]

CONNECTIONS = 64


class Script:
    """The Lua scripts of the given names, one after the other, as one script."""

    def __init__(self, *names: str) -> None:
        folder = resources.files("sophia.stores") / "lua"
        self._text = "\n".join((folder / f"{name}.lua").read_text(encoding="utf-8") for name in names)
        self._hash = sha1(self._text.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, client: Redis, keys: Sequence[str], values: Sequence[str | int | float]) -> Any:
        """Run it.

        Raises:
            redis.exceptions.RedisError: the server is away or refuses.
        """
        arguments = cast("list[str]", [*keys, *values])  # the client encodes numbers by itself
        try:
            return await client.evalsha(self._hash, len(keys), *arguments)
        except NoScriptError:
            return await client.eval(self._text, len(keys), *arguments)


class _PasswordFile(CredentialProvider):
    """Credentials for one connection: the URL's user, the file's password as it is now."""

    def __init__(self, user: str | None, path: Path) -> None:
        self._user = user
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        password = self._path.read_text(encoding="utf-8").strip()
        return (password,) if self._user is None else (self._user, password)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def open_redis(url: str, password_file: Path | None = None, *, connections: int = CONNECTIONS) -> Redis:
    """A client that answers bytes and never repeats a command by itself; `connections` at most, calls queue for one.

    The password is read for every new connection, so it can be rotated.
    """
    options: dict[str, Any] = {}
    if password_file is not None:
        parts = urlsplit(url)
        options["credential_provider"] = _PasswordFile(parts.username, password_file)
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    pool = BlockingConnectionPool.from_url(
        url, max_connections=connections, timeout=None, retry=Retry(NoBackoff(), 0), **options
    )
    return Redis.from_pool(pool)
