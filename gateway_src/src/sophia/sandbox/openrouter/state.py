# SPDX-License-Identifier: GPL-3.0-or-later
"""All that the stand-in knows, in memory, with the journal behind it. Only this file changes records."""

from __future__ import annotations

import hashlib
import random
import uuid
from base64 import b64encode
from collections import Counter, deque
from dataclasses import dataclass, field
from decimal import Decimal

from sophia.money import nano

from .config import Config
from .journal import Journal
from .promptcache import PromptCache
from .records import (
    Assignment,
    Generation,
    Guardrail,
    GuardrailDeleted,
    Key,
    KeyDeleted,
    Record,
    Reset,
    Spend,
    Unassigned,
    Workspace,
    WorkspaceDeleted,
)

__all__ = ["DEFAULT_WORKSPACE", "Open", "State", "Tally", "digest", "label_of", "usd"]

NAMESPACE = uuid.UUID("8d9be0cc-6c0a-4b0e-9f0e-0f7c2f2a1b3d")
DEFAULT_WORKSPACE = str(uuid.uuid5(NAMESPACE, "default"))


def digest(secret: str) -> str:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def hash_of(secret: str) -> str:
    """The public name of a key. Not the SHA-256 of the secret: clients must take it from the create response."""
    return hashlib.sha256(b"openrouter-key:" + secret.encode()).hexdigest()


def label_of(secret: str) -> str:
    """The masked secret."""
    return f"{secret[:12]}...{secret[-4:]}"


@dataclass(slots=True)
class Open:
    """A request that was accepted and is not settled. `held` is what may still be billed, in nano-dollars."""

    id: str
    key_hash: str
    model: str
    started: float
    streamed: bool
    held: int


@dataclass(slots=True)
class Tally:
    """Sums over generations: of one key, or of all."""

    requests: int = 0
    cancelled: int = 0
    cost: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0

    def add(self, generation: Generation) -> None:
        """Count one generation."""
        self.requests += 1
        self.cancelled += generation.cancelled
        self.cost += generation.cost
        self.prompt_tokens += generation.prompt_tokens
        self.completion_tokens += generation.completion_tokens
        self.cached_tokens += generation.cached_tokens
        self.reasoning_tokens += generation.reasoning_tokens


@dataclass(slots=True)
class Account:
    """The part of the state that `reset` empties."""

    keys: dict[str, Key] = field(default_factory=dict)
    by_digest: dict[str, Key] = field(default_factory=dict)
    retired: dict[str, str] = field(default_factory=dict)
    spend: dict[str, Spend] = field(default_factory=dict)
    tallies: dict[str, Tally] = field(default_factory=dict)
    totals: Tally = field(default_factory=Tally)
    generations: deque[Generation] = field(default_factory=deque)
    by_id: dict[str, Generation] = field(default_factory=dict)
    dropped: int = 0
    guardrails: dict[str, Guardrail] = field(default_factory=dict)
    assignments: dict[str, Assignment] = field(default_factory=dict)
    workspaces: dict[str, Workspace] = field(default_factory=dict)
    open: dict[str, Open] = field(default_factory=dict)
    held: Counter[str] = field(default_factory=Counter)
    held_total: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    disabled_key_requests: Counter[str] = field(default_factory=Counter)
    minutes: dict[str, tuple[int, int]] = field(default_factory=dict)


