"""The store: transactions, and the one statement list that writes a change with all it entails."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

import sqlalchemy as sa
from psycopg import AsyncConnection, errors, pq
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests
from sqlalchemy.dialects.postgresql import insert

from distribu.adapters.postgres import access, roles, schema
from distribu.adapters.postgres.access import PostgresApiKeys
from distribu.adapters.postgres.audit import PostgresRecords
from distribu.adapters.postgres.catalog import PostgresProducts
from distribu.adapters.postgres.customers import PostgresCustomers, PostgresOverrides
from distribu.adapters.postgres.driver import (
    BEGIN,
    COMMIT,
    ROLLBACK,
    Call,
    Line,
    Row,
    Statement,
    StatementFailed,
    teach,
)
from distribu.adapters.postgres.mapping import COMPANY, MAPPED, insert_many, mine
from distribu.adapters.postgres.ordering import PostgresOrders
from distribu.adapters.postgres.reading import PostgresRead
from distribu.adapters.postgres.team import PostgresCompanies
from distribu.adapters.postgres.webhooks import PostgresWebhooks
from distribu.application.ports import (
    Again,
    AlreadyAnswered,
    Change,
    Clock,
    NewRecord,
    OnceKey,
    Scope,
    StoredAnswer,
    everything_told,
)
from distribu.domain.access import ApiKey, KeyGrant
from distribu.domain.catalog import StockMoved
from distribu.domain.entity import Entity, Numbered
from distribu.domain.errors import Bug, Busy, Conflict, Invalid
from distribu.domain.ordering import FIRST_NUMBER, Order, PaymentRecorded
from distribu.domain.team import Company
from distribu.domain.values import CompanyId

T = TypeVar("T")
E = TypeVar("E", bound=Entity)

WAIT_S: Final = 5.0
"""How long a request waits for a connection before it is told that we are busy."""

ANSWERS_KEPT: Final = timedelta(hours=24)

_READ: Final = Statement(
    sa.text(
        "SELECT set_config('app.company_id', :company, true), set_config('app.customer_id', :customer, true),"
        " set_config('transaction_read_only', 'on', true)"
    )
)
_WRITE: Final = Statement(
    sa.text(
        "SELECT set_config('app.company_id', :company, true), set_config('app.customer_id', :customer, true)"
    )
)
_WRITE_ONCE: Final = Statement(
    sa.text(
        "SELECT set_config('app.company_id', :company, true), set_config('app.customer_id', :customer, true),"
        " pg_advisory_xact_lock(hashtextextended(:twin, 0))"
    )
)
_answer: Final = schema.answers.c
_ANSWERED: Final = Statement(
    sa.select(_answer.fingerprint, _answer.body, _answer.sealed).where(
        mine(schema.answers),
        _answer.actor == sa.bindparam("actor"),
        _answer.key == sa.bindparam("key"),
        _answer.created_at > sa.bindparam("oldest"),
    )
)
"""Not older than a day. The twin's lock is taken in the statement before, so that one sees its answer."""


