"""What came of attempts: stored many at a time, since a commit costs as much for one as for a hundred."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool

from distribu.application.ports import Parcel
from distribu.domain.errors import Busy
from distribu.domain.values import CompanyId, DeliveryId, WebhookId
from distribu.domain.webhooks import Attempt, DeliveryStatus

log: Final = logging.getLogger("distribu.queue")

# The mark is written when a row of failures begins or ends, and not for each attempt. `turns` are the
# webhooks of `tries`: whether anything arrived there, and since when nothing has after that.
FINISH: Final = """
WITH tries AS MATERIALIZED (
    SELECT * FROM json_to_recordset(%(tries)s::json) AS tries (company uuid, delivery uuid, number int,
        at timestamptz, duration_ms int, answered int, headers jsonb, body text, error text, status text,
        next timestamptz)
), turns AS (
    SELECT company, webhook, since,
        CASE WHEN arrived THEN since ELSE coalesce(marks.failing_since, since) END AS failing
    FROM json_to_recordset(%(turns)s::json) AS turns (company uuid, webhook uuid, arrived bool,
        since timestamptz)
    JOIN distribu.webhook_marks AS marks ON marks.company_id = turns.company
        AND marks.webhook_id = turns.webhook
), tried AS (
    INSERT INTO distribu.attempts
        (company_id, delivery_id, number, at, duration_ms, status, headers, body, error)
    SELECT company, delivery, number, at, duration_ms, answered, headers, body, error FROM tries
), moved AS (
    UPDATE distribu.deliveries SET status = tries.status, attempts = tries.number,
        next_attempt_at = tries.next, claimed_until = NULL
    FROM tries WHERE company_id = tries.company AND id = tries.delivery
), turned AS (
    UPDATE distribu.webhook_marks SET failing_since = turns.failing FROM turns
    WHERE company_id = turns.company AND webhook_id = turns.webhook
        AND failing_since IS DISTINCT FROM turns.failing
)
SELECT turns.company, turns.webhook, greatest(turns.failing, webhooks.on_since)
FROM turns JOIN distribu.webhooks ON webhooks.company_id = turns.company AND webhooks.id = turns.webhook
WHERE turns.since IS NOT NULL
"""


FINISH_BATCH: Final = 100
"""Attempts that are stored in one transaction."""

AWAY_S: Final = 20.0
"""How long what was sent waits for a database that is away: less than its claim, or it is sent again."""

AGAIN_S: Final = 0.5
"""Between two tries to reach it."""

GATHER_S: Final = 0.01
"""How long a batch that is not full waits for others: they come in swarms, as their deliveries went out."""


class _Try(msgspec.Struct):
    """A row of `tries`."""

    company: CompanyId
    delivery: DeliveryId
    number: int
    at: datetime
    duration_ms: int
    answered: int | None
    headers: Mapping[str, str]
    body: str
    error: str
    status: DeliveryStatus
    next: datetime | None


class _Turn(msgspec.Struct):
    """A row of `turns`."""

    company: CompanyId
    webhook: WebhookId
    arrived: bool = False
    since: datetime | None = None


@dataclass(slots=True)
class _Finish:
    """An attempt to be stored, and whoever waits for what comes of that."""

    given: _Try
    webhook: WebhookId
    succeeded: bool
    stored: "asyncio.Future[datetime | None]"
    until: float

    def settle(self, since: datetime | None) -> None:
        if not self.stored.done():  # unless nobody waits for it any more
            self.stored.set_result(since)

    def fail(self, why: BaseException) -> None:
        if not self.stored.done():
            self.stored.set_exception(why)


class AttemptStore:
    """Stores what others finish while it stores, in one transaction."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self._pool = pool
        self._finished: list[_Finish] = []
        self._storing: asyncio.Task[None] | None = None

    async def store(
        self, parcel: Parcel, attempt: Attempt, status: DeliveryStatus, next_attempt_at: datetime | None
    ) -> datetime | None:
        """As `Queue.finish` promises. Raises `Busy` when it could not be stored."""
        given = _Try(
            company=parcel.company_id,
            delivery=parcel.delivery_id,
            number=attempt.number,
            at=attempt.at,
            duration_ms=attempt.duration_ms,
            answered=attempt.status,
            headers=attempt.headers,
            body=attempt.body,
            error=attempt.error,
            status=status,
            next=next_attempt_at,
        )
        loop = asyncio.get_running_loop()
        until = loop.time() + AWAY_S
        mine = _Finish(given, parcel.webhook_id, attempt.succeeded, loop.create_future(), until)
        self._finished.append(mine)
        # While some are stored, others finish: one commit for many.
        if self._storing is None:
            self._storing = asyncio.create_task(self._store_finished())
        return await mine.stored

    async def _store_finished(self) -> None:
        try:
            while self._finished:
                if len(self._finished) < FINISH_BATCH:
                    await asyncio.sleep(GATHER_S)
                batch = self._finished[:FINISH_BATCH]
                del self._finished[:FINISH_BATCH]
                try:
                    await self._store(batch)
                except Exception as mistake:  # of ours: those behind it are stored all the same
                    for one in batch:
                        one.fail(mistake)
        finally:
            self._storing = None

    async def _store(self, batch: Sequence[_Finish]) -> None:
        """Store all in one transaction, tried again for `AWAY_S` while the database is away; if one of them
        cannot be stored, each in its own.
        """
        loop = asyncio.get_running_loop()
        while True:
            try:
                return await self._store_all(batch)
            except (errors.IntegrityError, errors.DataError, errors.DeadlockDetected):
                return await self._store_each(batch)
            except errors.Error as error:
                if loop.time() >= batch[0].until:
                    for one in batch:
                        one.fail(_busy(error))
                    return None
                log.warning("attempts cannot be stored yet: %s", error)
            await asyncio.sleep(AGAIN_S)

    async def _store_each(self, batch: Sequence[_Finish]) -> None:
        for one in batch:
            try:
                await self._store_all([one])
            except (errors.UniqueViolation, errors.ForeignKeyViolation):
                one.settle(None)  # another worker made this attempt too, whose record stands; or it is purged
            except errors.Error as error:
                one.fail(_busy(error))

    async def _store_all(self, batch: Sequence[_Finish]) -> None:
        turns: dict[str, _Turn] = {}
        for one in batch:
            turn = turns.setdefault(one.webhook, _Turn(one.given.company, one.webhook))
            if one.succeeded:
                turn.arrived, turn.since = True, None
            else:
                turn.since = turn.since or one.given.at
        given = {
            "tries": msgspec.json.encode([one.given for one in batch]).decode(),
            "turns": msgspec.json.encode([*turns.values()]).decode(),
        }
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(FINISH, given)).fetchall()
        since = {webhook: failing for _, webhook, failing in rows}
        for one in batch:
            one.settle(None if one.succeeded else since.get(one.webhook))


def _busy(error: errors.Error) -> Busy:
    busy = Busy("busy", retry_after_s=1)
    busy.__cause__ = error
    return busy
