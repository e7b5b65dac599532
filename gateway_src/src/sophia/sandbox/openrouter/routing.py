# SPDX-License-Identifier: GPL-3.0-or-later
"""From the models and preferences of a request to the endpoints that may serve it. No I/O, no state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from .ask import NO_PREFERENCES, Ask, MaxPrice, Preferences
from .catalogue import Catalogue, Endpoint, Model
from .errors import VendorError, unavailable
from .records import Guardrail

__all__ = ["Candidate", "auto_model", "candidates", "exclusion", "visible"]

MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One model at one endpoint; `router` is the router model that chose it."""

    model: Model
    endpoint: Endpoint
    router: str | None = None


def candidates(catalogue: Catalogue, ask: Ask, guardrail: Guardrail | None, now: float) -> list[Candidate]:
    """One candidate a model, in the order of the request. Raises the last model's `VendorError` when there is none."""
    found: list[Candidate] = []
    failure: VendorError | None = None
    for slug in ask.models:
        try:
            found.append(_candidate(catalogue, slug, ask, guardrail, now))
        except VendorError as error:
            failure = error
    if not found:
        raise failure or VendorError(400, "No models provided", error_type="invalid_request")
    return found


def auto_model(catalogue: Catalogue, ask: Ask) -> Model:
    """What `openrouter/auto` chooses: a coder for code, a strong model for long questions, a cheap one for the rest."""
    question = ask.question
    cheap, quick, coder, strong = catalogue.auto_candidates
    if ask.images or ask.tools:
        chosen = quick
    elif "```" in question or "function" in question or "code" in question:
        chosen = coder
    else:
        chosen = strong if len(question) > 2000 else cheap
    return catalogue.models[chosen]


def visible(model: Model, guardrail: Guardrail | None) -> bool:
    """Whether a key with this guardrail may use a model at all."""
    if guardrail is None:
        return True
    allowed = guardrail.settings.get("allowed_models")
    ignored = guardrail.settings.get("ignored_models") or ()
    names = {model.id, model.entry.canonical_slug}
    return (allowed is None or not names.isdisjoint(allowed)) and names.isdisjoint(ignored)


def _candidate(catalogue: Catalogue, slug: str, ask: Ask, guardrail: Guardrail | None, now: float) -> Candidate:
    name, _, variant = slug.partition(":")
    shortcut = {"nitro": "throughput", "floor": "price"}.get(variant)
    model = catalogue.find(name if shortcut else slug)
    if model is None:
        raise unavailable(400, "model_not_found", f"{slug} is not a valid model ID", [slug])
    router = None
    if not model.endpoints:
        router, model = model.id, auto_model(catalogue, ask)
    if model.is_embedding != ask.embeds:
        use = "/embeddings" if model.is_embedding else "/chat/completions"
        raise unavailable(400, "wrong_endpoint", f"{slug} cannot be used here; use {use}", [slug])
    if not visible(model, guardrail):
        text = "No endpoints available matching your guardrail restrictions and data policy."
        raise unavailable(404, "constraint_filtered", text, [slug])
    if expired(model, now):
        raise unavailable(404, "model_deprecated", f"{slug} is no longer available.", [slug])
    return Candidate(model, _endpoint(model, ask, guardrail, slug, shortcut), router)


def expired(model: Model, now: float) -> bool:
    """Whether a model's last day has passed."""
    last = model.entry.expiration_date
    return last is not None and datetime.fromtimestamp(now, tz=UTC).date().isoformat() > last


def _endpoint(model: Model, ask: Ask, guardrail: Guardrail | None, slug: str, shortcut: str | None) -> Endpoint:
    preferences = ask.preferences
    if preferences is NO_PREFERENCES and guardrail is None and shortcut is None:
        return model.endpoints[0]
    excluded: list[str] = []
    left: list[Endpoint] = []
    for endpoint in model.endpoints:
        reason = exclusion(model, endpoint, preferences, guardrail, ask.parameters)
        if reason is None:
            left.append(endpoint)
        elif reason not in excluded:
            excluded.append(reason)
    if preferences.order and left:
        left = _ordered(left, preferences)
        if not left:
            excluded.append("allowed_providers")
    if not left:
        text = f"No endpoints found for {slug} that match your provider preferences: {', '.join(excluded)}."
        raise unavailable(404, "constraint_filtered", text, [slug], excluded_by=excluded)
    by = shortcut or _sort(preferences)
    if by is not None and not preferences.order:
        left.sort(key=_MEASURES[by])
    return left[0]


