# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m tests.testbed up|down|status|image`: the edge, where errors become texts and exit codes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from . import bed, existing, service
from .addons import ADDONS, CORE, ordered
from .errors import BedError
from .kube import Kubectl
from .layout import REGISTRY, Layout
from .progress import Progress
from .registry import Registry


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m tests.testbed", description=__doc__)
    commands = root.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="bring up what is missing; the kubeconfig's path is printed last")
    up.add_argument("--only", metavar="ADDON", nargs="+", help=f"these addons and what they need: core, {', '.join(ADDONS)}")
    up.add_argument("--with", metavar="ADDON", nargs="+", default=[], dest="more", help="these besides the usual ones: keda")
    up.add_argument("--keep-compiler", action="store_true", help="keep the compiler's cache (several GB) for the next build")
    down = commands.add_parser("down", help="take everything down; the cache of programs and images stays")
    down.add_argument("--keep", action="store_true", help="keep etcd, keys and volumes for the next `up`")
    commands.add_parser("status", help="what others need to know to use the bed, as JSON")
    image = commands.add_parser("image", help="build the project's image and push it; its reference is printed last")
    image.add_argument("--tag", default="local")
    image.add_argument("--sandbox", action="store_true", help="on it, sophia-sandbox with what the stand-ins need as well")
    return root


def chosen(only: list[str] | None, more: list[str]) -> list[str]:
    """Names of addons; `core` stands for DNS and storage, no `only` for all that a deployment of the platform needs."""
    words = [name for name, addon in ADDONS.items() if addon.default] if only is None else only
    return [name for word in (*words, *more) for name in (CORE if word == "core" else (word,))]


def foreign(environ: Mapping[str, str], layout: Layout) -> Path | None:
    """The kubeconfig of a cluster that is not the bed's, where KUBECONFIG names one."""
    named = environ.get("KUBECONFIG")
    return Path(named) if named and Path(named) != layout.kubeconfig else None


def run(arguments: argparse.Namespace, environ: Mapping[str, str], progress: Progress) -> None:
    layout = Layout.of(environ)
    if arguments.command == "up":
        if (kubeconfig := foreign(environ, layout)) is not None:
            existing.check(Kubectl(shutil.which("kubectl") or layout.programs / "kubectl", kubeconfig))
            print(kubeconfig)
        else:
            bed.up(layout, ordered(chosen(arguments.only, arguments.more)), progress, arguments.keep_compiler)
            print(layout.kubeconfig)
    elif arguments.command == "down":
        bed.down(layout, progress, keep=arguments.keep)
    elif arguments.command == "image":
        print(service.build(layout, Registry(REGISTRY), progress, arguments.tag))
        if arguments.sandbox:
            print(service.build_sandbox(layout, Registry(REGISTRY), progress, arguments.tag))
    else:
        print(json.dumps(bed.status(layout), indent=2))


def main(argv: list[str] | None = None) -> int:
    try:
        run(parser().parse_args(argv), os.environ, Progress())
    except BedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
