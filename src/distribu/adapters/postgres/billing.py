"""Finders of a company's subscription, and of what it uses."""

from datetime import datetime

import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Statement
from distribu.adapters.postgres.mapping import SUBSCRIPTIONS, mine
from distribu.adapters.postgres.reading import Answers, Finder, PostgresRead, locking
from distribu.domain.billing import Subscription, Used, month_of
from distribu.domain.customers import CustomerStatus

_get = locking(sa.select(*SUBSCRIPTIONS.columns).where(mine(schema.subscriptions)))
_product, _customer, _member = schema.products.c, schema.customers.c, schema.memberships.c
_invitation, _counter = schema.invitations.c, schema.order_numbers.c


def _count(table: sa.Table, *those: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).select_from(table).where(mine(table), *those).scalar_subquery()


_orders = sa.select(sa.func.coalesce(sa.func.sum(_counter.made), 0)).where(
    mine(schema.order_numbers), _counter.month >= sa.bindparam("month", type_=_counter.month.type)
)
_used = Statement(
    sa.select(
        _count(schema.products, _product.archived_at.is_(None)),
        _count(schema.customers, _customer.status == sa.literal_column(f"'{CustomerStatus.ACTIVE}'")),
        _count(schema.memberships, _member.removed_at.is_(None)),
        _count(schema.invitations, _invitation.accepted_at.is_(None), _invitation.revoked_at.is_(None)),
        _orders.scalar_subquery(),
    )
)


class PostgresSubscriptions(Finder):
    """Implements the port Subscriptions."""

    def current(self, *, at: datetime, lock: bool = False) -> PostgresRead[Subscription]:
        tx = self.tx

        def build(answers: Answers) -> Subscription:
            if not answers[0]:
                return Subscription.unlimited(tx.scope.company_id, at=at)
            return tx.lock(SUBSCRIPTIONS.build(answers[0][0]))

        return PostgresRead(tx, build, _get[tx.readonly or not lock].of(**self.bound))

    def used(self, *, at: datetime) -> PostgresRead[Used]:
        def build(answers: Answers) -> Used:
            products, customers, members, invitations, orders = answers[0][0]
            return Used(
                products=products,
                customers=customers,
                seats=members + invitations,
                orders_a_month=orders,
            )

        return PostgresRead(self.tx, build, _used.of(**self.bound, month=month_of(at)))
