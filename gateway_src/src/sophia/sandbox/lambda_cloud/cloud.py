# SPDX-License-Identifier: GPL-3.0-or-later
"""The API without a network: a request in, an answer out, no waiting. `app` puts it behind HTTP."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import replace

from . import control, operations, resources
from .config import Config
from .errors import CloudError
from .faults import Fault, Faults, Subject
from .records import iso
from .state import State
from .wire import Answer, Request

__all__ = ["Cloud"]

BASE = "/api/v1"
Handler = Callable[..., Answer]
ONE = r"([^/]+)"
_ID = re.compile(r"[0-9a-f]{32}")
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = [
    (method, re.compile(pattern), handler)
    for method, pattern, handler in (
        ("GET", "/instances", operations.listed),
        ("GET", f"/instances/{ONE}", operations.read),
        ("POST", f"/instances/{ONE}", operations.rename),
        ("POST", "/instance-operations/launch", operations.launch),
        ("POST", "/instance-operations/restart", operations.restart),
        ("POST", "/instance-operations/terminate", operations.terminate),
        ("GET", "/instance-types", operations.instance_types),
        ("GET", "/regions", resources.regions),
        ("GET", "/images", resources.images),
        ("GET", "/ssh-keys", resources.keys),
        ("POST", "/ssh-keys", resources.add_key),
        ("DELETE", f"/ssh-keys/{ONE}", resources.delete_key),
        ("GET", "/file-systems", resources.file_systems),
        ("POST", "/filesystems", resources.add_file_system),
        ("DELETE", f"/filesystems/{ONE}", resources.delete_file_system),
        ("GET", "/firewall-rules", resources.rules),
        ("PUT", "/firewall-rules", resources.replace_rules),
        ("GET", "/firewall-rulesets", resources.rulesets),
        ("POST", "/firewall-rulesets", resources.add_ruleset),
        ("GET", "/firewall-rulesets/global", resources.global_ruleset),
        ("PATCH", "/firewall-rulesets/global", resources.change_global),
        ("GET", f"/firewall-rulesets/{ONE}", resources.read_ruleset),
        ("PATCH", f"/firewall-rulesets/{ONE}", resources.change_ruleset),
        ("DELETE", f"/firewall-rulesets/{ONE}", resources.delete_ruleset),
        ("GET", "/audit-events", resources.events),
    )
]
CONTROL: list[tuple[str, re.Pattern[str], Handler]] = [
    (method, re.compile(pattern), handler)
    for method, pattern, handler in (
        ("GET", "/_sandbox/faults", control.read_faults),
        ("POST", "/_sandbox/faults", control.set_faults),
        ("GET", "/_sandbox/truth", control.truth),
        ("POST", "/_sandbox/reset", control.reset),
        ("POST", "/_sandbox/seed", control.seed),
        ("POST", f"/_sandbox/instances/{ONE}", control.fate),
    )
]


class Cloud:
    """The stand-in. `state` and `faults` are open to tests that run it in their own process."""

    def __init__(self, config: Config | None = None) -> None:
        self.state = State(config or Config())
        self.faults = Faults(self.state.config.seed)

    def handle(self, request: Request) -> Answer:
        """Answer a request. Never raises for what a client does."""
        try:
            if request.path.startswith(BASE + "/"):
                return self._vendor(replace(request, path=request.path[len(BASE) :]))
            handler, arguments = _match(CONTROL, request)
            return handler(self.state, self.faults, request, *arguments)
        except CloudError as error:
            return Answer.of(error.body(), error.status, error.headers)

    def _vendor(self, request: Request) -> Answer:
        state = self.state
        route = f"{request.method} {_ID.sub('{id}', request.path)}"
        self._authenticate(request)
        self._admit(request)
        state.calls[route] = state.calls.get(route, 0) + 1
        subject = Subject(request.path, request.method)
        fault = self.faults.find("before", subject)
        if fault is not None and fault.kind != "slow":
            return _strike(fault)
        handler, arguments = _match(ROUTES, request)
        answer = handler(state, self.faults, request, *arguments)
        if request.method != "GET":
            state.audit.append({"event_time": iso(state.now()), "action": route, "resource_type": "instance"})
        if fault is not None:
            answer = replace(answer, delay=fault.seconds)
        late = self.faults.find("after", subject)
        return answer if late is None else _strike(late)

    def _authenticate(self, request: Request) -> None:
        scheme, _space, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                given = base64.b64decode(given, validate=True).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                given = ""
        elif scheme.lower() != "bearer":
            given = ""
        if given.strip() != self.state.config.api_key:
            raise CloudError("global/invalid-api-key")

    def _admit(self, request: Request) -> None:
        now = self.state.config.clock()
        early = self.state.requests.admit(now)
        if early is None and request.path == "/instance-operations/launch":
            early = self.state.launches.admit(now)
        if early is not None:
            raise _limited(early)


def _limited(seconds: float) -> CloudError:
    # Retry-After has whole seconds.
    wait = str(max(1, -int(-seconds // 1)))
    return CloudError("global/quota-exceeded", "Rate limit exceeded.", status=429, headers={"retry-after": wait})


def _strike(fault: Fault) -> Answer:
    """The answer of a fault, whether or not anything was done."""
    if fault.kind.startswith("timeout"):
        return Answer(0, b"", delivery="never")
    if fault.kind.startswith("reset"):
        return Answer(0, b"", delivery="reset")
    headers = {} if fault.retry_after is None else {"retry-after": f"{fault.retry_after:g}"}
    code = fault.code or ("global/quota-exceeded" if fault.status == 429 else "global/internal-error")
    error = CloudError(code, status=fault.status, headers=headers)
    return Answer.of(error.body(), error.status, error.headers)


def _match(routes: list[tuple[str, re.Pattern[str], Handler]], request: Request) -> tuple[Handler, tuple[str, ...]]:
    for method, pattern, handler in routes:
        found = pattern.fullmatch(request.path)
        if found is not None and method == request.method:
            return handler, found.groups()
    raise CloudError("global/not-found")
