"""How results and refusals look: tables and lines for people, with ``--json`` one JSON object."""

import sys
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from distribu.application import views
from distribu.application.fields import decimal_of
from distribu.application.finders import Feed
from distribu.application.kernel import Issued
from distribu.application.ports import Page
from distribu.domain.errors import Refused
from distribu.entrypoints.http import wire

_json = msgspec.json.Decoder(float_hook=decimal_of)
_NONE: Final = "There are none."
_LISTS: Final = ({"data"}, {"data", "pagination"})


def as_json(wanted: bool) -> None:
    """Say how this command shows what it has to show."""
    click.get_current_context().obj = wanted


def in_json() -> bool:
    """Whether this command shows JSON."""
    return bool(click.get_current_context().obj)


def refusal(it: Refused) -> None:
    """Tell of a refusal on stderr."""
    if in_json():
        body: dict[str, Any] = {"error": it.message, "code": it.code}
        if it.fields:
            body["fields"] = it.fields
        if it.retry_after_s is not None:
            body["retryAfter"] = it.retry_after_s
        click.echo(views.encode(body), err=True)
        return
    click.echo(f"distribu: {it.message} ({it.code})", err=True)
    for name, wrong in it.fields.items():
        click.echo(f"  {name}: {wrong}" if name else f"  {wrong}", err=True)


def done(said: str) -> None:
    """Tell what was done, where there is nothing to show for it: as JSON an empty object."""
    view({}) if in_json() else click.echo(said)


def hint(said: str) -> None:
    """Tell a person, and no program, what follows from a result."""
    if not in_json():
        click.echo(said)


def progress(said: str) -> None:
    """Tell how far it has come, on stderr and to a person who is looking."""
    if sys.stderr.isatty() and not in_json():
        click.echo(f"\r\x1b[K{said}", nl=False, err=True)


def result(it: Any, *columns: str, none: str = _NONE) -> None:
    """Show a result: as JSON, as a table of these columns (or of all that fit one), or line by line.

    ``none`` is said of an empty list.
    """
    if it is None:
        view({})
    elif isinstance(it, Issued):
        view(wire.issued(it))
    elif isinstance(it, Page | Feed):
        view(views.listed(views.of(it)), *columns, none=none)
    elif isinstance(it, list):
        view({"data": views.of(it)}, *columns, none=none)
    else:
        view(views.of(it))


def view(shown: Any, *columns: str, none: str = _NONE) -> None:
    """Show something that may be seen: JSON can hold it."""
    text = views.encode(shown)
    if in_json():
        click.echo(text)
        return
    plain: dict[str, Any] = _json.decode(text)
    if plain.keys() in _LISTS:
        if not plain["data"]:
            click.echo(none)
            return
        _table(plain["data"], columns)
        pagination = plain.get("pagination", {})
        if pagination.get("hasMore"):
            name = "after" if "nextAfter" in pagination else "cursor"
            option = f"{name}=" if click.get_current_context().info_name == "do" else f"--{name} "
            click.echo(f"There is more: {option}{pagination.get('nextAfter') or pagination['nextCursor']}")
    elif plain:
        width = max(len(name) for name in plain)
        for name, value in plain.items():
            click.echo(f"{name:<{width}}  {_cell(value)}")
    else:
        click.echo("Done.")


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    columns = columns or tuple(name for name, value in rows[0].items() if not isinstance(value, list | dict))
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(_cell(row[name]) for name in columns))
    # Into a file or a pipe the table is as wide as it is: nothing is cut.
    Console(width=None if sys.stdout.isatty() else 10_000, highlight=False, markup=False).print(table)


def _cell(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    return views.encode(value).decode()
