# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request is about and how hard it is: local, deterministic, bounded work.

A score per task is summed from words that speak for it (`words.WORDS`), looked up so that a missing, extra, wrong or
swapped letter still counts (the deletion neighbourhood of SymSpell, Garbe 2012, at distance one), and from the shape of
the text: code, formulas, pictures. The last user turn decides; where it only refers to what was said ("now in Java"),
the turn before lends its score. Difficulty grows with the task, with what is asked for and under how many conditions.

It is a prior for choosing a model, not a measurement: see docs/routing.md for how often it is right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sophia.gateway.words import FOREIGN, KINDS, MARKS, NEAR, REFERS, WORDS, Entry

__all__ = ["KINDS", "Task", "judge"]

_EDGE = 4096
"""Characters of a turn that are looked at in any way, from its start and from its end."""

_HEAD = 400
_TAIL = 160
"""Characters whose words are weighed: a request says what it wants before or after its material."""

_LIST = 2000
_ITEMS = ("\n1", "\n2", "\na)", "\nb)")
_FIRST = 12
_SHORT = 30


def _gate(mark: str) -> str:
    return next((character for character in mark if not character.isalnum() and character != " "), mark[0])


_INDEX = {kind: index for index, kind in enumerate(KINDS)}
_CODE = _INDEX["code"]
_MATHS = _INDEX["maths"]
_REASONING = _INDEX["reasoning"]
_EXTRACTION = _INDEX["extraction"]
_ROLEPLAY = _INDEX["roleplay"]
_ZEROS = [0.0] * len(KINDS)

_MARKS = {
    gate: tuple((_INDEX[kind], mark, value, name) for kind, mark, value, name in MARKS if _gate(mark) == gate)
    for gate in dict.fromkeys(_gate(mark) for _, mark, _, _ in MARKS)
}
"""The marks by a character that each of them holds: most texts lack most of these characters."""

_DIGITS = str.maketrans("", "", "0123456789")
_TYPOGRAPHY = (("\u2019", "'"), ("\u2018", "'"), ("\u201c", '"'), ("\u201d", '"'), ("\u2013", "-"), ("\u2014", "-"))
_SPACES = str.maketrans({character: " " for character in map(chr, range(128)) if not character.isalnum()})

_WORD = re.compile(r"[^\W_]+")
_FAR = re.compile("[\u0370-\u1fff\u2200-\u22ff\u2e80-\uffff]")
"""Greek, Cyrillic and on, mathematical signs, CJK: not the typographic quotes and dashes of English texts."""
_BASE = {
    "chat": 0.2,
    "code": 0.45,
    "reasoning": 0.5,
    "maths": 0.5,
    "writing": 0.3,
    "extraction": 0.3,
    "translation": 0.25,
    "summarisation": 0.25,
    "classification": 0.2,
    "vision": 0.4,
    "roleplay": 0.3,
}


class Task(msgspec.Struct, frozen=True):
    """What a request is about. `difficulty` is 0 to 1; `signals` say what spoke for the judgement, strongest first."""

    kind: str
    difficulty: float
    signals: tuple[str, ...] = ()


