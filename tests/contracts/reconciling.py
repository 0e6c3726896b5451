"""Comparing what companies have with what runs at Stripe, and taking it over, on whichever store."""

from datetime import timedelta
from typing import Any

import pytest

from distribu import Actor, Harness, NotFound, Refused, Role, Shop
from distribu.adapters.memory import stripe as pretended
from distribu.adapters.memory.stripe import PRICES
from distribu.application import payments, reconciling
from distribu.application.agenda import Outcome
from distribu.application.billing import StartCheckout
from distribu.application.jobs import named as job_named, run_now
from distribu.application.ports import Bought, PaymentsAway, PaymentsRefused, Scope
from distribu.application.reconciling import Difference, Differing, Looked, SyncBilling
from distribu.application.team import EndCompany
from distribu.domain.accounts import REALM
from distribu.domain.billing import Interval, Plan, SubscriptionStatus
from distribu.domain.errors import Busy
from tests.contracts.asking import everything, log_of, put_plan, refused, store_of
from tests.contracts.notices import Buying, buying, mails_to

OPERATOR = Actor.system(None, "cli")


async def synced(it: Buying, *, apply: bool = False) -> list[Difference]:
    """What differs for this company, or for none: a database holds those of other tests too."""
    steps = [step async for step in await it.shop.execute(SyncBilling(apply=apply), OPERATOR)]
    looked = [step for step in steps if isinstance(step, Looked)]
    assert looked[-1].companies >= 1
    assert looked[-1].subscriptions == len(it.stripe.subscriptions)
    return [
        step
        for step in steps
        if isinstance(step, Difference) and step.company_id in (None, it.shop.company.id)
    ]


def named(differences: list[Difference]) -> dict[str | None, tuple[str | None, str | None, bool]]:
    """Fields that differ: here, at Stripe, and whether that was taken over."""
    assert {one.what for one in differences} <= {Differing.FIELD}
    return {one.field: (one.here, one.at_stripe, one.applied) for one in differences}


def kinds(differences: list[Difference]) -> list[tuple[str, str | None, str | None]]:
    return [(one.what.value, one.here, one.at_stripe) for one in differences]


async def bought(it: Buying) -> dict[str, Any]:
    """A subscription that was bought, and of which everything was told."""
    sub = await it.buys()
    await it.hears()
    return sub


async def end(it: Buying) -> None:
    """Delete the company, as its OWNER does who has given the password."""
    await it.distribu.run(it.shop.actor, EndCompany(name=it.shop.company.name))


