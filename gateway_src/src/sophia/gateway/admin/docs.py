# SPDX-License-Identifier: GPL-3.0-or-later
"""The OpenAPI document and its interactive page, from files of our own: nothing is fetched from the internet.

The document is OpenAPI 3.1. The page gets the same in the words of 3.0, which is what its Swagger UI can read.
"""

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

from sophia.errors import ErrorEnvelope, NotFound
from sophia.gateway.admin import views

__all__ = ["PUBLIC", "config", "handlers", "in_words_of_3_0"]

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
  url: "/admin/v1/docs/openapi.json",
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
    use_handler_docstrings=True,
    operation_id_creator=lambda handler, _method, _path: handler.handler_name,
)


@get("/openapi.json", include_in_schema=False, sync_to_thread=False)
def get_document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The OpenAPI document."""
    return Response(_documents(request)[0], media_type="application/json")


@get("/docs/openapi.json", include_in_schema=False, sync_to_thread=False)
def get_page_document(request: Request[Any, Any, Any]) -> Response[bytes]:
    """The OpenAPI document for the page."""
    return Response(_documents(request)[1], media_type="application/json")


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


def _documents(request: Request[Any, Any, Any]) -> tuple[bytes, bytes]:
    state = request.app.state
    if "documents" not in state:
        document = _complete(request.app.openapi_schema.to_schema())
        state.documents = msgspec.json.encode(document), msgspec.json.encode(in_words_of_3_0(document))
    documents: tuple[bytes, bytes] = state.documents
    return documents


def _complete(document: dict[str, Any]) -> dict[str, Any]:
    """Add what the framework does not say: unknown fields are refused, and every operation may answer an error."""
    kinds = [kind for kind in vars(views).values() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]
    _, precise = msgspec.json.schema_components([*kinds, ErrorEnvelope], ref_template="#/components/schemas/{name}")
    known = {*document["components"]["schemas"], "ErrorEnvelope", "ErrorBody"}
    document["components"]["schemas"] |= {name: schema for name, schema in precise.items() if name in known}
    answer = {
        "description": "An error, with a stable code",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}},
    }
    for path in document["paths"].values():
        for operation in path.values():
            if isinstance(operation, dict) and "responses" in operation:
                operation["summary"] = operation["operationId"].replace("_", " ").capitalize()
                operation["responses"].pop("400", None)
                operation["responses"]["default"] = answer
    return document


def in_words_of_3_0(value: Any) -> Any:
    """An OpenAPI 3.1 document, or a part of one, as 3.0 says it: `nullable` for null, one example, no `const`."""
    if isinstance(value, list):
        return [in_words_of_3_0(item) for item in value]
    if not isinstance(value, dict):
        return value
    plain = {name: in_words_of_3_0(item) for name, item in value.items()}
    if "openapi" in plain:
        plain["openapi"] = "3.0.3"
    for choice in ("anyOf", "oneOf"):
        options = plain.get(choice)
        if isinstance(options, list) and {"type": "null"} in options:
            rest = [option for option in options if option != {"type": "null"}]
            del plain[choice]
            plain |= {"nullable": True} | (rest[0] if len(rest) == 1 else {choice: rest})
    if isinstance(plain.get("examples"), list):
        plain["example"] = plain.pop("examples")[0]
    plain.pop("propertyNames", None)
    if "const" in plain:
        plain["enum"] = [plain.pop("const")]
    return plain


handlers = [get_document, get_page_document, get_page, get_file]
