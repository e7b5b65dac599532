# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m sophia.sandbox.openrouter`."""

from __future__ import annotations

import argparse
import os
from decimal import Decimal
from pathlib import Path

from .config import INFERENCE_KEY, MANAGEMENT_KEY, Config
from .server import serve


def main(arguments: list[str] | None = None) -> None:
    """Serve with the options of the command line; keys come from files or the environment, never from arguments."""
    parser = argparse.ArgumentParser(prog="python -m sophia.sandbox.openrouter", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8787)
    parser.add_argument("--latency-scale", type=float, default=0.0, help="1 is the models' real pace, 0 none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--state-file", type=Path)
    parser.add_argument("--credits", type=Decimal, default=Decimal(10_000), help="USD that the account has bought")
    parser.add_argument("--generation-delay", type=float, default=0.5, help="seconds of 404 from GET /generation")
    parser.add_argument("--key-file", type=Path, help="holds the inference key; else $OPENROUTER_API_KEY")
    parser.add_argument("--management-key-file", type=Path, help="else $OPENROUTER_MANAGEMENT_KEY")
    given = parser.parse_args(arguments)
    config = Config(
        latency_scale=given.latency_scale,
        seed=given.seed,
        state_file=given.state_file,
        credits=given.credits,
        generation_delay=given.generation_delay,
        inference_key=_key(given.key_file, "OPENROUTER_API_KEY", INFERENCE_KEY),
        management_key=_key(given.management_key_file, "OPENROUTER_MANAGEMENT_KEY", MANAGEMENT_KEY),
    )
    serve(given.host, given.port, config)


def _key(path: Path | None, variable: str, default: str) -> str:
    if path is not None:
        return path.read_text().strip()
    return os.environ.get(variable) or default


if __name__ == "__main__":
    main()
