# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""How every module of the collection ends, and what it warns of on the way."""

from __future__ import annotations

import ipaddress
import urllib.parse
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._errors import ApiError, PlatformError, scrub


def run(module: AnsibleModule, action: Callable[[AnsibleModule], dict[str, Any]]) -> None:
    """End the module with what the action returns, or with what it raises."""
    try:
        result = action(module)
    except PlatformError as error:
        module.fail_json(msg=error.message, **error.as_failure())
    except OSError as error:
        wrapped = PlatformError(scrub(str(error)), code="os_error")
        module.fail_json(msg=wrapped.message, **wrapped.as_failure())
    else:
        module.exit_json(**result)


def warn_once(warn: Callable[[str], None]) -> Callable[[ApiError, float], None]:
    """Return a client's ``on_retry`` that warns of having to retry, and says it once."""
    warned: list[bool] = []

    def on_retry(error: ApiError, seconds: float) -> None:
        if not warned:
            warned.append(True)
            warn(f"had to retry: {error.message}")

    return on_retry


def in_the_clear(url: str) -> bool:
    """Return whether a credential sent to ``url`` can be read on the way: neither https nor loopback."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme != "http":
        return False
    try:
        return not ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return parts.hostname != "localhost"
