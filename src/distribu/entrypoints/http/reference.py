"""The API's own documents: OpenAPI, and a page to read it on that loads nothing from elsewhere.

There are two: one of the public API, and one of the doors of people, for whoever puts pages before them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from importlib.metadata import version
from importlib.resources import files
from re import compile as compiled
from typing import Any, Final

import jinja2
import msgspec
from litestar import Request as HttpRequest, get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from distribu.application.exports import RecordedView
from distribu.application.kernel import Command
from distribu.application.plans import InvoiceView
from distribu.application.sealing import HeadView
from distribu.domain.access import SCOPES, Permission
from distribu.domain.errors import CODES, NotFound
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints.http import events, schemas
from distribu.entrypoints.http.people import ACCOUNT, ADMIN, AUTH, STORE
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.schemas import example
from distribu.entrypoints.http.wire import BODY_MAX, BODY_S, Route, plan

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

PAGES: Final = frozenset({"/", "/api/v1", "/api/v1/docs", "/auth/docs"})
"""Where the pages to read are."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Documented:
    """What one document tells of: the routes behind some doors, and what one shows there.

    ``doors`` are a name, a prefix and its routes each. ``cookies`` are those that prove a session, by the
    names of security schemes; without any it is keys.
    """

    title: str
    about: str
    at: str
    doors: tuple[tuple[str, str, Sequence[Route]], ...]
    cookies: tuple[tuple[str, str], ...] = ()

    def id(self, prefix: str, route: Route) -> str:
        """What an operation goes by: the same request can be behind several doors."""
        name = route.request.__name__
        return name if len(self.doors) == 1 else f"{prefix.split('/')[1]}-{name}"


API: Final = Documented(
    title="Distribu API",
    about="Wholesale ordering: products and stock, customers, orders, webhooks.",
    at="/api/v1",
    doors=(("", "/api/v1", ROUTES),),
)
PEOPLE: Final = Documented(
    title="Distribu for people",
    about="Signing in, accounts, teams and stores: for pages that are put before them.",
    at="/auth",
    doors=(
        ("", "/auth", AUTH),
        ("Staff", "/account", ACCOUNT),
        ("Store", "/store/{slug}", STORE),
        ("Platform", "/api/admin", ADMIN),
    ),
    cookies=(("staff", "distribu_staff"), ("store", "distribu_store_{slug}")),
)

DOCUMENTS: Final = frozenset(f"{one.at}/openapi.json" for one in (API, PEOPLE))
STYLE: Final = "/api/v1/docs.css"

_HERE: Final = "http://127.0.0.1:8000"
_HOST: Final = compiled(r"[A-Za-z0-9._:\[\]-]{1,255}")
_CODE: Final = compiled(r"``(.+?)``|`(.+?)`")

VERIFY: Final = """\
import base64, hmac, json, time
from datetime import datetime

def verified(body: bytes, headers, secret: str) -> dict:
    signed = f"{headers.get('webhook-id')}.{headers.get('webhook-timestamp')}.".encode() + body
    standard = base64.b64encode(hmac.digest(base64.b64decode(secret[6:]), signed, "sha256"))
    made = [hmac.digest(secret.encode(), body, "sha256").hex(), "v1," + standard.decode()]
    given = [headers.get("X-Webhook-Signature"), headers.get("X-Webhook-Signature-Old"),
             *headers.get("webhook-signature", "").split(" ")]
    if not any(hmac.compare_digest(a.encode(), b.encode()) for a in made for b in given if b):
        raise ValueError("not from Distribu")
    event = json.loads(body)
    if abs(time.time() - datetime.fromisoformat(event.get("timestamp", "")).timestamp()) > 300:
        raise ValueError("too old: somebody sends it again")
    return event
"""
"""How a receiver knows that it was us, in Python."""

_ONCE: Final = (
    "The effect happens once per key for 24 hours. A repetition gets the first answer, with "
    "`Idempotent-Replayed: true` and without its `ETag`: the version may be another one by now."
)

_REFUSALS: Final = {
    "400": "Not JSON, a wrong type, an unknown field, or out of range; `fields` says where.",
    "401": "No key or session, or one that is wrong, over or revoked.",
    "403": "The key lacks the scope that is named; or, in production, it was sent without HTTPS.",
    "404": "Absent, or another company's: the same answer.",
    "405": "The path does not know the method.",
    "408": f"The body did not arrive within {BODY_S:.0f} seconds; the connection is closed.",
    "409": "A duplicate, a stale version, or an Idempotency-Key still running.",
    "412": "If-Match names another version than the current one.",
    "413": f"The body is over {BODY_MAX} bytes.",
    "415": "The body is not JSON by its own account.",
    "422": "A rule of the business refused; nothing was changed.",
    "429": "Too many requests; the X-RateLimit headers say how it stands.",
    "503": "Too busy; try again after `retryAfter` seconds.",
}


