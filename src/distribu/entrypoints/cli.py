"""The command line: every use case, and the programs that serve and work.

Exit codes (`operating.EXIT` has those of refusals):

==  ==========================================================================
 0  done
 1  a bug of ours, or stopped: by a signal, or by a no to what it asked
 2  not understood: an unknown command, option, request or field
 3  cannot start: settings, database, port, or a server that cannot be reached
10  the values given are malformed
11  the key is absent, wrong, expired or revoked (``demo --url``)
12  the plan does not reach that far
13  not allowed
14  not found
15  somebody else holds the name, or is still at it
16  the record has changed since the version given
17  a rule of the business said no
18  too busy; try again
19  more than the API's limits let through (``demo --url``)
20  the audit log is not as it was sealed (``audit verify``)
21  the delivery is not genuine (``webhook verify``)
22  the receiver is wrong in something, or not all was tried (``webhook attack``)
23  the job failed (``cron run``)
24  records of the audit log have waited too long to be sealed (``audit verify``)
25  what is known here is not what is known at Stripe (``billing sync``)
==  ==========================================================================

Results go to stdout; with ``--json`` as exactly one JSON object, lists as ``{"data": [...],
"pagination": {...}}``. Refusals go to stderr, with ``--json`` as one JSON object too.
"""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
import rich_click as click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distribu.application import views
from distribu.application.access import CreateApiKey, ListApiKeys, RevokeApiKey
from distribu.application.kernel import Distribu
from distribu.application.platform import ListCompanies, ResumeCompany, SuspendCompany
from distribu.application.team import CreateCompany
from distribu.container import STRIPE_PATH, migrated, purging, running
from distribu.domain.access import SCOPES, Permission
from distribu.domain.values import ApiKeyId
from distribu.entrypoints import (
    asking,
    cli_audit,
    cli_billing,
    cli_cron,
    cli_people,
    cli_receivers,
    cli_webhooks,
    operating,
    showing,
)
from distribu.entrypoints.demo import company as demo_company
from distribu.entrypoints.http import serve as serving
from distribu.settings import Settings

if TYPE_CHECKING:
    from distribu.entrypoints.demo import invoices

_CODES_TOLD: Final = (
    "Exit codes: 0 done; 1 a bug, a signal or a no; 2 not understood; 3 cannot start; refused: 10 malformed, "
    "11 unknown key, 12 plan, 13 not allowed, 14 not found, 15 taken, 16 changed meanwhile, 17 a rule of "
    "the business, 18 too busy, 19 too often; 20 the audit log is not as it was sealed; 21 not genuine; 22 a "
    "receiver is wrong; 23 a job failed; 24 nobody seals the audit log; 25 billing differs."
)
_DOCS: Final = "/api/v1/docs"


class _Commands(click.RichGroup):
    """The commands, of which one group answers to two names."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, "webhook" if cmd_name == "webhooks" else cmd_name)


@click.group(cls=_Commands, epilog=_CODES_TOLD)
@click.version_option(package_name="distribu")
def main() -> None:
    """The wholesale ordering core.

    Settings are environment variables DISTRIBU_...; without DISTRIBU_DATABASE_URL a PostgreSQL of
    Distribu's own is started in the data directory.

    Example: distribu serve --demo
    """


@main.command()
@click.option("--worker/--no-worker", default=True, show_default=True, help="Send webhooks from here too.")
@click.option("--demo", is_flag=True, help="With a demo company, a key to it and an order to paste.")
@click.option("--host", metavar="ADDRESS", help="Where to serve (DISTRIBU_HOST).")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes a free one (DISTRIBU_PORT).")
@operating.command
def serve(worker: bool, demo: bool, host: str | None, port: int | None, data_dir: str | None) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Example: distribu serve --port 8080 --data-dir ./data
    """

    async def run(ready: Settings) -> None:
        made = None
        if demo:
            async with running(ready) as distribu:
                made = await demo_company.prepare(distribu)
        await serving.serve(ready, worker=worker, ready=lambda url: _where(url, made, settings))

    settings = operating.settings(host=host, port=port, data_dir=data_dir)
    if demo and not (settings.production or settings.stripe_key or "DISTRIBU_STRIPE_STUB" in os.environ):
        settings = msgspec.structs.replace(settings, stripe_stub=True)
    operating.until_told(settings, run)


