"""Finders of what people wrote."""

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.mapping import INQUIRIES
from distribu.adapters.postgres.reading import Finder, Pages, PostgresRead
from distribu.application.ports import Page
from distribu.domain.inquiries import Inquiry

_pages = Pages(INQUIRIES.columns, schema.inquiries, schema.inquiries.c.id)


class PostgresInquiries(Finder):
    """Implements the port Inquiries."""

    def page(self, *, limit: int, cursor: str | None = None) -> PostgresRead[Page[Inquiry]]:
        statement = _pages.statement(cursor=cursor)
        return self.paged(INQUIRIES.build, statement, limit, lambda it: it.id, cursor=cursor)
