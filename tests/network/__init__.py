# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may reach whom: the NetworkPolicies of a cluster against the table in docs/network.md.

`python -m tests.network` asks cyclonus, which evaluates the policies that are really in the cluster and is not of this project. Where the cluster
enforces policies, `python -m tests.network --probe` tries the same paths for real.
"""
