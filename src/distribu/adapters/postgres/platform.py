"""What those who run the platform see: the cards of companies, and figures made by functions."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Call, Row, Statement
from distribu.adapters.postgres.reading import Answers, Finder, PostgresRead, page
from distribu.application.finders import CompanyCard, FailedJob, KeptNotice, Usage
from distribu.application.ports import Page, Scope
from distribu.domain.access import Standing
from distribu.domain.accounts import REALM
from distribu.domain.errors import NotFound
from distribu.domain.notices import NoticeStatus
from distribu.domain.values import CompanyId

T = TypeVar("T")

_card = schema.company_cards.c
_columns = (_card.company_id, _card.name, _card.slug, _card.standing, _card.api_limit)
_cards = sa.select(*_columns).order_by(_card.company_id.desc()).limit(sa.bindparam("count", type_=sa.Integer))
_first = Statement(_cards)
_next = Statement(_cards.where(_card.company_id < sa.bindparam("cursor", type_=_card.company_id.type)))
_one = Statement(sa.select(*_columns).where(_card.company_id == sa.bindparam("id")))
_usage = Statement(sa.text("SELECT * FROM distribu.usage(cast(:id AS uuid), cast(:since AS timestamptz))"))
_failed = Statement(sa.text("SELECT * FROM distribu.failed_jobs(cast(:count AS integer))"))

_notices = Statement(
    sa.text("SELECT * FROM distribu.notices(cast(:failed AS boolean), cast(:count AS integer))")
)
_payer = Statement(sa.text("SELECT distribu.payer(cast(:id AS uuid), cast(:ref AS text))"))


def _built(row: Row) -> CompanyCard:
    id, name, slug, standing, api_limit = row
    return CompanyCard(id, name, slug, Standing(standing), api_limit)


class PostgresPlatform(Finder):
    """Implements the port Platform. The database shows these to a transaction of the realm alone."""

    def companies(self, *, limit: int, cursor: str | None = None) -> PostgresRead[Page[CompanyCard]]:
        call = (_first if cursor is None else _next).of(count=limit + 1, cursor=cursor)
        return self._of_the_realm(lambda answers: page(answers[0], _built, limit, lambda it: it.id), call)

    def card(self, id: CompanyId) -> PostgresRead[CompanyCard]:
        def build(answers: Answers) -> CompanyCard:
            if not answers[0]:
                raise NotFound("company_not_found")
            return _built(answers[0][0])

        return self._of_the_realm(build, _one.of(id=id))

    def usage(self, id: CompanyId, *, since: datetime) -> PostgresRead[Usage]:
        return self._of_the_realm(lambda answers: Usage(*answers[0][0]), _usage.of(id=id, since=since))

    def failed(self, *, limit: int) -> PostgresRead[Sequence[FailedJob]]:
        return self._of_the_realm(
            lambda answers: [FailedJob(*row) for row in answers[0]], _failed.of(count=limit)
        )

    def notices(self, *, failed: bool, limit: int) -> PostgresRead[Sequence[KeptNotice]]:
        def build(answers: Answers) -> Sequence[KeptNotice]:
            return [
                KeptNotice(company, ref, type, NoticeStatus(status), error, at)
                for company, ref, type, status, error, at in answers[0]
            ]

        return self._of_the_realm(build, _notices.of(failed=failed, count=limit))

    def payer(self, notice_id: str, customer_ref: str | None) -> PostgresRead[CompanyId | None]:
        call = _payer.of(id=notice_id, ref=customer_ref)
        return self._of_the_realm(lambda answers: answers[0][0][0], call)

    def _of_the_realm(self, build: Callable[[Answers], T], call: Call) -> PostgresRead[T]:
        """The application's own wall; the database has another."""
        if self.tx.scope != Scope(REALM):
            raise NotFound("not_found")
        return PostgresRead(self.tx, build, call)
