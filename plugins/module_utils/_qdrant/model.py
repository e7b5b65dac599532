# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Collections as data: what is taken over from one to the other, and in what two differ. Nothing here talks to a server."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

# The server's default, in kB (config/config.yaml of its repository); 0 builds no index at all.
INDEXING_THRESHOLD = 10_000

# Where the members of a collection's configuration go in the request that makes one.
_PARAMS = (
    "vectors",
    "sparse_vectors",
    "shard_number",
    "sharding_method",
    "replication_factor",
    "write_consistency_factor",
    "on_disk_payload",
)
_PARAMS_LATER = ("read_fan_out_factor", "read_fan_out_delay_ms")
_SECTIONS = {
    "hnsw_config": "hnsw_config",
    "optimizer_config": "optimizers_config",
    "wal_config": "wal_config",
    "quantization_config": "quantization_config",
    "strict_mode_config": "strict_mode_config",
    "metadata": "metadata",
}


@dataclass(frozen=True)
class Collection:
    """A collection as it was seen."""

    name: str
    config: dict[str, Any]
    schema: dict[str, Any]
    points: int
    status: str = "green"
    shard_keys: tuple[Any, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Any, ...]:
        """The shard keys to go through; one None where there are none."""
        return self.shard_keys or (() if self.custom else (None,))

    @property
    def custom(self) -> bool:
        return bool(self.config.get("params", {}).get("sharding_method") == "custom")

    @property
    def indexing_threshold(self) -> int:
        found = self.config.get("optimizer_config", {}).get("indexing_threshold")
        return INDEXING_THRESHOLD if found is None else int(found)


@dataclass(frozen=True)
class Difference:
    """A member of the configuration that is not the same."""

    path: str
    source: Any
    target: Any

    def as_result(self) -> dict[str, Any]:
        return {"path": self.path, "source": self.source, "target": self.target}


def read(name: str, info: dict[str, Any], shard_keys: list[Any], points: int, aliases: dict[str, str]) -> Collection:
    """Return what the server said of a collection."""
    schema = {name: {key: item[key] for key in ("data_type", "params") if item.get(key)} for name, item in info.get("payload_schema", {}).items()}
    return Collection(
        name=name,
        config=info["config"],
        schema=schema,
        points=points,
        status=info.get("status", "green"),
        shard_keys=tuple(shard_keys),
        aliases=tuple(sorted(alias for alias, meant in aliases.items() if meant == name)),
    )


def creation(source: Collection) -> dict[str, Any]:
    """Return the request that makes a collection of the same configuration, its index switched off for the copy."""
    body = {name: source.config["params"][name] for name in _PARAMS if source.config["params"].get(name) is not None}
    for section, name in _SECTIONS.items():
        given = _pruned(source.config.get(section))
        if given:
            body[name] = given
    body["optimizers_config"] = {**body.get("optimizers_config", {}), "indexing_threshold": 0}
    return _pruned(body)


def later(source: Collection) -> dict[str, Any]:
    """Return what only a change of an existing collection can set."""
    params = source.config["params"]
    return {name: params[name] for name in _PARAMS_LATER if params.get(name) is not None}


def index_schema(index: dict[str, Any]) -> Any:
    """Return a payload index as the request that makes it takes it."""
    params = _pruned(index.get("params"))
    return {**params, "type": index["data_type"]} if params else index["data_type"]


def differences(source: Collection, target: Collection, *, copying: bool = False) -> list[Difference]:
    """Return in what two collections' configurations differ; ``copying``: the target's index is off for now."""
    one, other = _comparable(source), _comparable(target)
    if copying and target.indexing_threshold == 0:
        other["optimizer_config"]["indexing_threshold"] = one["optimizer_config"]["indexing_threshold"]
    found = list(_walk("", one, other))
    if set(source.shard_keys) - set(target.shard_keys) and not copying:
        found.append(Difference("shard_keys", list(source.shard_keys), list(target.shard_keys)))
    if set(target.shard_keys) - set(source.shard_keys):
        found.append(Difference("shard_keys", list(source.shard_keys), list(target.shard_keys)))
    return found


def schema_differences(source: Collection, target: Collection) -> list[Difference]:
    """Return in what the payload indexes differ."""
    names = sorted(set(source.schema) | set(target.schema))
    return [
        Difference(f"payload_schema.{name}", index_or_none(source, name), index_or_none(target, name))
        for name in names
        if index_or_none(source, name) != index_or_none(target, name)
    ]


def index_or_none(collection: Collection, name: str) -> Any:
    """Return a payload index in one form, whether it was made with parameters or without."""
    index = collection.schema.get(name)
    return None if index is None else index_schema(index)


def config_hash(source: Collection) -> str:
    """Return a word that changes with the configuration."""
    text = json.dumps([_comparable(source), source.schema], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True)
class Vectors:
    """The vectors of a collection by kind, for sampling."""

    dense: dict[str, dict[str, Any]] = field(default_factory=dict)
    sparse: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        return [*self.dense, *self.sparse]


def vectors(collection: Collection) -> Vectors:
    """Return which vectors a collection has; the unnamed one has the empty name."""
    given = collection.config["params"].get("vectors") or {}
    dense = {"": given} if "size" in given else given
    return Vectors(dense, tuple(collection.config["params"].get("sparse_vectors") or {}))


def _comparable(collection: Collection) -> dict[str, Any]:
    config: dict[str, Any] = _pruned(collection.config)
    config.setdefault("optimizer_config", {})["indexing_threshold"] = collection.indexing_threshold
    # A collection made before sharding methods existed says none where it means `auto`.
    config["params"].setdefault("sharding_method", "auto")
    return config


def _pruned(value: Any) -> Any:
    """Return the value without members that are null: whether they are written differs by server version."""
    if isinstance(value, dict):
        return {name: _pruned(item) for name, item in value.items() if item is not None}
    return value


def _walk(path: str, one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted(set(one) | set(other)):
            yield from _walk(f"{path}.{name}" if path else name, one.get(name), other.get(name))
    elif one != other:
        yield Difference(path, one, other)
