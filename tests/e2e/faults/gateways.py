# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateways before the wall: each before the same stand-in, with two candidates a request and the same time-outs.

Ours gets the candidates with the request (`models`; on `/v1/chat` through the key's models), LiteLLM through `fallbacks`
of its router, Portkey through the `fallback` strategy of its configuration header. All may try a candidate again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.gateway.peers import Contender, answers, portkey, running
from tests.e2e.account import account
from tests.e2e.bed import Bed, free_port
from tests.e2e.faults.cases import DEADLINE, PATIENCE, Case
from tests.e2e.faults.look import body

__all__ = ["EMBEDDING", "LANES", "Gateway", "Lane", "litellm_gateway", "portkey_gateway", "sophia_gateway"]


@dataclass(frozen=True)
class Lane:
    """The candidates of one case, which no other uses at the same time: the first, and the second where there is one."""

    models: tuple[str, ...]
    key: str = ""


# A first is a lane's own; one second serves two lanes, of which one streams and the other does not.
LANES = (
    Lane(("google/gemini-2.5-flash-image", "anthropic/claude-sonnet-4.5")),
    Lane(("google/gemini-2.5-flash", "mistralai/mistral-small-3.2-24b-instruct")),
    Lane(("deepseek/deepseek-chat-v3.1", "qwen/qwen3-235b-a22b")),
    Lane(("openai/gpt-4o", "anthropic/claude-sonnet-4.5")),
    Lane(("anthropic/claude-opus-4.5", "meta-llama/llama-3.3-70b-instruct")),
    Lane(("google/gemini-2.5-flash-lite", "meta-llama/llama-3.1-8b-instruct")),
    Lane(("qwen/qwen3-coder", "mistralai/codestral-2508")),
    Lane(("openai/gpt-4o-mini", "anthropic/claude-haiku-4.5")),
)
SECOND_KEY = "sk-or-v1-" + "5" * 64
EMBEDDING = Lane(("openai/text-embedding-3-small",))


class Gateway:
    """One gateway and its own stand-in. `routes` are those that are tried. `exact`: it has to answer with our status
    codes, and by our order of candidates; of a peer it is enough that the answer is of the right kind."""

    name = ""
    version = ""
    routes: tuple[str, ...] = ()
    streams = True
    exact = False

    def __init__(self, bed: Bed, url: str) -> None:
        self.bed = bed
        self.url = url

    def lane(self, lane: Lane) -> Lane:
        """A lane, ready for use."""
        return lane

    def request(self, case: Case, lane: Lane, identity: str) -> tuple[dict[str, str], dict[str, Any]]:
        """Headers and body of a case's request."""
        raise NotImplementedError

    def takes(self, case: Case) -> bool:
        """Whether the gateway is tried with a case."""
        return case.route in self.routes and (self.streams or not case.stream)

    def fresh(self) -> None:
        """Forget what earlier faults have left behind."""

    def account(self) -> list[str]:
        """What is wrong with the gateway's own books against what was billed."""
        return []

    def first(self, case: Case, lane: Lane) -> str:
        """The model that is tried first."""
        return lane.models[0]


class Sophia(Gateway):
    """This project's. `bed` holds it."""

    name, version, exact = "sophia", "this tree", True
    routes = ("chat/completions", "responses", "messages", "chat", "embeddings")

    def __init__(self, bed: Bed) -> None:
        super().__init__(bed, bed.url)
        self._order: dict[str, str] = {}

    def lane(self, lane: Lane) -> Lane:
        """With a key of its own, which may use the lane's models only."""
        name = lane.models[0].replace("/", "-").replace(".", "-")
        return Lane(lane.models, self.bed.tenant(name, models=list(lane.models)))

    def request(self, case: Case, lane: Lane, identity: str) -> tuple[dict[str, str], dict[str, Any]]:
        """The candidates come with the request; `/v1/chat` chooses among the key's models."""
        content = body(case, self.first(case, lane))
        if case.route not in ("chat", "embeddings"):
            content["models"] = list(lane.models)
        headers = {"authorization": f"Bearer {lane.key}", "x-request-id": identity, "x-sophia-cache": "off"}
        return headers, content

    def fresh(self) -> None:
        """Start anew: keys that were put aside count again."""
        self.bed.stop_gateway()
        self.bed.start_gateway()

    def account(self) -> list[str]:
        """The ledger."""
        return account(self.bed)

    def first(self, case: Case, lane: Lane) -> str:
        """On `/v1/chat`, what the plan puts first: asked once."""
        if case.route != "chat":
            return super().first(case, lane)
        if lane.key not in self._order:
            answer = self.bed.call("POST", f"{self.url}/v1/chat", body(case, "") | {"stream": False}, lane.key)
            self._order[lane.key] = answer["model"]
        return self._order[lane.key]


@contextmanager
def sophia_gateway(folder: Path) -> Iterator[Sophia]:
    """Ours, with two OpenRouter keys, and breakers and retry budget out of the way: each case stands for itself."""
    second = folder / "secondary.key"
    second.touch(mode=0o600)
    second.write_text(SECOND_KEY)
    bed = Bed(
        folder,
        upstream={
            "head_timeout": PATIENCE,
            "idle_timeout": PATIENCE,
            "settled_after": 2.0,
            "key_files": {"primary": "primary.key", "secondary": "secondary.key"},
        },
        dispatch={"deadline": DEADLINE, "attempts": 4, "retry_budget": 1.0, "breaker_failures": 1_000_000},
    )
    try:
        bed.start_sandbox("--generation-delay", "0.1")
        _second_key(bed)
        bed.start_gateway()
        yield Sophia(bed)
    finally:
        bed.close()


def _second_key(bed: Bed) -> None:
    bed.call("POST", f"{bed.sandbox_url}/_sandbox/seed", {"keys": [{"key": SECOND_KEY}]})


class LiteLlm(Gateway):
    """LiteLLM's proxy."""

    name = "LiteLLM"
    routes = ("chat/completions", "embeddings")

    def request(self, case: Case, lane: Lane, identity: str) -> tuple[dict[str, str], dict[str, Any]]:
        """The router's fallbacks are in its configuration."""
        return {"authorization": "Bearer sk-wall"}, body(case, self.first(case, lane))


@contextmanager
def litellm_gateway(folder: Path, environment: Path) -> Iterator[LiteLlm]:
    """LiteLLM with two keys, a retry, fallbacks between a lane's models, and no cool-downs."""
    bed = Bed(folder)
    port = free_port()
    base = f"{bed.sandbox_url}/api/v1"
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_base": base, "api_key": key}}
        for lane in (*LANES, EMBEDDING)
        for name in lane.models
        for key in (bed.upstream_key, SECOND_KEY)
    ]
    fallbacks = [{lane.models[0]: [lane.models[1]]} for lane in LANES]
    configuration = {
        "model_list": models,
        "general_settings": {"master_key": "sk-wall"},
        "litellm_settings": {"telemetry": False, "request_timeout": PATIENCE, "num_retries": 1, "drop_params": True},
        "router_settings": {
            "fallbacks": fallbacks,
            "context_window_fallbacks": fallbacks,
            "timeout": PATIENCE,
            "stream_timeout": PATIENCE,
            "disable_cooldowns": True,
        },
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(configuration))
    command = [environment / "bin/litellm", "--config", path, "--port", str(port), "--host", "127.0.0.1"]
    try:
        bed.start_sandbox()
        _second_key(bed)
        log = folder / "litellm.log"
        with running([str(word) for word in command], log, LITELLM_LOG="ERROR", LITELLM_LOCAL_MODEL_COST_MAP="True"):
            url = f"http://127.0.0.1:{port}"
            probe = Contender("LiteLLM", "", f"{url}/v1/chat/completions", {"authorization": "Bearer sk-wall"})
            answers(probe, 180)
            gateway = LiteLlm(bed, url)
            gateway.version = _version(environment)
            yield gateway
    finally:
        bed.close()


