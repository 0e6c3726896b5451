"""The command line: every use case, and the programs that serve and work.

Exit codes (`EXIT` has those of refusals):

==  ==========================================================================
 0  done
 1  a bug of ours, or stopped by a signal
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
==  ==========================================================================

Results go to stdout; with ``--json`` as exactly one JSON object, lists as ``{"data": [...],
"pagination": {...}}``. Refusals go to stderr, with ``--json`` as one JSON object too.
"""

import logging
import os
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import rich_click as click
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from distribu.application import views
from distribu.application.access import CreateApiKey, ListApiKeys, RevokeApiKey
from distribu.application.audit import ListAudit, RecordAudit
from distribu.application.kernel import Distribu, Request
from distribu.application.team import CreateCompany
from distribu.application.webhooks import RegisterWebhook, RotateWebhookSecret
from distribu.container import StartRefused, database, migrated, running
from distribu.domain import errors
from distribu.domain.access import SCOPES, Actor, ActorKind, Permission
from distribu.domain.errors import NotFound, Refused
from distribu.domain.values import ApiKeyId, WebhookId
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints import asking, showing
from distribu.entrypoints.demo import company as demo_company
from distribu.entrypoints.http import serve as serving
from distribu.settings import Settings, load

if TYPE_CHECKING:
    from distribu.entrypoints.demo import invoices

R = TypeVar("R")

LABEL: Final = "cli"
"""What the audit log calls whoever acts from here."""

NOT_UNDERSTOOD: Final = 2
CANNOT_START: Final = 3
EXIT: Final[Mapping[type[Refused], int]] = {
    errors.Invalid: 10,
    errors.Unauthenticated: 11,
    errors.PaymentRequired: 12,
    errors.Forbidden: 13,
    errors.NotFound: 14,
    errors.Conflict: 15,
    errors.Stale: 16,
    errors.Refused: 17,
    errors.Busy: 18,
    errors.RateLimited: 19,
}
"""The exit code of each kind of refusal."""

_CODES_TOLD: Final = (
    "Exit codes: 0 done; 1 a bug or a signal; 2 not understood; 3 cannot start; refused: 10 malformed, "
    "11 unknown key, 12 plan, 13 not allowed, 14 not found, 15 taken, 16 changed meanwhile, 17 a rule of "
    "the business, 18 too busy, 19 too often."
)
_DOCS: Final = "/api/v1/docs"


# how a command runs, and how it ends


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """What every command has: where the data is, ``--json``, and the exit codes."""

    @click.option("--data-dir", metavar="DIR", help="Where files are kept (DISTRIBU_DATA_DIR).")
    @click.option("--json", "as_json", is_flag=True, help="Print exactly one JSON object.")
    @wraps(function)
    def run(as_json: bool, **given: Any) -> None:
        showing.as_json(as_json)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            function(**given)
        except asking.NotUnderstood as wrong:
            raise click.UsageError(str(wrong)) from None
        except Refused as refused:
            showing.refusal(refused)
            sys.exit(next(EXIT[kind] for kind in type(refused).__mro__ if kind in EXIT))
        except (*StartRefused, OSError) as error:
            click.echo(f"distribu: {_told(error)}", err=True)
            sys.exit(CANNOT_START)

    return run


