# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine's side: addresses, keys, cgroups, mounts, kernel settings, and what is asked of another cluster."""

from __future__ import annotations

import base64
import json
import pathlib
import shutil
import subprocess

import pytest

from ansible_collections.sophia.platform.tests.testbed import __main__ as edge
from ansible_collections.sophia.platform.tests.testbed import cgroups, existing, kernel, keys, mounts, node
from ansible_collections.sophia.platform.tests.testbed.errors import Unsupported
from ansible_collections.sophia.platform.tests.testbed.layout import HOST_ADDRESS, NODES, Layout, Node


def test_nodes_share_nothing():
    for name in ("name", "namespace", "link", "address", "pods", "zone"):
        values = [getattr(one, name) for one in NODES]
        assert len(set(values)) == len(values)
    assert HOST_ADDRESS not in {one.address for one in NODES}


def test_link_names_are_short_enough_for_the_kernel():
    assert len(Node(254).link) <= 15


def test_folders_follow_the_environment(tmp_path):
    layout = Layout.of({"HOME": "/home/x"})
    assert str(layout.cache) == "/home/x/.cache/sophia-testbed"
    layout = Layout.of({"HOME": "/home/x", "XDG_CACHE_HOME": "/c", "SOPHIA_TESTBED_STATE": "/s"})
    assert (str(layout.cache), str(layout.state), str(layout.kubeconfig)) == ("/c/sophia-testbed", "/s", "/s/kubeconfig")


@pytest.fixture
def authority(tmp_path):
    if not shutil.which("openssl"):
        pytest.fail("openssl is not installed")
    keys.make(tmp_path)
    return tmp_path


def test_certificates_are_signed_and_name_what_they_serve(authority):
    for name in ("apiserver", "node-1", "node-2", "admin"):
        subprocess.run(["openssl", "verify", "-CAfile", authority / "ca.crt", authority / f"{name}.crt"], check=True, capture_output=True)
    shown = subprocess.run(
        ["openssl", "x509", "-in", authority / "node-2.crt", "-noout", "-subject", "-ext", "subjectAltName"], check=True, capture_output=True, text=True,
    ).stdout
    assert "system:nodes" in shown and "system:node:node-2" in shown and "10.77.0.2" in shown


def test_keys_are_for_root_alone_and_made_once(authority):
    assert authority.stat().st_mode & 0o077 == 0
    before = {path.name: path.read_bytes() for path in authority.iterdir()}
    keys.make(authority)
    assert {path.name: path.read_bytes() for path in authority.iterdir()} == before


def test_secrets_are_encrypted_with_a_key_of_the_right_length(authority):
    resource = json.loads((authority / "encryption.json").read_text())["resources"][0]
    assert resource["resources"] == ["secrets"]
    assert len(base64.b64decode(resource["providers"][0]["secretbox"]["keys"][0]["secret"])) == 32


def test_a_kubeconfig_holds_its_key_and_is_for_root_alone(authority):
    path = keys.kubeconfig(authority / "x/kubeconfig", authority, "admin", "https://10.77.0.1:6443")
    document = json.loads(path.read_text())
    assert document["current-context"] == "sophia-testbed"
    assert base64.b64decode(document["users"][0]["user"]["client-key-data"]) == (authority / "admin.key").read_bytes()
    assert path.stat().st_mode & 0o077 == 0


def version_1(mount):
    for name in ("cpuset", "pids"):
        (mount / name).mkdir()
        (mount / name / "cgroup.procs").write_text("1\n")
    (mount / "cpuset/cpuset.cpus").write_text("0-1\n")
    (mount / "cpuset/cpuset.mems").write_text("0\n")


def test_the_bed_has_a_branch_in_every_hierarchy(tmp_path):
    version_1(tmp_path)
    cgroups.make(NODES, tmp_path)
    for controller in ("cpuset", "pids"):
        for place in ("daemons", "node-1", "node-2"):
            assert (tmp_path / controller / "sophia-testbed" / place).is_dir()
    assert cgroups.exists(tmp_path)
    cgroups.remove(tmp_path)
    assert not cgroups.exists(tmp_path)
    assert (tmp_path / "cpuset/cpuset.cpus").exists()


@pytest.mark.parametrize(("name", "weight"), [("cpu.shares", "32768"), ("cpu.weight", "3200")])
def test_the_bed_weighs_more_than_one_process(tmp_path, name, weight):
    version_1(tmp_path)
    branch = tmp_path / "cpuset/sophia-testbed"
    branch.mkdir()
    (branch / name).write_text("1024")
    cgroups.make(NODES, tmp_path)
    assert (branch / name).read_text() == weight


def test_version_2_is_one_hierarchy_and_hands_its_controllers_down(tmp_path):
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "cgroup.procs").write_text("1\n")
    assert cgroups.hierarchies(tmp_path) == [tmp_path]
    cgroups.make(NODES, tmp_path)
    assert (tmp_path / "sophia-testbed/cgroup.subtree_control").read_text() == "+memory"


