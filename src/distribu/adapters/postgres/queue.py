"""The queue: what the machine owns, by a role that can reach nothing else."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from distribu.adapters.postgres.driver import teach
from distribu.adapters.postgres.store import ANSWERS_KEPT
from distribu.application.ports import (
    BACKLOG_MAX,
    MAILS_KEPT,
    Backlog,
    Entropy,
    MailParcel,
    MailStatus,
    Parcel,
    Waiting,
)
from distribu.domain.errors import Busy
from distribu.domain.values import CompanyId, WebhookId
from distribu.domain.webhooks import Attempt, DeliveryStatus

log: Final = logging.getLogger("distribu.queue")

ERROR_KEPT: Final = 500
"""Characters of why a mail was not taken."""

_CLAIM_COMPANIES: Final = """
SELECT company_id FROM distribu.outbox GROUP BY company_id ORDER BY min(seq) LIMIT %(companies)s
"""

# One relay at a time per company: the lock on its head is what makes positions gap-free, and `seq`,
# drawn while the entity was locked, is what keeps them in the order of each entity's changes.
_HEAD: Final = """
INSERT INTO distribu.feed_heads (company_id, position) VALUES (%(company)s, 0)
ON CONFLICT (company_id) DO UPDATE SET position = feed_heads.position RETURNING position
"""

_MOVE: Final = """
WITH taken AS (
    DELETE FROM distribu.outbox WHERE company_id = %(company)s AND seq IN (
        SELECT seq FROM distribu.outbox WHERE company_id = %(company)s ORDER BY seq LIMIT %(limit)s
    ) RETURNING *
), placed AS (
    INSERT INTO distribu.feed (company_id, position, id, name, occurred_at, payload)
    SELECT company_id, %(head)s + row_number() OVER (ORDER BY seq), id, name, occurred_at, payload FROM taken
    RETURNING *
), counted AS (
    UPDATE distribu.feed_heads SET position = position + (SELECT count(*) FROM taken)
    WHERE company_id = %(company)s
)
SELECT placed.position, placed.id, placed.name, webhooks.id
FROM placed LEFT JOIN distribu.webhooks ON webhooks.company_id = placed.company_id
    AND webhooks.is_active AND webhooks.removed_at IS NULL AND placed.name = ANY (webhooks.subscribed)
ORDER BY placed.position
"""

_DELIVER: Final = """
INSERT INTO distribu.deliveries (company_id, id, webhook_id, position, event_id, event, status, attempts,
    next_attempt_at, created_at)
SELECT %(company)s, new.*, 'PENDING', 0, %(now)s, %(now)s
FROM unnest(%(ids)s::uuid[], %(webhooks)s::uuid[], %(positions)s::bigint[], %(events)s::uuid[],
    %(names)s::text[]) AS new
"""

_CLAIM: Final = """
WITH due AS (
    SELECT deliveries.company_id, deliveries.id, deliveries.webhook_id, deliveries.next_attempt_at,
        row_number() OVER (
            PARTITION BY deliveries.webhook_id ORDER BY deliveries.next_attempt_at, deliveries.id
        ) AS place
    FROM distribu.deliveries
    JOIN distribu.webhooks ON webhooks.company_id = deliveries.company_id
        AND webhooks.id = deliveries.webhook_id AND webhooks.is_active
    WHERE deliveries.status = 'PENDING' AND deliveries.next_attempt_at <= %(now)s
        AND (deliveries.claimed_until IS NULL OR deliveries.claimed_until <= %(now)s)
        AND deliveries.webhook_id <> ALL (%(full)s::uuid[])
), chosen AS (
    SELECT deliveries.company_id, deliveries.id FROM distribu.deliveries
    JOIN due USING (company_id, id)
    WHERE due.place <= %(per_webhook)s
        - coalesce((%(busy)s::jsonb ->> due.webhook_id::text)::int, 0)
        AND deliveries.status = 'PENDING'
        AND (deliveries.claimed_until IS NULL OR deliveries.claimed_until <= %(now)s)
    ORDER BY due.next_attempt_at, due.id LIMIT %(limit)s
    FOR NO KEY UPDATE OF deliveries SKIP LOCKED
), claimed AS (
    UPDATE distribu.deliveries SET claimed_until = %(until)s
    FROM chosen WHERE deliveries.company_id = chosen.company_id AND deliveries.id = chosen.id
    RETURNING deliveries.*
)
SELECT claimed.company_id, claimed.id, webhooks.id, webhooks.url, webhooks.secret, webhooks.old_secret,
    webhooks.grace_expires_at, feed.id, feed.name, feed.occurred_at, feed.position, feed.payload,
    claimed.attempts
