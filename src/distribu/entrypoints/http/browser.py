"""What browsers are told with every answer, and what does not come in: plain HTTP, and other origins.

Written down in RFC 6797 (HSTS), CSP level 3, Permissions Policy, the Fetch standard (CORP, ``Origin``) and
Fetch Metadata (``Sec-Fetch-Site``).
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote, urlsplit

from litestar import Request as HttpRequest, Response

from distribu.application.counts import Counts
from distribu.domain.errors import Busy, Forbidden
from distribu.domain.values import Secret
from distribu.entrypoints.http import reference, wire
from distribu.entrypoints.http.client import Network, is_one_of
from distribu.settings import Settings

log: Final = logging.getLogger("distribu.http")

Scope = Mapping[str, Any]
Send = Callable[[Any], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
"""Of ASGI, which every framework and server types in its own way."""

Header = tuple[bytes, bytes]

ALWAYS: Final[tuple[Header, ...]] = (
    (b"x-frame-options", b"DENY"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"strict-origin-when-cross-origin"),
    (b"permissions-policy", b"camera=(), microphone=(), geolocation=(), interest-cohort=()"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""What every answer carries, whatever it is."""

DATA_POLICY: Final = b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
"""The Content-Security-Policy of what is no page: opened as one, it may do nothing."""

PAGE_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    b"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of a page: what it loads comes from here, and nothing is written into it."""

HSTS: Final[Header] = (b"strict-transport-security", b"max-age=63072000; includeSubDomains; preload")
_NO_STORE: Final[Header] = (b"cache-control", b"no-store")

PROBES: Final = frozenset({"/healthz", "/readyz"})
"""What a load balancer asks, from a network of its own: answered without HTTPS too."""

_PROGRAMS: Final = frozenset({"api", "auth", "account", "metrics", "cron"})
"""Where programs ask, by the first part of a path. They are refused: one that is sent on sends its key in the
clear again next time, and nobody notices."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORT: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """Where people reach this, and how strict that is.

    ``origin`` is ``scheme://host[:port]`` as browsers write it, None where nobody has said it; ``trusted``
    are the networks of the proxies in front; ``contact`` is a URI for those who find a hole. ``/metrics`` are
    for whoever knows ``metrics_token``; without one, for everybody where they are ``open_metrics``. Jobs are
    run for whoever knows ``cron_token``; without one, for nobody.
    """

    production: bool = False
    origin: str | None = None
    trusted: tuple[Network, ...] = ()
    contact: str = "mailto:security@distribu.app"
    metrics_token: Secret | None = None
    open_metrics: bool = False
    cron_token: Secret | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The site that the settings describe."""
        return cls(
            production=settings.production,
            origin=origin_of(settings.public_url) if settings.public_url else None,
            trusted=settings.proxies(),
            contact=settings.security_contact,
            metrics_token=Secret(settings.metrics_token) if settings.metrics_token else None,
            open_metrics=not settings.production,
            cron_token=Secret(settings.cron_token) if settings.cron_token else None,
        )


def origin_of(url: str) -> str:
    """A URL's origin as a browser writes it: lower case, without the port that goes without saying."""
    parts = urlsplit(url.lower())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    usual = parts.port in (None, _DEFAULT_PORT.get(parts.scheme))
    return f"{parts.scheme}://{host}" + ("" if usual else f":{parts.port}")


# every answer


