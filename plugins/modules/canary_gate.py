#!/usr/bin/python
# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: canary_gate
short_description: Judge a canary by what Prometheus counted, with stated probabilities of error
version_added: 0.1.0
description:
  - Compares a canary with a baseline, or with absolute limits, by counters that Prometheus has collected, and returns a verdict.
  - The test is sequential, so it may be looked at as often as one likes. A canary that is no worse is rolled back with a probability of at most
    O(alpha_rollback) over all stages, metrics and looks of a rollout together. One that is too bad in a metric is promoted from a stage with a
    probability of at most O(alpha_promote).
  - What these bounds rest on and how often each rule was wrong in simulation is in C(docs/canary.md) of the collection.
  - Missing, stale or unusable data is never evidence. It ends in the verdict V(no_data) or V(no_traffic), never in a promotion or a rollback.
  - Verdicts depend on the samples only, not on when or how often one looks. They are computed on the bins of a grid of Prometheus' own time.
author:
  - The sophia.platform authors (@sophia-platform)
extends_documentation_fragment:
  - sophia.platform._attributes
  - sophia.platform._attributes.idempotent_not_modify_state
  - sophia.platform._attributes.actiongroup_all
attributes:
  check_mode:
    support: full
    details:
      - Looks once, without waiting, and writes neither the state nor a report.
  diff_mode:
    support: full
    details:
      - Shows the e-values before and after the task.
