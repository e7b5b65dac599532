# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers to questions about code: programs that run, not sketches."""

from __future__ import annotations

import re

__all__ = ["answer", "asked_for"]

ASKED = re.compile(
    r"```|\b(?:python|javascript|typescript|golang|rust|java|sql|bash|regex)\b"
    r"|\b(?:implement|refactor|debug|code|write|fix)\b.{0,60}\b(?:function|class|script|program|code|method|query|test)\b",
    re.I | re.S,
)

RECIPES = {
    "fibonacci": (
        "def fibonacci(n: int) -> int:\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a"
    ),
    "factorial": (
        "def factorial(n: int) -> int:\n"
        "    result = 1\n"
        "    for i in range(2, n + 1):\n        result *= i\n"
        "    return result"
    ),
    "palindrome": (
        "def is_palindrome(text: str) -> bool:\n"
        "    letters = [c.lower() for c in text if c.isalnum()]\n"
        "    return letters == letters[::-1]"
    ),
    "prime": (
        "def is_prime(n: int) -> bool:\n"
        "    if n < 2:\n        return False\n"
        "    return all(n % d for d in range(2, int(n**0.5) + 1))"
    ),
    "reverse": "def reverse(text: str) -> str:\n    return text[::-1]",
    "fizzbuzz": (
        "def fizzbuzz(n: int) -> list[str]:\n"
        '    return ["Fizz" * (i % 3 == 0) + "Buzz" * (i % 5 == 0) or str(i) for i in range(1, n + 1)]'
    ),
    "sort": (
        "def merge_sort(items: list[int]) -> list[int]:\n"
        "    if len(items) < 2:\n        return items\n"
        "    half = len(items) // 2\n"
        "    left, right = merge_sort(items[:half]), merge_sort(items[half:])\n"
        "    merged: list[int] = []\n"
        "    while left and right:\n"
        "        merged.append(left.pop(0) if left[0] <= right[0] else right.pop(0))\n"
        "    return merged + left + right"
    ),
    "gcd": "def gcd(a: int, b: int) -> int:\n    while b:\n        a, b = b, a % b\n    return abs(a)",
}
NOTES = (
    "It needs no imports and runs on any current Python.",
    "Call it with a small input first and look at the edges: zero, one, and a large value.",
    "The loop makes its cost easy to see; recursion would be shorter but not faster.",
)


def asked_for(question: str) -> bool:
    """Whether a question is about code."""
    return ASKED.search(question) is not None


def answer(question: str, words: list[str], pick: int) -> str:
    """Code for a question, with a sentence around it."""
    lowered = question.lower()
    recipe = next((name for name in RECIPES if name in lowered), None)
    if recipe is not None:
        return f"Here is a version that works:\n\n```python\n{RECIPES[recipe]}\n```\n\n{NOTES[pick % len(NOTES)]}"
    language, program = _program(lowered, _name(words), pick)
    note = "Adapt the names to your code and add a test for the empty case."
    return f"Here is a way to do it:\n\n```{language}\n{program}\n```\n\n{note}"


def _name(words: list[str]) -> str:
    useful = [
        word for word in words if word.isascii() and word.isalpha() and word not in _LANGUAGES and word not in _NOUNS
    ]
    return "_".join(useful[:2]) or "process"


_LANGUAGES = frozenset(("python", "javascript", "typescript", "golang", "rust", "java", "bash"))
_NOUNS = frozenset(("function", "code", "script", "program", "class", "method", "implement", "query"))


def _program(question: str, name: str, pick: int) -> tuple[str, str]:
    if "javascript" in question or "typescript" in question:
        return "javascript", f"function {name}(items) {{\n  return items.filter((item) => item !== null);\n}}"
    if "sql" in question:
        return "sql", f"SELECT id, count(*) AS total\nFROM {name}\nGROUP BY id\nORDER BY total DESC\nLIMIT 10;"
    if "bash" in question or "shell" in question:
        return (
            "bash",
            f'{name}() {{\n  local line\n  while IFS= read -r line; do\n    printf "%s\\n" "$line"\n  done\n}}',
        )
    if "golang" in question:
        return "go", f"func {name}(items []string) []string {{\n\treturn append([]string(nil), items...)\n}}"
    if "rust" in question:
        return "rust", f"fn {name}(items: &[i64]) -> i64 {{\n    items.iter().sum()\n}}"
    body = ("sorted(set(items))", "[item for item in items if item]", "list(dict.fromkeys(items))")[pick % 3]
    return "python", f"def {name}(items: list[str]) -> list[str]:\n    return {body}"
