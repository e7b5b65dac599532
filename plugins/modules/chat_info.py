#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask the platform one question, as a client would."""

from __future__ import annotations

DOCUMENTATION = r"""
module: chat_info
short_description: Ask the platform one question, as a client would
version_added: 0.1.0
description:
  - Sends one message to C(/v1/chat) and returns the answer with its model and cost. It proves the whole way, from the address and its certificate to the model.
  - Changes nothing but what an answer costs, a fraction of a cent with O(model_preference=fast); that is spent in check mode too.
  - What does not work yet is tried again until O(wait_timeout) has passed.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.info_module
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_all
options:
  url:
    description: Base URL of the platform, as V(https://api.sophia.test).
    type: str
    required: true
  address:
    description:
      - Connect to this address instead of the one that the host name of O(url) has; certificate and Host are still the name's. For a platform whose name
        is in no DNS yet.
    type: str
  key:
    description: A key of the platform's.
    type: str
  key_file:
    description: A file that holds the key. Its first line counts.
    type: path
  question:
    description: What is asked.
    type: str
    default: "Answer with one word: are you there?"
  model_preference:
    description: Which kind of model answers.
    type: str
    choices: [fast, quality, code, balanced, auto]
    default: fast
  max_tokens:
    description: How long the answer may be (tokens).
    type: int
    default: 64
  ca_path:
    description: A file of PEM certificates to trust instead of those of the system.
    type: path
  validate_certs:
    description: Whether to verify the certificate of O(url).
    type: bool
    default: true
  timeout:
    description: How long one try may take (seconds).
    type: int
    default: 60
  wait_timeout:
    description: How long tries are repeated (seconds). 0 tries once.
    type: int
    default: 0
  wait_sleep:
    description: How long to wait between two tries (seconds).
    type: int
    default: 3
"""

EXAMPLES = r"""
- name: Ask the platform whether it is there
  sophia.platform.chat_info:
    url: https://api.sophia.test
    key_file: /etc/sophia/key
  register: answer

- name: Ask it at the address of its Gateway, before its name is in the DNS
  sophia.platform.chat_info:
    url: https://api.sophia.test
    address: 203.0.113.7
    ca_path: /etc/sophia/ca.pem
    key_file: /etc/sophia/key
    wait_timeout: 120
"""

RETURN = r"""
text:
  description: The answer.
  returned: success
  type: str
  sample: "Yes"
model:
  description: The model that answered.
  returned: success
  type: str
  sample: google/gemini-2.5-flash
cost:
  description: What the answer cost (USD). Empty where that is not confirmed yet.
  returned: success
  type: str
  sample: "0.0000031"
cache:
  description: Whether the answer came from the cache, V(exact), V(semantic), V(miss) or V(off).
  returned: success
  type: str
  sample: miss
seconds:
  description: How long the answer took, without earlier tries (seconds).
  returned: success
  type: float
  sample: 0.412
tries:
  description: How many times it was asked.
  returned: success
  type: int
  sample: 1
failure:
  description: What went wrong with the last try, as data.
  returned: failure
  type: dict
  sample: {code: connect_failed, message: "https://api.sophia.test: connection refused", status: null, retryable: true, request_id: null, details: {}}
"""

import http.client
import json
import socket
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils._errors import (
    ApiError,
    BadResponse,
    ConnectFailed,
    ConnectionLost,
    InvalidInput,
    Timeout,
    class_for,
    scrub,
)
from ansible_collections.sophia.platform.plugins.module_utils._http import USER_AGENT, explain
from ansible_collections.sophia.platform.plugins.module_utils._module import run

ARGUMENT_SPEC: dict[str, Any] = {
    "url": {"type": "str", "required": True},
    "address": {"type": "str"},
    "key": {"type": "str", "no_log": True},
    "key_file": {"type": "path", "no_log": False},
    "question": {"type": "str", "default": "Answer with one word: are you there?"},
    "model_preference": {"type": "str", "choices": ["fast", "quality", "code", "balanced", "auto"], "default": "fast"},
    "max_tokens": {"type": "int", "default": 64, "no_log": False},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "timeout": {"type": "int", "default": 60},
    "wait_timeout": {"type": "int", "default": 0},
    "wait_sleep": {"type": "int", "default": 3},
}


