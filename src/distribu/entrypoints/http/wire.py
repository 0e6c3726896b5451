"""Requests off the wire and answers onto it: the one place that knows JSON bodies and status codes."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from re import compile as compiled
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from litestar import Request as HttpRequest, Response
from litestar.exceptions import InternalServerException
from litestar.response.base import ASGIResponse
from msgspec import inspect

from distribu.application import views, wrong
from distribu.application.fields import UUID_PATTERN, decimal_of, type_info
from distribu.application.finders import Feed
from distribu.application.kernel import Issued, Request
from distribu.application.ports import Page
from distribu.domain import errors
from distribu.domain.access import ApiKey
from distribu.domain.customers import CustomerDetail
from distribu.domain.entity import Entity
from distribu.domain.errors import CODES, Bug, Invalid, NotFound, Refused
from distribu.domain.webhooks import Webhook

BODY_MAX: Final = 1024 * 1024
"""Bytes of a request's body, unless its route says otherwise."""

BODY_S: Final = 30.0
"""What a body may take to arrive."""

LIMIT_DEFAULT: Final = 50
LIMIT_MAX: Final = 100

STATUS: Final[Mapping[type[Refused], int]] = {
    errors.Invalid: 400,
    errors.Unauthenticated: 401,
    errors.PaymentRequired: 402,
    errors.Forbidden: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Stale: 412,
    errors.Refused: 422,
    errors.RateLimited: 429,
    errors.Busy: 503,
}
"""The status of each kind of refusal."""

FROM_HEADERS: Final = frozenset({"user-agent", "device"})
"""Fields that a request takes from its headers and cookies."""

_UUID: Final = compiled(UUID_PATTERN.strip("^$"))
_ETAG: Final = compiled(r'^(?:W/)?"(\d{1,9})"$')


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A kind of file: how its name ends, its media type, and how one begins."""

    ends: str
    media_type: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A use case's place in the API. ``status`` is that of success.

    ``instead`` tells those who send a field that is missing on purpose what to do instead. ``cursor`` is
    how a page names where the next one begins. One that ``enters`` begins a session, and one that ``leaves``
    ends it. What must not tell by its time whether something is known takes at least ``floor_s`` seconds,
    whatever comes of it. An answer that is ``many`` is a list in one piece, of so few that nobody turns its
    pages. One with ``files`` is answered with one of them, piece by piece: the request says by its
    ``format`` with which.
    """

    method: str
    path: str
    request: type[Request[Any]]
    status: int = 200
    view: Callable[[Any], Any] = views.of
    tag: str
    result: type[views.View] | None
    paged: bool = False
    cursor: str = "nextCursor"
    instead: Mapping[str, str] = field(default_factory=dict)
    enters: bool = False
    leaves: bool = False
    floor_s: float = 0.0
    many: bool = False
    files: Mapping[str, File] = field(default_factory=dict)

    @property
    def secret(self) -> bool:
        """Whether the answer holds a secret."""
        return self.result in (views.ApiKeyIssuedView, views.WebhookIssuedView)


