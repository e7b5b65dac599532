# SPDX-License-Identifier: GPL-3.0-or-later
"""The model router: one OpenAI-compatible address before many vLLM servers, with overflow to the gateway.

A request's way: `app` (routes, errors) → `ask` (what it wants, what it may cost) → `schedule` (fair queue, choice of a
backend) → `dispatch` (attempts, overflow) → `relay` (whole answers and honest streams). What decides is pure: `choice`,
`queue`, `condition`; what acts asks it.
"""

from __future__ import annotations
