# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault wall: every fault of the OpenRouter stand-in, on every route, streamed and not, at one or all candidates.

`cases` says what must come of each, `look` what a client sees, `gateways` who is tried, `wall` does it.

    python -m tests.e2e.faults [--gateways sophia litellm portkey --cache .cache/bench] [--output docs]
"""
