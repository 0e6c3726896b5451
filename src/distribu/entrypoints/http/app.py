"""The HTTP application: routes to use cases, refusals to answers."""

import logging
from typing import Any, Final

from litestar import Litestar, Response, Router, get
from litestar import Request as HttpRequest
from litestar.exceptions import ClientException, HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.status_codes import HTTP_413_REQUEST_ENTITY_TOO_LARGE

from distribu.application.kernel import Command, Distribu, Once
from distribu.domain.errors import InDoubt, Invalid, NotFound, Refused
from distribu.entrypoints.http import reference, wire
from distribu.entrypoints.http.auth import key_holder
from distribu.entrypoints.http.limits import ApiLimits, told
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.wire import Route, answer, body_of, etag, refused

log: Final = logging.getLogger("distribu.http")
_KEY_MAX: Final = 255

Http = HttpRequest[Any, Any, Any]


def http_app(distribu: Distribu, limits: ApiLimits | None = None) -> Litestar:
    """The HTTP API as an ASGI application, to serve or to mount inside another one.

    Without ``limits`` it has none: what it is mounted in may have its own.
    """
    limits = limits or ApiLimits()
    api = Router("/api/v1", route_handlers=[_handler(distribu, route, limits) for route in ROUTES])

    @get("/healthz", include_in_schema=False)
    async def healthz(request: Http) -> ASGIResponse:
        """The process answers."""
        return answer(b'{"status":"ok"}', 200, [], _id(distribu))

    @get("/readyz", include_in_schema=False)
    async def readyz(request: Http) -> ASGIResponse:
        """The database answers too."""
        await distribu.ports.store.ready()
        return answer(b'{"status":"ready"}', 200, [], _id(distribu))

    return Litestar(
        route_handlers=[api, healthz, readyz, *reference.pages()],
        openapi_config=None,
        request_max_body_size=wire.BODY_MAX,
        exception_handlers={
            Refused: lambda http, refusal: refused(refusal, _id(distribu), told(http)),
            HTTPException: lambda http, error: refused(_meant(error), _id(distribu), told(http)),
            InDoubt: lambda _, error: _mistake(error, _id(distribu), "outcome_unknown", 503),
            Exception: lambda _, error: _mistake(error, _id(distribu), "internal_error", 500),
        },
        logging_config=None,
    )


def _id(distribu: Distribu) -> str:
    return distribu.ports.entropy.uuid()


def _handler(distribu: Distribu, route: Route, limits: ApiLimits) -> HTTPRouteHandler:
    limiter = distribu.ports.limiter

    async def handle(request: Http) -> ASGIResponse:
        await limits.count_address(limiter, request)
        actor = await key_holder(distribu, request)
        await limits.count_key(limiter, request, actor)
        actor.require(route.request.needs)
        asked = await wire.asked(route, request)
        key = _idempotency_key(request) if issubclass(route.request, Command) else None
        if key is None:
            result = await distribu.execute(actor, asked)
            headers = [*etag(result), *told(request)]
            return answer(body_of(route, result), route.status, headers, _id(distribu))
        once: Once[Any] = Once(key, lambda result: body_of(route, result), secret=route.secret)
        given = await distribu.execute_once(actor, asked, once)
        replayed = [("idempotent-replayed", "true")] if given.replayed else []
        return answer(given.body, route.status, [*replayed, *told(request)], _id(distribu))

    handle.__doc__ = route.request.__doc__
    return HTTPRouteHandler(
        route.path,
        http_method=route.method,  # type: ignore[arg-type]  # Litestar wants a literal
        status_code=200,  # the answer carries its own; Litestar only wants one that may have a body
        name=route.request.__name__,
        include_in_schema=False,
    )(handle)


def _idempotency_key(http: Http) -> str | None:
    if http.method != "POST":
        return None
    key = http.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= _KEY_MAX and key.isascii() and key.isprintable()):
        raise Invalid(
            "invalid_request",
            fields={"Idempotency-Key": f"must be 1 to {_KEY_MAX} printable ASCII characters"},
        )
    return key


def _meant(error: HTTPException) -> Refused:
    """A refusal of the framework's in our words."""
    if isinstance(error, NotFoundException):
        return NotFound("not_found")
    if isinstance(error, MethodNotAllowedException):
        return wire.MethodNotAllowed((error.headers or {}).get("allow", ""))
    if error.status_code == HTTP_413_REQUEST_ENTITY_TOO_LARGE:
        return wire.BodyTooLarge("body_too_large")
    if isinstance(error, ClientException):
        return Invalid("invalid_request")
    raise error


def _mistake(error: Exception, request_id: str, code: str, status: int) -> Response[bytes]:
    log.error("request %s failed", request_id, exc_info=error)
    return wire.mistake(code, status, request_id)
