"""Use cases of whoever is at the command line, as an operator: of the platform, and of a company's team."""

import asyncio

import pytest

from distribu import Actor, Conflict, Forbidden, Harness, NotFound, Refused, Role
from distribu.application.audit import ListAudit
from distribu.application.platform import AddMember, CreateUser
from distribu.application.team import ListMembers, ReadMember
from distribu.domain.access import ActorKind, Permission
from distribu.domain.accounts import REALM
from tests import people
from tests.contracts.asking import key_of, log_of, refused

OPERATOR = Actor.system(None, "operator")
_ID = "00000000-0000-7000-8000-000000000000"


async def somebody(shop: Harness) -> str:
    """The address of a user who is in no team."""
    return (await people.staff(shop, None)).user.email


def seat(shop: Harness, email: str, role: Role) -> AddMember:
    return AddMember(company_id=shop.company.id, email=email, role=role)


class OperatorUseCases:
    async def test_a_company_without_an_owner_is_given_one_once(self, shop: Harness) -> None:
        ada, bo = await somebody(shop), await somebody(shop)
        made = await shop.execute(seat(shop, ada, Role.OWNER), OPERATOR)
        assert (made.role, made.company_id) == (Role.OWNER, shop.company.id)
        async with refused(shop, "owner_stays"):
            await shop.execute(seat(shop, bo, Role.OWNER), OPERATOR)
        await shop.execute(seat(shop, bo, Role.ADMIN), OPERATOR)
        team = await shop.execute(ListMembers())
        assert [(one.email, one.membership.role) for one in team.items] == [
            (bo, Role.ADMIN),
            (ada, Role.OWNER),
        ]
        told = await log_of(shop, "member.joined")
        assert [(one.actor_kind, one.label) for one in told] == [(ActorKind.SYSTEM, "operator")] * 2

    async def test_of_two_owners_in_the_same_moment_one_comes_in(self, shop: Harness) -> None:
        both = [await somebody(shop) for _ in range(2)]
        adding = (shop.execute(seat(shop, email, Role.OWNER), OPERATOR) for email in both)
        came = await asyncio.gather(*adding, return_exceptions=True)
        assert sorted(type(one).__name__ for one in came) == ["Membership", "Refused"]
        assert {one.code for one in came if isinstance(one, Refused)} == {"owner_stays"}

    async def test_somebody_is_added_once(self, shop: Harness) -> None:
        email = await somebody(shop)
        await shop.execute(seat(shop, email, Role.MEMBER), OPERATOR)
        async with refused(shop, "already_member", Conflict):
            await shop.execute(seat(shop, email, Role.ADMIN), OPERATOR)

    async def test_who_and_where_must_be_there(self, shop: Harness) -> None:
        async with refused(shop, "user_not_found", NotFound):
            await shop.execute(seat(shop, "nobody@example.test", Role.MEMBER), OPERATOR)
        async with refused(shop, "company_not_found", NotFound):
            nowhere = AddMember(company_id=_ID, email=await somebody(shop), role=Role.MEMBER)  # type: ignore[arg-type]
            await shop.execute(nowhere, OPERATOR)

    async def test_nobody_of_the_company_adds_a_member_by_themselves(self, shop: Harness) -> None:
        owner = await people.acting(shop, await people.staff(shop, Role.OWNER))
        email = await somebody(shop)
        for actor in (owner, shop.actor, key_of(shop, *set(Permission) - OPERATOR.permissions)):
            async with refused(shop, "forbidden", Forbidden):
                await shop.execute(seat(shop, email, Role.MEMBER), actor)

    async def test_the_platform_s_log_says_where_somebody_was_added(self, shop: Harness) -> None:
        await shop.execute(seat(shop, await somebody(shop), Role.MEMBER), OPERATOR)
        asked = ListAudit(action="platform.used", entity_id=shop.company.id)
        (told,) = (await shop.execute(asked, Actor.system(REALM))).items
        assert told.metadata == {"what": "add member"}

    @pytest.mark.parametrize("written", [str, str.upper])
    async def test_a_member_is_found_by_address(self, shop: Harness, written: type[str]) -> None:
        member = await people.staff(shop, Role.ADMIN)
        assert await shop.execute(ReadMember(email=written(member.user.email))) == member.member

    async def test_a_member_of_another_company_is_none_of_this_one(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        member = await people.staff(stranger, Role.ADMIN)
        for email in (member.user.email, await somebody(shop)):
            async with refused(shop, "member_not_found", NotFound):
                await shop.execute(ReadMember(email=email))

    async def test_an_address_that_somebody_has_is_no_new_user_s(self, shop: Harness) -> None:
        email = await somebody(shop)
        async with refused(shop, "duplicate_email", Conflict):
            await shop.execute(CreateUser(email=email, full_name="Ada Marsh"), OPERATOR)
