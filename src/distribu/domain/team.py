"""The company: the tenant, its terms of trade, and the people who work for it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from distribu.domain.access import Role, Standing
from distribu.domain.accounts import Purpose, Ticket
from distribu.domain.audit import Entry
from distribu.domain.entity import Entity, Event, edited
from distribu.domain.errors import Forbidden, Invalid, Refused
from distribu.domain.values import (
    ZERO,
    CompanyId,
    Money,
    Rate,
    canonical_email,
    canonical_slug,
    currency,
    exact_rate,
    slug_of,
    time_zone,
)


class Registration(StrEnum):
    """Who may register at the company's storefront."""

    OPEN = "OPEN"
    APPROVAL = "APPROVAL"
    CLOSED = "CLOSED"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyCreated(Event):
    name: ClassVar[str] = "company.created"
    company_name: str
    slug: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyEdited(Event):
    name: ClassVar[str] = "company.updated"
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanySuspended(Event):
    name: ClassVar[str] = "company.suspended"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyResumed(Event):
    name: ClassVar[str] = "company.resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyDeleted(Event):
    """Nobody gets in any more; the rows are purged when `PURGE_AFTER` has passed."""

    name: ClassVar[str] = "company.deleted"


PURGE_AFTER: Final = timedelta(days=30)
"""How long the rows of a deleted company are kept. `purgeable` in the database says the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompanyPurged(Entry):
    """In the platform's log: all that is left to say of a company. ``rows`` are those that were deleted."""

    name: ClassVar[str] = "company.purged"
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Company(Entity):
    """A distributor. ``id`` and ``company_id`` are the same. Renaming keeps the slug.

    ``api_limit`` is its own number of API requests a minute for a key; None is the installation's.
    """

    id: CompanyId
    name: str
    slug: str
    currency: str = "USD"
    time_zone: str = "UTC"
    tax_rate: Rate
    shipping: Money = ZERO
    order_minimum: Money = ZERO
    return_window_days: int = 30
    registration: Registration = Registration.OPEN
    require_second_factor: bool = False
    api_limit: int | None = None
    suspended_at: datetime | None = None
    deleted_at: datetime | None = None

    @property
    def standing(self) -> Standing:
        """Whether anybody gets in."""
        if self.deleted_at is not None:
            return Standing.DELETED
        return Standing.OPEN if self.suspended_at is None else Standing.SUSPENDED

    @classmethod
    def found(
        cls,
        *,
        id: CompanyId,
        name: str,
        slug: str | None,
        currency_code: str,
        at: datetime,
    ) -> Self:
        """A new company; without a slug, one made of its name. Raises `Invalid`."""
        slug = slug_of(name) if slug is None else canonical_slug(slug)
        return cls(
            company_id=id,
            id=id,
            name=name,
            slug=slug,
            currency=currency(currency_code),
            tax_rate=exact_rate(ZERO),
            created_at=at,
            updated_at=at,
            events=(CompanyCreated(company_name=name, slug=slug),),
        )

    def edit(self, changes: dict[str, Any], *, has_orders: bool, at: datetime) -> Self:
        """Change settings. Raises `Invalid`, or `Refused` (currency_fixed) once there is an order."""
        if "slug" in changes:
            changes["slug"] = canonical_slug(changes["slug"])
        if "time_zone" in changes:
            time_zone(changes["time_zone"])
        if "currency" in changes and currency(changes["currency"]) != self.currency and has_orders:
            raise Refused("currency_fixed")
        before, after = edited(self, changes)
        return self._after(CompanyEdited(before=before, after=after), at=at, **after) if after else self

    def limited(self, api_limit: int | None, *, at: datetime) -> Self:
        """Give it another number of API requests a minute for a key; None is the installation's."""
        before, after = edited(self, {"api_limit": api_limit})
        return self._after(CompanyEdited(before=before, after=after), at=at, **after) if after else self

    def suspend(self, reason: str, *, at: datetime) -> Self:
        """Keep everybody out until it is resumed. Raises `Refused` (already_suspended)."""
        if self.suspended_at is not None:
            raise Refused("already_suspended")
        return self._after(CompanySuspended(reason=reason), at=at, suspended_at=at)

    def resume(self, *, at: datetime) -> Self:
        """Let everybody in again. Raises `Refused` (not_suspended)."""
        if self.suspended_at is None:
            raise Refused("not_suspended")
        return self._after(CompanyResumed(), at=at, suspended_at=None)

    def delete(self, name: str, *, at: datetime) -> Self:
        """End it: ``name`` is typed by its owner. Raises `Invalid` when that is another name."""
        if name != self.name:
            raise Invalid("invalid_request", fields={"name": "is not the name of the company"})
        return self._after(CompanyDeleted(), at=at, deleted_at=at)


