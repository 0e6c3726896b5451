"""A team, everybody who could ask something of it, and the matrix of what comes of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from distribu import (
    Actor,
    ContactRole,
    Role,
    Secret,
    Shop,
)
from distribu.application.kernel import Request
from distribu.application.platform import TakeSeat
from distribu.application.ports import Member
from distribu.application.sessions import OpenSession
from distribu.application.team import (
    ChangeRole,
    DeleteCompany,
    EditInvitation,
    InviteMember,
    LeaveCompany,
    ListInvitations,
    ListMembers,
    RemoveMember,
    ResendInvitation,
    RevokeInvitation,
    TransferOwnership,
)
from distribu.domain.access import SCOPES, ApiKey
from distribu.domain.team import Invitation
from tests import people
from tests.contracts.asking import key_of, walk
from tests.contracts.visiting import (
    PASSWORD,
    THE_REALM,
    address,
    quick,
    visitor,
)


async def joined(shop: Shop, role: Role | None, name: str = "somebody") -> people.Staff:
    """Somebody of the team, or of none, who is signed in and has `PASSWORD`."""
    distribu = shop.distribu
    password_hash = await distribu.ports.hasher.hash(Secret(PASSWORD))
    user = await shop.user(address(shop, name), password_hash)
    member = None
    if role is not None:
        member = await distribu.run(shop.actor, TakeSeat(user_id=user.id, role=role))
    opening = OpenSession(holder_id=user.id, verified_hash=password_hash, new_hash=None, user_agent="test")
    session = (await distribu.run(THE_REALM, opening)).session
    return people.Staff(user=user, member=member, session=session)


def member_id(person: people.Staff) -> str:
    """Their membership's id."""
    assert person.member is not None
    return person.member.id


async def team_of(shop: Shop) -> dict[str, Role]:
    """Who is what in a company, by address."""
    members: list[Member] = await walk(
        lambda cursor: shop.execute(ListMembers(limit=100, cursor=cursor), shop.actor)
    )
    return {it.email: it.membership.role for it in members}


async def offers_of(shop: Shop) -> list[Invitation]:
    """The invitations of a company that are out, newest first."""
    return await walk(lambda cursor: shop.execute(ListInvitations(limit=100, cursor=cursor), shop.actor))


async def one_owner(shop: Shop) -> str:
    """The address of the one OWNER there is."""
    (owner,) = (email for email, role in (await team_of(shop)).items() if role is Role.OWNER)
    return owner


async def at_the_door(shop: Shop, key: str) -> Actor | None:
    """Who a key is at the next request."""
    ports = shop.distribu.ports
    grant = await ports.directory.key(ApiKey.digest_of(key))
    return None if grant is None else grant.actor(now=ports.clock.now(), ip="203.0.113.7")


# --- everybody who could ask ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cast:
    """A company with two of each role below OWNER, and everybody else who could ask for something."""

    shop: Shop
    staff: Mapping[str, people.Staff]
    others: Mapping[str, people.Staff | people.Buyer]
    offers: Mapping[Role, Invitation]

    def id(self, name: str) -> str:
        """The membership of one of the team."""
        return member_id(self.staff[name])

    async def actor(self, name: str) -> Actor:
        """Who one of them is at the next request."""
        match name:
            case "key":
                return key_of(self.shop, *SCOPES)
            case "visitor":
                return visitor()
            case "operator":
                return self.shop.actor
        return await people.acting(self.shop, self.staff.get(name) or self.others[name])


TEAM: Final = {
    "OWNER": Role.OWNER,
    "ADMIN": Role.ADMIN,
    "MEMBER": Role.MEMBER,
    "another ADMIN": Role.ADMIN,
    "another MEMBER": Role.MEMBER,
}
INSIDE: Final = ("OWNER", "ADMIN", "MEMBER", "operator")
OUTSIDE: Final = ("key", "contact", "nobody", "super-admin", "visitor")


async def cast(shop: Shop) -> Cast:
    """The team of this company, where passwords cost nothing to hash."""
    shop = quick(shop)
    staff = {name: await joined(shop, role) for name, role in TEAM.items()}
    offers = {
        role: await shop.execute(InviteMember(email=address(shop, "invited"), role=role))
        for role in (Role.ADMIN, Role.MEMBER)
    }
    return Cast(shop=shop, staff=staff, others={}, offers=offers)


async def everybody(shop: Shop) -> Cast:
    """The same with a contact, somebody of no company, and a super-admin."""
    others: dict[str, people.Staff | people.Buyer] = {
        "contact": await people.buyer(shop, await shop.customer(), ContactRole.ADMIN),
        "nobody": await people.staff(shop, None),
        "super-admin": await people.staff(shop, None, super_admin=True),
    }
    return replace(await cast(shop), others=others)


