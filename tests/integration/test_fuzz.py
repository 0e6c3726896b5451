"""The HTTP door under fire: whatever is sent, it answers in its own words and never breaks."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from distribu import ContactRole, Distribu, Refused, Role, Shop
from distribu.application import views
from distribu.application.fields import UUID_PATTERN
from distribu.application.kernel import Command, Request
from distribu.domain.errors import CODES
from distribu.entrypoints.harness import KEYS
from distribu.entrypoints.http import reference, wire
from distribu.entrypoints.http.browser import Site
from distribu.entrypoints.http.reference import PEOPLE, openapi
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.serve import listening
from distribu.entrypoints.http.sessions import Sessions
from distribu.entrypoints.http.wire import Route
from tests import people
from tests.unit.test_http import ABSENT, CHANGING, World, full_body, route_id

EXAMPLES = 8
"""Requests for each route and way of making them up: about half a minute for all."""

GIVEN_UP = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]

bounded = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=GIVEN_UP,
)


@pytest.fixture(scope="module")
async def url(distribu: Distribu) -> AsyncIterator[str]:
    async with listening(distribu, "127.0.0.1", 0, site=Site(trusted=OURSELVES), keys=KEYS) as url:
        yield url


OURSELVES = (ip_network("127.0.0.0/8"),)
ADDRESSES = (f"2001:db8:bbbb:{n:x}::1" for n in itertools.count(1))
SCHEMA = schemathesis.openapi.from_dict(openapi())
SCHEMA_OF_PEOPLE = schemathesis.openapi.from_dict(openapi(PEOPLE))


def takes_something(route: Route) -> bool:
    known = wire.plan(route.request)
    return bool(known.body or known.path) or issubclass(route.request, Command)


DOORS = [
    pytest.param(prefix, route, mode, id=f"{PEOPLE.id(prefix, route)}-{mode.value}")
    for _, prefix, routes in PEOPLE.doors
    for route in routes
    for mode in GenerationMode
    # What takes nothing cannot be asked wrongly.
    if route.request not in {it.request for it in ROUTES}
    and (mode is GenerationMode.POSITIVE or takes_something(route))
]


def in_our_words(response: Any) -> None:
    """An error has the one shape that errors have, whoever refuses."""
    if response.status_code < 400:
        return
    body = json.loads(response.content)
    assert set(body) - {"fields", "retryAfter"} == {"error", "code", "requestId"}
    assert body["code"] in CODES
    assert all(
        isinstance(name, str) and isinstance(text, str) for name, text in body.get("fields", {}).items()
    )


def aimed(value: Any, ids: dict[str, str]) -> Any:
    """A value with ids of things that are there, so that a request gets past the first look-up."""
    match value:
        case dict():
            return {name: ids[name] if name in ids else aimed(item, ids) for name, item in value.items()}
        case list():
            return [aimed(item, ids) for item in value]
        case _:
            return value


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("route", ROUTES, ids=route_id)
async def test_what_the_document_suggests(route: Route, mode: GenerationMode, url: str, shop: Shop) -> None:
    world = await World.of(shop)
    ids = {
        "productId": world.product.id,
        "customerId": world.customer.id,
        "orderId": world.order.id,
        "webhookId": world.webhook.id,
        "deliveryId": world.delivery_id,
    }
    headers = {"authorization": f"Bearer {await shop.key()}"}
    operation = SCHEMA[reference.shown_path(route)][route.method]
    answers = 0

    @seed(1)
    @bounded
    @given(case=operation.as_strategy(generation_mode=mode), there=st.booleans())
    def ask(case: Any, there: bool) -> None:
        nonlocal answers
        if there:
            case.path_parameters = aimed(case.path_parameters, ids)
            case.body = aimed(case.body, ids)
        response = case.call(base_url=url, headers=headers)
        checks = [not_a_server_error, content_type_conformance, response_schema_conformance]
        # What is no such request at all may be told so in words that belong to no route.
        checks += [status_code_conformance] if mode is GenerationMode.POSITIVE else []
        case.validate_response(response, checks=checks, excluded_checks=[])
        in_our_words(response)
        answers += 1

    await asyncio.to_thread(ask)
    assert answers


@pytest.mark.parametrize(("prefix", "route", "mode"), DOORS)
async def test_what_the_document_of_people_suggests(
    prefix: str, route: Route, mode: GenerationMode, url: str, distribu: Distribu, shop: Shop
) -> None:
    """Asked by whoever gets furthest there: an owner who runs the platform too, or a customer's admin."""
    contact = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
    owner = await people.staff(shop, Role.OWNER, super_admin=True)
    at_store = "{slug}" in prefix
    slug = shop.company.slug
    sessions = Sessions(distribu, KEYS, production=False)
    session = contact.session if at_store else owner.session
    cookie = sessions.begun(session, slug if at_store else None).partition(";")[0]
    assert owner.member is not None
    ids = {
        "slug": slug,
        "companyId": shop.company.id,
        "customerId": contact.contact.customer_id,
        "contactId": contact.contact.id,
        "memberId": owner.member.id,
        "sessionId": session.id,
    }
    operation = SCHEMA_OF_PEOPLE[reference.shown_path(route, prefix)][route.method]
    answers = 0

    @seed(1)
    @settings(bounded, max_examples=4)
    @given(case=operation.as_strategy(generation_mode=mode), there=st.booleans())
    def ask(case: Any, there: bool) -> None:
        nonlocal answers
        if there:
            case.path_parameters = aimed(case.path_parameters, ids)
            case.body = aimed(case.body, ids)
        headers = {"cookie": cookie, "sec-fetch-site": "same-origin", "x-forwarded-for": next(ADDRESSES)}
        response = case.call(base_url=url, headers=headers)
        checks = [not_a_server_error, content_type_conformance, response_schema_conformance]
        checks += [status_code_conformance] if mode is GenerationMode.POSITIVE else []
        case.validate_response(response, checks=checks, excluded_checks=[])
        in_our_words(response)
        answers += 1

    await asyncio.to_thread(ask)
    assert answers


