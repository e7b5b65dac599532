# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is served next where not all can be served at once: what gateway and model router have in common."""
