"""The composition root: what is made of what. The only place that knows the adapters."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from dependency_injector import containers, providers
from psycopg import AsyncConnection

from distribu.adapters.hooks import HttpHooks
from distribu.adapters.memory.store import MemoryStore
from distribu.adapters.memory.twins import GlassVault, MovedClock, Receivers, SeededEntropy
from distribu.adapters.postgres.embedded import EmbeddedFailed, embedded
from distribu.adapters.postgres.host import HostStore
from distribu.adapters.postgres.migrations import migrate
from distribu.adapters.postgres.queue import PostgresQueue
from distribu.adapters.postgres.roles import NotMigrated, UnsafeRole, queue_url
from distribu.adapters.postgres.store import PostgresStore
from distribu.adapters.system import SystemClock, SystemEntropy
from distribu.adapters.vault import FernetVault
from distribu.application.kernel import Distribu, Ports
from distribu.settings import Settings, SettingsUnusable

StartRefused = (SettingsUnusable, EmbeddedFailed, NotMigrated, UnsafeRole)
"""What can keep Distribu from starting through no bug: each says what to do."""


class Container(containers.DeclarativeContainer):
    """Distribu on PostgreSQL. Nothing here does I/O when it is made."""

    settings = providers.Dependency(instance_of=Settings)
    clock = providers.Singleton(SystemClock)
    entropy = providers.Singleton(SystemEntropy)
    vault = providers.Singleton(FernetVault, settings.provided.vault_ring.call())
    hooks = providers.Singleton(HttpHooks, production=settings.provided.production)
    store = providers.Singleton(
        PostgresStore,
        settings.provided.database_url,
        clock=clock,
        size=settings.provided.database_pool,
        prepare=settings.provided.database_prepare,
    )
    directory = providers.Factory(lambda store: store, store)
    queue = providers.Singleton(
        PostgresQueue,
        settings.provided.queue_database_url,
        entropy=entropy,
        prepare=settings.provided.database_prepare,
    )
    fingerprint_key = providers.Factory(lambda settings: settings.fingerprint_key(), settings)
    ports = providers.Singleton(
        Ports,
        store=store,
        directory=directory,
        queue=queue,
        clock=clock,
        entropy=entropy,
        vault=vault,
        hooks=hooks,
        fingerprint_key=fingerprint_key,
    )
    distribu = providers.Singleton(Distribu, ports)


@dataclass(frozen=True, slots=True)
class InMemory:
    """Distribu with nothing outside the process, and the twins to look into."""

    distribu: Distribu
    clock: MovedClock
    receivers: Receivers


def in_memory() -> InMemory:
    """Distribu on the twins of every port. Its secrets can be guessed: for tests and demonstrations."""
    container = Container(settings=Settings())
    clock = providers.Singleton(MovedClock)
    store = providers.Singleton(MemoryStore, clock)
    container.override_providers(
        clock=clock,
        entropy=providers.Singleton(SeededEntropy, clock),
        vault=providers.Singleton(GlassVault),
        hooks=providers.Singleton(Receivers),
        store=store,
        directory=store,
        queue=store,
        fingerprint_key=providers.Object(b"in memory"),
    )
    twins: Any = container
    return InMemory(container.distribu(), twins.clock(), twins.hooks())


@contextmanager
def database(settings: Settings) -> Iterator[Settings]:
    """The settings with a database: the one they name, or an embedded one, started and migrated."""
    if settings.database_url is not None:
        queue = settings.queue_database_url or queue_url(settings.database_url)
        yield msgspec.structs.replace(settings, queue_database_url=queue)
        return
    with embedded(settings.data_path) as server:
        migrate(server.owner_url, server.app_url)
        yield msgspec.structs.replace(
            settings,
            database_url=server.app_url,
            owner_database_url=server.owner_url,
            queue_database_url=queue_url(server.app_url),
        )


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Distribu]:
    """Distribu, connected. ``settings`` name a database (see `database`). Raises one of `StartRefused`."""
    container = Container(settings=settings)
    store, queue, hooks = container.store(), container.queue(), container.hooks()
    try:
        await store.open()
        await queue.open()
        yield container.distribu()
    finally:
        await hooks.close()
        await queue.close()
        await store.close()


def inside(distribu: Distribu, connection: AsyncConnection[Any]) -> Distribu:
    """Distribu working in the host's own open transaction on ``connection``.

    What is executed takes effect when the host commits, and leaves no trace when it rolls back. The
    host's role must be a member of ``distribu_tenant``.
    """
    store = HostStore(connection, clock=distribu.ports.clock)
    return Distribu(replace(distribu.ports, store=store))
