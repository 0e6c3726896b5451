"""Finders of webhooks, their deliveries, and the feed behind them."""

from collections.abc import Collection

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row, Statement
from distribu.adapters.postgres.mapping import WEBHOOKS, mine
from distribu.adapters.postgres.reading import Answers, Finder, Pages, PostgresRead, locking
from distribu.application.finders import FEED_SCAN, Feed, Happened, feed_after
from distribu.application.ports import Page
from distribu.domain.errors import NotFound
from distribu.domain.values import DeliveryId, WebhookId
from distribu.domain.webhooks import TEST, Attempt, Delivery, DeliveryStatus, Webhook

_row = schema.webhooks.c
_present = _row.removed_at.is_(None)
_get = locking(
    sa.select(*WEBHOOKS.columns).where(mine(schema.webhooks), _row.id == sa.bindparam("id"), _present)
)
_pages = Pages(WEBHOOKS.columns, schema.webhooks, _row.id, _present)
_count = Statement(
    sa.select(sa.func.count()).select_from(schema.webhooks).where(mine(schema.webhooks), _present)
)

_sent, _tried = schema.deliveries.c, schema.attempts.c
_pending: sa.ColumnElement[str] = sa.literal_column(f"'{DeliveryStatus.PENDING}'")
_parked: sa.ColumnElement[str] = sa.literal_column(f"'{DeliveryStatus.PARKED}'")
# Parked is what is pending and cannot go: nobody has to mark it so, or to give it back.
_waits = sa.and_(_sent.status == _pending, ~_row.is_active, _sent.event != sa.literal_column(f"'{TEST}'"))
_status = sa.case((_waits, _parked), else_=_sent.status)
_columns = (
    _sent.id,
    _sent.webhook_id,
    _sent.event_id,
    _sent.event,
    _sent.position,
    _status,
    _sent.next_attempt_at,
    _sent.created_at,
    _sent.attempts,
    _tried.status,
)
_last = sa.and_(
    _tried.company_id == _sent.company_id, _tried.delivery_id == _sent.id, _tried.number == _sent.attempts
)
_of_webhooks = schema.deliveries.join(
    schema.webhooks, sa.and_(_row.company_id == _sent.company_id, _row.id == _sent.webhook_id)
).outerjoin(schema.attempts, _last)
_delivery = Statement(
    sa.select(*_columns)
    .select_from(_of_webhooks)
    .where(mine(schema.deliveries), _sent.id == sa.bindparam("id"))
)
_deliveries = Pages(
    _columns,
    schema.deliveries,
    _sent.id,
    _sent.webhook_id == sa.bindparam("webhook"),
    source=_of_webhooks,
)
_attempts = Statement(
    sa.select(
        _tried.number,
        _tried.at,
        _tried.duration_ms,
        _tried.status,
        _tried.headers,
        _tried.body,
        _tried.error,
    )
    .where(mine(schema.attempts), _tried.delivery_id == sa.bindparam("id"))
    .order_by(_tried.number)
)
_headers = msgspec.json.Decoder(dict[str, str])

_head, _gone = (
    Statement(sa.select(column).where(mine(schema.feed_heads)))
    for column in (schema.feed_heads.c.position, schema.feed_heads.c.purged)
)
_event = schema.feed.c
_purged = sa.select(sa.func.max(schema.feed_heads.c.purged)).where(mine(schema.feed_heads)).scalar_subquery()
_from = sa.func.coalesce(sa.bindparam("after", type_=sa.BigInteger), _purged)
_events = Statement(
    sa.select(_event.id, _event.name, _event.occurred_at, _event.position, _event.payload)
    .where(
        mine(schema.feed),
        _event.position > _from,
        _event.position <= _from + FEED_SCAN,
        _event.name == sa.any_(sa.bindparam("names", type_=ARRAY(sa.Text))),
    )
    .order_by(_event.position)
    .limit(sa.bindparam("count", type_=sa.BigInteger))
)


class PostgresWebhooks(Finder):
    """Implements the port Webhooks."""

    def get(self, id: WebhookId) -> PostgresRead[Webhook]:
        return self.got(WEBHOOKS, _get, "webhook_not_found", id=id)

    def page(self, *, limit: int, cursor: str | None = None) -> PostgresRead[Page[Webhook]]:
        statement = _pages.statement(cursor=cursor)
        return self.paged(WEBHOOKS.build, statement, limit, lambda it: it.id, cursor=cursor)

    def count(self) -> PostgresRead[int]:
        return PostgresRead(self.tx, lambda answers: int(answers[0][0][0]), _count.of(**self.bound))

    def delivery(self, id: DeliveryId) -> PostgresRead[Delivery]:
        def build(answers: Answers) -> Delivery:
            if not answers[0]:
                raise NotFound("delivery_not_found")
            return _built(answers[0][0], tuple(_attempt(row) for row in answers[1]))

        bound = self.bound
        return PostgresRead(self.tx, build, _delivery.of(**bound, id=id), _attempts.of(**bound, id=id))

    def deliveries(
        self, id: WebhookId, *, limit: int, cursor: str | None = None
    ) -> PostgresRead[Page[Delivery]]:
        statement = _deliveries.statement(cursor=cursor)
        return self.paged(_built, statement, limit, lambda it: it.id, webhook=id, cursor=cursor)


class PostgresEvents(Finder):
    """Implements the port Events."""

    def after(self, position: int | None, *, names: Collection[str], limit: int) -> PostgresRead[Feed]:
        def build(answers: Answers) -> Feed:
            head, purged = (rows[0][0] if rows else 0 for rows in (answers[0], answers[2]))
            return feed_after(position, head, purged, [Happened(*row) for row in answers[1]], limit)

        bound = self.bound
        asked = _events.of(**bound, after=position, names=[*names], count=limit + 1)
        # What is placed meanwhile is above the head that was read before; what is purged, below the last.
        return PostgresRead(self.tx, build, _head.of(**bound), asked, _gone.of(**bound))


def _built(row: Row, attempts: tuple[Attempt, ...] = ()) -> Delivery:
    id, webhook_id, event_id, event, position, status, next_attempt_at, created_at, count, last_status = row
    return Delivery(
        id=id,
        webhook_id=webhook_id,
        event_id=event_id,
        event=event,
        position=position,
        status=DeliveryStatus(status),
        next_attempt_at=next_attempt_at,
        created_at=created_at,
        attempt_count=count,
        last_status=last_status,
        attempts=attempts,
    )


def _attempt(row: Row) -> Attempt:
    number, at, duration_ms, status, headers, body, error = row
    return Attempt(
        number=number,
        at=at,
        duration_ms=duration_ms,
        status=status,
        headers=_headers.decode(headers),
        body=body,
        error=error,
    )
