# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles/data_services and roles/storage render from their variables, where no cluster of the tests has what reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLES = Path(__file__).parents[3] / "roles"


def trusted(value):
    if isinstance(value, str):
        return trust_as_template(value)
    if isinstance(value, dict):
        return {name: trusted(item) for name, item in value.items()}
    return [trusted(item) for item in value] if isinstance(value, list) else value


def render(role, template, **variables):
    folder = ROLES / role
    known = {}
    for name in ("defaults/main.yml", "vars/main.yml"):
        known.update(trusted(yaml.safe_load((folder / name).read_text(encoding="utf-8"))))
    text = (folder / "templates" / template).read_text(encoding="utf-8")
    rendered = Templar(loader=DataLoader(), variables={**known, "role_path": str(folder), **variables}).template(trust_as_template(text))
    return [document for document in yaml.safe_load_all(rendered or "") if document]


def test_cloudnativepg_gets_a_primary_and_its_standbys_under_our_names():
    (cluster,) = render("data_services", "operator/postgres.yml.j2", data_services_postgres_replicas=2, data_services_storage_class="fast",
                        data_services_postgres_settings={"max_connections": 300})
    assert (cluster["apiVersion"], cluster["kind"]) == ("postgresql.cnpg.io/v1", "Cluster")
    specification = cluster["spec"]
    assert specification["instances"] == 3
    assert specification["storage"] == {"size": "50Gi", "storageClass": "fast"}
    assert specification["postgresql"]["parameters"] == {"max_connections": "300"}
    assert specification["bootstrap"]["initdb"]["secret"]["name"] == "postgres-gateway"
    assert specification["enableSuperuserAccess"] is False
    services = {item["serviceTemplate"]["metadata"]["name"]: item["selectorType"] for item in specification["managed"]["services"]["additional"]}
    assert services == {"postgres": "rw", "postgres-replicas": "ro"}


@pytest.mark.parametrize(("nodes", "copies", "acknowledged"), [(1, 1, 1), (3, 3, 2), (5, 3, 2)])
def test_strimzi_gets_nodes_whose_messages_outlive_one_of_them(nodes, copies, acknowledged):
    pool, kafka = render("data_services", "operator/kafka.yml.j2", data_services_kafka_replicas=nodes)
    assert pool["metadata"]["labels"]["strimzi.io/cluster"] == kafka["metadata"]["name"]
    assert pool["spec"]["replicas"] == nodes
    assert pool["spec"]["roles"] == ["controller", "broker"]
    settings = kafka["spec"]["kafka"]["config"]
    assert int(settings["default.replication.factor"]) == copies
    assert int(settings["min.insync.replicas"]) == acknowledged


def test_every_kafka_node_votes_and_the_cluster_is_named_by_16_bytes():
    text = (ROLES / "data_services/templates/kafka/server.properties.j2").read_text(encoding="utf-8")
    known = {}
    for name in ("defaults/main.yml", "vars/main.yml"):
        known.update(trusted(yaml.safe_load((ROLES / "data_services" / name).read_text(encoding="utf-8"))))
    templar = Templar(loader=DataLoader(), variables={**known, "data_services_kafka_replicas": 3, "data_services_namespace": "here"})
    lines = templar.template(trust_as_template(text)).splitlines()
    voters = next(line for line in lines if line.startswith("controller.quorum.voters="))
    assert voters.split("=", 1)[1].split(",") == [f"{number}@kafka-{number}.kafka-nodes.here.svc:9093" for number in range(3)]
    assert len(templar.template(trust_as_template("{{ __data_services_kafka_id }}"))) == 22


def stateful_set(name, size="50Gi", storage_class="fast", replicas=1):
    claim = {"spec": {"resources": {"requests": {"storage": size}}, "storageClassName": storage_class}}
    return {"metadata": {"name": name}, "spec": {"volumeClaimTemplates": [claim], "replicas": replicas}}


@pytest.mark.parametrize(("seen", "expected"), [
    (stateful_set("postgres"), ""),
    (stateful_set("somebody-else", size="1Gi"), ""),
    (stateful_set("postgres-replicas", size="10Gi"), "data_services_postgres_size"),
    (stateful_set("redis", size="8Gi", storage_class="slow"), "data_services_storage_class"),
    (stateful_set("kafka", size="20Gi", replicas=3), "data_services_kafka_replicas"),
    (stateful_set("kafka", size="20Gi", replicas=0), ""),
])
def test_what_a_stateful_set_cannot_change_is_refused(seen, expected):
    found = render("data_services", "forever.yml.j2", __data_services_sets={"resources": [seen]}, data_services_storage_class="fast")
    problems = found[0] if found else []
    assert [problem.split(":")[0] for problem in problems] == ([expected] if expected else [])


def test_a_class_says_what_becomes_of_its_volumes_and_when_they_are_made():
    classes = {item["metadata"]["name"]: item for item in render(
        "storage", "classes.yml.j2", storage_provisioner="disk.example.org", storage_fast_parameters={"type": "ssd", "iops": 3000},
        storage_shared_provisioner="nfs", storage_shared_parameters={"server": "10.0.0.1", "share": "/models"}, storage_shared_mount_options=["nfsvers=4.1"],
    )}
    assert classes["fast"]["parameters"] == {"type": "ssd", "iops": "3000"}
    assert classes["fast"]["reclaimPolicy"] == "Retain"
    assert classes["fast"]["allowVolumeExpansion"] is True
    assert classes["shared"]["provisioner"] == "nfs.csi.k8s.io"
    assert classes["shared"]["mountOptions"] == ["nfsvers=4.1"]
