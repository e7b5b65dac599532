# SPDX-License-Identifier: GPL-3.0-or-later
"""The models, their endpoints and the providers, read from `catalogue.json`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib import resources

import msgspec

from .billing import Pricing, Rates, rates

__all__ = ["Catalogue", "Endpoint", "Model", "Provider", "load"]


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """Who serves a model. `supports_cancel`: stops billing when the client goes (docs: API reference, "Streaming")."""

    slug: str
    name: str
    supports_cancel: bool
    zdr: bool
    headquarters: str
    datacenters: list[str]


class EndpointEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint as `catalogue.json` writes it; what is null is as in the model."""

    provider: str
    quantization: str | None = None
    ttft_ms: float = 0.0
    tokens_per_second: float = 0.0
    pricing: Pricing | None = None
    max_completion_tokens: int | None = None
    supports_cancel: bool | None = None
    trains: bool = False


class Reasoning(msgspec.Struct, frozen=True, kw_only=True):
    """ModelReasoning."""

    mandatory: bool
    default_enabled: bool
    default_effort: str
    supported_efforts: list[str]
    supports_max_tokens: bool


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model as `catalogue.json` writes it. `created` is seconds since the epoch, dates are YYYY-MM-DD."""

    id: str
    canonical_slug: str
    name: str
    created: int
    description: str
    context_length: int
    max_completion_tokens: int | None
    input_modalities: list[str]
    output_modalities: list[str]
    tokenizer: str
    instruct_type: str | None
    is_moderated: bool
    pricing: Pricing
    supported_parameters: list[str]
    reasoning: Reasoning | None
    knowledge_cutoff: str | None
    hugging_face_id: str | None
    expiration_date: str | None
    voice: str
    endpoints: list[EndpointEntry]
    embedding_dimensions: int | None = None


class Document(msgspec.Struct, frozen=True):
    """The whole of `catalogue.json`."""

    providers: list[Provider]
    auto_candidates: list[str]
    models: list[ModelEntry]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A model at a provider: what a request is sent to, priced by and paced as. `rates` are those that never change."""

    provider: Provider
    tag: str
    pricing: Pricing
    rates: Rates | None
    quantization: str | None
    max_completion_tokens: int
    supports_cancel: bool
    trains: bool
    ttft: float
    tokens_per_second: float


@dataclass(frozen=True)
class Model:
    """A catalogue entry with its endpoints resolved."""

    entry: ModelEntry
    endpoints: tuple[Endpoint, ...]

    @cached_property
    def id(self) -> str:
        """The slug that requests name."""
        return self.entry.id

    @cached_property
    def is_embedding(self) -> bool:
        """Whether the model answers `/embeddings` and not the chat endpoints."""
        return "embeddings" in self.entry.output_modalities

    @cached_property
    def is_free(self) -> bool:
        """Whether this is a `:free` variant, with its own rate limits."""
        return self.entry.id.endswith(":free")


@dataclass(frozen=True)
class Catalogue:
    """All models by slug, in the order of the file; `auto_candidates` are what `openrouter/auto` chooses from."""

    models: dict[str, Model]
    providers: dict[str, Provider]
    auto_candidates: tuple[str, ...]

    def find(self, slug: str) -> Model | None:
        """The model that a slug names; a canonical slug names it too."""
        return self.models.get(slug) or self._canonical.get(slug)

    @cached_property
    def _canonical(self) -> dict[str, Model]:
        return {model.entry.canonical_slug: model for model in reversed(self.models.values())}


def load(document: bytes | None = None) -> Catalogue:
    """Read a catalogue, by default the packaged one. Raises `msgspec.ValidationError` for one that is wrong."""
    if document is None:
        document = resources.files(__package__).joinpath("catalogue.json").read_bytes()
    parsed = msgspec.json.decode(document, type=Document)
    providers = {provider.slug: provider for provider in parsed.providers}
    models = {entry.id: Model(entry, _endpoints(entry, providers)) for entry in parsed.models}
    return Catalogue(models, providers, tuple(parsed.auto_candidates))


def _endpoints(entry: ModelEntry, providers: dict[str, Provider]) -> tuple[Endpoint, ...]:
    return tuple(_endpoint(entry, endpoint, providers[endpoint.provider]) for endpoint in entry.endpoints)


def _endpoint(model: ModelEntry, entry: EndpointEntry, provider: Provider) -> Endpoint:
    pricing = entry.pricing or model.pricing
    longest = entry.max_completion_tokens or model.max_completion_tokens or model.context_length
    cancels = provider.supports_cancel if entry.supports_cancel is None else entry.supports_cancel
    return Endpoint(
        provider=provider,
        tag=provider.slug if entry.quantization is None else f"{provider.slug}/{entry.quantization}",
        pricing=pricing,
        rates=None if pricing.overrides else rates(pricing, 0, 0.0),
        quantization=entry.quantization,
        max_completion_tokens=longest,
        supports_cancel=cancels,
        trains=entry.trains,
        ttft=entry.ttft_ms / 1000,
        tokens_per_second=entry.tokens_per_second,
    )
