# SPDX-License-Identifier: GPL-3.0-or-later
"""The server's errors, as it words them.

::

    ServiceError     status and sentence: everything that is not a success
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ServiceError", "engine", "no_collection", "wrong"]


class ServiceError(Exception):
    """An answer that is not a success. `retry_after` is in seconds."""

    def __init__(self, status: int, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after


def wrong(message: str) -> ServiceError:
    """400: the request cannot be done as asked."""
    return ServiceError(400, f"Wrong input: {message}")


def no_collection(name: str) -> ServiceError:
    """404 for a collection or alias that is not there."""
    return ServiceError(404, f"Not found: Collection `{name}` doesn't exist!")


@contextmanager
def engine() -> Iterator[None]:
    """Turn what the engine refuses into an answer.

    It has no exceptions of its own: wrong values are `ValueError`, `TypeError` or a bare `Exception`.
    """
    try:
        yield
    except ServiceError:
        raise
    except (OSError, MemoryError):
        raise
    except Exception as error:
        raise wrong(str(error)) from error
