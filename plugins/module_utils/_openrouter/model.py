# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""The things of the OpenRouter API as values: keys, money, times, secrets. No I/O.

Source: https://openrouter.ai/docs/api-reference (OpenAPI document of 2026-08-22).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._errors import MASK, BadResponse, InvalidInput

UNLIMITED = "unlimited"
NEVER = "never"

_MONEY = frozenset(
    {
        "limit",
        "limit_remaining",
        "usage",
        "usage_daily",
        "usage_weekly",
        "usage_monthly",
        "byok_usage",
        "byok_usage_daily",
        "byok_usage_weekly",
        "byok_usage_monthly",
    }
)


class Secret:
    """A key string that does not show itself by accident."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    @property
    def id(self) -> str:
        """First 12 hex digits of the SHA-256 of the key string: what the gateway calls the key in its metrics."""
        return hashlib.sha256(self._text.encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


@dataclass(frozen=True)
class Key:
    """An API key as OpenRouter reports it; money in USD. ``raw`` has every field, known here or not."""

    hash: str
    name: str
    label: str
    disabled: bool
    limit: Decimal | None
    limit_reset: str | None
    include_byok_in_limit: bool
    usage: Decimal
    created_at: datetime | None
    expires_at: datetime | None
    last_used_at: str | None
    workspace_id: str | None
    raw: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def expired(self, now: datetime) -> bool:
        return self.expires_at is not None and self.expires_at <= now

    def live(self, now: datetime) -> bool:
        """Return whether a request with this key would be let in."""
        return not self.disabled and not self.expired(now)

    @property
    def mark(self) -> str:
        """What moves whenever the key is used."""
        return "|".join((plain(self.usage), plain(money(self.raw.get("byok_usage", 0))), self.last_used_at or ""))

    def as_result(self, guardrail_id: str | None) -> dict[str, Any]:
        """Return what a module returns: amounts as strings, because a JSON number is a binary float to most readers."""
        result = {
            name: plain(money(value)) if name in _MONEY and value is not None else exact(value)
            for name, value in sorted(self.raw.items())
        }
        result["guardrail_id"] = guardrail_id
        return result


def parse_key(data: Any) -> Key:
    """Read a Key object of the API. Raises :class:`BadResponse` where what every key has is not there."""
    try:
        return Key(
            hash=_text(data["hash"]),
            name=_text(data["name"]),
            label=_text(data["label"]),
            disabled=bool(data["disabled"]),
            limit=money(data["limit"]),
            limit_reset=data["limit_reset"],
            include_byok_in_limit=bool(data["include_byok_in_limit"]),
            usage=money(data.get("usage")) or Decimal(0),
            created_at=instant(data.get("created_at")),
            expires_at=instant(data.get("expires_at")),
            last_used_at=data.get("last_used_at"),
            workspace_id=data.get("workspace_id"),
            raw=dict(data),
        )
    except (AttributeError, InvalidInput, KeyError, TypeError, ValueError) as error:
        raise BadResponse(f"not a key as OpenRouter describes one: {type(error).__name__} {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("an empty or missing text")
    return value


def money(value: Any) -> Decimal | None:
    """Read an amount exactly. A float is read by its shortest decimal form, which is what was written."""
    if value is None:
        return None
    if isinstance(value, bool):
        raise InvalidInput(f"not an amount: {value}")
    try:
        amount = Decimal(repr(value) if isinstance(value, float) else str(value).strip())
    except InvalidOperation:
        raise InvalidInput(f"not an amount: {value}") from None
    if not amount.is_finite():
        raise InvalidInput(f"not an amount: {value}")
    return amount


def plain(amount: Decimal | None) -> str:
    """Write an amount without exponent and without needless zeros."""
    if amount is None:
        return ""
    text = format(amount, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("", "-0") else text


def exact(value: Any) -> Any:
    """Return JSON data with its decimal numbers as text."""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return value


def limit(text: str) -> Decimal | None:
    """Read the option ``limit``: an amount from 0, or ``unlimited`` for none. 0 is a limit: nothing may be spent."""
    if text.strip().lower() == UNLIMITED:
        return None
    amount = money(text)
    if amount is None or amount < 0:
        raise InvalidInput(f"limit: {text} is neither an amount in USD from 0 nor {UNLIMITED!r}")
    return amount


def wire(amount: Decimal | None) -> int | float | None:
    """Return the JSON number that says exactly ``amount``. Raises :class:`InvalidInput` where there is none."""
    if amount is None:
        return None
    if amount == amount.to_integral_value():
        return int(amount)
    number = float(amount)
    if Decimal(repr(number)) != amount:
        raise InvalidInput(f"limit: {plain(amount)} has more digits than a JSON number carries")
    return number


def instant(text: str | None) -> datetime | None:
    """Read an ISO 8601 time with its zone. Raises :class:`InvalidInput`."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise InvalidInput(f"not an ISO 8601 time: {text}") from None
    if moment.tzinfo is None:
        raise InvalidInput(f"a time without a zone: {text}; write {text}Z if it is UTC")
    return moment.astimezone(timezone.utc)


def stamp(moment: datetime) -> str:
    """Write a time as OpenRouter takes it: UTC, with seconds and without fractions."""
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def settings_of(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings the user gave, as values; what was not given is not in it and will not be touched.

    Raises :class:`InvalidInput`.
    """
    settings: dict[str, Any] = {}
    if params.get("limit") is not None:
        settings["limit"] = limit(params["limit"])
        wire(settings["limit"])
    if params.get("limit_reset") is not None:
        settings["limit_reset"] = None if params["limit_reset"] == NEVER else params["limit_reset"]
    for name in ("include_byok_in_limit", "disabled"):
        if params.get(name) is not None:
            settings[name] = params[name]
    if params.get("expires_at"):
        settings["expires_at"] = instant(params["expires_at"]).replace(microsecond=0)
    return settings


def body_of(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as the API's JSON."""
    body = dict(settings)
    if "limit" in body:
        body["limit"] = wire(body["limit"])
    if body.get("expires_at") is not None:
        body["expires_at"] = stamp(body["expires_at"])
    return body