def defended(app: Application, site: Site, new_id: Callable[[], str], counts: Counts) -> Application:
    """An application whose every answer carries what browsers are to be told, mistakes of ours included.

    In production what comes without HTTPS does not get as far as ``app``. ``new_id`` makes the request ids of
    what is answered here; ``counts`` hears of every answer.
    """
    plain, safe = _tables(), _tables((HSTS,) if site.production else ())

    async def answered(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        secure = not site.production or scheme_of(scope, site.trusted) == "https"
        tables = safe if secure else plain
        started = False

        async def sending(message: Any) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                counts.answers[f"{message['status'] // 100}xx"] += 1
                page = message["status"] == 304  # of what was a page, perhaps: a browser keeps the policy
                kept = False
                headers = list(message["headers"])
                for name, value in headers:
                    if name == b"content-type":
                        page = value.startswith(b"text/html")
                    elif name == b"cache-control":
                        kept = True
                headers += tables[page][kept]
                message["headers"] = headers
            await send(message)

        if not secure and (path := path_of(scope)) not in PROBES:
            await sent(sending, scope, _insecure(scope, path, site, new_id))
            return
        try:
            await app(scope, receive, sending)
        except asyncio.CancelledError:  # the server is told to end, and has waited as long as it may
            if not started:
                await sent(sending, scope, _cut_short(scope, new_id()))
            raise
        except Exception:
            if started:
                raise
            request_id = new_id()
            log.exception("request %s failed", request_id)
            await sent(sending, scope, wire.mistake("internal_error", 500, request_id))

    return answered


def _cut_short(scope: Scope, request_id: str) -> Response[bytes]:
    """What whoever is still waiting is told: what was to change something may be done or not."""
    if scope["method"] in _SAFE:
        return wire.refused(Busy("busy", retry_after_s=1), request_id)
    return wire.mistake("outcome_unknown", 503, request_id)


def _tables(more: tuple[Header, ...] = ()) -> tuple[tuple[tuple[Header, ...], ...], ...]:
    """What to add to an answer, by whether it is a page and whether it says how long it may be kept."""

    def table(policy: bytes, *cache: Header) -> tuple[Header, ...]:
        return (*ALWAYS, (b"content-security-policy", policy), *more, *cache)

    return tuple((table(policy, _NO_STORE), table(policy)) for policy in (DATA_POLICY, PAGE_POLICY))


async def sent(send: Send, scope: Scope, response: Response[bytes]) -> None:
    """Answer with this, from outside of the framework."""
    body = response.content
    headers = [(name.encode(), str(value).encode("latin-1")) for name, value in response.headers.items()]
    headers.append((b"content-length", str(len(body)).encode()))
    if body:
        headers.append((b"content-type", b"application/json"))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    shown = b"" if scope["method"] == "HEAD" else body
    await send({"type": "http.response.body", "body": shown, "more_body": False})


# HTTPS


def scheme_of(scope: Scope, trusted: tuple[Network, ...]) -> str:
    """``https`` or ``http``, as the client spoke it: what a trusted proxy says, else how it reached us.

    Of several values the last is the one that the proxy next to us wrote. This machine is no proxy unless it
    is named as one.
    """
    client = scope["client"]
    if trusted and client and is_one_of(client[0], trusted):
        said = [value for name, value in scope["headers"] if name == b"x-forwarded-proto"]
        if said:
            return "https" if said[-1].rpartition(b",")[2].strip().lower() == b"https" else "http"
    return str(scope["scheme"])


def path_of(scope: Scope) -> str:
    """The path within this application."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    return (path.removeprefix(root) if path.startswith(root + "/") else path) or "/"


def _insecure(scope: Scope, path: str, site: Site, new_id: Callable[[], str]) -> Response[bytes]:
    """What is answered to plain HTTP: the same page by HTTPS for people, no for programs."""
    if site.origin and scope["method"] in ("GET", "HEAD") and _is_page(scope, path):
        where = scope.get("raw_path") or quote(scope["path"]).encode()
        if query := scope["query_string"]:
            where += b"?" + query
        # A path always begins with a slash; without one it could become part of the host.
        location = f"{site.origin}/{where.decode('latin-1').removeprefix('/')}"
        return Response(b"", status_code=308, headers={"location": location})
    return wire.refused(Forbidden("https_required"), new_id())


def _is_page(scope: Scope, path: str) -> bool:
    """Whether this is for people. Under ``/store`` there are pages and what they ask for: a browser that goes
    to a page says that it wants one."""
    if path in reference.PAGES:
        return True
    first = path.lstrip("/").partition("/")[0]
    if first == "store":
        return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
    return first not in _PROGRAMS


# the same origin


def same_origin(http: HttpRequest[Any, Any, Any], site: Site) -> None:
    """Whoever acts by a cookie must do so from our own pages. Raises `Forbidden` (cross_origin).

    A browser says where a request comes from in ``Sec-Fetch-Site`` or, an older one, in ``Origin``, and no
    script can change either. What says neither may read and not change. ``none`` is what a person did, by the
    address bar or a bookmark, and is a GET. To be asked before the cookie is looked at.
    """
    scope = http.scope
    site_said = [value for name, value in scope["headers"] if name == b"sec-fetch-site"]
    if site_said:
        same = site_said == [b"same-origin"] or (site_said == [b"none"] and scope["method"] == "GET")
    elif origins := [value for name, value in scope["headers"] if name == b"origin"]:
        own = _own_origin(scope, site)
        same = own is not None and origins == [own.encode("latin-1")]
    else:
        same = scope["method"] in _SAFE
    if not same:
        raise Forbidden("cross_origin")


def _own_origin(scope: Scope, site: Site) -> str | None:
    if site.origin is not None:
        return site.origin
    hosts = [value for name, value in scope["headers"] if name == b"host"]
    if len(hosts) != 1 or not hosts[0]:
        return None
    try:
        return origin_of(f"{scheme_of(scope, site.trusted)}://{hosts[0].decode('latin-1')}")
    except ValueError:  # no number of a port
        return None
