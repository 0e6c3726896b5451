"""What browsers are told with every answer, and what is not let in: plain HTTP, other origins."""

import asyncio
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from litestar import Request as HttpRequest

import distribu
from distribu import Distribu, Harness, http_app
from distribu.adapters.memory.twins import MovedClock
from distribu.application.counts import Counts
from distribu.application.kernel import Request
from distribu.domain.access import Actor
from distribu.domain.errors import Bug, Forbidden
from distribu.entrypoints.http import cookies
from distribu.entrypoints.http.browser import Site, defended, origin_of, same_origin, scheme_of
from distribu.entrypoints.http.client import client_ip
from distribu.entrypoints.http.disclosure import POLICY
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.wire import BODY_MAX
from distribu.settings import Environment, Settings

ROOT = Path(__file__).parents[2]

FORBIDS = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
EVERYWHERE = {
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "strict-origin-when-cross-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), interest-cohort=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
HSTS = "max-age=63072000; includeSubDomains; preload"

DEVELOPMENT = Site()
PRODUCTION = Site(
    production=True,
    origin="https://orders.example",
    trusted=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
)
BY_HTTPS: Any = {"scheme": "https"}


@dataclass(frozen=True)
class Answer:
    status: int
    raw: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode("latin-1") for name, value in self.raw}


