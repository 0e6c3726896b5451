"""Orders: what was bought, frozen at the moment it was, and how far it has come."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import ClassVar, Final, Self

from distribu.domain.entity import Event, Numbered
from distribu.domain.errors import Refused
from distribu.domain.values import (
    ZERO,
    Address,
    CompanyId,
    CustomerId,
    Money,
    OrderId,
    ProductId,
    Rate,
    money,
    rounded,
)

LINES_MAX: Final = 1_000
QUANTITY_MAX: Final = 1_000_000
FIRST_NUMBER: Final = 1001
HISTORIC_AFTER: Final = timedelta(days=1)


class OrderStatus(StrEnum):
    """How far an order has come."""

    SUBMITTED = "SUBMITTED"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


MOVES: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    OrderStatus.SUBMITTED: frozenset({OrderStatus.CONFIRMED, OrderStatus.CANCELLED}),
    OrderStatus.CONFIRMED: frozenset({OrderStatus.SHIPPED, OrderStatus.CANCELLED}),
    OrderStatus.SHIPPED: frozenset({OrderStatus.DELIVERED}),
    OrderStatus.DELIVERED: frozenset(),
    OrderStatus.CANCELLED: frozenset(),
}


class OrderSource(StrEnum):
    """Who placed the order."""

    API = "API"
    STOREFRONT = "STOREFRONT"
    STAFF = "STAFF"


class PaymentMethod(StrEnum):
    """How money came in."""

    CASH = "CASH"
    TRANSFER = "TRANSFER"
    CARD = "CARD"
    OTHER = "OTHER"


class PaymentStatus(StrEnum):
    """How much of the total is paid."""

    UNPAID = "UNPAID"
    PARTIAL = "PARTIAL"
    PAID = "PAID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One product of an order: its name, SKU and price as they were."""

    id: str
    product_id: ProductId
    product_name: str
    product_sku: str | None
    quantity: int
    unit_price: Money

    @property
    def amount(self) -> Decimal:
        """Quantity times price."""
        return self.quantity * self.unit_price


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What an order costs. Tax is on the goods and not on the shipping; every figure is frozen."""

    subtotal: Money
    tax_rate: Rate
    tax: Money
    shipping: Money
    total: Money

    @classmethod
    def of(cls, lines: tuple[Line, ...], *, tax_rate: Rate, shipping: Money) -> Self:
        """Add up. Raises `Refused` (amount_out_of_range)."""
        subtotal = money(sum((line.amount for line in lines), ZERO))
        tax = rounded(subtotal * tax_rate)
        total = money(subtotal + tax + shipping)
        return cls(subtotal=subtotal, tax_rate=tax_rate, tax=tax, shipping=shipping, total=total)


def minimum_reached(subtotal: Money, minimum: Money, currency: str) -> None:
    """Raises `Refused` (order_below_minimum)."""
    if subtotal < minimum:
        raise Refused("order_below_minimum", f"Orders start at {minimum} {currency}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPlaced(Event):
    name: ClassVar[str] = "order.placed"
    number: int
    customer_id: CustomerId
    source: OrderSource
    lines: int
    total: Money
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderMoved(Event):
    name: ClassVar[str] = "order.status_changed"
    before: OrderStatus
    after: OrderStatus
    carrier: str
    tracking_number: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRecorded(Event):
    """Money came in for an order. It *is* the payment: no other is written."""

    name: ClassVar[str] = "order.payment_recorded"
    amount: Money
    method: PaymentMethod
    reference: str
    paid: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """A payment as read back."""

    id: str
    order_id: OrderId
    amount: Money
    method: PaymentMethod
    reference: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(Numbered):
    """What a customer ordered. Lines and address never change after placement."""

    id: OrderId
    customer_id: CustomerId
    status: OrderStatus = OrderStatus.SUBMITTED
    source: OrderSource
    po_number: str = ""
    notes: str = ""
    currency: str
    subtotal: Money
    tax_rate: Rate
    tax: Money
    shipping: Money
    total: Money
    paid: Money = ZERO
    shipping_address: Address | None
    carrier: str = ""
    tracking_number: str = ""
    placed_at: datetime
    delivered_at: datetime | None = None
    lines: tuple[Line, ...]

    @classmethod
    def place(
        cls,
        *,
        company_id: CompanyId,
        id: OrderId,
        customer_id: CustomerId,
        source: OrderSource,
        lines: tuple[Line, ...],
        totals: Totals,
        minimum: Money,
        currency: str,
        shipping_address: Address | None,
        po_number: str,
        notes: str,
        placed_at: datetime,
        at: datetime,
    ) -> Self:
        """A submitted order. Raises `Refused` (order_below_minimum, placed_in_future)."""
        minimum_reached(totals.subtotal, minimum, currency)
        if placed_at > at:
            raise Refused("placed_in_future")
        event = OrderPlaced(
            number=0,
            customer_id=customer_id,
            source=source,
            lines=len(lines),
            total=totals.total,
            currency=currency,
        )
        return cls(
            company_id=company_id,
            id=id,
            customer_id=customer_id,
            source=source,
            lines=lines,
            subtotal=totals.subtotal,
            tax_rate=totals.tax_rate,
            tax=totals.tax,
            shipping=totals.shipping,
            total=totals.total,
            currency=currency,
            shipping_address=shipping_address and replace(shipping_address, is_default=False),
            po_number=po_number,
            notes=notes,
            placed_at=placed_at,
            created_at=at,
            updated_at=at,
            events=(event,),
        )

    @property
    def historic(self) -> bool:
        """Whether it is carried over from elsewhere: placed over a day before it was entered.

        Nobody is mailed about such an order.
        """
        return self.created_at - self.placed_at > HISTORIC_AFTER

    @property
    def balance(self) -> Money:
        """What is still owed: nothing once the order is cancelled."""
        return ZERO if self.status is OrderStatus.CANCELLED else money(self.total - self.paid)

    @property
    def payment_status(self) -> PaymentStatus:
        """PAID when nothing of the total is left, also for an order of nothing."""
        if self.paid >= self.total:
            return PaymentStatus.PAID
        return PaymentStatus.PARTIAL if self.paid else PaymentStatus.UNPAID

    def move(self, to: OrderStatus, *, carrier: str, tracking_number: str, at: datetime) -> Self:
        """Go to another status (`MOVES`). Raises `Refused` (illegal_transition)."""
        if to not in MOVES[self.status]:
            raise Refused("illegal_transition", f"An order that is {self.status} cannot become {to}.")
        return self._after(
            OrderMoved(before=self.status, after=to, carrier=carrier, tracking_number=tracking_number),
            at=at,
            status=to,
            carrier=carrier or self.carrier,
            tracking_number=tracking_number or self.tracking_number,
            delivered_at=at if to is OrderStatus.DELIVERED else self.delivered_at,
        )

    def pay(self, amount: Money, *, method: PaymentMethod, reference: str, at: datetime) -> Self:
        """Record money that came in. Raises `Refused` (order_not_payable, overpayment)."""
        if self.status is OrderStatus.CANCELLED:
            raise Refused("order_not_payable")
        if amount > self.balance:
            raise Refused("overpayment", f"Only {self.balance} {self.currency} is owed.")
        paid = money(self.paid + amount)
        event = PaymentRecorded(amount=amount, method=method, reference=reference, paid=paid)
        return self._after(event, at=at, paid=paid)
