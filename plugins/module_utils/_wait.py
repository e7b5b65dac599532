# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Wait for a condition without knowing what is waited for.

The predicate is pure (it sees one observation and nothing else), the probe does the looking, and both clock and
sleep are given from outside, so a test of an hour's wait takes no time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ansible_collections.sophia.platform.plugins.module_utils._errors import PlatformError, WaitTimeout

Seen = TypeVar("Seen")


def wait_until(
    probe: Callable[[], Seen],
    done: Callable[[Seen], bool],
    *,
    what: str,
    timeout: float,
    interval: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Seen, float]:
    """Probe every ``interval`` seconds until ``done(seen)``; return what was seen and the seconds it took.

    There is always a first look, and one last look when the time is over: a condition that came true during
    the last sleep is not reported as missed. An error that says it is retryable counts as "not yet".

    Raises :class:`WaitTimeout` with the last seen object after ``timeout`` seconds, and whatever the probe
    raises that is not retryable.
    """
    started = clock()
    last: Seen | None = None
    trouble: PlatformError | None = None
    while True:
        try:
            last = probe()
            trouble = None
            if done(last):
                return last, clock() - started
        except PlatformError as error:
            if not error.retryable:
                raise
            trouble = error
        elapsed = clock() - started
        if elapsed >= timeout:
            raise WaitTimeout(
                f"{what}: not so within {timeout:g} s" + (f" (last look failed: {trouble.message})" if trouble else ""),
                last=last,
                elapsed=elapsed,
            ) from trouble
        sleep(max(0.0, min(interval, timeout - elapsed)))
