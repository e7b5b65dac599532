# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rotation on random histories: killed after any step, any answer lost, gateways that lag and are busy.

The world here is a model of OpenRouter, of the slots and of three gateways under traffic; it checks after every single
change what must never be otherwise. The same executor runs against the sandbox over HTTP in ``test_openrouter_key``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import random
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ansible_collections.sophia.platform.plugins.module_utils import _errors, _http
from ansible_collections.sophia.platform.plugins.module_utils._openrouter import rotate, rotation
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.forecast import forecast
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.gateway import Pages, parse
from ansible_collections.sophia.platform.plugins.module_utils._openrouter.model import Key, Secret

NAME = "production"
GUARDRAIL = "550e8400-e29b-41d4-a716-446655440001"
START = datetime(2026, 11, 24, tzinfo=timezone.utc)


class Killed(BaseException):
    """The process is gone: nothing may catch it."""


class World:
    """OpenRouter, slots and gateways. ``faults`` says what befalls each change in turn; afterwards all goes well."""

    def __init__(self, faults, seed, *, emergency=False, bootstrap=False):
        self.faults = list(faults)
        self.random = random.Random(seed)
        self.emergency = emergency
        self.now = START.timestamp() + 86_400.0
        self.account = {}
        self.secrets = {}
        self.guardrails = {}
        self.files = {}
        self.journal = {}
        self.broken = []
        self.changes = []
        self.gateways = [{"loaded": {}, "busy": {}} for _number in range(3)]
        self.served = False
        if not bootstrap:
            key, secret = self.mint(NAME, Decimal(5), START)
            self.guardrails[key.hash] = GUARDRAIL
            self.files["primary"] = secret
            self.old = key.hash
            for gateway in self.gateways:
                gateway["loaded"] = dict(self.files)
            self.served = True

    def mint(self, name, limit, created_at):
        number = len(self.secrets) + 1
        text = f"sk-or-v1-{number:064x}"
        key = Key(
            hash=f"{number:064x}", name=name, label=f"label-{number}", disabled=False, limit=limit, limit_reset=None,
            include_byok_in_limit=False, usage=Decimal(0), created_at=created_at, expires_at=None, last_used_at=None,
            workspace_id=None,
        )  # fmt: skip
        self.account[key.hash] = key
        self.secrets[text] = key.hash
        return key, Secret(text)

    def live(self, secret):
        key = self.account.get(self.secrets.get(secret.reveal()))
        return key is not None and not key.disabled

    @contextlib.contextmanager
    def change(self, what, *, remote):
        """Let a change happen, or not, or let its answer be lost."""
        self.traffic()
        fault = self.faults.pop(0) if self.faults else "well"
        if fault == "killed before":
            raise Killed
        if fault == "refused" and remote:
            raise _errors.ServerError(what, status=500)
        yield
        self.changes.append(what)
        self.check(what)
        if fault == "killed after":
            raise Killed
        if fault == "lost" and remote:
            raise _errors.Timeout(what)

    def check(self, what):
        live = [key.hash for key in self.account.values() if not key.disabled]
        if len(live) > 2:
            self.broken.append(f"{what}: {len(live)} live keys")
        if self.emergency:
            return
        if self.served and not ("primary" in self.files and self.live(self.files["primary"])):
            self.broken.append(f"{what}: no working key in the primary slot")
        for gateway in self.gateways:
            if any(not self.live(secret) for secret in gateway["loaded"].values()):
                self.broken.append(f"{what}: a gateway holds a dead key")

    def traffic(self):
        """Requests begin with the primary key a gateway knows, and end some time later."""
        for gateway in self.gateways:
            if self.random.random() < 0.5:
                gateway["loaded"] = {slot: self.files[slot] for slot in ("primary", "secondary") if slot in self.files}
            busy = gateway["busy"]
            for id, (secret, count) in list(busy.items()):
                if not self.live(secret) and not self.emergency:
                    self.broken.append("a request was under way when its key died")
                left = self.random.randint(0, count)
                busy[id] = (secret, left)
                if not left:
                    del busy[id]
            primary = gateway["loaded"].get("primary")
            if primary is None or self.random.random() < 0.3:
                continue
            if not self.live(primary):
                if not self.emergency:
                    self.broken.append("a request went out with a dead key")
                continue
            hash = self.secrets[primary.reveal()]
            self.account[hash] = dataclasses.replace(self.account[hash], usage=self.account[hash].usage + 1)
            busy[primary.id] = (primary, busy.get(primary.id, (primary, 0))[1] + 1)

    # The clock.
    def sleep(self, seconds):
        self.now += seconds
        self.traffic()

    # The API, as rotate.Rotation uses it.
    def keys(self, workspace_id):
        return list(self.account.values())

    def key(self, hash):
        return self.account.get(hash)

    def create(self, name, settings, workspace_id):
        with self.change(f"create {name}", remote=True):
            made = self.mint(name, settings.get("limit"), datetime.fromtimestamp(self.now, timezone.utc))
        return made

    def update(self, hash, changes):
        with self.change(f"update {changes}", remote=True):
            self.account[hash] = dataclasses.replace(self.account[hash], **changes)
        return self.account[hash]

    def delete(self, hash):
        with self.change("delete", remote=True):
            gone = self.account.pop(hash, None)
        return gone is not None

    def assignments(self):
        return dict(self.guardrails)

    def assign(self, guardrail_id, hash):
        with self.change("assign", remote=True):
            self.guardrails[hash] = guardrail_id

    def verify(self, secret):
        if not self.live(secret):
            raise _errors.Unauthenticated("no", status=401)
        return {"label": self.account[self.secrets[secret.reveal()]].label}

    # The slots.
    def check_slots(self):
        pass

    @contextlib.contextmanager
    def lock(self):
        yield

    def get(self, place):
        return self.files.get(place)

    def put(self, place, secret):
        with self.change(f"put {place}", remote=False):
            self.files[place] = secret
            self.served = self.served or place == "primary"

    def clear(self, place):
        with self.change(f"clear {place}", remote=False):
            self.files.pop(place, None)
            self.served = self.served and place != "primary"

    def load_journal(self):
        return dict(self.journal)

    def save_journal(self, journal):
        with self.change("journal", remote=False):
            self.journal = journal