class State:
    """The account: keys, generations, guardrails, workspaces. Changes are journalled before they are answered."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.clock = config.clock
        self.credits = nano(config.credits)
        self.account = Account()
        self.cache = PromptCache()
        self._journal = Journal(config.state_file)
        restored = 0
        for record in self._journal.read():
            self._apply(record)
            restored += 1
        # The number of restored records is part of the seed, so that a restart does not hand out the same ids again.
        self.random = random.Random(f"{config.seed}:{restored}")  # noqa: S311 (nothing here is a secret)
        self._begin()

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def reset(self) -> None:
        """Forget everything but the keys of the configuration."""
        self.record(Reset(self.clock()))
        self.credits = nano(self.config.credits)
        self.cache = PromptCache()
        self._begin()

    def record(self, record: Record) -> None:
        """Journal a change and apply it."""
        self._journal.write(record)
        self._apply(record)

    def generation_id(self, now: float) -> str:
        """A new id, as the vendor writes them."""
        mark = b64encode(self.random.randbytes(15), b"Zz").decode()
        return f"gen-{int(now)}-{mark}"

    def uuid(self) -> str:
        """A new UUID."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def secret(self) -> str:
        """A new key's secret."""
        return f"sk-or-v1-{self.random.getrandbits(256):064x}"

    def add_key(self, secret: str, *, name: str, management: bool = False, **fields: object) -> Key:
        """Make a key whose secret is known."""
        values: dict[str, object] = {
            "hash": hash_of(secret),
            "digest": digest(secret),
            "label": label_of(secret),
            "name": name,
            "created_at": self.clock(),
            "workspace_id": DEFAULT_WORKSPACE,
            "management": management,
        }
        key = Key(**(values | fields))  # type: ignore[arg-type]
        self.record(key)
        return key

    def spend_of(self, key_hash: str) -> Spend:
        """What a key has spent."""
        spend = self.account.spend.get(key_hash)
        if spend is None:
            spend = self.account.spend[key_hash] = Spend()
        return spend

    def remaining(self, key: Key) -> int | None:
        """Nano-dollars left of a key's limit, never negative; None for no limit."""
        if key.limit is None:
            return None
        return max(key.limit - self.spend_of(key.hash).window(key.limit_reset, self.clock()), 0)

    def credits_left(self) -> int:
        """Nano-dollars left of what the account has bought; negative when overdrawn."""
        return self.credits - self.account.totals.cost

    def guardrail_of(self, key_hash: str) -> Guardrail | None:
        """The guardrail on a key."""
        assignment = self.account.assignments.get(key_hash)
        return None if assignment is None else self.account.guardrails.get(assignment.guardrail_id)

    def hold(self, opened: Open) -> None:
        """Note a request that was accepted."""
        self.account.open[opened.id] = opened
        self.account.held[opened.key_hash] += opened.held
        self.account.held_total += opened.held

    def settle(self, generation: Generation) -> None:
        """Bill a generation, once; a request that `reset` has forgotten is not billed."""
        if self.release(generation.id):
            self.record(generation)

    def release(self, generation_id: str) -> bool:
        """Give back what was held for a request; False when it is not open (any more)."""
        opened = self.account.open.pop(generation_id, None)
        if opened is None:
            return False
        self.account.held[opened.key_hash] -= opened.held
        self.account.held_total -= opened.held
        return True

    def _begin(self) -> None:
        account, config, now = self.account, self.config, self.clock()
        if DEFAULT_WORKSPACE not in account.workspaces:
            guardrail = str(uuid.uuid5(NAMESPACE, "default guardrail"))
            self.record(
                Workspace(
                    id=DEFAULT_WORKSPACE, name="Default", slug="default", created_at=now, default_guardrail_id=guardrail
                )
            )
        for secret, name, management in (
            (config.inference_key, "sandbox", False),
            (config.management_key, "sandbox management", True),
        ):
            if secret is not None and not self._known(secret):
                self.add_key(secret, name=name, management=management)

    def _known(self, secret: str) -> bool:
        mark = digest(secret)
        return mark in self.account.by_digest or mark in self.account.retired

    def _apply(self, record: Record) -> None:
        account = self.account
        match record:
            case Generation():
                self._count(record)
            case Key():
                account.keys[record.hash] = record
                account.by_digest[record.digest] = record
                account.retired.pop(record.digest, None)
            case KeyDeleted():
                key = account.keys.pop(record.hash)
                del account.by_digest[key.digest]
                account.retired[key.digest] = key.hash
                account.assignments.pop(key.hash, None)
            case Guardrail():
                account.guardrails[record.id] = record
            case GuardrailDeleted():
                account.guardrails.pop(record.id, None)
                kept = {key: item for key, item in account.assignments.items() if item.guardrail_id != record.id}
                account.assignments = kept
            case Assignment():
                account.assignments[record.key_hash] = record
            case Unassigned():
                account.assignments.pop(record.key_hash, None)
            case Workspace():
                account.workspaces[record.id] = record
            case WorkspaceDeleted():
                account.workspaces.pop(record.id, None)
            case Reset():
                self.account = Account()

    def _count(self, generation: Generation) -> None:
        account = self.account
        tally = account.tallies.get(generation.key_hash)
        if tally is None:
            tally = account.tallies[generation.key_hash] = Tally()
        tally.add(generation)
        account.totals.add(generation)
        self.spend_of(generation.key_hash).add(generation.cost, generation.ended_at)
        key = account.keys.get(generation.key_hash)
        if key is not None:
            key.last_used_at = generation.ended_at
        account.generations.append(generation)
        account.by_id[generation.id] = generation
        if len(account.generations) > self.config.history:
            del account.by_id[account.generations.popleft().id]
            account.dropped += 1


def usd(amount: int) -> Decimal:
    """Nano-dollars as the JSON number that the vendor sends."""
    return Decimal(amount).scaleb(-9) if amount else Decimal(0)
