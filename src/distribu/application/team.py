"""Use cases of the company itself, and of the people who work for it."""

from typing import Annotated, Final

from msgspec import UNSET, Meta, UnsetType

from distribu.application import billing, fields, letters, profiles, views
from distribu.application.accounts import (
    HOUR_S,
    LINKS_PER_IP,
    QUARTER_S,
    Digest,
    Name,
    found,
    hashed,
    knock,
    prove,
)
from distribu.application.kernel import Command, Outside, Process, Query, Reads, Work
from distribu.application.ports import Member, Page
from distribu.application.sessions import SwitchTo
from distribu.domain.access import ROLE_PERMISSIONS, ActorKind, Permission, Role
from distribu.domain.accounts import REALM, Credentials, Link, User
from distribu.domain.billing import Counted, Subscription, not_accepting
from distribu.domain.errors import Conflict, Forbidden, NotFound, PaymentRequired, Refused
from distribu.domain.team import INVITATIONS_MAX, Company, Invitation, Membership, Registration
from distribu.domain.values import CompanyId, Secret, canonical_email

_Name = Annotated[str, Meta(min_length=1, max_length=100, examples=["Acme Distributors"])]
_Slug = Annotated[str, Meta(min_length=1, max_length=60, examples=["acme-distributors"])]
_Currency = Annotated[str, Meta(pattern="^[A-Z]{3}$", max_length=3, examples=["USD"])]
_TimeZone = Annotated[str, Meta(min_length=1, max_length=64, examples=["Europe/Lisbon"])]


class CreateCompany(Command[Company], frozen=True, kw_only=True):
    """Found a company. Without a slug it gets one made of its name; a taken one is refused."""

    needs = Permission.COMPANY_CREATE
    founds = True

    name: _Name
    slug: _Slug | None = None
    currency: _Currency = "USD"

    async def run(self, work: Work) -> Company:
        company = Company.found(
            id=work.company_id, name=self.name, slug=self.slug, currency_code=self.currency, at=work.now
        )
        work.save(company)
        if work.sells:
            work.save(Subscription.on_trial(work.company_id, at=work.now))
        return company


class EditCompany(Command[Company], frozen=True, kw_only=True):
    """Change the company's settings. The currency is fixed once there is an order."""

    needs = Permission.COMPANY_MANAGE

    name: _Name | UnsetType = UNSET
    slug: _Slug | UnsetType = UNSET
    currency: _Currency | UnsetType = UNSET
    time_zone: _TimeZone | UnsetType = UNSET
    tax_rate: fields.TaxRate | UnsetType = UNSET
    shipping: fields.Amount | UnsetType = UNSET
    order_minimum: fields.Amount | UnsetType = UNSET
    return_window_days: Annotated[int, Meta(ge=0, le=3650)] | UnsetType = UNSET
    registration: Registration | UnsetType = UNSET
    require_second_factor: bool | UnsetType = UNSET
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> Company:
        company, has_orders = await work.together(work.companies.current(lock=True), work.orders.any())
        company = company.at(self.version).edit(self.given("version"), has_orders=has_orders, at=work.now)
        work.save(company)
        return company


class ReadCompany(Query[Company], frozen=True, kw_only=True):
    """The company and its settings."""

    needs = Permission.COMPANY_READ

    async def run(self, reads: Reads) -> Company:
        return await reads.companies.current()


class ReadMe(Query[views.MeView], frozen=True, kw_only=True):
    """Whose key this is, and what it may do."""

    needs = None

    async def run(self, reads: Reads) -> views.MeView:
        return views.me(await reads.companies.current(), reads.actor)


# --- who works for it ------------------------------------------------------------------------

LINKS_PER_INVITATION: Final = 5
"""How often the same invitation is mailed again in an hour."""

COMPANIES_MAX: Final = 20
"""Companies that one person may own or work for when they open another."""

_Role = Annotated[Role, Meta(examples=["MEMBER"])]


async def there(work: Work) -> Company:
    """The company, locked: who may do what to whom must not change in between. Raises `NotFound`."""
    company = await work.companies.current(lock=True)
    if company.deleted_at is not None:
        raise NotFound("company_not_found")
    return company


async def acting(work: Work, needs: Permission) -> Membership | None:
    """The membership of whoever acts, under the company's lock; nobody's when it is an operator.

    What they may do is asked once more here, since their role can have changed after the door. Raises
    `Forbidden`, also for a key, and for somebody an embedding host vouches for, who is no member.
    """
    await there(work)
    if work.actor.kind is ActorKind.SYSTEM:
        return None
    signed_in = work.actor.kind is ActorKind.USER and work.actor.session_id is not None
    by = await work.members.of_user(work.actor.id) if signed_in else None
    if by is None or needs not in ROLE_PERMISSIONS[by.role]:
        raise Forbidden("forbidden")
    return by


