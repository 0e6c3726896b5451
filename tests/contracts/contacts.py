"""Use cases of a store's customers as people, and of the forms to write to us, on any store."""

import asyncio
from typing import Any

import pytest

from distribu import (
    Actor,
    Conflict,
    ContactRole,
    Forbidden,
    Harness,
    Invalid,
    NotFound,
    Refused,
    Role,
    Shop,
    Stale,
    Unauthenticated,
)
from distribu.application import inquiries, platform
from distribu.application.accounts import (
    ChangePassword,
    ReadAccount,
    RequestPasswordReset,
    ResendVerification,
    ResetPassword,
)
from distribu.application.billing import ReadSubscription
from distribu.application.contacts import (
    AcceptContactInvite,
    EditContact,
    InviteContact,
    ListContacts,
    ReadContact,
    RegisterCustomer,
    SendContactLink,
)
from distribu.application.customers import EditCustomer, ListCustomers, ReadCustomer
from distribu.application.inquiries import ListInquiries, SendInquiry
from distribu.application.kernel import Request
from distribu.application.platform import ListSuperAdmins, SuspendCompany, TakeSeat
from distribu.application.sessions import SignIn
from distribu.application.team import EditCompany, EndCompany
from distribu.domain.accounts import REALM, Purpose
from distribu.domain.billing import Plan
from distribu.domain.contacts import CONTACTS_MAX, Contact
from distribu.domain.customers import Customer, CustomerStatus
from distribu.domain.errors import CODES, RateLimited
from distribu.domain.inquiries import InquiryKind
from distribu.domain.team import Registration
from distribu.domain.values import CustomerId
from distribu.entrypoints.harness import AddContact
from tests import people
from tests.contracts.asking import each, log_of, outcomes, put_over, put_plan, refused, walk
from tests.contracts.visiting import (
    OTHER,
    PASSWORD,
    WRONG,
    acting,
    address,
    contact_with_password,
    link,
    login_of,
    mails_to,
    next_request,
    sign_in,
    sign_up,
    signed_in,
    staff_with_password,
    take,
    token_to,
    told,
    unchanged,
    visitor,
)


async def register(
    shop: Shop, email: str, *, name: str = "Green Grocer", password: str = PASSWORD, store: Shop | None = None
) -> None:
    asked = RegisterCustomer(name=name, email=email, password=password)
    await shop.execute(asked, visitor(store or shop))


async def verified(shop: Harness, email: str, password: str = PASSWORD) -> None:
    """Follow the link that was mailed after registering."""
    await take(shop, Purpose.VERIFY, await token_to(shop, email), shop, password)


async def customers_of(shop: Shop) -> list[Customer]:
    return await walk(lambda cursor: shop.execute(ListCustomers(limit=100, cursor=cursor)))


async def contacts_of(shop: Shop, customer_id: CustomerId) -> list[Contact]:
    return await walk(
        lambda cursor: shop.execute(ListContacts(customer_id=customer_id, limit=100, cursor=cursor))
    )


async def contact_of(shop: Shop, customer: Customer, email: str) -> Contact:
    (found,) = (it for it in await contacts_of(shop, customer.id) if it.email == email)
    return found


def invite(customer: Customer, email: str, role: ContactRole = ContactRole.BUYER) -> InviteContact:
    return InviteContact(customer_id=customer.id, email=email, full_name="Bo Buyer", role=role)


