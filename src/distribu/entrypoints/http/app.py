"""The HTTP application: routes to use cases, refusals to answers."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Final

from litestar import Litestar, Request as HttpRequest, Response, Router, get
from litestar.exceptions import ClientException, HTTPException, MethodNotAllowedException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse
from litestar.status_codes import HTTP_413_REQUEST_ENTITY_TOO_LARGE

from distribu.application.kernel import Command, Distribu, Once, Query
from distribu.domain.access import Actor
from distribu.domain.errors import InDoubt, Invalid, NotFound, Refused
from distribu.entrypoints.http import reference, wire
from distribu.entrypoints.http.browser import Application, Site, defended
from distribu.entrypoints.http.cron import cron
from distribu.entrypoints.http.disclosure import disclosures
from distribu.entrypoints.http.doors import ApiDoor, Door, StaffDoor, StoreDoor, counted
from distribu.entrypoints.http.limits import ApiLimits
from distribu.entrypoints.http.mailbox import Postbox, with_mailbox
from distribu.entrypoints.http.metrics import metrics
from distribu.entrypoints.http.notices import notices
from distribu.entrypoints.http.people import ACCOUNT, ADMIN, AUTH, STORE
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.sessions import Keys, Sessions
from distribu.entrypoints.http.streaming import Room, Streamed
from distribu.entrypoints.http.wire import Route, answer, body_of, etag, refused
from distribu.entrypoints.stubs.stripe import StripeStub, with_stripe

log: Final = logging.getLogger("distribu.http")
_KEY_MAX: Final = 255

Http = HttpRequest[Any, Any, Any]


def http_app(
    distribu: Distribu,
    limits: ApiLimits | None = None,
    site: Site | None = None,
    keys: Keys | None = None,
    mailbox: Postbox | None = None,
    stripe: StripeStub | None = None,
) -> Application:
    """The HTTP API as an ASGI application, to serve or to mount inside another one.

    Without ``limits`` it has none, and without a ``site`` in production it does not insist on HTTPS: what it
    is mounted in may do that. Without ``keys`` nobody can sign in: only API keys get in. With a ``mailbox``
    everybody can read its mails, at ``/_mail``, and with a ``stripe`` everybody can buy for nothing, at
    ``/_stripe``. Without a ``site`` that opens them there are no ``/metrics`` and no
    ``/cron``.
    """
    site = site or Site()
    api = ApiDoor(distribu, limits or ApiLimits(), site)
    doors: list[tuple[Door, Sequence[Route]]] = [(api, ROUTES)]
    if keys is not None:
        sessions = Sessions(distribu, keys, production=site.production)
        doors += [
            (StaffDoor("/auth", sessions, site), AUTH),
            (StaffDoor("/account", sessions, site), ACCOUNT),
            (StaffDoor("/api/admin", sessions, site), ADMIN),
            (StoreDoor(sessions, site), STORE),
        ]
    routers = [
        Router(door.prefix, route_handlers=[_handler(distribu, route, door) for route in routes])
        for door, routes in doors
    ]

    @get("/healthz", include_in_schema=False)
    async def healthz(request: Http) -> ASGIResponse:
        """The process answers."""
        return answer(b'{"status":"ok"}', 200, [], _id(distribu))

    @get("/readyz", include_in_schema=False)
    async def readyz(request: Http) -> ASGIResponse:
        """The database answers too."""
        await distribu.ports.store.ready()
        return answer(b'{"status":"ready"}', 200, [], _id(distribu))

    app = Litestar(
        route_handlers=[
            *routers,
            healthz,
            readyz,
            *reference.pages(site.origin),
            *disclosures(site, distribu.ports.clock),
            *metrics(distribu, site),
            *notices(distribu),
            *cron(distribu, site),
        ],
        openapi_config=None,
        request_max_body_size=wire.BODY_MAX,
        exception_handlers={
            Refused: lambda _, refusal: refused(refusal, _id(distribu)),
            HTTPException: lambda _, error: refused(_meant(error), _id(distribu)),
            InDoubt: lambda _, error: _mistake(error, _id(distribu), "outcome_unknown", 503),
            Exception: lambda _, error: _mistake(error, _id(distribu), "internal_error", 500),
        },
        logging_config=None,
    )
    new_id = distribu.ports.entropy.uuid
    whole = defended(counted(app, api, new_id), site, new_id, distribu.counts)
    if mailbox is not None:
        whole = with_mailbox(whole, mailbox)
    return whole if stripe is None else with_stripe(whole, stripe)


def _id(distribu: Distribu) -> str:
    return distribu.ports.entropy.uuid()


def _handler(distribu: Distribu, route: Route, door: Door) -> HTTPRouteHandler:
    room = Room()

    async def handle(request: Http) -> ASGIResponse:
        actor = await door.actor(request, route)
        await distribu.admit(actor, route.request)
        key = _idempotency_key(request, route)
        asked = await wire.asked(route, request, door.told(request))
        if route.files:
            return await _file(route, actor, asked, distribu, room)
        if key is None:
            result = await distribu.execute(actor, asked)
            told = [*etag(result), *door.cookies(request, route, result)]
            return answer(body_of(route, result), route.status, told, _id(distribu))
        headers: list[tuple[str, str]] = []

        def rendered(result: Any) -> bytes:
            headers[:] = [*etag(result), *door.cookies(request, route, result)]
            return body_of(route, result)

        once: Once[Any] = Once(key, rendered, secret=route.secret)
        given = await distribu.execute_once(actor, asked, once)
        # What is replayed may have changed since: its version then is of no use in an If-Match.
        told = [("idempotent-replayed", "true")] if given.replayed else headers
        return answer(given.body, route.status, told, _id(distribu))

    async def slowly(request: Http) -> ASGIResponse:
        """As long for a refusal as for an answer, whatever is known."""
        floor = asyncio.create_task(asyncio.sleep(route.floor_s))
        try:
            return await handle(request)
        finally:
            await floor

    handle.__doc__ = slowly.__doc__ = route.request.__doc__
    return HTTPRouteHandler(
        route.path,
        http_method=route.method,  # type: ignore[arg-type]  # Litestar wants a literal
        status_code=200,  # the answer carries its own; Litestar only wants one that may have a body
        name=f"{door.prefix} {route.request.__name__}",
        include_in_schema=False,
    )(slowly if route.floor_s else handle)


async def _file(route: Route, actor: Actor, asked: Any, distribu: Distribu, room: Room) -> Streamed:
    """What a request answers piece by piece, as a file; its name says what it is, and of which day."""
    over = room.take(actor.company_id or "")
    try:
        pieces = await distribu.execute(actor, asked)
    except BaseException:
        over()
        raise
    kind = route.files[asked.format]
    name = f"{route.path.split('/')[1]}-{distribu.ports.clock.now():%Y-%m-%d}.{kind.ends}"
    return Streamed(pieces, name=name, media_type=kind.media_type, request_id=_id(distribu), over=over)


def _idempotency_key(http: Http, route: Route) -> str | None:
    if http.method != "POST" or issubclass(route.request, Query):
        return None
    key = http.headers.get("idempotency-key")
    if key is not None and not issubclass(route.request, Command):
        # A process ends in more than one transaction, or in none: it could be done twice under one key.
        raise Invalid("invalid_request", fields={"Idempotency-Key": "is not taken here"})
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
