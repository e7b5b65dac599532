# SPDX-License-Identifier: GPL-3.0-or-later
"""What a client sees of one request: whole, refused, broken with an error, cut without one, or nothing in time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import httpx

from tests.e2e.faults.cases import Case

__all__ = ["QUESTION", "View", "body", "look"]

QUESTION = "Tell me about rate limiting in API gateways, in five sentences."
TOKENS = 20


@dataclass
class View:
    """kind: whole, refused (an error status), broken (an error after the head), cut (it ended without an end mark and
    without an error), silent (nothing came to an end in time). `text` is what arrived; for embeddings the vector."""

    kind: str
    status: int
    text: str
    seconds: float
    code: str | None = None
    model: str | None = None


def body(case: Case, model: str) -> dict[str, Any]:
    """The request in the route's own words."""
    turns = [{"role": "user", "content": QUESTION}]
    match case.route:
        case "embeddings":
            return {"model": model, "input": QUESTION}
        case "chat":
            return {"message": QUESTION, "stream": case.stream, "max_tokens": TOKENS}
        case "responses":
            return {"model": model, "input": QUESTION, "max_output_tokens": TOKENS, "stream": case.stream}
        case "messages":
            return {"model": model, "messages": turns, "max_tokens": TOKENS, "stream": case.stream}
        case _:
            return {"model": model, "messages": turns, "max_tokens": TOKENS, "stream": case.stream}


async def look(
    client: httpx.AsyncClient, url: str, headers: dict[str, str], request: dict[str, Any], case: Case, patience: float
) -> View:
    """Send the request and say what came of it. `patience` in seconds."""
    started = time.monotonic()
    view = View("silent", 0, "", 0.0)
    try:
        async with client.stream("POST", url, json=request, headers=headers, timeout=patience) as answer:
            view.status = answer.status_code
            view.model = answer.headers.get("x-sophia-model")
            content = await _read(answer, started + patience)
        _judge(view, content, case)
    except httpx.TimeoutException:
        view.kind = "silent"
    except httpx.HTTPError as error:
        view.kind, view.code = "cut", type(error).__name__
    view.seconds = time.monotonic() - started
    return view


async def _read(answer: httpx.Response, end: float) -> bytes:
    content = b""
    async for piece in answer.aiter_bytes():
        content += piece
        if time.monotonic() > end:
            raise httpx.ReadTimeout("the answer has no end")
    return content


def _judge(view: View, content: bytes, case: Case) -> None:
    if case.stream and view.status == 200:
        _judge_stream(view, content, case)
        return
    try:
        answer = json.loads(content)
    except ValueError:
        view.kind = "cut"
        return
    error = answer.get("error") if isinstance(answer, dict) else None
    if view.status >= 400:
        view.kind = "refused"
        view.code = error.get("code") or error.get("type") if isinstance(error, dict) else None
    elif error:
        view.kind, view.code = "broken", str(error)[:80]
    else:
        view.text = _text(answer, case)
        view.kind = "whole"


def _text(answer: dict[str, Any], case: Case) -> str:
    """The text of an answer; empty where it has none."""
    try:
        match case.route:
            case "embeddings":
                return json.dumps([round(part, 6) for part in answer["data"][0]["embedding"]])
            case "chat":
                return str(answer["text"])
            case "responses":
                return "".join(
                    part["text"] for item in answer["output"] if item["type"] == "message" for part in item["content"]
                )
            case "messages":
                return "".join(part.get("text", "") for part in answer["content"])
            case _:
                return answer["choices"][0]["message"]["content"] or ""
    except (KeyError, IndexError, TypeError, AttributeError):
        return ""


def _judge_stream(view: View, content: bytes, case: Case) -> None:
    view.kind = "cut"
    finished = False
    for line in content.decode("utf-8", "replace").splitlines():
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            if view.kind == "cut" and finished:
                view.kind = "whole"
            continue
        try:
            event = json.loads(data)
        except ValueError:
            continue
        error = event.get("error") or (event.get("response") or {}).get("error")
        if error or event.get("type") in ("error", "response.failed"):
            view.kind = "broken"
            view.code = error.get("code") if isinstance(error, dict) else None
            return
        finished = _piece(view, event, case) or finished
    if finished and case.route != "chat/completions":
        view.kind = "whole"


def _piece(view: View, event: dict[str, Any], case: Case) -> bool:
    """Note an event's text; whether it says that the answer is finished."""
    match case.route:
        case "chat":
            view.text += event.get("delta") or ""
            return bool(event.get("done"))
        case "responses":
            if event.get("type") == "response.output_text.delta":
                view.text += event["delta"]
            return event.get("type") in ("response.completed", "response.incomplete")
        case "messages":
            if event.get("type") == "content_block_delta":
                view.text += event["delta"].get("text", "")
            return event.get("type") == "message_stop"
        case _:
            choices = event.get("choices") or [{}]
            view.text += (choices[0].get("delta") or {}).get("content") or ""
            return choices[0].get("finish_reason") is not None
