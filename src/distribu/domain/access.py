"""Who acts, what they may do, and the keys machines act with."""

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from distribu.domain.entity import Entity, Event, edited
from distribu.domain.errors import Forbidden, Invalid, Refused
from distribu.domain.factors import FactorState
from distribu.domain.values import ApiKeyId, CompanyId, CustomerId, Secret

API_KEYS_MAX: Final = 1_000
"""Keys a company may have that are not revoked."""

VISITOR: Final = "visitor"
"""What the audit log calls somebody who has not signed in."""

ACTOR_ID_MAX: Final = 100
ACTOR_LABEL_MAX: Final = 300
IP_MAX: Final = 45


class Permission(StrEnum):
    """What a request can need. The first nine are the scopes of API keys; no key holds another."""

    PRODUCTS_READ = "products:read"
    PRODUCTS_WRITE = "products:write"
    ORDERS_READ = "orders:read"
    ORDERS_WRITE = "orders:write"
    CUSTOMERS_READ = "customers:read"
    CUSTOMERS_WRITE = "customers:write"
    REPORTS_READ = "reports:read"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"

    API_KEYS_MANAGE = "api_keys:manage"
    AUDIT_READ = "audit:read"
    AUDIT_WRITE = "audit:write"
    AUDIT_ERASE = "audit:erase"
    COMPANY_READ = "company:read"
    COMPANY_MANAGE = "company:manage"
    COMPANY_CREATE = "company:create"
    COMPANY_DELETE = "company:delete"
    BILLING_MANAGE = "billing:manage"
    MEMBERS_READ = "members:read"
    MEMBERS_INVITE = "members:invite"
    MEMBERS_MANAGE = "members:manage"
    CONTACTS_MANAGE = "contacts:manage"

    ACCOUNT = "account"
    """One's own account: everybody who is signed in."""
    SECOND_FACTOR = "second_factor"
    """The second factor itself: whoever has given a password and is still to show it."""
    VISIT = "visit"
    """What is done before signing in: nobody else holds it."""
    PLATFORM = "platform"
    """The platform's own pages: super-admins and its operator."""


SCOPES: Final = tuple(Permission)[:9]

_SALES: Final = frozenset(
    {
        Permission.PRODUCTS_READ,
        Permission.PRODUCTS_WRITE,
        Permission.ORDERS_READ,
        Permission.ORDERS_WRITE,
        Permission.CUSTOMERS_READ,
        Permission.CUSTOMERS_WRITE,
        Permission.REPORTS_READ,
        Permission.COMPANY_READ,
        Permission.MEMBERS_READ,
        Permission.CONTACTS_MANAGE,
    }
)
_OWNERS_ALONE: Final = frozenset(
    {Permission.MEMBERS_MANAGE, Permission.COMPANY_DELETE, Permission.BILLING_MANAGE, Permission.AUDIT_ERASE}
)
_OF_THE_COMPANY: Final = frozenset(Permission) - {
    Permission.COMPANY_CREATE,
    Permission.ACCOUNT,
    Permission.SECOND_FACTOR,
    Permission.VISIT,
    Permission.PLATFORM,
}


class Standing(StrEnum):
    """Whether a company is open to anybody: its staff, its customers, its keys."""

    OPEN = "OPEN"
    SUSPENDED = "SUSPENDED"
    DELETED = "DELETED"


class Role(StrEnum):
    """What a member of staff is in one company."""

    OWNER = "OWNER"
    ADMIN = "ADMIN"
    MEMBER = "MEMBER"


class ContactRole(StrEnum):
    """What a person is for the customer they sign in for."""

    ADMIN = "ADMIN"
    BUYER = "BUYER"
    VIEWER = "VIEWER"


