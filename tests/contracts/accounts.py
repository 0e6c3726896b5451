"""Use cases of people and their accounts, on any store: signing up, mailed links, passwords, addresses."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Final

import pytest

from distribu import (
    Actor,
    Conflict,
    Forbidden,
    Harness,
    Invalid,
    NotFound,
    Refused,
    Role,
    Unauthenticated,
)
from distribu.application.accounts import (
    ChangeEmail,
    ChangePassword,
    EditAccount,
    ReadAccount,
    RequestPasswordReset,
    ResendVerification,
    ResetPassword,
    SignUp,
)
from distribu.application.contacts import (
    AcceptContactInvite,
    RegisterCustomer,
)
from distribu.application.kernel import Request
from distribu.application.platform import ListUsers
from distribu.application.ports import Scope
from distribu.application.sessions import (
    ListSessions,
    SignIn,
    SignOut,
    SignOutEverywhere,
    SwitchCompany,
)
from distribu.application.team import AcceptInvitation, InviteMember, ReadInvitation
from distribu.domain.access import ContactRole
from distribu.domain.accounts import REALM, Purpose
from tests.contracts.asking import each, everything, outcomes, refused, store_of, walk
from tests.contracts.visiting import (
    LASTS,
    LINKS,
    OTHER,
    PASSWORD,
    TAKING,
    WRONG,
    acting,
    address,
    altered,
    known,
    link,
    mails_to,
    next_request,
    sign_in,
    sign_up,
    signed_in,
    staff_with_password,
    take,
    token_to,
    unchanged,
    visitor,
)

# --- what is refused -----------------------------------------------------------------------------


def poor(name: str, email: str) -> str:
    """A password that is refused to somebody who is called Ada Marsh."""
    return {
        "7 characters": "7 chars",
        "101 characters": "x" * 101,
        "common": "password123",
        "address": email.upper(),
        "before the @": email.partition("@")[0],
        "name": "ada  marsh",
        "ours": "Distribu",
    }[name]


POOR: Final = ("7 characters", "101 characters", "common", "address", "before the @", "ours")


class AccountUseCases:
    # --- signing up ----------------------------------------------------------------------------

    async def test_a_sign_up_has_its_company_once_the_link_is_followed(self, shop: Harness) -> None:
        email, name = address(shop), f"Acme {shop.distribu.ports.entropy.uuid()}"
        await sign_up(shop, email, name)
        (mail,) = await mails_to(shop, email)
        assert name not in mail.text  # nor anything else that a stranger may have typed
        await take(shop, Purpose.VERIFY, await token_to(shop, email), None)
        entered = await sign_in(shop, email)
        actor = await acting(shop, entered.session)
        account = await shop.execute(ReadAccount(), actor)
        (seat,) = account.companies
        assert (account.email, account.full_name, account.is_super_admin) == (email, "Ada Marsh", False)
        assert (seat.company_name, seat.role, seat.current) == (name, Role.OWNER, True)
        assert seat.company_slug == name.lower().replace(" ", "-")
        assert actor.company_id == seat.company_id == entered.session.current
        assert await shop.distribu.ports.directory.company(seat.company_slug) == seat.company_id

    async def test_before_the_link_is_followed_there_is_nothing(self, shop: Harness) -> None:
        email, name = address(shop), f"Acme {shop.distribu.ports.entropy.uuid()}"
        await sign_up(shop, email, name)
        with pytest.raises(Forbidden) as no:
            await sign_in(shop, email)
        assert no.value.code == "not_verified"
        with pytest.raises(Unauthenticated) as wrong:
            await sign_in(shop, email, WRONG)
        assert wrong.value.code == "wrong_credentials"
        assert await shop.distribu.ports.directory.company(name.lower().replace(" ", "-")) is None
        async with store_of(shop).begin(Scope(REALM), readonly=True) as tx:
            login = await tx.logins.by_email(email)
            assert login is not None
            assert not await tx.sessions.of(login.id)

    async def test_of_two_sign_ups_before_the_link_the_last_word_counts(self, shop: Harness) -> None:
        email = address(shop)
        names = [f"{word} {shop.distribu.ports.entropy.uuid()}" for word in ("First", "Second")]
        await sign_up(shop, email, names[0])
        first = await token_to(shop, email)
        asked = SignUp(company_name=names[1], full_name="Bo Marsh", email=email, password=OTHER)
        await shop.execute(asked, visitor())
        second = await token_to(shop, email)
        async with unchanged(shop, (email, None)):
            with pytest.raises(Refused) as no:
                await take(shop, Purpose.VERIFY, first, None)
        assert no.value.code == "invalid_token"
        await take(shop, Purpose.VERIFY, second, None, OTHER)
        with pytest.raises(Unauthenticated):
            await sign_in(shop, email)
        actor = await signed_in(shop, email, OTHER)
        account = await shop.execute(ReadAccount(), actor)
        assert account.full_name == "Bo Marsh"
        assert [seat.company_name for seat in account.companies] == [names[1]]

    async def test_whoever_signs_up_with_anothers_address_is_not_let_in_by_its_holder(
        self, shop: Harness
    ) -> None:
        """Before them or after them: whoever follows the link is to know the password."""
        email = address(shop)
        await sign_up(shop, email)
        await sign_up(shop, email, "Eve's", OTHER)
        token = await token_to(shop, email)
        async with unchanged(shop, (email, None)):
            with pytest.raises(Refused) as no:
                await take(shop, Purpose.VERIFY, token, None)
        assert no.value.code == "wrong_password"
        for password in (PASSWORD, OTHER):
            with pytest.raises((Forbidden, Unauthenticated)):
                await sign_in(shop, email, password)
        await shop.execute(RequestPasswordReset(email=email), visitor())
        reset = ResetPassword(token=await token_to(shop, email), password=PASSWORD)
        await shop.execute(reset, visitor())
        await signed_in(shop, email)
        with pytest.raises(Unauthenticated):
            await sign_in(shop, email, OTHER)

    async def test_a_sign_up_with_an_address_that_has_an_account_changes_nothing(self, shop: Harness) -> None:
        email = await staff_with_password(shop)
        async with unchanged(shop, (email, None)):
            await sign_up(shop, email.upper(), password=OTHER)
        (mail,) = await mails_to(shop, email)
        assert (mail.subject, mail.link) == ("You have an account already", "")
        users = await walk(
            lambda cursor: shop.execute(ListUsers(limit=100, cursor=cursor), Actor.system(None))
        )
        assert [user.email for user in users].count(email) == 1
        assert len((await shop.execute(ReadAccount(), await signed_in(shop, email))).companies) == 1

    async def test_sign_ups_in_the_same_moment_make_one_person(self, shop: Harness) -> None:
        email = address(shop)
        assert await outcomes(*(sign_up(shop, email, f"Acme {n}") for n in range(4))) == [None] * 4
        await take(shop, Purpose.VERIFY, await token_to(shop, email), None)
        account = await shop.execute(ReadAccount(), await signed_in(shop, email))
        assert len(account.companies) == 1

    async def test_a_link_followed_twice_in_the_same_moment_founds_one_company(self, shop: Harness) -> None:
        """As happens when a mail scanner and its reader follow it together."""
        for _ in range(5):
            email = address(shop)
            await sign_up(shop, email, f"Acme {shop.distribu.ports.entropy.uuid()}")
            token = await token_to(shop, email)
            came = await outcomes(*(take(shop, Purpose.VERIFY, token, None) for _ in range(6)))
            assert sorted(map(str, came)) == ["None"] + ["invalid_token"] * 5
            account = await shop.execute(ReadAccount(), await signed_in(shop, email))
            assert [seat.role for seat in account.companies] == [Role.OWNER]

    @pytest.mark.parametrize(
        ("given", "again"),
        [
            ("Ada.{}@Example.TEST", "ada.{}@example.test"),
            (" ada.{}@example.test ", "ADA.{}@EXAMPLE.TEST"),
            ("\uff41da.{}@example.test", "ada.{}@example.test"),
            ("zo\u00eb.{}@example.test", "Zoe\u0308.{}@example.test"),
            ("\u212a.{}@example.test", "k.{}@example.test"),
            ("ada.{}@b\u00fccher.example", "ada.{}@BU\u0308CHER.example"),
        ],
    )
    async def test_an_address_is_one_person_however_it_is_written(
        self, shop: Harness, given: str, again: str
    ) -> None:
        word = shop.distribu.ports.entropy.uuid()
        given, again = given.format(word), again.format(word)
        await sign_up(shop, given)
        await shop.work()
        (kept,) = {mail.to for mail in shop.mail if word in mail.to}
        await shop.execute(ResendVerification(email=again), visitor())
        await take(shop, Purpose.VERIFY, await token_to(shop, kept), None)
        first, second = await sign_in(shop, given), await sign_in(shop, again)
        assert first.login.id == second.login.id
        await sign_up(shop, again, password=OTHER)
        assert [mail.subject for mail in await mails_to(shop, kept)][-1] == "You have an account already"

    async def test_a_slug_that_is_taken_gets_a_number(self, shop: Harness) -> None:
        word = shop.distribu.ports.entropy.uuid()
        for name, slugs in (
            (f"Acme {word}", [f"acme-{word}", f"acme-{word}-2", f"acme-{word}-3"]),
            (f"{word} {'x' * 40}", [f"{word}-{'x' * 23}", f"{word}-{'x' * 13}-2"]),
        ):
            given = []
            for _ in slugs:
                email = address(shop)
                await sign_up(shop, email, name)
                await take(shop, Purpose.VERIFY, await token_to(shop, email), None)
                account = await shop.execute(ReadAccount(), await signed_in(shop, email))
                given += [(seat.company_name, seat.company_slug) for seat in account.companies]
            assert given == [(name, slug) for slug in slugs]

    async def test_nobody_signs_up_at_a_store(self, shop: Harness) -> None:
        asked = SignUp(company_name="Acme", full_name="Ada", email=address(shop), password=PASSWORD)
        async with refused(shop, "not_found", NotFound):
            await shop.execute(asked, visitor(shop))

    @pytest.mark.parametrize("email", ["nobody", "@example.test", "a@b", "a b@example.test"])
    async def test_what_is_no_address_is_refused(self, shop: Harness, email: str) -> None:
        for asked in each(
            SignUp(company_name="Acme", full_name="Ada", email=email, password=PASSWORD),
            SignIn(email=email, password=PASSWORD),
            RequestPasswordReset(email=email),
            ResendVerification(email=email),
        ):
            with pytest.raises(Invalid) as no:
                await shop.execute(asked, visitor())
            assert list(no.value.fields) == ["email"]

    # --- links ---------------------------------------------------------------------------------

    @pytest.mark.parametrize(("purpose", "at_store"), LINKS)
    async def test_a_link_is_good_until_its_last_second(
        self, shop: Harness, purpose: Purpose, at_store: bool
    ) -> None:
        out = await link(shop, purpose, shop if at_store else None)
        late = await link(shop, purpose, shop if at_store else None)
        shop.clock.advance(seconds=LASTS[purpose].total_seconds() - 1)
        await take(shop, purpose, out.token, out.store)
        shop.clock.advance(seconds=1)
        async with refused(shop, "invalid_token"), unchanged(shop, late.login):
            await take(shop, purpose, late.token, late.store)

    @pytest.mark.parametrize(("purpose", "at_store"), LINKS)
    async def test_a_link_is_good_once(self, shop: Harness, purpose: Purpose, at_store: bool) -> None:
        out = await link(shop, purpose, shop if at_store else None)
        await take(shop, purpose, out.token, out.store)
        async with refused(shop, "invalid_token"), unchanged(shop, out.login, (out.to, out.store)):
            await take(shop, purpose, out.token, out.store)

    @pytest.mark.parametrize(("purpose", "at_store"), LINKS)
    async def test_a_link_followed_in_the_same_moment_is_taken_once(
        self, shop: Harness, purpose: Purpose, at_store: bool
    ) -> None:
        out = await link(shop, purpose, shop if at_store else None)
        came = await outcomes(*(take(shop, purpose, out.token, out.store) for _ in range(4)))
        assert sorted(map(str, came)) == ["None"] + ["invalid_token"] * 3

    @pytest.mark.parametrize(("purpose", "at_store"), LINKS)
    async def test_a_newer_link_ends_the_one_before(
        self, shop: Harness, purpose: Purpose, at_store: bool
    ) -> None:
        out = await link(shop, purpose, shop if at_store else None)
        await out.again()
        newer = await token_to(shop, out.to)
        assert newer != out.token
        async with refused(shop, "invalid_token"), unchanged(shop, out.login):
            await take(shop, purpose, out.token, out.store)
        await take(shop, purpose, newer, out.store)

    @pytest.mark.parametrize(("purpose", "at_store"), LINKS)
    async def test_a_link_that_was_altered_is_none(
        self, shop: Harness, purpose: Purpose, at_store: bool
    ) -> None:
        out = await link(shop, purpose, shop if at_store else None)
        for what, token in altered(out.token).items():
            async with unchanged(shop, out.login):
                with pytest.raises(Refused) as no:
                    await take(shop, purpose, token, out.store)
            assert (what, no.value.code) == (what, "invalid_token")
        await take(shop, purpose, out.token, out.store)

    @pytest.mark.parametrize(("purpose", "at_store"), LINKS)
    async def test_a_link_is_good_for_what_it_was_mailed_for_alone(
        self, shop: Harness, purpose: Purpose, at_store: bool
    ) -> None:
        out = await link(shop, purpose, shop if at_store else None)
        others: list[Request[Any]] = [
            *(taking(out.token) for other, taking in TAKING.items() if other is not purpose),
            ReadInvitation(token=out.token),
            AcceptInvitation(token=out.token, full_name="Eve", password=OTHER),
        ]
        assert len(others) == 5
        for other in others:
            async with refused(shop, "invalid_token"), unchanged(shop, out.login, (out.to, out.store)):
                await shop.execute(other, visitor(out.store))
        await take(shop, purpose, out.token, out.store)

    async def test_an_invitation_to_a_team_is_no_link_to_an_account(self, shop: Harness) -> None:
        email = address(shop)
        await shop.execute(InviteMember(email=email, role=Role.MEMBER))
        token = await token_to(shop, email)
        for store in (None, shop):
            for purpose in Purpose:
                async with refused(shop, "invalid_token"):
                    await take(shop, purpose, token, store)
        assert (await shop.execute(ReadInvitation(token=token), visitor())).email == email

    @pytest.mark.parametrize(("purpose", "at_store"), LINKS)
    async def test_a_link_is_good_where_it_was_mailed_from_alone(
        self, shop: Harness, purpose: Purpose, at_store: bool
    ) -> None:
        here, other = (shop if at_store else None), await shop.stranger()
        out = await link(shop, purpose, here)
        raw = urlsafe_b64decode(out.token + "==")
        theirs = bytes.fromhex(other.company.id.replace("-", "")) + raw[16:]
        moved = urlsafe_b64encode(theirs).decode().rstrip("=")
        elsewhere = None if at_store else shop
        for token, store in ((out.token, other), (out.token, elsewhere), (moved, other), (moved, here)):
            theirs_before = await everything(other)
            async with refused(shop, "invalid_token"), unchanged(shop, out.login):
                await take(shop, purpose, token, store)
            assert await everything(other) == theirs_before
        await take(shop, purpose, out.token, here)

    @pytest.mark.parametrize("asked", [RequestPasswordReset, ResendVerification])
    async def test_nothing_is_mailed_to_whoever_needs_nothing(
        self, shop: Harness, asked: Callable[..., Request[None]]
    ) -> None:
        nobody, verified = address(shop), await staff_with_password(shop)
        for store in (None, shop):
            await shop.execute(asked(email=nobody), visitor(store))
        await shop.execute(asked(email=verified), visitor(shop))
        if asked is ResendVerification:
            await shop.execute(asked(email=verified), visitor())
        assert await mails_to(shop, nobody) == await mails_to(shop, verified) == []

    # --- passwords -----------------------------------------------------------------------------

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_a_reset_ends_every_session_and_link(self, shop: Harness, at_store: bool) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.RESET, store)
        sessions = [(await sign_in(shop, out.holder, store=store)).session for _ in range(2)]
        new = address(shop, "new")
        change = ChangeEmail(new_email=new, password=PASSWORD)
        await shop.execute(change, await acting(shop, sessions[0]))
        await take(shop, Purpose.RESET, out.token, store)
        assert [await next_request(shop, one) for one in sessions] == [None, None]
        with pytest.raises(Refused) as no:
            await take(shop, Purpose.EMAIL, await token_to(shop, new), store)
        assert no.value.code == "invalid_token"
        with pytest.raises(Unauthenticated):
            await sign_in(shop, out.holder, store=store)
        assert await next_request(shop, (await sign_in(shop, out.holder, OTHER, store=store)).session)
        assert (await mails_to(shop, out.holder))[-1].subject == "Your password was changed"

    async def test_a_reset_proves_the_address_and_founds_the_company(self, shop: Harness) -> None:
        email, name = address(shop), f"Acme {shop.distribu.ports.entropy.uuid()}"
        await sign_up(shop, email, name)
        verify = await token_to(shop, email)
        await shop.execute(RequestPasswordReset(email=email), visitor())
        await take(shop, Purpose.RESET, await token_to(shop, email), None)
        account = await shop.execute(ReadAccount(), await signed_in(shop, email, OTHER))
        assert [(it.company_name, it.role) for it in account.companies] == [(name, Role.OWNER)]
        with pytest.raises(Refused):
            await take(shop, Purpose.VERIFY, verify, None)

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_a_change_of_password_leaves_this_session_alone(
        self, shop: Harness, at_store: bool
    ) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.RESET, store)
        here, other = [(await sign_in(shop, out.holder, store=store)).session for _ in range(2)]
        actor = await acting(shop, here)
        async with unchanged(shop, out.login):
            with pytest.raises(Refused) as no:
                await shop.execute(ChangePassword(password=WRONG, new_password=OTHER), actor)
        assert no.value.code == "wrong_password"
        await shop.execute(ChangePassword(password=PASSWORD, new_password=OTHER), actor)
        assert await next_request(shop, here) == actor
        assert await next_request(shop, other) is None
        with pytest.raises(Refused) as no:
            await take(shop, Purpose.RESET, out.token, store)
        assert no.value.code == "invalid_token"
        with pytest.raises(Unauthenticated):
            await sign_in(shop, out.holder, store=store)
        await sign_in(shop, out.holder, OTHER, store=store)
        (mail,) = (it for it in await mails_to(shop, out.holder) if "changed" in it.subject)
        assert mail.subject == "Your password was changed"

    @pytest.mark.parametrize("name", POOR)
    async def test_a_poor_password_is_refused_wherever_one_is_chosen(self, shop: Harness, name: str) -> None:
        new = address(shop)
        verify, reset, invite = [
            await link(shop, purpose, store)
            for purpose, store in ((Purpose.VERIFY, shop), (Purpose.RESET, None), (Purpose.INVITE, shop))
        ]
        actor = await signed_in(shop, reset.holder)
        theirs = poor(name, reset.holder)
        asked: list[tuple[Request[None], Actor, str]] = [
            (
                SignUp(company_name="Acme", full_name="Ada Marsh", email=new, password=poor(name, new)),
                visitor(),
                "password",
            ),
            (RegisterCustomer(name="Green", email=new, password=poor(name, new)), visitor(shop), "password"),
            (ResetPassword(token=reset.token, password=theirs), visitor(), "password"),
            (
                AcceptContactInvite(token=invite.token, password=poor(name, invite.holder)),
                visitor(shop),
                "password",
            ),
            (ChangePassword(password=PASSWORD, new_password=theirs), actor, "newPassword"),
        ]
        logins = [(new, None), (new, shop), reset.login, invite.login, verify.login]
        for request, by, field in asked:
            async with refused(shop, "invalid_request", Invalid) as no, unchanged(shop, *logins):
                await shop.execute(request, by)
            assert list(no.refused.fields) == [field]
            assert theirs not in str(no.refused.fields)
        await take(shop, Purpose.RESET, reset.token, None)
        await take(shop, Purpose.INVITE, invite.token, shop)

    async def test_ones_own_name_and_companys_are_no_password(self, shop: Harness) -> None:
        for password in ("Ada  Marsh", "acme-distributors", "ACME Distributors!"):
            asked = SignUp(
                company_name="Acme Distributors",
                full_name="Ada Marsh",
                email=address(shop),
                password=password,
            )
            async with refused(shop, "invalid_request", Invalid):
                await shop.execute(asked, visitor())

    @pytest.mark.parametrize("length", [8, 100])
    async def test_a_password_has_8_to_100_characters(self, shop: Harness, length: int) -> None:
        email, password = address(shop), "\N{KEY}" * length
        await sign_up(shop, email, password=password)
        await take(shop, Purpose.VERIFY, await token_to(shop, email), None, password)
        await sign_in(shop, email, password)

    # --- another address -----------------------------------------------------------------------

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_the_old_address_counts_until_the_new_one_is_proven(
        self, shop: Harness, at_store: bool
    ) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.EMAIL, store)
        await sign_in(shop, out.holder, store=store)
        with pytest.raises(Unauthenticated):
            await sign_in(shop, out.to, store=store)
        assert [mail.subject for mail in await mails_to(shop, out.to)] == ["Confirm your new email address"]
        before = await known(shop, out.holder, store)
        await take(shop, Purpose.EMAIL, out.token, store)
        with pytest.raises(Unauthenticated):
            await sign_in(shop, out.holder, store=store)
        assert (await sign_in(shop, out.to, store=store)).login.id == before.id
        assert (await mails_to(shop, out.holder))[-1].subject == "Your email address was changed"
        assert len(await mails_to(shop, out.to)) == 1

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_an_address_that_was_taken_meanwhile_is_refused(
        self, shop: Harness, at_store: bool
    ) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.EMAIL, store)
        if store is None:
            await sign_up(shop, out.to)
        else:
            register = RegisterCustomer(name="Green Grocer", email=out.to, password=PASSWORD)
            await shop.execute(register, visitor(store))
        async with refused(shop, "duplicate_email", Conflict), unchanged(shop, out.login, (out.to, store)):
            await take(shop, Purpose.EMAIL, out.token, store)

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_an_address_that_somebody_has_is_told_so(self, shop: Harness, at_store: bool) -> None:
        store = shop if at_store else None
        mine, theirs = [await link(shop, Purpose.RESET, store) for _ in range(2)]
        actor = await signed_in(shop, mine.holder, store=store)
        await shop.execute(ChangeEmail(new_email=address(shop, "second"), password=PASSWORD), actor)
        async with unchanged(shop, theirs.login):
            await shop.execute(ChangeEmail(new_email=theirs.holder.upper(), password=PASSWORD), actor)
            await shop.execute(ChangeEmail(new_email=mine.holder.upper(), password=PASSWORD), actor)
        (*_, mail) = await mails_to(shop, theirs.holder)
        assert (mail.subject, mail.link) == ("You have an account already", "")
        assert all("already" not in mail.subject for mail in await mails_to(shop, mine.holder))

    async def test_another_address_takes_the_password(self, shop: Harness) -> None:
        email, new = await staff_with_password(shop), address(shop, "new")
        actor = await signed_in(shop, email)
        async with unchanged(shop, (email, None)):
            with pytest.raises(Refused) as no:
                await shop.execute(ChangeEmail(new_email=new, password=WRONG), actor)
        assert no.value.code == "wrong_password"
        assert await mails_to(shop, new) == []

    async def test_a_customer_is_written_to_by_its_store(self, shop: Harness) -> None:
        """A contact has no account at Distribu: no letter about theirs says so."""
        moving, other = await link(shop, Purpose.EMAIL, shop), await link(shop, Purpose.RESET, shop)
        actor = await signed_in(shop, other.holder, store=shop)
        await shop.execute(ChangeEmail(new_email=moving.holder, password=PASSWORD), actor)
        await take(shop, Purpose.EMAIL, moving.token, shop)
        await take(shop, Purpose.RESET, other.token, shop)
        actor = await signed_in(shop, moving.to, store=shop)
        await shop.execute(ChangePassword(password=PASSWORD, new_password=OTHER), actor)
        mails = [
            mail for email in (moving.holder, moving.to, other.holder) for mail in await mails_to(shop, email)
        ]
        assert len({mail.subject for mail in mails}) == 6
        said = {mail.subject: shop.company.name in mail.text for mail in mails}
        assert [subject for subject, by_name in said.items() if not by_name] == []

    # --- one's own account ---------------------------------------------------------------------

    @pytest.mark.parametrize("at_store", [False, True])
    async def test_one_changes_ones_own_name_and_time_zone(self, shop: Harness, at_store: bool) -> None:
        store = shop if at_store else None
        out = await link(shop, Purpose.RESET, store)
        actor = await signed_in(shop, out.holder, store=store)
        await shop.execute(EditAccount(full_name="Zoë", time_zone="Europe/Lisbon"), actor)
        account = await shop.execute(ReadAccount(), actor)
        assert (account.full_name, account.time_zone) == ("Zoë", "Europe/Lisbon")
        assert account.role is (ContactRole.ADMIN if at_store else None)
        async with refused(shop, "invalid_request", Invalid) as no:
            await shop.execute(EditAccount(time_zone="Mars/Base"), actor)
        assert list(no.refused.fields) == ["timeZone"]

    @pytest.mark.parametrize("id", ["42", "", "0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10"])
    async def test_whoever_a_host_vouches_for_has_no_account_here(self, shop: Harness, id: str) -> None:
        """An embedding host names its own people as it likes: they are refused, and it is no mistake."""
        customer = await shop.customer()
        staff = Actor.staff(shop.company.id, Role.OWNER, id=id, label="somebody@host.example")
        contact = Actor.contact(
            shop.company.id, customer.id, ContactRole.ADMIN, id=id, label="somebody@host.example"
        )
        requests: list[Request[Any]] = [
            ReadAccount(),
            EditAccount(full_name="Eve"),
            ListSessions(),
            SignOut(),
            SignOutEverywhere(),
            SwitchCompany(company_id=shop.company.id),
            ChangePassword(password=PASSWORD, new_password=OTHER),
            ChangeEmail(new_email=address(shop), password=PASSWORD),
        ]
        for actor in (staff, contact):
            for request in requests:
                with pytest.raises((Forbidden, NotFound)):
                    await shop.execute(request, actor)
