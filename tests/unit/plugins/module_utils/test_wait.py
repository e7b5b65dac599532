# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting, on a clock that only sleeping moves."""

from __future__ import annotations

import pytest

from ansible_collections.sophia.platform.plugins.module_utils import _errors, _wait


def wait(clock, probe, done, timeout=10.0):
    return _wait.wait_until(
        probe, done, what="the thing is ready", timeout=timeout, interval=3.0, clock=clock, sleep=clock.sleep
    )


def test_returns_what_was_seen_and_the_time_it_took(clock):
    seen = iter([1, 2, 3])
    assert wait(clock, lambda: next(seen), lambda value: value == 3) == (3, 6.0)


def test_no_sleep_when_it_is_so_already(clock):
    assert wait(clock, lambda: 1, bool, timeout=0.0) == (1, 0.0)
    assert clock.slept == []


def test_looks_once_more_when_the_time_is_over(clock):
    assert wait(clock, lambda: clock.now, lambda now: now >= 1_010.0) == (1_010.0, 10.0)
    assert clock.slept == [3.0, 3.0, 3.0, 1.0]


def test_timeout_has_the_last_seen_object(clock):
    with pytest.raises(_errors.WaitTimeout) as caught:
        wait(clock, lambda: {"state": "booting"}, lambda seen: False)
    assert caught.value.last == {"state": "booting"}
    assert caught.value.as_failure()["failure"]["details"] == {"last": {"state": "booting"}, "elapsed": 10.0}


def test_trouble_that_may_pass_is_waited_out(clock):
    answers = iter([_errors.Timeout("slow"), _errors.ServerError("bad", retryable=True), "ok"])

    def probe():
        got = next(answers)
        if isinstance(got, Exception):
            raise got
        return got

    assert wait(clock, probe, bool)[0] == "ok"


def test_trouble_that_stays_is_raised_at_once(clock):
    def probe():
        raise _errors.Forbidden("no")

    with pytest.raises(_errors.Forbidden):
        wait(clock, probe, bool)
    assert clock.slept == []


def test_timeout_names_the_trouble_of_the_last_look(clock):
    def probe():
        raise _errors.Timeout("no answer from b")

    with pytest.raises(_errors.WaitTimeout, match="no answer from b"):
        wait(clock, probe, bool)
