# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m sophia.sandbox.qdrant`."""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

from .config import Config
from .server import serve


def main(arguments: list[str] | None = None) -> None:
    """Serve with the options of the command line; the key comes from a file or the environment."""
    parser = argparse.ArgumentParser(prog="python -m sophia.sandbox.qdrant", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=6333)
    parser.add_argument("--storage", type=Path, help="folder that is kept; without it, one that ends with the process")
    parser.add_argument("--seed", type=int, default=0, help="of faults by probability")
    parser.add_argument("--api-key-file", type=Path, help="holds the key that callers need; else $QDRANT_API_KEY")
    parser.add_argument("--no-index", action="store_true", help="never build an index")
    given = parser.parse_args(arguments)
    key = given.api_key_file.read_text().strip() if given.api_key_file else os.environ.get("QDRANT_API_KEY")
    with contextlib.ExitStack() as stack:
        storage = given.storage or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qdrant-")))
        config = Config(storage=storage, api_key=key or None, seed=given.seed, optimize=not given.no_index)
        serve(given.host, given.port, config)


if __name__ == "__main__":
    main()
