"""The Stripe that is none, over HTTP: what its API answers, pages to click through, and webhooks it sends.

It stands beside the application, under ``/_stripe``, and never in production: whoever reaches it can buy
anything for nothing. There is no field for a card on its pages: buttons say what becomes of it. What it knows
is gone when the process ends.

As Stripe's API, with the key as bearer token, forms as bodies, and Idempotency-Key on POST:

- ``POST /v1/checkout/sessions``, ``POST /v1/billing_portal/sessions``
- ``GET /v1/subscriptions``, and with an id behind it ``/v1/subscriptions``, ``/v1/prices``, ``/v1/invoices``,
  ``/v1/customers``, ``/v1/checkout/sessions`` and ``/v1/events``

As pages: ``/`` with the clock, what was bought and what was sent, ``/checkout/{id}`` and ``/portal/{id}``.
Each button is a POST:

- ``/checkout/{id}/pay``, ``/checkout/{id}/refuse`` (the card is refused; it can be tried again)
- ``/portal/{id}/change?subscription=&price=``, ``/portal/{id}/cancel?subscription=``,
  ``/portal/{id}/resume?subscription=``, ``/portal/{id}/end?subscription=`` (at once)
- ``/portal/{id}/card`` (one that works, which pays what is open), ``/portal/{id}/bad-card``
- ``/portal?customer=`` (opens one), ``/clock?days=`` (time moves on), ``/send?event=`` (once more)

Where it is ``testable``, JSON both ways:

``POST /test/clock {"seconds": n}``
    Time moves on, and what is due happens: the warning of a trial's end, renewals, retries of a refused card
    after 3, 5 and 7 days, ends. Answers ``{"now": seconds}``. Signatures keep the real time.
``POST /test/settings {"hook": url|null, "secrets": [...], "at_once": bool, "ended_as": "canceled"|"unpaid"}``
    Where events go and how they are signed (by each secret), whether they are sent as soon as they happen,
    and what a subscription becomes once its card was refused four times. What is left out stays.
``GET /test/state``
    ``{"now", "customers", "sessions", "subscriptions", "invoices", "events", "sent", "asked"}``: everything,
    and ``sent`` as ``{"event", "status"}`` for each time one was sent (status null: nobody answered),
    ``asked`` as ``{"method", "path", "headers", "form"}`` for each request of the API.
``POST /test/deliver {"events": [id, ...]|null, "times": n, "at_the_same_time": bool}``
    Send these (null: all there are), in this order, each so many times. Answers the statuses.
``POST /test/subscriptions/{id} {...}``
    Have a subscription be as no button makes it, such as ``{"status": "paused"}``.
``DELETE /test/customers/{id}``
    As an operator at Stripe does: what was bought ends.
``POST /test/next {"times": n, "after": seconds, "status": n, "headers": {...}, "body": text, "cut": bool}``
    The next requests of the API are answered ``after`` so long: with this status, these headers and this
    body, by a connection that ends in the middle (``cut``), or without any of these as they should be.
"""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs, parse_qsl, urlsplit

import aiohttp
import jinja2
import msgspec
from litestar import Litestar, Request as HttpRequest, Response, Router, delete, get, post, route
from litestar.exceptions import HTTPException

from distribu.container import No, PretendStripe

PATH: Final = "/_stripe"
SEND_S: Final = 10.0
"""How long a webhook may take to be answered."""

SENDING_MAX: Final = 64
DELIVERIES_MAX: Final = 5_000
KEPT: Final = 1_000
"""Requests and deliveries that are remembered."""

SHOWN: Final = 50
BODY_MAX: Final = 262_144
_NAME: Final = re.compile(r"([A-Za-z0-9_]+)((?:\[[A-Za-z0-9_]*\])*)")
_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.:\[\]-]{1,260}")
_KINDS: Final = frozenset({"subscriptions", "prices", "invoices", "customers"})

Http = HttpRequest[Any, Any, Any]
Json = dict[str, Any]
Application = Callable[[Any, Any, Any], Awaitable[None]]
Header = tuple[bytes, bytes]


class Next(msgspec.Struct, forbid_unknown_fields=True):
    """How the next requests are answered."""

    times: int = 1
    after: float = 0.0
    status: int | None = None
    headers: dict[str, str] = {}
    body: str = ""
    cut: bool = False