ROLE_PERMISSIONS: Final = {
    Role.OWNER: _OF_THE_COMPANY | {Permission.ACCOUNT},
    Role.ADMIN: (_OF_THE_COMPANY - _OWNERS_ALONE) | {Permission.ACCOUNT},
    Role.MEMBER: _SALES | {Permission.ACCOUNT},
}
_SHOPPING: Final = frozenset(
    {
        Permission.PRODUCTS_READ,
        Permission.ORDERS_READ,
        Permission.CUSTOMERS_READ,
        Permission.COMPANY_READ,
        Permission.ACCOUNT,
    }
)
CONTACT_PERMISSIONS: Final = {
    ContactRole.ADMIN: _SHOPPING | {Permission.ORDERS_WRITE, Permission.CONTACTS_MANAGE},
    ContactRole.BUYER: _SHOPPING | {Permission.ORDERS_WRITE},
    ContactRole.VIEWER: _SHOPPING,
}


_OF_THE_PLATFORM: Final = frozenset({Permission.COMPANY_CREATE, Permission.PLATFORM})


class ActorKind(StrEnum):
    """USER and CUSTOMER are people; API_KEY and SYSTEM are not."""

    USER = "USER"
    CUSTOMER = "CUSTOMER"
    API_KEY = "API_KEY"
    SYSTEM = "SYSTEM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, where, and with what permission.

    ``company_id`` is None for the platform itself, and for a user who is in no company just now.
    ``customer_id`` binds a contact to its customer: everything of another customer does not exist
    for it. ``label`` and ``ip`` name a person and are kept apart from the record that cites them.
    ``session_id`` is that of somebody who is signed in. ``barred`` is the code that is said instead
    of "forbidden" to somebody who is kept out for a reason of its own.

    Raises `Invalid` when ``id``, ``label`` or ``ip`` cannot be kept as they are: an embedding host says
    them, and they are in every record.
    """

    kind: ActorKind
    id: str = ""
    label: str
    company_id: CompanyId | None
    customer_id: CustomerId | None = None
    permissions: frozenset[Permission]
    ip: str | None = None
    session_id: str | None = None
    barred: str | None = None

    def __post_init__(self) -> None:
        _kept("id", self.id, ACTOR_ID_MAX)
        _kept("label", self.label, ACTOR_LABEL_MAX)
        if self.ip is not None:
            _kept("ip", self.ip, IP_MAX)

    @property
    def is_outsider(self) -> bool:
        """Whether they are not of the company: a visitor, or somebody who acts for a customer."""
        return self.kind is ActorKind.CUSTOMER or Permission.VISIT in self.permissions

    def require(self, permission: Permission | None) -> None:
        """Raises `Forbidden` unless this actor holds ``permission`` (None: anyone who got this far)."""
        if permission in self.permissions:
            return
        if self.barred is not None:
            raise Forbidden(self.barred)
        if permission is None:
            return
        if self.kind is ActorKind.API_KEY and permission in SCOPES:
            no = f"This key lacks the scope {permission.value}."
            raise Forbidden("missing_scope", no, lacks=permission.value)
        raise Forbidden("forbidden", lacks=permission.value)

    @classmethod
    def system(cls, company_id: CompanyId | None, label: str = "system") -> Self:
        """A job, a webhook, or an operator at the command line."""
        permissions = _OF_THE_PLATFORM if company_id is None else _OF_THE_COMPANY
        return cls(kind=ActorKind.SYSTEM, label=label, company_id=company_id, permissions=permissions)

    @classmethod
    def visitor(cls, *, company_id: CompanyId | None = None, ip: str | None = None) -> Self:
        """Somebody who has not signed in: at the platform's door, or at that of a store."""
        return cls(
            kind=ActorKind.USER if company_id is None else ActorKind.CUSTOMER,
            label=VISITOR,
            company_id=company_id,
            permissions=frozenset({Permission.VISIT}),
            ip=ip,
        )

    @classmethod
    def staff(cls, company_id: CompanyId, role: Role, *, id: str, label: str, ip: str | None = None) -> Self:
        """A member of staff whom an embedding host vouches for: all of their role (`ROLE_PERMISSIONS`), but
        for an account, which they do not have here."""
        return cls(
            kind=ActorKind.USER,
            id=id,
            label=label,
            company_id=company_id,
            permissions=ROLE_PERMISSIONS[role] - {Permission.ACCOUNT},
            ip=ip,
        )

    @classmethod
    def contact(
        cls,
        company_id: CompanyId,
        customer_id: CustomerId,
        role: ContactRole,
        *,
        id: str,
        label: str,
        ip: str | None = None,
    ) -> Self:
        """Somebody who acts for one customer, whom an embedding host vouches for: no account here either."""
        return cls(
            kind=ActorKind.CUSTOMER,
            id=id,
            label=label,
            company_id=company_id,
            customer_id=customer_id,
            permissions=CONTACT_PERMISSIONS[role] - {Permission.ACCOUNT},
            ip=ip,
        )


