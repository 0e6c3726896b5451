"""Use cases of those who run the platform: what they see, what they end, and that it is recorded."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from distribu import Actor, Conflict, ContactRole, Forbidden, Harness, Invalid, NotFound, Refused, Role, Shop
from distribu.application.accounts import ReadAccount
from distribu.application.audit import ListAudit
from distribu.application.customers import ListCustomers
from distribu.application.factors import ClearSecondFactor
from distribu.application.inquiries import ListInquiries
from distribu.application.kernel import Request
from distribu.application.notices import ListNotices, ReplayNotice
from distribu.application.platform import (
    AddMember,
    CreateUser,
    EndUserSessions,
    GrantSuperAdmin,
    ListCompanies,
    ListFailedJobs,
    ListSuperAdmins,
    ListUsers,
    ReadUsage,
    ResumeCompany,
    RevokeSuperAdmin,
    SendPasswordLink,
    SetCompanyLimit,
    SuspendCompany,
    TakeSeat,
)
from distribu.application.sessions import SwitchCompany
from distribu.application.team import (
    CreateCompany,
    DeleteCompany,
    InviteMember,
    LeaveCompany,
    ReadCompany,
    ReadInvitation,
)
from distribu.domain.access import ROLE_PERMISSIONS, ApiKey, Permission, Standing
from distribu.domain.audit import Record
from distribu.domain.values import CompanyId
from tests import people
from tests.contracts.asking import each, everything, invoiced, key_of, log_of, refused, walk
from tests.contracts.requests import CHANGING, READING
from tests.contracts.teams import at_the_door, cast, everybody, joined
from tests.contracts.visiting import (
    OTHER,
    PASSWORD,
    THE_REALM,
    acting,
    address,
    contact_with_password,
    mails_to,
    next_request,
    sign_in,
    signed_in,
    token_to,
    unchanged,
    visitor,
)

OPERATOR: Final = Actor.system(None, "operator")
OF_THE_PLATFORM: Final = [it for it in READING + CHANGING if it.needs is Permission.PLATFORM]
OF_A_COMPANY: Final = [
    it for it in READING + CHANGING if it.needs is None or it.needs in ROLE_PERMISSIONS[Role.OWNER]
]
OF_A_COMPANY_ALONE: Final = [it for it in OF_A_COMPANY if it.needs is not Permission.ACCOUNT]


def named(request: Request[Any]) -> str:
    return type(request).__name__


async def super_admin(shop: Shop) -> Actor:
    """Somebody who runs the platform and is of no company."""
    return await people.acting(shop, await people.staff(shop, None, super_admin=True))


async def told_of(shop: Harness, by: Actor) -> list[Record]:
    """What the platform's own log says that an actor has just done, oldest first."""
    since = shop.clock.now()
    records = await walk(
        lambda cursor: shop.execute(ListAudit(since=since, limit=100, cursor=cursor), THE_REALM)
    )
    return [it for it in reversed(records) if it.actor_id == by.id]


Asked = Callable[[Shop, str], Request[Any]]
ASKED: Final[dict[type[Request[Any]], tuple[Asked, str]]] = {
    ListCompanies: (lambda *_: ListCompanies(), "platform.used"),
    ReadUsage: (lambda shop, _: ReadUsage(company_id=shop.company.id), "platform.used"),
    ListFailedJobs: (lambda *_: ListFailedJobs(), "platform.used"),
    ListNotices: (lambda *_: ListNotices(), "platform.used"),
    ReplayNotice: (lambda _, email: ReplayNotice(ref=email), "platform.used"),
    ListUsers: (lambda *_: ListUsers(), "platform.used"),
    ListSuperAdmins: (lambda *_: ListSuperAdmins(), "platform.used"),
    ListInquiries: (lambda *_: ListInquiries(), "platform.used"),
    SuspendCompany: (
        lambda shop, _: SuspendCompany(company_id=shop.company.id, reason="unpaid"),
        "platform.used",
    ),
    ResumeCompany: (lambda shop, _: ResumeCompany(company_id=shop.company.id), "platform.used"),
    SetCompanyLimit: (
        lambda shop, _: SetCompanyLimit(company_id=shop.company.id, api_limit=7),
        "platform.used",
    ),
    AddMember: (
        lambda shop, email: AddMember(company_id=shop.company.id, email=email, role=Role.MEMBER),
        "platform.used",
    ),
    CreateUser: (
        lambda shop, _: CreateUser(email=address(shop, "made"), full_name="Ada Marsh"),
        "account.created",
    ),
    SendPasswordLink: (lambda _, email: SendPasswordLink(email=email), "auth.link_issued"),
    EndUserSessions: (lambda _, email: EndUserSessions(email=email), "auth.sessions_ended"),
    GrantSuperAdmin: (lambda _, email: GrantSuperAdmin(email=email), "account.super_admin_granted"),
    RevokeSuperAdmin: (lambda _, email: RevokeSuperAdmin(email=email), "account.super_admin_revoked"),
    ClearSecondFactor: (lambda _, email: ClearSecondFactor(email=email), "auth.factors_cleared"),
}
"""Every request of the platform as it is really asked, given a user, and what the log then says."""


