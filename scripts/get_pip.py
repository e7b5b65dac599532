# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bootstrap pip for ansible-test's sanity environments from the interpreter's own wheel.

ansible-test makes its environments without pip and downloads get-pip.py, unless its cache
(`~/.ansible/test/cache/get_pip_24_2.py`) holds one: tests/run puts this file there, so that
sanity needs a package index and nothing else.
"""

from __future__ import annotations

import ensurepip
import os
import runpy
import sys

# get-pip.py's own switches, which pip does not know.
BOOTSTRAP_ONLY = {"--no-setuptools", "--no-wheel"}


def main() -> None:
    environment = dict(os.environ)
    ensurepip.bootstrap()
    # ensurepip points PIP_CONFIG_FILE at the null device and drops every PIP_* setting.
    os.environ.clear()
    os.environ.update(environment)
    arguments = [argument for argument in sys.argv[1:] if argument not in BOOTSTRAP_ONLY]
    sys.argv = ["pip", "install", "--upgrade", *arguments]
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