FROM claimed
JOIN distribu.webhooks ON webhooks.company_id = claimed.company_id AND webhooks.id = claimed.webhook_id
JOIN distribu.feed ON feed.company_id = claimed.company_id AND feed.position = claimed.position
ORDER BY feed.position
"""

_FINISH: Final = """
WITH tried AS (
    INSERT INTO distribu.attempts
        (company_id, delivery_id, number, at, duration_ms, status, headers, body, error)
    VALUES (%(company)s, %(delivery)s, %(number)s, %(at)s, %(duration_ms)s, %(answered)s, %(headers)s,
        %(body)s, %(error)s)
)
UPDATE distribu.deliveries SET status = %(status)s, attempts = %(number)s, next_attempt_at = %(next)s,
    claimed_until = NULL
WHERE company_id = %(company)s AND id = %(delivery)s
"""


_CLAIM_MAILS: Final = """
WITH chosen AS (
    SELECT company_id, id FROM distribu.mails
    WHERE status = 'PENDING' AND next_attempt_at <= %(now)s
        AND (claimed_until IS NULL OR claimed_until <= %(now)s)
    ORDER BY next_attempt_at, id LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE distribu.mails SET claimed_until = %(until)s
FROM chosen WHERE mails.company_id = chosen.company_id AND mails.id = chosen.id
RETURNING mails.company_id, mails.id, mails.recipient, mails.letter, mails.sealed, mails.attempts
"""

_FINISH_MAIL: Final = """
UPDATE distribu.mails SET status = %(status)s, attempts = attempts + 1, next_attempt_at = %(next)s,
    claimed_until = NULL, error = %(error)s, recipient = CASE WHEN %(done)s THEN '' ELSE recipient END,
    letter = CASE WHEN %(done)s THEN '' ELSE letter END, sealed = CASE WHEN %(done)s THEN NULL ELSE sealed END
WHERE company_id = %(company)s AND id = %(id)s AND status = 'PENDING'
"""

# Each part looks at no more rows than it counts.
_BACKLOG: Final = """
SELECT count(*), min(due) FROM (SELECT occurred_at AS due FROM distribu.outbox LIMIT %(most)s) AS events
UNION ALL
SELECT count(*), min(due) FROM (
    SELECT deliveries.next_attempt_at AS due FROM distribu.deliveries
    JOIN distribu.webhooks ON webhooks.company_id = deliveries.company_id
        AND webhooks.id = deliveries.webhook_id AND webhooks.is_active
    WHERE deliveries.status = 'PENDING' ORDER BY deliveries.next_attempt_at LIMIT %(most)s
) AS deliveries
UNION ALL
SELECT count(*), min(due) FROM (
    SELECT next_attempt_at AS due FROM distribu.mails
    WHERE status = 'PENDING' ORDER BY next_attempt_at LIMIT %(most)s
) AS mails
"""


class PostgresQueue:
    """Implements the port Queue, on connections of its own role."""

    def __init__(self, url: str, *, entropy: Entropy, size: int = 4, prepare: bool = True) -> None:
        self._entropy = entropy
        self.pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            timeout=10,
            open=False,
            configure=self._configure,
            kwargs={"prepare_threshold": 2 if prepare else None},
        )

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        teach(connection.adapters)

    async def open(self) -> None:
        """Connect."""
        await self.pool.open(wait=True, timeout=30)

    async def close(self) -> None:
        """Give back the connections."""
        await self.pool.close()

    async def relay(self, *, limit: int, now: datetime) -> int:
        async with self.pool.connection() as connection:
            waiting = await (await connection.execute(_CLAIM_COMPANIES, {"companies": 100})).fetchall()
        moved = 0
        for (company,) in waiting:
            if moved >= limit:
                break
            try:
                moved += await self._relay_company(company, limit - moved, now)
            except PoolTimeout:  # no connection for this one is none for the next one either
                raise
            except errors.Error:
                log.exception("the events of company %s wait for the next turn", company)
        return moved

    async def _relay_company(self, company: object, limit: int, now: datetime) -> int:
        async with self.pool.connection() as connection:
            head = await (await connection.execute(_HEAD, {"company": company})).fetchone()
            given = {"company": company, "limit": limit, "head": head[0] if head else 0}
            placed = await (await connection.execute(_MOVE, given)).fetchall()
            wanted = [row for row in placed if row[3] is not None]
            if wanted:
                await connection.execute(
                    _DELIVER,
                    {
                        "company": company,
                        "now": now,
                        "ids": [self._entropy.uuid() for _ in wanted],
                        "webhooks": [row[3] for row in wanted],
                        "positions": [row[0] for row in wanted],
                        "events": [row[1] for row in wanted],
                        "names": [row[2] for row in wanted],
                    },
                )
            return len({row[0] for row in placed})

    async def claim(
        self, *, limit: int, per_webhook: int, busy: Mapping[WebhookId, int], now: datetime, claim_s: float
    ) -> Sequence[Parcel]:
        async with self.pool.connection() as connection:
            rows = await (
                await connection.execute(
                    _CLAIM,
                    {
                        "limit": limit,
                        "per_webhook": per_webhook,
                        "busy": msgspec.json.encode(busy).decode(),
                        "full": [id for id, count in busy.items() if count >= per_webhook],
                        "now": now,
                        "until": now + timedelta(seconds=claim_s),
                    },
                )
            ).fetchall()
        return [_parcel(row) for row in rows]

    async def finish(
        self, parcel: Parcel, attempt: Attempt, *, status: DeliveryStatus, next_attempt_at: datetime | None
    ) -> None:
        try:
            async with self.pool.connection() as connection:
                await connection.execute(
                    _FINISH,
                    {
                        "company": parcel.company_id,
                        "delivery": parcel.delivery_id,
                        "number": attempt.number,
                        "at": attempt.at,
                        "duration_ms": attempt.duration_ms,
                        "answered": attempt.status,
                        "headers": msgspec.json.encode(attempt.headers).decode(),
                        "body": attempt.body,
                        "error": attempt.error,
                        "status": status,
                        "next": next_attempt_at,
                    },
                )
        except errors.UniqueViolation:
            # The claim ran out and another worker made this attempt too: its record stands.
            return
        except errors.OperationalError as error:
            raise Busy("busy", retry_after_s=1) from error

    async def claim_mails(self, *, limit: int, now: datetime, claim_s: float) -> Sequence[MailParcel]:
        given = {"limit": limit, "now": now, "until": now + timedelta(seconds=claim_s)}
        async with self.pool.connection() as connection:
            rows = await (await connection.execute(_CLAIM_MAILS, given)).fetchall()
        return [MailParcel(*row) for row in sorted(rows, key=lambda row: row[1])]

    async def finish_mail(
        self, parcel: MailParcel, *, status: MailStatus, next_attempt_at: datetime | None, error: str
    ) -> None:
        given = {
            "company": parcel.company_id,
            "id": parcel.id,
            "status": status,
            "next": next_attempt_at,
            "error": error[:ERROR_KEPT],
            "done": status is not MailStatus.PENDING,
        }
        try:
            async with self.pool.connection() as connection:
                await connection.execute(_FINISH_MAIL, given)
        except errors.OperationalError as error_:
            raise Busy("busy", retry_after_s=1) from error_

    async def seen(self, company_id: CompanyId, session_id: str, *, at: datetime, ip: str | None) -> None:
        async with self.pool.connection() as connection:
            await connection.execute(
                "UPDATE distribu.sessions SET seen_at = %s, ip = %s WHERE company_id = %s AND id = %s",
                [at, ip, company_id, session_id],
            )

    async def backlog(self, *, now: datetime) -> Backlog:
        async with self.pool.connection() as connection:
            rows = await (await connection.execute(_BACKLOG, {"most": BACKLOG_MAX})).fetchall()
        events, deliveries, mails = (
            Waiting(count, max(0.0, (now - (first or now)).total_seconds())) for count, first in rows
        )
        return Backlog(events, deliveries, mails)

    async def purge(self, *, now: datetime) -> int:
        async with self.pool.connection() as connection:
            gone = await connection.execute(
                "DELETE FROM distribu.answers WHERE created_at <= %s", [now - ANSWERS_KEPT]
            )
            done = await connection.execute(
                "DELETE FROM distribu.mails WHERE status <> 'PENDING' AND created_at <= %s",
                [now - MAILS_KEPT],
            )
            return gone.rowcount + done.rowcount


def _parcel(row: tuple[Any, ...]) -> Parcel:
    (
        company_id,
        delivery_id,
        webhook_id,
        url,
        secret,
        old_secret,
        grace_expires_at,
        event_id,
        event,
        occurred_at,
        position,
        payload,
        attempts,
    ) = row
    return Parcel(
        company_id=company_id,
        delivery_id=delivery_id,
        webhook_id=webhook_id,
        url=url,
        secret=secret,
        old_secret=old_secret,
        grace_expires_at=grace_expires_at,
        event_id=event_id,
        event=event,
        occurred_at=occurred_at,
        position=position,
        payload=payload,
        attempts=attempts,
    )
