"""Who may do what in the database, found from its catalogue, and the refusal to run as anybody else."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
import psycopg
import pytest
from psycopg import errors

from distribu import Actor, Role, Settings, Shop, amount
from distribu.adapters.postgres import refusals, schema
from distribu.adapters.postgres.migrations import differences, migrate
from distribu.adapters.postgres.roles import (
    APP,
    QUEUE,
    QUEUE_SETTINGS,
    SETTINGS,
    NotMigrated,
    UnsafeRole,
    queue_url,
)
from distribu.application.audit import ListAudit
from distribu.application.catalog import CreateProduct
from distribu.container import StartRefused, database, migrated, running
from distribu.domain.audit import Person
from tests.integration.test_walls import elsewhere, superuser

NAME = "roles_house"


@pytest.fixture(scope="module")
def house(settings: Settings) -> Iterator[Settings]:
    """A database of its own, migrated, to which anything may be done."""
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
def root(house: Settings) -> Iterator["psycopg.Connection[Any]"]:
    """The superuser in that database."""
    with psycopg.connect(superuser(house, NAME), autocommit=True) as connection:
        yield connection


@pytest.fixture
def owner(house: Settings) -> Iterator["psycopg.Connection[Any]"]:
    """The owner of the tables, in that database."""
    with psycopg.connect(house.owner_database_url or "", autocommit=True) as connection:
        yield connection


def logged_in(url: str, user: str) -> str:
    """The same database as somebody else, ``name:password``."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}@{parts.netloc.rpartition('@')[2]}"))


async def refuses(settings: Settings, why: str) -> None:
    with pytest.raises(UnsafeRole, match=why):
        async with running(settings):
            pass


async def starts(settings: Settings) -> None:
    async with running(settings) as distribu:
        await distribu.ports.store.ready()


class TestStarting:
    async def test_it_starts_as_the_role_that_is_made_for_it(self, house: Settings) -> None:
        await starts(house)

    async def test_it_refuses_to_be_a_superuser(self, house: Settings) -> None:
        await refuses(msgspec.structs.replace(house, database_url=superuser(house, NAME)), "is a superuser")

    async def test_it_refuses_to_be_the_owner(self, house: Settings) -> None:
        owner = msgspec.structs.replace(house, database_url=house.owner_database_url)
        await refuses(owner, "owns the table products")

    async def test_it_refuses_a_role_that_bypasses_row_level_security(
        self, house: Settings, root: "psycopg.Connection[Any]"
    ) -> None:
        root.execute("ALTER ROLE distribu BYPASSRLS")
        try:
            await refuses(house, "may bypass row-level security")
        finally:
            root.execute("ALTER ROLE distribu NOBYPASSRLS")
        await starts(house)

    async def test_it_refuses_a_role_that_can_become_one_that_does(
        self, house: Settings, root: "psycopg.Connection[Any]"
    ) -> None:
        root.execute("CREATE ROLE high_up BYPASSRLS")
        root.execute("GRANT high_up TO distribu")
        try:
            await refuses(house, "can become high_up")
        finally:
            root.execute("DROP ROLE high_up")

    async def test_it_refuses_an_application_that_is_the_queue_as_well(
        self, house: Settings, root: "psycopg.Connection[Any]"
    ) -> None:
        """The queue's policies let it see every company: the two walls would be none."""
        root.execute(f"GRANT {QUEUE} TO distribu")
        try:
            await refuses(house, f"is a member of {QUEUE}, which sees every company")
        finally:
            root.execute(f"REVOKE {QUEUE} FROM distribu")
        await refuses(
            msgspec.structs.replace(house, database_url=house.queue_database_url), f"is a member of {QUEUE}"
        )
        await starts(house)

    @pytest.mark.parametrize("table", ["products", "records", "key_grants", "outbox"])
    @pytest.mark.parametrize(
        ("off", "on"),
        [
            ("NO FORCE ROW LEVEL SECURITY", "FORCE ROW LEVEL SECURITY"),
            ("DISABLE ROW LEVEL SECURITY", "ENABLE ROW LEVEL SECURITY"),
        ],
    )
    async def test_it_refuses_a_table_whose_security_is_there_but_inert(
        self, house: Settings, owner: "psycopg.Connection[Any]", table: str, off: str, on: str
    ) -> None:
        owner.execute(f"ALTER TABLE distribu.{table} {off}")
        try:
            await refuses(house, f"no forced row-level security on the table {table}")
        finally:
            owner.execute(f"ALTER TABLE distribu.{table} {on}")

    async def test_it_refuses_a_new_table_that_somebody_forgot_to_secure(
        self, house: Settings, owner: "psycopg.Connection[Any]"
    ) -> None:
        """The tables are found from the catalogue and not from a list."""
        owner.execute("CREATE TABLE distribu.forgotten (company_id uuid)")
        try:
            await refuses(house, "on the table forgotten")
        finally:
            owner.execute("DROP TABLE distribu.forgotten")

    @pytest.mark.parametrize("privilege", ["UPDATE", "UPDATE (body)", "DELETE", "TRUNCATE"])
    async def test_it_refuses_to_be_able_to_change_the_audit_log(
        self, house: Settings, owner: "psycopg.Connection[Any]", privilege: str
    ) -> None:
        owner.execute(f"GRANT {privilege} ON distribu.records TO {APP}")
        try:
            await refuses(house, "may change the audit log")
        finally:
            owner.execute(f"REVOKE {privilege} ON distribu.records FROM {APP}")

    async def test_it_refuses_a_database_that_is_not_migrated(
        self, house: Settings, owner: "psycopg.Connection[Any]"
    ) -> None:
        owner.execute("UPDATE distribu.alembic_version SET version_num = '0000'")
        try:
            with pytest.raises(NotMigrated):
                await starts(house)
        finally:
            owner.execute("UPDATE distribu.alembic_version SET version_num = %s", [schema.HEAD])
        empty = msgspec.structs.replace(house, database_url=elsewhere(house.database_url, "postgres"))
        with pytest.raises(NotMigrated):
            await starts(empty)


