# SPDX-License-Identifier: GPL-3.0-or-later
"""`models.yml`: what OpenRouter's catalogue does not know. Read whole, checked whole, every error listed at once.

::

    RulesError         `problems`: one line each, with the file's name and line
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec
import yaml

from sophia.gateway.judge import KINDS
from sophia.gateway.prices import MaxPrice, PriceError, rate

__all__ = [
    "Ceiling",
    "ModelRule",
    "Preference",
    "Provider",
    "Rules",
    "RulesError",
    "Speed",
    "matches",
    "read_rules",
    "shipped_rules",
]

PREFERENCES = ("fast", "quality", "code", "balanced")


class RulesError(Exception):
    """The file is not usable; `problems` has one line for every error found."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A section of the file; a misspelt name is an error, never ignored."""


class Ceiling(Strict, frozen=True):
    """USD per million tokens; None is no ceiling."""

    prompt: float | str | None = None
    completion: float | str | None = None

    def max_price(self) -> MaxPrice:
        """The same in femto-dollars per token."""
        return MaxPrice(_per_token(self.prompt), _per_token(self.completion))


class Speed(Strict, frozen=True):
    """A class of speed: seconds to the first token, then tokens per second, as expected at the median."""

    first_token: float
    tokens_per_second: float


class Preference(Strict, frozen=True):
    """How a preference chooses among the models that may serve.

    `latency`: soonest done; `quality`: best score; `value`: most score for the money; `cheapest`: least cost;
    `listed`: the order of `models`. All but `quality` and `listed` first ask for a score of `floor`, plus `rise`
    times the task's difficulty. `task` fixes the task whose scores count. `models` limits the choice.
    """

    choose: Literal["latency", "quality", "value", "cheapest", "listed"]
    floor: float = 0.0
    rise: float = 0.0
    task: str | None = None
    ceiling: Ceiling = Ceiling()
    models: tuple[str, ...] = ()


class Provider(Strict, frozen=True):
    """What we know of one provider: whether it keeps no data, and all regions that it serves from."""

    zero_data_retention: bool = False
    regions: tuple[str, ...] = ()

    def keeps(self, zero_data_retention: bool, regions: tuple[str, ...] | None) -> bool:
        """Whether the provider keeps a policy; unknown regions keep none."""
        return (self.zero_data_retention or not zero_data_retention) and (
            regions is None or (bool(self.regions) and set(self.regions) <= set(regions))
        )


class ModelRule(Strict, frozen=True):
    """What we know of one model. `headroom`: by how many per cent a provider may be dearer than the listing.

    `quality`: score per task, 0 to 1, with `default` for the tasks not named. `image_tokens`: the most tokens that
    one image becomes. `providers`: those of the file's `providers` that serve the model; others may, but not for whom
    data retention or regions matter.
    """

    quality: dict[str, float] = {}
    speed: str = ""
    providers: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    headroom: int = 0
    image_tokens: int | None = None

    def score(self, kind: str) -> float:
        """The quality for a task; 0 where nothing is known."""
        found = self.quality.get(kind)
        return self.quality.get("default", 0.0) if found is None else found


class Policy(Strict, frozen=True):
    """What holds for every request.

    `ceiling`: no model dearer than this serves anybody. `fallback_ceiling`: what counts as cheap in fallback mode.
    `disabled`: models or patterns that are never used. `explicit_fallbacks`: whether a model asked for by name falls
    back on its `fallbacks`, never on a dearer one. `candidates`: how many models a plan names at most.
    """

    ceiling: Ceiling = Ceiling()
    fallback_ceiling: Ceiling = Ceiling(1.0, 4.0)
    disabled: tuple[str, ...] = ()
    explicit_fallbacks: bool = True
    candidates: int = 4
    zero_data_retention: bool = False


class Rules(Strict, frozen=True):
    """The whole file.

    `auto` maps a task to the preference that `model: "auto"` takes for it, with `default`. `required_parameters`: the
    request's parameters without which its answer would be wrong, so that a model must know them; OpenRouter ignores
    the others where a model does not know them. `providers` are by OpenRouter's slug or an endpoint's tag.
    """

    policy: Policy
    speeds: dict[str, Speed]
    preferences: dict[str, Preference]
    auto: dict[str, str]
    models: dict[str, ModelRule]
    aliases: dict[str, str] = {}
    required_parameters: tuple[str, ...] = ()
    providers: dict[str, Provider] = {}
    image_tokens: dict[str, int] = {}
    embedding: str | None = None

    def closure(self, model: str) -> tuple[str, ...]:
        """The fallbacks of a model and theirs, nearest first, each once. The graph is acyclic (checked at load)."""
        found: list[str] = []
        level = [model]
        while level:
            below: list[str] = []
            for name in level:
                rule = self.models.get(name)
                below += [later for later in (rule.fallbacks if rule else ()) if later not in found and later != model]
            level = list(dict.fromkeys(below))
            found += [name for name in level if name not in found]
        return tuple(found)


