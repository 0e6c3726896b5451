"""No card data: no column, no field and no page has a place for it, and a number that is sent is not kept.

The number is sent in every text of every route over HTTP on PostgreSQL; then every row of every table is
looked through.
"""

import copy
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Final

import httpx
import psycopg
import pytest

from distribu import Distribu
from distribu.application import fields
from distribu.domain.access import Permission
from distribu.entrypoints.http import reference, schemas
from distribu.entrypoints.http.reference import API, PEOPLE, openapi
from distribu.entrypoints.http.serve import listening
from distribu.entrypoints.http.wire import Route
from tests.integration.test_authorization import DOORS, Cast, Doors, bodies, cast, doors, shown
from tests.integration.test_claims import holding, root
from tests.stubs.stripe import stripe

__all__ = ["doors", "root"]

NUMBER: Final = "4000056655665556"
GROUPED: Final = "4000 0566 5566 5556"
JSON: Final = "application/json"

CARD_DATA: Final = re.compile(
    r"(?:^|[_-])(?:card|pan|cvc|cvv|csc|cid|cardholder|cc|(?:exp|expiry|expiration)(?:[_-]?(?:month|year|date))?"
    r"|track[12]?|pin)(?:$|[_-])",
)
"""What a place for any of it would be called: PCI DSS 4.0, table 3, and the names of HTML's autocomplete."""


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


@pytest.mark.parametrize(
    "name",
    ["card", "card_number", "cardNumber", "pan", "cvc", "customerCvv", "cc-exp", "exp_month", "expiryDate"],
)
def test_a_place_for_card_data_is_known_by_its_name(name: str) -> None:
    assert CARD_DATA.search(snake(name))


def test_no_column_of_any_table_is_for_it(root: "psycopg.Connection[Any]") -> None:
    found = root.execute(
        "SELECT table_schema, table_name, column_name FROM information_schema.columns"
        " WHERE table_schema NOT IN ('information_schema', 'pg_catalog')"
    ).fetchall()
    assert len(found) > 200
    assert [row for row in found if any(CARD_DATA.search(name) for name in row[1:])] == []


def names(document: Any) -> Iterator[str]:
    """The name of every field, parameter and header that a document tells of."""
    match document:
        case {"in": str(), "name": str(name)}:
            yield name
        case {"properties": dict(given)}:
            yield from given
    if isinstance(document, dict | list):
        for one in document.values() if isinstance(document, dict) else document:
            yield from names(one)


@pytest.mark.parametrize("of", [API, PEOPLE], ids=["API", "people"])
def test_no_field_of_any_document_is_for_it(of: Any) -> None:
    told = set(names(openapi(of)))
    assert len(told) > 50
    assert {name for name in told if CARD_DATA.search(snake(name))} == set()


def templates(folder: Traversable) -> Iterator[Traversable]:
    for one in folder.iterdir():
        if one.is_dir():
            yield from templates(one)
        elif one.name.endswith((".html", ".txt")):
            yield one


FIELD: Final = re.compile(
    r"<(?:input|select|textarea|script)\b|<iframe[^>]*\bsrc=[^>]*//|contenteditable|autocomplete",
    re.IGNORECASE,
)


def test_no_page_and_no_mail_has_a_field_of_any_kind() -> None:
    found = [*templates(files("distribu"))]
    assert len(found) > 20
    assert [one.name for one in found if FIELD.search(one.read_text())] == []


async def test_no_page_that_is_served_has_one(distribu: Distribu) -> None:
    async with stripe() as (stub, pay), listening(distribu, "127.0.0.1", 0) as url:
        asked = {"mode": "subscription", "line_items": [{"price": "price_growth_month"}]}
        asked |= {"success_url": "http://a.example", "cancel_url": "http://a.example"}
        session = stub.stripe.checkout(asked)["id"]
        portal = stub.stripe.portal({"customer": stub.stripe.pay(session)["customer"]})["url"]
        checkout = stub.stripe.checkout(asked)["url"]
        pages = [url + path for path in ("/", "/api/v1/docs", "/auth/docs", "/security")]
        async with httpx.AsyncClient() as browser:
            for page in (*pages, pay, checkout, portal):
                answer = await browser.get(page)
                assert answer.status_code == 200, page
                assert not FIELD.search(answer.text), page


# --- a number that is sent -------------------------------------------------------------------


Place = tuple[str | int, ...]


