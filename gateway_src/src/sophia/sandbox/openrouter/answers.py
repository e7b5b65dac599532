# SPDX-License-Identifier: GPL-3.0-or-later
"""What the models say: readable, about the question, the same for the same model and question, different for others.

No model runs here. Simple arithmetic is really computed, code questions get code that runs, a tool's result is
reported, choices are made among the options offered; everything else gets plain prose about the question's words.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from hashlib import blake2b

from . import code

__all__ = ["compose", "keywords", "reason", "variation"]

_COMMON = """
about after again also answer been before being between both could does doing down each explain from further give have
having help here into just kindly know like make many more most much must need only other over please question same
should show some such tell than that their them then there these they this those through under until very want what
when where which while whom whose will with word words would write your yours sentence sentences paragraph
"""
COMMON = frozenset(_COMMON.split())
WORD = re.compile(r"[^\W\d_][\w'-]{3,}")
SUM = re.compile(
    r"(?<![\w.])(-?\d+(?:\.\d+)?)\s*([-+*/x×÷]|plus|minus|times|divided by)\s*(-?\d+(?:\.\d+)?)(?!\w)", re.I
)
LENGTH = re.compile(r"\b(\d{2,5})[- ]words?\b", re.I)
OPTIONS = re.compile(r"\b(?:one of|either|choose between|classify(?: \w+){0,4} as)\b[:\s]+([^.?!\n]{3,200})", re.I)
SPLIT = re.compile(r"\s*(?:,|/|;|\bor\b|\band\b)\s*")
CAPITAL = re.compile(r"\bcapital (?:city )?of (?:the )?([A-Za-z][A-Za-z ]{2,30})", re.I)
GREETING = re.compile(r"^\s*(?:hi|hello|hey|good (?:morning|evening|afternoon)|ping)\b", re.I)
YES_NO = re.compile(r"\b(?:yes or no|true or false)\b", re.I)
SUMMARISE = re.compile(r"\b(?:summari[sz]e|summary|tl;?dr)\b", re.I)
SENTENCE = re.compile(r"(?<=[.!?])\s+")

CAPITALS = {
    "france": "Paris",
    "germany": "Berlin",
    "italy": "Rome",
    "spain": "Madrid",
    "japan": "Tokyo",
    "portugal": "Lisbon",
    "norway": "Oslo",
    "sweden": "Stockholm",
    "austria": "Vienna",
    "canada": "Ottawa",
    "australia": "Canberra",
    "brazil": "Brasília",
    "india": "New Delhi",
    "china": "Beijing",
    "egypt": "Cairo",
    "kenya": "Nairobi",
    "united kingdom": "London",
    "united states": "Washington, D.C.",
    "switzerland": "Bern",
    "netherlands": "Amsterdam",
}

OPENINGS = (
    "{A} is best understood by looking at what it does and what it costs.",
    "The short answer is that {a} depends mostly on {b}.",
    "There are two sides to {a}: how it works, and when to use it.",
    "{A} comes down to a few ideas that fit together well.",
    "Seen from a distance, {a} is a way of dealing with {b}.",
)
BODIES = (
    "In practice {a} and {b} pull in different directions, so a balance has to be found.",
    "A good first step is to write down what {b} should achieve and to measure it.",
    "Most of the effort goes into {c}, because mistakes there are noticed late.",
    "It helps to keep {a} simple at first and to add {c} only where a real need shows.",
    "People often confuse {a} with {b}; the difference is who decides, and when.",
    "If {b} changes often, plan for it; if it hardly ever does, leave it alone.",
    "The usual trade-off is between speed and certainty, and {c} decides which of them wins.",
    "A small example with {c} shows more than a long description of {a}.",
    "What matters for {b} is that it can be checked afterwards by somebody else.",
    "Where {a} fails, it mostly fails at its edges: empty input, late answers, full queues.",
)
CLOSINGS = (
    "Start small, measure, and change one thing at a time.",
    "If you tell me more about {b}, I can be more precise.",
    "That is usually enough to decide about {a}.",
    "The rest is a question of {c} and of taste.",
)
STEPS = (
    "Say what {a} has to do, in one sentence.",
    "Find out how {b} behaves today, with numbers.",
    "Change {c} first, since it is the cheapest to undo.",
    "Compare the result with what you had, and keep the better one.",
)
THOUGHTS = (
    "The question is about {a}, and {b} seems to matter too.",
    "I should separate what is known about {a} from what is assumed.",
    "One way is to go from {b} to {c}; the other is to start at {c}.",
    "Checking the first way: nothing in {b} speaks against it.",
    "The second way needs more about {c} than the question gives.",
    "So the answer should begin with {a} and stay short.",
)
GREETINGS = (
    "Hello! What can I do for you?",
    "Hi there. How can I help today?",
    "Good to hear from you. What is it about?",
)
SENTENCES = {"brief": 1, "plain": 3, "thorough": 5}


def variation(*parts: str | int) -> int:
    """A number that is always the same for the same parts, and different for others."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def keywords(text: str, most: int = 8) -> list[str]:
    """The words that a text is about, in their order."""
    found: dict[str, None] = {}
    for match in WORD.finditer(text, 0, 4000):
        word = match.group().lower()
        if word not in COMMON:
            found[word] = None
            if len(found) == most:
                break
    return list(found)


