# SPDX-License-Identifier: GPL-3.0-or-later
"""`python -m sophia.sandbox.vllm`."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from .config import Config
from .server import serve


def main(arguments: list[str] | None = None) -> None:
    """Serve with the options of the command line; the key comes from a file or the environment."""
    parser = argparse.ArgumentParser(prog="python -m sophia.sandbox.vllm", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", nargs="+", default=list(Config.served_model_name))
    parser.add_argument("--runner", choices=["generate", "pooling"], default=Config.runner)
    parser.add_argument("--max-model-len", type=int, default=Config.max_model_len)
    parser.add_argument("--max-num-seqs", type=int, default=Config.max_num_seqs)
    parser.add_argument("--block-size", type=int, default=Config.block_size)
    parser.add_argument("--num-gpu-blocks-override", type=int, default=Config.num_gpu_blocks)
    parser.add_argument("--tokens-per-second", type=float, default=Config.tokens_per_second, help="0 answers at once")
    parser.add_argument("--prefill-tokens-per-second", type=float, default=Config.prefill_tokens_per_second)
    parser.add_argument("--load-seconds", type=float, default=0.0, help="before it listens, as a model is loaded")
    parser.add_argument("--api-key-file", type=Path, help="holds the key that callers need; else $VLLM_API_KEY")
    parser.add_argument("--seed", type=int, default=0, help="of faults by probability")
    given = parser.parse_args(arguments)
    key = given.api_key_file.read_text().strip() if given.api_key_file else os.environ.get("VLLM_API_KEY")
    config = Config(
        served_model_name=tuple(given.served_model_name),
        runner=given.runner,
        max_model_len=given.max_model_len,
        max_num_seqs=given.max_num_seqs,
        block_size=given.block_size,
        num_gpu_blocks=given.num_gpu_blocks_override,
        tokens_per_second=given.tokens_per_second,
        prefill_tokens_per_second=given.prefill_tokens_per_second,
        api_key=key or None,
        seed=given.seed,
    )
    time.sleep(given.load_seconds)
    serve(given.host, given.port, config)


if __name__ == "__main__":
    main()