class Slots:
    def __init__(self, world):
        self.check = world.check_slots
        self.hold = lambda: None
        self.lock, self.get, self.put, self.clear = world.lock, world.get, world.put, world.clear
        self.load_journal, self.save_journal = world.load_journal, world.save_journal


class Metrics:
    """A gateway's metrics page."""

    def __init__(self, world, gateway):
        self.world = world
        self.gateway = gateway

    def request(self, method, path, **options):
        self.world.traffic()
        lines = ["# TYPE openrouter_key_loaded gauge"]
        for slot, secret in self.gateway["loaded"].items():
            lines.append(f'openrouter_key_loaded{{slot="{slot}",hash="{secret.id}"}} 1.0')
        for id, (_secret, count) in self.gateway["busy"].items():
            lines.append(f'openrouter_key_in_flight{{hash="{id}"}} {count}')
        return _http.Response(200, "\n".join(lines) + "\n")


def run(world, state="rotated", **policy):
    want = rotation.Policy(name=NAME, state=state, quiet=4, soak=6, emergency=world.emergency, **policy)
    gateways = Pages((f"http://gateway-{n}", Metrics(world, gateway)) for n, gateway in enumerate(world.gateways))
    job = rotate.Rotation(
        world, Slots(world), gateways, want, wait_timeout=200.0, wait_sleep=1.0,
        clock=lambda: world.now, wall=lambda: world.now, sleep=world.sleep,
    )  # fmt: skip
    return job.run(check_mode=False)


def run_to_the_end(world, state="rotated", **policy):
    """Run again after every kill and every error, as an operator or a scheduler would."""
    for _run in range(100):
        try:
            return run(world, state, **policy)
        except (Killed, _errors.ApiError):
            continue
    raise AssertionError("it does not come to an end")


