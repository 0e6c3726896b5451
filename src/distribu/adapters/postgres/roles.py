"""Who may do what in the database, and the refusal to run as anyone who may do more."""

from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import psycopg
from psycopg import AsyncConnection, sql

from distribu.adapters.postgres.schema import HEAD

APP: Final = "distribu_tenant"
QUEUE: Final = "distribu_machine"
"""The two groups that the migrations grant to. What logs in is a member of one of them."""

SETTINGS: Final = {
    "timezone": "UTC",
    "lock_timeout": "5s",
    "statement_timeout": "15s",
    "idle_in_transaction_session_timeout": "30s",
    # `= ANY($n)` would be planned anew on every call otherwise.
    "plan_cache_mode": "force_generic_plan",
    "jit": "off",
}

# What waits in a queue is never what was there when it was last counted, so a plan by those counts is a
# gamble: everything is found by its key, or in the order of an index (docs/decisions/0031).
QUEUE_SETTINGS: Final = SETTINGS | {
    f"enable_{way}": "off" for way in ("seqscan", "bitmapscan", "hashjoin", "mergejoin", "sort")
}


class UnsafeRole(Exception):
    """The role we are would not be held back by row-level security."""


class NotMigrated(Exception):
    """The schema is not the one this version needs; `distribu migrate` makes it so."""


class UserUnnamed(Exception):
    """A URL does not say whom to log in as, and the queue's user is named after that one."""


def queue_url(url: str) -> str:
    """The URL by which the queue logs in: the application's, as ``<user>_queue``. Raises `UserUnnamed`."""
    parts = urlsplit(url)
    if not parts.username:
        raise UserUnnamed(
            "DISTRIBU_DATABASE_URL names no user: write it as postgresql://user:password@host/database, "
            "or set DISTRIBU_QUEUE_DATABASE_URL too"
        )
    user, _, host = parts.netloc.rpartition("@")
    name, colon, password = user.partition(":")
    return urlunsplit(parts._replace(netloc=f"{quote(unquote(name) + '_queue')}{colon}{password}@{host}"))


def version(connection: "psycopg.Connection[Any]") -> str | None:
    """The migration that the database is at; None when it has none of our tables."""
    there = connection.execute("SELECT to_regclass('distribu.alembic_version') IS NOT NULL").fetchone()
    if there != (True,):
        return None
    row = connection.execute("SELECT version_num FROM distribu.alembic_version").fetchone()
    return row[0] if row else None


def create_logins(owner: "psycopg.Connection[Any]", url: str) -> None:
    """Make the two roles that log in, with the password of ``url``, as far as they are not there."""
    parts = urlsplit(url)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    for name, group, settings in ((user, APP, SETTINGS), (user + "_queue", QUEUE, QUEUE_SETTINGS)):
        if not owner.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name]).fetchone():
            hashed = owner.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256")
            create = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
            owner.execute(create.format(sql.Identifier(name), sql.Literal(hashed.decode())))
        member = "SELECT 1 FROM pg_auth_members WHERE roleid = %s::regrole AND member = %s::regrole"
        if not owner.execute(member, [group, quoted(name)]).fetchone():
            owner.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(group), sql.Identifier(name)))
        for setting, value in settings.items():
            alter = sql.SQL("ALTER ROLE {} SET {} = {}")
            owner.execute(alter.format(sql.Identifier(name), sql.Identifier(setting), sql.Literal(value)))


def quoted(name: str) -> str:
    """A role's name as ``regrole`` reads it."""
    return '"' + name.replace('"', '""') + '"'


_WRONG: Final = f"""
SELECT 'is a superuser' FROM pg_roles WHERE rolname = current_user AND rolsuper
UNION ALL
SELECT 'may bypass row-level security' FROM pg_roles WHERE rolname = current_user AND rolbypassrls
UNION ALL
SELECT 'can become ' || rolname || ', which row-level security does not hold back' FROM pg_roles
 WHERE (rolsuper OR rolbypassrls) AND rolname <> current_user AND pg_has_role(current_user, oid, 'MEMBER')
UNION ALL
SELECT 'owns the table ' || relname FROM pg_class
 WHERE relnamespace = 'distribu'::regnamespace AND relkind IN ('r', 'p')
   AND pg_has_role(current_user, relowner, 'MEMBER')
UNION ALL
SELECT 'finds no forced row-level security on the table ' || relname FROM pg_class
 WHERE relnamespace = 'distribu'::regnamespace AND relkind IN ('r', 'p')
   AND NOT (relrowsecurity AND relforcerowsecurity)
   AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = pg_class.oid AND attname = 'company_id')
UNION ALL
SELECT 'may change the audit log' WHERE has_any_column_privilege('distribu.records', 'UPDATE')
    OR has_table_privilege('distribu.records', 'DELETE')
    OR has_table_privilege('distribu.records', 'TRUNCATE')
UNION ALL
SELECT 'is a member of {QUEUE}, which sees every company' WHERE pg_has_role(current_user, '{QUEUE}', 'MEMBER')
"""  # noqa: S608  # of a name of ours


async def refuse_unsafe(connection: AsyncConnection[Any]) -> None:
    """Raises `NotMigrated`, or `UnsafeRole` with everything that is wrong with the role we are."""
    there = "SELECT to_regclass('distribu.alembic_version') IS NOT NULL"
    version = None
    if (await (await connection.execute(there)).fetchone() or (False,))[0]:
        row = await (await connection.execute("SELECT version_num FROM distribu.alembic_version")).fetchone()
        version = row[0] if row else None
    if version != HEAD:
        raise NotMigrated(f"the database is at {version or 'nothing'}, not at {HEAD}: run `distribu migrate`")
    wrong = [row[0] for row in await (await connection.execute(_WRONG)).fetchall()]
    if wrong:
        raise UnsafeRole("the database role " + ", ".join(wrong))
