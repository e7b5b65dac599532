# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with the matrix; caught once, in `__main__`.

NetworkError
├── BadTable     docs/network.md has a row that cannot be read
└── BadAnswer    kubectl or cyclonus said something else than it was asked
"""

from __future__ import annotations

__all__ = ["BadAnswer", "BadTable", "NetworkError"]


class NetworkError(Exception):
    """Root of the tree; its text is for a person."""


class BadTable(NetworkError):
    """A row of the table that cannot be read; the text holds it."""


class BadAnswer(NetworkError):
    """A program said something else than it was asked."""