def only_key(world):
    keys = list(world.account.values())
    assert len(keys) == 1
    return keys[0]


def assert_settled(world, *, hash=None):
    key = only_key(world)
    assert not world.broken
    assert not key.disabled and key.name == NAME
    assert {place: world.secrets[secret.reveal()] for place, secret in world.files.items()} == {"primary": key.hash}
    assert world.journal.get("active") is None
    if hash:
        assert key.hash == hash


FAULTS = st.lists(
    st.sampled_from(["well", "well", "well", "well", "killed before", "killed after", "lost", "refused"]), max_size=60
)
SEEDS = st.integers(0, 2**32)
MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(faults=FAULTS, seed=SEEDS)
def test_any_history_ends_with_one_live_key_in_the_right_slot(faults, seed):
    world = World(faults, seed)
    run_to_the_end(world, max_age=3_600)
    assert_settled(world)
    key = only_key(world)
    assert key.hash != world.old
    assert (key.limit, world.guardrails[key.hash]) == (Decimal(5), GUARDRAIL)


@MANY
@given(before=st.integers(0, 40), faults=FAULTS, seed=SEEDS)
def test_any_history_can_be_rolled_back(before, faults, seed):
    world = World([*["well"] * before, "killed before", *faults], seed)
    with contextlib.suppress(Killed):
        run(world)
    refused = None
    try:
        run_to_the_end(world, "rolled_back")
    except _errors.StateConflict as error:
        refused = error.code
    if refused:
        assert refused == "no_way_back"
        assert world.old not in world.account
        run_to_the_end(world)
        assert_settled(world)
    elif world.journal.get("last", {}).get("outcome") != "rotated":
        assert_settled(world, hash=world.old)


@MANY
@given(faults=FAULTS, seed=SEEDS)
def test_an_emergency_disables_the_old_key_before_all_else(faults, seed):
    world = World(faults, seed, emergency=True)
    run_to_the_end(world)
    assert_settled(world)
    first = next(change for change in world.changes if change.startswith(("update", "create")))
    assert first == "update {'disabled': True}"
    assert world.old not in world.account


@MANY
@given(faults=FAULTS, seed=SEEDS)
def test_the_first_key_of_all(faults, seed):
    world = World(faults, seed, bootstrap=True)
    run_to_the_end(world)
    assert_settled(world)


TURNS = st.lists(st.tuples(st.sampled_from(["rotated", "rolled_back"]), st.integers(0, 12)), max_size=6)


@settings(max_examples=100, deadline=None)
@given(turns=TURNS, seed=SEEDS)
def test_minds_may_be_changed_at_any_time(turns, seed):
    world = World([], seed)
    for state, changes in turns:
        world.faults = [*["well"] * changes, "killed after"]
        with contextlib.suppress(Killed, _errors.StateConflict):
            run(world, state)
    world.faults = []
    run(world)
    assert_settled(world)


@pytest.mark.parametrize("kill", ["killed before", "killed after"])
def test_every_single_kill(kill):
    quiet = World([], 1)
    run(quiet)
    for number in range(len(quiet.changes)):
        world = World([*["well"] * number, kill], 1)
        with pytest.raises(Killed):
            run(world)
        run_to_the_end(world, max_age=3_600)
        assert_settled(world)


def test_a_gateway_that_is_down_stops_the_rotation_and_harms_nothing():
    world = World([], 1)
    world.gateways[1]["loaded"] = {}

    class Down:
        def request(self, method, path, **options):
            raise _errors.ConnectFailed("refused")

    want = rotation.Policy(name=NAME, quiet=4, soak=6)
    gateways = Pages([("http://up", Metrics(world, world.gateways[0])), ("http://down", Down())])
    job = rotate.Rotation(
        world, Slots(world), gateways, want, wait_timeout=30.0, wait_sleep=1.0,
        clock=lambda: world.now, wall=lambda: world.now, sleep=world.sleep,
    )  # fmt: skip
    with pytest.raises(_errors.WaitTimeout, match="http://down: refused"):
        job.run(check_mode=False)
    assert job.report.phase == "distribute"
    assert world.secrets[world.files["primary"].reveal()] == world.old
    run_to_the_end(world)
    assert_settled(world)


