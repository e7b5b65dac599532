# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures for every unit test of the collection: a server that answers by script, a clock that costs no time."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Seen:
    """One request as it arrived; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Clock:
    """A clock that only sleeping moves."""

    now: float = 1_000.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


Answer = Callable[[BaseHTTPRequestHandler], None]


class Script:
    """A real HTTP server on loopback that gives the answers of a list in turn and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.seen: list[Seen] = []
        self.released = threading.Event()
        script = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                headers = {name.lower(): value for name, value in self.headers.items()}
                script.seen.append(Seen(self.command, self.path, headers, self.rfile.read(length)))
                script.answers.pop(0)(self)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def reply(self, status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        """Add an answer with this status and body."""

        def send(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)

        self.answers.append(send)

    def hang_up(self) -> None:
        """Add no answer at all: the connection is closed after the request was read."""
        self.answers.append(lambda handler: handler.connection.close())

    def stall(self, seconds: float) -> None:
        """Add an answer that begins too late."""
        self.answers.append(lambda handler: self.released.wait(seconds) and None)

    def close(self) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def script() -> Iterator[Script]:
    server = Script()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


ROOT = pathlib.Path(__file__).resolve().parents[2]
REPLICA = ROOT / "tests/integration/targets/setup_openrouter_sandbox/files/replica.py"


class Process:
    """A server of its own process that says where it listens in its first line."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.popen = subprocess.Popen(argv, env={**os.environ, **env}, stdout=subprocess.PIPE, text=True)
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line.startswith("listening on "), f"{argv[1:4]} did not start: {line!r}"
        self.url = line.split()[-1]

    def close(self) -> None:
        self.popen.kill()
        self.popen.wait()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


class Sandbox:
    """The OpenRouter stand-in, with what a test asks it beside the vendor's API."""

    def __init__(self, url: str, management_key: str) -> None:
        self.root = url
        self.url = url + "/api/v1"
        self.management_key = management_key

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call the vendor's API (a path without a slash) or the sandbox's own (with one)."""
        request = urllib.request.Request(
            self.root + path if path.startswith("/") else f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self.management_key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read() or b"null")

    def faults(self, *rules: dict[str, Any]) -> None:
        self.call("POST", "/_sandbox/faults", list(rules))

    def keys(self) -> list[dict[str, Any]]:
        """Return every key but the one the sandbox begins with."""
        found = self.call("GET", "keys?include_disabled=true&include_expired=true")["data"]
        return [key for key in found if key["hash"] not in self.first]

    def reset(self) -> None:
        self.call("POST", "/_sandbox/reset")
        self.first: set[str] = set()
        self.first = {key["hash"] for key in self.keys()}


SANDBOX = pytest.StashKey[Process]()
MANAGEMENT_KEY = "sk-or-v1-" + secrets.token_hex(32)


def sandbox_command() -> tuple[list[str], dict[str, str]] | None:
    """Return how the sandbox is started here: as installed, or from the source beside the collection."""
    if shutil.which("sophia"):
        return ["sophia", "sandbox", "openrouter", "--port", "0"], {}
    source = ROOT / "gateway_src" / "src"
    needed = ("msgspec", "uvicorn", "uvloop", "httptools")
    if not source.is_dir() or any(importlib.util.find_spec(name) is None for name in needed):
        return None
    return [sys.executable, "-m", "sophia.sandbox.openrouter", "--port", "0"], {"PYTHONPATH": str(source)}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the sandbox once, and here: ansible-test forks for every test, so a fixture would start it every time."""
    wanted = any("sandbox" in getattr(item, "fixturenames", ()) for item in session.items)
    command = sandbox_command()
    if wanted and command and not session.config.option.collectonly:
        argv, env = command
        session.config.stash[SANDBOX] = Process(argv, {**env, "OPENROUTER_MANAGEMENT_KEY": MANAGEMENT_KEY})


def pytest_unconfigure(config: pytest.Config) -> None:
    process = config.stash.get(SANDBOX, None)
    if process:
        process.close()


@pytest.fixture
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    """A stand-in for OpenRouter in which nothing has happened yet."""
    process = request.config.stash.get(SANDBOX, None)
    if process is None:
        pytest.skip("the sandbox needs sophia on the path, or gateway_src and its dependencies")
    sandbox = Sandbox(process.url, MANAGEMENT_KEY)
    sandbox.reset()
    return sandbox


@pytest.fixture
def replica(sandbox: Sandbox) -> Iterator[Callable[..., str]]:
    """Start a gateway stand-in on slot files; returns its URL."""
    running: list[Process] = []

    def start(slots: pathlib.Path, **options: float) -> str:
        argv = [sys.executable, str(REPLICA), "--slots", str(slots), "--api", sandbox.url]
        argv += [item for name, value in options.items() for item in (f"--{name}", str(value))]
        running.append(Process(argv, {}))
        return running[-1].url

    yield start
    for process in running:
        process.close()


@dataclass
class Ended:
    """How a module ended: its result, and everything it wrote."""

    result: dict[str, Any]
    output: str

    @property
    def failed(self) -> bool:
        return bool(self.result.get("failed"))


@pytest.fixture
def run_module(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Run a module's main() as Ansible would, in this process."""
    # Not there in every environment that only collects tests.
    from ansible.module_utils.testing import patch_module_args

    def run(module: Any, *, check: bool = False, diff: bool = False, **args: Any) -> Ended:
        capfd.readouterr()
        internal = {"_ansible_check_mode": check, "_ansible_diff": diff, "_ansible_remote_tmp": "/tmp"}
        with patch_module_args({**args, **internal}), pytest.raises(SystemExit):
            module.main()
        out, err = capfd.readouterr()
        return Ended(json.loads(out), out + err)

    return run
