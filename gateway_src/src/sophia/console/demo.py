# SPDX-License-Identifier: GPL-3.0-or-later
"""The quickstart's demonstration: one question per preference, one of them again from the cache, and a table."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from sophia.console.client import Answer, ChatClient, ClientError

__all__ = ["demonstrate"]

_QUESTIONS: tuple[tuple[str, str], ...] = (
    ("fast", "What is the capital of Portugal?"),
    ("quality", "Compare event sourcing with plain tables for a ledger: when is each the better choice?"),
    ("code", "Write a Python function that merges two sorted lists."),
    ("balanced", "Summarise in two sentences why backups must be tested."),
)
_CACHED = ("balanced", "Name three uses of a message queue.")
_CACHE_ON = {"x-sophia-cache": "on"}


async def demonstrate(url: str, key: str, console: Console) -> None:
    """Ask, and print the table.

    Raises:
        ClientError: the gateway does not answer.
    """
    rows: list[tuple[str, str, Answer | ClientError]] = []
    async with ChatClient(url, key) as client:
        for preference, question in _QUESTIONS:
            console.print(f"asking ({preference}): {question}", style="dim", markup=False, soft_wrap=True)
            rows.append((preference, question, await _ask(client, preference, question, {})))
        preference, question = _CACHED
        for again in (False, True):
            how = f"{preference}, again" if again else preference
            console.print(f"asking ({how}): {question}", style="dim", markup=False, soft_wrap=True)
            rows.append((preference, question, await _ask(client, preference, question, _CACHE_ON)))
    console.print(_table(rows))
    answers = [answer for _, _, answer in rows if isinstance(answer, Answer)]
    if not answers:
        raise ClientError("no question was answered; see the table", "demo_failed")
    total = sum((answer.cost or Decimal(0) for answer in answers), Decimal(0))
    left = answers[-1].budget_left
    console.print(
        f"{len(answers)} of {len(rows)} questions answered for ${total:f}"
        + ("" if left is None else f"; ${left:f} left of the budget")
    )


async def _ask(client: ChatClient, preference: str, question: str, headers: dict[str, str]) -> Answer | ClientError:
    message: dict[str, Any] = {"message": question, "model_preference": preference, "max_tokens": 300}
    if headers:
        message["temperature"] = 0
    try:
        return await client.ask(message, headers)
    except ClientError as error:
        if error.status == 0:
            raise
        return error


def _table(rows: list[tuple[str, str, Answer | ClientError]]) -> Table:
    table = Table(show_lines=True)
    table.add_column("question; model chosen, and why", ratio=1, min_width=30)
    for name in ("first\ntoken", "total", "tokens\nin + out", "cost", "cache"):
        table.add_column(name, justify="right", no_wrap=True)
    for preference, question, answer in rows:
        asked = f"[dim]{preference}:[/dim] {escape(question)}"
        if isinstance(answer, ClientError):
            table.add_row(f"{asked}\n[red]{answer.code}[/red]: {escape(str(answer))}", *[""] * 5)
            continue
        table.add_row(
            f"{asked}\n[bold]{answer.model}[/bold]\n[dim]{escape(answer.reason)}[/dim]",
            f"{answer.first_token * 1000:.0f} ms",
            f"{answer.total * 1000:.0f} ms",
            f"{answer.prompt} + {answer.completion}",
            "-" if answer.cost is None else f"${answer.cost:f}",
            answer.cache,
        )
    return table
