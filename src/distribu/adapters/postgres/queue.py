"""The queue: what the machine owns, by a role that can reach nothing else."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from distribu.adapters.postgres.driver import teach
from distribu.adapters.postgres.finishing import AttemptStore
from distribu.adapters.postgres.forgetting import FEED_HEAD, forget
from distribu.adapters.postgres.seals import OLDEST_UNSEALED
from distribu.application.ports import (
    BACKLOG_MAX,
    DELIVERIES_KEPT,
    REPLAY_BATCH,
    Backlog,
    DueNotice,
    Entropy,
    MailParcel,
    MailStatus,
    Parcel,
    Replay,
    Waiting,
)
from distribu.domain.errors import Busy
from distribu.domain.values import CompanyId, WebhookId
from distribu.domain.webhooks import ATTEMPTS_MAX, REPLAY, TEST, Attempt, DeliveryStatus

log: Final = logging.getLogger("distribu.queue")

WAITING_MAX: Final = 100
"""How many wait for a connection at once; the others are told so without waiting."""

NOTE_WAIT_S: Final = 0.5
"""How long what is only a note waits for a connection: somebody's request waits with it."""

ERROR_KEPT: Final = 500
"""Characters of why a mail was not taken."""

# In no order: whoever has much waiting, or has it waiting for long, keeps nobody from their turn.
_CLAIM_COMPANIES: Final = """
SELECT company_id FROM distribu.outbox GROUP BY company_id ORDER BY random() LIMIT %(companies)s
"""

SHARE: Final = 200
"""Events of one company that a turn of the relay moves at most: each may go to 50 webhooks."""

MOVE: Final = """
WITH taken AS (
    DELETE FROM distribu.outbox WHERE company_id = %(company)s AND seq IN (
        SELECT seq FROM distribu.outbox WHERE company_id = %(company)s AND name <> %(replay)s
        ORDER BY seq LIMIT %(limit)s
    ) RETURNING *
), placed AS (
    INSERT INTO distribu.feed (company_id, position, id, name, occurred_at, placed_at, payload)
    SELECT company_id, %(head)s + row_number() OVER (ORDER BY seq), id, name, occurred_at, %(now)s, payload
    FROM taken
    RETURNING *
), counted AS (
    UPDATE distribu.feed_heads SET position = position + (SELECT count(*) FROM taken)
    WHERE company_id = %(company)s
)
SELECT placed.position, placed.id, placed.name, webhooks.id, marks.position,
    webhooks.is_active OR placed.name = %(test)s
FROM placed LEFT JOIN distribu.webhooks ON webhooks.company_id = placed.company_id
    AND webhooks.removed_at IS NULL AND CASE placed.name
        WHEN %(test)s THEN placed.payload::jsonb ->> 'id' = webhooks.id::text
        ELSE placed.name = ANY (webhooks.subscribed) END
LEFT JOIN distribu.webhook_marks AS marks ON marks.company_id = placed.company_id
    AND marks.webhook_id = webhooks.id
ORDER BY placed.position
"""

# What the webhook was not switched on for moves its mark as well: the next that it gets tells of a gap.
_MARK: Final = """
INSERT INTO distribu.webhook_marks (company_id, webhook_id, position)
SELECT %(company)s, new.* FROM unnest(%(webhooks)s::uuid[], %(positions)s::bigint[]) AS new ORDER BY 2
ON CONFLICT (company_id, webhook_id) DO UPDATE SET position = excluded.position
"""

_DELIVER: Final = """
INSERT INTO distribu.deliveries (company_id, id, webhook_id, position, previous, event_id, event, status,
    attempts, attempts_before, next_attempt_at, created_at)
SELECT %(company)s, new.*, 'PENDING', 0, 0, %(now)s, %(now)s
FROM json_to_recordset(%(new)s::json) AS new (id uuid, webhook uuid, position bigint, previous bigint,
    event uuid, name text)
"""

# Under the lock on the head, as the events: nobody else carries out this order.
_ORDER: Final = """
SELECT seq, occurred_at, payload FROM distribu.outbox
WHERE company_id = %(company)s AND name = %(replay)s ORDER BY seq LIMIT 1
"""

