"""What the finders in memory share."""

from collections.abc import Callable, Generator, Iterable
from typing import Any, Generic, Protocol, TypeVar

from distribu.application.ports import Page, Scope
from distribu.domain.entity import Entity
from distribu.domain.errors import NotFound
from distribu.domain.values import CompanyId

T = TypeVar("T")
E = TypeVar("E", bound=Entity)


class Asked(Protocol):
    """A transaction, as a finder sees it."""

    scope: Scope

    @property
    def everywhere(self) -> dict[CompanyId, dict[type[Entity], dict[str, Any]]]: ...

    async def one(self, read: "MemoryRead[T]") -> T: ...

    def mine(self, kind: type[E]) -> list[E]: ...

    def find(self, kind: type[E], id: str) -> E | None: ...

    def lock(self, entity: E) -> E: ...


class MemoryRead(Generic[T]):
    """A question that is answered when it is awaited."""

    def __init__(self, tx: Asked, answer: Callable[[], T]) -> None:
        self.tx = tx
        self.answer = answer

    def __await__(self) -> Generator[Any, Any, T]:
        return self.tx.one(self).__await__()


class Finder:
    """What the finders of every context share."""

    def __init__(self, tx: Any) -> None:
        self.tx = tx

    def _get(
        self, kind: type[E], id: str, code: str, keep: Callable[[E], bool] = lambda _: True
    ) -> MemoryRead[E]:
        def answer() -> E:
            entity: E | None = self.tx.find(kind, id)
            if entity is None or not keep(entity):
                raise NotFound(code)
            locked: E = self.tx.lock(entity)
            return locked

        return MemoryRead(self.tx, answer)

    def _list(
        self, kind: type[E], limit: int, cursor: str | None, keep: Callable[[E], bool]
    ) -> MemoryRead[Page[E]]:
        def answer() -> Page[E]:
            rows = (row for row in self.tx.mine(kind) if keep(row))
            return page(rows, limit, cursor, lambda row: row.id)

        return MemoryRead(self.tx, answer)


def page(rows: Iterable[T], limit: int, cursor: str | None, id_of: Callable[[T], str]) -> Page[T]:
    """The next ``limit`` of rows that come newest first."""
    left = [row for row in rows if cursor is None or id_of(row) < cursor]
    more = len(left) > limit
    return Page(tuple(left[:limit]), id_of(left[limit - 1]) if more else None)
