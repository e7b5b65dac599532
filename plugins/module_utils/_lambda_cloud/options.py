# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What the modules of the action group ``lambda`` have in common: options, client, ways to end."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import env_fallback

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput
from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.api import Api
from ansible_collections.sophia.platform.plugins.module_utils._lambda_cloud.pace import Pace, key_name
from ansible_collections.sophia.platform.plugins.module_utils._module import in_the_clear, warn_once

API_URL = "https://cloud.lambda.ai/api/v1"
STATE_DIR = "~/.ansible/sophia_lambda"


def argument_spec(**own: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the common options with a module's own; documented in the fragment ``_lambda_cloud``."""
    return {
        "api_url": {"type": "str", "default": API_URL},
        "api_key": {"type": "str", "no_log": True, "fallback": (env_fallback, ["LAMBDA_API_KEY"])},
        "api_timeout": {"type": "int", "default": 30},
        "api_retries": {"type": "int", "default": 5},
        "request_interval": {"type": "float", "default": 1.1},
        "launch_interval": {"type": "float", "default": 12.5},
        "state_dir": {"type": "path", "default": STATE_DIR},
        "validate_certs": {"type": "bool", "default": True},
        "ca_path": {"type": "path"},
        **own,
    }


def folder_of(params: Mapping[str, Any]) -> Path:
    """Return the folder for what is kept of one account, made if need be. Raises :class:`InvalidInput`."""
    key = (params["api_key"] or "").strip()
    if not key:
        raise InvalidInput("api_key is not set, nor is LAMBDA_API_KEY")
    folder = Path(os.path.expanduser(params["state_dir"])) / key_name(key)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise InvalidInput(f"state_dir: {error.strerror}: {folder.parent}") from None
    return folder


def api_of(params: Mapping[str, Any], folder: Path, warn: Callable[[str], None]) -> Api:
    """Return the API that options describe; it keeps its pace in ``folder``. Raises :class:`InvalidInput`."""
    key = params["api_key"].strip()
    if in_the_clear(params["api_url"]):
        warn("api_url is neither https nor loopback: the API key is sent in the clear")
    client = Client(
        params["api_url"],
        headers={"Authorization": f"Bearer {key}"},
        secrets=[key],
        timeout=params["api_timeout"],
        # Repeating is the API's, which knows the pace.
        backoff=Backoff(tries=1),
        validate_certs=params["validate_certs"],
        ca_path=params["ca_path"],
    )
    pace = Pace(folder, request_interval=params["request_interval"], launch_interval=params["launch_interval"])
    return Api(client, pace, tries=1 + max(0, params["api_retries"]), on_retry=warn_once(warn))
