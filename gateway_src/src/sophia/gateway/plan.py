# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models may answer a request, in which order, and why. Pure: the same input gives the same plan.

Policy (the key's models, data retention, regions, price ceilings, disabled models) holds for every candidate, the
fallbacks too. A model that was asked for by name is never replaced by a dearer one, unless the request names that one.

Raises, as members of `sophia.errors`:

===========================  ===  =========================================================================
model_not_found              404  no such model, alias or preference
model_not_allowed            403  policy keeps the model, or all models, from this key
context_length_exceeded      400  the prompt cannot fit the model, or any
unsupported_parameter        400  the model, or every one, lacks a parameter that the answer depends on
unsupported_modality         400  as above, for pictures and other parts, or the wrong endpoint for the model
price_unknown                400  a router model without `provider.max_price`
max_price                    400  the request's own `max_price` is below the model, or all models
no_candidate                 503  health and operational flags leave nothing; carries `retry_after`
===========================  ===  =========================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec

from sophia.errors import ApiError, BadRequest, Forbidden, NotFound, Unavailable
from sophia.gateway.catalogue import Catalogue, Found, Model, Rated
from sophia.gateway.flags import NO_SWITCHES, FlagSet, Switches
from sophia.gateway.health import Health
from sophia.gateway.judge import KINDS, Task
from sophia.gateway.prices import MaxPrice, Rates
from sophia.gateway.rules import Preference, matches
from sophia.stores.model import Principal

__all__ = ["Ask", "Candidate", "Plan", "ProviderPrefs", "plan"]

_INDEX = {kind: index for index, kind in enumerate(KINDS)}
_TEXT = frozenset({"text"})
_ORDINARY = 2_000
_REMEMBERED = 4_096
_ANY = 2**53
_OUTPUT = 500
"""Output tokens taken for ranking where the request sets no limit."""

_SAME = {"max_completion_tokens": "max_tokens", "max_tokens": "max_completion_tokens"}


class Ask(msgspec.Struct, frozen=True):
    """What a request asks of a model.

    `model` is as requested, "" for auto. `prompt_tokens` is the estimate (`prices.prompt_estimate`), `output_tokens`
    the request's own limit. `parameters` are the names of the request's parameters in OpenRouter's vocabulary
    (``structured_outputs`` for a JSON schema). `inputs` are the modalities of the messages. `fallbacks` are the
    request's own `models`. `deadline` is seconds left. `api` is chat or embeddings.
    """

    model: str
    task: Task
    prompt_tokens: int = 0
    output_tokens: int | None = None
    inputs: frozenset[str] = _TEXT
    parameters: frozenset[str] = frozenset()
    max_price: MaxPrice | None = None
    fallbacks: tuple[str, ...] = ()
    deadline: float | None = None
    images: int = 0
    api: str = "chat"


class ProviderPrefs(msgspec.Struct, frozen=True):
    """The gateway's part of OpenRouter's `provider` object. `max_price` is USD per million tokens, as strings; it makes
    the bound of `prices` hold whichever provider serves."""

    max_price: Mapping[str, str] = {}
    zdr: bool = False
    only: tuple[str, ...] = ()
    sort: str | None = None
    require_parameters: bool = False

    def body(self, asked: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The `provider` object to send: the caller's own wishes as far as they are stricter, policy over the rest."""
        body: dict[str, Any] = dict(asked or {})
        ceilings = body.get("max_price")
        theirs: Mapping[str, Any] = ceilings if isinstance(ceilings, Mapping) else {}
        body["max_price"] = {**theirs, **_lower(self.max_price, theirs)}
        if self.zdr:
            body["zdr"] = True
            body["data_collection"] = "deny"
        if self.only:
            wanted = body.get("only")
            # A caller who names only providers elsewhere gets policy's list: OpenRouter then serves from the region.
            body["only"] = [name for name in wanted or () if name in self.only] or list(self.only)
        if self.sort is not None:
            body.setdefault("sort", self.sort)
        if self.require_parameters:
            body.setdefault("require_parameters", True)
        return body


class Candidate(msgspec.Struct, frozen=True):
    """One model that may answer. `send` is the slug for OpenRouter; `reason` says why it is in this place."""

    model: Model
    send: str
    reason: str
    provider: ProviderPrefs


class Plan(msgspec.Struct, frozen=True):
    """The ordered candidates, never empty. `preference` is None for a model asked for by name."""

    candidates: tuple[Candidate, ...]
    reason: str
    preference: str | None
    task: Task


def plan(ask: Ask, principal: Principal, catalogue: Catalogue, flags: FlagSet, health: Health) -> Plan:
    """Decide which models may answer.

    Raises:
        NotFound, Forbidden, BadRequest, Unavailable: with the codes of this module's docstring.
    """
    switches = flags.switches(principal.organization, principal.user or principal.key)
    usual = switches is NO_SWITCHES and not health.models and ask.max_price is None and not ask.fallbacks
    if usual and ask.model and not ask.model.startswith("auto") and ask.api == "chat":
        return _remembered(ask, principal, catalogue, health)
    way = _Way(ask, principal, catalogue, switches, health)
    if ask.api == "embeddings":
        return way.embedding()
    name, colon, wish = ask.model.partition(":")
    if name not in ("", "auto"):
        return way.named()
    wanted = wish if colon else catalogue.rules.auto.get(ask.task.kind, catalogue.rules.auto["default"])
    preference = catalogue.rules.preferences.get(wanted)
    if preference is None:
        known = ", ".join(f"auto:{each}" for each in catalogue.rules.preferences)
        raise NotFound("model_not_found", f"no preference {wish!r}: ask for {known}", param="model")
    return way.preferred(wanted, preference)


def _remembered(ask: Ask, principal: Principal, catalogue: Catalogue, health: Health) -> Plan:
    """The plan of a model that was asked for by name, with nothing unusual about the request: it does not depend on
    the prompt as long as that fits every candidate, so it is kept with the snapshot."""
    key = (ask.model, ask.inputs, ask.parameters, principal.models, principal.zero_data_retention, principal.regions)
    found: Plan | None = catalogue.named.get(key)
    if found is None or any(_overflows(each.model, ask.prompt_tokens) for each in found.candidates):
        found = _Way(ask, principal, catalogue, NO_SWITCHES, health).named()
        if ask.prompt_tokens < _ORDINARY:
            if len(catalogue.named) >= _REMEMBERED:
                catalogue.named.clear()
            catalogue.named[key] = found
    return found if found.task == ask.task else msgspec.structs.replace(found, task=ask.task)


def _overflows(model: Model, prompt_tokens: int) -> bool:
    """Whether a prompt cannot fit. The estimate may be twice too high for repetitive text."""
    return model.context_length is not None and prompt_tokens // 2 > model.context_length


class _Way:
    """One request's way to its plan."""

    __slots__ = ("ask", "catalogue", "health", "needs", "principal", "switches")

    def __init__(
        self, ask: Ask, principal: Principal, catalogue: Catalogue, switches: Switches, health: Health
    ) -> None:
        self.ask = ask
        self.principal = principal
        self.catalogue = catalogue
        self.switches = switches
        self.health = health
        self.needs = (
            ask.parameters.intersection(catalogue.rules.required_parameters) if ask.parameters else ask.parameters
        )

    def preferred(self, name: str, preference: Preference) -> Plan:
        """Choose among the rated models, as a preference says."""
        usable = self.catalogue.usable(self.principal)
        if not usable:
            raise Forbidden("model_not_allowed", "policy leaves this key no model to choose from", param="model")
        fitting = self._fitting(usable, name, preference)
        serving = self._serving(fitting)
        task = preference.task or self.ask.task.kind
        ranked, why = self._rank(serving, preference, task, _INDEX[task])
        chosen = ranked[: self.catalogue.rules.policy.candidates]
        first = f"{why.format(id=chosen[0].id)}{self._flagged()}"
        reason = f"{task}, difficulty {self.ask.task.difficulty:.2f}: {first}"
        candidates = [self._candidate(chosen[0].model, chosen[0].id, first)]
        candidates += [
            self._candidate(entry.model, entry.id, f"{name}: number {place} in that order")
            for place, entry in enumerate(chosen[1:], 2)
        ]
        return Plan(tuple(candidates), reason, name, self.ask.task)

    def named(self) -> Plan:
        """Take the model that was asked for, then what may stand in for it."""
        found = self._find(self.ask.model)
        refused = self._refused(found.model)
        if refused is not None:
            raise refused
        away = self._away(found.model.id)
        candidates: list[Candidate] = []
        if away is None:
            reason = f"{found.model.id} was asked for" + (f" as {found.alias}" if found.alias else "")
            candidates.append(self._candidate(found.model, found.send, reason, found.sort))
        for other, why in self._standins(found):
            if len(candidates) >= self.catalogue.rules.policy.candidates:
                break
            if (
                all(other.model.id != known.model.id for known in candidates)
                and self._refused(other.model) is None
                and self._away(other.model.id) is None
            ):
                candidates.append(self._candidate(other.model, other.send, why, other.sort))
        if not candidates:
            raise self._none(f"{found.model.id} {away}, and nothing may stand in for it", [found.model.id])
        reason = candidates[0].reason if away is None else f"{found.model.id} {away}: {candidates[0].reason}"
        return Plan(tuple(candidates), reason, None, self.ask.task)

    def embedding(self) -> Plan:
        """Take the embedding model that was asked for. Vectors of two models do not compare: there is no fallback."""
        name = self.ask.model
        if name in ("", "auto"):
            name = self.catalogue.rules.embedding or ""
        found = self._find(name)
        refused = self._refused(found.model)
        if refused is not None:
            raise refused
        away = self._away(found.model.id)
        if away is not None:
            raise self._none(f"{found.model.id} {away}", [found.model.id])
        reason = f"{found.model.id} was asked for"
        return Plan((self._candidate(found.model, found.send, reason),), reason, None, self.ask.task)

    def _find(self, name: str, param: str = "model") -> Found:
        found = self.catalogue.find(name)
        if found is None:
            message = f"no model {name!r}: GET /v1/models lists them; `auto` chooses one"
            raise NotFound("model_not_found", message, param=param)
        return found

    def _fitting(self, usable: tuple[Rated, ...], name: str, preference: Preference) -> list[Rated]:
        """Those that can do what the request needs, under its price; else the refusal that says what to change."""
        ask = self.ask
        output = ask.output_tokens or 0
        room = ask.prompt_tokens + ask.prompt_tokens // 10 + min(output, _OUTPUT)
        if preference.models:
            usable = tuple(
                entry for entry in usable if any(matches(pattern, entry.id) for pattern in preference.models)
            )
            if not usable:
                raise Forbidden("model_not_allowed", "policy leaves this key no model of the preference", param="model")
        if ask.inputs != _TEXT or self.needs:
            usable = tuple(
                entry for entry in usable if ask.inputs <= entry.model.inputs and self.needs <= entry.model.parameters
            )
            if not usable:
                wanted = ", ".join(sorted(self.needs | (ask.inputs - _TEXT)))
                code = "unsupported_parameter" if self.needs else "unsupported_modality"
                raise BadRequest(code, f"no model that this key may use offers {wanted}")
        fitting = [entry for entry in usable if entry.context >= room]
        if usable and not fitting:
            largest = max(entry.context for entry in usable)
            raise BadRequest(
                "context_length_exceeded",
                f"the prompt has about {ask.prompt_tokens} tokens; the largest context of a usable model is {largest}",
                param="messages",
            )
        if ask.max_price is not None:
            priced = [entry for entry in fitting if ask.max_price.admits(entry.model.prices.worst(0))]  # type: ignore[union-attr]
            if fitting and not priced:
                raise BadRequest("max_price", "no usable model is as cheap as max_price asks", param="provider")
            fitting = priced
        limit = self.catalogue.ceilings[name]
        if limit is not None:
            fitting = [entry for entry in fitting if limit.admits(entry.model.prices.base)]  # type: ignore[union-attr]
            if not fitting:
                message = "every model that fits the request is above the preference's price ceiling"
                raise Forbidden("model_not_allowed", message, param="model")
        return fitting

    def _serving(self, fitting: list[Rated]) -> list[Rated]:
        """Those that health and operational flags leave."""
        switches = self.switches
        if not self.health.models and not switches.disabled and switches.fallback is None and switches.healthy is None:
            serving = fitting
        else:
            serving = [entry for entry in fitting if self._away(entry.id) is None]
            if switches.healthy:
                order = switches.healthy
                serving.sort(key=lambda entry: _place(order, entry.id))
        if not serving:
            raise self._none("no usable model is in service", [entry.id for entry in fitting])
        return serving

    def _rank(self, serving: list[Rated], preference: Preference, task: str, index: int) -> tuple[list[Rated], str]:
        """Order the models; the second value says why the first is first, with its place for the identifier."""
        ask = self.ask
        prompt = ask.prompt_tokens
        output = min(ask.output_tokens or _OUTPUT, _OUTPUT)
        floor = round(1000 * min(1.0, preference.floor + preference.rise * ask.task.difficulty))

        def cost(entry: Rated) -> int:
            return prompt * entry.prompt + output * entry.completion

        def soonest(entry: Rated) -> Any:
            return entry.first_token + output * entry.token, cost(entry), entry.id

        def best(entry: Rated) -> Any:
            return -entry.quality[index], cost(entry), entry.id

        def value(entry: Rated) -> Any:
            return cost(entry) * 1000 // (entry.quality[index] or 1), entry.id

        def cheapest(entry: Rated) -> Any:
            return cost(entry), -entry.quality[index], entry.id

        def listed(entry: Rated) -> Any:
            return _place(preference.models, entry.id), entry.id

        if preference.choose in ("quality", "listed"):
            floor = 0
        key, why = {
            "latency": (soonest, "{id} is the quickest"),
            "quality": (best, f"{{id}} has the best score for {task}"),
            "value": (value, f"{{id}} gives the most {task} quality for its price"),
            "cheapest": (cheapest, "{id} is the cheapest"),
            "listed": (listed, "{id} is the first of the preference's list"),
        }[preference.choose]
        good = sorted((entry for entry in serving if entry.quality[index] >= floor), key=key)
        rest = [entry for entry in serving if entry.quality[index] < floor]
        rest.sort(key=best)
        if not good:
            why = f"no usable model reaches quality {floor / 1000:.2f} for {task}; {{id}} comes nearest"
        elif floor:
            why = f"{why} above quality {floor / 1000:.2f} for {task}"
        if ask.deadline is not None:
            limit = ask.deadline
            late = {entry.id for entry in good if entry.first_token + output * entry.token > limit}
            if late and len(late) < len(good):
                good.sort(key=lambda entry: entry.id in late)
                why += " that can keep the deadline"
        ranked = good + rest
        if self.switches.healthy:
            order = self.switches.healthy
            ranked.sort(key=lambda entry: _place(order, entry.id))
            if _place(order, ranked[0].id) < len(order):
                why = "{id} is the first that force_healthy_models names"
        return ranked, why

    def _standins(self, found: Found) -> Iterable[tuple[Found, str]]:
        """What may stand in for a named model: what the request names, then what flags and rules do, no dearer."""
        for name in self.ask.fallbacks:
            other = self._find(name, "models")
            yield other, f"{other.model.id} is a fallback that the request names"
        rules = self.catalogue.rules
        switches = self.switches
        if found.model.prices is None:
            return
        names: dict[str, str] = {}
        if switches.fallback is not None:
            for entry in self._cheapest(switches.fallback):
                names.setdefault(entry.id, "serves while fallback_mode is on")
        if switches.healthy is not None:
            for entry in self._cheapest(switches.healthy):
                names.setdefault(entry.id, "serves while force_healthy_models is on")
        if rules.policy.explicit_fallbacks:
            for name in self.catalogue.fallbacks.get(found.model.id, ()):
                names.setdefault(name, f"is a fallback of {found.model.id} in models.yml and no dearer")
        for name, why in names.items():
            known = self.catalogue.find(name)
            if known is not None and _no_dearer(known.model, found.model):
                yield known, f"{known.model.id} {why}"

    def _cheapest(self, patterns: tuple[str, ...]) -> list[Rated]:
        """The rated models that the patterns name (all, where there are none): in their order, the cheapest first."""
        usable = self.catalogue.usable(self.principal)
        if patterns:
            usable = tuple(entry for entry in usable if _place(patterns, entry.id) < len(patterns))
        return sorted(usable, key=lambda entry: (_place(patterns, entry.id), self._listed(entry.model), entry.id))

    def _listed(self, model: Model) -> int | None:
        """The list price of this request, for comparison."""
        if model.prices is None:
            return None
        rates = model.prices.worst(self.ask.prompt_tokens)
        output = self.ask.output_tokens or _OUTPUT
        return rates.request + self.ask.prompt_tokens * rates.prompt + output * rates.completion

    def _refused(self, model: Model) -> ApiError | None:
        """Why a model may not or cannot answer this request, whatever its health."""
        ask = self.ask
        policy = self.catalogue.refusal(model, self.principal)
        if policy is not None:
            return Forbidden("model_not_allowed", f"{model.id} {policy}", param="model")
        wanted = "embeddings" if ask.api == "embeddings" else "text"
        if wanted not in model.outputs:
            return BadRequest(
                "unsupported_modality", f"{model.id} gives no {wanted}: use another endpoint", param="model"
            )
        if not ask.inputs <= model.inputs:
            missing = ", ".join(sorted(ask.inputs - model.inputs))
            return BadRequest("unsupported_modality", f"{model.id} takes no {missing}", param="messages")
        missing_parameters = self.needs - model.parameters
        if missing_parameters:
            names = ", ".join(sorted(missing_parameters))
            return BadRequest(
                "unsupported_parameter", f"{model.id} does not support {names}", param=min(missing_parameters)
            )
        if _overflows(model, ask.prompt_tokens):
            message = f"the prompt has about {ask.prompt_tokens} tokens; {model.id} takes {model.context_length}"
            return BadRequest("context_length_exceeded", message, param="messages")
        if model.prices is None:
            if ask.max_price is None or ask.max_price.prompt is None or ask.max_price.completion is None:
                message = f"{model.id} has no price of its own: give provider.max_price with prompt and completion"
                return BadRequest("price_unknown", message, param="provider")
            if not self.catalogue.ceiling.admits(Rates(ask.max_price.prompt, ask.max_price.completion)):
                return Forbidden("model_not_allowed", "max_price is above the price ceiling", param="provider")
        elif ask.max_price is not None and not ask.max_price.admits(model.prices.worst(0)):
            return BadRequest("max_price", f"{model.id} costs more than max_price allows", param="provider")
        return None

    def _away(self, model: str) -> str | None:
        """Why a model does not serve now, as a sentence's end: flags and health."""
        switches = self.switches
        if any(matches(pattern, model) for pattern in switches.disabled):
            return "is disabled by the flag disable_model"
        condition = self.health.of(model)
        if condition.state == "open":
            return "fails too often at the moment"
        if switches.fallback is not None:
            if switches.fallback:
                if not any(matches(pattern, model) for pattern in switches.fallback):
                    return "does not serve while the flag fallback_mode is on"
            elif not condition.good or not self._cheap(model):
                return "does not serve while the flag fallback_mode is on"
        if (
            switches.healthy is not None
            and not condition.good
            and not any(matches(pattern, model) for pattern in switches.healthy)
        ):
            return "is not in good health while the flag force_healthy_models is on"
        return None

    def _cheap(self, model: str) -> bool:
        known = self.catalogue.models.get(model)
        if known is None or known.prices is None:
            return False
        return self.catalogue.fallback_ceiling.admits(known.prices.base)

    def _none(self, message: str, models: list[str]) -> Unavailable:
        waits = [wait for wait in (self.health.of(model).retry_after for model in models) if wait > 0]
        return Unavailable("no_candidate", message, retry_after=min(waits, default=None))

    def _flagged(self) -> str:
        switches = self.switches
        names = [
            name
            for name, on in (
                ("fallback_mode", switches.fallback is not None),
                ("disable_model", bool(switches.disabled)),
                ("force_healthy_models", switches.healthy is not None),
            )
            if on
        ]
        return f" (flags on: {', '.join(names)})" if names else ""

    def _candidate(self, model: Model, send: str, reason: str, sort: str | None = None) -> Candidate:
        only: tuple[str, ...] = ()
        if self.principal.regions is not None:
            only = self.catalogue.providers(model, self.principal)
        parameters = self.ask.parameters
        return Candidate(
            model,
            send,
            reason,
            ProviderPrefs(
                _max_price(model, self.ask.max_price),
                self.catalogue.retention(self.principal),
                only,
                sort,
                bool(self.needs)
                and all(name in model.parameters or _SAME.get(name) in model.parameters for name in parameters),
            ),
        )


def _no_dearer(model: Model, than: Model) -> bool:
    """Whether a model costs no more than another, whatever the request: each price, at its dearest step."""
    if model.prices is None or than.prices is None:
        return False
    ours, theirs = model.prices.worst(_ANY), than.prices.base
    return ours.prompt <= theirs.prompt and ours.completion <= theirs.completion and ours.request <= theirs.request


def _place(order: tuple[str, ...], model: str) -> int:
    return next((place for place, pattern in enumerate(order) if matches(pattern, model)), len(order))


def _max_price(model: Model, asked: MaxPrice | None) -> Mapping[str, str]:
    """What no provider may exceed: the listed price with the model's headroom, or what the request asks if lower."""
    return model.max_price if asked is None else {**asked.body(), **_lower(model.max_price, asked.body())}


def _lower(ours: Mapping[str, str], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Our ceilings, each replaced by the caller's where that is a lower number."""
    found: dict[str, Any] = dict(ours)
    for key, value in ours.items():
        try:
            if key in theirs and Decimal(str(theirs[key])) < Decimal(value):
                found[key] = theirs[key]
        except InvalidOperation:
            continue
    return found