def _version(environment: Path) -> str:
    found = next(environment.glob("lib/python*/site-packages/litellm-*.dist-info"))
    return found.name.split("-")[1].removesuffix(".dist")


class Portkey(Gateway):
    """Portkey's gateway. Its streams are not tried: 1.15.2 answers each with a 500 (`TypeError: immutable`) on Node.js
    20.20 and 24.19 behind this stand-in."""

    name = "Portkey"
    streams = False
    routes = ("chat/completions", "embeddings")

    def request(self, case: Case, lane: Lane, identity: str) -> tuple[dict[str, str], dict[str, Any]]:
        """Candidates, retries and time-outs come in a header."""
        targets = [
            {
                "provider": "openai",
                "api_key": key,
                "custom_host": f"{self.bed.sandbox_url}/api/v1",
                "override_params": {"model": model},
                "retry": {"attempts": 1},
                "request_timeout": int(PATIENCE * 1000),
            }
            for model in lane.models
            for key in (self.bed.upstream_key, SECOND_KEY)
        ]
        config = {"strategy": {"mode": "fallback"}, "targets": targets}
        return {"x-portkey-config": json.dumps(config)}, body(case, self.first(case, lane))


@contextmanager
def portkey_gateway(folder: Path, modules: Path) -> Iterator[Portkey]:
    """Portkey as its package starts it."""
    bed = Bed(folder)
    try:
        bed.start_sandbox()
        _second_key(bed)
        with portkey(folder, bed.sandbox_port, modules, bed.upstream_key) as contender:
            gateway = Portkey(bed, contender.url.removesuffix("/v1/chat/completions"))
            gateway.version = contender.version
            yield gateway
    finally:
        bed.close()