DONE: Final = "done"
NO: Final = "forbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is asked for, given who asks, and what comes of it for each."""

    ask: Callable[[Cast, str], Request[Any]]
    OWNER: str = DONE
    ADMIN: str = DONE
    MEMBER: str = NO
    operator: str = DONE

    def code(self, by: str) -> str:
        """What comes of it when ``by`` asks: whoever is not of the team is never let in."""
        return NO if by in OUTSIDE else str(getattr(self, by))


def _invites(role: Role) -> Callable[[Cast, str], Request[Any]]:
    return lambda it, _: InviteMember(email=address(it.shop, "new"), role=role)


def _edits(offer: Role, role: Role) -> Callable[[Cast, str], Request[Any]]:
    return lambda it, _: EditInvitation(invitation_id=it.offers[offer].id, role=role)


def _makes(whom: str, role: Role) -> Callable[[Cast, str], Request[Any]]:
    return lambda it, _: ChangeRole(member_id=it.id(whom), role=role)


def _removes(whom: str) -> Callable[[Cast, str], Request[Any]]:
    return lambda it, _: RemoveMember(member_id=it.id(whom))


def _transfers(whom: str) -> Callable[[Cast, str], Request[Any]]:
    return lambda it, _: TransferOwnership(member_id=it.id(whom), password=PASSWORD)


def _oneself(it: Cast, by: str) -> str:
    return it.id(by) if by in it.staff else it.id("OWNER")


_STAYS: Final = {"OWNER": "owner_stays", "operator": "owner_stays"}
_BOTH_STAY: Final = _STAYS | {"ADMIN": "owner_stays"}
_ALONE: Final = {"ADMIN": NO}

MATRIX: Final[Mapping[str, Row]] = {
    "invite a MEMBER": Row(ask=_invites(Role.MEMBER)),
    "invite an ADMIN": Row(ask=_invites(Role.ADMIN)),
    "invite an OWNER": Row(ask=_invites(Role.OWNER), **_BOTH_STAY),
    "offer a MEMBER's place to an ADMIN to be": Row(ask=_edits(Role.ADMIN, Role.MEMBER)),
    "offer an ADMIN's place to a MEMBER to be": Row(ask=_edits(Role.MEMBER, Role.ADMIN)),
    "offer the OWNER's place": Row(ask=_edits(Role.MEMBER, Role.OWNER), **_BOTH_STAY),
    "mail an invitation again": Row(
        ask=lambda it, _: ResendInvitation(invitation_id=it.offers[Role.ADMIN].id)
    ),
    "revoke an invitation": Row(ask=lambda it, _: RevokeInvitation(invitation_id=it.offers[Role.ADMIN].id)),
    "make a MEMBER an ADMIN": Row(ask=_makes("another MEMBER", Role.ADMIN), **_ALONE),
    "make an ADMIN a MEMBER": Row(ask=_makes("another ADMIN", Role.MEMBER), **_ALONE),
    "make a MEMBER the OWNER": Row(ask=_makes("another MEMBER", Role.OWNER), **_STAYS, **_ALONE),
    "make an ADMIN the OWNER": Row(ask=_makes("another ADMIN", Role.OWNER), **_STAYS, **_ALONE),
    "make the OWNER an ADMIN": Row(ask=_makes("OWNER", Role.ADMIN), **_STAYS, **_ALONE),
    "make oneself the OWNER": Row(
        ask=lambda it, by: ChangeRole(member_id=_oneself(it, by), role=Role.OWNER), **_STAYS, **_ALONE
    ),
    "remove a MEMBER": Row(ask=_removes("another MEMBER")),
    "remove an ADMIN": Row(ask=_removes("another ADMIN"), **_ALONE),
    "remove the OWNER": Row(ask=_removes("OWNER"), **_BOTH_STAY),
    "remove oneself": Row(
        ask=lambda it, by: RemoveMember(member_id=_oneself(it, by)), **_STAYS, ADMIN="not_oneself"
    ),
    "leave": Row(ask=lambda *_: LeaveCompany(), OWNER="owner_stays", MEMBER=DONE, operator=NO),
    "hand over to an ADMIN": Row(ask=_transfers("another ADMIN"), **_ALONE, operator=NO),
    "hand over to a MEMBER": Row(
        ask=_transfers("another MEMBER"), OWNER="not_an_admin", **_ALONE, operator=NO
    ),
    "hand over to oneself": Row(
        ask=lambda it, by: TransferOwnership(member_id=_oneself(it, by), password=PASSWORD),
        OWNER="not_an_admin",
        **_ALONE,
        operator=NO,
    ),
    "delete the company": Row(
        ask=lambda it, _: DeleteCompany(name=it.shop.company.name, password=PASSWORD),
        **_ALONE,
        operator=NO,
    ),
}
"""The matrix of the team: what OWNER, ADMIN, MEMBER and an operator may do to one another."""


# --- what happens in the same moment -------------------------------------------------------------

Pair = tuple[tuple[str, Request[Any]], tuple[str, Request[Any]]]


@dataclass(frozen=True, slots=True)
class Race:
    """Two requests at once, and the pairs of outcomes there may be: None is done, else the code."""

    ask: Callable[[Cast], Pair]
    may_be: frozenset[tuple[str | None, str | None]]