options:
  api_url:
    description:
      - Base URL of Prometheus, or of anything that has its query API.
      - If not set, the environment variable E(PROMETHEUS_URL) is read.
    type: str
  api_token:
    description:
      - A bearer token for O(api_url).
    type: str
  api_username:
    description:
      - A user name for O(api_url), with O(api_password).
    type: str
  api_password:
    description:
      - The password of O(api_username).
    type: str
  api_timeout:
    description:
      - Seconds to wait for a connection and between the bytes of an answer.
    type: int
    default: 10
  api_retries:
    description:
      - How often a query is repeated at once after HTTP 429, 502, 503, 504, a time-out or a broken connection.
        While waiting, a server that still does not answer is asked again at the next look, for O(no_data_grace).
    type: int
    default: 2
  validate_certs:
    description:
      - Whether to verify the certificate of O(api_url).
    type: bool
    default: true
  ca_path:
    description:
      - A file of PEM certificates to trust beside the system's.
    type: path
  canary:
    description:
      - Label matchers that select the canary, such as V(version="v2").
    type: str
    required: true
  baseline:
    description:
      - Label matchers that select the baseline. Fresh instances of the old version make the fairest one.
      - Without it, only limits are judged.
    type: str
  metrics:
    description:
      - The figures to judge by. Each is a part per request and the smaller the better. All of them must pass for a promotion, any of them can roll back.
      - Series are given by plain selectors, a name and perhaps matchers, to which those of the arms are added.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: A name for reports, which no other metric has.
        type: str
        required: true
      kind:
        description:
          - V(counter_ratio) is O(metrics[].bad) per O(metrics[].total), such as the ratio of errors.
          - V(histogram_slow) is the part of O(metrics[].histogram) above O(metrics[].threshold), such as the ratio of slow requests.
          - V(mean) is O(metrics[].sum) per O(metrics[].count), such as the cost of a request.
        type: str
        choices: [counter_ratio, histogram_slow, mean]
        required: true
      bad:
        description: The counter of bad requests.
        type: str
      total:
        description: The counter of all requests.
        type: str
      histogram:
        description: The name of a classic histogram without C(_bucket), perhaps with matchers.
        type: str
      threshold:
        description: An upper bound of a bucket of O(metrics[].histogram).
        type: float
      sum:
        description: The counter of the value.
        type: str
      count:
        description: The counter of requests that O(metrics[].sum) belongs to.
        type: str
      compare:
        description: Whether to compare with the baseline. A metric that is not compared needs a O(metrics[].limit).
        type: bool
        default: true
      ratio:
        description: The ratio of canary to baseline that is too bad and must be ruled out for a promotion.
        type: float
        default: 2.0
      tolerance:
        description: The ratio of canary to baseline up to which the canary counts as no worse.
        type: float
        default: 1.0
      limit:
        description: The value that is too bad whatever the baseline does. A promotion needs proof that the canary is below it.
        type: float
      floor:
        description:
          - Below this value the canary is good whatever the baseline does. Half of O(metrics[].limit) by default, else there is none.
        type: float
      largest:
        description:
          - The most that one cause can add at once, which is how many errors one burst has, or the value of the dearest request.
            A low figure proves nothing unless this is bounded.
          - V(5) by default, which is safe where bursts have 3 errors on average, and 50 times O(metrics[].limit) for a V(mean).
        type: float
      bursts:
        description:
          - V(alike) takes bursts of errors to be alike in both arms, whatever their size, so that a worse canary has more of them.
          - V(any) lets bursts differ in any way between the arms, up to O(metrics[].largest). It needs more requests where bursts are small.
        type: str
        choices: [alike, any]
        default: alike
      absent_is_zero:
        description:
          - Whether a counter O(metrics[].bad) without any series means that there were no bad requests.
          - This is taken for granted where such a series exists in one of the arms, and where O(metrics[].bad) and O(metrics[].total) are series of
            the same metric and the labels asked for exist there. Otherwise the name may be wrong, and there is no data.
        type: bool
        default: false
  stage:
    description:
      - The canary's share of the traffic in percent, one of O(stages).
    type: int
    required: true
  stages:
    description:
      - All stages of the rollout. Evidence against the canary is carried from stage to stage, evidence for it is gathered afresh.
      - A stage of 100 percent has no baseline. Judge it by limits, as a rollout of its own.
    type: list
    elements: int
    default: [5, 10, 25, 50]
  bin:
    description:
      - Seconds that are judged at once. Not less than the interval of scrapes, and longer than bursts of errors last.
    type: int
    default: 15
  alpha_rollback:
    description: The probability with which a canary that is no worse may be rolled back, in the whole rollout.
    type: float
    default: 0.05
  alpha_promote:
    description: The probability with which a canary that is too bad may be promoted from a stage.
    type: float
    default: 0.05
  min_requests:
    description: How many requests of the canary a promotion needs at least.
    type: int
    default: 200
  min_bins:
    description: How many bins with good data a promotion needs at least.
    type: int
    default: 10
  warm_up:
    description: Seconds after the beginning of a stage that are not judged.
    type: int
    default: 60
  max_duration:
    description: Seconds of a stage after which the verdict is V(inconclusive).
    type: int
    default: 7200
  no_data_grace:
    description: For how many seconds data may be missing, or Prometheus may not answer, before the verdict is V(no_data).
    type: int
    default: 300
  stale_after:
    description: Seconds without a sample after which an arm's data is stale. Twice the interval of scrapes or more.
    type: int
    default: 60
  sum_series:
    description:
      - Whether several series of one arm are summed. Otherwise they are an error in the data, since they may be an oversight in a selector.
    type: bool
    default: false
  start:
    description:
      - When the stage began to be judged (Unix time), for a stage that O(state_file) does not know yet. By default O(warm_up) after the first look.
    type: int
  lag:
    description: For how many seconds after its end a bin is waited for, so that late scrapes are in.
    type: int
    default: 10
  wait:
    description:
      - Whether to look until there is a verdict other than V(hold).
    type: bool
    default: true
  poll:
    description: Seconds between looks.
    type: int
    default: 15
  state_file:
    description:
      - A file that keeps what was seen, so that a gate can be resumed and a rollout's stages belong together. Its directory must exist.
      - It belongs to one configuration. Remove it to begin a new rollout.
      - Without it, every task begins anew.
    type: path
  reports:
    description:
      - Files to write, anew after each look, so that they also show the progress.
    type: dict
    suboptions:
      markdown:
        description: A page for people.
        type: path
      junit:
        description: JUnit XML for CI systems.
        type: path
      svg:
        description: A plot of the evidence over time.
        type: path
  fail_on:
    description:
      - The verdicts with which the task fails. V(hold) only comes without O(wait) and in check mode.
    type: list
    elements: str
    choices: [promote, rollback, hold, inconclusive, no_data, no_traffic]
    default: [rollback, inconclusive, no_data, no_traffic]
