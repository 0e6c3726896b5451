"""Jobs from the command line: when they are due, how they went, and one of them now."""

import sys

import rich_click as click

from distribu.application.agenda import Outcome
from distribu.application.jobs import listed, named, run_now
from distribu.entrypoints import operating, showing


@click.group()
def cron() -> None:
    """Jobs: what the workers do again and again."""


@cron.command("list")
@operating.command
def cron_list(data_dir: str | None) -> None:
    """Every job: what it does, how often, when it last ended and how, and when it is due next.

    Example: distribu cron list
    """

    shown = operating.on_distribu(operating.settings(data_dir=data_dir), listed)
    showing.view({"data": shown}, "job", "every", "running", "ranAt", "outcome", "dueAt", "what")


@cron.command("run")
@click.argument("name")
@operating.command
def cron_run(name: str, data_dir: str | None) -> None:
    """Run a job now, due or not, and wait for its end: 14 no such job, 15 running already, 23 it failed.

    Example: distribu cron run forget
    """
    job = named(name)

    ran = operating.on_distribu(
        operating.settings(data_dir=data_dir), lambda distribu: run_now(distribu, job)
    )
    showing.view(ran)
    if ran.outcome is not Outcome.DONE:
        sys.exit(operating.JOB_FAILED)
