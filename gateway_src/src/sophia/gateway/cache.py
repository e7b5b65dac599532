# SPDX-License-Identifier: GPL-3.0-or-later
"""The cache's room: exact, then semantic, then a miss that the same request elsewhere may wait for.

What is cacheable under which key is decided in `fingerprint`, what two alike questions must not share an answer in
`guards`, what is fit to be kept in `replay`, and what may still be served in `sophia.stores.exact`.

A request's way::

    query = cache.query(principal, api, model, fields, controls)     None: the cache is off for this request
    hit = await cache.lookup(query, at)                              a Hit: replay(api, hit.answer) or its body
    try:
        …                                                            a miss: ask upstream
        await cache.store(query, answer, at)                         keeps what is fit to be kept (of a stream,
                                                                     what `assemble` makes of it)
    finally:
        cache.release(query)                                         lets the waiting go on, whatever happened

*Single flight*: while a missed request is under way, others with the same exact key in this process wait for it (at
most `wait` seconds in all) and are answered from what it stored. Where it failed, one of them leads in its place and
the others wait for that one; where its answer is not fit to be kept, they all go on, for the next may be no better.

*Near answers* are served under the bound that `shadow` learns to keep, or, without it, above a fixed similarity.

*Purge*: `lookup` takes the organisation's stamp before anything is sent upstream, and what is stored carries it. An
entry whose stamp is older than a purge that covers it is never served, by any replica on the same stores.

A store that does not answer makes misses, never errors; only `purge` says so, because it must not pretend.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Literal
from weakref import WeakValueDictionary

import msgspec

from sophia.errors import Unavailable
from sophia.gateway import guards
from sophia.gateway.embed import Embedder, EmbeddingError
from sophia.gateway.fingerprint import CacheControls, CacheQuery, Scope, Ticket, fingerprint
from sophia.gateway.replay import assemble, fit, replay
from sophia.gateway.shadow import Shadow, ShadowCounts
from sophia.stores.exact import Answer, Entry, ExactStore
from sophia.stores.model import Principal
from sophia.stores.vectors import Vector, VectorStore

__all__ = ["Answer", "Cache", "CacheControls", "CacheCounts", "CacheQuery", "Hit", "assemble", "replay"]

_NEIGHBOURS = 8


class Hit(msgspec.Struct, frozen=True):
    """An answer from the cache. `similarity` is a cosine (1 where exact), `age` is in nanoseconds."""

    kind: Literal["exact", "semantic"]
    answer: Answer
    similarity: float
    age: int

    @property
    def saved(self) -> int:
        """Nano-dollars that the answer cost when it was made, and does not cost now."""
        return self.answer.cost


class CacheCounts:
    """What the room has done since its start, for metrics.

    `results` counts exact, semantic and miss; `objections` the guards' refusals by reason; `unfit` answers that were
    not fit to be kept; `coalesced` the hits of requests that waited for another; `saved` is in nano-dollars.
    """

    def __init__(self) -> None:
        self.results: Counter[str] = Counter()
        self.objections: Counter[str] = Counter()
        self.stored = 0
        self.unfit = 0
        self.coalesced = 0
        self.saved = 0
        self.embedding_failures = 0
        self.store_failures = 0


def _for_the_user(_: Principal) -> Scope:
    return "user"


class Cache:
    """Exact and semantic cache over two stores; without `vectors` and `embedder` exact only.

    `ttl`, `wait` and `embed_timeout` in seconds. `scope` gives an organisation's own default of who shares entries; a
    request's header goes over it, never beyond the organisation. With `shadow` near answers are served by what it has
    learned, without it from `similarity` on. `version` names the data and the policy that answers
    are made from: entries made under another are not found. `clock` gives nanoseconds since the epoch.
    """

    def __init__(
        self,
        exact: ExactStore,
        vectors: VectorStore | None = None,
        embedder: Embedder | None = None,
        *,
        ttl: float = 3600.0,
        similarity: float = 0.95,
        wait: float = 10.0,
        embed_timeout: float = 0.5,
        version: str = "",
        scope: Callable[[Principal], Scope] = _for_the_user,
        shadow: Shadow | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._exact = exact
        self._vectors = vectors
        self._embedder = embedder
        self._ttl = max(1, int(ttl))
        self._similarity = similarity if shadow is None else shadow.rule.floor
        self._shadow = shadow
        self._wait = wait
        self._embed_timeout = embed_timeout
        self._scope = scope
        self._clock = clock
        self._flights: WeakValueDictionary[bytes, Ticket] = WeakValueDictionary()
        self._version = b""
        self.counts = CacheCounts()
        self.set_version(version)

    @property
    def shadow_counts(self) -> ShadowCounts:
        """What checks of near answers came to; all zero without a bound to keep."""
        return ShadowCounts() if self._shadow is None else self._shadow.counts

    def set_version(self, version: str) -> None:
        """Name the data and policy from now on (as a digest of the models file); older entries are not found."""
        model = "" if self._embedder is None else self._embedder.name
        self._version = f"{version}\n{model}".encode()

    def query(
        self,
        principal: Principal,
        api: str,
        requested_model: str,
        fields: Mapping[str, msgspec.Raw],
        controls: CacheControls,
    ) -> CacheQuery | None:
        """Whether and under which key the request may be answered from here; None where the cache is off for it."""
        return fingerprint(
            principal,
            api,
            requested_model,
            fields,
            controls,
            scope=self._scope(principal),
            ttl=self._ttl,
            version=self._version,
        )

    async def lookup(self, query: CacheQuery, at: int) -> Hit | None:
        """The answer to `query`, if there is one to be served at the instant `at`."""
        hit = await self._look(query, at)
        self.counts.results[hit.kind if hit else "miss"] += 1
        if hit:
            self.counts.saved += hit.saved
        return hit

    async def store(self, query: CacheQuery, answer: Answer, at: int) -> bool:
        """Keep the answer to a query that was looked up; whether it was kept.

        Not kept are unfit answers and those that a purge since the lookup covers. Call it when the client has its
        answer: the question may have to be embedded.
        """
        fit_for_others = False
        try:
            await self._learn(query, answer, at)
            entry = self._entry(query, answer, at)
            fit_for_others = entry is not None
            if entry is None or not await self._exact.put(query.exact, entry, at):
                self.counts.unfit += entry is None
                return False
        except Unavailable:
            self.counts.store_failures += 1
            return False
        finally:
            self._land(query, unfit=not fit_for_others)
        self.counts.stored += 1
        await self._store_vector(query, entry, at)
        return True

    def release(self, query: CacheQuery) -> None:
        """Say that `query` is done, with an answer or without; safe to call again."""
        self._land(query, unfit=False)

    def _land(self, query: CacheQuery, *, unfit: bool) -> None:
        ticket = query.ticket
        if ticket.leads:
            ticket.leads = False
            if self._flights.get(query.exact) is ticket:
                del self._flights[query.exact]
            if ticket.landed is not None and not ticket.landed.done():
                ticket.landed.set_result(unfit)

    async def purge(
        self, organization: str, tag: str | None = None, model: str | None = None, user: str | None = None
    ) -> int:
        """Never again serve what matches all that is given, nor what is being made of it now.

        Returns how many entries were freed: what was under way or had expired is not among them.

        Raises:
            Unavailable: the shared store does not answer, and nothing is promised.
        """
        freed = await self._exact.purge(organization, self._clock(), tag=tag, model=model, user=user)
        if self._vectors is not None and tag is model is user is None:
            await self._vectors.clear(organization)
        return freed

    async def _look(self, query: CacheQuery, at: int) -> Hit | None:
        if not query.read:
            await self._read(query, query.exact, at)
            return None
        patience = asyncio.get_running_loop().time() + self._wait
        waited = False
        while (leader := self._flights.get(query.exact)) is not None:
            landed = leader.landed = leader.landed or asyncio.get_running_loop().create_future()
            waited = True
            await asyncio.wait([landed], timeout=patience - asyncio.get_running_loop().time())
            hit = await self._exactly(query, at)
            if hit is not None:
                self.counts.coalesced += 1
                return hit
            if not landed.done() or landed.result():
                return None
        query.ticket.leads = True
        self._flights[query.exact] = query.ticket
        hit = None
        try:
            hit = await self._find(query, at)
        except BaseException:
            self.release(query)
            raise
        if hit is not None:
            self.counts.coalesced += waited
            self.release(query)
        return hit

    async def _exactly(self, query: CacheQuery, at: int) -> Hit | None:
        entry = await self._read(query, query.exact, at)
        if entry is None or not _is_fresh(query, entry, at):
            return None
        return Hit("exact", entry.answer, 1.0, max(0, at - entry.answer.created))

    async def _find(self, query: CacheQuery, at: int) -> Hit | None:
        hit = await self._exactly(query, at)
        if hit is not None:
            return hit
        if query.text is None or self._vectors is None or self._embedder is None:
            return None
        try:
            return await self._near(query, query.text, self._vectors, at)
        except Unavailable:
            self.counts.store_failures += 1
            return None

    async def _read(self, query: CacheQuery, key: bytes, at: int) -> Entry | None:
        """Read an entry, and take the stamp that the answer will carry if it comes to that."""
        try:
            reading = await self._exact.get(query.principal.organization, key, at)
        except Unavailable:
            self.counts.store_failures += 1
            return None
        query.ticket.stamp = reading.stamp
        return reading.entry

    async def _near(self, query: CacheQuery, text: str, vectors: VectorStore, at: int) -> Hit | None:
        organization = query.principal.organization
        if not await vectors.holds(organization, query.partition, at):
            return None
        asked = guards.read(text)
        vector = await self._embed(query, asked.plain)
        if vector is None:
            return None
        for near in await vectors.nearest(organization, query.partition, vector, _NEIGHBOURS, at):
            if near.similarity < self._similarity:
                break
            entry = (await self._exact.get(organization, near.key, at)).entry
            if entry is None:
                await vectors.remove(organization, query.partition, near.key)
                continue
            if entry.partition != query.partition or entry.question is None or not _is_fresh(query, entry, at):
                continue
            reason = guards.compare(asked, guards.read(entry.question))
            if reason is not None:
                self.counts.objections[reason] += 1
                continue
            if self._shadow is not None:
                query.ticket.check = await self._shadow.check(query, self._version, entry, near.similarity, at)
                if query.ticket.check is not None:
                    return None
            return Hit("semantic", entry.answer, min(1.0, near.similarity), max(0, at - entry.answer.created))
        return None

    async def _learn(self, query: CacheQuery, answer: Answer, at: int) -> None:
        """Let a check teach what it can, once."""
        check, query.ticket.check = query.ticket.check, None
        if check is None or self._shadow is None:
            return
        try:
            await self._shadow.learn(query, check, answer, at)
        except Unavailable:
            self.counts.store_failures += 1

    def _entry(self, query: CacheQuery, answer: Answer, at: int) -> Entry | None:
        body = fit(query.api, answer.body)
        stamp = query.ticket.stamp
        if body is None or stamp is None:
            return None
        return Entry(
            query.principal.organization,
            query.partition,
            query.user,
            query.model,
            query.tags,
            query.text,
            at + query.ttl,
            stamp,
            msgspec.structs.replace(answer, body=body),
        )

    async def _store_vector(self, query: CacheQuery, entry: Entry, at: int) -> None:
        if query.text is None or self._vectors is None or self._embedder is None:
            return
        vector = query.ticket.vector
        if vector is None and not query.ticket.embedded:  # what failed at the lookup is not tried again
            vector = await self._embed(query, guards.read(query.text).plain)
        if vector is None:
            return
        try:
            await self._vectors.add(entry.organization, entry.partition, query.exact, vector, entry.expires, at)
        except Unavailable:
            self.counts.store_failures += 1

    async def _embed(self, query: CacheQuery, text: str) -> Vector | None:
        if self._embedder is None:
            return None
        query.ticket.embedded = True
        try:
            async with asyncio.timeout(self._embed_timeout):
                (vector,) = await self._embedder.embed(query.principal, [text])
        except (EmbeddingError, TimeoutError):
            self.counts.embedding_failures += 1
            return None
        query.ticket.vector = vector
        return vector


def _is_fresh(query: CacheQuery, entry: Entry, at: int) -> bool:
    return query.max_age is None or at - entry.answer.created <= query.max_age
