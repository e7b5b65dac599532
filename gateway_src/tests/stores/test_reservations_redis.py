# SPDX-License-Identifier: GPL-3.0-or-later
"""What only a store outside the process can do: lose its data, go away, come back late, be shared."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from sophia.errors import Unavailable
from sophia.stores.model import Account, Level, Period, window_start
from sophia.stores.reservations import DAY, Settled, StoreAway
from sophia.stores.reservations_redis import RedisReservations
from sophia.stores.scripts import open_redis

NOON = 1_791_979_200_000_000_000
ORG = Account(Level.ORGANIZATION, "org_a", Period.DAY, 1000)
MONTH = Account(Level.ORGANIZATION, "org_a", Period.MONTH, 10_000)
USER = Account(Level.USER, "usr_a", Period.DAY, 600)
CHAIN = (ORG, MONTH, USER)
OTHER = (ORG, MONTH, Account(Level.USER, "usr_b", Period.DAY, 600))


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(2000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail("it did not become true")


class Server:
    """A Redis server of the test's own, to be killed, paused and started again on the same socket and folder."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.socket = folder / "redis.sock"
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("redis-server is not installed")
        self.command = [program, "--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(folder)]
        self.command += options
        self.process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        self._spawn()
        async with Redis(unix_socket_path=str(self.socket)) as client:

            async def answers() -> bool:
                with contextlib.suppress(RedisError, OSError):
                    await client.ping()
                    return True
                return False

            await eventually(answers)

    def _spawn(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)

    def send(self, signal_number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(signal_number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Ledger:
    """What the ledger would know, so many seconds late, as the replicas' journals reach it."""

    def __init__(self, lag: Callable[[], float] = lambda: 0.0) -> None:
        self.lag = lag
        self.intents: dict[str, tuple[float, tuple[Account, ...], int, int]] = {}
        self.costs: dict[str, tuple[float, int]] = {}
        self.asked = 0
        self.away = False

    def intend(self, attempt: str, accounts: tuple[Account, ...], amount: int, at: int) -> None:
        self.intents[attempt] = (time.monotonic(), accounts, amount, at)

    def settle(self, attempt: str, cost: int) -> None:
        self.costs[attempt] = (time.monotonic(), cost)

    def spent(self, account: Account) -> int:
        return sum(
            self.costs[name][1] for name, intent in self.intents.items() if account in intent[1] and name in self.costs
        )

    async def seed(self, level: Level, owner: str, period: Period, window: int) -> tuple[int, list[tuple[str, int]]]:
        self.asked += 1
        if self.away:
            raise Unavailable("database_unavailable", "the database does not answer")
        seen = time.monotonic() - self.lag()
        spent, opened = 0, []
        for name, (when, accounts, amount, at) in self.intents.items():
            charged = {(a.level, a.owner, a.period, window_start(a.period, at)) for a in accounts}
            if when > seen or (level, owner, period, window) not in charged:
                continue
            settled, cost = self.costs.get(name, (seen + 1, 0))
            if settled <= seen:
                spent += cost
            else:
                opened.append((name, amount))
        await asyncio.sleep(0.01)  # what was read is old by the time it is written
        return spent, opened


@pytest.fixture
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="sophia-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
async def server(folder: Path) -> AsyncIterator[Server]:
    server = Server(folder)
    await server.start()
    yield server
    server.send(signal.SIGCONT)
    server.kill()


@contextlib.asynccontextmanager
async def replica(
    socket: Path, ledger: Ledger, *, timeout: float = 30.0, grace: float = 0.0
) -> AsyncIterator[RedisReservations]:
    client = open_redis(f"unix://{socket}")
    store = RedisReservations(client, ledger.seed, "replica", timeout=timeout, grace=grace)
    yield store
    await store.close()
    await client.aclose()


async def test_a_reservation_is_settled_once_by_whichever_replica(redis_socket: Path, redis_url: str) -> None:
    ledger = Ledger()
    async with replica(redis_socket, ledger) as first, replica(redis_socket, ledger) as second:
        assert await first.reserve("a1", CHAIN, 300, NOON, organization="org_a") is None
        assert await second.opened(NOON + 1_000_000, organization="org_a") == ["a1"]
        results = await asyncio.gather(
            *(store.settle("a1", 200, organization="org_a") for store in (first, second) * 3)
        )
        assert sorted(results, key=lambda result: result.booked)[-2:] == [Settled(False), Settled(True)]
        assert await first.usage(CHAIN, NOON, organization="org_a") == [(200, 0)] * 3


async def test_what_is_missing_is_never_read_as_zero(redis_socket: Path, redis_url: str) -> None:
    ledger = Ledger()
    ledger.intend("old", CHAIN, 500, NOON)
    ledger.settle("old", 450)
    ledger.intend("open", CHAIN, 100, NOON)
    async with replica(redis_socket, ledger) as store:
        assert await store.usage(CHAIN, NOON) == [(450, 100)] * 3
        refusal = await store.reserve("a1", CHAIN, 51, NOON)
        assert refusal is not None
        assert (refusal.kind, refusal.headroom) == ("reserved", 50)
        assert await store.settle("open", 20) == Settled(True)
        assert await store.usage(CHAIN, NOON) == [(470, 0)] * 3


async def test_a_window_that_begins_while_the_account_is_known_needs_no_seed(
    redis_socket: Path, redis_url: str
) -> None:
    ledger = Ledger()
    async with replica(redis_socket, ledger) as store:
        await store.reserve("a1", CHAIN, 10, NOON)
        assert ledger.asked == 3
        for days in range(1, 40):
            await store.reserve(f"b{days}", CHAIN, 10, NOON + days * DAY)
        assert ledger.asked == 3
        assert await store.usage(CHAIN, NOON + 39 * DAY) == [(0, 10), (0, 220), (0, 10)]
    async with Redis(unix_socket_path=str(redis_socket)) as client:
        fields = await client.hlen("sophia:{shared}:a:organization:org_a:day")
        assert fields <= 2 + 2 * 5  # older windows are dropped
        assert await client.ttl("sophia:{shared}:a:organization:org_a:day") > 0


async def test_a_window_that_began_before_the_account_was_known_is_seeded(redis_socket: Path, redis_url: str) -> None:
    midnight = window_start(Period.DAY, NOON) + DAY
    ledger = Ledger()
    ledger.intend("yesterday", CHAIN, 300, NOON)
    ledger.settle("yesterday", 200)
    ledger.intend("by a clock that is ahead", CHAIN, 300, midnight + 1_000_000_000)
    ledger.settle("by a clock that is ahead", 100)
    async with replica(redis_socket, ledger) as store:
        assert await store.usage((USER,), midnight - 1_000_000_000) == [(200, 0)]
        assert await store.usage((USER,), midnight) == [(100, 0)]
        assert await store.usage((USER,), NOON - DAY) == [(0, 0)]
        assert ledger.asked == 3


async def test_everyone_waits_for_one_seed(redis_socket: Path, redis_url: str) -> None:
    ledger = Ledger()
    async with replica(redis_socket, ledger) as store:
        refusals = await asyncio.gather(*(store.reserve(f"a{n}", (ORG, MONTH), 10, NOON) for n in range(200)))
        assert refusals.count(None) == 100
        assert ledger.asked < 40  # an answer that was under way meanwhile may lead to one more


async def test_a_seed_books_what_was_settled_while_it_was_read(redis_socket: Path, redis_url: str) -> None:
    ledger = Ledger()
    ledger.intend("a1", CHAIN, 100, NOON)
    async with replica(redis_socket, ledger) as store:
        # Unknown to Redis, which has lost it, and still open for the ledger.
        assert await store.settle("a1", 70) == Settled(False)
        assert await store.usage(CHAIN, NOON) == [(70, 0)] * 3
        ledger.settle("a1", 70)
        assert await store.settle("a1", 70) == Settled(False)
        assert await store.usage(OTHER, NOON) == [(70, 0), (70, 0), (0, 0)]


async def test_a_window_seeded_later_joins_the_attempt_that_is_open(redis_socket: Path, redis_url: str) -> None:
    ledger = Ledger()
    ledger.intend("a1", CHAIN, 100, NOON)
    async with replica(redis_socket, ledger) as store:
        assert await store.reserve("b1", OTHER, 50, NOON) is None  # seeds the organisation's windows only
        assert await store.usage((USER,), NOON) == [(0, 100)]
        assert await store.settle("a1", 80) == Settled(True)
        assert await store.usage(CHAIN, NOON) == [(80, 50), (80, 50), (80, 0)]


async def test_a_slow_seed_does_not_undo_what_happened_since(redis_socket: Path, redis_url: str) -> None:
    quick, slow = Ledger(), Ledger()
    reading, go_on = asyncio.Event(), asyncio.Event()

    async def seed(level: Level, owner: str, period: Period, window: int) -> tuple[int, list[tuple[str, int]]]:
        answer = await slow.seed(level, owner, period, window)
        reading.set()
        await go_on.wait()
        return answer

    client = open_redis(f"unix://{redis_socket}")
    second = RedisReservations(client, seed, "second", timeout=30.0, grace=0.0)
    async with replica(redis_socket, quick) as first:
        asking = asyncio.create_task(second.usage(CHAIN, NOON))
        await reading.wait()
        assert await first.reserve("a1", CHAIN, 300, NOON) is None
        assert await first.reserve("a2", CHAIN, 100, NOON) is None
        await first.settle("a2", 60)
        go_on.set()
        assert await asking == [(60, 300)] * 3
    await second.close()
    await client.aclose()


async def test_a_counter_that_was_evicted_comes_back_with_its_reservations(redis_socket: Path, redis_url: str) -> None:
    ledger = Ledger()
    async with replica(redis_socket, ledger) as store:
        assert await store.reserve("a1", CHAIN, 300, NOON) is None
        ledger.intend("a1", CHAIN, 300, NOON)
        assert await store.resize("a1", 100) is None
        async with Redis(unix_socket_path=str(redis_socket)) as client:
            assert await client.delete("sophia:{shared}:a:user:usr_a:day") == 1
        assert await store.usage(CHAIN, NOON) == [(0, 100)] * 3
        assert await store.settle("a1", 70) == Settled(True)
        assert await store.usage(CHAIN, NOON) == [(70, 0)] * 3


async def test_a_reservation_that_arrives_after_its_release_is_not_made(redis_socket: Path, redis_url: str) -> None:
    async with replica(redis_socket, Ledger()) as store:
        assert await store.release("a1") == Settled(False)
        with pytest.raises(ValueError, match="settled"):
            await store.reserve("a1", CHAIN, 100, NOON)
        assert await store.usage(CHAIN, NOON) == [(0, 0)] * 3


async def test_after_a_loss_the_journals_are_waited_for(redis_socket: Path, redis_url: str) -> None:
    ledger = Ledger(lag=lambda: 0.2)
    async with replica(redis_socket, ledger, grace=0.3) as store:
        await store.usage(CHAIN, NOON)
        for name in ("a1", "a2"):
            assert await store.reserve(name, CHAIN, 300, NOON) is None
            ledger.intend(name, CHAIN, 300, NOON)
        ledger.settle("a1", 200)
        await store.settle("a1", 200)
        async with Redis(unix_socket_path=str(redis_socket)) as client:
            await client.flushall()
        refusal = await store.reserve("a3", CHAIN, 101, NOON)
        assert refusal is not None
        assert (refusal.kind, refusal.headroom) == ("reserved", 100)
        assert await store.settle("a2", 0) == Settled(True)
        assert await store.usage(CHAIN, NOON) == [(200, 0)] * 3


async def test_a_ledger_that_is_away_keeps_everything_closed(redis_socket: Path, redis_url: str) -> None:
    ledger = Ledger()
    ledger.away = True
    async with replica(redis_socket, ledger) as store:
        with pytest.raises(StoreAway):
            await store.reserve("a1", CHAIN, 1, NOON)
        ledger.away = False
        assert await store.reserve("a2", CHAIN, 1, NOON) is None


async def test_a_cluster_finds_all_keys_of_a_call_in_one_slot(folder: Path) -> None:
    server = Server(folder, "--cluster-enabled", "yes")
    await server.start()
    try:
        async with Redis(unix_socket_path=str(server.socket)) as client:
            command: Callable[..., Awaitable[bytes]] = client.execute_command
            await command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)

            async def is_up() -> bool:
                return b"cluster_state:ok" in await command("CLUSTER", "INFO")

            await eventually(is_up)
        ledger = Ledger()
        ledger.intend("old", CHAIN, 100, NOON)
        async with replica(server.socket, ledger) as store:
            assert await store.reserve("a1", CHAIN, 200, NOON, organization="org_a") is None
            assert await store.resize("a1", 250) is None
            await store.hold("a1", organization="org_a")
            assert await store.settle("a1", 150, organization="org_a") == Settled(True)
            assert await store.settle("old", 100, organization="org_a") == Settled(True)
            assert await store.usage(CHAIN, NOON, organization="org_a") == [(250, 0)] * 3
            assert await store.opened(NOON + DAY, organization="org_a") == []
    finally:
        server.kill()


async def test_away_is_an_error_in_time_and_what_is_owed_is_paid(server: Server) -> None:
    ledger = Ledger()
    async with replica(server.socket, ledger, timeout=0.2) as store:
        await store.reserve("a1", CHAIN, 100, NOON)
        server.send(signal.SIGSTOP)
        calls = [
            store.reserve("a2", CHAIN, 200, NOON),
            store.settle("a1", 70),
            store.usage(CHAIN, NOON),
            store.ping(),
        ]
        errors = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20.0)
        assert [type(error) for error in errors] == [StoreAway] * 4
        assert errors[0].retry_after == 1.0  # type: ignore[union-attr]
        server.send(signal.SIGCONT)
        # The paused server has read the reservation by now, and nobody knows of it but the store that owes its release.
        await _until(store, [(70, 0)] * 3)
        assert await store.opened(NOON + DAY) == []


async def test_a_cancelled_reservation_is_given_back(server: Server) -> None:
    async with replica(server.socket, Ledger()) as store:
        await store.usage(CHAIN, NOON)
        server.send(signal.SIGSTOP)
        call = asyncio.create_task(store.reserve("a1", CHAIN, 200, NOON))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.send(signal.SIGCONT)
        await _until(store, [(0, 0)] * 3)


async def test_a_stale_dump_is_not_believed(server: Server) -> None:
    ledger = Ledger()
    async with replica(server.socket, ledger, timeout=5.0) as store:
        for name, cost in (("a1", 100), ("a2", 200)):
            await store.reserve(name, CHAIN, 300, NOON)
            ledger.intend(name, CHAIN, 300, NOON)
            ledger.settle(name, cost)
            await store.settle(name, cost)
            if name == "a1":
                async with Redis(unix_socket_path=str(server.socket)) as client:
                    await client.save()
        server.kill()
        await server.start()
        assert await store.usage(CHAIN, NOON) == [(300, 0)] * 3
        refusal = await store.reserve("a3", CHAIN, 301, NOON)
        assert refusal is not None
        assert refusal.kind == "spent"


async def _until(store: RedisReservations, used: list[tuple[int, int]]) -> None:
    async def paid() -> bool:
        return not store._owed and await store.usage(CHAIN, NOON) == used

    await eventually(paid)


async def test_a_server_that_loses_everything_under_load_neither_forgets_nor_doubles(server: Server) -> None:
    ledger = Ledger(lag=lambda: random.uniform(0, 0.2))
    caps = {"org": 20_000, "month": 10**9, "user": 8_000}
    promised = 0
    chance = random.Random(11)
    over = asyncio.Event()
    counts = {"granted": 0, "refused": 0, "away": 0}

    async def client(store: RedisReservations, number: int) -> None:
        nonlocal promised
        org = Account(Level.ORGANIZATION, "org_a", Period.DAY, caps["org"])
        month = Account(Level.ORGANIZATION, "org_a", Period.MONTH, caps["month"])
        user = Account(Level.USER, f"usr_{number % 3}", Period.DAY, caps["user"])
        accounts = (org, month, user)
        serial = 0
        while not over.is_set():
            serial += 1
            attempt, amount = f"{number}/{serial}", chance.randint(1, 400)
            try:
                refusal = await store.reserve(attempt, accounts, amount, NOON, organization="org_a")
            except StoreAway:
                counts["away"] += 1
                await asyncio.sleep(0.02)
                continue
            if refusal is not None:
                counts["refused"] += 1
                await asyncio.sleep(0.05)
                continue
            counts["granted"] += 1
            promised += amount
            assert promised <= org.cap
            ledger.intend(attempt, accounts, amount, NOON)
            await asyncio.sleep(chance.random() * 0.15)
            cost = chance.randint(0, min(amount, 40))
            ledger.settle(attempt, cost)
            promised += cost - amount
            with contextlib.suppress(StoreAway):
                await store.settle(attempt, cost, organization="org_a")

    async with (
        replica(server.socket, ledger, timeout=1.0, grace=0.4) as first,
        replica(server.socket, ledger, timeout=1.0, grace=0.4) as second,
    ):
        clients = [asyncio.create_task(client((first, second)[number % 2], number)) for number in range(60)]
        async with Redis(unix_socket_path=str(server.socket)) as redis:
            for loss in ("kill", "flush", "kill", "flush"):
                await asyncio.sleep(0.8)
                if loss == "flush":
                    await redis.flushall()
                else:
                    server.kill()
                    await asyncio.sleep(0.1)
                    await server.start()
                    await redis.connection_pool.disconnect()
        await asyncio.sleep(0.7)
        over.set()
        await asyncio.gather(*clients)

        async def paid() -> bool:
            return not first._owed and not second._owed

        await eventually(paid)
        users = [Account(Level.USER, f"usr_{number}", Period.DAY, caps["user"]) for number in range(3)]
        org = Account(Level.ORGANIZATION, "org_a", Period.DAY, caps["org"])
        expected = [(ledger.spent(account), 0) for account in (org, *users)]
        assert await first.usage((org, *users), NOON, organization="org_a") == expected
        assert await first.opened(NOON + DAY, organization="org_a") == []
        headroom = min(org.cap - expected[0][0], users[0].cap - expected[1][0])
        assert await second.reserve("last", (org, users[0]), headroom, NOON, organization="org_a") is None
    assert min(counts.values()) > 0


async def _worker(socket: Path, name: str, requests: int, cap: int) -> None:
    """One process's load: prints what it spent, and the most that it ever saw charged."""
    accounts = (Account(Level.ORGANIZATION, "org_a", Period.DAY, cap),)
    chance = random.Random(name)
    total = most = granted = 0
    async with replica(socket, Ledger()) as store:

        async def request(number: int) -> None:
            nonlocal total, most, granted
            amount = chance.randint(1, 500)
            attempt = f"{name}/{number}"
            refusal = await store.reserve(attempt, accounts, amount, NOON, organization="org_a")
            if refusal is None:
                granted += 1
                [(spent, reserved)] = await store.usage(accounts, NOON, organization="org_a")
                most = max(most, spent + reserved)
                cost = chance.randint(0, amount)
                total += cost
                await store.settle(attempt, cost, organization="org_a")

        await asyncio.gather(*(request(number) for number in range(requests)))
    print(json.dumps({"total": total, "most": most, "granted": granted}))


async def test_a_thousand_requests_of_several_processes_never_pass_a_cap(redis_socket: Path, redis_url: str) -> None:
    cap = 60_000
    async with replica(redis_socket, Ledger()) as store:
        account = Account(Level.ORGANIZATION, "org_a", Period.DAY, cap)
        assert await store.usage((account,), NOON, organization="org_a") == [(0, 0)]
        workers = [
            await asyncio.create_subprocess_exec(
                sys.executable, __file__, str(redis_socket), f"p{number}", "334", str(cap), stdout=subprocess.PIPE
            )
            for number in range(3)
        ]
        outputs = await asyncio.gather(*(worker.communicate() for worker in workers))
        assert [worker.returncode for worker in workers] == [0, 0, 0]
        reports = [json.loads(output) for output, _ in outputs]
        total = sum(report["total"] for report in reports)
        assert 0 < max(report["most"] for report in reports) <= cap
        assert sum(report["granted"] for report in reports) < 1002
        assert await store.usage((account,), NOON, organization="org_a") == [(total, 0)]
        assert await store.reserve("last", (account,), cap - total, NOON, organization="org_a") is None
        assert await store.reserve("beyond", (account,), 1, NOON, organization="org_a") is not None


if __name__ == "__main__":
    asyncio.run(_worker(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
