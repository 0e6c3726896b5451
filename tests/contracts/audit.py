"""Use cases of the audit log, on any store."""

import json
from typing import Any

import pytest

from distribu import Actor, Harness, Invalid, Role, amount
from distribu.application.access import CreateApiKey, EditApiKey, RevokeApiKey
from distribu.application.audit import ListAudit, RecordAudit
from distribu.application.catalog import AdjustStock, ArchiveProduct, EditProduct, MoveReason
from distribu.application.customers import EditCustomer, RemovePriceOverride, SetPriceOverride
from distribu.application.ordering import MoveOrder, RecordPayment
from distribu.application.shapes import time
from distribu.application.team import EditCompany
from distribu.application.webhooks import EditWebhook, RemoveWebhook, RotateWebhookSecret
from distribu.domain.access import SCOPES, ActorKind
from distribu.domain.audit import METADATA_MAX
from distribu.domain.ordering import OrderStatus, PaymentMethod
from tests.contracts.asking import contact_of, each, key_of, log_of, refused

ENDLESS: dict[str, Any] = {}
ENDLESS["itself"] = ENDLESS


class AuditUseCases:
    async def test_every_change_is_in_the_log(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=9), await shop.customer()
        order = await shop.order(customer, (product, 1))
        cancelled = await shop.order(customer, (product, 1))
        key = (await shop.execute(CreateApiKey(name="ERP", scopes=SCOPES))).what
        webhook, _ = await shop.webhook()
        pair: dict[str, Any] = {"customer_id": customer.id, "product_id": product.id}
        for request in each(
            EditCompany(name="New"),
            EditProduct(product_id=product.id, name="New"),
            AdjustStock(product_id=product.id, quantity=-1, reason=MoveReason.ADJUSTED),
            EditCustomer(customer_id=customer.id, payment_terms_days=30),
            SetPriceOverride(**pair, price=amount("1")),
            RemovePriceOverride(**pair),
            MoveOrder(order_id=order.id, status=OrderStatus.CONFIRMED),
            RecordPayment(order_id=order.id, amount=amount("1"), method=PaymentMethod.CASH),
            MoveOrder(order_id=cancelled.id, status=OrderStatus.CANCELLED),
            EditWebhook(webhook_id=webhook.id, is_active=False),
            RotateWebhookSecret(webhook_id=webhook.id),
            RemoveWebhook(webhook_id=webhook.id),
            EditApiKey(api_key_id=key.id, name="New"),
            RevokeApiKey(api_key_id=key.id),
            ArchiveProduct(product_id=product.id),
        ):
            await shop.execute(request)
        seen = [(it.action, it.entity_type) for it in await log_of(shop)]
        assert seen == [
            ("company.created", "Company"),
            ("product.created", "Product"),
            ("stock.received", "Product"),
            ("customer.created", "Customer"),
            *[
                ("customer.credit_taken", "Customer"),
                ("stock.ordered", "Product"),
                ("order.placed", "Order"),
            ]
            * 2,
            ("api_key.created", "ApiKey"),
            ("webhook.created", "Webhook"),
            ("company.updated", "Company"),
            ("product.updated", "Product"),
            ("stock.adjusted", "Product"),
            ("customer.updated", "Customer"),
            ("price_override.set", "PriceOverride"),
            ("price_override.removed", "PriceOverride"),
            ("order.status_changed", "Order"),
            ("order.payment_recorded", "Order"),
            ("customer.credit_released", "Customer"),
            ("customer.credit_released", "Customer"),
            ("stock.restocked", "Product"),
            ("order.status_changed", "Order"),
            ("webhook.updated", "Webhook"),
            ("webhook.secret_rotated", "Webhook"),
            ("webhook.deleted", "Webhook"),
            ("api_key.updated", "ApiKey"),
            ("api_key.revoked", "ApiKey"),
            ("product.deleted", "Product"),
        ]

    async def test_an_edit_tells_before_and_after_of_what_changed(self, shop: Harness) -> None:
        product = await shop.product(price="10.00", category="Flour")
        await shop.execute(EditProduct(product_id=product.id, price=amount("12.50"), category="Flour"))
        (told,) = await log_of(shop, "product.updated")
        assert told.metadata == {"before": {"price": 10.0}, "after": {"price": 12.5}}

    async def test_a_callers_own_metadata_is_kept_as_it_is(self, shop: Harness) -> None:
        given = {"a_b": 1, "aB": 2, "A b": [{"sub_key": {"x_y": None}}], "_": "", "at": shop.clock.now()}
        await shop.execute(RecordAudit(action="hello", metadata=given))
        (told,) = await log_of(shop, "custom.hello")
        assert told.metadata == given | {"at": time(shop.clock.now())}

    async def test_an_order_is_told_with_its_number(self, shop: Harness) -> None:
        customer = await shop.customer()
        await shop.order(customer, (await shop.product(price="10.00"), 2))
        (told,) = await log_of(shop, "order.placed")
        assert told.metadata == {
            "number": 1001,
            "customerId": customer.id,
            "source": "STAFF",
            "lines": 1,
            "total": 20.0,
            "currency": "USD",
        }

    async def test_what_names_a_person_is_not_in_what_is_kept_for_ever(self, shop: Harness) -> None:
        """An edited email, name or note is told by its field alone."""
        customer = await shop.customer("secret-person@example.test", name="Ann Secret", notes="secret note")
        await shop.execute(
            EditCustomer(customer_id=customer.id, email="secret-other@example.test", name="Bo Secret")
        )
        log = await log_of(shop)
        assert log[-1].metadata == {"before": {}, "after": {}, "fields": ["email", "name"]}
        assert "secret" not in repr([it.metadata for it in log]).lower()

    async def test_secrets_are_in_no_record(self, shop: Harness) -> None:
        key = await shop.key()
        webhook, secret = await shop.webhook()
        rotated = await shop.execute(RotateWebhookSecret(webhook_id=webhook.id))
        text = repr(await log_of(shop))
        for hidden in (key, secret.reveal(), rotated.secret.reveal(), webhook.secret):
            assert hidden not in text
        assert key[:8] in text

    async def test_the_log_says_who_it_was(self, shop: Harness) -> None:
        customer = await shop.customer()
        staff = Actor.staff(shop.company.id, Role.ADMIN, id="u-1", label="Ada Admin", ip="192.0.2.1")
        product = await shop.product()
        who = {
            ActorKind.USER: staff,
            ActorKind.CUSTOMER: contact_of(shop, customer),
            ActorKind.API_KEY: key_of(shop, "orders:write"),
            ActorKind.SYSTEM: shop.actor,
        }
        for kind, actor in who.items():
            order = await shop.order(customer, (product, 1), actor=actor)
            page = await shop.execute(ListAudit(entity_id=order.id))
            (told,) = page.items
            assert (told.actor_kind, told.actor_id) == (kind, actor.id)
            assert (told.label, told.ip) == (actor.label, actor.ip)
            assert told.at == shop.clock.now()

    async def test_the_log_is_searched(self, shop: Harness) -> None:
        ada = Actor.staff(shop.company.id, Role.ADMIN, id="u-1", label="Ada@Acme.example")
        await shop.execute(RecordAudit(action="first", entity_id="R-7", metadata={"note": "Größe 3"}), ada)
        await shop.execute(RecordAudit(action="second", metadata={"note": "grösse 100%_"}))
        for wanted, found in (
            ("ada@acme", ["custom.first"]),
            ("r-7", ["custom.first"]),
            ("größe", ["custom.first"]),
            ("GRÖSSE", []),
            ("grösse", ["custom.second"]),
            ("%_", ["custom.second"]),
            ("custom.SEC", ["custom.second"]),
            ('note":"', ["custom.second", "custom.first"]),
            ("nowhere", []),
        ):
            page = await shop.execute(ListAudit(search=wanted, action="custom"))
            assert [it.action for it in page.items] == found, wanted

    # --- entries of one's own ----------------------------------------------------------------------

    async def test_an_entry_from_outside_is_named_custom(self, shop: Harness) -> None:
        for action in ("report.sent", "custom.report.sent"):
            await shop.execute(
                RecordAudit(action=action, entity_type="Report", entity_id="r-1", metadata={"a": [1, None]})
            )
        log = await log_of(shop, "custom")
        assert [(it.action, it.entity_type, it.entity_id) for it in log] == [
            ("custom.report.sent", "Report", "r-1")
        ] * 2
        assert log[0].metadata == {"a": [1, None]}

    @pytest.mark.parametrize("action", ["", "Report", "a..b", ".a", "a b", "ü", "x" * 81, "1a"])
    async def test_an_action_is_dotted_words(self, shop: Harness, action: str) -> None:
        async with refused(shop, "invalid_request", Invalid):
            await shop.execute(RecordAudit(action=action))

    async def test_an_entry_cannot_pass_for_one_of_ours(self, shop: Harness) -> None:
        await shop.execute(RecordAudit(action="order.placed", entity_type="Order", entity_id="x"))
        assert await log_of(shop, "order") == []

    @pytest.mark.parametrize(
        "metadata",
        [{"a": "\0"}, {"a": {"b\0": 1}}, {"a": "x" * 70_000}, {"a": object()}, {(1, 2): 3}, ENDLESS],
        ids=["nul", "nul in a name", "too long", "an object", "a name that is none", "endless"],
    )
    async def test_what_cannot_be_kept_is_refused_and_not_dropped(
        self, shop: Harness, metadata: dict[str, Any]
    ) -> None:
        async with refused(shop, "invalid_request", Invalid):
            await shop.execute(RecordAudit(action="hello", metadata=metadata))

    @pytest.mark.parametrize("text", ["x" * METADATA_MAX, "ü" * METADATA_MAX, '"' * METADATA_MAX])
    async def test_long_metadata_is_shortened_and_says_so(self, shop: Harness, text: str) -> None:
        metadata = {"text": text}
        await shop.execute(RecordAudit(action="long", metadata=metadata))
        (told,) = await log_of(shop, "custom.long")
        whole = json.dumps(metadata, ensure_ascii=False, separators=(",", ":"))
        assert told.metadata["shortened"] is True
        assert told.metadata["bytes"] == len(whole.encode())
        assert whole.startswith(told.metadata["text"])
        assert len(told.metadata["text"]) >= METADATA_MAX // 4
        kept = json.dumps(told.metadata, ensure_ascii=False, separators=(",", ":"))
        assert len(kept.encode()) <= METADATA_MAX + 200

    async def test_metadata_of_exactly_the_most_is_kept_whole(self, shop: Harness) -> None:
        metadata = {"text": "x" * (METADATA_MAX - len('{"text":""}'))}
        await shop.execute(RecordAudit(action="whole", metadata=metadata))
        (told,) = await log_of(shop, "custom.whole")
        assert told.metadata == metadata

    async def test_a_long_edit_is_shortened_and_happens(self, shop: Harness) -> None:
        product = await shop.product(description="ü" * 2000)
        await shop.execute(
            EditProduct(product_id=product.id, description="ö" * 2000, name="N" * 200, category="c" * 100)
        )
        (told,) = await log_of(shop, "product.updated")
        assert told.metadata["shortened"] is True

    async def test_the_log_is_its_companys_alone(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        await shop.product()
        seen = await log_of(stranger)
        assert [it.action for it in seen] == ["company.created"]
        assert {it.company_id for it in seen} == {stranger.company.id}

    async def test_a_number_in_metadata_is_only_a_number(self, shop: Harness) -> None:
        """An order's own number is filled in while it is committed; a caller's is none of those."""
        await shop.execute(RecordAudit(action="counted", metadata={"number": 0, "more": {"number": False}}))
        (told,) = await log_of(shop, "custom.counted")
        assert told.metadata == {"number": 0, "more": {"number": False}}
