# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: lambda_cloud
short_description: Lambda Cloud instances as inventory
version_added: 0.1.0
description:
  - Lists the instances of a Lambda Cloud account, by pool, region, type and status.
  - The file's name ends in C(lambda_cloud.yml) or C(lambda_cloud.yaml).
  - The secrets of an instance's notebook server are never among its variables, nor in the cache.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._lambda_cloud
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description:
      - Has to be V(sophia.platform.lambda_cloud).
    type: str
    required: true
    choices: [sophia.platform.lambda_cloud]
  pools:
    description:
      - Only hosts of these pools. Without any, every instance, those of no pool included.
    type: list
    elements: str
    default: []
  statuses:
    description:
      - Only instances of these statuses. An instance has no address before it has nearly booted.
    type: list
    elements: str
    default: [active]
  ansible_user:
    description:
      - The user to log in as.
    type: str
    default: ubuntu
  hostvars_prefix:
    description:
      - What the names of the variables begin with.
    type: str
    default: lambda_
  group_prefix:
    description:
      - What the names of the groups begin with.
    type: str
    default: lambda_
"""

EXAMPLES = r"""
---
plugin: sophia.platform.lambda_cloud
pools: [serving]
hostvars_prefix: lambda_
keyed_groups:
  - key: lambda_gpus | string
    prefix: gpus
compose:
  ansible_ssh_common_args: "'-o StrictHostKeyChecking=yes'"
"""

import os
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable

from ansible_collections.sophia.platform.plugins.module_utils._errors import PlatformError
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.model import Instance, identity
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.options import api_of, folder_of

API_OPTIONS = (
    "api_url",
    "api_key",
    "api_timeout",
    "api_retries",
    "request_interval",
    "launch_interval",
    "state_dir",
    "validate_certs",
    "ca_path",
)


def row_of(instance: Instance) -> dict[str, Any]:
    """Return what an instance's variables are made of, as plain data."""
    own = identity(instance)
    return {
        **instance.as_result(),
        "pool": own.pool if own else None,
        "ordinal": own.ordinal if own else None,
        "spec": own.spec if own else None,
    }


def names_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return a name for each row: its own, with the id where that is not enough to tell it from others."""
    given = [row["name"] or row["id"] for row in rows]
    return [name if given.count(name) == 1 else f"{name}-{row['id'][:8]}" for name, row in zip(given, rows)]


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    NAME = "sophia.platform.lambda_cloud"

    def verify_file(self, path: str) -> bool:
        return super().verify_file(path) and path.endswith(("lambda_cloud.yml", "lambda_cloud.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        rows = [row for row in self._rows(path, cache) if self._wanted(row)]
        for name, row in zip(names_of(rows), rows):
            self._add(name, row)

    def _rows(self, path: str, cache: bool) -> list[dict[str, Any]]:
        self.load_cache_plugin()
        key = self.get_cache_key(path)
        wanted = self.get_option("cache")
        if wanted and cache and key in self._cache:
            return self._cache[key]
        rows = self._ask()
        if wanted:
            self._cache[key] = rows
        return rows

    def _ask(self) -> list[dict[str, Any]]:
        params = {name: self.get_option(name) for name in API_OPTIONS}
        params["api_key"] = self.templar.template(params["api_key"] or "") or os.environ.get("LAMBDA_API_KEY")
        try:
            return [row_of(instance) for instance in api_of(params, folder_of(params), self.display.warning).instances()]
        except PlatformError as error:
            raise AnsibleParserError(f"lambda_cloud: {error.message}") from error

    def _wanted(self, row: dict[str, Any]) -> bool:
        pools = self.get_option("pools")
        return row["status"] in self.get_option("statuses") and (not pools or row["pool"] in pools)

    def _add(self, name: str, row: dict[str, Any]) -> None:
        self.inventory.add_host(name)
        if row["ip"]:
            self.inventory.set_variable(name, "ansible_host", row["ip"])
        self.inventory.set_variable(name, "ansible_user", self.get_option("ansible_user"))
        prefix = self.get_option("hostvars_prefix")
        for key, value in row.items():
            self.inventory.set_variable(name, prefix + key, value)
        for kind, value in (("pool", row["pool"]), ("region", row["region"]), ("type", row["instance_type"]), ("status", row["status"])):
            if value:
                group = self.inventory.add_group(self._sanitize_group_name(f"{self.get_option('group_prefix')}{kind}_{value}"))
                self.inventory.add_child(group, name)
        known = {**self.inventory.get_host(name).get_vars()}
        strict = self.get_option("strict")
        self._set_composite_vars(self.get_option("compose"), known, name, strict=strict)
        self._add_host_to_composed_groups(self.get_option("groups"), known, name, strict=strict)
        self._add_host_to_keyed_groups(self.get_option("keyed_groups"), known, name, strict=strict)
