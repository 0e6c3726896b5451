"""People in the harness: whoever a test needs, signed in, on the public surface."""

import pytest

from distribu import Bug, ContactRole, Forbidden, Harness, Refused, Role
from distribu.application.team import InviteMember

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
