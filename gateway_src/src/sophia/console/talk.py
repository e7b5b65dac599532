# SPDX-License-Identifier: GPL-3.0-or-later
"""`sophia chat`: a conversation in the terminal, or one question."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.console import Console

from sophia.console.client import Answer, ChatClient, ClientError

__all__ = ["converse"]


async def converse(url: str, key: str, preference: str, question: str | None, console: Console) -> None:
    """Ask one question, or talk until an empty line or the end of input.

    Raises:
        ClientError: the one question was refused, or the gateway does not answer.
    """
    async with ChatClient(url, key) as client:
        if question is not None:
            await _ask(client, {"message": question, "model_preference": preference}, console)
            return
        conversation = "new"
        while True:
            try:
                message = (await asyncio.to_thread(console.input, "[bold]you[/bold]  ")).strip()
            except EOFError:
                return
            if not message:
                return
            asked = {"message": message, "model_preference": preference, "conversation": conversation}
            try:
                answer = await _ask(client, asked, console)
            except ClientError as error:
                if error.status == 0:
                    raise
                console.print(f"{error.code}: {error}", style="red", markup=False)
                continue
            conversation = answer.conversation or conversation


async def _ask(client: ChatClient, message: dict[str, Any], console: Console) -> Answer:
    async for piece in client.stream(message):
        if isinstance(piece, Answer):
            cost = "" if piece.cost is None else f", ${piece.cost:f}"
            console.print(f"\n{piece.model}{cost}: {piece.reason}", style="dim", markup=False)
            return piece
        console.print(piece.text, end="", markup=False, highlight=False, soft_wrap=True)
    raise ClientError("the answer ended early", "stream_cut")
