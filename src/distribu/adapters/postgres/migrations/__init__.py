"""The schema, step by step: Alembic runs what is in `versions`.

It is imported only when there is something to run: every start of an embedded server passes here.
"""

from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa

from distribu.adapters.postgres import purge, roles
from distribu.adapters.postgres.schema import HEAD, SCHEMA, metadata


def migrate(owner_url: str, app_url: str) -> list[str]:
    """Bring the database to `HEAD` as its owner, and make the roles that log in. Returns what was run."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        # Roles belong to the whole server: two databases migrated at once must not both make them.
        connection.execute("SELECT pg_advisory_lock(7274496)")
        for group in (roles.APP, roles.QUEUE):
            if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [group]).fetchone():
                connection.execute(f"CREATE ROLE {group} NOLOGIN")
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        ran = [] if roles.version(connection) == HEAD else _upgrade(owner_url)
        roles.create_logins(connection, app_url)
        purge.let_owner(connection)
        if ran:
            # Plans made on the statistics of empty tables cost a millisecond each.
            connection.execute("ANALYZE")
    return ran


def differences(owner_url: str) -> list[Any]:
    """What the database has that `schema` does not say, and the other way round."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with _engine(owner_url).connect() as connection:
        options = {
            "include_schemas": True,
            "version_table_schema": SCHEMA,
            "include_name": lambda name, kind, parent: kind != "schema" or name == SCHEMA,
        }
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))


def _upgrade(owner_url: str) -> list[str]:
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(__file__).parent))
    ran: list[str] = []
    with _engine(owner_url).begin() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table_schema": SCHEMA,
                "fn": lambda revision, _: scripts._upgrade_revs(HEAD, revision),  # noqa: SLF001  # what `alembic upgrade` calls
                "on_version_apply": (lambda step, **_: ran.append(str(step.up_revision_id)),),
            },
        )
        with Operations.context(context):
            context.run_migrations()
    return ran


def _engine(url: str) -> sa.Engine:
    return sa.create_engine("postgresql+psycopg://" + url.partition("://")[2], poolclass=sa.NullPool)
