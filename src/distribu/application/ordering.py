"""Use cases of orders."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import Annotated

from msgspec import Meta

from distribu.application import fields, letters, views
from distribu.application.customers import NewAddress
from distribu.application.kernel import Command, Query, Reads, Work
from distribu.application.ports import Page
from distribu.domain.access import ActorKind, Permission
from distribu.domain.catalog import Product
from distribu.domain.customers import Customer
from distribu.domain.errors import Forbidden, Invalid, NotFound, Refused
from distribu.domain.ordering import (
    LINES_MAX,
    QUANTITY_MAX,
    Line,
    Order,
    OrderSource,
    OrderStatus,
    Payment,
    PaymentMethod,
    Totals,
    minimum_reached,
)
from distribu.domain.values import Address, AddressId, Money, OrderId, ProductId

_SOURCES = {ActorKind.API_KEY: OrderSource.API, ActorKind.CUSTOMER: OrderSource.STOREFRONT}


class Wanted(fields.Value, frozen=True, kw_only=True):
    """How many of a product."""

    product_id: fields.ProductId
    quantity: fields.Quantity


_Items = Annotated[tuple[Wanted, ...], Meta(min_length=1, max_length=LINES_MAX)]


class PlaceOrder(Command[Order], frozen=True, kw_only=True):
    """Take stock for every line, freeze names, prices and address, and submit the order: all or nothing.

    Lines of one product are merged. Without an address the customer's default one is used.
    """

    needs = Permission.ORDERS_WRITE

    customer_id: fields.CustomerId
    items: _Items
    po_number: Annotated[str, Meta(max_length=100, examples=["PO-7741"])] = ""
    notes: Annotated[str, Meta(max_length=2000)] = ""
    shipping_address_id: fields.AddressId | None = None
    shipping_address: NewAddress | None = None
    placed_at: fields.Moment | None = None

    async def run(self, work: Work) -> Order:
        if self.placed_at is not None and work.actor.kind is ActorKind.CUSTOMER:
            raise Forbidden("forbidden")
        wanted = _merged(self.items)
        company, customer, products, prices = await work.together(
            work.companies.current(),
            work.customers.get(self.customer_id),
            work.products.many(wanted),
            work.overrides.prices(self.customer_id, wanted),
        )
        _all_known(self.items, products)
        order_id = OrderId(work.new_id())
        lines = tuple(_line(work.new_id(), products[id], quantity, prices) for id, quantity in wanted.items())
        order = Order.place(
            company_id=work.company_id,
            id=order_id,
            customer_id=customer.id,
            source=_SOURCES.get(work.actor.kind, OrderSource.STAFF),
            lines=lines,
            totals=Totals.of(lines, tax_rate=customer.tax_rate(company.tax_rate), shipping=company.shipping),
            minimum=company.order_minimum,
            currency=company.currency,
            shipping_address=self._address(customer, work),
            po_number=self.po_number,
            notes=self.notes,
            placed_at=self.placed_at or work.now,
            at=work.now,
        )
        taken = self._taken(wanted, products, order_id, work.now)
        work.save(customer.owe(order.balance, order_id=order_id, at=work.now), *taken, order)
        if not order.historic:
            work.mail(customer.email, letters.order_received(order, company))
        return order

    def _taken(
        self,
        wanted: Mapping[ProductId, int],
        products: Mapping[ProductId, Product],
        order_id: OrderId,
        at: datetime,
    ) -> list[Product]:
        """The products with what is wanted taken. One refusal names every line that cannot be served."""
        taken: list[Product] = []
        first: Refused | None = None
        wrong: dict[str, str] = {}
        for id, count in wanted.items():
            try:
                taken.append(products[id].take(count, order_id=order_id, at=at))
            except Refused as refused:
                first = first or refused
                wrong |= _wrong(self.items, products[id], refused)
        if first is not None:
            raise Refused(first.code, first.message, fields=wrong)
        return taken

    def _address(self, customer: Customer, work: Work) -> Address | None:
        if self.shipping_address is not None:
            if self.shipping_address_id is not None:
                raise Invalid(
                    "invalid_request", fields={"shippingAddress": "give an address or its id, not both"}
                )
            return self.shipping_address.address(AddressId(work.new_id()), at="shippingAddress")
        if self.shipping_address_id is not None:
            return customer.address(self.shipping_address_id)
        return customer.default_address


class PreviewOrder(Query[views.PreviewView], frozen=True, kw_only=True):
    """What an order would cost and what would refuse it, changing nothing."""

    needs = Permission.ORDERS_WRITE

    customer_id: fields.CustomerId
    items: _Items

    async def run(self, reads: Reads) -> views.PreviewView:
        wanted = _merged(self.items)
        company, customer, products, prices = await reads.together(
            reads.companies.current(),
            reads.customers.get(self.customer_id),
            reads.products.many(wanted),
            reads.overrides.prices(self.customer_id, wanted),
        )
        _all_known(self.items, products)
        lines = tuple(_line("", products[id], count, prices) for id, count in wanted.items())
        totals = Totals.of(lines, tax_rate=customer.tax_rate(company.tax_rate), shipping=company.shipping)
        nothing = OrderId("")
        tries: list[Callable[[], object]] = [
            lambda: minimum_reached(totals.subtotal, company.order_minimum, company.currency),
            lambda: customer.owe(totals.total, order_id=nothing, at=reads.now),
            *(partial(self._take, products[id], count, reads.now) for id, count in wanted.items()),
        ]
        return views.preview(lines, totals, company.currency, [no for one in tries if (no := _refusal(one))])

    def _take(self, product: Product, count: int, at: datetime) -> None:
        try:
            product.take(count, order_id=OrderId(""), at=at)
        except Refused as refused:
            fields = _wrong(self.items, product, refused)
            raise Refused(refused.code, refused.message, fields=fields) from None


class ReadOrder(Query[Order], frozen=True, kw_only=True):
    """One order with its lines."""

    needs = Permission.ORDERS_READ

    order_id: fields.OrderIdInPath

    async def run(self, reads: Reads) -> Order:
        return await reads.orders.get(self.order_id)


class ListOrders(Query[Page[Order]], frozen=True, kw_only=True):
    """Orders with their lines, newest first; ``since`` and ``until`` look at when they were placed."""

    needs = Permission.ORDERS_READ

    status: OrderStatus | None = None
    customer_id: fields.CustomerId | None = None
    since: fields.Moment | None = None
    until: fields.Moment | None = None
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Order]:
        return await reads.orders.page(
            limit=self.limit,
            cursor=self.cursor,
            status=self.status,
            customer_id=self.customer_id,
            since=self.since,
            until=self.until,
        )


class MoveOrder(Command[Order], frozen=True, kw_only=True):
    """Confirm, ship, deliver or cancel an order. Cancelling restocks and frees the credit.

    Partial shipment, back-orders and editing a placed order are not supported.
    """

    needs = Permission.ORDERS_WRITE

    order_id: fields.OrderIdInPath
    status: Annotated[OrderStatus, Meta(examples=["SHIPPED"])]
    carrier: Annotated[str, Meta(max_length=100, examples=["DHL"])] = ""
    tracking_number: Annotated[str, Meta(max_length=100, examples=["00340434161094"])] = ""
    version: fields.IfMatch | None = None

    async def run(self, work: Work) -> Order:
        if work.actor.kind is ActorKind.CUSTOMER:
            raise Forbidden("forbidden")
        order = (await work.orders.get(self.order_id)).at(self.version)
        moved = order.move(
            self.status, carrier=self.carrier, tracking_number=self.tracking_number, at=work.now
        )
        customer, products, company = await work.together(
            work.customers.get(order.customer_id),
            work.products.many(_to_put_back(moved), archived=True),
            work.companies.current(),
        )
        if moved.status is OrderStatus.CANCELLED:
            if order.balance:
                work.save(customer.settle(order.balance, order_id=order.id, at=work.now))
            for line in order.lines:
                work.save(products[line.product_id].put_back(line.quantity, order_id=order.id, at=work.now))
        work.save(moved)
        if not moved.historic:
            work.mail(customer.email, letters.order_changed(moved, company))
        return moved


class RecordPayment(Command[Order], frozen=True, kw_only=True):
    """Record money that came in for an order: it lowers what is owed. More than is owed is refused."""

    needs = Permission.ORDERS_WRITE

    order_id: fields.OrderIdInPath
    amount: fields.Amount
    method: Annotated[PaymentMethod, Meta(examples=["TRANSFER"])]
    reference: Annotated[str, Meta(max_length=100, examples=["TRF-2201"])] = ""

    async def run(self, work: Work) -> Order:
        if work.actor.kind is ActorKind.CUSTOMER:
            raise Forbidden("forbidden")
        if not self.amount:
            raise Invalid("invalid_request", fields={"amount": "must be more than nothing"})
        order = await work.orders.get(self.order_id)
        paid = order.pay(self.amount, method=self.method, reference=self.reference, at=work.now)
        customer = await work.customers.get(order.customer_id)
        work.save(paid, customer.settle(self.amount, order_id=order.id, at=work.now))
        return paid


class ListPayments(Query[Page[Payment]], frozen=True, kw_only=True):
    """What was paid for an order, newest first."""

    needs = Permission.ORDERS_READ

    order_id: fields.OrderIdInPath
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Payment]:
        # A payment does not say whose it is: to a contact an empty list would be a wrong answer.
        if reads.actor.kind is ActorKind.CUSTOMER:
            raise Forbidden("forbidden")
        _, page = await reads.together(
            reads.orders.get(self.order_id),
            reads.orders.payments(self.order_id, limit=self.limit, cursor=self.cursor),
        )
        return page


def _to_put_back(order: Order) -> list[ProductId]:
    """The products that a cancelled order gives back."""
    return [line.product_id for line in order.lines] if order.status is OrderStatus.CANCELLED else []


def _merged(items: tuple[Wanted, ...]) -> dict[ProductId, int]:
    """How many of each product in all: two lines of one product are one check against its stock."""
    wanted: dict[ProductId, int] = {}
    for item in items:
        wanted[item.product_id] = wanted.get(item.product_id, 0) + item.quantity
        if wanted[item.product_id] > QUANTITY_MAX:
            raise Invalid("invalid_request", fields={"items": f"more than {QUANTITY_MAX} of one product"})
    return wanted


def _wrong(items: tuple[Wanted, ...], product: Product, refused: Refused) -> dict[str, str]:
    """The first line of a product that cannot be taken, and why not."""
    place = next(n for n, item in enumerate(items) if item.product_id == product.id)
    if refused.code == "insufficient_stock":
        return {f"items[{place}].quantity": f"only {product.stock} left"}
    return {f"items[{place}].productId": "is not available"}


def _all_known(items: tuple[Wanted, ...], products: Mapping[ProductId, Product]) -> None:
    for place, item in enumerate(items):
        if item.product_id not in products:
            raise NotFound("product_not_found", fields={f"items[{place}].productId": "no such product"})


def _line(id: str, product: Product, quantity: int, prices: Mapping[ProductId, Money]) -> Line:
    return Line(
        id=id,
        product_id=product.id,
        product_name=product.name,
        product_sku=product.sku,
        quantity=quantity,
        unit_price=prices.get(product.id, product.price),
    )


def _refusal(attempt: Callable[[], object]) -> Refused | None:
    try:
        attempt()
    except Refused as refused:
        return refused
    return None
