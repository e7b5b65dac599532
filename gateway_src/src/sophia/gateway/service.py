# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway put together: everything it stands on, opened in order, closed in reverse.

`open` gets as far as one can without being the only one (a new worker warms up while the old one still serves);
`take_over` then takes the journal, restores what is unsettled, and starts the work in the background. Stores that do
not answer keep the service from being ready, not from starting.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import logging
import os
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from redis.asyncio import Redis

from sophia.errors import ApiError, Unavailable
from sophia.gateway.admin import Services, create_admin
from sophia.gateway.app import Gateway
from sophia.gateway.asgi import Receive, Scope, Send, respond
from sophia.gateway.billed import BilledEmbeddings
from sophia.gateway.breaker import Breakers
from sophia.gateway.budget import Budget
from sophia.gateway.cache import Cache
from sophia.gateway.catalogue import CatalogueError, Shelf
from sophia.gateway.chat import ChatApi
from sophia.gateway.dispatch import Dispatcher
from sophia.gateway.embed import Embedder, LocalEmbedder, ProviderEmbedder
from sophia.gateway.flags import FlagSet
from sophia.gateway.idempotency import Idempotency
from sophia.gateway.judge import KINDS
from sophia.gateway.learn import Rule
from sophia.gateway.ledger import Ledger
from sophia.gateway.limits import Limits
from sophia.gateway.listing import Listing
from sophia.gateway.match import Match, Matcher
from sophia.gateway.metrics import CONTENT_TYPE, Metrics
from sophia.gateway.pipeline import Pipeline
from sophia.gateway.reconcile import Reconciler
from sophia.gateway.records import Records
from sophia.gateway.rules import Rules, read_rules, shipped_rules
from sophia.gateway.running import Running
from sophia.gateway.shadow import Shadow
from sophia.gateway.slots import Slots
from sophia.gateway.trace import Tracer
from sophia.gateway.turns import Turns
from sophia.gateway.upstream import PyreqwestUpstream, Upstream, UpstreamFailure
from sophia.gateway.upstream_http1 import Http1Upstream
from sophia.logs import AccessLog
from sophia.settings import Settings, UpstreamSettings
from sophia.stores.audit import Audit
from sophia.stores.changes import Changes
from sophia.stores.conversations import Conversations
from sophia.stores.database import open_database
from sophia.stores.exact import ExactStore, LocalExact
from sophia.stores.exact_redis import RedisExact
from sophia.stores.flags import Flags
from sophia.stores.idempotency import IdempotencyStore
from sophia.stores.ledger import LedgerStore
from sophia.stores.lessons import Lessons
from sophia.stores.model import Intent, Principal, Settlement, new_id
from sophia.stores.rates import LocalRates, Rates
from sophia.stores.rates_redis import RedisRates
from sophia.stores.registry import Registry
from sophia.stores.reservations import LocalReservations, Reservations
from sophia.stores.reservations_redis import RedisReservations
from sophia.stores.schema import migrate
from sophia.stores.scripts import open_redis
from sophia.stores.tenancy import Tenancy
from sophia.stores.vectors import LocalVectors, VectorStore
from sophia.stores.vectors_redis import RedisVectors

__all__ = ["Service", "open_client"]

_LOG = logging.getLogger(__name__)

_RETRY = 1.0
_EXPIRE = 3600.0
_SWEEP = 60.0
_DEAD = 120.0  # long after every journal has reached the ledger
_MODELS_LIMIT = 64 * 1024 * 1024


