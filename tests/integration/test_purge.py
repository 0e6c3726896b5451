"""A deleted company goes for good when its days are over, and nothing else does."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import errors, sql

from distribu import Actor, Busy, Distribu, NotFound, Refused, Settings, SettingsUnusable, Shop
from distribu.adapters.postgres import schema
from distribu.adapters.postgres.migrations import migrate
from distribu.adapters.postgres.purge import BATCH, KEPT, TABLES, NotTheOwner, Purge
from distribu.adapters.postgres.roles import NotMigrated, queue_url
from distribu.application.audit import ListAudit
from distribu.application.platform import PutPlan
from distribu.application.sealing import VerifyAudit
from distribu.application.team import CreateCompany, EndCompany
from distribu.container import DatabaseUnreachable, purging, running
from distribu.domain.accounts import REALM
from distribu.domain.billing import Plan
from distribu.domain.team import PURGE_AFTER
from tests.contracts.finders import Filled, filled
from tests.integration.test_walls import elsewhere, superuser

NAME = "purge_house"
CANARY = "canary7b1f"
Connection = psycopg.Connection[Any]
Rows = dict[str, list[str]]


@pytest.fixture(scope="module")
def house(settings: Settings) -> Iterator[Settings]:
    """A database of its own, migrated, from which anything may be taken."""
    with psycopg.connect(superuser(settings), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {NAME} OWNER distribu_owner")
    owner, app = elsewhere(settings.owner_database_url, NAME), elsewhere(settings.database_url, NAME)
    migrate(owner, app)
    yield msgspec.structs.replace(
        settings, database_url=app, owner_database_url=owner, queue_database_url=queue_url(app)
    )
    with psycopg.connect(superuser(settings), autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {NAME} WITH (FORCE)")


@pytest.fixture
def root(house: Settings) -> Iterator[Connection]:
    """The superuser in that database."""
    with psycopg.connect(superuser(house, NAME), autocommit=True) as connection:
        yield connection


@pytest.fixture
def purge(house: Settings) -> Iterator[Purge]:
    """What an operator purges with."""
    with purging(house, "operator") as purge:
        yield purge


def with_company(root: Connection) -> list[str]:
    """Every table that holds rows of companies, found from the catalogue."""
    rows = root.execute(
        "SELECT relname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid AND attname = 'company_id'"
        " WHERE relnamespace = 'distribu'::regnamespace AND relkind IN ('r', 'p') ORDER BY 1"
    ).fetchall()
    return [name for (name,) in rows]


def rows_of(root: Connection, company: str) -> Rows:
    """All there is of a company, as text, by table."""
    rows = {}
    for table in with_company(root):
        select = sql.SQL("SELECT t::text FROM distribu.{} AS t WHERE company_id = %s ORDER BY 1")
        rows[table] = [row for (row,) in root.execute(select.format(sql.Identifier(table)), [company])]
    return rows


def everything(root: Connection) -> str:
    """The whole database as text."""
    tables = root.execute(
        "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p', 'm')"
        " AND relnamespace = 'distribu'::regnamespace"
    ).fetchall()
    dump = ""
    for (table,) in tables:
        dump += "\n".join(row for (row,) in root.execute(f"SELECT t::text FROM {table} AS t".encode()))
    return dump


_VALUES = {
    "uuid": "gen_random_uuid()",
    "text": f"'{CANARY}'",
    "character varying": f"left('{CANARY}' || gen_random_uuid(), least(coalesce({{size}}, 40), 40))",
    "integer": "1",
    "bigint": "1",
    "numeric": "1",
    "boolean": "true",
    "timestamp with time zone": "now()",
    "bytea": f"'{CANARY}'::bytea || gen_random_uuid()::text::bytea",
    "jsonb": f"'[\"{CANARY}\"]'",
    "ARRAY": f"ARRAY['{CANARY}']",
}
_MARKED = {"text", "character varying", "bytea", "jsonb", "ARRAY"}


def mark(root: Connection, company: str) -> None:
    """Put the canary into every text of a company, and a row into every table that has none of it."""
    with root.transaction():
        root.execute("SET LOCAL session_replication_role = replica")
        for table in with_company(root):
            columns = root.execute(
                "SELECT column_name, data_type, character_maximum_length, udt_name, is_identity"
                " FROM information_schema.columns WHERE table_schema = 'distribu' AND table_name = %s",
                [table],
            ).fetchall()
            values = {
                name: _VALUES[kind].format(size=size or "NULL") + ("::bytea[]" if udt == "_bytea" else "")
                if "{size}" in _VALUES[kind]
                else _VALUES[kind] + ("::bytea[]" if udt == "_bytea" else "")
                for name, kind, size, udt, identity in columns
                if identity == "NO"
            }
            kinds = {name: kind for name, kind, *_ in columns}
            there = root.execute(
                f"SELECT 1 FROM distribu.{table} WHERE company_id = %s LIMIT 1", [company]
            ).fetchone()
            if there is None:
                values["company_id"] = f"'{company}'"
                names, cells = ", ".join(f'"{name}"' for name in values), ", ".join(values.values())
                root.execute(f"INSERT INTO distribu.{table} ({names}) VALUES ({cells})".encode())
            elif table != KEPT:
                sets = [f'"{name}" = {value}' for name, value in values.items() if kinds[name] in _MARKED]
                if sets:
                    update = f"UPDATE distribu.{table} SET {', '.join(sets)} WHERE company_id = '{company}'"
                    root.execute(update.encode())


async def end(shop: Shop) -> None:
    """Delete a company as its owner does."""
    await shop.distribu.run(shop.actor, EndCompany(name=shop.company.name))


def age(root: Connection, company: str, days: float) -> None:
    """Let it have been deleted so many days ago."""
    with root.transaction():
        root.execute("SET LOCAL session_replication_role = replica")
        root.execute(
            "UPDATE distribu.companies SET deleted_at = now() - %(days)s * interval '24 hours',"
            " closed_at = now() - %(days)s * interval '24 hours' WHERE company_id = %(company)s",
            {"days": days, "company": company},
        )


async def gone(shop: Shop, root: Connection, days: float = 31) -> str:
    """A company that was deleted; its id."""
    await end(shop)
    age(root, shop.company.id, days)
    return shop.company.id


async def full(distribu: Distribu) -> Filled:
    """A company filled with everything, with something in the outbox too."""
    it = await filled(await Shop.open(distribu))
    await it.shop.product("Not told yet")
    await distribu.run(it.shop.actor, PutPlan(plan=Plan.ENTERPRISE))
    return it


def quiet(_: int) -> None:
    """Nobody listens."""


class TestPurging:
    async def test_not_a_row_and_not_a_word_of_it_is_left_and_another_company_is_as_it_was(
        self, house: Settings, root: Connection, purge: Purge
    ) -> None:
        async with running(house) as distribu:
            it, other = await full(distribu), await full(distribu)
            id, slug = await gone(it.shop, root), it.shop.company.slug
            mark(root, id)
            before, theirs = rows_of(root, id), rows_of(root, other.shop.company.id)
            realm = rows_of(root, REALM)
            assert [table for table, rows in before.items() if not rows] == []
            assert CANARY in everything(root)
            assert CANARY.encode().hex() in everything(root)

            (doomed,) = purge.doomed(slug)
            assert doomed.rows == {table: len(before[table]) for table in TABLES}
            heard: list[int] = []
            assert purge.purge(doomed, heard.append) == sum(doomed.rows.values()) == sum(heard)

            after = rows_of(root, id)
            assert {table: rows for table, rows in after.items() if rows} == {KEPT: before[KEPT]}
            dump = everything(root)
            assert CANARY not in dump
            assert CANARY.encode().hex() not in dump
            assert rows_of(root, other.shop.company.id) == theirs
            for table, rows in rows_of(root, REALM).items():
                written = ("records", "record_people", "unsealed")
                assert len(set(rows) - set(realm[table])) == (table in written), table
                assert set(realm[table]) <= set(rows), "people stay"
            (record,) = (
                await distribu.execute(Actor.system(REALM), ListAudit(action="company.purged", limit=1))
            ).items
            assert (record.entity_id, record.label) == (id, "operator")
            assert record.metadata == {"rows": sum(doomed.rows.values())}
            verdict = await distribu.execute(Actor.system(REALM), VerifyAudit())
            assert verdict.findings == [], "what purging writes is sealed like any other record"

    async def test_every_table_that_the_catalogue_knows_is_purged(self, root: Connection) -> None:
        assert set(TABLES) | {KEPT} == set(with_company(root))
        policies = root.execute(
            "SELECT relname FROM pg_policy JOIN pg_class ON pg_class.oid = polrelid WHERE polname = 'purge'"
        ).fetchall()
        assert {name for (name,) in policies} == set(TABLES)

    async def test_a_slug_is_never_given_to_another_company(
        self, house: Settings, root: Connection, purge: Purge
    ) -> None:
        async with running(house) as distribu:
            shop = await Shop.open(distribu)
            await gone(shop, root)
            (doomed,) = purge.doomed(shop.company.slug)
            assert purge.purge(doomed, quiet)
            with pytest.raises(Refused) as refused:
                await distribu.execute(Actor.system(None), CreateCompany(name="Heir", slug=shop.company.slug))
            assert refused.value.code == "duplicate_slug"

    async def test_the_second_time_there_is_nothing_to_do(
        self, house: Settings, root: Connection, purge: Purge
    ) -> None:
        async with running(house) as distribu:
            shop = await Shop.open(distribu)
            id = await gone(shop, root)
            (doomed,) = purge.doomed(shop.company.slug)
            assert purge.purge(doomed, quiet) > 0
            assert purge.doomed(shop.company.slug) == []
            before = rows_of(root, REALM)
            assert purge.purge(doomed, quiet) == 0
            assert rows_of(root, REALM) == before
            assert id not in {one.id for one in purge.doomed(None)}

    async def test_days_that_are_not_over_are_waited_for(
        self, house: Settings, root: Connection, purge: Purge
    ) -> None:
        async with running(house) as distribu:
            shop, due, open_ = await Shop.open(distribu), await Shop.open(distribu), await Shop.open(distribu)
            id = await gone(shop, root, 29.99)
            before = rows_of(root, id)
            await gone(due, root, 30.01)
            for slug, code in ((shop.company.slug, "purge_too_early"), (open_.company.slug, "not_deleted")):
                with pytest.raises(Refused) as refused:
                    purge.doomed(slug)
                assert refused.value.code == code
            with pytest.raises(NotFound):
                purge.doomed("nowhere")
            doomed = {one.id: one for one in purge.doomed(None)}
            assert due.company.id in doomed
            assert not {id, open_.company.id} & set(doomed)
            early = replace(doomed[due.company.id], id=shop.company.id)
            assert purge.purge(early, quiet) == 0
            assert rows_of(root, id) == before

    async def test_the_days_are_those_of_the_domain(self, root: Connection) -> None:
        (days,) = root.execute(
            "SELECT count(*) FROM pg_policy"
            " WHERE polname = 'purge' AND polrelid = 'distribu.companies'::regclass"
            " AND pg_get_expr(polqual, polrelid) LIKE %s",
            [f"%{PURGE_AFTER // timedelta(hours=1)}:00:00%"],
        ).fetchone() or (0,)
        assert days == 1
        source = root.execute("SELECT prosrc FROM pg_proc WHERE proname = 'purgeable'").fetchone()
        assert source is not None
        assert f"'{PURGE_AFTER // timedelta(hours=1)} hours'" in source[0]

    async def test_whoever_is_cut_off_in_the_middle_has_done_nothing(
        self, house: Settings, root: Connection
    ) -> None:
        async with running(house) as distribu:
            it = await full(distribu)
            id = await gone(it.shop, root)
            before, realm = rows_of(root, id), rows_of(root, REALM)
            heard = 0

            def cut(rows: int) -> None:
                nonlocal heard
                heard += rows
                if heard > sum(len(one) for one in before.values()) // 2:
                    root.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE usename = 'distribu_owner' AND datname = %s AND pid <> pg_backend_pid()",
                        [NAME],
                    )

            with pytest.raises(DatabaseUnreachable), purging(house, "operator") as purge:
                purge.purge(purge.doomed(it.shop.company.slug)[0], cut)
            assert heard > 1
            assert (rows_of(root, id), rows_of(root, REALM)) == (before, realm)

    async def test_a_big_company_goes_in_small_statements(
        self, house: Settings, root: Connection, purge: Purge
    ) -> None:
        async with running(house) as distribu:
            shop = await Shop.open(distribu)
            id = await gone(shop, root)
            root.execute(
                "INSERT INTO distribu.records"
                " SELECT %s, gen_random_uuid(), now(), 'SYSTEM', '', 'test', '', '',"
                " gen_random_uuid(), '{}' FROM generate_series(1, %s)",
                [id, 2 * BATCH + 1],
            )
            heard: list[int] = []
            purge.purge(purge.doomed(shop.company.slug)[0], heard.append)
            assert max(heard) == BATCH
            assert not rows_of(root, id)["records"]

    async def test_what_a_worker_brings_in_behind_it_goes_too(
        self, house: Settings, root: Connection
    ) -> None:
        async with running(house) as distribu:
            shop = await Shop.open(distribu)
            id = await gone(shop, root)
            brought: list[str] = []

            class Slow(Purge):
                def _empty(self, table: str, id: str, told: Callable[[int], None]) -> int:
                    rows = super()._empty(table, id, told)
                    if table == TABLES[-2] and not brought:
                        brought.append(id)
                        root.execute(
                            "INSERT INTO distribu.mails VALUES (%s, gen_random_uuid(), now(), 'a@b.example',"
                            " '{}', NULL, 'PENDING', 0, NULL, NULL, '')",
                            [id],
                        )
                    return rows

            with purging(house, "operator") as purge:
                slow = Slow(purge._connection, purge._record)  # the same, held up in the middle
                assert slow.purge(purge.doomed(shop.company.slug)[0], quiet)
            assert brought
            assert not any(rows for table, rows in rows_of(root, id).items() if table != KEPT)

    async def test_two_at_once_do_not_both_purge(self, house: Settings, root: Connection) -> None:
        async with running(house) as distribu:
            shop = await Shop.open(distribu)
            await gone(shop, root)
            with purging(house, "one") as one:
                (doomed,) = one.doomed(shop.company.slug)
                one._connection.execute("SET lock_timeout = '100ms'")  # not to wait for 5 s
                with root.transaction():
                    root.execute("SELECT pg_advisory_xact_lock(7274497)")
                    with pytest.raises(Busy):
                        one.purge(doomed, quiet)
                assert one.purge(doomed, quiet) > 0


@pytest.fixture
def owner(house: Settings) -> Iterator[Connection]:
    """The owner of the tables, with a company set as the tenant by `be`."""
    with psycopg.connect(house.owner_database_url or "", autocommit=True) as connection:
        yield connection


def be(connection: Connection, company: str) -> None:
    """Set a company as the tenant, for as long as the connection lasts."""
    connection.execute("SELECT set_config('app.company_id', %s, false)", [company])


class TestTheRule:
    CHANGES = (
        "DELETE FROM distribu.records WHERE company_id = %s",
        "UPDATE distribu.records SET body = '' WHERE company_id = %s",
    )

    @pytest.mark.parametrize("days", [None, 29.99])
    @pytest.mark.parametrize("change", CHANGES)
    async def test_records_of_a_company_whose_days_are_not_over_refuse_everybody(
        self, house: Settings, root: Connection, owner: Connection, change: str, days: float | None
    ) -> None:
        async with running(house) as distribu:
            shop = await Shop.open(distribu)
            id = shop.company.id
            if days is not None:
                await gone(shop, root, days)
            with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
                root.execute(change.encode(), [id])
            be(owner, id)
            assert owner.execute(change.encode(), [id]).rowcount == 0, "it sees none"
            with owner.transaction(force_rollback=True):
                owner.execute("ALTER TABLE distribu.records NO FORCE ROW LEVEL SECURITY")
                with pytest.raises(errors.InsufficientPrivilege, match="append-only"), owner.transaction():
                    owner.execute(change.encode(), [id])

    async def test_records_are_never_changed_nor_truncated_whatever_the_days(
        self, house: Settings, root: Connection, owner: Connection
    ) -> None:
        async with running(house) as distribu:
            id = await gone(await Shop.open(distribu), root)
        be(owner, id)
        for connection in (root, owner):
            with pytest.raises(errors.InsufficientPrivilege, match=r"append-only|row-level security"):
                connection.execute("UPDATE distribu.records SET body = '' WHERE company_id = %s", [id])
            with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
                connection.execute("TRUNCATE distribu.records")

    async def test_the_application_may_delete_nothing_even_when_the_days_are_over(
        self, house: Settings, root: Connection
    ) -> None:
        async with running(house) as distribu:
            id = await gone(await Shop.open(distribu), root)
        with psycopg.connect(house.database_url or "", autocommit=True) as app:
            be(app, id)
            for table in TABLES:
                with pytest.raises(errors.InsufficientPrivilege, match="permission denied"):
                    app.execute(f"DELETE FROM distribu.{table}".encode())

    async def test_the_application_cannot_say_that_a_company_was_deleted_long_ago(
        self, house: Settings, root: Connection
    ) -> None:
        async with running(house) as distribu:
            shop = await Shop.open(distribu)
            born_id = distribu.ports.entropy.uuid()
        past = "UPDATE distribu.companies SET deleted_at = now() - interval '31 days'"
        a_row = (
            "SELECT (to_jsonb(c) || jsonb_build_object('id', %(id)s::text, 'company_id', %(id)s::text,"
            " 'deleted_at', now() - interval '31 days', 'closed_at', now() - interval '31 days'))::text"
            " FROM distribu.companies AS c"
        )
        born = (
            "INSERT INTO distribu.companies"
            " SELECT (jsonb_populate_record(NULL::distribu.companies, %s::jsonb)).*"
        )
        with psycopg.connect(house.database_url or "", autocommit=True) as app:
            be(app, shop.company.id)
            for attempt in (past, past.replace("deleted_at =", "closed_at = deleted_at, deleted_at ="), past):
                app.execute(attempt.encode())
                assert app.execute("SELECT distribu.purgeable(%s)", [shop.company.id]).fetchone() == (False,)
            row = app.execute(a_row, {"id": born_id}).fetchone()
            assert row is not None
            be(app, born_id)
            assert app.execute(born, [row[0]]).rowcount == 1
            assert app.execute("SELECT distribu.purgeable(%s)", [born_id]).fetchone() == (False,)
        age(root, shop.company.id, 31)
        assert root.execute("SELECT distribu.purgeable(%s)", [shop.company.id]).fetchone() == (True,)

    async def test_the_platform_itself_is_never_purged(
        self, house: Settings, root: Connection, purge: Purge
    ) -> None:
        """Even when a company has got its id: everybody's accounts are there."""
        async with running(house) as distribu:
            await Shop.open(distribu)
        with root.transaction(force_rollback=True):
            root.execute("SET LOCAL session_replication_role = replica")
            root.execute(
                "INSERT INTO distribu.companies"
                " SELECT (jsonb_populate_record(c, jsonb_build_object("
                "'id', %(id)s::text, 'company_id', %(id)s::text,"
                " 'deleted_at', now() - interval '31 days', 'closed_at', now() - interval '31 days'))).*"
                " FROM distribu.companies AS c LIMIT 1",
                {"id": REALM},
            )
            assert root.execute("SELECT distribu.purgeable(%s)", [REALM]).fetchone() == (False,)
            root.execute("SET LOCAL session_replication_role = origin")
            root.execute("SET LOCAL ROLE distribu_owner")
            root.execute("SELECT set_config('app.company_id', %s, true)", [REALM])
            assert root.execute("DELETE FROM distribu.companies WHERE company_id = %s", [REALM]).rowcount == 0
            assert root.execute("DELETE FROM distribu.users").rowcount == 0

    async def test_nobody_but_the_owner_purges(self, house: Settings) -> None:
        for url in (house.database_url, house.queue_database_url):
            settings = msgspec.structs.replace(house, owner_database_url=url)
            with pytest.raises(NotTheOwner), purging(settings, "operator"):
                pass
        with (
            pytest.raises(SettingsUnusable),
            purging(msgspec.structs.replace(house, owner_database_url=None), "operator"),
        ):
            pass

    async def test_a_database_of_another_version_is_not_purged(
        self, house: Settings, owner: Connection
    ) -> None:
        """It may have tables that this version does not know."""
        owner.execute("UPDATE distribu.alembic_version SET version_num = '9999'")
        try:
            with pytest.raises(NotMigrated), purging(house, "operator"):
                pass
        finally:
            owner.execute("UPDATE distribu.alembic_version SET version_num = %s", [schema.HEAD])

    async def test_a_policy_that_is_missing_comes_back_with_migrating(
        self, house: Settings, owner: Connection
    ) -> None:
        owner.execute("DROP POLICY purge ON distribu.records")
        migrate(house.owner_database_url or "", house.database_url or "")
        there = owner.execute(
            "SELECT 1 FROM pg_policy WHERE polname = 'purge' AND polrelid = 'distribu.records'::regclass"
        )
        assert there.fetchall() == [(1,)]
