# SPDX-License-Identifier: GPL-3.0-or-later
"""How a stand-in is set up. Names and defaults are those of `vllm serve` where it has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["VERSION", "Config"]

# What `GET /version` says: the version whose API this follows, marked as none of the vendor's.
VERSION = "0.11.0+sophia.sandbox"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Options of `create_app`.

    - `served_model_name`: the names that the model answers to; the first is the one that answers carry.
    - `runner`: `generate` serves chat and completions, `pooling` serves embeddings.
    - `max_model_len`: tokens of prompt and answer together.
    - `max_num_seqs`: sequences in the batch; more wait.
    - `block_size`, `num_gpu_blocks`: tokens per KV block, and how many blocks there are.
    - `tokens_per_second`: of one sequence that is being decoded; 0 answers at once.
    - `prefill_tokens_per_second`: of the whole engine; cached tokens take no time. 0 takes none for any.
    - `dimensions`: of an embedding.
    - `api_key`: callers of `/v1` must send it; None asks for none.
    - `seed`: of faults by probability.
    """

    served_model_name: tuple[str, ...] = ("sophia-local",)
    runner: Literal["generate", "pooling"] = "generate"
    max_model_len: int = 32_768
    max_num_seqs: int = 256
    block_size: int = 16
    num_gpu_blocks: int = 8192
    tokens_per_second: float = 60.0
    prefill_tokens_per_second: float = 8_000.0
    dimensions: int = 64
    prompt_tokens_details: bool = True
    api_key: str | None = None
    seed: int = 0
    max_body: int = 32 << 20

    @property
    def model(self) -> str:
        """The name that answers carry."""
        return self.served_model_name[0]