class Service:
    """One gateway process' parts. `clock` gives nanoseconds since the epoch."""

    def __init__(self, settings: Settings, clock: Callable[[], int] = time.time_ns) -> None:
        self.settings = settings
        self.draining = False
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._up = False
        instance = new_id(f"{socket.gethostname()}-{os.getpid()}")
        stores = settings.stores
        self.database = open_database(stores.database, stores.database_password_file)
        self.redis: Redis | None = None
        if stores.redis is not None:
            self.redis = open_redis(stores.redis, stores.redis_password_file)
        self.metrics = Metrics()
        self.tracer = Tracer(settings.telemetry, settings.upstream)
        self.changes = Changes(self.database, self.redis)
        self.audit = Audit(self.database, clock)
        self.registry = Registry(self.database, self.audit, self.changes)
        self.tenancy = Tenancy(
            self.database,
            requests_per_minute=settings.requests_per_minute,
            admin_key_file=settings.admin_key_file,
            clock=clock,
        )
        self.running = Running(self.tenancy)
        self.flags = Flags(self.database, self.audit, self.changes, settings.flags_file, clock)
        self.slots = Slots(settings.upstream.key_files, time.monotonic)
        self.client = open_client(settings.upstream)
        self.ledger_store = LedgerStore(self.database, instance)
        self.ledger = Ledger(self.ledger_store, settings.state_dir / "journal", instance, self._settle_reservation)
        self.ledger.on_settled = self._settled
        self.answers = IdempotencyStore(self.database, settings.idempotency.max_bytes)
        self.idempotency = Idempotency(
            self.answers, self.ledger, self.ledger_store, self.metrics, settings.idempotency, instance, clock
        )
        self.reservations = self._open_reservations(instance)
        self.budget = Budget(self.reservations, settings.budget, clock)
        self.records = Records(self.client, self.slots, settings.upstream.management_key_file)
        self.reconciler = Reconciler(
            self.ledger,
            self.ledger_store,
            self.records,
            clock,
            int(settings.upstream.settled_after * 1e9),
        )
        self.matcher = Matcher(
            self.ledger_store,
            self.records,
            lambda: self.shelf.current,
            clock,
            int(settings.upstream.settled_after * 1e9),
        )
        dispatch = settings.dispatch
        self.breakers = Breakers(
            dispatch.breaker_failures, dispatch.breaker_window, dispatch.breaker_cooldown, dispatch.retry_budget
        )
        self.shelf = Shelf(self._fetch_models, self._rules(settings), time.monotonic)
        self.dispatcher = Dispatcher(
            client=self.client,
            slots=self.slots,
            ledger=self.ledger,
            budget=self.budget,
            breakers=self.breakers,
            metrics=self.metrics,
            settings=settings,
            clock=clock,
        )
        self.turns = Turns(
            settings.upstream.connections, dispatch.queue, dispatch.queue_wait, dispatch.weights, time.monotonic
        )
        self.metrics.watch_queue(lambda: self.turns.waiting)
        self.lessons = Lessons(self.database)
        self.embedder = self._open_embedder() if settings.cache.enabled else None
        self.cache = self._open_cache() if settings.cache.enabled else None
        self.app = self._build()
        self.metrics.watch(self.slots, self._unsettled, self.breakers.states, lambda: self.shelf.age)
        if self.cache is not None:
            self.metrics.watch_cache(self.cache.counts, self.cache.shadow_counts)

    async def open(self) -> None:
        """Read what can be read beside a worker that still serves.

        Raises:
            SchemaError: the database needs a newer program.
            FlagFileError, RulesError: a file is wrong.
            EmbeddingError: the semantic cache's local model is not there.
        """
        self.slots.load()
        self.flags.reload()
        try:
            await migrate(self.database)
            await self.tenancy.load()
            await self.flags.refresh()
        except Unavailable as error:
            _LOG.warning("starting without the database", extra={"reason": error.message})
        await self._refresh_once()
        if self.embedder is not None:
            await self.embedder.open()

    async def take_over(self) -> None:
        """Become the process that serves: restore the unsettled, start the work in the background."""
        try:
            await self._bring_up()
        except ApiError:
            self._start(self._bring_up_later())
        # What is there now stays: the collector need not walk it again, nor as often as for a script.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 50, 50)
        self._start(self.slots.watch())
        self._start(self.flags.run())
        self._start(self._refresh_catalogue())

    def drain(self) -> None:
        """Be ready no more; what is under way goes on."""
        self.draining = True

    async def close(self) -> None:
        """Settle what can be settled, and let go of everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pipeline.close()
        await self.idempotency.close()
        await self.budget.close()
        await self.ledger.stop()
        await self.reservations.close()
        if self.embedder is not None:
            await self.embedder.close()
        await self.client.close()
        if self.redis is not None:
            await self.redis.aclose()
        await self.database.close()
        self.tracer.close()

    def reload(self, settings: Settings) -> None:
        """Put in force what can change without a restart: keys, the models and flags files, the administrator's key."""
        for name, action in (
            ("key files", self.slots.load),
            ("models file", lambda: self._reload_rules(settings)),
            ("flags file", self.flags.reload),
            ("administrator's key", self.tenancy.reload),
        ):
            try:
                action()
            except Exception as error:
                _LOG.error("not reloaded", extra={"what": name, "reason": str(error)})
        _LOG.info("configuration reloaded")

    def _reload_rules(self, settings: Settings) -> None:
        self.shelf.reload(self._rules(settings))
        if self.cache is not None:
            self.cache.set_version(self._rules_digest(settings))

    async def metrics_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """`GET /metrics` on its own port; `/health/…` there as well, for probes."""
        if scope["type"] != "http":
            return
        if scope["path"].startswith("/health/"):
            await self.app(scope, receive, send)
            return
        body = self.metrics.render()
        await respond(send, 200, [(b"content-type", CONTENT_TYPE.encode())], body)

    async def ready(self) -> dict[str, str]:
        """What keeps the service from being ready, by name."""
        problems: dict[str, str] = {}
        checks: dict[str, Callable[[], Awaitable[object]]] = {"database": self.database.ping}
        if self.redis is not None:
            checks["redis"] = self.reservations.ping
        for name, check in checks.items():
            try:
                async with asyncio.timeout(2.0):
                    await check()
            except (ApiError, TimeoutError) as error:
                problems[name] = getattr(error, "message", "does not answer within 2 s")
        if not self._up:
            problems["ledger"] = "the spend ledger is not open yet"
        if not self.shelf.ready:
            problems["catalogue"] = "OpenRouter's list of models has not been read yet"
        if not self.slots.loaded:
            problems["upstream_key"] = "no OpenRouter key is loaded"
        return problems

    async def _bring_up(self) -> None:
        await migrate(self.database)
        await self.tenancy.load()
        await self.flags.refresh()
        await self.ledger.start()
        self.changes.follow(self.tenancy.refresh)
        self.changes.follow(self.running.sweep)
        self.changes.follow(self.flags.refresh)
        self._start(self.changes.run())
        self._start(self.reconciler.run())
        self._start(self._expire())
        if self.redis is not None:
            self._start(self._sweep_reservations())
        self._up = True

    async def _bring_up_later(self) -> None:
        while not self._up:
            await asyncio.sleep(_RETRY)
            try:
                await self._bring_up()
            except ApiError as error:
                _LOG.warning("not ready", extra={"reason": error.message})

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(work))

    async def _refresh_catalogue(self) -> None:
        while True:
            await asyncio.sleep(self.settings.catalogue_refresh if self.shelf.ready else _RETRY)
            await self._refresh_once()

    async def _refresh_once(self) -> None:
        try:
            catalogue = await self.shelf.refresh()
        except (CatalogueError, UpstreamFailure) as error:
            _LOG.warning("catalogue not refreshed", extra={"reason": str(error), "age": str(self.shelf.age)})
            return
        for rated in catalogue.rated:
            for kind, score in zip(KINDS, rated.quality, strict=True):
                self.metrics.quality.labels(rated.id, kind).set(score / 1000)

    async def _expire(self) -> None:
        """Delete what is past its time: conversations, kept answers, what the cache learned and nobody asks for."""
        conversations = Conversations(self.database, self._clock)
        while True:
            try:
                await conversations.expire()
                await self.idempotency.expire()
                await self.lessons.expire(self._clock())
            except ApiError as error:
                _LOG.warning("what is past its time was not deleted", extra={"reason": error.message})
            await asyncio.sleep(_EXPIRE)

    async def _sweep_reservations(self) -> None:
        """Settle shared reservations whose owner died between reserving and its durable intent, or before settling."""
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                for organization in self.tenancy.organizations():
                    before = self._clock() - int(_DEAD * 1e9)
                    attempts = await self.reservations.opened(before, organization=organization)
                    known = await self.ledger_store.costs(attempts) if attempts else {}
                    for attempt in attempts:
                        cost = known.get(attempt, 0)
                        if cost is not None:
                            await self.reservations.settle(attempt, cost, organization=organization)
            except ApiError as error:
                _LOG.warning("reservations not swept", extra={"reason": error.message})

    async def _fetch_models(self) -> bytes:
        slot = self.slots.pick()
        headers = {"authorization": f"Bearer {slot.key}"} if slot is not None else {}
        reply = await self.client.get("/models?output_modalities=all", headers, timeout=30.0)
        if reply.status != 200:
            raise CatalogueError(f"GET /models answered {reply.status}")
        return await reply.read(_MODELS_LIMIT)

    async def _settle_reservation(self, intent: Intent, cost: int) -> None:
        settled = await self.reservations.settle(intent.attempt, cost, organization=intent.organization)
        if settled.overrun:
            self.metrics.overrun(settled.overrun)

    def _settled(self, intent: Intent, settlement: Settlement) -> None:
        if settlement.cost is not None:
            tokens = settlement.tokens
            tenant = self.tenancy.organization_name(intent.organization)
            self.metrics.spent(intent.model, tenant, settlement.cost, tokens.prompt, tokens.completion)

    def _unsettled(self) -> tuple[int, int, int]:
        waiting = list(self.ledger.unconfirmed.values())
        return len(self.ledger.open), len(waiting), sum(intent.reserved for intent, _ in waiting)

    def _open_reservations(self, instance: str) -> Reservations:
        if self.redis is not None:
            return RedisReservations(self.redis, self.ledger.seed, instance)
        return LocalReservations(self.ledger.seed)

    def _open_rates(self) -> Rates:
        return LocalRates() if self.redis is None else RedisRates(self.redis, self._rates_away)

    def _rates_away(self, reason: str) -> None:
        _LOG.warning("rate limits are not kept while Redis is away", extra={"reason": reason})
        self.metrics.rates_away()

    def _open_embedder(self) -> Embedder | None:
        settings = self.settings.cache
        if settings.embedder == "local":
            return LocalEmbedder(settings.local_model)
        if settings.embedder == "provider":
            model = settings.embedding_model
            call = BilledEmbeddings(self.dispatcher, self.shelf, self._flag_set, self.breakers, model)
            return ProviderEmbedder(model, call)
        return None

    def _open_cache(self) -> Cache:
        settings = self.settings.cache
        exact: ExactStore
        vectors: VectorStore | None = None
        if self.redis is not None:
            exact = RedisExact(self.redis)
            vectors = RedisVectors(self.redis) if self.embedder is not None else None
        else:
            exact = LocalExact(entries=settings.entries, max_bytes=settings.max_bytes)
            vectors = LocalVectors() if self.embedder is not None else None
        return Cache(
            exact,
            vectors,
            self.embedder,
            ttl=settings.ttl,
            similarity=settings.similarity,
            embed_timeout=settings.embed_timeout,
            shadow=self._open_shadow() if self.embedder is not None else None,
            version=self._rules_digest(self.settings),
            clock=self._clock,
        )

    def _open_shadow(self) -> Shadow | None:
        settings = self.settings.cache
        if settings.decision == "static":
            return None
        rule = Rule(settings.delta, settings.confidence, settings.shadow, settings.floor)
        return Shadow(rule, self.lessons, by="organization" if settings.learn_by == "organization" else "partition")

    @staticmethod
    def _rules_digest(settings: Settings) -> str:
        """Names the data that answers are planned by: entries made under other rules are not found."""
        file = settings.models_file
        return "" if file is None else hashlib.sha256(file.read_bytes()).hexdigest()

    def _rules(self, settings: Settings) -> Rules:
        file: Path | None = settings.models_file
        return shipped_rules() if file is None else read_rules(file.read_text(encoding="utf-8"), file)

    def _build(self) -> Gateway:
        settings = self.settings
        self.pipeline = pipeline = Pipeline(
            limits=Limits(self._open_rates()),
            shelf=self.shelf,
            flags=self._flag_set,
            breakers=self.breakers,
            cache=self.cache,
            dispatcher=self.dispatcher,
            turns=self.turns,
            metrics=self.metrics,
            deadline=settings.dispatch.deadline,
            clock=self._clock,
        )
        admin = create_admin(
            Services(
                database=self.database,
                registry=self.registry,
                tenancy=self.tenancy,
                flags=self.flags,
                audit=self.audit,
                purge=self._purge,
                match=self._match,
                clock=self._clock,
            )
        )
        return Gateway(
            tenancy=self.tenancy,
            pipeline=pipeline,
            chat=ChatApi(
                pipeline,
                Conversations(self.database, self._clock),
                self.idempotency,
                self.tracer,
                self._budget_left,
            ),
            idempotency=self.idempotency,
            running=self.running,
            listing=Listing(self.shelf),
            admin=admin,  # type: ignore[arg-type]
            metrics=self.metrics,
            tracer=self.tracer,
            access=AccessLog(settings.log_level in ("debug", "info")),
            ready=self.ready,
            draining=lambda: self.draining,
            max_body=settings.max_body,
            clock=self._clock,
        )

    def _flag_set(self) -> FlagSet:
        return FlagSet(self.flags.current)

    async def _budget_left(self, principal: Principal) -> int | None:
        return await self.budget.headroom(principal.accounts, organization=principal.organization)

    async def _match(self, day: date | None) -> Match:
        matched = await self.matcher.day(day)
        self.metrics.matched(matched.drift, matched.ok, self._clock())
        return matched

    async def _purge(self, *, organization: str | None, model: str | None, tag: str | None) -> int:
        if tag is model is None:  # what is kept for idempotency keys has neither
            for each in self.tenancy.organizations() if organization is None else [organization]:
                await self.answers.forget(each)
        if self.cache is None:
            return 0
        if organization is not None:
            return await self.cache.purge(organization, tag=tag, model=model)
        freed = [await self.cache.purge(each, tag=tag, model=model) for each in self.tenancy.organizations()]
        return sum(freed)


def open_client(settings: UpstreamSettings) -> Upstream:
    """The client that the settings name; one that knows proxies where the environment names one for the upstream."""
    if settings.client == "aiohttp":
        from sophia.gateway.upstream_aiohttp import AiohttpUpstream  # an optional dependency

        return AiohttpUpstream(settings)
    if settings.client == "pyreqwest" or _proxied(settings.base_url):
        return PyreqwestUpstream(settings)
    return Http1Upstream(settings)


def _proxied(url: str) -> bool:
    parts = urlsplit(url)
    proxies = getproxies()
    return (parts.scheme in proxies or "all" in proxies) and not proxy_bypass(parts.hostname or "")
