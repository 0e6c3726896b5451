"""Finders of contacts."""

import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Statement
from distribu.adapters.postgres.mapping import CONTACTS, mine
from distribu.adapters.postgres.reading import Answers, Finder, Pages, PostgresRead, locking
from distribu.application.ports import Page
from distribu.domain.access import ContactRole
from distribu.domain.contacts import Contact
from distribu.domain.values import CustomerId

_row = schema.contacts.c
_get = locking(sa.select(*CONTACTS.columns).where(mine(schema.contacts), _row.id == sa.bindparam("id")))
_pages = Pages(
    CONTACTS.columns,
    schema.contacts,
    _row.id,
    filters={"of_customer": lambda: _row.customer_id == sa.bindparam("of_customer")},
)
_count = Statement(
    sa.select(
        sa.func.count(),
        sa.func.count().filter(_row.is_active, _row.role == sa.literal_column(f"'{ContactRole.ADMIN}'")),
    )
    .select_from(schema.contacts)
    .where(mine(schema.contacts), _row.customer_id == sa.bindparam("of_customer"))
)


class PostgresContacts(Finder):
    """Implements the port Contacts."""

    def get(self, id: str) -> PostgresRead[Contact]:
        return self.got(CONTACTS, _get, "contact_not_found", id=id)

    def page(
        self, customer_id: CustomerId, *, limit: int, cursor: str | None = None
    ) -> PostgresRead[Page[Contact]]:
        wanted = {"of_customer": customer_id, "cursor": cursor}
        statement = _pages.statement(**wanted)
        return self.paged(CONTACTS.build, statement, limit, lambda it: it.id, **wanted)

    def count(self, customer_id: CustomerId) -> PostgresRead[tuple[int, int]]:
        def build(answers: Answers) -> tuple[int, int]:
            every, admins = answers[0][0]
            return int(every), int(admins)

        return PostgresRead(self.tx, build, _count.of(**self.bound, of_customer=customer_id))
