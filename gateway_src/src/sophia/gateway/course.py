# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left to try for one request, and when that is nothing: the answer to the client.

A request's attempts are bounded by their number, by its deadline, by the gateway's retry budget, and by its candidates,
which are in an order without circles (`rules` refuses a graph of fallbacks that has one).
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from sophia.errors import (
    ApiError,
    BadRequest,
    DeadlineExceeded,
    Forbidden,
    NotFound,
    TooManyRequests,
    Unavailable,
    Upstream,
)
from sophia.gateway.breaker import Breakers
from sophia.gateway.faults import Fault, Kind
from sophia.gateway.pace import Pace
from sophia.gateway.plan import Candidate, Plan
from sophia.gateway.slots import Slot, Slots
from sophia.settings import Settings

if TYPE_CHECKING:
    from sophia.gateway.dispatch import Request

__all__ = ["LEAST", "Course"]

LEAST = 0.05
"""Seconds that are not worth an attempt."""

_PAUSE = 0.2
_PATIENCE = 10.0


class Course:
    """What is left to try for one request."""

    def __init__(
        self,
        request: Request,
        plan: Plan,
        slots: Slots,
        breakers: Breakers,
        pace: Pace,
        settings: Settings,
        *,
        stream: bool,
    ) -> None:
        self._request = request
        self._pace = pace
        self._stream = stream
        self._candidates = list(plan.candidates)
        self._slots = slots
        self._breakers = breakers
        self._most = settings.dispatch.attempts
        self._refused_slots: set[str] = set()
        self._last: Fault | None = None
        self._free = True
        self.tries = 0
        self.shrink_to: int | None = None

    def next(self) -> tuple[Candidate, Slot]:
        """The next candidate and key.

        Raises:
            ApiError: nothing is left.
        """
        left = self._request.deadline - time.monotonic()
        if left < LEAST:
            raise DeadlineExceeded(
                "deadline_exceeded", "The request's deadline has passed; allow more time or ask for less."
            )
        if self.tries or self._request.hurried:
            self._drop_slow(left)
        if self.tries and not self._free and (self.tries >= self._most or not self._breakers.may_retry()):
            raise self._final()
        while self._candidates and not self._breakers.admits(self._candidates[0].model.id):
            if len(self._candidates) == 1:
                break
            self._candidates.pop(0)
        if not self._candidates:
            raise self._final()
        slot = self._slots.pick(self._refused_slots)
        if slot is None:
            raise self._no_key()
        if not self.tries:
            self._breakers.request()
        self.tries += 1
        return self._candidates[0], slot

    def another(self) -> bool:
        """Whether one more attempt may be made beside the present one; it counts."""
        if self.tries >= self._most:
            return False
        self.tries += 1
        return True

    def _drop_slow(self, left: float) -> None:
        """Leave out the candidates that cannot answer in what is left.

        Raises:
            DeadlineExceeded: none can.
        """
        before = len(self._candidates)
        self._candidates = [
            candidate for candidate in self._candidates if self._pace.least(candidate.model.id, self._stream) <= left
        ]
        if before and not self._candidates:
            raise DeadlineExceeded(
                "deadline_exceeded", f"No model that may answer this has been quick enough of late for {left:.2f} s."
            )

    async def after(self, candidate: Candidate, slot: Slot, fault: Fault) -> None:
        """Decide what a fault leaves to try.

        Raises:
            ApiError: where trying again cannot help.
        """
        self._last = fault
        self._free = False
        match fault.kind:
            case Kind.BAD_KEY | Kind.KEY_LIMIT:
                self._slots.reject(slot) if fault.kind is Kind.BAD_KEY else self._slots.limit(slot)
                self._refused_slots.add(slot.hash)
                self._free = True
            case Kind.CREDIT | Kind.REFUSED | Kind.INVALID:
                raise self._final()
            case Kind.AFFORD if self.shrink_to is None and fault.affordable:
                self.shrink_to = fault.affordable
                self._free = True
            case Kind.IN_FLIGHT | Kind.RATE:
                await self._wait(fault.retry_after if fault.retry_after is not None else _PAUSE * 2**self.tries)
            case Kind.FAILED if len(self._candidates) == 1:
                await self._wait(random.uniform(0, _PAUSE * 2**self.tries))  # noqa: S311 - jitter, not a secret
            case Kind.BUSY if len(self._candidates) == 1 and (fault.retry_after or _PATIENCE) < _PATIENCE:
                await self._wait(fault.retry_after or _PAUSE)
            case _:
                self._candidates.pop(0)

    async def _wait(self, seconds: float) -> None:
        if time.monotonic() + seconds >= self._request.deadline or seconds > _PATIENCE:
            raise self._final()
        await asyncio.sleep(seconds)

    def _no_key(self) -> ApiError:
        kind = self._last.kind if self._last is not None else None
        if kind is Kind.KEY_LIMIT:
            return Unavailable(
                "upstream_key_limit", "The credit limit of every OpenRouter key is spent; an operator must raise it."
            )
        return Unavailable(
            "upstream_key_rejected", "OpenRouter accepts none of the gateway's keys; an operator must replace them."
        )

    def _final(self) -> ApiError:
        """The last fault as the client is told it."""
        fault = self._last
        if fault is None:
            return Unavailable("no_candidate", "No model can be asked at the moment; try again.", retry_after=5.0)
        message = fault.message
        match fault.kind:
            case Kind.INVALID:
                status = fault.status if fault.status in (400, 413, 422) else 400
                return BadRequest(fault.error_type or "upstream_rejected", message, status=status)
            case Kind.CONTEXT:
                return BadRequest("context_length_exceeded", message)
            case Kind.REFUSED:
                return Forbidden("content_refused", message)
            case Kind.CREDIT | Kind.AFFORD:
                return Unavailable(
                    "upstream_credit", "The OpenRouter account has no credit left; an operator must add some."
                )
            case Kind.RATE | Kind.IN_FLIGHT:
                return TooManyRequests("upstream_rate_limited", message, retry_after=fault.retry_after or 1.0)
            case Kind.BUSY:
                return Unavailable("upstream_busy", message, retry_after=fault.retry_after or 5.0)
            case Kind.UNSERVED:
                return NotFound("model_unavailable", message)
            case _:
                return Upstream("upstream_failed", f"{message} ({self.tries} attempts)")
