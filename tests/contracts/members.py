"""Use cases of the team: who invites, promotes, removes and follows whom, on any store."""

from datetime import timedelta
from typing import Final

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
)
from distribu.application.accounts import ReadAccount, RequestPasswordReset, ResetPassword
from distribu.application.kernel import Request
from distribu.application.platform import AddMember, TakeSeat
from distribu.application.sessions import SwitchCompany
from distribu.application.team import (
    COMPANIES_MAX,
    AcceptInvitation,
    AcceptInvitationAs,
    ChangeRole,
    DeleteCompany,
    EditInvitation,
    InviteMember,
    LeaveCompany,
    ListMembers,
    OpenCompany,
    ReadCompany,
    ReadInvitation,
    RemoveMember,
    ResendInvitation,
    RevokeInvitation,
    TransferOwnership,
)
from distribu.domain.access import Permission
from distribu.domain.errors import RateLimited
from distribu.domain.team import INVITATIONS_MAX
from tests import people
from tests.contracts.asking import each, everything, log_of, outcomes, refused
from tests.contracts.teams import (
    DONE,
    INSIDE,
    LOST,
    MATRIX,
    NO,
    OUTSIDE,
    RACES,
    TEAM,
    at_the_door,
    cast,
    everybody,
    joined,
    member_id,
    offers_of,
    one_owner,
    team_of,
)
from tests.contracts.visiting import (
    OTHER,
    PASSWORD,
    WRONG,
    acting,
    address,
    altered,
    contact_with_password,
    mails_to,
    next_request,
    sign_in,
    sign_up,
    signed_in,
    token_to,
    unchanged,
    visitor,
)

WEEK: Final = timedelta(days=7)


