"""Use cases of webhooks, and what arrives at a receiver, on any store."""

import asyncio
import hashlib
import hmac
import json
import re
from base64 import b64decode, b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook as StandardWebhook, WebhookVerificationError

from distribu import Actor, Forbidden, Harness, Invalid, NotFound, Refused, Role, Secret, Stale
from distribu.adapters.memory.twins import Received, silence
from distribu.application import views
from distribu.application.catalog import AdjustStock, ArchiveProduct, EditProduct, MoveReason
from distribu.application.customers import EditCustomer
from distribu.application.ordering import MoveOrder, ReadOrder
from distribu.application.ports import Reply
from distribu.application.webhooks import (
    EditWebhook,
    ListDeliveries,
    ListEvents,
    ListWebhooks,
    ReadDelivery,
    ReadWebhook,
    RegisterWebhook,
    RemoveWebhook,
    ReplayDeliveries,
    ReplayDelivery,
    RotateWebhookSecret,
    SendTest,
)
from distribu.domain.access import SCOPES, Permission
from distribu.domain.ordering import OrderStatus
from distribu.domain.values import DeliveryId, WebhookId
from distribu.domain.webhooks import RETRY_WAITS_S, Delivery, DeliveryStatus, Webhook, WireEvent
from tests.contracts.asking import each, everything, invoiced, key_of, log_of, refused, sent_to

URL = "http://localhost:9000/"


def hex_signature(secret: Secret, body: bytes) -> str:
    """The first signature as a receiver computes it."""
    return hmac.new(secret.reveal().encode(), body, hashlib.sha256).hexdigest()


def standard(secret: Secret, one: Received) -> str:
    """The second one, by its specification and nothing of ours."""
    key = b64decode(secret.reveal().removeprefix("whsec_"))
    headers = one.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + one.body
    return "v1," + b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


async def only_delivery(shop: Harness, webhook: Webhook) -> Delivery:
    """The newest delivery of a webhook with its attempts."""
    page = await shop.execute(ListDeliveries(webhook_id=webhook.id, limit=1))
    return await shop.execute(ReadDelivery(delivery_id=page.items[0].id))


