# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway beside its peers: requests per second, added latency, memory. `make bench`."""
