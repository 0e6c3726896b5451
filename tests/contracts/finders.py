"""What every finder promises: order, pages, filters, and that nobody sees what is not theirs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final, get_type_hints

import pytest

from distribu import Actor, ContactRole, Harness, NotFound, Role, Shop, amount
from distribu.application import ports
from distribu.application.access import CreateApiKey, RevokeApiKey
from distribu.application.audit import RecordAudit
from distribu.application.catalog import AdjustStock, ArchiveProduct, EditProduct, MoveReason
from distribu.application.customers import NewAddress, RemovePriceOverride, SetPriceOverride
from distribu.application.finders import Feed
from distribu.application.inquiries import SendInquiry
from distribu.application.ordering import MoveOrder, RecordPayment
from distribu.application.platform import PutPlan
from distribu.application.ports import Finders, Member, Page, Read, Scope
from distribu.application.team import InviteMember, RevokeInvitation
from distribu.application.webhooks import RemoveWebhook
from distribu.domain.access import SCOPES, ActorKind, ApiKey
from distribu.domain.accounts import REALM
from distribu.domain.billing import Plan, Used
from distribu.domain.catalog import MovementReason, Product
from distribu.domain.customers import Customer, CustomerStatus, PriceOverride
from distribu.domain.entity import Entity
from distribu.domain.inquiries import InquiryKind
from distribu.domain.notices import notice_id
from distribu.domain.ordering import Order, OrderStatus, PaymentMethod
from distribu.domain.team import Invitation, Membership
from distribu.domain.values import CustomerId, OrderId, ProductId, exact_rate
from distribu.domain.webhooks import Delivery, Webhook, WireEvent
from tests.contracts.asking import contact_of, invoiced, scope_of, store_of, walk
from tests.people import Buyer, PutApp, Staff, acting, buyer, staff


@dataclass(frozen=True, kw_only=True)
class Filled:
    """A company with one of everything, and two customers who have bought."""

    shop: Shop
    product: Product
    customer: Customer
    override: PriceOverride
    order: Order
    neighbour: Customer
    neighbours_override: PriceOverride
    neighbours_order: Order
    key: ApiKey
    webhook: Webhook
    delivery: Delivery
    member: Staff
    invitation: Invitation
    contact: Buyer
    neighbours_contact: Buyer

    @property
    def ids(self) -> frozenset[str]:
        """Ids that only this company has."""
        things: tuple[Entity | Delivery, ...] = (
            self.product,
            self.customer,
            self.override,
            self.order,
            self.neighbour,
            self.neighbours_override,
            self.neighbours_order,
            self.key,
            self.webhook,
            self.delivery,
            *self.people,
        )
        return frozenset({self.shop.company.id, *(thing.id for thing in things)})

    @property
    def membership(self) -> Membership:
        """What the member is here."""
        assert self.member.member is not None
        return self.member.member

    @property
    def people(self) -> tuple[Entity, ...]:
        """Whatever names somebody, but for the customer's own contact."""
        theirs = self.neighbours_contact
        return (self.member.user, self.membership, self.invitation, theirs.contact, theirs.session)


async def paid(shop: Shop, order: Order, text: str, reference: str = "") -> Order:
    """The order with so much of it paid."""
    return await shop.execute(
        RecordPayment(
            order_id=order.id, amount=amount(text), method=PaymentMethod.TRANSFER, reference=reference
        )
    )


async def filled(shop: Shop) -> Filled:
    """Fill a company."""
    webhook, _ = await shop.webhook()
    product = await shop.product(sku="OAT-25", category="Flour")
    people = [
        await shop.customer(f"buyer-{n}-{product.id}@example.test", name="Corner Shop") for n in range(2)
    ]
    overrides = [
        await shop.execute(SetPriceOverride(customer_id=one.id, product_id=product.id, price=amount("9.00")))
        for one in people
    ]
    orders = [await paid(shop, await shop.order(one, (product, 1)), "1.00") for one in people]
    await shop.key()
    await shop.work()
    member = await staff(shop, Role.OWNER)
    invite = InviteMember(email=f"invited-{product.id}@example.test", role=Role.MEMBER)
    invitation = await shop.execute(invite, await acting(shop, member))
    contacts = [await buyer(shop, one, ContactRole.BUYER) for one in people]
    await invoiced(shop, product.id)
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        sent = await tx.webhooks.deliveries(webhook.id, limit=1)
        keys = await tx.api_keys.page(limit=1)
    return Filled(
        shop=shop,
        product=product,
        customer=people[0],
        override=overrides[0],
        order=orders[0],
        neighbour=people[1],
        neighbours_override=overrides[1],
        neighbours_order=orders[1],
        key=keys.items[0],
        webhook=webhook,
        delivery=sent.items[0],
        member=member,
        invitation=invitation,
        contact=contacts[0],
        neighbours_contact=contacts[1],
    )


