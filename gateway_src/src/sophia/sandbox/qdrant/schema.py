# SPDX-License-Identifier: GPL-3.0-or-later
"""A collection's configuration: as a request gives it, as the server reports it, as the engine takes it.

The defaults are the server's (config/config.yaml and the OpenAPI document of its repository).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import qdrant_edge as edge

from .errors import wrong

__all__ = ["CreateCollection", "UpdateCollection", "changed", "edge_config", "index_params", "initial"]

Json = dict[str, Any]

HNSW: Json = {"m": 16, "ef_construct": 100, "full_scan_threshold": 10000, "max_indexing_threads": 0, "on_disk": False}
OPTIMIZERS: Json = {
    "deleted_threshold": 0.2,
    "vacuum_min_vector_number": 1000,
    "default_segment_number": 0,
    "max_segment_size": None,
    "memmap_threshold": None,
    "indexing_threshold": 10000,
    "flush_interval_sec": 5,
    "max_optimization_threads": None,
}
WAL: Json = {"wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1}


class CreateCollection(msgspec.Struct, kw_only=True):
    """The body of `PUT /collections/{name}`."""

    vectors: Json = {}
    sparse_vectors: dict[str, Json] | None = None
    shard_number: int | None = None
    sharding_method: str | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    on_disk_payload: bool | None = None
    hnsw_config: Json | None = None
    wal_config: Json | None = None
    optimizers_config: Json | None = None
    quantization_config: Json | None = None
    strict_mode_config: Json | None = None
    metadata: Json | None = None


class UpdateCollection(msgspec.Struct, kw_only=True):
    """The body of `PATCH /collections/{name}`: what is not given stays."""

    vectors: dict[str, Json] | None = None
    sparse_vectors: dict[str, Json] | None = None
    optimizers_config: Json | None = None
    params: Json | None = None
    hnsw_config: Json | None = None
    quantization_config: Json | str | None = None
    strict_mode_config: Json | None = None
    metadata: Json | None = None


def initial(body: CreateCollection) -> Json:
    """The configuration of a new collection. Raises `ServiceError` 400."""
    params: Json = {"vectors": body.vectors, "shard_number": body.shard_number or 1}
    if body.sharding_method is not None:
        if body.sharding_method not in ("auto", "custom"):
            raise wrong(f"unknown sharding method {body.sharding_method}")
        params["sharding_method"] = body.sharding_method
    params["replication_factor"] = body.replication_factor or 1
    params["write_consistency_factor"] = body.write_consistency_factor or 1
    params["on_disk_payload"] = True if body.on_disk_payload is None else body.on_disk_payload
    if body.sparse_vectors:
        params["sparse_vectors"] = body.sparse_vectors
    config: Json = {
        "params": params,
        "hnsw_config": HNSW | _given(body.hnsw_config),
        "optimizer_config": OPTIMIZERS | _given(body.optimizers_config),
        "wal_config": WAL | _given(body.wal_config),
        "quantization_config": body.quantization_config,
    }
    if body.strict_mode_config is not None:
        config["strict_mode_config"] = body.strict_mode_config
    if body.metadata is not None:
        config["metadata"] = body.metadata
    return config


def changed(config: Json, body: UpdateCollection) -> Json:
    """The configuration after an update. Raises `ServiceError` 400 for a vector that is not there."""
    after: Json = {**config, "params": {**config["params"], **_given(body.params)}}
    after["hnsw_config"] = config["hnsw_config"] | _given(body.hnsw_config)
    after["optimizer_config"] = config["optimizer_config"] | _given(body.optimizers_config)
    if body.quantization_config is not None:
        disabled = body.quantization_config == "Disabled"
        after["quantization_config"] = None if disabled else body.quantization_config
    if body.strict_mode_config is not None:
        after["strict_mode_config"] = {**config.get("strict_mode_config", {}), **body.strict_mode_config}
    if body.metadata is not None:
        after["metadata"] = {**config.get("metadata", {}), **body.metadata}
    for name, diff in (body.vectors or {}).items():
        after["params"]["vectors"] = _with_vector(after["params"]["vectors"], name, diff)
    for name, diff in (body.sparse_vectors or {}).items():
        sparse = after["params"].get("sparse_vectors", {})
        if name not in sparse:
            raise wrong(f"Not existing vector name error: {name}")
        after["params"]["sparse_vectors"] = {**sparse, name: {**sparse[name], **_given(diff)}}
    return after


def _with_vector(vectors: Json, name: str, diff: Json) -> Json:
    single = "size" in vectors
    if single and name == "":
        return {**vectors, **_given(diff)}
    if single or name not in vectors:
        raise wrong(f"Not existing vector name error: {name}")
    return {**vectors, name: {**vectors[name], **_given(diff)}}


def _given(diff: Mapping[str, Any] | None) -> Json:
    return {name: value for name, value in (diff or {}).items() if value is not None}


def dense(config: Json) -> dict[str, Json]:
    """The dense vectors by name; the unnamed one is the empty name."""
    vectors: Json = config["params"]["vectors"]
    return {"": vectors} if "size" in vectors else vectors


def edge_config(config: Json) -> edge.EdgeConfig:
    """The engine's configuration. Raises `ServiceError` 400."""
    try:
        sparse: dict[str, Json] = config["params"].get("sparse_vectors") or {}
        optimizers = config["optimizer_config"]
        return edge.EdgeConfig(
            vectors={name: _vector(given) for name, given in dense(config).items()},
            sparse_vectors={name: _sparse(given) for name, given in sparse.items()},
            on_disk_payload=config["params"]["on_disk_payload"],
            hnsw_config=_hnsw(config["hnsw_config"], HNSW),
            quantization_config=_quantization(config["quantization_config"]),
            optimizers=edge.EdgeOptimizersConfig(
                deleted_threshold=optimizers["deleted_threshold"],
                vacuum_min_vector_number=optimizers["vacuum_min_vector_number"],
                default_segment_number=optimizers["default_segment_number"] or None,
                max_segment_size=optimizers["max_segment_size"],
                indexing_threshold=optimizers["indexing_threshold"],
            ),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise wrong(f"configuration: {type(error).__name__}: {error}") from error


def _vector(given: Json) -> edge.EdgeVectorParams:
    multi = given.get("multivector_config")
    hnsw = given.get("hnsw_config")
    return edge.EdgeVectorParams(
        size=given["size"],
        distance=getattr(edge.Distance, given["distance"]),
        on_disk=given.get("on_disk"),
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if multi else None,
        datatype=_datatype(given.get("datatype")),
        quantization_config=_quantization(given.get("quantization_config")),
        hnsw_config=_hnsw(hnsw, HNSW) if hnsw else None,
    )


def _sparse(given: Json) -> edge.EdgeSparseVectorParams:
    index = given.get("index") or {}
    return edge.EdgeSparseVectorParams(
        full_scan_threshold=index.get("full_scan_threshold"),
        on_disk=index.get("on_disk"),
        modifier=edge.Modifier.Idf if given.get("modifier") == "idf" else None,
        datatype=_datatype(index.get("datatype")),
    )


def _datatype(name: str | None) -> edge.VectorStorageDatatype | None:
    found: edge.VectorStorageDatatype | None = getattr(edge.VectorStorageDatatype, name.capitalize()) if name else None
    return found


def _hnsw(given: Json, default: Json) -> edge.HnswIndexConfig:
    full = default | _given(given)
    return edge.HnswIndexConfig(
        m=full["m"],
        ef_construct=full["ef_construct"],
        full_scan_threshold=full["full_scan_threshold"],
        max_indexing_threads=full["max_indexing_threads"],
        on_disk=full["on_disk"],
        payload_m=full.get("payload_m"),
        inline_storage=full.get("inline_storage"),
    )


def _quantization(given: Json | None) -> Any:
    if not given:
        return None
    ((kind, options),) = given.items()
    ram = options.get("always_ram")
    if kind == "scalar":
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, options.get("quantile"), ram)
    if kind == "product":
        return edge.ProductQuantizationConfig(getattr(edge.CompressionRatio, options["compression"].upper()), ram)
    if kind == "binary":
        encoding = {"one_bit": "OneBit", "two_bits": "TwoBits", "one_and_half_bits": "OneAndHalfBits"}
        name = options.get("encoding")
        return edge.BinaryQuantizationConfig(
            ram, getattr(edge.BinaryQuantizationEncoding, encoding[name]) if name else None
        )
    raise wrong(f"quantization {kind} is not served by this stand-in")