class MemberUseCases:
    # --- the matrix ----------------------------------------------------------------------------

    @pytest.mark.parametrize("what", MATRIX)
    async def test_everybody_does_what_the_matrix_lets_them(self, shop: Harness, what: str) -> None:
        row, it = MATRIX[what], await everybody(shop)
        for by in (*INSIDE, *OUTSIDE):
            code = row.code(by)
            if code != DONE:
                async with refused(it.shop, code, Forbidden if code == NO else Refused):
                    await it.shop.execute(row.ask(it, by), await it.actor(by))
        await it.shop.work()
        assert shop.mail
        assert not [mail for mail in shop.mail if mail.to.startswith("new-")]
        for by in INSIDE:
            if row.code(by) == DONE:
                it = await cast(await shop.stranger())
                before = await everything(it.shop)
                await it.shop.execute(row.ask(it, by), await it.actor(by))
                assert await everything(it.shop) != before
                assert [*(await team_of(it.shop)).values()].count(Role.OWNER) == 1

    @pytest.mark.parametrize(
        "what", [it for it in MATRIX if not it.startswith(("invite", "leave", "delete"))]
    )
    async def test_nobody_does_anything_to_another_company(self, shop: Harness, what: str) -> None:
        here, there = await cast(shop), await cast(await shop.stranger())
        before = await everything(there.shop)
        request = MATRIX[what].ask(there, "OWNER")
        missing = "invitation_not_found" if hasattr(request, "invitation_id") else "member_not_found"
        async with refused(here.shop, missing, NotFound):
            await here.shop.execute(request, await here.actor("OWNER"))
        assert await everything(there.shop) == before

    @pytest.mark.parametrize("what", LOST)
    async def test_who_has_lost_a_role_while_asking_has_lost_it(self, shop: Harness, what: str) -> None:
        """Who may do what to whom is decided where it is done, not at the door a moment before."""
        lose, by, ask = LOST[what]
        it = await cast(shop)
        actor = await it.actor(by)
        await lose(it)
        async with refused(it.shop, "forbidden", Forbidden):
            await it.shop.execute(ask(it, by), actor)

    @pytest.mark.parametrize("what", RACES)
    async def test_what_is_asked_in_the_same_moment_is_done_in_turn(self, shop: Harness, what: str) -> None:
        it = await cast(shop)
        asked = [(request, await it.actor(by)) for by, request in RACES[what].ask(it)]
        came = await outcomes(*(it.shop.execute(*one) for one in asked))
        first, second = (one if isinstance(one, str) else None for one in came)
        assert (first, second) in RACES[what].may_be
        await one_owner(it.shop)
        page = await it.shop.execute(ListMembers(limit=100), it.shop.actor)
        here = {one.membership.id for one in page.items}
        assert {offer.invited_by for offer in await offers_of(it.shop)} - {None} <= here

    # --- invitations ---------------------------------------------------------------------------

    @pytest.mark.parametrize("role", [Role.MEMBER, Role.ADMIN])
    async def test_somebody_new_sets_name_and_password(self, shop: Harness, role: Role) -> None:
        email, by = address(shop, "new"), visitor()
        owner = await joined(shop, Role.OWNER)
        invite = InviteMember(email=email.upper(), role=role)
        inviter = await people.acting(shop, owner)
        offer = await shop.execute(invite, inviter)
        assert (offer.email, offer.role, offer.invited_by) == (email, role, member_id(owner))
        (mail,) = await mails_to(shop, email)
        assert mail.subject == f"{inviter.label} invites you to {shop.company.name}"
        token = await token_to(shop, email)
        shown = await shop.execute(ReadInvitation(token=token), by)
        assert (shown.company, shown.email, shown.role) == (shop.company.name, email, role)
        assert email not in await team_of(shop)
        await shop.execute(AcceptInvitation(token=token, full_name="Ada Marsh", password=OTHER), by)
        assert (await team_of(shop))[email] is role
        assert await offers_of(shop) == []
        actor = await signed_in(shop, email, OTHER)
        account = await shop.execute(ReadAccount(), actor)
        assert account.full_name == "Ada Marsh"
        assert [(it.company_id, it.role, it.current) for it in account.companies] == [
            (shop.company.id, role, True)
        ]
        assert [it.action for it in await log_of(shop)][-4:] == [
            "member.invited",
            "invitation.accepted",
            "member.joined",
            "auth.login",
        ]

    async def test_somebody_with_an_account_takes_the_place_signed_in(self, shop: Harness) -> None:
        elsewhere = await shop.stranger()
        person = await joined(elsewhere, Role.OWNER)
        email = person.user.email
        await shop.execute(InviteMember(email=email, role=Role.ADMIN))
        token = await token_to(shop, email)
        anew = AcceptInvitation(token=token, full_name="Eve", password=OTHER)
        async with refused(shop, "sign_in_first", Conflict), unchanged(shop, (email, None)):
            await shop.execute(anew, visitor())
        await shop.execute(AcceptInvitationAs(token=token), await people.acting(shop, person))
        actor = await people.acting(shop, person)
        assert (actor.company_id, Permission.MEMBERS_INVITE in actor.permissions) == (shop.company.id, True)
        assert Permission.MEMBERS_MANAGE not in actor.permissions
        account = await shop.execute(ReadAccount(), actor)
        assert {(it.company_id, it.role) for it in account.companies} == {
            (shop.company.id, Role.ADMIN),
            (elsewhere.company.id, Role.OWNER),
        }
        await shop.execute(SwitchCompany(company_id=elsewhere.company.id), actor)
        actor = await people.acting(shop, person)
        assert (actor.company_id, Permission.COMPANY_DELETE in actor.permissions) == (
            elsewhere.company.id,
            True,
        )

    async def test_whom_nobody_of_the_team_invites_is_invited_by_the_company(self, shop: Harness) -> None:
        email, company = address(shop, "new"), shop.company.name
        operator = Actor.system(shop.company.id, "cli")
        await shop.execute(InviteMember(email=email, role=Role.MEMBER), operator)
        (mail,) = await mails_to(shop, email)
        assert mail.subject == f"You are invited to {company}"
        assert f"{company} wants you in its team as member." in mail.text
        for part in (mail.text, mail.html):
            assert "cli " not in part

    async def test_an_invitation_is_for_its_own_address(self, shop: Harness) -> None:
        email = address(shop, "new")
        await shop.execute(InviteMember(email=email, role=Role.ADMIN))
        accept = AcceptInvitationAs(token=await token_to(shop, email))
        it = await everybody(await shop.stranger())
        member = await joined(shop, Role.MEMBER)
        others = [await it.actor("nobody"), await it.actor("OWNER"), await people.acting(shop, member)]
        for actor in (*others, await it.actor("super-admin")):
            async with refused(shop, "another_address", Forbidden):
                await shop.execute(accept, actor)
        async with refused(shop, "invalid_token"):
            await shop.execute(accept, await it.actor("contact"))
        for actor in (await it.actor("key"), visitor(), shop.actor):
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(accept, actor)

    async def test_an_invitation_is_good_for_seven_days_to_the_millisecond(self, shop: Harness) -> None:
        person = await joined(shop, None)
        new, late = address(shop, "new"), address(shop, "late")
        for email in (new, late, person.user.email):
            await shop.execute(InviteMember(email=email, role=Role.MEMBER))
        tokens = {email: await token_to(shop, email) for email in (new, late, person.user.email)}
        shop.clock.advance(milliseconds=WEEK.total_seconds() * 1000 - 1)
        accept = AcceptInvitation(token=tokens[new], full_name="Ada Marsh", password=PASSWORD)
        await shop.execute(accept, visitor())
        actor = await signed_in(shop, person.user.email)
        shop.clock.advance(milliseconds=1)
        for request, by in zip(
            each(
                ReadInvitation(token=tokens[late]),
                AcceptInvitation(token=tokens[late], full_name="Ada Marsh", password=PASSWORD),
                AcceptInvitationAs(token=tokens[person.user.email]),
            ),
            (visitor(), visitor(), actor),
            strict=True,
        ):
            async with refused(shop, "invalid_token"), unchanged(shop, (late, None)):
                await shop.execute(request, by)

    async def test_one_that_was_mailed_again_has_another_link_for_another_week(self, shop: Harness) -> None:
        email = address(shop, "new")
        offer = await shop.execute(InviteMember(email=email, role=Role.MEMBER))
        first = await token_to(shop, email)
        shop.clock.advance(days=6)
        await shop.execute(ResendInvitation(invitation_id=offer.id))
        second = await token_to(shop, email)
        async with refused(shop, "invalid_token"):
            await shop.execute(ReadInvitation(token=first), visitor())
        shop.clock.advance(milliseconds=WEEK.total_seconds() * 1000 - 1)
        async with refused(shop, "invalid_token"), unchanged(shop, (email, None)):
            accept = AcceptInvitation(token=first, full_name="Ada Marsh", password=PASSWORD)
            await shop.execute(accept, visitor())
        accept = AcceptInvitation(token=second, full_name="Ada Marsh", password=PASSWORD)
        await shop.execute(accept, visitor())
        assert (await team_of(shop))[email] is Role.MEMBER

    async def test_one_that_is_over_stays_so(self, shop: Harness) -> None:
        person = await joined(shop, None)
        revoked = await shop.execute(InviteMember(email=address(shop, "new"), role=Role.MEMBER))
        token = await token_to(shop, revoked.email)
        await shop.execute(RevokeInvitation(invitation_id=revoked.id))
        assert await offers_of(shop) == []
        accept = AcceptInvitation(token=token, full_name="Ada Marsh", password=PASSWORD)
        for request in each(ReadInvitation(token=token), accept):
            async with refused(shop, "invalid_token"), unchanged(shop, (revoked.email, None)):
                await shop.execute(request, visitor())
        taken = await shop.execute(InviteMember(email=person.user.email, role=Role.MEMBER))
        token = await token_to(shop, taken.email)
        await shop.execute(AcceptInvitationAs(token=token), await people.acting(shop, person))
        async with refused(shop, "invalid_token"):
            await shop.execute(AcceptInvitationAs(token=token), await people.acting(shop, person))
        async with refused(shop, "invalid_token"):
            await shop.execute(ReadInvitation(token=token), visitor())
        for offer in (revoked, taken):
            for request_ in each(
                EditInvitation(invitation_id=offer.id, role=Role.ADMIN),
                EditInvitation(invitation_id=offer.id, role=Role.MEMBER),
                ResendInvitation(invitation_id=offer.id),
                RevokeInvitation(invitation_id=offer.id),
            ):
                async with refused(shop, "invitation_over"):
                    await shop.execute(request_)
        again = await shop.execute(InviteMember(email=revoked.email, role=Role.ADMIN))
        assert again.id != revoked.id

    async def test_a_link_that_was_used_lets_nobody_back_in(self, shop: Harness) -> None:
        email = address(shop, "new")
        await shop.execute(InviteMember(email=email, role=Role.ADMIN))
        accept = AcceptInvitation(token=await token_to(shop, email), full_name="Ada Marsh", password=PASSWORD)
        await shop.execute(accept, visitor())
        session = (await sign_in(shop, email)).session
        await shop.execute(LeaveCompany(), await acting(shop, session))
        async with refused(shop, "invalid_token"), unchanged(shop, (email, None)):
            await shop.execute(AcceptInvitationAs(token=accept.token), await acting(shop, session))
        async with refused(shop, "invalid_token"), unchanged(shop, (email, None)):
            await shop.execute(accept, visitor())

    @pytest.mark.parametrize("anew", [True, False])
    async def test_taken_in_the_same_moment_it_is_taken_once(self, shop: Harness, anew: bool) -> None:
        person = await joined(shop, None)
        email = address(shop, "new") if anew else person.user.email
        await shop.execute(InviteMember(email=email, role=Role.MEMBER))
        token = await token_to(shop, email)
        accept: Request[None] = AcceptInvitationAs(token=token)
        if anew:
            accept = AcceptInvitation(token=token, full_name="Ada Marsh", password=PASSWORD)
        actor = await people.acting(shop, person)
        came = await outcomes(*(shop.execute(accept, visitor() if anew else actor) for _ in range(4)))
        assert came.count(None) == 1
        assert set(came) <= {None, "invalid_token", "sign_in_first", "duplicate_email"}
        assert (await team_of(shop)) == {email: Role.MEMBER}
        assert len(await log_of(shop, "member.joined")) == 1

    async def test_a_place_is_what_was_offered_last(self, shop: Harness) -> None:
        email = address(shop, "new")
        offer = await shop.execute(InviteMember(email=email, role=Role.MEMBER))
        for role in (Role.ADMIN, Role.ADMIN):
            edited = await shop.execute(EditInvitation(invitation_id=offer.id, role=role))
            assert (edited.role, edited.version) == (Role.ADMIN, 2)
        (told,) = await log_of(shop, "invitation.updated")
        assert told.metadata == {"before": "MEMBER", "after": "ADMIN"}
        accept = AcceptInvitation(token=await token_to(shop, email), full_name="Ada Marsh", password=PASSWORD)
        await shop.execute(accept, visitor())
        assert await team_of(shop) == {email: Role.ADMIN}

    async def test_a_token_that_was_altered_is_none(self, shop: Harness) -> None:
        email, other = address(shop, "new"), await shop.stranger()
        await shop.execute(InviteMember(email=email, role=Role.ADMIN))
        token = await token_to(shop, email)
        await other.execute(InviteMember(email=email, role=Role.MEMBER))
        theirs = await token_to(shop, email)
        mixed = {"another company's secret": token[:43] + theirs[43:]}
        for what, no in (altered(token) | mixed).items():
            for request in each(
                ReadInvitation(token=no),
                AcceptInvitation(token=no, full_name="Ada Marsh", password=PASSWORD),
            ):
                with pytest.raises(Refused) as raised:
                    await shop.execute(request, visitor())
                assert (what, raised.value.code) == (what, "invalid_token")
        assert (await team_of(shop), await team_of(other)) == ({}, {})
        assert (await shop.execute(ReadInvitation(token=token), visitor())).role is Role.ADMIN

    async def test_guessing_at_links_comes_to_an_end(self, shop: Harness) -> None:
        by = visitor()
        came = [(await outcomes(shop.execute(ReadInvitation(token="no token"), by)))[0] for _ in range(31)]
        assert came == ["invalid_token"] * 30 + ["rate_limited"]

    async def test_a_poor_password_is_refused_and_the_link_stays(self, shop: Harness) -> None:
        email = address(shop, "new")
        await shop.execute(InviteMember(email=email, role=Role.MEMBER))
        token = await token_to(shop, email)
        for poor in ("7 chars", "password123", email, "x" * 101, shop.company.name):
            accept = AcceptInvitation(token=token, full_name="Ada Marsh", password=poor)
            async with refused(shop, "invalid_request", Invalid) as no, unchanged(shop, (email, None)):
                await shop.execute(accept, visitor())
            assert list(no.refused.fields) == ["password"]
        accept = AcceptInvitation(token=token, full_name="Ada Marsh", password=PASSWORD)
        await shop.execute(accept, visitor())

    async def test_whoever_is_a_member_or_invited_is_not_invited(self, shop: Harness) -> None:
        member = await joined(shop, Role.MEMBER)
        invited = await shop.execute(InviteMember(email=address(shop, "new"), role=Role.MEMBER))
        for email, code in ((member.user.email, "already_member"), (invited.email, "already_invited")):
            for written in (email, email.upper(), f" {email} "):
                for role in (Role.MEMBER, Role.ADMIN):
                    async with refused(shop, code, Conflict):
                        await shop.execute(InviteMember(email=written, role=role))
        assert len(await mails_to(shop, invited.email)) == 1
        assert await mails_to(shop, member.user.email) == []
        other = await shop.stranger()
        for email in (member.user.email, invited.email):
            await other.execute(InviteMember(email=email, role=Role.ADMIN))

    async def test_invited_in_the_same_moment_one_invitation_is_out(self, shop: Harness) -> None:
        email = address(shop, "new")
        invite = InviteMember(email=email, role=Role.MEMBER)
        came = await outcomes(*(shop.execute(invite) for _ in range(4)))
        assert sorted(it for it in came if isinstance(it, str)) == ["already_invited"] * 3
        assert [it.email for it in await offers_of(shop)] == [email]
        assert len(await mails_to(shop, email)) == 1

    async def test_whoever_became_a_member_another_way_is_one_once(self, shop: Harness) -> None:
        person = await joined(shop, None)
        email = person.user.email
        await shop.execute(InviteMember(email=email, role=Role.ADMIN))
        token = await token_to(shop, email)
        add = AddMember(company_id=shop.company.id, email=email, role=Role.MEMBER)
        await shop.execute(add, Actor.system(None))
        async with refused(shop, "already_member", Conflict):
            await shop.execute(AcceptInvitationAs(token=token), await people.acting(shop, person))
        assert await team_of(shop) == {email: Role.MEMBER}

    async def test_two_hundred_invitations_are_out_at_once(self, shop: Harness) -> None:
        offers = [
            await shop.execute(InviteMember(email=address(shop, "new"), role=Role.MEMBER))
            for _ in range(INVITATIONS_MAX - 1)
        ]
        last = [InviteMember(email=address(shop, "last"), role=Role.MEMBER) for _ in range(3)]
        came = await outcomes(*(shop.execute(one) for one in last))
        assert sorted(it for it in came if isinstance(it, str)) == ["too_many"] * 2
        assert len(await offers_of(shop)) == INVITATIONS_MAX == 200
        await (await shop.stranger()).execute(last[0])
        await shop.execute(RevokeInvitation(invitation_id=offers[0].id))
        await shop.execute(InviteMember(email=address(shop, "last"), role=Role.MEMBER))
        async with refused(shop, "too_many"):
            await shop.execute(InviteMember(email=address(shop, "last"), role=Role.MEMBER))

    async def test_an_account_that_was_never_proven_goes_to_whoever_proves_it(self, shop: Harness) -> None:
        """Whoever signed up with somebody else's address has prepared nothing for them."""
        email = address(shop, "new")
        await sign_up(shop, email, "Somebody Else's", OTHER)
        await shop.execute(InviteMember(email=email, role=Role.MEMBER))
        accept = AcceptInvitation(token=await token_to(shop, email), full_name="Ada Marsh", password=PASSWORD)
        await shop.execute(accept, visitor())
        with pytest.raises(Refused):
            await sign_in(shop, email, OTHER)
        await shop.execute(RequestPasswordReset(email=email), visitor())
        reset = ResetPassword(token=await token_to(shop, email), password=OTHER)
        await shop.execute(reset, visitor())
        account = await shop.execute(ReadAccount(), await signed_in(shop, email, OTHER))
        assert account.full_name == "Ada Marsh"
        assert [it.company_id for it in account.companies] == [shop.company.id]

    # --- being in, and being out ---------------------------------------------------------------

    @pytest.mark.parametrize("how", ["removed", "left"])
    async def test_whoever_is_gone_is_out_at_the_next_request(self, shop: Harness, how: str) -> None:
        it = await cast(shop)
        gone, shop_ = it.staff["ADMIN"], it.shop
        elsewhere = await shop.stranger()
        put = TakeSeat(user_id=gone.user.id, role=Role.MEMBER)
        await shop.distribu.run(elsewhere.actor, put)
        mine, other = address(shop, "mine"), address(shop, "other")
        await shop_.execute(InviteMember(email=mine, role=Role.ADMIN), await it.actor("ADMIN"))
        await shop_.execute(InviteMember(email=other, role=Role.MEMBER), await it.actor("another ADMIN"))
        token = await token_to(shop, mine)
        if how == "removed":
            await shop_.execute(RemoveMember(member_id=it.id("ADMIN")), await it.actor("OWNER"))
        else:
            await shop_.execute(LeaveCompany(), await it.actor("ADMIN"))
        actor = await people.acting(shop, gone)
        assert (actor.company_id, actor.permissions) == (None, frozenset({Permission.ACCOUNT}))
        for request in each(ReadCompany(), ListMembers(), LeaveCompany()):
            async with refused(shop_, "forbidden", Forbidden):
                await shop_.execute(request, actor)
        async with refused(shop_, "company_not_found", NotFound):
            await shop_.execute(SwitchCompany(company_id=shop.company.id), actor)
        out = {offer.email for offer in await offers_of(shop_)}
        assert mine not in out
        assert out == {other, *(offer.email for offer in it.offers.values())}
        async with refused(shop_, "invalid_token"):
            await shop_.execute(ReadInvitation(token=token), visitor())
        (told,) = await log_of(shop_, "member.removed")
        assert told.metadata["left"] == (how == "left")
        await shop_.execute(SwitchCompany(company_id=elsewhere.company.id), actor)
        assert (await people.acting(shop, gone)).company_id == elsewhere.company.id
        again = await sign_in(shop_, gone.user.email)
        assert again.session.current == elsewhere.company.id

    async def test_whoever_is_gone_can_be_invited_again(self, shop: Harness) -> None:
        it = await cast(shop)
        back, old = it.staff["MEMBER"], it.id("MEMBER")
        await it.shop.execute(RemoveMember(member_id=old), await it.actor("ADMIN"))
        await it.shop.execute(InviteMember(email=back.user.email, role=Role.ADMIN), await it.actor("OWNER"))
        accept = AcceptInvitationAs(token=await token_to(shop, back.user.email))
        await it.shop.execute(accept, await people.acting(shop, back))
        actor = await people.acting(shop, back)
        assert (actor.company_id, Permission.MEMBERS_INVITE in actor.permissions) == (shop.company.id, True)
        assert (await team_of(it.shop))[back.user.email] is Role.ADMIN
        for request in each(RemoveMember(member_id=old), ChangeRole(member_id=old, role=Role.MEMBER)):
            async with refused(it.shop, "member_not_found", NotFound):
                await it.shop.execute(request, await it.actor("OWNER"))

    async def test_whoever_is_made_less_has_offered_less(self, shop: Harness) -> None:
        it, second = await cast(shop), address(shop, "second")
        invite = InviteMember(email=second, role=Role.ADMIN)
        await it.shop.execute(invite, await it.actor("ADMIN"))
        token = await token_to(shop, second)
        await it.shop.execute(ChangeRole(member_id=it.id("ADMIN"), role=Role.MEMBER))
        async with refused(it.shop, "invalid_token"):
            taking = AcceptInvitation(token=token, full_name="Eve", password=PASSWORD)
            await it.shop.execute(taking, visitor())

    async def test_an_invitation_is_mailed_again_five_times_an_hour(self, shop: Harness) -> None:
        it = await cast(shop)
        again = ResendInvitation(invitation_id=it.offers[Role.MEMBER].id)
        for _ in range(5):
            await it.shop.execute(again, await it.actor("ADMIN"))
        async with refused(it.shop, "rate_limited", RateLimited):
            await it.shop.execute(again, await it.actor("ADMIN"))
        shop.clock.advance(hours=1)
        await it.shop.execute(again, await it.actor("ADMIN"))

    async def test_a_role_counts_from_the_next_request(self, shop: Harness) -> None:
        it = await cast(shop)
        person = it.staff["MEMBER"]
        invite = InviteMember(email=address(shop, "new"), role=Role.MEMBER)
        promote, demote = [
            ChangeRole(member_id=it.id("MEMBER"), role=role) for role in (Role.ADMIN, Role.MEMBER)
        ]
        assert (await it.shop.execute(promote, await it.actor("OWNER"))).role is Role.ADMIN
        await it.shop.execute(invite, await people.acting(shop, person))
        before = await everything(it.shop)
        await it.shop.execute(promote, await it.actor("OWNER"))
        assert await everything(it.shop) == before
        await it.shop.execute(demote, await it.actor("OWNER"))
        async with refused(it.shop, "forbidden", Forbidden):
            await it.shop.execute(invite, await people.acting(shop, person))
        told = await log_of(it.shop, "member.role_changed")
        assert [(one.metadata["before"], one.metadata["after"]) for one in told] == [
            ("MEMBER", "ADMIN"),
            ("ADMIN", "MEMBER"),
        ]

    # --- whose it is ---------------------------------------------------------------------------

    async def test_the_company_is_handed_over_and_both_know_it_at_the_next_request(
        self, shop: Harness
    ) -> None:
        it = await cast(shop)
        transfer = TransferOwnership(member_id=it.id("ADMIN"), password=PASSWORD)
        wrong = TransferOwnership(member_id=it.id("ADMIN"), password=WRONG)
        async with refused(it.shop, "wrong_password"):
            await it.shop.execute(wrong, await it.actor("OWNER"))
        await it.shop.execute(transfer, await it.actor("OWNER"))
        assert await one_owner(it.shop) == it.staff["ADMIN"].user.email
        assert (await team_of(it.shop))[it.staff["OWNER"].user.email] is Role.ADMIN
        old, new = [await people.acting(shop, it.staff[name]) for name in ("OWNER", "ADMIN")]
        assert new.permissions - old.permissions == {
            Permission.MEMBERS_MANAGE,
            Permission.COMPANY_DELETE,
            Permission.BILLING_MANAGE,
            Permission.AUDIT_ERASE,
        }
        back = TransferOwnership(member_id=it.id("OWNER"), password=PASSWORD)
        async with refused(it.shop, "forbidden", Forbidden):
            await it.shop.execute(back, old)
        async with refused(it.shop, "owner_stays"):
            await it.shop.execute(LeaveCompany(), new)
        told = await log_of(it.shop, "member.role_changed")
        assert {(one.metadata["before"], one.metadata["after"]) for one in told} == {
            ("OWNER", "ADMIN"),
            ("ADMIN", "OWNER"),
        }
        await it.shop.execute(LeaveCompany(), old)
        assert await one_owner(it.shop) == it.staff["ADMIN"].user.email

    async def test_a_password_is_not_guessed_at_that_way(self, shop: Harness) -> None:
        it = await cast(shop)
        wrong = TransferOwnership(member_id=it.id("ADMIN"), password=WRONG)
        right = TransferOwnership(member_id=it.id("ADMIN"), password=PASSWORD)
        for _ in range(10):
            with pytest.raises(Refused, match="password is wrong"):
                await it.shop.execute(wrong, await it.actor("OWNER"))
        for request in (right, DeleteCompany(name=shop.company.name, password=PASSWORD)):
            async with refused(it.shop, "rate_limited", RateLimited):
                await it.shop.execute(request, await it.actor("OWNER"))

    # --- the end of a company ------------------------------------------------------------------

    async def test_a_company_ends_by_its_name_and_a_password(self, shop: Harness) -> None:
        it = await cast(shop)
        for name in (shop.company.name + " ", shop.company.name.lower(), shop.company.slug):
            async with refused(it.shop, "invalid_request", Invalid) as no:
                await it.shop.execute(DeleteCompany(name=name, password=PASSWORD), await it.actor("OWNER"))
            assert list(no.refused.fields) == ["name"]
        async with refused(it.shop, "wrong_password"):
            wrong = DeleteCompany(name=shop.company.name, password=WRONG)
            await it.shop.execute(wrong, await it.actor("OWNER"))

    async def test_nobody_is_in_a_company_that_has_ended(self, shop: Harness) -> None:
        it, other = await cast(shop), await cast(await shop.stranger())
        allowed = {name: (await other.actor(name)).permissions for name in TEAM}
        key, theirs = await it.shop.key(), await other.shop.key()
        buyer = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        their_buyer = await people.buyer(other.shop, await other.shop.customer(), ContactRole.BUYER)
        invited = await token_to(shop, it.offers[Role.ADMIN].email)
        before = await everything(other.shop)
        end = DeleteCompany(name=shop.company.name, password=PASSWORD)
        await it.shop.execute(end, await it.actor("OWNER"))
        assert await at_the_door(shop, key) is None
        assert await next_request(shop, buyer.session) is None
        for person in it.staff.values():
            actor = await people.acting(shop, person)
            assert (actor.company_id, actor.permissions) == (None, frozenset({Permission.ACCOUNT}))
            assert (await shop.execute(ReadAccount(), actor)).companies == []
            async with refused(it.shop, "company_not_found", NotFound):
                await it.shop.execute(SwitchCompany(company_id=shop.company.id), actor)
        async with refused(it.shop, "invalid_token"):
            await it.shop.execute(ReadInvitation(token=invited), visitor())
        assert [one.action for one in await log_of(it.shop)][-1] == "company.deleted"
        assert await everything(other.shop) == before
        assert await at_the_door(shop, theirs) is not None
        assert await next_request(shop, their_buyer.session) is not None
        for name, person in other.staff.items():
            assert (await people.acting(other.shop, person)).permissions == allowed[name]

    async def test_nobody_signs_in_at_a_company_that_has_ended(self, shop: Harness) -> None:
        it = await cast(shop)
        email = await contact_with_password(shop, await shop.customer())
        end = DeleteCompany(name=shop.company.name, password=PASSWORD)
        await it.shop.execute(end, await it.actor("OWNER"))
        came = (await outcomes(sign_in(shop, email, store=shop)))[0]
        assert isinstance(came, str) or await next_request(shop, came.session) is None
        entered = await sign_in(it.shop, it.staff["OWNER"].user.email)
        assert entered.session.current is None

    # --- more than one company -----------------------------------------------------------------

    async def test_one_opens_another_company_and_works_in_it(self, shop: Harness) -> None:
        it = await everybody(shop)
        name = f"Acme {shop.distribu.ports.entropy.uuid()}"
        for by in ("MEMBER", "nobody"):
            await it.shop.execute(OpenCompany(company_name=name), await it.actor(by))
        actor = await people.acting(shop, it.staff["MEMBER"])
        assert Permission.COMPANY_DELETE in actor.permissions
        company = await shop.execute(ReadCompany(), actor)
        assert (company.id, company.name) == (actor.company_id, name)
        account = await shop.execute(ReadAccount(), actor)
        assert {(seat.company_id, seat.role, seat.current) for seat in account.companies} == {
            (shop.company.id, Role.MEMBER, False),
            (company.id, Role.OWNER, True),
        }
        slug = name.lower().replace(" ", "-")
        found = [await shop.distribu.ports.directory.company(it) for it in (slug, f"{slug}-2")]
        assert company.slug == slug
        assert found[0] == company.id
        assert found[1] not in (None, company.id)
        for by, code, kind in (
            ("contact", "not_found", NotFound),
            ("key", "forbidden", Forbidden),
            ("visitor", "forbidden", Forbidden),
            ("operator", "forbidden", Forbidden),
        ):
            async with refused(it.shop, code, kind):
                await it.shop.execute(OpenCompany(company_name=name), await it.actor(by))

    async def test_twenty_companies_are_the_most(self, shop: Harness) -> None:
        person = await joined(shop, Role.MEMBER)
        for _ in range(COMPANIES_MAX - 1):
            there = await shop.stranger()
            put = TakeSeat(user_id=person.user.id, role=Role.MEMBER)
            await shop.distribu.run(there.actor, put)
        actor = await people.acting(shop, person)
        async with refused(shop, "too_many"):
            await shop.execute(OpenCompany(company_name="One More"), actor)
        await shop.execute(LeaveCompany(), actor)
        await shop.execute(OpenCompany(company_name="One More"), await people.acting(shop, person))

    async def test_one_switches_among_ones_own_companies_on_one_device(self, shop: Harness) -> None:
        person, other, foreign = await joined(shop, Role.MEMBER), await shop.stranger(), await shop.stranger()
        put = TakeSeat(user_id=person.user.id, role=Role.ADMIN)
        await shop.distribu.run(other.actor, put)
        second = (await sign_in(shop, person.user.email)).session
        device = await acting(shop, second)
        assert device.company_id == shop.company.id
        await shop.execute(SwitchCompany(company_id=other.company.id), device)
        actor = await acting(shop, second)
        assert (actor.company_id, Permission.MEMBERS_INVITE in actor.permissions) == (other.company.id, True)
        assert await people.acting(shop, person) == await people.acting(shop, person)
        assert (await people.acting(shop, person)).company_id == shop.company.id
        for id in (foreign.company.id, type(foreign.company.id)(shop.distribu.ports.entropy.uuid())):
            async with refused(shop, "company_not_found", NotFound):
                await shop.execute(SwitchCompany(company_id=id), actor)
        assert await acting(shop, second) == actor
