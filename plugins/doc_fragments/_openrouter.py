# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This fragment is PRIVATE to the collection: it can change or go at any time.

"""The options that every module of the action group `openrouter` has."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_url:
    description:
      - Base URL of the OpenRouter API.
    type: str
    default: https://openrouter.ai/api/v1
  management_key:
    description:
      - A management key of the OpenRouter account, formerly called provisioning key. Such a key cannot call models.
      - If not set, the environment variables E(OPENROUTER_MANAGEMENT_KEY) and then E(OPENROUTER_PROVISIONING_KEY) are read.
      - Needed for everything but the list of models.
    type: str
  api_timeout:
    description:
      - Seconds to wait for a connection and between the bytes of an answer. A whole answer may take four times as long.
    type: int
    default: 30
  api_retries:
    description:
      - How often a call is repeated after HTTP 429, 502, 503, 504, a time-out or a broken connection, with
        exponential backoff and jitter, or as long as C(Retry-After) asks, at most 60 seconds each.
      - A creation whose outcome is unknown is never simply repeated.
    type: int
    default: 4
  validate_certs:
    description:
      - Whether to verify the certificate of O(api_url).
    type: bool
    default: true
  ca_path:
    description:
      - A file of PEM certificates to trust instead of those of the system.
    type: path
requirements:
  - Nothing beside Python's standard library.
notes:
  - A failed task has RV(ignore:failure) with RV(ignore:failure.code), RV(ignore:failure.status), RV(ignore:failure.message), RV(ignore:failure.request_id),
    RV(ignore:failure.retryable) and RV(ignore:failure.details). The codes V(insufficient_credits) (HTTP 402, the account), V(key_limit_exceeded)
    (HTTP 402 or 403, one key's limit) and V(not_a_management_key) (HTTP 403) tell apart what the status alone does not.
seealso:
  - name: OpenRouter API keys
    description: The vendor's documentation of the API that is used.
    link: https://openrouter.ai/docs/api-reference/api-keys
"""