def test_every_process_of_the_branch_is_found(tmp_path):
    version_1(tmp_path)
    cgroups.make(NODES, tmp_path)
    (tmp_path / "pids/sophia-testbed/daemons/cgroup.procs").write_text("11\n12\n")
    pod = tmp_path / "cpuset/sophia-testbed/node-2/kubepods/x"
    pod.mkdir(parents=True)
    (pod / "cgroup.procs").write_text("13\n")
    assert cgroups.members(tmp_path) == {11, 12, 13}


def test_no_cgroups_is_told(tmp_path):
    with pytest.raises(Unsupported, match="no cgroups"):
        cgroups.hierarchies(tmp_path)


TABLE = r"""overlay /bed/a overlay rw 0 0
tmpfs /bed/a/b tmpfs rw 0 0
tmpfs /bedroom tmpfs rw 0 0
tmpfs /bed/with\040space tmpfs rw 0 0
"""


def test_mounts_come_innermost_first_and_only_the_beds():
    assert mounts.below(pathlib.Path("/bed"), TABLE) == ["/bed/with space", "/bed/a/b", "/bed/a"]


def test_kernel_settings_are_raised_and_put_back(tmp_path):
    sysctl, layout = tmp_path / "sys", Layout(tmp_path / "cache", tmp_path / "state")
    (sysctl / "fs/inotify").mkdir(parents=True)
    layout.state.mkdir()
    instances, watches = sysctl / "fs/inotify/max_user_instances", sysctl / "fs/inotify/max_user_watches"
    instances.write_text("128\n")
    watches.write_text("9999999\n")
    kernel.raise_limits(layout, sysctl)
    kernel.raise_limits(layout, sysctl)
    assert (instances.read_text(), watches.read_text()) == ("1024", "9999999\n")
    kernel.restore_limits(layout, sysctl)
    assert (int(instances.read_text()), watches.read_text()) == (128, "9999999\n")
    assert list(layout.state.iterdir()) == []


def test_each_node_keeps_to_its_own_folders(tmp_path):
    layout = Layout(tmp_path / "cache", tmp_path / "state")
    documents = [json.dumps(node.kubelet(layout, layout.node(one), one)) + json.dumps(node.network(layout.node(one), one)) for one in NODES]
    for one, document in zip(NODES, documents, strict=True):
        others = [other for other in NODES if other != one]
        assert f"/{one.name}/" in document and one.pods in document
        assert not any(f"/{other.name}/" in document or other.pods in document for other in others)


def cluster(**changes):
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    names = ("gateways.gateway.networking.k8s.io", "certificates.cert-manager.io", "scaledobjects.keda.sh")
    found = {
        "nodes": [{"metadata": {"name": "n"}, "status": ready}],
        "services": [{"metadata": {"name": "kube-dns"}}],
        "classes": [{"metadata": {"name": "fast", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}],
        "definitions": [{"metadata": {"name": name}} for name in names],
        "apis": [{"metadata": {"name": "v1beta1.metrics.k8s.io"}, "status": {"conditions": [{"type": "Available", "status": "True"}]}}],
    }
    return found | changes


def test_a_whole_cluster_misses_nothing():
    assert existing.missing(cluster()) == []


@pytest.mark.parametrize(("changes", "problem"), [
    ({"nodes": [{"metadata": {"name": "n"}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}]}, "no node is Ready"),
    ({"services": []}, "DNS"),
    ({"classes": [{"metadata": {"name": "fast"}}]}, "default StorageClass"),
    ({"definitions": [{"metadata": {"name": "scaledobjects.keda.sh"}}, {"metadata": {"name": "certificates.cert-manager.io"}}]}, "Gateway API"),
    ({"apis": [{"metadata": {"name": "v1beta1.metrics.k8s.io"}}]}, "metrics-server"),
])
def test_what_a_cluster_misses_is_named(changes, problem):
    problems = existing.missing(cluster(**changes))
    assert len(problems) == 1 and problem in problems[0]


def test_everything_missing_is_told_at_once():
    assert len(existing.missing({"nodes": [], "services": [], "classes": [], "definitions": [], "apis": []})) == 7


def test_core_stands_for_dns_and_storage():
    assert edge.chosen(["core", "gateway"], []) == ["dns", "storage", "gateway"]


def test_more_comes_to_the_usual_addons():
    assert "keda" not in edge.chosen(None, [])
    assert edge.chosen(None, ["keda"]) == [*edge.chosen(None, []), "keda"]


def test_a_kubeconfig_of_another_cluster_is_used_instead(tmp_path):
    layout = Layout(tmp_path, tmp_path)
    assert str(edge.foreign({"KUBECONFIG": "/other"}, layout)) == "/other"
    assert edge.foreign({"KUBECONFIG": str(layout.kubeconfig)}, layout) is None
    assert edge.foreign({}, layout) is None


def test_an_error_is_a_text_and_an_exit_code(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SOPHIA_TESTBED_STATE", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert edge.main(["up", "--only", "nothing"]) == 1
    assert "no such addon: nothing" in capsys.readouterr().err
