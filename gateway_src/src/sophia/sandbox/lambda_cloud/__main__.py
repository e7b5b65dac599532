# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m sophia.sandbox.lambda_cloud`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from .config import API_KEY, Config
from .server import serve


def main(arguments: list[str] | None = None) -> None:
    """Serve with the options of the command line; the key comes from a file or the environment."""
    parser = argparse.ArgumentParser(prog="python -m sophia.sandbox.lambda_cloud", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8788)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time-scale", type=float, default=1.0, help="cloud seconds that pass in a second")
    parser.add_argument("--request-interval", type=float, default=1.0, help="seconds between requests, 0 for no limit")
    parser.add_argument("--launch-interval", type=float, default=12.0, help="seconds between launches, 0 for no limit")
    parser.add_argument("--flap", type=float, default=0.0, help="chance that a type is sold out in a region")
    parser.add_argument("--page-size", type=int, default=0, help="instances a page; 0 for one page")
    parser.add_argument("--key-file", type=Path, help="holds the API key; else $LAMBDA_API_KEY")
    given = parser.parse_args(arguments)
    config = Config(
        seed=given.seed,
        time_scale=given.time_scale,
        request_interval=given.request_interval,
        launch_interval=given.launch_interval,
        flap=given.flap,
        page_size=given.page_size,
        api_key=_key(given.key_file),
    )
    serve(given.host, given.port, config)


def _key(path: Path | None) -> str:
    if path is not None:
        return path.read_text().strip()
    return os.environ.get("LAMBDA_API_KEY") or API_KEY


if __name__ == "__main__":
    main()