_LEFT_OUT: Final = {
    "GET": {"408", "409", "412", "413", "415", "422"},
    "DELETE": {"408", "413", "415"},
}


@lru_cache(maxsize=2)
def openapi(of: Documented = API) -> dict[str, Any]:
    """A document of OpenAPI 3.1: that of the public API, or another."""
    every = [route for _, _, routes in of.doors for route in routes]
    kinds: set[type[msgspec.Struct]] = {HeadView, InvoiceView, RecordedView}
    kinds |= {it for route in every for it in (route.request, route.result) if it is not None}
    components = schemas.components(kinds, _REF)
    paths: dict[str, dict[str, Any]] = {}
    for name, prefix, routes in of.doors:
        for route in routes:
            told = _operation(route, components[route.request.__name__], components)
            told["operationId"] = of.id(prefix, route)
            told["tags"] = [f"{name}: {route.tag}" if name else route.tag]
            if "{slug}" in prefix:
                slug = {
                    "type": "string",
                    "maxLength": 60,
                    "description": "The store's.",
                    "examples": ["acme"],
                }
                told["parameters"].insert(0, {"name": "slug", "in": "path", "required": True, "schema": slug})
            if route.request.needs is Permission.VISIT:
                told["security"] = []
            paths.setdefault(shown_path(route, prefix), {})[route.method.lower()] = told
    asked = {route.request.__name__ for route in every}
    shown = {name: schema for name, schema in components.items() if name not in asked}
    proofs = _keys() if not of.cookies else _sessions(of.cookies)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": of.title,
            "version": version("distribu"),
            "description": of.about,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{name: []} for name in proofs],
        "paths": paths,
        "webhooks": {event.value: {"post": _told_of(event)} for event in WireEvent if not of.cookies},
        "components": {"schemas": {**shown, "Error": _ERROR}, "securitySchemes": proofs},
    }


def _keys() -> dict[str, Any]:
    text = "An API key: `dk_…`, 46 characters."
    return {"key": {"type": "http", "scheme": "bearer", "description": text}}


