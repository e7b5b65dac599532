# Copyright (c) 2026, the sophia.platform authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run in a gateway's pod, with nothing but Python's standard library.

usage: gateway.py ask     ask the gateway beside it one question, with a key that is made for it and removed again; print the answer
       gateway.py key     print a key that ends in a quarter of an hour

Both belong to the organisation platform-check, which is made at first and may spend a dollar a month.
"""

from __future__ import annotations

import datetime
import decimal
import json
import secrets
import sys
import urllib.error
import urllib.request

GATEWAY = "http://127.0.0.1:8080"
ADMIN_KEY_FILE = "/secrets/admin/admin_key"
ORGANIZATION = "platform-check"
USER = "gate"
MINUTES = 15


def call(method: str, path: str, key: str, body: object = None) -> dict:
    """One call of the gateway's API. Exits with its sentence where it refuses."""
    request = urllib.request.Request(
        GATEWAY + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return json.loads(answer.read() or b"{}", parse_float=decimal.Decimal)
    except urllib.error.HTTPError as error:
        text = error.read().decode("utf-8", "replace")
        try:
            text = json.loads(text)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            text = text[:200]
        sys.exit(f"{method} {path.partition('?')[0]}: HTTP {error.code}: {text}")
    except OSError as error:
        sys.exit(f"{method} {path.partition('?')[0]}: {error}")


def ensured(admin: str, kind: str, query: str, body: dict) -> str:
    """Return the identifier of what has this name, made where it is not there."""
    found = call("GET", f"/admin/v1/{kind}?name={body['name']}{query}", admin)["data"]
    return (found[0] if found else call("POST", f"/admin/v1/{kind}", admin, body))["id"]


def made_key(admin: str) -> dict:
    organization = ensured(admin, "organizations", "", {"name": ORGANIZATION, "budgets": {"month": "1"}})
    user = ensured(admin, "users", f"&organization={organization}", {"name": USER, "organization": organization})
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(minutes=MINUTES)
    for old in call("GET", f"/admin/v1/keys?user={user}", admin)["data"]:
        if old["expires_at"] and old["expires_at"] < datetime.datetime.now(datetime.timezone.utc).isoformat():
            call("DELETE", f"/admin/v1/keys/{old['id']}", admin)
    body = {"name": f"gate-{secrets.token_hex(4)}", "user": user, "expires_at": end.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return call("POST", "/admin/v1/keys", admin, body)


def main() -> None:
    with open(ADMIN_KEY_FILE, encoding="utf-8") as file:
        admin = file.readline().strip()
    key = made_key(admin)
    if sys.argv[1:] == ["key"]:
        print(key["secret"])
        return
    try:
        # A number that no answer in the cache has, so that a model is really asked.
        question = f"Answer with the number {secrets.randbelow(10**9)} and nothing else."
        answer = call("POST", "/v1/chat", key["secret"], {"message": question, "model_preference": "fast", "max_tokens": 64})
    finally:
        call("DELETE", f"/admin/v1/keys/{key['id']}", admin)
    cost = answer["cost"]
    told = {"cost": "an amount that is not confirmed yet" if cost is None else f"{decimal.Decimal(cost):f}"}
    print(json.dumps({**told, **{name: answer[name] for name in ("text", "model", "cache")}}))


if __name__ == "__main__":
    main()