def matches(pattern: str, model: str) -> bool:
    """Whether a pattern names the model: its identifier, ``prefix/*``, any other prefix with a star, or ``*``."""
    return model.startswith(pattern[:-1]) if pattern.endswith("*") else model == pattern


def shipped_rules() -> Rules:
    """The default that the package carries."""
    file = resources.files("sophia.gateway") / "data" / "models.yml"
    return read_rules(file.read_text(encoding="utf-8"), "models.yml")


def read_rules(text: str, name: str | Path) -> Rules:
    """Read and check the file's text; `name` is for the messages.

    Raises:
        RulesError: with every problem at once.
    """
    try:
        node = yaml.compose(text, yaml.SafeLoader)
        raw = yaml.safe_load(text) if node is not None else {}
        lines = _lines(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}:{mark.line + 1}" if mark else f"{name}"
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise RulesError([f"{where}: not YAML: {problem}"]) from error
    return _Reading(str(name), lines).rules(node, raw)


def _lines(node: yaml.Node | None, path: str = "") -> dict[str, int]:
    """The line of every value, by its path as msgspec writes it without the leading ``$``."""
    if node is None:
        return {}
    lines = {path: node.start_mark.line + 1}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{path}.{key.value}"
            lines |= _lines(value, below)
            lines[below] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines |= _lines(value, f"{path}[{index}]")
    return lines


