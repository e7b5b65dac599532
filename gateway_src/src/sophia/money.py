# SPDX-License-Identifier: GPL-3.0-or-later
"""Money as integer nano-dollars (1e-9 USD).

Prices come from OpenRouter as decimal strings in USD per token (`GET /models`), costs as JSON numbers in USD
(`usage.cost`). Both become `Decimal` from their text and then integers: a float never holds money here.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal

__all__ = ["NANO", "dollars", "nano", "nano_ceil", "show"]

NANO = 1_000_000_000
_SCALE = Decimal(NANO)
_ONE = Decimal(1)


def nano(usd: Decimal | str | int) -> int:
    """USD to nano-dollars, rounded half to even: for amounts that somebody else has billed."""
    return int((Decimal(usd) * _SCALE).quantize(_ONE, rounding=ROUND_HALF_EVEN))


def nano_ceil(usd: Decimal | str | int) -> int:
    """USD to nano-dollars, rounded up: for bounds, which must never be too small."""
    return int((Decimal(usd) * _SCALE).quantize(_ONE, rounding=ROUND_CEILING))


def dollars(amount: int) -> Decimal:
    """Nano-dollars to USD, exact."""
    return Decimal(amount) / _SCALE


def show(amount: int) -> str:
    """Nano-dollars as a person reads them: ``$0.000123`` with no more digits than the amount has."""
    text = f"{abs(dollars(amount)):f}"
    whole, _, fraction = text.partition(".")
    return f"{'-' if amount < 0 else ''}${whole}.{fraction.rstrip('0').ljust(2, '0')}"
