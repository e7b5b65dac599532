# SPDX-License-Identifier: GPL-3.0-or-later
"""What is measured: each gateway as a process on core 0, before the same upstream on core 1.

The upstream is nginx with one fixed answer of a chat's size, so that no gateway waits for it. Every contender gets the
same request and is asked to do what it does for it: ours with keys, rate limits, budgets on four levels, the durable
ledger and metrics on; LiteLLM with its key check and no database; Portkey and nginx without any of these.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.bed import Bed, free_port

__all__ = ["ANSWER", "MODEL", "QUESTION", "Contender", "contenders", "models", "pinned", "running", "upstream"]

Start = Callable[[Path, int], AbstractContextManager["Contender"]]

MODEL = "openai/gpt-4o-mini"
QUESTION = "Tell me about load tests, what they show and what they hide. " * 11
ANSWER = {
    "id": "gen-1795500169-kjkFwNzRHvdJgzDq7vL0",
    "provider": "OpenAI",
    "model": MODEL,
    "object": "chat.completion",
    "created": 1795500169,
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "native_finish_reason": "stop",
            "message": {
                "role": "assistant",
                "content": "A load test shows how a system answers when many ask at once. It hides what only time shows.",
                "refusal": None,
            },
            "logprobs": None,
        }
    ],
    "usage": {"prompt_tokens": 150, "completion_tokens": 40, "total_tokens": 190, "cost": 0.0000465},
}


@dataclass
class Contender:
    """A running gateway. `pids` are its processes, for memory and CPU time."""

    name: str
    version: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    pids: list[int] = field(default_factory=list)

    def body(self) -> bytes:
        """The request."""
        return json.dumps(
            {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": QUESTION}]}
        ).encode()


def pinned(core: int, *command: str | Path) -> list[str]:
    """A command bound to one core."""
    return ["taskset", "-c", str(core), *map(str, command)]


@contextmanager
def running(command: list[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process and its children, ended at the end."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            env=os.environ | environment,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def children(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for name in found:
        with suppress(OSError):
            for task in Path(f"/proc/{name}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def answers(contender: Contender, seconds: float = 90.0) -> None:
    """Return once the contender answers the request rightly.

    Raises:
        RuntimeError: it does not in time.
    """
    request = urllib.request.Request(
        contender.url, contender.body(), {"content-type": "application/json"} | contender.headers
    )
    end = time.monotonic() + seconds
    last = "nothing"
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                if json.loads(answer.read())["choices"][0]["message"]["content"]:
                    return
        except urllib.error.HTTPError as error:
            last = f"{error.code}: {error.read()[:300]!r}"
        except (OSError, ValueError, KeyError) as error:
            last = repr(error)
        time.sleep(0.3)
    raise RuntimeError(f"{contender.name} does not answer: {last}")


_NGINX = """
{user} worker_processes 1; daemon off; error_log {folder}/{name}.err; pid {folder}/{name}.pid;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 100000000; client_body_buffer_size 128k;
  client_body_temp_path {folder}/{name}-body; proxy_temp_path {folder}/{name}-proxy;
  fastcgi_temp_path {folder}/{name}-f; uwsgi_temp_path {folder}/{name}-u; scgi_temp_path {folder}/{name}-s;
  {rest}
}}
"""


# As root, nginx would serve as somebody who cannot read our folder.
_USER = "user root;" if os.geteuid() == 0 else ""


@contextmanager
def upstream(folder: Path) -> Iterator[int]:
    """The fixed answer on core 1; its port."""
    port = free_port()
    answer = json.dumps(ANSWER).replace("'", "\\'")
    listing = folder / "models.json"
    listing.write_bytes(models(folder))
    rest = (
        f"server {{ listen 127.0.0.1:{port} backlog=4096;"
        f" location = /api/v1/models {{ default_type application/json; alias {listing}; }}"
        f" location / {{ default_type application/json; add_header X-Generation-Id {ANSWER['id']};"
        f" return 200 '{answer}'; }} }}"
    )
    config = folder / "upstream.conf"
    config.write_text(_NGINX.format(user=_USER, folder=folder, name="upstream", rest=rest))
    with running(pinned(1, shutil.which("nginx") or "nginx", "-c", config), folder / "upstream.log"):
        time.sleep(0.5)
        yield port


def models(folder: Path) -> bytes:
    """OpenRouter's list of models, as the stand-in serves it."""
    home = folder / "models"
    home.mkdir()
    bed = Bed(home)
    try:
        bed.start_sandbox()
        return json.dumps(bed.call("GET", f"{bed.sandbox_url}/api/v1/models?output_modalities=all")).encode()
    finally:
        bed.close()


def nginx(folder: Path, upstream_port: int) -> AbstractContextManager[Contender]:
    """The yardstick: plain `proxy_pass`, nothing parsed, nothing decided."""
    return _proxy(folder, "nginx", f"location / {{ proxy_pass http://127.0.0.1:{upstream_port}/api; }}", "")


