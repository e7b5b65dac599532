# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the JSON bodies and query parameters of the management endpoints."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from .errors import VendorError
from .wire import Exchange

__all__ = ["flag", "page", "parse", "read", "whole"]

T = TypeVar("T")


async def read(exchange: Exchange, type_: type[T], limit: int) -> T:
    """The body as a `type_`. Raises `VendorError` 400 for one that is not."""
    body = await exchange.body(limit)
    try:
        return msgspec.json.decode(body or b"{}", type=type_)
    except msgspec.DecodeError as error:
        raise VendorError(400, f"Invalid request parameters: {error}") from error


def parse(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """A body that is JSON of the decoder's type. Raises `VendorError` 400 with the place that is wrong."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise VendorError(400, f"Invalid request parameters: {error}") from error


def whole(parameters: dict[str, str], name: str, default: int, low: int, high: int) -> int:
    """An integer parameter within its bounds. Raises `VendorError` 400."""
    text = parameters.get(name)
    if text is None or text == "":
        return default
    try:
        value = int(text)
    except ValueError:
        raise VendorError(400, f"{name} must be an integer") from None
    if not low <= value <= high:
        raise VendorError(400, f"{name} must be between {low} and {high}")
    return value


def page(parameters: dict[str, str], default: int, most: int) -> slice:
    """The window that `offset` and `limit` name. Raises `VendorError` 400."""
    offset = whole(parameters, "offset", 0, 0, 1 << 31)
    limit = whole(parameters, "limit", default, 1, most)
    return slice(offset, offset + limit)


def flag(parameters: dict[str, str], name: str) -> bool:
    """A parameter that is "true" or "false". Raises `VendorError` 400 for another text."""
    text = parameters.get(name, "false").lower()
    if text not in ("true", "false"):
        raise VendorError(400, f'{name} must be "true" or "false"')
    return text == "true"
