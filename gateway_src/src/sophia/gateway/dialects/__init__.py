# SPDX-License-Identifier: GPL-3.0-or-later
"""The APIs that clients speak. All go upstream in their own form (OpenRouter serves each), so a dialect only knows

- how to read from a request what the gateway decides by, and how to put its decision back (`read`, `rewrite`),
- where an answer, whole or in events, says what it cost and how it ended (`result`, `piece`),
- how its clients expect an error (`error`, `error_event`).
"""

from __future__ import annotations

from sophia.gateway.dialects.base import Call, Dialect, Part, Piece, Result, Turn
from sophia.gateway.dialects.chat import CHAT
from sophia.gateway.dialects.embeddings import EMBEDDINGS
from sophia.gateway.dialects.messages import MESSAGES
from sophia.gateway.dialects.responses import RESPONSES

__all__ = ["CHAT", "EMBEDDINGS", "MESSAGES", "RESPONSES", "Call", "Dialect", "Part", "Piece", "Result", "Turn"]
