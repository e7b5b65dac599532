# SPDX-License-Identifier: GPL-3.0-or-later
"""What the stand-ins' exchanges over raw ASGI have in common: its types, and a connection that is cut on purpose."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

__all__ = ["ConnectionGone", "Message", "Receive", "Scope", "Send", "cut", "gone", "lifespan"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER on, zero seconds: close sends RST


class ConnectionGone(Exception):
    """The client went away, or the connection was closed on purpose; there is nobody left to answer."""


async def lifespan(receive: Receive, send: Send) -> None:
    """The start and the end of an application that has nothing to do at either."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def gone(receive: Receive) -> None:
    """Return when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def cut(scope: Scope, receive: Receive, *, reset: bool) -> None:
    """Close the connection here and now, with RST for `reset`. Always raises.

    `ConnectionGone` where `server` runs the app; `ConnectionResetError` under a server that gives no access to its
    connections, which then closes them itself.
    """
    transport = scope.get("extensions", {}).get("sophia.transport")
    if transport is None:
        raise ConnectionResetError("cut on purpose")
    if reset:
        with suppress(OSError):
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        transport.abort()
    else:
        transport.close()
    # The server must have seen the end before this call returns, else it would still write an error.
    await gone(receive)
    raise ConnectionGone