def test_without_waiting_a_run_ends_at_the_first_wait_and_the_next_goes_on():
    world = World([], 3)
    want = rotation.Policy(name=NAME, quiet=4, soak=6)
    gateways = Pages([("http://gateway", Metrics(world, world.gateways[0]))])
    phases = []
    while True:
        job = rotate.Rotation(
            world, Slots(world), gateways, want, wait=False, clock=lambda: world.now, wall=lambda: world.now,
            sleep=world.sleep,
        )  # fmt: skip
        report = job.run(check_mode=False)
        phases.append(report.phase)
        if report.outcome:
            break
        assert report.waiting_for
        world.sleep(1.0)
    assert phases == sorted(phases, key=["distribute", "promote", "drain", "disable", "delete"].index)
    assert report.outcome == "rotated"
    assert_settled(world)


def observed(world):
    want = rotation.Policy(name=NAME)
    gateways = Pages([("http://gateway", Metrics(world, world.gateways[0]))])
    return rotate.Rotation(world, Slots(world), gateways, want, wall=lambda: world.now).observe(), want


def test_the_forecast_is_what_happens():
    world = World([], 5)
    o, want = observed(world)
    steps, after = forecast(o, want)
    run(world)
    done = [change.split()[0] for change in world.changes if change != "journal"]
    verbs = {"write": "put", "enable": "update", "disable": "update", "rename": "update"}
    unseen = ("begin", "note", "wait", "verify", "finish")
    foreseen = [verbs.get(step.do, step.do) for step in steps if step.do not in unseen]
    # "create" is two changes: the key, and its secret in the slot.
    foreseen.insert(foreseen.index("create") + 1, "put")
    assert done == foreseen
    assert [key.name for key in after.keys] == [NAME]


def test_a_young_key_is_left_alone():
    world = World([], 1)
    report = run(world, max_age=10 * 86_400)
    assert (report.changed, report.steps, world.changes) == (False, [], [])


def test_going_back_when_nothing_is_under_way_is_nothing():
    world = World([], 1)
    assert not run(world, "rolled_back").changed


def conflict(world, **policy):
    before = list(world.changes)
    with pytest.raises(_errors.StateConflict) as caught:
        run(world, **policy)
    assert world.changes == before
    return caught.value.code


def test_a_primary_slot_with_another_valid_key_is_not_thrown_away():
    world = World([], 1)
    _key, world.files["primary"] = world.mint("other", None, START)
    assert conflict(world) == "foreign_slot"


def test_a_primary_slot_with_a_dead_key_while_the_named_one_lives_is_a_riddle():
    world = World([], 1)
    world.files["primary"] = Secret("sk-or-v1-gone")
    assert conflict(world) == "foreign_slot"


def test_a_secondary_slot_that_nobody_knows_is_not_thrown_away():
    world = World([], 1)
    _key, world.files["secondary"] = world.mint("other", None, START)
    assert conflict(world) == "foreign_slot"


def test_a_lost_journal_is_told_rather_than_guessed():
    world = World([*["well"] * 6, "killed after"], 1)
    with pytest.raises(Killed):
        run(world)
    world.journal = {}
    world.files.pop("secondary", None)
    assert conflict(world) == "lost_journal"


def test_two_keys_of_the_name_are_refused():
    world = World([], 1)
    world.mint(NAME, None, START)
    assert conflict(world) == "ambiguous_name"


def test_slots_of_another_name_in_mid_rotation_are_refused():
    world = World([*["well"] * 3, "killed after"], 1)
    with pytest.raises(Killed):
        run(world)
    o, _want = observed(world)
    with pytest.raises(_errors.StateConflict, match="not of 'other'"):
        rotation.next_step(o, rotation.Policy(name="other"))