_REPLAY: Final = """
WITH chosen AS (
    SELECT company_id, id FROM distribu.deliveries
    WHERE company_id = %(company)s AND webhook_id = %(webhook)s AND created_at < %(ordered)s
        AND (%(delivery)s::uuid IS NULL OR id = %(delivery)s)
        AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
        AND (%(until)s::timestamptz IS NULL OR created_at < %(until)s)
        AND status = ANY (%(statuses)s) AND attempts < %(most)s
        AND (replayed_at IS NULL OR replayed_at < %(ordered)s)
        AND (claimed_until IS NULL OR claimed_until <= %(now)s)
    ORDER BY id LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE distribu.deliveries SET status = 'PENDING', next_attempt_at = %(now)s, attempts_before = attempts,
    replayed_at = %(ordered)s, claimed_until = NULL
FROM chosen WHERE deliveries.company_id = chosen.company_id AND deliveries.id = chosen.id
"""

_ORDER_DONE: Final = "DELETE FROM distribu.outbox WHERE company_id = %(company)s AND seq = %(seq)s"

_TRIALS: Final = """
SELECT company_id::text FROM distribu.subscriptions JOIN distribu.company_cards USING (company_id)
WHERE status = 'TRIALING' AND trial_ends_at <= %(by)s AND standing = 'OPEN'
    AND (%(untold)s::int IS NULL OR told IS NULL OR told > %(untold)s)
    AND (%(after)s::uuid IS NULL OR company_id > %(after)s)
ORDER BY subscriptions.company_id LIMIT %(limit)s
"""

_CLAIM_NOTICES: Final = """
WITH chosen AS (
    SELECT company_id, id FROM distribu.stripe_events
    WHERE status IN ('WAITING', 'FAILED') AND due_at <= %(now)s
    ORDER BY due_at, id LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE distribu.stripe_events AS notices
SET tries = tries + 1, due_at = %(now)s + (%(waits)s::interval[])[tries + 2]
FROM chosen WHERE notices.company_id = chosen.company_id AND notices.id = chosen.id
RETURNING notices.company_id::text, notices.id::text, notices.due_at IS NULL
"""

# Leaps from webhook to webhook through the index of what is pending: how much it is costs nothing.
_WAITING: Final = """
WITH RECURSIVE waiting AS (
    (SELECT company_id, webhook_id FROM distribu.deliveries WHERE status = 'PENDING'
     ORDER BY company_id, webhook_id LIMIT 1)
    UNION ALL
    SELECT following.company_id, following.webhook_id FROM waiting CROSS JOIN LATERAL (
        SELECT company_id, webhook_id FROM distribu.deliveries
        WHERE status = 'PENDING' AND (company_id, webhook_id) > (waiting.company_id, waiting.webhook_id)
        ORDER BY company_id, webhook_id LIMIT 1
    ) AS following
)"""

