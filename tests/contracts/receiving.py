"""What receivers are sent, whoever caused it, against what is published of it; on any store."""

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec
import pytest
from standardwebhooks import Webhook as StandardWebhook
from svix.webhooks import Webhook as SvixWebhook

from distribu import Actor, Harness, Permission, Role, Secret
from distribu.adapters.memory.twins import Received
from distribu.application.catalog import AdjustStock, ArchiveProduct, EditProduct, MoveReason
from distribu.application.customers import EditCustomer, NewAddress
from distribu.application.ordering import MoveOrder
from distribu.application.receiving import judge
from distribu.application.webhooks import RotateWebhookSecret
from distribu.domain.access import SCOPES
from distribu.domain.customers import Customer
from distribu.domain.ordering import OrderStatus
from distribu.domain.webhooks import WireEvent
from tests.contracts.asking import contact_of, invoiced, key_of, sent_to
from tests.samples import in_python

PUBLISHED = Path(__file__).parents[2] / "docs" / "events"
URL = "http://localhost:9000/"
SOURCES = ("API", "STAFF", "STOREFRONT")


def published(event: str) -> dict[str, Any]:
    """The schema of an event as it stands in the repository."""
    found: dict[str, Any] = json.loads((PUBLISHED / f"{event}.json").read_text())
    return found


def strict(schema: Any) -> Any:
    """The same schema, which allows no field that it does not name: nothing is sent that is not published."""
    schema = copy.deepcopy(schema)

    def close(part: Any) -> None:
        if isinstance(part, dict):
            if "properties" in part:
                part["additionalProperties"] = False
            for one in part.values():
                close(one)
        elif isinstance(part, list):
            for one in part:
                close(one)

    close({name: part for name, part in schema.items() if name != "examples"})
    return schema


def problems(schema: Any, value: Any) -> list[str]:
    """What of a value is not as its schema says."""
    jsonschema_rs.meta.validate(schema)
    validator = jsonschema_rs.Draft202012Validator(strict(schema), validate_formats=True)
    return [
        f"{'/'.join(map(str, error.instance_path))}: {error.message}"
        for error in validator.iter_errors(value)
    ]


def actor_of(shop: Harness, customer: Customer, source: str) -> Actor:
    """Somebody who places orders this way."""
    return {
        "API": key_of(shop, *SCOPES),
        "STAFF": Actor.staff(shop.company.id, Role.MEMBER, id=customer.id, label="ada@acme.example"),
        "STOREFRONT": contact_of(shop, customer),
    }[source]


def member(shop: Harness) -> Actor:
    """Somebody of the team."""
    return Actor.staff(shop.company.id, Role.MEMBER, id=shop.company.id, label="ada@acme.example")


class Sent(NamedTuple):
    """A delivery as it arrived, a secret, and whether a receiver with that secret has to accept it."""

    when: str
    one: Received
    secret: Secret
    good: bool


async def through_a_rotation(shop: Harness) -> list[Sent]:
    """Deliveries of this very moment, by the real clock: before, during and after a rotation."""

    def until(days_ago: int) -> None:
        there = datetime.now(UTC) - timedelta(days=days_ago)
        shop.clock.advance(seconds=(there - shop.clock.now()).total_seconds())

    until(days_ago=30)
    hooks = {}
    for when, days_ago in (("after", 8), ("during", 3), ("before", 0)):
        url = f"{URL}{shop.company.id}/{when}"
        until(days_ago)
        webhook, first = await shop.webhook(WireEvent.PRODUCT_CREATED, url=url)
        second = first
        if when != "before":
            second = (await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))).secret
        hooks[when] = (url, first, second)
    until(days_ago=0)
    await shop.product("Crème brûlée «½» \\ 粉")
    await shop.work()
    sent = []
    for when, (url, first, second) in hooks.items():
        (one,) = sent_to(shop, url)
        stranger = Secret("whsec_" + "else" * 8)
        good = {first.reveal(): when != "after", stranger.reveal(): False, second.reveal(): True}
        sent += [Sent(when, one, Secret(secret), ok) for secret, ok in good.items()]
    return sent


def library_accepts(kind: Any, it: Sent) -> bool:
    """What a public library says, as it is."""
    try:
        kind(it.secret.reveal()).verify(it.one.body, dict(it.one.headers))
    except Exception:
        return False
    return True