class ListMembers(Query[Page[Member]], frozen=True, kw_only=True):
    """Everybody in the team, newest first."""

    needs = Permission.MEMBERS_READ

    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Member]:
        return await reads.members.page(limit=self.limit, cursor=self.cursor)


class ReadMember(Query[Membership], frozen=True, kw_only=True):
    """The member who goes by an address. Raises `NotFound`."""

    needs = Permission.MEMBERS_READ

    email: fields.Email

    async def run(self, reads: Reads) -> Membership:
        member = await reads.members.by_email(canonical_email(self.email))
        if member is None:
            raise NotFound("member_not_found")
        return member


class ChangeRole(Command[Membership], frozen=True, kw_only=True):
    """Make a member an admin, or the other way round: then what they have offered to others is taken back."""

    needs = Permission.MEMBERS_MANAGE

    member_id: fields.MemberIdInPath
    role: _Role

    async def run(self, work: Work) -> Membership:
        by = await acting(work, Permission.MEMBERS_MANAGE)
        before = await work.members.get(self.member_id)
        member = before.change_role(self.role, by=by, at=work.now)
        work.save(member)
        if member.role is Role.MEMBER and before.role is not Role.MEMBER:
            await _withdraw(work, member)
        return member


class RemoveMember(Command[None], frozen=True, kw_only=True):
    """Put somebody out of the team. What they have offered to others is taken back with them."""

    needs = Permission.MEMBERS_INVITE

    member_id: fields.MemberIdInPath

    async def run(self, work: Work) -> None:
        by = await acting(work, Permission.MEMBERS_INVITE)
        member = await work.members.get(self.member_id)
        await _gone(work, member.remove(by=by, at=work.now))


class LeaveCompany(Command[None], frozen=True, kw_only=True):
    """Leave the company one is working in."""

    needs = Permission.MEMBERS_READ

    async def run(self, work: Work) -> None:
        by = await acting(work, Permission.MEMBERS_READ)
        if by is None:
            raise Forbidden("forbidden")
        await _gone(work, by.leave(at=work.now))


async def _gone(work: Work, member: Membership) -> None:
    work.save(member)
    await _withdraw(work, member)


async def _withdraw(work: Work, member: Membership) -> None:
    """Take back what somebody has offered who could not offer it any more."""
    for invitation in await work.invitations.by(member.id):
        work.save(invitation.revoke(at=work.now))


class TransferOwnership(Process[None], frozen=True, kw_only=True):
    """Hand the company over to an admin, with one's password; one is an admin then."""

    needs = Permission.MEMBERS_MANAGE

    member_id: fields.Uuid
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        if outside.actor.company_id is None or outside.actor.kind is not ActorKind.USER:
            raise Forbidden("forbidden")
        await prove(outside, self.password)
        await outside.inside(outside.actor.company_id, HandOver(member_id=self.member_id))


class HandOver(Command[None], frozen=True, kw_only=True):
    """Make an admin the owner, and the owner an admin."""

    needs = None
    internal = True

    member_id: fields.Uuid

    async def run(self, work: Work) -> None:
        owner = await acting(work, Permission.MEMBERS_MANAGE)
        heir = await work.members.get(self.member_id)
        if owner is None:
            raise Forbidden("forbidden")
        work.save(*owner.hand_over(heir, at=work.now))


class DeleteCompany(Process[None], frozen=True, kw_only=True):
    """End the company: its name typed, one's password given. Nobody gets in any more, at once.

    Raises `Refused` (subscription_runs) while its subscription is live and not set to end.
    """

    needs = Permission.COMPANY_DELETE

    name: _Name
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        if outside.actor.company_id is None or outside.actor.kind is not ActorKind.USER:
            raise Forbidden("forbidden")
        await prove(outside, self.password)
        await outside.inside(outside.actor.company_id, EndCompany(name=self.name))


class EndCompany(Command[None], frozen=True, kw_only=True):
    """End the company, if this is its name, and unless it would be charged on: nobody could end that then."""

    needs = None
    internal = True

    name: _Name

    async def run(self, work: Work) -> None:
        await acting(work, Permission.COMPANY_DELETE)
        ended = (await work.companies.current(lock=True)).delete(self.name, at=work.now)
        if (await work.subscriptions.current(at=work.now, lock=True)).runs_on:
            raise Refused("subscription_runs")
        work.save(ended)


class OpenCompany(Process[None], frozen=True, kw_only=True):
    """Found another company of one's own, and work in it from now on."""

    needs = Permission.ACCOUNT

    company_name: _Name

    async def run(self, outside: Outside) -> None:
        if outside.home != REALM:
            raise NotFound("not_found")
        await outside.limit("company", outside.actor.id, COMPANIES_MAX, 86_400.0)
        company_id = CompanyId(outside.entropy.uuid())
        await outside.inside(REALM, CountSeats())
        await found(outside, company_id, self.company_name, outside.actor.id)
        await outside.inside(REALM, SwitchTo(company_id=company_id))