def _kept(name: str, text: str, most: int) -> None:
    if len(text) > most or "\0" in text or not (text.isascii() or _is_unicode(text)):
        no = f"must be Unicode text of up to {most} characters without U+0000"
        raise Invalid("invalid_request", fields={name: no})


def _is_unicode(text: str) -> bool:
    """Whether there is no half of a surrogate pair in it, which no store takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyCreated(Event):
    name: ClassVar[str] = "api_key.created"
    key_name: str
    prefix: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyEdited(Event):
    name: ClassVar[str] = "api_key.updated"
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyRevoked(Event):
    name: ClassVar[str] = "api_key.revoked"
    key_name: str
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey(Entity):
    """A machine's credential. The key itself is nowhere: only its SHA-256 and first eight characters."""

    id: ApiKeyId
    name: str
    prefix: str
    digest: bytes = field(repr=False)
    scopes: tuple[Permission, ...]
    expires_at: datetime | None
    revoked_at: datetime | None = None

    @staticmethod
    def key_from(entropy: bytes) -> Secret:
        """``dk_`` and 32 random bytes as base64url without padding: 46 characters."""
        return Secret("dk_" + urlsafe_b64encode(entropy).decode().rstrip("="))

    @staticmethod
    def digest_of(key: str) -> bytes:
        """What is stored of a key, and looked up by. Unsalted because a key is 256 random bits."""
        return hashlib.sha256(key.encode()).digest()

    @classmethod
    def create(
        cls,
        *,
        company_id: CompanyId,
        id: ApiKeyId,
        name: str,
        key: Secret,
        scopes: tuple[Permission, ...],
        expires_at: datetime | None,
        at: datetime,
    ) -> Self:
        """A new key. Raises `Invalid` for a scope that is none of the nine, or an expiry in the past."""
        if set(scopes) - set(SCOPES):
            raise Invalid("invalid_request", fields={"scopes": "holds something that is not a scope"})
        _to_come(expires_at, at)
        scopes = _sorted(scopes)
        prefix = key.reveal()[:8]
        return cls(
            company_id=company_id,
            id=id,
            name=name,
            prefix=prefix,
            digest=cls.digest_of(key.reveal()),
            scopes=scopes,
            expires_at=expires_at,
            created_at=at,
            updated_at=at,
            events=(ApiKeyCreated(key_name=name, prefix=prefix, scopes=scopes, expires_at=expires_at),),
        )

    def edit(self, changes: dict[str, Any], *, at: datetime) -> Self:
        """Give it another name or end, or take scopes from it.

        Raises `Refused` (already_revoked), and `Invalid` for an end in the past or a scope it does not
        have: whoever holds a key must not find that it opens more than it did when they were given it.
        """
        if self.revoked_at is not None:
            raise Refused("already_revoked")
        if "scopes" in changes:
            if set(changes["scopes"]) - set(self.scopes):
                no = "can only be taken away: make a new key for more"
                raise Invalid("invalid_request", fields={"scopes": no})
            changes = changes | {"scopes": _sorted(changes["scopes"])}
        _to_come(changes.get("expires_at"), at)
        before, after = edited(self, changes)
        return self._after(ApiKeyEdited(before=before, after=after), at=at, **after) if after else self

    def revoke(self, *, at: datetime) -> Self:
        """End the key at once. Raises `Refused` (already_revoked)."""
        if self.revoked_at is not None:
            raise Refused("already_revoked")
        return self._after(ApiKeyRevoked(key_name=self.name, prefix=self.prefix), at=at, revoked_at=at)


def _sorted(scopes: tuple[Permission, ...]) -> tuple[Permission, ...]:
    return tuple(scope for scope in SCOPES if scope in scopes)