_INDEXES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "keyword": (edge.KeywordIndexParams, ("is_tenant", "on_disk", "enable_hnsw", "prefix")),
    "integer": (edge.IntegerIndexParams, ("lookup", "range", "is_principal", "on_disk", "enable_hnsw")),
    "float": (edge.FloatIndexParams, ("is_principal", "on_disk", "enable_hnsw")),
    "geo": (edge.GeoIndexParams, ("on_disk", "enable_hnsw")),
    "bool": (edge.BoolIndexParams, ("on_disk", "enable_hnsw")),
    "datetime": (edge.DatetimeIndexParams, ("is_principal", "on_disk", "enable_hnsw")),
    "uuid": (edge.UuidIndexParams, ("is_tenant", "on_disk", "enable_hnsw")),
    "text": (
        edge.TextIndexParams,
        ("min_token_len", "max_token_len", "lowercase", "ascii_folding", "phrase_matching", "on_disk", "enable_hnsw"),
    ),
}


def index_params(schema: Json | str) -> tuple[str, Json | None, Any]:
    """Return type, parameters as given, and the engine's parameters of a payload index. Raises `ServiceError` 400."""
    given: Json = {} if isinstance(schema, str) else schema
    kind = schema if isinstance(schema, str) else str(schema.get("type"))
    if kind not in _INDEXES:
        raise wrong(f"unknown payload index type {kind}")
    make, names = _INDEXES[kind]
    values = {name: given[name] for name in names if given.get(name) is not None}
    unserved = sorted({n for n, v in given.items() if v is not None} - {*names, "type", "tokenizer", "stopwords"})
    if unserved:
        raise wrong(f"index parameters not served by this stand-in: {', '.join(unserved)}")
    try:
        if given.get("tokenizer"):
            values["tokenizer"] = getattr(edge.TokenizerType, given["tokenizer"].capitalize())
        if given.get("stopwords"):
            values["stopwords"] = _stopwords(given["stopwords"])
        return kind, given or None, make(**values)
    except (TypeError, ValueError, AttributeError) as error:
        raise wrong(f"payload index: {error}") from error


def _stopwords(given: Json | str) -> Any:
    if isinstance(given, str):
        return getattr(edge.Language, given.capitalize())
    languages = {getattr(edge.Language, name.capitalize()) for name in given.get("languages") or []}
    return edge.StopwordsSet(languages, set(given.get("custom") or []))
