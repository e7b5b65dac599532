# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write to every store as its clients do, read it back, and follow the write to every replica.

usage: check.py STORES.json

Runs in an image of the `sophia` distribution, whose drivers it uses. Prints one JSON line for each store:
`{"store": …, "well": …, "seconds": …, "said": …}`. Exits 1 when a store is not well. Nothing that it writes is left behind.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asyncpg
import redis.asyncio

# Long enough for a standby that replays a busy primary's log, short enough for a gate.
REPLICA_SECONDS = 30.0
STORE_SECONDS = 90.0
# A name that is not resolved or a connection that is refused is tried again for as long: a primary that just restarts is not unwell.
REACH_SECONDS = 40.0


class Unwell(Exception):
    """A store that does not do what its clients need; the text names the address and the reason."""


class Unreachable(Unwell):
    """Nobody answers there."""


def secret(path: str) -> str:
    return Path(path).read_text(encoding="utf-8").rstrip("\n")


def split(address: str) -> tuple[str, int]:
    host, _colon, port = address.rpartition(":")
    return host, int(port)


async def connect(address: str, store: dict[str, Any]) -> asyncpg.Connection:
    host, port = split(address)
    try:
        return await asyncpg.connect(
            host=host, port=port, user=store["user"], database=store["database"], password=secret(store["password_file"]), timeout=15,
        )
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError) as error:
        raise Unreachable(f"{address}: {str(error) or 'no answer in 15 s'}") from error
    except asyncpg.PostgresError as error:
        raise Unwell(f"{address}: {store['user']} cannot connect to {store['database']}: {error}") from error


async def arrival(address: str, store: dict[str, Any], table: str) -> float:
    """Seconds until a replica shows the table's row."""
    began = time.monotonic()
    connection = await connect(address, store)
    try:
        if not await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise Unwell(f"{address}: is no standby")
        while time.monotonic() - began < REPLICA_SECONDS:
            if await connection.fetchval("SELECT to_regclass($1)", table) and await connection.fetchval(f"SELECT count(*) FROM {table}"):
                return time.monotonic() - began
            await asyncio.sleep(0.05)
    finally:
        await connection.close(timeout=5)
    raise Unwell(f"{address}: a row written to the primary did not arrive in {REPLICA_SECONDS:.0f} s")


async def postgres(store: dict[str, Any]) -> str:
    table = f"store_check_{uuid.uuid4().hex}"
    connection = await connect(store["address"], store)
    try:
        if await connection.fetchval("SELECT pg_is_in_recovery()"):
            raise Unwell(f"{store['address']}: is a standby, which takes no writes")
        await connection.execute(f"CREATE TABLE {table} (value int)")
        try:
            await connection.execute(f"INSERT INTO {table} VALUES (42)")
            if await connection.fetchval(f"SELECT value FROM {table}") != 42:
                raise Unwell(f"{store['address']}: what was written did not come back")
            lags = [await arrival(replica, store, table) for replica in store["replicas"]]
        finally:
            await connection.execute(f"DROP TABLE {table}")
    except asyncpg.PostgresError as error:
        raise Unwell(f"{store['address']}: {error}") from error
    finally:
        await connection.close(timeout=5)
    followed = f", on {len(lags)} replica{'s' if len(lags) > 1 else ''} after {max(lags):.2f} s" if lags else ""
    return f"{store['address']}: wrote a row and read it back{followed}"


async def redis_(store: dict[str, Any]) -> str:
    host, port = split(store["address"])
    key = f"store-check:{uuid.uuid4().hex}"
    password = secret(store["password_file"]) if store["password_file"] else None
    client = redis.asyncio.Redis(host=host, port=port, password=password, socket_timeout=15, socket_connect_timeout=15)
    try:
        await client.set(key, "42", ex=60)
        if await client.get(key) != b"42":
            raise Unwell(f"{store['address']}: what was written did not come back")
        await client.delete(key)
        state = await client.info("persistence")
        memory = await client.info("memory")
    except (redis.AuthenticationError, redis.ResponseError) as error:
        raise Unwell(f"{store['address']}: {error}") from error
    except (OSError, redis.RedisError) as error:
        raise Unreachable(f"{store['address']}: {error}") from error
    finally:
        await client.aclose()
    if store["durable"] and not (state["aof_enabled"] and state["aof_last_write_status"] == "ok"):
        raise Unwell(f"{store['address']}: writes do not reach the append-only file")
    if memory["maxmemory_policy"] != "noeviction":
        raise Unwell(f"{store['address']}: maxmemory-policy is {memory['maxmemory_policy']}, which throws reservations away")
    return f"{store['address']}: wrote a key and read it back"


class Qdrant:
    """The few requests of Qdrant's REST API that the check needs (https://api.qdrant.tech)."""

    def __init__(self, address: str, key: str | None) -> None:
        self.address = address
        self.headers = {"content-type": "application/json"} | ({"api-key": key} if key else {})

    def __call__(self, method: str, path: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        url = self.address if "://" in self.address else f"http://{self.address}"
        request = urllib.request.Request(f"{url}{path}", data, self.headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=15) as response:
                return json.load(response)["result"]
        except urllib.error.HTTPError as error:
            raise Unwell(f"{self.address}: {method} {path}: {error.code} {error.read(200).decode(errors='replace')}") from error
        except OSError as error:
            raise Unreachable(f"{self.address}: {getattr(error, 'reason', error)}") from error


def write_point(qdrant: Qdrant) -> None:
    collection = f"/collections/store_check_{uuid.uuid4().hex}"
    qdrant("PUT", collection, {"vectors": {"size": 4, "distance": "Cosine"}})
    try:
        point = {"id": 1, "vector": [1.0, 0.0, 0.0, 0.0], "payload": {"value": 42}}
        qdrant("PUT", f"{collection}/points?wait=true", {"points": [point]})
        found = qdrant("POST", f"{collection}/points/query", {"query": [1.0, 0.1, 0.0, 0.0], "limit": 1, "with_payload": True})["points"]
        if [hit["payload"] for hit in found] != [{"value": 42}]:
            raise Unwell(f"{qdrant.address}: what was written was not found")
    finally:
        qdrant("DELETE", collection)


async def qdrant(store: dict[str, Any]) -> str:
    key = Path(store["key_file"]) if store["key_file"] else None
    await asyncio.to_thread(write_point, Qdrant(store["address"], secret(str(key)) if key and key.exists() else None))
    return f"{store['address']}: wrote a point and found it"


CHECKS: dict[str, Callable[[dict[str, Any]], Awaitable[str]]] = {"postgres": postgres, "redis": redis_, "qdrant": qdrant}


async def reached(name: str, store: dict[str, Any]) -> str:
    """What the store's check says, once the store is there."""
    began = time.monotonic()
    while True:
        try:
            return await CHECKS[name](store)
        except Unreachable:
            if time.monotonic() - began > REACH_SECONDS:
                raise
            await asyncio.sleep(1)


async def check(name: str, store: dict[str, Any]) -> bool:
    began = time.monotonic()
    try:
        async with asyncio.timeout(STORE_SECONDS):
            said, well = await reached(name, store), True
    except Unwell as error:
        said, well = str(error), False
    except TimeoutError:
        said, well = f"{store['address']}: no end in {STORE_SECONDS:.0f} s", False
    print(json.dumps({"store": name, "well": well, "seconds": round(time.monotonic() - began, 3), "said": said}), flush=True)
    return well


async def main() -> int:
    stores = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    return 0 if all(await asyncio.gather(*(check(name, store) for name, store in stores.items()))) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