def issued(it: Issued[Any]) -> views.View:
    """The view of something new with its secret."""
    match it.what:
        case ApiKey() as key:
            return views.api_key_issued(key, it.secret)
        case Webhook() as webhook:
            return views.webhook_issued(webhook, it.secret)
        case _:
            raise Bug(f"there is no view of an issued {type(it.what).__name__}")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What of a request type comes from where."""

    path: Mapping[str, str]
    if_match: str | None
    headers: Mapping[str, str]
    body: frozenset[str]
    amounts: frozenset[str]
    whole: bool
    needed: bool
    decode: Callable[[bytes], Any]


@cache
def plan(request: type[Request[Any]]) -> _Plan:
    """Read off a request type where its fields come from; names are those of the wire."""
    info = type_info(request)
    if not isinstance(info, inspect.StructType):
        raise Bug(f"{request.__name__} is no struct")
    path: dict[str, str] = {}
    headers: dict[str, str] = {}
    body, amounts, needed = set(), set(), False
    if_match = None
    for item in info.fields:
        where = _extra(item.type).get("in")
        if where == "path":
            path[item.name] = item.encode_name
        elif where == "if-match":
            if_match = item.encode_name
        elif where in FROM_HEADERS:
            headers[item.encode_name] = where
        else:
            body.add(item.encode_name)
            needed = needed or item.required
            if _is_decimal(item.type):
                amounts.add(item.encode_name)
    whole = bool(body) and not path and if_match is None and not amounts and not headers
    decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
        request if whole else dict[str, Any], float_hook=decimal_of
    )
    return _Plan(path, if_match, headers, frozenset(body), frozenset(amounts), whole, needed, decoder.decode)


def _extra(info: inspect.Type) -> dict[str, Any]:
    if isinstance(info, inspect.UnionType):
        return {key: value for one in info.types for key, value in _extra(one).items()}
    return (info.extra or {}) if isinstance(info, inspect.Metadata) else {}


def _is_decimal(info: inspect.Type) -> bool:
    match info:
        case inspect.Metadata(type=inner):
            return _is_decimal(inner)
        case inspect.UnionType(types=types):
            return any(map(_is_decimal, types))
        case _:
            return isinstance(info, inspect.DecimalType)


async def asked(
    route: Route, http: HttpRequest[Any, Any, Any], told: Mapping[str, str] | None = None
) -> Request[Any]:
    """The request of a route, decoded. Raises `Invalid`, or `NotFound` for a path no id could have."""
    known = plan(route.request)
    values: dict[str, Any] = {}
    for name, wire in known.path.items():
        value = http.path_params[name]
        if not _UUID.fullmatch(value):
            raise NotFound(f"{name.removesuffix('_id')}_not_found")
        values[wire] = value
    if known.if_match is not None and (version := _if_match(http.headers.get("if-match"))):
        values[known.if_match] = version
    for wire, header in known.headers.items():
        values[wire] = (told or {}).get(header, "")
    try:
        if route.method == "GET":
            return _converted(route.request, values | _query(http, known.body), strict=False)
        if route.method == "DELETE":
            return _converted(route.request, values)
        body = await body_in_time(http)
        kind = http.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
        if body and kind != "application/json":
            raise UnsupportedMediaType("unsupported_media_type")
        if route.method == "POST" and not known.needed and not body.strip():
            body = b"{}"  # there is nothing that it would have to say
        if known.whole:
            found: Request[Any] = known.decode(body)
            return found
        given = known.decode(body) if known.body else {}
        if not known.body and body.strip() not in (b"", b"{}"):
            raise Invalid("invalid_request", fields={"": "this takes no body"})
        if unknown := given.keys() - known.body:
            no = {name: route.instead.get(name, "is no field of this") for name in sorted(unknown)[:20]}
            raise Invalid("invalid_request", fields=no)
        # msgspec reads decimals from text too, and Decimal takes "1_0" and " 5 ".
        if texts := [name for name in known.amounts if isinstance(given.get(name), str)]:
            raise Invalid("invalid_request", fields=dict.fromkeys(sorted(texts), "must be a number"))
        return _converted(route.request, values | given)
    except msgspec.ValidationError as error:
        raise Invalid("invalid_request", fields=dict([wrong.told(error, route.request)])) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("invalid_json") from None


def _converted(request: type[Request[Any]], values: dict[str, Any], *, strict: bool = True) -> Request[Any]:
    found: Request[Any] = msgspec.convert(values, request, strict=strict)
    return found


async def body_in_time(http: HttpRequest[Any, Any, Any]) -> bytes:
    """The body, as long as its route takes. Raises `BodyTooSlow` after `BODY_S`, and if it breaks off."""
    try:
        async with asyncio.timeout(BODY_S):
            return await http.body()
    except (TimeoutError, InternalServerException):
        # The latter is said when the client has hung up: nobody is there to read this.
        raise BodyTooSlow("request_timeout") from None


def _query(http: HttpRequest[Any, Any, Any], known: frozenset[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    text = http.scope.get("query_string", b"").decode("latin-1")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise Invalid("invalid_request", "There are too many query parameters.") from None
    for name, value in pairs:
        if name not in known or name in values:
            no = "is given twice" if name in values else "is no parameter of this"
            raise Invalid("invalid_request", fields={name: no})
        values[name] = value
    if "limit" in values:
        values["limit"] = _limit(values["limit"])
    return {name: value for name, value in values.items() if value != ""}


def _limit(text: str) -> int:
    """1 to 100, whatever is asked for; what is no number is the default."""
    try:
        return max(1, min(int(text[:9]), LIMIT_MAX))
    except ValueError:
        return LIMIT_DEFAULT


def _if_match(header: str | None) -> int | None:
    if header is None or header.strip() == "*":
        return None
    found = _ETAG.match(header.strip())
    if found is None or not int(found[1]):
        raise errors.Stale("precondition_failed")
    return int(found[1])


# answers


def body_of(route: Route, result: Any) -> bytes:
    """A result as the documented envelope."""
    shown = route.view(result)
    if isinstance(shown, Page | Feed):
        return views.encode(views.listed(shown))
    return views.encode({"data": shown})


def etag(result: Any) -> list[tuple[str, str]]:
    """The version of an entity, to be sent back in If-Match."""
    return [("etag", f'"{result.version}"')] if isinstance(result, Entity | CustomerDetail) else []


def answer(body: bytes, status: int, headers: list[tuple[str, str]], request_id: str) -> ASGIResponse:
    """JSON, or nothing for 204."""
    return ASGIResponse(
        body=b"" if status == 204 else body,
        status_code=status,
        media_type="application/json",
        headers=[("x-request-id", request_id), *headers],  # a list: two cookies are two headers of one name
    )


class UnsupportedMediaType(Invalid):
    """The body is not JSON, by its own account."""


class BodyTooLarge(Invalid):
    """More than the route takes."""


class BodyTooSlow(Invalid):
    """The body did not come in time, or not at all."""


class MethodNotAllowed(Invalid):
    """The path is known, the method is not; ``allow`` are those that are."""

    def __init__(self, allow: str) -> None:
        super().__init__("method_not_allowed")
        self.allow = allow


_OWN_STATUS: Final[Mapping[type[Refused], int]] = {
    UnsupportedMediaType: 415,
    BodyTooSlow: 408,
    BodyTooLarge: 413,
    MethodNotAllowed: 405,
}


def refused(refusal: Refused, request_id: str) -> Response[bytes]:
    """A refusal as the documented error body."""
    kinds = type(refusal).__mro__
    statuses = {**STATUS, **_OWN_STATUS}
    status = next(statuses[kind] for kind in kinds if kind in statuses)
    body: dict[str, Any] = {"error": refusal.message, "code": refusal.code, "requestId": request_id}
    if refusal.fields:
        body["fields"] = views.fields_of(refusal)
    headers = {"x-request-id": request_id}
    if refusal.retry_after_s is not None:
        body["retryAfter"] = refusal.retry_after_s
        headers["retry-after"] = str(refusal.retry_after_s)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    if isinstance(refusal, MethodNotAllowed):
        headers["allow"] = refusal.allow
    if isinstance(refusal, BodyTooSlow):
        headers["connection"] = "close"  # the rest of the body may still come, and is no request
    return Response(views.encode(body), status_code=status, media_type="application/json", headers=headers)


def mistake(code: str, status: int, request_id: str) -> Response[bytes]:
    """What a caller is told when it is neither done nor refused."""
    body = {"error": CODES[code], "code": code, "requestId": request_id}
    headers = {"x-request-id": request_id}
    return Response(views.encode(body), status_code=status, media_type="application/json", headers=headers)
