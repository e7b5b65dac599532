#!/usr/bin/env python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the OpenRouter sandbox and two gateway stand-ins in the background; print where they are, as JSON.

usage: start.py FOLDER

FOLDER gets ``pids`` (one a line), the logs, and ``slots``. If ``sophia`` is not installed, it is run from the source of
the tree this file is in. The management key comes from the environment.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

SECONDS = 30


def start(argv: list[str], folder: pathlib.Path, name: str, **environ: str) -> str:
    """Start a server; return its URL once it says that it listens."""
    log = folder / f"{name}.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            argv, env={**os.environ, **environ}, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    with (folder / "pids").open("a", encoding="utf-8") as pids:
        pids.write(f"{process.pid}\n")
    for _look in range(SECONDS * 20):
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("listening on "):
                return line.split()[-1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"{name} did not start: {log.read_text(encoding='utf-8')[-2000:]}")


def source() -> pathlib.Path:
    """Return where sophia's source is; ansible-test runs a copy of this file some folders below the tree."""
    for folder in pathlib.Path(__file__).resolve().parents:
        if (folder / "gateway_src/src/sophia").is_dir():
            return folder / "gateway_src/src"
    sys.exit("neither the command sophia nor gateway_src can be found")


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    slots = folder / "slots"
    slots.mkdir()
    command, environ = ["sophia", "sandbox", "openrouter"], {}
    if not shutil.which("sophia"):
        command, environ = [sys.executable, "-m", "sophia.sandbox.openrouter"], {"PYTHONPATH": str(source())}
    root = start([*command, "--port", "0"], folder, "sandbox", **environ)
    api = root + "/api/v1"
    replica = [sys.executable, str(pathlib.Path(__file__).parent / "replica.py"), "--slots", str(slots), "--api", api]
    gateways = [start([*replica, "--pause", "0.02"], folder, f"replica-{number}") for number in range(2)]
    print(json.dumps({"root": root, "api": api, "slots": str(slots), "gateways": gateways}))


if __name__ == "__main__":
    main()
