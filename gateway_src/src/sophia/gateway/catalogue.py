# SPDX-License-Identifier: GPL-3.0-or-later
"""The models that may be used: OpenRouter's `GET /models` joined with `models.yml`, as one immutable snapshot.

What cannot be read is left out with a reason, never guessed: one odd entry spoils neither the rest nor the snapshot
before it. A snapshot that could not be renewed stays in force; its age is for a metric.

::

    CatalogueError     the body is no list of models, or holds none that can be used: keep the snapshot before
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from sophia.gateway.judge import KINDS
from sophia.gateway.prices import MaxPrice, Priced, PriceError, listed_max_price, read_prices
from sophia.gateway.rules import Ceiling, ModelRule, Rules, matches
from sophia.stores.model import Principal

__all__ = ["Catalogue", "CatalogueError", "Found", "Model", "Rated", "Shelf", "Skipped", "build", "read_models"]

VARIANTS = {"nitro": "throughput", "floor": "price", "exacto": "exacto", "online": None}
"""Suffixes that are in no listing (OpenRouter, "Model variants"): what each means for `provider.sort`.

``:online`` adds the web plugin, which `prices.Load` must count as a search.
"""

_DEFAULT_IMAGE_TOKENS = 16_384
_POLICIES = 4096


class CatalogueError(Exception):
    """A body of `GET /models` that gives no catalogue."""


class Model(Priced, frozen=True, kw_only=True):
    """One model of OpenRouter's listing. `raw` is the listed object, for `GET /v1/models`.

    `max_price` is what no provider may exceed, as `provider.max_price` has it: it makes every bound hold, and is empty
    for a router model. `expires` is the listed expiration date (YYYY-MM-DD), after which the model may be gone.
    """

    id: str
    slug: str
    name: str = ""
    created: int = 0
    inputs: frozenset[str] = frozenset({"text"})
    outputs: frozenset[str] = frozenset({"text"})
    parameters: frozenset[str] = frozenset()
    expires: str | None = None
    max_price: Mapping[str, str] = {}
    raw: bytes = b""


class Skipped(msgspec.Struct, frozen=True):
    """An entry of the listing that was left out, and why."""

    id: str
    reason: str


class Rated(msgspec.Struct, frozen=True):
    """A model that `models.yml` rates, with all that a plan compares, ready to be compared.

    `quality` is in thousandths, by the index of the task in `KINDS`; `prompt` and `completion` are femto-dollars per
    token; `first_token` is seconds, `token` seconds per token.
    """

    model: Model
    id: str
    rule: ModelRule
    quality: tuple[int, ...]
    prompt: int
    completion: int
    first_token: float
    token: float
    context: int


class Found(msgspec.Struct, frozen=True):
    """What a requested name means: the model, the slug to send, the provider order that a variant asks for."""

    model: Model
    send: str
    sort: str | None = None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """A snapshot. `at` is the instant of the clock at which the listing was fetched, in seconds.

    `ceilings` are the preferences' price ceilings, `fallbacks` each rated model's fallbacks and theirs: both are the
    rules', worked out once.
    """

    models: Mapping[str, Model]
    slugs: Mapping[str, str]
    rated: tuple[Rated, ...]
    rules: Rules
    ceiling: MaxPrice
    ceilings: Mapping[str, MaxPrice | None]
    fallback_ceiling: MaxPrice
    fallbacks: Mapping[str, tuple[str, ...]]
    skipped: tuple[Skipped, ...]
    warnings: tuple[str, ...]
    at: float
    named: dict[Any, Any] = field(default_factory=dict, compare=False, repr=False)
    """Plans of models asked for by name, as `plan` keeps them."""
    _usable: dict[Any, tuple[Rated, ...]] = field(default_factory=dict, compare=False, repr=False)

    def find(self, name: str) -> Found | None:
        """The model that a name means: an alias of ours, an identifier, a canonical slug, or one of these with a
        variant of `VARIANTS`; None where it means none."""
        alias = self.rules.aliases.get(name)
        wanted = name if alias is None else alias
        model = self._model(wanted)
        if model is not None:
            return Found(model, model.id, None, None if alias is None else name)
        base, colon, variant = wanted.rpartition(":")
        model = self._model(self.rules.aliases.get(base, base)) if colon and variant in VARIANTS else None
        return None if model is None else Found(model, f"{model.id}:{variant}", VARIANTS[variant])

    def _model(self, name: str) -> Model | None:
        return self.models.get(name) or self.models.get(self.slugs.get(name, ""))

    def usable(self, principal: Principal) -> tuple[Rated, ...]:
        """The rated models that policy lets the principal use, computed once per policy and snapshot."""
        key = (principal.models, principal.zero_data_retention, principal.regions)
        found = self._usable.get(key)
        if found is None:
            found = tuple(entry for entry in self.rated if self.refusal(entry.model, principal) is None)
            if len(self._usable) >= _POLICIES:
                self._usable.clear()
            self._usable[key] = found
        return found

    def retention(self, principal: Principal) -> bool:
        """Whether no data of the principal may be kept."""
        return principal.zero_data_retention or self.rules.policy.zero_data_retention

    def bound(self, principal: Principal) -> bool:
        """Whether policy binds the principal to certain providers."""
        return principal.regions is not None or self.retention(principal)

    def providers(self, model: Model, principal: Principal) -> tuple[str, ...]:
        """The providers of the model that are known to keep the principal's policy on data retention and regions."""
        rule = self.rules.models.get(model.id)
        known = self.rules.providers
        retention = self.retention(principal)
        return tuple(
            name for name in (rule.providers if rule else ()) if known[name].keeps(retention, principal.regions)
        )

    def refusal(self, model: Model, principal: Principal) -> str | None:
        """Why policy keeps the model from the principal, as a sentence's end; None where it does not."""
        policy = self.rules.policy
        if principal.models is not None and not any(matches(pattern, model.id) for pattern in principal.models):
            return "is not among the models that this key may use"
        if any(matches(pattern, model.id) for pattern in policy.disabled):
            return "is disabled by policy"
        if self.bound(principal) and not self.providers(model, principal):
            retention = "keep no data" if self.retention(principal) else ""
            regions = (
                "" if principal.regions is None else f"serve from {' or '.join(principal.regions) or 'nowhere'} only"
            )
            return f"has no provider that is known to {' and to '.join(filter(None, (retention, regions)))}"
        if model.prices is not None and not self.ceiling.admits(model.prices.worst(0)):
            return "is above the price ceiling"
        return None


