# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the proofs on a cluster judge by: whether an event kept its promise, and whether the ledger equals what was billed."""

from __future__ import annotations

import pytest

from ansible_collections.sophia.platform.tests.cluster import account
from ansible_collections.sophia.platform.tests.cluster.account import Booked
from ansible_collections.sophia.platform.tests.cluster.events import Event
from ansible_collections.sophia.platform.tests.cluster.outcome import Answer, judge, line

QUIET = Event("update", "", act=print)
BOUND = Event("redis", "", act=print, bound=20, refusals=("503",))
REFUSAL = '503 {"error":{"message":"no","code":"reservations_unavailable","request":"req_1"}}'


def answers(*failed):
    """A request a second from 100 to 160, each half a second long; `failed` are (begin, failure)."""
    wrong = dict(failed)
    return [Answer(float(begin), begin + 0.5, wrong.get(begin, "")) for begin in range(100, 160)]


def test_only_requests_of_an_events_time_count():
    outcome = judge(QUIET, answers((105, "reset"), (150, "reset")), 110, 140)
    assert (outcome.answered, outcome.failures, outcome.problem) == (31, {}, "")


def test_a_request_that_began_before_and_failed_within_counts():
    outcome = judge(QUIET, answers((109, "reset")), 109.4, 140)
    assert outcome.failures == {"reset": 1}
    assert "1 requests failed, where none may" in outcome.problem


def test_refusals_are_counted_by_status_and_code():
    outcome = judge(BOUND, answers((115, REFUSAL), (116, REFUSAL.replace("req_1", "req_2"))), 110, 140)
    assert outcome.failures == {"503 reservations_unavailable": 2}
    assert (outcome.first, outcome.until, outcome.problem) == (5.5, 6.5, "")


@pytest.mark.parametrize(
    ("failed", "problem"),
    [((135, REFUSAL), "failed until 25.5 s after its begin, promised are 20"), ((112, "ServerDisconnectedError"), "in another way than by a refusal")],
)
def test_a_promise_is_broken_by_time_and_by_kind(failed, problem):
    assert problem in judge(BOUND, answers(failed), 110, 140).problem


def test_a_line_tells_when_and_what():
    assert line(judge(BOUND, answers((115, REFUSAL)), 110, 140)).endswith(
        "1 failed, 5.5 to 5.5 s after its begin: {'503 reservations_unavailable': 1}"
    )


def test_an_equal_ledger_has_no_problem():
    rows = [Booked("a", "gen-1", 7, "settled"), Booked("b", "gen-2", 5, "settled"), Booked("c", "", 0, "settled")]
    found = account.compare({"gen-1": 7, "gen-2": 5}, rows)
    assert (found.billed, found.booked, found.unsettled, found.problems) == (12, 12, 0, ())


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "gen-1 was billed 7 and booked 0"),
        ([Booked("a", "gen-1", 6, "settled")], "gen-1 was billed 7 and booked 6"),
        ([Booked("a", "gen-1", 7, "settled"), Booked("b", "gen-1", 7, "settled")], "gen-1 is booked twice"),
        ([Booked("a", "gen-1", 7, "settled"), Booked("b", "gen-9", 2, "settled")], "gen-9 was billed 0 and booked 2"),
        ([Booked("a", "gen-1", 7, "settled"), Booked("b", "", 2, "settled")], "b cost 2 without a generation"),
        ([Booked("a", "gen-1", 7, "unconfirmed")], "1 attempts are not settled"),
    ],
)
def test_a_difference_is_named(rows, problem):
    assert account.compare({"gen-1": 7}, rows).problems == (problem,)
