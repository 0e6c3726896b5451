"""Distribu inside another program: one context manager, use cases called directly."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from distribu.application.kernel import Distribu
from distribu.container import database, inside, running
from distribu.settings import Settings, load

__all__ = ["connect", "inside"]


@asynccontextmanager
async def connect(settings: Settings | None = None) -> AsyncIterator[Distribu]:
    """Distribu on its database, by default with the settings of the environment.

    Without a database setting the embedded one is started, which takes a second. Raises
    `SettingsUnusable` and the other ways in which it refuses to start.
    """
    async with AsyncExitStack() as stack:
        ready = stack.enter_context(database(settings or load()))
        yield await stack.enter_async_context(running(ready))