requirements:
  - Nothing beside Python's standard library.
notes:
  - Runs where Prometheus can be reached, which is usually the controller, with C(delegate_to=localhost).
  - A failed task has the whole verdict too, where there is one. Otherwise it has RV(ignore:failure) with RV(ignore:failure.code).
seealso:
  - name: Prometheus HTTP API
    description: The query API that is used.
    link: https://prometheus.io/docs/prometheus/latest/querying/api/
"""

EXAMPLES = r"""
- name: Judge 5 percent of the traffic, and wait for a verdict
  sophia.platform.canary_gate:
    api_url: "{{ prometheus_url }}"
    baseline: version="v1"
    canary: version="v2"
    stage: 5
    metrics:
      - name: errors
        kind: counter_ratio
        bad: openrouter_requests_total{status=~"5.."}
        total: openrouter_requests_total
        limit: 0.02
      - name: slow
        kind: histogram_slow
        histogram: openrouter_response_duration_seconds
        threshold: 2
        limit: 0.05
      - name: cost
        kind: mean
        sum: openrouter_cost_dollars_total
        count: openrouter_response_duration_seconds_count
        ratio: 1.5
        limit: 0.1
        largest: 1
    sum_series: true
    state_file: "{{ rollout_dir }}/rollout.json"
    reports:
      markdown: "{{ rollout_dir }}/rollout.md"
      junit: "{{ rollout_dir }}/rollout.xml"
      svg: "{{ rollout_dir }}/rollout.svg"
  delegate_to: localhost
  register: verdict

- name: Look once, and fail only if the canary is bad
  sophia.platform.canary_gate:
    api_url: "{{ prometheus_url }}"
    baseline: version="v1"
    canary: version="v2"
    stage: 50
    stages: [50]
    metrics:
      - name: errors
        kind: counter_ratio
        bad: openrouter_requests_total{status=~"5.."}
        total: openrouter_requests_total
    sum_series: true
    start: "{{ deployed_at }}"
    wait: false
    fail_on: [rollback]
  delegate_to: localhost
  register: look

- name: Watch the limits after everything has been moved
  sophia.platform.canary_gate:
    api_url: "{{ prometheus_url }}"
    canary: version="v2"
    stage: 100
    stages: [100]
    max_duration: 900
    metrics:
      - name: errors
        kind: counter_ratio
        bad: openrouter_requests_total{status=~"5.."}
        total: openrouter_requests_total
        limit: 0.02
    sum_series: true
    fail_on: [rollback, no_data, no_traffic]
  delegate_to: localhost
  register: after
"""

RETURN = r"""
verdict:
  description: V(promote), V(rollback), V(hold), V(inconclusive), V(no_data) or V(no_traffic).
  returned: success, and failure with a verdict
  type: str
  sample: promote
reason:
  description: Why, in words.
  returned: success, and failure with a verdict
  type: str
  sample: every metric was shown to be good enough
final:
  description: Whether more data of this stage cannot change the verdict.
  returned: success, and failure with a verdict
  type: bool
  sample: true
stage:
  description: The stage that was judged.
  returned: success, and failure with a verdict
  type: int
  sample: 5
bins:
  description: How many bins were judged.
  returned: success, and failure with a verdict
  type: int
  sample: 96
looks:
  description: How often this task looked.
  returned: success, and failure with a verdict
  type: int
  sample: 97
elapsed:
  description: Seconds that the task took.
  returned: success, and failure with a verdict
  type: float
  sample: 1512.4