def _duplicates(node: yaml.Node | None, path: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                yield f"{path}.{key.value}", key.start_mark.line + 1
            seen.add(key.value)
            yield from _duplicates(value, f"{path}.{key.value}")


class _Reading:
    """One pass over one file: collects problems with their lines."""

    def __init__(self, name: str, lines: dict[str, int]) -> None:
        self.name = name
        self.lines = lines
        self.problems: list[str] = []

    def rules(self, node: yaml.Node | None, raw: Any) -> Rules:
        for path, line in _duplicates(node):
            self.problems.append(f"{self.name}:{line}: {path[1:]}: named twice; YAML would keep only the last")
        rules: Rules | None = self.struct(Rules, raw, "")
        if rules is not None:
            self.check(rules)
        if self.problems or rules is None:
            raise RulesError(self.problems)
        return rules

    def problem(self, path: str, message: str) -> None:
        known = path
        while known and known not in self.lines:
            known = re.sub(r"(\.[^.\[\]]*|\[\d+\])$", "", known)
        self.problems.append(f"{self.name}:{self.lines.get(known, 1)}: {path.lstrip('.') or 'the file'}: {message}")

    def struct(self, kind: Any, raw: Any, path: str) -> Any:
        """Convert field by field, so that one wrong value does not hide the next."""
        if not isinstance(raw, Mapping):
            self.problem(path, "must be a mapping")
            return None
        fields = {field.name: field for field in msgspec.structs.fields(kind)}
        values: dict[str, Any] = {}
        before = len(self.problems)
        for key, value in raw.items():
            if key not in fields:
                self.problem(f"{path}.{key}", f"unknown; known are {', '.join(sorted(fields))}")
            else:
                values[key] = self.value(fields[key].type, value, f"{path}.{key}")
        for name, field in fields.items():
            if field.required and name not in raw:
                self.problem(path, f"{name} is missing")
        return kind(**values) if len(self.problems) == before else None

    def value(self, kind: Any, raw: Any, path: str) -> Any:
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.struct(kind, raw, path)
        if get_origin(kind) is dict and isinstance(raw, Mapping):
            inner = get_args(kind)[1]
            if not all(isinstance(key, str) for key in raw):
                self.problem(path, "every name must be a string; quote it")
                return {}
            return {key: self.value(inner, value, f"{path}.{key}") for key, value in raw.items()}
        try:
            return msgspec.convert(raw, kind)
        except msgspec.ValidationError as error:
            message, _, where = str(error).partition(" - at `$")
            self.problem(path + where.rstrip("`"), message)
            return None

    def check(self, rules: Rules) -> None:
        self.ceilings(rules)
        self.preferences(rules)
        for name, speed in rules.speeds.items():
            if speed.first_token < 0 or speed.tokens_per_second <= 0:
                self.problem(f".speeds.{name}", "first_token must be 0 or more, tokens_per_second above 0")
        for model, rule in rules.models.items():
            self.model(rules, model, rule)
        for pattern, tokens in rules.image_tokens.items():
            if tokens < 1:
                self.problem(f".image_tokens.{pattern}", "must be at least 1")
        for alias, target in rules.aliases.items():
            if target in rules.aliases:
                self.problem(f".aliases.{alias}", f"{target} is an alias itself; name the model")
            if alias in rules.models:
                self.problem(f".aliases.{alias}", "is a model's own identifier")
        self.cycles(rules)
        if rules.policy.candidates < 1:
            self.problem(".policy.candidates", "must be at least 1")

    def ceilings(self, rules: Rules) -> None:
        places = [
            (".policy.ceiling", rules.policy.ceiling),
            (".policy.fallback_ceiling", rules.policy.fallback_ceiling),
        ]
        places += [(f".preferences.{name}.ceiling", entry.ceiling) for name, entry in rules.preferences.items()]
        for path, ceiling in places:
            try:
                ceiling.max_price()
            except PriceError as error:
                self.problem(path, f"{error}; give USD per million tokens")

    def preferences(self, rules: Rules) -> None:
        for name in PREFERENCES:
            if name not in rules.preferences:
                self.problem(".preferences", f"{name} is missing")
        for name, entry in rules.preferences.items():
            path = f".preferences.{name}"
            if entry.task is not None and entry.task not in KINDS:
                self.problem(f"{path}.task", f"unknown task {entry.task}; known are {', '.join(KINDS)}")
            if not (0 <= entry.floor <= 1 and 0 <= entry.rise <= 1):
                self.problem(path, "floor and rise must be between 0 and 1")
            if entry.choose == "listed" and not entry.models:
                self.problem(path, "choose: listed needs models")
        for task, name in rules.auto.items():
            if task != "default" and task not in KINDS:
                self.problem(f".auto.{task}", f"unknown task; known are default, {', '.join(KINDS)}")
            if name not in rules.preferences:
                self.problem(f".auto.{task}", f"no preference {name}")
        if "default" not in rules.auto:
            self.problem(".auto", "default is missing")

    def model(self, rules: Rules, model: str, rule: ModelRule) -> None:
        path = f".models.{model}"
        if "/" not in model:
            self.problem(path, "must be an OpenRouter identifier, as vendor/model")
        for task, score in rule.quality.items():
            if task != "default" and task not in KINDS:
                self.problem(f"{path}.quality.{task}", f"unknown task; known are default, {', '.join(KINDS)}")
            if not 0 <= score <= 1:
                self.problem(f"{path}.quality.{task}", f"must be between 0 and 1, not {score}")
        if rule.quality and rule.speed not in rules.speeds:
            known = ", ".join(rules.speeds) or "none"
            self.problem(f"{path}.speed", f"no speed class {rule.speed!r}; known are {known}")
        for index, provider in enumerate(rule.providers):
            if provider not in rules.providers:
                self.problem(f"{path}.providers[{index}]", f"unknown provider {provider}; name it under providers")
        if not 0 <= rule.headroom <= 1000:
            self.problem(f"{path}.headroom", "must be between 0 and 1000 per cent")
        if rule.image_tokens is not None and rule.image_tokens < 1:
            self.problem(f"{path}.image_tokens", "must be at least 1")

    def cycles(self, rules: Rules) -> None:
        """Every cycle of the fallback graph, once: depth first, with the usual three colours."""
        done: set[str] = set()

        def visit(model: str, trail: tuple[str, ...]) -> None:
            if model in trail:
                cycle = (*trail[trail.index(model) :], model)
                self.problem(f".models.{trail[-1]}.fallbacks", f"the fallbacks go in a circle: {' -> '.join(cycle)}")
            elif model not in done:
                rule = rules.models.get(model)
                for later in rule.fallbacks if rule else ():
                    visit(later, (*trail, model))
                done.add(model)

        for model in rules.models:
            visit(model, ())


def _per_token(usd: float | str | None) -> int | None:
    return None if usd is None else -(-rate(usd) // 10**6)