class ContactUseCases:
    # --- registering ---------------------------------------------------------------------------

    async def test_an_open_store_lets_a_customer_in_once_the_address_is_proven(self, shop: Harness) -> None:
        email = address(shop)
        await register(shop, email.upper(), name="Green Grocer")
        with pytest.raises(Forbidden) as no:
            await sign_in(shop, email, store=shop)
        assert no.value.code == "not_verified"
        (customer,) = await customers_of(shop)
        (contact,) = await contacts_of(shop, customer.id)
        assert (customer.email, customer.name, customer.status, customer.email_verified) == (
            email,
            "Green Grocer",
            CustomerStatus.PENDING,
            False,
        )
        assert (contact.email, contact.full_name, contact.role, contact.is_active) == (
            email,
            "Green Grocer",
            ContactRole.ADMIN,
            True,
        )
        (mail,) = await mails_to(shop, email)
        assert shop.company.name in mail.text
        assert f"/store/{shop.company.slug}/verify#" in mail.link
        await verified(shop, email)
        (customer,) = await customers_of(shop)
        assert (customer.status, customer.email_verified) == (CustomerStatus.ACTIVE, True)
        actor = await signed_in(shop, email, store=shop)
        assert (actor.company_id, actor.customer_id) == (shop.company.id, customer.id)
        account = await shop.execute(ReadAccount(), actor)
        assert (account.email, account.role, account.companies) == (email, ContactRole.ADMIN, [])

    async def test_under_approval_a_customer_waits_for_the_staff(self, shop: Harness) -> None:
        await shop.execute(EditCompany(registration=Registration.APPROVAL))
        email = address(shop)
        await register(shop, email)
        await verified(shop, email)
        (customer,) = await customers_of(shop)
        assert (customer.status, customer.email_verified) == (CustomerStatus.PENDING, True)
        by = visitor(shop)
        with pytest.raises(Forbidden) as no:
            await shop.execute(SignIn(email=email, password=PASSWORD), by)
        assert no.value.code == "customer_blocked"
        (record,) = await told(shop, "auth.login_failed", ip=by.ip, company=shop.company.id)
        assert record.metadata == {"why": "not_admitted"}
        await shop.execute(EditCustomer(customer_id=customer.id, status=CustomerStatus.ACTIVE))
        await signed_in(shop, email, store=shop)

    @pytest.mark.parametrize("how", ["before", "blocked", "reset"])
    async def test_a_proven_address_opens_only_what_waited_for_it(self, shop: Harness, how: str) -> None:
        """Approved before it is proven; blocked before; proven by resetting the password."""
        email = address(shop)
        await register(shop, email)
        (customer,) = await customers_of(shop)
        wanted = CustomerStatus.BLOCKED if how == "blocked" else CustomerStatus.ACTIVE
        if how != "reset":
            await shop.execute(EditCustomer(customer_id=customer.id, status=wanted))
            await verified(shop, email)
        else:
            await shop.execute(RequestPasswordReset(email=email), visitor(shop))
            token = await token_to(shop, email)
            await shop.execute(ResetPassword(token=token, password=OTHER), visitor(shop))
        (customer,) = await customers_of(shop)
        assert (customer.status, customer.email_verified) == (wanted, True)
        if how != "blocked":
            await signed_in(shop, email, OTHER if how == "reset" else PASSWORD, store=shop)

    async def test_who_was_invited_and_resets_opens_no_customer_that_waits(self, shop: Harness) -> None:
        customer, email = await shop.customer(status=CustomerStatus.PENDING), address(shop)
        await shop.execute(invite(customer, email, ContactRole.ADMIN))
        await shop.execute(RequestPasswordReset(email=email), visitor(shop))
        token = await token_to(shop, email)
        await shop.execute(ResetPassword(token=token, password=OTHER), visitor(shop))
        (customer,) = await customers_of(shop)
        assert customer.status is CustomerStatus.PENDING

    # --- a store whose plan is full ------------------------------------------------------------

    @pytest.mark.parametrize("why", ["full", "over"])
    async def test_a_store_that_takes_nothing_new_does_not_tell_whom_it_knows(
        self, shop: Harness, why: str
    ) -> None:
        registered, waits, staffs = (address(shop) for _ in range(3))
        for email in (registered, waits):
            await register(shop, email)
        await verified(shop, registered)
        await shop.customer(staffs)
        if why == "full":
            await put_plan(shop, Plan.STARTER)
            for _ in range(23):
                await shop.customer()
        else:
            await put_over(shop)
        answers = []
        for email in (registered, waits, staffs, address(shop)):
            async with refused(shop, "not_accepting") as no:
                await register(shop, email)
            answers.append((type(no.refused), no.refused.message, no.refused.fields))
        assert answers == [(Refused, CODES["not_accepting"], {})] * 4
        for email in (waits, staffs):
            assert len(await mails_to(shop, email)) == (email == waits)

    async def test_registrations_that_nobody_proves_take_no_place(self, shop: Harness) -> None:
        await put_plan(shop, Plan.STARTER)
        emails = [address(shop) for _ in range(30)]
        for email in emails:
            await register(shop, email)
        assert (await shop.execute(ReadSubscription())).uses.customers.used == 0
        await shop.customer()
        for email in emails[:24]:
            await verified(shop, email)
        assert (await shop.execute(ReadSubscription())).uses.customers.used == 25
        token = await token_to(shop, emails[24])
        for _ in range(2):
            async with refused(shop, "not_accepting") as no:
                await take(shop, Purpose.VERIFY, token, shop)
            assert no.refused.fields == {}
        await put_plan(shop, Plan.GROWTH)
        await take(shop, Purpose.VERIFY, token, shop)
        await signed_in(shop, emails[24], store=shop)

    async def test_who_waits_for_approval_takes_a_place_with_it(self, shop: Harness) -> None:
        await put_plan(shop, Plan.STARTER)
        await shop.execute(EditCompany(registration=Registration.APPROVAL))
        email = address(shop)
        await register(shop, email)
        await verified(shop, email)
        (customer,) = await customers_of(shop)
        others = [await shop.customer() for _ in range(25)]
        approve = EditCustomer(customer_id=customer.id, status=CustomerStatus.ACTIVE)
        async with refused(shop, "plan_limit"):
            await shop.execute(approve)
        await shop.execute(EditCustomer(customer_id=others[0].id, status=CustomerStatus.PENDING))
        await shop.execute(approve)
        async with refused(shop, "plan_limit"):
            await shop.execute(EditCustomer(customer_id=others[0].id, status=CustomerStatus.ACTIVE))

    async def test_a_closed_store_takes_nobody_and_tells_nothing(self, shop: Harness) -> None:
        known = address(shop)
        await register(shop, known)
        await verified(shop, known)
        await shop.execute(EditCompany(registration=Registration.CLOSED))
        answers = set()
        for email in (known, address(shop)):
            async with refused(shop, "registration_closed") as no:
                await register(shop, email)
            answers.add(no.refused.message)
        assert len(answers) == 1
        await signed_in(shop, known, store=shop)

    @pytest.mark.parametrize("registration", [Registration.OPEN, Registration.APPROVAL])
    async def test_owner_and_admins_are_told_of_a_new_customer(
        self, shop: Harness, registration: Registration
    ) -> None:
        await shop.execute(EditCompany(registration=registration))
        team = {role: (await people.staff(shop, role)).user.email for role in Role}
        foreign = (await people.staff(await shop.stranger(), Role.OWNER)).user.email
        email = address(shop)
        await register(shop, email, name="Green Grocer")
        subjects = {role: [it.subject for it in await mails_to(shop, to)] for role, to in team.items()}
        assert subjects == {
            Role.OWNER: ["Green Grocer has registered"],
            Role.ADMIN: ["Green Grocer has registered"],
            Role.MEMBER: [],
        }
        assert await mails_to(shop, foreign) == []
        (mail,) = await mails_to(shop, team[Role.OWNER])
        assert ("waits for your approval" in mail.text) == (registration is Registration.APPROVAL)
        await register(shop, email)
        assert len(await mails_to(shop, team[Role.OWNER])) == 1

    async def test_the_owner_of_a_large_team_is_told_too(self, shop: Harness) -> None:
        owner = (await people.staff(shop, Role.OWNER)).user.email
        for _ in range(100):
            user = await shop.user(address(shop, "member"))
            await shop.distribu.run(shop.actor, TakeSeat(user_id=user.id, role=Role.MEMBER))
        await register(shop, address(shop))
        assert [mail.subject for mail in await mails_to(shop, owner)] == ["Green Grocer has registered"]

    async def test_of_two_registrations_before_the_link_the_last_password_counts(self, shop: Harness) -> None:
        email = address(shop)
        await register(shop, email)
        first = await token_to(shop, email)
        await register(shop, email, password=OTHER)
        async with refused(shop, "invalid_token"):
            await take(shop, Purpose.VERIFY, first, shop)
        async with refused(shop, "wrong_password"):
            await verified(shop, email)
        await verified(shop, email, OTHER)
        (customer,) = await customers_of(shop)
        assert len(await contacts_of(shop, customer.id)) == 1
        with pytest.raises(Unauthenticated):
            await sign_in(shop, email, store=shop)
        await signed_in(shop, email, OTHER, store=shop)

    async def test_registrations_in_the_same_moment_make_one_customer(self, shop: Harness) -> None:
        email = address(shop)
        assert await outcomes(*(register(shop, email) for _ in range(4))) == [None] * 4
        assert [it.email for it in await customers_of(shop)] == [email]
        await verified(shop, email)
        await signed_in(shop, email, store=shop)

    async def test_whoever_has_an_account_is_told_and_nothing_changes(self, shop: Harness) -> None:
        registered, invited = address(shop), address(shop)
        await register(shop, registered)
        await verified(shop, registered)
        (customer,) = await customers_of(shop)
        await shop.execute(invite(customer, invited))
        before = await log_of(shop)
        async with unchanged(shop, (registered, shop), (invited, shop)):
            for email in (registered, invited):
                await register(shop, email, password=OTHER)
        assert await log_of(shop) == before
        for email in (registered, invited):
            (*_, mail) = await mails_to(shop, email)
            assert (mail.subject, mail.link) == ("You have an account already", "")
            assert shop.company.name in mail.text
        assert len(await customers_of(shop)) == 1

    async def test_nobody_becomes_a_customer_of_the_staffs_by_typing_its_address(self, shop: Harness) -> None:
        customer = await shop.customer()
        before = await log_of(shop)
        await register(shop, customer.email)
        assert await log_of(shop) == before
        assert await contacts_of(shop, customer.id) == []
        assert await login_of(shop, customer.email, shop) is None
        (mail,) = await mails_to(shop, customer.email)
        assert (mail.subject, mail.link) == (f"You are a customer of {shop.company.name} already", "")
        with pytest.raises(Unauthenticated):
            await sign_in(shop, customer.email, store=shop)

    async def test_nobody_registers_at_the_platform(self, shop: Harness) -> None:
        asked = RegisterCustomer(name="Green Grocer", email=address(shop), password=PASSWORD)
        async with refused(shop, "not_found", NotFound):
            await shop.execute(asked, visitor())

    @pytest.mark.parametrize(("name", "field"), [("x", "name"), ("x" * 101, "name"), ("", "name")])
    async def test_a_name_has_2_to_100_characters(self, shop: Harness, name: str, field: str) -> None:
        async with refused(shop, "invalid_request", Invalid) as no:
            await register(shop, address(shop), name=name)
        assert list(no.refused.fields) == [field]

    # --- who is let in -------------------------------------------------------------------------

    @pytest.mark.parametrize("why", [CustomerStatus.PENDING, CustomerStatus.BLOCKED, "inactive"])
    async def test_nobody_comes_in_while_kept_out(self, shop: Harness, why: str) -> None:
        customer = await shop.customer()
        await contact_with_password(shop, customer)
        email = await contact_with_password(shop, customer)
        contact = await contact_of(shop, customer, email)
        session = (await sign_in(shop, email, store=shop)).session

        async def keep_out(yes: bool) -> None:
            if why == "inactive":
                await shop.execute(EditContact(contact_id=contact.id, is_active=not yes))
            else:
                status = CustomerStatus(why) if yes else CustomerStatus.ACTIVE
                await shop.execute(EditCustomer(customer_id=customer.id, status=status))

        await keep_out(True)
        assert await next_request(shop, session) is None
        with pytest.raises(Forbidden) as no:
            await sign_in(shop, email, store=shop)
        assert no.value.code == "customer_blocked"
        with pytest.raises(Unauthenticated) as wrong:  # a guess learns nothing
            await sign_in(shop, email, WRONG, store=shop)
        assert wrong.value.code == "wrong_credentials"
        await shop.execute(RequestPasswordReset(email=email), visitor(shop))
        await take(shop, Purpose.RESET, await token_to(shop, email), shop)
        with pytest.raises(Forbidden):
            await sign_in(shop, email, OTHER, store=shop)
        await keep_out(False)
        await signed_in(shop, email, OTHER, store=shop)

    async def test_blocking_a_customer_ends_everybody_of_it_and_nobody_else(self, shop: Harness) -> None:
        customer, other = await shop.customer(), await shop.customer()
        theirs = [(await people.buyer(shop, customer, role)).session for role in ContactRole]
        others = (await people.buyer(shop, other, ContactRole.BUYER)).session
        await shop.execute(EditCustomer(customer_id=customer.id, status=CustomerStatus.BLOCKED))
        assert [await next_request(shop, one) for one in theirs] == [None] * 3
        assert await next_request(shop, others)

    async def test_another_role_counts_at_the_next_request(self, shop: Harness) -> None:
        customer = await shop.customer()
        await people.buyer(shop, customer, ContactRole.ADMIN)
        buyer = await people.buyer(shop, customer, ContactRole.BUYER)
        before = await acting(shop, buyer.session)
        await shop.execute(EditContact(contact_id=buyer.contact.id, role=ContactRole.VIEWER))
        assert (await acting(shop, buyer.session)).permissions < before.permissions

    async def test_a_failed_sign_in_at_a_store_is_told_to_the_store_alone(self, shop: Harness) -> None:
        email = await contact_with_password(shop, await shop.customer())
        by, stranger = visitor(shop), await shop.stranger()
        with pytest.raises(Unauthenticated):
            await shop.execute(SignIn(email=email, password=WRONG), by)
        login = await login_of(shop, email, shop)
        assert login is not None
        (record,) = await told(shop, "auth.login_failed", ip=by.ip, company=shop.company.id)
        assert (record.entity_type, record.entity_id) == ("Contact", login.id)
        for company in (REALM, stranger.company.id):
            assert await told(shop, "auth.login_failed", ip=by.ip, company=company) == []

    @pytest.mark.parametrize("how", ["deleted", "suspended"])
    async def test_a_store_that_is_shut_takes_nobody_in(self, shop: Harness, how: str) -> None:
        known, invited = [await link(shop, purpose, shop) for purpose in (Purpose.RESET, Purpose.INVITE)]
        stranger = address(shop)
        session = (await sign_in(shop, known.holder, store=shop)).session
        mailed = [await mails_to(shop, email) for email in (known.holder, stranger)]
        if how == "deleted":
            await shop.distribu.run(shop.actor, EndCompany(name=shop.company.name))
        else:
            suspend = SuspendCompany(company_id=shop.company.id, reason="unpaid")
            await shop.execute(suspend, Actor.system(None))
        before = await log_of(shop)
        actor = await next_request(shop, session)
        assert actor is None or not actor.permissions
        async with unchanged(shop, known.login, invited.login, (stranger, shop)):
            for request in each(
                RegisterCustomer(name="Green Grocer", email=stranger, password=PASSWORD),
                SignIn(email=known.holder, password=PASSWORD),
                RequestPasswordReset(email=known.holder),
                ResetPassword(token=known.token, password=OTHER),
                AcceptContactInvite(token=invited.token, password=OTHER),
            ):
                with pytest.raises(Refused):
                    await shop.execute(request, visitor(shop))
        failed = "auth.login_failed"
        assert [it for it in await log_of(shop) if it.action != failed] == before
        assert [await mails_to(shop, email) for email in (known.holder, stranger)] == mailed

    # --- the same address in two places ----------------------------------------------------------

    async def test_one_address_at_two_stores_is_two_persons(self, shop: Harness) -> None:
        other, email = await shop.stranger(), address(shop)
        for store, password in ((shop, PASSWORD), (other, OTHER)):
            await shop.execute(invite(await store.customer(), email, ContactRole.ADMIN), store.actor)
            token = await token_to(shop, email)
            await shop.execute(AcceptContactInvite(token=token, password=password), visitor(store))
        for store, wrong in ((shop, OTHER), (other, PASSWORD)):
            with pytest.raises(Unauthenticated):
                await sign_in(shop, email, wrong, store=store)
        here = (await sign_in(shop, email, store=shop)).session
        there = (await sign_in(shop, email, OTHER, store=other)).session
        assert here.holder_id != there.holder_id
        directory = shop.distribu.ports.directory
        assert await directory.store_session(other.company.id, here.id) is None
        assert await directory.store_session(shop.company.id, there.id) is None
        assert await directory.staff_session(here.id) is None
        await shop.execute(RequestPasswordReset(email=email), visitor(shop))
        await take(shop, Purpose.RESET, await token_to(shop, email), shop)
        assert await next_request(shop, here) is None
        assert await next_request(shop, there)
        await sign_in(shop, email, OTHER, store=other)

    async def test_a_contact_is_nobody_at_the_platform_and_staff_nobody_at_the_store(
        self, shop: Harness
    ) -> None:
        contact = await contact_with_password(shop, await shop.customer())
        member = await staff_with_password(shop)
        for email, store in ((contact, None), (member, shop)):
            with pytest.raises(Unauthenticated):
                await sign_in(shop, email, store=store)
        await sign_up(shop, contact, password=OTHER)
        await take(shop, Purpose.VERIFY, await token_to(shop, contact), None, OTHER)
        user = (await sign_in(shop, contact, OTHER)).session
        buyer = (await sign_in(shop, contact, store=shop)).session
        await shop.execute(
            ChangePassword(password=OTHER, new_password="a third thing entirely"), await acting(shop, user)
        )
        assert await next_request(shop, buyer)
        await sign_in(shop, contact, store=shop)

    # --- contacts ------------------------------------------------------------------------------

    async def test_a_contact_comes_in_by_the_link_that_is_mailed(self, shop: Harness) -> None:
        customer, email = await shop.customer(name="Corner Shop"), address(shop)
        contact = await shop.execute(invite(customer, email.upper(), ContactRole.ADMIN))
        assert (contact.email, contact.role, contact.is_active) == (email, ContactRole.ADMIN, True)
        (mail,) = await mails_to(shop, email)
        assert mail.subject == f"Order at {shop.company.name} for Corner Shop"
        assert f"/store/{shop.company.slug}/welcome#" in mail.link
        for password in (PASSWORD, "", " "):
            if password:
                with pytest.raises(Unauthenticated):
                    await sign_in(shop, email, password, store=shop)
        for other in (None, await shop.stranger()):
            async with refused(shop, "invalid_token"):
                await take(shop, Purpose.INVITE, await token_to(shop, email), other)
        token = await token_to(shop, email)
        await shop.execute(AcceptContactInvite(token=token, password=PASSWORD), visitor(shop))
        actor = await signed_in(shop, email, store=shop)
        assert (actor.id, actor.customer_id) == (contact.id, customer.id)
        read = await shop.execute(ReadCustomer(customer_id=customer.id), actor)
        assert read.customer.id == customer.id

    async def test_an_invited_contact_may_ask_for_a_password_too(self, shop: Harness) -> None:
        out = await link(shop, Purpose.INVITE, shop)
        await shop.execute(RequestPasswordReset(email=out.holder), visitor(shop))
        reset = await token_to(shop, out.to)
        await shop.execute(ResendVerification(email=out.holder), visitor(shop))
        await take(shop, Purpose.RESET, reset, shop)
        await signed_in(shop, out.holder, OTHER, store=shop)
        async with refused(shop, "invalid_token"):
            await take(shop, Purpose.INVITE, out.token, shop)

    async def test_the_first_contact_is_an_admin(self, shop: Harness) -> None:
        customer = await shop.customer()
        for role in (ContactRole.BUYER, ContactRole.VIEWER):
            async with refused(shop, "admin_first"):
                await shop.execute(invite(customer, address(shop), role))
        await shop.execute(invite(customer, address(shop), ContactRole.ADMIN))
        for role in ContactRole:
            await shop.execute(invite(customer, address(shop), role))
        roles = sorted(it.role for it in await contacts_of(shop, customer.id))
        assert roles == ["ADMIN", "ADMIN", "BUYER", "VIEWER"]

    async def test_an_address_is_one_contact_of_a_store(self, shop: Harness) -> None:
        out, customer = await link(shop, Purpose.INVITE, shop), await shop.customer()
        async with unchanged(shop, out.login), refused(shop, "duplicate_email", Conflict):
            await shop.execute(invite(customer, out.holder.upper(), ContactRole.ADMIN))
        stranger = await shop.stranger()
        theirs = await stranger.customer()
        await stranger.execute(invite(theirs, out.holder, ContactRole.ADMIN))

    @pytest.mark.parametrize("email", ["nobody", "a@b", "a b@example.test"])
    async def test_what_is_no_address_is_not_invited(self, shop: Harness, email: str) -> None:
        customer = await shop.customer()
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.execute(invite(customer, email, ContactRole.ADMIN))
        assert list(no.refused.fields) == ["email"]

    async def test_a_customer_has_so_many_contacts(self, shop: Harness) -> None:
        customer, other = await shop.customer(), await shop.customer()
        assert CONTACTS_MAX == 200
        admins = [
            AddContact(
                email=address(shop), customer_id=customer.id, full_name="Somebody", role=ContactRole.ADMIN
            )
            for _ in range(CONTACTS_MAX - 1)
        ]
        (*_, last) = [await shop.distribu.run(shop.actor, admin) for admin in admins]
        await shop.execute(EditContact(contact_id=last.id, is_active=False))  # it counts all the same
        asked = [shop.execute(invite(customer, address(shop))) for _ in range(3)]
        came = await outcomes(*asked)
        assert sorted(it if isinstance(it, str) else "" for it in came) == ["", "too_many", "too_many"]
        assert len(await contacts_of(shop, customer.id)) == CONTACTS_MAX
        await shop.execute(invite(other, address(shop), ContactRole.ADMIN))

    async def test_an_admin_of_a_customer_manages_its_contacts_and_no_others(self, shop: Harness) -> None:
        customer, other = await shop.customer(), await shop.customer()
        admin = await signed_in(shop, await contact_with_password(shop, customer), store=shop)
        theirs = (await people.buyer(shop, other, ContactRole.ADMIN)).contact
        stranger = await shop.stranger()
        foreign = (await people.buyer(stranger, await stranger.customer(), ContactRole.ADMIN)).contact
        invited = []
        for role in ContactRole:
            email = address(shop)
            contact = await shop.execute(invite(customer, email, role), admin)
            invited.append(contact.id)
            assert contact.customer_id == customer.id
            accept = AcceptContactInvite(token=await token_to(shop, email), password=PASSWORD)
            await shop.execute(accept, visitor(shop))
            assert (await signed_in(shop, email, store=shop)).customer_id == customer.id
        async with refused(shop, "customer_not_found", NotFound):
            await shop.execute(invite(other, address(shop)), admin)
        async with refused(shop, "customer_not_found", NotFound):
            await shop.execute(ListContacts(customer_id=other.id), admin)
        absent, answers = shop.distribu.ports.entropy.uuid(), set()
        for id in (theirs.id, foreign.id, absent):
            for request in each(
                ReadContact(contact_id=id),
                EditContact(contact_id=id, full_name="Mine"),
                SendContactLink(contact_id=id),
            ):
                async with refused(shop, "contact_not_found", NotFound) as no:
                    await shop.execute(request, admin)
                answers.add(no.refused.message)
        assert len(answers) == 1
        page = await shop.execute(ListContacts(customer_id=customer.id), admin)
        assert len(page.items) == 4
        renamed = await shop.execute(EditContact(contact_id=invited[0], full_name="Zoë"), admin)
        assert renamed.full_name == "Zoë"

    @pytest.mark.parametrize("role", [ContactRole.BUYER, ContactRole.VIEWER])
    async def test_nobody_else_of_a_customer_manages_its_contacts(
        self, shop: Harness, role: ContactRole
    ) -> None:
        customer = await shop.customer()
        admin = await people.buyer(shop, customer, ContactRole.ADMIN)
        somebody = await people.buyer(shop, customer, role)
        actor = await acting(shop, somebody.session)
        requests: list[Request[Any]] = [
            invite(customer, address(shop), ContactRole.VIEWER),
            ListContacts(customer_id=customer.id),
            ReadContact(contact_id=somebody.contact.id),
            EditContact(contact_id=somebody.contact.id, role=ContactRole.ADMIN),
            SendContactLink(contact_id=admin.contact.id),
        ]
        for request in requests:
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(request, actor)

    @pytest.mark.parametrize(
        "change", [{"role": ContactRole.BUYER}, {"role": ContactRole.VIEWER}, {"is_active": False}]
    )
    async def test_a_customer_keeps_an_active_admin(self, shop: Harness, change: dict[str, Any]) -> None:
        customer = await shop.customer()
        first = (await people.buyer(shop, customer, ContactRole.ADMIN)).contact
        await people.buyer(shop, customer, ContactRole.BUYER)
        await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        async with refused(shop, "last_admin"):
            await shop.execute(EditContact(contact_id=first.id, **change))
        second = (await people.buyer(shop, customer, ContactRole.ADMIN)).contact
        edited = await shop.execute(EditContact(contact_id=first.id, **change))
        assert (edited.role, edited.is_active) != (ContactRole.ADMIN, True)
        async with refused(shop, "last_admin"):
            await shop.execute(EditContact(contact_id=second.id, **change))
        await shop.execute(EditContact(contact_id=second.id, full_name="Still here"))

    async def test_of_two_admins_who_leave_in_the_same_moment_one_stays(self, shop: Harness) -> None:
        customer = await shop.customer()
        admins = [(await people.buyer(shop, customer, ContactRole.ADMIN)).contact for _ in range(2)]
        demoting = [shop.execute(EditContact(contact_id=it.id, role=ContactRole.VIEWER)) for it in admins]
        assert [it for it in await outcomes(*demoting) if isinstance(it, str)] == ["last_admin"]
        roles = sorted(it.role for it in await contacts_of(shop, customer.id))
        assert roles == ["ADMIN", "VIEWER"]

    async def test_an_edit_is_told_without_the_name(self, shop: Harness) -> None:
        customer = await shop.customer()
        contact = (await people.buyer(shop, customer, ContactRole.ADMIN)).contact
        await people.buyer(shop, customer, ContactRole.ADMIN)
        change = EditContact(contact_id=contact.id, full_name="Zoë Fields", role=ContactRole.BUYER, version=1)
        await shop.execute(change)
        (record,) = await log_of(shop, "contact.updated")
        assert record.metadata["before"] == {"role": "ADMIN"}
        assert record.metadata["after"] == {"role": "BUYER"}
        assert record.metadata["fields"] == ["full_name", "role"]
        assert "Zoë" not in str(record.metadata)
        async with refused(shop, "precondition_failed", Stale):
            await shop.execute(change)

    async def test_a_contact_is_mailed_a_link_five_times_an_hour(self, shop: Harness) -> None:
        customer = await shop.customer()
        invited = await link(shop, Purpose.INVITE, shop)
        email = await contact_with_password(shop, customer)
        contact = await contact_of(shop, customer, email)
        for _ in range(5):
            await invited.again()
            await shop.execute(SendContactLink(contact_id=contact.id))
        with pytest.raises(RateLimited) as no:
            await shop.execute(SendContactLink(contact_id=contact.id))
        assert no.value.retry_after_s == 3600
        subjects = [mail.subject for mail in await mails_to(shop, email)]
        assert subjects[1:] == ["Set a new password"] * 5  # a first password was chosen already
        assert len({mail.subject for mail in await mails_to(shop, invited.to)}) == 1
        assert len(await mails_to(shop, invited.to)) == 6
        shop.clock.advance(seconds=3600)
        await shop.execute(SendContactLink(contact_id=contact.id))
        await take(shop, Purpose.RESET, await token_to(shop, email), shop)
        await signed_in(shop, email, OTHER, store=shop)

    # --- writing to us -------------------------------------------------------------------------

    @pytest.mark.parametrize("kind", InquiryKind)
    @pytest.mark.parametrize("at_store", [False, True])
    async def test_what_somebody_writes_is_kept_and_mailed_to_those_who_run_this(
        self, shop: Harness, kind: InquiryKind, at_store: bool
    ) -> None:
        admins = [await people.staff(shop, None, super_admin=True) for _ in range(2)]
        member = await people.staff(shop, Role.OWNER)
        email = address(shop)
        asked = SendInquiry(
            kind=kind, full_name="Ada Marsh", email=email.upper(), text="Do you deliver to <Norway>?"
        )
        await shop.execute(asked, visitor(shop if at_store else None))
        everyone = await shop.execute(ListSuperAdmins(), Actor.system(None))
        assert {it.user.email for it in admins} <= {it.email for it in everyone}
        assert all(it.is_super_admin for it in everyone)
        for admin in (it.user for it in admins):
            (mail,) = (it for it in await mails_to(shop, admin.email) if email in it.text)
            word = "feature request" if kind is InquiryKind.FEATURE else "question"
            assert mail.subject == f"Ada Marsh has sent a {word}"
            assert "Do you deliver to <Norway>?" in mail.text
            assert "<Norway>" not in mail.html
        assert await mails_to(shop, member.user.email) == await mails_to(shop, email) == []
        page = await shop.execute(ListInquiries(), await acting(shop, admins[0].session))
        kept = page.items[0]
        assert (kept.kind, kept.full_name, kept.email, kept.text) == (
            kind,
            "Ada Marsh",
            email,
            "Do you deliver to <Norway>?",
        )
        assert all(kept.id != record.entity_id for record in await log_of(shop))

    async def test_no_more_than_so_many_are_read_and_mailed_the_newest_first(
        self, shop: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(inquiries, "ADMINS_MAILED", 2)
        monkeypatch.setattr(platform, "ADMINS_MAX", 2)
        old, *new = [(await people.staff(shop, None, super_admin=True)).user.email for _ in range(3)]
        asked = SendInquiry(kind=InquiryKind.CONTACT, full_name="Ada", email=address(shop), text="Hello?")
        await shop.execute(asked, visitor())
        assert [len(await mails_to(shop, email)) for email in (old, *new)] == [0, 1, 1]
        found = await shop.execute(ListSuperAdmins(), Actor.system(None))
        assert [it.email for it in found] == new[::-1]

    async def test_only_those_who_run_this_read_what_was_written(self, shop: Harness) -> None:
        owner = await acting(shop, (await people.staff(shop, Role.OWNER)).session)
        contact = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        for actor in (owner, await acting(shop, contact.session), shop.actor, visitor()):
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(ListInquiries(), actor)

    @pytest.mark.parametrize("kind", InquiryKind)
    async def test_with_each_form_one_writes_five_times_an_hour(
        self, shop: Harness, kind: InquiryKind
    ) -> None:
        (other,) = set(InquiryKind) - {kind}
        by = visitor()

        def asked(kind: InquiryKind) -> SendInquiry:
            return SendInquiry(kind=kind, full_name="Ada", email=address(shop), text="Hello?")

        for _ in range(5):
            await shop.execute(asked(kind), by)
        kept = await shop.execute(ListInquiries(limit=1), Actor.system(None))
        for _ in range(2):
            with pytest.raises(RateLimited) as no:
                await shop.execute(asked(kind), by)
            assert no.value.retry_after_s == 3600
        assert await shop.execute(ListInquiries(limit=1), Actor.system(None)) == kept
        await shop.execute(asked(other), by)
        await shop.execute(asked(kind), visitor())
        shop.clock.advance(seconds=3599)
        (came,) = await asyncio.gather(shop.execute(asked(kind), by), return_exceptions=True)
        assert isinstance(came, RateLimited)
        assert came.retry_after_s == 1
        shop.clock.advance(seconds=1)
        await shop.execute(asked(kind), by)

    @pytest.mark.parametrize(
        ("wrong", "field"),
        [
            ({"text": ""}, "text"),
            ({"text": "x" * 5001}, "text"),
            ({"text": "\0"}, "text"),
            ({"email": "nobody"}, "email"),
            ({"full_name": ""}, "fullName"),
            ({"kind": "OTHER"}, "kind"),
        ],
    )
    async def test_a_message_outside_its_limits_is_refused(
        self, shop: Harness, wrong: dict[str, Any], field: str
    ) -> None:
        given: dict[str, Any] = {
            "kind": InquiryKind.CONTACT,
            "full_name": "Ada",
            "email": address(shop),
            "text": "Hello?",
        }
        with pytest.raises(Refused) as no:
            await shop.execute(SendInquiry(**given | wrong), visitor())
        assert (no.value.code, list(no.value.fields)) == ("invalid_request", [field])
