"""What the port Payments promises, whoever takes the money."""

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from distribu import Invalid, Secret
from distribu.adapters.memory.stripe import CENTS, PRICES, PretendStripe
from distribu.adapters.memory.twins import MovedClock
from distribu.application.payments import NOTICE_MAX, SOLD, Bought, PaymentNotice, Payments, PaymentsRefused
from distribu.domain.billing import Interval, Plan, SubscriptionStatus
from distribu.domain.values import CompanyId
from tests.stubs.stripe import SECRETS

ACME = CompanyId("019b8d62-7a80-72d3-a65b-000000000001")
FORMER = {**PRICES, (Plan.GROWTH, Interval.MONTH): ("price_growth_month", "price_growth_once")}
"""What is sold, and a price that it was sold at before."""

EVENT: dict[str, Any] = {
    "id": "evt_1",
    "object": "event",
    "created": 1_767_603_600,
    "livemode": False,
    "type": "invoice.paid",
    "data": {"object": {"id": "in_1", "object": "invoice", "customer": "cus_1", "subscription": "sub_1"}},
}
ODD = {
    "white space": json.dumps(EVENT, indent=3).replace("\n", "\r\n\t ") + "\n\n ",
    "unicode": json.dumps(
        EVENT | {"note": "Fünf \N{DROMEDARY CAMEL} \u202e\u2028 e\u0301 \u00e9"}, ensure_ascii=False
    ),
    "escapes": json.dumps(EVENT | {"note": "\N{DROMEDARY CAMEL}\u2028\u0001"}),
    "keys in another order": json.dumps(dict(reversed(EVENT.items()))),
    "numbers as they are": json.dumps(EVENT).replace(
        "}", ', "rate": 1.10e+01, "big": 12345678901234567890}', 1
    ),
    "slashes": json.dumps(EVENT | {"url": "https://a.example/b"}).replace("/", "\\/"),
}
"""Bodies that are another text once they have been parsed and written anew."""


def signed(body: bytes, at: datetime, *secrets: str, scheme: str = "v1") -> str:
    """The header of the signature, made by hand."""
    t = int(at.timestamp())
    sums = [hmac.new(it.encode(), f"{t}.".encode() + body, hashlib.sha256).hexdigest() for it in secrets]
    return ",".join([f"t={t}", *(f"{scheme}={one}" for one in sums)])


def unread(payments: Payments, body: bytes, header: str | None, now: datetime) -> None:
    """It is refused, by the one code."""
    with pytest.raises(Invalid) as no:
        payments.read(body, header, now=now)
    assert no.value.code == "invalid_signature"


async def bought(payments: Payments, stripe: PretendStripe, **more: Any) -> Bought:
    """Something is bought, and looked up."""
    session = (await page(payments, **more)).rpartition("/")[2]
    found = await payments.subscription(stripe.pay(session)["id"])
    assert found is not None
    return found


async def page(payments: Payments, **more: Any) -> str:
    """The page where Growth is bought by the month, unless it is said what."""
    wanted: dict[str, Any] = {
        "company_id": ACME,
        "plan": Plan.GROWTH,
        "interval": Interval.MONTH,
        "email": "owner@acme.example",
        "customer_ref": None,
        "back": "https://orders.example/account/billing",
        "once": "one",
    }
    return await payments.checkout(**wanted | more)


