"""Use cases of products and stock."""

from enum import StrEnum
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from distribu.application import billing, fields
from distribu.application.kernel import Command, Query, Reads, Work
from distribu.application.ports import Page
from distribu.domain.access import Permission
from distribu.domain.billing import Counted
from distribu.domain.catalog import STOCK_MAX, Product, StockMovement
from distribu.domain.errors import Invalid, NotFound
from distribu.domain.values import ProductId

_Name = Annotated[str, Meta(min_length=1, max_length=200, examples=["Oat Flour 25 kg"])]
_Sku = Annotated[str, Meta(max_length=100, examples=["OAT-25"])]
_Description = Annotated[str, Meta(max_length=2000, examples=["Fine oat flour, 25 kg bag."])]
_Category = Annotated[str, Meta(max_length=100, examples=["Flour"])]
_Unit = Annotated[str, Meta(min_length=1, max_length=20, examples=["bag"])]
_Stock = Annotated[int, Meta(ge=0, le=STOCK_MAX, examples=[120])]
_Threshold = Annotated[int, Meta(ge=0, le=STOCK_MAX, examples=[5])]
_Url = Annotated[
    str,
    Meta(pattern="^https?://[^\\s\\x00]+$", max_length=2048, examples=["https://acme.example/oat-flour.jpg"]),
]


class MoveReason(StrEnum):
    """Why stock is moved by hand."""

    RECEIVED = "RECEIVED"
    ADJUSTED = "ADJUSTED"


class CreateProduct(Command[Product], frozen=True, kw_only=True):
    """Add a product. ``stock`` is its opening stock, received as its first movement."""

    needs = Permission.PRODUCTS_WRITE

    name: _Name
    price: fields.Amount
    sku: _Sku | None = None
    description: _Description = ""
    category: _Category = ""
    unit: _Unit = "each"
    stock: _Stock = 0
    low_stock_threshold: _Threshold = 5
    is_active: bool = True
    image_url: _Url | None = None

    async def run(self, work: Work) -> Product:
        await billing.admit(work, Counted.PRODUCTS)
        product = Product.create(
            company_id=work.company_id,
            id=ProductId(work.new_id()),
            at=work.now,
            opening_stock=self.stock,
            **self.given("stock"),
        )
        work.save(product)
        return product


class EditProduct(Command[Product], frozen=True, kw_only=True):
    """Change a product. Its stock is not a field: it changes by movements only."""

    needs = Permission.PRODUCTS_WRITE

    product_id: fields.ProductIdInPath
    name: _Name | UnsetType = UNSET
    price: fields.Amount | UnsetType = UNSET
    sku: _Sku | None | UnsetType = UNSET
    description: _Description | UnsetType = UNSET
    category: _Category | UnsetType = UNSET
    unit: _Unit | UnsetType = UNSET
    low_stock_threshold: _Threshold | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    image_url: _Url | None | UnsetType = UNSET
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> Product:
        product = (await work.products.get(self.product_id)).at(self.version)
        product = product.edit(self.given("product_id", "version"), at=work.now)
        work.save(product)
        return product


class ArchiveProduct(Command[None], frozen=True, kw_only=True):
    """Take a product out of every list and free its SKU. Orders and movements stay."""

    needs = Permission.PRODUCTS_WRITE

    product_id: fields.ProductIdInPath
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> None:
        product = (await work.products.get(self.product_id)).at(self.version)
        work.save(product.archive(at=work.now))


class ReadProduct(Query[Product], frozen=True, kw_only=True):
    """One product. A contact sees it only while it is active."""

    needs = Permission.PRODUCTS_READ

    product_id: fields.ProductIdInPath

    async def run(self, reads: Reads) -> Product:
        product = await reads.products.get(self.product_id)
        if reads.actor.customer_id is not None and not product.is_active:
            raise NotFound("product_not_found")
        return product


class ListProducts(Query[Page[Product]], frozen=True, kw_only=True):
    """Products, newest first; ``search`` looks in name, SKU and category, ignoring case.

    A contact sees the active ones.
    """

    needs = Permission.PRODUCTS_READ

    category: _Category | None = None
    search: Annotated[str, Meta(max_length=100)] | None = None
    active: bool | None = None
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Product]:
        return await reads.products.page(
            limit=self.limit,
            cursor=self.cursor,
            category=self.category,
            search=self.search,
            active=self.active if reads.actor.customer_id is None else True,
        )


class AdjustStock(Command[Product], frozen=True, kw_only=True):
    """Move stock by hand: goods RECEIVED, or the count ADJUSTED by a signed quantity."""

    needs = Permission.PRODUCTS_WRITE

    product_id: fields.ProductIdInPath
    quantity: Annotated[int, Meta(ge=-STOCK_MAX, le=STOCK_MAX, examples=[24])]
    reason: Annotated[MoveReason, Meta(examples=["RECEIVED"])]
    note: Annotated[str, Meta(max_length=500, examples=["Delivery note 8812"])] = ""

    async def run(self, work: Work) -> Product:
        if self.quantity == 0 or (self.reason is MoveReason.RECEIVED and self.quantity < 0):
            raise Invalid("invalid_request", fields={"quantity": "must move stock the way its reason says"})
        product = await work.products.get(self.product_id)
        if self.reason is MoveReason.RECEIVED:
            product = product.receive(self.quantity, note=self.note, at=work.now)
        else:
            product = product.adjust(self.quantity, note=self.note, at=work.now)
        work.save(product)
        return product


class ListMovements(Query[Page[StockMovement]], frozen=True, kw_only=True):
    """How a product's stock came about, newest first."""

    needs = Permission.PRODUCTS_READ

    product_id: fields.ProductIdInPath
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[StockMovement]:
        _, page = await reads.together(
            reads.products.get(self.product_id),
            reads.products.movements(self.product_id, limit=self.limit, cursor=self.cursor),
        )
        return page
