#!/usr/bin/env python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start the Lambda Cloud sandbox in the background; print where it is.

usage: start.py FOLDER [OPTION…]

FOLDER gets ``pid`` and ``log``. If ``sophia`` is not installed, it is run from the source of the tree this file is in.
Options are the sandbox's; the API key comes from the environment.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import sys
import time

SECONDS = 60


def source() -> pathlib.Path:
    """Return where sophia's source is; ansible-test runs a copy of this file some folders below the tree."""
    for folder in pathlib.Path(__file__).resolve().parents:
        if (folder / "gateway_src/src/sophia").is_dir():
            return folder / "gateway_src/src"
    sys.exit("neither the command sophia nor gateway_src can be found")


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    command, environ = ["sophia", "sandbox", "lambda-cloud"], {}
    if not shutil.which("sophia"):
        command, environ = [sys.executable, "-m", "sophia.sandbox.lambda_cloud"], {"PYTHONPATH": str(source())}
    log = folder / "log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, "--port", "0", *sys.argv[2:]],
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (folder / "pid").write_text(str(process.pid), encoding="utf-8")
    for _look in range(SECONDS * 20):
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("listening on "):
                print(line.split()[-1])
                return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    sys.exit(f"the sandbox did not start: {log.read_text(encoding='utf-8')[-2000:]}")


if __name__ == "__main__":
    main()