# --- who works for it ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberJoined(Event):
    name: ClassVar[str] = "member.joined"
    user_id: str
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRoleChanged(Event):
    name: ClassVar[str] = "member.role_changed"
    user_id: str
    before: Role
    after: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRemoved(Event):
    """``left``: they went by themselves."""

    name: ClassVar[str] = "member.removed"
    user_id: str
    role: Role
    left: bool


_RANK: Final[Mapping[Role, int]] = {Role.MEMBER: 1, Role.ADMIN: 2, Role.OWNER: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Membership(Entity):
    """What a user is in one company. There is exactly one OWNER, always.

    The rules of who may do what to whom are here, so that no door can forget one. ``by`` is the
    membership of the person who acts; None is an operator or a job.
    """

    user_id: str
    role: Role
    removed_at: datetime | None = None

    @classmethod
    def join(cls, *, company_id: CompanyId, id: str, user_id: str, role: Role, at: datetime) -> Self:
        """A new member."""
        return cls(
            company_id=company_id,
            id=id,
            user_id=user_id,
            role=role,
            created_at=at,
            updated_at=at,
            events=(MemberJoined(user_id=user_id, role=role),),
        )

    def change_role(self, role: Role, *, by: "Membership | None", at: datetime) -> Self:
        """Make a member an admin, or the other way round.

        Raises `Forbidden` when ``by`` is not the owner, `Refused` (owner_stays) for the owner's own
        role, or for the role of owner, which is transferred.
        """
        if by is not None and by.role is not Role.OWNER:
            raise Forbidden("forbidden")
        if self.role is Role.OWNER or role is Role.OWNER:
            raise Refused("owner_stays")
        if role is self.role:
            return self
        event = MemberRoleChanged(user_id=self.user_id, before=self.role, after=role)
        return self._after(event, at=at, role=role)

    def remove(self, *, by: "Membership | None", at: datetime) -> Self:
        """Put somebody out. Raises `Refused` (owner_stays, not_oneself), or `Forbidden` by the matrix."""
        if self.role is Role.OWNER:
            raise Refused("owner_stays")
        if by is not None:
            if by.id == self.id:
                raise Refused("not_oneself")
            if _RANK[by.role] <= _RANK[self.role]:
                raise Forbidden("forbidden")
        event = MemberRemoved(user_id=self.user_id, role=self.role, left=False)
        return self._after(event, at=at, removed_at=at)

    def leave(self, *, at: datetime) -> Self:
        """Go. Raises `Refused` (owner_stays): an owner transfers or deletes the company first."""
        if self.role is Role.OWNER:
            raise Refused("owner_stays")
        event = MemberRemoved(user_id=self.user_id, role=self.role, left=True)
        return self._after(event, at=at, removed_at=at)

    def hand_over(self, to: "Membership", *, at: datetime) -> tuple[Self, "Membership"]:
        """The two after the ownership went from this one to ``to``, which is an admin.

        Raises `Forbidden` when this is not the owner, `Refused` (not_an_admin).
        """
        if self.role is not Role.OWNER:
            raise Forbidden("forbidden")
        event = MemberRoleChanged(user_id=self.user_id, before=Role.OWNER, after=Role.ADMIN)
        return self._after(event, at=at, role=Role.ADMIN), to.inherit(at=at)

    def inherit(self, *, at: datetime) -> Self:
        """The other half of `hand_over`: an admin becomes the owner. Raises `Refused` (not_an_admin)."""
        if self.role is not Role.ADMIN:
            raise Refused("not_an_admin")
        event = MemberRoleChanged(user_id=self.user_id, before=self.role, after=Role.OWNER)
        return self._after(event, at=at, role=Role.OWNER)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberInvited(Event):
    name: ClassVar[str] = "member.invited"
    role: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationEdited(Event):
    name: ClassVar[str] = "invitation.updated"
    before: Role
    after: Role


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationSentAgain(Event):
    name: ClassVar[str] = "invitation.sent_again"


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationAccepted(Event):
    name: ClassVar[str] = "invitation.accepted"
    user_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InvitationRevoked(Event):
    name: ClassVar[str] = "invitation.revoked"


INVITATIONS_MAX: Final = 200
"""Invitations of a company that are out at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation(Entity):
    """A place in the team that is offered to an address. ``invited_by`` is a membership, or nobody's."""

    email: str
    role: Role
    ticket: Ticket = field(repr=False)
    invited_by: str | None
    accepted_at: datetime | None = None
    revoked_at: datetime | None = None

    @classmethod
    def offer(
        cls,
        *,
        company_id: CompanyId,
        id: str,
        email: str,
        role: Role,
        by: Membership | None,
        entropy: bytes,
        at: datetime,
    ) -> Self:
        """Invite an address. Raises `Invalid`, or as `_offered` does."""
        _offered(role, by)
        return cls(
            company_id=company_id,
            id=id,
            email=canonical_email(email),
            role=role,
            ticket=Ticket.issue(Purpose.INVITE, entropy, at=at),
            invited_by=by.id if by is not None else None,
            created_at=at,
            updated_at=at,
            events=(MemberInvited(role=role),),
        )

    @property
    def open(self) -> bool:
        """Whether it can still be accepted, in time."""
        return self.accepted_at is None and self.revoked_at is None

    def edit(self, role: Role, *, by: Membership | None, at: datetime) -> Self:
        """Offer another role. Raises `Refused` (invitation_over), or as `offer` does."""
        self._still_open()
        _offered(role, by)
        if role is self.role:
            return self
        return self._after(InvitationEdited(before=self.role, after=role), at=at, role=role)

    def send_again(self, entropy: bytes, *, at: datetime) -> Self:
        """A new link for another seven days; the one before ends. Raises `Refused` (invitation_over)."""
        self._still_open()
        return self._after(InvitationSentAgain(), at=at, ticket=Ticket.issue(Purpose.INVITE, entropy, at=at))

    def revoke(self, *, at: datetime) -> Self:
        """Take it back. Raises `Refused` (invitation_over)."""
        self._still_open()
        return self._after(InvitationRevoked(), at=at, revoked_at=at)

    def admits(self, digest: bytes, *, at: datetime) -> None:
        """Raises `Refused` (invalid_token) unless a link with this digest is good now."""
        if not (self.open and self.ticket.admits(digest, Purpose.INVITE, at=at)):
            raise Refused("invalid_token")

    def accept(self, digest: bytes, user_id: str, *, at: datetime) -> Self:
        """Take the place. Raises `Refused` (invalid_token)."""
        self.admits(digest, at=at)
        return self._after(InvitationAccepted(user_id=user_id), at=at, accepted_at=at)

    def _still_open(self) -> None:
        if not self.open:
            raise Refused("invitation_over")


def _offered(role: Role, by: Membership | None) -> None:
    """Raises `Forbidden` for a role above one's own, `Refused` (owner_stays) for that of owner."""
    if role is Role.OWNER:
        raise Refused("owner_stays")
    if by is not None and _RANK[by.role] < _RANK[role]:
        raise Forbidden("forbidden")
