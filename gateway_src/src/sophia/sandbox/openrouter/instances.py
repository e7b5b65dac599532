# SPDX-License-Identifier: GPL-3.0-or-later
"""An instance that a JSON Schema accepts: the answers to `response_format` and the arguments of tool calls.

Covers what structured outputs allow: types, enum, const, $ref, anyOf/oneOf/allOf, objects with required and additional
properties, arrays and their bounds, numbers and theirs, string lengths, formats and simple patterns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

__all__ = ["instance"]

FORMATS = {
    "date-time": "2026-01-15T09:30:00Z",
    "date": "2026-01-15",
    "time": "09:30:00Z",
    "duration": "P1D",
    "email": "reader@example.org",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.org/",
    "uuid": "6f1c7d7e-3c1b-4d6a-9a3e-2b7f3c9d0e11",
}
DEEPEST = 24
MOST_TRIES = 200


def instance(schema: dict[str, Any], words: list[str], *, index: int = 0) -> Any:
    """A value that `schema` accepts; texts are made of `words`, `index` varies the choice among equals."""
    return _Maker(schema, words or ["answer"], index).make(schema, 0, "")


class _Maker:
    """Walks a schema once. Optional properties are left out below `DEEPEST` levels, so that recursion ends."""

    def __init__(self, root: dict[str, Any], words: list[str], index: int) -> None:
        self._root = root
        self._index = index
        self._words = words
        self._next = self._cycle()

    def make(self, schema: Any, depth: int, name: str) -> Any:
        if not isinstance(schema, dict):
            return self._word()
        if "$ref" in schema:
            return self.make(self._resolve(schema["$ref"]), depth + 1, name)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._choose(schema["enum"])
        if "allOf" in schema:
            return self.make(self._merged(schema), depth, name)
        for union in ("anyOf", "oneOf"):
            if union in schema:
                return self.make(self._branch(schema[union], depth), depth + 1, name)
        return self._typed(schema, depth, name)

    def _typed(self, schema: dict[str, Any], depth: int, name: str) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((item for item in kind if item != "null"), "null")
        match kind:
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth, name)
            case "string":
                return self._string(schema, name)
            case "integer":
                return int(self._number(schema, whole=True))
            case "number":
                return self._number(schema, whole=False)
            case "boolean":
                return self._index % 2 == 0
            case "null":
                return None
            case _:
                return self._object(schema, depth) if "properties" in schema else self._string(schema, name)

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties: dict[str, Any] = schema.get("properties", {})
        required = schema.get("required", [])
        names = [name for name in properties if name in required or depth < DEEPEST // 4]
        names += [name for name in required if name not in properties]
        made = {name: self.make(properties.get(name, {}), depth + 1, name) for name in names}
        additional = schema.get("additionalProperties")
        while len(made) < schema.get("minProperties", 0):
            made[f"field_{len(made)}"] = self.make(additional if isinstance(additional, dict) else {}, depth + 1, "")
        return made

    def _array(self, schema: dict[str, Any], depth: int, name: str) -> list[Any]:
        prefix = schema.get("prefixItems", [])
        made = [self.make(item, depth + 1, name) for item in prefix]
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, 2))
        wanted = least if depth >= DEEPEST // 4 else min(max(least, 2), most)
        items = schema.get("items", {})
        unique = bool(schema.get("uniqueItems"))
        for _ in range(MOST_TRIES):
            if len(made) >= wanted or items is False:
                break
            self._index += 1
            item = self.make(items, depth + 1, name)
            if unique and item in made:
                if not isinstance(item, str):
                    continue
                mark = f" {self._index}"
                item = item[: items.get("maxLength", len(item) + len(mark)) - len(mark)] + mark
            made.append(item)
        return made

    def _string(self, schema: dict[str, Any], name: str) -> str:
        if "pattern" in schema:
            return pattern_text(schema["pattern"])
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        text = (
            self._sentence()
            if name in ("answer", "summary", "explanation", "description", "reason", "text")
            else self._word()
        )
        least, most = schema.get("minLength", 0), schema.get("maxLength")
        while len(text) < least:
            text = f"{text} {self._word()}"
        return text if most is None else text[:most]

    def _number(self, schema: dict[str, Any], *, whole: bool) -> float:
        low = schema.get("minimum")
        if "exclusiveMinimum" in schema:
            low = schema["exclusiveMinimum"] + (1 if whole else 0.5)
        high = schema.get("maximum")
        if "exclusiveMaximum" in schema:
            high = schema["exclusiveMaximum"] - (1 if whole else 0.5)
        if low is not None and high is not None:
            value = low if low > high else (low + high) / 2
            if low > high:  # a window narrower than the step away from its open ends
                value = (schema.get("exclusiveMinimum", low) + schema.get("exclusiveMaximum", high)) / 2
        else:
            value = low if low is not None else high if high is not None else 1 + self._index % 7
        step = schema.get("multipleOf", 1 if whole else None)
        if step:
            value = math.ceil(value / step) * step
            if high is not None and value > high:
                value = math.floor(high / step) * step
        return int(value) if whole or value == int(value) else value

    def _choose(self, values: list[Any]) -> Any:
        usable = [value for value in values if value is not None] or values
        return usable[self._index % len(usable)]

    def _branch(self, branches: list[Any], depth: int) -> Any:
        usable = [branch for branch in branches if branch != {"type": "null"}] or branches
        if depth >= DEEPEST // 2 and len(usable) < len(branches):
            return {"type": "null"}
        return usable[0]

    def _merged(self, schema: dict[str, Any]) -> dict[str, Any]:
        merged: dict[str, Any] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in schema["allOf"]:
            resolved = self._resolve(part["$ref"]) if "$ref" in part else part
            for key, value in resolved.items():
                if key == "properties":
                    merged["properties"] = {**merged.get("properties", {}), **value}
                elif key == "required":
                    merged["required"] = [*merged.get("required", []), *value]
                else:
                    merged[key] = value
        return merged

    def _resolve(self, reference: str) -> Any:
        node: Any = self._root
        for step in reference.removeprefix("#").strip("/").split("/"):
            if step:
                node = node[step.replace("~1", "/").replace("~0", "~")]
        return node

    def _sentence(self) -> str:
        return f"In short, it is about {self._word()} and {self._word()}."

    def _word(self) -> str:
        return next(self._next)

    def _cycle(self) -> Iterator[str]:
        position = self._index
        while True:
            yield self._words[position % len(self._words)]
            position += 1


CLASSES = {"d": "4", "w": "a", "s": " ", "D": "a", "W": "-", "S": "a"}


def pattern_text(pattern: str) -> str:
    """A text for a pattern of literals, classes, groups, alternatives and counts, as tools' schemas use them."""
    text, rest = _alternatives(pattern.removeprefix("^").removesuffix("$"))
    return text if not rest else text + rest