QUESTIONS: Final[Mapping[str, Callable[[Finders, Filled], Read[Any]]]] = {
    "companies.current": lambda tx, it: tx.companies.current(),
    "subscriptions.current": lambda tx, it: tx.subscriptions.current(at=it.order.created_at),
    "subscriptions.used": lambda tx, it: tx.subscriptions.used(at=it.order.created_at),
    "notices.get": lambda tx, it: tx.notices.get(notice_id(it.product.id)),
    "notices.turn": lambda tx, it: tx.notices.turn(),
    "notices.paid": lambda tx, it: tx.notices.paid(f"in {it.product.id}"),
    "products.get": lambda tx, it: tx.products.get(it.product.id),
    "products.many": lambda tx, it: tx.products.many([it.product.id], archived=True),
    "products.page": lambda tx, it: tx.products.page(limit=100, search="oat"),
    "products.movements": lambda tx, it: tx.products.movements(it.product.id, limit=100),
    "customers.get": lambda tx, it: tx.customers.get(it.neighbour.id),
    "customers.by_email": lambda tx, it: tx.customers.by_email(it.neighbour.email),
    "customers.page": lambda tx, it: tx.customers.page(limit=100, search="corner"),
    "overrides.prices": lambda tx, it: tx.overrides.prices(it.neighbour.id, [it.product.id]),
    "overrides.find": lambda tx, it: tx.overrides.find(it.neighbour.id, it.product.id),
    "overrides.page": lambda tx, it: tx.overrides.page(it.neighbour.id, limit=100),
    "orders.get": lambda tx, it: tx.orders.get(it.neighbours_order.id),
    "orders.page": lambda tx, it: tx.orders.page(limit=100),
    "orders.any": lambda tx, it: tx.orders.any(),
    "orders.payments": lambda tx, it: tx.orders.payments(it.neighbours_order.id, limit=100),
    "api_keys.get": lambda tx, it: tx.api_keys.get(it.key.id),
    "api_keys.page": lambda tx, it: tx.api_keys.page(limit=100),
    "api_keys.count": lambda tx, it: tx.api_keys.count(),
    "webhooks.get": lambda tx, it: tx.webhooks.get(it.webhook.id),
    "webhooks.page": lambda tx, it: tx.webhooks.page(limit=100),
    "webhooks.count": lambda tx, it: tx.webhooks.count(),
    "webhooks.delivery": lambda tx, it: tx.webhooks.delivery(it.delivery.id),
    "webhooks.deliveries": lambda tx, it: tx.webhooks.deliveries(it.webhook.id, limit=100),
    "events.after": lambda tx, it: tx.events.after(None, names=[*WireEvent], limit=100),
    "records.page": lambda tx, it: tx.records.page(limit=100),
    "seals.tip": lambda tx, it: tx.seals.tip(),
    "seals.heads": lambda tx, it: tx.seals.heads(after=0, limit=100),
    "seals.leaves": lambda tx, it: tx.seals.leaves(first=0, limit=100),
    "seals.rows": lambda tx, it: tx.seals.rows(after=-1, limit=100),
    "seals.strays": lambda tx, it: tx.seals.strays(after="00000000-0000-0000-0000-000000000000", limit=100),
    "seals.waiting": lambda tx, it: tx.seals.waiting(
        before=it.order.placed_at + timedelta(days=1), limit=100
    ),
    "seals.vanished": lambda tx, it: tx.seals.vanished(limit=100),
    "logins.by_email": lambda tx, it: tx.logins.by_email(it.neighbours_contact.contact.email),
    "logins.get": lambda tx, it: tx.logins.get(it.neighbours_contact.contact.id),
    "users.get": lambda tx, it: tx.users.get(it.member.user.id),
    "users.seats": lambda tx, it: tx.users.seats(it.member.user.id),
    "sessions.get": lambda tx, it: tx.sessions.get(it.neighbours_contact.session.id),
    "sessions.of": lambda tx, it: tx.sessions.of(it.neighbours_contact.contact.id),
    "members.get": lambda tx, it: tx.members.get(it.membership.id),
    "members.by_email": lambda tx, it: tx.members.by_email(it.member.user.email),
    "members.of_user": lambda tx, it: tx.members.of_user(it.member.user.id),
    "members.leaders": lambda tx, it: tx.members.leaders(limit=1000),
    "members.page": lambda tx, it: tx.members.page(limit=100),
    "invitations.get": lambda tx, it: tx.invitations.get(it.invitation.id),
    "invitations.page": lambda tx, it: tx.invitations.page(limit=100),
    "invitations.by": lambda tx, it: tx.invitations.by(it.membership.id),
    "invitations.count": lambda tx, it: tx.invitations.count(),
    "contacts.get": lambda tx, it: tx.contacts.get(it.neighbours_contact.contact.id),
    "contacts.page": lambda tx, it: tx.contacts.page(it.neighbour.id, limit=100),
    "contacts.count": lambda tx, it: tx.contacts.count(it.neighbour.id),
}
"""Every finder, asked for what only that company has; of its two customers, for the neighbour's."""

FIGURES: Final = frozenset({"companies.current", "subscriptions.current", "subscriptions.used"})
"""What names nothing by which it could be told whose it is, or is the first of what is there."""

THEIR_OWN: Final = FIGURES | {"records.page", "seals.waiting"}
"""What a company that has nothing has all the same: itself, and figures."""

NOTHING_AMISS: Final = frozenset({"seals.strays", "seals.vanished"})
"""What finds nothing unless somebody was at the log behind our back."""

