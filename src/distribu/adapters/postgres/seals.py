"""The seals of the audit log: made by the role of the queue, read by that of the application."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import sqlalchemy as sa
from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from distribu.adapters.postgres import schema
from distribu.adapters.postgres.driver import Row, Statement
from distribu.adapters.postgres.mapping import mine
from distribu.adapters.postgres.reading import Finder, PostgresRead
from distribu.application.notary import Telling
from distribu.application.ports import Entropy, Sealing
from distribu.domain.access import VISITOR
from distribu.domain.sealing import MAILED_EVERY, TOLD_EVERY, Frontier, Head, SealedRow, Tip, leaf
from distribu.domain.values import CompanyId
from distribu.domain.webhooks import WireEvent

log: Final = logging.getLogger("distribu.seals")

_COMPANIES_MAX: Final = 100

# From company to company along the key, whatever waits of each.
OLDEST_UNSEALED: Final = """
WITH RECURSIVE found (company_id) AS (
    (SELECT company_id FROM distribu.unsealed ORDER BY company_id LIMIT 1)
    UNION ALL
    SELECT (SELECT company_id FROM distribu.unsealed WHERE company_id > found.company_id
            ORDER BY company_id LIMIT 1)
    FROM found WHERE found.company_id IS NOT NULL
)
SELECT company_id, seq, record_id FROM found, LATERAL (
    SELECT seq, record_id FROM distribu.unsealed WHERE unsealed.company_id = found.company_id
    ORDER BY seq LIMIT 1
) AS oldest
"""
"""The record of each company that has waited longest to be sealed: its company, place in line, and id."""

_WAITING: Final = f"{OLDEST_UNSEALED} ORDER BY seq LIMIT %(companies)s"

# One at a time per company: who comes second reads the head that the first has made.
_LOCK: Final = """
INSERT INTO distribu.seal_tips (company_id) VALUES (%(company)s)
ON CONFLICT (company_id) DO UPDATE SET company_id = excluded.company_id
RETURNING EXISTS (
    SELECT FROM distribu.webhooks WHERE webhooks.company_id = %(company)s AND removed_at IS NULL
        AND %(recorded)s = ANY (subscribed)
)
"""

_TIP: Final = """
SELECT company_id, number, size, root, at, previous, key, signature, peaks FROM distribu.seal_heads
WHERE company_id = %(company)s ORDER BY number DESC LIMIT 1
"""

# Who waits and is not there stays, for whoever examines the log. Row by row, whatever the planner thinks of
# a limit that it does not know: otherwise it may join the whole log for a few.
_TAKE: Final = """
SELECT seq, record_id, there.body, sealed.position FROM distribu.unsealed
CROSS JOIN LATERAL (
    SELECT body FROM distribu.records
    WHERE records.company_id = %(company)s AND records.id = unsealed.record_id LIMIT 1
) AS there
LEFT JOIN LATERAL (
    SELECT position FROM distribu.seals
    WHERE seals.company_id = %(company)s AND seals.record_id = unsealed.record_id LIMIT 1
) AS sealed ON true
WHERE company_id = %(company)s ORDER BY seq LIMIT %(limit)s
"""

_TAKEN: Final = (
    "DELETE FROM distribu.unsealed WHERE company_id = %(company)s AND seq = ANY (%(seqs)s::bigint[])"
)

_SEAL: Final = """
WITH placed AS (
    INSERT INTO distribu.seals (company_id, position, record_id, leaf)
    SELECT %(company)s, %(first)s + place - 1, record_id, leaf
    FROM unnest(%(ids)s::uuid[], %(leaves)s::bytea[]) WITH ORDINALITY AS new (record_id, leaf, place)
), headed AS (
    INSERT INTO distribu.seal_heads (company_id, number, size, root, at, previous, key, signature, peaks)
    VALUES (%(company)s, %(number)s, %(size)s, %(root)s, %(at)s, %(previous)s, %(key)s, %(signature)s,
        %(peaks)s)
)
UPDATE distribu.seal_tips SET
    tell_at = coalesce(tell_at, greatest(%(now)s, told_at + %(told_every)s)),
    mail_at = coalesce(mail_at, greatest(%(now)s, coalesce(mailed_at, %(now)s) + %(mailed_every)s))
