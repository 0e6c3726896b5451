"""The agenda in PostgreSQL: a row for each job, on the connections of the queue."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final

from psycopg import AsyncConnection, errors
from psycopg_pool import AsyncConnectionPool

from distribu.application.agenda import Appointment, Outcome
from distribu.domain.errors import Busy

_ENTER: Final = """
INSERT INTO distribu.jobs (name, due_at)
SELECT name, due_at FROM unnest(%(names)s::text[], %(times)s::timestamptz[]) AS given (name, due_at)
ORDER BY name ON CONFLICT (name) DO NOTHING
"""

_LOOK: Final = """
SELECT name, due_at, claimed_until, ran_at, outcome FROM distribu.jobs WHERE name = ANY (%(names)s::text[])
"""

# Of two who come at once one waits for the row, and finds it claimed, or due at another time.
_CLAIM: Final = """
UPDATE distribu.jobs SET claim = %(claim)s, claimed_until = %(until)s
WHERE name = %(name)s AND due_at = %(due_at)s AND (claimed_until IS NULL OR claimed_until <= %(now)s)
"""

_FINISH: Final = """
UPDATE distribu.jobs SET claim = NULL, claimed_until = NULL, due_at = %(due_at)s, ran_at = %(now)s,
    outcome = %(outcome)s
WHERE name = %(name)s AND claim = %(claim)s
"""


class PostgresAgenda:
    """Implements the port Agenda."""

    def __init__(self, pool: AsyncConnectionPool[AsyncConnection[Any]]) -> None:
        self._pool = pool

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncConnection[Any]]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except errors.OperationalError as error:
            raise Busy("busy", retry_after_s=1) from error

    async def look(self, due: Mapping[str, datetime]) -> Mapping[str, Appointment]:
        given = {"names": [*due], "times": [*due.values()]}
        async with self._connection() as connection:
            rows = await (await connection.execute(_LOOK, given)).fetchall()
            if len(rows) < len(due):
                await connection.execute(_ENTER, given)
                rows = await (await connection.execute(_LOOK, given)).fetchall()
        return {
            name: Appointment(due_at, claimed_until, ran_at, Outcome(outcome) if outcome else None)
            for name, due_at, claimed_until, ran_at, outcome in rows
        }

    async def claim(self, name: str, *, claim: str, due_at: datetime, now: datetime, until: datetime) -> bool:
        given = {"name": name, "claim": claim, "due_at": due_at, "now": now, "until": until}
        async with self._connection() as connection:
            return (await connection.execute(_CLAIM, given)).rowcount == 1

    async def finish(
        self, name: str, *, claim: str, now: datetime, due_at: datetime, outcome: Outcome
    ) -> bool:
        given = {"name": name, "claim": claim, "now": now, "due_at": due_at, "outcome": str(outcome)}
        async with self._connection() as connection:
            return (await connection.execute(_FINISH, given)).rowcount == 1
