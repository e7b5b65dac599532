# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This fragment is PRIVATE to the collection: it can change or go at any time.

"""The options that every module of the action group `qdrant` has."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_timeout:
    description:
      - Seconds to wait for a connection and between the bytes of an answer. A whole answer may take four times as long.
    type: int
    default: 60
  api_retries:
    description:
      - How often a call is repeated after HTTP 429, 502, 503, 504, a time-out or a broken connection, with
        exponential backoff and jitter, or as long as C(Retry-After) asks, at most 60 seconds each.
      - Making a collection is never simply repeated; after an unknown outcome it is looked whether it is there.
    type: int
    default: 5
  validate_certs:
    description:
      - Whether to verify certificates.
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
    RV(ignore:failure.retryable) and RV(ignore:failure.details).
  - The collection's tests run against a stand-in that serves Qdrant's REST API over the vendor's engine C(qdrant-edge-py), not against the
    server's binary. The same tests run against a server where E(QDRANT_URL) names one.
seealso:
  - name: Qdrant's REST API
    description: The vendor's documentation of the API that is used.
    link: https://api.qdrant.tech/api-reference
"""
