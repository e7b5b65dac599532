# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This module_utils is PRIVATE to the collection: it may change in any release.

"""Prometheus' HTTP API (prometheus.io/docs/prometheus/latest/querying/api/): its clock and its raw samples.

Raw samples come from a range selector in an instant query: unlike ``query_range`` it gives each sample with the time
of its scrape, so that staleness and resets can be seen.
"""

from __future__ import annotations

import math
from typing import Any

from ansible_collections.sophia.platform.plugins.module_utils._canary.series import Series
from ansible_collections.sophia.platform.plugins.module_utils._errors import BadResponse
from ansible_collections.sophia.platform.plugins.module_utils._http import Client


class Prometheus:
    """One server, or anything that speaks its API (Thanos, Mimir, VictoriaMetrics)."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def now(self) -> float:
        """Return the server's time (Unix, seconds): the only clock that bins are measured by."""
        data = self._query("time()")
        if data.get("resultType") != "scalar":
            raise BadResponse("Prometheus: time() is not a scalar")
        return _number(data.get("result"))[1]

    def samples(self, selector: str, start: float, end: float) -> list[Series]:
        """Return the raw samples of all series of a selector, from ``start`` to ``end`` (Unix, seconds), both included.

        Raises an :class:`ApiError`; an answer that is incomplete (the server has warnings) is one too.
        """
        # One second more: ranges are closed on the left up to Prometheus 2 and open since 3.
        span = math.ceil(end - start) + 1
        data = self._query(f"{selector}[{span}s]", f"{end:.3f}")
        if data.get("resultType") != "matrix" or not isinstance(data.get("result"), list):
            raise BadResponse(f"Prometheus: {selector} is not a range of series")
        return [_series(item, start) for item in data["result"]]

    def _query(self, query: str, time: str | None = None) -> dict[str, Any]:
        body = self._client.get("api/v1/query", query={"query": query, "time": time}).body
        if not isinstance(body, dict) or body.get("status") != "success" or not isinstance(body.get("data"), dict):
            raise BadResponse("Prometheus: not an answer of its query API")
        if body.get("warnings"):
            raise BadResponse(f"Prometheus: incomplete answer: {body['warnings'][0]}", code="incomplete", retryable=True)
        data: dict[str, Any] = body["data"]
        return data


def _series(item: Any, start: float) -> Series:
    if not isinstance(item, dict) or not isinstance(item.get("metric"), dict):
        raise BadResponse("Prometheus: a series without labels")
    samples = [_number(pair) for pair in item.get("values", [])]
    return Series(item["metric"], [pair for pair in samples if pair[0] >= start])


def _number(pair: Any) -> tuple[float, float]:
    try:
        time, value = pair
        return float(time), float(value)
    except (TypeError, ValueError):
        raise BadResponse("Prometheus: a sample that is not a pair of numbers") from None
