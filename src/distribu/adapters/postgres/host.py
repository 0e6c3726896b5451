"""A store inside somebody else's transaction: the host's connection, the host's commit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection, AsyncCursor, pq
from psycopg.rows import tuple_row

from distribu.adapters.postgres import roles
from distribu.adapters.postgres.driver import Line, teach
from distribu.adapters.postgres.store import PostgresTx
from distribu.application.ports import Again, Clock, OnceKey, Scope
from distribu.domain.errors import Bug

_SETTINGS: Final = ("role", "app.company_id", "app.customer_id", "timezone", "lock_timeout")

_ASK: Final = "SELECT " + ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in _SETTINGS)
_BECOME: Final = (
    "SELECT set_config('role', %s, true), set_config('timezone', 'UTC', true),"
    " set_config('lock_timeout', %s, true)"
)
_PUT_BACK: Final = "SELECT " + ", ".join(f"set_config('{name}', %s, true)" for name in _SETTINGS)


class HostStore:
    """Implements the port Store on one connection whose transaction is not ours.

    Everything we set is put back afterwards, since ``SET LOCAL`` outlives a released savepoint. There
    is no commit here, and what would be run again (`Again`) goes to the host as the error it was: only
    the host can run its transaction again.

    One call at a time: a savepoint cannot tell what two of them do.
    """

    def __init__(self, connection: AsyncConnection[Any], *, clock: Clock) -> None:
        self.connection = connection
        self.clock = clock
        self._turn = asyncio.Lock()

    @asynccontextmanager
    async def begin(
        self, scope: Scope, *, readonly: bool = False, once: OnceKey | None = None
    ) -> AsyncIterator[PostgresTx]:
        async with self._turn, self._savepoint(scope, readonly, once) as tx:
            yield tx

    @asynccontextmanager
    async def _savepoint(
        self, scope: Scope, readonly: bool, once: OnceKey | None
    ) -> AsyncIterator[PostgresTx]:
        if self.connection.info.transaction_status != pq.TransactionStatus.INTRANS:
            raise Bug("the host's connection is in no transaction, or in a failed one")
        # A cursor of our own: the host's rows may be dicts, its placeholders $1, its ids UUIDs.
        cursor = AsyncCursor(self.connection, row_factory=tuple_row)
        teach(cursor.adapters)
        before = await (await cursor.execute(_ASK)).fetchone()
        await cursor.execute("SAVEPOINT distribu")
        try:
            await cursor.execute(_BECOME, [roles.APP, roles.SETTINGS["lock_timeout"]])
            line = Line(self.connection, prepare=False, reading=cursor, shared=True)
            yield PostgresTx(line, scope, readonly, once, self.clock, hosted=True)
        except BaseException as error:
            if not self.connection.closed:
                # Going back to the savepoint puts the settings back as well.
                await cursor.execute("ROLLBACK TO SAVEPOINT distribu")
                await cursor.execute("RELEASE SAVEPOINT distribu")
            if isinstance(error, Again) and error.__cause__ is not None:
                raise error.__cause__ from None
            raise
        await cursor.execute("RELEASE SAVEPOINT distribu")
        await cursor.execute(_PUT_BACK, before)

    async def ready(self) -> None:
        await self.connection.execute("SELECT 1")
