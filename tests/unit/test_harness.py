"""People in the harness: whoever a test needs, signed in, on the public surface."""

from collections import Counter

import pytest

from distribu import Bug, ContactRole, Forbidden, Harness, Interval, NotFound, Plan, Refused, Role, Shop
from distribu.application.billing import ReadSubscription
from distribu.application.team import InviteMember
from distribu.domain.billing import SubscriptionStatus

INVITE = InviteMember(email="new@example.test", role=Role.MEMBER)


@pytest.mark.parametrize("role", [Role.OWNER, Role.ADMIN, Role.MEMBER])
async def test_a_member_acts_and_has_a_browser(shop: Harness, role: Role) -> None:
    somebody = await shop.sign_in(role)
    if role is Role.MEMBER:
        with pytest.raises(Forbidden):
            await shop.execute(INVITE, somebody.actor)
    else:
        assert (await shop.execute(INVITE, somebody.actor)).email == INVITE.email
    async with somebody.browser as browser:
        seats = (await browser.get("")).json()["data"]["companies"]
        assert [(seat["companyId"], seat["role"]) for seat in seats] == [(shop.company.id, role)]
        made = await browser.post("/products", json={"name": "Oat Flour", "price": 10})
        assert made.status_code == 201, made.text


async def test_somebody_of_no_company_has_an_account_alone(shop: Harness) -> None:
    somebody = await shop.sign_in(None)
    async with somebody.browser as browser:
        assert (await browser.get("")).json()["data"]["companies"] == []
        assert (await browser.get("/products")).status_code == 403
    with pytest.raises(Forbidden):
        await shop.execute(INVITE, somebody.actor)


async def test_a_contact_is_at_the_store_of_this_company_alone(shop: Harness) -> None:
    customer, stranger = await shop.customer(), await shop.stranger()
    somebody = await shop.sign_in(ContactRole.BUYER, customer=customer)
    assert somebody.actor.customer_id == customer.id
    async with somebody.browser as browser:
        account = await browser.get("/account")
        assert account.json()["data"]["email"] == somebody.person.email
        elsewhere = await browser.get(f"http://distribu/store/{stranger.company.slug}/account")
        assert elsewhere.status_code == 401


async def test_there_is_one_owner(shop: Harness) -> None:
    await shop.sign_in(Role.OWNER)
    with pytest.raises(Refused, match="owner"):
        await shop.sign_in(Role.OWNER)


async def test_a_contact_is_of_a_customer(shop: Harness) -> None:
    with pytest.raises(Bug):
        await shop.sign_in(ContactRole.BUYER)
    with pytest.raises(Bug):
        await shop.sign_in(Role.OWNER, customer=await shop.customer())


# --- paying ----------------------------------------------------------------------------------


async def stands(shop: Shop) -> tuple[Plan, Interval | None, SubscriptionStatus]:
    it = await shop.execute(ReadSubscription())
    return it.plan, it.interval, it.status


async def test_who_pays_buys_changes_and_pays_what_is_open() -> None:
    async with Harness(sells=True) as shop:
        await shop.sign_in(Role.OWNER)
        await shop.stripe.pay()
        assert await stands(shop) == (Plan.STARTER, Interval.MONTH, SubscriptionStatus.ACTIVE)
        await shop.stripe.pay(Plan.GROWTH, Interval.YEAR)
        assert await stands(shop) == (Plan.GROWTH, Interval.YEAR, SubscriptionStatus.ACTIVE)
        await shop.stripe.fail()
        await shop.pass_days(365)
        assert await stands(shop) == (Plan.GROWTH, Interval.YEAR, SubscriptionStatus.PAST_DUE)
        await shop.stripe.pay()
        assert await stands(shop) == (Plan.GROWTH, Interval.YEAR, SubscriptionStatus.ACTIVE)
        await shop.stripe.cancel(now=True)
        assert await stands(shop) == (Plan.GROWTH, Interval.YEAR, SubscriptionStatus.CANCELED)
        for act in (shop.stripe.fail, shop.stripe.cancel):
            with pytest.raises(Refused, match="Nothing was bought"):
                await act()
        await shop.stripe.pay(Plan.STARTER, Interval.MONTH)
        assert await stands(shop) == (Plan.STARTER, Interval.MONTH, SubscriptionStatus.ACTIVE)
        kinds = Counter(event["type"] for event in shop.stripe.events)
        assert kinds["customer.created"] == 1, "the same customer buys again"


async def test_a_month_in_one_step_is_told_when_work_is_done() -> None:
    async with Harness(sells=True) as shop:
        await shop.sign_in(Role.OWNER)
        await shop.stripe.pay(Plan.STARTER)
        await shop.stripe.cancel()
        shop.clock.advance(days=40)
        assert (await stands(shop))[2] is SubscriptionStatus.ACTIVE
        await shop.work()
        assert (await stands(shop))[2] is SubscriptionStatus.CANCELED


async def test_each_company_pays_for_itself() -> None:
    async with Harness(sells=True) as shop:
        await shop.sign_in(Role.OWNER)
        stranger = await shop.stranger()
        await shop.stripe.pay(Plan.GROWTH)
        assert (await stands(stranger))[2] is SubscriptionStatus.TRIALING


async def test_nobody_pays_where_there_is_no_owner_or_nothing_is_sold(shop: Harness) -> None:
    with pytest.raises(Bug, match="sells=True"):
        await shop.stripe.pay()
    async with Harness(sells=True) as other:
        with pytest.raises(NotFound):
            await other.stripe.pay()
        with pytest.raises(Refused, match="Nothing was bought"):
            await other.stripe.fail()