def _told(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _settings(**given: object) -> Settings:
    """The settings of the environment, with what the command line says instead."""
    environ = dict(os.environ)
    for name, value in given.items():
        if value is not None:
            variable = f"DISTRIBU_{name.upper()}"
            environ.pop(variable + "_FILE", None)
            environ[variable] = str(value)
    return load(environ)


def _with(settings: Settings, do: Callable[[Distribu], Awaitable[R]]) -> R:
    """Do something on Distribu, on its database; the embedded one is started if nobody has."""

    async def run(ready: Settings) -> R:
        async with running(ready) as distribu:
            return await do(distribu)

    with database(settings) as ready:
        return uvloop.run(run(ready))


def _execute(data_dir: str | None, company: str | None, request: Request[R]) -> R:
    """Run a request for the company with a slug. Raises `Refused`, `asking.NotUnderstood`."""
    if company is None and not request.founds:
        raise asking.NotUnderstood("say for which company: --company SLUG")

    async def run(distribu: Distribu) -> R:
        company_id = None
        if company is not None:
            company_id = await distribu.ports.directory.company(company.strip().lower())
            if company_id is None:
                raise NotFound("company_not_found")
        actor = Actor.system(None if request.founds else company_id, label=LABEL)
        return await distribu.execute(actor, request)

    return _with(_settings(data_dir=data_dir), run)


def _until_told(settings: Settings, run: Callable[[Settings], Any]) -> None:
    """Run something long on the database until SIGTERM or SIGINT, and end with 0."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if not settings.production:
        logging.getLogger("distribu.mail").setLevel(logging.INFO)  # what was mailed, where nothing is sent
    try:
        with database(settings) as ready:
            try:
                uvloop.run(run(ready))
            finally:
                # A second signal must not leave the embedded database half stopped.
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
    except KeyboardInterrupt:
        return


class _Time(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date or time such as 2027-01-31 or 2027-01-31T09:30:00Z", param, ctx)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at


_TIME: Final = _Time()
_company = click.option("--company", required=True, metavar="SLUG", help="Which company.")
_limit = click.option("--limit", type=click.IntRange(1, 100), default=50, show_default=True, help="At most.")
_cursor = click.option("--cursor", metavar="ID", help="Go on after this one.")


# the commands


@click.group(epilog=_CODES_TOLD)
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
@_command
def serve(worker: bool, demo: bool, host: str | None, port: int | None, data_dir: str | None) -> None:
    """Serve the API until SIGTERM or Ctrl-C.

    Example: distribu serve --port 8080 --data-dir ./data
    """

    async def run(ready: Settings) -> None:
        made = None
        if demo:
            async with running(ready) as distribu:
                made = await demo_company.prepare(distribu)
        await serving.serve(ready, worker=worker, ready=lambda url: _where(url, made, settings.data_path))

    settings = _settings(host=host, port=port, data_dir=data_dir)
    _until_told(settings, run)


def _where(url: str, demo: demo_company.Demo | None, data: Path, *, served: bool = True) -> None:
    """Where to look, and what with. Unless it is ``served``, ``url`` is where it would be."""
    shown = {"url": url, "docs": url + _DOCS}
    if demo is not None:
        shown |= {"company": demo_company.SLUG, "key": demo.key, "order": demo.curl(url)}
    if showing.in_json():
        click.echo(views.encode(shown))
        return
    here = f"DISTRIBU_DATA_DIR={shlex.quote(str(data))} {_program()}"
    if served:
        click.echo(f"Distribu is at {url}, and what it can do at {shown['docs']}")
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
@_command
def worker(data_dir: str | None) -> None:
    """Send webhooks until SIGTERM or Ctrl-C; any number of workers share the work.

    Example: distribu worker
    """

    def ready() -> None:
        click.echo(views.encode({"working": True}) if showing.in_json() else "Working.")

    _until_told(_settings(data_dir=data_dir), lambda settings: serving.work(settings, ready=ready))


@main.command()
@_command
def migrate(data_dir: str | None) -> None:
    """Bring the database to this version, as the role of DISTRIBU_OWNER_DATABASE_URL.

    The embedded database needs no such step: it is migrated at every start.

    Example: distribu migrate
    """
    ran = migrated(_settings(data_dir=data_dir))
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
@_command
def demo(orders: Path | None, url: str | None, key: str | None, data_dir: str | None) -> None:
    """Make the demo company, or find it; print a key to it and an order to paste.

    With --orders the invoices of a file are placed through the public API. Running that again places
    only what is not there yet.

    Example: distribu demo --orders online-retail-10k.csv
    """
    if (url is None) is not (key is None) or (url is not None and orders is None):
        raise click.UsageError("--url and --key go together, and with --orders")
    if orders is None:
        settings = _settings(data_dir=data_dir)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        made = _with(settings, demo_company.prepare)
        _where(f"http://{host}:{settings.port}", made, settings.data_path, served=False)
        return
    from distribu.entrypoints.demo import invoices  # its HTTP client is slow to load

    plan = invoices.read(orders)
    with _progress() as progress:
        if url is not None and key is not None:
            loaded = uvloop.run(invoices.load(url, key, plan, progress))
        else:
            loaded = _with(_settings(data_dir=data_dir), lambda distribu: _load(distribu, plan, progress))
    _show_loaded(loaded)


async def _load(distribu: Distribu, plan: "invoices.Plan", progress: Progress) -> "invoices.Loaded":
    from distribu.entrypoints.demo import invoices

    """Load into the demo company, through a server in this process."""
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
@_command
def company_create(name: str, slug: str | None, currency: str, data_dir: str | None) -> None:
    """Found a company.

    Example: distribu company create "Acme Distributors" --slug acme --currency EUR
    """
    showing.result(_execute(data_dir, None, CreateCompany(name=name, slug=slug, currency=currency)))


@main.group("api-key")
def api_key() -> None:
    """API keys: what other programs act with."""


@api_key.command("create")
@_company
@click.option("--name", required=True, help="What it is for.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice([str(one) for one in SCOPES]),
    help="What it may do; give it as often as needed.",
)
@click.option("--expires", type=_TIME, help="When it ends: 2027-01-31 or 2027-01-31T09:30:00Z.")
@_command
def api_key_create(
    company: str, name: str, scopes: tuple[str, ...], expires: datetime | None, data_dir: str | None
) -> None:
    """Make a key. It is printed this once.

    Example: distribu api-key create --company acme --name ERP --scope products:read --scope orders:write
    """
    permissions = tuple(Permission(one) for one in scopes)
    showing.result(
        _execute(data_dir, company, CreateApiKey(name=name, scopes=permissions, expires_at=expires))
    )


@api_key.command("revoke")
@click.argument("id")
@_company
@_command
def api_key_revoke(id: str, company: str, data_dir: str | None) -> None:
    """End a key at once, everywhere.

    Example: distribu api-key revoke 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    showing.result(_execute(data_dir, company, RevokeApiKey(api_key_id=ApiKeyId(id))))


@api_key.command("list")
@_company
@_limit
@_cursor
@_command
def api_key_list(company: str, limit: int, cursor: str | None, data_dir: str | None) -> None:
    """Keys, newest first, by their first eight characters.

    Example: distribu api-key list --company acme
    """
    page = _execute(data_dir, company, ListApiKeys(limit=limit, cursor=cursor))
    showing.result(page, "id", "name", "prefix", "scopes", "expiresAt", "revokedAt")


@main.group()
def webhook() -> None:
    """Webhooks: telling other systems what happened."""


@webhook.command("add")
@click.argument("url")
@_company
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([str(one) for one in WireEvent]),
    help="What to tell of; give it as often as needed. By default everything.",
)
@_command
def webhook_add(url: str, company: str, events: tuple[str, ...], data_dir: str | None) -> None:
    """Subscribe a URL to events. The signing secret is printed this once.

    Example: distribu webhook add https://erp.example/hook --company acme --event order.created
    """
    wanted = tuple(WireEvent(one) for one in events) or tuple(WireEvent)
    showing.result(_execute(data_dir, company, RegisterWebhook(url=url, events=wanted)))


