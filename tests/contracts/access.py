"""Use cases of API keys, and what each actor may do, on any store."""

import re
from datetime import timedelta
from typing import Any, Final

import pytest

from distribu import Actor, ContactRole, Forbidden, Harness, Invalid, NotFound, Refused, Role, amount
from distribu.application import access, audit, catalog, customers, ordering, team, webhooks
from distribu.application.kernel import Request
from distribu.domain.access import (
    CONTACT_PERMISSIONS,
    ROLE_PERMISSIONS,
    SCOPES,
    ApiKey,
    Permission,
)
from distribu.domain.ordering import OrderStatus, PaymentMethod
from distribu.domain.values import (
    ApiKeyId,
    CustomerId,
    DeliveryId,
    OrderId,
    ProductId,
    WebhookId,
)
from distribu.domain.webhooks import WireEvent
from tests.contracts.asking import contact_of, everything, key_of, refused

_ID: Final = "00000000-0000-7000-8000-000000000000"
_P, _C, _O = ProductId(_ID), CustomerId(_ID), OrderId(_ID)
_K, _W, _D = ApiKeyId(_ID), WebhookId(_ID), DeliveryId(_ID)
_ITEMS: Final = (ordering.Wanted(product_id=_P, quantity=1),)
_URL: Final = "https://erp.example/hook"

READING: Final[tuple[Request[Any], ...]] = (
    catalog.ReadProduct(product_id=_P),
    catalog.ListProducts(),
    catalog.ListMovements(product_id=_P),
    customers.ReadCustomer(customer_id=_C),
    customers.ListCustomers(),
    customers.ListPriceOverrides(customer_id=_C),
    ordering.ReadOrder(order_id=_O),
    ordering.ListOrders(),
    access.ReadApiKey(api_key_id=_K),
    access.ListApiKeys(),
    webhooks.ReadWebhook(webhook_id=_W),
    webhooks.ListWebhooks(),
    webhooks.ReadDelivery(delivery_id=_D),
    webhooks.ListDeliveries(webhook_id=_W),
    audit.ListAudit(),
    team.ReadCompany(),
    team.ReadMe(),
)
CHANGING: Final[tuple[Request[Any], ...]] = (
    catalog.CreateProduct(name="Oat", price=amount("1")),
    catalog.EditProduct(product_id=_P, name="Oat"),
    catalog.ArchiveProduct(product_id=_P),
    catalog.AdjustStock(product_id=_P, quantity=1, reason=catalog.MoveReason.RECEIVED),
    customers.CreateCustomer(email="new@example.test"),
    customers.EditCustomer(customer_id=_C, name="New"),
    customers.SetPriceOverride(customer_id=_C, product_id=_P, price=amount("1")),
    customers.RemovePriceOverride(customer_id=_C, product_id=_P),
    ordering.PlaceOrder(customer_id=_C, items=_ITEMS),
    ordering.PreviewOrder(customer_id=_C, items=_ITEMS),
    ordering.MoveOrder(order_id=_O, status=OrderStatus.CONFIRMED),
    ordering.RecordPayment(order_id=_O, amount=amount("1"), method=PaymentMethod.CASH),
    access.CreateApiKey(name="ERP", scopes=SCOPES),
    access.RevokeApiKey(api_key_id=_K),
    webhooks.RegisterWebhook(url=_URL, events=(WireEvent.ORDER_CREATED,)),
    webhooks.EditWebhook(webhook_id=_W, is_active=False),
    webhooks.RotateWebhookSecret(webhook_id=_W),
    webhooks.RemoveWebhook(webhook_id=_W),
    audit.RecordAudit(action="hello"),
    team.CreateCompany(name="Mine"),
    team.EditCompany(name="Mine"),
)
READ_SCOPES: Final = tuple(scope for scope in SCOPES if scope.value.endswith(":read"))


def kinds(cls: type) -> set[type]:
    """Every request there is in the application."""
    found: set[type] = set()
    below: type
    subclasses: list[type] = cls.__subclasses__()
    for below in subclasses:
        found |= {below} | kinds(below)
    contexts = {module.__name__ for module in (access, audit, catalog, customers, ordering, team, webhooks)}
    return {cls for cls in found if cls.__module__ in contexts}


def named(request: Request[Any]) -> str:
    return type(request).__name__


