"""Taking a deleted company out of the database, as the owner of its tables.

Nobody who serves requests can: the application's role may delete nothing. Row-level security is forced, so
the owner needs policies too, and `let_owner` gives them: they reach the rows of the one company that is set
as the tenant while the database says that its days are over (`distribu.purgeable`). `Purge` asks it too.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
from psycopg import errors, sql

from distribu.adapters.postgres import roles
from distribu.adapters.postgres.schema import HEAD, TENANT, metadata
from distribu.application.ports import NewRecord
from distribu.domain.accounts import REALM
from distribu.domain.audit import Entry
from distribu.domain.errors import Bug, Busy, NotFound, Refused
from distribu.domain.team import PURGE_AFTER, CompanyPurged
from distribu.domain.values import CompanyId

KEPT: Final = "company_slugs"
"""What stays: a slug and the id it stood for, so that it is never given to another company."""

TABLES: Final = (
    *(
        table.name
        for table in reversed(metadata.sorted_tables)
        if "company_id" in table.c and table.name not in {"companies", KEPT}
    ),
    "companies",
)
"""Every table of a company: those that refer to others first, and last what says that it may go."""

BATCH: Final = 1_000
"""Rows that one statement deletes."""

BUSY_S: Final = 5

_TENANT_ID: Final = TENANT.partition(" = ")[2]
_MINE: Final = f"{TENANT} AND (SELECT distribu.purgeable({_TENANT_ID}))"
# What `purgeable` reads must not ask it again.
_OVER: Final = "greatest(deleted_at, closed_at) <= now() - interval '720 hours'"
_DUE: Final = f"{TENANT} AND company_id <> '{REALM}' AND {_OVER}"

Policy = tuple[str, str, str, str]
_POLICIES: Final[tuple[Policy, ...]] = (
    *((name, "purge", "ALL", f"USING ({_MINE}) WITH CHECK (false)") for name in TABLES[:-1]),
    ("companies", "purge", "DELETE", f"USING ({_DUE})"),
    ("companies", "purge_list", "SELECT", "USING (true)"),
    (KEPT, "purge_list", "SELECT", "USING (true)"),
    *(
        (name, "purge_told", "INSERT", f"WITH CHECK (company_id = '{REALM}')")
        for name in ("records", "record_people", "unsealed")
    ),
)


class NotTheOwner(Exception):
    """The role we are has no policy to purge by: it is not the one that owns the tables."""


def let_owner(connection: "psycopg.Connection[Any]") -> None:
    """Give the owner of the tables what it needs to purge, as far as it is not there."""
    owner = connection.execute(
        "SELECT relowner, relowner::regrole::text FROM pg_class WHERE oid = 'distribu.companies'::regclass"
    ).fetchone()
    if owner is None:
        raise Bug("the tables have no owner")
    there = connection.execute(
        "SELECT polrelid::regclass::text, polname FROM pg_policy WHERE polroles = ARRAY[%s::oid]", [owner[0]]
    ).fetchall()
    missing = [one for one in _POLICIES if (f"distribu.{one[0]}", one[1]) not in there]
    if not missing:
        return
    with connection.transaction():
        for table, name, kind, rule in missing:
            connection.execute(f"DROP POLICY IF EXISTS {name} ON distribu.{table}")
            create = f"CREATE POLICY {name} ON distribu.{table} FOR {kind} TO {owner[1]} {rule}"
            connection.execute(create.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """A company whose days are over, and how many rows of it there are, by table."""

    id: CompanyId
    slug: str
    name: str
    deleted_at: datetime
    rows: dict[str, int]


@contextmanager
def owning(url: str) -> Iterator["psycopg.Connection[Any]"]:
    """A connection as the owner. Raises `NotTheOwner`, `NotMigrated`, `OperationalError`."""
    with psycopg.connect(url, autocommit=True, connect_timeout=10) as connection:
        version = roles.version(connection)
        if version != HEAD:
            raise roles.NotMigrated(
                f"the database is at {version or 'nothing'}, not at {HEAD}: run `distribu migrate`"
            )
        for setting in (f"lock_timeout = '{BUSY_S}s'", "statement_timeout = '300s'", "timezone = 'UTC'"):
            connection.execute(f"SET {setting}")
        may = connection.execute(
            "SELECT NOT row_security_active('distribu.companies') OR EXISTS (SELECT FROM pg_policy"
            " WHERE polrelid = 'distribu.companies'::regclass AND polname = 'purge'"
            " AND pg_has_role(current_user, polroles[1], 'USAGE'))"
        ).fetchone()
        if may != (True,):
            raise NotTheOwner(
                "DISTRIBU_OWNER_DATABASE_URL does not name the role that owns the tables; "
                "if it came to own them only now, run `distribu migrate`"
            )
        yield connection


class Purge:
    """What can be purged, and the purging. ``record`` makes the platform's own record of it."""

    def __init__(self, connection: "psycopg.Connection[Any]", record: Callable[[Entry], NewRecord]) -> None:
        self._connection = connection
        self._record = record

    def doomed(self, slug: str | None) -> list[Doomed]:
        """Every company whose days are over, oldest first; with a slug that one, or none if it is gone.

        Raises `NotFound` (company_not_found), `Refused` (not_deleted, purge_too_early).
        """
        if slug is not None:
            return [self._counted(*row) for row in self._named(slug)]
        rows = self._connection.execute(
            "SELECT company_id::text, slug, name, deleted_at FROM distribu.companies"
            " WHERE distribu.purgeable(company_id) ORDER BY deleted_at, company_id"
        ).fetchall()
        return [self._counted(*row) for row in rows]

    def _named(self, slug: str) -> list[tuple[Any, ...]]:
        of = self._connection.execute(
            "SELECT company_id FROM distribu.company_slugs WHERE slug = %s", [slug]
        ).fetchone()
        if of is None:
            raise NotFound("company_not_found")
        row = self._connection.execute(
            "SELECT company_id::text, slug, name, deleted_at, distribu.purgeable(company_id)"
            " FROM distribu.companies WHERE company_id = %s",
            of,
        ).fetchone()
        if row is None:
            return []
        *company, deleted_at, over = row
        if deleted_at is None:
            raise Refused("not_deleted")
        if not over:
            on = deleted_at + PURGE_AFTER
            raise Refused(
                "purge_too_early",
                f"The rows of a deleted company are kept for {PURGE_AFTER.days} days: these until "
                f"{on:%Y-%m-%d %H:%M} UTC.",
            )
        return [(*company, deleted_at)]

    def _counted(self, id: str, slug: str, name: str, deleted_at: datetime) -> Doomed:
        rows = {}
        with self._connection.transaction():
            self._be_tenant(id)
            for table in TABLES:
                counting = sql.SQL("SELECT count(*) FROM distribu.{} WHERE company_id = %s")
                count = self._connection.execute(counting.format(sql.Identifier(table)), [id]).fetchone()
                rows[table] = count[0] if count else 0
        return Doomed(id=CompanyId(id), slug=slug, name=name, deleted_at=deleted_at, rows=rows)

    def purge(self, company: Doomed, told: Callable[[int], None]) -> int:
        """Delete all of a company's rows, in one transaction; how many there were, 0 if it is gone.

        ``told`` hears how many rows each statement took. Raises `Busy` while somebody else is at it.
        """
        try:
            with self._connection.transaction():
                self._connection.execute("SELECT pg_advisory_xact_lock(7274497)")
                self._be_tenant(company.id)
                over = self._connection.execute("SELECT distribu.purgeable(%s)", [company.id]).fetchone()
                if over != (True,):
                    return 0
                rows = self._delete(company.id, told)
                entry = CompanyPurged(entity_type="Company", entity_id=company.id, rows=rows)
                self._write(self._record(entry))
                return rows
        except (errors.LockNotAvailable, errors.QueryCanceled, errors.ForeignKeyViolation):
            raise Busy("busy", retry_after_s=BUSY_S) from None

    def _be_tenant(self, id: str) -> None:
        self._connection.execute("SELECT set_config('app.company_id', %s, true)", [id])

    def _delete(self, id: str, told: Callable[[int], None]) -> int:
        *before, last = TABLES
        rows = 0
        # Until nothing is left: what a worker had in hand may have come in behind us.
        while found := sum(self._empty(table, id, told) for table in before):
            rows += found
        return rows + self._empty(last, id, told)

    def _empty(self, table: str, id: str, told: Callable[[int], None]) -> int:
        rows = 0
        look = sql.SQL("SELECT ctid::text FROM distribu.{} WHERE company_id = %s")
        delete = sql.SQL("DELETE FROM distribu.{} WHERE company_id = %s AND ctid = ANY(%s::tid[])")
        with self._connection.cursor("purge") as cursor:
            # One look at the table, so that no statement wades through what those before it deleted.
            cursor.execute(look.format(sql.Identifier(table)), [id])
            while batch := [row[0] for row in cursor.fetchmany(BATCH)]:
                gone = self._connection.execute(delete.format(sql.Identifier(table)), [id, batch])
                rows += gone.rowcount
                told(gone.rowcount)
        return rows

    def _write(self, it: NewRecord) -> None:
        self._connection.execute(
            "INSERT INTO distribu.record_people (company_id, id, salt, label, ip)"
            " VALUES (%s, %s, %s, %s, %s)",
            [REALM, it.person.id, it.person.salt, it.person.label, it.person.ip],
        )
        self._connection.execute(
            "INSERT INTO distribu.records (company_id, id, at, actor_kind, actor_id, action, entity_type,"
            " entity_id, person_id, body) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                *(REALM, it.id, it.at, it.actor_kind, it.actor_id, it.action, it.entity_type, it.entity_id),
                *(it.person.id, it.body),
            ],
        )
        self._connection.execute(
            "INSERT INTO distribu.unsealed (company_id, record_id) VALUES (%s, %s)", [REALM, it.id]
        )
