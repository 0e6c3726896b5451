"""Who acts, what they may do, and the keys machines act with."""

import hashlib
from base64 import urlsafe_b64encode
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Self

from distribu.domain.entity import Entity, Event
from distribu.domain.errors import Forbidden, Invalid, Refused
from distribu.domain.values import ApiKeyId, CompanyId, CustomerId, Secret

API_KEYS_MAX: Final = 1_000
"""Keys a company may have that are not revoked."""


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
    COMPANY_READ = "company:read"
    COMPANY_MANAGE = "company:manage"
    COMPANY_CREATE = "company:create"


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
    }
)
_EVERYTHING: Final = frozenset(Permission) - {Permission.COMPANY_CREATE}


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
    Role.OWNER: _EVERYTHING,
    Role.ADMIN: _EVERYTHING,
    Role.MEMBER: _SALES,
}
_SHOPPING: Final = frozenset(
    {Permission.PRODUCTS_READ, Permission.ORDERS_READ, Permission.CUSTOMERS_READ, Permission.COMPANY_READ}
)
CONTACT_PERMISSIONS: Final = {
    ContactRole.ADMIN: _SHOPPING | {Permission.ORDERS_WRITE},
    ContactRole.BUYER: _SHOPPING | {Permission.ORDERS_WRITE},
    ContactRole.VIEWER: _SHOPPING,
}


class ActorKind(StrEnum):
    """USER and CUSTOMER are people; API_KEY and SYSTEM are not."""

    USER = "USER"
    CUSTOMER = "CUSTOMER"
    API_KEY = "API_KEY"
    SYSTEM = "SYSTEM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who acts, where, and with what permission.

    ``company_id`` is None only for the platform itself, which can found a company and nothing else.
    ``customer_id`` binds a contact to its customer: everything of another customer does not exist
    for it. ``label`` and ``ip`` name a person and are kept apart from the record that cites them.
    """

    kind: ActorKind
    id: str = ""
    label: str
    company_id: CompanyId | None
    customer_id: CustomerId | None = None
    permissions: frozenset[Permission]
    ip: str | None = None

    def require(self, permission: Permission | None) -> None:
        """Raises `Forbidden` unless this actor holds ``permission`` (None: anyone who got this far)."""
        if permission is None or permission in self.permissions:
            return
        if self.kind is ActorKind.API_KEY and permission in SCOPES:
            raise Forbidden("missing_scope", f"This key lacks the scope {permission.value}.")
        raise Forbidden("forbidden")

    @classmethod
    def system(cls, company_id: CompanyId | None, label: str = "system") -> Self:
        """A job, a webhook, or an operator at the command line."""
        permissions = frozenset({Permission.COMPANY_CREATE}) if company_id is None else _EVERYTHING
        return cls(kind=ActorKind.SYSTEM, label=label, company_id=company_id, permissions=permissions)

    @classmethod
    def staff(cls, company_id: CompanyId, role: Role, *, id: str, label: str, ip: str | None = None) -> Self:
        """A member of staff; what each role may do is the matrix in `ROLE_PERMISSIONS`."""
        return cls(
            kind=ActorKind.USER,
            id=id,
            label=label,
            company_id=company_id,
            permissions=ROLE_PERMISSIONS[role],
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
        """A person who signs in for one customer."""
        return cls(
            kind=ActorKind.CUSTOMER,
            id=id,
            label=label,
            company_id=company_id,
            customer_id=customer_id,
            permissions=CONTACT_PERMISSIONS[role],
            ip=ip,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeyCreated(Event):
    name: ClassVar[str] = "api_key.created"
    key_name: str
    prefix: str
    scopes: tuple[str, ...]
    expires_at: datetime | None


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
        if expires_at is not None and expires_at <= at:
            raise Invalid("invalid_request", fields={"expiresAt": "is in the past"})
        scopes = tuple(scope for scope in SCOPES if scope in scopes)
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

    def revoke(self, *, at: datetime) -> Self:
        """End the key at once. Raises `Refused` (already_revoked)."""
        if self.revoked_at is not None:
            raise Refused("already_revoked")
        return self._after(ApiKeyRevoked(key_name=self.name, prefix=self.prefix), at=at, revoked_at=at)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyGrant:
    """What the directory knows of an API key: enough to let it in, and no more."""

    company_id: CompanyId
    key_id: ApiKeyId
    name: str
    scopes: frozenset[Permission]
    expires_at: datetime | None
    revoked: bool

    def actor(self, *, now: datetime, ip: str | None) -> Actor | None:
        """The actor this key is at ``now``; None when it is expired or revoked."""
        if self.revoked or (self.expires_at is not None and self.expires_at <= now):
            return None
        return Actor(
            kind=ActorKind.API_KEY,
            id=self.key_id,
            label=self.name,
            company_id=self.company_id,
            permissions=self.scopes,
            ip=ip,
        )