WHERE company_id = %(company)s
"""

_NAMED: Final = """
SELECT records.id, records.at, person.label, person.ip FROM distribu.records
LEFT JOIN distribu.record_people AS person
    ON person.company_id = records.company_id AND person.id = records.person_id
WHERE records.company_id = %(company)s AND records.id = ANY (%(ids)s::uuid[])
"""

# An event goes by the id of its record. Drawn in this order, the outbox keeps that of the log.
_PUBLISH: Final = """
INSERT INTO distribu.outbox (company_id, id, name, occurred_at, payload)
SELECT %(company)s, id, %(recorded)s, at, payload
FROM unnest(%(ids)s::uuid[], %(times)s::timestamptz[], %(payloads)s::text[])
    WITH ORDINALITY AS new (id, at, payload, place)
ORDER BY place
"""

# Who signs in is a visitor to the log, and what is recorded of that is about the account or its session.
_ERASE: Final = """
WITH accounts AS (
    SELECT DISTINCT actor_id FROM distribu.records
    JOIN distribu.record_people AS person
        ON person.company_id = records.company_id AND person.id = records.person_id
    WHERE records.company_id = %(company)s AND person.label = %(label)s
        AND actor_kind IN ('USER', 'CUSTOMER') AND actor_id <> ''
    UNION
    SELECT unnest(%(accounts)s::text[])
), theirs AS (
    SELECT actor_id AS id FROM accounts
    UNION ALL
    SELECT sessions.id::text FROM distribu.sessions JOIN accounts ON actor_id = holder_id::text
    WHERE company_id = %(company)s
), gone AS (
    DELETE FROM distribu.record_people WHERE company_id = %(company)s AND (
        label = %(label)s OR label = %(visitor)s AND id IN (
            SELECT person_id FROM distribu.records
            WHERE company_id = %(company)s AND entity_id IN (SELECT id FROM theirs)
        )
    ) RETURNING id
)
SELECT records.id FROM gone
JOIN distribu.records ON records.company_id = %(company)s AND records.person_id = gone.id
"""

_UNNAME: Final = """
UPDATE distribu.{} SET payload = (payload::jsonb || '{{"actorLabel": null, "ip": null}}')::text
WHERE company_id = %(company)s AND name = %(recorded)s
    AND (id = ANY (%(ids)s::uuid[]) OR payload::jsonb ->> 'actorLabel' = %(label)s)
