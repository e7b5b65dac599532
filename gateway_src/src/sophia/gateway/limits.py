# SPDX-License-Identifier: GPL-3.0-or-later
"""The room where a request passes its rate limits, on all levels of the caller's hierarchy at once.

Answers carry the headers of OpenAI's API (``x-ratelimit-limit-requests`` and so on, OpenAI API reference, "Rate
limits in headers"), for the tightest limit of each kind.

::

    sophia.errors.TooManyRequests
    └── RateLimited              429  rate_limited    carries the headers, and `retry_after` where waiting helps
"""

from __future__ import annotations

import math

from sophia.errors import TooManyRequests
from sophia.stores.model import Limit, Principal
from sophia.stores.rates import Kind, Rates, Room

__all__ = ["Headers", "Limits", "RateLimited"]

Headers = list[tuple[bytes, bytes]]

_REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
_TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")


class RateLimited(TooManyRequests):
    """429: nothing was taken from any limit. `retry_after` is None where the request is larger than a limit allows."""

    def __init__(self, message: str, retry_after: float | None, headers: Headers) -> None:
        super().__init__("rate_limited", message, retry_after=retry_after)
        self.headers = headers


class Limits:
    """Rates with manners: headers for every answer, and refusals that say which limit and until when."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates

    async def admit(self, principal: Principal, tokens: int, at: int) -> Headers:
        """Take one request and its estimated tokens; the headers for the answer.

        - `at`: nanoseconds since the epoch.

        Raises:
            RateLimited: at least one limit does not allow it now.
        """
        taken = await self._rates.take(principal.limits, tokens, at, organization=principal.organization)
        headers = _headers(_REQUESTS, taken.requests) + _headers(_TOKENS, taken.tokens)
        if taken.wait is not None and taken.limit is not None:
            raise _refused(taken.limit, taken.kind, taken.wait, tokens, headers)
        return headers

    async def correct(self, principal: Principal, estimated: int, actual: int, at: int) -> None:
        """Replace the estimate of `admit` by the tokens that were really used. Never refuses."""
        if estimated != actual:
            await self._rates.adjust(principal.limits, actual - estimated, at, organization=principal.organization)


def _refused(limit: Limit, kind: Kind | None, wait: float, tokens: int, headers: Headers) -> RateLimited:
    pace = limit.requests_per_minute if kind == "requests" else limit.tokens_per_minute
    what = f"{limit.level} {limit.owner} is limited to {pace} {kind} per minute"
    if wait < math.inf:
        return RateLimited(f"{what}; try again in {_duration(wait)}", wait, headers)
    asked = "any request" if kind == "requests" else f"one of about {tokens} tokens"
    return RateLimited(
        f"{what}, which {asked} passes at once: send less, or ask an administrator to raise the limit", None, headers
    )


def _headers(names: tuple[bytes, bytes, bytes], room: Room | None) -> Headers:
    if room is None:
        return []
    limit, remaining, reset = names
    return [(limit, b"%d" % room.limit), (remaining, b"%d" % room.remaining), (reset, _duration(room.reset).encode())]


def _duration(seconds: float) -> str:
    """As OpenAI writes them: ``17ms``, ``1.5s``, ``6m0s``; rounded up to milliseconds."""
    millis = -(-round(seconds * 1e6) // 1000)
    if millis < 1000:
        return f"{millis}ms"
    minutes, rest = divmod(millis, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"
