# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Values and decisions of the module openrouter_key: money, times, which key, what to change."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.sophia.platform.plugins.module_utils import _errors
from ansible_collections.sophia.platform.plugins.module_utils._openrouter import api, making, model, plan

NOW = datetime(2026, 11, 24, tzinfo=timezone.utc)
DATA = {
    "hash": "f01d", "name": "production", "label": "sk-or-v1-0e6...1c96", "disabled": False, "limit": Decimal("100.10"),
    "limit_remaining": Decimal("74.5"), "limit_reset": "monthly", "include_byok_in_limit": False, "usage": Decimal("25.5"),
    "created_at": "2025-08-24T10:30:00Z", "updated_at": None, "creator_user_id": None, "workspace_id": "w", "expires_at": None,
    "something_new": {"cost": Decimal("1E-7"), "items": [Decimal("2.50")]},
}  # fmt: skip


def key(**changes):
    return model.parse_key({**DATA, **changes})


def wanted(state="present", name="production", guardrail_id=None, **settings):
    return plan.Wanted(name, state, settings=settings, guardrail_id=guardrail_id)


@given(amount=st.decimals(min_value=0, max_value=10**6, places=9, allow_nan=False, allow_infinity=False))
def test_an_amount_survives_the_wire_or_is_refused(amount):
    try:
        sent = json.dumps(model.wire(amount))
    except _errors.InvalidInput:
        assert Decimal(repr(float(amount))) != amount
        return
    assert Decimal(sent) == amount


@given(amount=st.decimals(min_value=-(10**9), max_value=10**9, allow_nan=False, allow_infinity=False))
def test_plain_is_the_same_amount_without_exponent(amount):
    text = model.plain(amount)
    assert Decimal(text) == amount and "E" not in text and text != "-0"


@pytest.mark.parametrize(("text", "amount"), [("0", 0), ("250.50", "250.5"), (" 1e2 ", 100), ("unlimited", None), ("Unlimited", None)])
def test_limits(text, amount):
    assert model.limit(text) == (None if amount is None else Decimal(amount))


@pytest.mark.parametrize("text", ["-1", "NaN", "Infinity", "", "ten", "1,5"])
def test_what_is_no_limit(text):
    with pytest.raises(_errors.InvalidInput):
        model.limit(text)


def test_times_are_read_with_any_zone_and_written_in_utc():
    moment = model.instant("2026-12-31T23:59:59+02:00")
    assert model.stamp(moment) == "2026-12-31T21:59:59Z"
    assert model.instant("2026-12-31T21:59:59.000Z") == moment


def test_unknown_fields_are_passed_on_with_their_numbers_exact():
    result = key().as_result("g")
    assert result["something_new"] == {"cost": "0.0000001", "items": ["2.5"]}
    assert (result["limit"], result["guardrail_id"]) == ("100.1", "g")
    json.dumps(result)


@pytest.mark.parametrize("broken", [{"hash": None}, {"hash": ""}, {"name": 1}, {"limit": "x"}, {"expires_at": "soon"}])
def test_what_is_no_key(broken):
    with pytest.raises(_errors.BadResponse):
        key(**broken)


@pytest.mark.parametrize("missing", ["hash", "name", "label", "disabled", "limit", "limit_reset", "include_byok_in_limit"])
def test_a_key_without_what_every_key_has(missing):
    with pytest.raises(_errors.BadResponse):
        model.parse_key({name: value for name, value in DATA.items() if name != missing})


def test_equal_amounts_are_no_change():
    current = plan.Current(key())
    assert not plan.plan(wanted(limit=Decimal("100.1")), current, NOW).changed
    changed = plan.plan(wanted(limit=Decimal("100.2"), limit_reset=None), current, NOW)
    assert changed.changes == {"limit": Decimal("100.2"), "limit_reset": None}
    assert (changed.before["limit"], changed.after["limit"]) == ("100.1", "100.2")


@pytest.mark.parametrize(
    ("asked", "now", "assign", "unassign"),
    [(None, "g", None, None), ("g", "g", None, None), ("", None, None, None), ("h", "g", "h", None), ("", "g", None, "g"), ("g", None, "g", None)],
)
def test_guardrails(asked, now, assign, unassign):
    decided = plan.plan(wanted(guardrail_id=asked), plan.Current(key(), now), NOW)
    assert (decided.assign, decided.unassign) == (assign, unassign)
    assert decided.changed == bool(assign or unassign)


def test_an_expired_key_is_not_revived():
    expired = plan.Current(key(expires_at="2026-01-01T00:00:00Z"))
    with pytest.raises(_errors.StateConflict) as caught:
        plan.plan(wanted(), expired, NOW)
    assert caught.value.code == "expired"
    assert plan.plan(wanted("absent"), expired, NOW).action == "delete"


def test_an_expiry_cannot_be_changed_or_added():
    with pytest.raises(_errors.InvalidInput) as caught:
        plan.plan(wanted(expires_at=NOW + timedelta(days=1)), plan.Current(key()), NOW)
    assert caught.value.code == "immutable"


def test_by_hash_the_name_is_what_it_shall_be():
    assert plan.find([key()], "other", "f01d").name == "production"
    assert plan.plan(wanted(name="other"), plan.Current(key()), NOW).changes == {"name": "other"}
    with pytest.raises(_errors.StateConflict, match="no key with hash"):
        plan.find([key()], "production", "gone")


@pytest.mark.parametrize(
    ("made", "stored", "expected"),
    [(None, None, ["b"]), ("b", None, ["b"]), ("b", "other", ["b"]), ("b", "id", []), ("gone", None, [])],
)
def test_orphans(made, stored, expected):
    intent = making.Intent("production", ("a",), made, "id" if made else None)
    keys = [key(hash="a"), key(hash="b"), key(hash="c", name="other")]
    assert [found.hash for found in making.orphans(intent, keys, stored)] == expected


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (403, "Key limit exceeded (total limit). Manage it using https://openrouter.ai/keys", "key_limit_exceeded"),
        (402, "This key limit has been reached", "key_limit_exceeded"),
        (402, "Insufficient credits", "insufficient_credits"),
        (403, "Only management keys can perform this operation", "not_a_management_key"),
        (403, "Model requires moderation", "forbidden"),
        (401, "Key limit exceeded", "unauthenticated"),
    ],
)
def test_kinds_of_402_and_403(status, message, code):
    assert api.classify(_errors.class_for(status)(message, status=status)).code == code


class Pages:
    """A server that ignores ``offset``, as a proxy that drops queries would."""

    def __init__(self):
        self.asked = 0

    def get(self, path, query=None):
        self.asked += 1
        return type("Answer", (), {"body": {"data": [dict(DATA)]}})


def test_a_server_that_ignores_offset_does_not_hold_us_for_ever():
    pages = Pages()
    assert [found.hash for found in api.Api(pages).keys()] == ["f01d"]
    assert pages.asked == 2
