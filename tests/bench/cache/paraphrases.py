# SPDX-License-Identifier: GPL-3.0-or-later
"""Pairs of questions that ask for the same thing, by kind of rewording, made from forms and fillers of our own.

The first kinds are what the guards are written to see through; ``reworded freely`` is what people also do and the guards
cannot follow without risk. A share over the whole set says how this set is made up; read it by kind.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from .pairs import Pair

__all__ = ["PER_KIND", "paraphrases"]

PER_KIND = 100


def paraphrases(per_kind: int = PER_KIND) -> list[Pair]:
    """At most `per_kind` pairs of each kind, in an order that never changes."""
    pairs: list[Pair] = []
    for kind, made in _kinds():
        found = sorted({pair for pair in made if pair[0] != pair[1]})
        random.Random(f"sophia same {kind}").shuffle(found)
        pairs += [Pair(kind, one, other) for one, other in found[:per_kind]]
    return pairs


_TASKS = (
    "reset my password", "install Python on Windows", "boil an egg", "clean a cast iron pan", "convert miles to kilometers",
    "remove a red wine stain", "sort a list in Python", "fix a flat bike tyre", "sharpen a kitchen knife", "tie a bow tie",
    "bake sourdough bread", "calculate compound interest", "freeze fresh basil", "repair a leaking tap", "delete a git branch",
    "measure the area of a circle", "replace a broken window", "enable two-factor login", "format a USB stick", "merge two PDF files",
    "configure a static IP address", "uninstall a program on a Mac", "peel a mango", "roast a chicken", "get rid of ants",
)
_FACTS = (
    ("capital", "France"), ("capital", "New Zealand"), ("currency", "Japan"), ("population", "Brazil"), ("president", "Chile"),
    ("area", "Iceland"), ("anthem", "Italy"), ("flag", "Nepal"), ("history", "Rome"), ("climate", "Norway"), ("budget", "Canada"),
    ("coast", "Peru"), ("capital", "Australia"), ("language", "Iran"), ("atmosphere", "Mars"), ("mass", "Jupiter"),
)
_TOPICS = (
    "recursion", "photosynthesis", "inflation", "the water cycle", "black holes", "natural selection", "compound interest",
    "gradient descent", "public key encryption", "plate tectonics", "supply and demand", "quantum entanglement", "the rule of law",
    "osmosis", "Newton's second law", "the greenhouse effect",
)
_BOOKS = ("Dracula", "Emma", "Hamlet", "Don Quixote", "The Trial", "Frankenstein", "Moby-Dick", "War and Peace", "Les Misérables",
          "The Odyssey", "Jane Eyre", "Faust")
_MADE = (("the telephone", "invented"), ("penicillin", "discovered"), ("the Mona Lisa", "painted"), ("Microsoft", "founded"),
         ("the Ninth Symphony", "composed"), ("radium", "discovered"), ("dynamite", "invented"))
_HIGH = ("Mount Everest", "the Eiffel Tower", "Big Ben", "Mont Blanc", "the Burj Khalifa", "K2", "Kilimanjaro", "the Matterhorn")
_CITIES = ("Lisbon", "Nairobi", "Oslo", "Jakarta", "Toronto", "Quito", "Hanoi", "Zagreb", "Lagos", "Vienna")
_GOODS = ("a passport", "a pilot licence", "a new roof", "an electric car", "a wedding cake", "a patent", "a beehive", "a grand piano")
_WEIGHED = ("a blue whale", "a brick", "a grand piano", "an ostrich egg", "a basketball", "a litre of milk", "an elephant")
_PEOPLE = ("Marie Curie", "Nelson Mandela", "Ada Lovelace", "Leonardo da Vinci", "Frida Kahlo", "Mozart", "Rosa Parks")
_SYNONYMS = (
    ("What is the best {} laptop to buy?", "What is the best {} laptop to purchase?", ("gaming", "cheap", "light", "used", "school")),
    ("Where can I buy {} shoes?", "Where can I purchase {} shoes?", ("running", "dancing", "leather", "climbing", "vegan")),
    ("Who took the first {} photo?", "Who took the first {} photograph?", ("colour", "aerial", "digital", "X-ray", "underwater")),
    ("How big is a {}?", "How large is a {}?", ("blue whale", "tennis court", "football pitch", "hectare", "cell")),
    ("When did the {} begin?", "When did the {} start?", ("French Revolution", "Ice Age", "Cold War", "Renaissance")),
    ("Which {} is the biggest?", "Which {} is the largest?", ("ocean", "planet", "desert", "lake", "stadium", "bank")),
    ("What colour is {}?", "What color is {}?", ("a ruby", "the sunset", "chlorophyll", "copper", "Mars")),
    ("How do kids learn {}?", "How do children learn {}?", ("languages", "to read", "manners", "fractions")),
)
_UNITS = (
    ("How far is 5km in miles?", "How far is 5 kilometers in miles?"), ("How much is 1,000 euros?", "How much is 1000 EUR?"),
    ("Is 30 % a lot?", "Is 30 percent a lot?"), ("How long is 90 minutes?", "How long is 90 mins?"),
    ("What is 12 lbs in stone?", "What is 12 pounds in stone?"), ("Is 25 °C warm?", "Is 25 celsius warm?"),
    ("How heavy is 3 kg?", "How heavy is 3 kilos?"), ("How far is 10 mi?", "How far is 10 miles?"),
    ("Give me three names for a cat", "Give me 3 names for a cat"), ("Name twelve months", "Name 12 months"),
    ("Is 8 hrs of sleep enough?", "Is 8 hours of sleep enough?"), ("What weighs 2 oz?", "What weighs 2 ounces?"),
)
_FREELY = (
    ("How do I reset my password?", "I forgot my password, what now?"), ("How do I boil an egg?", "Egg boiling instructions"),
    ("Explain recursion.", "I don't get recursion, can you help me understand it?"),
    ("What is the capital of France?", "Which city is France governed from?"), ("Why is the sky blue?", "What makes the sky look blue?"),
    ("How do I get rid of ants?", "There are ants in my kitchen, how can I make them go away?"),
    ("Who wrote Hamlet?", "Hamlet was written by which playwright?"), ("How tall is Mount Everest?", "Everest's elevation?"),
    ("What does HTTP stand for?", "What is the meaning of the abbreviation HTTP?"), ("Is it going to rain tomorrow?", "Will tomorrow be rainy?"),
    ("How many people live in Oslo?", "Oslo population"), ("How do I freeze basil?", "What's a good method for freezing basil?"),
    ("Can dogs eat grapes?", "Are grapes safe for dogs?"), ("What causes inflation?", "Why do prices rise across the economy?"),
    ("How long do I cook rice?", "What is the cooking time of rice?"), ("How do I say hello in Japanese?", "What's Japanese for hello?"),
    ("What time is it in Tokyo?", "Current time Tokyo"), ("How do I cancel my order?", "I'd like my order to be cancelled."),
    ("Which planet is the largest?", "What's the biggest planet in the solar system?"), ("How do I sort a list in Python?", "Python: sorting lists"),
    ("What are the symptoms of flu?", "How do I know whether I have the flu?"), ("When was Mozart born?", "In which year did Mozart come into the world?"),
    ("How do I delete a git branch?", "git: remove branch"), ("Why do cats purr?", "What is the reason for cats purring?"),
)


def _kinds() -> Iterator[tuple[str, Iterable[tuple[str, str]]]]:
    questions = [f"How do I {task}?" for task in _TASKS] + [f"What is the {what} of {of}?" for what, of in _FACTS]
    yield "case and punctuation", [(text, text.rstrip("?").lower()) for text in questions]
    yield "politeness", _polite()
    yield "form of asking", _asking()
    yield "contraction", [(f"What is the {what} of {of}?", f"What's the {what} of {of}?") for what, of in _FACTS]
    yield "possessive", [(f"What is the {what} of {of}?", f"What is {of}'s {what}?") for what, of in _FACTS]
    yield "synonym or spelling", [(one.format(word), other.format(word)) for one, other, words in _SYNONYMS for word in words]
    yield "unit or number written otherwise", _UNITS
    yield "turn of phrase", _turns()
    yield "moved to the front", _fronted()
    yield "reworded freely", _FREELY


def _polite() -> Iterator[tuple[str, str]]:
    for topic in _TOPICS:
        plain = f"Explain {topic} to a child."
        for form in ("Please explain {} to a child.", "Can you explain {} to a child?", "Could you please explain {} to a child?",
                     "Hi, can you explain {} to a child? Thanks!"):
            yield plain, form.format(topic)


def _asking() -> Iterator[tuple[str, str]]:
    for task in _TASKS:
        plain = f"How do I {task}?"
        for form in ("How can I {}?", "How to {}", "What is the best way to {}?", "How do you {}?", "Do you know how to {}?",
                     "Can you tell me how to {}?"):
            yield plain, form.format(task)
    for what, of in _FACTS:
        yield f"What is the {what} of {of}?", f"Tell me the {what} of {of}."
        yield f"What is the {what} of {of}?", f"Do you know what the {what} of {of} is?"


def _turns() -> Iterator[tuple[str, str]]:
    for book in _BOOKS:
        yield f"Who wrote {book}?", f"Who is the author of {book}?"
        yield f"Who wrote {book}?", f"Who was {book} written by?"
    for thing, verb in _MADE:
        yield f"Who {verb} {thing}?", f"Who was {thing} {verb} by?"
    for forms, fillers in (
        (("How tall is {}?", "What is the height of {}?"), _HIGH),
        (("How many people live in {}?", "What is the population of {}?"), _CITIES),
        (("How much does {} cost?", "What is the price of {}?"), _GOODS),
        (("How much does {} weigh?", "What is the weight of {}?"), _WEIGHED),
        (("When was {} born?", "What is the date of birth of {}?"), _PEOPLE),
        (("How old is {}?", "What is the age of {}?"), _CITIES),
        (("Where is {}?", "Where is {} located?"), _CITIES),
    ):
        yield from _both(forms, fillers)


def _both(forms: tuple[str, str], fillers: Sequence[str]) -> Iterator[tuple[str, str]]:
    for filler in fillers:
        yield forms[0].format(filler), forms[1].format(filler)


def _fronted() -> Iterator[tuple[str, str]]:
    for where in ("in Python", "in Rust", "in Java", "in C++", "with pandas", "in German"):
        for what in ("How do I sort numbers {}?", "What is a closure {}?", "How do I read a file {}?", "What is a pointer {}?"):
            body = what.replace(" {}", "")
            yield what.format(where), f"{where[0].upper()}{where[1:]}, {body[0].lower()}{body[1:]}"