class _Settings(msgspec.Struct, forbid_unknown_fields=True):
    hook: str | None | msgspec.UnsetType = msgspec.UNSET
    secrets: list[str] | msgspec.UnsetType = msgspec.UNSET
    at_once: bool | msgspec.UnsetType = msgspec.UNSET
    ended_as: str | msgspec.UnsetType = msgspec.UNSET


class _Clock(msgspec.Struct, forbid_unknown_fields=True):
    seconds: int


class _Deliver(msgspec.Struct, forbid_unknown_fields=True):
    events: list[str] | None = None
    times: int = 1
    at_the_same_time: bool = False


class StripeStub:
    """The stub as an ASGI application. Events go to ``hook``, signed by each of the ``secrets``.

    ``headers`` are those that every page of the product has, with a Content-Security-Policy among them.
    """

    def __init__(
        self,
        stripe: PretendStripe,
        *,
        key: str,
        secrets: Sequence[str],
        headers: Sequence[Header] = (),
        hook: str | None = None,
        at_once: bool = False,
        testable: bool = False,
    ) -> None:
        self.stripe = stripe
        self.hook = hook
        self.secrets = list(secrets)
        self.at_once = at_once
        self.testable = testable
        self.sent: list[Json] = []
        self.asked: list[Json] = []
        self.next: list[Next] = []
        self._key = key
        self._headers = {name.decode(): value.decode() for name, value in headers}
        self._told: set[str] = set()
        self._pool: aiohttp.ClientSession | None = None
        self._sending: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._app = self._made()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].startswith(f"{PATH}/v1/") and self.next:
            behave = self.next.pop(0)
            await asyncio.sleep(behave.after)
            if behave.cut:
                start = {
                    "type": "http.response.start",
                    "status": 200,
                    "headers": [(b"content-length", b"99")],
                }
                await send(start)
                await send({"type": "http.response.body", "body": b"{", "more_body": True})
                raise ConnectionAbortedError
            if behave.status is not None:
                named = [(name.lower().encode(), value.encode()) for name, value in behave.headers.items()]
                await send({"type": "http.response.start", "status": behave.status, "headers": named})
                await send({"type": "http.response.body", "body": behave.body.encode()})
                return
        await self._app(scope, receive, send)
        if self.at_once:
            self._send_what_is_new()

    async def idle(self) -> None:
        """Wait until all is sent that is to be sent at once."""
        while self._sending:
            await asyncio.gather(*self._sending)

    async def close(self) -> None:
        """Send nothing more."""
        for task in self._sending:
            task.cancel()
        await asyncio.gather(*self._sending, return_exceptions=True)
        if self._pool is not None:
            await self._pool.close()

    # webhooks

    async def deliver(self, ids: Sequence[str] | None, *, times: int = 1, at_once: bool = False) -> list[Any]:
        """Send events, each so many times; the statuses that were answered, None where nobody did."""
        known = {event["id"]: event for event in self.stripe.events}
        events = [known[id] for id in (known if ids is None else ids) if id in known]
        wanted = [event for event in events for _ in range(times)][:DELIVERIES_MAX]
        self._told.update(event["id"] for event in wanted)
        if not at_once:
            return [await self._send(event) for event in wanted]
        gate = asyncio.Semaphore(SENDING_MAX)

        async def gated(event: Json) -> int | None:
            async with gate:
                return await self._send(event)

        return list(await asyncio.gather(*map(gated, wanted)))

    def _send_what_is_new(self) -> None:
        self.stripe.settle()
        new = [event["id"] for event in self.stripe.events if event["id"] not in self._told]
        if not new or self.hook is None:
            return
        self._told.update(new)
        task = asyncio.create_task(self._in_turn(new))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _in_turn(self, ids: list[str]) -> None:
        async with self._turn:
            await self.deliver(ids)

    async def _send(self, event: Json) -> int | None:
        status = None
        if self.hook is not None:
            body, header = self.stripe.signed(event, self.secrets)
            headers = {"content-type": "application/json; charset=utf-8", "stripe-signature": header}
            try:
                async with (
                    asyncio.timeout(SEND_S),
                    self._ways().post(self.hook, data=body, headers=headers, allow_redirects=False) as got,
                ):
                    status = got.status
            except (aiohttp.ClientError, OSError, ValueError):
                status = None
        self.sent.append({"event": event["id"], "status": status})
        del self.sent[:-KEPT]
        return status

    def _ways(self) -> aiohttp.ClientSession:
        if self._pool is None:
            self._pool = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=SENDING_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._pool

    # the API

    async def _api(self, http: Http) -> Response[bytes]:
        form = _nested((await http.body()).decode("utf-8", "replace") or http.scope["query_string"].decode())
        path = str(http.path_params["rest"]).strip("/")
        headers = {name.lower(): value for name, value in http.headers.items()}
        if self.testable:
            self.asked.append(
                {"method": http.method, "path": f"/v1/{path}", "headers": headers, "form": form}
            )
            del self.asked[:-KEPT]
        shown = headers.get("authorization", "").encode()
        if not hmac.compare_digest(shown, f"Bearer {self._key}".encode()):
            raise No(401, "api_key_invalid", "Invalid API Key provided")
        if "stripe-version" not in headers:
            raise No(400, "parameter_missing", "Say which version of the API is meant")
        key = headers.get("idempotency-key")
        stripe = self.stripe
        match [http.method, *path.split("/")]:
            case ["POST", "checkout", "sessions"]:
                return _json(stripe.once(key, [path, form], lambda: stripe.checkout(form)))
            case ["POST", "billing_portal", "sessions"]:
                return _json(stripe.once(key, [path, form], lambda: stripe.portal(form)))
            case ["GET", "subscriptions"]:
                limit = str(form.get("limit", "10"))
                return _json(
                    stripe.listed(
                        status=form.get("status"),
                        limit=int(limit) if limit.isdecimal() else 10,
                        after=form.get("starting_after"),
                    )
                )
            case ["GET", "checkout", "sessions", id]:
                return _json(stripe.get("sessions", id))
            case ["GET", "events", id]:
                found = next((event for event in stripe.events if event["id"] == id), None)
                if found is not None:
                    return _json(found)
            case ["GET", kind, id] if kind in _KINDS:
                return _json(stripe.get(kind, id))
        raise No(404, "resource_missing", f"Unrecognized request URL ({http.method}: /v1/{path})")

    # pages

    async def _page(self, http: Http) -> Response[bytes]:
        stripe = self.stripe
        match str(http.path_params.get("rest", "")).strip("/").split("/"):
            case [""]:
                stripe.settle()
                sent = {one["event"]: one["status"] or "nobody" for one in self.sent}
                events = [(it, sent.get(it["id"], "not yet")) for it in reversed(stripe.events[-SHOWN:])]
                bought = list(reversed(stripe.subscriptions.values()))[:SHOWN]
                return self._html(events=events, bought=bought, now=stripe.now)
            case ["stripe.css"]:
                return Response(_file("stripe.css").encode(), media_type="text/css")
            case ["checkout", id]:
                session = stripe.opened(id)
                return self._html(session, checkout=session, price=self._price(session))
            case ["portal", id]:
                return self._portal(id)
        raise No(404, "resource_missing", "There is nothing here.")

    async def _button(self, http: Http) -> Response[bytes]:
        stripe = self.stripe
        if http.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            raise No(403, "cross_origin", "A button is pressed on its own page.")
        said = {name: values[0] for name, values in parse_qs((await http.body()).decode("latin-1")).items()}
        said |= {name: values[0] for name, values in parse_qs(http.scope["query_string"].decode()).items()}
        subscription = said.get("subscription", "")
        match str(http.path_params["rest"]).strip("/").split("/"):
            case ["checkout", id, "pay"]:
                back = stripe.opened(id)["success_url"]
                stripe.pay(id)
                return _sent_to(back)
            case ["checkout", id, "refuse"]:
                session = stripe.opened(id)
                return self._html(session, checkout=session, price=self._price(session), refused=True)
            case ["portal", id, what]:
                customer = stripe.get("portals", id)["customer"]
                if subscription and stripe.get("subscriptions", subscription)["customer"] != customer:
                    raise No(404, "resource_missing", "No such subscription")
                match what:
                    case "change":
                        stripe.change(subscription, said.get("price", ""))
                    case "cancel":
                        stripe.cancel(subscription)
                    case "end":
                        stripe.cancel(subscription, now=True)
                    case "resume":
                        stripe.resume(subscription)
                    case "card" | "bad-card":
                        stripe.card(customer, works=what == "card")
                    case _:
                        raise No(404, "resource_missing", "There is no such button.")
                return _sent_to(f"{PATH}/portal/{id}")
            case ["portal"]:
                return _sent_to(f"{PATH}/portal/{stripe.portal(said)['id']}")
            case ["clock"]:
                days = said.get("days", "")
                stripe.move(timedelta(days=int(days) if re.fullmatch("[0-9]{1,3}", days) else 0))
                return _sent_to(PATH)
            case ["send"]:
                await self.deliver([said.get("event", "")])
                return _sent_to(PATH)
        raise No(404, "resource_missing", "There is no such button.")

    def _portal(self, id: str) -> Response[bytes]:
        stripe = self.stripe
        portal = stripe.get("portals", id)
        bought = stripe.of(portal["customer"])
        invoices = [it for it in stripe.invoices.values() if it["customer"] == portal["customer"]]
        return self._html(
            portal=portal, bought=bought, prices=list(stripe.prices.values()), invoices=invoices[-SHOWN:]
        )

    def _price(self, session: Json) -> Json:
        return self.stripe.prices[session["line_items"]["data"][0]["price"]]

    def _html(self, session: Json | None = None, *, status: int = 200, **shown: Any) -> Response[bytes]:
        """A page. One that sends people elsewhere once a button was pressed says so: a browser asks (CSP
        3)."""
        empty: Json = {
            "path": PATH,
            "wrong": "",
            "checkout": None,
            "portal": None,
            "refused": False,
            "bought": [],
        }
        text = _template().render(empty | {"events": [], "prices": [], "invoices": [], "price": None} | shown)
        headers = self._headers | {"cache-control": "no-store"}
        parts = urlsplit(session["success_url"] if session else "")
        if _ORIGIN.fullmatch(origin := f"{parts.scheme}://{parts.netloc}"):
            policy = headers.get("content-security-policy", "")
            to_both = policy.replace("form-action 'self'", f"form-action 'self' {origin}")
            headers["content-security-policy"] = to_both
        return Response(text.encode(), status_code=status, headers=headers, media_type="text/html")

    def _refused(self, http: Http, no: No) -> Response[bytes]:
        path = http.scope["path"].removeprefix(PATH)
        if path.startswith(("/v1/", "/test/")):
            return _json({"error": no.error}, no.status)
        return self._html(wrong=str(no), status=no.status)

    # for tests

    async def _test(self, http: Http) -> Response[bytes]:
        body, stripe = await http.body(), self.stripe
        match str(http.path_params["rest"]).strip("/").split("/"):
            case ["clock"]:
                stripe.move(timedelta(seconds=msgspec.json.decode(body, type=_Clock).seconds))
                return _json({"now": stripe.now})
            case ["settings"]:
                self._set(msgspec.json.decode(body, type=_Settings))
                return _json({})
            case ["deliver"]:
                asked = msgspec.json.decode(body, type=_Deliver)
                stripe.settle()
                return _json(
                    await self.deliver(asked.events, times=asked.times, at_once=asked.at_the_same_time)
                )
            case ["next"]:
                behave = msgspec.json.decode(body, type=Next)
                self.next = [behave] * min(behave.times, KEPT)
                return _json({})
            case ["subscriptions", id]:
                return _json(stripe.alter(id, msgspec.json.decode(body, type=dict[str, Any])))
        raise No(404, "resource_missing", "There is nothing here.")

    def _set(self, given: _Settings) -> None:
        if given.hook is not msgspec.UNSET:
            self.hook = given.hook
        if given.secrets is not msgspec.UNSET:
            self.secrets = given.secrets
        if given.at_once is not msgspec.UNSET:
            self.at_once = given.at_once
        if given.ended_as is not msgspec.UNSET:
            self.stripe.ended_as = given.ended_as

    async def _state(self, http: Http) -> Response[bytes]:
        stripe = self.stripe
        stripe.settle()
        return _json(
            {
                "now": stripe.now,
                "customers": stripe.customers,
                "sessions": stripe.sessions,
                "subscriptions": stripe.subscriptions,
                "invoices": stripe.invoices,
                "events": stripe.events,
                "sent": self.sent,
                "asked": self.asked,
            }
        )

    async def _forget(self, http: Http) -> Response[bytes]:
        self.stripe.delete(str(http.path_params["id"]))
        return _json({})

    def _made(self) -> Litestar:
        hidden: Any = {"include_in_schema": False}

        @route("/v1/{rest:path}", http_method=["GET", "POST", "DELETE"], status_code=200, **hidden)
        async def api(request: Http) -> Response[bytes]:
            """Stripe's API."""
            return await self._api(request)

        @get(["/", "/{rest:path}"], **hidden)
        async def page(request: Http) -> Response[bytes]:
            """A page."""
            return await self._page(request)

        @post("/{rest:path}", status_code=200, **hidden)
        async def button(request: Http) -> Response[bytes]:
            """A button."""
            return await self._button(request)

        @post("/test/{rest:path}", status_code=200, **hidden)
        async def test(request: Http) -> Response[bytes]:
            """What a test has it do."""
            return await self._test(request)

        @get("/test/state", **hidden)
        async def state(request: Http) -> Response[bytes]:
            """What a test looks at."""
            return await self._state(request)

        @delete("/test/customers/{id:str}", status_code=200, **hidden)
        async def forget(request: Http) -> Response[bytes]:
            """A customer that is deleted."""
            return await self._forget(request)

        tests = [test, state, forget] if self.testable else []
        return Litestar(
            route_handlers=[Router(PATH, route_handlers=[api, page, button, *tests])],
            openapi_config=None,
            request_max_body_size=BODY_MAX,
            exception_handlers={
                No: lambda http, no: self._refused(http, no),
                HTTPException: lambda _, error: Response(b"", status_code=error.status_code),
                msgspec.MsgspecError: lambda _, error: _json({"error": str(error)}, 400),
            },
            logging_config=None,
        )


