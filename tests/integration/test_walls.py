"""Companies are kept apart twice: by every statement's own filter, and by row-level security.

Each wall is tried with the other taken away, and both away once, to see that the trial can fail.
"""

import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import errors, sql

from distribu import Distribu, Settings, Shop
from distribu.adapters import postgres
from distribu.adapters.memory.twins import Receivers
from distribu.adapters.postgres import schema, store as as_it_is
from distribu.adapters.postgres.migrations import migrate
from distribu.adapters.postgres.roles import UnsafeRole, queue_url
from distribu.adapters.system import SystemClock
from distribu.application.ports import Scope, Store
from distribu.container import Container, running
from tests.contracts.asking import scope_of, write
from tests.contracts.finders import FIGURES, NOTHING_AMISS, QUESTIONS, Filled, answer, filled, nothing, shows
from tests.contracts.store import new_product

PREFIX = "distribu.adapters.postgres"


@pytest.fixture(scope="module")
def unfiltered() -> ModuleType:
    """The store made once more from its source, each statement without the filter of its own."""
    kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.startswith(PREFIX)}
    try:
        mapping = importlib.import_module(f"{PREFIX}.mapping")
        vars(mapping)["mine"] = lambda table: table.c.company_id.is_not(None)
        return importlib.import_module(f"{PREFIX}.store")
    finally:
        sys.modules.update(kept)
        sys.modules["distribu.adapters"].postgres = postgres  # type: ignore[attr-defined]  # a package is its parent's attribute


def superuser(settings: Settings, database: str = "distribu") -> str:
    """The embedded server's superuser, who is bound by nothing."""
    words = (Path(settings.data_dir) / "postgres/passwords").read_text().split()
    word = words[words.index("postgres") + 1]
    parts = urlsplit(settings.owner_database_url or "")
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"postgres:{quote(word)}@{host}", path=f"/{database}"))


def elsewhere(url: str | None, database: str) -> str:
    """The same role on another database of the same server."""
    return urlunsplit(urlsplit(url or "")._replace(path=f"/{database}"))


@pytest.fixture(scope="module")
def open_house(settings: Settings) -> Iterator[Settings]:
    """A database of its own on which row-level security is switched off."""
    with psycopg.connect(superuser(settings), autocommit=True) as connection:
        connection.execute("CREATE DATABASE open_house OWNER distribu_owner")
    owner, app = (
        elsewhere(url, "open_house") for url in (settings.owner_database_url, settings.database_url)
    )
    migrate(owner, app)
    with psycopg.connect(owner, autocommit=True) as connection:
        for table in schema.metadata.tables.values():
            off = sql.SQL("ALTER TABLE distribu.{} DISABLE ROW LEVEL SECURITY")
            connection.execute(off.format(sql.Identifier(table.name)))
    yield Settings(
        data_dir=settings.data_dir,
        database_url=app,
        owner_database_url=owner,
        queue_database_url=queue_url(app),
    )
    with psycopg.connect(superuser(settings), autocommit=True) as connection:
        connection.execute("DROP DATABASE open_house WITH (FORCE)")


@asynccontextmanager
async def store_on(module: ModuleType, url: str | None, size: int = 2) -> AsyncIterator[Any]:
    """A store of this make, without the refusal to run unsafely."""
    store = module.PostgresStore(url, clock=SystemClock(), size=size)
    await store.pool.open(wait=True)
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture(scope="module")
async def ours(distribu: Distribu) -> Filled:
    return await filled(await Shop.open(distribu))


async def leaks_to_a_stranger(store: Store, ours: Filled, stranger: Scope, *, readonly: bool) -> set[str]:
    """The finders that show a stranger something of this company."""
    leaks = set()
    for question in QUESTIONS:
        async with store.begin(stranger, readonly=readonly) as tx:
            found = await answer(tx, question, ours)
        counted = question.endswith((".any", ".count", ".leaves", ".paid", ".tip", ".turn")) and not nothing(
            found
        )
        if counted or shows(found, ours.ids):
            leaks.add(question)
    return leaks