e_rollback:
  description: The e-value against the canary, over all metrics and stages. It is rolled back at RV(bounds.e_needed_rollback).
  returned: success, and failure with a verdict
  type: float
  sample: 0.31
metrics:
  description: One entry a metric, over the present stage.
  returned: success, and failure with a verdict
  type: list
  elements: dict
  contains:
    name:
      description: The metric's name.
      type: str
      sample: errors
    data_status:
      description:
        - The state of the newest data. V(ok), V(no_data), V(nan), V(stale), V(partial), V(several_series), V(query_error), V(too_few) or V(no_traffic).
      type: str
      sample: ok
    reason:
      description: What is wrong with the data, if anything.
      type: str
      sample: ""
    n0:
      description: Requests of the baseline.
      type: float
      sample: 57600
    n1:
      description: Requests of the canary.
      type: float
      sample: 14390
    k0:
      description: What the baseline had of the part that is judged.
      type: float
      sample: 290
    k1:
      description: What the canary had of it.
      type: float
      sample: 71
    rate0:
      description: The baseline's rate.
      type: float
      sample: 0.00503
    rate1:
      description: The canary's rate.
      type: float
      sample: 0.00493
    ratio:
      description: Canary to baseline.
      type: float
      sample: 0.98
    ci_low:
      description: The ratio is above this, at every look together, with the probability that the bounds leave. Null if nothing was ruled out.
      type: float
      sample: 0.41
    ci_high:
      description: The ratio is below this, likewise.
      type: float
      sample: 1.72
    e_promote:
      description: The e-value for the canary. The metric passes at RV(bounds.e_needed_promote).
      type: float
      sample: 27.4
    e_rollback:
      description: The e-value against the canary.
      type: float
      sample: 0.3
    e_limit:
      description: The e-value for being below the limit.
      type: float
      sample: 5100.0
    p_always_valid:
      description: A p-value against the canary that holds at every look.
      type: float
      sample: 0.71
    phi:
      description: The dispersion of errors, about 1 where they are independent.
      type: float
      sample: 1.06
    engine:
      description: The test that was used, see C(docs/canary.md).
      type: str
      sample: share
    assumption:
      description: What its bounds rest on.
      type: str
      sample: bursts stay within a bin and are alike in both arms
    margin:
      description: The ratio that had to be ruled out.
      type: float
      sample: 2.0
    limit:
      description: The limit.
      type: float
      sample: 0.02
    passed:
      description: Whether the metric has shown enough for a promotion.
      type: bool
      sample: true
    bins:
      description: How many bins had which data status.
      type: dict
      sample: {"ok": 96}
bounds:
  description: The probabilities of error and the e-values that they need.
  returned: success, and failure with a verdict
  type: dict
  contains:
    alpha_rollback:
      description: As O(alpha_rollback).
      type: float
      sample: 0.05
    alpha_promote:
      description: As O(alpha_promote).
      type: float
      sample: 0.05
    e_needed_rollback:
      description: The e-value at which the canary is rolled back. It is a third larger than theory needs.
      type: float
      sample: 26.67
    e_needed_promote:
      description: The e-value that every metric needs for a promotion.
      type: float
      sample: 26.67
started:
  description: The beginning of the first bin of the stage.
  returned: success, and failure with a verdict
  type: str
  sample: "2026-11-24T06:00:00Z"
ended:
  description: The end of the last bin that was judged.
  returned: success, and failure with a verdict
  type: str
  sample: "2026-11-24T06:24:00Z"
decided_at:
  description: The end of the bin that decided, null without a decision.
  returned: success, and failure with a verdict
  type: str
  sample: "2026-11-24T06:24:00Z"
expected_seconds_to_promote:
  description: An estimate of how long promotion would still take, null where there is none.
  returned: success, and failure with a verdict
  type: int
  sample: null