def _sessions(cookies: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    text = "A session, which signing in begins. In production the name begins with `__Host-`."
    return {
        name: {"type": "apiKey", "in": "cookie", "name": cookie, "description": text}
        for name, cookie in cookies
    }


def shown_path(route: Route, prefix: str = "/api/v1") -> str:
    """The path with its parameters as they are named on the wire."""
    path = prefix + route.path.replace(":str}", "}")
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
        parameters.append(_header("Idempotency-Key", _ONCE, 255))
    operation: dict[str, Any] = {
        "operationId": route.request.__name__,
        "summary": " ".join(summary.split()),
        "description": " ".join(rest.split()) + _needed(needs),
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
        needed = route.method != "POST" or known.needed
        operation["requestBody"] = {"required": needed, "content": content}
    return operation


def _needed(needs: Permission | None) -> str:
    if needs is None:
        return "\n\nAny key."
    return f"\n\nScope: `{needs.value}`." if needs in SCOPES else f"\n\nNeeds `{needs.value}`."


def _told_of(event: WireEvent) -> dict[str, Any]:
    """What a receiver of webhooks gets."""
    schema = events.envelope(event, _REF)
    needed = f"Scope to subscribe: `{event.carries.value}` beside `webhooks:write`."
    if event.carries not in SCOPES:
        needed = f"To subscribe needs `{event.carries.value}`, which no key has: an owner or admin does it."
    return {
        "summary": f"Sent to webhooks that are subscribed to {event.value}.",
        "description": needed,
        "security": [],
        "requestBody": {"required": True, "content": {_JSON: {"schema": schema}}},
        "responses": {"2XX": {"description": "Received. Anything else is tried again."}},
    }


def _header(name: str, description: str, most: int) -> dict[str, Any]:
    schema = {"type": "string", "maxLength": most}
    return {"name": name, "in": "header", "required": False, "description": description, "schema": schema}


def _success(route: Route, components: dict[str, Any]) -> dict[str, Any]:
    if route.files:
        content: dict[str, Any] = {}
        for name, file in route.files.items():
            kind = content.setdefault(file.media_type, {"schema": {"type": "string"}, "examples": {}})
            kind["examples"][name] = {"value": file.example}
        return {"description": "A file, piece by piece.", "content": content}
    if route.result is None:
        return {"description": "Done."}
    one: dict[str, Any] = {"$ref": _REF.format(name=route.result.__name__)}
    schema: dict[str, Any] = {"type": "object", "required": ["data"], "properties": {"data": one}}
    if route.many:
        schema["properties"] = {"data": {"type": "array", "items": one}}
    if route.paged:
        cursor: dict[str, Any] = {"anyOf": [{"type": "string"}, {"type": "null"}], "examples": [None]}
        more = {"type": "boolean", "examples": [False]}
        if route.cursor == "nextAfter":
            cursor = {"type": "integer", "minimum": 0, "examples": [1042]}
        pagination = {"type": "object", "properties": {"hasMore": more, route.cursor: cursor}}
        schema["properties"] = {"data": {"type": "array", "items": one}, "pagination": pagination}
    content = {_JSON: {"schema": schema, "example": example(schema, components)}}
    return {"description": "Done." if route.status == 200 else "Made.", "content": content}


def _refusals(route: Route) -> dict[str, Any]:
    left_out = _LEFT_OUT.get(route.method, set())
    content = {_JSON: {"schema": {"$ref": _REF.format(name="Error")}}}
    return {
        status: {"description": text, "content": content}
        for status, text in _REFUSALS.items()
        if status not in left_out
    }


def pages(origin: str | None = None) -> list[HTTPRouteHandler]:
    """The document, the page and its style; ``origin`` is where people reach them, where that is known."""

    @get(sorted(DOCUMENTS), include_in_schema=False)
    async def document(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """A document as OpenAPI."""
        here = openapi(_asked_for(request)) | {"servers": [{"url": _root(request) or "/"}]}
        return ASGIResponse(body=msgspec.json.encode(here), media_type=_JSON)

    @get(sorted(PAGES), include_in_schema=False)
    async def page(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """A document to read."""
        here = escape(origin or _here(request))
        text = _page(_root(request), _asked_for(request)).replace(_HERE, here)
        return ASGIResponse(body=text.encode(), media_type="text/html")

    @get(STYLE, include_in_schema=False)
    async def style(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """How it looks."""
        return ASGIResponse(body=_style(), media_type="text/css", headers={"cache-control": "max-age=3600"})

    @get(events.PATH, include_in_schema=False)
    async def schemas_index(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """What receivers can be told of, and where its schema is."""
        return ASGIResponse(body=msgspec.json.encode(events.index(_root(request))), media_type=_JSON)

    @get(events.PATH + "/{event:str}", include_in_schema=False)
    async def event_schema(request: HttpRequest[Any, Any, Any]) -> ASGIResponse:
        """The JSON Schema of one event."""
        try:
            schema = events.schema(WireEvent(request.path_params["event"]))
        except ValueError:
            raise NotFound("not_found") from None
        return ASGIResponse(body=msgspec.json.encode(schema), media_type="application/schema+json")

    return [document, page, style, schemas_index, event_schema]


def _asked_for(request: HttpRequest[Any, Any, Any]) -> Documented:
    return PEOPLE if request.scope["path"].removeprefix(_root(request)).startswith(PEOPLE.at) else API


def _root(request: HttpRequest[Any, Any, Any]) -> str:
    """Where the application is mounted, if it is inside another one."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def _here(request: HttpRequest[Any, Any, Any]) -> str:
    """Where the reader found this page, for commands to paste. The path is not in it."""
    host = request.headers.get("host", "")
    return f"{request.scope['scheme']}://{host}" if _HOST.fullmatch(host) else _HERE


@lru_cache(maxsize=1)
def _style() -> bytes:
    return (files("distribu.entrypoints.http") / "reference.css").read_bytes()


@lru_cache(maxsize=8)
def _page(root: str, of: Documented) -> str:
    """The page, as if it were served at `_HERE`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("distribu.entrypoints.http", "."), autoescape=True, trim_blocks=True
    )
    environment.filters["prose"] = _prose
    document = openapi(of)
    groups: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            proof = [] if operation.get("security") == [] else [_PROOF[bool(of.cookies)]]
            shown = _shown(root + path, method, operation, document["components"]["schemas"], proof)
            groups.setdefault(operation["tags"][0], []).append(shown)
    return environment.get_template("reference.html").render(
        root=root,
        here=_HERE,
        at=of.at,
        people=bool(of.cookies),
        info=document["info"],
        groups=groups,
        codes=sorted(CODES.items()),
        events=[
            (event.value, event.carries.value, told.when, f"{root}{events.PATH}/{event.value}")
            for event, told in events.EVENTS.items()
        ],
        verify=VERIFY,
    )


def _prose(text: str) -> str:
    """Text as HTML, with code where backticks are."""
    return _CODE.sub(lambda found: f"<code>{found[1] or found[2]}</code>", escape(text))


_PROOF: Final = {
    False: '-H "Authorization: Bearer $KEY"',
    True: "-b cookies -H 'Sec-Fetch-Site: same-origin'",
}
"""How `curl` shows who asks: by a key, or by what signing in has left in a file of cookies."""


def _shown(
    path: str, method: str, operation: dict[str, Any], components: dict[str, Any], proof: list[str]
) -> dict[str, Any]:
    def text(value: Any) -> str:
        return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()

    body = operation.get("requestBody", {}).get("content", {}).get(_JSON)
    status, done = next(iter(operation["responses"].items()))
    answer = done.get("content", {}).get(_JSON)
    files = (
        []
        if answer
        else [one for kind in done.get("content", {}).values() for one in kind["examples"].items()]
    )
    lines = [f"curl -X {method.upper()} {_HERE}{path}", *proof]
    if files:
        lines[0] = f"curl -OJ '{_HERE}{path}?format={files[0][0]}'"
    if operation["operationId"] == "PlaceOrder":
        lines.append("-H 'Idempotency-Key: PO-7741'")
    if body:
        lines += [f"-H 'Content-Type: {_JSON}'", f"-d '{msgspec.json.encode(body['example']).decode()}'"]
    properties = body["schema"]["properties"] if body else {}
    return {
        **operation,
        "method": method.upper(),
        "path": path,
        "curl": " \\\n  ".join(lines),
        "status": status,
        "answer": text(answer["example"])
        if answer
        else "\n".join(f"format={name}\n{one['value']}" for name, one in files) or None,
        "fields": [
            (name, _kind(schema, components), name in body["schema"]["required"], _description(schema))
            for name, schema in properties.items()
        ],
        "kinds": [
            (
                one["name"],
                one["in"],
                _kind(one["schema"], components).removesuffix(" or null"),
                one["required"],
                one.get("description") or _description(one["schema"]),
            )
            for one in operation["parameters"]
        ],
    }


def _description(schema: dict[str, Any]) -> str:
    parts = [schema, *schema.get("anyOf", [])]
    return next((part["description"] for part in parts if "description" in part), "")


def _kind(schema: dict[str, Any], components: dict[str, Any]) -> str:
    """A schema in a few words; what it refers to is told in its place."""
    match schema:
        case {"$ref": ref}:
            return _kind(components[ref.rpartition("/")[2]], components)
        case {"anyOf": parts} | {"allOf": parts}:
            return " or ".join(_kind(part, components) for part in parts)
        case {"enum": values}:
            return " | ".join(map(str, values))
        case {"type": "object", "properties": properties}:
            needed = schema.get("required", [])
            return "{" + ", ".join(name if name in needed else f"{name}?" for name in properties) + "}"
        case {"type": "array", "items": items}:
            return f"list of {_kind(items, components)}" + _between(schema, "minItems", "maxItems")
        case {"type": "string", "minLength": 36, "maxLength": 36}:
            return "id"
        case {"type": "string", "format": "date-time"}:
            return "time"
        case {"type": "string"}:
            return "text" + _between(schema, "minLength", "maxLength", " characters")
        case {"type": "integer"}:
            return "whole number" + _between(schema, "minimum", "maximum")
        case {"type": "number"}:
            return "number" + _between(schema, "minimum", "maximum")
        case {"type": "boolean"}:
            return "true | false"
        case _:
            return str(schema.get("type", "any"))


def _between(schema: dict[str, Any], least: str, most: str, of: str = "") -> str:
    """``, 1 to 200 characters``"""
    match schema.get(least), schema.get(most):
        case None, None:
            return ""
        case None, high:
            return f", up to {high}{of}"
        case low, None:
            return f", at least {low}{of}"
        case low, high:
            return f", {low} to {high}{of}"
