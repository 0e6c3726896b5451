"""How an operator's command runs, and how it ends: what the commands of `cli` have in common.

Whoever is at the command line is the platform's operator and that of every company: a request runs
for the platform or in a company by what it needs, and the audit log calls its actor `LABEL`.
"""

import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Final, TypeVar

import rich_click as click
import uvloop

from distribu.application.kernel import Distribu, Request
from distribu.container import StartRefused, database, running
from distribu.domain import errors
from distribu.domain.access import Actor
from distribu.domain.errors import NotFound, Refused
from distribu.domain.values import CompanyId
from distribu.entrypoints import asking, showing
from distribu.settings import Settings, load

R = TypeVar("R")

LABEL: Final = "cli"
"""What the audit log calls whoever acts from here."""

NOT_UNDERSTOOD: Final = 2
CANNOT_START: Final = 3
NOT_GENUINE: Final = 21
RECEIVER_WRONG: Final = 22
JOB_FAILED: Final = 23
BILLING_DIFFERS: Final = 25
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


def command(function: Callable[..., None]) -> Callable[..., None]:
    """What a command has that needs the data: where it is, ``--json``, and the exit codes."""
    with_data = click.option("--data-dir", metavar="DIR", help="Where files are kept (DISTRIBU_DATA_DIR).")
    return with_data(alone(function))


def alone(function: Callable[..., None]) -> Callable[..., None]:
    """What every command has, with data or without: ``--json``, and the exit codes."""

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


# on what, and as whom


def settings(**given: object) -> Settings:
    """The settings of the environment, with what the command line says instead."""
    environ = dict(os.environ)
    for name, value in given.items():
        if value is not None:
            variable = f"DISTRIBU_{name.upper()}"
            environ.pop(variable + "_FILE", None)
            environ[variable] = str(value)
    return load(environ)


def on_distribu(settings: Settings, do: Callable[[Distribu], Awaitable[R]]) -> R:
    """Do something on Distribu, on its database; the embedded one is started if nobody has."""

    async def run(ready: Settings) -> R:
        async with running(ready) as distribu:
            return await do(distribu)

    with database(settings) as ready:
        return uvloop.run(run(ready))


class Operator:
    """Whoever acts from here: for the platform, and in one company if they said which."""

    def __init__(self, distribu: Distribu, company_id: CompanyId | None) -> None:
        self._distribu = distribu
        self._company_id = company_id

    @property
    def company_id(self) -> CompanyId:
        """The company. Raises `asking.NotUnderstood` when none was said."""
        if self._company_id is None:
            raise asking.NotUnderstood("say for which company: --company SLUG")
        return self._company_id

    async def execute(self, request: Request[R]) -> R:
        """Run a request where it belongs. Raises `Refused`."""
        company_id = None if asking.of_the_platform(type(request)) else self.company_id
        return await self._distribu.execute(Actor.system(company_id, LABEL), request)


def operate(
    data_dir: str | None,
    company: str | None,
    do: Callable[[Operator], Awaitable[R]],
    *,
    realm: CompanyId | None = None,
) -> R:
    """Do something as the operator of a company with a slug, or of none, or of the ``realm``.

    Raises `NotFound`, `Refused`.
    """

    async def run(distribu: Distribu) -> R:
        company_id = realm
        if company is not None:
            company_id = await distribu.ports.directory.company(company.strip().lower())
            if company_id is None:
                raise NotFound("company_not_found")
        return await do(Operator(distribu, company_id))

    return on_distribu(settings(data_dir=data_dir), run)


def execute(data_dir: str | None, company: str | None, request: Request[R]) -> R:
    """Run a request, of the platform or in a company. Raises `Refused`, `asking.NotUnderstood`."""
    kind = type(request)
    if asking.of_the_platform(kind) != (company is None):
        if company is None:
            raise asking.NotUnderstood("say for which company: --company SLUG")
        raise asking.NotUnderstood(f"{kind.__name__} is done for the platform: leave --company out.")
    return operate(data_dir, company, lambda operator: operator.execute(request))


def until_told(settings: Settings, run: Callable[[Settings], Any]) -> None:
    """Run something long on the database until SIGTERM or SIGINT, and end with 0."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("distribu.worker").setLevel(logging.INFO)  # what a worker counted, when it ends
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


# what several commands are told


class _Time(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no date or time such as 2027-01-31 or 2027-01-31T09:30:00Z", param, ctx)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at


TIME: Final = _Time()
company_option = click.option("--company", required=True, metavar="SLUG", help="Which company.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 100), default=50, show_default=True, help="At most."
)
cursor_option = click.option("--cursor", metavar="ID", help="Go on after this one.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask first.")


def at_terminal() -> bool:
    """Whether somebody is there to be asked."""
    return sys.stdin is not None and sys.stdin.isatty()


def sure(question: str, *, yes: bool) -> None:
    """Have the operator say yes, unless they did.

    Raises `asking.NotUnderstood` where nobody is there to be asked, `click.Abort` for a no.
    """
    if yes:
        return
    if not at_terminal():
        raise asking.NotUnderstood("this asks first, and there is no terminal to ask at: say --yes.")
    click.confirm(question, abort=True, err=True)
