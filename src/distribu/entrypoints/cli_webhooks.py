"""The command line about webhooks: subscriptions, what went out to them, and the keys of the vault."""

from datetime import datetime
from typing import Final

import rich_click as click

from distribu.application import views
from distribu.application.vault import Resealed, ResealSecrets
from distribu.application.webhooks import (
    EditWebhook,
    ListDeliveries,
    ListWebhooks,
    ReadDelivery,
    RegisterWebhook,
    RemoveWebhook,
    ReplayDeliveries,
    ReplayDelivery,
    RotateWebhookSecret,
    SendTest,
)
from distribu.domain.values import DeliveryId, WebhookId
from distribu.domain.webhooks import DeliveryStatus, WireEvent
from distribu.entrypoints import operating, showing

_USUAL: Final = tuple(one for one in WireEvent if not one.startswith("audit."))

_ON_ITS_WAY: Final = (
    "It is sent at once where `distribu serve` or `worker` runs, else when one does. What came of it: "
    "distribu webhook deliveries {} --company {}"
)
_NOTHING_WENT_OUT: Final = (
    "Nothing went out to it yet. It takes an event that it is subscribed to, or `distribu webhook test`; and "
    "`distribu serve` or `worker` has to run."
)


@click.group()
def webhook() -> None:
    """Webhooks: telling other systems what happened."""


@webhook.command("add")
@click.argument("url")
@operating.company_option
@click.option(
    "--event",
    "events",
    multiple=True,
    type=click.Choice([str(one) for one in WireEvent]),
    help="What to tell of; give it as often as needed. By default everything but what is of the audit log.",
)
@operating.command
def webhook_add(url: str, company: str, events: tuple[str, ...], data_dir: str | None) -> None:
    """Subscribe a URL to events. The signing secret is printed this once.

    Example: distribu webhook add https://erp.example/hook --company acme --event order.created
    """
    wanted = tuple(WireEvent(one) for one in events) or _USUAL
    showing.result(operating.execute(data_dir, company, RegisterWebhook(url=url, events=wanted)))


@webhook.command("rotate")
@click.argument("id")
@operating.company_option
@click.option("--now", is_flag=True, help="End the old secret at once: somebody else has seen it.")
@operating.command
def webhook_rotate(id: str, company: str, now: bool, data_dir: str | None) -> None:
    """Give a webhook a new secret, printed this once. The old one stays valid for seven days.

    Example: distribu webhook rotate 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    rotate = RotateWebhookSecret(webhook_id=WebhookId(id), grace=not now)
    showing.result(operating.execute(data_dir, company, rotate))


@webhook.command("list")
@operating.company_option
@operating.limit_option
@operating.cursor_option
@operating.command
def webhook_list(company: str, limit: int, cursor: str | None, data_dir: str | None) -> None:
    """Webhooks, newest first, and whether they are switched on.

    Example: distribu webhook list --company acme
    """
    page = operating.execute(data_dir, company, ListWebhooks(limit=limit, cursor=cursor))
    none = f"No webhooks yet: distribu webhook add URL --company {company}"
    showing.result(page, "id", "url", "isActive", "events", none=none)


@webhook.command("enable")
@click.argument("id")
@operating.company_option
@operating.command
def webhook_enable(id: str, company: str, data_dir: str | None) -> None:
    """Switch a webhook on, also one that was switched off because nothing arrived; what waits is sent.

    Example: distribu webhook enable 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    _switch(id, company, data_dir, on=True)


@webhook.command("disable")
@click.argument("id")
@operating.company_option
@operating.yes_option
@operating.command
def webhook_disable(id: str, company: str, yes: bool, data_dir: str | None) -> None:
    """Switch a webhook off: nothing more is sent. What is still to be sent waits until it is enabled.

    Events that happen meanwhile are not sent later; the feed (GET /api/v1/events) has them.

    Example: distribu webhook disable 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    operating.sure(f"Switch webhook {id} off? What happens meanwhile is not sent later.", yes=yes)
    _switch(id, company, data_dir, on=False)


def _switch(id: str, company: str, data_dir: str | None, *, on: bool) -> None:
    edit = EditWebhook(webhook_id=WebhookId(id), is_active=on)
    showing.result(operating.execute(data_dir, company, edit))


@webhook.command("remove")
@click.argument("id")
@operating.company_option
@operating.yes_option
@operating.command
def webhook_remove(id: str, company: str, yes: bool, data_dir: str | None) -> None:
    """Stop a webhook for good: its secret is destroyed, and what waits is never sent.

    Example: distribu webhook remove 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    operating.sure(f"Remove webhook {id}? It cannot be undone; `webhook disable` can.", yes=yes)
    operating.execute(data_dir, company, RemoveWebhook(webhook_id=WebhookId(id)))
    showing.done(f"Webhook {id} is removed.")