def test_a_new_key_that_somebody_disabled_stops_the_rotation():
    world = World([*["well"] * 6, "killed after"], 1)
    with pytest.raises(Killed):
        run(world)
    new = world.journal["active"]["new"]
    world.account[new] = dataclasses.replace(world.account[new], disabled=True)
    assert conflict(world) == "new_key_dead"
    run(world, "rolled_back")
    world.broken.clear()  # it was not the rotation that disabled a key in use
    assert_settled(world, hash=world.old)


def test_an_expiry_that_differs_is_a_reason():
    world = World([], 1)
    expires = START + timedelta(days=90)
    run(world, max_age=10 * 86_400, settings={"expires_at": expires})
    assert world.old not in world.account


@pytest.mark.parametrize(
    ("page", "loaded", "in_flight", "trouble"),
    [
        ('openrouter_key_loaded{slot="primary",hash="aa"} 1\n', (("primary", "aa"),), (), False),
        ('openrouter_key_loaded{hash="aa",slot="primary"} 0\n', (), (), False),
        ('openrouter_key_loaded{slot="primary",hash="aa"} 1\nopenrouter_key_in_flight{hash="aa"} 2.0\n',
         (("primary", "aa"),), (("aa", 2),), False),
        ("# TYPE openrouter_key_loaded gauge\n", (), (), False),
        ("up 1\n", (), (), True),
        ("", (), (), True),
        ('openrouter_key_loaded{slot="primary",hash="aa"} x\n', (), (), False),
    ],
)  # fmt: skip
def test_metrics_pages(page, loaded, in_flight, trouble):
    replica = parse("u", page)
    assert (replica.loaded, replica.in_flight, bool(replica.trouble)) == (loaded, in_flight, trouble)


def test_a_key_somebody_else_still_uses_is_not_disabled():
    world = World([], 1)
    sleep = world.sleep

    def use(seconds):
        sleep(seconds)
        old = world.account.get(world.old)
        world.account[world.old] = dataclasses.replace(old, usage=old.usage + 1)

    world.sleep = use
    with pytest.raises(_errors.WaitTimeout, match="usage has to stand still"):
        run(world)
    assert not world.account[world.old].disabled
    world.sleep = sleep
    run(world)
    assert_settled(world)


def test_the_names_change_only_when_every_gateway_uses_the_new_key():
    world = World([], 1)
    world.sleep = lambda seconds: setattr(world, "now", world.now + seconds)
    world.traffic = lambda: None
    new = {"primary": Secret("sk-or-v1-" + f"{2:064x}")}
    with pytest.raises(_errors.WaitTimeout):
        run(world)
    for gateway in world.gateways:
        gateway["loaded"]["secondary"] = new["primary"]
    with pytest.raises(_errors.WaitTimeout, match="gateways that do not use the new key: http://gateway-0: not yet; "):
        run(world)
    for gateway in world.gateways[1:]:
        gateway["loaded"] = new
    with pytest.raises(_errors.WaitTimeout, match="do not use the new key: http://gateway-0: not yet \\(after"):
        run(world)
    assert world.account[world.old].name == NAME
    with pytest.raises(_errors.WaitTimeout, match="gateways that do not use the old key: http://gateway-1"):
        run(world, "rolled_back")
    assert len(world.account) == 2


def test_the_lost_answer_of_a_create_is_made_good_in_the_same_run():
    world = World(["well", "lost"], 1)
    report = run(world)
    assert [step.do for step in report.steps][:4] == ["begin", "create", "delete", "create"]
    assert_settled(world)


def test_a_rollback_under_way_is_finished_before_the_next_rotation():
    world = World([*["well"] * 8, "killed after"], 1)
    with pytest.raises(Killed):
        run(world)
    world.faults = ["well", "killed after"]
    with pytest.raises(Killed):
        run(world, "rolled_back")
    report = run(world)
    assert [step.why for step in report.steps if step.do == "finish"] == ["rolled_back", "rotated"]
    assert_settled(world)
    assert world.old not in world.account
