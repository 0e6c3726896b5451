"""People made in one step, where a test is about what they may do and not about how they came in."""

from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta

from distribu import Actor, ContactRole, Role, Secret, Shop
from distribu.application.kernel import Command, Work
from distribu.application.sessions import OpenSession
from distribu.domain.accounts import REALM, Credentials, Session, User
from distribu.domain.contacts import Contact
from distribu.domain.customers import Customer
from distribu.domain.factors import SecondFactor, recovery_digest
from distribu.domain.team import Membership
from distribu.entrypoints.http.sessions import Keys

KEYS = Keys(staff=(Secret("staff-" + "s" * 64),), store=(Secret("store-" + "t" * 64),))
_HASH = "no hash of any password"
_Text = Annotated[str, Meta(max_length=254)]


class PutUser(Command[User], frozen=True, kw_only=True):
    """A user whose address is verified."""

    needs = None
    internal = True

    email: _Text
    super_admin: bool = False
    password_hash: _Text = _HASH

    async def run(self, work: Work) -> User:
        user = User.create(id=work.new_id(), email=self.email, full_name="Somebody", at=work.now)
        user = user.make_super_admin(self.super_admin, at=work.now)
        work.save(user, _credentials(work, user.id, self.password_hash))
        return user


class PutMember(Command[Membership], frozen=True, kw_only=True):
    """A user in a company's team."""

    needs = None
    internal = True

    user_id: _Text
    role: Role

    async def run(self, work: Work) -> Membership:
        member = Membership.join(
            company_id=work.company_id, id=work.new_id(), user_id=self.user_id, role=self.role, at=work.now
        )
        work.save(member)
        return member


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


class PutContact(Command[Contact], frozen=True, kw_only=True):
    """A contact whose address is verified."""

    needs = None
    internal = True

    email: _Text
    customer_id: _Text
    role: ContactRole

    async def run(self, work: Work) -> Contact:
        contact = Contact.add(
            company_id=work.company_id,
            id=work.new_id(),
            customer_id=(await work.customers.get(self.customer_id)).id,  # type: ignore[arg-type]
            email=self.email,
            full_name="Somebody",
            role=self.role,
            at=work.now,
        )
        work.save(contact, _credentials(work, contact.id))
        return contact


def _credentials(work: Work, id: str, password_hash: str = _HASH) -> Credentials:
    return Credentials.create(
        company_id=work.company_id, id=id, password_hash=password_hash, verified=True, at=work.now
    )


async def with_password(shop: Shop, password: str, role: Role = Role.OWNER) -> str:
    """The address of somebody of the team who signs in with this password."""
    distribu = shop.distribu
    put = PutUser(email=_email(shop), password_hash=await distribu.ports.hasher.hash(Secret(password)))
    user = await distribu.run(Actor.system(REALM), put)
    await distribu.run(shop.actor, PutMember(user_id=user.id, role=role))
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
    user = await distribu.run(realm, PutUser(email=_email(shop), super_admin=super_admin))
    member = None
    if role is not None:
        member = await distribu.run(shop.actor, PutMember(user_id=user.id, role=role))
    return Staff(user=user, member=member, session=await _signed_in(shop, realm, user.id))


async def waiting(shop: Shop, role: Role) -> Staff:
    """Somebody of the team who has given their password and is still to show their second factor."""
    member = await staff(shop, role)
    realm = Actor.system(REALM)
    await shop.distribu.run(realm, PutApp(user_id=member.user.id))
    return replace(member, session=await _signed_in(shop, realm, member.user.id))


async def buyer(shop: Shop, customer: Customer, role: ContactRole) -> Buyer:
    """Somebody of a customer, signed in at the shop's store."""
    contact = await shop.distribu.run(
        shop.actor, PutContact(email=_email(shop), customer_id=customer.id, role=role)
    )
    return Buyer(contact=contact, session=await _signed_in(shop, shop.actor, contact.id))


async def _signed_in(shop: Shop, where: Actor, id: str) -> Session:
    opening = OpenSession(holder_id=id, verified_hash=_HASH, new_hash=None, user_agent="test")
    return (await shop.distribu.run(where, opening)).session


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