def _where(url: str, demo: demo_company.Demo | None, settings: Settings, *, served: bool = True) -> None:
    """Where to look, and what with. Unless it is ``served``, ``url`` is where it would be."""
    shown = {"url": url, "docs": url + _DOCS}
    with_ = {"DISTRIBU_DATA_DIR": str(settings.data_path)}
    if settings.stripe_stub:
        shown["stripe"] = url + STRIPE_PATH
        # Or a command would sell nothing, and a company that it makes could use everything.
        with_ |= {"DISTRIBU_STRIPE_STUB": "true", "DISTRIBU_PORT": str(urlsplit(url).port)}
    if demo is not None:
        shown |= {"company": demo_company.SLUG, "key": demo.key, "order": demo.curl(url)}
    if showing.in_json():
        click.echo(views.encode(shown))
        return
    here = " ".join([*(f"{name}={shlex.quote(value)}" for name, value in with_.items()), _program()])
    if served:
        click.echo(f"Distribu is at {url}, and what it can do at {shown['docs']}")
        if settings.stripe_stub:
            click.echo(f"Plans are sold by a Stripe that is none, at {shown['stripe']}")
    else:
        click.echo(f"The demo company is ready. To serve it at {url}:\n\n{here} serve\n")
    if demo is not None:
        click.echo(f"The company is {demo_company.SLUG}; a key to it: {demo.key}")
        click.echo(f"To place an order:\n\n{shown['order']}\n")
        click.echo(
            f"The same data from the command line:\n\n{here} do ListProducts --company {demo_company.SLUG}\n"
        )


def _program() -> str:
    """What a shell starts this program with."""
    if Path(sys.argv[0]).name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m distribu"
    return shlex.quote(sys.argv[0])


@main.command()
@operating.command
def worker(data_dir: str | None) -> None:
    """Send webhooks until SIGTERM or Ctrl-C; any number of workers share the work.

    Example: distribu worker
    """

    def ready() -> None:
        click.echo(views.encode({"working": True}) if showing.in_json() else "Working.")

    operating.until_told(
        operating.settings(data_dir=data_dir), lambda settings: serving.work(settings, ready=ready)
    )


@main.command()
@operating.command
def migrate(data_dir: str | None) -> None:
    """Bring the database to this version, as the role of DISTRIBU_OWNER_DATABASE_URL.

    The embedded database needs no such step: it is migrated at every start.

    Example: distribu migrate
    """
    ran = migrated(operating.settings(data_dir=data_dir))
    if showing.in_json():
        click.echo(views.encode({"ran": ran}))
    else:
        click.echo(f"Ran {', '.join(ran)}." if ran else "Nothing to do.")


@main.command()
@click.option(
    "--orders",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Place every invoice of a CSV file as an order, over HTTP.",
)
@click.option("--url", help="A server that runs already; without it one serves as long as this takes.")
@click.option("--key", help="An API key for --url, to read and write products, customers and orders.")
@operating.command
def demo(orders: Path | None, url: str | None, key: str | None, data_dir: str | None) -> None:
    """Make the demo company, or find it; print a key to it and an order to paste.

    With --orders the invoices of a file are placed through the public API. Running that again places
    only what is not there yet. It is a CSV file with a line for each line of an invoice, in the columns of
    the Online Retail data set (UCI Machine Learning Repository, CC BY 4.0): InvoiceNo, StockCode,
    Description, Quantity, InvoiceDate, UnitPrice, CustomerID, Country.

    Example: distribu demo --orders online-retail-10k.csv
    """
    if (url is None) is not (key is None) or (url is not None and orders is None):
        raise click.UsageError("--url and --key go together, and with --orders")
    if orders is None:
        settings = operating.settings(data_dir=data_dir)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        made = operating.on_distribu(settings, demo_company.prepare)
        _where(f"http://{host}:{settings.port}", made, settings, served=False)
        return
    from distribu.entrypoints.demo import invoices  # its HTTP client is slow to load

    plan = invoices.read(orders)
    with _progress() as progress:
        if url is not None and key is not None:
            loaded = uvloop.run(invoices.load(url, key, plan, progress))
        else:
            loaded = operating.on_distribu(
                operating.settings(data_dir=data_dir), lambda distribu: _load(distribu, plan, progress)
            )
    _show_loaded(loaded)


