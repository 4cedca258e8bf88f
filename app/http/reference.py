"""OpenAPI 3.1 (`/schema/openapi.json`) and its page (`/docs`), drawn by the server: no script, nothing from elsewhere.

The schema is made from the routes of both origins, once, when it is first asked for.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, get
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, Reference, SecurityScheme

from app.http import html as pages
from app.http.services import services_of

TITLE = "Retort"
VERSION = "1"
METHODS = ("get", "post", "put", "patch", "delete")
PROBLEM = {
    "type": "object",
    "description": "RFC 9457. `code` is stable and for programs; `title` and `detail` are for people.",
    "required": ["type", "title", "status", "detail", "code"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "field": {"type": "string"},
        "request_id": {"type": "string"},
    },
    "example": {
        "type": "https://retort.invalid/problems/message-empty",
        "title": "The message is empty",
        "status": 422,
        "detail": "Write a question of 1 to 4,000 characters.",
        "code": "message-empty",
        "field": "text",
    },
}
SCHEMES: dict[str, SecurityScheme | Reference] = {
    "visitor": SecurityScheme(type="http", scheme="bearer", description="A visitor's token, from POST /widget/v1/session"),
    "session": SecurityScheme(
        type="apiKey",
        name="retort_session",
        security_scheme_in="cookie",
        description="A member's session; under https its name begins with __Host-",
    ),
    "key": SecurityScheme(type="http", scheme="bearer", description="An API key: rk_…"),
}


@lru_cache(maxsize=1)
def _described() -> dict[str, Any]:
    from app.http.routes import MEMBERS, OPERATIONS, VISITORS  # which import every domain: only when asked for

    config = OpenAPIConfig(
        title=TITLE,
        version=VERSION,
        description="Visitors, members and programs: docs/api.md says the same in words.",
        components=Components(security_schemes=SCHEMES),
        render_plugins=[JsonRenderPlugin(path="/openapi.json")],
    )
    application = Litestar(route_handlers=[*VISITORS, *MEMBERS, *OPERATIONS], openapi_config=config, logging_config=None)
    return msgspec.json.decode(msgspec.json.encode(application.openapi_schema.to_schema()))


def schema(visitor: str, dashboard: str) -> dict[str, Any]:
    """The whole description, with each path's origin and the one shape of errors."""
    described = msgspec.json.decode(msgspec.json.encode(_described()))
    described["servers"] = [{"url": dashboard, "description": "Dashboard origin"}]
    described["components"].setdefault("schemas", {})["Problem"] = PROBLEM
    reference = {"$ref": "#/components/schemas/Problem"}
    for path, item in described["paths"].items():
        if path.startswith("/widget/"):
            item["servers"] = [{"url": visitor, "description": "Visitor origin"}]
        for method in METHODS:
            if method not in item:
                continue
            responses = item[method]["responses"]
            responses.pop("400", None)
            content = {"application/problem+json": {"schema": reference}}
            responses["default"] = {"description": "What went wrong, and what to do", "content": content}
            if path.endswith("/events"):
                stream = {"text/event-stream": {"schema": {"type": "string"}}}
                responses["200"] = {"description": "Events until nothing is expected any more", "content": stream}
    return described


@get("/schema/openapi.json", include_in_schema=False)
async def openapi(request: Request) -> Response[dict[str, Any]]:
    settings = services_of(request).settings
    media_type = "application/vnd.oai.openapi+json"
    body = schema(settings.visitor_url, settings.dashboard_url)
    return Response(body, media_type=media_type, headers={"cache-control": "public, max-age=60"})


def _shape(node: dict[str, Any], schemas: dict[str, Any], depth: int = 0) -> str:
    """A schema in short: names and types, references followed a few levels down."""
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[1]
        return _shape(schemas.get(name, {}), schemas, depth) if depth < 4 else html.escape(name)
    for joined in ("oneOf", "anyOf"):
        if joined in node:
            return " | ".join(_shape(part, schemas, depth) for part in node[joined])
    if "enum" in node:
        return " | ".join(html.escape(repr(value)) for value in node["enum"])
    if "properties" in node:
        pad, required = "  " * (depth + 1), node.get("required", ())
        lines = (
            f"{pad}{html.escape(name)}{'' if name in required else '?'}: {_shape(part, schemas, depth + 1)}"
            for name, part in node["properties"].items()
        )
        return "{\n" + "\n".join(lines) + "\n" + "  " * depth + "}"
    if node.get("type") == "array":
        return f"[{_shape(node.get('items', {}), schemas, depth)}]"
    kind = node.get("type", "any")
    return html.escape(" | ".join(kind) if isinstance(kind, list) else str(kind))


def _body(content: dict[str, Any], schemas: dict[str, Any]) -> str:
    return "".join(
        f"<pre><code>{html.escape(kind)}\n{_shape(part['schema'], schemas)}</code></pre>"
        for kind, part in content.items()
        if part.get("schema")
    )


def _operation(path: str, method: str, operation: dict[str, Any], schemas: dict[str, Any]) -> str:
    parts = [f'<h3 id="{html.escape(operation["operationId"])}"><code>{method.upper()} {html.escape(path)}</code></h3>']
    text = operation.get("description") or operation.get("summary")
    if text:
        parts.append(f"<p>{html.escape(text)}</p>")
    names: Sequence[dict[str, Any]] = operation.get("parameters", ())
    if names:
        items = "".join(
            f"<li><code>{html.escape(p['name'])}</code> ({p['in']}): {_shape(p.get('schema', {}), schemas)}</li>" for p in names
        )
        parts.append(f"<ul>{items}</ul>")
    if "requestBody" in operation:
        parts.append("<p>Takes</p>" + _body(operation["requestBody"]["content"], schemas))
    for status, response in operation["responses"].items():
        if status != "default":
            parts.append(
                f"<p>Answers {status}: {html.escape(response['description'])}</p>" + _body(response.get("content", {}), schemas)
            )
    return "\n".join(parts)


def draw(described: dict[str, Any]) -> str:
    """The reference as one page, grouped by tag."""
    schemas, groups = described["components"]["schemas"], {}
    for path, item in described["paths"].items():
        for method in METHODS:
            if method in item:
                tag = (item[method].get("tags") or ["Other"])[0]
                groups.setdefault(tag, []).append(_operation(path, method, item[method], schemas))
    body = '<h1>The REST API</h1>\n<p>As data: <a href="/schema/openapi.json">OpenAPI 3.1</a>.'
    body += " Every error is a problem document:</p>"
    body += f"<pre><code>{_shape(PROBLEM, schemas)}</code></pre>"
    for tag, operations in groups.items():
        body += f"\n<h2>{html.escape(tag)}</h2>\n" + "\n".join(operations)
    return pages.plain("Retort: the REST API", body, navigation='<header class="top"><div><b>Retort</b> API</div></header>\n')


@get("/docs", include_in_schema=False)
async def reference(request: Request) -> Response[str]:
    settings = services_of(request).settings
    text = draw(schema(settings.visitor_url, settings.dashboard_url))
    return pages.page(text, pages.policy(text), cache="public, max-age=60")
