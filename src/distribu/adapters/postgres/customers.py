"""Finders of customers and their prices."""

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Statement
from distribu.adapters.postgres.mapping import CUSTOMERS, OVERRIDES, mine
from distribu.adapters.postgres.reading import Answers, Finder, Pages, PostgresRead, locking
from distribu.application.ports import Page
from distribu.domain.customers import Customer, CustomerStatus, PriceOverride
from distribu.domain.values import CustomerId, Money, ProductId, folded

_row = schema.customers.c
_get = locking(sa.select(*CUSTOMERS.columns).where(mine(schema.customers), _row.id == sa.bindparam("id")))
_pages = Pages(
    CUSTOMERS.columns,
    schema.customers,
    _row.id,
    filters={
        "status": lambda: _row.status == sa.bindparam("status"),
        "search": lambda: sa.func.strpos(_row.folded, sa.bindparam("search")) > 0,
    },
)

_by_email = Statement(
    sa.select(*CUSTOMERS.columns).where(mine(schema.customers), _row.email == sa.bindparam("email"))
)

_own = schema.price_overrides.c
_of_customer = _own.customer_id == sa.bindparam("of_customer")
_ids = sa.cast(sa.bindparam("ids"), ARRAY(_own.product_id.type))
_prices = Statement(
    sa.select(_own.product_id, _own.price).where(
        mine(schema.price_overrides),
        _of_customer,
        _own.product_id == sa.func.any(_ids),
        _own.price.is_not(None),
    )
)
_find = locking(
    sa.select(*OVERRIDES.columns).where(
        mine(schema.price_overrides),
        _of_customer,
        _own.product_id == sa.bindparam("product"),
    )
)
_override_pages = Pages(
    OVERRIDES.columns,
    schema.price_overrides,
    _own.id,
    _of_customer,
    _own.price.is_not(None),
)


class PostgresCustomers(Finder):
    """Implements the port Customers."""

    def get(self, id: CustomerId) -> PostgresRead[Customer]:
        return self.got(CUSTOMERS, _get, "customer_not_found", id=id)

    def by_email(self, email: str) -> PostgresRead[Customer | None]:
        def build(answers: Answers) -> Customer | None:
            return CUSTOMERS.build(answers[0][0]) if answers[0] else None

        return PostgresRead(self.tx, build, _by_email.of(**self.bound, email=email))

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        status: CustomerStatus | None = None,
        search: str | None = None,
    ) -> PostgresRead[Page[Customer]]:
        wanted: dict[str, Any] = {
            "cursor": cursor,
            "status": status,
            "search": search if search is None else folded(search),
        }
        return self.paged(CUSTOMERS.build, _pages.statement(**wanted), limit, lambda it: it.id, **wanted)


class PostgresOverrides(Finder):
    """Implements the port Overrides."""

    def prices(
        self, customer_id: CustomerId, ids: Collection[ProductId]
    ) -> PostgresRead[Mapping[ProductId, Money]]:
        call = _prices.of(**self.bound, of_customer=customer_id, ids=list(dict.fromkeys(ids)))

        def build(answers: Answers) -> Mapping[ProductId, Money]:
            return dict(answers[0])

        return PostgresRead(self.tx, build, call)

    def find(self, customer_id: CustomerId, product_id: ProductId) -> PostgresRead[PriceOverride | None]:
        tx = self.tx

        def build(answers: Answers) -> PriceOverride | None:
            return tx.lock(OVERRIDES.build(answers[0][0])) if answers[0] else None

        call = _find[tx.readonly].of(**self.bound, of_customer=customer_id, product=product_id)
        return PostgresRead(tx, build, call)

    def page(
        self, customer_id: CustomerId, *, limit: int, cursor: str | None = None
    ) -> PostgresRead[Page[PriceOverride]]:
        statement = _override_pages.statement(cursor=cursor)
        return self.paged(
            OVERRIDES.build, statement, limit, lambda it: it.id, of_customer=customer_id, cursor=cursor
        )