class CountSeats(Query[None], frozen=True, kw_only=True):
    """Raises `Refused` (too_many) when the actor works for as many companies as anybody may."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> None:
        if len(await reads.users.seats(reads.actor.id)) >= COMPANIES_MAX:
            raise Refused("too_many", f"A person works for at most {COMPANIES_MAX} companies.")


# --- who is invited --------------------------------------------------------------------------


class ListInvitations(Query[Page[Invitation]], frozen=True, kw_only=True):
    """Places that are offered, newest first."""

    needs = Permission.MEMBERS_INVITE

    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Invitation]:
        return await reads.invitations.page(limit=self.limit, cursor=self.cursor)


class InviteMember(Command[Invitation], frozen=True, kw_only=True):
    """Offer an address a place in the team, as MEMBER or ADMIN. The link is good for seven days."""

    needs = Permission.MEMBERS_INVITE

    email: fields.Email
    role: _Role

    async def run(self, work: Work) -> Invitation:
        by = await acting(work, Permission.MEMBERS_INVITE)
        company, count = await work.together(work.companies.current(), work.invitations.count())
        if count >= INVITATIONS_MAX:
            raise Refused("too_many", f"At most {INVITATIONS_MAX} invitations are out at once.")
        if await work.members.by_email(canonical_email(self.email)) is not None:
            raise Conflict("already_member")
        await billing.admit(work, Counted.SEATS)
        secret = work.entropy(32)
        invitation = Invitation.offer(
            company_id=work.company_id,
            id=work.new_id(),
            email=self.email,
            role=self.role,
            by=by,
            entropy=secret,
            at=work.now,
        )
        work.save(invitation)
        _mail(work, invitation, company, secret)
        return invitation


class EditInvitation(Command[Invitation], frozen=True, kw_only=True):
    """Offer another role to somebody who has not accepted yet."""

    needs = Permission.MEMBERS_INVITE

    invitation_id: fields.InvitationIdInPath
    role: _Role

    async def run(self, work: Work) -> Invitation:
        by = await acting(work, Permission.MEMBERS_INVITE)
        invitation = (await work.invitations.get(self.invitation_id)).edit(self.role, by=by, at=work.now)
        work.save(invitation)
        return invitation


class ResendInvitation(Process[None], frozen=True, kw_only=True):
    """Mail an invitation once more, with a new link; the one before is good for nothing any more."""

    needs = Permission.MEMBERS_INVITE

    invitation_id: fields.InvitationIdInPath

    async def run(self, outside: Outside) -> None:
        if outside.actor.company_id is None:
            raise Forbidden("forbidden")
        await outside.limit("invitation", self.invitation_id, LINKS_PER_INVITATION, HOUR_S)
        mail = MailInvitation(invitation_id=self.invitation_id)
        await outside.inside(outside.actor.company_id, mail)


class MailInvitation(Command[None], frozen=True, kw_only=True):
    """Mail an invitation with a new link."""

    needs = None
    internal = True

    invitation_id: fields.Uuid

    async def run(self, work: Work) -> None:
        await acting(work, Permission.MEMBERS_INVITE)
        invitation, company = await work.together(
            work.invitations.get(self.invitation_id), work.companies.current()
        )
        secret = work.entropy(32)
        work.save(invitation.send_again(secret, at=work.now))
        _mail(work, invitation, company, secret)


class RevokeInvitation(Command[None], frozen=True, kw_only=True):
    """Take an invitation back."""

    needs = Permission.MEMBERS_INVITE

    invitation_id: fields.InvitationIdInPath

    async def run(self, work: Work) -> None:
        await acting(work, Permission.MEMBERS_INVITE)
        work.save((await work.invitations.get(self.invitation_id)).revoke(at=work.now))


def _mail(work: Work, invitation: Invitation, company: Company, secret: bytes) -> None:
    token = Link.token(work.company_id, invitation.id, secret)
    by = work.actor.label if work.actor.kind is ActorKind.USER else ""
    letter = letters.Invited(company=company.name, role=invitation.role.lower(), inviter=by)
    work.mail(invitation.email, letter, token=token)


class ReadInvitation(Process[profiles.OfferView], frozen=True, kw_only=True):
    """What an invitation offers, to whoever holds its link."""

    needs = Permission.VISIT

    token: fields.Password

    async def run(self, outside: Outside) -> profiles.OfferView:
        await knock(outside, "link", LINKS_PER_IP, QUARTER_S)
        _, offer = await _offered(outside, self.token)
        return offer


class AcceptInvitation(Process[None], frozen=True, kw_only=True):
    """Take a place that was offered, with a new account. The link proves the address.

    Raises `Conflict` (sign_in_first) for an address that has an account.
    """

    needs = Permission.VISIT

    token: fields.Password
    full_name: Name
    password: fields.Password

    async def run(self, outside: Outside) -> None:
        await knock(outside, "link", LINKS_PER_IP, QUARTER_S)
        link, offer = await _offered(outside, self.token)
        password_hash = await hashed(outside, self.password, (offer.email, self.full_name, offer.company))
        user = await outside.inside(
            REALM, AddUser(email=offer.email, full_name=self.full_name, password_hash=password_hash)
        )
        # From here on the same link works for the account that there is now, signed in.
        await _take(outside, link, user.id)


class AcceptInvitationAs(Process[None], frozen=True, kw_only=True):
    """Take a place that was offered to one's own address, and work there from now on.

    Raises `Forbidden` (another_address) when it was offered to another one.
    """

    needs = Permission.ACCOUNT

    token: fields.Password

    async def run(self, outside: Outside) -> None:
        if outside.home != REALM:
            raise Refused("invalid_token")
        link, offer = await _offered(outside, self.token)
        if offer.email != outside.actor.label:
            raise Forbidden("another_address")
        await _take(outside, link, outside.actor.id)
        await outside.inside(REALM, SwitchTo(company_id=link.company_id))


async def _take(outside: Outside, link: Link, user_id: str) -> None:
    """Take the place for a user, who is not of the company yet: what it pays for is not told them.

    Raises `Refused` (invalid_token, not_accepting), `Conflict` (already_member).
    """
    place = TakePlace(invitation_id=link.subject, digest=link.digest.hex(), user_id=user_id)
    try:
        await outside.inside(link.company_id, place)
    except PaymentRequired:
        raise not_accepting() from None


async def _offered(outside: Outside, token: str) -> tuple[Link, profiles.OfferView]:
    """A link that is good, and what it offers. Raises `Refused` (invalid_token)."""
    link = Link.of(Secret(token))
    find = FindOffer(invitation_id=link.subject, digest=link.digest.hex())
    try:
        return link, await outside.inside(link.company_id, find)
    except NotFound:  # no such company, or none such of this one
        raise Refused("invalid_token") from None


class FindOffer(Query[profiles.OfferView], frozen=True, kw_only=True):
    """What a link offers, if it is good. Raises `Refused` (invalid_token), or `NotFound`."""

    needs = None
    internal = True

    invitation_id: fields.Uuid
    digest: Digest

    async def run(self, reads: Reads) -> profiles.OfferView:
        company, invitation = await reads.together(
            reads.companies.current(), reads.invitations.get(self.invitation_id)
        )
        invitation.admits(bytes.fromhex(self.digest), at=reads.now)
        if company.deleted_at is not None or company.suspended_at is not None:
            raise Refused("invalid_token")
        return profiles.offer(invitation, company)


class AddUser(Command[User], frozen=True, kw_only=True):
    """A user whose address is proven. Raises `Conflict` (sign_in_first) when the address has an account.

    One that was never verified is nobody's: whoever proves the address gets it, with a password of theirs.
    """

    needs = None
    internal = True

    email: fields.Email
    full_name: Name
    password_hash: Annotated[str, Meta(min_length=1, max_length=300)] | None

    async def run(self, work: Work) -> User:
        login = await work.logins.by_email(canonical_email(self.email))
        if login is None:
            user = User.create(id=work.new_id(), email=self.email, full_name=self.full_name, at=work.now)
            credentials = Credentials.create(
                company_id=work.company_id,
                id=user.id,
                password_hash=self.password_hash,
                verified=True,
                at=work.now,
            )
        elif login.credentials.verified_at is None and self.password_hash is not None:
            user = (await work.users.get(login.id)).renamed(self.full_name, at=work.now)
            credentials = login.credentials.claimed(self.password_hash, at=work.now)
        else:
            raise Conflict("sign_in_first")
        work.save(user, credentials)
        return user


class TakePlace(Command[None], frozen=True, kw_only=True):
    """Accept an invitation for a user. Raises `Refused` (invalid_token), `Conflict` (already_member)."""

    needs = None
    internal = True

    invitation_id: fields.Uuid
    digest: Digest
    user_id: fields.Uuid

    async def run(self, work: Work) -> None:
        invitation = await work.invitations.get(self.invitation_id)
        accepted = invitation.accept(bytes.fromhex(self.digest), self.user_id, at=work.now)
        await billing.admit(work, Counted.SEATS, own=1)
        member = Membership.join(
            company_id=work.company_id,
            id=work.new_id(),
            user_id=self.user_id,
            role=accepted.role,
            at=work.now,
        )
        work.save(accepted, member)