def _hands_over(it: Cast, to: str) -> tuple[str, Request[Any]]:
    return "OWNER", TransferOwnership(member_id=it.id(to), password=PASSWORD)


RACES: Final[Mapping[str, Race]] = {
    "two heirs": Race(
        lambda it: (_hands_over(it, "ADMIN"), _hands_over(it, "another ADMIN")),
        frozenset({(None, "forbidden"), ("forbidden", None)}),
    ),
    "one heir twice": Race(
        lambda it: (_hands_over(it, "ADMIN"), _hands_over(it, "ADMIN")),
        frozenset({(None, "forbidden"), ("forbidden", None)}),
    ),
    "the heir leaves": Race(
        lambda it: (_hands_over(it, "ADMIN"), ("ADMIN", LeaveCompany())),
        frozenset({(None, "owner_stays"), ("member_not_found", None)}),
    ),
    "the heir is removed": Race(
        lambda it: (_hands_over(it, "ADMIN"), ("OWNER", RemoveMember(member_id=it.id("ADMIN")))),
        frozenset({(None, "owner_stays"), ("member_not_found", None)}),
    ),
    "the heir becomes a MEMBER": Race(
        lambda it: (
            _hands_over(it, "ADMIN"),
            ("OWNER", ChangeRole(member_id=it.id("ADMIN"), role=Role.MEMBER)),
        ),
        frozenset({(None, "forbidden"), ("not_an_admin", None)}),
    ),
    "one is removed twice": Race(
        lambda it: (
            ("OWNER", RemoveMember(member_id=it.id("MEMBER"))),
            ("ADMIN", RemoveMember(member_id=it.id("MEMBER"))),
        ),
        frozenset({(None, "member_not_found"), ("member_not_found", None)}),
    ),
    "one leaves and is removed": Race(
        lambda it: (("OWNER", RemoveMember(member_id=it.id("ADMIN"))), ("ADMIN", LeaveCompany())),
        frozenset({(None, "forbidden"), ("member_not_found", None)}),
    ),
    "whoever removes is removed": Race(
        lambda it: (
            ("OWNER", RemoveMember(member_id=it.id("ADMIN"))),
            ("ADMIN", RemoveMember(member_id=it.id("MEMBER"))),
        ),
        frozenset({(None, "forbidden"), (None, None)}),
    ),
    "whoever invites is removed": Race(
        lambda it: (
            ("OWNER", RemoveMember(member_id=it.id("ADMIN"))),
            ("ADMIN", InviteMember(email=address(it.shop, "late"), role=Role.ADMIN)),
        ),
        frozenset({(None, "forbidden"), (None, None)}),
    ),
    "an invitation is revoked twice": Race(
        lambda it: (
            ("OWNER", RevokeInvitation(invitation_id=it.offers[Role.ADMIN].id)),
            ("ADMIN", RevokeInvitation(invitation_id=it.offers[Role.ADMIN].id)),
        ),
        frozenset({(None, "invitation_over"), ("invitation_over", None)}),
    ),
    "the company is deleted twice": Race(
        lambda it: (
            ("OWNER", DeleteCompany(name=it.shop.company.name, password=PASSWORD)),
            ("OWNER", DeleteCompany(name=it.shop.company.name, password=PASSWORD)),
        ),
        frozenset({(None, "company_not_found"), ("company_not_found", None)}),
    ),
}


# --- those who have lost a role while they were asking -------------------------------------------


async def _demoted(it: Cast) -> None:
    await it.shop.execute(ChangeRole(member_id=it.id("ADMIN"), role=Role.MEMBER))


async def _removed(it: Cast) -> None:
    await it.shop.execute(RemoveMember(member_id=it.id("ADMIN")))


async def _handed_over(it: Cast) -> None:
    transfer = TransferOwnership(member_id=it.id("another ADMIN"), password=PASSWORD)
    await it.shop.execute(transfer, await it.actor("OWNER"))


Lost = tuple[Callable[[Cast], Awaitable[None]], str, Callable[[Cast, str], Request[Any]]]
LOST: Final[Mapping[str, Lost]] = {
    "no OWNER any more, remove an ADMIN": (_handed_over, "OWNER", _removes("ADMIN")),
    **{
        f"{was} {what}": (lose, "ADMIN", MATRIX[what].ask)
        for was, lose in (("demoted,", _demoted), ("removed,", _removed))
        for what in (
            "invite a MEMBER",
            "invite an ADMIN",
            "offer a MEMBER's place to an ADMIN to be",
            "offer an ADMIN's place to a MEMBER to be",
            "mail an invitation again",
            "revoke an invitation",
            "remove a MEMBER",
        )
    },
    **{
        f"no OWNER any more, {what}": (_handed_over, "OWNER", MATRIX[what].ask)
        for what in (
            "make a MEMBER an ADMIN",
            "make an ADMIN a MEMBER",
            "hand over to an ADMIN",
            "delete the company",
        )
    },
}
