"""Billing from the command line: what a company pays for, and whether what is sold can be sold."""

import sys

import rich_click as click
import uvloop

from distribu.application.billing import ReadSubscription
from distribu.application.notices import ListNotices, ReplayNotice
from distribu.application.plans import SubscriptionView
from distribu.application.platform import SetPlan
from distribu.application.ports import PaymentsAway, PaymentsRefused
from distribu.container import offers
from distribu.domain.billing import Plan
from distribu.entrypoints import operating, showing


@click.group()
def billing() -> None:
    """What companies pay Distribu, through Stripe."""


@billing.command("check")
@operating.command
def billing_check(data_dir: str | None) -> None:
    """Look each price up at Stripe, and name what is missing or wrong; that ends it with 3.

    Example: distribu billing check
    """
    try:
        found = uvloop.run(offers(operating.settings(data_dir=data_dir)))
    except (PaymentsAway, PaymentsRefused) as failed:
        click.echo(f"distribu: {failed}", err=True)
        sys.exit(operating.CANNOT_START)
    shown = [
        {
            "setting": one.setting,
            "price": one.ref,
            "amount": "" if one.amount is None else f"{one.amount} {one.currency}",
            "wrong": one.wrong,
        }
        for one in found
    ]
    none = "Nothing is sold here: DISTRIBU_STRIPE_KEY is not set, and every company may use everything."
    showing.view({"data": shown}, "setting", "price", "amount", "wrong", none=none)
    if any(one.wrong for one in found):
        sys.exit(operating.CANNOT_START)


@billing.command("show")
@operating.company_option
@operating.command
def billing_show(company: str, data_dir: str | None) -> None:
    """A company's plan, how it stands, and what is used and allowed of each.

    Example: distribu billing show --company acme
    """
    showing.result(operating.execute(data_dir, company, ReadSubscription()))


@billing.command("set-plan")
@operating.company_option
@click.option("--plan", required=True, type=click.Choice([*Plan]), help="Which one.")
@operating.command
def billing_set_plan(company: str, plan: Plan, data_dir: str | None) -> None:
    """Give a company a plan that is paid otherwise than through Stripe, from now on.

    Example: distribu billing set-plan --company acme --plan ENTERPRISE
    """

    async def run(operator: operating.Operator) -> SubscriptionView:
        return await operator.execute(SetPlan(company_id=operator.company_id, plan=plan))

    showing.result(operating.operate(data_dir, company, run))


@billing.command("events")
@click.option("--failed", is_flag=True, help="Only what is still to be applied.")
@operating.command
def billing_events(failed: bool, data_dir: str | None) -> None:
    """What Stripe told us last, and what became of it: at most 100.

    Example: distribu billing events --failed
    """
    found = operating.execute(data_dir, None, ListNotices(failed=failed))
    showing.result(found, "ref", "type", "status", "error", "createdAt")


@billing.command("replay")
@click.argument("ref", metavar="ID")
@operating.command
def billing_replay(ref: str, data_dir: str | None) -> None:
    """See to one of Stripe's events once more, by its id there. What was applied stays applied, once.

    Example: distribu billing replay evt_1PgafyLkdIwHu7ix
    """
    showing.result(operating.execute(data_dir, None, ReplayNotice(ref=ref)))
