"""Contacts: the people who sign in at a store for one of its customers."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final, Self

from distribu.domain.access import ContactRole
from distribu.domain.entity import Entity, Event, edited
from distribu.domain.errors import Refused
from distribu.domain.values import CompanyId, CustomerId, canonical_email, time_zone

CONTACTS_MAX: Final = 200
"""Contacts of one customer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactAdded(Event):
    name: ClassVar[str] = "contact.added"
    customer_id: CustomerId
    role: ContactRole


@dataclass(frozen=True, slots=True, kw_only=True)
class ContactEdited(Event):
    """Name, address and time zone are told by field name only: they can be erased."""

    name: ClassVar[str] = "contact.updated"
    customer_id: CustomerId
    before: dict[str, Any]
    after: dict[str, Any]
    fields: tuple[str, ...]


_PERSONAL: Final = frozenset({"email", "full_name", "time_zone"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Contact(Entity):
    """A person of a customer; the email address is unique within the store.

    One who is not active cannot sign in, and neither can anybody of a customer that is not active.
    """

    customer_id: CustomerId
    email: str
    full_name: str
    role: ContactRole
    is_active: bool = True
    time_zone: str = "UTC"

    @classmethod
    def add(
        cls,
        *,
        company_id: CompanyId,
        id: str,
        customer_id: CustomerId,
        email: str,
        full_name: str,
        role: ContactRole,
        at: datetime,
    ) -> Self:
        """A new contact. Raises `Invalid` for an address that is none."""
        return cls(
            company_id=company_id,
            id=id,
            customer_id=customer_id,
            email=canonical_email(email),
            full_name=full_name,
            role=role,
            created_at=at,
            updated_at=at,
            events=(ContactAdded(customer_id=customer_id, role=role),),
        )

    def edit(self, changes: dict[str, Any], *, admins: int, at: datetime) -> Self:
        """Change name, role, time zone or whether they can sign in.

        ``admins`` is how many active ADMINs the customer has. Raises `Invalid`, or `Refused`
        (last_admin) when it would be left without one.
        """
        if "time_zone" in changes:
            time_zone(changes["time_zone"])
        before, after = edited(self, changes)
        if not after:
            return self
        stays = after.get("role", self.role) is ContactRole.ADMIN and after.get("is_active", self.is_active)
        if self.role is ContactRole.ADMIN and self.is_active and not stays and admins <= 1:
            raise Refused("last_admin")
        event = ContactEdited(
            customer_id=self.customer_id,
            before={name: value for name, value in before.items() if name not in _PERSONAL},
            after={name: value for name, value in after.items() if name not in _PERSONAL},
            fields=tuple(sorted(after)),
        )
        return self._after(event, at=at, **after)

    def move_to(self, email: str, *, at: datetime) -> Self:
        """Go by another address, which has been verified."""
        event = ContactEdited(customer_id=self.customer_id, before={}, after={}, fields=("email",))
        return self._after(event, at=at, email=canonical_email(email))
