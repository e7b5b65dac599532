# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a migration withstands and costs: kills at any moment, a live writer, readers at the switch, speed and memory.

``python -m tests.bench.vectors kills|live|speed`` (from the repository's root) runs it against stand-ins of its own.
"""

from __future__ import annotations

import atexit
import os
import pathlib
import shutil
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[3]


def _gone(place: pathlib.Path, owner: int) -> None:
    """Remove the folder at the end of the process that made it, not of one that it forked."""
    if os.getpid() == owner:
        shutil.rmtree(place)


def _find_collection() -> None:
    """Make ``ansible_collections.sophia.platform`` importable from a plain clone too."""
    try:
        import ansible_collections.sophia.platform.plugins.module_utils  # noqa: F401
    except ImportError:
        place = pathlib.Path(tempfile.mkdtemp(prefix="vectors-bench-"))
        atexit.register(_gone, place, os.getpid())
        (place / "ansible_collections/sophia").mkdir(parents=True)
        (place / "ansible_collections/sophia/platform").symlink_to(ROOT)
        sys.path.insert(0, str(place))


_find_collection()
