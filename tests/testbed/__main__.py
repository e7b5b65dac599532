# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.testbed up|down|status`: the edge, where errors become texts and exit codes."""

from __future__ import annotations

import argparse
import json
import os
import sys

from . import bed
from .addons import ADDONS, ordered
from .errors import BedError
from .layout import Layout
from .progress import Progress

CORE = ("dns", "storage")


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring up what is missing; the kubeconfig's path is printed last")
    up.add_argument("--only", metavar="ADDON", nargs="+", help=f"these addons (and what they need): core, {', '.join(ADDONS)}")
    down = commands.add_parser("down", help="take everything down")
    down.add_argument("--keep", action="store_true", help="keep etcd, keys and volumes for the next `up`")
    commands.add_parser("status", help="what the bed is, as JSON")
    return root


def chosen(only: list[str] | None) -> list[str]:
    """Names of addons; `core` stands for DNS and storage."""
    if only is None:
        return list(ADDONS)
    return [name for word in only for name in (CORE if word == "core" else (word,))]


def run(arguments: argparse.Namespace, layout: Layout, progress: Progress) -> None:
    if arguments.command == "up":
        bed.up(layout, ordered(chosen(arguments.only)), progress)
        print(layout.kubeconfig)
    elif arguments.command == "down":
        bed.down(layout, progress, keep=arguments.keep)
    else:
        print(json.dumps(bed.status(layout), indent=2))


def main(argv: list[str] | None = None) -> int:
    try:
        run(parser().parse_args(argv), Layout.of(os.environ), Progress())
    except BedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
