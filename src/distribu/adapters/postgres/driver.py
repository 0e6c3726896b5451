"""Statements compiled once, and messages of them: the seam between SQLAlchemy, psycopg and libpq.

SQLAlchemy describes a query; it is compiled to SQL text when it is first made, and prepared once per
connection. A message is any number of statements sent together and answered together: one round
trip, spoken on libpq's pipeline directly, because what a cursor does around it costs more than the
query. Values travel as text both ways; psycopg's compiled loaders read the answers.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa
from psycopg import AsyncConnection, errors, pq
from psycopg.abc import AdaptContext, Buffer
from psycopg.adapt import AdaptersMap, Loader, Transformer
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


class _AsText(Loader):
    """Ids and JSON stay the text they are sent as."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode()


def teach(adapters: AdaptersMap) -> None:
    """Make a connection read ids and JSON as text."""
    for name in ("uuid", "jsonb", "json"):
        adapters.register_loader(name, _AsText)


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
        inside = '","'.join(map(_text, values))
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
    datetime: datetime.isoformat,
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
        fixed = self.fixed
        return self, [text_of(values[name] if name in values else fixed[name]) for name in self.names]


Call = tuple[Statement, list[bytes | None]]

BEGIN: Final[Call] = (Statement(sa.text("BEGIN")), [])
COMMIT: Final[Call] = (Statement(sa.text("COMMIT")), [])
ROLLBACK: Final[Call] = (Statement(sa.text("ROLLBACK")), [])


class Line:
    """A connection as the store speaks to it: message out, answers back.

    ``reading`` has the loaders of the answers, when they are not the connection's own.
    """

    def __init__(
        self, connection: AsyncConnection[Any], *, prepare: bool, reading: AdaptContext | None = None
    ) -> None:
        self.connection = connection
        self._prepare = prepare
        self._prepared: set[bytes] = set()
        self._transformer = Transformer(reading or connection)
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
            async with asyncio.timeout(MESSAGE_TIMEOUT_S):
                expected = self._queue(pgconn, calls)
                await _flush(pgconn)
                results = await _receive(pgconn)
        except BaseException:
            # Half a conversation: nobody could tell the answers apart any more.
            self.connection.pgconn.finish()
            raise
        if pgconn.status == pq.ConnStatus.OK:
            pgconn.exit_pipeline_mode()
        return self._read(expected, results)

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


async def _receive(pgconn: pq.abc.PGconn) -> list[pq.abc.PGresult]:
    results: list[pq.abc.PGresult] = []
    while True:
        while pgconn.is_busy():
            await _ready(pgconn.socket)
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            if pgconn.status == pq.ConnStatus.BAD:
                raise errors.OperationalError("the connection was lost")
        elif result.status == pq.ExecStatus.PIPELINE_SYNC:
            return results
        else:
            results.append(result)


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