"""

_TO_TELL: Final = """
UPDATE distribu.seal_tips SET tell_at = NULL, told_at = %(now)s WHERE company_id IN (
    SELECT company_id FROM distribu.seal_tips WHERE tell_at <= %(now)s ORDER BY tell_at
    LIMIT %(companies)s FOR NO KEY UPDATE SKIP LOCKED
) RETURNING company_id, EXISTS (
    SELECT FROM distribu.webhooks WHERE webhooks.company_id = seal_tips.company_id AND is_active
        AND removed_at IS NULL AND %(name)s = ANY (subscribed)
)
"""

_TELL: Final = """
INSERT INTO distribu.outbox (company_id, id, name, occurred_at, payload)
VALUES (%(company)s, %(id)s, %(name)s, %(at)s, %(payload)s)
"""

_CLAIM_LETTERS: Final = """
UPDATE distribu.seal_tips SET claimed_until = %(until)s WHERE company_id IN (
    SELECT company_id FROM distribu.seal_tips
    WHERE mail_at <= %(now)s AND (claimed_until IS NULL OR claimed_until <= %(now)s)
    ORDER BY mail_at LIMIT %(limit)s FOR NO KEY UPDATE SKIP LOCKED
) RETURNING company_id
"""


class PostgresSeals:
    """Implements the port Seals, on the connections of the queue."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]], *, entropy: Entropy) -> None:
        self._pool = pool
        self._entropy = entropy
        self._altered: dict[CompanyId, Tip] = {}

    async def seal(
        self,
        make: Sealing,
        tell: Telling,
        *,
        limit: int,
        now: datetime,
        company_id: CompanyId | None = None,
    ) -> int:
        waiting = [company_id] if company_id is not None else await self._waiting()
        sealed = 0
        for company in waiting:
            try:
                sealed += await self._seal_company(company, make, tell, limit, now)
            except (
                PoolTimeout,
                TooManyRequests,
            ):  # no connection for this one is none for the next one either
                raise
            except errors.Error:
                log.exception("the records of company %s are not sealed yet", company)
        return sealed

    async def _waiting(self) -> list[CompanyId]:
        async with self._pool.connection() as connection:
            rows = await (await connection.execute(_WAITING, {"companies": _COMPANIES_MAX})).fetchall()
        return [id for id, *_ in rows]

    async def _seal_company(
        self, company: CompanyId, make: Sealing, tell: Telling, limit: int, now: datetime
    ) -> int:
        async with self._pool.connection() as connection, connection.transaction():
            of_company = {"company": company, "recorded": WireEvent.AUDIT_RECORDED}
            locked = await (await connection.execute(_LOCK, of_company)).fetchone()
            row = await (await connection.execute(_TIP, of_company)).fetchone()
            tip = None if row is None else Tip(head=_head(row), frontier=_frontier(row[2], row[8]))
            if tip is not None and not tip.sound:
                if self._altered.get(company) != tip:  # and not again every second
                    self._altered[company] = tip
                    log.error(
                        "head %s of company %s was altered: nothing of it is sealed any more, see"
                        " `distribu audit verify`",
                        tip.head.number,
                        company,
                    )
                return 0
            self._altered.pop(company, None)
            taken = await (await connection.execute(_TAKE, {**of_company, "limit": limit})).fetchall()
            if not taken:
                return 0
            await connection.execute(_TAKEN, {**of_company, "seqs": [seq for seq, *_ in taken]})
            # Whoever writes records can put one in line again: it keeps its place, and stops nobody.
            new_ones: dict[str, str] = {}
            for _, id, body, position in taken:
                if position is None:
                    new_ones.setdefault(id, body)
            if len(new_ones) < len(taken):
                log.warning(
                    "company %s: %s records were in line again to be sealed",
                    company,
                    len(taken) - len(new_ones),
                )
            if not new_ones:
                return len(taken)
            leaves = [leaf(body.encode()) for body in new_ones.values()]
            new = make(company, tip, leaves)
            await connection.execute(
                _SEAL,
                {
                    **of_company,
                    "first": new.frontier.size - len(leaves),
                    "ids": list(new_ones),
                    "leaves": leaves,
                    "number": new.head.number,
                    "size": new.head.size,
                    "root": new.head.root,
                    "at": new.head.at,
                    "previous": new.head.previous,
                    "key": new.head.key,
                    "signature": new.head.signature,
                    "peaks": b"".join(new.frontier.peaks),
                    "now": now,
                    "told_every": TOLD_EVERY,
                    "mailed_every": MAILED_EVERY,
                },
            )
            if locked is not None and locked[0]:
                first = new.frontier.size - len(leaves)
                rows = [
                    SealedRow(id=id, position=first + place, leaf=hashed, body=body)
                    for place, ((id, body), hashed) in enumerate(zip(new_ones.items(), leaves, strict=True))
                ]
                await self._publish(connection, of_company, rows, tell)
            return len(taken)

    async def _publish(
        self,
        connection: AsyncConnection[Any],
        of_company: Mapping[str, Any],
        rows: Sequence[SealedRow],
        tell: Telling,
    ) -> None:
        """Put records into the outbox, in the transaction that seals them."""
        ids = [row.id for row in rows]
        found = await (await connection.execute(_NAMED, {**of_company, "ids": ids})).fetchall()
        named = {id: (at, label, ip) for id, at, label, ip in found}
        payloads = []
        for row in rows:
            _, label, ip = named[row.id]
            payloads.append(tell(of_company["company"], replace(row, label=label, ip=ip)))
        times = [named[id][0] for id in ids]
        await connection.execute(_PUBLISH, {**of_company, "ids": ids, "times": times, "payloads": payloads})

    async def tell(self, payload: Callable[[Head], str], *, now: datetime) -> int:
        told = 0
        async with self._pool.connection() as connection, connection.transaction():
            given = {"now": now, "companies": _COMPANIES_MAX, "name": WireEvent.AUDIT_SEALED}
            due = await (await connection.execute(_TO_TELL, given)).fetchall()
            for company, wanted in due:
                row = await (await connection.execute(_TIP, {"company": company})).fetchone()
                if not wanted or row is None:
                    continue
                head = _head(row)
                await connection.execute(
                    _TELL,
                    {
                        "company": company,
                        "id": self._entropy.uuid(),
                        "name": WireEvent.AUDIT_SEALED,
                        "at": head.at,
                        "payload": payload(head),
                    },
                )
                told += 1
        return told

    async def claim_letters(self, *, limit: int, now: datetime, claim_s: float) -> Sequence[CompanyId]:
        given = {"limit": limit, "now": now, "until": now + timedelta(seconds=claim_s)}
        async with self._pool.connection() as connection:
            return [id for (id,) in await (await connection.execute(_CLAIM_LETTERS, given)).fetchall()]

    async def mailed(self, company_id: CompanyId, *, now: datetime) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(
                "UPDATE distribu.seal_tips SET mailed_at = %s, mail_at = NULL, claimed_until = NULL"
                " WHERE company_id = %s",
                [now, company_id],
            )

    async def erase(self, company_id: CompanyId, label: str, accounts: Sequence[str] = ()) -> int:
        given = {"company": company_id, "recorded": WireEvent.AUDIT_RECORDED, "label": label}
        async with self._pool.connection() as connection, connection.transaction():
            # Nobody seals meanwhile, and so nobody renders who was read before this.
            await connection.execute(_LOCK, given)
            gone = await connection.execute(_ERASE, {**given, "visitor": VISITOR, "accounts": list(accounts)})
            ids = [id for (id,) in await gone.fetchall()]
            for table in ("outbox", "feed"):  # in the order in which an event passes through them
                await connection.execute(_UNNAME.format(table), {**given, "ids": ids})
            return len(ids)


