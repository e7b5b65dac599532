# SPDX-License-Identifier: GPL-3.0-or-later
"""The vendors' own SDKs as they come from PyPI, told nothing but the gateway's address and a key of ours."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from anthropic import Anthropic
from openai import OpenAI
from openrouter import OpenRouter

from tests.e2e.bed import Bed

TIMEOUT = 60.0
ROUTES = ("/chat/completions", "/responses", "/messages", "/embeddings")

Strike = Callable[..., None]


@pytest.fixture(scope="session")
def bed(open_bed: Callable[..., Bed]) -> Bed:
    """The gateway as it is; breakers are out of the way, because one test's faults are no matter of the next."""
    return open_bed("sdk", max_body=1_000_000, dispatch={"attempts": 2, "breaker_failures": 100_000})


@pytest.fixture(scope="session", params=["pyreqwest", "aiohttp"])
def brief(request: pytest.FixtureRequest, open_bed: Callable[..., Bed]) -> Bed:
    """Gateways with two key slots and little patience, over either upstream client."""
    upstream = {
        "client": request.param,
        "idle_timeout": 1.5,
        "head_timeout": 1.5,
        "key_files": {"primary": "primary.key", "secondary": "secondary.key"},
    }
    second = "sk-or-v1-" + secrets.token_hex(32)
    dispatch = {"attempts": 1, "breaker_failures": 100_000}
    return open_bed(str(request.param), secondary=second, upstream=upstream, dispatch=dispatch)


@pytest.fixture(scope="session")
def key(bed: Bed) -> str:
    """A key that may do everything."""
    return bed.tenant("everybody")


@pytest.fixture(scope="session")
def brief_key(brief: Bed) -> str:
    """The same on the bed with little patience."""
    return brief.tenant("everybody")


@pytest.fixture(scope="session")
def openai_sdk(bed: Bed, key: str) -> Iterator[OpenAI]:
    """OpenAI's SDK. It never retries by itself, so that what is seen is what the gateway did."""
    with OpenAI(api_key=key, base_url=f"{bed.url}/v1", max_retries=0, timeout=TIMEOUT) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def openrouter_sdk(bed: Bed, key: str) -> Iterator[OpenRouter]:
    """OpenRouter's SDK."""
    with OpenRouter(api_key=key, server_url=f"{bed.url}/v1", retry_config=None, timeout_ms=60_000) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def anthropic_sdk(bed: Bed, key: str) -> Iterator[Anthropic]:
    """Anthropic's SDK, which sends its key as x-api-key."""
    with Anthropic(api_key=key, base_url=bed.url, max_retries=0, timeout=TIMEOUT) as sdk:
        yield sdk


@pytest.fixture(scope="session")
def http(bed: Bed, key: str) -> Iterator[httpx.Client]:
    """Plain HTTP, for what no SDK shows."""
    with httpx.Client(base_url=bed.url, headers={"authorization": f"Bearer {key}"}, timeout=TIMEOUT) as client:
        yield client


def striker(bed: Bed) -> Iterator[Strike]:
    """`strike(kind, …)`: from now on every request of the hot routes has this fault (`match` narrows it)."""

    def strike(kind: str, *, match: dict[str, Any] | None = None, **fault: Any) -> None:
        rules = [{"match": {"path": path} | (match or {}), "fault": {"kind": kind} | fault} for path in ROUTES]
        bed.faults(rules)

    yield strike
    bed.faults([])


@pytest.fixture
def strike(bed: Bed) -> Iterator[Strike]:
    """Faults on the ordinary bed, gone after the test."""
    yield from striker(bed)


@pytest.fixture
def strike_brief(brief: Bed) -> Iterator[Strike]:
    """Faults on the bed with little patience, gone after the test."""
    yield from striker(brief)