REALMS_OWN: Final[Mapping[str, Callable[[Finders, Filled], Read[Any]]]] = {
    "users.page": lambda tx, it: tx.users.page(limit=100),
    "users.super_admins": lambda tx, it: tx.users.super_admins(limit=100),
    "inquiries.page": lambda tx, it: tx.inquiries.page(limit=100),
    "factors.of": lambda tx, it: tx.factors.of(it.member.user.id),
    "platform.companies": lambda tx, it: tx.platform.companies(limit=100),
    "platform.card": lambda tx, it: tx.platform.card(it.shop.company.id),
    "platform.usage": lambda tx, it: tx.platform.usage(it.shop.company.id, since=it.order.placed_at),
    "platform.notices": lambda tx, it: tx.platform.notices(failed=False, limit=100),
    "platform.payer": lambda tx, it: tx.platform.payer(notice_id(it.product.id), None),
    "platform.failed": lambda tx, it: tx.platform.failed(limit=100),
}
"""What is asked for the platform itself: in a company's transaction there is none of it."""

OPEN_TO_CONTACTS: Final = frozenset(
    {"companies.current", "products.get", "products.many", "products.page", "orders.any"}
)
"""What a contact sees as the whole company does. `orders.any` tells of its own orders."""


def every_finder() -> set[str]:
    """The methods of all the finders there are."""
    found = set()
    for name, finder in vars(Finders).items():
        if isinstance(finder, property):
            kind = get_type_hints(finder.fget, vars(ports))["return"]
            found |= {f"{name}.{method}" for method in vars(kind) if not method.startswith("_")}
    return found


async def answer(tx: Finders, question: str, it: Filled) -> Any:
    """What a finder says; nothing when it says that there is nothing."""
    try:
        return await {**QUESTIONS, **REALMS_OWN}[question](tx, it)
    except NotFound:
        return None


def nothing(answer: object) -> bool:
    """Whether an answer says that there is none."""
    return not answer or answer == (0, 0) or (isinstance(answer, Page | Feed) and not answer.items)


def shows(answer: object, ids: frozenset[str]) -> bool:
    """Whether any of these ids is anywhere in an answer."""
    text = repr(answer)
    return any(id in text for id in ids)


Fill = Callable[[Shop], Awaitable[tuple[Sequence[str], "Turn"]]]
Turn = Callable[[Finders, int, str | None], Read[Page[Any]]]


async def _products(shop: Shop) -> tuple[Sequence[str], Turn]:
    ids = [(await shop.product(f"P{n}")).id for n in range(5)]
    return ids, lambda tx, limit, cursor: tx.products.page(limit=limit, cursor=cursor)


async def _movements(shop: Shop) -> tuple[Sequence[str], Turn]:
    product = await shop.product(stock=1)
    for _ in range(4):
        await shop.execute(AdjustStock(product_id=product.id, quantity=1, reason=MoveReason.RECEIVED))
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        moved = await tx.products.movements(product.id, limit=100)
    return [one.id for one in moved.items[::-1]], lambda tx, limit, cursor: tx.products.movements(
        product.id, limit=limit, cursor=cursor
    )


async def _customers(shop: Shop) -> tuple[Sequence[str], Turn]:
    ids = [(await shop.customer()).id for _ in range(5)]
    return ids, lambda tx, limit, cursor: tx.customers.page(limit=limit, cursor=cursor)


async def _overrides(shop: Shop) -> tuple[Sequence[str], Turn]:
    customer = await shop.customer()
    wishes = [
        SetPriceOverride(customer_id=customer.id, product_id=(await shop.product()).id, price=amount("1"))
        for _ in range(5)
    ]
    ids = [(await shop.execute(wish)).id for wish in wishes]
    return ids, lambda tx, limit, cursor: tx.overrides.page(customer.id, limit=limit, cursor=cursor)


async def _orders(shop: Shop) -> tuple[Sequence[str], Turn]:
    product, other, customer = await shop.product(), await shop.product(), await shop.customer()
    ids = [(await shop.order(customer, (product, 1), (other, 2))).id for _ in range(5)]
    return ids, lambda tx, limit, cursor: tx.orders.page(limit=limit, cursor=cursor)


async def _payments(shop: Shop) -> tuple[Sequence[str], Turn]:
    order = await shop.order(await shop.customer(), (await shop.product(price="10.00"), 1))
    for _ in range(5):
        await paid(shop, order, "1.00")
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        payments = await tx.orders.payments(order.id, limit=100)
    return [one.id for one in payments.items[::-1]], lambda tx, limit, cursor: tx.orders.payments(
        order.id, limit=limit, cursor=cursor
    )


async def _api_keys(shop: Shop) -> tuple[Sequence[str], Turn]:
    for _ in range(5):
        await shop.key()
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        ids = [one.id for one in (await tx.api_keys.page(limit=100)).items[::-1]]
    return ids, lambda tx, limit, cursor: tx.api_keys.page(limit=limit, cursor=cursor)


async def _webhooks(shop: Shop) -> tuple[Sequence[str], Turn]:
    ids = [(await shop.webhook())[0].id for _ in range(5)]
    return ids, lambda tx, limit, cursor: tx.webhooks.page(limit=limit, cursor=cursor)


async def _deliveries(shop: Shop) -> tuple[Sequence[str], Turn]:
    webhook, _ = await shop.webhook()
    for _ in range(5):
        await shop.product()
        await shop.work()
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        sent = await tx.webhooks.deliveries(webhook.id, limit=100)
    return [one.id for one in sent.items[::-1]], lambda tx, limit, cursor: tx.webhooks.deliveries(
        webhook.id, limit=limit, cursor=cursor
    )


