# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Kubernetes of two nodes on this machine, from package registries alone: `python -m tests.testbed up`."""
