"""Finders of the audit log."""

from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row
from distribu.adapters.postgres.reading import Finder, Pages, PostgresRead
from distribu.application.ports import Page
from distribu.domain.access import ActorKind
from distribu.domain.audit import Record

_row = schema.records.c
_person = schema.record_people.c
_with_people = schema.records.outerjoin(
    schema.record_people,
    sa.and_(_person.company_id == _row.company_id, _person.id == _row.person_id),
)
_pages = Pages(
    (
        _row.id,
        _row.company_id,
        _row.at,
        _row.actor_kind,
        _row.actor_id,
        _person.label,
        _person.ip,
        _row.action,
        _row.entity_type,
        _row.entity_id,
        _row.body,
    ),
    schema.records,
    _row.id,
    source=_with_people,
    filters={
        "actor_kind": lambda: _row.actor_kind == sa.bindparam("actor_kind"),
        "entity_type": lambda: _row.entity_type == sa.bindparam("entity_type"),
        "entity_id": lambda: _row.entity_id == sa.bindparam("entity_id"),
        "action": lambda: sa.or_(
            _row.action == sa.bindparam("action"),
            sa.func.starts_with(_row.action, sa.bindparam("action") + "."),
        ),
        "since": lambda: _row.at >= sa.bindparam("since"),
        "until": lambda: _row.at < sa.bindparam("until"),
        # In the collation "C" what is lower differs in ASCII alone, on every server.
        "search": lambda: (
            sa.func.strpos(
                sa.func.lower(sa.func.concat(_row.body, "\n", _person.label).collate("C")),
                sa.func.lower(sa.bindparam("search", type_=sa.Text).collate("C")),
            )
            > 0
        ),
    },
)


class PostgresRecords(Finder):
    """Implements the port Records."""

    def page(
        self,
        *,
        limit: int,
        cursor: str | None = None,
        actor_kind: ActorKind | None = None,
        entity_type: str | None = None,
        entity_id: str | None = None,
        action: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        search: str | None = None,
    ) -> PostgresRead[Page[Record]]:
        wanted: dict[str, Any] = {
            "cursor": cursor,
            "actor_kind": actor_kind,
            "entity_type": entity_type,
            "entity_id": entity_id,
            "action": action,
            "since": since,
            "until": until,
            "search": search,
        }
        return self.paged(_built, _pages.statement(**wanted), limit, lambda it: it.id, **wanted)


def _built(row: Row) -> Record:
    id, company_id, at, actor_kind, actor_id, label, ip, action, entity_type, entity_id, body = row
    return Record(
        id=id,
        company_id=company_id,
        at=at,
        actor_kind=ActorKind(actor_kind),
        actor_id=actor_id,
        label=label,
        ip=ip,
        action=action,
        entity_type=entity_type,
        entity_id=entity_id,
        metadata=msgspec.json.decode(body)["metadata"],
    )