def nginx_keepalive(folder: Path, upstream_port: int) -> AbstractContextManager[Contender]:
    """The same with kept-alive connections to the upstream: what a proxy can do at best."""
    upstreams = f"upstream up {{ server 127.0.0.1:{upstream_port}; keepalive 256; keepalive_requests 100000000; }}"
    location = 'location / { proxy_pass http://up/api; proxy_http_version 1.1; proxy_set_header Connection ""; }'
    return _proxy(folder, "nginx-keepalive", location, upstreams)


@contextmanager
def _proxy(folder: Path, name: str, location: str, upstreams: str) -> Iterator[Contender]:
    port = free_port()
    rest = f"{upstreams} server {{ listen 127.0.0.1:{port} backlog=4096; {location} }}"
    config = folder / f"{name}.conf"
    config.write_text(_NGINX.format(user=_USER, folder=folder, name=name, rest=rest))
    program = shutil.which("nginx") or "nginx"
    version = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr.split("/")[-1].strip()
    with running(pinned(0, program, "-c", config), folder / f"{name}.log") as process:
        contender = Contender(name, version, f"http://127.0.0.1:{port}/v1/chat/completions", {}, [])
        answers(contender)
        contender.pids = children(process.pid)
        yield contender


@contextmanager
def sophia(folder: Path, upstream_port: int) -> Iterator[Contender]:
    """The gateway, everything on."""
    home = folder / "sophia"
    home.mkdir()
    bed = Bed(home, upstream={"base_url": f"http://127.0.0.1:{upstream_port}/api/v1", "connections": 6000})
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {0})
    try:
        bed.start_gateway()
    finally:
        os.sched_setaffinity(0, before)
    try:
        budgets = {"day": "1000000", "week": "1000000", "month": "1000000"}
        key = bed.tenant("bench", budgets, everywhere=budgets)
        contender = Contender(
            "sophia", "this tree", f"{bed.url}/v1/chat/completions", {"authorization": f"Bearer {key}"}
        )
        answers(contender)
        assert bed.gateway is not None
        contender.pids = children(bed.gateway.pid)
        yield contender
    finally:
        bed.close()


@contextmanager
def litellm(folder: Path, upstream_port: int, environment: Path) -> Iterator[Contender]:
    """LiteLLM's proxy with one worker and a master key."""
    port = free_port()
    config = folder / "litellm.yaml"
    parameters = f"{{model: {MODEL}, api_base: 'http://127.0.0.1:{upstream_port}/api/v1', api_key: none}}"
    config.write_text(
        f"model_list: [{{model_name: {MODEL}, litellm_params: {parameters}}}]\n"
        "general_settings: {master_key: sk-bench}\nlitellm_settings: {telemetry: false}\n"
    )
    program = environment / "bin/litellm"
    command = pinned(0, program, "--config", config, "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1")
    version = subprocess.run(
        [environment / "bin/python", "-c", "from importlib.metadata import version as v; print(v('litellm'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()
    with running(command, folder / "litellm.log", LITELLM_LOG="ERROR", LITELLM_LOCAL_MODEL_COST_MAP="True") as process:
        headers = {"authorization": "Bearer sk-bench"}
        contender = Contender("LiteLLM", version, f"http://127.0.0.1:{port}/v1/chat/completions", headers)
        answers(contender, 180)
        contender.pids = children(process.pid)
        yield contender


@contextmanager
def portkey(folder: Path, upstream_port: int, modules: Path, key: str = "none") -> Iterator[Contender]:
    """Portkey's gateway; `key` is the upstream's."""
    port = free_port()
    package = modules / "node_modules/@portkey-ai/gateway"
    version = json.loads((package / "package.json").read_text())["version"]
    command = pinned(0, "node", package / "build/start-server.js", f"--port={port}", "--headless")
    with running(command, folder / "portkey.log", NODE_ENV="production") as process:
        headers = {
            "authorization": f"Bearer {key}",
            "x-portkey-provider": "openai",
            "x-portkey-custom-host": f"http://127.0.0.1:{upstream_port}/api/v1",
        }
        contender = Contender("Portkey", version, f"http://127.0.0.1:{port}/v1/chat/completions", headers)
        answers(contender)
        contender.pids = children(process.pid)
        yield contender


def contenders(names: list[str], cache: Path) -> list[Start]:
    """The contenders asked for, as functions of a folder and the upstream's port."""
    known: dict[str, Start] = {
        "nginx": nginx,
        "nginx-keepalive": nginx_keepalive,
        "sophia": sophia,
        "litellm": lambda folder, port: litellm(folder, port, cache / "litellm"),
        "portkey": lambda folder, port: portkey(folder, port, cache / "portkey"),
    }
    unknown = set(names) - set(known)
    if unknown:
        sys.exit(f"no such contender: {', '.join(sorted(unknown))}; known are {', '.join(known)}")
    return [known[name] for name in names]
