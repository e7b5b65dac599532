# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quantities as numbers, and what the role storage says of a claim that is there."""

from __future__ import annotations

import pathlib

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from jinja2 import Environment

from ansible_collections.sophia.platform.plugins.filter.quantity import FilterModule

quantity = FilterModule().filters()["quantity"]
PROBLEMS = pathlib.Path(__file__).parents[4] / "roles/storage/templates/problems.yml.j2"


@pytest.mark.parametrize(("text", "number"), [("500Gi", 500 * 2**30), ("1G", 1e9), ("250m", 0.25), (3, 3.0), ("1e3", 1000.0)])
def test_a_quantity_is_a_number(text, number):
    assert quantity(text) == number


def test_what_is_none_is_refused():
    with pytest.raises(AnsibleFilterError, match="not a quantity: '4 GB'"):
        quantity("4 GB")


@pytest.mark.parametrize(("wanted", "problems"), [("500Gi", []), ("1Ti", []), ("100Gi", ["cannot shrink to 100Gi"])])
def test_a_claim_of_models_may_only_grow(wanted, problems):
    environment = Environment(trim_blocks=True)
    environment.filters["sophia.platform.quantity"] = quantity
    claim = {"spec": {"storageClassName": "shared", "resources": {"requests": {"storage": "500Gi"}}}}
    text = environment.from_string(PROBLEMS.read_text(encoding="utf-8")).render(
        storage_classes=[], storage_shared_class="shared", storage_shared_provisioner="existing", storage_shared_parameters={},
        storage_model_cache="models", storage_model_cache_size=wanted, __storage_claims={"resources": [claim]},
        __storage_seen={"resources": [{"metadata": {"name": "shared"}}]}, __storage_drivers={"resources": []}, __storage_pods={"resources": []},
    )
    found = yaml.safe_load(text) or []
    assert len(found) == len(problems)
    assert all(problem in line for problem, line in zip(problems, found))