class PaymentsContract:
    """Fixtures ``payments``, which sells at `FORMER` and knows `SECRETS`, the ``stripe`` behind it, and its
    ``clock``."""

    # buying

    @pytest.mark.parametrize(("plan", "interval"), SOLD)
    async def test_what_is_bought_is_what_was_asked_for(
        self, payments: Payments, stripe: PretendStripe, clock: MovedClock, plan: Plan, interval: Interval
    ) -> None:
        it = await bought(payments, stripe, plan=plan, interval=interval)
        days = 31 if interval is Interval.MONTH else 365
        assert it == Bought(
            plan=plan,
            interval=interval,
            status=SubscriptionStatus.ACTIVE,
            began_at=clock.now(),
            period_starts_at=clock.now(),
            period_ends_at=clock.now() + timedelta(days=days),
            trial_ends_at=None,
            cancels_at=None,
            customer_ref=next(iter(stripe.customers)),
            subscription_ref=next(iter(stripe.subscriptions)),
            company_id=ACME,
        )
        assert stripe.customers[it.customer_ref]["email"] == "owner@acme.example"

    async def test_the_same_asked_twice_is_one_page(self, payments: Payments, stripe: PretendStripe) -> None:
        first = await page(payments)
        assert [await page(payments), *await asyncio.gather(*(page(payments) for _ in range(8)))] == [
            first
        ] * 9
        assert len(stripe.sessions) == 1

    async def test_anything_else_asked_is_another_page(
        self, payments: Payments, stripe: PretendStripe, clock: MovedClock
    ) -> None:
        others: list[dict[str, Any]] = [
            {},
            {"once": "two"},
            {"plan": Plan.STARTER},
            {"interval": Interval.YEAR},
            {"email": "else@acme.example"},
            {"company_id": CompanyId(ACME[:-1] + "2")},
            {"back": "https://orders.example/else"},
        ]
        assert len({await page(payments, **other) for other in others}) == len(others)
        clock.advance(hours=25)
        await page(payments)
        assert len(stripe.sessions) == len(others) + 1

    async def test_it_sells_subscriptions_alone_and_says_where_to_go_back_to(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        await page(payments)
        await page(payments, back="https://orders.example/billing?tab=plan")
        plain, queried = stripe.sessions.values()
        assert plain["mode"] == queried["mode"] == "subscription"
        assert plain["success_url"] == "https://orders.example/account/billing?checkout=done"
        assert plain["cancel_url"] == "https://orders.example/account/billing?checkout=left"
        assert queried["success_url"] == "https://orders.example/billing?tab=plan&checkout=done"

    async def test_a_customer_buys_again_as_the_same_one(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        first = await bought(payments, stripe)
        again = await bought(payments, stripe, customer_ref=first.customer_ref, once="two")
        assert again.customer_ref == first.customer_ref
        assert again.subscription_ref != first.subscription_ref
        assert len(stripe.customers) == 1

    async def test_nobody_buys_as_a_customer_that_is_none(self, payments: Payments) -> None:
        with pytest.raises(PaymentsRefused) as no:
            await page(payments, customer_ref="cus_none")
        assert "acme" not in str(no.value)

    async def test_a_portal_is_a_customers(self, payments: Payments, stripe: PretendStripe) -> None:
        it = await bought(payments, stripe)
        url = await payments.portal(customer_ref=it.customer_ref, back="https://orders.example/billing")
        portal = stripe.portals[url.rpartition("/")[2]]
        assert (portal["customer"], portal["return_url"]) == (
            it.customer_ref,
            "https://orders.example/billing",
        )
        with pytest.raises(PaymentsRefused):
            await payments.portal(customer_ref="cus_none", back="https://orders.example/billing")

    # how it stands

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("trialing", SubscriptionStatus.TRIALING),
            ("active", SubscriptionStatus.ACTIVE),
            ("past_due", SubscriptionStatus.PAST_DUE),
            ("unpaid", SubscriptionStatus.CANCELED),
            ("paused", SubscriptionStatus.CANCELED),
            ("canceled", SubscriptionStatus.CANCELED),
            ("incomplete", None),
            ("incomplete_expired", None),
        ],
    )
    async def test_every_status_of_theirs_is_one_of_ours_or_not_begun(
        self, payments: Payments, stripe: PretendStripe, theirs: str, ours: SubscriptionStatus | None
    ) -> None:
        it = await bought(payments, stripe)
        stripe.subscriptions[it.subscription_ref]["status"] = theirs
        stripe.subscriptions[it.subscription_ref]["trial_end"] = int(it.period_ends_at.timestamp())
        invoice = stripe.invoices[stripe.subscriptions[it.subscription_ref]["latest_invoice"]]
        invoice["next_payment_attempt"] = int(it.period_ends_at.timestamp())
        found = await payments.subscription(it.subscription_ref)
        assert found == replace(it, status=ours, trial_ends_at=it.period_ends_at)

    @pytest.mark.parametrize("theirs", ["trialing", "active", "past_due", "incomplete"])
    async def test_what_nobody_collects_is_paused(
        self, payments: Payments, stripe: PretendStripe, theirs: str
    ) -> None:
        """Stripe leaves its status as it was, and takes nothing."""
        it = await bought(payments, stripe)
        sub = stripe.subscriptions[it.subscription_ref]
        later = int(it.period_ends_at.timestamp())
        sub |= {"status": theirs, "trial_end": later}
        stripe.invoices[sub["latest_invoice"]]["next_payment_attempt"] = later
        before = await payments.subscription(it.subscription_ref)
        assert before is not None
        sub["pause_collection"] = {"behavior": "void", "resumes_at": None}
        status = None if before.status is None else SubscriptionStatus.CANCELED
        assert await payments.subscription(it.subscription_ref) == replace(before, status=status)
        sub["pause_collection"] = None
        assert await payments.subscription(it.subscription_ref) == before

    async def test_when_it_will_end_is_told(self, payments: Payments, stripe: PretendStripe) -> None:
        it = await bought(payments, stripe)
        stripe.cancel(it.subscription_ref)
        assert await payments.subscription(it.subscription_ref) == replace(it, cancels_at=it.period_ends_at)
        stripe.resume(it.subscription_ref)
        assert await payments.subscription(it.subscription_ref) == it
        stripe.alter(it.subscription_ref, {"cancel_at_period_end": True})  # as older versions say it
        assert await payments.subscription(it.subscription_ref) == replace(it, cancels_at=it.period_ends_at)
        early = it.period_starts_at + timedelta(days=3)
        stripe.alter(it.subscription_ref, {"cancel_at": int(early.timestamp())})
        assert await payments.subscription(it.subscription_ref) == replace(it, cancels_at=early)

    async def test_a_price_it_was_sold_at_is_still_its_plan(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        it = await bought(payments, stripe, plan=Plan.STARTER)
        item = stripe.subscriptions[it.subscription_ref]["items"]["data"][0]
        item["price"]["id"] = "price_growth_once"
        assert await payments.subscription(it.subscription_ref) == replace(it, plan=Plan.GROWTH)

    async def test_what_has_ended_is_still_answered_for(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        it, payer = await bought(payments, stripe), await bought(payments, stripe, once="two")
        stripe.cancel(it.subscription_ref, now=True)
        stripe.delete(payer.customer_ref)
        for one in (it, payer):
            found = await payments.subscription(one.subscription_ref)
            assert found is not None
            assert found.status is SubscriptionStatus.CANCELED

    async def test_what_is_not_there_or_not_ours_is_none(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        it = await bought(payments, stripe)
        assert await payments.subscription("sub_none") is None
        stripe.subscriptions[it.subscription_ref]["items"]["data"][0]["price"]["id"] = "price_of_a_book"
        assert await payments.subscription(it.subscription_ref) is None
        assert await payments.subscriptions() == ([], None)

    @pytest.mark.parametrize("id", ["", "Acme", ACME.upper(), "1" * 36, ACME + "\0", "x" * 500])
    async def test_a_company_is_an_id_of_ours_or_none(
        self, payments: Payments, stripe: PretendStripe, id: str
    ) -> None:
        it = await bought(payments, stripe)
        stripe.alter(it.subscription_ref, {"metadata": {"distribu_company": id}})
        found = await payments.subscription(it.subscription_ref)
        assert found == replace(it, company_id=None)

    async def test_all_of_them_come_in_pages(self, payments: Payments, stripe: PretendStripe) -> None:
        first = await bought(payments, stripe)
        template = stripe.subscriptions[first.subscription_ref]
        for number in range(229):
            id = f"sub_{number:04}"
            stripe.subscriptions[id] = {
                **template,
                "id": id,
                "status": "canceled" if number % 3 else "active",
            }
        refs: list[str] = []
        sizes = []
        after: str | None = None
        for _ in range(9):
            found, after = await payments.subscriptions(after=after)
            refs += [it.subscription_ref for it in found]
            sizes.append(len(found))
            if after is None:
                break
        assert refs == list(reversed(stripe.subscriptions))
        assert sizes == [100, 100, 30]

    # prices

    async def test_every_price_is_looked_up(self, payments: Payments) -> None:
        offers = await payments.prices()
        assert [(one.plan, one.interval) for one in offers] == list(SOLD)
        for one in offers:
            assert one.amount == Decimal(CENTS[one.plan, one.interval]) / 100
            assert (one.currency, one.wrong) == ("USD", "")
            assert one.setting == f"DISTRIBU_STRIPE_PRICE_{one.plan}_{one.interval}"

    async def test_a_price_that_cannot_be_sold_is_named(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        del stripe.prices["price_starter_month"]
        stripe.prices["price_growth_month"]["active"] = False
        stripe.prices["price_growth_year"]["recurring"]["interval"] = "month"
        stripe.prices["price_enterprise_month"]["recurring"]["interval_count"] = 3
        stripe.prices["price_enterprise_year"] |= {"unit_amount": None, "recurring": None}
        wrong = {one.ref: one.wrong for one in await payments.prices()}
        assert wrong == {
            "price_starter_month": "Stripe has no price price_starter_month",
            "price_starter_year": "",
            "price_growth_month": "the price price_growth_month is archived at Stripe",
            "price_growth_year": "the price price_growth_year is not paid each year",
            "price_enterprise_month": "the price price_enterprise_month is not paid each month",
            "price_enterprise_year": "the price price_enterprise_year is not paid each year",
        }

    async def test_an_amount_has_the_places_of_its_currency(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        for currency, amount in (("jpy", "7999"), ("kwd", "7.999"), ("eur", "79.99")):
            stripe.prices["price_starter_month"]["currency"] = currency
            offer = (await payments.prices())[0]
            assert (str(offer.amount), offer.currency) == (amount, currency.upper())

    # what they tell

    @pytest.mark.parametrize("body", ODD.values(), ids=ODD)
    def test_a_body_is_verified_as_it_came(self, payments: Payments, clock: MovedClock, body: str) -> None:
        raw = body.encode()
        told = payments.read(raw, signed(raw, clock.now(), SECRETS[0]), now=clock.now())
        assert (told.id, told.type, told.at) == ("evt_1", "invoice.paid", datetime(2026, 1, 5, 9, tzinfo=UTC))
        anew = json.dumps(json.loads(raw)).encode()
        if anew != raw:
            unread(payments, anew, signed(raw, clock.now(), SECRETS[0]), clock.now())

    def test_each_secret_opens_and_no_other(self, payments: Payments, clock: MovedClock) -> None:
        body, now = json.dumps(EVENT).encode(), clock.now()
        for secrets in (
            SECRETS[:1],
            SECRETS[1:],
            SECRETS,
            ("whsec_other", SECRETS[1]),
            (SECRETS[0], "whsec_x"),
        ):
            assert payments.read(body, signed(body, now, *secrets), now=now).id == "evt_1"
        wrong: list[tuple[str, ...]] = [
            (),
            ("whsec_other",),
            ("",),
            (SECRETS[0].upper(),),
            ("whsec_a", "whsec_b"),
        ]
        for others in wrong:
            unread(payments, body, signed(body, now, *others), now)

    def test_a_byte_that_is_changed_is_seen(self, payments: Payments, clock: MovedClock) -> None:
        body, now = json.dumps(EVENT).encode(), clock.now()
        header = signed(body, now, SECRETS[0])
        for place in range(len(body)):
            unread(payments, body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :], header, now)
        for other in (body + b" ", b" " + body, body[:-1], b"", body + b"\0", b"\xef\xbb\xbf" + body):
            unread(payments, other, header, now)

    def test_it_is_good_for_five_minutes_either_way(self, payments: Payments, clock: MovedClock) -> None:
        body, now = json.dumps(EVENT).encode(), clock.now()
        for seconds in (0, 299, 300, -299, -300):
            at = now + timedelta(seconds=seconds)
            assert payments.read(body, signed(body, at, SECRETS[0]), now=now).id == "evt_1"
        for seconds in (301, -301, 86_400, -86_400):
            unread(payments, body, signed(body, now + timedelta(seconds=seconds), SECRETS[0]), now)

    def test_the_time_is_signed(self, payments: Payments, clock: MovedClock) -> None:
        body, then = json.dumps(EVENT).encode(), clock.now()
        header = signed(body, then, SECRETS[0])
        now = clock.advance(minutes=10)
        fresh = f"t={int(now.timestamp())}"
        was = f"t={int(then.timestamp())}"
        unread(payments, body, header, now)
        unread(payments, body, header.replace(was, fresh), now)
        unread(payments, body, f"{fresh},{header}", now)
        unread(payments, body, f"{header},{fresh}", now)

    def test_a_header_that_is_none_is_refused(self, payments: Payments, clock: MovedClock) -> None:
        body, now = json.dumps(EVENT).encode(), clock.now()
        good = signed(body, now, SECRETS[0])
        t, sum = good.split(",")
        plain = sum.removeprefix("v1=")
        headers = [
            None, "", " ", ",", "=", "t", "t=", "v1", "v1=", "t=,v1=", t, sum, f"{t},", f"{t},v1", f"{t},v1=",
            f"{t};{sum}", f"{t},v0={plain}", f"{t},V1={plain}", f"{t},v1={plain[:-1]}", f"{t},v1={plain}0",
            f"{t},v1={plain.upper()}", f"{t}.0,{sum}", f"t=+{t[2:]},{sum}", f"t= {t[2:]},{sum}",
            f"t=-1,{sum}", f"{t},{good}", f"{good},{t}",
            f"t=NaN,{sum}", f"t=1e9,{sum}", f"t=0x1,{sum}", f"t={'9' * 11},{sum}", f"t={'9' * 5000},{sum}",
            f"t=\u0661\u0662,{sum}", f"{t},v1=\u00e9{plain[1:]}", f"{t},v1=\N{DROMEDARY CAMEL}", f"{good}\n",
            f"{t},v1=\0", f"{t}," + "v1=a," * 2000 + sum, "x" * 100_000, "t=1_0,v1=a", f"{t}\0,{sum}",
        ]  # fmt: skip
        for header in headers:
            unread(payments, body, header, now)
        assert payments.read(body, good, now=now).id == "evt_1"

    @pytest.mark.parametrize(
        "body",
        [
            b"", b" ", b"null", b"0", b'"x"', b"[]", b"{}", b"{", b"\xff\xfe", b"\xed\xa0\x80",
            b"[" * 100_000,
            b'{"id": "evt_1"}', json.dumps({**EVENT, "id": 1}).encode(),
            json.dumps({**EVENT, "id": ""}).encode(),
            json.dumps({**EVENT, "id": "a\0b"}).encode(), json.dumps({**EVENT, "id": "x" * 256}).encode(),
            json.dumps({**EVENT, "type": None}).encode(), json.dumps({**EVENT, "type": "a b"}).encode(),
            json.dumps({**EVENT, "created": "1"}).encode(), json.dumps({**EVENT, "created": -1}).encode(),
            json.dumps({**EVENT, "created": 10**30}).encode(), json.dumps({**EVENT, "created": 1.5}).encode(),
            json.dumps({**EVENT, "data": []}).encode(), json.dumps({**EVENT, "data": {"object": 1}}).encode(),
            json.dumps({**EVENT, "more": "x" * NOTICE_MAX}).encode(), b'{"created": NaN}',
        ],
        ids=lambda body: repr(body[:60]),
    )  # fmt: skip
    def test_a_body_that_is_no_event_is_refused(
        self, payments: Payments, clock: MovedClock, body: bytes
    ) -> None:
        unread(payments, body, signed(body, clock.now(), SECRETS[0]), clock.now())

    @pytest.mark.parametrize(
        "other",
        [{"livemode": True}, {"livemode": None}, {"livemode": "false"}, {"account": "acct_1"}],
        ids=repr,
    )
    def test_an_event_of_the_other_mode_or_of_another_account_is_refused(
        self, payments: Payments, clock: MovedClock, other: dict[str, Any]
    ) -> None:
        body = json.dumps(EVENT | other).encode()
        unread(payments, body, signed(body, clock.now(), SECRETS[0]), clock.now())

    @pytest.mark.parametrize(
        "about",
        [
            {"customer": 1, "subscription": [], "metadata": "x", "parent": 1, "total": "x"},
            {
                "customer": {"id": 1},
                "parent": {"subscription_details": "x"},
                "metadata": {"distribu_company": 1},
            },
            {"customer": "a\0b", "subscription": "x" * 300, "id": None},
        ],
        ids=["wrong types", "wrong below", "wrong texts"],
    )
    def test_an_event_nobody_foresaw_is_read_as_far_as_it_goes(
        self, payments: Payments, clock: MovedClock, about: dict[str, Any]
    ) -> None:
        event = {**EVENT, "type": "something.new", "data": {"object": {"object": "invoice", **about}}}
        body = json.dumps(event).encode()
        told = payments.read(body, signed(body, clock.now(), SECRETS[0]), now=clock.now())
        at = datetime(2026, 1, 5, 9, tzinfo=UTC)
        assert told == PaymentNotice(id="evt_1", type="something.new", at=at)

    async def test_what_happens_is_told_with_whom_it_is_about(
        self, payments: Payments, stripe: PretendStripe, clock: MovedClock
    ) -> None:
        it = await bought(payments, stripe)
        stripe.delete(it.customer_ref)
        told = {}
        for event in stripe.events:
            body, header = stripe.signed(event, SECRETS)
            notice = payments.read(body, header, now=clock.now())
            assert (notice.id, notice.at) == (event["id"], clock.now())
            assert notice.customer_ref == it.customer_ref
            told[notice.type] = notice
        for type in ("customer.subscription.created", "customer.subscription.deleted", "invoice.paid"):
            assert (told[type].subscription_ref, told[type].company_id) == (it.subscription_ref, ACME), type
        assert told["checkout.session.completed"].subscription_ref == it.subscription_ref
        assert told["checkout.session.completed"].company_id == ACME
        assert (told["customer.deleted"].subscription_ref, told["customer.deleted"].company_id) == (
            None,
            None,
        )
        invoice = told["invoice.paid"].invoice
        assert invoice is not None
        assert (str(invoice.amount), invoice.currency, invoice.number) == ("229.99", "USD", "PRETEND-0001")


class PayingOverTime(PaymentsContract):
    """What becomes of a subscription while time passes at the Stripe that is none, seen through the port."""

    async def _now(self, payments: Payments, it: Bought) -> Bought:
        found = await payments.subscription(it.subscription_ref)
        assert found is not None
        return found

    async def test_it_is_renewed(self, payments: Payments, stripe: PretendStripe) -> None:
        it = await bought(payments, stripe)
        stripe.move(timedelta(days=31, seconds=-1))
        assert await self._now(payments, it) == it
        stripe.move(timedelta(seconds=1))
        second = await self._now(payments, it)
        assert (second.period_starts_at, second.status) == (it.period_ends_at, SubscriptionStatus.ACTIVE)
        stripe.move(timedelta(days=365))
        assert (await self._now(payments, it)).period_ends_at > it.period_ends_at + timedelta(days=365)
        paid = [event for event in stripe.events if event["type"] == "invoice.paid"]
        assert len(paid) == 14
        assert len({event["data"]["object"]["id"] for event in paid}) == 14

    async def test_a_day_that_a_month_lacks_is_its_last(
        self, payments: Payments, stripe: PretendStripe, clock: MovedClock
    ) -> None:
        clock.advance(days=26)  # to the end of January
        it = await bought(payments, stripe)
        assert (it.period_starts_at.day, it.period_ends_at.month, it.period_ends_at.day) == (31, 2, 28)

    @pytest.mark.parametrize(
        ("ended_as", "status"),
        [("canceled", SubscriptionStatus.CANCELED), ("unpaid", SubscriptionStatus.CANCELED)],
    )
    async def test_a_card_that_stays_refused_ends_it(
        self, payments: Payments, stripe: PretendStripe, ended_as: str, status: SubscriptionStatus
    ) -> None:
        stripe.ended_as = ended_as
        it = await bought(payments, stripe)
        stripe.card(it.customer_ref, works=False)
        stripe.move(timedelta(days=31))
        assert (await self._now(payments, it)).status is SubscriptionStatus.PAST_DUE
        stripe.move(timedelta(days=7, seconds=-1))
        assert (await self._now(payments, it)).status is SubscriptionStatus.PAST_DUE
        stripe.move(timedelta(seconds=1))
        assert (await self._now(payments, it)).status is status
        assert stripe.subscriptions[it.subscription_ref]["status"] == ended_as
        failed = [event for event in stripe.events if event["type"] == "invoice.payment_failed"]
        assert [event["data"]["object"]["attempt_count"] for event in failed] == [1, 2, 3, 4]
        began = failed[0]["created"]
        assert [(event["created"] - began) // 86_400 for event in failed] == [0, 3, 5, 7]

    async def test_a_card_that_works_again_pays(self, payments: Payments, stripe: PretendStripe) -> None:
        it = await bought(payments, stripe)
        stripe.card(it.customer_ref, works=False)
        stripe.move(timedelta(days=35))
        stripe.card(it.customer_ref, works=True)
        assert (await self._now(payments, it)).status is SubscriptionStatus.ACTIVE
        stripe.move(timedelta(days=30))
        assert (await self._now(payments, it)).status is SubscriptionStatus.ACTIVE

    async def test_a_trial_is_warned_of_ends_and_is_paid(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        session = (await page(payments)).rpartition("/")[2]
        stripe.sessions[session]["subscription_data"]["trial_period_days"] = "14"
        it = await payments.subscription(stripe.pay(session)["id"])
        assert it is not None
        assert (it.status, it.trial_ends_at) == (SubscriptionStatus.TRIALING, it.period_ends_at)
        stripe.move(timedelta(days=11))
        assert [event["type"] for event in stripe.events].count("customer.subscription.trial_will_end") == 1
        stripe.move(timedelta(days=3))
        assert (await self._now(payments, it)).status is SubscriptionStatus.ACTIVE
        assert [event["type"] for event in stripe.events].count("customer.subscription.trial_will_end") == 1

    async def test_what_is_cancelled_ends_with_its_period(
        self, payments: Payments, stripe: PretendStripe
    ) -> None:
        it = await bought(payments, stripe)
        stripe.cancel(it.subscription_ref)
        stripe.move(timedelta(days=31, seconds=-1))
        assert (await self._now(payments, it)).status is SubscriptionStatus.ACTIVE
        stripe.move(timedelta(days=60))
        ended = await self._now(payments, it)
        assert (ended.status, ended.period_ends_at) == (SubscriptionStatus.CANCELED, it.period_ends_at)
        deleted = [event for event in stripe.events if event["type"] == "customer.subscription.deleted"]
        assert [event["created"] for event in deleted] == [int(it.period_ends_at.timestamp())]

    async def test_a_plan_is_changed(self, payments: Payments, stripe: PretendStripe) -> None:
        it = await bought(payments, stripe)
        stripe.change(it.subscription_ref, "price_enterprise_month")
        assert await self._now(payments, it) == replace(it, plan=Plan.ENTERPRISE)
        stripe.move(timedelta(days=3))
        stripe.change(it.subscription_ref, "price_starter_year")
        yearly = await self._now(payments, it)
        assert (yearly.plan, yearly.interval) == (Plan.STARTER, Interval.YEAR)
        assert yearly.period_ends_at - yearly.period_starts_at == timedelta(days=365)

    async def test_a_whole_life_of_it(self, payments: Payments, stripe: PretendStripe) -> None:
        """Bought, renewed, refused, paid, a larger plan and a smaller one, given up: as the port tells it."""
        it = await bought(payments, stripe, plan=Plan.STARTER)
        told = [it]

        month, card, ref = timedelta(days=31), it.customer_ref, it.subscription_ref
        steps: list[Sequence[Callable[[], object]]] = [
            [lambda: stripe.move(month)],
            [lambda: stripe.card(card, works=False), lambda: stripe.move(month)],
            [lambda: stripe.card(card, works=True)],
            [lambda: stripe.change(ref, "price_growth_month")],
            [lambda: stripe.change(ref, "price_starter_month")],
            [lambda: stripe.cancel(ref)],
            [lambda: stripe.move(month)],
        ]
        for step in steps:
            for act in step:
                act()
            told.append(await self._now(payments, it))
        assert [(one.plan, one.status, one.cancels_at is not None) for one in told] == [
            (Plan.STARTER, SubscriptionStatus.ACTIVE, False),
            (Plan.STARTER, SubscriptionStatus.ACTIVE, False),
            (Plan.STARTER, SubscriptionStatus.PAST_DUE, False),
            (Plan.STARTER, SubscriptionStatus.ACTIVE, False),
            (Plan.GROWTH, SubscriptionStatus.ACTIVE, False),
            (Plan.STARTER, SubscriptionStatus.ACTIVE, False),
            (Plan.STARTER, SubscriptionStatus.ACTIVE, True),
            (Plan.STARTER, SubscriptionStatus.CANCELED, True),
        ]
        assert {(one.customer_ref, one.subscription_ref, one.company_id) for one in told} == {
            (it.customer_ref, it.subscription_ref, ACME)
        }
        ended = told[-1].period_ends_at
        assert [one.period_ends_at for one in told[2:]] == [ended] * 6, "no other period began"


SECRET_RING = [Secret(one) for one in SECRETS]
