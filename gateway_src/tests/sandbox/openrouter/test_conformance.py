# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers against the vendor's OpenAPI document, which OPENROUTER_OPENAPI names; it is not part of this project."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from .conftest import QUESTION, Account

PATH = os.environ.get("OPENROUTER_OPENAPI")

TOOL = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
    "required": ["city"],
}


class Contract:
    """The document, and whether an answer is what it says."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._paths = document["paths"]
        self._components = document["components"]
        self._validators: dict[str, Any] = {}

    def check(self, method: str, path: str, status: int, body: Any, kind: str = "application/json") -> None:
        """Fail unless `body` is what the operation answers with this status."""
        place = f"{method} {path} {status} {kind}"
        if place not in self._validators:
            schema = self._paths[path][method]["responses"][str(status)]["content"][kind]["schema"]
            self._validators[place] = jsonschema_rs.validator_for({**schema, "components": self._components})
        failures = [
            f"{list(error.instance_path)}: {error.message}" for error in self._validators[place].iter_errors(body)
        ]
        assert not failures, (place, failures[:5])


@pytest.fixture(scope="module")
def contract() -> Contract:
    assert PATH is not None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Contract(yaml.load(Path(PATH).read_text(), Loader=loader))


async def test_chat(account: Account, contract: Contract) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather", "parameters": TOOL}}]
    for body in (
        {},
        {"model": "anthropic/claude-sonnet-4.5", "reasoning": {"effort": "low"}, "n": 2},
        {"model": "openai/gpt-5", "tools": tools, "tool_choice": "required"},
        {"max_tokens": 3},
    ):
        answer = await account.chat(**body)
        contract.check("post", "/chat/completions", 200, answer.json())
        stream = await account.chat(**body, stream=True)
        chunks = list(events(stream.text))
        assert len(chunks) > 2
        for chunk in chunks:
            contract.check("post", "/chat/completions", 200, {"data": chunk}, "text/event-stream")


async def test_responses(account: Account, contract: Contract) -> None:
    tools = [{"type": "function", "name": "get_weather", "parameters": TOOL, "strict": None}]
    for body in (
        {"model": "openai/gpt-5-mini"},
        {"model": "openai/gpt-4o", "tools": tools, "tool_choice": "required"},
        {"model": "openai/gpt-4o", "max_output_tokens": 4},
    ):
        body = body | {"input": "What is the weather in Paris?"}
        answer = await account.user.post("/responses", json=body)
        contract.check("post", "/responses", 200, answer.json())
        stream = await account.user.post("/responses", json=body | {"stream": True})
        for event in events(stream.text):
            contract.check("post", "/responses", 200, {"data": event}, "text/event-stream")


async def test_messages(account: Account, contract: Contract) -> None:
    tools = [{"name": "get_weather", "input_schema": TOOL}]
    for body in (
        {"thinking": {"type": "enabled", "budget_tokens": 50}},
        {"tools": tools, "tool_choice": {"type": "any"}},
        {"max_tokens": 3},
    ):
        body = {"model": "anthropic/claude-haiku-4.5", "max_tokens": 500, "messages": QUESTION} | body
        answer = await account.user.post("/messages", json=body)
        contract.check("post", "/messages", 200, answer.json())
        stream = await account.user.post("/messages", json=body | {"stream": True})
        names = [line.removeprefix("event: ") for line in stream.text.splitlines() if line.startswith("event: ")]
        for name, event in zip(names, events(stream.text), strict=True):
            contract.check("post", "/messages", 200, {"event": name, "data": event}, "text/event-stream")


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 502, 503, 524, 529])
async def test_errors(account: Account, contract: Contract, status: int) -> None:
    account.user.headers["x-sandbox-fault"] = f"status:{status}"
    answer = await account.chat()
    contract.check("post", "/chat/completions", status, answer.json())
    if status in (400, 401, 403, 404, 429, 500, 503, 529):
        body = {"model": "openai/gpt-4o", "max_tokens": 9, "messages": QUESTION}
        contract.check("post", "/messages", status, (await account.user.post("/messages", json=body)).json())


async def test_models(account: Account, contract: Contract) -> None:
    for path in ("/models", "/models/user", "/models/count", "/embeddings/models", "/endpoints/zdr", "/providers"):
        contract.check("get", path, 200, (await account.user.get(path)).json())
    for slug in ("openai/gpt-4o", "deepseek/deepseek-r1", "openrouter/auto"):
        shown = await account.user.get(f"/models/{slug}/endpoints")
        contract.check("get", "/models/{author}/{slug}/endpoints", 200, shown.json())
        contract.check("get", "/model/{author}/{slug}", 200, (await account.user.get(f"/model/{slug}")).json())


async def test_embeddings(account: Account, contract: Contract) -> None:
    for encoding in ("float", "base64"):
        body = {"model": "openai/text-embedding-3-small", "input": ["one", "two"], "encoding_format": encoding}
        contract.check("post", "/embeddings", 200, (await account.user.post("/embeddings", json=body)).json())


async def test_keys(account: Account, contract: Contract) -> None:
    manager = account.manager
    made = await manager.post("/keys", json={"name": "a", "limit": 0, "expires_at": "2040-01-01T00:00:00Z"})
    contract.check("post", "/keys", 201, made.json())
    path = f"/keys/{made.json()['data']['hash']}"
    contract.check("get", "/keys", 200, (await manager.get("/keys")).json())
    contract.check("get", "/keys/{hash}", 200, (await manager.get(path)).json())
    contract.check("patch", "/keys/{hash}", 200, (await manager.patch(path, json={"disabled": True})).json())
    contract.check("delete", "/keys/{hash}", 200, (await manager.delete(path)).json())
    contract.check("delete", "/keys/{hash}", 404, (await manager.delete(path)).json())
    contract.check("get", "/key", 200, (await account.user.get("/key")).json())
    contract.check("post", "/keys", 403, (await account.user.post("/keys", json={"name": "a"})).json())


async def test_accounting(account: Account, contract: Contract) -> None:
    generation = (await account.chat(user="u")).json()["id"]
    missing = await account.user.get("/generation", params={"id": generation})
    contract.check("get", "/generation", 404, missing.json())
    account.clock.now += 86_400
    shown = await account.user.get("/generation", params={"id": generation})
    contract.check("get", "/generation", 200, shown.json())
    activity = (await account.manager.get("/activity")).json()
    assert len(activity["data"]) == 1
    contract.check("get", "/activity", 200, activity)
    contract.check("get", "/credits", 200, (await account.manager.get("/credits")).json())
    contract.check("get", "/analytics/meta", 200, (await account.manager.get("/analytics/meta")).json())
    query = {"metrics": ["request_count", "total_usage"], "dimensions": ["model"], "granularity": "day"}
    answer = await account.manager.post("/analytics/query", json=query)
    contract.check("post", "/analytics/query", 200, answer.json())


async def test_guardrails_and_workspaces(account: Account, contract: Contract) -> None:
    manager = account.manager
    made = await manager.post("/guardrails", json={"name": "g", "limit_usd": 5, "reset_interval": "daily"})
    contract.check("post", "/guardrails", 201, made.json())
    path = f"/guardrails/{made.json()['data']['id']}"
    key_hash = (await manager.get("/keys")).json()["data"][0]["hash"]
    assigned = await manager.post(f"{path}/assignments/keys", json={"key_hashes": [key_hash]})
    contract.check("post", "/guardrails/{id}/assignments/keys", 200, assigned.json())
    every = await manager.get("/guardrails/assignments/keys")
    assert every.json()["total_count"] == 1
    contract.check("get", "/guardrails/assignments/keys", 200, every.json())
    contract.check("get", "/key", 200, (await account.user.get("/key")).json())
    contract.check("get", "/guardrails", 200, (await manager.get("/guardrails")).json())
    contract.check("patch", "/guardrails/{id}", 200, (await manager.patch(path, json={"name": "h"})).json())
    removed = await manager.post(f"{path}/assignments/keys/remove", json={"key_hashes": [key_hash]})
    contract.check("post", "/guardrails/{id}/assignments/keys/remove", 200, removed.json())
    contract.check("delete", "/guardrails/{id}", 200, (await manager.delete(path)).json())
    workspace = await manager.post("/workspaces", json={"name": "W", "slug": "w"})
    contract.check("post", "/workspaces", 201, workspace.json())
    contract.check("get", "/workspaces", 200, (await manager.get("/workspaces")).json())
    contract.check("get", "/workspaces/{id}", 200, (await manager.get("/workspaces/w")).json())


def events(text: str) -> Iterator[Any]:
    """The JSON of a stream's events, without the end mark."""
    for line in text.splitlines():
        if line.startswith("data: ") and line != "data: [DONE]":
            yield json.loads(line.removeprefix("data: "))
