# SPDX-License-Identifier: GPL-3.0-or-later
"""`sophia replay`: a file of conversations through a running gateway, with a CSV that it can go on from.

A line of the file is a JSON object with `turns` (a list of the user's messages) or `messages` (OpenAI's form; the
user's are replayed), and optionally `id` or `question_id`, and `category`. A conversation's turns are sent one after
the other, each with the answers before it; conversations run beside each other. Where the key's limit per minute is
reached, the replay waits as long as the gateway says. What the CSV holds already is not
asked again; a conversation that was cut off is begun anew.
"""

from __future__ import annotations

import asyncio
import csv
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from sophia.console.client import Answer, ChatClient, ClientError

__all__ = ["Conversation", "Row", "read_conversations", "replay"]


class Conversation(msgspec.Struct, frozen=True):
    """One line of the file."""

    id: str
    category: str
    turns: tuple[str, ...]


class Row(msgspec.Struct, frozen=True):
    """One line of the CSV. Times in milliseconds, cost in USD; `error` is a stable code."""

    id: str
    category: str
    turn: int
    turns: int
    preference: str
    model: str = ""
    reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: str = ""
    cache: str = ""
    first_token_ms: float = 0.0
    total_ms: float = 0.0
    finish: str = ""
    error: str = ""
    request: str = ""


_FIELDS = Row.__struct_fields__
_WAITS = 20


def read_conversations(path: Path) -> list[Conversation]:
    """The file's conversations.

    Raises:
        ClientError: a line is none; the message names it.
    """
    found: list[Conversation] = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            found.append(_conversation(path, number, line))
    return found