def _alternatives(source: str) -> tuple[str, str]:
    text, rest = _sequence(source)
    while rest.startswith("|"):
        _, rest = _sequence(rest[1:])
    return text, rest


def _sequence(source: str) -> tuple[str, str]:
    made = ""
    while source and source[0] not in "|)":
        atom, source = _atom(source)
        times, source = _times(source)
        made += atom * times
    return made, source


def _atom(source: str) -> tuple[str, str]:
    head = source[0]
    if head == "(":
        text, rest = _alternatives(source[1:].removeprefix("?:"))
        return text, rest[1:]
    if head == "[":
        end = source.index("]", 2)
        return _member(source[1:end]), source[end + 1 :]
    if head == "\\":
        return CLASSES.get(source[1], source[1]), source[2:]
    return ("a" if head == "." else "" if head in "^$" else head), source[1:]


def _member(members: str) -> str:
    if members.startswith("^"):
        return next(character for character in "a0-_ Z" if character not in members)
    return CLASSES.get(members[1], members[1]) if members.startswith("\\") else members[0]


def _times(source: str) -> tuple[int, str]:
    if source[:1] in ("*", "?"):
        return (0, source[1:]) if source[0] == "?" else (1, source[1:])
    if source[:1] == "+":
        return 1, source[1:]
    if source[:1] == "{":
        end = source.index("}")
        return int(source[1:end].split(",")[0] or 0), source[end + 1 :]
    return 1, source
