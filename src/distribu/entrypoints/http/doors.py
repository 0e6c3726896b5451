"""The doors of the HTTP application: who may come in where, and how they show who they are."""

from collections.abc import Callable
from typing import Any, Final, Protocol

from litestar import Request as HttpRequest

from distribu.application.kernel import Distribu
from distribu.application.sessions import Entered
from distribu.domain.access import Actor, Permission
from distribu.domain.errors import RateLimited
from distribu.entrypoints.http import reference
from distribu.entrypoints.http.auth import key_holder
from distribu.entrypoints.http.browser import Application, Send, Site, path_of, same_origin, sent
from distribu.entrypoints.http.client import client_ip
from distribu.entrypoints.http.limits import ApiLimits, told
from distribu.entrypoints.http.sessions import Sessions
from distribu.entrypoints.http.wire import Route, refused

_CAME: Final = "distribu_came"
_TO_READ: Final = reference.PAGES | reference.DOCUMENTS | {reference.STYLE}
"""What is about the API and not of it: for everybody, and not counted."""

_AGENT_MAX: Final = 300
_SAFE: Final = frozenset({"GET", "HEAD"})

Http = HttpRequest[Any, Any, Any]
Headers = list[tuple[str, str]]


class Door(Protocol):
    """A way in. ``prefix`` is where its routes begin."""

    prefix: str

    async def actor(self, http: Http, route: Route) -> Actor:
        """Who is there. Raises `Refused`."""
        ...

    def told(self, http: Http) -> dict[str, str]:
        """What a request takes from headers and cookies, by the names of `wire.FROM_HEADERS`."""
        ...

    def cookies(self, http: Http, route: Route, result: Any) -> Headers:
        """The cookies that an answer sets."""
        ...


class ApiDoor:
    """The public API: a bearer key, counted."""

    prefix = "/api/v1"

    def __init__(self, distribu: Distribu, limits: ApiLimits, site: Site) -> None:
        self.distribu = distribu
        self.limits = limits
        self.site = site

    async def actor(self, http: Http, route: Route) -> Actor:
        came = http.scope.get(_CAME)
        if isinstance(came, Exception):
            raise came
        return came if isinstance(came, Actor) else await self.come(http)

    async def come(self, http: Http) -> Actor:
        """Count a request, and see whose it is. Raises `Refused`."""
        limiter = self.distribu.ports.limiter
        ip = client_ip(http, self.site.trusted)
        await self.limits.count_address(limiter, http, ip)
        actor, own = await key_holder(self.distribu, http, ip)
        await self.limits.count_key(limiter, http, actor, own)
        return actor

    def told(self, http: Http) -> dict[str, str]:
        return {}

    def cookies(self, http: Http, route: Route, result: Any) -> Headers:
        return []


def counted(app: Application, door: ApiDoor, new_id: Callable[[], str]) -> Application:
    """An application whose API counts every request and says so in every answer.

    Also where there is no such route, or where we have made a mistake: a client that watches the headers is
    never left without them. Who is over a limit does not get as far as ``app``; who they are is told
    to their route, or why that is not known.
    """

    async def answered(scope: Any, receive: Any, send: Send) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *told(scope)]
            await send(message)

        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        path = path_of(scope)
        if path.startswith(f"{door.prefix}/") and path not in _TO_READ:
            try:
                scope[_CAME] = await door.come(HttpRequest(scope))
            except RateLimited as refusal:
                await sent(sending, scope, refused(refusal, new_id()))
                return
            except Exception as error:  # a refusal or a mistake of ours: told by the route, if there is one
                scope[_CAME] = error
        await app(scope, receive, sending)

    return answered


class StaffDoor:
    """Staff, by the session in a cookie; whoever is not signed in, where a visitor may come."""

    def __init__(self, prefix: str, sessions: Sessions, site: Site) -> None:
        self.prefix = prefix
        self.sessions = sessions
        self.site = site

    async def actor(self, http: Http, route: Route) -> Actor:
        ip = client_ip(http, self.site.trusted)
        if route.request.needs is Permission.VISIT:
            _not_from_elsewhere(http, self.site)
            return Actor.visitor(ip=ip)
        if http.method not in _SAFE or route.files:  # that a file was taken is recorded, and costs
            same_origin(http, self.site)
        return await self.sessions.staff(http, ip)

    def told(self, http: Http) -> dict[str, str]:
        return {"device": self.sessions.device(http, None), "user-agent": _agent(http)}

    def cookies(self, http: Http, route: Route, result: Any) -> Headers:
        return _cookies(self.sessions, None, route, result)


class StoreDoor:
    """A store's customers, by the session in its cookie."""

    prefix = "/store/{slug:str}"

    def __init__(self, sessions: Sessions, site: Site) -> None:
        self.sessions = sessions
        self.site = site

    async def actor(self, http: Http, route: Route) -> Actor:
        ip = client_ip(http, self.site.trusted)
        company_id = await self.sessions.store(http.path_params["slug"])
        if route.request.needs is Permission.VISIT:
            _not_from_elsewhere(http, self.site)
            return Actor.visitor(company_id=company_id, ip=ip)
        if http.method not in _SAFE:
            same_origin(http, self.site)
        return await self.sessions.contact(http, company_id, ip)

    def told(self, http: Http) -> dict[str, str]:
        return {"device": self.sessions.device(http, http.path_params["slug"]), "user-agent": _agent(http)}

    def cookies(self, http: Http, route: Route, result: Any) -> Headers:
        return _cookies(self.sessions, http.path_params["slug"], route, result)


def _cookies(sessions: Sessions, slug: str | None, route: Route, result: Any) -> Headers:
    if route.enters and isinstance(result, Entered):
        begun = ("set-cookie", sessions.begun(result.session, slug))
        if result.device is None:
            return [begun]
        return [begun, ("set-cookie", sessions.remembered(result.device, slug))]
    if route.leaves:
        return [("set-cookie", sessions.over(slug))]
    return []


def _not_from_elsewhere(http: Http, site: Site) -> None:
    """Nobody is signed in, signed up or reset by somebody else's page; a program says nothing, and may."""
    said = http.headers.get("sec-fetch-site") or http.headers.get("origin")
    if said is not None and http.method not in _SAFE:
        same_origin(http, site)


def _agent(http: Http) -> str:
    """What a client calls itself, as far as it is text that can be kept."""
    said = http.headers.get("user-agent", "")
    return "".join(one for one in said if one.isprintable())[:_AGENT_MAX]
