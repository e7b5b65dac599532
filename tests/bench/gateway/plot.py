# SPDX-License-Identifier: GPL-3.0-or-later
"""A bar chart as SVG, on a logarithmic scale."""

from __future__ import annotations

import math
from html import escape

__all__ = ["bars"]


def bars(title: str, values: list[tuple[str, float]]) -> str:
    """One bar a value, longest at the full width; the axis is logarithmic and begins at 10."""
    height = 60 + 36 * len(values)
    top = math.log10(max(value for _, value in values))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="720" height="{height}" font-family="sans-serif" font-size="14">',
        f'<rect width="720" height="{height}" fill="white"/>',
        f'<text x="12" y="26" font-size="16">{escape(title)} (logarithmic)</text>',
    ]
    for number, (name, value) in enumerate(values):
        y = 48 + 36 * number
        width = max(2.0, 480 * (math.log10(max(value, 10.0)) - 1) / (top - 1))
        lines += [
            f'<text x="12" y="{y + 17}">{escape(name)}</text>',
            f'<rect x="100" y="{y}" width="{width:.1f}" height="24" fill="#4b6ea9"/>',
            f'<text x="{108 + width:.1f}" y="{y + 17}">{value:,.0f}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"
