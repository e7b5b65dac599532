# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory plugin lambda_cloud makes of instances; the target lambda_inventory runs it."""

from __future__ import annotations

import json

from ansible_collections.sophia.platform.plugins.inventory.lambda_cloud import InventoryModule, names_of, row_of
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import parse_instance

RAW = {
    "id": "0920582c7ff041399e34823a0be62549",
    "name": "serving-0-01234567",
    "status": "active",
    "ip": "203.0.113.1",
    "ssh_key_names": ["ops"],
    "file_system_names": [],
    "region": {"name": "us-east-1", "description": "Virginia, USA"},
    "instance_type": {"name": "gpu_1x_a10", "price_cents_per_hour": 129, "specs": {"gpus": 1}},
    "tags": [{"key": key, "value": value} for key, value in {"sophia-pool": "serving", "sophia-ordinal": "0", "sophia-spec": "01234567"}.items()],
    "actions": {},
    "jupyter_token": "hidden-token",
    "jupyter_url": "https://hidden.example/?token=hidden-token",
}


def test_a_row_has_the_pool_and_no_secret():
    row = row_of(parse_instance(RAW))
    assert (row["pool"], row["ordinal"], row["price_per_hour"]) == ("serving", 0, "1.29")
    assert "hidden" not in json.dumps(row)


def test_every_host_has_a_name_of_its_own():
    rows = [{"name": "a", "id": "1" * 32}, {"name": "a", "id": "2" * 32}, {"name": "", "id": "3" * 32}, {"name": "b", "id": "4" * 32}]
    assert names_of(rows) == ["a-11111111", "a-22222222", "3" * 32, "b"]


def test_the_name_of_its_file(tmp_path):
    for name, fits in (("lambda_cloud.yml", True), ("x.lambda_cloud.yaml", True), ("lambda.yml", False)):
        (tmp_path / name).write_text("plugin: sophia.platform.lambda_cloud\n", encoding="utf-8")
        assert InventoryModule().verify_file(str(tmp_path / name)) is fits
