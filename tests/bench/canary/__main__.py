# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run every cell and write docs/canary/table.{md,csv,svg}. usage: python -m tests.bench.canary [--runs N] [--seed N]"""

from __future__ import annotations

import argparse
import sys

from . import ROOT, table, trial
from .cells import all_cells


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the canary rules and write docs/canary/table.*")
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=20260)
    arguments = parser.parse_args()
    rows = []
    for row in trial.run(all_cells(), arguments.runs, arguments.seed):
        rows.append(row)
        print(f"{row.cell.group} · {row.cell.name} · {row.rule}", file=sys.stderr)
    place = ROOT / "docs/canary"
    place.mkdir(parents=True, exist_ok=True)
    (place / "table.csv").write_text(table.as_csv(rows), encoding="utf-8")
    (place / "table.md").write_text(table.as_markdown(rows, arguments.runs, arguments.seed), encoding="utf-8")
    (place / "table.svg").write_text(table.as_svg(rows), encoding="utf-8")
    broken = [f"{row.cell.group}, {row.cell.name}" for row in rows if table.claimed(row) and not row.holds]
    for name in broken:
        print(f"not kept: {name}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
