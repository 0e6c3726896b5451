"""Products and their stock: a count that only a movement can change."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from distribu.domain.entity import Entity, Event, edited
from distribu.domain.errors import Refused
from distribu.domain.values import CompanyId, Money, OrderId, ProductId, canonical_sku

STOCK_MAX: Final = 1_000_000_000
UNITS: Final = ("each", "case", "pallet", "box", "bag", "roll", "sheet", "lb", "oz", "kg", "L", "mL")
"""What a user interface offers; any text of up to 20 characters is a unit."""


class MovementReason(StrEnum):
    """Why stock moved."""

    RECEIVED = "RECEIVED"
    ADJUSTED = "ADJUSTED"
    ORDERED = "ORDERED"
    CANCELLED = "CANCELLED"
    RETURNED = "RETURNED"
    IMPORTED = "IMPORTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductCreated(Event):
    name: ClassVar[str] = "product.created"
    product_name: str
    sku: str | None
    price: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductEdited(Event):
    name: ClassVar[str] = "product.updated"
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductArchived(Event):
    name: ClassVar[str] = "product.deleted"
    product_name: str
    sku: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LowStockReached(Event):
    """Stock crossed from above the threshold to at or below it."""

    name: ClassVar[str] = "product.low_stock"
    stock: int
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StockMoved(Event):
    """An immutable, signed change of a product's count. It *is* the movement: no other is written."""

    name: ClassVar[str] = "stock.moved"
    reason: ClassVar[MovementReason]
    quantity: int
    before: int
    after: int
    order_id: OrderId | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StockReceived(StockMoved):
    name: ClassVar[str] = "stock.received"
    reason: ClassVar[MovementReason] = MovementReason.RECEIVED


@dataclass(frozen=True, slots=True, kw_only=True)
class StockAdjusted(StockMoved):
    name: ClassVar[str] = "stock.adjusted"
    reason: ClassVar[MovementReason] = MovementReason.ADJUSTED


@dataclass(frozen=True, slots=True, kw_only=True)
class StockOrdered(StockMoved):
    name: ClassVar[str] = "stock.ordered"
    reason: ClassVar[MovementReason] = MovementReason.ORDERED


@dataclass(frozen=True, slots=True, kw_only=True)
class StockRestocked(StockMoved):
    name: ClassVar[str] = "stock.restocked"
    reason: ClassVar[MovementReason] = MovementReason.CANCELLED


@dataclass(frozen=True, slots=True, kw_only=True)
class StockMovement:
    """A movement as read back."""

    id: str
    product_id: ProductId
    quantity: int
    reason: MovementReason
    note: str
    order_id: OrderId | None
    stock_after: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Product(Entity):
    """One SKU. The sum of its movements is its stock, always."""

    id: ProductId
    name: str
    sku: str | None = None
    description: str = ""
    category: str = ""
    unit: str = "each"
    price: Money
    stock: int = 0
    low_stock_threshold: int = 5
    is_active: bool = True
    image_url: str | None = None
    archived_at: datetime | None = None

    @classmethod
    def create(
        cls, *, company_id: CompanyId, id: ProductId, at: datetime, opening_stock: int = 0, **fields: Any
    ) -> Self:
        """A new product; ``opening_stock`` is received as its first movement."""
        fields["sku"] = canonical_sku(fields.get("sku"))
        product = cls(company_id=company_id, id=id, created_at=at, updated_at=at, **fields)
        created = ProductCreated(product_name=product.name, sku=product.sku, price=product.price)
        product = product._after(created, at=at, version=1)
        return product.receive(opening_stock, note="opening stock", at=at) if opening_stock else product

    def edit(self, changes: dict[str, Any], *, at: datetime) -> Self:
        """Change anything but the stock."""
        if "sku" in changes:
            changes["sku"] = canonical_sku(changes["sku"])
        before, after = edited(self, changes)
        return self._after(ProductEdited(before=before, after=after), at=at, **after) if after else self

    def archive(self, *, at: datetime) -> Self:
        """Leave every list and free the SKU; orders and movements stay as they are."""
        archived = ProductArchived(product_name=self.name, sku=self.sku)
        return self._after(archived, at=at, archived_at=at, is_active=False)

    def take(self, quantity: int, *, order_id: OrderId, at: datetime) -> Self:
        """Take stock for an order. Raises `Refused` (product_unavailable, insufficient_stock)."""
        if not self.is_active:
            raise Refused("product_unavailable", f"{self.name} is not available.")
        if quantity > self.stock:
            raise Refused(
                "insufficient_stock", f"Only {self.stock} of {self.name} left, {quantity} asked for."
            )
        return self._move(StockOrdered, -quantity, order_id=order_id, at=at)

    def put_back(self, quantity: int, *, order_id: OrderId, at: datetime) -> Self:
        """Restock what a cancelled order had taken, whether or not the product is still sold."""
        return self._move(StockRestocked, quantity, order_id=order_id, at=at)

    def receive(self, quantity: int, *, note: str, at: datetime) -> Self:
        """Goods came in. Raises `Refused` (stock_out_of_range)."""
        if quantity <= 0:
            raise Refused("stock_out_of_range", "What is received must be at least 1.")
        return self._move(StockReceived, quantity, at=at, note=note)

    def adjust(self, quantity: int, *, note: str, at: datetime) -> Self:
        """Correct the count by a signed quantity.

        Raises `Refused` (insufficient_stock, stock_out_of_range).
        """
        return self._move(StockAdjusted, quantity, at=at, note=note)

    def _move(
        self,
        why: type[StockMoved],
        quantity: int,
        *,
        at: datetime,
        order_id: OrderId | None = None,
        note: str = "",
    ) -> Self:
        after = self.stock + quantity
        if after < 0:
            raise Refused("insufficient_stock", f"Only {self.stock} of {self.name} left.")
        if after > STOCK_MAX or quantity == 0:
            raise Refused("stock_out_of_range")
        moved = why(quantity=quantity, before=self.stock, after=after, order_id=order_id, note=note)
        if self.stock > self.low_stock_threshold >= after:
            low = LowStockReached(stock=after, threshold=self.low_stock_threshold)
            return self._after(moved, low, at=at, stock=after)
        return self._after(moved, at=at, stock=after)
