"""The company: the tenant, its name and its terms of trade."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Self

from distribu.domain.entity import Entity, Event, edited
from distribu.domain.errors import Refused
from distribu.domain.values import (
    ZERO,
    CompanyId,
    Money,
    Rate,
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
class Company(Entity):
    """A distributor. ``id`` and ``company_id`` are the same. Renaming keeps the slug."""

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

    @classmethod
    def found(cls, *, id: CompanyId, name: str, slug: str | None, currency_code: str, at: datetime) -> Self:
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