class AccessUseCases:
    # --- keys ----------------------------------------------------------------------------------

    async def test_a_key_is_shown_once_and_kept_as_a_digest(self, shop: Harness) -> None:
        issued = await shop.execute(access.CreateApiKey(name="ERP", scopes=(Permission.ORDERS_READ,)))
        key = issued.secret.reveal()
        assert re.fullmatch(r"dk_[A-Za-z0-9_-]{43}", key)
        assert len(key) == 46
        assert (issued.what.prefix, issued.what.digest) == (key[:8], ApiKey.digest_of(key))
        read = await shop.execute(access.ReadApiKey(api_key_id=issued.what.id))
        assert read == issued.what
        assert key not in repr(issued)
        assert key not in repr(await everything(shop))

    async def test_keys_differ(self, shop: Harness) -> None:
        assert len({await shop.key() for _ in range(5)}) == 5

    async def test_scopes_are_kept_once_and_in_their_order(self, shop: Harness) -> None:
        scopes = (Permission.WEBHOOKS_READ, Permission.PRODUCTS_READ, Permission.WEBHOOKS_READ)
        issued = await shop.execute(access.CreateApiKey(name="ERP", scopes=scopes))
        assert issued.what.scopes == (Permission.PRODUCTS_READ, Permission.WEBHOOKS_READ)

    @pytest.mark.parametrize("scope", sorted(set(Permission) - set(SCOPES)))
    async def test_no_key_holds_more_than_the_nine_scopes(self, shop: Harness, scope: Permission) -> None:
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.execute(access.CreateApiKey(name="ERP", scopes=(Permission.ORDERS_READ, scope)))
        assert list(no.refused.fields) == ["scopes"]

    async def test_a_key_needs_a_scope_a_name_and_a_future(self, shop: Harness) -> None:
        now = shop.clock.now()
        wrong: tuple[dict[str, Any], ...] = ({"scopes": ()}, {"name": ""}, {"expires_at": now})
        for one in wrong:
            given: dict[str, Any] = {"name": "ERP", "scopes": SCOPES} | one
            async with refused(shop, "invalid_request", Invalid):
                await shop.execute(access.CreateApiKey(**given))

    async def test_an_expired_or_revoked_key_is_nobody(self, shop: Harness) -> None:
        now = shop.clock.now()
        until = now + timedelta(minutes=1)
        expiring = await shop.execute(access.CreateApiKey(name="E", scopes=SCOPES, expires_at=until))
        revoked = await shop.execute(access.CreateApiKey(name="R", scopes=SCOPES))

        async def actor(key: str) -> Actor | None:
            grant = await shop.distribu.ports.directory.key(ApiKey.digest_of(key))
            return None if grant is None else grant.actor(now=shop.clock.now(), ip="192.0.2.1")

        for issued in (expiring, revoked):
            known = await actor(issued.secret.reveal())
            assert known is not None
            assert (known.company_id, known.permissions) == (shop.company.id, frozenset(SCOPES))
        await shop.execute(access.RevokeApiKey(api_key_id=revoked.what.id))
        assert await actor(revoked.secret.reveal()) is None
        shop.clock.advance(minutes=1, milliseconds=-1)
        assert await actor(expiring.secret.reveal()) is not None
        shop.clock.advance(milliseconds=1)
        assert await actor(expiring.secret.reveal()) is None

    async def test_a_key_is_revoked_once(self, shop: Harness) -> None:
        issued = await shop.execute(access.CreateApiKey(name="R", scopes=SCOPES))
        await shop.execute(access.RevokeApiKey(api_key_id=issued.what.id))
        async with refused(shop, "already_revoked"):
            await shop.execute(access.RevokeApiKey(api_key_id=issued.what.id))

    async def test_nobody_else_can_read_or_revoke_a_key(self, shop: Harness) -> None:
        """Not another company, and not a member who may not manage keys."""
        issued = await shop.execute(access.CreateApiKey(name="R", scopes=SCOPES))
        stranger = await shop.stranger()
        for request in (
            access.RevokeApiKey(api_key_id=issued.what.id),
            access.ReadApiKey(api_key_id=issued.what.id),
        ):
            async with refused(shop, "api_key_not_found", NotFound):
                await stranger.execute(request)
            member = Actor.staff(shop.company.id, Role.MEMBER, id="u1", label="Mo")
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(request, member)
        assert (await stranger.execute(access.ListApiKeys())).items == ()

    # --- who may do what -----------------------------------------------------------------------

    async def test_every_request_is_looked_at(self) -> None:
        assert {type(request) for request in READING + CHANGING} == kinds(Request)

    @pytest.mark.parametrize("request_", CHANGING, ids=named)
    @pytest.mark.parametrize("scope", READ_SCOPES)
    async def test_a_key_that_reads_changes_nothing(
        self, shop: Harness, scope: Permission, request_: Request[Any]
    ) -> None:
        code = "missing_scope" if request_.needs in SCOPES else "forbidden"
        async with refused(shop, code, Forbidden) as no:
            await shop.execute(request_, key_of(shop, *READ_SCOPES))
        if code == "missing_scope":
            assert str(request_.needs) in no.refused.message
        assert scope is not request_.needs

    @pytest.mark.parametrize("request_", READING + CHANGING, ids=named)
    async def test_each_role_and_key_is_let_in_by_what_it_needs_and_by_nothing_else(
        self, shop: Harness, request_: Request[Any]
    ) -> None:
        customer = await shop.customer()
        id = shop.distribu.ports.entropy.uuid()
        actors = [
            *(Actor.staff(shop.company.id, role, id=id, label="x") for role in Role),
            *(contact_of(shop, customer, role) for role in ContactRole),
            *(key_of(shop, scope) for scope in SCOPES),
        ]
        for actor in actors:
            try:
                actor.require(request_.needs)
                let_in = True
            except Refused:
                let_in = False
            assert let_in == (request_.needs is None or request_.needs in actor.permissions)
            if not let_in:
                with pytest.raises(Forbidden):
                    await shop.execute(request_, actor)

    async def test_the_roles_are_those_of_the_table(self) -> None:
        owner_and_admin = {"api_keys", "webhooks", "audit"}
        for permission in Permission:
            area = permission.value.partition(":")[0]
            member = permission in ROLE_PERMISSIONS[Role.MEMBER]
            admin = permission in ROLE_PERMISSIONS[Role.ADMIN]
            if permission is Permission.COMPANY_CREATE:
                assert (admin, member) == (False, False)
            elif area in owner_and_admin or permission is Permission.COMPANY_MANAGE:
                assert (admin, member) == (True, False)
            else:
                assert (admin, member) == (True, True)
        assert ROLE_PERMISSIONS[Role.OWNER] == ROLE_PERMISSIONS[Role.ADMIN]
        for role in ContactRole:
            writes = {it for it in CONTACT_PERMISSIONS[role] if not it.value.endswith(":read")}
            assert writes == (set() if role is ContactRole.VIEWER else {Permission.ORDERS_WRITE})
