"""The API's own documents: OpenAPI, and a page to read it on that loads nothing from elsewhere."""

from functools import lru_cache
from importlib.metadata import version
from typing import Any, Final

import jinja2
import msgspec
from litestar import Request as HttpRequest
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from distribu.application.kernel import Command
from distribu.domain.errors import CODES
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.wire import BODY_MAX, Route, plan

_REF: Final = "#/components/schemas/{name}"
_JSON: Final = "application/json"

_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error", "code", "requestId"],
    "properties": {
        "error": {"type": "string", "description": "For people."},
        "code": {"type": "string", "enum": sorted(CODES), "description": "For programs; stable."},
        "requestId": {"type": "string"},
        "fields": {"type": "object", "additionalProperties": {"type": "string"}},
        "retryAfter": {"type": "integer", "description": "Seconds."},
    },
    "example": {
        "error": "Only 3 of Oat Flour 25 kg left, 5 asked for.",
        "code": "insufficient_stock",
        "requestId": "0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10",
    },
}

_REFUSALS: Final = {
    "400": "Not JSON, a wrong type, an unknown field, or out of range; `fields` says where.",
    "401": "No key, or one that is wrong, expired or revoked.",
    "403": "The key lacks the scope that is named.",
    "404": "Absent, or another company's: the same answer.",
    "405": "The path does not know the method.",
    "409": "A duplicate, a stale version, or an Idempotency-Key still running.",
    "412": "If-Match names another version than the current one.",
    "413": f"The body is over {BODY_MAX} bytes.",
    "415": "The body is not JSON by its own account.",
    "422": "A rule of the business refused; nothing was changed.",
    "429": "Too many requests; the X-RateLimit headers say how it stands.",
    "503": "Too busy; try again after `retryAfter` seconds.",
}


@lru_cache(maxsize=1)
def openapi() -> dict[str, Any]:
    """The API as an OpenAPI 3.1 document."""
    kinds = {route.request for route in ROUTES} | {route.result for route in ROUTES if route.result}
    _, components = msgspec.json.schema_components(
        sorted(kinds, key=lambda kind: kind.__name__), ref_template=_REF
    )
    _as_sent(components)
    # Inside, a number not given yet is raw text; on the wire it is always a number.
    components["OrderView"]["properties"]["number"] = {"type": "integer", "minimum": 1}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        own = components[route.request.__name__]
        paths.setdefault(shown_path(route), {})[route.method.lower()] = _operation(route, own, components)
    asked = {route.request.__name__ for route in ROUTES}
    schemas = {name: schema for name, schema in components.items() if name not in asked}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Distribu",
            "version": version("distribu"),
            "description": "Wholesale ordering: products and stock, customers, orders, webhooks.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key: `dk_…`, 46 characters.",
                }
            },
        },
    }


def _as_sent(schema: Any) -> None:
    """msgspec says that a decimal is a string; on the wire amounts are numbers."""
    match schema:
        case dict():
            if schema.get("format") == "decimal":
                schema["type"] = "number"
            for part in schema.values():
                _as_sent(part)
        case list():
            for part in schema:
                _as_sent(part)


def shown_path(route: Route) -> str:
    """The path with its parameters as they are named on the wire."""
    path = "/api/v1" + route.path.replace(":str}", "}")
    for name, wire in plan(route.request).path.items():
        path = path.replace(f"{{{name}}}", f"{{{wire}}}")
    return path