# It looks at no more of each than may be in flight. `turn` is what the company holds with this one. Each is
# locked by its key alone: a planner that had last seen nothing pending would otherwise compare all that is
# pending with all that is due, for seconds. So it is asked in words that the index of those is not for.
CLAIM: Final = f"""{_WAITING}, held AS (
    SELECT * FROM unnest(%(companies)s::uuid[], %(webhooks)s::uuid[], %(counts)s::int[])
        AS held (company_id, webhook_id, places)
), due AS (
    SELECT waiting.company_id, one.id, one.next_attempt_at,
        row_number() OVER (PARTITION BY waiting.company_id ORDER BY one.place, one.next_attempt_at, one.id)
            + (SELECT coalesce(sum(places), 0) FROM held WHERE held.company_id = waiting.company_id) AS turn
    FROM waiting
    JOIN distribu.webhooks ON webhooks.company_id = waiting.company_id AND webhooks.id = waiting.webhook_id
        AND webhooks.removed_at IS NULL
    JOIN distribu.company_cards ON company_cards.company_id = waiting.company_id
        AND company_cards.standing = 'OPEN'
    LEFT JOIN held ON held.company_id = waiting.company_id AND held.webhook_id = waiting.webhook_id
    CROSS JOIN LATERAL (
        SELECT id, next_attempt_at,
            row_number() OVER (ORDER BY next_attempt_at, id) + coalesce(held.places, 0) AS place
        FROM (
            SELECT id, next_attempt_at FROM distribu.deliveries
            WHERE company_id = waiting.company_id AND webhook_id = waiting.webhook_id
                AND status = 'PENDING' AND next_attempt_at <= %(now)s
                AND (claimed_until IS NULL OR claimed_until <= %(now)s)
                AND (webhooks.is_active OR event = %(test)s)
            ORDER BY next_attempt_at, id LIMIT greatest(%(per_webhook)s - coalesce(held.places, 0), 0)
        ) AS first
    ) AS one
), chosen AS (
    SELECT locked.company_id, locked.id
    FROM (
        SELECT * FROM due WHERE turn <= %(per_company)s ORDER BY turn, next_attempt_at, id
    ) AS due
    CROSS JOIN LATERAL (
        SELECT company_id, id FROM distribu.deliveries
        WHERE company_id = due.company_id AND id = due.id AND status NOT IN ('DELIVERED', 'DEAD')
            AND (claimed_until IS NULL OR claimed_until <= %(now)s)
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
    ) AS locked
    LIMIT %(limit)s
), claimed AS (
    UPDATE distribu.deliveries SET claimed_until = %(until)s
    FROM chosen WHERE deliveries.company_id = chosen.company_id AND deliveries.id = chosen.id
    RETURNING deliveries.*
)
SELECT claimed.company_id, claimed.id, webhooks.id, webhooks.url, webhooks.secret, webhooks.old_secret,
    webhooks.grace_expires_at, feed.id, feed.name, feed.occurred_at, feed.position, claimed.previous,
    feed.payload, claimed.attempts, claimed.attempts_before,
    feed.name = %(test)s OR feed.name = ANY (webhooks.subscribed)
FROM claimed
JOIN distribu.webhooks ON webhooks.company_id = claimed.company_id AND webhooks.id = claimed.webhook_id
JOIN distribu.feed ON feed.company_id = claimed.company_id AND feed.position = claimed.position
ORDER BY feed.position
"""  # noqa: S608  # of two texts of ours

# The realm has no card, and is open always.
_SHUT: Final = """EXISTS (
    SELECT FROM distribu.company_cards
    WHERE company_cards.company_id = mails.company_id AND company_cards.standing <> 'OPEN'
)"""

_CLAIM_MAILS: Final = f"""
WITH chosen AS (
    SELECT company_id, id FROM distribu.mails
    WHERE status = 'PENDING' AND next_attempt_at <= %(now)s
        AND (claimed_until IS NULL OR claimed_until <= %(now)s)
        AND NOT {_SHUT}
    ORDER BY next_attempt_at, id LIMIT %(limit)s
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE distribu.mails SET claimed_until = %(until)s
FROM chosen WHERE mails.company_id = chosen.company_id AND mails.id = chosen.id
RETURNING mails.company_id, mails.id, mails.recipient, mails.letter, mails.sealed, mails.attempts
"""  # noqa: S608  # of two texts of ours

_FINISH_MAIL: Final = """
UPDATE distribu.mails SET status = %(status)s, attempts = attempts + 1, next_attempt_at = %(next)s,
    claimed_until = NULL, error = %(error)s, recipient = CASE WHEN %(done)s THEN '' ELSE recipient END,
    letter = CASE WHEN %(done)s THEN '' ELSE letter END, sealed = CASE WHEN %(done)s THEN NULL ELSE sealed END
WHERE company_id = %(company)s AND id = %(id)s AND status = 'PENDING'
"""