def _conversation(path: Path, number: int, line: str) -> Conversation:
    try:
        value = msgspec.json.decode(line)
        turns = value.get("turns")
        if turns is None:
            turns = [each["content"] for each in value["messages"] if each["role"] == "user"]
        if not turns or not all(isinstance(turn, str) and turn.strip() for turn in turns):
            raise ValueError("no turns")
        name = value.get("id", value.get("question_id", number))
        return Conversation(str(name), str(value.get("category", "")), tuple(turns))
    except (msgspec.MsgspecError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ClientError(f"{path}:{number}: no conversation (needs `turns` or `messages`): {error}") from error


async def replay(
    url: str,
    key: str,
    conversations: Sequence[Conversation],
    preferences: Sequence[str],
    output: Path,
    console: Console,
    *,
    parallel: int = 4,
    max_tokens: int = 300,
) -> list[Row]:
    """Replay, append to the CSV `output`, print a table; all rows, those of earlier runs included.

    Raises:
        ClientError: the gateway does not answer.
    """
    rows = _whole(_read(output), conversations)
    done = {(row.id, row.preference) for row in rows}
    _write(output, rows)
    work = [(each, p) for p in preferences for each in conversations if (each.id, p) not in done]
    if done:
        console.print(f"{len(done)} conversations are in {output} already; {len(work)} to go", markup=False)
    queue = iter(work)
    with Progress(console=console, transient=True) as progress, output.open("a", newline="", encoding="utf-8") as file:
        bar = progress.add_task("turns", total=sum(len(each.turns) for each, _ in work))
        writer = csv.writer(file)

        async def run(client: ChatClient) -> None:
            for conversation, preference in queue:
                fresh = await _replay_one(client, conversation, preference, max_tokens, lambda: progress.advance(bar))
                rows.extend(fresh)
                writer.writerows(msgspec.structs.astuple(row) for row in fresh)
                file.flush()

        async with ChatClient(url, key) as client, asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(run(client))
    console.print(_table(rows))
    return rows


async def _replay_one(
    client: ChatClient, conversation: Conversation, preference: str, max_tokens: int, advance: Any
) -> list[Row]:
    rows: list[Row] = []
    context: list[dict[str, str]] = []
    for number, turn in enumerate(conversation.turns, 1):
        row = Row(conversation.id, conversation.category, number, len(conversation.turns), preference)
        message: dict[str, Any] = {"message": turn, "model_preference": preference, "max_tokens": max_tokens}
        if context:
            message["context"] = context
        try:
            answer = await _ask(client, message)
        except ClientError as error:
            if error.status == 0:
                raise
            rows.append(msgspec.structs.replace(row, error=error.code))
            answer = None
        advance()
        if answer is None:
            continue
        rows.append(_filled(row, answer))
        context += [{"role": "user", "content": turn}, {"role": "assistant", "content": answer.text}]
    return rows


async def _ask(client: ChatClient, message: dict[str, Any]) -> Answer:
    """Ask, and wait where a limit per minute says how long: a replay is in no hurry, and 60 s is the limit's window."""
    for _ in range(_WAITS):
        try:
            return await client.ask(message)
        except ClientError as error:
            if error.code != "rate_limited" or error.retry_after is None:
                raise
            await asyncio.sleep(error.retry_after)
    return await client.ask(message)


def _filled(row: Row, answer: Answer) -> Row:
    return msgspec.structs.replace(
        row,
        model=answer.model,
        reason=answer.reason,
        prompt_tokens=answer.prompt,
        completion_tokens=answer.completion,
        cost="" if answer.cost is None else f"{answer.cost:f}",
        cache=answer.cache,
        first_token_ms=round(answer.first_token * 1000, 1),
        total_ms=round(answer.total * 1000, 1),
        finish=answer.finish or "",
        request=answer.id,
    )


def _read(output: Path) -> list[Row]:
    if not output.exists():
        return []
    with output.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    try:
        return [msgspec.convert(line, Row, strict=False) for line in lines]
    except msgspec.ValidationError as error:
        raise ClientError(f"{output} is not a CSV of this command ({error}); name another with --output") from error


def _whole(rows: Iterable[Row], conversations: Iterable[Conversation]) -> list[Row]:
    """The rows of conversations that were answered to their end."""
    known = {conversation.id for conversation in conversations}
    grouped: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if row.id in known and not row.error:
            grouped[row.id, row.preference].append(row)
    return [row for group in grouped.values() if len(group) == group[0].turns for row in group]


def _write(output: Path, rows: Iterable[Row]) -> None:
    part = output.with_suffix(output.suffix + ".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_FIELDS)
        writer.writerows(msgspec.structs.astuple(row) for row in rows)
    part.replace(output)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(title=f"{len(rows)} turns, {sum(not row.error for row in rows)} answered")
    table.add_column("preference, category")
    table.add_column("models", ratio=1, min_width=20)
    for name in ("turns", "failed", "tokens\nin + out", "cost", "first\ntoken", "total\np50", "total\np95"):
        table.add_column(name, justify="right", no_wrap=True)
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.preference, row.category].append(row)
    for (preference, category), group in sorted(groups.items()):
        table.add_row(f"{preference} {category}", *_summary(group))
    if len(groups) > 1:
        table.add_section()
        table.add_row("all", *_summary(rows))
    return table


def _summary(rows: Sequence[Row]) -> list[str]:
    good = [row for row in rows if not row.error]
    counts: dict[str, int] = defaultdict(int)
    for row in good:
        counts[row.model] += 1
    models = sorted(counts.items(), key=lambda item: -item[1])
    cost = sum((Decimal(row.cost) for row in good if row.cost), Decimal(0))
    totals = sorted(row.total_ms for row in good) or [0.0]
    return [
        "\n".join(f"{count} × {model}" for model, count in models[:4]),
        str(len(rows)),
        str(len(rows) - len(good)),
        f"{sum(row.prompt_tokens for row in good)}\n+ {sum(row.completion_tokens for row in good)}",
        f"${cost:f}",
        f"{statistics.median([row.first_token_ms for row in good] or [0.0]):.0f} ms",
        f"{statistics.median(totals):.0f} ms",
        f"{totals[min(len(totals) - 1, int(len(totals) * 0.95))]:.0f} ms",
    ]