class TestLogins:
    @pytest.mark.parametrize(
        "url",
        ["postgresql:///distribu", "postgresql://db.example/distribu", "postgresql://:word@db.example/"],
    )
    async def test_a_url_without_a_user_has_no_queue_beside_it(self, url: str) -> None:
        with pytest.raises(StartRefused, match="names no user"), database(Settings(database_url=url)):
            pass
        given = Settings(database_url=url, queue_database_url="postgresql://worker@db.example/distribu")
        with database(given) as settings:
            assert settings == given

    async def test_an_owner_that_may_make_no_logins_is_told_so(self, settings: Settings) -> None:
        with psycopg.connect(superuser(settings), autocommit=True) as root:
            root.execute("CREATE ROLE plain_owner LOGIN PASSWORD 'of-the-owner'")
            root.execute("CREATE DATABASE plain_house OWNER plain_owner")
        owner, app = (
            logged_in(superuser(settings, "plain_house"), user)
            for user in ("plain_owner:of-the-owner", "plain_app:of-the-app")
        )
        try:
            with pytest.raises(StartRefused, match="permission denied to create role"):
                migrated(msgspec.structs.replace(settings, database_url=app, owner_database_url=owner))
        finally:
            with psycopg.connect(superuser(settings), autocommit=True) as root:
                root.execute("DROP DATABASE plain_house")
                root.execute("DROP ROLE plain_owner")


