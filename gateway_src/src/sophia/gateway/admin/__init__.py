# SPDX-License-Identifier: GPL-3.0-or-later
"""The management API: tenancy, flags, audit and usage under `/admin/v1`."""

from sophia.gateway.admin.app import create_admin
from sophia.gateway.admin.services import Services

__all__ = ["Services", "create_admin"]
