# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and answers as values: what the API decides about, whichever way they travel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import msgspec

from .errors import CloudError

__all__ = ["Answer", "Delivery", "Request", "encode"]

encode = msgspec.json.encode

# whole: as HTTP does. never: the client waits for it in vain. reset: the connection breaks instead.
Delivery = Literal["whole", "never", "reset"]
Body = TypeVar("Body")


@dataclass(frozen=True, slots=True)
class Request:
    """A request; header names are lower case, `path` is without its query."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def read(self, shape: type[Body]) -> Body:
        """The body as `shape`. Raises `CloudError` global/invalid-parameters."""
        try:
            return msgspec.json.decode(self.body or b"{}", type=shape)
        except msgspec.DecodeError as error:
            raise CloudError("global/invalid-parameters", f"Invalid request data. {error}") from error


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `delay` is how long it is held back, in seconds."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    delivery: Delivery = "whole"
    delay: float = 0.0

    @classmethod
    def of(cls, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Answer:
        """An answer in JSON."""
        return cls(status, encode(body), {"content-type": "application/json", **(headers or {})})
