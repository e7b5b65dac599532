#!/usr/bin/env python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Start a gateway in the background; print its URL once its API answers.

usage: start.py FOLDER [UPSTREAM]

UPSTREAM is OpenRouter's base URL; without it there is none. FOLDER must hold ``admin_key`` and may hold
``management_key``; it gets the configuration, a flags file, the state, the log and ``pid``. If ``sophia`` is
not installed, it is run from the source of the tree this file is in.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

SECONDS = 60
NOWHERE = "http://127.0.0.1:9/api/v1"
CONFIGURATION = """\
listen: 127.0.0.1:{port}
metrics_listen: 127.0.0.1:0
state_dir: state
admin_key_file: admin_key
flags_file: flags.yml
upstream:
  base_url: {upstream}
  key_files: {{primary: upstream_key}}
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def source() -> pathlib.Path:
    """Return where sophia's source is; ansible-test runs a copy of this file some folders below the tree."""
    for folder in pathlib.Path(__file__).resolve().parents:
        if (folder / "gateway_src/src/sophia").is_dir():
            return folder / "gateway_src/src"
    sys.exit("neither the command sophia nor gateway_src can be found")


def write(path: pathlib.Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)


def answers(url: str, key: str) -> bool:
    request = urllib.request.Request(url + "/admin/v1/me", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    folder = pathlib.Path(sys.argv[1]).absolute()
    port = free_port()
    configuration = CONFIGURATION.format(port=port, upstream=sys.argv[2] if len(sys.argv) > 2 else NOWHERE)
    if (folder / "management_key").exists():
        configuration += "  management_key_file: management_key\n"
    write(folder / "gateway.yml", configuration)
    write(folder / "flags.yml", "flags:\n  from_file: {enabled: true}\n")
    write(folder / "upstream_key", "sk-or-v1-" + "0" * 64)
    command, environ = ["sophia"], {}
    if not shutil.which("sophia"):
        command, environ = [sys.executable, "-m", "sophia"], {"PYTHONPATH": str(source())}
    log = folder / "gateway.log"
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [*command, "serve", "gateway", "--config", str(folder / "gateway.yml")],
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    write(folder / "pid", str(process.pid))
    url = f"http://127.0.0.1:{port}"
    key = (folder / "admin_key").read_text(encoding="utf-8").strip()
    for _look in range(SECONDS * 5):
        if answers(url, key):
            print(url)
            return
        if process.poll() is not None:
            break
        time.sleep(0.2)
    process.kill()
    sys.exit(f"the gateway did not start: {log.read_text(encoding='utf-8')[-2000:]}")


if __name__ == "__main__":
    main()
