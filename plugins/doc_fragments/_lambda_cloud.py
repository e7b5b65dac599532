# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# This fragment is PRIVATE to the collection: it can change or go at any time.

"""The options that every module of the action group `lambda` and the inventory plugin have."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  api_url:
    description:
      - Base URL of the Lambda Cloud API. The vendor's old host is not to be used, as it redirects.
    type: str
    default: https://cloud.lambda.ai/api/v1
  api_key:
    description:
      - An API key of the Lambda Cloud account.
      - If not set, the environment variable E(LAMBDA_API_KEY) is read.
    type: str
  api_timeout:
    description:
      - Seconds to wait for a connection and between the bytes of an answer. A whole answer may take four times as long.
    type: int
    default: 30
  api_retries:
    description:
      - How often a call is repeated after HTTP 429, 502, 503, 504, a time-out or a broken connection, as long after as
        C(Retry-After) asks, else with exponential backoff, from 10 seconds after HTTP 429.
      - A launch whose outcome is unknown is never simply repeated.
    type: int
    default: 5
  request_interval:
    description:
      - Seconds between two calls of all tasks on this machine that use the same API key. The vendor allows one a second;
        the rest is for what the network adds.
    type: float
    default: 1.1
  launch_interval:
    description:
      - Seconds between two launches. The vendor allows one in 12 seconds.
    type: float
    default: 12.5
  state_dir:
    description:
      - Folder on the host that the task runs on, for the pace of calls and the notes of launches under way. All tasks that
        use an API key should run on one host and share it, and it should outlive a job.
    type: path
    default: ~/.ansible/sophia_lambda
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
seealso:
  - name: Lambda Cloud API
    description: The vendor's documentation of the API that is used.
    link: https://docs.lambda.ai/api/cloud
"""

    FAILURE = r"""
options: {}
notes:
  - A failed task has RV(ignore:failure) with RV(ignore:failure.code), RV(ignore:failure.status), RV(ignore:failure.message), RV(ignore:failure.request_id),
    RV(ignore:failure.retryable) and RV(ignore:failure.details). RV(ignore:failure.code) is the vendor's where it gave one.
"""
