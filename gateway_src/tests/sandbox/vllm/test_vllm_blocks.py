# SPDX-License-Identifier: GPL-3.0-or-later
"""The modelled prefix cache."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from sophia.sandbox.vllm.blocks import Blocks, chain, count

SIZE = 4
texts = st.binary(max_size=200)


@given(texts, texts, texts)
@settings(deadline=None)
def test_a_chain_is_shared_exactly_as_far_as_the_full_blocks_are(head: bytes, left: bytes, right: bytes) -> None:
    one, other = head + left, head + right
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    blocks = shared // (SIZE * 4)
    first, second = chain(one, SIZE), chain(other, SIZE)
    assert first[:blocks] == second[:blocks]
    assert first[blocks:] == [] or second[blocks:] == [] or first[blocks] != second[blocks]
    assert len(first) == len(one) // (SIZE * 4)
    assert count(one) >= len(first) * SIZE


@given(st.lists(st.tuples(texts, st.booleans()), max_size=20))
@settings(deadline=None)
def test_what_runs_stays_and_the_rest_fits_its_room(steps: list[tuple[bytes, bool]]) -> None:
    blocks = Blocks(8)
    running: list[list[bytes]] = []
    for text, ends in steps:
        hashes = chain(text, SIZE)
        if blocks.hold(len(hashes)):
            blocks.use(hashes)
            running.append(hashes)
        if ends and running:
            ended = running.pop(0)
            blocks.release(ended, len(ended))
        for each in running:
            assert blocks.cached(each) == len(each)
        assert blocks.held == sum(map(len, running))
    for each in running:
        blocks.release(each, len(each))
    blocks.forget()
    assert blocks.held == 0
    assert all(blocks.cached(chain(text, SIZE)) == 0 for text, _ in steps)