def _head(row: Sequence[Any]) -> Head:
    company_id, number, size, root, at, previous, key, signature, *_ = row
    return Head(
        company_id=company_id,
        number=number,
        size=size,
        root=root,
        at=at,
        previous=previous,
        key=key,
        signature=signature,
    )


def _frontier(size: int, peaks: bytes) -> Frontier:
    return Frontier(size=size, peaks=tuple(peaks[at : at + 32] for at in range(0, len(peaks), 32)))


# reading

_heads, _seals, _unsealed = schema.seal_heads.c, schema.seals.c, schema.unsealed.c
_record, _person = schema.records.c, schema.record_people.c
_of_head: Final = (
    _heads.company_id,
    _heads.number,
    _heads.size,
    _heads.root,
    _heads.at,
    _heads.previous,
    _heads.key,
    _heads.signature,
)
_count: Final = sa.bindparam("count", type_=sa.BigInteger)
_after: Final = sa.bindparam("after", type_=sa.BigInteger)
_TIP_HEAD: Final = Statement(
    sa.select(*_of_head).where(mine(schema.seal_heads)).order_by(_heads.number.desc()).limit(1)
)
_HEADS: Final = Statement(
    sa.select(*_of_head)
    .where(mine(schema.seal_heads), _heads.number > _after)
    .order_by(_heads.number)
    .limit(_count)
)
_LEAVES: Final = Statement(
    sa.select(_seals.leaf)
    .where(mine(schema.seals), _seals.position > _after)
    .order_by(_seals.position)
    .limit(_count)
)
_of_record: Final = (
    _record.body,
    _person.salt,
    _person.label,
    _person.ip,
    _record.at,
    _record.actor_kind,
    _record.actor_id,
    _record.action,
    _record.entity_type,
    _record.entity_id,
)
_its_seal: Final = sa.and_(_seals.company_id == _record.company_id, _seals.record_id == _record.id)
_its_place: Final = sa.and_(_unsealed.company_id == _record.company_id, _unsealed.record_id == _record.id)
_its_person: Final = sa.and_(_person.company_id == _record.company_id, _person.id == _record.person_id)


