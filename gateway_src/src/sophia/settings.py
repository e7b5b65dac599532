# SPDX-License-Identifier: GPL-3.0-or-later
"""Configuration of the gateway: one YAML file, read once, every error listed at once.

Secrets are never settings: a setting names the file (mode 0600) that holds one. An environment variable
``SOPHIA_<SECTION>__<NAME>`` overrides the file (as ``SOPHIA_STORES__REDIS``).

::

    SettingsError      every problem found, one line each
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
import yaml

__all__ = [
    "BudgetSettings",
    "CacheSettings",
    "DispatchSettings",
    "IdempotencySettings",
    "KeyFiles",
    "Settings",
    "SettingsError",
    "StoreSettings",
    "TelemetrySettings",
    "UpstreamSettings",
    "check_secret",
    "load",
    "read",
    "to_path",
    "under",
]


T = TypeVar("T")


class SettingsError(Exception):
    """The configuration is not usable; `problems` has one line for every error found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class KeyFiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The two slots of the OpenRouter key (rotation fills one while the other serves)."""

    primary: Path
    secondary: Path | None = None


class UpstreamSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OpenRouter, or what stands in for it. Times in seconds.

    An attempt that OpenRouter's records do not show `settled_after` seconds after its end was not billed.
    """

    base_url: str = "https://openrouter.ai/api/v1"
    key_files: KeyFiles = KeyFiles(Path("keys/primary"))
    management_key_file: Path | None = None
    connect_timeout: float = 5.0
    head_timeout: float = 120.0
    idle_timeout: float = 60.0
    settled_after: float = 900.0
    connections: int = 1000
    client: str = "http1"
    referer: str = ""
    title: str = "Sophia"


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where state lives. `database` is a SQLAlchemy-like URL: ``sqlite:////path`` or ``postgresql://…``.

    `redis` None keeps reservations, rates, caches and signals in process: one worker only.
    `password_file` replaces the password of the database URL.
    """

    database: str = ""
    redis: str | None = None
    database_password_file: Path | None = None
    redis_password_file: Path | None = None


class DispatchSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Attempts and deadlines. Times in seconds; `retry_budget` is the share of requests that may be retried,
    `hedge_share` that of a tenant's requests that may be doubled when they are late, where the flag `hedge` is on.

    Once `upstream.connections` are taken, at most `queue` requests wait (of each class), `queue_wait` each; `weights`
    are the organisations' shares then, by identifier, 1 for who is not named."""

    deadline: float = 300.0
    attempts: int = 4
    retry_budget: float = 0.2
    hedge_share: float = 0.05
    queue: int = 1000
    queue_wait: float = 10.0
    weights: dict[str, float] = {}
    breaker_failures: int = 5
    breaker_window: float = 30.0
    breaker_cooldown: float = 15.0


class BudgetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How reservations are sized. `wait` is how long a request waits for others' reservations to settle (s)."""

    wait: float = 10.0
    output_share: float = 0.25
    output_floor: int = 256


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Exact and semantic cache. `ttl` in seconds; `embedder` is local, provider or off.

    `decision` says when a near answer is served: `learned`, once checks have proven for its `learn_by` (partition or
    organization) that at most the share `delta` of such answers is wrong, with the chance `confidence`, looking at
    neighbours from `floor` on and checking the share `shadow` of hits for good; or `static`, from `similarity` on.
    """

    enabled: bool = True
    ttl: float = 3600.0
    decision: str = "learned"
    similarity: float = 0.95
    delta: float = 0.01
    confidence: float = 0.95
    shadow: float = 0.05
    floor: float = 0.8
    learn_by: str = "partition"
    embedder: str = "off"
    local_model: str | None = None
    embed_timeout: float = 0.5
    embedding_model: str = "openai/text-embedding-3-small"
    entries: int = 100_000
    max_bytes: int = 256 * 1024 * 1024


class IdempotencySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Answers kept for idempotency keys: `retention` in seconds; `max_answer` bytes each, `max_bytes` of one tenant."""

    retention: float = 86_400.0
    max_answer: int = 1024 * 1024
    max_bytes: int = 64 * 1024 * 1024


class TelemetrySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """OpenTelemetry export; off without an endpoint (OTLP over HTTP)."""

    otlp_endpoint: str | None = None
    service_name: str = "openrouter-gateway"
    sample_ratio: float = 1.0


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that the gateway is told. Relative paths are relative to the file's folder."""

    listen: str = "127.0.0.1:8080"
    metrics_listen: str = "127.0.0.1:9090"
    state_dir: Path = Path("state")
    admin_key_file: Path | None = None
    models_file: Path | None = None
    flags_file: Path | None = None
    upstream: UpstreamSettings = UpstreamSettings()
    stores: StoreSettings = StoreSettings()
    dispatch: DispatchSettings = DispatchSettings()
    budget: BudgetSettings = BudgetSettings()
    cache: CacheSettings = CacheSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    workers: int = 1
    drain: float = 30.0
    max_body: int = 20 * 1024 * 1024
    requests_per_minute: int = 100
    catalogue_refresh: float = 300.0
    log_level: str = "info"


def load(path: Path, environment: Mapping[str, str] | None = None) -> Settings:
    """Read and check the configuration file.

    Raises:
        SettingsError: with every problem at once.
    """
    environment = os.environ if environment is None else environment
    raw = read(path)
    problems: list[str] = []
    _override(raw, environment, problems)
    settings = _convert(raw, problems)
    if settings is not None:
        settings = _resolve(settings, path.resolve().parent)
        problems += _check(settings)
    if problems or settings is None:
        raise SettingsError([f"{path}: {problem}" for problem in problems])
    return settings


def read(path: Path) -> dict[str, Any]:
    """The mapping of settings in a YAML file.

    Raises:
        SettingsError: there is none.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsError([f"{path}: {error.strerror}: give an existing file with --config"]) from error
    except yaml.YAMLError as error:
        raise SettingsError([f"{path}: not YAML: {error}"]) from error
    if not isinstance(raw, dict):
        raise SettingsError([f"{path}: the top level must be a mapping of settings"])
    return raw


def _override(raw: dict[str, Any], environment: Mapping[str, str], problems: list[str]) -> None:
    for name, value in environment.items():
        if not name.startswith("SOPHIA_") or "KEY" in name.split("__")[-1].split("_")[:1]:
            continue
        steps = name.removeprefix("SOPHIA_").lower().split("__")
        known: Any = Settings
        for step in steps:
            fields = {field.name: field.type for field in msgspec.structs.fields(known)} if _is_struct(known) else {}
            if step not in fields:
                break
            known = fields[step]
        else:
            target = raw
            for step in steps[:-1]:
                target = target.setdefault(step, {})
            target[steps[-1]] = yaml.safe_load(value)
            continue
        if len(steps) > 1:
            problems.append(f"environment variable {name}: no setting {'.'.join(steps)}")


def _is_struct(known: Any) -> bool:
    return isinstance(known, type) and issubclass(known, msgspec.Struct)


def _convert(raw: dict[str, Any], problems: list[str]) -> Settings | None:
    """Convert section by section, so that one wrong setting does not hide the next."""
    sections = {field.name: field for field in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}
    for name, value in raw.items():
        field = sections.get(name)
        if field is None:
            problems.append(f"{name}: unknown setting; known are {', '.join(sorted(sections))}")
            continue
        before = len(problems)
        if _is_struct(field.type) and isinstance(value, dict):
            value = _convert_section(name, field.type, value, problems)
        if len(problems) == before:
            try:
                values[name] = msgspec.convert(value, field.type, dec_hook=to_path)
            except msgspec.ValidationError as error:
                problems.append(f"{name}: {error}")
    return None if problems else Settings(**values)


def _convert_section(section: str, kind: type[msgspec.Struct], raw: dict[str, Any], problems: list[str]) -> Any:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    for name, value in raw.items():
        if name not in fields:
            problems.append(f"{section}.{name}: unknown setting; known are {', '.join(sorted(fields))}")
            continue
        try:
            msgspec.convert(value, fields[name].type, dec_hook=to_path)
        except msgspec.ValidationError as error:
            problems.append(f"{section}.{name}: {error}")
    return raw


def to_path(kind: type, value: Any) -> Any:
    """msgspec's `dec_hook` for settings: a text as a path, `~` expanded."""
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise msgspec.ValidationError(f"Expected a path, got {type(value).__name__}")


def under(base: Path, value: T) -> T:
    """A value with every relative path in it taken from the folder `base`."""
    found: Any = value
    if isinstance(value, Path):
        found = base / value
    elif isinstance(value, msgspec.Struct):
        found = msgspec.structs.replace(value, **{f: under(base, getattr(value, f)) for f in value.__struct_fields__})
    elif isinstance(value, list):
        found = [under(base, item) for item in value]
    return cast("T", found)