def says(status: int, body: str = "", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Reply(status, named, body, "")


class WebhookUseCases:
    # --- subscribing -----------------------------------------------------------------------------

    async def test_a_secret_is_shown_once_and_kept_sealed(self, shop: Harness) -> None:
        made = [await shop.webhook() for _ in range(20)]
        for webhook, secret in made:
            assert re.fullmatch(r"whsec_[A-Za-z0-9]{32}", secret.reveal())
            assert len(b64decode(secret.reveal().removeprefix("whsec_"))) == 24
            assert webhook.secret != secret.reveal()
            assert shop.distribu.ports.vault.open(webhook.secret) == secret
        held = repr(await everything(shop))
        assert not any(secret.reveal() in held for _, secret in made)

    async def test_events_are_kept_once_and_in_their_order(self, shop: Harness) -> None:
        wish = (WireEvent.PRODUCT_CREATED, WireEvent.ORDER_CREATED, WireEvent.PRODUCT_CREATED)
        webhook, _ = await shop.webhook(*wish)
        read = await shop.execute(ReadWebhook(webhook_id=webhook.id))
        assert read.subscribed == (WireEvent.ORDER_CREATED, WireEvent.PRODUCT_CREATED)

    async def test_an_event_takes_the_scope_that_reads_what_it_carries(self, shop: Harness) -> None:
        key = key_of(shop, Permission.WEBHOOKS_WRITE, Permission.ORDERS_READ)
        allowed = RegisterWebhook(url=URL, events=(WireEvent.ORDER_CREATED,))
        webhook = (await shop.execute(allowed, key)).what
        for event in (WireEvent.PRODUCT_LOW_STOCK, WireEvent.CUSTOMER_CREATED):
            events = (WireEvent.ORDER_CREATED, event)
            for request in each(
                RegisterWebhook(url=URL, events=events),
                EditWebhook(webhook_id=webhook.id, events=events),
            ):
                async with refused(shop, "missing_scope", Forbidden):
                    await shop.execute(request, key)

    @pytest.mark.parametrize("url", ["http://erp.example/", "ftp://x.example", "https://10.0.0.1/", "x"])
    async def test_an_address_we_would_not_send_to_is_refused(self, shop: Harness, url: str) -> None:
        webhook, _ = await shop.webhook()
        async with refused(shop, "webhook_url_refused"):
            await shop.execute(RegisterWebhook(url=url, events=(WireEvent.ORDER_CREATED,)))
        async with refused(shop, "webhook_url_refused"):
            await shop.execute(EditWebhook(webhook_id=webhook.id, url=url))

    async def test_what_a_company_pays_is_subscribed_to_by_owner_and_admins_alone(
        self, shop: Harness
    ) -> None:
        """No key has a scope for it: neither sends it elsewhere, nor reads it from the feed."""
        key, url = key_of(shop, *SCOPES), URL + shop.company.id
        mine, _ = await shop.webhook(WireEvent.INVOICE_PAID)
        other, _ = await shop.webhook(WireEvent.PRODUCT_CREATED)
        for request in each(
            RegisterWebhook(url=url, events=(WireEvent.INVOICE_PAID,)),
            EditWebhook(webhook_id=other.id, events=(WireEvent.INVOICE_PAID,)),
            EditWebhook(webhook_id=mine.id, url=url),
        ):
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(request, key)
        await invoiced(shop, url)
        await shop.work()
        assert "invoice.paid" not in {it.name for it in (await shop.execute(ListEvents(), key)).items}
        admin = Actor.staff(shop.company.id, Role.ADMIN, id=shop.actor.id, label="Ada")
        assert "invoice.paid" in {it.name for it in (await shop.execute(ListEvents(), admin)).items}
        await shop.execute(RegisterWebhook(url=url, events=(WireEvent.INVOICE_PAID,)), admin)

    async def test_an_answer_to_a_record_is_not_kept(self, shop: Harness) -> None:
        """A receiver that echoes would put the log, and its people, where keys read and nobody is erased."""
        events = (WireEvent.AUDIT_RECORDED, WireEvent.INVOICE_PAID, WireEvent.PRODUCT_CREATED)
        webhook, _ = await shop.webhook(*events, url=URL + shop.company.id)
        shop.receivers.answer = lambda one: Reply(200, {}, one.body.decode(), "")
        await shop.product("Flour")
        await invoiced(shop, URL + shop.company.id)
        await shop.work()
        page = await shop.execute(ListDeliveries(webhook_id=webhook.id))
        kept: dict[str, str] = dict.fromkeys(events, "")
        for one in page.items:
            (attempt,) = (await shop.execute(ReadDelivery(delivery_id=one.id))).attempts
            assert attempt.status == 200
            kept[one.event] += attempt.body
        assert kept[WireEvent.AUDIT_RECORDED] == kept[WireEvent.INVOICE_PAID] == ""
        assert "Flour" in kept[WireEvent.PRODUCT_CREATED]

    async def test_a_url_and_events_have_their_limits(self, shop: Harness) -> None:
        long = "https://erp.example/" + "x" * 2048
        for url, events in ((long, (WireEvent.ORDER_CREATED,)), ("https://erp.example/", ())):
            async with refused(shop, "invalid_request", Invalid):
                await shop.execute(RegisterWebhook(url=url, events=events))

    async def test_the_last_place_goes_to_one_of_many_who_come_at_once(self, shop: Harness) -> None:
        for _ in range(48):
            await shop.webhook()
        tried = await asyncio.gather(*(shop.webhook() for _ in range(6)), return_exceptions=True)
        assert sum(not isinstance(one, BaseException) for one in tried) == 2
        assert {one.code for one in tried if isinstance(one, Refused)} == {"too_many"}

    async def test_a_new_address_takes_what_it_takes_to_read_what_goes_there(self, shop: Harness) -> None:
        """Or a key that may only manage webhooks could send orders to itself."""
        webhook, _ = await shop.webhook(WireEvent.ORDER_CREATED)
        manager = replace(shop.actor, permissions=frozenset({Permission.WEBHOOKS_WRITE}))
        edit = EditWebhook(webhook_id=webhook.id, url="http://localhost:9000/elsewhere")
        with pytest.raises(Forbidden):
            await shop.execute(edit, manager)
        reader = replace(manager, permissions=manager.permissions | {Permission.ORDERS_READ})
        assert (await shop.execute(edit, reader)).url.endswith("/elsewhere")

    async def test_who_may_not_read_what_goes_there_manages_it_not(self, shop: Harness) -> None:
        """A key for webhooks alone can neither end, silence nor sign for what it could not subscribe to."""
        webhook, _ = await shop.webhook(WireEvent.AUDIT_SEALED, WireEvent.ORDER_CREATED)
        audit, _ = await shop.webhook(WireEvent.AUDIT_RECORDED)
        await shop.order(await shop.customer(), (await shop.product(), 1))
        await shop.work()
        manages = {Permission.WEBHOOKS_READ, Permission.WEBHOOKS_WRITE}
        for it, code, lacks, needs in (
            (webhook, "missing_scope", set(SCOPES) - {Permission.ORDERS_READ}, {Permission.ORDERS_READ}),
            (audit, "forbidden", SCOPES, {Permission.AUDIT_READ}),
        ):
            delivery = (await shop.execute(ListDeliveries(webhook_id=it.id))).items[0]
            requests = each(
                EditWebhook(webhook_id=it.id, is_active=False),
                EditWebhook(webhook_id=it.id, is_active=True),
                EditWebhook(webhook_id=it.id, events=(WireEvent.AUDIT_SEALED,)),
                EditWebhook(webhook_id=it.id, url=it.url, version=99),
                SendTest(webhook_id=it.id),
                ReplayDelivery(delivery_id=delivery.id),
                ReplayDeliveries(webhook_id=it.id, since=shop.clock.now()),
                RotateWebhookSecret(webhook_id=it.id),
                RotateWebhookSecret(webhook_id=it.id, grace=False),
                RemoveWebhook(webhook_id=it.id),
            )
            for request in requests:
                async with refused(shop, code, Forbidden):
                    await shop.execute(request, key_of(shop, *lacks))
            key = key_of(shop, *manages, *needs)
            for request in requests:
                if getattr(request, "version", None) != 99:
                    await shop.execute(request, key)

    async def test_owner_and_admins_manage_every_webhook(self, shop: Harness) -> None:
        for role in (Role.OWNER, Role.ADMIN):
            webhook, _ = await shop.webhook(*WireEvent)
            actor = Actor.staff(shop.company.id, role, id="u-1", label="Ada")
            for request in each(
                EditWebhook(webhook_id=webhook.id, is_active=False),
                SendTest(webhook_id=webhook.id),
                ReplayDeliveries(webhook_id=webhook.id, since=shop.clock.now()),
                RotateWebhookSecret(webhook_id=webhook.id),
                RemoveWebhook(webhook_id=webhook.id),
            ):
                await shop.execute(request, actor)

    async def test_fifty_webhooks_are_the_most_and_removing_one_makes_room(self, shop: Harness) -> None:
        webhooks = [(await shop.webhook())[0] for _ in range(50)]
        async with refused(shop, "too_many"):
            await shop.webhook()
        await shop.execute(RemoveWebhook(webhook_id=webhooks[0].id))
        await shop.webhook()

    async def test_a_webhook_is_changed_and_removed(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        edited = await shop.execute(
            EditWebhook(webhook_id=webhook.id, events=(WireEvent.ORDER_CREATED,), is_active=False, version=1)
        )
        assert (edited.subscribed, edited.is_active) == ((WireEvent.ORDER_CREATED,), False)
        async with refused(shop, "precondition_failed", Stale):
            await shop.execute(EditWebhook(webhook_id=webhook.id, is_active=True, version=1))
        await shop.execute(RemoveWebhook(webhook_id=webhook.id, version=2))
        assert (await shop.execute(ListWebhooks())).items == ()
        for request in each(
            ReadWebhook(webhook_id=webhook.id),
            EditWebhook(webhook_id=webhook.id, is_active=True),
            RotateWebhookSecret(webhook_id=webhook.id),
            RemoveWebhook(webhook_id=webhook.id),
            ListDeliveries(webhook_id=webhook.id),
        ):
            async with refused(shop, "webhook_not_found", NotFound):
                await shop.execute(request)

    async def test_a_strangers_webhooks_and_deliveries_are_not_found(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        await shop.product()
        await shop.work()
        delivery = await only_delivery(shop, webhook)
        stranger = await shop.stranger()
        absent = shop.distribu.ports.entropy.uuid()
        answers = set()
        for id, sent in ((webhook.id, delivery.id), (WebhookId(absent), DeliveryId(absent))):
            for request in each(
                ReadWebhook(webhook_id=id),
                RotateWebhookSecret(webhook_id=id),
                RemoveWebhook(webhook_id=id),
                ListDeliveries(webhook_id=id),
                ReadDelivery(delivery_id=sent),
            ):
                code = "delivery_not_found" if isinstance(request, ReadDelivery) else "webhook_not_found"
                async with refused(stranger, code, NotFound) as no:
                    await stranger.execute(request)
                answers.add(no.refused.message)
        assert len(answers) == 2

    # --- what goes out -----------------------------------------------------------------------------

    async def test_an_order_goes_out_as_the_api_shows_it_frozen_at_the_change(self, shop: Harness) -> None:
        url = URL + shop.company.id
        await shop.webhook(*(it for it in WireEvent if it.value.startswith("order.")), url=url)
        order = await shop.order(await shop.customer(), (await shop.product(price="12.50"), 2))
        shown = [json.loads(views.encode(views.of(order)))]
        for status in (OrderStatus.CONFIRMED, OrderStatus.SHIPPED, OrderStatus.DELIVERED):
            shop.clock.advance(minutes=1)
            await shop.execute(MoveOrder(order_id=order.id, status=status, carrier="DHL"))
            read = await shop.execute(ReadOrder(order_id=order.id))
            shown.append(json.loads(views.encode(views.of(read))))
        await shop.work()
        sent = sorted((json.loads(it.body) for it in sent_to(shop, url)), key=lambda it: it["position"])
        assert [it["event"] for it in sent] == [
            "order.created",
            "order.status_changed",
            "order.status_changed",
            "order.shipped",
            "order.status_changed",
            "order.delivered",
        ]
        assert [it["data"] for it in sent] == [shown[n] for n in (0, 1, 2, 2, 3, 3)]
        assert sent[0]["data"]["number"] == 1001
        assert sent[0]["data"]["items"][0]["unitPrice"] == 12.5

    @pytest.mark.parametrize("name", [event.value for event in WireEvent])
    async def test_each_event_goes_out_once_for_its_change(self, shop: Harness, name: str) -> None:
        url = URL + shop.company.id
        product, customer = await shop.product(stock=6), await shop.customer()
        order = await shop.order(customer, (product, 1))
        await shop.execute(MoveOrder(order_id=order.id, status=OrderStatus.CONFIRMED))
        await shop.work()
        await shop.webhook(WireEvent(name), url=url)

        async def ship() -> None:
            await shop.execute(MoveOrder(order_id=order.id, status=OrderStatus.SHIPPED))

        changes: dict[str, Any] = {
            "order.created": lambda: shop.order(customer, (product, 1)),
            "order.status_changed": ship,
            "order.shipped": ship,
            "order.delivered": lambda: shop.execute(
                MoveOrder(order_id=order.id, status=OrderStatus.DELIVERED)
            ),
            "order.cancelled": lambda: shop.execute(
                MoveOrder(order_id=order.id, status=OrderStatus.CANCELLED)
            ),
            "customer.created": lambda: shop.customer(),
            "customer.updated": lambda: shop.execute(EditCustomer(customer_id=customer.id, notes="x")),
            "invoice.paid": lambda: invoiced(shop, url),
            "product.created": lambda: shop.product(stock=3),
            "product.updated": lambda: shop.execute(EditProduct(product_id=product.id, name="x")),
            "product.deleted": lambda: shop.execute(ArchiveProduct(product_id=product.id)),
            "product.low_stock": lambda: shop.execute(
                AdjustStock(product_id=product.id, quantity=3, reason=MoveReason.RECEIVED)
            ),
        }
        if name.startswith("audit."):  # the work below seals, and tells
            shop.clock.advance(minutes=1)
        elif name == "product.low_stock":
            await changes[name]()
            await shop.execute(AdjustStock(product_id=product.id, quantity=-4, reason=MoveReason.ADJUSTED))
        elif name == "order.delivered":
            await ship()
            await changes[name]()
        else:
            await changes[name]()
        await shop.work()
        assert [it.headers["X-Webhook-Event"] for it in sent_to(shop, url)] == [name]

    async def test_what_nobody_outside_needs_stays_in_the_house(self, shop: Harness) -> None:
        """Credit, payments, prices, keys and settings are told to the audit log alone."""
        url = URL + shop.company.id
        product, customer = await shop.product(stock=50), await shop.customer()
        await shop.work()
        await shop.webhook(url=url)
        await shop.key()
        await shop.execute(AdjustStock(product_id=product.id, quantity=1, reason=MoveReason.RECEIVED))
        await shop.order(customer, (product, 1))
        await shop.work()
        assert [it.headers["X-Webhook-Event"] for it in sent_to(shop, url)] == ["order.created"]

    async def test_an_envelope_says_when_it_happened_when_it_was_sent_and_where_it_stands(
        self, shop: Harness
    ) -> None:
        url = URL + shop.company.id
        await shop.webhook(url=url)
        at = shop.clock.now()
        await shop.product()
        shop.clock.advance(seconds=90)
        await shop.work()
        (one,) = sent_to(shop, url)
        envelope = json.loads(one.body)
        assert set(envelope) == {"id", "event", "timestamp", "occurredAt", "position", "previous", "data"}
        assert envelope["occurredAt"] == views.time(at)
        assert envelope["timestamp"] == views.time(shop.clock.now())
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", envelope["timestamp"])
        assert envelope["position"] == 1
        assert one.headers["X-Webhook-Id"] == one.headers["webhook-id"] == envelope["id"]
        assert one.headers["webhook-timestamp"] == str(int(shop.clock.now().timestamp()))
        assert one.headers["Content-Type"] == "application/json"

    # --- signatures -------------------------------------------------------------------------------

    async def test_both_signatures_hold_over_the_raw_body(self, shop: Harness) -> None:
        url = URL + shop.company.id
        _, secret = await shop.webhook(url=url)
        await shop.product('Odd "name" \\ ünï \t')
        await shop.work()
        (one,) = sent_to(shop, url)
        assert one.headers["X-Webhook-Signature"] == hex_signature(secret, one.body)
        assert one.headers["webhook-signature"] == standard(secret, one)
        assert "X-Webhook-Signature-Old" not in one.headers

    async def test_an_altered_timestamp_fails_verification(self, shop: Harness) -> None:
        """The time of the attempt is inside of what is signed."""
        url = URL + shop.company.id
        _, secret = await shop.webhook(url=url)
        await shop.product()
        await shop.work()
        (one,) = sent_to(shop, url)
        sent = json.loads(one.body)["timestamp"]
        later = views.time(shop.clock.now() + timedelta(hours=1))
        forged = one.body.replace(sent.encode(), later.encode())
        assert forged != one.body
        assert hex_signature(secret, forged) != one.headers["X-Webhook-Signature"]

    async def test_the_public_library_verifies_us_before_during_and_after_a_rotation(
        self, shop: Harness
    ) -> None:
        url = URL + shop.company.id
        webhook, first = await shop.webhook(url=url)
        # that library compares with the real time
        shop.clock.advance(seconds=(datetime.now(UTC) - shop.clock.now()).total_seconds())

        async def send() -> Received:
            await shop.product()
            await shop.work()
            one: Received = sent_to(shop, url)[-1]
            return one

        def verifies(secret: Secret, one: Received, body: bytes | None = None) -> bool:
            try:
                StandardWebhook(secret.reveal()).verify(body or one.body, dict(one.headers))
            except WebhookVerificationError:
                return False
            return True

        before = await send()
        assert verifies(first, before)
        assert not verifies(first, before, before.body + b" ")
        rotated = await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))
        during = await send()
        assert verifies(first, during)
        assert verifies(rotated.secret, during)
        assert not verifies(rotated.secret, before)

    async def test_both_secrets_sign_for_seven_days_and_then_the_new_one_alone(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, old = await shop.webhook(url=url)
        rotated = await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))
        assert rotated.what.grace_expires_at == shop.clock.now() + timedelta(days=7)
        assert rotated.secret != old
        for wait, both in ((timedelta(0), True), (timedelta(days=7, milliseconds=-1), True), (None, False)):
            if wait is None:
                shop.clock.advance(milliseconds=1)
            else:
                shop.clock.advance(seconds=wait.total_seconds())
            await shop.product()
            await shop.work()
            one = sent_to(shop, url)[-1]
            assert one.headers["X-Webhook-Signature"] == hex_signature(rotated.secret, one.body)
            signatures = [standard(rotated.secret, one)] + [standard(old, one)] * both
            assert one.headers["webhook-signature"] == " ".join(signatures)
            older = one.headers.get("X-Webhook-Signature-Old")
            assert older == (hex_signature(old, one.body) if both else None)

    async def test_a_second_rotation_within_the_grace_retires_the_oldest_and_keeps_the_one_between(
        self, shop: Harness
    ) -> None:
        url = URL + shop.company.id
        webhook, first = await shop.webhook(url=url)
        second = (await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))).secret
        shop.clock.advance(days=3)
        third = await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))
        assert third.what.grace_expires_at == shop.clock.now() + timedelta(days=7)
        shop.clock.advance(days=5)  # the first grace is over, the second is not
        await shop.product()
        await shop.work()
        one = sent_to(shop, url)[-1]
        assert one.headers["X-Webhook-Signature"] == hex_signature(third.secret, one.body)
        assert one.headers["X-Webhook-Signature-Old"] == hex_signature(second, one.body)
        assert standard(first, one) not in one.headers["webhook-signature"]
        assert len(await log_of(shop, "webhook.secret_rotated")) == 2

    async def test_an_attempt_keeps_how_long_the_receiver_took(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook(url=URL + shop.company.id)
        shop.receivers.answer = lambda _: Reply(200, {}, "", "", duration_ms=1234)
        await shop.product()
        await shop.work()
        assert [it.duration_ms for it in (await only_delivery(shop, webhook)).attempts] == [1234]

    # --- trying again ------------------------------------------------------------------------------

    async def test_ten_attempts_are_made_with_growing_waits_and_then_it_is_dead(self, shop: Harness) -> None:
        url = URL + shop.company.id
        webhook, _ = await shop.webhook(url=url)
        shop.receivers.answer = says(500, "no")
        await shop.product()
        await shop.work()
        for number, usual in enumerate(RETRY_WAITS_S, 1):
            delivery = await only_delivery(shop, webhook)
            assert (delivery.status, len(delivery.attempts)) == (DeliveryStatus.PENDING, number)
            assert delivery.next_attempt_at is not None
            wait = (delivery.next_attempt_at - shop.clock.now()).total_seconds()
            assert usual * 0.8 <= wait <= usual * 1.2
            shop.clock.advance(seconds=wait - 0.001)
            await shop.work()
            assert len(sent_to(shop, url)) == number
            shop.clock.advance(milliseconds=1)
            await shop.work()
            assert len(sent_to(shop, url)) == number + 1
        delivery = await only_delivery(shop, webhook)
        assert (delivery.status, delivery.next_attempt_at) == (DeliveryStatus.DEAD, None)
        assert [it.number for it in delivery.attempts] == list(range(1, 11))
        shop.clock.advance(days=30)
        await shop.work()
        sent = sent_to(shop, url)
        assert len(sent) == 10
        assert len({it.headers["webhook-id"] for it in sent}) == 1
        assert len({json.loads(it.body)["timestamp"] for it in sent}) == 10
        assert len({str(json.loads(it.body)["data"]) for it in sent}) == 1

    async def test_every_attempt_is_stored_with_what_was_answered(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook(url=URL + shop.company.id)
        shop.receivers.answer = says(502, "x" * 3_000, server="nginx")
        await shop.product()
        await shop.work()
        shop.receivers.answer = silence
        shop.clock.advance(seconds=6)
        await shop.work()
        shop.receivers.answer = says(204)
        later = shop.clock.advance(seconds=360)
        await shop.work()
        delivery = await only_delivery(shop, webhook)
        assert delivery.status is DeliveryStatus.DELIVERED
        first, second, third = delivery.attempts
        assert (first.status, first.body, first.headers) == (502, "x" * 2_000, {"server": "nginx"})
        assert (second.status, second.body, second.error) == (None, "", "no answer within 10 s")
        assert (third.status, third.error, third.at) == (204, "", later)

    @pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500])
    async def test_anything_but_2xx_is_a_failure(self, shop: Harness, status: int) -> None:
        webhook, _ = await shop.webhook(url=URL + shop.company.id)
        shop.receivers.answer = says(status)
        await shop.product()
        await shop.work()
        assert (await only_delivery(shop, webhook)).status is DeliveryStatus.PENDING

    @pytest.mark.parametrize("status", [408, 425, 429, 503])
    @pytest.mark.parametrize(
        ("asked", "waits"),
        [
            ("", None),
            ("120", 120),
            ("date", 600),
            ("999999999999999999999", 86_400),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("0", None),
            ("Thu, 01 Jan 1970 00:00:00 GMT", None),
        ],
    )
    async def test_a_receiver_says_when_to_come_again(
        self, shop: Harness, status: int, asked: str, waits: int | None
    ) -> None:
        """A number of seconds or a date, up to a day; what makes no sense is not there."""
        webhook, _ = await shop.webhook(url=URL + shop.company.id)
        if asked == "date":
            asked = format_datetime(shop.clock.now() + timedelta(seconds=600), usegmt=True)
        shop.receivers.answer = says(status, retry_after=asked)
        await shop.product()
        await shop.work()
        delivery = await only_delivery(shop, webhook)
        assert delivery.next_attempt_at is not None
        wait = (delivery.next_attempt_at - shop.clock.now()).total_seconds()
        if waits is None:
            assert 4 <= wait <= 6
        else:
            assert wait == waits

    async def test_a_dead_receiver_does_not_hold_up_another(self, shop: Harness) -> None:
        dead, quick = URL + "dead" + shop.company.id, URL + "quick" + shop.company.id
        await shop.webhook(WireEvent.PRODUCT_CREATED, url=dead)
        await shop.webhook(WireEvent.PRODUCT_CREATED, url=quick)
        shop.receivers.answer = lambda one: silence(one) if one.url == dead else Reply(200, {}, "", "")
        for _ in range(20):
            await shop.product()
        await shop.work()
        assert len(sent_to(shop, quick)) == 20
        shop.clock.advance(hours=1)
        await shop.work()
        assert len(sent_to(shop, quick)) == 20
