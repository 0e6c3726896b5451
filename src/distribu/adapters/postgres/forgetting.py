"""What the queue forgets when its time is over: idempotency keys, mails, and events with their deliveries."""

from datetime import datetime, timedelta
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from distribu.application.ports import ANSWERS_KEPT, MAILS_KEPT

# One relay at a time per company: the lock on its head is what makes positions gap-free, and `seq`,
# drawn while the entity was locked, is what keeps them in the order of each entity's changes.
FEED_HEAD: Final = """
INSERT INTO distribu.feed_heads (company_id, position, purged) VALUES (%(company)s, 0, 0)
ON CONFLICT (company_id) DO UPDATE SET position = feed_heads.position RETURNING position
"""

PURGE_BATCH: Final = 5_000
PURGE_COMPANIES, PURGE_EVENTS = 50, 200
"""What one turn of the purge takes: keys and mails, companies, events of each with their deliveries."""

_PURGE_ANSWERS: Final = """
DELETE FROM distribu.answers WHERE (company_id, actor, key) IN (
    SELECT company_id, actor, key FROM distribu.answers WHERE created_at <= %(answers)s LIMIT %(limit)s
)
"""

_PURGE_MAILS: Final = """
DELETE FROM distribu.mails WHERE (company_id, id) IN (
    SELECT company_id, id FROM distribu.mails
    WHERE status <> 'PENDING' AND created_at <= %(mails)s LIMIT %(limit)s
)
"""

# Nobody can switch a removed webhook on, and every claim would leap over what waits for it.
_GIVE_UP: Final = """
UPDATE distribu.deliveries SET status = 'DEAD', next_attempt_at = NULL, claimed_until = NULL
WHERE (company_id, id) IN (
    SELECT deliveries.company_id, deliveries.id FROM distribu.webhooks
    JOIN distribu.deliveries ON deliveries.company_id = webhooks.company_id
        AND deliveries.webhook_id = webhooks.id AND deliveries.status = 'PENDING'
    WHERE webhooks.removed_at IS NOT NULL LIMIT %(limit)s
)
"""

# In no order: those whose events are still being tried must not keep others from their turn.
_OLD: Final = """
SELECT heads.company_id FROM distribu.feed_heads AS heads CROSS JOIN LATERAL (
    SELECT placed_at FROM distribu.feed WHERE feed.company_id = heads.company_id ORDER BY position LIMIT 1
) AS first WHERE first.placed_at <= %(before)s ORDER BY random() LIMIT %(companies)s
"""

# Up to the first event that is not old, or has a delivery which is still being tried.
_UP_TO: Final = """
SELECT max(position) FROM (
    SELECT position, bool_and(placed_at <= %(before)s AND NOT EXISTS (
        SELECT FROM distribu.deliveries
        JOIN distribu.webhooks ON webhooks.company_id = deliveries.company_id
            AND webhooks.id = deliveries.webhook_id AND webhooks.is_active
        JOIN distribu.company_cards ON company_cards.company_id = deliveries.company_id
            AND company_cards.standing = 'OPEN'
        WHERE deliveries.company_id = first.company_id AND deliveries.position = first.position
            AND deliveries.status = 'PENDING'
    )) OVER (ORDER BY position) AS old
    FROM (
        SELECT company_id, position, placed_at FROM distribu.feed
        WHERE company_id = %(company)s ORDER BY position LIMIT %(limit)s
    ) AS first
) AS looked_at WHERE old
"""

_PURGE_ATTEMPTS: Final = """
DELETE FROM distribu.attempts USING distribu.deliveries
WHERE deliveries.company_id = %(company)s AND deliveries.position <= %(position)s
    AND attempts.company_id = deliveries.company_id AND attempts.delivery_id = deliveries.id
"""

_PURGE_DELIVERIES: Final = """
DELETE FROM distribu.deliveries WHERE company_id = %(company)s AND position <= %(position)s
"""

_PURGE_FEED: Final = "DELETE FROM distribu.feed WHERE company_id = %(company)s AND position <= %(position)s"

_PURGE_HEAD: Final = """
UPDATE distribu.feed_heads SET purged = greatest(purged, %(position)s) WHERE company_id = %(company)s
"""


async def forget(pool: AsyncConnectionPool[AsyncConnection[Any]], *, now: datetime, kept: timedelta) -> int:
    """Carry out `Queue.purge`, with events kept for so long."""
    async with pool.connection() as connection, connection.transaction():
        given = {"answers": now - ANSWERS_KEPT, "mails": now - MAILS_KEPT, "limit": PURGE_BATCH}
        gone = (await connection.execute(_PURGE_ANSWERS, given)).rowcount
        gone += (await connection.execute(_PURGE_MAILS, given)).rowcount
        gone += (await connection.execute(_GIVE_UP, given)).rowcount
        old = {"before": now - kept, "companies": PURGE_COMPANIES}
        companies = await (await connection.execute(_OLD, old)).fetchall()
    for (company,) in companies:
        async with pool.connection() as connection, connection.transaction():
            await connection.execute(FEED_HEAD, {"company": company})  # so that nothing is replayed meanwhile
            found = {"company": company, "before": now - kept, "limit": PURGE_EVENTS}
            row = await (await connection.execute(_UP_TO, found)).fetchone()
            if row is None or row[0] is None:
                continue
            upto = {"company": company, "position": row[0]}
            for statement in (_PURGE_ATTEMPTS, _PURGE_DELIVERIES, _PURGE_HEAD):
                await connection.execute(statement, upto)
            gone += (await connection.execute(_PURGE_FEED, upto)).rowcount
    return gone
