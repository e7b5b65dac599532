#!/usr/bin/env python3
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the test bed says of itself, as the variable ``testbed`` of the group ``platform`` (an inventory script)."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def status() -> dict:
    command = [sys.executable, "-m", "tests.testbed", "status"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return {"up": False}


if __name__ == "__main__":
    print(json.dumps({"platform": {"vars": {"testbed": status()}}, "_meta": {"hostvars": {}}}))
