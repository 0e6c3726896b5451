"""People made in one step, where a test is about what they may do and not about how they came in."""

from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta

from distribu import Actor, ContactRole, Role, Secret, Shop
from distribu.application.kernel import Command, Work
from distribu.application.platform import GrantSuperAdmin, TakeSeat
from distribu.domain.accounts import REALM, Session, User
from distribu.domain.contacts import Contact
from distribu.domain.customers import Customer
from distribu.domain.factors import SecondFactor, recovery_digest
from distribu.domain.team import Membership
from distribu.entrypoints.harness import AddContact

_Text = Annotated[str, Meta(max_length=254)]


class PutApp(Command[SecondFactor], frozen=True, kw_only=True):
    """An app that gives a user's codes."""

    needs = None
    internal = True

    user_id: _Text
    secret: _Text = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
    recovery: Annotated[tuple[_Text, ...], Meta(max_length=10)] = ()

    async def run(self, work: Work) -> SecondFactor:
        factor = SecondFactor.of(REALM, self.user_id, at=work.now)
        factor = factor.offer(work.seal(Secret(self.secret)), at=work.now)
        factor = factor.take_app(0, tuple(recovery_digest(Secret(one)) for one in self.recovery), at=work.now)
        work.save(factor)
        return factor


async def with_password(shop: Shop, password: str, role: Role = Role.OWNER) -> str:
    """The address of somebody of the team who signs in with this password."""
    distribu = shop.distribu
    user = await shop.user(_email(shop), await distribu.ports.hasher.hash(Secret(password)))
    await distribu.run(shop.actor, TakeSeat(user_id=user.id, role=role))
    return user.email


@dataclass(frozen=True, slots=True, kw_only=True)
class Staff:
    """A user who is signed in; ``member`` is what they are in the shop's company, if anything."""

    user: User
    member: Membership | None
    session: Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Buyer:
    """A contact who is signed in."""

    contact: Contact
    session: Session


def _email(shop: Shop) -> str:
    return f"somebody-{shop.distribu.ports.entropy.uuid()}@example.test"


async def staff(shop: Shop, role: Role | None, *, super_admin: bool = False) -> Staff:
    """Somebody of the shop's team, signed in; without a role a user of no company."""
    realm, distribu = Actor.system(REALM), shop.distribu
    user = await shop.user(_email(shop))
    if super_admin:
        user = await distribu.execute(Actor.system(None), GrantSuperAdmin(email=user.email))
    member = None
    if role is not None:
        member = await distribu.run(shop.actor, TakeSeat(user_id=user.id, role=role))
    return Staff(user=user, member=member, session=await shop.session(realm, user.id))


async def waiting(shop: Shop, role: Role) -> Staff:
    """Somebody of the team who has given their password and is still to show their second factor."""
    member = await staff(shop, role)
    realm = Actor.system(REALM)
    await shop.distribu.run(realm, PutApp(user_id=member.user.id))
    return replace(member, session=await shop.session(realm, member.user.id))


async def buyer(shop: Shop, customer: Customer, role: ContactRole) -> Buyer:
    """Somebody of a customer, signed in at the shop's store."""
    contact = await shop.distribu.run(
        shop.actor,
        AddContact(email=_email(shop), customer_id=customer.id, full_name="Somebody", role=role),
    )
    return Buyer(contact=contact, session=await shop.session(shop.actor, contact.id))


async def acting(shop: Shop, person: Staff | Buyer) -> Actor:
    """Who they are at the next request."""
    ports = shop.distribu.ports
    grant = (
        await ports.directory.staff_session(person.session.id)
        if isinstance(person, Staff)
        else await ports.directory.store_session(person.session.company_id, person.session.id)
    )
    actor = grant.actor(now=ports.clock.now(), ip="203.0.113.7") if grant is not None else None
    assert actor is not None
    return actor