async def leaks_to_the_neighbour(store: Store, ours: Filled, *, readonly: bool) -> set[str]:
    """The finders that show a customer's contact something of another customer, or of the house."""
    closed = frozenset(
        {ours.neighbour.id, ours.neighbours_order.id, ours.neighbours_override.id}
        | {ours.key.id, ours.webhook.id, ours.delivery.id, *(one.id for one in ours.people)}
    )
    leaks = set()
    for question in QUESTIONS:
        async with store.begin(scope_of(ours.shop, ours.customer), readonly=readonly) as tx:
            found = await answer(tx, question, ours)
        if shows(found, closed) or (question in HOUSE and not nothing(found)):
            leaks.add(question)
    return leaks


HOUSE = {
    "api_keys.count",
    "webhooks.count",
    "invitations.count",
    "contacts.count",
    "notices.turn",
    "notices.paid",
}


@pytest.mark.parametrize("readonly", [True, False])
class TestRowLevelSecurityAlone:
    async def test_it_keeps_companies_apart_for_every_finder(
        self, settings: Settings, unfiltered: ModuleType, ours: Filled, readonly: bool
    ) -> None:
        stranger = await ours.shop.stranger()
        async with store_on(unfiltered, settings.database_url) as store:
            assert await leaks_to_a_stranger(store, ours, scope_of(stranger), readonly=readonly) == set()

    async def test_it_keeps_customers_of_one_company_apart_for_every_finder(
        self, settings: Settings, unfiltered: ModuleType, ours: Filled, readonly: bool
    ) -> None:
        async with store_on(unfiltered, settings.database_url) as store:
            assert await leaks_to_the_neighbour(store, ours, readonly=readonly) == set()
            async with store.begin(scope_of(ours.shop, ours.customer), readonly=readonly) as tx:
                moved = await tx.products.movements(ours.product.id, limit=9)
                told = await tx.records.page(limit=9)
            assert (moved.items, told.items) == ((), ())


@pytest.mark.parametrize("readonly", [True, False])
class TestTheFilterAlone:
    async def test_it_keeps_companies_apart_for_every_finder(
        self, open_house: Settings, readonly: bool
    ) -> None:
        async with there(open_house) as ours, store_on(as_it_is, open_house.database_url) as store:
            stranger = await ours.shop.stranger()
            assert await leaks_to_a_stranger(store, ours, scope_of(stranger), readonly=readonly) == set()

    async def test_it_keeps_customers_of_one_company_apart_for_every_finder(
        self, open_house: Settings, readonly: bool
    ) -> None:
        async with there(open_house) as ours, store_on(as_it_is, open_house.database_url) as store:
            assert await leaks_to_the_neighbour(store, ours, readonly=readonly) == set()
            async with store.begin(scope_of(ours.shop, ours.customer), readonly=readonly) as tx:
                moved = await tx.products.movements(ours.product.id, limit=9)
                told = await tx.records.page(limit=9)
            assert (moved.items, told.items) == ((), ())

    async def test_without_either_wall_a_stranger_sees_it_all(
        self, open_house: Settings, unfiltered: ModuleType, readonly: bool
    ) -> None:
        """Or the tests above would prove nothing."""
        async with there(open_house) as ours, store_on(unfiltered, open_house.database_url) as store:
            stranger = await ours.shop.stranger()
            leaks = await leaks_to_a_stranger(store, ours, scope_of(stranger), readonly=readonly)
            assert leaks >= set(QUESTIONS) - FIGURES - NOTHING_AMISS
            leaks = await leaks_to_the_neighbour(store, ours, readonly=readonly)
            assert leaks >= {"customers.get", "orders.get", "orders.page", "api_keys.get", "webhooks.get"}


