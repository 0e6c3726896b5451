"""Finders of what Stripe told us."""

import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Statement
from distribu.adapters.postgres.mapping import NOTICES, mine
from distribu.adapters.postgres.reading import Answers, Finder, PostgresRead, locking
from distribu.domain.notices import INVOICE_PAID, Notice, NoticeStatus

_row = schema.stripe_events.c
_get = locking(sa.select(*NOTICES.columns).where(mine(schema.stripe_events), _row.id == sa.bindparam("id")))
_turn = Statement(sa.select(sa.func.coalesce(sa.func.max(_row.turn), 0)).where(mine(schema.stripe_events)))
_paid = Statement(
    sa.select(sa.literal_column("1"))
    .where(
        mine(schema.stripe_events),
        _row.invoice_ref == sa.bindparam("ref"),
        _row.type == sa.literal_column(f"'{INVOICE_PAID}'"),
        _row.status == sa.literal_column(f"'{NoticeStatus.APPLIED}'"),
    )
    .limit(1)
)


class PostgresNotices(Finder):
    """Implements the port Notices."""

    def get(self, id: str) -> PostgresRead[Notice | None]:
        tx = self.tx

        def build(answers: Answers) -> Notice | None:
            return tx.lock(NOTICES.build(answers[0][0])) if answers[0] else None

        return PostgresRead(tx, build, _get[tx.readonly].of(**self.bound, id=id))

    def turn(self) -> PostgresRead[int]:
        return PostgresRead(self.tx, lambda answers: int(answers[0][0][0]), _turn.of(**self.bound))

    def paid(self, invoice_ref: str) -> PostgresRead[bool]:
        call = _paid.of(**self.bound, ref=invoice_ref)
        return PostgresRead(self.tx, lambda answers: bool(answers[0]), call)
