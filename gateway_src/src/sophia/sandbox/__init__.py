# SPDX-License-Identifier: GPL-3.0-or-later
"""Loopback stand-ins for the vendors: stateful, faithful, faults on demand. Nothing that serves users imports them."""

from __future__ import annotations