def connection_to(params: Mapping[str, Any]) -> http.client.HTTPConnection:
    """Return a connection to the URL's host, at the given address where there is one. Raises InvalidInput."""
    parts = urllib.parse.urlsplit(params["url"])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(f"not an http or https URL: {scrub(params['url'])}")
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    address = (params["address"] or parts.hostname, port)

    def connect(_host: tuple[str, int], timeout: float | None = None, source: Any = None) -> socket.socket:
        return socket.create_connection(address, timeout)

    connection: http.client.HTTPConnection
    if secure:
        context = ssl.create_default_context(cafile=params["ca_path"])
        if not params["validate_certs"]:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(parts.hostname, port, timeout=params["timeout"], context=context)
    else:
        connection = http.client.HTTPConnection(parts.hostname, port, timeout=params["timeout"])
    # The seam that http.client has for this; the host's name stays what is verified and sent.
    connection._create_connection = connect  # type: ignore[attr-defined]
    return connection


def ask(params: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Ask once. Raises a leaf of ApiError, or InvalidInput."""
    connection = connection_to(params)
    body = {"message": params["question"], "model_preference": params["model_preference"], "max_tokens": params["max_tokens"]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "User-Agent": USER_AGENT}
    where = f"POST {params['url']}/v1/chat"
    try:
        connection.request("POST", f"{urllib.parse.urlsplit(params['url']).path.rstrip('/')}/v1/chat", json.dumps(body), headers)
        answer = connection.getresponse()
        raw = answer.read()
    except ssl.SSLError as error:
        raise ConnectFailed(f"{where}: {error.reason or error}", code="tls_failed") from error
    except TimeoutError as error:
        raise Timeout(f"{where}: no answer within {params['timeout']} s") from error
    except (ConnectionRefusedError, socket.gaierror) as error:
        raise ConnectFailed(f"{where}: {error.strerror or error}") from error
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionLost(f"{where}: {error}") from error
    finally:
        connection.close()
    try:
        found = json.loads(raw, parse_float=Decimal)
    except ValueError:
        found = raw[:200].decode("utf-8", "replace")
    if answer.status != 200:
        told = explain(answer.status, found)
        raise class_for(answer.status)(f"{where}: HTTP {answer.status}: {scrub(told.message, [key])}", code=told.code, status=answer.status)
    if not isinstance(found, dict) or not found.get("text") or not found.get("model"):
        raise BadResponse(f"{where}: no text and model in the answer", status=answer.status)
    return found


def patiently(
    once: Callable[[], dict[str, Any]],
    seconds: float,
    pause: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[dict[str, Any], int, float]:
    """Return the first answer, how many tries it took and how long it took itself. Raises the last try's error."""
    end = clock() + seconds
    tries = 0
    while True:
        tries += 1
        started = clock()
        try:
            return once(), tries, clock() - started
        except ApiError:
            if clock() + pause > end:
                raise
            sleep(pause)


def gather(module: AnsibleModule) -> dict[str, Any]:
    params = module.params
    key = params["key"]
    if params["key_file"]:
        with open(params["key_file"], encoding="utf-8") as file:
            key = file.readline().strip()
    answer, tries, seconds = patiently(lambda: ask(params, key), params["wait_timeout"], params["wait_sleep"])
    cost = answer.get("cost")
    return {
        "changed": False,
        "text": answer["text"],
        "model": answer["model"],
        "cost": "" if cost is None else f"{Decimal(cost):f}",
        "cache": answer.get("cache", ""),
        "seconds": round(seconds, 3),
        "tries": tries,
    }


def main() -> None:
    run(
        AnsibleModule(
            argument_spec=ARGUMENT_SPEC,
            mutually_exclusive=[("key", "key_file")],
            required_one_of=[("key", "key_file")],
            supports_check_mode=True,
        ),
        gather,
    )


if __name__ == "__main__":
    main()
