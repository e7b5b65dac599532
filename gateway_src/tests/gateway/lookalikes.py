# SPDX-License-Identifier: GPL-3.0-or-later
"""Questions that look alike and ask for different things, some that ask the same, an embedding that sees words only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations, permutations
from typing import NamedTuple
from zlib import crc32

import numpy as np

from sophia.gateway.embed import normal
from sophia.stores.model import Principal
from sophia.stores.vectors import Vector


class Lookalike(NamedTuple):
    """Two questions whose answers differ, and in what they differ."""

    kind: str
    one: str
    other: str


_CONTEXT = (
    "We run a small warehouse team that ships parcels every working day, and write a short guide for new colleagues. ",
    "Our support desk collects the questions of customers and prepares one careful answer for each of them. ",
    "",
)
_NEGATED = (
    ("Is it safe to take this medicine with alcohol?", "Is it not safe to take this medicine with alcohol?"),
    ("Which plans include free support?", "Which plans don't include free support?"),
    ("List the countries that have signed the treaty.", "List the countries that have never signed the treaty."),
    ("Can I travel with a visa?", "Can I travel without a visa?"),
    ("Show the orders that were paid.", "Show the orders that were not paid."),
    ("Which tests must pass before release?", "Which tests need not pass before release?"),
    ("Explain why cats like water.", "Explain why cats hate water."),
    ("How do I enable logging on the server?", "How do I disable logging on the server?"),
    ("Should I accept the offer?", "Should I decline the offer?"),
    ("What happens if the payment succeeds?", "What happens if the payment fails?"),
    ("Name foods that contain gluten.", "Name foods that contain no gluten."),
    ("All users may read the file, right?", "No users may read the file, right?"),
    ("Who can unsubscribe from the list?", "Who can't unsubscribe from the list?"),
    ("Everyone except Ann may enter, who is left?", "Everyone including Ann may enter, who is left?"),
    ("How do I encrypt the backup?", "How do I decrypt the backup?"),
)
_NUMBERS = ("3", "7", "12", "30", "31", "1,000", "1,500", "0.5", "two", "nine")
_NUMBERED = (
    "How many parcels fit into {} boxes?",
    "Convert {} euros to dollars.",
    "What is {} percent of 80?",
    "Give me {} names for a cat.",
)
_PEOPLE = ("Alice", "Bob", "Marie Curie", "Ada Lovelace", "Kafka")
_PLACES = ("Paris", "London", "Rome", "New York", "Tokyo")
_OF_PEOPLE = ("When was {} born?", "Which books did {} write?", "How do I reach {} at work?")
_OF_PLACES = ("What is the weather in {} like?", "How many people live in {}?")
_ORDERED = (
    "Did {} pay {}?",
    "Is {} older than {}?",
    "Why did {} leave {}?",
    "Who reports to whom, {} to {} then?",
)
_ROUTES = ("How long is the flight from {} to {}?", "Is {} west of {}?", "Which trains go to {} via {}?")
_UNITS = ("kilometers", "miles", "meters", "hours", "days", "kilograms", "pounds")
_MEASURED = ("How much are 40 {} in all?", "Is 5 {} a lot for a parcel?")
_DATES = ("Monday", "Friday", "March 3", "March 4", "2019-05-01", "2019-06-01", "10:30", "11:30", "yesterday", "today")
_DATED = ("What happened on {} in the market?", "Is the office open {} at all?")
_QUOTES = ("dog", "cat", "Dog", "dogs", "a cat")
_QUOTED = ('Translate "{}" to French.', "How many letters has the word '{}'?")
_COMPARED = (
    ("Which laptop is cheaper than mine?", "Which laptop is dearer than mine?"),
    ("What came before the war?", "What came after the war?"),
    ("Sort the list ascending.", "Sort the list descending."),
    ("What is the largest planet?", "What is the smallest planet?"),
    ("Who is the president?", "Who was the president?"),
    ("What is the first step?", "What is the last step?"),
    ("How do I log in to the portal?", "How do I log out of the portal?"),
    ("Is my account open?", "Is your account open?"),
    ("Where is the exit?", "When is the exit?"),
    ("Turn the heating on.", "Turn the heating off."),
    ("Can dogs eat grapes?", "Should dogs eat grapes?"),
    ("Does the fee increase with weight?", "Does the fee decrease with weight?"),
)
_THINGS = ("python", "java", "rust", "printer", "router", "bread")
_OF_THINGS = ("How do I fix my {} quickly?", "Write a short note on {}.")


def lookalikes() -> list[Lookalike]:
    """All pairs, each also behind contexts that put its words far below a twentieth of the text."""
    return [
        Lookalike(pair.kind, context + pair.one, context + pair.other)
        for context in _CONTEXT
        for pair in _plain_pairs()
    ]


def _plain_pairs() -> Iterator[Lookalike]:
    yield from (Lookalike("negation", one, other) for one, other in _NEGATED)
    yield from (Lookalike("comparison", one, other) for one, other in _COMPARED)
    yield from _swaps("number", _NUMBERED, _NUMBERS)
    yield from _swaps("entity", _OF_PEOPLE, _PEOPLE)
    yield from _swaps("entity", _OF_PLACES, _PLACES)
    yield from _swaps("unit", _MEASURED, _UNITS)
    yield from _swaps("date", _DATED, _DATES)
    yield from _swaps("quote", _QUOTED, _QUOTES)
    yield from _swaps("thing", _OF_THINGS, _THINGS)
    for forms, names in ((_ORDERED, _PEOPLE), (_ROUTES, _PLACES)):
        for form in forms:
            for one, other in combinations(names, 2):
                yield Lookalike("order", form.format(one, other), form.format(other, one))
    for one, other in permutations(("the dog", "the man", "the cat"), 2):
        yield Lookalike("order", f"What if {one} bites {other}?", f"What if {other} bites {one}?")


def _swaps(kind: str, forms: Sequence[str], fillers: Sequence[str]) -> Iterator[Lookalike]:
    for form in forms:
        for one, other in combinations(fillers, 2):
            yield Lookalike(kind, form.format(one), form.format(other))


SAME = (
    ("What is the capital of France?", "what is the capital of france"),
    ("What is the capital of France?", "What's the capital of France?"),
    ("What is the capital of France?", "Please tell me the capital of France."),
    ("What is the capital of France?", "What is France's capital?"),
    ("How do I reset my password?", "How can I reset my password?"),
    ("How do I reset my password?", "how to reset my password"),
    ("How do I reset my password?", "What is the best way to reset my password?"),
    ("Can you explain recursion to a child?", "Please explain recursion to a child."),
    ("Explain recursion to a child.", "Hi, could you please explain recursion to a child? Thanks!"),
    ("Do you know how to reset my password?", "How do I reset my password?"),
    ("How far is 5km in miles?", "How far is 5 kilometers in miles?"),
    ("How much is 1,000 dollars in euros?", "How much is 1000 dollars in euros"),
    ("I can't log in, why?", "I cannot log in. Why?"),
    ("Give me two names for a cat.", "Give me 2 names for a cat"),
    ("How does photosynthesis work?", "how does photosynthesis work"),
)


class Lexical:
    """Counts words and nothing else: blind to order, and to one word among many."""

    name = "lexical"

    def __init__(self) -> None:
        self.texts: list[str] = []

    async def open(self) -> None:
        """Nothing to get ready."""

    async def close(self) -> None:
        """Nothing to let go."""

    async def embed(self, principal: Principal, texts: Sequence[str]) -> list[Vector]:
        """One vector of 384 counts for each text."""
        self.texts += texts
        return [lexical(text) for text in texts]


def lexical(text: str) -> Vector:
    """Counts of hashed words, scaled to length one."""
    counts = np.zeros(384, np.float32)
    for word in "".join(letter if letter.isalnum() else " " for letter in text.casefold()).split():
        counts[crc32(word.encode()) % 384] += 1
    return normal(counts)
