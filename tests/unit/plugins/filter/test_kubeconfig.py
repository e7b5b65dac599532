# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the filter kubeconfig reads, and what it refuses."""

from __future__ import annotations

import base64

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.sophia.platform.plugins.filter.kubeconfig import kubeconfig


def config(user, cluster=None):
    return {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}, {"name": "there", "context": {"cluster": "d", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://c", **(cluster or {})}}, {"name": "d", "cluster": {"server": "https://d"}}],
        "users": [{"name": "u", "user": user}],
    }


def test_data_and_files_are_read(tmp_path):
    tmp_path.joinpath("key.pem").write_text("the key", encoding="utf-8")
    user = {"client-certificate-data": base64.b64encode(b"the certificate").decode(), "client-key": "key.pem"}
    found = kubeconfig(config(user, {"certificate-authority-data": base64.b64encode(b"the authority").decode()}), folder=str(tmp_path))
    assert found == {
        "host": "https://c", "api_key": "", "ca_cert": "the authority", "client_cert": "the certificate", "client_key": "the key", "validate_certs": True,
    }  # fmt: skip


def test_a_context_and_a_token_file(tmp_path):
    tmp_path.joinpath("token").write_text("abc\n", encoding="utf-8")
    found = kubeconfig(config({"tokenFile": str(tmp_path / "token")}), context="there")
    assert (found["host"], found["api_key"]) == ("https://d", "abc")


@pytest.mark.parametrize(
    ("given", "context", "said"),
    [
        ([], "", "no mapping"),
        (config({}), "nowhere", "no 'nowhere' among its contexts"),
        (config({"exec": {"command": "aws"}}), "", "come from exec"),
        (config({"client-key": "absent.pem"}), "", "No such file"),
        (config({"client-key-data": "?"}), "", "not base64"),
    ],
)
def test_what_cannot_be_used_is_refused(given, context, said):
    with pytest.raises(AnsibleFilterError, match=said):
        kubeconfig(given, context=context)