config_sha256:
  description: The digest of everything that decides the verdict.
  returned: success, and failure with a verdict
  type: str
  sample: 0d1f8a3a1c0e3fd7a3e4e2d9a0b3c1f5e6d7c8b9a0f1e2d3c4b5a6978877665f
queries:
  description: The selectors that are read.
  returned: success, and failure with a verdict
  type: list
  elements: str
  sample: ['openrouter_requests_total{version="v2"}']
"""

import base64
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, env_fallback

from ansible_collections.sophia.platform.plugins.module_utils._canary import report, state
from ansible_collections.sophia.platform.plugins.module_utils._canary.api import Prometheus
from ansible_collections.sophia.platform.plugins.module_utils._canary.model import (
    ALIKE,
    ANY,
    KINDS,
    VERDICTS,
    Judgement,
    Settings,
    Stage,
    check,
    metric,
)
from ansible_collections.sophia.platform.plugins.module_utils._canary.plan import judge
from ansible_collections.sophia.platform.plugins.module_utils._canary.watch import Pace, watch
from ansible_collections.sophia.platform.plugins.module_utils._errors import InvalidInput, PlatformError
from ansible_collections.sophia.platform.plugins.module_utils._http import Backoff, Client

METRIC_SPEC: dict[str, dict[str, Any]] = {
    "name": {"type": "str", "required": True},
    "kind": {"type": "str", "required": True, "choices": list(KINDS)},
    "bad": {"type": "str"},
    "total": {"type": "str"},
    "histogram": {"type": "str"},
    "threshold": {"type": "float"},
    "sum": {"type": "str"},
    "count": {"type": "str"},
    "compare": {"type": "bool", "default": True},
    "ratio": {"type": "float", "default": 2.0},
    "tolerance": {"type": "float", "default": 1.0},
    "limit": {"type": "float"},
    "floor": {"type": "float"},
    "largest": {"type": "float"},
    "bursts": {"type": "str", "choices": [ALIKE, ANY], "default": ALIKE},
    "absent_is_zero": {"type": "bool", "default": False},
}

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "api_url": {"type": "str", "fallback": (env_fallback, ["PROMETHEUS_URL"])},
    "api_token": {"type": "str", "no_log": True},
    "api_username": {"type": "str"},
    "api_password": {"type": "str", "no_log": True},
    "api_timeout": {"type": "int", "default": 10},
    "api_retries": {"type": "int", "default": 2},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "canary": {"type": "str", "required": True},
    "baseline": {"type": "str"},
    "metrics": {"type": "list", "elements": "dict", "required": True, "options": METRIC_SPEC},
    "stage": {"type": "int", "required": True},
    "stages": {"type": "list", "elements": "int", "default": [5, 10, 25, 50]},
    "bin": {"type": "int", "default": 15},
    "alpha_rollback": {"type": "float", "default": 0.05},
    "alpha_promote": {"type": "float", "default": 0.05},
    "min_requests": {"type": "int", "default": 200},
    "min_bins": {"type": "int", "default": 10},
    "warm_up": {"type": "int", "default": 60},
    "max_duration": {"type": "int", "default": 7200},
    "no_data_grace": {"type": "int", "default": 300},
    "stale_after": {"type": "int", "default": 60},
    "sum_series": {"type": "bool", "default": False},
    "start": {"type": "int"},
    "lag": {"type": "int", "default": 10},
    "wait": {"type": "bool", "default": True},
    "poll": {"type": "int", "default": 15},
    "state_file": {"type": "path"},
    "reports": {
        "type": "dict",
        "options": {"markdown": {"type": "path"}, "junit": {"type": "path"}, "svg": {"type": "path"}},
    },
    "fail_on": {
        "type": "list",
        "elements": "str",
        "choices": list(VERDICTS),
        "default": ["rollback", "inconclusive", "no_data", "no_traffic"],
    },
}


def settings_of(params: dict[str, Any]) -> Settings:
    """Return what decides the verdict; raise :class:`InvalidInput` if it makes no sense."""
    settings = Settings(
        metrics=tuple(metric(item, params["baseline"] is not None) for item in params["metrics"]),
        canary=params["canary"],
        baseline=params["baseline"],
        stages=tuple(params["stages"]),
        **{
            name: params[name]
            for name in (
                "bin", "alpha_rollback", "alpha_promote", "min_requests", "min_bins", "warm_up", "max_duration", "no_data_grace", "stale_after", "sum_series",
            )
        },
    )
    check(settings)
    report.queries(settings)
    return settings


def prometheus_of(params: dict[str, Any]) -> Prometheus:
    """Return the server to ask."""
    if not params["api_url"]:
        raise InvalidInput("api_url is not set, and neither is PROMETHEUS_URL")
    headers = {}
    if params["api_token"]:
        headers["Authorization"] = f"Bearer {params['api_token']}"
    elif params["api_username"]:
        pair = f"{params['api_username']}:{params['api_password'] or ''}".encode()
        headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
    secrets = [params["api_token"] or "", params["api_password"] or "", headers.get("Authorization", "").partition(" ")[2]]
    return Prometheus(
        Client(
            params["api_url"],
            headers=headers,
            secrets=secrets,
            timeout=params["api_timeout"],
            backoff=Backoff(tries=params["api_retries"] + 1, cap=10.0),
            validate_certs=params["validate_certs"],
            ca_path=params["ca_path"],
        )
    )


def run(params: dict[str, Any], check_mode: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the verdict object and, for diff mode, the e-values before and after."""
    began = time.monotonic()
    settings = settings_of(params)
    prometheus = prometheus_of(params)
    path = params["state_file"]
    memory = (state.read(path, settings.digest()) if path else None) or state.Memory(settings.digest())
    before = _e_values(settings, list(memory.stages))
    looks = 0
    verdict: dict[str, Any] = {}

    def keep(judgement: Judgement) -> None:
        nonlocal looks, verdict
        looks += 1
        stages = list(memory.stages)
        if not stages or stages[-1].percent != judgement.stage:
            stages.append(Stage(judgement.stage, int(time.time())))
        verdict = report.result(settings, stages, judgement)
        if check_mode:
            return
        if path:
            state.write(path, state.dump(memory))
        wanted = params["reports"] or {}
        for name, text in (
            ("markdown", report.markdown(verdict)),
            ("junit", report.junit(verdict)),
            ("svg", report.svg(verdict, judgement.trace)),
        ):
            if wanted.get(name):
                state.write(wanted[name], text)

    pace = Pace(params["wait"] and not check_mode, params["poll"], params["lag"])
    watch(prometheus, memory, settings, params["stage"], params["start"], pace, time.time, time.sleep, keep)
    verdict.update(looks=looks, elapsed=round(time.monotonic() - began, 3))
    return verdict, {"before": before, "after": _summary(verdict)}


def _e_values(settings: Settings, stages: list[Stage]) -> dict[str, Any]:
    """Return the e-values of what is remembered."""
    if not stages:
        return {}
    return _summary(report.result(settings, stages, judge(settings, stages)))


def _summary(verdict: dict[str, Any]) -> dict[str, Any]:
    return {
        "verdict": verdict["verdict"],
        "stage": verdict["stage"],
        "e_rollback": verdict["e_rollback"],
        "metrics": {item["name"]: {"e_rollback": item["e_rollback"], "e_promote": item["e_promote"]} for item in verdict["metrics"]},
    }


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True, required_together=[("api_username", "api_password")])
    try:
        verdict, diff = run(module.params, module.check_mode)
    except PlatformError as error:
        module.fail_json(msg=str(error), **error.as_failure())
    if module._diff:
        verdict["diff"] = diff
    if verdict["verdict"] in module.params["fail_on"]:
        module.fail_json(msg=f"{verdict['verdict']}: {verdict['reason']}", changed=False, **verdict)
    module.exit_json(changed=False, **verdict)


if __name__ == "__main__":
    main()
