"""What may be seen of people: themselves, their sessions, a team, a customer's contacts."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final

from msgspec import Meta

from distribu.application.finders import CompanyCard, FailedJob, Member, Usage
from distribu.application.shapes import Id, Time, View, maybe, time
from distribu.domain.access import ContactRole, Role, Seat, Standing
from distribu.domain.accounts import Session, User
from distribu.domain.contacts import Contact
from distribu.domain.factors import FactorKind, SecondFactor
from distribu.domain.inquiries import Inquiry, InquiryKind
from distribu.domain.team import Company, Invitation, Membership
from distribu.domain.values import CompanyId, Secret


class SeatView(View, frozen=True, kw_only=True):
    company_id: Id
    company_name: Annotated[str, Meta(examples=["Acme Distributors"])]
    company_slug: Annotated[str, Meta(examples=["acme"])]
    role: Role
    current: bool


class AccountView(View, frozen=True, kw_only=True):
    id: Id
    email: Annotated[str, Meta(examples=["ada@acme.example"])]
    full_name: Annotated[str, Meta(examples=["Ada Marsh"])]
    time_zone: Annotated[str, Meta(examples=["Europe/Lisbon"])]
    role: ContactRole | None
    is_super_admin: bool
    companies: list[SeatView]


class InquiryView(View, frozen=True, kw_only=True):
    id: Id
    kind: InquiryKind
    full_name: str
    email: str
    text: str
    created_at: Time


class EnteredView(View, frozen=True, kw_only=True):
    """Who has signed in, and until when."""

    id: Id
    email: Annotated[str, Meta(examples=["ada@acme.example"])]
    full_name: Annotated[str, Meta(examples=["Ada Marsh"])]
    expires_at: Time
    awaited: list[FactorKind]


class SecondFactorView(View, frozen=True, kw_only=True):
    """What somebody can show beside a password."""

    app: bool
    passkeys: list["PasskeyView"]
    recovery_codes_left: int


class PasskeyView(View, frozen=True, kw_only=True):
    id: Annotated[str, Meta(examples=["aGVsbG8"])]
    name: Annotated[str, Meta(examples=["Ada's laptop"])]
    added_at: Time


class AppView(View, frozen=True, kw_only=True):
    """The secret for an app, and the link that a picture of it holds."""

    secret: Annotated[str, Meta(examples=["JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"])]
    link: Annotated[
        str, Meta(examples=["otpauth://totp/Distribu:ada%40acme.example?secret=JBSW&issuer=Distribu"])
    ]


class ChallengeView(View, frozen=True, kw_only=True):
    """What a browser is asked: the ``publicKey`` of its question, as JSON."""

    options: dict[str, Any]


class RecoveryCodesView(View, frozen=True, kw_only=True):
    """Recovery codes, which nobody can read again; none where there are some already."""

    codes: list[str]


class SessionView(View, frozen=True, kw_only=True):
    id: Id
    created_at: Time
    seen_at: Time
    expires_at: Time
    ip: str | None
    user_agent: str
    here: bool


class MembershipView(View, frozen=True, kw_only=True):
    id: Id
    user_id: Id
    role: Role
    created_at: Time


class MemberView(MembershipView, frozen=True, kw_only=True):
    """Somebody of the team, with what they are called."""

    email: Annotated[str, Meta(examples=["ada@acme.example"])]
    full_name: Annotated[str, Meta(examples=["Ada Marsh"])]


class InvitationView(View, frozen=True, kw_only=True):
    id: Id
    email: Annotated[str, Meta(examples=["ada@acme.example"])]
    role: Role
    expires_at: Time
    accepted_at: Time | None
    revoked_at: Time | None
    created_at: Time


class OfferView(View, frozen=True, kw_only=True):
    """What an invitation offers, to whoever holds its link."""

    company: Annotated[str, Meta(examples=["Acme Distributors"])]
    email: Annotated[str, Meta(examples=["ada@acme.example"])]
    role: Role
    expires_at: Time


class PersonView(View, frozen=True, kw_only=True):
    """A user, as those who run the platform see them."""

    id: Id
    email: Annotated[str, Meta(examples=["ada@acme.example"])]
    full_name: Annotated[str, Meta(examples=["Ada Marsh"])]
    is_super_admin: bool
    created_at: Time


class CompanyCardView(View, frozen=True, kw_only=True):
    id: Id
    name: Annotated[str, Meta(examples=["Acme Distributors"])]
    slug: Annotated[str, Meta(examples=["acme"])]
    standing: Standing
    api_limit: int | None


class UsageView(View, frozen=True, kw_only=True):
    members: int
    products: int
    customers: int
    orders: int
    orders_this_month: int
    api_keys: int
    webhooks: int


class FailedJobView(View, frozen=True, kw_only=True):
    company_id: Id
    kind: Annotated[str, Meta(examples=["mail"])]
    id: Id
    what: Annotated[str, Meta(examples=["order.created"])]
    error: str
    created_at: Time


class ContactView(View, frozen=True, kw_only=True):
    id: Id
    customer_id: Id
    email: Annotated[str, Meta(examples=["buyer@green-grocer.example"])]
    full_name: Annotated[str, Meta(examples=["Ada Marsh"])]
    role: ContactRole
    is_active: bool
    created_at: Time
    updated_at: Time


def account(it: User | Contact, seats: Sequence[Seat], current: CompanyId | None) -> AccountView:
    """Somebody, as they see themselves."""
    return AccountView(
        id=it.id,
        email=it.email,
        full_name=it.full_name,
        time_zone=it.time_zone,
        role=it.role if isinstance(it, Contact) else None,
        is_super_admin=it.is_super_admin if isinstance(it, User) else False,
        companies=[
            SeatView(
                company_id=seat.company_id,
                company_name=seat.company_name,
                company_slug=seat.company_slug,
                role=seat.role,
                current=seat.company_id == current,
            )
            for seat in seats
        ],
    )


def inquiry(it: Inquiry) -> InquiryView:
    """What somebody wrote."""
    return InquiryView(
        id=it.id,
        kind=it.kind,
        full_name=it.full_name,
        email=it.email,
        text=it.text,
        created_at=time(it.created_at),
    )


def second_factor(it: SecondFactor) -> SecondFactorView:
    """What somebody can show beside a password."""
    return SecondFactorView(
        app=it.app is not None,
        passkeys=[PasskeyView(id=one.id, name=one.name, added_at=time(one.added_at)) for one in it.passkeys],
        recovery_codes_left=len(it.recovery),
    )


def recovery_codes(codes: Sequence[Secret]) -> RecoveryCodesView:
    """Recovery codes to be written down."""
    return RecoveryCodesView(codes=[code.reveal() for code in codes])


def session(it: Session, *, here: bool) -> SessionView:
    """A device somebody is signed in on; ``here``: the one that asks."""
    return SessionView(
        id=it.id,
        created_at=time(it.created_at),
        seen_at=time(it.seen_at),
        expires_at=time(it.expires_at),
        ip=it.ip,
        user_agent=it.user_agent,
        here=here,
    )


def membership(it: Membership) -> MembershipView:
    """A place in the team."""
    return MembershipView(id=it.id, user_id=it.user_id, role=it.role, created_at=time(it.created_at))


def member(it: Member) -> MemberView:
    """Somebody of the team."""
    return MemberView(
        id=it.membership.id,
        user_id=it.membership.user_id,
        role=it.membership.role,
        created_at=time(it.membership.created_at),
        email=it.email,
        full_name=it.full_name,
    )


def invitation(it: Invitation) -> InvitationView:
    """A place that is offered; nothing of its link."""
    return InvitationView(
        id=it.id,
        email=it.email,
        role=it.role,
        expires_at=time(it.ticket.expires_at),
        accepted_at=maybe(it.accepted_at),
        revoked_at=maybe(it.revoked_at),
        created_at=time(it.created_at),
    )


def offer(it: Invitation, company: Company) -> OfferView:
    """What an invitation offers."""
    return OfferView(
        company=company.name, email=it.email, role=it.role, expires_at=time(it.ticket.expires_at)
    )


def contact(it: Contact) -> ContactView:
    """Somebody who orders for a customer."""
    return ContactView(
        id=it.id,
        customer_id=it.customer_id,
        email=it.email,
        full_name=it.full_name,
        role=it.role,
        is_active=it.is_active,
        created_at=time(it.created_at),
        updated_at=time(it.updated_at),
    )


def person(it: User) -> PersonView:
    """A user."""
    return PersonView(
        id=it.id,
        email=it.email,
        full_name=it.full_name,
        is_super_admin=it.is_super_admin,
        created_at=time(it.created_at),
    )


def card(it: CompanyCard) -> CompanyCardView:
    """A company from outside."""
    return CompanyCardView(id=it.id, name=it.name, slug=it.slug, standing=it.standing, api_limit=it.api_limit)


def usage(it: Usage) -> UsageView:
    """How much a company has."""
    return UsageView(
        members=it.members,
        products=it.products,
        customers=it.customers,
        orders=it.orders,
        orders_this_month=it.orders_this_month,
        api_keys=it.api_keys,
        webhooks=it.webhooks,
    )


def failed(it: FailedJob) -> FailedJobView:
    """What was given up."""
    return FailedJobView(
        company_id=it.company_id,
        kind=it.kind,
        id=it.id,
        what=it.what,
        error=it.error,
        created_at=time(it.created_at),
    )


VIEWS: Final[Mapping[type, Callable[[Any], View]]] = {
    Inquiry: inquiry,
    Membership: membership,
    Member: member,
    Invitation: invitation,
    Contact: contact,
    User: person,
    CompanyCard: card,
    Usage: usage,
    FailedJob: failed,
}
