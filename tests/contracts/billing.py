"""What a plan allows and refuses, on whichever store; how a trial ends; what Stripe's word changes."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from distribu import Actor, ContactRole, Distribu, Harness, PaymentRequired, Refused, Role, Shop, amount
from distribu.adapters.memory.stripe import MemoryPayments, PretendStripe
from distribu.application.accounts import Found
from distribu.application.billing import (
    EndTrial,
    PreviewPlan,
    ReadSubscription,
    WarnOfTrialEnd,
)
from distribu.application.catalog import AdjustStock, ArchiveProduct, EditProduct, ListProducts, MoveReason
from distribu.application.contacts import KeepRegistration, RegisterCustomer
from distribu.application.customers import EditCustomer, ListCustomers, SetPriceOverride
from distribu.application.notices import FindTurn, Said, TakeNotice, Told
from distribu.application.ordering import ListOrders, MoveOrder
from distribu.application.platform import SetPlan, TakeSeat
from distribu.application.ports import Clock, Scope
from distribu.application.team import (
    AcceptInvitation,
    AcceptInvitationAs,
    InviteMember,
    ListMembers,
    RevokeInvitation,
    TakePlace,
)
from distribu.application.webhooks import ListDeliveries
from distribu.domain.access import Permission
from distribu.domain.accounts import REALM, Link, Purpose
from distribu.domain.billing import Counted, Interval, Plan, SubscriptionStatus, month_of, wire_name
from distribu.domain.customers import CustomerStatus
from distribu.domain.notices import notice_id
from distribu.domain.ordering import OrderStatus
from distribu.domain.values import CompanyId, Secret
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints.http.routes import ROUTES
from tests.contracts.asking import contact_of, each, everything, log_of, put_over, put_plan, refused
from tests.contracts.visiting import PASSWORD, address, take, token_to, visitor

AT_ONCE: Final = 20


@dataclass
class Ahead:
    """The clock of another server, which is ahead of the one here."""

    clock: Clock
    by: timedelta

    def now(self) -> datetime:
        return self.clock.now() + self.by

    def elapsed(self) -> float:
        return self.clock.elapsed()


def selling(shop: Shop) -> Distribu:
    """The same Distribu, where plans are sold."""
    ports = shop.distribu.ports
    payments = MemoryPayments(PretendStripe(ports.clock.now), [Secret("whsec_billing")])
    return Distribu(replace(ports, payments=payments))


async def on_trial(shop: Shop) -> Shop:
    """A company that was founded where plans are sold, with its OWNER."""
    trial = await Shop.open(selling(shop))
    await trial.sign_in(Role.OWNER)
    return trial


async def standing(shop: Shop) -> Any:
    return await shop.execute(ReadSubscription())


def bought(shop: Harness, **more: Any) -> Said:
    """What Stripe says of a subscription: by default that GROWTH is paid for this month."""
    given: dict[str, Any] = {
        "plan": Plan.GROWTH,
        "interval": Interval.MONTH,
        "status": SubscriptionStatus.ACTIVE,
        "began_at": shop.clock.now(),
        "period_starts_at": datetime(2026, 1, 1, tzinfo=UTC),
        "period_ends_at": datetime(2036, 2, 1, tzinfo=UTC),
        "trial_ends_at": None,
        "cancels_at": None,
        "customer_ref": "cus_1",
        "subscription_ref": "sub_1",
    }
    return Said(**given | more)


def telling(shop: Harness) -> Told:
    """A notice that a subscription has changed."""
    return Told(
        ref=f"evt_{shop.distribu.ports.entropy.uuid()}",
        type="customer.subscription.updated",
        happened_at=shop.clock.now(),
        customer_ref=None,
        subscription_ref="sub_1",
        invoice_ref=None,
        invoice_number="",
        amount=None,
        currency="",
    )


async def turn_of(trial: Shop) -> int:
    """The number of the last notice that was applied."""
    return (await trial.distribu.run(trial.actor, FindTurn(notice_id=notice_id("evt_"))))[1]


async def apply(shop: Harness, trial: Shop, *said: Said) -> bool:
    """Apply what Stripe says now. Returns whether that changed anything."""
    before = len(await log_of(trial, "subscription"))
    taken = TakeNotice(told=telling(shop), said=said, turn=await turn_of(trial))
    assert await trial.distribu.run(trial.actor, taken)
    return len(await log_of(trial, "subscription")) > before


async def mails_of(shop: Harness, trial: Shop) -> list[str]:
    """Subjects of the mails that were sent, in order."""
    await trial.work()
    return [one.subject for one in shop.mail]


async def outcomes(*tries: Awaitable[Any]) -> list[str]:
    """How each of many at once ended: ``done``, or the code of its refusal."""

    async def end(one: Awaitable[Any]) -> str:
        try:
            await one
        except Refused as no:
            return no.code
        return "done"

    return await asyncio.gather(*map(end, tries))


async def _products(shop: Shop) -> Callable[[], Awaitable[Any]]:
    for _ in range(49):
        await shop.product()
    return shop.product


async def _customers(shop: Shop) -> Callable[[], Awaitable[Any]]:
    for _ in range(24):
        await shop.customer()
    return shop.customer


async def _registrations(shop: Harness) -> Callable[[], Awaitable[Any]]:
    """Each has registered, and follows the link that was mailed."""
    await _customers(shop)
    links = []
    for _ in range(AT_ONCE + 1):
        email = address(shop)
        await shop.execute(RegisterCustomer(name="New", email=email, password=PASSWORD), visitor(shop))
        links.append(await token_to(shop, email))
    return lambda: take(shop, Purpose.VERIFY, links.pop(), shop)


async def _invitations_left(shop: Shop) -> None:
    await _invite(shop)


def _invite(shop: Shop) -> Awaitable[Any]:
    email = f"somebody-{shop.distribu.ports.entropy.uuid()}@example.test"
    return shop.execute(InviteMember(email=email, role=Role.MEMBER))


async def _invitations(shop: Shop) -> Callable[[], Awaitable[Any]]:
    await shop.sign_in(Role.OWNER)
    await _invite(shop)
    return lambda: _invite(shop)


async def _members(shop: Shop) -> Callable[[], Awaitable[Any]]:
    await shop.sign_in(Role.OWNER)
    await _invite(shop)

    async def take() -> Any:
        user = await shop.user(f"somebody-{shop.distribu.ports.entropy.uuid()}@example.test")
        return await shop.distribu.run(shop.actor, TakeSeat(user_id=user.id, role=Role.MEMBER))

    return take


async def _orders(shop: Shop, actor: Actor | None = None) -> Callable[[], Awaitable[Any]]:
    customer, product = await shop.customer(), await shop.product(stock=1_000)
    for _ in range(99):
        await shop.order(customer, (product, 1))
    return lambda: shop.order(customer, (product, 1), actor=actor)


async def _shopping(shop: Shop) -> Callable[[], Awaitable[Any]]:
    await _orders(shop)
    customer, product = await shop.customer(), await shop.product(stock=1_000)
    buyer = contact_of(shop, customer)
    return lambda: shop.order(customer, (product, 1), actor=buyer)


async def _approvals(shop: Shop) -> Callable[[], Awaitable[Any]]:
    await _customers(shop)
    waiting = []
    for _ in range(AT_ONCE + 1):
        it = await shop.customer()
        waiting.append(it)
        await shop.execute(EditCustomer(customer_id=it.id, status=CustomerStatus.PENDING))

    def approve() -> Awaitable[Any]:
        return shop.execute(EditCustomer(customer_id=waiting.pop().id, status=CustomerStatus.ACTIVE))

    return approve


LAST_PLACE: Final[dict[str, tuple[Callable[[Any], Awaitable[Any]], str, str]]] = {
    "products": (_products, "products", "50"),
    "customers": (_customers, "customers", "25"),
    "approvals": (_approvals, "customers", "25"),
    "registrations": (_registrations, "", ""),
    "invitations": (_invitations, "seats", "3"),
    "members": (_members, "seats", "3"),
    "orders": (_orders, "ordersAMonth", "100"),
    "orders of contacts": (_shopping, "", ""),
}
"""What a STARTER has one place left for, and how it is taken; what it is called to whoever is of the company.
"""


class BillingUseCases:
    """Plans, trials and their limits."""

    # --- limits --------------------------------------------------------------------------------

    @pytest.mark.parametrize("what", LAST_PLACE)
    async def test_the_last_place_is_taken_once(self, shop: Harness, what: str) -> None:
        fill, limit, allowed = LAST_PLACE[what]
        await put_plan(shop, Plan.STARTER)
        take = await fill(shop)
        ended = await outcomes(*(take() for _ in range(AT_ONCE)))
        code = "plan_limit" if limit else "not_accepting"
        assert sorted(ended) == sorted(["done", *[code] * (AT_ONCE - 1)])
        async with refused(shop, code) as no:
            await take()
        told = {"limit": limit, "used": allowed, "allowed": allowed, "changeAt": "/account/billing"}
        assert (type(no.refused), no.refused.fields) == ((PaymentRequired, told) if limit else (Refused, {}))

    async def test_nobody_is_counted_where_nothing_is_sold(self, shop: Harness) -> None:
        assert (await standing(shop)).status is SubscriptionStatus.UNLIMITED
        for _ in range(51):
            await shop.product()
        for _ in range(4):
            await _invite(shop)
        assert not await log_of(shop, "subscription")

    async def test_what_is_gone_leaves_its_place(self, shop: Harness) -> None:
        await put_plan(shop, Plan.STARTER)
        products = [await shop.product() for _ in range(50)]
        customers = [await shop.customer() for _ in range(25)]
        invitations = [await _invite(shop) for _ in range(3)]
        blocked = await shop.execute(EditCustomer(customer_id=customers[0].id, status=CustomerStatus.BLOCKED))
        await shop.execute(ArchiveProduct(product_id=products[0].id))
        await shop.execute(RevokeInvitation(invitation_id=invitations[0].id))
        await shop.product()
        await shop.customer()
        await _invite(shop)
        async with refused(shop, "plan_limit", PaymentRequired):
            await shop.execute(EditCustomer(customer_id=blocked.id, status=CustomerStatus.ACTIVE))
        await shop.execute(EditCustomer(customer_id=blocked.id, name="Still blocked"))
        await shop.execute(EditCustomer(customer_id=customers[1].id, name="Not asked"))

    async def test_an_invitation_holds_the_place_it_offers(self, shop: Harness) -> None:
        await put_plan(shop, Plan.STARTER)
        await shop.sign_in(Role.OWNER)
        await shop.sign_in(Role.MEMBER)
        invitation, accept = await self._offered(shop)
        assert (await standing(shop)).uses.seats.used == 3
        await shop.distribu.run(shop.actor, accept)
        assert (await standing(shop)).uses.seats.used == 3
        assert invitation

    async def test_an_invitation_is_not_accepted_into_a_team_that_is_too_large(self, shop: Harness) -> None:
        await put_plan(shop, Plan.GROWTH)
        for role in (Role.OWNER, Role.MEMBER, Role.MEMBER):
            await shop.sign_in(role)
        _, accept = await self._offered(shop)
        await put_plan(shop, Plan.STARTER)
        async with refused(shop, "plan_limit", PaymentRequired):
            await shop.distribu.run(shop.actor, accept)
        token = shop.mail[-1].link.partition("#")[2]
        asked = AcceptInvitation(token=token, full_name="New", password=PASSWORD)
        other = await shop.stranger()
        somebody = (await other.sign_in(Role.OWNER)).actor
        invited = replace(somebody, label=shop.mail[-1].to)
        for attempt in each(asked, AcceptInvitationAs(token=token)):
            async with refused(shop, "not_accepting") as no:
                await shop.execute(attempt, visitor() if attempt is asked else invited)
            assert (type(no.refused), no.refused.fields) == (Refused, {}), "who is not in the team yet"
        await put_plan(shop, Plan.GROWTH)
        await shop.distribu.run(shop.actor, accept)

    async def _offered(self, shop: Harness) -> tuple[Any, TakePlace]:
        invitation = await _invite(shop)
        await shop.work()
        link = Link.of(Secret(shop.mail[-1].link.partition("#")[2]))
        user = await shop.user(f"x-{shop.distribu.ports.entropy.uuid()}@example.test")
        return invitation, TakePlace(invitation_id=link.subject, digest=link.digest.hex(), user_id=user.id)

    async def test_a_month_of_orders_is_one_of_the_calendar(self, shop: Harness) -> None:
        """By when an order is made, not by when it is said to be placed; one that is cancelled was made."""
        await put_plan(shop, Plan.STARTER)
        customer, product = await shop.customer(), await shop.product(stock=1_000)
        now = shop.clock.now()
        order = await shop.order(customer, (product, 1))
        for _ in range(99):
            await shop.order(customer, (product, 1), placed_at=now - timedelta(days=400))
        await shop.execute(MoveOrder(order_id=order.id, status=OrderStatus.CANCELLED))
        async with refused(shop, "plan_limit", PaymentRequired):
            await shop.order(customer, (product, 1))
        next_month = (now.replace(day=1) + timedelta(days=32)).replace(
            day=1, hour=0, minute=0, second=0, microsecond=0
        )
        shop.clock.advance(seconds=(next_month - now).total_seconds() - 0.001)
        async with refused(shop, "plan_limit", PaymentRequired):
            await shop.order(customer, (product, 1))
        shop.clock.advance(milliseconds=1)
        assert month_of(shop.clock.now()) == month_of(next_month)
        assert (await standing(shop)).uses.orders_a_month.used == 0
        await shop.order(customer, (product, 1))
        assert (await standing(shop)).uses.orders_a_month.used == 1

    async def test_a_month_does_not_begin_again_where_clocks_differ(self, shop: Harness) -> None:
        """Two servers, one of which is already in the next month: it ends the month for both."""
        await put_plan(shop, Plan.STARTER)
        customer, product = await shop.customer(), await shop.product(stock=1_000)
        ahead = Shop(shop.distribu, shop.company)
        ports = shop.distribu.ports
        ahead.distribu = Distribu(replace(ports, clock=Ahead(ports.clock, timedelta(days=32))))
        for _ in range(50):
            await ahead.order(customer, (product, 1))
            await shop.order(customer, (product, 1))
        for server in (ahead, shop):
            assert (await standing(server)).uses.orders_a_month.used == 100
            async with refused(shop, "plan_limit", PaymentRequired):
                await server.order(customer, (product, 1))

    async def test_a_refused_order_counts_nothing_and_takes_nothing(self, shop: Harness) -> None:
        await put_plan(shop, Plan.STARTER)
        take = await _orders(shop)
        await take()
        before = await everything(shop)
        async with refused(shop, "plan_limit", PaymentRequired):
            await take()
        assert await everything(shop) == before

    @pytest.mark.parametrize("what", Counted)
    async def test_a_smaller_plan_can_be_had_says_of_what_there_is_more_and_touches_nothing(
        self, shop: Harness, what: Counted
    ) -> None:
        await put_plan(shop, Plan.GROWTH)
        fill, more = {
            Counted.PRODUCTS: (_products, 2),
            Counted.CUSTOMERS: (_customers, 2),
            Counted.SEATS: (_invitations, 3),
            Counted.ORDERS: (_orders, 2),
        }[what]
        add = await fill(shop)
        for _ in range(more):
            await add()
        before = await everything(shop)
        preview = await shop.execute(PreviewPlan(plan=Plan.STARTER))
        name = wire_name(what)
        assert preview.over == [name]
        use = getattr(preview.uses, what)
        assert use.used > use.allowed
        assert await everything(shop) == before, "asking changes nothing"
        await put_plan(shop, Plan.STARTER)
        async with refused(shop, "plan_limit", PaymentRequired) as no:
            await add()
        assert (no.refused.fields["limit"], no.refused.fields["used"]) == (name, str(use.used))
        after = await everything(shop)
        for it in (before, after):
            del it[8]  # the log, in which the plan was set
        assert after == before
        await put_plan(shop, Plan.GROWTH)
        await add()

    async def test_a_smaller_plan_stops_only_what_is_new(self, shop: Harness) -> None:
        await put_plan(shop, Plan.GROWTH)
        products = [await shop.product() for _ in range(51)]
        preview = await shop.execute(PreviewPlan(plan=Plan.STARTER))
        assert (preview.over, preview.uses.products.used, preview.uses.products.allowed) == (
            ["products"],
            51,
            50,
        )
        assert (await shop.execute(PreviewPlan(plan=Plan.ENTERPRISE))).over == []
        await put_plan(shop, Plan.STARTER)
        await shop.execute(EditProduct(product_id=products[0].id, name="New name"))
        await shop.execute(AdjustStock(product_id=products[0].id, quantity=5, reason=MoveReason.RECEIVED))
        async with refused(shop, "plan_limit", PaymentRequired) as no:
            await shop.product()
        assert (no.refused.fields["used"], no.refused.fields["allowed"]) == ("51", "50")
        await shop.execute(ArchiveProduct(product_id=products[0].id))
        async with refused(shop, "plan_limit", PaymentRequired):
            await shop.product()
        await shop.execute(ArchiveProduct(product_id=products[1].id))
        await shop.product()

    # --- trials --------------------------------------------------------------------------------

    async def test_whoever_is_founded_where_plans_are_sold_is_on_trial(self, shop: Harness) -> None:
        trial = await on_trial(shop)
        it = await standing(trial)
        assert (it.plan, it.status) == (Plan.STARTER, SubscriptionStatus.TRIALING)
        async with shop.distribu.ports.store.begin(Scope(trial.company.id), readonly=True) as tx:
            kept = await tx.subscriptions.current(at=shop.clock.now())
        assert kept.trial_ends_at == trial.company.created_at + timedelta(days=14)
        (told,) = await log_of(trial, "subscription")
        assert told.action == "subscription.started"
        entropy = shop.distribu.ports.entropy
        signed_up = Actor.system(CompanyId(entropy.uuid()))
        owner = await trial.user(f"owner-{entropy.uuid()}@example.test")
        await trial.distribu.run(signed_up, Found(name="A", slug=f"a-{entropy.uuid()}", owner_id=owner.id))
        assert (await trial.execute(ReadSubscription(), signed_up)).status is SubscriptionStatus.TRIALING

    async def test_a_trial_ends_in_the_second_it_ends_and_what_is_there_goes_on(self, shop: Harness) -> None:
        trial = await on_trial(shop)
        customer, product = await trial.customer(), await trial.product()
        order = await trial.order(customer, (product, 1))
        invited = await _invite(trial)
        shop.clock.advance(days=14, milliseconds=-(await self._since(shop, trial)) - 1)
        await trial.product()
        shop.clock.advance(milliseconds=1)
        assert (await standing(trial)).status is SubscriptionStatus.EXPIRED
        before = await everything(trial)
        user = await trial.user(f"x-{shop.distribu.ports.entropy.uuid()}@example.test")
        news: list[Callable[[], Awaitable[Any]]] = [
            trial.product,
            trial.customer,
            lambda: _invite(trial),
            lambda: trial.order(customer, (product, 1)),
            lambda: trial.distribu.run(trial.actor, TakeSeat(user_id=user.id, role=Role.MEMBER)),
            lambda: trial.distribu.run(
                trial.actor, KeepRegistration(name="New", email="new@example.test", password_hash="x")
            ),
        ]
        for new in news:
            with pytest.raises(PaymentRequired) as no:
                await new()
            assert (no.value.code, no.value.fields) == ("payment_required", {"changeAt": "/account/billing"})
        async with refused(trial, "not_accepting") as closed:
            await trial.order(customer, (product, 1), actor=contact_of(trial, customer))
        assert (type(closed.refused), closed.refused.fields) == (Refused, {})
        assert await everything(trial) == before
        await trial.execute(MoveOrder(order_id=order.id, status=OrderStatus.CONFIRMED))
        await trial.execute(EditProduct(product_id=product.id, name="Other"))
        assert len((await trial.execute(ListOrders())).items) == 1
        await trial.execute(RevokeInvitation(invitation_id=invited.id))

    @pytest.mark.parametrize("status", [SubscriptionStatus.EXPIRED, SubscriptionStatus.CANCELED])
    async def test_what_is_there_is_read_taken_out_and_worked_on_when_it_is_over(
        self, shop: Harness, status: SubscriptionStatus
    ) -> None:
        """Every page of the API that is read, every form of the export, and all that happens to orders."""
        trial = await shop.stranger()
        owner = (await trial.sign_in(Role.OWNER)).browser
        member = (await trial.sign_in(Role.MEMBER)).person
        customer, product = await trial.customer(), await trial.product()
        buyer = contact_of(trial, customer)
        orders = [await trial.order(customer, (product, 1)) for _ in range(3)]
        webhook, _ = await trial.webhook(WireEvent.ORDER_CREATED)
        await trial.work()
        sent = (await trial.execute(ListDeliveries(webhook_id=webhook.id))).items[0]
        if status is SubscriptionStatus.CANCELED:
            await apply(shop, trial, bought(shop))
            await apply(shop, trial, bought(shop, status=status))
        else:
            await put_over(trial)
        assert (await standing(trial)).status is status
        ids = {
            "product_id": product.id,
            "customer_id": customer.id,
            "order_id": orders[0].id,
            "webhook_id": webhook.id,
            "delivery_id": sent.id,
        }
        read = [route.path.replace(":str", "") for route in ROUTES if route.method == "GET"]
        assert len(read) >= 15
        async with await trial.api() as api:
            for path in read:
                assert (await api.get(path.format(**ids))).status_code == 200, path
            moves = [(orders[0].id, to) for to in ("CONFIRMED", "SHIPPED", "DELIVERED")]
            for id, to in [*moves, (orders[1].id, "CANCELLED")]:
                assert (await api.patch(f"/orders/{id}", json={"status": to})).status_code == 200, to
            paid = {"amount": 1, "method": "CASH"}
            assert (await api.post(f"/orders/{orders[0].id}/payments", json=paid)).status_code == 201
            items = [{"productId": product.id, "quantity": 1}]
            body = {"customerId": customer.id, "items": items}
            assert (await api.post("/orders/preview", json=body)).status_code == 200
            assert (await api.post("/orders", json=body)).status_code == 402
        for form in ("JSONL", "CSV", "OCSF"):
            assert (await owner.get(f"/audit/export?format={form}")).status_code == 200
        assert len((await trial.execute(ListOrders(), buyer)).items) == 3
        await trial.execute(EditProduct(product_id=product.id, price=amount("2.00")))
        await trial.execute(AdjustStock(product_id=product.id, quantity=5, reason=MoveReason.RECEIVED))
        await trial.execute(EditCustomer(customer_id=customer.id, name="Other"))
        override = SetPriceOverride(customer_id=customer.id, product_id=product.id, price=amount("1.00"))
        await trial.execute(override)
        await trial.execute(ArchiveProduct(product_id=product.id))
        seats = (await trial.execute(ListMembers())).items
        left = next(one for one in seats if one.membership.user_id == member.id)
        assert (await owner.delete(f"/members/{left.membership.id}")).status_code == 204

    async def _since(self, shop: Harness, trial: Shop) -> float:
        return (shop.clock.now() - trial.company.created_at).total_seconds() * 1000

    async def test_the_end_of_a_trial_is_told_before_and_once(self, shop: Harness) -> None:
        trial = await on_trial(shop)
        ask = trial.distribu.run
        assert not await ask(trial.actor, WarnOfTrialEnd())
        assert not await ask(trial.actor, EndTrial())
        told = []
        for days in (11, 0.5, 1.5, 0.5, 0.5, 0.5):
            shop.clock.advance(days=days)
            told.append([await ask(trial.actor, WarnOfTrialEnd()) for _ in range(2)])
            told[-1] += [await ask(trial.actor, EndTrial()) for _ in range(2)]
        no, warned, over = [False] * 4, [True, False, False, False], [False, False, True, False]
        assert told == [warned, no, warned, no, over, no]
        subjects = [one for one in await mails_of(shop, trial) if f"trial of {trial.company.name}" in one]
        assert [one.partition(" on ")[0] for one in subjects] == [
            f"The trial of {trial.company.name} ends",
            f"The trial of {trial.company.name} ends",
            f"The trial of {trial.company.name} is over",
        ]
        log = await log_of(trial, "subscription")
        assert [(one.action, one.actor_kind.value) for one in log] == [
            ("subscription.started", "SYSTEM"),
            ("subscription.trial_ending", "SYSTEM"),
            ("subscription.trial_ending", "SYSTEM"),
            ("subscription.trial_ended", "SYSTEM"),
        ]
        assert [one.metadata["days"] for one in log[1:3]] == [3, 1]

    async def test_after_an_outage_a_warning_comes_once(self, shop: Harness) -> None:
        trial = await on_trial(shop)
        shop.clock.advance(days=13, hours=12)
        assert [await trial.distribu.run(trial.actor, WarnOfTrialEnd()) for _ in range(2)] == [True, False]
        shop.clock.advance(days=1)
        assert not await trial.distribu.run(trial.actor, WarnOfTrialEnd()), "it is over"

    async def test_two_jobs_at_once_end_a_trial_once(self, shop: Harness) -> None:
        trial = await on_trial(shop)
        shop.clock.advance(days=15)
        done = await asyncio.gather(*(trial.distribu.run(trial.actor, EndTrial()) for _ in range(10)))
        assert done.count(True) == 1
        assert len(await log_of(trial, "subscription.trial_ended")) == 1

    # --- what Stripe says ----------------------------------------------------------------------

    async def test_what_is_bought_opens_what_was_over(self, shop: Harness) -> None:
        trial = await on_trial(shop)
        shop.clock.advance(days=15)
        await trial.distribu.run(trial.actor, EndTrial())
        assert await apply(shop, trial, bought(shop))
        it = await standing(trial)
        assert (it.plan, it.status, it.uses.products.allowed) == (Plan.GROWTH, SubscriptionStatus.ACTIVE, 500)
        customer, product = await trial.customer(), await trial.product()
        await trial.order(customer, (product, 1))

    async def test_the_same_word_many_times_is_one_change(self, shop: Harness) -> None:
        trial = await on_trial(shop)
        word = bought(shop, status=SubscriptionStatus.PAST_DUE)
        assert [await apply(shop, trial, word) for _ in range(5)] == [True, *[False] * 4]
        assert len(await log_of(trial, "subscription.past_due")) == 1
        subjects = await mails_of(shop, trial)
        assert subjects.count(f"A payment for {trial.company.name} failed") == 1

    async def test_an_older_word_undoes_nothing_also_when_the_newer_changed_nothing(
        self, shop: Harness
    ) -> None:
        trial = await on_trial(shop)
        word = bought(shop)
        assert await apply(shop, trial, word)
        turn = await turn_of(trial)
        old = bought(shop, status=SubscriptionStatus.CANCELED, began_at=word.began_at)
        assert not await apply(shop, trial, word), "nothing new"
        asked_before = TakeNotice(told=telling(shop), said=(old,), turn=turn)
        assert not await trial.distribu.run(trial.actor, asked_before)
        assert (await standing(trial)).status is SubscriptionStatus.ACTIVE
        other = bought(shop, status=SubscriptionStatus.CANCELED, subscription_ref="sub_0")
        assert not await apply(shop, trial, other), "another one that ended"
        assert await apply(shop, trial, old), "now it is the newest"

    async def test_paying_fails_recovers_and_ends(self, shop: Harness) -> None:
        trial = await on_trial(shop)
        customer, product = await trial.customer(), await trial.product()
        for status in ("ACTIVE", "PAST_DUE", "ACTIVE", "CANCELED"):
            assert await apply(shop, trial, bought(shop, status=SubscriptionStatus(status)))
            if status != "CANCELED":
                await trial.order(customer, (product, 1))
            shop.clock.advance(minutes=1)
        async with refused(trial, "payment_required", PaymentRequired):
            await trial.order(customer, (product, 1))
        async with refused(trial, "payment_required", PaymentRequired):
            await trial.product()
        assert [one.action for one in await log_of(trial, "subscription")] == [
            "subscription.started",
            "subscription.updated",
            "subscription.past_due",
            "subscription.recovered",
            "subscription.canceled",
        ]
        name = trial.company.name
        wanted = [
            f"A payment for {name} failed",
            f"The payment for {name} went through",
            f"The subscription of {name} is over",
        ]
        assert [one for one in await mails_of(shop, trial) if one in wanted] == wanted

    @pytest.mark.parametrize("plan", [Plan.ENTERPRISE, Plan.UNLIMITED, Plan.STARTER])
    async def test_what_an_operator_set_is_not_undone_by_what_was_bought_before(
        self, shop: Harness, plan: Plan
    ) -> None:
        trial = await on_trial(shop)
        first = bought(shop)
        assert await apply(shop, trial, first)
        await put_plan(trial, plan)
        set_ = await standing(trial)
        shop.clock.advance(days=31)
        for status in ("ACTIVE", "PAST_DUE", "CANCELED"):
            again = bought(shop, status=SubscriptionStatus(status), began_at=first.began_at)
            assert not await apply(shop, trial, again)
        sooner = bought(shop, subscription_ref="sub_0", began_at=first.began_at - timedelta(days=1))
        assert not await apply(shop, trial, sooner)
        assert await standing(trial) == set_
        assert await apply(shop, trial, bought(shop, subscription_ref="sub_2")), "bought since"
        assert (await standing(trial)).plan is Plan.GROWTH
        assert not await apply(shop, trial, first), "still the one from before"

    # --- who may -------------------------------------------------------------------------------

    async def test_an_operator_sets_a_plan_and_both_logs_say_so(self, shop: Harness) -> None:
        operator = Actor.system(None, "cli")
        wish = SetPlan(company_id=shop.company.id, plan=Plan.ENTERPRISE)
        it = await shop.execute(wish, operator)
        assert (it.plan, it.status) == (Plan.ENTERPRISE, SubscriptionStatus.ACTIVE)
        await shop.execute(wish, operator)
        (told,) = await log_of(shop, "subscription.plan_set")
        assert (told.metadata["after"]["plan"], told.label) == ("ENTERPRISE", "cli")
        async with shop.distribu.ports.store.begin(Scope(REALM), readonly=True) as tx:
            (used, *_) = (await tx.records.page(limit=1)).items
        assert (used.metadata["what"], used.entity_id) == ("set plan", shop.company.id)

    @pytest.mark.parametrize("role", Role)
    async def test_owner_and_admin_see_what_is_paid_for(self, shop: Harness, role: Role) -> None:
        somebody = (await shop.sign_in(role)).browser
        answer = await somebody.get("/billing")
        preview = await somebody.post("/billing/preview", json={"plan": "STARTER"})
        if role is Role.MEMBER:
            assert (answer.status_code, preview.status_code) == (403, 403)
            return
        data = answer.json()["data"]
        assert (data["plan"], data["status"]) == ("UNLIMITED", "UNLIMITED")
        assert data["uses"]["seats"] == {"used": 1, "allowed": None}
        shown = preview.json()["data"]
        assert (shown["monthUsd"], shown["uses"]["ordersAMonth"]["allowed"]) == (79.99, 100)

    async def test_no_contact_and_no_key_sees_it(self, shop: Harness) -> None:
        customer = await shop.customer()
        for role in ContactRole:
            async with refused(shop, "forbidden"):
                await shop.execute(ReadSubscription(), contact_of(shop, customer, role))
        async with await shop.api(Permission.ORDERS_WRITE) as api:
            assert (await api.get("/billing")).status_code == 404

    @pytest.mark.parametrize("what", ["products", "customers", "orders", "invitations"])
    async def test_over_http_the_last_place_is_one_201_and_nineteen_402(
        self, shop: Harness, what: str
    ) -> None:
        await put_plan(shop, Plan.STARTER)
        owner = (await shop.sign_in(Role.OWNER)).browser
        await (_invitations_left if what == "invitations" else LAST_PLACE[what][0])(shop)
        customer = (await shop.execute(ListCustomers(limit=1))).items
        product = (await shop.execute(ListProducts(limit=1))).items
        entropy = shop.distribu.ports.entropy

        def body() -> dict[str, Any]:
            email = f"new-{entropy.uuid()}@example.test"
            bodies: dict[str, dict[str, Any]] = {
                "products": {"name": "B", "price": 1},
                "customers": {"email": email},
                "orders": {
                    "customerId": customer[0].id if customer else "",
                    "items": [{"productId": product[0].id if product else "", "quantity": 1}],
                },
                "invitations": {"email": email, "role": "MEMBER"},
            }
            return bodies[what]

        async with await shop.api() as api:
            door = owner if what == "invitations" else api
            answers = await asyncio.gather(*(door.post(f"/{what}", json=body()) for _ in range(AT_ONCE)))
        assert sorted(one.status_code for one in answers) == [201, *[402] * (AT_ONCE - 1)]
        refusals = [one.json() for one in answers if one.status_code == 402]
        limit, allowed = {
            "products": ("products", "50"),
            "customers": ("customers", "25"),
            "orders": ("ordersAMonth", "100"),
            "invitations": ("seats", "3"),
        }[what]
        for one in refusals:
            assert one["code"] == "plan_limit"
            assert one["fields"] == {
                "limit": limit,
                "used": allowed,
                "allowed": allowed,
                "changeAt": "/account/billing",
            }
            assert "choose a larger one at /account/billing" in one["error"]
