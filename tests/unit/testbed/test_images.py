# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Images: the same content gives the same digest, and the documents are what the specification asks for."""

from __future__ import annotations

import hashlib
import json
import tarfile

import pytest

from ansible_collections.sophia.platform.tests.testbed import images, roots, service
from ansible_collections.sophia.platform.tests.testbed.errors import CommandFailed, Unsupported


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program"
    path.write_bytes(b"\x7fELF")
    return path


def test_a_layer_is_the_same_for_the_same_files(tmp_path, program):
    one = images.static_layer(tmp_path / "1.tar", {"/bin/a": program, "/bin/b": b"text"}, {"/bin/c": "a"})
    program.touch()
    two = images.static_layer(tmp_path / "2.tar", {"/bin/b": b"text", "/bin/a": program}, {"/bin/c": "a"})
    assert one.digest == two.digest == "sha256:" + hashlib.sha256((tmp_path / "1.tar").read_bytes()).hexdigest()


def test_a_layer_holds_users_and_folders_before_files(tmp_path, program):
    layer = images.static_layer(tmp_path / "layer.tar", {"/opt/x/bin/a": program}, {"/a": "opt/x/bin/a"})
    with tarfile.open(layer.path) as tar:
        names = tar.getnames()
        assert names.index("opt") < names.index("opt/x") < names.index("opt/x/bin") < names.index("opt/x/bin/a")
        assert tar.getmember("tmp").mode == 0o1777
        assert tar.getmember("opt/x/bin/a").mode == 0o755
        assert tar.getmember("a").linkname == "opt/x/bin/a"
        assert b"nonroot:x:65532:" in tar.extractfile("etc/passwd").read()
        assert {(entry.uid, entry.gid, entry.mtime) for entry in tar} == {(0, 0, 0)}


def test_a_layer_over_another_leaves_its_users_alone(tmp_path, program):
    layer = images.files_layer(tmp_path / "layer.tar", {"/usr/local/bin/a": program})
    with tarfile.open(layer.path) as tar:
        assert tar.getnames() == ["usr", "usr/local", "usr/local/bin", "usr/local/bin/a"]


def test_an_image_is_described_by_its_layers(tmp_path, program):
    base = images.Image((images.static_layer(tmp_path / "1.tar", {"/a": program}),), images.Config(user="10001", command=("a",)))
    image = base.with_layer(images.files_layer(tmp_path / "2.tar", {"/b": b"b"}), command=("b",))
    manifest, config = json.loads(image.manifest_bytes()), json.loads(image.config_bytes())
    assert [layer["digest"] for layer in manifest["layers"]] == config["rootfs"]["diff_ids"] == [layer.digest for layer in image.layers]
    assert [layer["size"] for layer in manifest["layers"]] == [layer.path.stat().st_size for layer in image.layers]
    assert manifest["config"]["size"] == len(image.config_bytes())
    assert len(config["history"]) == len(image.layers)
    assert (config["config"]["User"], config["config"]["Cmd"]) == ("10001", ["b"])
    assert image.digest != base.digest


def test_a_search_path_begins_with_an_images_own_folders():
    assert images.search_path(("/opt/kafka/bin",)).startswith("PATH=/opt/kafka/bin:/usr/local/sbin:")


def test_a_root_knows_its_user_and_its_packages(tmp_path):
    command = roots.command(roots.ROOTS["data"], "bookworm", tmp_path / "sources", [tmp_path / "proxy"], tmp_path / "target")
    assert "--include=ca-certificates,postgresql-15,redis-server" in command
    assert f"--aptopt={tmp_path}/proxy" in command
    assert command[-3:] == ["bookworm", str(tmp_path / "target"), str(tmp_path / "sources")]
    assert any("useradd --uid 10001 " in word for word in command)


def test_the_release_is_this_machines():
    assert roots.codename('ID=debian\nVERSION_CODENAME=bookworm\n') == "bookworm"


@pytest.mark.parametrize("text", ["ID=fedora\nVERSION_CODENAME=x\n", "ID=debian\n", "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n"])
def test_another_system_cannot_bootstrap(text):
    with pytest.raises(Unsupported, match="Debian"):
        roots.codename(text)


LOCK = """# made by a tool
a==1 \\
    --hash=sha256:aa \\
    --hash=sha256:ab
    # via b
b-c==2.0 ; python_version < '3' \\
    --hash=sha256:bb
"""


def test_a_lock_is_cut_to_some_packages():
    assert service.pinned(LOCK, ("b-c",)) == "b-c==2.0 ; python_version < '3' \\\n    --hash=sha256:bb\n"
    assert service.pinned(LOCK, ("a",)).startswith("a==1 \\\n    --hash=sha256:aa \\\n    --hash=sha256:ab\n")


def test_what_a_lock_does_not_pin_is_told():
    with pytest.raises(CommandFailed, match="pin d"):
        service.pinned(LOCK, ("a", "d"))


def test_the_projects_lock_pins_what_the_stand_ins_need():
    text = service.pinned((service.ROOT / "requirements/gateway.lock").read_text(), service.SANDBOX_REQUIREMENTS)
    assert text.count("==") == len(service.SANDBOX_REQUIREMENTS)
    assert text.count("--hash=sha256:") > 10
