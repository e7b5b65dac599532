# SPDX-License-Identifier: GPL-3.0-or-later
"""The judgement knows plain cases, survives slips of the pen and odd input, and is quick and repeatable."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.gateway.judge import KINDS, Task, judge


def ask(*turns: str, system: str | None = None) -> Task:
    messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    for turn in turns:
        messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "…"}]
    return judge(messages[:-1])


EXAMPLES = [
    ("chat", "Hello, how are you today?"),
    ("chat", "Which season do you like best in Lisbon?"),
    ("chat", "What is the capital of Mongolia?"),
    ("code", "Write a Python function that merges two sorted lists."),
    ("code", "My unit tests hang in CI, here is the stack trace: Traceback (most recent call last): ..."),
    ("code", "Refactor this class so that it has no global state\n```\nclass A:\n    x = 1\n```"),
    ("code", "why does `SELECT * FROM users WHERE id = NULL` give no rows in SQL?"),
    ("code", "Schreibe ein Python Skript, das alle Dateien umbenennt"),
    ("code", "请写一个函数，把列表倒过来，用代码回答"),
    ("maths", "Calculate the derivative of x^3 * sin(x)."),
    ("maths", "A shop sells 12 apples for $3. How much do 30 apples cost?"),
    ("maths", "What is the probability of drawing two aces from a deck of 52 cards?"),
    ("maths", "Berechne die Wahrscheinlichkeit, mit zwei Würfeln 7 zu würfeln"),
    ("maths", "Résous l'équation 3x + 5 = 20"),
    ("reasoning", "A riddle: I have keys but no locks. Explain your reasoning step by step."),
    ("reasoning", "All roses are flowers. Some flowers fade quickly. Can we conclude that some roses fade quickly?"),
    ("reasoning", "Which word does not belong with the others: apple, pear, hammer, plum?"),
    ("writing", "Write a cover letter for a job as a nurse."),
    ("writing", "Compose a haiku on autumn rain"),
    ("writing", "Draft an email to my landlord asking for a repair of the heating."),
    ("writing", "Verfasse ein Gedicht über den Herbst"),
    ("extraction", "Extract all names and dates from the text below as JSON."),
    ("extraction", "Identify the named entities in this article and list them in CSV format."),
    ("extraction", "Extrahiere alle Rechnungsnummern aus dem folgenden Text"),
    ("translation", "Translate the following paragraph into German."),
    ("translation", "How do you say good morning in Japanese?"),
    ("translation", "Übersetze diesen Satz ins Englische"),
    ("translation", "把下面的句子翻译成英文"),
    ("summarisation", "Summarize this article in three sentences."),
    ("summarisation", "Give me a short summary with the key points of the meeting"),
    ("summarisation", "Fasse den folgenden Text kurz zusammen"),
    ("classification", "Classify the sentiment of this review as positive, negative or neutral."),
    ("classification", "Categorize the ticket: which category fits, billing or technical?"),
    ("roleplay", "Act as a pirate captain and answer my questions."),
    ("roleplay", "Pretend to be my grandmother and tell me about your youth."),
    ("roleplay", "You are now a medieval knight. Stay in character."),
]


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_plain_cases(kind: str, text: str) -> None:
    assert ask(text).kind == kind


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("translation", "Transalte this to french plz"),
        ("summarisation", "sumarize this txt"),
        ("summarisation", "SUMMMARIZE THIS TEXT"),
        ("classification", "clasify these tickets"),
        ("extraction", "extrakt all the emails"),
        ("maths", "calcualte the area"),
        ("code", "debugg my javascrpit"),
    ],
)
def test_slips_of_the_pen(kind: str, text: str) -> None:
    assert ask(text).kind == kind


def test_one_letter_wrong_hardly_matters() -> None:
    """With one random slip in every word of six letters and more, hardly an example changes its kind."""
    chance = random.Random(7)

    def slip(word: str) -> str:
        if len(word) < 6 or not word.isalpha() or not word.isascii():
            return word
        at = chance.randrange(1, len(word) - 2)
        return chance.choice(
            [
                word[:at] + word[at + 1 :],
                word[:at] + word[at] + word[at:],
                word[:at] + word[at + 1] + word[at] + word[at + 2 :],
            ]
        )

    kept = sum(ask(" ".join(map(slip, text.split(" ")))).kind == kind for kind, text in EXAMPLES)
    assert kept >= 0.85 * len(EXAMPLES)


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("Write a function that finds the median of two arrays.", "Can you make it faster?", "code"),
        ("Translate this letter to Spanish", "now to Portuguese too", "translation"),
        ("Solve the equation 3x + 4 = 10", "and what about this: 5x = 2?", "maths"),
        ("Write a Python function for primes.", "Write a poem on the sea instead", "writing"),
    ],
)
def test_a_turn_that_refers_to_the_one_before_is_about_the_same(before: str, after: str, kind: str) -> None:
    assert ask(before, after).kind == kind


def test_the_system_text_helps_where_the_turn_says_little() -> None:
    assert ask("Guten Morgen zusammen, wie geht es?", system="You translate German messages into English.").kind == (
        "translation"
    )
    assert ask("Write a Python function", system="You are a helpful assistant for translation.").kind == "code"


def test_a_picture_makes_it_vision() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    text = {"type": "text", "text": "Translate the sign"}
    assert judge([{"role": "user", "content": [text, picture]}]).kind == "vision"
    assert judge([{"role": "user", "content": "Translate the sign"}], pictures=True).kind == "vision"
    assert judge([{"role": "user", "content": [picture]}]).kind == "vision"
    earlier = [{"role": "user", "content": [picture]}, {"role": "user", "content": "Translate: guten Tag"}]
    assert judge(earlier).kind == "translation"


@pytest.mark.parametrize(
    ("easy", "hard"),
    [
        ("Hi", "Prove rigorously that the algorithm is optimal, and analyse its complexity."),
        ("Write a simple Python loop", "Design a distributed consensus algorithm in Rust, with proofs of safety."),
        ("Add 2 and 3", "Prove the theorem by induction over the complex polynomial's degree"),
        (
            "Write a short poem",
            "Write a detailed, comprehensive essay; it must compare three novels, each with at least two quotes",
        ),
    ],
)
def test_harder_requests_are_judged_harder(easy: str, hard: str) -> None:
    assert ask(easy).difficulty + 0.1 < ask(hard).difficulty


def test_signals_name_what_spoke_for_it() -> None:
    assert "translate" in ask("Translate this into German").signals
    assert ask("").signals == ()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=50),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["role", "content", "text", "type"]), inner)
    ),
    max_leaves=8,
)


@given(st.lists(st.fixed_dictionaries({"role": st.sampled_from(["user", "system", 3]), "content": _JSON}) | _JSON))
@settings(max_examples=150, deadline=None)
def test_odd_messages_are_judged_all_the_same(messages: list[Any]) -> None:
    task = judge(messages)
    assert task.kind in KINDS
    assert 0 <= task.difficulty <= 1
    assert len(task.signals) <= 5


@given(st.text())
@settings(max_examples=150, deadline=None)
def test_the_same_text_is_judged_the_same(text: str) -> None:
    assert ask(text) == ask(text)


def test_the_work_is_bounded() -> None:
    """A text two thousand times as long takes about as long to judge: only its ends are read."""
    small = "Summarize the following minutes of the meeting, please. " + "The chair opened the meeting at nine. " * 25
    large = small * 2000

    def seconds(text: str) -> float:
        best = float("inf")
        for _ in range(30):
            start = time.perf_counter()
            for _ in range(10):
                ask(text)
            best = min(best, time.perf_counter() - start)
        return best

    assert seconds(large) < 10 * seconds(small)
    assert ask(large).kind == "summarisation"
