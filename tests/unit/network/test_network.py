# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix of who may reach whom: that the page's table can be read, that every way is asked about, and that a difference shows."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from ansible_collections.sophia.platform.tests.network import cluster, cyclonus, matrix
from ansible_collections.sophia.platform.tests.network.errors import BadAnswer, BadTable
from ansible_collections.sophia.platform.tests.network.table import HEADER, Path, Port, parse

PAGE = File(__file__).parents[3] / "docs/network.md"


def page(*rows):
    return "\n".join(["# Page", "", HEADER, "|---|---|---|---|", *rows, "", "| a | later | table | of |"])


def pod(name, address, namespace="platform", phase="Running", part="sophia", **labels):
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": part} if part else labels
    return {
        "metadata": {"name": f"{name}-0", "namespace": namespace, "labels": labels}, "status": {"podIP": address, "phase": phase},
        "spec": {"containers": [{"ports": [{"containerPort": 8080, "name": "http"}]}]},
    }


def namespaces(*names):
    return [{"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}}} for name in names]


def test_the_page_has_a_table_and_opens_nothing_to_everybody():
    table = parse(PAGE.read_text(encoding="utf-8"))
    assert Path("gateway", "postgres", Port(5432)) in table
    assert not [path for path in table if path.source in ("internet", "private network", "cloud metadata", "any other pod")]
    assert {path.source for path in table if path.target == "internet"} == {"gateway", "prometheus"}


def test_a_row_is_every_name_to_every_name_over_every_port():
    table = parse(page("| `a`, b | c, d | 80, 53 UDP | why |"))
    assert len(table) == 8
    assert Path("a", "d", Port(53, "UDP")) in table


@pytest.mark.parametrize("row", ["| a | b | 80 |", "| a | b | http | why |", "| a |  | 80 | why |", "| a | b | 80/TCP | why |"])
def test_a_row_that_cannot_be_read_is_told(row):
    with pytest.raises(BadTable):
        parse(page(row))


def test_the_stand_in_takes_the_place_of_the_way_out():
    rows = page("| a, b | out | 443 | why |") + "\n| From | To | Ports | Instead of |\n|---|---|---|---|\n| a | stand-in | 8787 | out |\n"
    assert parse(rows) == {Path("a", "out", Port(443)), Path("b", "out", Port(443))}
    assert parse(rows, stand_in=True) == {Path("a", "stand-in", Port(8787)), Path("b", "out", Port(443))}


def test_a_page_without_a_table_is_told():
    with pytest.raises(BadTable, match="no table"):
        parse("# Page\n\n| From | To |\n|---|---|\n| a | b |\n")


def test_pods_get_the_names_that_the_table_knows():
    given = [
        pod("gateway", "10.0.0.1"), pod("gone", "10.0.0.2", phase="Succeeded"), pod("foreign", "10.0.0.3", part="else"),
        pod("core", "10.0.0.4", "kube-system", part="", **{"k8s-app": "kube-dns"}), pod("proxy", "10.0.0.5", "envoy", part=""),
    ]
    found = cluster.peers(given, namespaces("platform", "kube-system", "envoy", "default"), "envoy")
    assert [peer.name for peer in found] == ["gateway", "dns", "ingress", "any other pod"]
    assert found[0].namespace_labels == {"kubernetes.io/metadata.name": "platform"}


def test_what_does_not_run_now_is_judged_by_its_policy():
    chosen = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "job"}}}
    policies = [{"metadata": {"namespace": space}, "spec": chosen} for space in ("platform", "elsewhere")]
    missing = cluster.absent([], policies, {"platform": {}})
    assert [(peer.name, peer.namespace) for peer in missing] == [("job", "platform")]
    assert not cluster.absent([cluster.Peer("job", "10.0.0.1", "platform")], policies, {"platform": {}})


def test_every_pair_is_asked_about_over_named_own_and_strange_ports():
    found = cluster.peers([pod("a", "10.0.0.1"), pod("b", "10.0.0.2")], namespaces("platform", "default"), "envoy")
    table = {Path("a", "b", Port(5432))}
    asked = matrix.queries(found, table, ["platform"])
    a_to_b = {query.port for query in asked if (query.source.name, query.target.name) == ("a", "b")}
    assert a_to_b == {Port(5432), Port(8080), Port(80), Port(443), matrix.STRANGE}
    assert {query.port_name for query in asked if query.target.name == "b" and query.port == Port(8080)} == {"http"}
    pairs = {(query.source.name, query.target.name) for query in asked}
    outside = [peer.name for peer in matrix.OUTSIDE]
    assert {("a", place) for place in outside} | {(place, "a") for place in outside} <= pairs
    assert ("any other pod", "internet") not in pairs


def test_both_kinds_of_difference_show():
    found = cluster.peers([pod("a", "10.0.0.1"), pod("b", "10.0.0.2")], namespaces("platform", "default"), "envoy")
    table = {Path("a", "b", Port(8080))}
    asked = matrix.queries(found, table, ["platform"])
    right = [Path(query.source.name, query.target.name, query.port) in table for query in asked]
    assert matrix.differences(asked, right, table) == []
    turned = [not answer for answer in right]
    assert len(matrix.differences(asked, turned, table)) == len(asked)
    assert "in the table, and not open" in str(matrix.differences(asked, [False] * len(asked), table)[0])


def test_an_evaluator_that_does_not_answer_everything_is_not_believed(tmp_path):
    program = tmp_path / "cyclonus"
    program.write_text("#!/bin/sh\necho '| IS ALLOWED? | TRUE |'\n")
    program.chmod(0o755)
    query = cyclonus.Query(cluster.Peer("a", "10.0.0.1", "platform"), cluster.Peer("internet", "203.0.113.7"), Port(443))
    assert cyclonus.evaluate(program, {"items": []}, [query]) == [True]
    with pytest.raises(BadAnswer, match="1 of 2"):
        cyclonus.evaluate(program, {"items": []}, [query, query])
