# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of the group `gateway` against the gateway's own management API over HTTP."""

from __future__ import annotations

import json
import os
import pathlib
import stat

import pytest

from ansible_collections.sophia.platform.plugins.module_utils._gateway import api as api_module
from ansible_collections.sophia.platform.plugins.modules import feature_flag, feature_flag_info, spend_match_info, tenancy, tenancy_info

TARGETS = pathlib.Path(__file__).parents[3] / "integration" / "targets"


@pytest.fixture
def run(gateway, run_module):
    def run(module, **args):
        return run_module(module, **{"url": gateway.url, "admin_key_file": gateway.admin_key_file, "api_retries": 0, **args})

    return run


def tree(tmp_path, **user):
    key = {"name": "laptop", "dest": str(tmp_path / "secret"), "models": ["openai/*"]}
    ada = {"name": "ada", "email": "ada@example.com", "keys": [key], **user}
    return [{"name": "acme", "budgets": {"month": "500.00"}, "teams": [{"name": "core", "limits": {"requests_per_minute": 5}, "users": [ada]}]}]


def test_a_tree_is_made_once(run, tmp_path):
    made = run(tenancy, organizations=tree(tmp_path), diff=True)
    assert [step["what"] for step in made.result["steps"]] == ["organization acme", "team acme/core", "user acme/ada", "key acme/ada/laptop"]
    secret = (tmp_path / "secret").read_text(encoding="utf-8")
    assert secret.startswith("sk-sophia-") and secret not in made.output
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["secret"]
    again = run(tenancy, organizations=tree(tmp_path), diff=True)
    assert not again.result["changed"] and again.result["steps"] == [] and again.result["diff"] == {"before": {}, "after": {}}
    assert again.result["tenants"] == made.result["tenants"]
    assert (tmp_path / "secret").read_text(encoding="utf-8") == secret


def test_the_secret_works(run, gateway, tmp_path):
    run(tenancy, organizations=tree(tmp_path))
    me = gateway.call("GET", "me", key=(tmp_path / "secret").read_text(encoding="utf-8"))
    assert (me["organization_name"], me["models"]) == ("acme", ["openai/*"])


def test_check_mode_foretells_and_does_nothing(run, gateway, tmp_path):
    foretold = run(tenancy, organizations=tree(tmp_path), check=True, diff=True)
    assert foretold.result["changed"] and gateway.call("GET", "organizations")["data"] == [] and os.listdir(tmp_path) == []
    made = run(tenancy, organizations=tree(tmp_path), diff=True)
    assert (made.result["diff"], made.result["steps"]) == (foretold.result["diff"], foretold.result["steps"])
    change = tree(tmp_path, role="organization_admin", disabled=True)
    foretold = run(tenancy, organizations=change, check=True, diff=True)
    changed = run(tenancy, organizations=change, diff=True)
    assert changed.result["diff"] == foretold.result["diff"]
    before, after = (changed.result["diff"][side]["user acme/ada"] for side in ("before", "after"))
    assert {name for name in after if before[name] != after[name]} == {"role", "disabled"}


def test_users_move_between_teams_and_what_is_not_listed_is_left_alone(run, gateway, tmp_path):
    run(tenancy, organizations=tree(tmp_path))
    run(tenancy, organizations=[{"name": "acme", "teams": [{"name": "other", "users": [{"name": "ada"}]}]}])
    found = run(tenancy_info, organizations=["acme"]).result
    teams = {team["id"]: team["name"] for team in found["teams"]}
    assert sorted(teams.values()) == ["core", "other"] and teams[found["users"][0]["team"]] == "other"
    assert found["users"][0]["email"] == "ada@example.com"
    purged = run(tenancy, organizations=[{"name": "acme", "teams": [{"name": "other"}]}], purge=True)
    assert purged.result["steps"] == [{"do": "delete", "what": "team acme/core"}]


def test_an_organisation_goes_with_everything_in_it(run, tmp_path):
    run(tenancy, organizations=tree(tmp_path))
    gone = run(tenancy, organizations=[{"name": "acme"}], state="absent")
    assert gone.result["steps"] == [{"do": "delete", "what": "organization acme"}]
    assert not run(tenancy, organizations=[{"name": "acme"}], state="absent").result["changed"]
    assert all(run(tenancy_info).result[kind] == [] for kind in ("organizations", "teams", "users", "api_keys"))


def test_a_secret_without_a_destination_is_returned_once(run):
    organizations = [{"name": "acme", "users": [{"name": "ada", "keys": [{"name": "laptop"}]}]}]
    assert run(tenancy, organizations=organizations).result["secrets"]["acme/ada/laptop"].startswith("sk-sophia-")
    assert "secrets" not in run(tenancy, organizations=organizations).result


@pytest.mark.parametrize("where", ["before the gateway made it", "before its secret was stored"])
def test_a_run_that_was_killed_is_gone_on_with(run, gateway, tmp_path, monkeypatch, where):
    create = api_module.Api.create

    def killed(self, kind, body):
        if kind == "key":
            if "stored" in where:
                create(self, kind, body)
            raise KeyboardInterrupt
        return create(self, kind, body)

    monkeypatch.setattr(api_module.Api, "create", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tenancy, organizations=tree(tmp_path))
    monkeypatch.setattr(api_module.Api, "create", create)
    assert not (tmp_path / "secret").exists()
    run(tenancy, organizations=tree(tmp_path))
    secret = (tmp_path / "secret").read_text(encoding="utf-8")
    assert gateway.call("GET", "me", key=secret)["organization_name"] == "acme"
    assert os.listdir(tmp_path) == ["secret"] and len(gateway.call("GET", "keys")["data"]) == 1
    assert not run(tenancy, organizations=tree(tmp_path)).result["changed"]