@webhook.command("test")
@click.argument("id")
@operating.company_option
@operating.command
def webhook_test(id: str, company: str, data_dir: str | None) -> None:
    """Have a test event sent, also to a webhook that is switched off.

    Example: distribu webhook test 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    showing.result(operating.execute(data_dir, company, SendTest(webhook_id=WebhookId(id))))
    showing.hint(_ON_ITS_WAY.format(id, company))


@webhook.command("replay")
@click.argument("id", required=False)
@operating.company_option
@click.option("--delivery", metavar="ID", help="This delivery, whatever came of it.")
@click.option("--since", type=operating.TIME, help="Those of the webhook made from this time on.")
@click.option("--until", type=operating.TIME, help="Before this time.")
@click.option(
    "--status",
    type=click.Choice([str(one) for one in DeliveryStatus]),
    help="Those that stand like this; by default all that have not arrived.",
)
@operating.command
def webhook_replay(
    id: str | None,
    company: str,
    delivery: str | None,
    since: datetime | None,
    until: datetime | None,
    status: str | None,
    data_dir: str | None,
) -> None:
    """Send deliveries again: one, or those of a time.

    Example: distribu webhook replay 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme --since 2027-01-31
    """
    if delivery is not None:
        if id is not None or since is not None or until is not None or status is not None:
            raise click.UsageError("--delivery stands alone")
        showing.result(operating.execute(data_dir, company, ReplayDelivery(delivery_id=DeliveryId(delivery))))
        return
    if id is None or since is None:
        raise click.UsageError("say which webhook, and --since when; or --delivery ID")
    order = ReplayDeliveries(
        webhook_id=WebhookId(id),
        since=since,
        until=until,
        status=DeliveryStatus(status) if status is not None else None,
    )
    showing.result(operating.execute(data_dir, company, order))
    showing.hint(_ON_ITS_WAY.format(id, company))


@webhook.command("deliveries")
@click.argument("id")
@operating.company_option
@operating.limit_option
@operating.cursor_option
@operating.command
def webhook_deliveries(id: str, company: str, limit: int, cursor: str | None, data_dir: str | None) -> None:
    """What went out to a webhook, newest first; `webhook attempts` shows what was tried of one.

    PENDING is tried (again) at nextAttemptAt, PARKED waits until the webhook is enabled, DEAD has failed
    for good (`webhook replay`). Without a lastStatus there was no answer to the last attempt.

    Example: distribu webhook deliveries 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    wanted = ListDeliveries(webhook_id=WebhookId(id), limit=limit, cursor=cursor)
    page = operating.execute(data_dir, company, wanted)
    columns = ("createdAt", "event", "position", "status", "attemptCount", "lastStatus", "nextAttemptAt")
    showing.result(page, *columns, "id", none=_NOTHING_WENT_OUT)


@webhook.command("attempts")
@click.argument("delivery")
@operating.company_option
@operating.command
def webhook_attempts(delivery: str, company: str, data_dir: str | None) -> None:
    """Every attempt of a delivery, and what the receiver said.

    Example: distribu webhook attempts 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    found = operating.execute(data_dir, company, ReadDelivery(delivery_id=DeliveryId(delivery)))
    columns = ("number", "at", "status", "durationMs", "error", "body")
    showing.view({"data": views.of(found).attempts}, *columns, none="No attempt was made yet.")


@click.group()
def vault() -> None:
    """The vault: the keys that seal secrets which have to be used again."""


@vault.command("reseal")
@operating.command
def vault_reseal(data_dir: str | None) -> None:
    """Seal everything that is kept under the newest key of DISTRIBU_VAULT_KEYS.

    To change the key: put a new one in front, restart, run this; a day later, when the stored answers
    under the old one are gone, take that away. It can be stopped, and run again. What is unreadable was
    sealed under a key that is not in the ring: it is left as it is.

    Example: distribu vault reseal
    """
    counts = {"companies": 0, "users": 0, "mails": 0, "resealed": 0, "unreadable": 0}

    async def run(operator: operating.Operator) -> None:
        after: str | None = ""
        while after is not None:
            done: Resealed = await operator.execute(ResealSecrets(after=after))
            counts[done.what] += done.looked_at
            counts["resealed"] += done.resealed
            counts["unreadable"] += done.unreadable
            showing.progress(
                f"{counts['resealed']} sealed anew; looked at {counts['companies']} companies, "
                f"{counts['users']} users, {counts['mails']} mails"
            )
            after = done.next

    operating.operate(data_dir, None, run)
    showing.progress("")
    showing.view(counts)
