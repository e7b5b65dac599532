# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How often a canary rule is wrong, and how long it takes to be right: ours and its peers on the same simulated traffic.

``python -m tests.bench.canary`` (from the repository's root, with numpy) writes the table that docs/canary.md quotes.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]


def _find_collection() -> None:
    """Make ``ansible_collections.sophia.platform`` importable from a plain clone too."""
    try:
        import ansible_collections.sophia.platform.plugins.module_utils  # noqa: F401
    except ImportError:
        place = pathlib.Path(tempfile.mkdtemp(prefix="canary-bench-"))
        (place / "ansible_collections/sophia").mkdir(parents=True)
        (place / "ansible_collections/sophia/platform").symlink_to(ROOT)
        sys.path.insert(0, str(place))


_find_collection()
