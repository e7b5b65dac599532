# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The order of weights, and what is refused. The scenario canary runs the module against a real HAProxy."""

from __future__ import annotations

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, PlatformError, StateConflict
from ansible_collections.sophia.platform.plugins.modules.haproxy_weights import Socket, parse, plan

# What HAProxy 2.6 answers to `show stat`, without the columns that are not read.
STAT = """# pxname,svname,qcur,weight,type,
api,FRONTEND,,,0,
gateways,stable,0,95,2,
gateways,canary,0,5,2,
gateways,BACKEND,0,100,1,
other,stable,0,1,2,

"""


def test_only_servers_of_the_backend_count():
    assert parse(STAT, "gateways") == {"stable": 95, "canary": 5}
    assert parse(STAT, "nowhere") == {}


@pytest.mark.parametrize(
    ("wanted", "changes"),
    [
        ({"stable": 95, "canary": "5"}, []),
        ({"stable": 50, "canary": 50}, ["canary", "stable"]),
        ({"stable": 100, "canary": 0}, ["stable", "canary"]),
        ({"canary": 10}, ["canary"]),
    ],
)
def test_what_grows_is_raised_before_what_shrinks_is_lowered(wanted, changes):
    assert list(plan({"stable": 95, "canary": 5}, wanted, "gateways")) == changes


@pytest.mark.parametrize("wanted", [{"stable": 0, "canary": 0}, {"stable": 257}, {"stable": -1}, {"stable": "half"}, {"third": 1}])
def test_weights_that_cannot_be_are_refused(wanted):
    with pytest.raises(InvalidInput):
        plan({"stable": 95, "canary": 5}, wanted, "gateways")


def test_a_backend_that_is_not_there_is_told():
    with pytest.raises(StateConflict, match="no backend nowhere"):
        plan({}, {"stable": 1}, "nowhere")


def test_a_socket_that_is_not_there_is_told(tmp_path):
    with pytest.raises(PlatformError, match="No such file"):
        Socket(str(tmp_path / "none"), 1).ask("show stat")
