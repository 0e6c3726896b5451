"""Customers: who buys, where to, at what price and on how much credit."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from distribu.domain.entity import Entity, Event, edited
from distribu.domain.errors import Bug, NotFound, Refused
from distribu.domain.values import (
    ZERO,
    Address,
    AddressId,
    CompanyId,
    CustomerId,
    Money,
    OrderId,
    ProductId,
    Rate,
    canonical_email,
    money,
)

ADDRESSES_MAX: Final = 100


class CustomerStatus(StrEnum):
    """Only an ACTIVE customer can order. PENDING waits: for whoever registered to prove the address, or for
    the company's approval."""

    ACTIVE = "ACTIVE"
    PENDING = "PENDING"
    BLOCKED = "BLOCKED"


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerCreated(Event):
    name: ClassVar[str] = "customer.created"
    status: CustomerStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerEdited(Event):
    """What names a person (email, name, notes, addresses) is told by field name only: it can be erased."""

    name: ClassVar[str] = "customer.updated"
    before: dict[str, Any]
    after: dict[str, Any]
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditTaken(Event):
    name: ClassVar[str] = "customer.credit_taken"
    order_id: OrderId
    amount: Money
    used: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class CreditReleased(Event):
    name: ClassVar[str] = "customer.credit_released"
    order_id: OrderId
    amount: Money
    used: Money


_PERSONAL: Final = frozenset({"email", "name", "notes", "addresses"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Customer(Entity):
    """A business that buys from one company.

    ``credit_used`` is what its live orders still owe: the sum of total - paid over those not cancelled.
    """

    id: CustomerId
    email: str
    name: str = ""
    status: CustomerStatus = CustomerStatus.ACTIVE
    notes: str = ""
    credit_limit: Money | None = None
    credit_used: Money = ZERO
    tax_rate_override: Rate | None = None
    email_verified: bool = False
    payment_terms_days: int = 0
    addresses: tuple[Address, ...] = ()

    @classmethod
    def create(cls, *, company_id: CompanyId, id: CustomerId, at: datetime, **fields: Any) -> Self:
        """A new customer. Raises `Invalid` for an address that is no email address."""
        fields["email"] = canonical_email(fields["email"])
        fields["addresses"] = _one_default(fields.get("addresses", ()))
        customer = cls(company_id=company_id, id=id, created_at=at, updated_at=at, **fields)
        return customer._after(CustomerCreated(status=customer.status), at=at, version=1)

    def edit(self, changes: dict[str, Any], *, at: datetime) -> Self:
        """Change anything but the credit used. Raises `Invalid`."""
        if "email" in changes:
            changes["email"] = canonical_email(changes["email"])
        if "addresses" in changes:
            changes["addresses"] = _one_default(changes["addresses"])
        before, after = edited(self, changes)
        if not after:
            return self
        event = CustomerEdited(
            before={name: value for name, value in before.items() if name not in _PERSONAL},
            after={name: value for name, value in after.items() if name not in _PERSONAL},
            fields=tuple(sorted(after)),
        )
        return self._after(event, at=at, **after)

    def proven(self, *, opened: bool, at: datetime) -> Self:
        """Whoever registered has proven the address; where the store is ``opened`` to all, they may order."""
        changes: dict[str, Any] = {"email_verified": True}
        if opened and self.status is CustomerStatus.PENDING:
            changes["status"] = CustomerStatus.ACTIVE
        return self.edit(changes, at=at)

    def address(self, id: AddressId) -> Address:
        """One of this customer's addresses. Raises `NotFound`."""
        for address in self.addresses:
            if address.id == id:
                return address
        raise NotFound("address_not_found")

    def tax_rate(self, usual: Rate) -> Rate:
        """The customer's own rate, or the company's."""
        return usual if self.tax_rate_override is None else self.tax_rate_override

    @property
    def default_address(self) -> Address | None:
        """The address used when an order names none."""
        return next((address for address in self.addresses if address.is_default), None)

    def owe(self, amount: Money, *, order_id: OrderId, at: datetime) -> Self:
        """Take on an obligation: every one passes here.

        Raises `Refused` (customer_blocked, credit_limit_exceeded).
        """
        if self.status is not CustomerStatus.ACTIVE:
            raise Refused("customer_blocked", "This customer is not active and cannot order.")
        used = money(self.credit_used + amount)
        if self.credit_limit is not None and used > self.credit_limit:
            left = max(self.credit_limit - self.credit_used, ZERO)
            raise Refused("credit_limit_exceeded", f"The order is {amount}; {left} of credit is left.")
        return self._after(CreditTaken(order_id=order_id, amount=amount, used=used), at=at, credit_used=used)

    def settle(self, amount: Money, *, order_id: OrderId, at: datetime) -> Self:
        """Owe less: it was paid, or the order was cancelled."""
        used = money(self.credit_used - amount)
        if used < 0:
            raise Bug("more is settled than is owed")
        return self._after(
            CreditReleased(order_id=order_id, amount=amount, used=used), at=at, credit_used=used
        )


def _one_default(addresses: tuple[Address, ...]) -> tuple[Address, ...]:
    """Exactly one default when there are any: the last one marked, else the first."""
    if len(addresses) > ADDRESSES_MAX:
        raise Refused("too_many", f"A customer has at most {ADDRESSES_MAX} addresses.")
    if not addresses:
        return addresses
    chosen = max(
        range(len(addresses)),
        key=lambda place: (addresses[place].is_default, place if addresses[place].is_default else -place),
    )
    return tuple(replace(address, is_default=place == chosen) for place, address in enumerate(addresses))


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceOverrideSet(Event):
    name: ClassVar[str] = "price_override.set"
    customer_id: CustomerId
    product_id: ProductId
    before: Money | None
    after: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceOverrideRemoved(Event):
    name: ClassVar[str] = "price_override.removed"
    customer_id: CustomerId
    product_id: ProductId
    before: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceOverride(Entity):
    """One customer's own unit price of one product; ``price`` is None once it was taken away."""

    customer_id: CustomerId
    product_id: ProductId
    price: Money | None

    @classmethod
    def create(
        cls,
        *,
        company_id: CompanyId,
        id: str,
        customer_id: CustomerId,
        product_id: ProductId,
        price: Money,
        at: datetime,
    ) -> Self:
        """A first price of its own for this customer and product."""
        event = PriceOverrideSet(customer_id=customer_id, product_id=product_id, before=None, after=price)
        return cls(
            company_id=company_id,
            id=id,
            customer_id=customer_id,
            product_id=product_id,
            price=price,
            created_at=at,
            updated_at=at,
            events=(event,),
        )

    def set(self, price: Money, *, at: datetime) -> Self:
        """Change the price, or give one again."""
        if price == self.price:
            return self
        event = PriceOverrideSet(
            customer_id=self.customer_id, product_id=self.product_id, before=self.price, after=price
        )
        return self._after(event, at=at, price=price)

    def remove(self, *, at: datetime) -> Self:
        """Back to the catalogue's price. Raises `NotFound`."""
        if self.price is None:
            raise NotFound("price_override_not_found")
        event = PriceOverrideRemoved(
            customer_id=self.customer_id, product_id=self.product_id, before=self.price
        )
        return self._after(event, at=at, price=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomerDetail:
    """A customer as it is read: with its own prices, the newest hundred. They are no part of its version."""

    customer: Customer
    price_overrides: tuple[PriceOverride, ...]

    @property
    def version(self) -> int:
        """The customer's."""
        return self.customer.version
