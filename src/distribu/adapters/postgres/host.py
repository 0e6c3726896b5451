"""A store inside somebody else's transaction: the host's connection, the host's commit."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from psycopg import AsyncConnection, pq

from distribu.adapters.postgres import roles
from distribu.adapters.postgres.driver import Line, teach
from distribu.adapters.postgres.store import PostgresTx
from distribu.application.ports import Clock, OnceKey, Scope
from distribu.domain.errors import Bug

_SETTINGS: Final = ("role", "app.company_id", "app.customer_id", "timezone")

_ASK: Final = "SELECT " + ", ".join(f"coalesce(current_setting('{name}', true), '')" for name in _SETTINGS)
_BECOME: Final = "SELECT set_config('role', %s, true), set_config('timezone', 'UTC', true)"
_PUT_BACK: Final = "SELECT " + ", ".join(f"set_config('{name}', %s, true)" for name in _SETTINGS)


class HostStore:
    """Implements the port Store on one connection whose transaction is not ours.

    Everything we set is put back afterwards, since ``SET LOCAL`` outlives a released savepoint. There
    is no commit here, and what would be run again (`Again`) goes to the host.
    """

    def __init__(self, connection: AsyncConnection[Any], *, clock: Clock) -> None:
        teach(connection.adapters)
        self.connection = connection
        self.clock = clock

    @asynccontextmanager
    async def begin(
        self, scope: Scope, *, readonly: bool = False, once: OnceKey | None = None
    ) -> AsyncIterator[PostgresTx]:
        connection = self.connection
        if connection.info.transaction_status != pq.TransactionStatus.INTRANS:
            raise Bug("the host's connection is in no transaction, or in a failed one")
        before = await (await connection.execute(_ASK)).fetchone()
        await connection.execute("SAVEPOINT distribu")
        try:
            await connection.execute(_BECOME, [roles.APP])
            line = Line(connection, prepare=False)
            yield PostgresTx(line, scope, readonly, once, self.clock, hosted=True)
        except BaseException:
            # Going back to the savepoint puts the settings back as well.
            await connection.execute("ROLLBACK TO SAVEPOINT distribu")
            await connection.execute("RELEASE SAVEPOINT distribu")
            raise
        await connection.execute("RELEASE SAVEPOINT distribu")
        await connection.execute(_PUT_BACK, before)

    async def ready(self) -> None:
        await self.connection.execute("SELECT 1")
