# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This fragment is PRIVATE to the collection: it can change or go at any time.

"""The options that every module of the action group `gateway` has."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  url:
    description:
      - Base URL of the gateway, without C(/admin/v1).
    type: str
    default: http://127.0.0.1:8080
  admin_key:
    description:
      - The platform's key, or a user's key with the scope C(admin).
      - If neither this nor O(admin_key_file) is set, the environment variable E(SOPHIA_ADMIN_KEY) is read.
    type: str
  admin_key_file:
    description:
      - A file on the host the task runs on that holds the key. Its first line counts.
      - If neither this nor O(admin_key) is set, the environment variable E(SOPHIA_ADMIN_KEY_FILE) is read.
    type: path
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
      - Whether to verify the certificate of O(url).
    type: bool
    default: true
  ca_path:
    description:
      - A file of PEM certificates to trust instead of those of the system.
    type: path
requirements:
  - Nothing beside Python's standard library.
notes:
  - A failed task has RV(ignore:failure) with RV(ignore:failure.code), RV(ignore:failure.status), RV(ignore:failure.message),
    RV(ignore:failure.request_id), RV(ignore:failure.retryable) and RV(ignore:failure.details). The codes are those of the
    gateway's management API.
"""