@lru_cache(maxsize=4096)
def compose(question: str, *, voice: str, pick: int, tool_result: str | None = None) -> str:
    """An answer to a question; `pick` (see `variation`) chooses among ways to say it."""
    if tool_result is not None:
        return _from_tool(tool_result, pick)
    special = _computed(question) or _known(question, pick)
    if special is not None:
        return special
    if code.asked_for(question):
        return code.answer(question, keywords(question), pick)
    if SUMMARISE.search(question) and len(question) > 200:
        return _summary(question)
    length = LENGTH.search(question)
    if length is not None:
        return _long(question, int(length.group(1)), pick)
    return _prose(question, voice, pick)


@lru_cache(maxsize=4096)
def reason(question: str, sentences: int, pick: int) -> str:
    """The thoughts of a reasoning model about a question."""
    topics = _topics(question)
    count = len(THOUGHTS)
    return " ".join(_fill(THOUGHTS[(pick + i) % count if i >= count else i], topics, i) for i in range(sentences))


def _computed(question: str) -> str | None:
    match = SUM.search(question)
    if match is None:
        return None
    left, sign, right = match.groups()
    a, b = Decimal(left), Decimal(right)
    try:
        match sign.lower():
            case "+" | "plus":
                value, shown = a + b, "+"
            case "-" | "minus":
                value, shown = a - b, "-"
            case "*" | "x" | "×" | "times":
                value, shown = a * b, "×"
            case _:
                value, shown = a / b, "÷"
    except (InvalidOperation, ZeroDivisionError):
        return "That division has no result: the divisor is zero."
    return f"{left} {shown} {right} = {_plain(value)}"


def _plain(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _known(question: str, pick: int) -> str | None:
    capital = CAPITAL.search(question)
    if capital is not None:
        name = capital.group(1).strip().lower()
        city = CAPITALS.get(name)
        if city is not None:
            return f"The capital of {name.title()} is {city}."
    if YES_NO.search(question):
        return ("Yes", "No")[pick % 2] if "yes" in question.lower() else ("True", "False")[pick % 2]
    options = OPTIONS.search(question)
    if options is not None:
        offered = [item.strip(" \"'`") for item in SPLIT.split(options.group(1)) if item.strip(" \"'`")]
        if len(offered) > 1:
            return offered[pick % len(offered)]
    if len(question) < 60 and GREETING.search(question):
        return GREETINGS[pick % len(GREETINGS)]
    return None


def _from_tool(result: str, pick: int) -> str:
    shown = " ".join(result.split())
    shown = shown if len(shown) <= 400 else f"{shown[:400]}…"
    opening = ("The tool answered", "Here is what I found", "According to the tool")[pick % 3]
    return f"{opening}: {shown}"


def _summary(question: str) -> str:
    _, _, text = question.partition(":") if ":" in question[:200] else ("", "", question)
    sentences = [sentence.strip() for sentence in SENTENCE.split(text.strip()) if sentence.strip()]
    kept = sentences[:1] + sentences[len(sentences) // 2 : len(sentences) // 2 + 1] if len(sentences) > 2 else sentences
    return "In short: " + " ".join(sentence[:300] for sentence in kept)


def _long(question: str, words: int, pick: int) -> str:
    topics = _topics(question)
    made: list[str] = []
    length = i = 0
    while length < words:
        sentence = _fill(BODIES[(pick + i * 7) % len(BODIES)], topics, pick // 11 + i)
        made.append(sentence)
        length += sentence.count(" ") + 1
        i += 1
    return " ".join(made)


def _prose(question: str, voice: str, pick: int) -> str:
    topics = _topics(question)
    number = SENTENCES.get(voice, 3)
    lines = [_fill(OPENINGS[pick % len(OPENINGS)], topics, 0)]
    first = pick // 7
    lines += [_fill(BODIES[(first + i * 3) % len(BODIES)], topics, pick // 5 + i) for i in range(number)]
    text = " ".join(lines)
    if voice == "thorough":
        text += "\n\n" + "\n".join(f"{i + 1}. {_fill(step, topics, i)}" for i, step in enumerate(STEPS)) + "\n\n"
    else:
        text += " "
    return text + _fill(CLOSINGS[pick // 13 % len(CLOSINGS)], topics, pick)


def _topics(question: str) -> list[str]:
    found = keywords(question)
    spare = ("the context", "the details", "the goal")
    return found if len(found) >= 3 else [*found, *spare[: 3 - len(found)]]


def _fill(template: str, topics: list[str], turn: int) -> str:
    count = len(topics)
    a = topics[0]
    b = topics[1 + turn % (count - 1)]
    c = topics[1 + (turn + 1) % (count - 1)]
    return template.format(a=a, A=a[:1].upper() + a[1:], b=b, c=c)