async def _load(distribu: Distribu, plan: "invoices.Plan", progress: Progress) -> "invoices.Loaded":
    """Load into the demo company, through a server in this process."""
    from distribu.entrypoints.demo import invoices

    made = await demo_company.prepare(distribu)
    async with serving.listening(distribu, "127.0.0.1", 0) as url:
        return await invoices.load(url, made.key, plan, progress)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _show_loaded(loaded: "invoices.Loaded") -> None:
    if showing.in_json():
        click.echo(views.encode(loaded))
        return
    rows = [
        ("orders placed", loaded.orders),
        ("lines", loaded.lines),
        ("units", loaded.units),
        ("revenue", loaded.revenue),
        ("orders already there", loaded.already_there),
        ("lines merged into another", loaded.merged),
        *((f"left out: {reason}", count) for reason, count in loaded.left_out.items()),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value:>14,}")


@main.group()
def company() -> None:
    """Companies: the tenants."""


@company.command("create")
@click.argument("name")
@click.option("--slug", help="What stands for it in commands and links; by default made of the name.")
@click.option("--currency", default="USD", show_default=True, help="An ISO 4217 code.")
@operating.command
def company_create(name: str, slug: str | None, currency: str, data_dir: str | None) -> None:
    """Found a company.

    Example: distribu company create "Acme Distributors" --slug acme --currency EUR
    """
    showing.result(operating.execute(data_dir, None, CreateCompany(name=name, slug=slug, currency=currency)))


@company.command("list")
@operating.limit_option
@operating.cursor_option
@operating.command
def company_list(limit: int, cursor: str | None, data_dir: str | None) -> None:
    """Every company, newest first, and whether it is open.

    Example: distribu company list --limit 20
    """
    page = operating.execute(data_dir, None, ListCompanies(limit=limit, cursor=cursor))
    showing.result(page, "slug", "name", "standing", "apiLimit", "id", none="No companies yet.")


@company.command("suspend")
@click.argument("slug")
@click.option("--reason", required=True, help="Why; the company's audit log keeps it.")
@operating.yes_option
@operating.command
def company_suspend(slug: str, reason: str, yes: bool, data_dir: str | None) -> None:
    """Keep everybody of a company out at once, staff, customers and keys, until it is resumed.

    Example: distribu company suspend acme --reason "unpaid since March"
    """
    operating.sure(f"Suspend {slug}? Nobody of it gets in until it is resumed.", yes=yes)
    operating.operate(
        data_dir,
        slug,
        lambda operator: operator.execute(SuspendCompany(company_id=operator.company_id, reason=reason)),
    )
    showing.done(f"{slug} is suspended. To let everybody in again: distribu company resume {slug}")


@company.command("resume")
@click.argument("slug")
@operating.command
def company_resume(slug: str, data_dir: str | None) -> None:
    """Let everybody of a suspended company in again.

    Example: distribu company resume acme
    """
    operating.operate(
        data_dir, slug, lambda operator: operator.execute(ResumeCompany(company_id=operator.company_id))
    )
    showing.done(f"{slug} is open again.")


@company.command("purge")
@click.argument("slug", required=False)
@click.option("--dry-run", is_flag=True, help="Tell what would go, and leave it.")
@operating.yes_option
@operating.command
def company_purge(slug: str | None, dry_run: bool, yes: bool, data_dir: str | None) -> None:
    """Take deleted companies out of the database, for good: all whose 30 days are over, or one of them.

    It works as the role that owns the tables (DISTRIBU_OWNER_DATABASE_URL). A company's slugs stay, so that
    nobody else gets them, and the platform's log keeps that it was purged.

    Example: distribu company purge --dry-run
    """
    settings = operating.settings(data_dir=data_dir)
    with purging(settings, operating.LABEL) as purge:
        doomed = purge.doomed(slug.strip().lower() if slug is not None else None)
        if doomed and not dry_run:
            names = ", ".join(one.slug for one in doomed)
            operating.sure(f"Purge {names}? It cannot be brought back.", yes=yes)
            for one in doomed:
                with _progress_of(f"Purging {one.slug}", sum(one.rows.values())) as told:
                    purge.purge(one, told)
    shown = [
        {
            "id": one.id,
            "slug": one.slug,
            "deletedAt": one.deleted_at,
            "rows": sum(one.rows.values()),
            "tables": {table: count for table, count in one.rows.items() if count},
        }
        for one in doomed
    ]
    showing.view({"data": shown}, "slug", "deletedAt", "rows", "tables", none="There is nothing to purge.")


