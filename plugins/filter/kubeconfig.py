# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a kubeconfig says of one cluster, for modules that talk to its API server themselves."""

from __future__ import annotations

DOCUMENTATION = r"""
name: kubeconfig
short_description: Read how to reach a cluster out of a kubeconfig
version_added: 0.1.0
description:
  - Returns address and credentials of one context of a kubeconfig, with what it names as files read in, as
    O(sophia.platform.openrouter_key#module:kubernetes) takes them.
  - Credentials that a program makes (C(exec), C(auth-provider)) are not supported; give a token of a service account instead.
author:
  - The sophia.platform authors (@sophia-platform)
positional: _input
options:
  _input:
    description: The kubeconfig, parsed.
    type: dict
    required: true
  context:
    description: Name of the context. The current one by default.
    type: str
    default: ""
  folder:
    description: The kubeconfig's folder, which the files it names are relative to.
    type: str
    default: .
"""

EXAMPLES = r"""
- name: Show where the cluster is
  ansible.builtin.debug:
    msg: "{{ (lookup('ansible.builtin.file', path) | from_yaml | sophia.platform.kubeconfig(folder=path | dirname)).host }}"
  vars:
    path: "{{ lookup('ansible.builtin.env', 'KUBECONFIG') }}"
"""

RETURN = r"""
_value:
  description: Address and credentials of the cluster; certificates and keys as PEM text.
  type: dict
  contains:
    host:
      description: URL of the API server.
      type: str
    api_key:
      description: A bearer token, empty without one.
      type: str
    ca_cert:
      description: Certificates to trust, empty for the system's.
      type: str
    client_cert:
      description: A client certificate, empty without one.
      type: str
    client_key:
      description: Its key.
      type: str
    validate_certs:
      description: Whether to verify the API server's certificate.
      type: bool
"""

import base64
import binascii
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError


def kubeconfig(config: Any, context: str = "", folder: str = ".") -> dict[str, Any]:
    """Return address and credentials of a context. Raises :class:`AnsibleFilterError` where there are none."""
    if not isinstance(config, dict):
        raise AnsibleFilterError("the kubeconfig is no mapping")
    name = context or config.get("current-context") or ""
    chosen = _named(config, "contexts", "context", name)
    cluster = _named(config, "clusters", "cluster", chosen.get("cluster", ""))
    user = _named(config, "users", "user", chosen.get("user", ""))
    made = sorted({"exec", "auth-provider"} & user.keys())
    if made:
        raise AnsibleFilterError(f"the credentials of {name} come from {made[0]}; give a token of a service account instead")
    token = user.get("token") or (_file(user["tokenFile"], folder).strip() if user.get("tokenFile") else "")
    return {
        "host": cluster.get("server", ""),
        "api_key": token,
        "ca_cert": _pem(cluster, "certificate-authority", folder),
        "client_cert": _pem(user, "client-certificate", folder),
        "client_key": _pem(user, "client-key", folder),
        "validate_certs": not cluster.get("insecure-skip-tls-verify", False),
    }


def _named(config: dict[str, Any], kind: str, member: str, name: str) -> dict[str, Any]:
    for each in config.get(kind) or []:
        if each.get("name") == name:
            return each.get(member) or {}
    raise AnsibleFilterError(f"the kubeconfig has no {name!r} among its {kind}")


def _pem(owner: dict[str, Any], name: str, folder: str) -> str:
    data = owner.get(f"{name}-data")
    if data:
        try:
            return base64.b64decode(data, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise AnsibleFilterError(f"{name}-data in the kubeconfig is not base64 of PEM") from None
    return _file(owner[name], folder) if owner.get(name) else ""


def _file(name: str, folder: str) -> str:
    path = Path(folder, name)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise AnsibleFilterError(f"{path}, which the kubeconfig names: {error.strerror}") from None


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"kubeconfig": kubeconfig}