def texts(schema: Any, components: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every text that a schema takes, and its own schema."""
    match schema:
        case {"$ref": str(ref)}:
            yield from texts(components[ref.rpartition("/")[2]], components, place)
        case {"anyOf": parts} | {"allOf": parts}:
            for part in parts:
                yield from texts(part, components, place)
        case {"type": "string"}:
            yield place, schema
        case {"type": "array", "items": items}:
            yield from texts(items, components, (*place, 0))
        case {"properties": given}:
            for name, part in given.items():
                yield from texts(part, components, (*place, name))
        case {"type": "object"}:
            yield (*place, "note"), {}


def free(schema: Mapping[str, Any]) -> bool:
    """Whether a number fits into a text: then its being one of a card is all that is wrong with it."""
    special = {"enum", "format", "pattern"} & schema.keys()
    return not special and schema.get("maxLength", 99) >= len(NUMBER)


def put(body: Any, place: Place, value: str) -> Any:
    """A body with a value somewhere in it."""
    body = copy.deepcopy(body)
    at = body
    for step in place[:-1]:
        at = at[step]
    at[place[-1]] = value
    return body


def usual(cast: Cast, route: Route, operation: Mapping[str, Any], components: Any) -> Any:
    """All that a route takes, and of what it has to find, what is there."""
    if "requestBody" not in operation:
        return None
    name = route.request.__name__
    whole = schemas.example(operation["requestBody"]["content"][JSON]["schema"], components)
    found = aimed(whole, {"customerId": cast.ids["customer_id"], "productId": cast.ids["product_id"]})
    return found | (cast.world.body(name) or bodies(cast).get(name) or {})


def aimed(value: Any, ids: Mapping[str, str]) -> Any:
    match value:
        case dict():
            return {name: ids.get(name) or aimed(item, ids) for name, item in value.items()}
        case list():
            return [aimed(item, ids) for item in value]
        case _:
            return value


DOCUMENTS: Final = (openapi(PEOPLE), openapi(API))
WHO: Final = {
    "/api/v1": "key with the scope",
    "/auth": "nobody",
    "/account": "OWNER",
    "/store/{slug}": "contact ADMIN",
    "/api/admin": "super-admin",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Somebody who may ask a route."""

    stage: Cast
    doors: Doors
    door: str
    route: Route
    client: httpx.AsyncClient

    async def __call__(self, url: str, body: Any, **more: str) -> httpx.Response:
        whose = (
            "half-signed-in MEMBER"
            if self.route.request.needs is Permission.SECOND_FACTOR
            else WHO[self.door]
        )
        who = await shown(whose, self.stage, self.route, self.door, self.doors)
        assert who is not None
        headers = {"content-type": JSON, **who, **self.doors.from_elsewhere(), **more}
        content = None if body is None else json.dumps(body).encode()
        answer = await self.client.request(self.route.method, url, content=content, headers=headers)
        assert answer.status_code < 500, answer.text
        assert not any(number in answer.text for number in (NUMBER, GROUPED))
        return answer


async def plant_everywhere(asked: Asking) -> int:
    """Send the number in every place that a route has. Returns how many texts refused it for what it is."""
    stage, door, route, seen = asked.stage, asked.door, asked.route, 0
    document = DOCUMENTS[door == "/api/v1"]
    path = reference.shown_path(route, door)
    operation, components = document["paths"][path][route.method.lower()], document["components"]["schemas"]
    body = usual(stage, route, operation, components)
    url = asked.doors.url + (door + route.path).replace(":str}", "}").format(**stage.ids)
    for place, schema in texts(_schema(operation), components) if body is not None else ():
        number = (NUMBER, f"my card: {GROUPED} 737")[seen % 2]
        answer = await asked(url, put(body, place, number))
        if free(schema) and len(number) <= schema.get("maxLength", 99):
            assert (answer.status_code, answer.json()["code"]) == (400, "card_number"), (place, answer.text)
            seen += 1
        else:
            assert not answer.is_success or schema.get("format") == "password", (place, answer.text)
    for one in operation.get("parameters", []):
        name, schema = one["name"], one["schema"]
        if one["in"] == "query" and any(part for _, part in texts(schema, components)):
            answer = await asked(f"{url}?{name}={NUMBER}", body)
            assert not answer.is_success or name == "limit", (name, answer.text)
        if one["in"] == "header":
            await asked(url, body, **{name: NUMBER})
    hidden = {
        "user-agent": f"Browser {NUMBER}",
        "referer": f"https://x.example/{NUMBER}",
        "x-request-id": NUMBER,
    }
    await asked(url, body, **hidden)
    for name in re.findall(r"{(\w+)(?::str)?}", door + route.path):
        here = (door + route.path).replace(":str}", "}").format(**{**stage.ids, name: NUMBER})
        assert not (await asked(asked.doors.url + here, body)).is_success
    return seen


@pytest.mark.parametrize(("door", "routes"), [(door, routes) for _, door, routes, _ in DOORS], ids=WHO)
async def test_a_number_in_any_text_of_any_route_is_refused_and_kept_nowhere(
    distribu: Distribu,
    doors: Doors,
    door: str,
    routes: Sequence[Route],
    root: "psycopg.Connection[Any]",
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "distribu")
    refused, stage = 0, await cast(distribu)
    async with httpx.AsyncClient(timeout=30) as client:
        for route in routes:
            asked = Asking(stage=stage, doors=doors, door=door, route=route, client=client)
            refused += await plant_everywhere(asked)
            if route.method != "GET":  # whoever signed out or was removed is there again
                stage = await cast(distribu)
    assert refused >= {"/api/admin": 2}.get(door, 10)
    ours = [one.getMessage() for one in caplog.records if one.name.startswith("distribu")]
    for number in (NUMBER, GROUPED):
        assert holding(root, number) == set()
        assert [line for line in ours if number in line] == []


def _schema(operation: Mapping[str, Any]) -> Any:
    return operation["requestBody"]["content"][JSON]["schema"]


async def test_where_it_were_let_in_it_would_be_found(
    distribu: Distribu, root: "psycopg.Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "4000002500003155"
    monkeypatch.setattr(fields, "holds_card", lambda text: False)
    await (await cast(distribu)).world.shop.product(f"Canary {other}")
    assert "products" in holding(root, other)