# Each part looks at no more rows than it counts.
_BACKLOG: Final = f"""{_WAITING}
SELECT count(*), min(due) FROM (SELECT occurred_at AS due FROM distribu.outbox LIMIT %(most)s) AS events
UNION ALL
SELECT (
    SELECT count(*) FROM (
        SELECT FROM distribu.deliveries
        JOIN distribu.webhooks ON webhooks.company_id = deliveries.company_id
            AND webhooks.id = deliveries.webhook_id AND webhooks.is_active
        JOIN distribu.company_cards ON company_cards.company_id = deliveries.company_id
            AND company_cards.standing = 'OPEN'
        WHERE deliveries.status = 'PENDING' LIMIT %(most)s
    ) AS deliveries
), (
    SELECT min(first.due) FROM waiting
    JOIN distribu.webhooks ON webhooks.company_id = waiting.company_id
        AND webhooks.id = waiting.webhook_id AND webhooks.is_active
    JOIN distribu.company_cards ON company_cards.company_id = waiting.company_id
        AND company_cards.standing = 'OPEN'
    CROSS JOIN LATERAL (
        SELECT min(next_attempt_at) AS due FROM distribu.deliveries
        WHERE company_id = waiting.company_id AND webhook_id = waiting.webhook_id AND status = 'PENDING'
    ) AS first
)
UNION ALL
SELECT count(*), min(due) FROM (
    SELECT next_attempt_at AS due FROM distribu.mails
    WHERE status = 'PENDING' AND NOT {_SHUT} ORDER BY next_attempt_at LIMIT %(most)s
) AS mails
UNION ALL
SELECT (
    SELECT count(*) FROM (SELECT FROM distribu.unsealed LIMIT %(most)s) AS unsealed
), (
    SELECT min(records.at) FROM ({OLDEST_UNSEALED}) AS oldest
    JOIN distribu.records ON records.company_id = oldest.company_id AND records.id = oldest.record_id
)
UNION ALL
SELECT count(*), min(due_at) FROM (
    SELECT due_at FROM distribu.stripe_events
    WHERE status IN ('WAITING', 'FAILED') AND due_at IS NOT NULL ORDER BY due_at LIMIT %(most)s
) AS notices
"""  # noqa: S608  # of four texts of ours


_SEALED: Final = """
SELECT company_id, id, sealed FROM distribu.mails
WHERE status = 'PENDING' AND sealed IS NOT NULL AND (%(after)s::uuid IS NULL OR id > %(after)s)
ORDER BY id LIMIT %(limit)s
"""

_RESEAL: Final = """
UPDATE distribu.mails SET sealed = %(after)s
WHERE company_id = %(company)s AND id = %(id)s AND sealed = %(before)s
"""


class _New(msgspec.Struct):
    """A delivery to be made."""

    id: str
    webhook: str
    position: int
    previous: int | None
    event: str
    name: str


