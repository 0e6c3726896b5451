"""Billing from the command line: what a company pays for, and whether what is sold can be sold."""

import sys
from typing import Final

import rich_click as click
import uvloop

from distribu.application.billing import ReadSubscription
from distribu.application.notices import ListNotices, ReplayNotice
from distribu.application.plans import SubscriptionView
from distribu.application.platform import SetPlan
from distribu.application.ports import PaymentsAway, PaymentsRefused
from distribu.application.reconciling import Difference, Looked, SyncBilling
from distribu.container import offers
from distribu.domain.billing import Plan
from distribu.entrypoints import operating, showing

_DIFFERENCE: Final = ("company", "what", "field", "here", "atStripe", "applied")


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
    none = (
        "By these settings nothing is sold, and every company may use everything: DISTRIBU_STRIPE_KEY is not "
        "set. `serve --demo` sells by a Stripe that is none, and so do commands with "
        "DISTRIBU_STRIPE_STUB=true."
    )
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


@billing.command("sync")
@click.option("--apply", is_flag=True, help="Take over what Stripe says, as if it had told us now.")
@operating.command
def billing_sync(apply: bool, data_dir: str | None) -> None:
    """Compare every company's subscription with Stripe's, and name each difference; nothing is changed.

    A FIELD that differs is taken over with --apply. The rest is for people: UNKNOWN is known here and not at
    Stripe; UNCLAIMED runs there for no company here; of TWO_RUN one is paid for nothing; SET_ASIDE runs
    beside a plan that an operator has set; DELETED runs for a company that is deleted; of UNANSWERED Stripe
    did not say how it stands. While anything differs it ends with 25.

    Example: distribu billing sync --apply
    """
    found: list[Difference] = []
    looked = Looked(0, 0)

    async def run(operator: operating.Operator) -> None:
        nonlocal looked
        async for step in await operator.execute(SyncBilling(apply=apply)):
            if isinstance(step, Difference):
                found.append(step)
                continue
            looked = step
            so_far = f"{looked.companies} companies, {looked.subscriptions} subscriptions"
            showing.progress(f"{so_far}, {len(found)} differences")

    operating.operate(data_dir, None, run)
    showing.progress("")
    showing.view({"data": found}, *_DIFFERENCE, none="Nothing differs.")
    showing.hint(f"Compared {looked.companies} companies with {looked.subscriptions} subscriptions.")
    if any(not one.applied for one in found):
        sys.exit(operating.BILLING_DIFFERS)
