# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every module is in the action groups that its documentation names, and no group names another.

Exits 1 with one line for each difference between plugins/modules and meta/runtime.yml.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent.parent
FRAGMENT = "sophia.platform._attributes.actiongroup_"


def documented(module: Path) -> set[str]:
    """The groups that a module's documentation fragments make it a member of."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "DOCUMENTATION":
            fragments = yaml.safe_load(ast.literal_eval(node.value)).get("extends_documentation_fragment", [])
            groups = {name.removeprefix(FRAGMENT) for name in fragments if name.startswith(FRAGMENT)}
            return groups | {"all"}
    return {"all"}


def main() -> int:
    wanted: dict[str, set[str]] = {}
    for module in ROOT.glob("plugins/modules/*.py"):
        for group in documented(module):
            wanted.setdefault(group, set()).add(module.stem)
    runtime = yaml.safe_load((ROOT / "meta/runtime.yml").read_text(encoding="utf-8"))
    declared = {group: set(modules) for group, modules in runtime.get("action_groups", {}).items()}
    problems = []
    for group in sorted(wanted.keys() | declared.keys()):
        for module in sorted(wanted.get(group, set()) ^ declared.get(group, set())):
            where = "meta/runtime.yml lacks it" if module in wanted.get(group, set()) else "only meta/runtime.yml says so"
            problems.append(f"{module} in action group {group}: {where}")
    print("\n".join(problems) or f"{sum(map(len, declared.values()))} memberships agree")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