@contextlib.contextmanager
def _progress_of(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for what takes over a second."""
    progress = _progress()
    task = progress.add_task(what, total=total)

    def told(rows: int) -> None:
        progress.advance(task, rows)
        if (progress.tasks[0].elapsed or 0) > 1 and not progress.live.is_started:
            progress.start()

    try:
        yield told
    finally:
        progress.stop()


for _command in cli_receivers.COMMANDS:
    cli_webhooks.webhook.add_command(_command)
for _group in (
    *(cli_people.user, cli_people.member, cli_people.session),
    *(cli_webhooks.webhook, cli_webhooks.vault, cli_audit.audit, cli_billing.billing, cli_cron.cron),
):
    main.add_command(_group)


@main.group("api-key")
def api_key() -> None:
    """API keys: what other programs act with."""


@api_key.command("create")
@operating.company_option
@click.option("--name", required=True, help="What it is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([str(one) for one in SCOPES]),
    help="What it may do; give it as often as needed.",
)
@click.option("--expires", type=operating.TIME, help="When it ends: 2027-01-31 or 2027-01-31T09:30:00Z.")
@operating.command
def api_key_create(
    company: str, name: str, scopes: tuple[str, ...], expires: datetime | None, data_dir: str | None
) -> None:
    """Make a key. It is printed this once.

    Example: distribu api-key create --company acme --name ERP --scope products:read --scope orders:write
    """
    permissions = tuple(Permission(one) for one in scopes)
    showing.result(
        operating.execute(data_dir, company, CreateApiKey(name=name, scopes=permissions, expires_at=expires))
    )


@api_key.command("revoke")
@click.argument("id")
@operating.company_option
@operating.command
def api_key_revoke(id: str, company: str, data_dir: str | None) -> None:
    """End a key at once, everywhere.

    Example: distribu api-key revoke 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    showing.result(operating.execute(data_dir, company, RevokeApiKey(api_key_id=ApiKeyId(id))))


@api_key.command("list")
@operating.company_option
@operating.limit_option
@operating.cursor_option
@operating.command
def api_key_list(company: str, limit: int, cursor: str | None, data_dir: str | None) -> None:
    """Keys, newest first, by their first eight characters.

    Example: distribu api-key list --company acme
    """
    page = operating.execute(data_dir, company, ListApiKeys(limit=limit, cursor=cursor))
    showing.result(page, "id", "name", "prefix", "scopes", "expiresAt", "revokedAt")


@main.command("do", add_help_option=False)
@click.argument("request", required=False)
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--company", metavar="SLUG", help="Which company.")
@click.option("--help", "explain", is_flag=True, help="After a request: its fields and an example.")
@operating.command
@click.pass_context
def do(
    context: click.Context,
    request: str | None,
    fields: tuple[str, ...],
    company: str | None,
    explain: bool,
    data_dir: str | None,
) -> None:
    """Run any request an operator can. --help after its name tells its fields.

    Text is written as it is, everything else as JSON; field:=JSON is JSON for a text field too, so
    that sku:=null is no SKU. A list of words may stand with commas.

    Example: distribu do CreateProduct --company acme name="Oat Flour 25 kg" price=18.40 stock=120
    """
    if request is None:
        click.echo(context.get_help())
        click.echo("\n".join(["Requests:", *(f"  {name}" for name in asking.requests())]))
        sys.exit(0 if explain else operating.NOT_UNDERSTOOD)
    kind = asking.named(request)
    if explain:
        click.echo(asking.explained(kind))
        return
    showing.result(operating.execute(data_dir, company, asking.asked(kind, fields)))
