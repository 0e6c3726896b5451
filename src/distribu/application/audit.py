"""Use cases of the audit log."""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from distribu.application import fields
from distribu.application.kernel import Command, Query, Reads, Work
from distribu.application.ports import Page
from distribu.domain.access import ActorKind, Permission
from distribu.domain.audit import CustomEntry, Record

_Action = Annotated[
    str,
    Meta(pattern=r"^[a-z][a-z0-9_]*(\.[a-z0-9_]+)*$", min_length=1, max_length=80, examples=["report.sent"]),
]
_Word = Annotated[str, Meta(max_length=100)]


class RecordAudit(Command[None], frozen=True, kw_only=True):
    """Write an entry of one's own into the audit log; its action becomes ``custom.<action>``."""

    needs = Permission.AUDIT_WRITE

    action: _Action
    entity_type: _Word = ""
    entity_id: _Word = ""
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)

    async def run(self, work: Work) -> None:
        work.record(
            CustomEntry(
                action=self.action.removeprefix("custom."),
                entity_type=self.entity_type,
                entity_id=self.entity_id,
                metadata=self.metadata,
            )
        )


class ListAudit(Query[Page[Record]], frozen=True, kw_only=True):
    """The audit log, newest first. ``action`` also finds what begins with it and a dot.

    ``search`` looks in the text of a record, which is JSON, and in what its actor is called; the case of
    ASCII letters is ignored.
    """

    needs = Permission.AUDIT_READ

    actor_type: ActorKind | None = None
    entity_type: _Word | None = None
    entity_id: _Word | None = None
    action: _Action | None = None
    since: fields.Moment | None = None
    until: fields.Moment | None = None
    search: _Word | None = None
    limit: fields.Limit = 50
    cursor: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Page[Record]:
        return await reads.records.page(
            limit=self.limit,
            cursor=self.cursor,
            actor_kind=self.actor_type,
            entity_type=self.entity_type,
            entity_id=self.entity_id,
            action=self.action,
            since=self.since,
            until=self.until,
            search=self.search,
        )
