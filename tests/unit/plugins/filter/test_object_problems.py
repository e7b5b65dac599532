# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter goes through all objects, and says what it cannot read."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.sophia.platform.plugins.filter.object_problems import FilterModule

object_problems = FilterModule().filters()["object_problems"]


def test_problems_come_in_the_order_of_the_objects() -> None:
    route = {"kind": "HTTPRoute", "metadata": {"name": "x", "namespace": "app"}}
    ready = {"kind": "Certificate", "metadata": {"name": "x"}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert object_problems([route, ready, route]) == ["HTTPRoute app/x: no gateway has taken it"] * 2


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(AnsibleFilterError, match="list of Kubernetes objects"):
        object_problems(["not an object"])
