# SPDX-License-Identifier: GPL-3.0-or-later
"""Rate limits as a caller sees them: headers, refusals, corrections."""

from __future__ import annotations

import pytest

from sophia.gateway.limits import Limits, RateLimited, _duration
from sophia.stores.model import Level, Limit, Principal, Role
from sophia.stores.rates import LocalRates

NOW = 1_791_979_200_000_000_000
SECOND = 1_000_000_000


def principal(*limits: Limit) -> Principal:
    return Principal("key_a", "org_a", "team_a", "usr_a", Role.MEMBER, frozenset({"chat"}), None, (), limits)


ANN = principal(
    Limit(Level.ORGANIZATION, "org_a", 1000, 90_000),
    Limit(Level.USER, "usr_a", 100, None),
    Limit(Level.KEY, "key_a", None, None),
)


async def test_answers_carry_the_tightest_limits() -> None:
    limits = Limits(LocalRates())
    await limits.admit(ANN, 600, NOW)
    assert await limits.admit(ANN, 300, NOW) == [
        (b"x-ratelimit-limit-requests", b"100"),
        (b"x-ratelimit-remaining-requests", b"98"),
        (b"x-ratelimit-reset-requests", b"1.2s"),
        (b"x-ratelimit-limit-tokens", b"90000"),
        (b"x-ratelimit-remaining-tokens", b"89100"),
        (b"x-ratelimit-reset-tokens", b"600ms"),
    ]


async def test_a_refusal_says_which_limit_and_until_when() -> None:
    limits = Limits(LocalRates())
    for _ in range(100):
        await limits.admit(ANN, 10, NOW)
    with pytest.raises(RateLimited) as caught:
        await limits.admit(ANN, 10, NOW + SECOND // 10)
    error = caught.value
    assert (error.status, error.code, error.type) == (429, "rate_limited", "rate_limit_error")
    assert error.retry_after == 0.5
    assert error.message == "user usr_a is limited to 100 requests per minute; try again in 500ms"
    assert dict(error.headers)[b"x-ratelimit-remaining-requests"] == b"0"
    await limits.admit(ANN, 10, NOW + SECOND // 10 + SECOND // 2)


async def test_a_request_larger_than_its_limit_is_not_told_to_wait() -> None:
    limits = Limits(LocalRates())
    with pytest.raises(RateLimited, match="about 90001 tokens") as caught:
        await limits.admit(ANN, 90_001, NOW)
    assert caught.value.retry_after is None
    closed = principal(Limit(Level.KEY, "key_a", 0, None))
    with pytest.raises(RateLimited, match="any request") as caught:
        await limits.admit(closed, 1, NOW)
    assert caught.value.retry_after is None


async def test_the_estimate_gives_way_to_what_was_used() -> None:
    limits = Limits(LocalRates())
    await limits.admit(ANN, 60_000, NOW)
    with pytest.raises(RateLimited, match="90000 tokens per minute"):
        await limits.admit(ANN, 60_000, NOW)
    await limits.correct(ANN, 60_000, 1_000, NOW)
    assert dict(await limits.admit(ANN, 60_000, NOW))[b"x-ratelimit-remaining-tokens"] == b"29000"


async def test_nothing_limits_who_has_no_limits() -> None:
    limits = Limits(LocalRates())
    assert await limits.admit(principal(), 10**9, NOW) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0ms"),
        (0.017, "17ms"),
        (0.0171, "18ms"),
        (0.9999, "1s"),
        (1.5, "1.5s"),
        (59.9994, "1m0s"),
        (60.0, "1m0s"),
        (360.0, "6m0s"),
        (90.25, "1m30.25s"),
    ],
)
def test_durations_read_as_openai_writes_them(seconds: float, text: str) -> None:
    assert _duration(seconds) == text