class PostgresStore:
    """Implements the ports Store and Directory."""

    def __init__(self, url: str, *, clock: Clock, size: int, prepare: bool = True) -> None:
        self.clock = clock
        self.prepare = prepare
        self._lines: dict[AsyncConnection[Any], Line] = {}
        self.pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url,
            min_size=min(2, size),
            max_size=size,
            max_waiting=500,
            timeout=WAIT_S,
            open=False,
            configure=self._configure,
            kwargs={"autocommit": True, "prepare_threshold": None},
        )
        self.round_trips = 0
        self.statements = 0

    async def open(self) -> None:
        """Connect, and refuse to run as a role that row-level security does not bind."""
        await self.pool.open(wait=True, timeout=30)
        async with self.pool.connection() as connection:
            await roles.refuse_unsafe(connection)

    async def close(self) -> None:
        """Give back the connections."""
        await self.pool.close()

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        teach(connection.adapters)

    async def ready(self) -> None:
        await self.ask((Statement(sa.text("SELECT 1")), []))

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """A connection for one transaction. Raises `Busy` when none is free in time."""
        try:
            connection = await self.pool.getconn()
        except (PoolTimeout, TooManyRequests):
            raise Busy("busy", retry_after_s=1) from None
        line = getattr(connection, "distribu_line", None)
        if line is None:
            line = Line(connection, prepare=self.prepare)
            connection.distribu_line = line  # type: ignore[attr-defined]  # lives and dies with the connection
        trips, statements = line.round_trips, line.statements
        try:
            yield line
        finally:
            self.round_trips += line.round_trips - trips
            self.statements += line.statements - statements
            if connection.pgconn.transaction_status not in (
                pq.TransactionStatus.IDLE,
                pq.TransactionStatus.UNKNOWN,
            ):
                await asyncio.shield(_roll_back(line))
            await self.pool.putconn(connection)

    @asynccontextmanager
    async def begin(
        self, scope: Scope, *, readonly: bool = False, once: OnceKey | None = None
    ) -> AsyncIterator["PostgresTx"]:
        async with self.line() as line:
            yield PostgresTx(line, scope, readonly, once, self.clock)

    async def ask(self, call: Call) -> list[Row]:
        """The rows of one statement in a transaction of its own."""
        async with self.line() as line:
            try:
                return (await line.send([call]))[0]
            except StatementFailed as failed:
                raise refusal(failed.error) from failed.error
            except errors.Error as error:
                raise refusal(error) from error

    # Directory

    async def key(self, digest: bytes) -> KeyGrant | None:
        rows = await self.ask(access.KEY.of(digest=digest))
        return access.grant(rows[0]) if rows else None

    async def company(self, slug: str) -> CompanyId | None:
        rows = await self.ask(access.SLUG.of(slug=slug))
        return CompanyId(rows[0][0]) if rows else None


async def _roll_back(line: Line) -> None:
    try:
        await line.send([ROLLBACK])
    except (StatementFailed, errors.Error):
        line.connection.pgconn.finish()