class Shelf:
    """Holds the snapshot in force and renews it; the swap is one assignment, so a reader sees one snapshot or the next.

    `fetch` brings the body of `GET /models`; `clock` gives seconds.
    """

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], rules: Rules, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._rules = rules
        self._clock = clock
        self._body = b""
        self._current: Catalogue | None = None

    @property
    def ready(self) -> bool:
        """Whether there is a snapshot."""
        return self._current is not None

    @property
    def current(self) -> Catalogue:
        """The snapshot in force.

        Raises:
            CatalogueError: before the first `refresh` that succeeded.
        """
        if self._current is None:
            raise CatalogueError("the catalogue of models has not been fetched yet")
        return self._current

    @property
    def age(self) -> float:
        """Seconds since the listing in force was fetched; infinite before the first."""
        return float("inf") if self._current is None else self._clock() - self._current.at

    async def refresh(self) -> Catalogue:
        """Fetch the listing and put it in force.

        Raises:
            CatalogueError: the body gives no catalogue; the snapshot before stays in force, as it does when `fetch`
                raises.
        """
        return self.load(await self._fetch())

    def load(self, body: bytes) -> Catalogue:
        """Put a body that was fetched (or kept from an earlier run) in force.

        Raises:
            CatalogueError: as `refresh`.
        """
        fresh = build(body, self._rules, self._clock())
        self._body = body
        self._current = fresh
        return fresh

    def reload(self, rules: Rules) -> None:
        """Put other rules in force, over the same listing."""
        if self._current is not None:
            self._current = build(self._body, rules, self._current.at)
        self._rules = rules


def build(body: bytes, rules: Rules, at: float) -> Catalogue:
    """Join a body of `GET /models` with the rules.

    Raises:
        CatalogueError: the body gives no catalogue.
    """
    listed, skipped = read_models(body)
    if not listed:
        raise CatalogueError(f"the listing holds no model that can be used; {len(skipped)} were left out")
    models = {model.id: _apply(model, rules) for model in listed}
    ceiling = rules.policy.ceiling.max_price()
    return Catalogue(
        models=models,
        slugs={model.slug: model.id for model in reversed(models.values())},
        rated=tuple(
            _rate(models[name], rule, rules) for name, rule in rules.models.items() if _ratable(models, name, rule)
        ),
        rules=rules,
        ceiling=ceiling,
        ceilings={name: _ceiling(entry.ceiling) for name, entry in rules.preferences.items()},
        fallback_ceiling=rules.policy.fallback_ceiling.max_price(),
        fallbacks={name: rules.closure(name) for name in rules.models},
        skipped=tuple(skipped),
        warnings=tuple(_warnings(models, rules)),
        at=at,
    )


def _ceiling(ceiling: Ceiling) -> MaxPrice | None:
    return None if ceiling == Ceiling() else ceiling.max_price()