async def _records(shop: Shop) -> tuple[Sequence[str], Turn]:
    for n in range(4):
        await shop.execute(RecordAudit(action=f"entry_{n}"))
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        ids = [one.id for one in (await tx.records.page(limit=100)).items[::-1]]
    return ids, lambda tx, limit, cursor: tx.records.page(limit=limit, cursor=cursor)


async def _members(shop: Shop) -> tuple[Sequence[str], Turn]:
    people = [await staff(shop, Role.MEMBER) for _ in range(5)]
    ids = [one.member.id for one in people if one.member is not None]
    return ids, lambda tx, limit, cursor: tx.members.page(limit=limit, cursor=cursor)


async def _invitations(shop: Shop) -> tuple[Sequence[str], Turn]:
    sent = [
        await shop.execute(InviteMember(email=f"invited-{n}@example.test", role=Role.MEMBER))
        for n in range(6)
    ]
    await shop.execute(RevokeInvitation(invitation_id=sent.pop(3).id))
    return [one.id for one in sent], lambda tx, limit, cursor: tx.invitations.page(limit=limit, cursor=cursor)


async def _contacts(shop: Shop) -> tuple[Sequence[str], Turn]:
    customer = await shop.customer()
    ids = [(await buyer(shop, customer, ContactRole.BUYER)).contact.id for _ in range(5)]
    return ids, lambda tx, limit, cursor: tx.contacts.page(customer.id, limit=limit, cursor=cursor)


LISTS: Final[Mapping[str, Fill]] = {
    "products.page": _products,
    "products.movements": _movements,
    "customers.page": _customers,
    "overrides.page": _overrides,
    "orders.page": _orders,
    "orders.payments": _payments,
    "api_keys.page": _api_keys,
    "webhooks.page": _webhooks,
    "webhooks.deliveries": _deliveries,
    "records.page": _records,
    "members.page": _members,
    "invitations.page": _invitations,
    "contacts.page": _contacts,
}
"""Every list: five items of it, oldest first, and how to ask for a page."""


async def _users(shop: Shop) -> tuple[Sequence[str], Turn]:
    ids = [(await staff(shop, None)).user.id for _ in range(5)]
    return ids, lambda tx, limit, cursor: tx.users.page(limit=limit, cursor=cursor)


async def _companies(shop: Shop) -> tuple[Sequence[str], Turn]:
    ids = [(await shop.stranger()).company.id for _ in range(5)]
    return ids, lambda tx, limit, cursor: tx.platform.companies(limit=limit, cursor=cursor)


async def _inquiries(shop: Shop) -> tuple[Sequence[str], Turn]:
    visitor = Actor.visitor(ip=f"2001:db8::{int(shop.company.id[-4:], 16):x}")
    for n in range(5):
        asked = SendInquiry(kind=InquiryKind.CONTACT, full_name="Ada", email="a@example.test", text=f"{n}?")
        await shop.execute(asked, visitor)
    async with store_of(shop).begin(Scope(REALM), readonly=True) as tx:
        ids = [one.id for one in (await tx.inquiries.page(limit=5)).items]
    return ids[::-1], lambda tx, limit, cursor: tx.inquiries.page(limit=limit, cursor=cursor)


REALMS_LISTS: Final[Mapping[str, Fill]] = {
    "users.page": _users,
    "platform.companies": _companies,
    "inquiries.page": _inquiries,
}
"""The platform's lists: the five newest of them, and how to ask for a page."""


def _id(item: Any) -> str:
    """What an item goes by: a member by its membership."""
    return str(item.membership.id if isinstance(item, Member) else item.id)


