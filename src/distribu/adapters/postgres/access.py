"""Finders of API keys, and the directory."""

import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row, Statement
from distribu.adapters.postgres.mapping import API_KEYS, mine
from distribu.adapters.postgres.reading import Finder, Pages, PostgresRead, locking
from distribu.application.ports import Page
from distribu.domain.access import ApiKey, KeyGrant, Permission, Standing
from distribu.domain.values import ApiKeyId

_row = schema.api_keys.c
_get = locking(sa.select(*API_KEYS.columns).where(mine(schema.api_keys), _row.id == sa.bindparam("id")))
_pages = Pages(API_KEYS.columns, schema.api_keys, _row.id)
_count = Statement(
    sa.select(sa.func.count())
    .select_from(schema.api_keys)
    .where(mine(schema.api_keys), _row.revoked_at.is_(None))
)


class PostgresApiKeys(Finder):
    """Implements the port ApiKeys."""

    def get(self, id: ApiKeyId) -> PostgresRead[ApiKey]:
        return self.got(API_KEYS, _get, "api_key_not_found", id=id)

    def page(self, *, limit: int, cursor: str | None = None) -> PostgresRead[Page[ApiKey]]:
        statement = _pages.statement(cursor=cursor)
        return self.paged(API_KEYS.build, statement, limit, lambda it: it.id, cursor=cursor)

    def count(self) -> PostgresRead[int]:
        return PostgresRead(self.tx, lambda answers: int(answers[0][0][0]), _count.of(**self.bound))


_grant = schema.key_grants.c
KEY = Statement(
    sa.select(
        _grant.company_id,
        _grant.key_id,
        _grant.name,
        _grant.scopes,
        _grant.expires_at,
        _grant.revoked,
        schema.company_cards.c.standing,
        schema.company_cards.c.api_limit,
    )
    .select_from(
        schema.key_grants.join(schema.company_cards, schema.company_cards.c.company_id == _grant.company_id)
    )
    .where(_grant.digest == sa.bindparam("digest"))
)
SLUG = Statement(
    sa.select(schema.company_slugs.c.company_id).where(schema.company_slugs.c.slug == sa.bindparam("slug"))
)


def grant(row: Row) -> KeyGrant:
    """A row of `KEY`."""
    company_id, key_id, name, scopes, expires_at, revoked, standing, api_limit = row
    return KeyGrant(
        company_id=company_id,
        key_id=key_id,
        name=name,
        scopes=frozenset(map(Permission, scopes)),
        expires_at=expires_at,
        revoked=revoked,
        standing=Standing(standing),
        api_limit=api_limit,
    )