def arriving(
    method: str = "GET",
    path: str = "/",
    headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
    *,
    scheme: str = "http",
    client: str | None = "203.0.113.9",
    query: bytes = b"",
    raw_path: bytes | None = None,
    root_path: str = "",
) -> Any:
    """A request, as a server hands it over."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers or []
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": scheme,
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape") if raw_path is None else raw_path,
        "query_string": query,
        "root_path": root_path,
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in pairs],
        "client": (client, 1) if client else None,
        "server": ("127.0.0.1", 8000),
    }


async def ask(app: Any, method: str = "GET", path: str = "/", *, body: bytes = b"", **more: Any) -> Answer:
    """What an application answers, spoken to as a server would: nothing is tidied up in between."""
    said: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        said.append(message)

    await app(arriving(method, path, **more), receive, send)
    start, *rest = said
    return Answer(start["status"], list(start["headers"]), b"".join(part.get("body", b"") for part in rest))


def defends(answer: Answer, *, hsts: bool, page: bool = False) -> None:
    """Every header once, and as it was decided."""
    names = [name for name, _ in answer.raw]
    assert len(names) == len(set(names)), names
    assert all(name == name.lower() for name in names)
    headers = answer.headers
    assert headers.items() >= EVERYWHERE.items()
    assert headers["content-security-policy"] == (PAGE if page else FORBIDS)
    assert headers.get("strict-transport-security") == (HSTS if hsts else None)
    assert "server" not in headers
    if headers.get("content-type", "").startswith("application/json") or page:
        assert headers["cache-control"] == "no-store"


@pytest.fixture(params=[DEVELOPMENT, PRODUCTION], ids=["development", "production"])
def site(request: pytest.FixtureRequest) -> Site:
    found: Site = request.param
    return found


@pytest.fixture
def app(shop: Harness, site: Site) -> Any:
    return http_app(shop.distribu, site=site)


# --- headers ---------------------------------------------------------------------------------


async def test_answers_of_every_status(shop: Harness, app: Any, site: Site) -> None:
    key, product = await shop.key(), await shop.product()
    mine = {"authorization": f"Bearer {key}"}
    json = mine | {"content-type": "application/json"}
    asked: list[tuple[int, str, str, dict[str, str], bytes]] = [
        (200, "GET", "/healthz", {}, b""),
        (200, "GET", "/readyz", {}, b""),
        (200, "GET", "/api/v1/me", mine, b""),
        (200, "GET", "/api/v1/openapi.json", {}, b""),
        (201, "POST", "/api/v1/products", json, b'{"name":"Oat","price":1}'),
        (204, "OPTIONS", "/api/v1/me", {}, b""),
        (400, "POST", "/api/v1/products", json, b"{"),
        (401, "GET", "/api/v1/me", {}, b""),
        (404, "GET", "/nothing", {}, b""),
        (404, "GET", "/api/v1/products/x", mine, b""),
        (405, "POST", "/healthz", {}, b""),
        (405, "PUT", "/api/v1/products", {}, b""),
        (405, "HEAD", "/healthz", {}, b""),
        (412, "PATCH", f"/api/v1/products/{product.id}", json | {"if-match": '"99"'}, b"{}"),
        (413, "POST", "/api/v1/products", json, b"[" * (BODY_MAX + 1)),
        (415, "POST", "/api/v1/products", mine | {"content-type": "text/plain"}, b"{}"),
        (204, "DELETE", f"/api/v1/products/{product.id}", mine, b""),
    ]
    for status, method, path, headers, body in asked:
        answer = await ask(app, method, path, headers=headers, body=body, **BY_HTTPS)
        assert answer.status == status, (method, path, answer)
        defends(answer, hsts=site.production)


async def test_pages_may_load_what_is_served_here_and_run_nothing_written_into_them(
    app: Any, site: Site
) -> None:
    for path in ("/", "/api/v1", "/api/v1/docs"):
        answer = await ask(app, "GET", path, **BY_HTTPS)
        assert answer.status == 200
        defends(answer, hsts=site.production, page=True)
        assert b"<style" not in answer.body
        assert b" style=" not in answer.body
        assert b"<script" not in answer.body
        (sheet,) = re.findall(rb'<link rel="stylesheet" href="([^"]+)">', answer.body)
        style = await ask(app, "GET", sheet.decode(), **BY_HTTPS)
        assert style.status == 200
        assert style.headers["content-type"].startswith("text/css")
        assert style.headers["cache-control"] == "max-age=3600"
        assert b"url(" not in style.body
        assert b"@import" not in style.body
        defends(style, hsts=site.production)


async def test_random_paths(app: Any, site: Site) -> None:
    draw = random.Random(12)
    letters = "abz09/.%~-_ ?#:@\\\0\x7fé\u2028"
    seen = set()
    for _ in range(300):
        path = "/" + "".join(draw.choices(letters, k=draw.randrange(30)))
        path = draw.choice(["", "/api/v1", "/healthz", "/store/acme", "/.well-known"]) + path
        method = draw.choice(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
        for secure in (False, True):
            answer = await ask(app, method, path, scheme="https" if secure else "http")
            page = answer.headers.get("content-type", "").startswith("text/html")
            defends(answer, hsts=site.production and secure, page=page)
            seen.add(answer.status)
    assert {404, 405} <= seen


async def test_a_mistake_of_ours(shop: Harness, site: Site) -> None:
    class Broken(Distribu):
        async def execute(self, actor: Actor, request: Request[Any]) -> Any:
            raise ZeroDivisionError("hunter2")

    app = http_app(Broken(shop.distribu.ports), site=site)
    headers = {"authorization": f"Bearer {await shop.key()}"}
    answer = await ask(app, "GET", "/api/v1/me", headers=headers, **BY_HTTPS)
    assert answer.status == 500
    defends(answer, hsts=site.production)


async def test_a_mistake_of_the_framework_s(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("hunter2")

    answer = await ask(defended(broken, site, lambda: "id-1", Counts()), "GET", "/", **BY_HTTPS)
    assert answer.status == 500
    defends(answer, hsts=site.production)
    assert answer.headers["x-request-id"] == "id-1"
    assert b'"code":"internal_error"' in answer.body
    assert b"hunter2" not in answer.body
    assert "hunter2" in caplog.text
    assert "id-1" in caplog.text


@pytest.mark.parametrize(("method", "code"), [("GET", "busy"), ("POST", "outcome_unknown")])
async def test_whoever_still_waits_when_the_server_ends_is_told(site: Site, method: str, code: str) -> None:
    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        asyncio.current_task().cancel()  # type: ignore[union-attr]  # as the server does when it has waited enough
        await asyncio.sleep(60)

    told: list[Any] = []

    async def asked() -> None:
        async def sent(message: Any) -> None:
            told.append(message)

        scope: dict[str, Any] = {"type": "http", "method": method, "path": "/", "headers": []}
        scope |= {"scheme": "https", "client": ("203.0.113.9", 1), "query_string": b""}
        await defended(waiting, site, lambda: "id-1", Counts())(scope, None, sent)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(asked())
    assert told[0]["status"] == 503
    assert f'"code":"{code}"'.encode() in told[1]["body"]


async def test_an_answer_that_has_begun_is_not_begun_again(site: Site) -> None:
    async def breaking(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await ask(defended(breaking, site, str, Counts()), "GET", "/", **BY_HTTPS)


async def test_what_an_answer_says_itself_is_only_made_stricter(site: Site) -> None:
    given = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"max-age=60")]

    async def page(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": given})
        await send({"type": "http.response.body", "body": b""})

    app = defended(page, site, str, Counts())
    for _ in range(2):  # and does not grow
        answer = await ask(app, "GET", "/", **BY_HTTPS)
        assert answer.raw[:2] == given
        assert answer.headers["cache-control"] == "max-age=60"
        assert answer.headers["content-security-policy"] == PAGE
    assert len(given) == 2


async def test_what_a_browser_has_of_a_page_keeps_its_policy(site: Site) -> None:
    """A 304 renews the headers of what is kept (RFC 9111, 4.3.4), and does not say what that is."""

    async def unchanged(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 304, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    answer = await ask(defended(unchanged, site, str, Counts()), "GET", "/", **BY_HTTPS)
    assert answer.headers["content-security-policy"] == PAGE


async def test_what_is_no_http_is_passed_on(site: Site) -> None:
    seen = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope["type"], send))

    for kind in ("lifespan", "websocket"):
        await defended(inner, site, str, Counts())({"type": kind}, None, "send")
    assert seen == [("lifespan", "send"), ("websocket", "send")]


# --- HTTPS -----------------------------------------------------------------------------------

HTML = {"accept": "text/html,application/xhtml+xml"}
REDIRECTED = [
    ("GET", "/", {}),
    ("HEAD", "/", {}),
    ("GET", "/api/v1/docs", {}),
    ("GET", "/api/v1", {}),
    ("GET", "/.well-known/security.txt", {}),
    ("GET", "/security", {}),
    ("GET", "/nothing", {}),
    ("GET", "/store/acme/catalogue", HTML),
    ("HEAD", "/store/acme", HTML),
]
REFUSED = [
    ("GET", "/api/v1/me", {}),
    ("GET", "/api/v1/me", HTML),
    ("HEAD", "/api/v1/me", {}),
    ("GET", "/api/v1/openapi.json", {}),
    ("GET", "/api", {}),
    ("GET", "/auth/verify", HTML),
    ("GET", "/account", HTML),
    ("GET", "/store/acme/products", {"accept": "application/json"}),
    ("GET", "/store/acme/products", {}),
    ("POST", "/", {}),
    ("POST", "/store/acme", HTML),
    ("DELETE", "/nothing", {}),
    ("OPTIONS", "/", {}),
    ("OPTIONS", "*", {}),
    ("POST", "", {}),
    ("GET", "//api/v1/me", {}),
    ("POST", "/api/v1/docs", {}),
]


@pytest.fixture
def strict(shop: Harness) -> Any:
    return http_app(shop.distribu, site=PRODUCTION)


@pytest.mark.parametrize(("method", "path", "headers"), REDIRECTED)
async def test_pages_are_asked_for_again_over_https(
    strict: Any, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = await ask(strict, method, path, headers={"host": "evil.example"} | headers, query=b"a=1&b=%2F")
    assert answer.status == 308
    assert answer.headers["location"] == f"https://orders.example{path}?a=1&b=%2F"
    assert answer.body == b""
    assert answer.headers["content-length"] == "0"
    defends(answer, hsts=False)


@pytest.mark.parametrize(("method", "path", "headers"), REFUSED)
async def test_programs_are_refused_over_http(
    shop: Harness, strict: Any, method: str, path: str, headers: dict[str, str]
) -> None:
    key = {"authorization": f"Bearer {await shop.key()}"}
    answer = await ask(strict, method, path, headers=headers | key)
    assert answer.status == 403
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) > 0
    if method == "HEAD":
        assert answer.body == b""
    else:
        assert b'"code":"https_required"' in answer.body
        assert answer.headers["x-request-id"].encode() in answer.body
    assert "location" not in answer.headers
    defends(answer, hsts=False)


async def test_every_route_of_the_api_is_refused_over_http(shop: Harness, strict: Any) -> None:
    before = await shop.key()
    for route in ROUTES:
        path = "/api/v1" + re.sub(r"\{[^}]*\}", "x", route.path)
        answer = await ask(strict, route.method, path, headers={"authorization": f"Bearer {before}"} | HTML)
        assert (answer.status, b"https_required" in answer.body) == (403, True), route.path


async def test_load_balancers_are_answered_over_http(strict: Any) -> None:
    for path in ("/healthz", "/readyz"):
        answer = await ask(strict, "GET", path)
        assert answer.status == 200
        defends(answer, hsts=False)


async def test_nothing_but_the_probes_gets_by(strict: Any) -> None:
    for path in (
        "/healthz/",
        "//healthz",
        "/healthz/../api/v1/me",
        "/api/v1/healthz",
        "/HEALTHZ",
        "/readyz.json",
    ):
        assert (await ask(strict, "POST", path)).status == 403, path


async def test_development_takes_plain_http(shop: Harness) -> None:
    app = http_app(shop.distribu)
    headers = {"authorization": f"Bearer {await shop.key()}"}
    assert (await ask(app, "GET", "/api/v1/me", headers=headers)).status == 200


async def test_without_knowing_where_it_is_it_sends_nobody_anywhere(shop: Harness) -> None:
    app = http_app(shop.distribu, site=Site(production=True))
    answer = await ask(app, "GET", "/", headers={"host": "evil.example"})
    assert (answer.status, "location" in answer.headers) == (403, False)


async def test_where_it_is_mounted(shop: Harness, strict: Any) -> None:
    under: Any = {"root_path": "/wholesale"}
    assert (await ask(strict, "GET", "/wholesale/healthz", **under)).status == 200
    assert (await ask(strict, "GET", "/wholesale/api/v1/me", **under)).status == 403
    page = await ask(strict, "GET", "/wholesale/api/v1/docs", **under)
    assert page.headers["location"] == "https://orders.example/wholesale/api/v1/docs"
    # A root that is no whole part of the path is no root of it.
    assert (await ask(strict, "POST", "/wholesale2/healthz", **under)).status == 403
    assert (await ask(strict, "GET", "/wholesaleapi/v1/me", **under)).status == 308


@pytest.mark.parametrize(
    "raw",
    [b"//evil.example/x", b"@evil.example", b".evil.example/", b"evil.example", b"/\\evil.example", b""],
)
async def test_nobody_is_sent_to_another_host(strict: Any, raw: bytes) -> None:
    answer = await ask(strict, "GET", "/x", raw_path=raw)
    assert answer.status == 308
    assert answer.headers["location"].startswith("https://orders.example/")


async def test_no_server_has_to_give_the_raw_path(strict: Any) -> None:
    scope = arriving("GET", "/säge mühle\r\nx: y")
    del scope["raw_path"]
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    await strict(scope, None, send)
    location = dict(said[0]["headers"])[b"location"]
    assert location == b"https://orders.example/s%C3%A4ge%20m%C3%BChle%0D%0Ax%3A%20y"


SCHEMES = [
    ("https", "203.0.113.9", [], "https"),
    ("http", "203.0.113.9", [], "http"),
    ("http", "203.0.113.9", ["https"], "http"),
    ("http", "127.0.0.1", ["https"], "http"),
    ("http", None, ["https"], "http"),
    ("http", "no address", ["https"], "http"),
    ("http", "10.1.2.3", ["https"], "https"),
    ("http", "10.1.2.3", ["HTTPS"], "https"),
    ("http", "::ffff:10.1.2.3", ["https"], "https"),
    ("http", "fd00::1", ["https"], "https"),
    ("http", "10.1.2.3", [], "http"),
    ("http", "10.1.2.3", ["http"], "http"),
    ("http", "10.1.2.3", ["https, http"], "http"),
    ("http", "10.1.2.3", ["http, https"], "https"),
    ("http", "10.1.2.3", ["https", "http"], "http"),
    ("http", "10.1.2.3", ["httpsx"], "http"),
    ("http", "10.1.2.3", [""], "http"),
    ("https", "10.1.2.3", ["http"], "http"),
]


@pytest.mark.parametrize(("scheme", "client", "said", "found"), SCHEMES)
async def test_how_the_client_came(
    strict: Any, scheme: str, client: str | None, said: list[str], found: str
) -> None:
    headers = [("x-forwarded-proto", value) for value in said]
    scope = arriving("GET", "/api/v1/me", headers, scheme=scheme, client=client)
    assert scheme_of(scope, PRODUCTION.trusted) == found
    answer = await ask(strict, "GET", "/api/v1/me", headers=headers, scheme=scheme, client=client)
    assert answer.status == (401 if found == "https" else 403)
    defends(answer, hsts=found == "https")


# --- the same origin -------------------------------------------------------------------------

OWN = "https://orders.example"
SITE_SAID = "sec-fetch-site"
ORIGINS: list[tuple[str, list[tuple[str, str]], bool]] = [
    ("POST", [(SITE_SAID, "same-origin")], True),
    ("DELETE", [(SITE_SAID, "same-origin"), ("origin", OWN)], True),
    ("POST", [(SITE_SAID, "same-site")], False),
    ("POST", [(SITE_SAID, "cross-site")], False),
    ("POST", [(SITE_SAID, "cross-site"), ("origin", OWN)], False),
    ("POST", [(SITE_SAID, "none")], False),
    ("GET", [(SITE_SAID, "none")], True),
    ("HEAD", [(SITE_SAID, "none")], False),
    ("GET", [(SITE_SAID, "cross-site")], False),
    ("GET", [(SITE_SAID, "same-origin")], True),
    ("POST", [(SITE_SAID, "SAME-ORIGIN")], False),
    ("POST", [(SITE_SAID, "")], False),
    ("POST", [(SITE_SAID, "same-origin"), (SITE_SAID, "cross-site")], False),
    ("POST", [("origin", OWN)], True),
    ("PATCH", [("origin", OWN + ":443")], False),
    ("POST", [("origin", OWN + "/")], False),
    ("POST", [("origin", "http://orders.example")], False),
    ("POST", [("origin", OWN + ":8443")], False),
    ("POST", [("origin", OWN + ".evil.example")], False),
    ("POST", [("origin", "https://evil.example")], False),
    ("POST", [("origin", "https://shop.orders.example")], False),
    ("POST", [("origin", "null")], False),
    ("GET", [("origin", "null")], False),
    ("GET", [("origin", OWN)], True),
    ("POST", [("origin", "")], False),
    ("POST", [("origin", OWN), ("origin", "https://evil.example")], False),
    ("POST", [("origin", f"{OWN} {OWN}")], False),
    ("POST", [("referer", OWN + "/page")], False),
    ("POST", [("host", "orders.example")], False),
    ("PUT", [], False),
    ("BREW", [], False),
    ("GET", [], True),
    ("HEAD", [], True),
    ("OPTIONS", [], True),
]


def is_same(site: Site, **scope: Any) -> bool:
    http: Any = HttpRequest[Any, Any, Any](arriving(**scope))
    try:
        same_origin(http, site)
    except Forbidden as refusal:
        return refusal.code != "cross_origin"
    return True


@pytest.mark.parametrize(("method", "headers", "same"), ORIGINS)
def test_by_a_cookie_one_acts_from_our_own_pages(
    method: str, headers: list[tuple[str, str]], same: bool
) -> None:
    assert is_same(PRODUCTION, method=method, headers=headers) is same


HOSTS = [
    ("http", "localhost:8000", "http://localhost:8000", True),
    ("http", "LocalHost:8000", "http://localhost:8000", True),
    ("http", "localhost:80", "http://localhost", True),
    ("https", "localhost:443", "https://localhost", True),
    ("http", "[::1]:8000", "http://[::1]:8000", True),
    ("http", "localhost:8000", "http://localhost:3000", False),
    ("http", "localhost:8000", "https://localhost:8000", False),
    ("http", "localhost:8000", "http://127.0.0.1:8000", False),
    ("http", "localhost:8000", "null", False),
    ("http", "", "http://", False),
    ("http", None, "http://None", False),
    ("http", "localhost:x", "http://localhost:x", False),
    ("http", "[::1", "http://[::1", False),
]


@pytest.mark.parametrize(("scheme", "host", "origin", "same"), HOSTS)
def test_in_development_our_origin_is_where_we_were_asked(
    scheme: str, host: str | None, origin: str, same: bool
) -> None:
    headers = [("origin", origin), *([("host", host)] if host is not None else [])]
    assert is_same(DEVELOPMENT, method="POST", headers=headers, scheme=scheme) is same


def test_two_hosts_are_none() -> None:
    headers = [("origin", "http://a.example"), ("host", "a.example"), ("host", "a.example")]
    assert not is_same(DEVELOPMENT, method="POST", headers=headers)


def test_an_origin_is_written_as_browsers_do() -> None:
    for url, origin in {
        "https://orders.example": "https://orders.example",
        "https://orders.example/": "https://orders.example",
        "HTTPS://Orders.Example:443/": "https://orders.example",
        "https://orders.example:8443": "https://orders.example:8443",
        "http://orders.example:80": "http://orders.example",
        "http://orders.example:443": "http://orders.example:443",
        "http://[2001:DB8::1]:8000": "http://[2001:db8::1]:8000",
    }.items():
        assert origin_of(url) == origin


def test_a_site_is_what_the_settings_say() -> None:
    assert Site.of(Settings()) == replace(DEVELOPMENT, open_metrics=True)
    found = Site.of(
        Settings(
            env=Environment.PRODUCTION,
            public_url="https://Orders.example/",
            security_contact="mailto:it@orders.example",
        )
    )
    assert (found.production, found.origin, found.contact) == (True, OWN, "mailto:it@orders.example")


# --- cookies ---------------------------------------------------------------------------------

TOKEN = "eyJhbGciOi.eyJzdWIi.c2ln_-"


def read(name: str, *lines: str) -> str | None:
    http: Any = HttpRequest[Any, Any, Any](arriving(headers=[("cookie", line) for line in lines]))
    return cookies.token_in(http, name)


def test_the_names() -> None:
    assert cookies.staff_cookie(production=False) == "distribu_staff"
    assert cookies.staff_cookie(production=True) == "__Host-distribu_staff"
    assert cookies.store_cookie("acme-2", production=False) == "distribu_store_acme-2"
    assert cookies.store_cookie("acme-2", production=True) == "__Host-distribu_store_acme-2"
    for slug in ("", "Acme", "a=b", "a;b", "a b", "a\n", "ä", "a" * 61):
        with pytest.raises(Bug):
            cookies.store_cookie(slug, production=True)


def test_what_is_set_in_production() -> None:
    name = cookies.staff_cookie(production=True)
    assert cookies.kept(name, TOKEN, max_age_s=604_800) == (
        f"__Host-distribu_staff={TOKEN}; Max-Age=604800; Path=/; Secure; HttpOnly; SameSite=Lax"
    )
    assert cookies.ended(name) == "__Host-distribu_staff=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax"


def test_what_is_set_in_development() -> None:
    name = cookies.store_cookie("acme", production=False)
    kept = cookies.kept(name, TOKEN, max_age_s=60)
    assert kept == f"distribu_store_acme={TOKEN}; Max-Age=60; Path=/; HttpOnly; SameSite=Lax"
    assert cookies.ended(name) == "distribu_store_acme=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax"
    assert "domain" not in kept.lower()


@pytest.mark.parametrize(
    ("name", "token", "age"),
    [
        ("distribu_staff", "", 1),
        ("distribu_staff", "a;b", 1),
        ("distribu_staff", "a b", 1),
        ("distribu_staff", "a\r\nSet-Cookie: b=c", 1),
        ("distribu_staff", "a\n", 1),
        ("distribu_staff", 'a"b', 1),
        ("distribu_staff", "ä", 1),
        ("distribu_staff", "a" * 3073, 1),
        ("distribu_staff", "a", 0),
        ("distribu_staff", "a", -1),
        ("distribu_staff", "a", 400 * 86_400 + 1),
        ("distribu staff", "a", 1),
        ("other", "a", 1),
        ("distribu_staff; Domain=example", "a", 1),
        ("distribu_staff\n", "a", 1),
    ],
)
def test_what_no_cookie_can_hold(name: str, token: str, age: int) -> None:
    with pytest.raises(Bug):
        cookies.kept(name, token, max_age_s=age)


@pytest.mark.parametrize("production", [False, True])
def test_what_was_set_is_read(production: bool) -> None:
    for name in (
        cookies.staff_cookie(production=production),
        cookies.store_cookie("a-b", production=production),
    ):
        pair = cookies.kept(name, TOKEN, max_age_s=60).partition(";")[0]
        assert read(name, pair) == TOKEN
        assert read(name, f"a=b; {pair}; c=d") == TOKEN
        assert read(name, "a=b", pair) == TOKEN


STAFF = "distribu_staff"
UNREAD = {
    "none": [],
    "another": ["other=x"],
    "of a store": ["distribu_store_acme=x"],
    "of production": ["__Host-distribu_staff=x"],
    "in capitals": ["Distribu_Staff=x"],
    "twice": ["distribu_staff=x; distribu_staff=y"],
    "twice the same": ["distribu_staff=x; distribu_staff=x"],
    "in two lines": ["distribu_staff=x", "distribu_staff=y"],
    "once empty": ["distribu_staff=; distribu_staff=x"],
    "empty": ["distribu_staff="],
    "without a value": ["distribu_staff"],
    "another kind of space": ["\xa0distribu_staff=x", "\x85distribu_staff=x", "\tdistribu_staff=x"],
    "a name within a value": ["other=distribu_staff=x"],
    "a nameless one": ["=distribu_staff=x"],
    "with quotes": ['distribu_staff="x"'],
    "no token": ["distribu_staff=a b", "distribu_staff=ä"],
    "too long": ["distribu_staff=" + "x" * 3073],
}


@pytest.mark.parametrize("lines", UNREAD.values(), ids=list(UNREAD))
def test_what_is_not_read(lines: list[str]) -> None:
    assert read(STAFF, *lines) is None
    for line in lines:
        if line not in ("distribu_staff=x", "distribu_staff=y"):
            assert read(STAFF, line) is None


# --- where to write --------------------------------------------------------------------------


@pytest.fixture
async def texts(shop: Harness) -> dict[str, Answer]:
    app = http_app(shop.distribu, site=PRODUCTION)
    paths = ("/.well-known/security.txt", "/security")
    return {path: await ask(app, "GET", path, **BY_HTTPS) for path in paths}


def fields(answer: Answer) -> dict[str, str]:
    """A security.txt, read as RFC 9116 has it (4): a field a line, each here once."""
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    text = answer.body.decode()
    assert text.endswith("\n")
    lines = [re.fullmatch(r"([A-Za-z-]+): (\S+)", line) for line in text.splitlines()]
    found = {line[1]: line[2] for line in lines if line}
    assert len(found) == len(lines)
    return found


async def test_security_txt(shop: Harness, texts: dict[str, Answer]) -> None:
    answer = texts["/.well-known/security.txt"]
    found = fields(answer)
    now = shop.distribu.ports.clock.now()
    expires = datetime.strptime(found.pop("Expires"), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert now + timedelta(days=90) < expires < now + timedelta(days=365)
    assert found == {
        "Contact": "mailto:security@distribu.app",
        "Preferred-Languages": "en",
        "Canonical": "https://orders.example/.well-known/security.txt",
        "Policy": "https://orders.example/security",
    }
    defends(answer, hsts=True)


async def test_security_txt_does_not_grow_old(shop: Harness) -> None:
    app = http_app(shop.distribu)
    first = fields(await ask(app, "GET", "/.well-known/security.txt"))
    assert isinstance(shop.clock, MovedClock)
    shop.clock.advance(hours=24 * 400)
    later = fields(await ask(app, "GET", "/.well-known/security.txt"))
    assert later["Expires"] > first["Expires"]


async def test_security_txt_links_to_https_alone(shop: Harness) -> None:
    for site in (DEVELOPMENT, Site(origin="http://localhost:8000")):
        found = fields(await ask(http_app(shop.distribu, site=site), "GET", "/.well-known/security.txt"))
        assert set(found) == {"Contact", "Expires", "Preferred-Languages"}


async def test_somebody_else_can_be_written_to(shop: Harness) -> None:
    app = http_app(shop.distribu, site=Site(contact="https://orders.example/report"))
    assert (
        fields(await ask(app, "GET", "/.well-known/security.txt"))["Contact"]
        == "https://orders.example/report"
    )
    assert b"Write to https://orders.example/report." in (await ask(app, "GET", "/security")).body


async def test_the_policy_is_that_of_the_repository(texts: dict[str, Answer]) -> None:
    def words(text: str) -> str:
        return " ".join(text.split())

    for paragraph in POLICY.split("\n\n"):
        assert words(paragraph) in words((ROOT / "SECURITY.md").read_text())
    assert POLICY in texts["/security"].body.decode()
    assert texts["/security"].body.startswith(b"Found a hole? Write to security@distribu.app.")


# --- who else is told anything ---------------------------------------------------------------


def test_nothing_is_loaded_from_elsewhere() -> None:
    """No file that a browser gets names another host to load from."""
    served = Path(distribu.__file__).parent / "entrypoints" / "http"
    files = [file for kind in ("html", "css", "js") for file in served.rglob(f"*.{kind}")]
    assert len(files) >= 2
    loading = re.compile(r"""(?:src|srcset|action|data)\s*=\s*["']?(?:https?:)?//|@import|<link[^>]+//""")
    for file in files:
        assert not loading.search(file.read_text()), file


# --- where a request comes from --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "said", "found"),
    [
        ("203.0.113.9", "192.0.2.1", "203.0.113.9"),  # nobody we know: what it says is nothing
        ("10.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("10.0.0.1", "198.51.100.6, 192.0.2.1", "192.0.2.1"),  # the first was written by the client
        ("10.0.0.1", "198.51.100.6, 192.0.2.1, 10.0.0.2", "192.0.2.1"),
        ("10.0.0.1", "192.0.2.1, nonsense", "10.0.0.1"),
        ("10.0.0.1", "", "10.0.0.1"),
    ],
)
def test_a_forwarded_address_is_the_last_that_no_proxy_of_ours_has(peer: str, said: str, found: str) -> None:
    http: Any = HttpRequest(arriving(headers={"x-forwarded-for": said}, client=peer))
    assert client_ip(http, PRODUCTION.trusted) == found
