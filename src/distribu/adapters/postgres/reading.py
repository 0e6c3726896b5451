"""Questions to the database: `Read` values that can be sent together, and what finders share."""

from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Generic, Protocol, TypeVar

import sqlalchemy as sa

from distribu.adapters.postgres.driver import Call, Row, Statement
from distribu.adapters.postgres.mapping import Mapped, mine
from distribu.application.ports import Page, Scope
from distribu.domain.entity import Entity
from distribu.domain.errors import NotFound

T = TypeVar("T")
E = TypeVar("E", bound=Entity)

Answers = Sequence[list[Row]]


class Asked(Protocol):
    """A transaction, as a finder sees it."""

    scope: Scope
    readonly: bool

    async def one(self, read: "PostgresRead[T]") -> T: ...

    def lock(self, entity: E) -> E: ...


class PostgresRead(Generic[T]):
    """One question: the statements to send and how to build the answer from their rows."""

    __slots__ = ("build", "calls", "tx")

    def __init__(self, tx: Asked, build: Callable[[Answers], T], *calls: Call) -> None:
        self.tx = tx
        self.build = build
        self.calls = calls

    def __await__(self) -> Generator[Any, Any, T]:
        return self.tx.one(self).__await__()


class Finder:
    """What the finders of every context share."""

    def __init__(self, tx: Asked) -> None:
        self.tx = tx
        self.bound = {"company": tx.scope.company_id, "customer": tx.scope.customer_id}

    def got(self, mapped: Mapped[E], get: "Locking", code: str, **values: Any) -> PostgresRead[E]:
        """One entity, locked inside a command. Raises `NotFound`."""
        tx = self.tx

        def build(answers: Answers) -> E:
            if not answers[0]:
                raise NotFound(code)
            return tx.lock(mapped.build(answers[0][0]))

        return PostgresRead(tx, build, get[tx.readonly].of(**self.bound, **values))

    def paged(
        self,
        build: Callable[[Row], T],
        statement: Statement,
        limit: int,
        id_of: Callable[[T], str],
        **values: Any,
    ) -> PostgresRead[Page[T]]:
        """A page; one row more than asked for tells whether there is another."""
        given = {name: value for name, value in values.items() if value is not None}
        call = statement.of(**self.bound, count=limit + 1, **given)
        return PostgresRead(self.tx, lambda answers: page(answers[0], build, limit, id_of), call)


def page(rows: list[Row], build: Callable[[Row], T], limit: int, id_of: Callable[[T], str]) -> Page[T]:
    """The first ``limit`` rows, and where to go on."""
    items = tuple([build(row) for row in rows[:limit]])
    return Page(items, id_of(items[-1]) if len(rows) > limit else None)


Locking = Mapping[bool, Statement]


def locking(query: sa.Select[Any]) -> Locking:
    """A query as a query asks it (True: it only reads) and as a command does (False: it locks)."""
    return {True: Statement(query), False: Statement(query.with_for_update(key_share=True))}


Filters = Mapping[str, Callable[[], sa.ColumnElement[bool]]]


class Pages:
    """The statement of a list for each set of filters in use, compiled when it first is."""

    def __init__(
        self,
        columns: Collection[sa.ColumnElement[Any]],
        table: sa.Table,
        by: sa.ColumnElement[Any],
        *always: sa.ColumnElement[bool],
        filters: Filters | None = None,
        source: sa.FromClause | None = None,
    ) -> None:
        cursor = sa.bindparam("cursor", type_=by.type)
        self._filters: Filters = {"cursor": lambda: by < cursor, **(filters or {})}
        self._query = (
            sa.select(*columns)
            .select_from(table if source is None else source)
            .where(mine(table), *always)
            .order_by(by.desc())
            .limit(sa.bindparam("count", type_=sa.BigInteger))
        )
        self._compiled = lru_cache(maxsize=128)(self._compile)

    def statement(self, **values: Any) -> Statement:
        """The statement for those filters that have a value."""
        return self._compiled(tuple(name for name, value in values.items() if value is not None))

    def _compile(self, names: tuple[str, ...]) -> Statement:
        return Statement(self._query.where(*(self._filters[name]() for name in names)))
