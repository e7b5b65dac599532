# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration of the router: one YAML file, read at start and at SIGHUP, every error listed at once.

Secrets are never settings: a setting names the file (mode 0600) that holds one. Times are in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from sophia.settings import SettingsError, check_secret, read, to_path, under

__all__ = [
    "AffinitySettings",
    "BackendSettings",
    "HealthSettings",
    "OverflowSettings",
    "QueueSettings",
    "Settings",
    "load",
    "secret",
]


class BackendSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A vLLM server. `url` is without `/v1`; `concurrency` is how many requests it has at once at most.

    `models` are served besides those that its own `/v1/models` names: they are known before it has ever answered.
    """

    name: str
    url: str
    concurrency: int = 64
    models: list[str] = []
    key_file: Path | None = None


class AffinitySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prefix affinity. `leading` bytes of a conversation's opening are its key; `bound` and `slack` limit it."""

    enabled: bool = True
    leading: int = 4096
    bound: float = 1.25
    slack: int = 8192


class QueueSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The queue. `requests` wait at most, each for `wait` seconds; `weights` are tenants' shares (1 if not named).

    `output` tokens are assumed for a request that sets no limit.
    """

    requests: int = 512
    wait: float = 30.0
    output: int = 512
    weights: dict[str, float] = {}


class HealthSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Probes, and the breaker over requests: `fall` probes must fail, `failures` in `window` seconds open it."""

    interval: float = 1.0
    timeout: float = 2.0
    fall: int = 2
    failures: int = 5
    window: float = 30.0
    cooldown: float = 5.0


class OverflowSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where requests go that find the local model full or down, if they may.

    `url` ends in `/v1`; `models` maps a local model to the one asked there. After `wait` seconds in the queue a request
    overflows. `unmarked` says whether one without the policy header may.
    """

    url: str
    key_file: Path
    models: dict[str, str]
    wait: float = 1.0
    unmarked: bool = False
    connections: int = 256


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that the router is told. Relative paths are relative to the file's folder.

    `key_file` holds the key that callers must send, None asks for none. `attempts` count only requests that a backend
    may have worked on; a refused connection is tried elsewhere in any case. `head_timeout` is for a stream's first
    piece, `whole_timeout` for an answer that is not streamed, `idle_timeout` for the silence between two pieces.
    """

    listen: str = "127.0.0.1:8081"
    metrics_listen: str = "127.0.0.1:9091"
    state_dir: Path = Path("state")
    backends: list[BackendSettings]
    affinity: AffinitySettings = AffinitySettings()
    queue: QueueSettings = QueueSettings()
    health: HealthSettings = HealthSettings()
    overflow: OverflowSettings | None = None
    key_file: Path | None = None
    attempts: int = 2
    connect_timeout: float = 2.0
    head_timeout: float = 120.0
    whole_timeout: float = 600.0
    idle_timeout: float = 60.0
    drain: float = 60.0
    max_body: int = 20 * 1024 * 1024
    access_log: bool = True
    log_level: str = "info"


def load(path: Path) -> Settings:
    """Read and check the configuration file.

    Raises:
        SettingsError: with every problem at once.
    """
    raw = read(path)
    problems: list[str] = []
    settings = _convert(raw, problems)
    if settings is not None:
        settings = under(path.resolve().parent, settings)
        problems += _check(settings)
    if problems or settings is None:
        raise SettingsError([f"{path}: {problem}" for problem in problems])
    return settings


def secret(path: Path | None) -> str | None:
    """The secret that a file holds; None without a file."""
    return None if path is None else path.read_text(encoding="utf-8").strip()


def _convert(raw: dict[str, Any], problems: list[str]) -> Settings | None:
    """Convert setting by setting, so that one wrong setting does not hide the next."""
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        if name not in fields:
            problems.append(f"{name}: unknown setting; known are {', '.join(sorted(fields))}")
            continue
        try:
            values[name] = msgspec.convert(value, fields[name].type, dec_hook=to_path)
        except msgspec.ValidationError as error:
            problems.append(f"{name}: {error}")
    if "backends" not in raw:
        problems.append("backends: name at least one, with name and url")
    return None if problems else Settings(**values)


def _check(settings: Settings) -> list[str]:
    problems: list[str] = []
    for name in ("listen", "metrics_listen"):
        host, _, port = getattr(settings, name).rpartition(":")
        if not host or not port.isdigit() or int(port) > 65535:
            problems.append(f"{name}: must be HOST:PORT, as 127.0.0.1:8081")
    if settings.key_file is not None:
        problems += check_secret("key_file", settings.key_file)
    problems += _check_backends(settings.backends)
    if settings.affinity.bound < 1:
        problems.append("affinity.bound: must be at least 1: the average itself is always reached")
    if settings.affinity.leading < 1:
        problems.append("affinity.leading: must be at least 1 byte")
    if settings.queue.requests < 1:
        problems.append("queue.requests: must be at least 1")
    problems += [
        f"queue.weights.{tenant}: must be above 0"
        for tenant, weight in settings.queue.weights.items()
        if not weight > 0
    ]
    if settings.overflow is not None:
        problems += _check_url("overflow.url", settings.overflow.url)
        problems += check_secret("overflow.key_file", settings.overflow.key_file)
    if settings.attempts < 1:
        problems.append("attempts: must be at least 1")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        problems.append("log_level: must be debug, info, warning or error")
    return problems


def _check_backends(backends: list[BackendSettings]) -> list[str]:
    problems = [] if backends else ["backends: name at least one, with name and url"]
    names = [backend.name for backend in backends]
    problems += [f"backends: {name!r} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    for backend in backends:
        where = f"backends.{backend.name}"
        problems += _check_url(f"{where}.url", backend.url)
        if backend.concurrency < 1:
            problems.append(f"{where}.concurrency: must be at least 1")
        if backend.key_file is not None:
            problems += check_secret(f"{where}.key_file", backend.key_file)
    return problems


def _check_url(name: str, url: str) -> list[str]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return [f"{name}: must be an http or https URL, as http://vllm-0:8000, not {url!r}"]
    return []