@webhook.command("rotate")
@click.argument("id")
@_company
@_command
def webhook_rotate(id: str, company: str, data_dir: str | None) -> None:
    """Give a webhook a new secret, printed this once. The old one stays valid for seven days.

    Example: distribu webhook rotate 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    showing.result(_execute(data_dir, company, RotateWebhookSecret(webhook_id=WebhookId(id))))


@main.group()
def audit() -> None:
    """The audit log: who did what, and when."""


@audit.command("list")
@_company
@click.option("--action", help="Exactly this, or what begins with it and a dot.")
@click.option("--actor-type", type=click.Choice([str(one) for one in ActorKind]), help="Who acted.")
@click.option("--entity-type", help="What was changed: Order, Product ...")
@click.option("--entity-id", metavar="ID", help="Which one.")
@click.option("--since", type=_TIME, help="From this time on.")
@click.option("--until", type=_TIME, help="Before this time.")
@_limit
@_cursor
@_command
def audit_list(company: str, actor_type: str | None, data_dir: str | None, **given: Any) -> None:
    """Entries, newest first.

    Example: distribu audit list --company acme --action order --since 2027-01-31
    """
    kind = ActorKind(actor_type) if actor_type else None
    page = _execute(data_dir, company, ListAudit(actor_type=kind, **given))
    showing.result(page, "at", "action", "entityType", "entityId", "actorType", "actorLabel", "id")


@audit.command("record")
@click.argument("action")
@click.argument("metadata", nargs=-1, metavar="[NAME=VALUE]...")
@_company
@click.option("--entity-type", default="", help="What it is about.")
@click.option("--entity-id", default="", metavar="ID", help="Which one.")
@_command
def audit_record(
    action: str,
    metadata: tuple[str, ...],
    company: str,
    entity_type: str,
    entity_id: str,
    data_dir: str | None,
) -> None:
    """Write an entry of your own; its action becomes custom.ACTION.

    Example: distribu audit record report.sent to=board@acme.example pages=4 --company acme
    """
    told = asking.metadata(metadata)
    entry = RecordAudit(action=action, entity_type=entity_type, entity_id=entity_id, metadata=told)
    showing.result(_execute(data_dir, company, entry))


@main.command("do", add_help_option=False)
@click.argument("request", required=False)
@click.argument("fields", nargs=-1, metavar="[FIELD=VALUE]...")
@click.option("--company", metavar="SLUG", help="Which company.")
@click.option("--help", "explain", is_flag=True, help="After a request: its fields and an example.")
@_command
@click.pass_context
def do(
    context: click.Context,
    request: str | None,
    fields: tuple[str, ...],
    company: str | None,
    explain: bool,
    data_dir: str | None,
) -> None:
    """Run any request there is. --help after its name tells its fields.

    Text is written as it is, everything else as JSON; field:=JSON is JSON for a text field too, so
    that sku:=null is no SKU. A list of words may stand with commas.

    Example: distribu do CreateProduct --company acme name="Oat Flour 25 kg" price=18.40 stock=120
    """
    if request is None:
        click.echo(context.get_help())
        click.echo("\n".join(["Requests:", *(f"  {name}" for name in asking.requests())]))
        sys.exit(0 if explain else NOT_UNDERSTOOD)
    kind = asking.named(request)
    if explain:
        click.echo(asking.explained(kind))
        return
    showing.result(_execute(data_dir, company, asking.asked(kind, fields)))
