"""Finders of the company itself."""

import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.mapping import COMPANIES, mine
from distribu.adapters.postgres.reading import Finder, PostgresRead, locking
from distribu.domain.team import Company

_get = locking(sa.select(*COMPANIES.columns).where(mine(schema.companies)))
_glance = {True: _get[True], False: _get[True]}


class PostgresCompanies(Finder):
    """Implements the port Companies."""

    def current(self, *, lock: bool = False) -> PostgresRead[Company]:
        return self.got(COMPANIES, _get if lock else _glance, "company_not_found")