class ReceivingUseCases:
    """Everything is sent as it is published, and believed by whoever has the secret."""

    @pytest.mark.parametrize("kind", [StandardWebhook, SvixWebhook], ids=["standardwebhooks", "svix"])
    async def test_the_public_libraries_accept_us_before_during_and_after_a_rotation(
        self, shop: Harness, kind: Any
    ) -> None:
        sent = await through_a_rotation(shop)
        assert len(sent) == 8
        for it in sent:
            assert library_accepts(kind, it) == it.good, it.when

    async def test_the_sample_and_our_own_verdict_agree_with_them(self, shop: Harness) -> None:
        verified = in_python()
        for it in await through_a_rotation(shop):
            said = judge([it.secret], it.one.headers, it.one.body, now=shop.clock.now())
            assert said.genuine == it.good, said.why
            assert said.notes == []
            if it.good:
                assert verified(it.one.body, it.one.headers, it.secret.reveal())["event"] == "product.created"
                continue
            with pytest.raises(ValueError, match="not from"):
                verified(it.one.body, it.one.headers, it.secret.reveal())

    @pytest.mark.parametrize("source", SOURCES)
    async def test_every_event_is_as_published_whoever_caused_it(self, shop: Harness, source: str) -> None:
        url = URL + shop.company.id
        await shop.webhook(*WireEvent, url=url)
        address = NewAddress(
            name="Green Grocer", line1="12 High Street", city="Leeds", postal_code="LS1 4AB", country="GB"
        )
        customer = await shop.customer(addresses=(address,), credit_limit=None)
        actor = actor_of(shop, customer, source)
        crew = member(shop) if source == "STOREFRONT" else actor
        flour = await shop.product("Mehl «grün» \\ 🌾", sku="M-1", stock=9, price="0.10")
        rare = await shop.product(stock=7)
        await shop.execute(EditProduct(product_id=rare.id, description="x/y"), crew)
        await shop.execute(AdjustStock(product_id=rare.id, quantity=-3, reason=MoveReason.ADJUSTED), crew)
        await shop.execute(ArchiveProduct(product_id=rare.id), crew)
        await shop.execute(EditCustomer(customer_id=customer.id, payment_terms_days=14))
        for last in (OrderStatus.DELIVERED, OrderStatus.CANCELLED):
            order = await shop.order(customer, (flour, 2), actor=actor, notes="bitte «früh»\n")
            assert order.source == source
            moves = [OrderStatus.CONFIRMED, OrderStatus.SHIPPED, OrderStatus.DELIVERED]
            for status in moves if last is OrderStatus.DELIVERED else [last]:
                await shop.execute(MoveOrder(order_id=order.id, status=status), crew)
        await invoiced(shop, url)
        await shop.work()
        sent = sent_to(shop, url)
        told = {one.headers["X-Webhook-Event"] for one in sent}
        assert told == {event.value for event in WireEvent}
        for one in sent:
            name = one.headers["X-Webhook-Event"]
            assert problems(published(name), json.loads(one.body)) == [], name

    @pytest.mark.parametrize("source", SOURCES)
    async def test_an_order_event_carries_the_order_of_the_api_to_the_byte(
        self, shop: Harness, source: str
    ) -> None:
        url = URL + shop.company.id
        await shop.webhook(*(it for it in WireEvent if it.value.startswith("order.")), url=url)
        customer = await shop.customer()
        flour = await shop.product("Mehl «grün»", price="12.50")
        order = await shop.order(customer, (flour, 2), actor=actor_of(shop, customer, source))
        raw = msgspec.json.Decoder(dict[str, msgspec.Raw])
        async with await shop.api(Permission.ORDERS_READ, Permission.ORDERS_WRITE) as api:
            shown = [bytes(raw.decode((await api.get(f"/orders/{order.id}")).content)["data"])]
            for status in ("CONFIRMED", "SHIPPED", "DELIVERED"):
                shop.clock.advance(seconds=1)
                moved = await api.patch(f"/orders/{order.id}", json={"status": status})
                assert moved.status_code == 200, moved.text
                shown.append(bytes(raw.decode(moved.content)["data"]))
        await shop.work()
        sent = sorted(
            (raw.decode(one.body) for one in sent_to(shop, url)), key=lambda it: int(bytes(it["position"]))
        )
        assert [bytes(one["data"]) for one in sent] == [shown[n] for n in (0, 1, 2, 2, 3, 3)]
        assert json.loads(shown[0])["source"] == source
