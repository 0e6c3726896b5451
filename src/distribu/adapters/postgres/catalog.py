"""Finders of products."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row, Statement
from distribu.adapters.postgres.mapping import PRODUCTS, mine
from distribu.adapters.postgres.reading import Answers, Finder, Pages, PostgresRead, locking
from distribu.application.ports import Page
from distribu.domain.catalog import MovementReason, Product, StockMovement
from distribu.domain.values import ProductId, folded

_row = schema.products.c
_present = _row.archived_at.is_(None)
_get = locking(
    sa.select(*PRODUCTS.columns).where(mine(schema.products), _row.id == sa.bindparam("id"), _present)
)
_ids = sa.cast(sa.bindparam("ids"), ARRAY(_row.id.type))
_all = (
    sa.select(*PRODUCTS.columns).where(mine(schema.products), _row.id == sa.func.any(_ids)).order_by(_row.id)
)
_many_archived = locking(_all)
_many = locking(_all.where(_present))
_pages = Pages(
    PRODUCTS.columns,
    schema.products,
    _row.id,
    _present,
    filters={
        "category": lambda: _row.category == sa.bindparam("category"),
        "active": lambda: _row.is_active == sa.bindparam("active"),
        "search": lambda: sa.func.strpos(_row.folded, sa.bindparam("search")) > 0,
    },
)
_moved = schema.stock_movements.c
_movements = Pages(
    (
        _moved.id,
        _moved.product_id,
        _moved.quantity,
        _moved.reason,
        _moved.note,
        _moved.order_id,
        _moved.stock_after,
        _moved.created_at,
    ),
    schema.stock_movements,
    _moved.id,
    _moved.product_id == sa.bindparam("product"),
)


class PostgresProducts(Finder):
    """Implements the port Products."""

    def get(self, id: ProductId) -> PostgresRead[Product]:
        return self.got(PRODUCTS, _get, "product_not_found", id=id)

    def many(
        self, ids: Collection[ProductId], *, archived: bool = False
    ) -> PostgresRead[Mapping[ProductId, Product]]:
        tx = self.tx

        def build(answers: Answers) -> Mapping[ProductId, Product]:
            products = (PRODUCTS.build(row) for row in answers[0])
            return {product.id: tx.lock(product) for product in products}

        get: Mapping[bool, Statement] = _many_archived if archived else _many
        return PostgresRead(tx, build, get[tx.readonly].of(**self.bound, ids=list(dict.fromkeys(ids))))

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        category: str | None = None,
        search: str | None = None,
        active: bool | None = None,
    ) -> PostgresRead[Page[Product]]:
        wanted: dict[str, Any] = {
            "cursor": cursor,
            "category": category,
            "search": search if search is None else folded(search),
            "active": active,
        }
        return self.paged(PRODUCTS.build, _pages.statement(**wanted), limit, lambda it: it.id, **wanted)

    def movements(
        self, id: ProductId, *, limit: int, cursor: str | None = None
    ) -> PostgresRead[Page[StockMovement]]:
        statement = _movements.statement(cursor=cursor)
        return self.paged(_movement, statement, limit, lambda it: it.id, product=id, cursor=cursor)


def _movement(row: Row) -> StockMovement:
    id, product_id, quantity, reason, note, order_id, stock_after, created_at = row
    return StockMovement(
        id=id,
        product_id=product_id,
        quantity=quantity,
        reason=MovementReason(reason),
        note=note,
        order_id=order_id,
        stock_after=stock_after,
        created_at=created_at,
    )