class TestPrivileges:
    KINDS = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")

    def held(self, root: "psycopg.Connection[Any]", role: str) -> dict[str, set[str]]:
        """What a role may do with which table, on all of it or on some columns."""
        rows = root.execute(
            """
            SELECT relname, kind FROM pg_class, unnest(%(kinds)s::text[]) AS kind
            WHERE relnamespace = 'distribu'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')
              AND (has_table_privilege(%(role)s, pg_class.oid, kind)
                OR kind IN ('SELECT', 'INSERT', 'UPDATE', 'REFERENCES')
                AND has_any_column_privilege(%(role)s, pg_class.oid, kind))
            """,
            {"kinds": list(self.KINDS), "role": role},
        ).fetchall()
        held: dict[str, set[str]] = {}
        for table, kind in rows:
            held.setdefault(table, set()).add(kind)
        return held

    async def test_the_queue_reaches_its_tables_and_nothing_else(
        self, root: "psycopg.Connection[Any]"
    ) -> None:
        wanted = {
            table: set(re.findall("[A-Z]+", re.sub(r"\(.*?\)", "", kinds)))
            for table, kinds in schema.QUEUE_TABLES.items()
        }
        assert self.held(root, "distribu_queue") == wanted | {"alembic_version": {"SELECT"}}
        for table, of_the_machine in (
            ("sessions", {"seen_at", "ip"}),
            ("stripe_events", {"tries", "due_at"}),
        ):
            columns = root.execute(
                """
                SELECT attname FROM pg_attribute
                WHERE attrelid = %s::regclass AND attnum > 0
                  AND has_column_privilege('distribu_queue', attrelid, attnum, 'UPDATE')
                """,
                [f"distribu.{table}"],
            ).fetchall()
            assert {name for (name,) in columns} == of_the_machine

    async def test_the_queue_is_refused_what_it_has_no_business_with(self, house: Settings) -> None:
        with psycopg.connect(house.queue_database_url or "", autocommit=True) as connection:
            for table in schema.metadata.tables.values():
                if table.name not in schema.QUEUE_TABLES:
                    with pytest.raises(errors.InsufficientPrivilege):
                        connection.execute(f"SELECT 1 FROM distribu.{table.name}")
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute("UPDATE distribu.webhooks SET url = 'https://evil.example'")

    async def test_the_application_deletes_nothing_and_only_inserts_where_it_only_should(
        self, root: "psycopg.Connection[Any]"
    ) -> None:
        held = self.held(root, "distribu")
        tables = {it.name for it in schema.metadata.tables.values()} - {"jobs"}  # the queue's alone
        assert set(held) == tables | {"alembic_version"}
        for table, kinds in held.items():
            assert kinds <= {"SELECT", "INSERT", "UPDATE"}, table
        for table in schema.APPEND_ONLY:
            assert held[table] == {"SELECT", "INSERT"}, table
        assert held["outbox"] == held["mails"] == {"INSERT"}

    async def test_both_logins_wait_for_nothing_for_ever(self, root: "psycopg.Connection[Any]") -> None:
        for role, settings in (("distribu", SETTINGS), ("distribu_queue", QUEUE_SETTINGS)):
            row = root.execute(
                "SELECT rolconfig, rolsuper FROM pg_roles WHERE rolname = %s", [role]
            ).fetchone()
            assert row is not None
            config = {item.partition("=")[0].lower(): item.partition("=")[2] for item in row[0]}
            assert (config, row[1]) == (settings, False)

    async def test_a_company_whose_head_is_held_does_not_keep_the_queue_from_the_others(
        self, house: Settings, root: "psycopg.Connection[Any]"
    ) -> None:
        impatient = f"{house.queue_database_url}&options=-c%20lock_timeout%3D200ms"
        async with running(msgspec.structs.replace(house, queue_database_url=impatient)) as distribu:
            held, free = await Shop.open(distribu), await Shop.open(distribu)
            queue, now = distribu.ports.queue, distribu.ports.clock.now()
            await held.product()
            while await queue.relay(limit=100, now=now):
                pass
            await held.product()  # is looked at first
            await free.product()
            with root.transaction():
                root.execute(
                    "SELECT 1 FROM distribu.feed_heads WHERE company_id = %s FOR UPDATE", [held.company.id]
                )
                assert await queue.relay(limit=100, now=now) == 1
            left = root.execute("SELECT company_id::text FROM distribu.outbox").fetchall()
            assert left == [(held.company.id,)]
            assert await queue.relay(limit=100, now=now) == 1