class FinderContract:
    """Reading, as the store promises it."""

    async def test_every_finder_is_asked(self) -> None:
        assert every_finder() == {*QUESTIONS, *REALMS_OWN}
        lists = (".page", ".movements", ".payments", ".deliveries", ".companies")
        asked = {name for name in (*QUESTIONS, *REALMS_OWN) if name.endswith(lists)}
        assert asked == {*LISTS, *REALMS_LISTS}

    @pytest.mark.parametrize("name", LISTS)
    async def test_a_list_comes_newest_first_page_by_page(self, shop: Harness, name: str) -> None:
        ids, turn = await LISTS[name](shop)
        assert len(ids) == 5
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            first = await turn(tx, 2, None)
            second = await turn(tx, 2, first.next_cursor)
            third = await turn(tx, 2, second.next_cursor)
            exact = await turn(tx, 5, None)
            beyond = await turn(tx, 2, ids[0])
        assert [[_id(it) for it in page.items] for page in (first, second, third)] == [
            [ids[4], ids[3]],
            [ids[2], ids[1]],
            [ids[0]],
        ]
        assert (first.next_cursor, second.next_cursor, third.next_cursor) == (ids[3], ids[1], None)
        assert ([_id(it) for it in exact.items], exact.next_cursor) == (ids[::-1], None)
        assert (beyond.items, beyond.next_cursor) == ((), None)

    @pytest.mark.parametrize("name", REALMS_LISTS)
    async def test_a_list_of_the_platform_comes_newest_first_page_by_page(
        self, shop: Harness, name: str
    ) -> None:
        ids, turn = await REALMS_LISTS[name](shop)
        async with store_of(shop).begin(Scope(REALM), readonly=True) as tx:
            first = await turn(tx, 2, None)
            second = await turn(tx, 3, first.next_cursor)
        found = [it.id for page in (first, second) for it in page.items]
        assert found == ids[::-1]
        assert first.next_cursor == ids[3]

    async def test_the_platform_finds_its_own_and_a_company_none_of_it(self, shop: Harness) -> None:
        it = await filled(shop)
        await _inquiries(shop)
        await staff(shop, None, super_admin=True)
        await shop.distribu.run(Actor.system(REALM), PutApp(user_id=it.member.user.id))
        for scope in (scope_of(shop), scope_of(await shop.stranger()), scope_of(shop, it.customer)):
            for readonly in (True, False):
                for question in REALMS_OWN:
                    async with store_of(shop).begin(scope, readonly=readonly) as tx:
                        assert nothing(await answer(tx, question, it)), question
        async with store_of(shop).begin(Scope(REALM), readonly=True) as tx:
            for question in REALMS_OWN:
                if question != "platform.failed":  # there is none, in this company
                    assert not nothing(await answer(tx, question, it)), question
            assert await tx.users.seats(it.member.user.id) == await self._seats_here(shop, it)

    async def test_in_the_realm_there_is_nothing_of_a_company(self, shop: Harness) -> None:
        """Whoever runs the platform reads figures, and no row of a tenant's."""
        it = await filled(shop)
        known = {"users.get", "users.seats"}  # a user is the platform's, and where they work
        business = it.ids - {it.member.user.id}
        async with store_of(shop).begin(Scope(REALM), readonly=True) as tx:
            for question in QUESTIONS.keys() - known:
                assert not shows(await answer(tx, question, it), business), question

    async def _seats_here(self, shop: Harness, it: Filled) -> Any:
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            return await tx.users.seats(it.member.user.id)

    @pytest.mark.parametrize("name", LISTS)
    async def test_a_strangers_id_as_a_cursor_opens_nothing(self, shop: Harness, name: str) -> None:
        """A cursor is a place in one's own list, and no row is looked up by it."""
        ids, turn = await LISTS[name](shop)
        stranger = await shop.stranger()
        theirs, their_turn = await LISTS[name](stranger)
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            below = await turn(tx, 100, theirs[0])
        async with store_of(shop).begin(scope_of(stranger), readonly=True) as tx:
            above = await their_turn(tx, 100, ids[0])
            asked_for_ours = await turn(tx, 100, None)
        assert [_id(it) for it in below.items] == [id for id in ids[::-1] if id < theirs[0]]
        assert [_id(it) for it in above.items] == [id for id in theirs[::-1] if id < ids[0]]
        assert not {_id(it) for it in asked_for_ours.items} & set(ids)

    async def test_a_full_company_finds_all_of_it(self, shop: Harness) -> None:
        """Or else that others find nothing would prove nothing."""
        it = await filled(shop)
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            for question in QUESTIONS:
                assert await answer(tx, question, it) or question in NOTHING_AMISS, question

    @pytest.mark.parametrize("readonly", [True, False])
    async def test_a_stranger_finds_nothing_by_any_finder(self, shop: Harness, readonly: bool) -> None:
        it = await filled(shop)
        stranger = await shop.stranger()
        for question in QUESTIONS:
            async with store_of(shop).begin(scope_of(stranger), readonly=readonly) as tx:
                assert not shows(found := await answer(tx, question, it), it.ids), question
                assert nothing(found) or question in THEIR_OWN, question

    @pytest.mark.parametrize("readonly", [True, False])
    async def test_nobody_else_sees_what_is_paid_for_and_what_is_used(
        self, shop: Harness, readonly: bool
    ) -> None:
        it = await filled(shop)
        await shop.distribu.run(shop.actor, PutPlan(plan=Plan.GROWTH))
        at = shop.clock.now()

        async def seen(scope: Scope) -> tuple[Plan, Used]:
            async with store_of(shop).begin(scope, readonly=readonly) as tx:
                subscription, used = await tx.together(
                    tx.subscriptions.current(at=at, lock=not readonly), tx.subscriptions.used(at=at)
                )
            return subscription.plan, used

        assert await seen(scope_of(shop)) == (
            Plan.GROWTH,
            Used(products=1, customers=2, seats=2, orders_a_month=2),
        )
        nothing = Used(products=0, customers=0, seats=0, orders_a_month=0)
        assert await seen(scope_of(await shop.stranger())) == (Plan.UNLIMITED, nothing)
        plan, used = await seen(scope_of(shop, it.customer))
        assert (plan, used.customers, used.seats) == (Plan.UNLIMITED, 1, 0)

    @pytest.mark.parametrize("readonly", [True, False])
    async def test_a_contact_finds_its_own_customers_things_alone(
        self, shop: Harness, readonly: bool
    ) -> None:
        it = await filled(shop)
        neighbours = frozenset({it.neighbour.id, it.neighbours_order.id, it.neighbours_override.id})
        closed = neighbours | {it.key.id, it.webhook.id, it.delivery.id, *(one.id for one in it.people)}
        for question in QUESTIONS:
            async with store_of(shop).begin(scope_of(shop, it.customer), readonly=readonly) as tx:
                found = await answer(tx, question, it)
                assert not shows(found, closed), question
                if question in OPEN_TO_CONTACTS:
                    assert found, question
        async with store_of(shop).begin(scope_of(shop, it.customer), readonly=readonly) as tx:
            assert (await tx.customers.get(it.customer.id)).id == it.customer.id
            assert [one.id for one in (await tx.customers.page(limit=9)).items] == [it.customer.id]
            assert (await tx.orders.get(it.order.id)).lines == it.order.lines
            assert [one.id for one in (await tx.orders.page(limit=9)).items] == [it.order.id]
            assert await tx.overrides.prices(it.customer.id, [it.product.id]) == {
                it.product.id: amount("9.00")
            }
            assert [one.id for one in (await tx.overrides.page(it.customer.id, limit=9)).items] == [
                it.override.id
            ]
            assert [one.id for one in (await tx.contacts.page(it.customer.id, limit=9)).items] == [
                it.contact.contact.id
            ]
            assert await tx.api_keys.count() == await tx.webhooks.count() == 0
            # A payment does not say whose it is.
            assert (await tx.orders.payments(it.order.id, limit=9)).items == ()

    async def test_a_contact_of_nobody_finds_no_customer(self, shop: Harness) -> None:
        it = await filled(shop)
        nobody = Scope(shop.company.id, CustomerId(shop.distribu.ports.entropy.uuid()))
        async with store_of(shop).begin(nobody, readonly=True) as tx:
            assert (await tx.customers.page(limit=9)).items == ()
            assert (await tx.orders.page(limit=9)).items == ()
            assert not await tx.orders.any()
        assert it.order.customer_id != nobody.customer_id

    # --- products -----------------------------------------------------------------------------

    @pytest.mark.parametrize("search", ["oat", "OAT FLOUR", "oat-2", "FLOUR", "straße", "STRASSE", "ünï"])
    async def test_products_are_searched_in_name_sku_and_category_ignoring_case(
        self, shop: Harness, search: str
    ) -> None:
        wanted = {
            "oat": {"a"},
            "OAT FLOUR": {"a"},
            "oat-2": {"a"},
            "FLOUR": {"a", "b"},
            "straße": {"c"},
            "STRASSE": {"c"},
            "ünï": {"d"},
        }[search]
        ids = {
            (await shop.product("Oat Flour", sku="OAT-25", category="Grain")).id: "a",
            (await shop.product("Rye", sku="RYE-1", category="flour")).id: "b",
            (await shop.product("Hauptstrasse Mix", sku=None, category="")).id: "c",
            (await shop.product("X", sku="ÜNÏ")).id: "d",
        }
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            page = await tx.products.page(limit=9, search=search)
        assert {ids[it.id] for it in page.items} == wanted

    @pytest.mark.parametrize("search", ["%", "_", "\\", "a%b", "'"])
    async def test_a_search_is_text_and_no_pattern(self, shop: Harness, search: str) -> None:
        await shop.product("Plain")
        odd = await shop.product(f"Odd {search} name")
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            page = await tx.products.page(limit=9, search=search)
        assert [it.id for it in page.items] == [odd.id]

    async def test_a_search_does_not_run_across_two_fields(self, shop: Harness) -> None:
        await shop.product("Oat", sku="RYE")
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert (await tx.products.page(limit=9, search="oatrye")).items == ()

    async def test_a_search_follows_an_edit(self, shop: Harness) -> None:
        product = await shop.product("Oat")
        await shop.execute(EditProduct(product_id=product.id, category="Cereal"))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert len((await tx.products.page(limit=9, search="CEREAL")).items) == 1
            assert len((await tx.products.page(limit=9, search="oat")).items) == 1

    async def test_products_are_filtered_by_category_and_by_being_active(self, shop: Harness) -> None:
        one = await shop.product("One", category="Flour")
        two = await shop.product("Two", category="Flour", is_active=False)
        three = await shop.product("Three", category="flour")
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:

            async def ids(**filters: Any) -> list[str]:
                return [it.id for it in (await tx.products.page(limit=9, **filters)).items]

            assert await ids(category="Flour") == [two.id, one.id]
            assert await ids(active=True) == [three.id, one.id]
            assert await ids(active=False) == [two.id]
            assert await ids(category="Flour", active=True, search="ONE") == [one.id]
            assert await ids(category="Flour", cursor=two.id) == [one.id]

    async def test_an_archived_product_is_in_no_list_and_found_only_when_asked_for(
        self, shop: Harness
    ) -> None:
        gone, here = await shop.product("Gone", stock=3), await shop.product("Here")
        await shop.execute(ArchiveProduct(product_id=gone.id))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert [it.id for it in (await tx.products.page(limit=9)).items] == [here.id]
            assert list(await tx.products.many([gone.id, here.id])) == [here.id]
            assert list(await tx.products.many([here.id, gone.id], archived=True)) == [gone.id, here.id]
            assert len((await tx.products.movements(gone.id, limit=9)).items) == 1
            with pytest.raises(NotFound):
                await tx.products.get(gone.id)

    @pytest.mark.parametrize("readonly", [True, False])
    async def test_many_leaves_out_what_is_absent_and_answers_in_id_order(
        self, shop: Harness, readonly: bool
    ) -> None:
        products = [await shop.product(f"P{n}") for n in range(3)]
        absent = ProductId(shop.distribu.ports.entropy.uuid())
        asked = [products[2].id, absent, products[0].id, products[2].id, products[1].id]
        async with store_of(shop).begin(scope_of(shop), readonly=readonly) as tx:
            found = await tx.products.many(asked)
            assert list(found) == [it.id for it in products]
            assert await tx.products.many([]) == {}

    async def test_movements_tell_why_when_and_what_was_left(self, shop: Harness) -> None:
        product, customer = await shop.product(stock=10), await shop.customer()
        order = await shop.order(customer, (product, 4))
        await shop.execute(
            AdjustStock(
                product_id=product.id, quantity=-1, reason=MoveReason.ADJUSTED, note='counted "twice", {a}'
            )
        )
        await shop.execute(MoveOrder(order_id=order.id, status=OrderStatus.CANCELLED))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            moved = (await tx.products.movements(product.id, limit=9)).items[::-1]
        assert [(it.reason, it.quantity, it.stock_after, it.order_id) for it in moved] == [
            (MovementReason.RECEIVED, 10, 10, None),
            (MovementReason.ORDERED, -4, 6, order.id),
            (MovementReason.ADJUSTED, -1, 5, None),
            (MovementReason.CANCELLED, 4, 9, order.id),
        ]
        assert moved[2].note == 'counted "twice", {a}'
        assert {it.created_at for it in moved} == {shop.clock.now()}

    # --- customers and their prices --------------------------------------------------------------

    async def test_customers_are_searched_in_name_and_email_and_filtered_by_status(
        self, shop: Harness
    ) -> None:
        corner = await shop.customer("orders@corner.example", name="Corner Shop")
        cafe = await shop.customer("corner-cafe@example.test", name="Café", status=CustomerStatus.BLOCKED)
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:

            async def ids(**filters: Any) -> list[str]:
                return [it.id for it in (await tx.customers.page(limit=9, **filters)).items]

            assert await ids(search="CORNER") == [cafe.id, corner.id]
            assert await ids(search="CAFÉ") == [cafe.id]
            assert await ids(search="@CORNER") == [corner.id]
            assert await ids(status=CustomerStatus.BLOCKED) == [cafe.id]
            assert await ids(status=CustomerStatus.PENDING) == []
            assert await ids(status=CustomerStatus.ACTIVE, search="corner") == [corner.id]

    async def test_a_price_that_was_taken_away_is_found_by_its_pair_alone(self, shop: Harness) -> None:
        product, other, customer = await shop.product(), await shop.product(), await shop.customer()
        for it in (product, other):
            wish = SetPriceOverride(customer_id=customer.id, product_id=it.id, price=amount("9.00"))
            await shop.execute(wish)
        await shop.execute(RemovePriceOverride(customer_id=customer.id, product_id=product.id))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            gone = await tx.overrides.find(customer.id, product.id)
            assert gone is not None
            assert gone.price is None
            assert await tx.overrides.prices(customer.id, [product.id, other.id]) == {
                other.id: amount("9.00")
            }
            assert len((await tx.overrides.page(customer.id, limit=9)).items) == 1
            assert await tx.overrides.find(customer.id, ProductId(customer.id)) is None

    # --- orders ------------------------------------------------------------------------------------

    async def test_orders_are_filtered_by_status_customer_and_when_they_were_placed(
        self, shop: Harness
    ) -> None:
        product, one, two = await shop.product(), await shop.customer(), await shop.customer()
        start = shop.clock.now()
        orders = []
        for who in (one, two, one):
            orders.append(await shop.order(who, (product, 1)))
            shop.clock.advance(hours=1)
        await shop.execute(MoveOrder(order_id=orders[0].id, status=OrderStatus.CONFIRMED))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:

            async def ids(**filters: Any) -> list[int]:
                page = await tx.orders.page(limit=9, **filters)
                assert all(it.lines for it in page.items)
                return [it.number for it in page.items]

            hour = timedelta(hours=1)
            assert await ids(status=OrderStatus.CONFIRMED) == [1001]
            assert await ids(customer_id=one.id) == [1003, 1001]
            assert await ids(customer_id=two.id, status=OrderStatus.CONFIRMED) == []
            assert await ids(since=start + hour) == [1003, 1002]
            assert await ids(until=start + hour) == [1001]
            assert await ids(since=start + hour, until=start + 2 * hour) == [1002]
            assert await ids(customer_id=one.id, cursor=orders[2].id) == [1001]

    async def test_payments_tell_how_much_came_how_and_when(self, shop: Harness) -> None:
        product, customer = await shop.product(price="10.00"), await shop.customer()
        order, other = [await shop.order(customer, (product, 3)) for _ in range(2)]
        when = []
        for it, text, reference in ((order, "0.01", "a"), (other, "5.00", "b"), (order, "19.99", 'TRF "1"')):
            when.append(shop.clock.advance(minutes=1))
            await paid(shop, it, text, reference)
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            seen = (await tx.orders.payments(order.id, limit=9)).items
            assert len((await tx.orders.payments(other.id, limit=9)).items) == 1
            assert (await tx.orders.payments(OrderId(customer.id), limit=9)).items == ()
        assert [(it.order_id, it.amount, it.method, it.reference, it.created_at) for it in seen] == [
            (order.id, amount("19.99"), PaymentMethod.TRANSFER, 'TRF "1"', when[2]),
            (order.id, amount("0.01"), PaymentMethod.TRANSFER, "a", when[0]),
        ]

    async def test_an_order_on_a_page_is_the_order_itself(self, shop: Harness) -> None:
        products = [await shop.product(f"P{n}", price=f"{n}.99") for n in range(4)]
        customer = await shop.customer()
        for n in (1, 2, 3):
            await shop.order(customer, *((it, n) for it in products[:n]))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            page = await tx.orders.page(limit=2)
            alone = [await tx.orders.get(it.id) for it in page.items]
        assert list(page.items) == alone
        assert [len(it.lines) for it in alone] == [3, 2]

    async def test_what_is_read_back_is_what_was_written(self, shop: Harness) -> None:
        """Every kind of entity, every field of it, through whatever the store keeps it as."""
        it = await filled(shop)
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert await tx.companies.current() == shop.company
            assert await tx.orders.get(it.order.id) == it.order
            assert await tx.overrides.find(it.customer.id, it.product.id) == it.override
            assert await tx.webhooks.get(it.webhook.id) == it.webhook
        product = await shop.product(
            "Ünit 'x' \\",
            sku='Q"1',
            description="{a,b}\n\t",
            unit="lb",
            image_url="https://example.test/?a=1&b=%20",
            is_active=False,
            low_stock_threshold=0,
        )
        address = NewAddress(line1='1 "High" Street', city="L\\eeds", country="GB", phone="+44 1")
        customer = await shop.customer(
            name="O'Neill",
            notes="a\nb",
            credit_limit=amount("1000000000000"),
            tax_rate_override=exact_rate(Decimal("0.0825")),
            payment_terms_days=30,
            addresses=(address, address),
        )
        expiring = CreateApiKey(name="ERP", scopes=SCOPES, expires_at=shop.clock.now() + timedelta(days=1))
        key = (await shop.execute(expiring)).what
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert await tx.products.get(product.id) == product
            assert await tx.customers.get(customer.id) == customer
            assert await tx.api_keys.get(key.id) == key

    async def test_whether_there_is_an_order_yet(self, shop: Harness) -> None:
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert not await tx.orders.any()
        await shop.order(await shop.customer(), (await shop.product(), 1))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert await tx.orders.any()

    # --- keys, webhooks, deliveries -----------------------------------------------------------------

    async def test_revoked_keys_are_listed_and_not_counted(self, shop: Harness) -> None:
        await shop.key()
        await shop.key()
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            keys = (await tx.api_keys.page(limit=9)).items
            assert await tx.api_keys.count() == 2
        await shop.execute(RevokeApiKey(api_key_id=keys[0].id))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert await tx.api_keys.count() == 1
            listed = (await tx.api_keys.page(limit=9)).items
            assert [key.revoked_at for key in listed] == [shop.clock.now(), None]

    async def test_a_removed_webhook_is_neither_found_nor_listed_nor_counted(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        kept, _ = await shop.webhook()
        await shop.execute(RemoveWebhook(webhook_id=webhook.id))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            assert [it.id for it in (await tx.webhooks.page(limit=9)).items] == [kept.id]
            assert await tx.webhooks.count() == 1
            with pytest.raises(NotFound):
                await tx.webhooks.get(webhook.id)

    async def test_a_delivery_tells_its_attempts_and_a_list_of_them_does_not(self, shop: Harness) -> None:
        webhook, _ = await shop.webhook()
        await shop.product()
        await shop.work()
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            (listed, *_) = (await tx.webhooks.deliveries(webhook.id, limit=9)).items
            delivery = await tx.webhooks.delivery(listed.id)
        assert listed.attempts == ()
        assert [it.number for it in delivery.attempts] == [1]
        assert delivery.attempts[0].status == 200

    # --- records ---------------------------------------------------------------------------------

    async def test_records_are_filtered_by_who_what_and_when(self, shop: Harness) -> None:
        product, customer = await shop.product(), await shop.customer()
        later = shop.clock.advance(hours=1)
        order = await shop.order(customer, (product, 1), actor=contact_of(shop, customer))
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:

            async def actions(**filters: Any) -> set[str]:
                return {it.action for it in (await tx.records.page(limit=99, **filters)).items}

            placed = {"order.placed", "customer.credit_taken", "stock.ordered"}
            assert await actions(actor_kind=ActorKind.CUSTOMER) == placed
            assert await actions(since=later) == placed
            assert await actions(until=later) == {
                "company.created",
                "product.created",
                "stock.received",
                "customer.created",
            }
            assert await actions(entity_type="Order") == {"order.placed"}
            assert await actions(entity_id=order.id) == {"order.placed"}
            assert await actions(action="stock") == {"stock.received", "stock.ordered"}
            assert await actions(action="stock.ordered") == {"stock.ordered"}
            assert await actions(action="stoc") == set()
            assert await actions(action="stock", since=later) == {"stock.ordered"}

    async def test_walking_a_list_finds_each_item_once(self, shop: Harness) -> None:
        ids, turn = await _customers(shop)
        async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
            walked = await walk(lambda cursor: turn(tx, 2, cursor))
        assert [it.id for it in walked] == ids[::-1]