class _Reading:
    """What one pass over one turn has found."""

    __slots__ = ("conditions", "hard", "items", "length", "scores", "signals", "words")

    def __init__(self, text: str) -> None:
        self.scores = _ZEROS.copy()
        self.signals: dict[str, float] = {}
        self.hard = 0.0
        self.conditions = 0
        self.length = len(text)
        if self.length <= _HEAD + _TAIL:
            edges = _plain(text)
            self.words = _words(edges)
            self.weigh(self.words, 1.0, 3)
        else:
            head, tail = _plain(text[:_HEAD]), _plain(text[-_TAIL:])
            self.words = _words(head)
            self.weigh(self.words, 1.0, 3)
            last = _words(tail)
            self.weigh(last, 0.7, 1)
            self.words += last
            edges = f"{head}\n{tail}"
            if "```" in text:
                self.add(_CODE, 2.2, "code fence")
        for gate, marks in _MARKS.items():
            if gate in edges:
                for index, mark, value, name in marks:
                    if mark in edges:
                        self.add(index, value, name)
        if not edges.isascii() and _FAR.search(edges):
            for kind, mark, value in FOREIGN:
                if mark in edges:
                    self.add(_INDEX[kind], value, mark)
        self.items = sum(map(text[:_LIST].count, _ITEMS)) if "\n" in edges else 0
        self.figures(edges)

    def add(self, index: int, value: float, signal: str) -> None:
        self.scores[index] += value
        self.signals[signal] = self.signals.get(signal, 0.0) + value

    def weigh(self, words: list[str], share: float, tries: int) -> None:
        """Add up what the words say; `tries` bounds how many unknown ones are looked at for a slip of the pen."""
        scores, signals, get = self.scores, self.signals, WORDS.get
        factor = share * 1.5
        last = len(words) - 1
        for at, word in enumerate(words):
            if at == _FIRST:
                factor = share
            entry = get(word)
            if entry is None:
                if not tries or len(word) < 6:
                    continue
                entry = NEAR.get(word)
                if entry is None:
                    tries -= 1
                    entry = _near(word)
                    if entry is None:
                        continue
            keyword, weights, hard, condition, phrases = entry
            for index, value in weights:
                scores[index] += value * factor
            if weights:
                signals[keyword] = weights[0][1] * factor
            if hard:
                self.hard += hard
            if condition:
                self.conditions += 1
            if phrases and at < last and words[at + 1] in phrases:
                for rest, index, value, phrase in phrases[words[at + 1]]:
                    if not rest or tuple(words[at + 2 : at + 2 + len(rest)]) == rest:
                        self.add(index, value * factor, phrase)

    def figures(self, text: str) -> None:
        """Numbers with operators between them, or many numbers in a question, speak for a calculation."""
        digits = len(text) - len(text.translate(_DIGITS))
        if not digits:
            return
        operators = sum(map(text.count, "+*=<>%$"))
        if operators >= 2:
            self.add(_MATHS, min(1.8, 0.5 + 0.3 * operators), "figures")
        elif digits >= 4 and "?" in text:
            self.add(_MATHS, 0.5, "figures")
        if self.items >= 2:
            self.scores[_REASONING] += 0.4
            self.scores[_EXTRACTION] += 0.5


def judge(messages: Sequence[Mapping[str, Any]], *, pictures: bool = False) -> Task:
    """Judge a conversation in the form of OpenAI's `messages` (content a string or a list of parts).

    `pictures` says that the last turn holds some, where the messages are given as text alone.

    Anything that is not of that form is passed over: the judgement is never an error.
    """
    turns, seen, system = _turns(messages)
    pictures = pictures or seen
    if not turns:
        return Task("vision", _BASE["vision"], ("picture",)) if pictures else Task("chat", 0.1)
    turn = _Reading(turns[0])
    if len(turns) > 1 and len(turn.words) <= _SHORT:
        _inherit(turn, turns[1])
    if system:
        _lend(turn, system)
    kind = _decide(turn, pictures)
    return Task(kind, _difficulty(kind, turn, turns), _signals(turn))


def _plain(text: str) -> str:
    """Lower case, with plain quotes and dashes: an English text is then mostly ASCII, which is far quicker to read."""
    text = text.lower()
    if not text.isascii():
        for sign, plain in _TYPOGRAPHY:
            text = text.replace(sign, plain)
    return text


def _words(text: str) -> list[str]:
    # The table is some five times as quick as the expression, and knows only ASCII.
    return text.translate(_SPACES).split() if text.isascii() else _WORD.findall(text)


def _near(word: str) -> Entry | None:
    """The keyword that has one letter less, another letter or two swapped; a missing letter is in `NEAR` itself."""
    if len(word) > 14:
        return None
    for at in range(1, len(word)):
        entry = NEAR.get(word[:at] + word[at + 1 :])
        if entry is not None:
            return entry
    return None


