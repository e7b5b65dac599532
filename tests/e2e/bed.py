# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway and an OpenRouter stand-in as real processes, in a folder of their own, on free ports."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Bed", "free_port"]

_START_SECONDS = 60.0


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Bed:
    """Start with `start_sandbox` and `start_gateway`; `close` ends whatever runs.

    `settings` are laid over the gateway's configuration.
    """

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.port, self.metrics_port, self.sandbox_port = free_port(), free_port(), free_port()
        self.gateway: subprocess.Popen[bytes] | None = None
        self.sandbox: subprocess.Popen[bytes] | None = None
        self.admin_key = "sk-sophia-" + secrets.token_urlsafe(32)
        self.upstream_key = "sk-or-v1-" + secrets.token_hex(32)
        self.management_key = "sk-or-v1-" + secrets.token_hex(32)
        for name, secret in (
            ("admin", self.admin_key),
            ("primary", self.upstream_key),
            ("management", self.management_key),
        ):
            path = folder / f"{name}.key"
            path.touch(mode=0o600)
            path.write_text(secret)
        configuration: dict[str, Any] = {
            "listen": f"127.0.0.1:{self.port}",
            "metrics_listen": f"127.0.0.1:{self.metrics_port}",
            "state_dir": "state",
            "admin_key_file": "admin.key",
            "log_level": "warning",
            "requests_per_minute": 1_000_000,
            "upstream": {
                "base_url": f"http://127.0.0.1:{self.sandbox_port}/api/v1",
                "key_files": {"primary": "primary.key"},
                "management_key_file": "management.key",
                "settled_after": 3.0,
            },
        }
        for section, values in settings.items():
            if isinstance(values, dict):
                configuration.setdefault(section, {}).update(values)
            else:
                configuration[section] = values
        self.config = folder / "gateway.yml"
        self.config.write_text(yaml.safe_dump(configuration))

    @property
    def url(self) -> str:
        """The gateway."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def sandbox_url(self) -> str:
        """The stand-in, without `/api/v1`."""
        return f"http://127.0.0.1:{self.sandbox_port}"

    def start_sandbox(self, *options: str) -> None:
        """Start the stand-in and wait until it answers."""
        command = [
            *("sandbox", "openrouter", "--port", str(self.sandbox_port)),
            *("--key-file", str(self.folder / "primary.key")),
            *("--management-key-file", str(self.folder / "management.key")),
            *options,
        ]
        self.sandbox = self._start("sandbox", command)
        self._wait(self.sandbox, "sandbox", f"{self.sandbox_url}/_sandbox/truth?summary=1")

    def start_gateway(self, *, ready: bool = True) -> None:
        """Start the gateway; wait until it is ready."""
        self.gateway = self._start("gateway", ["serve", "gateway", "--config", str(self.config)])
        if ready:
            self._wait(self.gateway, "gateway", f"{self.url}/health/ready")

    def kill_gateway(self) -> None:
        """SIGKILL to the parent and every worker at once: nothing gets to say goodbye."""
        if self.gateway is not None:
            os.killpg(self.gateway.pid, signal.SIGKILL)
            self.gateway.wait()

    def stop_gateway(self) -> int:
        """SIGTERM, and wait; the exit status."""
        assert self.gateway is not None
        self.gateway.terminate()
        return self.gateway.wait(timeout=60)

    def close(self) -> None:
        """End whatever runs."""
        for process in (self.gateway, self.sandbox):
            if process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def call(self, method: str, url: str, body: Any = None, key: str | None = None) -> Any:
        """A JSON request; raises `urllib.error.HTTPError`."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """A request to the management API as the platform's administrator."""
        return self.call(method, f"{self.url}/admin/v1{path}", body, self.admin_key)

    def tenant(
        self,
        name: str,
        budgets: dict[str, str] | None = None,
        limits: dict[str, int] | None = None,
        everywhere: dict[str, str] | None = None,
        models: list[str] | None = None,
    ) -> str:
        """Make an organisation (with `budgets`), a team, a user and a key (with `everywhere`); the key's secret.

        The key may use `models`, or all.
        """
        below = {"budgets": everywhere or {}}
        organization = self.admin("POST", "/organizations", {"name": name, "budgets": budgets or {}})["id"]
        team = self.admin("POST", "/teams", {"name": "team", "organization": organization} | below)["id"]
        person = {"name": "user", "email": f"user@{name}.test", "organization": organization, "team": team}
        user = self.admin("POST", "/users", person | below)["id"]
        key = {"name": "key", "user": user, "limits": limits or {"requests_per_minute": 1_000_000}} | below
        if models is not None:
            key["models"] = models
        secret: str = self.admin("POST", "/keys", key)["secret"]
        return secret

    def faults(self, rules: list[dict[str, Any]]) -> None:
        """Set the stand-in's faults."""
        self.call("POST", f"{self.sandbox_url}/_sandbox/faults", rules)

    def truth(self, summary: bool = False) -> Any:
        """What the stand-in has billed."""
        return self.call("GET", f"{self.sandbox_url}/_sandbox/truth" + ("?summary=1" if summary else ""))

    def _start(self, name: str, arguments: list[str]) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "sophia", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _wait(self, process: subprocess.Popen[bytes], name: str, url: str) -> None:
        end = time.monotonic() + _START_SECONDS
        while time.monotonic() < end:
            with suppress(OSError, urllib.error.URLError):
                self.call("GET", url)
                return
            if process.poll() is not None:
                break
            time.sleep(0.05)
        log = (self.folder / f"{name}.log").read_text(errors="replace")[-4000:]
        raise RuntimeError(f"the {name} did not start:\n{log}")