class ReconcilingUseCases:
    async def test_an_end_that_was_never_told_is_found_once_a_day(self, shop: Harness) -> None:
        it = await buying(shop)
        it.stripe.cancel((await bought(it))["id"], now=True)
        assert (await it.current()).status is SubscriptionStatus.ACTIVE
        ran = await run_now(it.shop.distribu, job_named("sync_billing"))
        assert (ran.outcome, ran.count is not None and ran.count >= 1) == (Outcome.DONE, True)
        assert (await it.current()).status is SubscriptionStatus.CANCELED

    async def test_where_nothing_is_sold_nobody_is_asked(self, shop: Harness) -> None:
        assert await reconciling.sync_billing(shop.distribu) == 0

    async def test_where_all_was_told_nothing_differs_and_nothing_is_written(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it = await buying(shop)
        assert await synced(it) == [], "nothing is bought"
        sub = await bought(it)
        before = await log_of(it.shop)
        asked: list[str] = []

        async def noted(ref: str) -> Bought | None:
            asked.append(ref)
            return None

        monkeypatch.setattr(it.payments, "subscription", noted)
        for apply in (False, True):
            assert await synced(it, apply=apply) == []
        assert await log_of(it.shop) == before
        assert sub["id"] not in asked, "the list says it"

    async def test_a_purchase_that_was_never_told_is_named_and_taken_over(self, shop: Harness) -> None:
        it = await buying(shop)
        sub = await it.buys()
        before = await log_of(it.shop)
        found: dict[Any, Any] = {}
        for _ in range(2):
            found = named(await synced(it))
            assert found["plan"] == ("STARTER", "GROWTH", False)
            assert found["status"] == ("TRIALING", "ACTIVE", False)
            assert found["subscriptionRef"] == (None, sub["id"], False)
            assert found["customerRef"] == (None, sub["customer"], False)
            assert found["periodEndsAt"][0] is None
        assert await log_of(it.shop) == before, "nothing is changed"
        assert (await it.current()).status is SubscriptionStatus.TRIALING
        applied = named(await synced(it, apply=True))
        assert {name: one[:2] for name, one in applied.items()} == {n: one[:2] for n, one in found.items()}
        assert all(one[2] for one in applied.values())
        assert (await it.current()).plan is Plan.GROWTH
        assert (await it.changes()).count("subscription.updated") == 1
        (told,) = await log_of(it.shop, "payment_notice.applied")
        assert (told.metadata["type"], told.actor_kind.value) == ("distribu.sync", "SYSTEM")
        assert f"{it.shop.company.name} is on the plan GROWTH" in await mails_to(shop, it)
        assert await synced(it, apply=True) == []
        before = await log_of(it.shop, "subscription")
        assert str(await it.hear(it.last("customer.subscription.created"))) == "APPLIED"
        assert await log_of(it.shop, "subscription") == before, "told of it afterwards"

    @pytest.mark.parametrize("what", ["changed", "failed", "ending", "ended", "renewed"])
    async def test_what_became_of_it_unheard_is_taken_over(self, shop: Harness, what: str) -> None:
        it = await buying(shop)
        sub = await bought(it)
        field, here, there, action = {
            "changed": ("plan", "GROWTH", "ENTERPRISE", "subscription.updated"),
            "failed": ("status", "ACTIVE", "PAST_DUE", "subscription.past_due"),
            "ending": ("cancelsAt", None, None, "subscription.updated"),
            "ended": ("status", "ACTIVE", "CANCELED", "subscription.canceled"),
            "renewed": ("periodEndsAt", None, None, "subscription.updated"),
        }[what]
        if what == "changed":
            it.stripe.change(sub["id"], PRICES[Plan.ENTERPRISE, Interval.MONTH][0])
        if what == "failed":
            it.stripe.card(sub["customer"], works=False)
        if what == "ending":
            it.stripe.cancel(sub["id"])
        if what == "ended":
            it.stripe.cancel(sub["id"], now=True)
        if what in ("failed", "renewed"):
            it.stripe.move(timedelta(days=31))
        before = (await it.changes()).count(action)
        found = named(await synced(it))
        if there is not None:
            assert found[field] == (here, there, False)
        assert field in found
        assert (await it.changes()).count(action) == before
        assert all(one[2] for one in named(await synced(it, apply=True)).values())
        assert (await it.changes()).count(action) == before + 1
        assert await synced(it) == []

    async def test_what_stripe_does_not_know_is_named_and_stays(self, shop: Harness) -> None:
        it = await buying(shop)
        sub = await bought(it)
        stands = await it.stands()
        gone = it.stripe.subscriptions.pop(sub["id"])
        for apply in (False, True):
            assert kinds(await synced(it, apply=apply)) == [("UNKNOWN", sub["id"], None)]
        assert await it.stands() == stands, "another key, or another account: nobody loses a plan by it"
        other = "sub_by_hand"
        it.stripe.subscriptions[other] = {**gone, "id": other}
        found = await synced(it, apply=True)
        assert kinds(found) == [("FIELD", None, other), ("UNKNOWN", sub["id"], None)]
        assert not any(one.applied for one in found), "what else is there is not taken over either"
        assert await it.stands() == stands
        del it.stripe.subscriptions[other]
        it.stripe.subscriptions[sub["id"]] = gone
        assert await synced(it) == []
        it.stripe.cancel(sub["id"], now=True)
        await it.hears("customer.subscription.deleted")
        del it.stripe.subscriptions[sub["id"]]
        assert await synced(it) == [], "of what is over nothing is to be known"

    async def test_what_the_list_leaves_out_is_asked_about_before_it_is_named(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it = await buying(shop)
        await bought(it)

        async def nothing(*, after: str | None = None) -> tuple[list[Bought], None]:
            return [], None

        monkeypatch.setattr(it.payments, "subscriptions", nothing)
        steps = [step async for step in await it.shop.execute(SyncBilling(), OPERATOR)]
        ours = [one for one in steps if isinstance(one, Difference) and one.company_id == it.shop.company.id]
        assert ours == []

    async def test_a_company_that_is_founded_meanwhile_is_not_said_to_be_nobody(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it = await buying(shop)
        pages = it.payments.subscriptions

        async def late(*, after: str | None = None) -> Any:
            other = await Shop.open(it.distribu)
            await other.sign_in(Role.OWNER)
            await Buying(other, it.stripe, it.payments).buys()
            return await pages(after=after)

        monkeypatch.setattr(it.payments, "subscriptions", late)
        assert await synced(it) == []

    async def test_what_nobody_here_claims_is_named(self, shop: Harness) -> None:
        it = await buying(shop)
        await bought(it)
        asked = await it.payments.checkout(
            company_id=shop.distribu.ports.entropy.uuid(),  # of nobody
            plan=Plan.STARTER,
            interval=Interval.YEAR,
            email="stranger@example.test",
            customer_ref=None,
            back="https://elsewhere.example",
            once="another",
        )
        stray = it.stripe.pay(asked.rpartition("/")[2])
        for apply in (False, True):
            (found,) = await synced(it, apply=apply)
            assert (found.what, found.company, found.at_stripe) == ("UNCLAIMED", None, stray["id"])
        it.stripe.cancel(stray["id"], now=True)
        assert await synced(it) == []

    async def test_what_says_of_no_company_is_of_whose_customer_it_is(self, shop: Harness) -> None:
        it = await buying(shop)
        sub = await bought(it)
        by_hand = {**it.stripe.subscriptions[sub["id"]], "id": "sub_by_hand", "metadata": {}}
        it.stripe.subscriptions["sub_by_hand"] = by_hand
        assert kinds(await synced(it)) == [
            ("FIELD", None, "sub_by_hand"),
            ("TWO_RUN", sub["id"], "sub_by_hand"),
        ]

    @pytest.mark.parametrize("told", [True, False])
    async def test_two_that_run_are_both_named_until_one_is_ended(self, shop: Harness, told: bool) -> None:
        it = await buying(shop)
        pages = []
        for _ in range(2):
            asked = StartCheckout(plan=Plan.GROWTH, interval=Interval.MONTH)
            pages.append((await it.shop.execute(asked)).url.rpartition("/")[2])
            shop.clock.advance(minutes=61)
        first, second = [it.stripe.pay(page) for page in pages]
        if told:
            await it.hears()
        found = await synced(it, apply=True)
        assert kinds(found)[-1] == ("TWO_RUN", first["id"], second["id"])
        assert all(one.applied for one in found[:-1])
        current = await it.current()
        assert (current.subscription_ref, current.second_ref) == (first["id"], second["id"])
        assert (await it.changes()).count("subscription.doubled") == 1
        assert kinds(await synced(it)) == [("TWO_RUN", first["id"], second["id"])]
        it.stripe.cancel(first["id"], now=True)
        taken = named(await synced(it, apply=True))
        assert taken["subscriptionRef"] == (first["id"], second["id"], True)
        assert taken["secondRef"] == (second["id"], None, True)
        assert (await it.current()).status is SubscriptionStatus.ACTIVE
        assert await synced(it) == []

    async def test_what_an_operator_set_stays_and_what_runs_beside_it_is_named(self, shop: Harness) -> None:
        it = await buying(shop)
        sub = await bought(it)
        await put_plan(it.shop, Plan.ENTERPRISE)
        stands = await it.stands()
        for apply in (False, True):
            assert kinds(await synced(it, apply=apply)) == [("SET_ASIDE", None, sub["id"])]
        assert await it.stands() == stands
        shop.clock.advance(minutes=61)
        await it.buys()
        await it.hears()
        assert (await it.current()).plan is Plan.GROWTH
        assert kinds(await synced(it)) == [("SET_ASIDE", None, sub["id"])], "not one of two that count"
        it.stripe.cancel(sub["id"], now=True)
        assert await synced(it) == []

    async def test_what_runs_for_a_company_that_is_deleted_is_named(self, shop: Harness) -> None:
        it = await buying(shop)
        sub = await bought(it)
        it.stripe.cancel(sub["id"])
        await it.hears("customer.subscription.updated")
        await end(it)
        for apply in (False, True):
            assert kinds(await synced(it, apply=apply)) == [("DELETED", None, sub["id"])]
        it.stripe.cancel(sub["id"], now=True)
        assert await synced(it) == []

    @pytest.mark.parametrize(
        "how", ["paid", "tried for nothing at Stripe", "past due", "not to end any more"]
    )
    async def test_a_company_that_would_go_on_being_charged_is_not_deleted(
        self, shop: Harness, how: str
    ) -> None:
        """Nobody is left then who could end it: the portal is the company's."""
        it = await buying(shop)
        sub = await bought(it)
        if how == "tried for nothing at Stripe":
            it.stripe.alter(sub["id"], {"status": "trialing", "trial_end": it.stripe.now + 86_400})
        elif how == "past due":
            it.stripe.card(sub["customer"], works=False)
            it.stripe.move(timedelta(days=32))
        elif how == "not to end any more":
            it.stripe.cancel(sub["id"])
            await it.hears("customer.subscription.updated")
            it.stripe.resume(sub["id"])
        await it.hears()
        before = await everything(it.shop)
        async with refused(it.shop, "subscription_runs") as no:
            await end(it)
        assert "/account/billing" in no.refused.message
        assert await everything(it.shop) == before
        it.stripe.cancel(sub["id"])
        await it.hears("customer.subscription.updated")
        await end(it)
        with pytest.raises(NotFound):
            await end(it)

    async def test_a_second_subscription_keeps_its_company_too(self, shop: Harness) -> None:
        it = await buying(shop)
        first = await it.buys()
        shop.clock.advance(minutes=61)
        second = await it.buys()
        await it.hears()
        it.stripe.cancel(first["id"])
        await it.hears("customer.subscription.updated")
        async with refused(it.shop, "subscription_runs"):
            await end(it)
        it.stripe.cancel(second["id"], now=True)
        await it.hears("customer.subscription.deleted")
        await end(it)

    @pytest.mark.parametrize("how", ["over", "set aside"])
    async def test_what_is_over_or_set_aside_keeps_no_company(self, shop: Harness, how: str) -> None:
        it = await buying(shop)
        sub = await bought(it)
        if how == "over":
            it.stripe.cancel(sub["id"], now=True)
            await it.hears("customer.subscription.deleted")
        else:
            await put_plan(it.shop, Plan.GROWTH)
        await end(it)

    async def test_what_is_bought_for_a_company_that_is_deleted_is_named(self, shop: Harness) -> None:
        """A page of Stripe's that was open can still be paid. Nobody is in any more who could be mailed."""
        it = await buying(shop)
        page = await it.shop.execute(StartCheckout(plan=Plan.GROWTH, interval=Interval.MONTH))
        await end(it)
        mails = await mails_to(shop, it)
        sub = it.stripe.pay(page.url.rpartition("/")[2])
        await it.hears()
        kept = await it.kept(it.last("customer.subscription.created"))
        assert kept is not None
        assert kept.status == "APPLIED"
        assert await mails_to(shop, it) == mails
        assert kinds(await synced(it, apply=True)) == [("DELETED", None, sub["id"])]

    async def test_stripes_list_is_read_page_by_page_and_not_for_ever(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it = await buying(shop)
        sub = await it.buys()
        for number in range(5):
            it.stripe.subscriptions[f"sub_{number}"] = {
                **sub,
                "id": f"sub_{number}",
                "status": "canceled",
                "customer": "cus_gone",
            }
        for module in (payments, pretended):
            monkeypatch.setattr(module, "PAGE", 2)
        monkeypatch.setattr(reconciling, "PAGES_MAX", 3)
        assert named(await synced(it))["subscriptionRef"] == (None, sub["id"], False)
        monkeypatch.setattr(reconciling, "PAGES_MAX", 2)
        with pytest.raises(Refused) as no:
            await synced(it)
        assert no.value.code == "too_many"

    async def test_stripe_away_or_refusing_is_said_and_of_one_alone_too(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it = await buying(shop)
        it.payments.away = PaymentsAway("Stripe answered 503", retry_after_s=7)
        with pytest.raises(Busy) as away:
            await synced(it)
        assert (away.value.code, away.value.retry_after_s) == ("payments_away", 7)
        it.payments.away = PaymentsRefused("Stripe answered 401")
        with pytest.raises(Refused) as no:
            await synced(it)
        assert no.value.code == "payments_refused"
        it.payments.away = None
        with pytest.raises(Refused) as nothing:
            await shop.execute(SyncBilling(), OPERATOR)
        assert nothing.value.code == "nothing_sold"
        sub = await bought(it)
        it.stripe.cancel(sub["id"], now=True)

        async def silent(ref: str) -> Bought | None:
            raise PaymentsAway("Stripe's answer is not understood")

        monkeypatch.setattr(it.payments, "subscription", silent)
        monkeypatch.setattr(reconciling, "UNANSWERED_MAX", 10_000)
        for apply in (False, True):
            assert kinds(await synced(it, apply=apply)) == [("UNANSWERED", sub["id"], None)]
        monkeypatch.setattr(reconciling, "UNANSWERED_MAX", 1)
        with pytest.raises(Busy):
            await synced(it)

    async def test_the_operator_alone_compares_and_it_is_in_the_platforms_log(self, shop: Harness) -> None:
        it = await buying(shop)
        with pytest.raises(Refused) as no:
            await it.shop.execute(SyncBilling())
        assert no.value.code == "forbidden"
        await it.buys()
        await synced(it, apply=True)
        async with store_of(shop).begin(Scope(REALM), readonly=True) as tx:
            (used,) = (await tx.records.page(limit=1)).items
        assert (used.action, used.metadata["what"], used.label) == ("platform.used", "sync billing", "cli")