def _turns(messages: Sequence[Mapping[str, Any]]) -> tuple[list[str], bool, str]:
    """The last two user turns, newest first; whether the newest holds a picture; the start of the system text."""
    turns: list[str] = []
    pictures = False
    system = ""
    for message in reversed(messages[-8:]):
        if not isinstance(message, Mapping) or message.get("role") != "user":
            continue
        text, seen = _text(message.get("content"))
        pictures = pictures or (seen and not turns)
        if text:
            turns.append(text)
            if len(turns) == 2:
                break
    first = messages[0] if messages else None
    if isinstance(first, Mapping) and first.get("role") in ("system", "developer"):
        system = _text(first.get("content"))[0][:_TAIL]
    return turns, pictures, system


def _text(content: Any) -> tuple[str, bool]:
    if isinstance(content, str):
        return _trim(content), False
    if not isinstance(content, list):
        return "", False
    texts: list[str] = []
    pictures = False
    for part in content[:64]:
        if not isinstance(part, Mapping):
            continue
        text = part.get("text")
        if isinstance(text, str):
            texts.append(_trim(text))
        elif part.get("type") in ("image_url", "input_image", "image"):
            pictures = True
    return _trim("\n".join(texts)), pictures


def _trim(text: str) -> str:
    return text if len(text) <= 2 * _EDGE else f"{text[:_EDGE]}\n{text[-_EDGE:]}"


def _inherit(turn: _Reading, before: str) -> None:
    """A short turn that only refers to what was said is about what was said."""
    refers = len(turn.words) <= 6 or not REFERS.isdisjoint(turn.words)
    most = max(turn.scores)
    if most >= 3.0 or (most >= 1.5 and not refers):
        return
    share = 0.7 if refers else 0.3
    earlier = _Reading(before)
    if max(earlier.scores) * share > most:
        turn.signals["carries on the turn before"] = 9.0
    for index, value in enumerate(earlier.scores):
        turn.scores[index] += value * share
    turn.hard += earlier.hard * 0.5


def _lend(turn: _Reading, system: str) -> None:
    """The system text says what the application is for: a hint, where the turn itself says little."""
    share = 0.15 if max(turn.scores) >= 1.5 else 0.5
    for index, value in enumerate(_Reading(system).scores):
        # "You are a …" opens most system texts; it makes no roleplay.
        if index != _ROLEPLAY:
            turn.scores[index] += value * share


def _decide(turn: _Reading, pictures: bool) -> str:
    if pictures:
        turn.signals["picture"] = 10.0
        return "vision"
    scores = turn.scores
    # Numbers and statements inside a programming task are its data, not its subject.
    if scores[_CODE] >= 2.5:
        scores[_MATHS] *= 0.5
        scores[_REASONING] *= 0.6
    most = max(scores)
    return KINDS[scores.index(most)] if most >= 1.2 else "chat"


def _difficulty(kind: str, turn: _Reading, turns: list[str]) -> float:
    length = turn.length
    value = _BASE[kind] + max(-0.25, min(0.35, turn.hard))
    value += min(0.15, turn.conditions * 0.03)
    value += min(0.1, 0.025 * (min(turn.items, 4) + max(0, min(turns[0].count("?"), 4) - 1)))
    value += 0.15 if length > 2400 else 0.1 if length > 900 else 0.05 if length > 360 else -0.08 if length < 40 else 0.0
    if len(turns) > 1:
        value += 0.03
    return round(max(0.0, min(1.0, value)), 2)


def _signals(turn: _Reading) -> tuple[str, ...]:
    found = sorted(turn.signals, key=turn.signals.__getitem__, reverse=True)[:3]
    if turn.hard >= 0.2:
        found.append("hard words")
    if turn.conditions >= 3:
        found.append("several conditions")
    return tuple(found)