@asynccontextmanager
async def there(open_house: Settings) -> AsyncIterator[Filled]:
    """A filled company in the house without row-level security, which only a test would run on."""
    container = Container(settings=open_house)
    await container.queue().open()
    try:
        async with store_on(as_it_is, open_house.database_url, size=4) as store:
            ports = replace(container.ports(), store=store, directory=store, hooks=Receivers())
            yield await filled(await Shop.open(Distribu(ports)))
    finally:
        await container.queue().close()


# --- the server's own wall, spoken to directly ------------------------------------------------------


@pytest.fixture
async def session(settings: Settings) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """A connection as the application's role, with nothing set."""
    connection = await psycopg.AsyncConnection.connect(settings.database_url or "", autocommit=True)
    async with connection:
        yield connection


async def test_with_no_company_set_nothing_is_seen_and_nothing_is_written(
    session: psycopg.AsyncConnection[Any], ours: Filled
) -> None:
    # The directory's, which hold no business data.
    looked_up = {"company_slugs", "key_grants", "company_cards", "seats"}
    for table in schema.metadata.tables.values():
        if table.name in looked_up:
            continue
        look = sql.SQL("SELECT count(*) FROM distribu.{}").format(sql.Identifier(table.name))
        if table.name in ("outbox", "mails", "jobs"):
            with pytest.raises(errors.InsufficientPrivilege):
                await session.execute(look)
            continue
        assert (await (await session.execute(look)).fetchone()) == (0,), table.name
    with pytest.raises(errors.InsufficientPrivilege):
        await session.execute(
            "INSERT INTO distribu.order_numbers (company_id, last) VALUES (%s, 1)", [ours.shop.company.id]
        )
    assert (await session.execute("UPDATE distribu.products SET stock = 0")).rowcount == 0


async def test_many_rows_at_once_for_another_company_are_refused(
    session: psycopg.AsyncConnection[Any], ours: Filled
) -> None:
    """A bulk insert cannot skip the tenant column, nor can a COPY."""
    stranger = await ours.shop.stranger()
    movement = (
        "INSERT INTO distribu.stock_movements"
        " SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], '{1,1}'::int[],"
        " '{ADJUSTED,ADJUSTED}'::text[], '{x,x}'::text[], '{NULL,NULL}'::uuid[], '{1,1}'::int[],"
        " '{now,now}'::timestamptz[])"
    )
    copy = "COPY distribu.stock_movements FROM STDIN"
    theirs = await stranger.product()
    new = [ours.shop.distribu.ports.entropy.uuid() for _ in range(2)]
    companies = [ours.shop.company.id, stranger.company.id]
    async with session.transaction():
        await session.execute("SELECT set_config('app.company_id', %s, true)", [ours.shop.company.id])
        with pytest.raises(errors.InsufficientPrivilege):
            async with session.transaction():
                await session.execute(movement, [companies, new, [ours.product.id, theirs.id]])
        with pytest.raises(errors.FeatureNotSupported):
            async with (
                session.transaction(),
                session.cursor().copy(copy),
            ):
                pass
        await session.execute(movement, [companies[:1] * 2, new, [ours.product.id] * 2])
        raise psycopg.Rollback


async def test_a_mail_is_written_for_ones_own_company_and_read_by_nobody(
    session: psycopg.AsyncConnection[Any], ours: Filled
) -> None:
    """A contact's order leaves one too; neither it nor the staff see whom else the company writes to."""
    stranger = await ours.shop.stranger()
    insert = (
        "INSERT INTO distribu.mails VALUES"
        " (%s, gen_random_uuid(), now(), 'a@b.example', '{}', NULL, 'PENDING', 0, now(), NULL, '')"
    )
    for customer in ("", ours.customer.id):
        async with session.transaction():
            await session.execute("SELECT set_config('app.company_id', %s, true)", [ours.shop.company.id])
            await session.execute("SELECT set_config('app.customer_id', %s, true)", [customer])
            await session.execute(insert, [ours.shop.company.id])
            for refused in (
                insert.replace("%s", f"'{stranger.company.id}'"),
                "SELECT recipient FROM distribu.mails",
                f"{insert.replace('%s', repr(str(ours.shop.company.id)))} RETURNING recipient",
                "UPDATE distribu.mails SET recipient = 'eve@evil.example'",
                "DELETE FROM distribu.mails",
            ):
                with pytest.raises(errors.InsufficientPrivilege):
                    async with session.transaction():
                        await session.execute(refused)
            raise psycopg.Rollback


