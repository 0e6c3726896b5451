"""The store: its connections, the look-ups before a company is known, and one transaction."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final, TypeVar, cast

import sqlalchemy as sa
from psycopg import AsyncConnection, errors, pq
from psycopg_pool import AsyncConnectionPool, PoolTimeout, TooManyRequests

from distribu.adapters.postgres import access, accounts, refusals, roles, schema
from distribu.adapters.postgres.access import PostgresApiKeys
from distribu.adapters.postgres.accounts import (
    PostgresFactors,
    PostgresLogins,
    PostgresSessions,
    PostgresUsers,
)
from distribu.adapters.postgres.audit import PostgresRecords
from distribu.adapters.postgres.billing import PostgresSubscriptions
from distribu.adapters.postgres.catalog import PostgresProducts
from distribu.adapters.postgres.contacts import PostgresContacts
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
from distribu.adapters.postgres.inquiries import PostgresInquiries
from distribu.adapters.postgres.mapping import mine
from distribu.adapters.postgres.notices import PostgresNotices
from distribu.adapters.postgres.ordering import PostgresOrders
from distribu.adapters.postgres.platform import PostgresPlatform
from distribu.adapters.postgres.reading import PostgresRead
from distribu.adapters.postgres.seals import PostgresSealFinder
from distribu.adapters.postgres.team import PostgresCompanies, PostgresInvitations, PostgresMembers
from distribu.adapters.postgres.webhooks import PostgresEvents, PostgresWebhooks
from distribu.adapters.postgres.writing import INSERT_ORDER, KEEP, writing
from distribu.application.ports import (
    ANSWERS_KEPT,
    Again,
    AlreadyAnswered,
    Change,
    Clock,
    NewMail,
    NewRecord,
    OnceKey,
    Scope,
    StoredAnswer,
    everything_told,
)
from distribu.domain.access import ContactGrant, KeyGrant, StaffGrant
from distribu.domain.accounts import REALM
from distribu.domain.entity import Entity, Numbered
from distribu.domain.errors import Bug, Busy, Conflict, InDoubt, Invalid
from distribu.domain.values import CompanyId

T = TypeVar("T")
E = TypeVar("E", bound=Entity)

WAIT_S: Final = 5.0
"""How long a request waits for a connection before it is told that we are busy."""

WAITING_MAX: Final = 2_000
"""How many requests wait at once; a longer queue could not be served in that time anyway."""

IDLE_KEPT_S: Final = 3_000.0
"""The age up to which a connection is kept ready; older ones pass the pool, which replaces them."""

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
        self.pool: AsyncConnectionPool[AsyncConnection[Any]] = AsyncConnectionPool(
            url,
            min_size=min(2, size),
            max_size=size,
            max_waiting=WAITING_MAX,
            timeout=WAIT_S,
            open=False,
            configure=self._configure,
            kwargs={"autocommit": True, "prepare_threshold": None},
        )
        # In front of the pool, the one used last first: a trip through the pool costs a sixth of a page.
        self._idle: list[Line] = []
        self._waiting = 0
        self.round_trips = 0
        self.statements = 0

    async def open(self) -> None:
        """Connect, and refuse to run as a role that row-level security does not bind."""
        await self.pool.open(wait=True, timeout=30)
        async with self.pool.connection() as connection:
            await roles.refuse_unsafe(connection)

    async def close(self) -> None:
        """Give back the connections."""
        while self._idle:
            line = self._idle.pop()
            line.rest()
            await self.pool.putconn(line.connection)
        await self.pool.close()

    async def _configure(self, connection: AsyncConnection[Any]) -> None:
        teach(connection.adapters)

    async def ready(self) -> None:
        await self.ask((Statement(sa.text("SELECT 1")), []))

    @asynccontextmanager
    async def line(self) -> AsyncIterator[Line]:
        """A connection for one transaction. Raises `Busy` when none is free in time."""
        line = await self._another()
        while line.hung_up:  # the server has ended it while it was idle
            await self._give_back(line)
            line = await self._another()
        trips, statements = line.round_trips, line.statements
        try:
            yield line
        finally:
            self.round_trips += line.round_trips - trips
            self.statements += line.statements - statements
            idle = line.connection.pgconn.transaction_status == pq.TransactionStatus.IDLE
            if idle and not self._waiting and monotonic() < line.made + IDLE_KEPT_S:
                self._idle.append(line)
            else:
                # To its end, also when we are cancelled meanwhile: the pool would miss it for good.
                await asyncio.shield(self._give_back(line))

    async def _give_back(self, line: Line) -> None:
        status = line.connection.pgconn.transaction_status
        if status not in (pq.TransactionStatus.IDLE, pq.TransactionStatus.UNKNOWN):
            await _roll_back(line)
        line.rest()
        await self.pool.putconn(line.connection)

    async def _another(self) -> Line:
        """The connection used last, or one from the pool, which opens one or waits for one to come back."""
        if self._idle:
            return self._idle.pop()
        self._waiting += 1
        try:
            connection = await self.pool.getconn()
        except (PoolTimeout, TooManyRequests):
            raise Busy("busy", retry_after_s=1) from None
        finally:
            self._waiting -= 1
        line = getattr(connection, "distribu_line", None)
        if line is None:
            line = Line(connection, prepare=self.prepare)
            connection.distribu_line = line  # type: ignore[attr-defined]  # lives and dies with the connection
        return line

    @asynccontextmanager
    async def begin(
        self, scope: Scope, *, readonly: bool = False, once: OnceKey | None = None
    ) -> AsyncIterator["PostgresTx"]:
        async with self.line() as line:
            yield PostgresTx(line, scope, readonly, once, self.clock)

    async def ask(self, *calls: Call) -> list[Row]:
        """The rows of the last of some statements, in a transaction of their own."""
        async with self.line() as line:
            try:
                return (await line.send(calls))[-1]
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

    async def staff_session(self, id: str) -> StaffGrant | None:
        rows = await self._within(REALM, accounts.STAFF_SESSION, id)
        return accounts.staff_grant(rows[0]) if rows else None

    async def store_session(self, company_id: CompanyId, id: str) -> ContactGrant | None:
        rows = await self._within(company_id, accounts.STORE_SESSION, id)
        return accounts.contact_grant(rows[0]) if rows else None

    async def _within(self, company_id: CompanyId, statement: Statement, id: str) -> list[Row]:
        """The rows of one statement that sees one company."""
        opening = _READ.of(company=company_id, customer="")
        return await self.ask(opening, statement.of(company=company_id, customer=None, id=id))


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
        self.subscriptions = PostgresSubscriptions(self)
        self.notices = PostgresNotices(self)
        self.products = PostgresProducts(self)
        self.customers = PostgresCustomers(self)
        self.overrides = PostgresOverrides(self)
        self.orders = PostgresOrders(self)
        self.api_keys = PostgresApiKeys(self)
        self.webhooks = PostgresWebhooks(self)
        self.events = PostgresEvents(self)
        self.records = PostgresRecords(self)
        self.seals = PostgresSealFinder(self)
        self.logins = PostgresLogins(self)
        self.users = PostgresUsers(self)
        self.sessions = PostgresSessions(self)
        self.factors = PostgresFactors(self)
        self.members = PostgresMembers(self)
        self.invitations = PostgresInvitations(self)
        self.contacts = PostgresContacts(self)
        self.inquiries = PostgresInquiries(self)
        self.platform = PostgresPlatform(self)

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

        Raises `InDoubt` for one that ``commits`` and has no answer: it may have been carried out, and
        who is told that we are busy sends it again.
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
                raise InDoubt(str(error)) from error
            raise refusal(error) from error

    # writing

    async def write(
        self,
        changes: Sequence[Change],
        records: Sequence[NewRecord],
        answer: StoredAnswer | None,
        mails: Sequence[NewMail] = (),
    ) -> int | None:
        if self.readonly:
            raise Bug("this transaction only reads")
        everything_told(changes, records)
        if self.once is not None and not self.begun:
            await self._begin([])
        numbered = [it.after for it in changes if isinstance(it.after, Numbered) and not it.after.number]
        if len(numbered) > 1:
            raise Bug("one message can number one entity")
        calls = writing(self.scope, changes, records, mails, bool(numbered))
        if answer is not None and self.once is not None:
            calls.append(self._keep(answer, self.once, bool(numbered)))
        if self.begun:
            ending = [] if self.hosted else [COMMIT]
            rows = (await self._send([*calls, *ending], commits=not self.hosted))[: len(calls)]
        else:
            rows = (await self._send([self._opening(_WRITE), *calls], commits=not self.hosted))[1:]
        self.begun = False
        for (statement, _), row in zip(calls, rows, strict=True):
            if statement is INSERT_ORDER:
                return int(row[0][0])
        return None

    def _keep(self, answer: StoredAnswer, once: OnceKey, numbered: bool) -> Call:
        return KEEP[numbered].of(
            company=self.scope.company_id,
            customer_id=self.scope.customer_id,
            actor=once.actor,
            key=once.key,
            fingerprint=answer.fingerprint,
            body=answer.body,
            sealed=answer.sealed,
            created_at=self.clock.now(),
        )


def refusal(error: errors.Error) -> Exception:
    """What an error of the database means to the caller."""
    name = error.diag.constraint_name or ""
    if name in refusals.REFUSALS:
        return refusals.REFUSALS[name]()
    if name in refusals.DETAILED:
        return refusals.DETAILED[name](error.diag.message_detail or "")
    if name in refusals.RUN_AGAIN or isinstance(
        error, (errors.DeadlockDetected, errors.SerializationFailure)
    ):
        return Again()
    if isinstance(error, (errors.LockNotAvailable, errors.QueryCanceled, errors.OperationalError)):
        return Busy("busy", retry_after_s=1)
    if isinstance(error, (errors.StringDataRightTruncation, errors.NumericValueOutOfRange)):
        return Invalid("invalid_request", "A value is out of range.")
    return Bug(f"the database refused: {error}")
