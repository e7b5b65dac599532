#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: haproxy_weights
short_description: Share a backend's requests among its servers in a running HAProxy
version_added: 0.1.0
description:
  - Sets the weights of servers through HAProxy's own socket, so that nothing is reloaded and no connection is closed.
  - What grows is raised before what shrinks is lowered, so that somebody always serves.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.actiongroup_all
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
options:
  socket:
    description:
      - HAProxy's stats socket, of level C(admin).
    type: path
    required: true
  backend:
    description:
      - Name of the backend.
    type: str
    required: true
  weights:
    description:
      - Weights (0 to 256) by names of servers. The others keep theirs. At least one server of the backend must keep a weight above 0.
    type: dict
    required: true
  state_file:
    description:
      - File that the state of all servers is kept in, for HAProxy to begin with when it is started again (C(server-state-file)).
        Its directory must exist.
    type: path
  timeout:
    description:
      - Seconds to wait for an answer of HAProxy.
    type: int
    default: 5
requirements:
  - Nothing beside Python's standard library.
notes:
  - Without O(state_file) a weight lasts as long as HAProxy runs.
seealso:
  - name: HAProxy management guide
    description: The commands that are used, C(show stat) and C(set server).
    link: https://docs.haproxy.org/2.6/management.html#9.3
"""

EXAMPLES = r"""
- name: Send five of a hundred requests to the canary
  sophia.platform.haproxy_weights:
    socket: /opt/sophia/balancer/admin.sock
    backend: gateways
    weights:
      stable: 95
      canary: 5
    state_file: /opt/sophia/balancer/servers.state
"""

RETURN = r"""
weights:
  description: The weights of all servers of the backend, as they are now, or would be.
  returned: success
  type: dict
  sample: {stable: 95, canary: 5}
"""

import csv
import io
import os
import socket
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.sophia.platform.plugins.module_utils import _files as files
from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, PlatformError, StateConflict
from ansible_collections.sophia.platform.plugins.module_utils._module import run

HIGHEST = 256
_CHUNK = 65536


class Socket:
    """HAProxy's socket: one command a connection, whose answer ends with it."""

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout

    def ask(self, command: str) -> str:
        """Return the answer. Raises :class:`PlatformError` where HAProxy cannot be asked."""
        chunks = []
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self._timeout)
                connection.connect(self._path)
                connection.sendall(command.encode() + b"\n")
                while chunk := connection.recv(_CHUNK):
                    chunks.append(chunk)
        except OSError as error:
            raise PlatformError(f"{self._path}: {error}", code="unreachable", retryable=True) from None
        return b"".join(chunks).decode("utf-8", "replace")


def parse(text: str, backend: str) -> dict[str, int]:
    """Return the weights of a backend's servers out of C(show stat)."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    # A server's row has type 2; 0 and 1 are frontend and backend.
    return {row["svname"]: int(row["weight"] or 0) for row in rows if row.get("pxname") == backend and row.get("type") == "2"}


def plan(current: dict[str, int], wanted: dict[str, Any], backend: str) -> dict[str, int]:
    """Return what has to be set, in order. Raises :class:`InvalidInput` and :class:`StateConflict`."""
    if not current:
        raise StateConflict(f"HAProxy has no backend {backend} with servers", code="no_backend")
    unknown = sorted(wanted.keys() - current.keys())
    if unknown:
        raise InvalidInput(f"weights: the backend {backend} has no server {', '.join(unknown)}, but {', '.join(sorted(current))}")
    try:
        numbers = {name: int(str(weight)) for name, weight in wanted.items()}
    except ValueError:
        raise InvalidInput("weights: a weight is a whole number") from None
    if any(not 0 <= weight <= HIGHEST for weight in numbers.values()):
        raise InvalidInput(f"weights: a weight is between 0 and {HIGHEST}")
    if not any({**current, **numbers}.values()):
        raise InvalidInput("weights: no server would have a weight above 0")
    changes = {name: weight for name, weight in numbers.items() if weight != current[name]}
    return dict(sorted(changes.items(), key=lambda item: current[item[0]] - item[1]))


def converge(module: AnsibleModule) -> dict[str, Any]:
    """Make the weights be as wanted."""
    params = module.params
    haproxy = Socket(params["socket"], params["timeout"])
    current = parse(haproxy.ask("show stat"), params["backend"])
    changes = plan(current, params["weights"], params["backend"])
    after = {**current, **changes}
    if not module.check_mode:
        for name, weight in changes.items():
            said = haproxy.ask(f"set server {params['backend']}/{name} weight {weight}").strip()
            if said:
                raise PlatformError(f"HAProxy refuses to set the weight of {name}: {said}", code="refused")
        if changes:
            after = parse(haproxy.ask("show stat"), params["backend"])
            if any(after.get(name) != weight for name, weight in changes.items()):
                raise StateConflict(f"the weights are {after}: somebody else changes them", code="not_kept")
    kept = params["state_file"]
    missing = kept is not None and not os.path.exists(kept)
    if kept is not None and not module.check_mode and (changes or missing):
        files.write(kept, haproxy.ask("show servers state"))
    result: dict[str, Any] = {"changed": bool(changes) or missing, "weights": after}
    if module._diff:
        result["diff"] = {"before": current, "after": after}
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "socket": {"type": "path", "required": True},
            "backend": {"type": "str", "required": True},
            "weights": {"type": "dict", "required": True},
            "state_file": {"type": "path"},
            "timeout": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    run(module, converge)


if __name__ == "__main__":
    main()
