# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documented examples are what the integration targets run, word for word."""

from __future__ import annotations

import importlib
import pathlib

import pytest

TARGETS = pathlib.Path(__file__).parents[4] / "integration" / "targets"


@pytest.mark.parametrize("name", ["qdrant_collection_info", "qdrant_migrate"])
def test_the_target_runs_the_examples(name):
    module = importlib.import_module(f"ansible_collections.sophia.platform.plugins.modules.{name}")
    tasks = TARGETS.joinpath(name, "tasks", "examples.yml").read_text(encoding="utf-8")
    assert tasks.endswith("\n\n" + module.EXAMPLES.lstrip("\n"))
