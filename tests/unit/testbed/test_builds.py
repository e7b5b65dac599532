# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs and addons: what a build's key depends on, that the pinned modules hold what the groups name, and the order of addons."""

from __future__ import annotations

import dataclasses
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from ansible_collections.sophia.platform.tests.testbed import addons, builds, kube, toolchain
from ansible_collections.sophia.platform.tests.testbed.errors import Unsupported
from ansible_collections.sophia.platform.tests.testbed.layout import Layout


@pytest.mark.parametrize(("text", "version"), [("go1.26.8", (1, 26, 8)), ("1.25", (1, 25)), ("go version go1.27.3 linux/amd64", (1, 27, 3))])
def test_a_go_version_is_read(text, version):
    assert toolchain.parse(text) == version


def test_what_is_no_go_version_is_told():
    with pytest.raises(Unsupported, match="devel"):
        toolchain.parse("devel")


def test_the_newest_module_says_which_go_is_needed():
    assert toolchain.needed(["module a\n\ngo 1.25.0\n", "module b\n\ngo 1.26.7\n\nrequire x v1.99.0\n"]) == (1, 26, 7)


def test_the_pinned_go_builds_every_group():
    modules = [(group.folder / "go.mod").read_text() for group in builds.GROUPS.values()]
    assert toolchain.parse(toolchain.PINNED) >= toolchain.needed(modules)


@pytest.mark.parametrize(("package", "program"), [
    ("go.etcd.io/etcd/server/v3", "server"), ("k8s.io/kubernetes/cmd/kubelet", "kubelet"), ("example.org/x/v1", "v1"), ("example.org/x/vm2", "vm2"),
])
def test_go_names_a_program_after_its_package(package, program):
    assert builds.program_of(package) == program


@pytest.mark.parametrize("group", builds.GROUPS.values(), ids=lambda group: group.name)
def test_a_group_is_pinned(group):
    module = (group.folder / "go.mod").read_text()
    tools = set(re.findall(r"^(?:tool )?\t?([a-z0-9.]+\.[a-z]+/\S+)$", module, re.MULTILINE))
    assert set(group.packages.values()) <= tools
    required = set(re.findall(r"^(?:require )?\t?(\S+) v\S+", module, re.MULTILINE))
    assert {source[0] for source in group.files.values()} <= required
    assert (group.folder / "go.sum").stat().st_size > 1000


@pytest.fixture
def group(tmp_path, monkeypatch):
    """A group whose module files may be changed."""
    monkeypatch.setattr(builds, "MODULES", tmp_path)
    shutil.copytree(kube.MANIFESTS.parent / "modules/certificates", tmp_path / "certificates")
    return builds.GROUPS["certificates"]


def test_the_same_group_has_the_same_key(group):
    assert builds.key(group, "go1.26.8") == builds.key(group, "go1.26.8")


@pytest.mark.parametrize("name", ["go.mod", "go.sum"])
def test_a_changed_module_file_changes_the_key(group, name):
    before = builds.key(group, "go1.26.8")
    with (group.folder / name).open("a") as file:
        file.write("\n")
    assert builds.key(group, "go1.26.8") != before


@pytest.mark.parametrize("change", [{"flags": "-s"}, {"tags": "x"}, {"packages": {"other": "x.org/other"}}, {"files": {}}])
def test_another_way_to_build_changes_the_key(group, change):
    assert builds.key(dataclasses.replace(group, **change), "go1.26.8") != builds.key(group, "go1.26.8")


def test_another_go_changes_the_key(group):
    assert builds.key(group, "go1.27.3") != builds.key(group, "go1.26.8")


def test_an_addon_comes_after_what_it_needs():
    names = [addon.name for addon in addons.ordered(["gateway", "metrics"])]
    assert names.index("python") < names.index("gateway")
    assert names.index("dns") < names.index("metrics")


def test_no_addon_comes_twice():
    names = [addon.name for addon in addons.ordered([*addons.ADDONS, *addons.ADDONS])]
    assert sorted(names) == sorted(addons.ADDONS)


def test_an_unknown_addon_is_told_with_those_that_there_are():
    with pytest.raises(Unsupported, match=r"no such addon: istio; there are dns, .*gateway"):
        addons.ordered(["dns", "istio"])


@pytest.mark.parametrize("addon", addons.ADDONS.values(), ids=lambda addon: addon.name)
def test_an_addon_names_what_exists(addon):
    assert set(addon.groups) <= set(builds.GROUPS)
    assert set(addon.after) <= set(addons.ADDONS)


@pytest.mark.parametrize("path", sorted(kube.MANIFESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_manifest_is_filled_in_and_read(path):
    names = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)\}", path.read_text()))
    documents = list(yaml.safe_load_all(kube.manifest(path.stem, **dict.fromkeys(names, "2"))))
    assert documents and all({"apiVersion", "kind"} <= set(document) for document in documents)


def test_a_manifest_without_a_value_is_refused():
    with pytest.raises(KeyError, match="COREDNS"):
        kube.manifest("dns", DOMAIN="x", ADDRESS="x", NODES="1")


def test_chart_labels_are_dropped_from_a_definition():
    text = 'metadata:\n  labels:\n    app: \'{{ template "x" . }}\'\n    # {{- include "labels" . }}\nspec: {}\n'
    assert yaml.safe_load(addons.plain(text)) == {"metadata": {"labels": None}, "spec": {}}


def test_two_that_forget_the_compiler_at_once_do_not_meet(tmp_path):
    layout = Layout.of({"HOME": str(tmp_path)})
    folder = layout.cache / "go/modules/read-only"
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(builds.forget_compiler, layout) for number in range(8)]:
            done.result()
    assert not (layout.cache / "go").exists()
