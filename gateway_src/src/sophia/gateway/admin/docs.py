# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI document and its interactive page, from files of our own: nothing is fetched from the internet."""

from __future__ import annotations

import mimetypes
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from litestar import Request, Response, get
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath
from swagger_ui_bundle import swagger_ui_path  # type: ignore[import-untyped]

from sophia.errors import NotFound

__all__ = ["PUBLIC", "config", "handlers"]

# Only these go out of the bundle's folder.
_FILES = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"})
# What the authentication lets through.
PUBLIC = ["^/admin/v1/docs", "^/admin/v1/openapi.json$"]
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Sophia management API</title>
<link rel="icon" href="/admin/v1/docs/favicon-32x32.png">
<link rel="stylesheet" href="/admin/v1/docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/admin/v1/docs/swagger-ui-bundle.js"></script>
<script src="/admin/v1/docs/page.js"></script>
</body>
</html>
"""
_SCRIPT = """SwaggerUIBundle({
  url: "/admin/v1/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  presets: [SwaggerUIBundle.presets.apis],
});
"""
_POLICY = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; frame-ancestors 'none'"
    )
}

config = OpenAPIConfig(
    title="Sophia management API",
    version="1",
    description=(
        "Organisations, teams, users and keys; budgets and limits; flags; audit; usage. "
        "Money is a decimal string of USD, time is RFC 3339. Errors have OpenAI's envelope with a stable `code`."
    ),
    # The framework's own pages load from a CDN; ours are below.
    path="/docs/framework",
    components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
    security=[{"key": []}],
)


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def get_document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The OpenAPI document."""
    state = request.app.state
    if "document" not in state:
        state.document = msgspec.json.encode(_with_errors(request.app.openapi_schema.to_schema()))
    return Response(state.document, media_type="application/json")


@get("/docs", include_in_schema=False, sync_to_thread=False)
def get_page() -> Response[str]:
    """The interactive page."""
    return Response(_PAGE, media_type="text/html", headers=_POLICY)


@get("/docs/{file_name:str}", include_in_schema=False, sync_to_thread=False)
def get_file(file_name: FromPath[str]) -> Response[bytes]:
    """A file of the interactive page."""
    if file_name == "page.js":
        return Response(_SCRIPT.encode(), media_type="text/javascript")
    if file_name not in _FILES:
        raise NotFound("route_not_found", "there is no such file")
    return Response(
        _read(file_name),
        media_type=mimetypes.guess_type(file_name)[0] or "application/octet-stream",
        headers={"cache-control": "public, max-age=86400"},
    )


@cache
def _read(file_name: str) -> bytes:
    return (Path(swagger_ui_path) / file_name).read_bytes()


def _with_errors(document: dict[str, Any]) -> dict[str, Any]:
    """Every operation may answer with the error envelope: say so once for all of them."""
    text = {"type": "string"}
    maybe = {"type": ["string", "null"]}
    error = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {"message": text, "type": text, "param": maybe, "code": text},
    }
    envelope = {"type": "object", "required": ["error"], "properties": {"error": error}}
    document["components"].setdefault("schemas", {})["Error"] = envelope
    answer = {
        "description": "An error, with a stable code",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    for path in document["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict) and "responses" in operation:
                operation["responses"].pop("400", None)
                operation["responses"]["default"] = answer
    return document


handlers = [get_document, get_page, get_file]