class PostgresQueue:
    """Implements the port Queue, on connections of its own role."""

    def __init__(
        self,
        url: str,
        *,
        entropy: Entropy,
        kept: timedelta = DELIVERIES_KEPT,
        size: int = 4,
        prepare: bool = True,
    ) -> None:
        self._entropy = entropy
        self._kept = kept
        self.pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url,
            min_size=1,
            max_size=size,
            max_waiting=WAITING_MAX,
            timeout=10,
            open=False,
            configure=self._configure,
            # A statement is a transaction by itself, without a round trip for BEGIN and one for COMMIT.
            kwargs={"prepare_threshold": 2 if prepare else None, "autocommit": True},
        )

        self._attempts = AttemptStore(self.pool)

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
        moved = replayed = 0
        share = min(SHARE, -(-limit // max(1, len(waiting))))
        for (company,) in waiting:
            if moved >= limit:
                break
            try:
                events, again = await self._relay_company(company, min(share, limit - moved), now)
                moved, replayed = moved + events, replayed + again
            except (
                PoolTimeout,
                TooManyRequests,
            ):  # no connection for this one is none for the next one either
                raise
            except errors.Error:
                log.exception("the events of company %s wait for the next turn", company)
        return moved + replayed

    async def _relay_company(self, company: object, limit: int, now: datetime) -> tuple[int, int]:
        async with self.pool.connection() as connection, connection.transaction():
            head = await (await connection.execute(FEED_HEAD, {"company": company})).fetchone()
            given = {"company": company, "limit": limit, "head": head[0] if head else 0, "now": now}
            given |= {"test": TEST, "replay": REPLAY}
            placed = await (await connection.execute(MOVE, given)).fetchall()
            marks: dict[str, int] = {}
            made: list[_New] = []
            for position, event, name, webhook, mark, goes in placed:
                if webhook is not None:
                    if goes:
                        previous = marks.get(webhook, mark)
                        made.append(_New(self._entropy.uuid(), webhook, position, previous, event, name))
                    marks[webhook] = position
            if marks:
                given = {"company": company, "webhooks": [*marks], "positions": [*marks.values()]}
                await connection.execute(_MARK, given)
            if made:
                given = {"company": company, "now": now, "new": msgspec.json.encode(made).decode()}
                await connection.execute(_DELIVER, given)
            return len({row[0] for row in placed}), await self._replay(connection, company, now)

    async def _replay(self, connection: AsyncConnection[Any], company: object, now: datetime) -> int:
        """Carry out a part of the oldest order to send deliveries again."""
        given: dict[str, Any] = {"company": company, "replay": REPLAY, "now": now}
        row = await (await connection.execute(_ORDER, given)).fetchone()
        if row is None:
            return 0
        seq, ordered, payload = row
        order = msgspec.json.decode(payload, type=Replay)
        given |= {
            "webhook": order.webhook_id,
            "delivery": order.delivery_id,
            "since": order.since,
            "until": order.until,
            "statuses": list(map(str, order.statuses)),
            "ordered": ordered,
            "most": ATTEMPTS_MAX,
            "limit": REPLAY_BATCH,
        }
        due = (await connection.execute(_REPLAY, given)).rowcount
        if due < REPLAY_BATCH:
            await connection.execute(_ORDER_DONE, {"company": company, "seq": seq})
        return due

    async def claim(
        self,
        *,
        limit: int,
        per_webhook: int,
        per_company: int,
        busy: Mapping[tuple[CompanyId, WebhookId], int],
        now: datetime,
        claim_s: float,
    ) -> Sequence[Parcel]:
        async with self.pool.connection() as connection:
            rows = await (
                await connection.execute(
                    CLAIM,
                    {
                        "limit": limit,
                        "per_webhook": per_webhook,
                        "per_company": per_company,
                        "companies": [company for company, _ in busy],
                        "webhooks": [webhook for _, webhook in busy],
                        "counts": [*busy.values()],
                        "test": TEST,
                        "now": now,
                        "until": now + timedelta(seconds=claim_s),
                    },
                )
            ).fetchall()
        return [_parcel(row) for row in rows]

    async def finish(
        self, parcel: Parcel, attempt: Attempt, *, status: DeliveryStatus, next_attempt_at: datetime | None
    ) -> datetime | None:
        return await self._attempts.store(parcel, attempt, status, next_attempt_at)

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
        try:
            async with self.pool.connection(timeout=NOTE_WAIT_S) as connection:
                await connection.execute(
                    "UPDATE distribu.sessions SET seen_at = %s, ip = %s WHERE company_id = %s AND id = %s",
                    [at, ip, company_id, session_id],
                )
        except errors.OperationalError as error:
            raise Busy("busy", retry_after_s=1) from error

    async def backlog(self, *, now: datetime) -> Backlog:
        async with self.pool.connection() as connection:
            rows = await (await connection.execute(_BACKLOG, {"most": BACKLOG_MAX})).fetchall()
        return Backlog(
            *(Waiting(count, max(0.0, (now - (first or now)).total_seconds())) for count, first in rows)
        )

    async def reseal(self, anew: Callable[[str], str | None], *, after: str, limit: int) -> tuple[int, str]:
        changed = 0
        async with self.pool.connection() as connection, connection.transaction():
            given: dict[str, Any] = {"after": after or None, "limit": limit}
            rows = await (await connection.execute(_SEALED, given)).fetchall()
            for company, id, sealed in rows:
                if (again := anew(sealed)) is not None:
                    given = {"company": company, "id": id, "before": sealed, "after": again}
                    changed += (await connection.execute(_RESEAL, given)).rowcount
        return changed, rows[-1][1] if len(rows) == limit else ""

    async def trials(
        self, *, ends_by: datetime, untold: int | None = None, after: str, limit: int
    ) -> Sequence[CompanyId]:
        given = {"by": ends_by, "untold": untold, "after": after or None, "limit": limit}
        async with self.pool.connection() as connection:
            rows = await (await connection.execute(_TRIALS, given)).fetchall()
        return [company_id for (company_id,) in rows]

    async def claim_notices(
        self, *, limit: int, now: datetime, waits: Sequence[timedelta]
    ) -> Sequence[DueNotice]:
        given = {"limit": limit, "now": now, "waits": [*waits]}
        async with self.pool.connection() as connection:
            rows = await (await connection.execute(_CLAIM_NOTICES, given)).fetchall()
        return [DueNotice(*row) for row in rows]

    async def purge(self, *, now: datetime) -> int:
        return await forget(self.pool, now=now, kept=self._kept)


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
        previous,
        payload,
        attempts,
        attempts_before,
        wanted,
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
        previous=previous,
        payload=payload,
        attempts=attempts,
        attempts_before=attempts_before,
        wanted=wanted,
    )
