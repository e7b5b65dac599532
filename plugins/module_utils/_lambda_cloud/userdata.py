# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""What a host is given at its first boot: the user's data and, if wanted, a known SSH host key (cloud-init).

With the host key known in advance the first connection can already be checked, instead of trusting what answers.
"""

from __future__ import annotations

import json
from email.message import Message
from email.mime.multipart import MIMEMultipart

from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput

# https://cloudinit.readthedocs.io/en/latest/reference/yaml_examples/ssh_keys.html
_ALGORITHMS = {"ssh-ed25519": "ed25519", "ecdsa-sha2-nistp256": "ecdsa", "ssh-rsa": "rsa"}
_MAX = 1_000_000
_KINDS = (("#cloud-config", "cloud-config"), ("#!", "x-shellscript"), ("#include", "x-include-url"))


def public_key(text: str) -> str:
    """Return type and blob of a public key. Raises :class:`InvalidInput`."""
    words = text.split()
    if len(words) < 2 or words[0] not in _ALGORITHMS:
        raise InvalidInput(f"ssh_host_key.public_key: not a public key of {', '.join(sorted(_ALGORITHMS))}")
    return " ".join(words[:2])


def compose(user_data: str | None, private: str | None, public: str | None) -> str | None:
    """Return what goes to the vendor as ``user_data``. Raises :class:`InvalidInput`."""
    composed = user_data
    if private and public:
        keys = _host_key(private, public_key(public))
        composed = _both(keys, user_data) if user_data else keys
    if composed is not None and len(composed.encode()) > _MAX:
        raise InvalidInput(f"user_data: more than {_MAX} bytes with the host key")
    return composed


def _host_key(private: str, public: str) -> str:
    algorithm = _ALGORITHMS[public.split()[0]]
    keys = {f"{algorithm}_private": private.strip() + "\n", f"{algorithm}_public": public}
    # JSON is YAML, and needs no indentation of what is inside.
    return "#cloud-config\nssh_deletekeys: true\nssh_keys: " + json.dumps(keys) + "\n"


def _both(keys: str, user_data: str) -> str:
    # A fixed boundary: the same input has to give the same text.
    whole = MIMEMultipart("mixed", boundary="==sophia-user-data==")
    for text in (keys, user_data):
        whole.attach(_part(text))
    return whole.as_string()


def _part(text: str) -> Message:
    kind = next((name for start, name in _KINDS if text.startswith(start)), None)
    if kind is None:
        raise InvalidInput("user_data: with ssh_host_key it has to begin with #cloud-config, #! or #include")
    part = Message()
    part["Content-Type"] = f'text/{kind}; charset="utf-8"'
    part["MIME-Version"] = "1.0"
    part.set_payload(text.encode(), "utf-8")
    return part
