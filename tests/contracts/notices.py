"""What Stripe tells us, on whichever store: kept by its id, applied once, and the newest word counts."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

import msgspec
import pytest

from distribu import Actor, Distribu, Harness, Invalid, NotFound, Refused, Role, Shop
from distribu.adapters.memory.stripe import PRICES, MemoryPayments, PretendStripe
from distribu.application.agenda import Outcome
from distribu.application.billing import PAGES_MAX, OpenPortal, ReadSubscription, StartCheckout
from distribu.application.jobs import RanView, named, run_now
from distribu.application.kernel import Work
from distribu.application.notices import (
    AT_ONCE,
    RETRIES,
    FindPayer,
    HearNotice,
    ListNotices,
    ReplayNotice,
    TakeNotice,
)
from distribu.application.ports import Bought, PaymentsAway, PaymentsRefused, Scope
from distribu.domain.accounts import REALM
from distribu.domain.billing import Interval, Plan, Subscription, SubscriptionStatus
from distribu.domain.errors import Busy, RateLimited
from distribu.domain.notices import Notice, notice_id
from distribu.domain.values import Secret
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints.worker import Worker
from tests.contracts.asking import log_of, refused

SECRET: Final = "whsec_notices"
DELIVERIES: Final = 50
STRIPE: Final = Actor.system(None, "Stripe")


@dataclass
class Buying:
    """A company where plans are sold, and the Stripe that sells them."""

    shop: Shop
    stripe: PretendStripe
    payments: "Watched"

    @property
    def distribu(self) -> Distribu:
        return self.shop.distribu

    async def buys(self, plan: Plan = Plan.GROWTH) -> dict[str, Any]:
        """Buy it as the OWNER does; what Stripe tells of it is not delivered yet."""
        page = await self.shop.execute(StartCheckout(plan=plan, interval=Interval.MONTH))
        return self.stripe.pay(page.url.rpartition("/")[2])

    async def hear(self, event: dict[str, Any]) -> Any:
        body, signature = self.stripe.signed(event, [SECRET])
        return await self.distribu.run(STRIPE, HearNotice(body=body, signature=signature))

    async def hears(self, *types: str) -> list[Any]:
        """What was told of these types (without any: all of it), in the order in which it happened."""
        told = [event for event in self.stripe.events if not types or event["type"] in types]
        return [await self.hear(event) for event in told]

    def last(self, type: str) -> dict[str, Any]:
        return [event for event in self.stripe.events if event["type"] == type][-1]

    async def kept(self, event: dict[str, Any], company_id: Any = None) -> Notice | None:
        scope = Scope(company_id or self.shop.company.id)
        async with self.distribu.ports.store.begin(scope, readonly=True) as tx:
            return await tx.notices.get(notice_id(event["id"]))

    async def current(self) -> Subscription:
        scope = Scope(self.shop.company.id)
        async with self.distribu.ports.store.begin(scope, readonly=True) as tx:
            return await tx.subscriptions.current(at=self.distribu.ports.clock.now())

    async def stands(self) -> tuple[Any, ...]:
        it = await self.current()
        return (it.plan, it.interval, it.status, it.period_ends_at, it.cancels_at, it.customer_ref)

    async def changes(self) -> list[str]:
        """What the audit log says beside that notices came in."""
        log = await log_of(self.shop)
        told = [one for one in log if one.actor_kind.value == "SYSTEM"]
        return sorted(
            one.action
            for one in told
            if one.action.split(".")[0] in ("subscription", "invoice", "billing_customer")
        )


class Watched(MemoryPayments):
    """The twin, which can be made to answer with what was so when it was asked."""

    gate: asyncio.Event | None = None
    asked = 0
    pages = 0

    async def checkout(self, **given: Any) -> str:
        self.pages += 1
        return await super().checkout(**given)

    async def portal(self, **given: Any) -> str:
        self.pages += 1
        return await super().portal(**given)

    async def subscription(self, ref: str) -> Bought | None:
        self.asked += 1
        found = await super().subscription(ref)
        gate, self.gate = self.gate, None
        if gate is not None:
            await gate.wait()
        else:
            await asyncio.sleep(0)
        return found


async def buying(shop: Harness) -> Buying:
    ports = shop.distribu.ports
    stripe = PretendStripe(ports.clock.now, seed=ports.entropy.bytes(6).hex())
    payments = Watched(stripe, [Secret(SECRET)])
    trial = await Shop.open(Distribu(replace(ports, payments=payments)), f"Acme {stripe._seed}")
    await trial.sign_in(Role.OWNER)
    return Buying(trial, stripe, payments)


async def mails_to(shop: Harness, it: Buying) -> list[str]:
    await Worker(it.shop.distribu, jobs=()).drain()  # the jobs may tell of a trial before Stripe does
    return sorted(one.subject for one in shop.mail if it.shop.company.name in one.subject)


async def retried(it: Buying) -> RanView:
    """One run of the job that tries again, and what came of it."""
    return await run_now(it.distribu, named("retry_notices"))


@asynccontextmanager
async def counted(it: Buying) -> AsyncIterator[list[str]]:
    """The changes that what is done inside leaves in the audit log."""
    before = await it.changes()
    new: list[str] = []
    yield new
    after = await it.changes()
    for one in before:
        after.remove(one)
    new += after


async def _bought(it: Buying) -> str:
    await it.buys()
    return "customer.subscription.created"


async def _paid(it: Buying) -> str:
    await it.buys()
    await it.hears("customer.subscription.created")
    return "invoice.paid"


async def _changed(it: Buying) -> str:
    sub = await it.buys()
    await it.hears()
    it.stripe.change(sub["id"], PRICES[Plan.ENTERPRISE, Interval.MONTH][0])
    return "customer.subscription.updated"


async def _ending(it: Buying) -> str:
    sub = await it.buys()
    await it.hears()
    it.stripe.cancel(sub["id"])
    return "customer.subscription.updated"


async def _failed(it: Buying) -> str:
    sub = await it.buys()
    await it.hears()
    it.stripe.card(sub["customer"], works=False)
    it.stripe.move(timedelta(days=32))
    return "invoice.payment_failed"


async def _past_due(it: Buying) -> str:
    await _failed(it)
    return "customer.subscription.updated"


async def _canceled(it: Buying) -> str:
    sub = await it.buys()
    await it.hears()
    it.stripe.cancel(sub["id"], now=True)
    return "customer.subscription.deleted"


async def _trial_ending(it: Buying) -> str:
    sub = await it.buys()
    now = it.stripe.now
    it.stripe.alter(sub["id"], {"status": "trialing", "trial_end": now + 2 * 86_400})
    await it.hears("customer.subscription.created")
    it.stripe.settle()
    return "customer.subscription.trial_will_end"


async def _deleted(it: Buying) -> str:
    sub = await it.buys()
    await it.hears()
    it.stripe.delete(sub["customer"])
    return "customer.deleted"


def _ended(it: Buying, sub: dict[str, Any]) -> dict[str, Any]:
    it.stripe.cancel(sub["id"], now=True)
    return it.last("customer.subscription.deleted")


def _invoiced(it: Buying, sub: dict[str, Any]) -> dict[str, Any]:
    paid = it.last("invoice.paid")
    return paid | {"id": paid["id"] + "n"}


def _payer_deleted(it: Buying, sub: dict[str, Any]) -> dict[str, Any]:
    it.stripe.delete(sub["customer"])
    return it.last("customer.deleted")


HANDLED: Final = {
    "created": (_bought, ["subscription.updated"], 1),
    "invoice paid": (_paid, ["invoice.paid"], 1),
    "updated": (_changed, ["subscription.updated"], 1),
    "to end": (_ending, ["subscription.updated"], 1),
    "invoice failed": (_failed, ["invoice.payment_failed", "subscription.past_due"], 1),
    "past due": (_past_due, ["subscription.past_due"], 1),
    "canceled": (_canceled, ["subscription.canceled"], 1),
    "trial ending": (_trial_ending, ["subscription.trial_ending"], 1),
    "customer deleted": (
        _deleted,
        ["billing_customer.deleted", "subscription.canceled", "subscription.updated"],
        1,
    ),
}
"""What happens, what the audit log gets of it, and how many mails the OWNER does."""


async def _life(it: Buying) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """All that happens to a subscription, one event after the other, each by a name of its own."""
    sub = await it.buys()
    yield "created", it.last("customer.subscription.created")
    yield "paid", it.last("invoice.paid")
    yield "checkout", it.last("checkout.session.completed")
    it.stripe.change(sub["id"], PRICES[Plan.ENTERPRISE, Interval.MONTH][0])
    yield "changed", it.last("customer.subscription.updated")
    it.stripe.alter(sub["id"], {"status": "trialing", "trial_end": it.stripe.now + 2 * 86_400})
    it.stripe.settle()
    yield "trial ending", it.last("customer.subscription.trial_will_end")
    it.stripe.move(timedelta(days=3))
    yield "renewed", it.last("customer.subscription.updated")
    yield "paid again", it.last("invoice.paid")
    it.stripe.card(sub["customer"], works=False)
    for _ in range(70):  # months are as long as they are, and Stripe does not try for ever
        if all(event["type"] != "invoice.payment_failed" for event in it.stripe.events):
            it.stripe.move(timedelta(days=1))
    yield "failed", it.last("invoice.payment_failed")
    yield "past due", it.last("customer.subscription.updated")
    it.stripe.cancel(sub["id"], now=True)
    yield "canceled", it.last("customer.subscription.deleted")
    it.stripe.delete(sub["customer"])
    yield "customer deleted", it.last("customer.deleted")


THREE: Final[dict[str, tuple[str, str, list[str], int]]] = {
    "created": ("ACTIVE", "GROWTH", ["invoice.paid", "subscription.updated"], 2),
    "paid": ("ACTIVE", "ENTERPRISE", ["invoice.paid", "subscription.updated"], 2),
    "checkout": ("TRIALING", "ENTERPRISE", ["subscription.trial_ending", "subscription.updated"], 1),
    "changed": ("ACTIVE", "ENTERPRISE", ["subscription.updated"], 1),
    "trial ending": ("ACTIVE", "ENTERPRISE", ["invoice.paid", "subscription.updated"], 1),
    "renewed": (
        "PAST_DUE",
        "ENTERPRISE",
        ["invoice.paid", "invoice.payment_failed", "subscription.past_due"],
        2,
    ),
    "paid again": (
        "PAST_DUE",
        "ENTERPRISE",
        ["invoice.paid", "invoice.payment_failed", "subscription.past_due"],
        2,
    ),
    "failed": ("CANCELED", "ENTERPRISE", ["invoice.payment_failed", "subscription.canceled"], 1),
    "past due": (
        "CANCELED",
        "ENTERPRISE",
        ["billing_customer.deleted", "subscription.canceled", "subscription.updated"],
        1,
    ),
}
"""How it stands after three events of a life, from this one on; what the audit log gets, and the OWNER."""


class NoticeUseCases:
    """What Stripe tells us, and buying."""

    # --- once ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("what", HANDLED)
    async def test_an_event_delivered_fifty_times_at_once_is_applied_once(
        self, shop: Harness, what: str
    ) -> None:
        prepare, recorded, mailed = HANDLED[what]
        it = await buying(shop)
        event = it.last(await prepare(it))
        before = await mails_to(shop, it)
        async with counted(it) as new:
            answers = await asyncio.gather(*(self._until_heard(it, event) for _ in range(DELIVERIES)))
        assert {str(one) for one in answers} == {"APPLIED"}
        assert new == recorded
        assert len(await mails_to(shop, it)) - len(before) == mailed
        kept = await it.kept(event)
        assert kept is not None
        assert (kept.version, kept.status, kept.ref) == (1, "APPLIED", event["id"])
        assert await it.kept(event, REALM) is None
        stands = await it.stands()
        assert str(await it.hear(event)) == "APPLIED"
        assert await it.stands() == stands

    async def _until_heard(self, it: Buying, event: dict[str, Any]) -> Any:
        """As Stripe does: again, when it is told to."""
        for _ in range(20):
            try:
                return await it.hear(event)
            except Busy:
                await asyncio.sleep(0)
        raise AssertionError("never heard")

    @pytest.mark.parametrize("first", THREE)
    @pytest.mark.parametrize("order", [*permutations(range(3))])
    async def test_three_events_in_every_order_end_the_same(
        self, shop: Harness, first: str, order: Sequence[int]
    ) -> None:
        """Each three of a life that follow on each other, when what was before was heard in its order."""
        it = await buying(shop)
        events: list[dict[str, Any]] = []
        async for name, event in _life(it):
            if name == first or events:
                events.append(event)
            else:
                await it.hear(event)
            if len(events) == 3:
                break
        before = await mails_to(shop, it)
        async with counted(it) as new:
            for place in order:
                assert str(await it.hear(events[place])) == "APPLIED"
        status, plan, recorded, mailed = THREE[first]
        current = await it.current()
        assert (current.status, current.plan) == (status, plan)
        assert new == recorded
        assert len(await mails_to(shop, it)) - len(before) == mailed
        gone = "billing_customer.deleted" in recorded
        assert (current.customer_ref is None) is gone

    async def test_an_older_answer_of_stripe_undoes_no_newer_one(self, shop: Harness) -> None:
        """One asks, and is held up; then it is changed, and changed back to what is known already."""
        it = await buying(shop)
        sub = await it.buys()
        await it.hears()
        enterprise, growth = (PRICES[plan, Interval.MONTH][0] for plan in (Plan.ENTERPRISE, Plan.GROWTH))
        it.stripe.change(sub["id"], enterprise)
        first = it.last("customer.subscription.updated")
        gate = it.payments.gate = asyncio.Event()
        slow = asyncio.create_task(it.hear(first))
        while it.payments.gate is not None:  # noqa: ASYNC110  # until it has asked
            await asyncio.sleep(0)
        it.stripe.change(sub["id"], growth)
        assert str(await it.hear(it.last("customer.subscription.updated"))) == "APPLIED"
        asked = it.payments.asked
        gate.set()
        assert str(await slow) == "APPLIED"
        assert it.payments.asked == asked + 1, "it was asked again"
        assert (await it.current()).plan is Plan.GROWTH

    @pytest.mark.parametrize("ends", ["first", "second"])
    @pytest.mark.parametrize("at_once", [False, True])
    async def test_of_two_that_are_bought_one_counts_and_the_owner_is_told(
        self, shop: Harness, ends: str, at_once: bool
    ) -> None:
        """Two pages, opened more than an hour apart and both paid: each by a customer of its own."""
        it = await buying(shop)
        pages = []
        for plan in (Plan.GROWTH, Plan.STARTER):
            asked = StartCheckout(plan=plan, interval=Interval.MONTH)
            pages.append((await it.shop.execute(asked)).url.rpartition("/")[2])
            shop.clock.advance(minutes=61)
        first, second = [it.stripe.pay(page) for page in pages]
        assert first["customer"] != second["customer"]
        told = [event for event in it.stripe.events if event["type"] == "customer.subscription.created"]
        if at_once:
            await asyncio.gather(*(self._until_heard(it, one) for one in told * 5))
        await it.hears()
        await it.hears()
        current = await it.current()
        counts, other = (first, second) if current.subscription_ref == first["id"] else (second, first)
        assert at_once or counts is first, "the one that was known first"
        assert (current.subscription_ref, current.second_ref) == (counts["id"], other["id"])
        assert (await it.changes()).count("subscription.doubled") == 1
        subjects = await mails_to(shop, it)
        assert subjects.count(f"{it.shop.company.name} has two subscriptions") == 1
        (mail,) = [one for one in shop.mail if one.subject.endswith("has two subscriptions")][-1:]
        assert counts["id"] in mail.text
        assert other["id"] in mail.text
        it.stripe.move(timedelta(days=40))  # both are renewed, and neither undoes the other
        await it.hears("customer.subscription.updated")
        assert (await it.current()).subscription_ref == counts["id"]
        gone, left = (counts, other) if ends == "first" else (other, counts)
        it.stripe.cancel(gone["id"], now=True)
        await it.hears("customer.subscription.deleted")
        current = await it.current()
        assert (current.subscription_ref, current.second_ref) == (left["id"], None)
        assert (current.status, current.customer_ref) == (SubscriptionStatus.ACTIVE, left["customer"])
        assert (await it.changes()).count("subscription.canceled") == (ends == "first")
        it.stripe.cancel(left["id"], now=True)
        await it.hears("customer.subscription.deleted")
        assert (await it.current()).status is SubscriptionStatus.CANCELED

    async def test_what_is_bought_when_the_first_ended_unheard_is_no_second_one(self, shop: Harness) -> None:
        it = await buying(shop)
        first = await it.buys()
        page = it.stripe.sessions
        asked = StartCheckout(plan=Plan.STARTER, interval=Interval.YEAR)
        other = (await it.shop.execute(asked)).url.rpartition("/")[2]
        assert other in page
        await it.hears()
        it.stripe.cancel(first["id"], now=True)
        second = it.stripe.pay(other)
        assert str(await it.hear(it.last("customer.subscription.created"))) == "APPLIED"
        current = await it.current()
        assert (current.subscription_ref, current.second_ref) == (second["id"], None)
        assert (current.plan, current.status) == (Plan.STARTER, SubscriptionStatus.ACTIVE)
        assert "subscription.doubled" not in await it.changes()

    async def test_two_events_of_one_invoice_are_one_payment(self, shop: Harness) -> None:
        it = await buying(shop)
        await it.buys()
        paid = it.last("invoice.paid")
        await asyncio.gather(it.hear(paid), it.hear(paid | {"id": paid["id"] + "x"}))
        assert (await it.changes()).count("invoice.paid") == 1
        assert len([one for one in await mails_to(shop, it) if one.startswith("Invoice ")]) == 1

    async def test_what_stripe_calls_an_invoice_is_no_card_whatever_it_looks_like(
        self, shop: Harness
    ) -> None:
        it = await buying(shop)
        await it.buys()
        paid = it.last("invoice.paid")
        data = paid["data"]["object"] | {"id": "in_5555555555554444", "number": "4242-4242-4242-4242"}
        event = paid | {"id": "evt_5200828282828210", "data": {"object": data}}
        assert str(await it.hear(event)) == "APPLIED"
        kept = await it.kept(event)
        assert kept is not None
        assert (kept.invoice_ref, kept.invoice_number) == (data["id"], data["number"])
        assert any(data["number"] in one for one in await mails_to(shop, it))

    # --- what is kept --------------------------------------------------------------------------

    async def test_a_type_that_nothing_follows_from_is_kept(self, shop: Harness) -> None:
        it = await buying(shop)
        await it.buys()
        await it.hears("customer.subscription.created")
        event = it.last("invoice.finalized")
        asked = it.payments.asked
        assert [str(await it.hear(event)) for _ in range(2)] == ["IGNORED", "IGNORED"]
        kept = await it.kept(event)
        assert kept is not None
        assert (kept.type, kept.version, it.payments.asked) == ("invoice.finalized", 1, asked)

    async def test_what_is_of_nobody_we_know_is_kept_in_the_realm(self, shop: Harness) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        stranger = shop.distribu.ports.entropy.uuid()
        data = event["data"]["object"] | {"metadata": {"distribu_company": stranger}, "customer": "cus_x"}
        event = event | {"id": event["id"] + "n", "data": {"object": data}}
        assert str(await it.hear(event)) == "IGNORED"
        assert await it.kept(event, REALM) is not None
        assert (await it.current()).subscription_ref is None

    async def test_whoever_is_known_by_their_customer_is_found_without_a_hint(self, shop: Harness) -> None:
        it = await buying(shop)
        await it.buys()
        await it.hears("customer.subscription.created")
        event = it.last("invoice.paid")
        data = {**event["data"]["object"], "parent": None, "metadata": {}}
        assert str(await it.hear(event | {"data": {"object": data}})) == "APPLIED"
        other = await buying(shop)
        await other.buys()
        await other.hears("customer.subscription.created")
        assert await other.kept(event) is None
        assert (await it.changes()).count("invoice.paid") == 1

    @pytest.mark.parametrize("what", ["a byte", "no signature", "another secret", "too old", "ahead"])
    async def test_what_is_not_genuine_leaves_nothing(self, shop: Harness, what: str) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        body, signature = it.stripe.signed(event, ["whsec_retired" if what == "another secret" else SECRET])
        signed: str | None = signature
        if what == "a byte":
            body = body.replace(b'"livemode":false', b'"livemode":fALse', 1)
        if what == "no signature":
            signed = None
        if what in ("too old", "ahead"):
            at = int(shop.clock.now().timestamp())
            body, signed = self._at(event, at + (301 if what == "ahead" else -301))
        async with refused(it.shop, "invalid_signature", Invalid):
            await it.distribu.run(STRIPE, HearNotice(body=body, signature=signed))
        assert await it.kept(event) is None
        assert await it.kept(event, REALM) is None

    def _at(self, event: dict[str, Any], at: int) -> tuple[bytes, str]:
        return PretendStripe(lambda: datetime.fromtimestamp(at, UTC)).signed(event, [SECRET])

    # --- Stripe is away ------------------------------------------------------------------------

    async def test_while_stripe_is_away_it_waits_and_is_applied_when_it_comes_again(
        self, shop: Harness
    ) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        it.payments.away = PaymentsAway("Stripe answered 503", retry_after_s=7)
        for _ in range(3):
            with pytest.raises(Busy) as no:
                await it.hear(event)
            assert (no.value.code, no.value.retry_after_s) == ("payments_away", 7)
        kept = await it.kept(event)
        assert kept is not None
        assert (kept.status, kept.error, kept.version) == ("WAITING", "Stripe answered 503", 1)
        (listed,) = [one for one in await self._failed(it) if one.ref == event["id"]]
        assert (listed.company_id, listed.status) == (it.shop.company.id, "WAITING")
        it.payments.away = None
        assert str(await it.hear(event)) == "APPLIED"
        assert (await it.current()).plan is Plan.GROWTH
        assert not [one for one in await self._failed(it) if one.ref == event["id"]]

    async def test_fifty_at_once_while_stripe_is_away_are_one_that_waits(self, shop: Harness) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        it.payments.away = PaymentsAway("nobody answered")
        said = await asyncio.gather(*(it.hear(event) for _ in range(DELIVERIES)), return_exceptions=True)
        assert {type(one) for one in said} == {Busy}
        kept = await it.kept(event)
        assert kept is not None
        assert (kept.status, kept.version) == ("WAITING", 1)
        assert len(await log_of(it.shop, "payment_notice.put_off")) == 1

    async def test_what_failed_is_kept_and_replayed(self, shop: Harness) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        it.payments.away = PaymentsRefused("Stripe answered 401")
        with pytest.raises(Busy):
            await it.hear(event)
        it.payments.away = ValueError("a mistake of ours")
        with pytest.raises(ValueError, match="a mistake"):
            await it.hear(event)
        kept = await it.kept(event)
        assert kept is not None
        assert (kept.status, kept.error) == ("FAILED", "ValueError")
        it.payments.away = None
        operator = Actor.system(None, "cli")
        for _ in range(2):
            replayed = await it.shop.execute(ReplayNotice(ref=event["id"]), operator)
            assert replayed.status == "APPLIED"
        assert (await it.changes()).count("subscription.updated") == 1
        with pytest.raises(NotFound) as no:
            await it.shop.execute(ReplayNotice(ref="evt_none"), operator)
        assert no.value.code == "notice_not_found"

    # --- tried again ---------------------------------------------------------------------------

    async def test_what_waits_is_tried_again_ever_more_seldom_until_it_is_applied(
        self, shop: Harness
    ) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        before = await mails_to(shop, it)
        await self._put_off(it, event, PaymentsAway("Stripe answered 503"))
        for wait in RETRIES[:3]:
            for passed, asked in ((wait - timedelta(seconds=1), 0), (timedelta(seconds=1), 1)):
                shop.clock.advance(seconds=passed.total_seconds())
                seen = it.payments.asked
                assert (await retried(it)).count == 0
                assert it.payments.asked - seen == asked
        kept = await it.kept(event)
        assert kept is not None
        assert (kept.status, kept.error, kept.version, kept.tries) == ("WAITING", "Stripe answered 503", 1, 3)
        it.payments.away = None
        shop.clock.advance(seconds=RETRIES[3].total_seconds())
        async with counted(it) as new:
            heard = [self._until_heard(it, event) for _ in range(10)]  # and Stripe sends it again, too
            ran, *_ = await asyncio.gather(retried(it), *heard)
        assert ran.outcome is Outcome.DONE
        assert new == ["subscription.updated"]
        assert len(await mails_to(shop, it)) - len(before) == 1
        shop.clock.advance(days=2)
        assert (await retried(it)).count == 0
        assert it.distribu.counts.notices["put_off"] == 3

    async def test_what_never_gets_through_is_kept_as_failed_after_three_days_and_replayed(
        self, shop: Harness
    ) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        await self._put_off(it, event, PaymentsAway("nobody answered"))
        tried = it.payments.asked
        for number, wait in enumerate(RETRIES, 1):
            assert (await self._kept(it, event)).status == "WAITING"
            shop.clock.advance(seconds=wait.total_seconds())
            await retried(it)
            assert it.payments.asked - tried == number
        assert timedelta(days=2) < sum(RETRIES, timedelta()) < timedelta(days=4)
        kept = await self._kept(it, event)
        assert (kept.status, kept.error, kept.due_at) == ("FAILED", "nobody answered", None)
        assert [one.status for one in await self._failed(it) if one.ref == event["id"]] == ["FAILED"]
        it.payments.away = None
        shop.clock.advance(days=1)
        await retried(it)
        assert (await self._kept(it, event)).status == "FAILED", "it is left to those who run the platform"
        replayed = await it.shop.execute(ReplayNotice(ref=event["id"]), Actor.system(None, "cli"))
        assert replayed.status == "APPLIED"
        assert (await it.current()).plan is Plan.GROWTH

    @pytest.mark.parametrize("what", ["the command", "whose it is"])
    async def test_what_something_of_ours_keeps_from_its_last_try_is_failed(
        self, shop: Harness, what: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        await self._put_off(it, event, PaymentsAway("nobody answered"))
        it.payments.away = None
        tried = 0

        async def busy(request: Any, work: Any) -> Any:
            nonlocal tried
            tried += 1
            raise Busy("busy", retry_after_s=1)

        with monkeypatch.context() as planted:
            planted.setattr(TakeNotice if what == "the command" else FindPayer, "run", busy)
            for number, wait in enumerate(RETRIES, 1):
                kept = await self._kept(it, event)
                assert (kept.status, kept.due_at is None) == ("WAITING", False)
                shop.clock.advance(seconds=wait.total_seconds())
                assert (await retried(it)).count == 0
                assert tried == number
        kept = await self._kept(it, event)
        assert (kept.status, kept.error, kept.due_at) == ("FAILED", "nobody answered", None)
        it.payments.away = PaymentsAway("nobody answered, again")
        with pytest.raises(Busy):
            await it.hear(event)  # Stripe has not given up
        kept = await self._kept(it, event)
        assert (kept.status, kept.error, kept.due_at) == ("FAILED", "nobody answered, again", None)
        it.payments.away = None
        assert str(await it.hear(event)) == "APPLIED"

    async def test_what_gets_through_at_its_last_try_is_applied(self, shop: Harness) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        await self._put_off(it, event, PaymentsAway("nobody answered"))
        for wait in RETRIES[:-1]:
            shop.clock.advance(seconds=wait.total_seconds())
            await retried(it)
        it.payments.away = None
        shop.clock.advance(seconds=RETRIES[-1].total_seconds())
        assert (await retried(it)).count == 1
        assert ((await self._kept(it, event)).status, (await it.current()).plan) == ("APPLIED", Plan.GROWTH)

    # --- Stripe knows nothing of it --------------------------------------------------------------

    @pytest.mark.parametrize("what", ["not there", "no price of ours"])
    @pytest.mark.parametrize("told", [_ended, _invoiced, _payer_deleted], ids=lambda one: one.__name__)
    async def test_of_a_known_subscription_nothing_is_taken_for_an_answer(
        self, shop: Harness, what: str, told: Callable[[Buying, dict[str, Any]], dict[str, Any]]
    ) -> None:
        """A key of another account, or a price that was left out of the settings: it is tried again."""
        it = await buying(shop)
        sub = await it.buys()
        await it.hears()
        stands, seen = await it.stands(), await it.changes()
        event = told(it, sub)
        price = sub["items"]["data"][0]["price"]
        ours = price["id"]
        if what == "not there":
            del it.stripe.subscriptions[sub["id"]]
        else:
            price["id"] = "price_of_a_book"
        with pytest.raises(Busy):
            await it.hear(event)
        kept = await self._kept(it, event)
        assert (kept.status, kept.due_at is None) == ("FAILED", False)
        assert sub["id"] in kept.error
        assert [one.status for one in await self._failed(it) if one.ref == event["id"]] == ["FAILED"]
        assert (await it.stands(), await it.changes()) == (stands, seen)
        it.stripe.subscriptions[sub["id"]] = sub
        price["id"] = ours
        shop.clock.advance(seconds=RETRIES[0].total_seconds())
        assert (await retried(it)).count == 1
        assert (await self._kept(it, event)).status == "APPLIED"
        assert (await it.changes() != seen) is (told is not _invoiced)

    async def test_what_is_over_and_not_there_keeps_nothing_that_is_bought_later(self, shop: Harness) -> None:
        it = await buying(shop)
        first = await it.buys()
        await it.hears()
        it.stripe.cancel(first["id"], now=True)
        ended = it.last("customer.subscription.deleted")
        assert str(await it.hear(ended)) == "APPLIED", "Stripe answers for what has ended"
        first["items"]["data"][0]["price"]["id"] = "price_of_a_book"
        with pytest.raises(Busy):
            await it.hear(ended | {"id": ended["id"] + "n"})
        second = await it.buys(Plan.STARTER)
        assert str(await it.hear(it.last("customer.subscription.created"))) == "APPLIED"
        current = await it.current()
        assert (current.subscription_ref, current.status) == (second["id"], SubscriptionStatus.ACTIVE)

    async def test_what_is_not_known_here_and_for_no_price_of_ours_is_none_of_our_business(
        self, shop: Harness
    ) -> None:
        it = await buying(shop)
        sub = await it.buys()
        sub["items"]["data"][0]["price"]["id"] = "price_of_a_book"
        assert str(await it.hear(it.last("customer.subscription.created"))) == "APPLIED"
        assert (await it.current()).subscription_ref is None

    # --- when it is tried again ------------------------------------------------------------------

    async def test_stripe_says_when_it_is_to_be_asked_again(self, shop: Harness) -> None:
        it = await buying(shop)
        await it.buys()
        event = it.last("customer.subscription.created")
        await self._put_off(it, event, PaymentsAway("Stripe answered 429", retry_after_s=3_600))
        it.payments.away = None
        shop.clock.advance(seconds=3_599)
        assert (await retried(it)).count == 0
        shop.clock.advance(seconds=1)
        assert (await retried(it)).count == 1

    async def test_what_was_refused_is_tried_again_and_a_mistake_keeps_no_other_from_its_turn(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it = await buying(shop)
        await it.buys()
        told = it.last("customer.subscription.created")
        many = [told | {"id": f"{told['id']}n{n}"} for n in range(AT_ONCE + 1)]
        for event in many:
            await self._put_off(it, event, PaymentsRefused("Stripe answered 401"))
            shop.clock.advance(milliseconds=1)
        it.payments.away = None
        take = TakeNotice.run

        async def stumble(request: TakeNotice, work: Work) -> bool:
            if request.told.ref == many[0]["id"]:
                raise ValueError("hunter2")
            return await take(request, work)

        shop.clock.advance(seconds=RETRIES[0].total_seconds())
        with monkeypatch.context() as planted:
            planted.setattr(TakeNotice, "run", stumble)
            assert (await retried(it)).outcome is Outcome.FAILED
        stumbled, *others = [await self._kept(it, event) for event in many]
        assert (stumbled.status, stumbled.error) == ("FAILED", "ValueError")
        assert {one.status for one in others} == {"APPLIED"}
        shop.clock.advance(seconds=RETRIES[1].total_seconds())
        assert (await retried(it)).count == 1
        assert (await self._kept(it, many[0])).status == "APPLIED"

    async def test_while_stripe_is_away_a_few_are_asked_for_and_then_all_that_is_due(
        self, shop: Harness
    ) -> None:
        it = await buying(shop)
        await it.buys()
        told = it.last("customer.subscription.created")
        many = [told | {"id": f"{told['id']}n{n}"} for n in range(AT_ONCE + 3)]
        for event in many:
            await self._put_off(it, event, PaymentsAway("nobody answered"))
        shop.clock.advance(seconds=RETRIES[0].total_seconds())
        tried = it.payments.asked
        for asked in (AT_ONCE, AT_ONCE + 3, AT_ONCE + 3):
            await retried(it)
            assert it.payments.asked - tried == asked
        it.payments.away = None
        shop.clock.advance(seconds=RETRIES[1].total_seconds())
        assert (await retried(it)).count == len(many)
        assert (await it.changes()).count("subscription.updated") == 1

    async def _put_off(self, it: Buying, event: dict[str, Any], why: Exception) -> None:
        it.payments.away = why
        with pytest.raises(Busy if isinstance(why, (PaymentsAway, PaymentsRefused)) else type(why)):
            await it.hear(event)

    async def _kept(self, it: Buying, event: dict[str, Any]) -> Notice:
        kept = await it.kept(event)
        assert kept is not None
        return kept

    async def _failed(self, it: Buying) -> Any:
        return await it.shop.execute(ListNotices(failed=True), Actor.system(None, "cli"))

    # --- who else is told ----------------------------------------------------------------------

    async def test_a_paid_invoice_goes_to_webhooks(self, shop: Harness) -> None:
        it = await buying(shop)
        webhook, _ = await it.shop.webhook(WireEvent.INVOICE_PAID)
        await it.buys()
        await it.hears()
        await it.shop.work()
        (sent,) = [one for one in shop.received if one.url == webhook.url]
        data = msgspec.json.decode(sent.body)["data"]
        assert (data["amount"], data["currency"]) == (229.99, "USD")
        assert data["id"] == it.last("invoice.paid")["data"]["object"]["id"]

    # --- buying --------------------------------------------------------------------------------

    async def test_whoever_asks_twice_gets_one_page_and_whoever_has_bought_the_portal(
        self, shop: Harness
    ) -> None:
        it = await buying(shop)
        asked = StartCheckout(plan=Plan.GROWTH, interval=Interval.MONTH)
        pages = await asyncio.gather(*(it.shop.execute(asked) for _ in range(5)))
        assert len({page.url for page in pages}) == 1
        assert "/checkout/" in pages[0].url
        async with refused(it.shop, "nothing_bought"):
            await it.shop.execute(OpenPortal())
        await it.buys()
        await it.hears()
        assert (await it.shop.execute(ReadSubscription())).status is SubscriptionStatus.ACTIVE
        for page in (await it.shop.execute(asked), await it.shop.execute(OpenPortal())):
            assert "/portal/" in page.url
        it.stripe.cancel(next(iter(it.stripe.subscriptions)), now=True)
        await it.hears("customer.subscription.deleted")
        assert "/checkout/" in (await it.shop.execute(asked)).url

    @pytest.mark.parametrize("kind", ["checkout", "portal", "either"])
    async def test_a_company_asks_for_twenty_pages_an_hour(self, shop: Harness, kind: str) -> None:
        it, other = await buying(shop), await buying(shop)
        await it.buys()
        await it.hears()
        shop.clock.advance(hours=1)
        checkout = StartCheckout(plan=Plan.GROWTH, interval=Interval.MONTH)
        for turn in range(PAGES_MAX):
            pages = {"checkout": checkout, "portal": OpenPortal()}
            await it.shop.execute(pages.get(kind, [*pages.values()][turn % 2]))
        asked = it.payments.pages
        for one in (checkout, OpenPortal()):
            async with refused(it.shop, "rate_limited", RateLimited) as no:
                await it.shop.execute(one)
            assert no.refused.retry_after_s is not None
        assert it.payments.pages == asked, "Stripe is not asked"
        await other.shop.execute(checkout)
        shop.clock.advance(hours=1)
        await it.shop.execute(OpenPortal())

    async def test_stripe_away_or_refusing_is_said(self, shop: Harness) -> None:
        it = await buying(shop)
        asked = StartCheckout(plan=Plan.GROWTH, interval=Interval.MONTH)
        it.payments.away = PaymentsAway("nobody answered")
        async with refused(it.shop, "payments_away", Busy) as no:
            await it.shop.execute(asked)
        assert no.refused.retry_after_s == 30
        it.payments.away = PaymentsRefused("no such price")
        async with refused(it.shop, "payments_refused"):
            await it.shop.execute(asked)
        async with refused(it.shop, "nothing_sold"):
            await it.shop.execute(StartCheckout(plan=Plan.UNLIMITED, interval=Interval.MONTH))
        with pytest.raises(Refused) as nothing:
            await shop.execute(asked)
        assert nothing.value.code == "nothing_sold"
        with pytest.raises(Refused) as nothing:
            await shop.execute(OpenPortal())
        assert nothing.value.code == "nothing_sold"

    @pytest.mark.parametrize("role", Role)
    async def test_the_owner_alone_buys(self, shop: Harness, role: Role) -> None:
        it = await buying(shop)
        somebody = (await it.shop.sign_in(role)).browser if role is not Role.OWNER else None
        if somebody is not None:
            for path, body in (("checkout", {"plan": "GROWTH", "interval": "MONTH"}), ("portal", {})):
                answer = await somebody.post(f"/billing/{path}", json=body)
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