class Received:
    """As much of an HTTP request as the decoder looks at."""

    def __init__(self, body: bytes, query: bytes, headers: dict[str, str], path: dict[str, str]) -> None:
        self.headers = headers
        self.path_params = path
        self.scope = {"query_string": query}
        self._body = body

    async def body(self) -> bytes:
        return self._body


def decoded(route: Route, http: Any) -> Request[Any] | None:
    """The request, or None when it was refused; whatever else is raised is a bug.

    Nothing is waited for, but a body has its time: to be called where a loop runs.
    """
    asking = wire.asked(route, http)
    try:
        asking.send(None)
    except StopIteration as done:
        found: Request[Any] = done.value
        return found
    except Refused as refusal:
        told(refusal)
        return None
    raise AssertionError("the decoder waited for something")


def told(refusal: Refused) -> None:
    """A refusal can be told, and is not longer for what it refuses."""
    answer = wire.refused(refusal, "id")
    assert answer.status_code in (400, 404, 412, 415)
    assert len(answer.content) < 10_000
    in_our_words(answer)


IDS = dict.fromkeys(("product_id", "customer_id", "order_id", "webhook_id", "delivery_id"), ABSENT)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)


@st.composite
def spoilt(draw: st.DrawFn, body: Any) -> bytes:
    """A body that was right, with some of its bytes exchanged."""
    text = json.dumps(body).encode()
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, min(len(text), start + 8)))
        text = text[:start] + draw(st.binary(max_size=8)) + text[end:]
    return text


@st.composite
def replaced(draw: st.DrawFn, body: Any) -> bytes:
    """A body that was right, with something else in one of its fields."""
    changed = dict(body)
    if changed:
        changed[draw(st.sampled_from(sorted(changed)))] = draw(ANYTHING)
    return json.dumps(changed).encode()


thorough = settings(bounded, max_examples=60)


@pytest.mark.parametrize("route", CHANGING, ids=route_id)
async def test_no_bytes_break_the_decoder(route: Route) -> None:
    right = full_body(route)
    bodies = st.binary() | ANYTHING.map(lambda it: json.dumps(it).encode()) | spoilt(right) | replaced(right)

    @thorough
    @given(body=bodies, if_match=st.none() | st.text(), kind=st.just("application/json") | st.text())
    def ask(body: bytes, if_match: str | None, kind: str) -> None:
        headers = {"content-type": kind} | ({} if if_match is None else {"if-match": if_match})
        request = decoded(route, Received(body, b"", headers, IDS))
        if request is not None:
            # What is let in can be written down, and is the same when it is read again.
            again = msgspec.json.decode(views.encode(request), type=route.request)
            assert again == request

    ask()


@pytest.mark.parametrize("route", [one for one in ROUTES if one.method == "GET"], ids=route_id)
def test_no_query_breaks_the_decoder(route: Route) -> None:
    names = sorted(wire.plan(route.request).body) or ["limit"]
    pairs = st.lists(st.tuples(st.sampled_from(names), st.text() | st.floats().map(str)), max_size=4)
    queries = st.binary() | pairs.map(lambda them: urlencode(them, errors="replace").encode())

    @thorough
    @given(query=queries)
    def ask(query: bytes) -> None:
        request = decoded(route, Received(b"", query, {}, IDS))
        if request is not None:
            assert getattr(request, "limit", 1) in range(1, 101)

    ask()


@thorough
@given(route=st.sampled_from(ROUTES), text=st.text() | st.from_regex(UUID_PATTERN))
async def test_no_path_breaks_the_decoder(route: Route, text: str) -> None:
    request = decoded(route, Received(b"{}", b"", {}, dict.fromkeys(IDS, text)))
    if request is not None and wire.plan(route.request).path:
        assert len(text) == 36