def _operation(route: Route, own: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    known = plan(route.request)
    properties, required = own.get("properties", {}), own.get("required", [])
    summary, _, rest = (route.request.__doc__ or "").partition("\n\n")
    needs = route.request.needs
    parameters = [
        {"name": wire, "in": "path", "required": True, "schema": properties[wire]}
        for wire in known.path.values()
    ]
    if route.method == "GET":
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": schema}
            for name, schema in properties.items()
            if name in known.body
        ]
    if known.if_match is not None:
        parameters.append(_header("If-Match", "The ETag of the version that is meant.", 12))
    if route.method == "POST" and issubclass(route.request, Command):
        parameters.append(_header("Idempotency-Key", "The effect happens once per key for 24 hours.", 255))
    operation: dict[str, Any] = {
        "operationId": route.request.__name__,
        "summary": " ".join(summary.split()),
        "description": " ".join(rest.split()) + (f"\n\nScope: `{needs.value}`." if needs else "\n\nAny key."),
        "tags": [route.tag],
        "parameters": parameters,
        "responses": {str(route.status): _success(route, components), **_refusals(route)},
    }
    if route.method in ("POST", "PUT", "PATCH") and known.body:
        body = {name: schema for name, schema in properties.items() if name in known.body}
        schema = {
            "type": "object",
            "properties": body,
            "required": [name for name in required if name in known.body],
            "additionalProperties": False,
        }
        content = {_JSON: {"schema": schema, "example": example(schema, components, needed=True)}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _header(name: str, description: str, most: int) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": most}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _success(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    if route.result is None:
        return {"description": "Done."}
    one: dict[str, Any] = {"$ref": _REF.format(name=route.result.__name__)}
    schema: dict[str, Any] = {"type": "object", "required": ["data"], "properties": {"data": one}}
    if route.paged:
        cursor = {"anyOf": [{"type": "string"}, {"type": "null"}]}
        pagination = {"type": "object", "properties": {"hasMore": {"type": "boolean"}, "nextCursor": cursor}}
        schema["properties"] = {"data": {"type": "array", "items": one}, "pagination": pagination}
    content = {_JSON: {"schema": schema, "example": example(schema, components)}}
    return {"description": "Done." if route.status == 200 else "Made.", "content": content}


def _refusals(route: Route) -> dict[str, Any]:
    left_out = {"GET": {"409", "412", "413", "415", "422"}, "DELETE": {"413", "415"}}.get(route.method, set())
    content = {_JSON: {"schema": {"$ref": _REF.format(name="Error")}}}
    return {
        status: {"description": text, "content": content}
        for status, text in _REFUSALS.items()
        if status not in left_out
    }


def example(schema: dict[str, Any], components: dict[str, Any], *, needed: bool = False) -> Any:
    """A value that fits a schema, from its own examples; with ``needed`` only what cannot be left out."""
    match schema:
        case {"$ref": ref}:
            return example(components[ref.rpartition("/")[2]], components, needed=needed)
        case {"examples": [first, *_]}:
            return first
        case {"enum": [first, *_]} | {"anyOf": [{"enum": [first, *_]}, *_]}:
            return first
        case {"anyOf": [first, *_]}:
            return example(first, components, needed=needed)
        case {"type": "object"}:
            return {
                name: example(part, components, needed=needed)
                for name, part in schema.get("properties", {}).items()
                if not needed or name in schema.get("required", []) or "examples" in part
            }
        case {"type": "array"}:
            return [example(schema.get("items", {}), components, needed=needed)]
        case {"type": "integer" | "number"}:
            return schema.get("default", schema.get("minimum", 1))
        case {"type": "boolean"}:
            return schema.get("default", True)
        case {"type": "string"}:
            return schema.get("default", "")
        case _:
            return None


def pages() -> list[HTTPRouteHandler]:
    """The document and the page."""

    @get("/api/v1/openapi.json", include_in_schema=False)
    async def document(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """The API as OpenAPI."""
        here = openapi() | {"servers": [{"url": _root(request) or "/"}]}
        return ASGIResponse(body=msgspec.json.encode(here), media_type=_JSON)

    @get(["/", "/api/v1", "/api/v1/docs"], include_in_schema=False)
    async def page(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """The API to read."""
        return ASGIResponse(
            body=_page(_root(request)).encode(),
            media_type="text/html",
            headers={"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"},
        )

    return [document, page]


def _root(request: HttpRequest[Any, Any, Any]) -> str:
    """Where the application is mounted, if it is inside another one."""
    return str(request.scope.get("root_path", "")).rstrip("/")


@lru_cache(maxsize=4)
def _page(root: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distribu.entrypoints.http", "."), autoescape=True, trim_blocks=True
    )
    document = openapi()
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append(_shown(root + path, method, operation))
    template = environment.get_template("reference.html")
    return template.render(root=root, info=document["info"], groups=groups, codes=sorted(CODES.items()))


def _shown(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    def text(value: Any) -> str:
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()

    body = operation.get("requestBody", {}).get("content", {}).get(_JSON)
    status, done = next(iter(operation["responses"].items()))
    answer = done.get("content", {}).get(_JSON)
    lines = [f"curl -X {method.upper()} http://127.0.0.1:8000{path}", '-H "Authorization: Bearer $KEY"']
    if body:
        lines += [f"-H 'Content-Type: {_JSON}'", f"-d '{msgspec.json.encode(body['example']).decode()}'"]
    properties = body["schema"]["properties"] if body else {}
    fields = [
        (name, _kind(schema), name in body["schema"]["required"], schema.get("description", ""))
        for name, schema in properties.items()
    ]
    return {
        **operation,
        "method": method.upper(),
        "path": path,
        "curl": " \\\n  ".join(lines),
        "status": status,
        "answer": text(answer["example"]) if answer else None,
        "fields": fields,
        "kinds": [
            (one["name"], one["in"], _kind(one["schema"]), one["required"]) for one in operation["parameters"]
        ],
    }


def _kind(schema: dict[str, Any]) -> str:
    """A schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    words = [str(schema.get("type", "any"))]
    if schema.get("type") == "array":
        words.append("of " + _kind(schema.get("items", {})))
    for least, most in (("minimum", "maximum"), ("minLength", "maxLength"), ("minItems", "maxItems")):
        if least in schema or most in schema:
            words.append(f"{schema.get(least, '')}…{schema.get(most, '')}")
    return " ".join(words)
