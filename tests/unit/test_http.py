"""The HTTP door: what a client of the API can rely on, in memory; `tests/integration` runs it all again."""

import asyncio
import json
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any, Self

import httpx
import jsonschema_rs
import msgspec
import pytest

from distribu import Distribu, Harness, Shop, amount, http_app
from distribu.adapters.memory.store import MemoryStore
from distribu.adapters.memory.twins import MovedClock
from distribu.application import views
from distribu.application.access import CreateApiKey, ListApiKeys, RevokeApiKey
from distribu.application.customers import NewAddress, SetPriceOverride
from distribu.application.delivering import Envelope
from distribu.application.kernel import Command, Request
from distribu.application.team import EditCompany
from distribu.application.webhooks import EditWebhook, ListDeliveries
from distribu.domain.access import SCOPES, Actor, Permission
from distribu.domain.catalog import Product
from distribu.domain.customers import Customer
from distribu.domain.errors import CODES
from distribu.domain.ordering import Order
from distribu.domain.values import Secret
from distribu.domain.webhooks import Webhook, WireEvent, signature
from distribu.entrypoints.http import reference, schemas, wire
from distribu.entrypoints.http.cookies import staff_cookie
from distribu.entrypoints.http.reference import openapi
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.wire import BODY_MAX, Route

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
JSON = {"content-type": "application/json"}

READING = tuple(scope for scope in SCOPES if scope.endswith(":read"))
CHANGING = tuple(route for route in ROUTES if route.method != "GET")


def route_id(route: Route) -> str:
    return f"{route.method} {route.path}".replace(":str", "")