def read_models(body: bytes) -> tuple[list[Model], list[Skipped]]:
    """Read a body of `GET /models`: the models in its order, and what was left out.

    Raises:
        CatalogueError: not JSON, or no object with a list `data`.
    """
    try:
        listing = msgspec.json.decode(body, type=_Listing)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CatalogueError(f"the listing cannot be read: {error}") from error
    models: dict[str, Model] = {}
    skipped: list[Skipped] = []
    for position, raw in enumerate(listing.data):
        entry = _DECODER.decode(raw)
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            skipped.append(Skipped(f"[{position}]", "has no id"))
        elif name in models:
            skipped.append(Skipped(name, "is listed twice"))
        else:
            try:
                models[name] = _model(name, entry, bytes(raw))
            except PriceError as error:
                skipped.append(Skipped(name, str(error)))
    return list(models.values()), skipped


class _Listing(msgspec.Struct, frozen=True):
    data: list[msgspec.Raw]


_DECODER: msgspec.json.Decoder[Any] = msgspec.json.Decoder(float_hook=Decimal)
"""Numbers keep their text: a price given as a JSON number must not pass through a float."""


def _model(name: str, entry: dict[str, Any], raw: bytes) -> Model:
    pricing = entry.get("pricing")
    if not isinstance(pricing, dict):
        raise PriceError("pricing: missing")
    architecture = _mapping(entry.get("architecture"))
    top = _mapping(entry.get("top_provider"))
    contexts = [count for count in map(_count, (entry.get("context_length"), top.get("context_length"))) if count]
    expires = entry.get("expiration_date")
    slug = entry.get("canonical_slug")
    return Model(
        id=name,
        slug=slug if isinstance(slug, str) and slug else name,
        name=str(entry.get("name") or name),
        created=_count(entry.get("created")) or 0,
        context_length=max(contexts, default=None),
        max_completion_tokens=_count(top.get("max_completion_tokens")),
        inputs=_names(architecture.get("input_modalities")) or frozenset({"text"}),
        outputs=_names(architecture.get("output_modalities")) or frozenset({"text"}),
        parameters=_names(entry.get("supported_parameters")),
        prices=read_prices(pricing),
        expires=expires if isinstance(expires, str) else None,
        raw=raw,
    )


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> frozenset[str]:
    return frozenset(item for item in value if isinstance(item, str)) if isinstance(value, list) else frozenset()


def _count(value: Any) -> int | None:
    """A positive whole number, however it is written; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    try:
        number = int(value)
    except (ValueError, ArithmeticError):
        return None
    return number if 0 < number < 2**53 else None


def _apply(model: Model, rules: Rules) -> Model:
    rule = rules.models.get(model.id)
    tokens = rule.image_tokens if rule else None
    if tokens is None:
        fitting = (count for pattern, count in rules.image_tokens.items() if matches(pattern, model.id))
        tokens = next(fitting, _DEFAULT_IMAGE_TOKENS)
    model = msgspec.structs.replace(model, image_tokens=tokens, headroom=rule.headroom if rule else 0)
    ceiling = listed_max_price(model)
    return model if ceiling is None else msgspec.structs.replace(model, max_price=ceiling.body())


def _ratable(models: Mapping[str, Model], name: str, rule: ModelRule) -> bool:
    model = models.get(name)
    return bool(rule.quality) and model is not None and model.prices is not None and "text" in model.outputs


def _rate(model: Model, rule: ModelRule, rules: Rules) -> Rated:
    speed = rules.speeds[rule.speed]
    assert model.prices is not None  # noqa: S101  (_ratable)
    return Rated(
        model=model,
        id=model.id,
        rule=rule,
        quality=tuple(round(rule.score(kind) * 1000) for kind in KINDS),
        prompt=model.prices.base.prompt,
        completion=model.prices.base.completion,
        first_token=speed.first_token,
        token=1.0 / speed.tokens_per_second,
        context=model.context_length or 2**53,
    )


def _warnings(models: Mapping[str, Model], rules: Rules) -> list[str]:
    """What the rules name and the listing lacks: OpenRouter drops models, so this is no error."""
    found = [f"models.{name}: OpenRouter does not list it" for name in rules.models if name not in models]
    found += [
        f"models.{name}.fallbacks: OpenRouter does not list {later}"
        for name, rule in rules.models.items()
        for later in rule.fallbacks
        if later not in models
    ]
    found += [
        f"aliases.{alias}: OpenRouter does not list {target}"
        for alias, target in rules.aliases.items()
        if target not in models
    ]
    if rules.embedding is not None and rules.embedding not in models:
        found.append(f"embedding: OpenRouter does not list {rules.embedding}")
    found += [
        f"models.{name}: expires on {model.expires}"
        for name, model in models.items()
        if model.expires and name in rules.models
    ]
    return found
