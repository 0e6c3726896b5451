"""Statements compiled once, and messages of them: the seam between SQLAlchemy, psycopg and libpq.

SQLAlchemy describes a query; it is compiled to SQL text when it is first made, and prepared once per
connection. A message is any number of statements sent together and answered together: one round
trip, spoken on libpq's pipeline directly, because what a cursor does around it costs more than the
query. Values travel as text both ways; psycopg's compiled loaders read the answers.
"""

import asyncio
import hashlib
import select
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from time import monotonic
from typing import Any, Final

import sqlalchemy as sa
from psycopg import AsyncConnection, errors, pq
from psycopg.abc import AdaptContext
from psycopg.adapt import AdaptersMap, Transformer
from psycopg.types.string import TextLoader
from sqlalchemy.dialects import postgresql

from distribu.domain.errors import Bug

MESSAGE_TIMEOUT_S: Final = 30.0
"""Beyond every time-out the server keeps itself: then the connection is given up."""

_dialect: Final = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # SQLAlchemy's dialects have no annotations

Row = tuple[Any, ...]


class StatementFailed(Exception):
    """The server refused a statement; ``place`` is which one of its message."""

    def __init__(self, error: errors.Error, place: int) -> None:
        self.error = error
        self.place = place
        super().__init__(f"statement {place}: {error}")


def teach(adapters: AdaptersMap) -> None:
    """Make a connection read ids and JSON as text."""
    for name in ("uuid", "jsonb", "json"):
        adapters.register_loader(name, TextLoader)


def text_of(value: Any) -> bytes | None:
    """A value as PostgreSQL reads it."""
    return None if value is None else _text(value).encode()


def _text(value: Any) -> str:
    kind = type(value)
    if kind not in _TEXTS:
        _TEXTS[kind] = next((text for base, text in _TEXTS.items() if issubclass(kind, base)), _unknown)
    return _TEXTS[kind](value)


def _unknown(value: Any) -> str:
    raise Bug(f"{type(value).__name__} has no form in SQL")