# Record by record, by their keys: otherwise the planner may read the whole log for a page.
_next: Final = (
    sa.select(schema.seals)
    .where(mine(schema.seals), _seals.position > _after)
    .order_by(_seals.position)
    .limit(_count)
    .subquery()
)
_of_next: Final = (
    sa.select(*_of_record)
    .select_from(schema.records.outerjoin(schema.record_people, _its_person))
    .where(_record.company_id == _next.c.company_id, _record.id == _next.c.record_id)
    .limit(1)
    .lateral()
)
_ROWS: Final = Statement(
    sa.select(_next.c.record_id, _next.c.position, _next.c.leaf, *_of_next.c)
    .select_from(_next.outerjoin(_of_next, sa.true()))
    .order_by(_next.c.position)
)
_STRAYS: Final = Statement(
    sa.select(_record.id, sa.null(), sa.null(), *_of_record)
    .select_from(
        schema.records.outerjoin(schema.seals, _its_seal)
        .outerjoin(schema.unsealed, _its_place)
        .outerjoin(schema.record_people, _its_person)
    )
    .where(
        mine(schema.records),
        _record.id > sa.bindparam("after", type_=_record.id.type),
        _seals.position.is_(None),
        _unsealed.seq.is_(None),
    )
    .order_by(_record.id)
    .limit(_count)
)
_WAITS: Final = Statement(
    sa.select(_record.id, sa.null(), sa.null(), *_of_record)
    .select_from(
        schema.unsealed.join(schema.records, _its_place)
        .outerjoin(schema.seals, _its_seal)
        .outerjoin(schema.record_people, _its_person)
    )
    .where(
        mine(schema.unsealed),
        _record.at < sa.bindparam("before", type_=_record.at.type),
        _seals.position.is_(None),
    )
    .order_by(_unsealed.seq)
    .limit(_count)
)
_VANISHED: Final = Statement(
    sa.select(_unsealed.record_id)
    .select_from(schema.unsealed.outerjoin(schema.records, _its_place))
    .where(mine(schema.unsealed), _record.id.is_(None))
    .order_by(_unsealed.seq)
    .limit(_count)
)


class PostgresSealFinder(Finder):
    """Implements the finder Seals."""

    def tip(self) -> PostgresRead[Head | None]:
        return PostgresRead(
            self.tx,
            lambda answers: _head(answers[0][0]) if answers[0] else None,
            _TIP_HEAD.of(**self.bound),
        )

    def heads(self, *, after: int, limit: int) -> PostgresRead[Sequence[Head]]:
        call = _HEADS.of(**self.bound, after=after, count=limit)
        return PostgresRead(self.tx, lambda answers: [_head(row) for row in answers[0]], call)

    def leaves(self, *, first: int, limit: int) -> PostgresRead[Sequence[bytes]]:
        call = _LEAVES.of(**self.bound, after=first - 1, count=limit)
        return PostgresRead(self.tx, lambda answers: [bytes(row[0]) for row in answers[0]], call)

    def rows(self, *, after: int, limit: int) -> PostgresRead[Sequence[SealedRow]]:
        return PostgresRead(self.tx, _sealed_rows, _ROWS.of(**self.bound, after=after, count=limit))

    def strays(self, *, after: str, limit: int) -> PostgresRead[Sequence[SealedRow]]:
        return PostgresRead(self.tx, _sealed_rows, _STRAYS.of(**self.bound, after=after, count=limit))

    def waiting(self, *, before: datetime, limit: int) -> PostgresRead[Sequence[SealedRow]]:
        return PostgresRead(self.tx, _sealed_rows, _WAITS.of(**self.bound, before=before, count=limit))

    def vanished(self, *, limit: int) -> PostgresRead[Sequence[SealedRow]]:
        call = _VANISHED.of(**self.bound, count=limit)
        return PostgresRead(
            self.tx, lambda answers: [_sealed_row((row[0], *[None] * 12)) for row in answers[0]], call
        )


def _sealed_rows(answers: Sequence[list[Row]]) -> list[SealedRow]:
    return [_sealed_row(row) for row in answers[0]]


def _sealed_row(row: Sequence[Any]) -> SealedRow:
    id, position, leaf, body, salt, label, ip, at, actor_kind, actor_id, action, entity_type, entity_id = row
    fields = {
        "at": at,
        "actor_type": actor_kind,
        "actor_id": actor_id,
        "action": action,
        "entity_type": entity_type,
        "entity_id": entity_id,
    }
    return SealedRow(
        id=id,
        position=position,
        leaf=leaf,
        body=body,
        salt=salt,
        label=label,
        ip=ip,
        fields=None if body is None else fields,
    )