def exclusion(
    model: Model, endpoint: Endpoint, preferences: Preferences, guardrail: Guardrail | None, parameters: Sequence[str]
) -> str | None:
    """Why an endpoint may not serve, in the vocabulary of `availability.excluded_by`; None when it may."""
    settings = {} if guardrail is None else guardrail.settings
    allowed = settings.get("allowed_providers")
    if allowed is not None and not _named(endpoint, allowed):
        return "allowed_providers"
    if _named(endpoint, settings.get("ignored_providers") or ()):
        return "allowed_providers"
    if (preferences.zdr or _zdr_enforced(model, settings)) and not endpoint.provider.zdr:
        return "data_policy:zdr"
    if preferences.only is not None and not _named(endpoint, preferences.only):
        return "allowed_providers"
    if preferences.ignore and _named(endpoint, preferences.ignore):
        return "allowed_providers"
    if preferences.data_collection == "deny" and endpoint.trains:
        return "data_policy:training"
    if preferences.quantizations and (endpoint.quantization or "unknown") not in preferences.quantizations:
        return "quantization"
    if preferences.max_price is not None and _dearer(endpoint, preferences.max_price):
        return "max_price"
    if preferences.require_parameters and not set(parameters) <= set(model.entry.supported_parameters):
        return "require_parameters"
    return None


def _ordered(endpoints: list[Endpoint], preferences: Preferences) -> list[Endpoint]:
    order = [name.lower() for name in preferences.order or ()]
    first = [endpoint for name in order for endpoint in endpoints if _named(endpoint, (name,))]
    if preferences.allow_fallbacks is False:
        return first
    return first + [endpoint for endpoint in endpoints if endpoint not in first]


def _named(endpoint: Endpoint, names: Sequence[str]) -> bool:
    wanted = {name.lower() for name in names}
    provider = endpoint.provider
    return not wanted.isdisjoint((provider.slug, provider.name.lower(), endpoint.tag))


def _zdr_enforced(model: Model, settings: dict[str, object]) -> bool:
    author = model.id.partition("/")[0]
    family = {"anthropic": "anthropic", "openai": "openai", "google": "google", "x-ai": "xai"}.get(author, "other")
    return bool(settings.get("enforce_zdr") or settings.get(f"enforce_zdr_{family}"))


def _dearer(endpoint: Endpoint, most: MaxPrice) -> bool:
    pricing = endpoint.pricing
    return (
        _exceeds(pricing.prompt, most.prompt, MILLION)
        or _exceeds(pricing.completion, most.completion, MILLION)
        or _exceeds(pricing.request, most.request, Decimal(1))
        or _exceeds(pricing.image, most.image, Decimal(1))
    )


def _exceeds(price: str | None, most: str | float | None, unit: Decimal) -> bool:
    return price is not None and most is not None and Decimal(price) * unit > Decimal(str(most))


def _sort(preferences: Preferences) -> str | None:
    by = preferences.sort.get("by") if isinstance(preferences.sort, dict) else preferences.sort
    return by if by in _MEASURES else None


def _price(endpoint: Endpoint) -> Decimal:
    return Decimal(endpoint.pricing.prompt) + Decimal(endpoint.pricing.completion)


def _latency(endpoint: Endpoint) -> float:
    return endpoint.ttft


def _slowness(endpoint: Endpoint) -> float:
    return -endpoint.tokens_per_second


_MEASURES: dict[str, Callable[[Endpoint], Decimal | float]] = {
    "price": _price,
    "latency": _latency,
    "throughput": _slowness,
}
