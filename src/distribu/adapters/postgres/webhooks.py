"""Finders of webhooks and their deliveries."""

import msgspec
import sqlalchemy as sa

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row, Statement
from distribu.adapters.postgres.mapping import WEBHOOKS, mine
from distribu.adapters.postgres.reading import Answers, Finder, Pages, PostgresRead, locking
from distribu.application.ports import Page
from distribu.domain.errors import NotFound
from distribu.domain.values import DeliveryId, WebhookId
from distribu.domain.webhooks import Attempt, Delivery, DeliveryStatus, Webhook

_row = schema.webhooks.c
_present = _row.removed_at.is_(None)
_get = locking(
    sa.select(*WEBHOOKS.columns).where(mine(schema.webhooks), _row.id == sa.bindparam("id"), _present)
)
_pages = Pages(WEBHOOKS.columns, schema.webhooks, _row.id, _present)
_count = Statement(
    sa.select(sa.func.count()).select_from(schema.webhooks).where(mine(schema.webhooks), _present)
)

_sent = schema.deliveries.c
_columns = (
    _sent.id,
    _sent.webhook_id,
    _sent.event_id,
    _sent.event,
    _sent.status,
    _sent.next_attempt_at,
    _sent.created_at,
)
_delivery = Statement(sa.select(*_columns).where(mine(schema.deliveries), _sent.id == sa.bindparam("id")))
_deliveries = Pages(_columns, schema.deliveries, _sent.id, _sent.webhook_id == sa.bindparam("webhook"))
_tried = schema.attempts.c
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


def _built(row: Row, attempts: tuple[Attempt, ...] = ()) -> Delivery:
    id, webhook_id, event_id, event, status, next_attempt_at, created_at = row
    return Delivery(
        id=id,
        webhook_id=webhook_id,
        event_id=event_id,
        event=event,
        status=DeliveryStatus(status),
        next_attempt_at=next_attempt_at,
        created_at=created_at,
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