class PostgresTx:
    """One transaction. It begins with its first reads and ends in the message that writes."""

    def __init__(
        self,
        line: Line,
        scope: Scope,
        readonly: bool,
        once: OnceKey | None,
        clock: Clock,
        *,
        hosted: bool = False,
    ) -> None:
        self.line = line
        self.scope = scope
        self.readonly = readonly
        self.once = once
        self.clock = clock
        self.begun = False
        self.hosted = hosted
        self.seen: dict[tuple[type[Entity], str], Entity] = {}
        self.companies = PostgresCompanies(self)
        self.products = PostgresProducts(self)
        self.customers = PostgresCustomers(self)
        self.overrides = PostgresOverrides(self)
        self.orders = PostgresOrders(self)
        self.api_keys = PostgresApiKeys(self)
        self.webhooks = PostgresWebhooks(self)
        self.records = PostgresRecords(self)

    def lock(self, entity: E) -> E:
        if not self.readonly:
            self.seen[(type(entity), entity.id)] = entity
        return entity

    def loaded(self, entity: Entity) -> Entity | None:
        return self.seen.get((type(entity), entity.id))

    # reading

    async def one(self, read: PostgresRead[T]) -> T:
        return cast(T, (await self.together(read))[0])

    async def together(self, *reads: Any) -> tuple[Any, ...]:
        calls = [call for read in reads for call in read.calls]
        if self.readonly:
            # A message is a transaction of its own, unless the host has one open, which can still write.
            opening = _WRITE if self.hosted else _READ
            rows = (await self._send([self._opening(opening), *calls]))[1:]
        elif self.begun:
            rows = await self._send(calls)
        else:
            rows = await self._begin(calls)
        answers = []
        for read in reads:
            count = len(read.calls)
            answers.append(read.build(rows[:count]))
            rows = rows[count:]
        return tuple(answers)

    def _opening(self, statement: Statement) -> Call:
        customer = self.scope.customer_id or ""
        twin = f"{self.scope.company_id} {self.once.actor} {self.once.key}" if self.once else ""
        return statement.of(company=self.scope.company_id, customer=customer, twin=twin)

    async def _begin(self, calls: Sequence[Call]) -> list[list[Row]]:
        self.begun = True
        begin = [] if self.hosted else [BEGIN]
        if self.once is None:
            opening = [*begin, self._opening(_WRITE)]
            return (await self._send([*opening, *calls]))[len(opening) :]
        answered = _ANSWERED.of(
            company=self.scope.company_id,
            customer=self.scope.customer_id,
            actor=self.once.actor,
            key=self.once.key,
            oldest=self.clock.now() - ANSWERS_KEPT,
        )
        opening = [*begin, self._opening(_WRITE_ONCE), answered]
        rows = await self._send([*opening, *calls], twin=len(begin))
        found = rows[len(opening) - 1]
        if found:
            fingerprint, body, sealed = found[0]
            raise AlreadyAnswered(StoredAnswer(fingerprint, body, sealed))
        return rows[len(opening) :]

    async def _send(
        self, calls: Sequence[Call], *, twin: int | None = None, commits: bool = False
    ) -> list[list[Row]]:
        """Send a message; ``twin`` is the place of the statement that waits for a twin.

        Raises `Bug` for one that ``commits`` and has no answer: it may have been carried out, and who
        is told that we are busy sends it again.
        """
        try:
            return await self.line.send(calls)
        except StatementFailed as failed:
            error = failed.error
            if failed.place == twin and isinstance(error, errors.LockNotAvailable):
                raise Conflict("idempotency_key_running", retry_after_s=1) from error
            raise refusal(error) from error
        except errors.Error as error:
            if commits:
                raise Bug(f"whether this was committed is not known: {error}") from error
            raise refusal(error) from error

    # writing

    async def write(
        self, changes: Sequence[Change], records: Sequence[NewRecord], answer: StoredAnswer | None
    ) -> int | None:
        if self.readonly:
            raise Bug("this transaction only reads")
        everything_told(changes, records)
        if self.once is not None and not self.begun:
            await self._begin([])
        numbered = [it.after for it in changes if isinstance(it.after, Numbered) and not it.after.number]
        if len(numbered) > 1:
            raise Bug("one message can number one entity")
        calls = _writing(self.scope, changes, records, bool(numbered))
        if answer is not None and self.once is not None:
            calls.append(self._keep(answer, self.once, bool(numbered)))
        if self.begun:
            ending = [] if self.hosted else [COMMIT]
            rows = (await self._send([*calls, *ending], commits=not self.hosted))[: len(calls)]
        else:
            rows = (await self._send([self._opening(_WRITE), *calls], commits=not self.hosted))[1:]
        self.begun = False
        for (statement, _), row in zip(calls, rows, strict=True):
            if statement is _INSERT_ORDER:
                return int(row[0][0])
        return None

    def _keep(self, answer: StoredAnswer, once: OnceKey, numbered: bool) -> Call:
        return _KEEP[numbered].of(
            company=self.scope.company_id,
            actor=once.actor,
            key=once.key,
            fingerprint=answer.fingerprint,
            body=answer.body,
            sealed=answer.sealed,
            created_at=self.clock.now(),
        )


# what a change is written with

_number: Final = sa.select(schema.order_numbers.c.last).where(mine(schema.order_numbers)).scalar_subquery()