class TestTheAuditLog:
    CHANGES = (
        "UPDATE distribu.records SET body = ''",
        "DELETE FROM distribu.records",
        "TRUNCATE distribu.records",
        "TRUNCATE distribu.records CASCADE",
    )

    @pytest.fixture
    def written(self, root: "psycopg.Connection[Any]") -> None:
        root.execute(
            "INSERT INTO distribu.records VALUES (gen_random_uuid(), gen_random_uuid(), now(), 'SYSTEM', '',"
            " 'test', '', '', gen_random_uuid(), '{}')"
        )

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.usefixtures("written")
    async def test_it_is_changed_by_nobody_not_even_a_superuser(
        self, root: "psycopg.Connection[Any]", change: str
    ) -> None:
        with pytest.raises(errors.InsufficientPrivilege, match="append-only"):
            root.execute(change)

    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.usefixtures("written")
    async def test_its_owner_cannot_change_it_even_when_no_policy_hides_it(
        self, owner: "psycopg.Connection[Any]", change: str
    ) -> None:
        with owner.transaction(force_rollback=True):
            owner.execute("ALTER TABLE distribu.records NO FORCE ROW LEVEL SECURITY")
            with pytest.raises(errors.InsufficientPrivilege, match="append-only"), owner.transaction():
                owner.execute(change)

    @pytest.mark.parametrize("change", CHANGES)
    async def test_the_application_may_not_even_try(self, house: Settings, change: str) -> None:
        denied = pytest.raises(errors.InsufficientPrivilege, match="permission denied")
        with psycopg.connect(house.database_url or "", autocommit=True) as connection, denied:
            connection.execute(change)

    async def test_who_a_person_is_stands_beside_the_record_and_can_be_erased(
        self, house: Settings, root: "psycopg.Connection[Any]"
    ) -> None:
        """The record holds a salted hash alone, which can be checked until the row is erased."""
        async with running(house) as distribu:
            shop = await Shop.open(distribu)
            ada = Actor.staff(shop.company.id, Role.ADMIN, id="u-1", label="Ada Admin", ip="192.0.2.81")
            product = await shop.execute(CreateProduct(name="Oat", price=amount("1")), ada)
            row = root.execute(
                "SELECT body, salt, label, ip FROM distribu.records JOIN distribu.record_people"
                " ON record_people.company_id = records.company_id AND record_people.id = person_id"
                " WHERE entity_id = %s",
                [product.id],
            ).fetchone()
            assert row is not None
            body, salt, label, ip = row
            assert (label, ip) == ("Ada Admin", "192.0.2.81")
            for name in ("Ada", "192.0.2.81", salt.hex()):
                assert name not in body
            assert json.loads(body)["person"] == Person(id="", salt=salt, label=label, ip=ip).digest
            assert json.loads(body)["actorId"] == "u-1"
            root.execute("DELETE FROM distribu.record_people WHERE label = 'Ada Admin'")
            (record,) = (await shop.execute(ListAudit(entity_id=product.id))).items
            assert (record.action, record.label, record.ip) == ("product.created", None, None)


class TestTheSchema:
    async def test_it_is_what_the_tables_say(self, house: Settings) -> None:
        assert differences(house.owner_database_url or "") == []

    async def test_a_difference_would_be_seen(
        self, house: Settings, owner: "psycopg.Connection[Any]"
    ) -> None:
        owner.execute("ALTER TABLE distribu.products ADD COLUMN extra text")
        try:
            assert len(differences(house.owner_database_url or "")) == 1
        finally:
            owner.execute("ALTER TABLE distribu.products DROP COLUMN extra")

    async def test_migrating_twice_is_harmless(self, house: Settings) -> None:
        assert migrate(house.owner_database_url or "", house.database_url or "") == []
        assert differences(house.owner_database_url or "") == []
        await starts(house)

    async def test_every_constraint_is_a_refusal_or_a_bug_by_its_name(
        self, root: "psycopg.Connection[Any]"
    ) -> None:
        """What a request can break has a code; none of it becomes an internal error."""
        named = {
            row[0]
            for row in root.execute(
                """
                SELECT conname FROM pg_constraint
                WHERE connamespace = 'distribu'::regnamespace AND contype IN ('c', 'f', 'u', 'x')
                UNION
                SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
                WHERE relnamespace = 'distribu'::regnamespace AND indisunique AND NOT indisprimary
                """
            )
        }
        keys = {
            row[0]
            for row in root.execute(
                "SELECT conname FROM pg_constraint WHERE connamespace = 'distribu'::regnamespace"
                " AND contype = 'p'"
            )
        }
        known = set(refusals.REFUSALS) | refusals.BUGS | refusals.RUN_AGAIN
        assert named - known == set()
        assert known - named - keys == {"stale_version", "payment_required"}, "raised by functions"
        assert not set(refusals.REFUSALS) & (refusals.BUGS | refusals.RUN_AGAIN)

    async def test_every_key_begins_with_the_company(self, root: "psycopg.Connection[Any]") -> None:
        """So that the schema can be spread over machines by company; look-up tables are the exception."""
        rows = root.execute(
            """
            SELECT conname, relname FROM pg_constraint
            JOIN pg_class ON pg_class.oid = conrelid
            JOIN pg_attribute ON attrelid = conrelid AND attnum = conkey[1]
            WHERE connamespace = 'distribu'::regnamespace AND contype IN ('p', 'f', 'u')
              AND attname <> 'company_id'
            """
        ).fetchall()
        looked_up = {"company_slugs", "key_grants", "seats"}
        assert {table for _, table in rows} == looked_up | {"jobs", "alembic_version"}