async def test_a_key_is_changed_by_its_company_alone_and_never_un_revoked(
    session: psycopg.AsyncConnection[Any], ours: Filled
) -> None:
    """What lets a key in is a table that is looked up before a company is known: it has walls of its own."""
    stranger = await ours.shop.stranger()
    narrower = (
        "UPDATE distribu.key_grants SET name = 'x', scopes = '{orders:read}', expires_at = now()"
        " WHERE digest = %s"
    )
    revoking = "UPDATE distribu.key_grants SET revoked = %s WHERE digest = %s"

    async def changed(statement: str, *values: Any) -> int:
        return (await session.execute(statement, values)).rowcount

    async with session.transaction():
        for company, customer in (
            ("", ""),
            (stranger.company.id, ""),
            (ours.shop.company.id, ours.customer.id),
        ):
            await session.execute(
                "SELECT set_config('app.company_id', %s, true), set_config('app.customer_id', %s, true)",
                [company, customer],
            )
            assert await changed(narrower, ours.key.digest) == 0
            assert await changed(revoking, True, ours.key.digest) == 0
        await session.execute(
            "SELECT set_config('app.company_id', %s, true), set_config('app.customer_id', '', true)",
            [ours.shop.company.id],
        )
        for column, value in (
            ("company_id", stranger.company.id),
            ("key_id", ours.order.id),
            ("digest", b""),
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                async with session.transaction():
                    await changed(f"UPDATE distribu.key_grants SET {column} = %s", value)
        assert await changed(narrower, ours.key.digest) == 1
        assert await changed(revoking, True, ours.key.digest) == 1
        assert await changed(revoking, False, ours.key.digest) == 0
        assert await changed(narrower, ours.key.digest) == 0
        look = "SELECT revoked FROM distribu.key_grants WHERE digest = %s"
        assert await (await session.execute(look, [ours.key.digest])).fetchone() == (True,)
        raise psycopg.Rollback


async def test_one_connection_used_for_two_companies_leaks_nothing(settings: Settings, ours: Filled) -> None:
    """A setting lives as long as its transaction and does not travel through the pool."""
    stranger = await ours.shop.stranger()
    async with store_on(as_it_is, settings.database_url, size=1) as store:
        for readonly in (True, False, True):
            async with store.begin(scope_of(ours.shop), readonly=readonly) as tx:
                assert (await tx.products.get(ours.product.id)).id == ours.product.id
            leaks = await leaks_to_a_stranger(store, ours, scope_of(stranger), readonly=readonly)
            assert leaks == set()
            assert await leaks_to_the_neighbour(store, ours, readonly=readonly) == set()
            async with store.begin(scope_of(ours.shop), readonly=readonly) as tx:
                assert await tx.webhooks.count() == 1
        async with store.begin(scope_of(stranger)) as tx:
            await write(tx, stranger, new_product(stranger))
        async with store.line() as line:
            left = await line.connection.execute(
                "SELECT nullif(current_setting('app.company_id', true), ''),"
                " nullif(current_setting('app.customer_id', true), ''),"
                " current_setting('transaction_read_only')"
            )
            assert await left.fetchone() == (None, None, "off")


async def test_it_refuses_to_run_in_a_house_without_row_level_security(open_house: Settings) -> None:
    with pytest.raises(UnsafeRole, match="no forced row-level security on the table products"):
        async with running(open_house):
            pass
