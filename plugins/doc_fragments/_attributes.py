# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This fragment is PRIVATE to the collection: it can change or go at any time.

"""The `attributes` blocks that every module of the collection documents.

A module extends the plain fragment and states `support` itself; an `_info` module adds `info_module`
and `idempotent_not_modify_state`; a module of an action group adds `actiongroup_<group>`.
"""

from __future__ import annotations


class ModuleDocFragment:
    # What each attribute means; the module adds `support` (and `details`).
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
      - This assumes that the system controlled or queried by the module has not changed in a relevant way.
"""

    # For `_info` modules, beside the plain fragment.
    INFO_MODULE = r"""
options: {}
attributes:
  check_mode:
    support: full
    details:
      - This action does not modify state.
  diff_mode:
    support: N/A
    details:
      - This action does not modify state.
"""

    # For modules that read or judge and never change anything, beside the plain fragment.
    IDEMPOTENT_NOT_MODIFY_STATE = r"""
options: {}
attributes:
  idempotent:
    support: full
    details:
      - This action does not modify state.
"""

    # For modules whose `action_group` is their only membership beside `all`.
    ACTIONGROUP_ALL = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/sophia.platform.all) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - sophia.platform.all
"""

    ACTIONGROUP_GATEWAY = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/sophia.platform.gateway) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - sophia.platform.gateway
      - sophia.platform.all
"""

    ACTIONGROUP_LAMBDA = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/sophia.platform.lambda) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - sophia.platform.lambda
      - sophia.platform.all
"""

    ACTIONGROUP_OPENROUTER = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/sophia.platform.openrouter) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - sophia.platform.openrouter
      - sophia.platform.all
"""

    ACTIONGROUP_QDRANT = r"""
options: {}
attributes:
  action_group:
    description: Use C(group/sophia.platform.qdrant) in C(module_defaults) to set defaults for this module.
    support: full
    membership:
      - sophia.platform.qdrant
      - sophia.platform.all
"""
