# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Look at the host. Nothing is changed: a port is bound and let go, a folder is asked about and not made."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import struct
import urllib.parse
from collections.abc import Callable, Mapping

TIMEOUT = 5.0
Run = Callable[..., tuple[int, str, str]]


def tool(command: list[str], run: Run) -> str | None:
    """Return what the tool prints about itself; None where it is missing or fails."""
    program = shutil.which(command[0])
    if program is None:
        return None
    code, out, err = run([program, *command[1:]])
    return f"{out}\n{err}" if code == 0 else None


def port(address: str, number: int) -> str | None:
    """Return why nothing can listen there; None where something could."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, number))
            listener.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another program has it"
        return error.strerror or str(error)
    return None


def space(path: str) -> int | None:
    """Return the bytes free where the folder is or would be made; None where it cannot be written."""
    existing = os.path.abspath(path)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    if not os.path.isdir(existing) or not os.access(existing, os.W_OK | os.X_OK):
        return None
    return shutil.disk_usage(existing).free


def redis(url: str) -> str | None:
    """Return why no Redis answers there (RESP: PING, or -NOAUTH where it wants a password); None where one does."""
    return _ask(url, 6379, b"PING\r\n", (b"+PONG", b"-NOAUTH"), "Redis")


def postgresql(url: str) -> str | None:
    """Return why no Postgres answers there (SSLRequest, Postgres documentation 54.2.11); None where one does."""
    return _ask(url, 5432, struct.pack("!II", 8, 80877103), (b"S", b"N"), "Postgres")


STORES: Mapping[str, Callable[[str], str | None]] = {"redis": redis, "postgresql": postgresql}


def _ask(url: str, default_port: int, question: bytes, answers: tuple[bytes, ...], name: str) -> str | None:
    try:
        parts = urllib.parse.urlsplit(url)
        address = (parts.hostname or "localhost", parts.port or default_port)
    except ValueError as error:
        return f"not a URL: {error}"
    try:
        with socket.create_connection(address, timeout=TIMEOUT) as connection:
            connection.sendall(question)
            answer = connection.recv(64)
    except TimeoutError:
        return f"{address[0]}:{address[1]} gives no answer within {TIMEOUT:g} s"
    except OSError as error:
        return f"{address[0]}:{address[1]}: {error.strerror or error}"
    if not answer.startswith(answers):
        return f"what listens on {address[0]}:{address[1]} is not {name}"
    return None
