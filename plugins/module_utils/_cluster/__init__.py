# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What Kubernetes objects say, read without I/O: health, free capacity, network policies.

Objects are the plain mappings of the API (and of `kubernetes.core.k8s_info`). Nothing here raises because of what an
object lacks: a field that is not there has the API's default.
"""

from __future__ import annotations