def _filled(text: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """A text with the number in it; ours, since we hold the counter's lock."""
    return sa.func.replace(text, sa.literal_column("chr(1)"), sa.cast(_number, sa.Text))


def _order_insert() -> Statement:
    """An order with its lines and its number; the counter is taken as late as can be.

    From here to the commit, the company's other orders wait.
    """
    counter, orders, lines = schema.order_numbers, schema.orders, schema.order_lines
    number = (
        sa.update(counter)
        .where(mine(counter))
        .values(last=counter.c.last + 1)
        .returning(counter.c.last)
        .cte("number")
    )
    names = [column.name for column in orders.c if column.name not in {"company_id", "number"}]
    values = [sa.cast(sa.bindparam(f"new_{name}"), orders.c[name].type) for name in names]
    company = sa.cast(COMPANY, orders.c.company_id.type)
    order = sa.insert(orders).from_select(
        ["company_id", "number", *names], sa.select(company, number.c.last, *values)
    )
    line_names = [column.name for column in lines.c if column.name != "company_id"]
    return Statement(
        sa.select(number.c.last).add_cte(order.cte("placed"), insert_many(lines, line_names).cte("lined"))
    )


_INSERT_ORDER: Final = _order_insert()
_INSERT_MOVEMENTS: Final = Statement(
    insert_many(
        schema.stock_movements,
        [column.name for column in schema.stock_movements.c if column.name != "company_id"],
    )
)
_INSERT_PAYMENT: Final = Statement(sa.insert(schema.payments))
_INSERT_COUNTER: Final = Statement(sa.insert(schema.order_numbers))
_INSERT_SLUG: Final = Statement(
    sa.insert(schema.company_slugs).from_select(
        ["slug", "company_id"],
        sa.select(
            sa.cast(sa.bindparam("slug"), sa.Text), sa.cast(COMPANY, schema.companies.c.company_id.type)
        ).where(
            ~sa.exists().where(
                schema.company_slugs.c.slug == sa.bindparam("slug"),
                schema.company_slugs.c.company_id == COMPANY,
            )
        ),
    )
)
_INSERT_GRANT: Final = Statement(sa.insert(schema.key_grants))
_REVOKE_GRANT: Final = Statement(
    sa.update(schema.key_grants)
    .where(schema.key_grants.c.digest == sa.bindparam("digest_"), schema.key_grants.c.company_id == COMPANY)
    .values(revoked=sa.true())
)

_RECORD_COLUMNS: Final = (
    "id",
    "at",
    "actor_kind",
    "actor_id",
    "action",
    "entity_type",
    "entity_id",
    "person_id",
    "body",
)


def _records_insert(numbered: bool) -> Statement:
    person = (
        sa.insert(schema.record_people)
        .values(
            company_id=COMPANY,
            id=sa.bindparam("person", type_=schema.record_people.c.id.type),
            salt=sa.bindparam("salt"),
            label=sa.bindparam("label"),
            ip=sa.bindparam("ip"),
        )
        .cte("person")
    )
    instead = {"body": _filled} if numbered else {}
    return Statement(insert_many(schema.records, _RECORD_COLUMNS, **instead).add_cte(person))


def _messages_insert(numbered: bool) -> Statement:
    instead = {"payload": _filled} if numbered else {}
    return Statement(insert_many(schema.outbox, ("id", "name", "occurred_at", "payload"), **instead))


def _answer_insert(numbered: bool) -> Statement:
    table = schema.answers
    columns = {
        column.name: sa.bindparam(column.name, type_=column.type)
        for column in table.c
        if column.name != "company_id"
    }
    values: dict[str, Any] = {**columns, "company_id": COMPANY}
    if numbered:
        values["body"] = _filled(sa.cast(columns["body"], sa.Text))
    new = insert(table).values(values)
    renewed = {name: new.excluded[name] for name in ("fingerprint", "body", "sealed", "created_at")}
    return Statement(new.on_conflict_do_update(constraint=table.primary_key, set_=renewed))


_INSERT_RECORDS: Final = {numbered: _records_insert(numbered) for numbered in (False, True)}
_INSERT_MESSAGES: Final = {numbered: _messages_insert(numbered) for numbered in (False, True)}
_KEEP: Final = {numbered: _answer_insert(numbered) for numbered in (False, True)}


def _writing(
    scope: Scope, changes: Sequence[Change], records: Sequence[NewRecord], numbered: bool
) -> list[Call]:
    """The statements that write changes and records, the counter's lock as late as it can be."""
    company = scope.company_id
    calls: list[Call] = []
    orders: list[Call] = []
    updates: dict[tuple[type[Entity], tuple[str, ...]], list[tuple[Entity, dict[str, Any]]]] = {}
    for change in changes:
        after = change.after
        mapped = MAPPED[type(after)]
        if change.before is not None:
            values = mapped.changed(change.before, after)
            updates.setdefault((type(after), tuple(values)), []).append((after, values))
        elif isinstance(after, Order):
            orders.append(_new_order(scope, after))
        else:
            calls.append(mapped.insert.of(**mapped.values(after)))
        calls += _beside(company, change)
    for (kind, _), group in updates.items():
        calls.append(MAPPED[kind].update(scope, group))
    calls += _movements(company, records)
    calls += orders
    calls += _payments(company, records)
    calls += _telling(company, records, numbered)
    return calls


def _new_order(scope: Scope, order: Order) -> Call:
    values = {f"new_{name}": value for name, value in MAPPED[Order].values(order).items()}
    lines = order.lines
    return _INSERT_ORDER.of(
        company=scope.company_id,
        customer=scope.customer_id,
        **values,
        order_id=[order.id] * len(lines),
        customer_id=[order.customer_id] * len(lines),
        id=[line.id for line in lines],
        product_id=[line.product_id for line in lines],
        product_name=[line.product_name for line in lines],
        product_sku=[line.product_sku for line in lines],
        quantity=[line.quantity for line in lines],
        unit_price=[line.unit_price for line in lines],
    )


def _beside(company: CompanyId, change: Change) -> list[Call]:
    """What else a change of some entities touches: the counter and slug of a company, a key's grant."""
    match change:
        case Change(before=None, after=Company() as new):
            return [
                _INSERT_SLUG.of(company=company, slug=new.slug),
                _INSERT_COUNTER.of(company_id=company, last=FIRST_NUMBER - 1),
            ]
        case Change(before=Company() as old, after=Company() as new) if old.slug != new.slug:
            return [_INSERT_SLUG.of(company=company, slug=new.slug)]
        case Change(before=None, after=ApiKey() as key):
            return [
                _INSERT_GRANT.of(
                    digest=key.digest,
                    company_id=company,
                    key_id=key.id,
                    name=key.name,
                    scopes=key.scopes,
                    expires_at=key.expires_at,
                    revoked=False,
                )
            ]
        case Change(after=ApiKey() as key) if key.revoked_at is not None:
            return [_REVOKE_GRANT.of(company=company, digest_=key.digest)]
        case _:
            return []


def _movements(company: CompanyId, records: Sequence[NewRecord]) -> list[Call]:
    moved = [(record, record.event) for record in records if isinstance(record.event, StockMoved)]
    if not moved:
        return []
    return [
        _INSERT_MOVEMENTS.of(
            company=company,
            id=[record.id for record, _ in moved],
            product_id=[record.entity_id for record, _ in moved],
            quantity=[event.quantity for _, event in moved],
            reason=[event.reason for _, event in moved],
            note=[event.note for _, event in moved],
            order_id=[event.order_id for _, event in moved],
            stock_after=[event.after for _, event in moved],
            created_at=[record.at for record, _ in moved],
        )
    ]


def _payments(company: CompanyId, records: Sequence[NewRecord]) -> list[Call]:
    return [
        _INSERT_PAYMENT.of(
            company_id=company,
            id=record.id,
            order_id=record.entity_id,
            amount=record.event.amount,
            method=record.event.method,
            reference=record.event.reference,
            created_at=record.at,
        )
        for record in records
        if isinstance(record.event, PaymentRecorded)
    ]


def _telling(company: CompanyId, records: Sequence[NewRecord], numbered: bool) -> list[Call]:
    if not records:
        return []
    person = records[0].person
    calls = [
        _INSERT_RECORDS[numbered].of(
            company=company,
            person=person.id,
            salt=person.salt,
            label=person.label,
            ip=person.ip,
            id=[record.id for record in records],
            at=[record.at for record in records],
            actor_kind=[record.actor_kind for record in records],
            actor_id=[record.actor_id for record in records],
            action=[record.action for record in records],
            entity_type=[record.entity_type for record in records],
            entity_id=[record.entity_id for record in records],
            person_id=[record.person.id for record in records],
            body=[record.body for record in records],
        )
    ]
    messages = [(record, message) for record in records for message in record.messages]
    if messages:
        calls.append(
            _INSERT_MESSAGES[numbered].of(
                company=company,
                id=[message.id for _, message in messages],
                name=[message.name for _, message in messages],
                occurred_at=[record.at for record, _ in messages],
                payload=[message.payload for _, message in messages],
            )
        )
    return calls


def refusal(error: errors.Error) -> Exception:
    """What an error of the database means to the caller."""
    name = error.diag.constraint_name or ""
    if name in schema.REFUSALS:
        return schema.REFUSALS[name]()
    if isinstance(error, (errors.DeadlockDetected, errors.SerializationFailure)):
        return Again()
    if isinstance(error, (errors.LockNotAvailable, errors.QueryCanceled, errors.OperationalError)):
        return Busy("busy", retry_after_s=1)
    if isinstance(error, (errors.StringDataRightTruncation, errors.NumericValueOutOfRange)):
        return Invalid("invalid_request", "A value is out of range.")
    return Bug(f"the database refused: {error}")
