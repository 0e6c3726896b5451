"""Finders of orders."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row, Statement
from distribu.adapters.postgres.mapping import ORDERS, mine
from distribu.adapters.postgres.reading import Answers, Finder, Pages, PostgresRead, locking, page
from distribu.application.ports import Page
from distribu.domain.errors import NotFound
from distribu.domain.ordering import Line, Order, OrderStatus, Payment, PaymentMethod
from distribu.domain.values import CustomerId, OrderId

_row = schema.orders.c
_line = schema.order_lines.c
_line_columns = (
    _line.order_id,
    _line.id,
    _line.product_id,
    _line.product_name,
    _line.product_sku,
    _line.quantity,
    _line.unit_price,
)
_of_lines = sa.select(*_line_columns).where(mine(schema.order_lines))

_get = locking(sa.select(*ORDERS.columns).where(mine(schema.orders), _row.id == sa.bindparam("id")))
_get_lines = Statement(_of_lines.where(_line.order_id == sa.bindparam("id")).order_by(_line.id))
_filters = {
    "status": lambda: _row.status == sa.bindparam("status"),
    "of_customer": lambda: _row.customer_id == sa.bindparam("of_customer"),
    "since": lambda: _row.placed_at >= sa.bindparam("since"),
    "until": lambda: _row.placed_at < sa.bindparam("until"),
}
_pages = Pages(ORDERS.columns, schema.orders, _row.id, filters=_filters)
_paid = schema.payments.c
_payments = Pages(
    (_paid.id, _paid.order_id, _paid.amount, _paid.method, _paid.reference, _paid.created_at),
    schema.payments,
    _paid.id,
    _paid.order_id == sa.bindparam("order"),
)
_any = Statement(sa.select(sa.exists().where(mine(schema.orders))))


class _PagesOfLines(Pages):
    """The lines of a page of orders, found by the same filters in the same message."""

    def _compile(self, names: tuple[str, ...]) -> Statement:
        ids = self._query.where(*(self._filters[name]() for name in names)).scalar_subquery()
        wanted = sa.func.any(sa.func.array(ids, type_=ARRAY(_row.id.type)))
        return Statement(_of_lines.where(_line.order_id == wanted).order_by(_line.order_id, _line.id))


_pages_of_lines = _PagesOfLines((_row.id,), schema.orders, _row.id, filters=_filters)


class PostgresOrders(Finder):
    """Implements the port Orders."""

    def get(self, id: OrderId) -> PostgresRead[Order]:
        tx = self.tx

        def build(answers: Answers) -> Order:
            if not answers[0]:
                raise NotFound("order_not_found")
            return tx.lock(_with_lines(ORDERS.build(answers[0][0]), answers[1]))

        bound = self.bound
        return PostgresRead(tx, build, _get[tx.readonly].of(**bound, id=id), _get_lines.of(**bound, id=id))

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        status: OrderStatus | None = None,
        customer_id: CustomerId | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> PostgresRead[Page[Order]]:
        wanted: dict[str, Any] = {
            "cursor": cursor,
            "status": status,
            "of_customer": customer_id,
            "since": since,
            "until": until,
        }
        given = {name: value for name, value in wanted.items() if value is not None}
        orders = _pages.statement(**wanted).of(**self.bound, count=limit + 1, **given)
        lines = _pages_of_lines.statement(**wanted).of(**self.bound, count=limit, **given)

        def build(answers: Answers) -> Page[Order]:
            by_order: dict[str, list[Row]] = {}
            for row in answers[1]:
                by_order.setdefault(row[0], []).append(row)

            def order(row: Row) -> Order:
                it = ORDERS.build(row)
                return _with_lines(it, by_order.get(it.id, []))

            return page(answers[0], order, limit, lambda it: it.id)

        return PostgresRead(self.tx, build, orders, lines)

    def any(self) -> PostgresRead[bool]:
        return PostgresRead(self.tx, lambda answers: bool(answers[0][0][0]), _any.of(**self.bound))

    def payments(self, id: OrderId, *, limit: int, cursor: str | None = None) -> PostgresRead[Page[Payment]]:
        statement = _payments.statement(cursor=cursor)
        return self.paged(_payment, statement, limit, lambda it: it.id, order=id, cursor=cursor)


def _payment(row: Row) -> Payment:
    id, order_id, amount, method, reference, created_at = row
    return Payment(
        id=id,
        order_id=order_id,
        amount=amount,
        method=PaymentMethod(method),
        reference=reference,
        created_at=created_at,
    )


_put_lines = vars(Order)["lines"].__set__


def _with_lines(order: Order, rows: list[Row]) -> Order:
    lines = tuple(
        Line(
            id=id,
            product_id=product_id,
            product_name=name,
            product_sku=sku,
            quantity=quantity,
            unit_price=price,
        )
        for _, id, product_id, name, sku, quantity, price in rows
    )
    _put_lines(order, lines)
    return order