def test_a_key_whose_file_was_taken_away_is_left_alone_with_a_warning(run, tmp_path):
    run(tenancy, organizations=tree(tmp_path))
    (tmp_path / "secret").unlink()
    ended = run(tenancy, organizations=tree(tmp_path))
    assert not ended.result["changed"] and "its secret is not at" in json.dumps(ended.result["warnings"])


def test_a_destination_that_cannot_be_written_fails_before_anything_is_made(run, gateway, tmp_path):
    ended = run(tenancy, organizations=tree(tmp_path / "none"))
    assert ended.failed and ended.result["failure"]["code"] == "invalid_input"
    assert gateway.call("GET", "organizations")["data"] == []


def test_the_gateways_refusal_is_told_with_its_code_and_without_the_key(run, gateway, tmp_path):
    run(tenancy, organizations=tree(tmp_path))
    ended = run(tenancy, organizations=[{"name": "other"}], admin_key_file=str(tmp_path / "secret"))
    assert ended.failed and (ended.result["failure"]["code"], ended.result["failure"]["status"]) == ("scope_missing", 403)
    wrong = tmp_path / "wrong"
    wrong.write_text("sk-sophia-" + "x" * 48, encoding="utf-8")
    ended = run(tenancy_info, admin_key_file=str(wrong))
    assert ended.result["failure"]["code"] == "invalid_key" and "x" * 48 not in ended.output
    ended = run(tenancy_info, admin_key_file=str(tmp_path / "none"))
    assert "cannot be read" in ended.result["msg"]
    secret = gateway.admin_key
    assert secret not in run(tenancy_info, admin_key=secret, admin_key_file=None).output


def test_the_match_of_a_day_says_what_it_lacks(run):
    ended = run(spend_match_info)
    assert ended.failed and ended.result["failure"]["code"] == "management_key_missing"
    ended = run(spend_match_info, day="yesterday")
    assert ended.failed and ended.result["failure"]["status"] == 400


def test_one_flag_is_changed_and_no_other_touched(run, gateway, tmp_path):
    run(tenancy, organizations=tree(tmp_path))
    run(feature_flag, name="other", enabled=True, values=["a"])
    other = gateway.call("GET", "flags/other")
    foretold = run(feature_flag, name="new", enabled=True, percentage=10, organizations={"acme": "yes"}, check=True, diff=True)
    made = run(feature_flag, name="new", enabled=True, percentage=10, organizations={"acme": True}, diff=True)
    assert foretold.result["diff"] == made.result["diff"] and made.result["changed"]
    assert not run(feature_flag, name="new", percentage=10.0).result["changed"]
    changed = run(feature_flag, name="new", percentage=25, description="wider")
    assert changed.result["feature_flag"]["version"] == 2 and changed.result["feature_flag"]["enabled"]
    assert list(changed.result["feature_flag"]["organizations"].values()) == [True]
    assert gateway.call("GET", "flags/other") == other
    names = [flag["name"] for flag in run(feature_flag_info).result["feature_flags"]]
    assert names == ["from_file", "new", "other"]
    assert run(feature_flag, name="new", state="absent").result["changed"]
    assert not run(feature_flag, name="new", state="absent").result["changed"]
    assert run(feature_flag_info, name="new").result["feature_flags"] == []


def test_a_flag_of_the_file_cannot_be_changed(run):
    ended = run(feature_flag, name="from_file", enabled=False)
    assert ended.failed and ended.result["failure"]["code"] == "flag_read_only"
    assert not run(feature_flag, name="from_file", enabled=True).result["changed"]


def test_somebody_elses_change_in_between_is_looked_at_again(run, gateway, monkeypatch):
    run(feature_flag, name="new", enabled=True)
    put = api_module.Api.put_flag
    raced = []

    def race(self, name, body):
        if not raced:
            raced.append(True)
            put(self, name, {**body, "percentage": 33.0})
        return put(self, name, body)

    monkeypatch.setattr(api_module.Api, "put_flag", race)
    ended = run(feature_flag, name="new", description="mine")
    assert (ended.result["feature_flag"]["description"], ended.result["feature_flag"]["percentage"]) == ("mine", 33.0)


def test_an_unknown_organisation_of_a_flag_is_refused(run):
    ended = run(feature_flag, name="new", organizations={"nobody": True})
    assert ended.failed and "there is no organisation 'nobody'" in ended.result["msg"]
    ended = run(feature_flag, name="new", organizations={"nobody": "perhaps"})
    assert ended.failed


@pytest.mark.parametrize("module", [tenancy, tenancy_info, feature_flag, feature_flag_info])
def test_the_target_runs_the_examples(module):
    name = module.__name__.rsplit(".", 1)[-1]
    tasks = TARGETS.joinpath(name, "tasks", "examples.yml").read_text(encoding="utf-8")
    assert tasks.endswith("\n\n" + module.EXAMPLES.lstrip("\n"))
