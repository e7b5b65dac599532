# SPDX-License-Identifier: GPL-3.0-or-later
"""`/_sandbox`: faults, the truth about what was billed, reset, and keys that a test knows. No key is needed."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from sophia.money import nano

from . import bodies
from .errors import VendorError
from .faults import Rule
from .inference import Platform
from .keys import Window, expiry, view
from .records import Generation, iso
from .state import Open, Tally, digest, usd
from .wire import Exchange

__all__ = ["read_faults", "reset", "seed", "set_faults", "truth"]


class SeedKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key with a secret that the caller chooses."""

    key: str
    name: str = "seeded"
    management: bool = False
    disabled: bool = False
    limit: Decimal | None = None
    limit_reset: Window | None = None
    expires_at: str | None = None


class Seed(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /_sandbox/seed`; `credits` is USD that the account has bought, in all."""

    keys: list[SeedKey] = []
    credits: Decimal | None = None


async def read_faults(platform: Platform, exchange: Exchange) -> None:
    """`GET /_sandbox/faults`: the rules with their counters."""
    data = [{"rule": armed.rule, "seen": armed.seen, "struck": armed.struck} for armed in platform.faults.armed]
    await exchange.reply({"data": data})


async def set_faults(platform: Platform, exchange: Exchange) -> None:
    """`POST /_sandbox/faults`: replace all rules; an empty list ends all faults."""
    body = await exchange.body(platform.state.config.max_body)
    try:
        rules = msgspec.json.decode(body, type=list[Rule])
    except msgspec.DecodeError as error:
        raise VendorError(400, f"no list of rules: {error}") from error
    platform.faults.set(rules)
    await read_faults(platform, exchange)


async def reset(platform: Platform, exchange: Exchange) -> None:
    """`POST /_sandbox/reset`: forget everything but the keys that exist at start."""
    platform.faults.set([])
    platform.state.reset()
    await exchange.reply({"reset": True})


async def seed(platform: Platform, exchange: Exchange) -> None:
    """`POST /_sandbox/seed`: make or replace keys, and set the credits. Answers with the hash of each key."""
    state = platform.state
    body = await bodies.read(exchange, Seed, state.config.max_body)
    made = []
    for item in body.keys:
        known = state.account.by_digest.get(digest(item.key))
        key = state.add_key(
            item.key,
            name=item.name,
            management=item.management,
            disabled=item.disabled,
            limit=None if item.limit is None else nano(item.limit),
            limit_reset=item.limit_reset,
            expires_at=item.expires_at,
            expires=None if item.expires_at is None else expiry(item.expires_at),
            created_at=state.clock() if known is None else known.created_at,
        )
        made.append({"key": item.key, **view(state, key)})
    if body.credits is not None:
        state.credits = nano(body.credits)
    await exchange.reply({"data": made})


async def truth(platform: Platform, exchange: Exchange) -> None:
    """`GET /_sandbox/truth`: what was billed, from the records that bill.

    `since` (epoch seconds, ISO 8601 or a generation id) limits the generations, `summary=1` leaves them out.
    """
    state = platform.state
    account = state.account
    parameters = exchange.parameters()
    since = parameters.get("since")
    body: dict[str, Any] = {
        "now": iso(state.clock()),
        "totals": _tally(account.totals),
        "keys": {key_hash: _of_key(platform, key_hash, tally) for key_hash, tally in account.tallies.items()},
        "requests": {"rejected": dict(account.rejected), "disabled_key": dict(account.disabled_key_requests)},
        "disabled_key_requests": sum(account.disabled_key_requests.values()),
        "open": [_open(item) for item in account.open.values()],
        "dropped_generations": account.dropped,
        "credits": {"total": usd(state.credits), "total_nano": state.credits, "left_nano": state.credits_left()},
    }
    if parameters.get("summary") not in ("1", "true"):
        body["generations"] = [_generation(item) for item in _since(platform, since)]
    await exchange.reply(body)


def _since(platform: Platform, since: str | None) -> list[Generation]:
    generations = list(platform.state.account.generations)
    if since is None:
        return generations
    if since.startswith("gen-"):
        place = next((i for i, item in enumerate(generations) if item.id == since), None)
        if place is None:
            raise VendorError(404, f"{since} is no generation that is kept")
        return generations[place + 1 :]
    try:
        moment = float(since)
    except ValueError:
        try:
            moment = datetime.fromisoformat(since.replace(" ", "+")).timestamp()
        except ValueError:
            raise VendorError(400, "since is epoch seconds, ISO 8601 or a generation id") from None
    return [item for item in generations if item.ended_at >= moment]


def _tally(tally: Tally) -> dict[str, Any]:
    return {
        "requests": tally.requests,
        "cancelled": tally.cancelled,
        "cost": f"{usd(tally.cost):f}",
        "cost_nano": tally.cost,
        "prompt_tokens": tally.prompt_tokens,
        "completion_tokens": tally.completion_tokens,
        "cached_tokens": tally.cached_tokens,
        "reasoning_tokens": tally.reasoning_tokens,
    }


def _of_key(platform: Platform, key_hash: str, tally: Tally) -> dict[str, Any]:
    key = platform.state.account.keys.get(key_hash)
    state = "deleted" if key is None else "disabled" if key.disabled else "active"
    return {"name": None if key is None else key.name, "state": state, **_tally(tally)}


def _open(item: Open) -> dict[str, Any]:
    return {
        "id": item.id,
        "key_hash": item.key_hash,
        "model": item.model,
        "started_at": iso(item.started),
        "streamed": item.streamed,
        "held_nano": item.held,
    }


def _generation(item: Generation) -> dict[str, Any]:
    return {
        "id": item.id,
        "model": item.model,
        "provider": item.provider,
        "key_hash": item.key_hash,
        "api_type": item.api_type,
        "cost": f"{usd(item.cost):f}",
        "cost_nano": item.cost,
        "prompt_tokens": item.prompt_tokens,
        "completion_tokens": item.completion_tokens,
        "cached_tokens": item.cached_tokens,
        "cache_write_tokens": item.cache_write_tokens,
        "reasoning_tokens": item.reasoning_tokens,
        "user": item.user,
        "session_id": item.session_id,
        "user_agent": item.user_agent,
        "request_id": item.request_id,
        "streamed": item.streamed,
        "cancelled": item.cancelled,
        "finish_reason": item.finish_reason,
        "created_at": iso(item.created_at),
        "ended_at": iso(item.ended_at),
    }