def with_stripe(app: Application, stub: StripeStub) -> Application:
    """An application that also is Stripe, under ``/_stripe``."""

    async def answered(scope: Any, receive: Any, send: Any) -> None:
        path = scope["path"] if scope["type"] == "http" else ""
        await (stub if path == PATH or path.startswith(PATH + "/") else app)(scope, receive, send)

    return answered


def _json(shown: Any, status: int = 200) -> Response[bytes]:
    headers = {"request-id": "req_pretend"}
    return Response(
        msgspec.json.encode(shown), status_code=status, headers=headers, media_type="application/json"
    )


def _sent_to(url: str) -> Response[bytes]:
    return Response(b"", status_code=303, headers={"location": url, "cache-control": "no-store"})


def _nested(form: str) -> Json:
    """A form as Stripe's SDKs write it: ``line_items[0][price]=...``."""
    flat: list[tuple[list[str], str]] = []
    for name, value in parse_qsl(form, keep_blank_values=True, max_num_fields=1_000):
        if found := _NAME.fullmatch(name):
            flat.append(([found[1], *re.findall(r"\[([A-Za-z0-9_]*)\]", found[2])], value))
    whole: Json = {}
    for names, value in flat:
        at = whole
        for name in names[:-1]:
            at = at.setdefault(name, {})
            if not isinstance(at, dict):
                raise No(400, "parameter_invalid", f"{names[0]} is two things at once")
        at[names[-1]] = value
    return {name: _listed(value) for name, value in whole.items()}


def _listed(value: Any) -> Any:
    """What is numbered from 0 on is a list."""
    if not isinstance(value, Mapping):
        return value
    inner = {name: _listed(one) for name, one in value.items()}
    if inner and list(inner) == [str(place) for place in range(len(inner))]:
        return list(inner.values())
    return inner


@cache
def _template() -> jinja2.Template:
    pages = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    pages.filters |= {"time": _when, "money": _money}
    return pages.from_string(_file("stripe.html"))


def _when(at: int | None) -> str:
    return "" if at is None else f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M} UTC"


def _money(it: Json, field: str = "unit_amount") -> str:
    return f"{Decimal(it[field]).scaleb(-2):,.2f} {it['currency'].upper()}"


def _file(name: str) -> str:
    return (files("distribu.entrypoints.stubs") / name).read_text()
