# SPDX-License-Identifier: GPL-3.0-or-later
"""Who asks: from the Authorization header (or Anthropic's x-api-key) to a key that may."""

from __future__ import annotations

from .errors import VendorError
from .records import Key
from .state import State, digest
from .wire import Exchange

__all__ = ["any_key", "inference_key", "management_key", "peek"]


def any_key(state: State, exchange: Exchange) -> Key:
    """The key of a request. Raises `VendorError` 401 for none, an unknown, deleted, disabled or expired one."""
    secret = _secret(exchange)
    if secret is None:
        state.account.rejected["missing"] += 1
        raise VendorError(401)
    mark = digest(secret)
    key = state.account.by_digest.get(mark)
    if key is None:
        state.account.rejected["deleted" if mark in state.account.retired else "unknown"] += 1
        raise VendorError(401, "User not found.")
    if key.disabled:
        state.account.rejected["disabled"] += 1
        state.account.disabled_key_requests[key.hash] += 1
        raise VendorError(401, "API key is disabled")
    if key.expires is not None and state.clock() >= key.expires:
        state.account.rejected["expired"] += 1
        raise VendorError(401, "API key has expired")
    exchange.key = key
    return key


def inference_key(state: State, exchange: Exchange) -> Key:
    """A key that may ask models. Raises `VendorError` 401, or 403 for a management key."""
    key = any_key(state, exchange)
    if key.management:
        raise VendorError(403, "Management keys cannot be used for inference")
    return key


def management_key(state: State, exchange: Exchange) -> Key:
    """A key that may manage. Raises `VendorError` 401, or 403 for an inference key."""
    key = any_key(state, exchange)
    if not key.management:
        raise VendorError(403, "Only management keys can perform this operation")
    return key


def peek(state: State, exchange: Exchange) -> str | None:
    """The hash of the key that a request names, whether or not it may be used."""
    secret = _secret(exchange)
    key = None if secret is None else state.account.by_digest.get(digest(secret))
    return None if key is None else key.hash


def _secret(exchange: Exchange) -> str | None:
    authorization = exchange.header(b"authorization")
    if authorization is None:
        return exchange.header(b"x-api-key")
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" and secret.strip() else None