def refusal(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error, which has the one shape that errors have."""
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, answer.text
    assert set(body) - {"fields", "retryAfter"} == {"error", "code", "requestId"}
    assert isinstance(body["error"], str)
    assert body["error"]
    assert UUID.fullmatch(body["requestId"])
    assert answer.headers["x-request-id"] == body["requestId"]
    assert answer.headers["content-type"] == "application/json"
    assert body["code"] in CODES
    return body


def without_id(answer: httpx.Response) -> tuple[int, bytes, dict[str, str]]:
    """An answer to compare with another, to the byte, but for what tells requests apart."""
    request_id = answer.headers["x-request-id"]
    headers = {name: value for name, value in answer.headers.items() if name != "x-request-id"}
    return answer.status_code, answer.content.replace(request_id.encode(), b"(id)"), headers


def data(answer: httpx.Response, status: int = 200) -> Any:
    """What an answer holds, which has the one shape that answers have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert UUID.fullmatch(answer.headers["x-request-id"])
    body = answer.json()
    assert set(body) == ({"data", "pagination"} if isinstance(body["data"], list) else {"data"})
    return body["data"]


async def later(shop: Shop, seconds: float) -> None:
    """Let time pass, by whichever clock the shop has."""
    clock = shop.distribu.ports.clock
    if isinstance(clock, MovedClock):
        clock.advance(seconds=seconds)
    else:
        await asyncio.sleep(seconds)


@dataclass(frozen=True)
class World:
    """One company with one of everything that the API shows."""

    shop: Shop
    product: Product
    customer: Customer
    order: Order
    webhook: Webhook
    delivery_id: str

    @classmethod
    async def of(cls, shop: Shop) -> Self:
        product = await shop.product(sku="OAT-25", price="12.50", category="Flour")
        customer = await shop.customer(
            name="Corner Shop", addresses=(NewAddress(line1="12 High Street", city="Leeds", country="GB"),)
        )
        await shop.execute(
            SetPriceOverride(customer_id=customer.id, product_id=product.id, price=product.price)
        )
        webhook, _ = await shop.webhook(WireEvent.ORDER_CREATED)
        order = await shop.order(customer, (product, 2))
        now = shop.distribu.ports.clock.now
        while await shop.distribu.ports.queue.relay(limit=1000, now=now()):
            pass
        # What is not active is claimed by no worker: on a shared database this leaves nothing to do.
        webhook = await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=False))
        (delivery,) = (await shop.execute(ListDeliveries(webhook_id=webhook.id))).items
        return cls(shop, product, customer, order, webhook, delivery.id)

    @property
    def ids(self) -> dict[str, str]:
        """What stands for the parameters of a path."""
        return {
            "product_id": self.product.id,
            "customer_id": self.customer.id,
            "order_id": self.order.id,
            "webhook_id": self.webhook.id,
            "delivery_id": self.delivery_id,
        }

    def path(self, route: Route, at: Mapping[str, str] | None = None) -> str:
        """A route's path; ``at`` says where it is not of what is in this world."""
        return route.path.replace(":str}", "}").format(**{**self.ids, **(at or {})})

    def body(self, request: str) -> dict[str, Any] | None:
        """A body that is accepted, for a request by its name; None when it takes none."""
        items = [{"productId": self.product.id, "quantity": 1}]
        bodies: dict[str, dict[str, Any]] = {
            "CreateProduct": {"name": "Rye Flour", "price": 9.99, "sku": "RYE", "stock": 3},
            "EditProduct": {"name": "Oat Flour 25 kg"},
            "AdjustStock": {"quantity": 5, "reason": "RECEIVED"},
            "CreateCustomer": {"email": "new@corner-shop.example"},
            "EditCustomer": {"name": "The Corner Shop"},
            "SetPriceOverride": {"price": 7.25},
            "PlaceOrder": {"customerId": self.customer.id, "items": items},
            "PreviewOrder": {"customerId": self.customer.id, "items": items},
            "MoveOrder": {"status": "CONFIRMED"},
            "RecordPayment": {"amount": 1, "method": "CASH"},
            "RegisterWebhook": {"url": "https://hooks.corner-shop.example/", "events": ["order.created"]},
            "EditWebhook": {"events": ["product.created"]},
            "ReplayDeliveries": {"since": "2020-01-01T00:00:00Z"},
        }
        return bodies.get(request)

    async def ask(
        self,
        api: httpx.AsyncClient,
        route: Route,
        at: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        """Send a route something that it accepts."""
        body = self.body(route.request.__name__)
        content = None if body is None else json.dumps(body).encode()
        send = {**JSON, **(headers or {})}
        return await api.request(route.method, self.path(route, at), content=content, headers=send)


class Door:
    """A company, and a client that may do anything in it."""

    @pytest.fixture
    async def api(self, shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
        async with await shop.api() as api:
            yield api

    @pytest.fixture
    async def world(self, shop: Shop) -> World:
        return await World.of(shop)


class TestAnswers(Door):
    async def test_a_product(self, shop: Shop, api: httpx.AsyncClient) -> None:
        answer = await api.post("/products", json={"name": "Oat Flour", "price": 12.5, "stock": 4})
        made = data(answer, 201)
        assert list(made) == [
            "id", "sku", "name", "description", "category", "unit", "price", "stock", "lowStockThreshold",
            "isActive", "imageUrl", "createdAt", "updatedAt",
        ]  # fmt: skip
        assert UUID.fullmatch(made["id"])
        assert TIME.fullmatch(made["createdAt"])
        assert TIME.fullmatch(made["updatedAt"])
        assert '"price":12.50,' in answer.text, "a number, with both of its places"
        assert (made["unit"], made["stock"], made["lowStockThreshold"]) == ("each", 4, 5)
        assert data(await api.get(f"/products/{made['id']}")) == made

    async def test_a_customer(self, world: World, api: httpx.AsyncClient) -> None:
        seen = data(await api.get(f"/customers/{world.customer.id}"))
        assert set(seen) == {
            "id", "email", "name", "status", "notes", "creditLimit", "creditUsed", "taxRateOverride",
            "emailVerified", "paymentTermsDays", "addresses", "createdAt", "updatedAt", "priceOverrides",
        }  # fmt: skip
        assert set(seen["addresses"][0]) == {
            "id", "name", "line1", "line2", "city", "region", "postalCode", "country", "phone", "isDefault",
        }  # fmt: skip
        assert [one["productId"] for one in seen["priceOverrides"]] == [world.product.id]

    async def test_an_order(self, world: World, api: httpx.AsyncClient) -> None:
        answer = await api.get(f"/orders/{world.order.id}")
        seen = data(answer)
        assert set(seen) == {
            "id", "number", "status", "customerId", "poNumber", "notes", "source", "subtotal", "tax",
            "shipping", "total", "paid", "balance", "paymentStatus", "currency", "shippingAddress", "carrier",
            "trackingNumber", "items", "placedAt", "createdAt", "updatedAt",
        }  # fmt: skip
        assert set(seen["items"][0]) == {
            "id", "productId", "productName", "productSku", "quantity", "unitPrice",
        }  # fmt: skip
        assert (seen["number"], seen["status"], seen["paymentStatus"]) == (1001, "SUBMITTED", "UNPAID")
        for part in ('"subtotal":25.00', '"tax":0.00', '"total":25.00', '"unitPrice":12.50'):
            assert part in answer.text

    async def test_payments(self, world: World, api: httpx.AsyncClient) -> None:
        path = f"/orders/{world.order.id}/payments"
        assert data(await api.get(path)) == []
        paying = {"amount": 12.5, "method": "TRANSFER", "reference": "TRF-2201"}
        data(await api.post(path, json=paying), 201)
        data(await api.post(path, json={"amount": 1, "method": "CASH"}), 201)
        answer = await api.get(path)
        cash, transfer = data(answer)
        assert list(transfer) == ["id", "orderId", "amount", "method", "reference", "createdAt"]
        assert '"amount":12.50,' in answer.text
        assert {**transfer, **paying, "orderId": world.order.id} == transfer
        assert TIME.fullmatch(transfer["createdAt"])
        assert (cash["amount"], cash["method"], cash["reference"]) == (1, "CASH", "")
        first = (await api.get(path, params={"limit": 1})).json()
        assert first == {"data": [cash], "pagination": {"hasMore": True, "nextCursor": cash["id"]}}
        assert data(await api.get(path, params={"cursor": cash["id"]})) == [transfer]

    async def test_a_webhook_shows_its_secret_once(self, api: httpx.AsyncClient) -> None:
        body = {"url": "https://hooks.corner-shop.example/", "events": ["order.created"]}
        made = data(await api.post("/webhooks", json=body), 201)
        assert made["secret"].startswith("whsec_")
        seen = data(await api.get(f"/webhooks/{made['id']}"))
        assert set(seen) == {
            "id", "url", "events", "isActive", "secretRotationGraceExpiresAt", "createdAt", "updatedAt",
        }  # fmt: skip
        rotated = data(await api.post(f"/webhooks/{made['id']}/rotate-secret"))
        assert rotated["secret"].startswith("whsec_")
        assert rotated["secret"] != made["secret"]
        assert TIME.fullmatch(rotated["secretRotationGraceExpiresAt"])

    async def test_who_a_key_is(self, shop: Shop) -> None:
        async with await shop.api(Permission.ORDERS_READ, Permission.PRODUCTS_READ) as api:
            assert data(await api.get("/me")) == {
                "companyId": shop.company.id,
                "companyName": shop.company.name,
                "companySlug": shop.company.slug,
                "keyName": "test key",
                "scopes": ["orders:read", "products:read"],
            }

    async def test_nothing_is_said_when_something_is_gone(self, world: World, api: httpx.AsyncClient) -> None:
        answer = await api.delete(f"/products/{world.product.id}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert UUID.fullmatch(answer.headers["x-request-id"])
        refusal(await api.get(f"/products/{world.product.id}"), 404, "product_not_found")

    async def test_every_route_answers_as_it_is_documented(
        self, world: World, api: httpx.AsyncClient
    ) -> None:
        document = openapi()
        for route in sorted(ROUTES, key=lambda one: one.method == "DELETE"):
            answer = await world.ask(api, route)
            assert answer.status_code == route.status, (route_id(route), answer.text)
            operation = document["paths"][reference.shown_path(route)][route.method.lower()]
            promised = operation["responses"][str(route.status)]
            if route.status == 204:
                assert "content" not in promised
                continue
            valid(promised["content"]["application/json"]["schema"], answer.json(), route_id(route))

    async def test_attempts_are_shown_with_their_delivery_and_not_in_lists(
        self, world: World, api: httpx.AsyncClient
    ) -> None:
        listed = data(await api.get(f"/webhooks/{world.webhook.id}/deliveries"))[0]
        assert "attempts" not in listed
        detail = data(await api.get(f"/deliveries/{listed['id']}"))
        attempts = detail.pop("attempts")
        assert isinstance(attempts, list)
        assert detail == listed

    async def test_requests_have_ids_of_their_own(self, api: httpx.AsyncClient) -> None:
        ids = {(await api.get("/me")).headers["x-request-id"] for _ in range(5)}
        assert len(ids) == 5

    async def test_a_preview_changes_nothing(self, world: World, api: httpx.AsyncClient) -> None:
        body = {"customerId": world.customer.id, "items": [{"productId": world.product.id, "quantity": 500}]}
        seen = data(await api.post("/orders/preview", json=body))
        assert [no["code"] for no in seen["refusals"]] == ["insufficient_stock"]
        assert data(await api.get(f"/products/{world.product.id}"))["stock"] == 98

    async def test_a_preview_says_where_it_would_be_refused_as_the_order_itself_does(
        self, shop: Shop, world: World, api: httpx.AsyncClient
    ) -> None:
        hidden, fine = await shop.product(is_active=False), await shop.product()
        wanted = ((fine, 1), (world.product, 500), (hidden, 1), (world.product, 1))
        items = [{"productId": product.id, "quantity": count} for product, count in wanted]
        body = {"customerId": world.customer.id, "items": items}
        seen = data(await api.post("/orders/preview", json=body))["refusals"]
        stock, gone = {"items[1].quantity": "only 98 left"}, {"items[2].productId": "is not available"}
        assert [(no["code"], no["fields"]) for no in seen] == [
            ("insufficient_stock", stock),
            ("product_unavailable", gone),
        ]
        said = refusal(await api.post("/orders", json=body), 422, "insufficient_stock")
        assert said["fields"] == stock | gone
        assert said["error"] == seen[0]["error"]
        await shop.execute(EditCompany(order_minimum=amount("1000")))
        body = {"customerId": world.customer.id, "items": items[:1]}
        (small,) = data(await api.post("/orders/preview", json=body))["refusals"]
        assert (small["code"], small["fields"]) == ("order_below_minimum", {})


def valid(schema: dict[str, Any], value: Any, where: str) -> None:
    """Whether a value is what the document says it is."""
    whole = {**schema, "components": openapi()["components"]}
    problems = [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in jsonschema_rs.Draft202012Validator(whole).iter_errors(value)
    ]
    assert problems == [], where


class TestLists(Door):
    async def test_newest_first_page_by_page(self, shop: Shop, api: httpx.AsyncClient) -> None:
        made = [(await shop.product(f"Product {number}")).id for number in range(7)]
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 3}
        sizes = []
        while True:
            answer = await api.get("/products", params=query)
            page = data(answer)
            seen += [one["id"] for one in page]
            sizes.append(len(page))
            pagination = answer.json()["pagination"]
            assert set(pagination) == {"hasMore", "nextCursor"}
            if not pagination["hasMore"]:
                assert pagination["nextCursor"] is None
                break
            assert pagination["nextCursor"] == page[-1]["id"]
            query["cursor"] = pagination["nextCursor"]
        assert seen == made[::-1]
        assert sizes == [3, 3, 1]

    async def test_the_last_page_may_be_full(self, shop: Shop, api: httpx.AsyncClient) -> None:
        for _ in range(2):
            await shop.product()
        answer = await api.get("/products?limit=2")
        assert answer.json()["pagination"] == {"hasMore": False, "nextCursor": None}

    async def test_how_many_come(self, shop: Shop, api: httpx.AsyncClient) -> None:
        for _ in range(101):
            await shop.product()
        sizes = {
            asked: len(data(await api.get(f"/products{asked}")))
            for asked in (
                "", "?limit=", "?limit=abc", "?limit=1.5", "?limit=1e1", "?limit=NaN", "?limit=%00",
                "?limit=0", "?limit=-7", "?limit=1", "?limit=100", "?limit=101",
                "?limit=99999999999999999999",
            )
        }  # fmt: skip
        assert sizes == {
            "": 50, "?limit=": 50, "?limit=abc": 50, "?limit=1.5": 50, "?limit=1e1": 50, "?limit=NaN": 50,
            "?limit=%00": 50, "?limit=0": 1, "?limit=-7": 1, "?limit=1": 1, "?limit=100": 100,
            "?limit=101": 100, "?limit=99999999999999999999": 100,
        }  # fmt: skip

    async def test_nothing_is_a_list_too(self, api: httpx.AsyncClient) -> None:
        answer = await api.get("/orders")
        assert answer.json() == {"data": [], "pagination": {"hasMore": False, "nextCursor": None}}

    async def test_products_are_found(self, shop: Shop, api: httpx.AsyncClient) -> None:
        oat = await shop.product("Oat Flour", sku="OAT-25", category="Flour")
        rye = await shop.product("Rye 100%", sku="RYE_1", category="Flour", is_active=False)
        sugar = await shop.product("Sugar", category="Sweet ÄÖ")
        found = {
            query: [one["id"] for one in data(await api.get(f"/products?{query}"))]
            for query in (
                "category=Flour", "category=flour", "search=flour", "search=OAT-", "search=oat-25",
                "search=sweet", "search=äö", "search=%25", "search=_", "search=nothing", "active=true",
                "active=false", "category=Flour&active=false", "search=flour&limit=1",
            )
        }  # fmt: skip
        assert found == {
            "category=Flour": [rye.id, oat.id],
            "category=flour": [],
            "search=flour": [rye.id, oat.id],
            "search=OAT-": [oat.id],
            "search=oat-25": [oat.id],
            "search=sweet": [sugar.id],
            "search=äö": [sugar.id],
            "search=%25": [rye.id],
            "search=_": [rye.id],
            "search=nothing": [],
            "active=true": [sugar.id, oat.id],
            "active=false": [rye.id],
            "category=Flour&active=false": [rye.id],
            "search=flour&limit=1": [rye.id],
        }

    async def test_customers_are_found(self, shop: Shop, api: httpx.AsyncClient) -> None:
        corner = await shop.customer("orders@corner.example", name="Corner Shop")
        blocked = await shop.customer("blocked@b.example")
        await api.patch(f"/customers/{blocked.id}", json={"status": "BLOCKED"})
        found = {
            query: [one["id"] for one in data(await api.get(f"/customers?{query}"))]
            for query in ("status=BLOCKED", "status=ACTIVE", "status=PENDING", "search=CORNER", "search=@b.")
        }
        assert found == {
            "status=BLOCKED": [blocked.id],
            "status=ACTIVE": [corner.id],
            "status=PENDING": [],
            "search=CORNER": [corner.id],
            "search=@b.": [blocked.id],
        }

    async def test_orders_are_found(self, shop: Shop, api: httpx.AsyncClient) -> None:
        product = await shop.product()
        first, second = await shop.customer(), await shop.customer()
        placed = "2025-03-01T10:00:00.000Z"
        items = [{"productId": product.id, "quantity": 1}]
        body = {"customerId": first.id, "items": items, "placedAt": placed}
        old = data(await api.post("/orders", json=body), 201)["id"]
        new = (await shop.order(second, (product, 1))).id
        data(await api.patch(f"/orders/{new}", json={"status": "CANCELLED"}))
        found = {
            query: [one["id"] for one in data(await api.get(f"/orders?{query}"))]
            for query in (
                "status=SUBMITTED", "status=CANCELLED", "status=SHIPPED", f"customerId={first.id}",
                f"customerId={second.id}", f"since={placed}", "since=2025-03-01T10:00:00.001Z",
                f"until={placed}", "until=2025-03-01T10:00:00.001Z", "since=2025-03-01T11:00:00%2B01:00",
                f"since={placed}&until=2025-03-02T00:00:00Z", f"status=CANCELLED&customerId={first.id}",
            )
        }  # fmt: skip
        assert found == {
            "status=SUBMITTED": [old],
            "status=CANCELLED": [new],
            "status=SHIPPED": [],
            f"customerId={first.id}": [old],
            f"customerId={second.id}": [new],
            f"since={placed}": [new, old],
            "since=2025-03-01T10:00:00.001Z": [new],
            f"until={placed}": [],
            "until=2025-03-01T10:00:00.001Z": [old],
            "since=2025-03-01T11:00:00%2B01:00": [new, old],
            f"since={placed}&until=2025-03-02T00:00:00Z": [old],
            f"status=CANCELLED&customerId={first.id}": [],
        }

    async def test_what_is_no_filter_is_refused(self, api: httpx.AsyncClient) -> None:
        for query, field in (
            ("colour=red", "colour"),
            ("limit=1&limit=2", "limit"),
            ("status=LOST", "status"),
            ("customerId=none", "customerId"),
            ("since=yesterday", "since"),
            ("since=2026-01-01", "since"),
            ("since=2026-01-01T00:00:00", "since"),
            ("until=0001-01-01T00:00:00%2B01:00", "until"),
            ("since=9999-12-31T23:59:59-01:00", "since"),
            ("cursor=1", "cursor"),
        ):
            body = refusal(await api.get(f"/orders?{query}"), 400, "invalid_request")
            assert set(body["fields"]) == {field}, query
        many = "&".join(f"a{number}=1" for number in range(60))
        refusal(await api.get(f"/orders?{many}"), 400, "invalid_request")


class TestKeys(Door):
    async def test_one_text_for_every_reason(self, shop: Shop, api: httpx.AsyncClient) -> None:
        clock = shop.distribu.ports.clock
        soon = await shop.execute(
            CreateApiKey(name="short", scopes=SCOPES, expires_at=clock.now() + timedelta(milliseconds=300))
        )
        gone = await shop.execute(CreateApiKey(name="gone", scopes=SCOPES))
        await shop.execute(RevokeApiKey(api_key_id=gone.what.id))
        key = api.headers.pop("authorization").removeprefix("Bearer ")
        fine = await api.get("/me", headers={"authorization": f"Bearer {soon.secret.reveal()}"})
        assert data(fine)["keyName"] == "short"
        await later(shop, 0.4)
        last = "A" if key[-1] != "A" else "B"
        tried = [
            None,
            "",
            "Bearer",
            "Bearer ",
            f"Basic {key}",
            key,
            f"Bearer {key}x",
            f"Bearer {key[:-1]}",
            f"Bearer {key[:-1]}{last}",
            f"Bearer {key.upper()}",
            f"Bearer {key} {key}",
            "Bearer dk_" + "A" * 43,
            "Bearer dk_" + "A" * 100_000,
            f"Bearer {soon.secret.reveal()}",
            f"Bearer {gone.secret.reveal()}",
        ]
        answers = []
        for header in tried:
            headers = {} if header is None else {"authorization": header}
            answer = await api.get("/me", headers=headers)
            refusal(answer, 401, "unauthenticated")
            answers.append(without_id(answer))
        not_text = await api.get("/me", headers=[(b"authorization", b"Bearer \xff\xfe")])
        answers.append(without_id(not_text))
        assert answers == answers[:1] * len(answers)
        assert answers[0][2]["www-authenticate"] == "Bearer"

    async def test_the_scheme_is_written_as_one_likes(self, api: httpx.AsyncClient) -> None:
        key = api.headers.pop("authorization").removeprefix("Bearer ")
        for scheme in ("Bearer", "bearer", "BEARER"):
            data(await api.get("/me", headers={"authorization": f"{scheme} {key}"}))

    async def test_a_revoked_key_ends_at_once(self, shop: Shop) -> None:
        made = await shop.execute(CreateApiKey(name="ERP", scopes=SCOPES))
        async with await shop.api() as api:
            api.headers["authorization"] = f"Bearer {made.secret.reveal()}"
            data(await api.get("/me"))
            await shop.execute(RevokeApiKey(api_key_id=made.what.id))
            refusal(await api.get("/me"), 401, "unauthenticated")

    async def test_a_key_is_of_one_company(self, shop: Shop) -> None:
        stranger = await shop.stranger()
        theirs = await stranger.product()
        async with await shop.api() as ours, await stranger.api() as others:
            refusal(await ours.get(f"/products/{theirs.id}"), 404, "product_not_found")
            assert data(await others.get(f"/products/{theirs.id}"))["id"] == theirs.id
            assert data(await ours.get("/products")) == []

    async def test_nothing_works_without_its_scope(self, shop: Shop, world: World) -> None:
        keys = {scope: await shop.key(*(one for one in SCOPES if one != scope)) for scope in SCOPES}
        async with await shop.api() as api:
            for route in ROUTES:
                needed = route.request.needs
                if needed is None:
                    continue
                api.headers["authorization"] = f"Bearer {keys[needed]}"
                body = refusal(await world.ask(api, route), 403, "missing_scope")
                assert needed in body["error"], "it says which scope is missing"

    async def test_nothing_needs_more_than_its_scope(self, shop: Shop, world: World) -> None:
        keys = {scope: await shop.key(scope) for scope in SCOPES}
        # Who subscribes to an event, or manages a webhook of it, needs the scope to read that as well.
        reading = Permission.ORDERS_READ, Permission.PRODUCTS_READ
        manager = await shop.key(Permission.WEBHOOKS_WRITE, *reading)
        async with await shop.api() as api:
            for route in sorted(ROUTES, key=lambda one: one.method == "DELETE"):
                needed = route.request.needs or Permission.REPORTS_READ
                key = manager if needed is Permission.WEBHOOKS_WRITE else keys[needed]
                api.headers["authorization"] = f"Bearer {key}"
                answer = await world.ask(api, route)
                assert answer.status_code == route.status, (route_id(route), answer.text)

    async def test_no_reading_key_changes_anything(self, shop: Shop, world: World) -> None:
        keys = [await shop.key(scope) for scope in READING] + [await shop.key(*READING)]
        async with await shop.api() as api:
            before = [
                (await api.get(path)).text for path in ("/products", "/customers", "/orders", "/webhooks")
            ]
            own = api.headers["authorization"]
            for key in keys:
                api.headers["authorization"] = f"Bearer {key}"
                for route in CHANGING:
                    refusal(await world.ask(api, route), 403, "missing_scope")
            api.headers["authorization"] = own
            after = [
                (await api.get(path)).text for path in ("/products", "/customers", "/orders", "/webhooks")
            ]
        assert after == before

    async def test_an_event_takes_the_scope_of_what_it_carries(self, shop: Shop) -> None:
        body = {"url": "https://hooks.example.com/", "events": ["order.created", "customer.created"]}
        async with await shop.api(Permission.WEBHOOKS_WRITE, Permission.ORDERS_READ) as api:
            said = refusal(await api.post("/webhooks", json=body), 403, "missing_scope")
            assert "customers:read" in said["error"]

    async def test_the_door_asks_who_it_is_before_what_they_want(self, shop: Shop, world: World) -> None:
        key = await shop.key(Permission.REPORTS_READ)
        async with await shop.api() as api:
            for headers, status in (({}, 401), ({"authorization": f"Bearer {key}"}, 403)):
                api.headers.pop("authorization", None)
                for route in CHANGING:
                    answer = await api.request(
                        route.method, world.path(route), content=b"\0 no JSON", headers=JSON | headers
                    )
                    assert answer.status_code == status, route_id(route)


ABSENT = "01900000-0000-7000-8000-000000000000"


class TestStrangers(Door):
    """What is another company's is not there: the same answer, to the byte."""

    async def test_in_every_path(self, shop: Shop, world: World, api: httpx.AsyncClient) -> None:
        theirs = await World.of(await shop.stranger())
        for route in ROUTES:
            for parameter in wire.plan(route.request).path:
                foreign = await world.ask(api, route, {parameter: theirs.ids[parameter]})
                absent = await world.ask(api, route, {parameter: ABSENT})
                assert foreign.status_code == 404, (route_id(route), parameter, foreign.text)
                assert without_id(foreign) == without_id(absent)

    async def test_in_every_body(self, shop: Shop, world: World, api: httpx.AsyncClient) -> None:
        theirs = await World.of(await shop.stranger())
        address_id = theirs.customer.addresses[0].id
        our_items = [{"productId": world.product.id, "quantity": 1}]

        def bodies(customer: str, product: str, address: str) -> Iterator[tuple[str, str, Any]]:
            items = [*our_items, {"productId": product, "quantity": 1}]
            ours = world.customer.id
            for path in ("/orders", "/orders/preview"):
                yield "POST", path, {"customerId": customer, "items": our_items}
                yield "POST", path, {"customerId": ours, "items": items}
            yield "POST", "/orders", {"customerId": ours, "items": our_items, "shippingAddressId": address}
            moved = {"id": address, "line1": "1 Low Street", "city": "Leeds", "country": "GB"}
            yield "PATCH", f"/customers/{ours}", {"addresses": [moved]}

        foreign_bodies = bodies(theirs.customer.id, theirs.product.id, address_id)
        absent_bodies = bodies(ABSENT, ABSENT, ABSENT)
        for (method, path, foreign_body), (_, _, absent_body) in zip(
            foreign_bodies, absent_bodies, strict=True
        ):
            foreign = await api.request(method, path, json=foreign_body)
            absent = await api.request(method, path, json=absent_body)
            assert foreign.status_code == 404, (path, foreign.text)
            assert without_id(foreign) == without_id(absent)

    async def test_in_every_query(self, shop: Shop, world: World, api: httpx.AsyncClient) -> None:
        theirs = await World.of(await shop.stranger())
        later_id = shop.distribu.ports.entropy.uuid()
        foreign = await api.get(f"/orders?customerId={theirs.customer.id}")
        assert data(foreign) == []
        assert without_id(foreign) == without_id(await api.get(f"/orders?customerId={ABSENT}"))
        lists = {
            "/products": theirs.product.id,
            "/customers": theirs.customer.id,
            "/orders": theirs.order.id,
            "/webhooks": theirs.webhook.id,
            f"/webhooks/{world.webhook.id}/deliveries": theirs.delivery_id,
            f"/products/{world.product.id}/stock-movements": theirs.delivery_id,
            f"/customers/{world.customer.id}/price-overrides": theirs.order.id,
        }
        for path, cursor in lists.items():
            after_all = await api.get(f"{path}?cursor={later_id}")
            assert len(data(after_all)) > 0
            assert without_id(await api.get(f"{path}?cursor={cursor}")) == without_id(after_all)

    async def test_an_id_that_cannot_be_is_just_as_absent(self, world: World, api: httpx.AsyncClient) -> None:
        for route in ROUTES:
            for parameter in wire.plan(route.request).path:
                absent = await world.ask(api, route, {parameter: ABSENT})
                for text in (
                    "1",
                    "x" * 3000,
                    "%00",
                    "%ff",
                    f"{ABSENT}%0A",
                    f"%20{ABSENT}",
                    ABSENT.upper()[:-1] + "A",
                ):
                    answer = await world.ask(api, route, {parameter: text})
                    code = f"{parameter.removesuffix('_id')}_not_found"
                    refusal(answer, 404, code)
                    if absent.json()["code"] == code:
                        assert without_id(answer) == without_id(absent)


LOW = "lowStockThreshold"

# How a body can be wrong, whichever way it is decoded: a whole request, or one with ids in its path.
WRONG: dict[str, tuple[bytes, str, str | None]] = {
    "nothing": (b"", "invalid_json", None),
    "no JSON": (b"name=Oat", "invalid_json", None),
    "cut off": (b'{"name":"Oat', "invalid_json", None),
    "two values": (b'{"name":"Oat","price":1} {}', "invalid_json", None),
    "a comment": (b'{"name":"Oat","price":1} // yes', "invalid_json", None),
    "a byte order mark": (b'\xef\xbb\xbf{"name":"Oat","price":1}', "invalid_json", None),
    "UTF-16": ('{"name":"Oat","price":1}'.encode("utf-16"), "invalid_json", None),
    "bytes that are no text": (b'{"name":"\xff\xfe","price":1}', "invalid_json", None),
    "a lone surrogate": (rb'{"name":"\ud800","price":1}', "invalid_json", None),
    "a lone surrogate in bytes": (b'{"name":"\xed\xa0\x80","price":1}', "invalid_json", None),
    "an array": (b"[]", "invalid_request", ""),
    "null": (b"null", "invalid_request", ""),
    "text": (b'"name"', "invalid_request", ""),
    "an unknown field": (b'{"name":"Oat","price":1,"colour":"red"}', "invalid_request", "colour"),
    "another spelling": (b'{"name":"Oat","price":1,"is_active":true}', "invalid_request", "is_active"),
    "a company": (b'{"name":"Oat","price":1,"companyId":"x"}', "invalid_request", "companyId"),
    "an id": (b'{"name":"Oat","price":1,"id":"x"}', "invalid_request", "id"),
    "a number for text": (b'{"name":1,"price":1}', "invalid_request", "name"),
    "text for a switch": (b'{"name":"Oat","price":1,"isActive":"yes"}', "invalid_request", "isActive"),
    "null where nothing may be null": (b'{"name":null,"price":1}', "invalid_request", "name"),
    "too short": (b'{"name":"","price":1}', "invalid_request", "name"),
    "too long": (b'{"name":"' + b"x" * 201 + b'","price":1}', "invalid_request", "name"),
    "U+0000": (rb'{"name":"Oat\u0000","price":1}', "invalid_request", "name"),
    "a raw U+0000": (b'{"name":"Oat\x00","price":1}', "invalid_json", None),
    "a negative price": (b'{"name":"Oat","price":-0.01}', "invalid_request", "price"),
    "three places": (b'{"name":"Oat","price":0.001}', "invalid_request", "price"),
    "too much": (b'{"name":"Oat","price":1000000000000.01}', "invalid_request", "price"),
    "1e400": (b'{"name":"Oat","price":1e400}', "invalid_request", "price"),
    "text that is no number": (b'{"name":"Oat","price":"NaN"}', "invalid_request", "price"),
    "a switch for a number": (b'{"name":"Oat","price":true}', "invalid_request", "price"),
    "NaN": (b'{"name":"Oat","price":NaN}', "invalid_json", None),
    "Infinity": (b'{"name":"Oat","price":Infinity}', "invalid_json", None),
    "half a piece": (b'{"name":"Oat","price":1,"lowStockThreshold":0.5}', "invalid_request", LOW),
    "less than none": (b'{"name":"Oat","price":1,"lowStockThreshold":-1}', "invalid_request", LOW),
    "no URL": (b'{"name":"Oat","price":1,"imageUrl":"javascript:x"}', "invalid_request", "imageUrl"),
}  # fmt: skip

HUGE: dict[str, bytes] = {
    "an exponent beyond all": b'{"name":"Oat","price":1e99999999999999999999}',
    "a number of 5,000 digits": b'{"name":"Oat","price":1' + b"0" * 5000 + b"}",
    "a threshold of 5,000 digits": b'{"name":"Oat","price":1,"lowStockThreshold":1' + b"0" * 5000 + b"}",
    "brackets": b"[" * (BODY_MAX - 1),
    "brackets in a field": b'{"name":' + b"[" * (BODY_MAX - 100),
    "braces": b'{"name":' * 100_000,
    "an unknown field of a million letters": b'{"' + b"x" * 1_000_000 + b'":1}',
}


class TestInput(Door):
    @pytest.fixture
    async def doors(self, world: World) -> list[tuple[str, str]]:
        """A route whose body is the request, and one that takes an id from the path."""
        return [("POST", "/products"), ("PATCH", f"/products/{world.product.id}")]

    @pytest.mark.parametrize("wrong", WRONG)
    async def test_what_is_wrong_is_refused_and_named(
        self, wrong: str, doors: list[tuple[str, str]], api: httpx.AsyncClient
    ) -> None:
        body, code, field = WRONG[wrong]
        for method, path in doors:
            said = refusal(await api.request(method, path, content=body, headers=JSON), 400, code)
            assert list(said.get("fields", {})) == ([] if field is None else [field])

    @pytest.mark.parametrize("huge", HUGE)
    async def test_what_is_meant_to_hurt_is_refused(
        self, huge: str, doors: list[tuple[str, str]], api: httpx.AsyncClient
    ) -> None:
        for method, path in doors:
            answer = await api.request(method, path, content=HUGE[huge], headers=JSON)
            assert answer.status_code == 400, answer.text[:300]
            assert refusal(answer, 400, answer.json()["code"])["code"] in ("invalid_json", "invalid_request")
            assert len(answer.content) < 5_000

    async def test_what_is_missing_is_named(self, world: World, api: httpx.AsyncClient) -> None:
        said = refusal(await api.post("/products", json={"price": 1}), 400, "invalid_request")
        assert said["fields"] == {"name": "is required"}
        items = [{"productId": world.product.id, "quantity": 1}, {"productId": world.product.id}]
        body = {"customerId": world.customer.id, "items": items}
        said = refusal(await api.post("/orders", json=body), 400, "invalid_request")
        assert said["fields"] == {"items[1].quantity": "is required"}
        said = refusal(
            await api.put(
                f"/customers/{world.customer.id}/price-overrides/{world.product.id}",
                content=b"{}",
                headers=JSON,
            ),
            400,
            "invalid_request",
        )
        assert said["fields"] == {"price": "is required"}

    async def test_what_is_wrong_is_told_in_plain_words(self, world: World, api: httpx.AsyncClient) -> None:
        async def told(method: str, path: str, body: Any = None) -> dict[str, str]:
            answer = await api.request(method, path, json=body)
            fields: dict[str, str] = refusal(answer, 400, "invalid_request")["fields"]
            return fields

        statuses = "must be one of SUBMITTED, CONFIRMED, SHIPPED, DELIVERED, CANCELLED"
        assert await told("GET", "/orders?status=GONE") == {"status": statuses}
        assert await told("GET", "/orders?since=soon") == {
            "since": "must be a time such as 2026-01-31T09:30:00Z"
        }
        assert await told("GET", "/orders?cursor=1") == {"cursor": "is not an id"}
        assert await told("GET", "/products?active=maybe") == {"active": "must be true or false"}
        assert await told("PATCH", f"/orders/{world.order.id}", {"status": "GONE"}) == {"status": statuses}
        for wrong, where, said in (
            ({"customerId": "x"}, "customerId", "is not an id"),
            ({"items": []}, "items", "must be a list of 1 to 1000"),
            ({"items": [{"productId": "x", "quantity": 1}]}, "items[0].productId", "is not an id"),
            ({"items": ["x"]}, "items[0]", "must be an object"),
            ({"notes": 1}, "notes", "must be text of up to 2000 characters"),
            ({"placedAt": "2026-01-31"}, "placedAt", "must be a time such as 2026-01-31T09:30:00Z"),
        ):
            items = [{"productId": world.product.id, "quantity": 1}]
            body = {"customerId": world.customer.id, "items": items, **wrong}
            assert await told("POST", "/orders", body) == {where: said}
        product = {"name": "Oat", "price": 1}
        assert await told("POST", "/products", {**product, "price": True}) == {"price": "must be a number"}
        assert await told("POST", "/products", {**product, "stock": 0.5}) == {
            "stock": "must be a whole number, 0 to 1000000000"
        }
        hook = {"url": "https://erp.example/", "events": ["order.gone"]}
        (said,) = (await told("POST", "/webhooks", hook)).values()
        assert said.endswith(", product.low_stock, invoice.paid, audit.sealed, audit.recorded")

    async def test_a_path_is_not_overruled_by_its_body(
        self, shop: Shop, world: World, api: httpx.AsyncClient
    ) -> None:
        other = await shop.product()
        body = {"name": "Mine now", "productId": other.id}
        said = refusal(await api.patch(f"/products/{world.product.id}", json=body), 400, "invalid_request")
        assert list(said["fields"]) == ["productId"]
        body = {"name": "Mine now", "version": "1"}
        said = refusal(await api.patch(f"/products/{world.product.id}", json=body), 400, "invalid_request")
        assert list(said["fields"]) == ["version"]

    async def test_money_is_taken_as_it_is_written(self, api: httpx.AsyncClient) -> None:
        for sent, kept in (
            ("0.1", "0.10"),
            ("12", "12.00"),
            ("1.10e1", "11.00"),
            ("1e12", "1000000000000.00"),
            ("4.35", "4.35"),
            ("-0.0", "0.00"),
        ):
            answer = await api.post("/products", content=f'{{"name":"Oat","price":{sent}}}', headers=JSON)
            made = data(answer, 201)
            assert f'"price":{kept},' in answer.text
            assert f'"price":{kept},' in (await api.get(f"/products/{made['id']}")).text

    async def test_of_two_fields_of_one_name_the_last_one_counts(
        self, doors: list[tuple[str, str]], api: httpx.AsyncClient
    ) -> None:
        for method, path in doors:
            body = b'{"name":"first","price":1,"name":"last"}'
            answer = await api.request(method, path, content=body, headers=JSON)
            assert answer.json()["data"]["name"] == "last"

    async def test_any_text_of_unicode_is_kept(self, api: httpx.AsyncClient) -> None:
        for name in (
            "Hafermehl Ö",
            "面粉",
            "😀",
            "a\u0301",
            "\u202eabc",
            "<script>",
            "'; DROP TABLE",
            "\x01\x1f\x7f",
            "\\u0000",
        ):
            made = data(await api.post("/products", json={"name": name, "price": 1}), 201)
            assert made["name"] == name
            assert data(await api.get(f"/products/{made['id']}"))["name"] == name

    async def test_nul_is_refused_in_every_text(self, world: World, api: httpx.AsyncClient) -> None:
        tried = 0
        for route in CHANGING:
            body = full_body(route)
            for place in texts(body):
                answer = await api.request(
                    route.method,
                    world.path(route, dict.fromkeys(world.ids, ABSENT)),
                    json=with_nul(body, place),
                )
                assert answer.status_code == 400, (route_id(route), place, answer.text)
                tried += 1
        assert tried > 40
        for path, name in (
            ("/products", "search"),
            ("/products", "category"),
            ("/customers", "search"),
            ("/products", "cursor"),
            ("/orders", "customerId"),
            ("/orders", "status"),
            ("/orders", "since"),
        ):
            said = refusal(await api.get(f"{path}?{name}=a%00b"), 400, "invalid_request")
            assert list(said["fields"]) == [name]

    async def test_stock_is_no_field_of_a_patch_and_it_says_what_to_do(
        self, world: World, api: httpx.AsyncClient
    ) -> None:
        said = refusal(
            await api.patch(f"/products/{world.product.id}", json={"stock": 5}), 400, "invalid_request"
        )
        assert "stock-movements" in said["fields"]["stock"]
        assert data(await api.get(f"/products/{world.product.id}"))["stock"] == 98

    async def test_a_placed_order_cannot_be_edited_and_it_says_so(
        self, world: World, api: httpx.AsyncClient
    ) -> None:
        body = {"status": "CONFIRMED", "items": []}
        said = refusal(await api.patch(f"/orders/{world.order.id}", json=body), 400, "invalid_request")
        assert "cannot be edited" in said["fields"]["items"]

    async def test_only_json(self, doors: list[tuple[str, str]], api: httpx.AsyncClient) -> None:
        body = b'{"name":"Oat","price":1}'
        for method, path in doors:
            for kind in (
                "text/plain",
                "application/x-www-form-urlencoded",
                "multipart/form-data; boundary=x",
                "application/jsonp",
                "json",
            ):
                answer = await api.request(method, path, content=body, headers={"content-type": kind})
                refusal(answer, 415, "unsupported_media_type")
            for kind in ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON"):
                answer = await api.request(method, path, content=body, headers={"content-type": kind})
                assert answer.is_success

    async def test_a_body_has_a_limit(self, doors: list[tuple[str, str]], api: httpx.AsyncClient) -> None:
        async def in_parts() -> AsyncIterator[bytes]:
            yield b'{"description":"'
            for _ in range(200):
                yield b"x" * 10_000
            yield b'"}'

        for method, path in doors:
            nested = b"[" * 10_000_000
            refusal(await api.request(method, path, content=nested, headers=JSON), 413, "body_too_large")
            refusal(await api.request(method, path, content=in_parts(), headers=JSON), 413, "body_too_large")
        padded = b'{"name":"Oat","price":1' + b" " * (BODY_MAX - 24) + b"}"
        assert len(padded) == BODY_MAX
        data(await api.post("/products", content=padded, headers=JSON), 201)
        refusal(await api.post("/products", content=padded + b" ", headers=JSON), 413, "body_too_large")

    async def test_a_body_that_does_not_come_is_not_waited_for(
        self,
        doors: list[tuple[str, str]],
        api: httpx.AsyncClient,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        async def stalled() -> AsyncIterator[bytes]:
            yield b'{"name":"Oat",'
            await asyncio.Event().wait()

        monkeypatch.setattr(wire, "BODY_S", 0.02)
        with caplog.at_level(logging.INFO):
            for method, path in doors:
                async with asyncio.timeout(5):
                    answer = await api.request(method, path, content=stalled(), headers=JSON)
                refusal(answer, 408, "request_timeout")
                assert answer.headers["connection"] == "close"
        assert {record.name for record in caplog.records} == {"httpx"}, (
            "the client alone has something to say"
        )

    async def test_a_client_who_hangs_up_in_the_middle_of_a_body_is_no_mistake_of_ours(
        self, shop: Shop, doors: list[tuple[str, str]], caplog: pytest.LogCaptureFixture
    ) -> None:
        app, key = http_app(shop.distribu), await shop.key()
        events: list[Any] = []

        async def receive() -> Any:
            return events.pop(0) if events else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            pass

        for method, path in doors:
            events.append({"type": "http.request", "body": b'{"name":"Oat",', "more_body": True})
            scope: Any = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "scheme": "http",
                "method": method,
                "path": f"/api/v1{path}",
                "raw_path": f"/api/v1{path}".encode(),
                "root_path": "",
                "query_string": b"",
                "headers": [(b"authorization", f"Bearer {key}".encode()), (b"content-length", b"500")],
                "client": ("192.0.2.1", 5000),
                "server": ("distribu", 80),
                "state": {},
            }
            with caplog.at_level(logging.INFO):
                await app(scope, receive, send)
            assert events == [], "it was read"
        assert caplog.records == []

    async def test_what_takes_no_body(self, world: World, api: httpx.AsyncClient) -> None:
        path = f"/webhooks/{world.webhook.id}/test"
        said = refusal(await api.post(path, json={"url": "mine"}), 400, "invalid_request")
        assert said["fields"] == {"": "this takes no body"}
        data(await api.post(path, content=b"{}", headers=JSON))
        data(await api.post(path))

    async def test_what_can_do_without_a_body(self, world: World, api: httpx.AsyncClient) -> None:
        path = f"/webhooks/{world.webhook.id}/rotate-secret"
        refusal(await api.post(path, json={"secret": "mine"}), 400, "invalid_request")
        assert data(await api.post(path))["secretRotationGraceExpiresAt"] is not None
        assert data(await api.post(path, json={"grace": False}))["secretRotationGraceExpiresAt"] is None
        refusal(await api.post("/products"), 400, "invalid_json")

    async def test_a_path_that_is_not_there(self, api: httpx.AsyncClient) -> None:
        for path in ("/nothing", "/products/x/y/z", "/orders/preview/x", "/%2e%2e/me", "/Products"):
            refusal(await api.get(path), 404, "not_found")

    async def test_a_method_that_is_not_there(self, world: World, api: httpx.AsyncClient) -> None:
        for method, path, allowed in (
            ("PUT", "/products", {"GET", "POST"}),
            ("DELETE", "/orders", {"GET", "POST"}),
            ("POST", "/me", {"GET"}),
            ("BREW", "/products", {"GET", "POST"}),
            ("POST", f"/products/{world.product.id}", {"GET", "PATCH", "DELETE"}),
        ):
            answer = await api.request(method, path)
            refusal(answer, 405, "method_not_allowed")
            assert set(answer.headers["allow"].split(", ")) - {"OPTIONS"} == allowed

    async def test_a_mistake_of_ours_says_nothing_about_itself(
        self, shop: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Distribu):
            async def execute(self, actor: Actor, request: Request[Any]) -> Any:
                raise ZeroDivisionError("the password is hunter2")

        key = await shop.key()
        app: Any = http_app(Broken(shop.distribu.ports))
        client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://distribu/api/v1")
        async with client as api:
            with caplog.at_level(logging.ERROR):
                answer = await api.get("/me", headers={"authorization": f"Bearer {key}"})
        body = refusal(answer, 500, "internal_error")
        assert "hunter2" not in answer.text
        assert body["requestId"] in caplog.text, "so that the log can be searched for it"
        assert "hunter2" in caplog.text


def full_body(route: Route) -> Any:
    """A body with everything that a route takes."""
    operation = openapi()["paths"][reference.shown_path(route)][route.method.lower()]
    if "requestBody" not in operation:
        return {}
    components = openapi()["components"]["schemas"]
    return schemas.example(operation["requestBody"]["content"]["application/json"]["schema"], components)


Place = tuple[str | int, ...]


def texts(value: Any, place: Place = ()) -> Iterator[Place]:
    """Where in a value text stands."""
    match value:
        case str():
            yield place
        case dict():
            for name, item in value.items():
                yield from texts(item, (*place, name))
        case list():
            for number, item in enumerate(value):
                yield from texts(item, (*place, number))


def with_nul(value: Any, place: Place) -> Any:
    """A value with U+0000 in one of its texts."""
    changed = deepcopy(value)
    inner = changed
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = inner[place[-1]][:1] + "\0" + inner[place[-1]][2:]
    return changed


class TestPreconditions(Door):
    """``ETag`` and ``If-Match``: nobody overwrites what they have not seen."""

    @pytest.fixture
    async def things(self, world: World) -> list[tuple[str, dict[str, Any], str]]:
        """A path, what changes it, and the field that shows it."""
        return [
            (f"/products/{world.product.id}", {"category": "Grain"}, "category"),
            (f"/customers/{world.customer.id}", {"notes": "pays late"}, "notes"),
            (f"/webhooks/{world.webhook.id}", {"url": "https://other.example/"}, "url"),
            (f"/orders/{world.order.id}", {"status": "CONFIRMED"}, "status"),
        ]

    async def test_a_version_that_is_not_current(
        self, things: list[tuple[str, dict[str, Any], str]], api: httpx.AsyncClient
    ) -> None:
        for path, change, field in things:
            before = data(await api.get(path))
            for stale in ('"999"', '"0"', 'W/"999"', "1", "any", '"1', '"1", "2"', '"99999999999999999999"'):
                answer = await api.patch(path, json=change, headers={"if-match": stale})
                refusal(answer, 412, "precondition_failed")
            assert data(await api.get(path))[field] == before[field]

    async def test_the_version_that_is_current(
        self, things: list[tuple[str, dict[str, Any], str]], api: httpx.AsyncClient
    ) -> None:
        for path, change, field in things:
            seen = (await api.get(path)).headers["etag"]
            assert seen == (await api.get(path)).headers["etag"]
            answer = await api.patch(path, json=change, headers={"if-match": seen})
            assert data(answer)[field] == change[field]
            assert answer.headers["etag"] != seen
            refusal(
                await api.patch(path, json=change, headers={"if-match": seen}), 412, "precondition_failed"
            )

    async def test_whatever_it_is(self, world: World, api: httpx.AsyncClient) -> None:
        path = f"/products/{world.product.id}"
        data(await api.patch(path, json={"category": "A"}, headers={"if-match": "*"}))
        data(await api.patch(path, json={"category": "B"}))

    async def test_a_customers_prices_are_no_part_of_its_version(
        self, world: World, api: httpx.AsyncClient
    ) -> None:
        path = f"/customers/{world.customer.id}"
        before = (await api.get(path)).headers["etag"]
        data(await api.put(f"{path}/price-overrides/{world.product.id}", json={"price": 3}))
        answer = await api.get(path)
        assert answer.headers["etag"] == before
        assert [it["price"] for it in data(answer)["priceOverrides"]] == [3]

    async def test_a_removal_too(self, world: World, api: httpx.AsyncClient) -> None:
        for path in (f"/products/{world.product.id}", f"/webhooks/{world.webhook.id}"):
            refusal(await api.delete(path, headers={"if-match": '"999"'}), 412, "precondition_failed")
            seen = (await api.get(path)).headers["etag"]
            assert (await api.delete(path, headers={"if-match": seen})).status_code == 204

    async def test_an_edit_that_changes_nothing_is_no_new_version(
        self, world: World, api: httpx.AsyncClient
    ) -> None:
        path = f"/products/{world.product.id}"
        before = (await api.get(path)).headers["etag"]
        same = await api.patch(path, json={"category": "Flour", "name": "Oat Flour"})
        assert same.headers["etag"] == before


POSTS = tuple(route for route in CHANGING if route.method == "POST" and issubclass(route.request, Command))


class TestIdempotency(Door):
    @pytest.mark.parametrize("route", POSTS, ids=route_id)
    async def test_a_repetition_is_answered_and_not_done(
        self, route: Route, world: World, api: httpx.AsyncClient
    ) -> None:
        key = {"idempotency-key": "once, please"}
        first = await world.ask(api, route, headers=key)
        assert first.status_code == route.status, first.text
        assert "idempotent-replayed" not in first.headers
        before = await everything(api)
        again = await world.ask(api, route, headers=key)
        assert again.headers["idempotent-replayed"] == "true"
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
        assert await everything(api) == before

    @pytest.mark.parametrize("route", POSTS, ids=route_id)
    async def test_the_first_answer_has_the_version_it_would_have_without_a_key(
        self, route: Route, world: World, api: httpx.AsyncClient
    ) -> None:
        """A replay does not: what it shows may be at another version by now."""
        key = {"idempotency-key": "k"}
        first = await world.ask(api, route, headers=key)
        assert data(first, route.status)
        again = await world.ask(api, route, headers=key)
        assert again.headers["idempotent-replayed"] == "true"
        assert "etag" not in again.headers
        if route.result in (
            views.WebhookIssuedView,
            views.TestView,
            views.ReplayView,
            views.DeliveryDetailView,
        ):
            assert "etag" not in first.headers, "nor has it one without a key"
        else:
            assert re.fullmatch(r'"[1-9]"', first.headers["etag"])

    async def test_the_version_of_a_first_answer_is_the_current_one(
        self, world: World, api: httpx.AsyncClient
    ) -> None:
        body = {"name": "Rye", "price": 1, "stock": 4}
        made = await api.post("/products", json=body, headers={"idempotency-key": "k"})
        path = f"/products/{data(made, 201)['id']}"
        assert made.headers["etag"] == (await api.get(path)).headers["etag"]
        data(await api.patch(path, json={"unit": "bag"}, headers={"if-match": made.headers["etag"]}))

    @pytest.mark.parametrize("route", POSTS, ids=route_id)
    async def test_a_key_is_for_one_request(self, route: Route, world: World, api: httpx.AsyncClient) -> None:
        key = {"idempotency-key": "k"}
        data(await world.ask(api, route, headers=key), route.status)
        other = await api.post("/customers", json={"email": "somebody@else.example"}, headers=key)
        refusal(other, 422, "idempotency_key_reused")

    async def test_another_body_is_another_request(self, api: httpx.AsyncClient) -> None:
        key = {"idempotency-key": "k"}
        data(await api.post("/products", json={"name": "Oat", "price": 1}, headers=key), 201)
        answer = await api.post("/products", json={"name": "Rye", "price": 1}, headers=key)
        refusal(answer, 422, "idempotency_key_reused")
        same = await api.post("/products", content=b'{ "price": 1.00, "name": "Oat" }', headers=JSON | key)
        assert same.headers["idempotent-replayed"] == "true", "the same request in another hand"
        assert len(data(await api.get("/products"))) == 1

    async def test_another_path_is_another_request(self, shop: Shop, api: httpx.AsyncClient) -> None:
        oat, rye = await shop.product(), await shop.product()
        key, body = {"idempotency-key": "k"}, {"quantity": 5, "reason": "RECEIVED"}
        data(await api.post(f"/products/{oat.id}/stock-movements", json=body, headers=key), 201)
        answer = await api.post(f"/products/{rye.id}/stock-movements", json=body, headers=key)
        refusal(answer, 422, "idempotency_key_reused")

    async def test_a_key_is_the_callers_own(self, shop: Shop) -> None:
        body, key = {"name": "Oat", "price": 1}, {"idempotency-key": "k"}
        stranger = await shop.stranger()
        async with await shop.api() as ours, await shop.api() as colleague, await stranger.api() as others:
            made = [
                data(await api.post("/products", json=body, headers=key), 201)
                for api in (ours, colleague, others)
            ]
        assert len({one["id"] for one in made}) == 3

    async def test_a_refusal_releases_the_key(self, world: World, api: httpx.AsyncClient) -> None:
        key = {"idempotency-key": "k"}
        body = {"customerId": world.customer.id, "items": [{"productId": world.product.id, "quantity": 99}]}
        refusal(await api.post("/orders", json=body, headers=key), 422, "insufficient_stock")
        more = {"quantity": 1, "reason": "RECEIVED"}
        data(await api.post(f"/products/{world.product.id}/stock-movements", json=more), 201)
        answer = await api.post("/orders", json=body, headers=key)
        assert data(answer, 201)["number"] == 1002
        assert "idempotent-replayed" not in answer.headers

    async def test_a_key_that_cannot_be(self, api: httpx.AsyncClient) -> None:
        body = {"name": "Oat", "price": 1}
        for key in (b"", b"x" * 256, b"caf\xc3\xa9", b"a\tb"):
            answer = await api.post("/products", json=body, headers=[(b"idempotency-key", key)])
            said = refusal(answer, 400, "invalid_request")
            assert list(said["fields"]) == ["Idempotency-Key"]
        for text in ("x" * 255, "a b", "{}"):
            data(await api.post("/products", json=body, headers={"idempotency-key": text}), 201)

    async def test_twins_at_once(self, world: World, api: httpx.AsyncClient) -> None:
        body = {"customerId": world.customer.id, "items": [{"productId": world.product.id, "quantity": 1}]}
        answers = await asyncio.gather(
            *(api.post("/orders", json=body, headers={"idempotency-key": "twins"}) for _ in range(8))
        )
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        assert sum("idempotent-replayed" in answer.headers for answer in answers) == 7
        assert answers[0].json()["data"]["number"] == 1002
        assert len(data(await api.get("/orders"))) == 2
        assert data(await api.get(f"/products/{world.product.id}"))["stock"] == 97

    async def test_only_a_post_has_a_key(self, world: World, api: httpx.AsyncClient) -> None:
        for name in ("A", "B"):
            answer = await api.patch(
                f"/products/{world.product.id}", json={"category": name}, headers={"idempotency-key": "k"}
            )
            assert data(answer)["category"] == name
            assert "idempotent-replayed" not in answer.headers


async def everything(api: httpx.AsyncClient) -> list[str]:
    """All that the API shows of a company's things."""
    return [(await api.get(path)).text for path in ("/products", "/customers", "/orders", "/webhooks")]


class TestRules(Door):
    """The refusals of the business, as the API tells them."""

    async def test_conflicts(self, world: World, api: httpx.AsyncClient) -> None:
        answer = await api.post("/products", json={"name": "Other", "price": 1, "sku": "oat-25"})
        refusal(answer, 409, "duplicate_sku")
        answer = await api.post("/customers", json={"email": world.customer.email.upper()})
        refusal(answer, 409, "duplicate_email")

    async def test_what_the_business_refuses(self, shop: Shop, world: World, api: httpx.AsyncClient) -> None:
        order, product = f"/orders/{world.order.id}", f"/products/{world.product.id}"
        body = {"customerId": world.customer.id, "items": [{"productId": world.product.id, "quantity": 99}]}
        refusal(await api.post("/orders", json=body), 422, "insufficient_stock")
        refusal(await api.patch(order, json={"status": "DELIVERED"}), 422, "illegal_transition")
        payment = {"amount": 25.01, "method": "CASH"}
        refusal(await api.post(f"{order}/payments", json=payment), 422, "overpayment")
        taken = {"quantity": -99, "reason": "ADJUSTED"}
        refusal(await api.post(f"{product}/stock-movements", json=taken), 422, "insufficient_stock")
        hook = {"url": "ftp://example.com/", "events": ["order.created"]}
        refusal(await api.post("/webhooks", json=hook), 422, "webhook_url_refused")
        await shop.limit_credit(world.customer, "30.00")
        body["items"] = [{"productId": world.product.id, "quantity": 1}]
        refusal(await api.post("/orders", json=body), 422, "credit_limit_exceeded")
        data(await api.patch(f"/customers/{world.customer.id}", json={"status": "BLOCKED"}))
        refusal(await api.post("/orders", json=body), 422, "customer_blocked")
        data(await api.patch(product, json={"isActive": False}))
        refusal(await api.post("/orders", json=body), 422, "product_unavailable")
        body["placedAt"] = "2999-01-01T00:00:00Z"
        refusal(await api.post("/orders", json=body), 422, "placed_in_future")

    async def test_nothing_to_pay(self, world: World, api: httpx.AsyncClient) -> None:
        path = f"/orders/{world.order.id}/payments"
        said = refusal(await api.post(path, json={"amount": 0, "method": "CASH"}), 400, "invalid_request")
        assert list(said["fields"]) == ["amount"]


class TestDocument(Door):
    async def test_it_is_an_openapi_document(self, api: httpx.AsyncClient) -> None:
        del api.headers["authorization"]
        answer = await api.get("/openapi.json")
        document = answer.json()
        assert answer.headers["content-type"] == "application/json"
        assert document == json.loads(json.dumps(openapi()))
        assert document["openapi"] == "3.1.0"
        assert {"title", "version", "license"} <= set(document["info"])
        assert document["security"] == [{"key": []}]
        assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
        operations = [one for methods in document["paths"].values() for one in methods.values()]
        ids = [one["operationId"] for one in operations]
        assert len(ids) == len(set(ids)) == len(ROUTES)
        for path, methods in document["paths"].items():
            assert re.fullmatch(r"/api/v1(/[a-z-]+|/\{[a-zA-Z]+\})+", path)
            for operation in methods.values():
                assert operation["summary"]
                named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
                assert named == set(re.findall(r"\{(\w+)\}", path))
                for parameter in operation["parameters"]:
                    assert parameter["in"] in ("path", "query", "header")
                    assert parameter["required"] or parameter["in"] != "path"
                assert any(status.startswith("2") for status in operation["responses"])
                assert all(one["description"] for one in operation["responses"].values())

    @pytest.mark.parametrize("of", [reference.API, reference.PEOPLE], ids=lambda of: of.title)
    def test_its_schemas_are_schemas_and_its_references_lead_somewhere(
        self, of: reference.Documented
    ) -> None:
        document = openapi(of)
        schemas = list(document["components"]["schemas"].values())
        for methods in document["paths"].values():
            for operation in methods.values():
                schemas += [one["schema"] for one in operation["parameters"]]
                for part in [operation.get("requestBody", {}), *operation["responses"].values()]:
                    schemas += [one["schema"] for one in part.get("content", {}).values()]
        for schema in schemas:
            jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
            jsonschema_rs.meta.validate(schema)
        references = set(re.findall(r'"\$ref":\s*"([^"]+)"', json.dumps(document)))
        known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        assert references <= known
        assert len(references) > 10

    async def test_that_of_people_has_every_door(self, api: httpx.AsyncClient) -> None:
        document = (await api.get("http://distribu/auth/openapi.json")).json()
        assert document == json.loads(json.dumps(openapi(reference.PEOPLE)))
        operations = [one for methods in document["paths"].values() for one in methods.values()]
        ids = [one["operationId"] for one in operations]
        routes = [(prefix, route) for _, prefix, routes in reference.PEOPLE.doors for route in routes]
        assert sorted(ids) == sorted({reference.PEOPLE.id(*one) for one in routes})
        assert len(ids) == len(routes)
        for prefix, route in routes:
            told = document["paths"][reference.shown_path(route, prefix)][route.method.lower()]
            assert (told.get("security") == []) is (route.request.needs is Permission.VISIT)
        assert document["security"] == [{"staff": []}, {"store": []}]
        assert document["webhooks"] == {}
        (staff,) = (one for name, one in document["components"]["securitySchemes"].items() if name == "staff")
        assert (staff["in"], staff["name"]) == ("cookie", staff_cookie(production=False))

    @pytest.mark.parametrize("route", ROUTES, ids=route_id)
    def test_it_has_every_route(self, route: Route) -> None:
        operation = openapi()["paths"][reference.shown_path(route)][route.method.lower()]
        needs = route.request.needs
        assert (needs.value if needs else "Any key") in operation["description"]
        takes_key = route in POSTS
        headers = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
        assert ("Idempotency-Key" in headers) == takes_key
        assert ("If-Match" in headers) == (wire.plan(route.request).if_match is not None)
        assert "requestBody" not in operation or route.method in ("POST", "PUT", "PATCH")
        assert {"400", "401", "403", "404", "503"} <= set(operation["responses"])

    @pytest.mark.parametrize("route", CHANGING, ids=route_id)
    async def test_its_examples_are_accepted(self, route: Route, api: httpx.AsyncClient) -> None:
        operation = openapi()["paths"][reference.shown_path(route)][route.method.lower()]
        if "requestBody" not in operation:
            assert not wire.plan(route.request).body
            return
        content = operation["requestBody"]["content"]["application/json"]
        path = re.sub(r"\{[^}]*\}", ABSENT, route.path)
        for example in (content["example"], full_body(route)):
            valid(content["schema"], example, route_id(route))
            answer = await api.request(route.method, path, json=example)
            # Both ways to give an address at once are too many; the rest of that example is right.
            both = {"shippingAddress": "give an address or its id, not both"}
            assert answer.status_code != 400 or answer.json()["fields"] == both, answer.text
            assert answer.status_code < 500

    def test_its_webhooks_are_the_events_there_are(self) -> None:
        document = openapi()
        assert set(document["webhooks"]) == {event.value for event in WireEvent}
        for event in WireEvent:
            told = document["webhooks"][event.value]["post"]
            schema = told["requestBody"]["content"]["application/json"]["schema"]
            assert f"`{event.carries.value}`" in told["description"]
            fields = {one.encode_name for one in msgspec.structs.fields(Envelope)}
            assert set(schema["properties"]) == fields

    def test_its_answers_are_no_empty_shells(self) -> None:
        document = openapi()
        for route in ROUTES:
            operation = document["paths"][reference.shown_path(route)][route.method.lower()]
            content = operation["responses"][str(route.status)].get("content")
            if content is not None:
                promised = content["application/json"]
                valid(promised["schema"], promised["example"], route_id(route))
        order = document["paths"]["/api/v1/orders"]["post"]["responses"]["201"]["content"]
        shown = order["application/json"]["example"]["data"]
        assert shown["status"] == "SUBMITTED"
        lines = sum(line["quantity"] * line["unitPrice"] for line in shown["items"])
        assert lines == shown["subtotal"]
        assert round(shown["subtotal"] + shown["tax"] + shown["shipping"], 2) == shown["total"]
        assert shown["total"] - shown["paid"] == shown["balance"]
        scopes = document["components"]["schemas"]["MeView"]["properties"]["scopes"]["items"]["enum"]
        assert scopes == [scope.value for scope in SCOPES]

    def test_its_limits_are_those_of_the_decoder(self) -> None:
        document = openapi()
        body = document["paths"]["/api/v1/products"]["post"]["requestBody"]["content"]["application/json"]
        properties = body["schema"]["properties"]
        assert properties["name"]["maxLength"] == 200
        assert properties["price"]["type"] == "number"
        assert body["schema"]["additionalProperties"] is False
        assert set(document["components"]["schemas"]["Error"]["properties"]["code"]["enum"]) == set(CODES)

    def test_no_request_shows_what_the_door_fills_in(self) -> None:
        for route in CHANGING:
            operation = openapi()["paths"][reference.shown_path(route)][route.method.lower()]
            if "requestBody" in operation:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                known = wire.plan(route.request)
                assert not set(schema["properties"]) & {*known.path.values(), known.if_match}


class Anchors(HTMLParser):
    """What a page loads, links to and can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("src", "srcset", "data", "action", "formaction", "poster", "background"):
                self.loads.append(value or "")
            if name == "href":
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")
            assert not name.startswith("on"), "no inline script"


class TestPage(Door):
    @pytest.fixture
    async def page(self, api: httpx.AsyncClient) -> httpx.Response:
        del api.headers["authorization"]
        return await api.get("/docs")

    async def test_it_is_there_without_a_key(self, page: httpx.Response, api: httpx.AsyncClient) -> None:
        assert page.status_code == 200
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        for url in ("http://distribu/", "http://distribu/api/v1"):
            assert (await api.get(url)).text == page.text

    async def test_it_loads_its_style_and_nothing_else(
        self, page: httpx.Response, api: httpx.AsyncClient
    ) -> None:
        anchors = Anchors()
        anchors.feed(page.text)
        assert anchors.loads == []
        assert not anchors.tags & {"script", "style", "img", "iframe", "object", "embed", "base", "form"}
        assert page.text.count("<link ") == 1
        (sheet,) = [link for link in anchors.links if link.endswith(".css")]
        style = await api.get(f"http://distribu{sheet}")
        assert style.headers["content-type"] == "text/css; charset=utf-8"
        assert [link for link in anchors.links if not link.startswith(("#", "/"))] == []
        assert [link for link in anchors.links if link.startswith("//")] == []
        for text in (page.text, style.text):
            assert "@import" not in text
            assert "url(" not in text
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "unsafe" not in policy

    async def test_it_has_every_operation_and_every_code(self, page: httpx.Response) -> None:
        anchors = Anchors()
        anchors.feed(page.text)
        assert {route.request.__name__ for route in ROUTES} <= set(anchors.ids)
        assert len(anchors.ids) == len(set(anchors.ids))
        assert {link[1:] for link in anchors.links if link[0] == "#"} <= set(anchors.ids)
        for code in CODES:
            assert f"<code>{code}</code>" in page.text
        for route in ROUTES:
            assert f"<code>{reference.shown_path(route)}</code>" in page.text

    async def test_that_of_people_is_read_there_too(self, api: httpx.AsyncClient) -> None:
        page = await api.get("http://distribu/auth/docs")
        anchors = Anchors()
        anchors.feed(page.text)
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert anchors.loads == []
        assert {link[1:] for link in anchors.links if link[0] == "#"} <= set(anchors.ids)
        assert len(anchors.ids) == len(set(anchors.ids))
        text = unescape(page.text)
        assert "curl -X POST http://distribu/auth/sign-up \\\n  -H 'Content-Type" in text
        assert "curl -X GET http://distribu/account/sessions \\\n  -b cookies" in text
        assert "Bearer" not in text
        assert "/auth/docs" in (await api.get("/docs")).text

    async def test_its_commands_go_to_where_it_was_found(self, api: httpx.AsyncClient) -> None:
        for url in ("http://erp.example:8443", "https://[::1]:9"):
            page = (await api.get(f"{url}/api/v1/docs")).text
            assert f"curl -X POST {url}/api/v1/orders " in page
            assert "127.0.0.1:8000" not in page
        page = (await api.get("/docs", headers={"host": "erp.example';id"})).text
        assert "curl -X POST http://127.0.0.1:8000/api/v1/orders " in page
        assert "';id" not in unescape(page)

    async def test_it_tells_what_there_is_to_send(self, page: httpx.Response) -> None:
        text = unescape(page.text)
        for told in (
            "<td>ADJUSTED | RECEIVED</td>",
            "list of {productId, quantity}, 1 to 1000",
            "text, up to 100 characters",
            "The ETag of the version that is meant.",
            "<code>since</code> and <code>until</code>",
            "'Idempotency-Key: PO-7741'",
        ):
            assert told in text, told
        assert "`" not in text
        assert "#/components" not in text
        assert "text, 36" not in text

    async def test_the_receiver_it_shows_takes_what_is_sent(self, page: httpx.Response) -> None:
        assert reference.VERIFY in unescape(page.text)
        receiver: dict[str, Any] = {}
        exec(reference.VERIFY, receiver)
        verified = receiver["verified"]
        secret, other = Secret("whsec_" + "a" * 32), Secret("whsec_" + "b" * 32)

        def sent(minutes_ago: int) -> bytes:
            at = views.time(datetime.now(UTC) - timedelta(minutes=minutes_ago))
            return json.dumps({"id": "1", "timestamp": at}).encode()

        body = sent(0)
        new = {"X-Webhook-Signature": signature(secret, body)}
        assert verified(body, new, secret.reveal())["id"] == "1"
        rotated = {**new, "X-Webhook-Signature-Old": signature(other, body)}
        assert verified(body, rotated, other.reveal())["id"] == "1"
        late = sent(6)
        for changed, headers in (
            (body, {}),
            (body, {"X-Webhook-Signature": signature(other, body)}),
            (body + b" ", new),
            (late, {"X-Webhook-Signature": signature(secret, late)}),
        ):
            with pytest.raises(ValueError, match=r"not from|too old"):
                verified(changed, headers, secret.reveal())


class TestHealth(Door):
    async def test_it_is_up(self, api: httpx.AsyncClient) -> None:
        del api.headers["authorization"]
        for path, status in (("/healthz", "ok"), ("/readyz", "ready")):
            answer = await api.get(f"http://distribu{path}")
            assert (answer.status_code, answer.json()) == (200, {"status": status})


class TestInMemory(Door):
    """What can only be seen with the clock and the store in one's hand."""

    async def test_a_key_is_forgotten_after_a_day(self, shop: Harness, api: httpx.AsyncClient) -> None:
        async def post() -> httpx.Response:
            return await api.post(
                "/products", json={"name": "Oat", "price": 1}, headers={"idempotency-key": "k"}
            )

        first = data(await post(), 201)
        shop.clock.advance(hours=23, minutes=59)
        assert data(await post(), 201) == first
        shop.clock.advance(minutes=1)
        assert data(await post(), 201)["id"] != first["id"]

    async def test_a_key_ends_when_it_was_to_end(self, shop: Harness) -> None:
        ends = shop.clock.now() + timedelta(days=30)
        made = await shop.execute(CreateApiKey(name="ERP", scopes=SCOPES, expires_at=ends))
        async with await shop.api() as api:
            api.headers["authorization"] = f"Bearer {made.secret.reveal()}"
            shop.clock.advance(days=30, milliseconds=-1)
            data(await api.get("/me"))
            shop.clock.advance(milliseconds=1)
            refusal(await api.get("/me"), 401, "unauthenticated")

    async def test_a_secret_is_not_kept_in_the_clear(
        self, shop: Harness, world: World, api: httpx.AsyncClient
    ) -> None:
        store = shop.distribu.ports.store
        assert isinstance(store, MemoryStore)
        for route in POSTS:
            data(await world.ask(api, route, headers={"idempotency-key": route_id(route)}), route.status)
        kept = store.shelves[shop.company.id].answers
        assert len(kept) == len(POSTS)
        for (_, key), (answer, _) in kept.items():
            secret = key.endswith(("/webhooks", "/rotate-secret"))
            assert answer.sealed == secret
            assert "whsec_" not in answer.body

    async def test_a_twin_that_takes_too_long(self, shop: Harness, api: httpx.AsyncClient) -> None:
        store = shop.distribu.ports.store
        assert isinstance(store, MemoryStore)
        store.wait_s = 0.02
        (key,) = (await shop.execute(ListApiKeys())).items
        async with store.locks[(shop.company.id, f"API_KEY::{key.id}", "k")]:
            answer = await api.post(
                "/products", json={"name": "Oat", "price": 1}, headers={"idempotency-key": "k"}
            )
        refusal(answer, 409, "idempotency_key_running")

    async def test_too_busy(self, shop: Harness, api: httpx.AsyncClient) -> None:
        store = shop.distribu.ports.store
        assert isinstance(store, MemoryStore)
        store.wait_s = 0.02
        async with store.locks[shop.company.id]:
            answer = await api.post("/products", json={"name": "Oat", "price": 1})
        said = refusal(answer, 503, "busy")
        assert said["retryAfter"] == 1
        assert answer.headers["retry-after"] == "1"
