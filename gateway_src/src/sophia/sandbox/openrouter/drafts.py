# SPDX-License-Identifier: GPL-3.0-or-later
"""From a question to what a model generates: thoughts, text or tool calls, cut to the limits of the request."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from . import answers, tokens
from .ask import Ask, Tool
from .catalogue import Model
from .errors import VendorError
from .instances import instance

__all__ = ["Call", "Draft", "Piece", "draft", "pieces", "thinks"]

EFFORTS = {"none": 0, "minimal": 1, "low": 3, "medium": 6, "high": 12, "xhigh": 24, "max": 36}
NAME_PARTS = re.compile(r"[a-z]{4,}")
VERBS = frozenset(("list", "find", "look", "lookup", "search", "fetch", "call", "tool", "function", "make", "create"))
DONE = "stop"


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call; `arguments` is JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Draft:
    """One choice as the model made it. `stopped` is the stop sequence that ended it."""

    text: str
    reasoning: str
    calls: tuple[Call, ...]
    finish: str
    stopped: str | None = None

    @property
    def reasoning_tokens(self) -> int:
        """Tokens of the thoughts."""
        return tokens.count(self.reasoning)

    @property
    def completion_tokens(self) -> int:
        """Tokens of everything that was generated."""
        called = sum(tokens.count(call.name) + tokens.count(call.arguments) for call in self.calls)
        return tokens.count(self.reasoning) + tokens.count(self.text) + called


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a draft as a stream carries it. A call's first piece has its name and no arguments."""

    choice: int
    kind: str
    text: str
    call: int = 0


def draft(ask: Ask, model: Model, most: int, choice: int) -> Draft:
    """What `model` answers, in at most `most` tokens."""
    question = ask.question
    pick = answers.variation(model.id, question, len(ask.turns), ask.seed or 0, choice)
    thoughts = _thoughts(ask, model, question, pick)
    if thoughts:
        thoughts = tokens.cut(thoughts, most)
    left = most - tokens.count(thoughts)
    tool = _tool(ask, question)
    if tool is not None:
        return _calling(tool, question, pick, thoughts, left)
    text = _text(ask, model, question, pick, choice)
    stopped = None
    for stop in filter(None, ask.stop):
        head, found, _ = text.partition(stop)
        if found:
            text, stopped = head, stop
    kept = tokens.cut(text, left)
    if len(kept) < len(text):
        return Draft(kept, thoughts, (), "length")
    return Draft(text, thoughts, (), DONE, stopped)


def pieces(made: Draft, choice: int) -> Iterator[Piece]:
    """A draft in the order and the portions in which a model streams it."""
    for text in tokens.pieces(made.reasoning):
        yield Piece(choice, "reasoning", text)
    for text in tokens.pieces(made.text):
        yield Piece(choice, "text", text)
    for i, call in enumerate(made.calls):
        yield Piece(choice, "call", call.name, i)
        for text in tokens.pieces(call.arguments, 4):
            yield Piece(choice, "arguments", text, i)


def thinks(ask: Ask, model: Model) -> bool:
    """Whether a model reasons before it answers this."""
    reasoning, thinking = model.entry.reasoning, ask.thinking
    if reasoning is None:
        return False
    if reasoning.mandatory:
        return True
    if thinking.enabled is not None:
        return thinking.enabled
    if thinking.effort is not None:
        return thinking.effort != "none"
    return thinking.max_tokens is not None or reasoning.default_enabled


def _thoughts(ask: Ask, model: Model, question: str, pick: int) -> str:
    if not thinks(ask, model):
        return ""
    sentences = max(EFFORTS.get(ask.thinking.effort or "medium", EFFORTS["medium"]), 1)
    thoughts = answers.reason(question, sentences, pick)
    return thoughts if ask.thinking.max_tokens is None else tokens.cut(thoughts, ask.thinking.max_tokens)


def _text(ask: Ask, model: Model, question: str, pick: int, choice: int) -> str:
    if ask.schema is not None:
        return _filled(ask.schema, answers.keywords(question), pick % 97 + choice)
    if ask.json_mode:
        words = answers.keywords(question) or ["answer"]
        body = {"answer": answers.compose(question, voice="brief", pick=pick), "topics": words[:3]}
        return msgspec.json.encode(body).decode()
    last = ask.turns[-1]
    result = last.text if last.role == "tool" else None
    text = answers.compose(question, voice=model.entry.voice, pick=pick, tool_result=result)
    if ask.images and result is None:
        plural = "image" if ask.images == 1 else "images"
        text = f"I looked at the {plural} you sent ({ask.images}). {text}"
    return text


def _tool(ask: Ask, question: str) -> Tool | None:
    if not ask.tools or ask.tool_choice == "none":
        return None
    named = next((tool for tool in ask.tools if tool.name == ask.tool_choice), None)
    if named is not None:
        return named
    if ask.tool_choice == "required":
        return next((tool for tool in ask.tools if _mentions(tool, question)), ask.tools[0])
    if ask.turns[-1].role == "tool":
        return None
    return next((tool for tool in ask.tools if _mentions(tool, question)), None)


def _mentions(tool: Tool, question: str) -> bool:
    lowered = question.lower()
    if tool.name.lower() in lowered:
        return True
    return any(part in lowered for part in NAME_PARTS.findall(tool.name.lower()) if part not in VERBS)


def _calling(tool: Tool, question: str, pick: int, thoughts: str, left: int) -> Draft:
    words = _names(question) or answers.keywords(question)
    arguments = _filled(tool.parameters or {"type": "object"}, words, 0)
    call = Call(f"call_{pick:016x}", tool.name, arguments)
    made = Draft("", thoughts, (call,), "tool_calls")
    if tokens.count(tool.name) + tokens.count(arguments) <= left:
        return made
    short = tokens.cut(arguments, left - tokens.count(tool.name))
    return replace(made, calls=(replace(call, arguments=short),) if short else (), finish="length")


def _filled(schema: dict[str, Any], words: list[str], index: int) -> str:
    """JSON that a schema accepts. Raises `VendorError` 400 for a schema that cannot be read."""
    try:
        return msgspec.json.encode(instance(schema, words, index=index)).decode()
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise VendorError(400, f"Invalid schema: {error!r}") from error


def _names(question: str) -> list[str]:
    words = [word.strip(".,?!:;\"'()") for word in question.split()[1:]]
    return [word for word in words if word[:1].isupper() and len(word) > 1]