def _array(values: Sequence[Any]) -> str:
    if not values:
        return "{}"
    if None not in values:
        strings = isinstance(values[0], str)  # an array is of one type
        inside = '","'.join(values if strings else map(_text, values))
        if "\\" not in inside and inside.count('"') == 2 * (len(values) - 1):
            return f'{{"{inside}"}}'
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    escaped = _text(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_TEXTS: Final[dict[type, Callable[[Any], str]]] = {
    str: str.__str__,
    bool: lambda value: "t" if value else "f",
    int: str,
    Decimal: str,
    datetime: lru_cache(maxsize=64)(datetime.isoformat),  # one request writes one time many times
    bytes: lambda value: "\\x" + value.hex(),
    tuple: _array,
    list: _array,
}
"""How each type is written; subclasses find their base on first sight."""


class Statement:
    """A query, compiled: SQL with ``$n`` in it and the names of what goes there."""

    __slots__ = ("fixed", "name", "names", "sql")

    def __init__(self, query: sa.ClauseElement) -> None:
        compiled = query.compile(dialect=_dialect)
        self.sql = str(compiled).encode()
        self.name = b"d" + hashlib.blake2b(self.sql, digest_size=9).hexdigest().encode()
        self.names = tuple(getattr(compiled, "positiontup", None) or ())
        self.fixed = {name: value for name, value in compiled.params.items() if value is not None}

    def of(self, **values: Any) -> "Call":
        """This statement with its values. Raises `KeyError` for one that is missing."""
        given = {**self.fixed, **values} if self.fixed else values
        return self, [
            value.encode() if type(value := given[name]) is str else text_of(value) for name in self.names
        ]


Call = tuple[Statement, list[bytes | None]]

BEGIN: Final[Call] = (Statement(sa.text("BEGIN")), [])
COMMIT: Final[Call] = (Statement(sa.text("COMMIT")), [])
ROLLBACK: Final[Call] = (Statement(sa.text("ROLLBACK")), [])


class Line:
    """A connection as the store speaks to it: message out, answers back.

    ``reading`` has the loaders of the answers, when they are not the connection's own; ``shared``
    says that somebody else listens to the connection between our messages.
    """

    def __init__(
        self,
        connection: AsyncConnection[Any],
        *,
        prepare: bool,
        reading: AdaptContext | None = None,
        shared: bool = False,
    ) -> None:
        self.connection = connection
        self._prepare = prepare
        self._shared = shared
        self._prepared: set[bytes] = set()
        self._transformer = Transformer(reading or connection)
        self.made = monotonic()
        self._watching: int | None = None
        self._arrival: asyncio.Future[None] | None = None
        self.round_trips = 0
        self.statements = 0

    async def send(self, calls: Sequence[Call]) -> list[list[Row]]:
        """Send a message and return the rows of each of its statements.

        Outside a transaction it is one of its own. Raises `StatementFailed`, and then what came after
        was not run, or what psycopg raises for a connection that is lost.
        """
        self.round_trips += 1
        self.statements += len(calls)
        pgconn = self.connection.pgconn
        pgconn.enter_pipeline_mode()
        try:
            expected = self._queue(pgconn, calls)
            if pgconn.flush():
                self.rest()  # `_flush` listens for itself
                async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                    await _flush(pgconn)
            results: list[pq.abc.PGresult] = []
            while not _received(pgconn, results):
                await self._readable(pgconn.socket)
                pgconn.consume_input()
        except BaseException as error:
            # Half a conversation: nobody could tell the answers apart any more.
            self.rest()
            self.connection.pgconn.finish()
            if isinstance(error, TimeoutError):
                raise errors.OperationalError("the database did not answer in time") from None
            raise
        if self._shared:
            self.rest()
        if pgconn.status == pq.ConnStatus.OK:
            pgconn.exit_pipeline_mode()
        return self._read(expected, results)

    @property
    def hung_up(self) -> bool:
        """Whether the server has ended this idle connection: then it has something to read."""
        pgconn = self.connection.pgconn
        if pgconn.status == pq.ConnStatus.BAD:
            return True
        waiting = select.poll()
        waiting.register(pgconn.socket, select.POLLIN)
        if waiting.poll(0):
            self.rest()
            pgconn.finish()
            return True
        return False

    def rest(self) -> None:
        """Listen to the socket no more: somebody else is going to use the connection, or close it."""
        if self._watching is not None:
            asyncio.get_running_loop().remove_reader(self._watching)
            self._watching = None

    async def _readable(self, socket: int) -> None:
        # A reader that stays: adding and removing one for each message costs more than a small query.
        loop = asyncio.get_running_loop()
        if self._watching is None:
            loop.add_reader(socket, self._arrived)
            self._watching = socket
        self._arrival = arrival = loop.create_future()
        late = loop.call_later(MESSAGE_TIMEOUT_S, _late, arrival)
        try:
            await arrival
        finally:
            self._arrival = None
            late.cancel()

    def _arrived(self) -> None:
        if self._arrival is None:
            self.rest()  # nobody asked: the server is going away, and the next message will find out
        elif not self._arrival.done():
            self._arrival.set_result(None)

    def _queue(self, pgconn: pq.abc.PGconn, calls: Sequence[Call]) -> list[bytes | None]:
        """What each answer will be for: a statement's name where it is prepared, None where it is run."""
        expected: list[bytes | None] = []
        for statement, values in calls:
            if not self._prepare:
                pgconn.send_query_params(statement.sql, values)
            else:
                if statement.name not in self._prepared:
                    pgconn.send_prepare(statement.name, statement.sql)
                    self._prepared.add(statement.name)
                    expected.append(statement.name)
                pgconn.send_query_prepared(statement.name, values)
            expected.append(None)
        pgconn.pipeline_sync()
        return expected

    def _read(self, expected: list[bytes | None], results: list[pq.abc.PGresult]) -> list[list[Row]]:
        failed = None
        answers: list[list[Row]] = []
        for prepared, result in zip(expected, results, strict=True):
            if result.status in (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_ABORTED):
                failed = failed or result
                if prepared is not None:
                    self._prepared.discard(prepared)
            elif prepared is None and failed is None:
                answers.append(self._rows(result))
        if failed is not None:
            raise StatementFailed(errors.error_from_result(failed), len(answers))
        return answers

    def _rows(self, result: pq.abc.PGresult) -> list[Row]:
        count = result.ntuples
        if not count:
            return []
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, count, tuple)


async def _flush(pgconn: pq.abc.PGconn) -> None:
    while pgconn.flush():
        await _ready(pgconn.socket, write=True)
        pgconn.consume_input()  # the server may be waiting for us to read before it reads on


def _late(arrival: "asyncio.Future[None]") -> None:
    if not arrival.done():
        arrival.set_exception(TimeoutError())


def _received(pgconn: pq.abc.PGconn, results: list[pq.abc.PGresult]) -> bool:
    """Take what has arrived; whether it was all."""
    while not pgconn.is_busy():
        result = pgconn.get_result()
        if result is None:
            if pgconn.status == pq.ConnStatus.BAD:
                raise errors.OperationalError("the connection was lost")
        elif result.status == pq.ExecStatus.PIPELINE_SYNC:
            return True
        else:
            results.append(result)
    return False


async def _ready(socket: int, *, write: bool = False) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(socket, done)
    if write:
        loop.add_writer(socket, done)
    try:
        await ready
    finally:
        loop.remove_reader(socket)
        if write:
            loop.remove_writer(socket)