class PlatformUseCases:
    # --- a company that is suspended -----------------------------------------------------------

    async def test_everybody_of_a_suspended_company_is_kept_out_until_it_is_resumed(
        self, shop: Harness
    ) -> None:
        it, other = await cast(shop), await shop.stranger()
        key, theirs = await shop.key(), await other.key()
        buyer = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        their_owner = await people.staff(other, Role.OWNER)

        async def everyone() -> list[Actor]:
            actors = [await it.actor(name) for name in it.staff]
            actors += [await acting(shop, buyer.session)]
            found = await at_the_door(shop, key)
            return [*actors, found] if found is not None else actors

        before, permitted = await everything(other), await everyone()
        by = await super_admin(shop)
        await shop.execute(SuspendCompany(company_id=shop.company.id, reason="unpaid"), by)
        kept_out = await everyone()
        assert len(kept_out) == len(permitted)
        for actor in kept_out:
            for request in each(ReadCompany(), ListCustomers(), LeaveCompany()):
                async with refused(shop, "suspended", Forbidden):
                    await shop.execute(request, actor)
        for name in it.staff:
            actor = await it.actor(name)
            assert actor.permissions == {Permission.ACCOUNT}
            (seat,) = (await shop.execute(ReadAccount(), actor)).companies
            assert seat.company_id == shop.company.id
        assert await everything(other) == before
        assert (await people.acting(other, their_owner)).permissions == ROLE_PERMISSIONS[Role.OWNER]
        their_key = await at_the_door(other, theirs)
        assert their_key is not None
        await other.execute(ListCustomers(), their_key)
        await shop.execute(ResumeCompany(company_id=shop.company.id), by)
        assert await everyone() == permitted
        told = await log_of(shop, "company")
        assert [(one.action, one.actor_id) for one in told][-2:] == [
            ("company.suspended", by.id),
            ("company.resumed", by.id),
        ]
        assert told[-2].metadata == {"reason": "unpaid"}

    @pytest.mark.parametrize("request_", OF_A_COMPANY_ALONE, ids=named)
    async def test_nothing_is_done_in_a_suspended_company(
        self, shop: Harness, request_: Request[Any]
    ) -> None:
        owner, key = await people.staff(shop, Role.OWNER), await shop.key()
        await shop.execute(SuspendCompany(company_id=shop.company.id, reason="unpaid"), OPERATOR)
        machine = await at_the_door(shop, key)
        assert machine is not None
        for actor in (await people.acting(shop, owner), machine):
            async with refused(shop, "suspended", Forbidden):
                await shop.execute(request_, actor)

    async def test_nobody_comes_to_a_suspended_company(self, shop: Harness) -> None:
        email, contact = address(shop, "new"), await contact_with_password(shop, await shop.customer())
        person = await joined(shop, None)
        for to in (email, person.user.email):
            await shop.execute(InviteMember(email=to, role=Role.MEMBER))
        token = await token_to(shop, email)
        await shop.execute(SuspendCompany(company_id=shop.company.id, reason="unpaid"), OPERATOR)
        async with refused(shop, "invalid_token"):
            await shop.execute(ReadInvitation(token=token), visitor())
        async with refused(shop, "suspended", Forbidden):
            await sign_in(shop, contact, store=shop)
        await shop.execute(ResumeCompany(company_id=shop.company.id), OPERATOR)
        assert (await shop.execute(ReadInvitation(token=token), visitor())).email == email
        assert (await signed_in(shop, contact, store=shop)).permissions

    async def test_whoever_works_elsewhere_too_goes_on_there(self, shop: Harness) -> None:
        person, other = await joined(shop, Role.OWNER), await shop.stranger()
        put = TakeSeat(user_id=person.user.id, role=Role.MEMBER)
        await shop.distribu.run(other.actor, put)
        await shop.execute(SuspendCompany(company_id=shop.company.id, reason="unpaid"), OPERATOR)
        actor = await people.acting(shop, person)
        await shop.execute(SwitchCompany(company_id=other.company.id), actor)
        actor = await people.acting(shop, person)
        assert (actor.company_id, actor.permissions) == (other.company.id, ROLE_PERMISSIONS[Role.MEMBER])

    async def test_a_company_is_suspended_and_resumed_once(self, shop: Harness) -> None:
        suspend = SuspendCompany(company_id=shop.company.id, reason="unpaid")
        resume = ResumeCompany(company_id=shop.company.id)
        async with refused(shop, "not_suspended"):
            await shop.execute(resume, OPERATOR)
        await shop.execute(suspend, OPERATOR)
        async with refused(shop, "already_suspended"):
            await shop.execute(suspend, OPERATOR)
        await shop.execute(resume, OPERATOR)
        async with refused(shop, "not_suspended"):
            await shop.execute(resume, OPERATOR)
        for reason in ("", "x" * 501):
            async with refused(shop, "invalid_request", Invalid):
                await shop.execute(SuspendCompany(company_id=shop.company.id, reason=reason), OPERATOR)

    @pytest.mark.parametrize("gone", [True, False])
    async def test_what_is_not_there_is_not_found(self, shop: Harness, gone: bool) -> None:
        """A company that never was, or has ended, or is the platform's own realm."""
        it, by = await cast(shop), await super_admin(shop)
        ids = [CompanyId(shop.distribu.ports.entropy.uuid())]
        assert THE_REALM.company_id is not None
        ids += [THE_REALM.company_id]
        if gone:
            end = DeleteCompany(name=shop.company.name, password=PASSWORD)
            await it.shop.execute(end, await it.actor("OWNER"))
            ids = [shop.company.id]
        email = (await people.staff(shop, None)).user.email
        for id in ids:
            for request in each(
                SuspendCompany(company_id=id, reason="unpaid"),
                ResumeCompany(company_id=id),
                SetCompanyLimit(company_id=id, api_limit=7),
                AddMember(company_id=id, email=email, role=Role.OWNER),
            ):
                async with refused(it.shop, "company_not_found", NotFound):
                    await shop.execute(request, OPERATOR)
        if not gone:
            for id in ids:
                async with refused(it.shop, "company_not_found", NotFound):
                    await shop.execute(ReadUsage(company_id=id), by)

    async def test_a_suspended_company_can_still_be_seen_in_figures(self, shop: Harness) -> None:
        by = await super_admin(shop)
        await shop.execute(SuspendCompany(company_id=shop.company.id, reason="unpaid"), by)
        (card,) = [it for it in (await shop.execute(ListCompanies(), by)).items if it.id == shop.company.id]
        assert (card.name, card.slug, card.standing) == (
            shop.company.name,
            shop.company.slug,
            Standing.SUSPENDED,
        )
        assert (await shop.execute(ReadUsage(company_id=shop.company.id), by)).members == 0

    # --- limits --------------------------------------------------------------------------------

    async def test_a_company_has_its_own_limit_until_it_is_taken_away(self, shop: Harness) -> None:
        key, other = await shop.key(), await shop.stranger()
        theirs, by = await other.key(), await super_admin(shop)

        async def limits() -> list[int | None]:
            directory = shop.distribu.ports.directory
            grants = [await directory.key(ApiKey.digest_of(one)) for one in (key, theirs)]
            return [grant.api_limit for grant in grants if grant is not None]

        assert await limits() == [None, None]
        for limit in (1, 600, 600, 100_000, None):
            await shop.execute(SetCompanyLimit(company_id=shop.company.id, api_limit=limit), by)
            assert await limits() == [limit, None]
        for wrong in (0, -1, 100_001, 1.5, "60", True):
            async with refused(shop, "invalid_request", Invalid):
                request = SetCompanyLimit(company_id=shop.company.id, api_limit=wrong)  # type: ignore[arg-type]
                await shop.execute(request, by)
        told = await log_of(shop, "company.updated")
        assert [(it.actor_id, it.metadata["after"]) for it in told] == [
            (by.id, {"apiLimit": limit}) for limit in (1, 600, 100_000, None)
        ]

    # --- whose pages these are -----------------------------------------------------------------

    @pytest.mark.parametrize("request_", OF_THE_PLATFORM, ids=named)
    async def test_nobody_else_runs_the_platform(self, shop: Harness, request_: Request[Any]) -> None:
        it = await everybody(shop)
        theirs = ASKED[type(request_)][0](it.shop, it.staff["MEMBER"].user.email), request_
        for by in ("OWNER", "ADMIN", "MEMBER", "contact", "key", "visitor", "nobody", "operator"):
            for request in theirs:
                async with refused(it.shop, "forbidden", Forbidden):
                    await it.shop.execute(request, await it.actor(by))
        async with refused(it.shop, "forbidden", Forbidden):
            await it.shop.execute(request_, key_of(shop, *set(Permission) - {Permission.PLATFORM}))

    @pytest.mark.parametrize(
        "request_", [it for it in OF_THE_PLATFORM if not isinstance(it, AddMember)], ids=named
    )
    async def test_every_use_is_in_the_log_of_the_platform(
        self, shop: Harness, request_: Request[Any]
    ) -> None:
        by, person = await super_admin(shop), await people.staff(shop, None)
        await shop.distribu.run(THE_REALM, people.PutApp(user_id=person.user.id))
        kind = type(request_)
        if kind is ResumeCompany:
            await shop.execute(SuspendCompany(company_id=shop.company.id, reason="unpaid"), OPERATOR)
        if kind is RevokeSuperAdmin:
            await shop.execute(GrantSuperAdmin(email=person.user.email), OPERATOR)
        if kind is ReplayNotice:
            await invoiced(shop, person.user.email)
        ask, action = ASKED[kind]
        request = ask(shop, person.user.email)
        await shop.execute(request, by)
        mine = await told_of(shop, by)
        assert action in [it.action for it in mine]
        assert {(it.label, it.ip) for it in mine} == {(by.label, by.ip)}
        if hasattr(request, "company_id"):
            assert shop.company.id in [it.entity_id for it in mine]

    async def test_a_use_that_is_refused_is_in_the_log_as_well(self, shop: Harness) -> None:
        by, nowhere = await super_admin(shop), CompanyId(shop.distribu.ports.entropy.uuid())
        for request in each(
            ReadUsage(company_id=nowhere),
            SuspendCompany(company_id=nowhere, reason="unpaid"),
            ResumeCompany(company_id=nowhere),
            SetCompanyLimit(company_id=nowhere),
        ):
            async with refused(shop, "company_not_found", NotFound):
                await shop.execute(request, by)
        told = [it for it in await told_of(shop, by) if it.action == "platform.used"]
        assert [it.metadata["what"] for it in told] == ["usage", "suspend", "resume", "limit"]
        assert {it.entity_id for it in told} == {nowhere}

    # --- and what they are not -----------------------------------------------------------------

    @pytest.mark.parametrize("request_", OF_A_COMPANY_ALONE, ids=named)
    async def test_a_super_admin_is_nobody_in_a_company(self, shop: Harness, request_: Request[Any]) -> None:
        by = await super_admin(shop)
        assert by.company_id is None
        assert by.permissions == {Permission.ACCOUNT, Permission.PLATFORM}
        actors = [by]
        if request_.needs is not None:  # not even when a door binds them to a company by mistake
            actors.append(replace(by, company_id=shop.company.id))
        for actor in actors:
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(request_, actor)

    async def test_a_super_admin_does_not_make_themselves_a_member(self, shop: Harness) -> None:
        """The pages of the platform never open a company's data; only its operator fills a team."""
        by = await super_admin(shop)
        for role in Role:
            async with refused(shop, "forbidden", Forbidden):
                add = AddMember(company_id=shop.company.id, email=by.label, role=role)
                await shop.execute(add, by)

    async def test_a_super_admin_is_in_a_team_what_their_role_is(self, shop: Harness) -> None:
        for role in Role:
            by = await people.acting(shop, await people.staff(shop, role, super_admin=True))
            assert by.permissions == ROLE_PERMISSIONS[role] | {Permission.PLATFORM}
            await shop.execute(SuspendCompany(company_id=shop.company.id, reason="unpaid"), by)
            await shop.execute(ResumeCompany(company_id=shop.company.id), by)

    async def test_who_founds_a_company_for_others_is_the_operator(self, shop: Harness) -> None:
        by = await super_admin(shop)
        async with refused(shop, "forbidden", Forbidden):
            await shop.execute(CreateCompany(name="Acme"), by)

    # --- who is a super-admin ------------------------------------------------------------------

    async def test_a_super_admin_is_made_and_unmade_at_the_next_request(self, shop: Harness) -> None:
        person, other = await joined(shop, Role.MEMBER), await people.staff(shop, None)
        by = await super_admin(shop)
        email = person.user.email
        for _ in range(2):
            user = await shop.execute(GrantSuperAdmin(email=email.upper()), by)
            assert (user.id, user.is_super_admin, user.version) == (person.user.id, True, 2)
        actor = await people.acting(shop, person)
        assert actor.permissions == ROLE_PERMISSIONS[Role.MEMBER] | {Permission.PLATFORM}
        admins = {it.id for it in await shop.execute(ListSuperAdmins(), actor)}
        assert {person.user.id, by.id} <= admins
        assert other.user.id not in admins
        for _ in range(2):
            user = await shop.execute(RevokeSuperAdmin(email=email), by)
            assert (user.is_super_admin, user.version) == (False, 3)
        actor = await people.acting(shop, person)
        assert actor.permissions == ROLE_PERMISSIONS[Role.MEMBER]
        async with refused(shop, "forbidden", Forbidden):
            await shop.execute(ListSuperAdmins(), actor)
        asked = ListAudit(action="account", entity_id=person.user.id, limit=100)
        told = (await shop.execute(asked, THE_REALM)).items
        assert [(it.action, it.actor_id) for it in told][:2] == [
            ("account.super_admin_revoked", by.id),
            ("account.super_admin_granted", by.id),
        ]
        assert len([it for it in told if it.actor_id == by.id]) == 2

    async def test_nobody_is_a_super_admin_who_is_no_user(self, shop: Harness) -> None:
        buyer = await people.buyer(shop, await shop.customer(), ContactRole.ADMIN)
        for email in (address(shop), buyer.contact.email):
            for request in each(
                GrantSuperAdmin(email=email),
                RevokeSuperAdmin(email=email),
                EndUserSessions(email=email),
                SendPasswordLink(email=email),
                ClearSecondFactor(email=email),
            ):
                async with refused(shop, "user_not_found", NotFound):
                    await shop.execute(request, OPERATOR)

    async def test_a_super_admin_whose_second_factor_is_awaited_runs_nothing(self, shop: Harness) -> None:
        person = await joined(shop, None)
        await shop.execute(GrantSuperAdmin(email=person.user.email), OPERATOR)
        await shop.distribu.run(THE_REALM, people.PutApp(user_id=person.user.id))
        entered = await sign_in(shop, person.user.email)
        actor = await acting(shop, entered.session)
        assert entered.awaited != ()
        for request_ in OF_THE_PLATFORM:
            async with refused(shop, "second_factor_awaited", Forbidden):
                await shop.execute(request_, actor)

    # --- users ---------------------------------------------------------------------------------

    async def test_a_user_is_made_with_a_password_or_with_a_link_to_choose_one(self, shop: Harness) -> None:
        by, with_one, without = await super_admin(shop), address(shop, "one"), address(shop, "two")
        for poor in ("password123", "7 chars", with_one):
            async with refused(shop, "invalid_request", Invalid), unchanged(shop, (with_one, None)):
                create = CreateUser(email=with_one, full_name="Ada Marsh", password=poor)
                await shop.execute(create, by)
        made = await shop.execute(
            CreateUser(email=with_one.upper(), full_name="Ada Marsh", password=PASSWORD), by
        )
        assert made.email == with_one
        assert (await signed_in(shop, with_one)).permissions == {Permission.ACCOUNT}
        assert await mails_to(shop, with_one) == []
        await shop.execute(CreateUser(email=without, full_name="Bo Marsh"), by)
        with pytest.raises(Refused):
            await sign_in(shop, without)
        assert len(await mails_to(shop, without)) == 1
        async with refused(shop, "duplicate_email", Conflict), unchanged(shop, (with_one, None)):
            await shop.execute(CreateUser(email=with_one, full_name="Eve", password=OTHER), by)

    async def test_a_user_is_signed_out_everywhere(self, shop: Harness) -> None:
        person, other = await joined(shop, Role.OWNER), await people.staff(shop, Role.ADMIN)
        second = (await sign_in(shop, person.user.email)).session
        await shop.execute(EndUserSessions(email=person.user.email), await super_admin(shop))
        assert [await next_request(shop, it) for it in (person.session, second)] == [None, None]
        await people.acting(shop, other)
        await signed_in(shop, person.user.email)