def _to_come(expires_at: datetime | None, at: datetime) -> None:
    if expires_at is not None and expires_at <= at:
        raise Invalid("invalid_request", fields={"expiresAt": "is in the past"})


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant:
    """What the directory knows of an API key: enough to let it in, and no more."""

    company_id: CompanyId
    key_id: ApiKeyId
    name: str
    scopes: frozenset[Permission]
    expires_at: datetime | None
    revoked: bool
    standing: Standing = Standing.OPEN
    api_limit: int | None = None

    def actor(self, *, now: datetime, ip: str | None) -> Actor | None:
        """The actor this key is at ``now``; None when it is expired or revoked, or its company is gone."""
        over = self.revoked or self.standing is Standing.DELETED
        if over or (self.expires_at is not None and self.expires_at <= now):
            return None
        barred = "suspended" if self.standing is Standing.SUSPENDED else None
        return Actor(
            kind=ActorKind.API_KEY,
            id=self.key_id,
            label=self.name,
            company_id=self.company_id,
            permissions=frozenset() if barred else self.scopes,
            ip=ip,
            barred=barred,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A place a user has in a company, as it is known without asking the company."""

    company_id: CompanyId
    company_name: str
    company_slug: str
    standing: Standing
    membership_id: str
    role: Role
    require_second_factor: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StaffGrant:
    """What the directory knows of a user's session; ``seat`` is the one they are working in."""

    session_id: str
    user_id: str
    email: str
    live_until: datetime | None
    seen_at: datetime
    is_super_admin: bool
    factor: FactorState
    seat: Seat | None

    def actor(self, *, now: datetime, ip: str | None) -> Actor | None:
        """The user at ``now``; None when the session is over.

        Out of any company, in one that was deleted or is suspended, or in one that requires a second
        factor of somebody without one, they have their own account and no more; before they have shown
        the one they have, not even that.
        """
        if self.live_until is None or self.live_until <= now:
            return None
        if self.factor is FactorState.AWAITED:
            return Actor(
                kind=ActorKind.USER,
                id=self.user_id,
                label=self.email,
                company_id=None,
                permissions=frozenset({Permission.SECOND_FACTOR}),
                ip=ip,
                session_id=self.session_id,
                barred="second_factor_awaited",
            )
        permissions, barred, company_id = frozenset({Permission.ACCOUNT}), None, None
        if self.seat is not None and self.seat.standing is not Standing.DELETED:
            company_id = self.seat.company_id
            if self.seat.standing is Standing.SUSPENDED:
                barred = "suspended"
            elif self.seat.require_second_factor and self.factor is not FactorState.GIVEN:
                barred = "second_factor_required"
            else:
                permissions |= ROLE_PERMISSIONS[self.seat.role]
        if self.is_super_admin:
            permissions |= {Permission.PLATFORM}
        return Actor(
            kind=ActorKind.USER,
            id=self.user_id,
            label=self.email,
            company_id=company_id,
            permissions=permissions,
            ip=ip,
            session_id=self.session_id,
            barred=barred,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactGrant:
    """What the directory knows of a contact's session: nothing at another store."""

    session_id: str
    company_id: CompanyId
    customer_id: CustomerId
    contact_id: str
    email: str
    role: ContactRole
    live_until: datetime | None
    seen_at: datetime
    admitted: bool
    standing: Standing

    def actor(self, *, now: datetime, ip: str | None) -> Actor | None:
        """The contact at ``now``; None when the session is over, or contact or customer is not active."""
        if self.live_until is None or self.live_until <= now or not self.admitted:
            return None
        if self.standing is Standing.DELETED:
            return None
        barred = "suspended" if self.standing is Standing.SUSPENDED else None
        return Actor(
            kind=ActorKind.CUSTOMER,
            id=self.contact_id,
            label=self.email,
            company_id=self.company_id,
            customer_id=self.customer_id,
            permissions=frozenset() if barred else CONTACT_PERMISSIONS[self.role],
            ip=ip,
            session_id=self.session_id,
            barred=barred,
        )