def _resolve(settings: Settings, base: Path) -> Settings:
    resolved = under(base, settings)
    if not resolved.stores.database:
        database = f"sqlite:///{resolved.state_dir / 'gateway.db'}"
        stores = msgspec.structs.replace(resolved.stores, database=database)
        resolved = msgspec.structs.replace(resolved, stores=stores)
    return resolved


def _check(settings: Settings) -> list[str]:
    problems: list[str] = []
    for name in ("listen", "metrics_listen"):
        problems += _check_address(name, getattr(settings, name))
    if urlsplit(settings.upstream.base_url).scheme not in ("http", "https"):
        problems.append("upstream.base_url: must be an http or https URL, as https://openrouter.ai/api/v1")
    if settings.upstream.client not in ("http1", "pyreqwest", "aiohttp"):
        problems.append("upstream.client: must be http1, pyreqwest or aiohttp")
    problems += check_secret("upstream.key_files.primary", settings.upstream.key_files.primary)
    for name, secret in (
        ("upstream.management_key_file", settings.upstream.management_key_file),
        ("admin_key_file", settings.admin_key_file),
        ("stores.database_password_file", settings.stores.database_password_file),
        ("stores.redis_password_file", settings.stores.redis_password_file),
    ):
        if secret is not None:
            problems += check_secret(name, secret)
    for name, file in (("models_file", settings.models_file), ("flags_file", settings.flags_file)):
        if file is not None and not file.is_file():
            problems.append(f"{name}: no file {file}")
    problems += _check_stores(settings)
    if settings.cache.embedder not in ("local", "provider", "off"):
        problems.append("cache.embedder: must be local, provider or off")
    if settings.idempotency.retention < settings.dispatch.deadline:
        problems.append("idempotency.retention: must be at least dispatch.deadline, or a key ends before its request")
    if not 0 <= settings.dispatch.hedge_share <= 1:
        problems.append("dispatch.hedge_share: must be from 0 to 1")
    if settings.cache.decision not in ("learned", "static"):
        problems.append("cache.decision: must be learned or static")
    if settings.cache.learn_by not in ("partition", "organization"):
        problems.append("cache.learn_by: must be partition or organization")
    for name in ("similarity", "floor"):
        if not 0 < getattr(settings.cache, name) <= 1:
            problems.append(f"cache.{name}: must be above 0 and at most 1")
    for name in ("delta", "confidence", "shadow"):
        if not 0 < getattr(settings.cache, name) < 1:
            problems.append(f"cache.{name}: must be above 0 and below 1")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        problems.append("log_level: must be debug, info, warning or error")
    return problems


def _check_address(name: str, value: str) -> list[str]:
    host, _, port = value.rpartition(":")
    if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        return [f"{name}: must be HOST:PORT, as 127.0.0.1:8080, not {value!r}"]
    return []


def check_secret(name: str, path: Path) -> list[str]:
    """What is wrong with the file of a secret, a line each; `name` is the setting that names it."""
    try:
        mode = path.stat().st_mode
        content = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        return [f"{name}: {path}: {error.strerror}; write the secret there with mode 0600"]
    problems = []
    if mode & (stat.S_IRWXG | stat.S_IRWXO) & ~stat.S_IRGRP:
        problems.append(f"{name}: {path} can be read by others; chmod 0600 it")
    if not content:
        problems.append(f"{name}: {path} is empty")
    return problems


def _check_stores(settings: Settings) -> list[str]:
    scheme = urlsplit(settings.stores.database).scheme
    problems = []
    if scheme not in ("sqlite", "postgresql"):
        problems.append("stores.database: must start with sqlite:/// or postgresql://")
    if settings.stores.redis is not None and urlsplit(settings.stores.redis).scheme not in ("redis", "rediss", "unix"):
        problems.append("stores.redis: must start with redis://, rediss:// or unix://")
    if settings.workers < 1:
        problems.append("workers: must be at least 1")
    if settings.workers > 1 and (scheme != "postgresql" or settings.stores.redis is None):
        problems.append(
            f"workers: {settings.workers} workers need shared stores, or each would keep its own budgets and limits: "
            "set stores.database to postgresql://… and stores.redis, or workers to 1"
        )
    return problems
