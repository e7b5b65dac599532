# SPDX-License-Identifier: GPL-3.0-or-later
"""The semantic cache, measured: its guards, its rule beside others, its index, its walls between tenants, its hits.

``python -m tests.bench.cache`` (from the repository's root, with the gateway's own packages) writes docs/bench/cache.*
"""

from __future__ import annotations

import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[3]
