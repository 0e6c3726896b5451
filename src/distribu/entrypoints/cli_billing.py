"""Billing from the command line: whether what is sold can be sold."""

import sys

import rich_click as click
import uvloop

from distribu.application.ports import PaymentsAway, PaymentsRefused
from distribu.container import offers
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
