# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write to every folder of /volumes and read it back; in /shared also what the other pods of the Job write.

usage: check.py SECONDS PODS     in a pod of an indexed Job, which tells its number in JOB_COMPLETION_INDEX; CHECK names the check

Prints a line for each volume, and exits 1 when one of them is not well.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

WRITTEN = b"sophia" * 4096


def write(path: Path) -> None:
    with path.open("wb") as file:
        file.write(WRITTEN)
        file.flush()
        os.fsync(file.fileno())


def own(folder: Path) -> str:
    path = folder / "check"
    write(path)
    if path.read_bytes() != WRITTEN:
        raise OSError("what was written did not come back")
    path.unlink()
    return "written and read back"


def shared(folder: Path, seconds: float, pods: int) -> str:
    """Every pod shows a mark until all have seen all. The marks of this check go with the next one, when nobody waits for them any more."""
    own_marks, number = folder / f".check-{os.environ['CHECK']}", int(os.environ["JOB_COMPLETION_INDEX"])
    for old in folder.glob(".check-*"):
        if old != own_marks:
            shutil.rmtree(old, ignore_errors=True)
    own_marks.mkdir(exist_ok=True)
    deadline = time.monotonic() + seconds
    for stage in ("here", "seen"):
        write(own_marks / f"{stage}-{number}")
        while not all((own_marks / f"{stage}-{other}").exists() for other in range(pods)):
            if time.monotonic() > deadline:
                raise OSError(f"what another pod wrote did not show up in {seconds:.0f} s")
            time.sleep(0.2)
    return f"shared by {pods} pods"


def main() -> int:
    seconds, pods = float(sys.argv[1]), int(sys.argv[2])
    failed = False
    for folder in [*sorted(Path("/volumes").glob("*")), Path("/shared")]:
        if not folder.exists():
            continue
        try:
            said = shared(folder, seconds, pods) if folder == Path("/shared") else own(folder)
            print(f"ok {folder.name}: {said}", flush=True)
        except OSError as error:
            failed = True
            print(f"failed {folder.name}: {error}", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
