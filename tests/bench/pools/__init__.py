# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pools on random histories: what gpu_nodepool makes of a cloud that fails in every way it can.

``python -m tests.bench.pools`` (from the repository's root, with msgspec) runs 1,000 of them. The cloud is the stand-in
``sophia.sandbox.lambda_cloud``, in this process and on a clock that only sleeping moves.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]


def _find_packages() -> None:
    """Make the collection and ``sophia`` importable from a plain clone too."""
    try:
        import ansible_collections.sophia.platform.plugins.module_utils  # noqa: F401
    except ImportError:
        place = pathlib.Path(tempfile.mkdtemp(prefix="pools-bench-"))
        (place / "ansible_collections/sophia").mkdir(parents=True)
        (place / "ansible_collections/sophia/platform").symlink_to(ROOT)
        sys.path.insert(0, str(place))
    try:
        import sophia.sandbox.lambda_cloud  # noqa: F401
    except ImportError:
        sys.path.insert(0, str(ROOT / "gateway_src/src"))


_find_packages()
