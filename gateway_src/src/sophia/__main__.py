# SPDX-License-Identifier: GPL-3.0-or-later
"""``python -m sophia``."""

from __future__ import annotations

from sophia.cli import main

if __name__ == "__main__":
    main()
