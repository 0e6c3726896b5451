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
    showing.result(page, "id", "url", "isActive", "events", none="No webhooks yet.")


@webhook.command("enable")
@click.argument("id")
@operating.company_option
@operating.command
def webhook_enable(id: str, company: str, data_dir: str | None) -> None:
    """Switch a webhook on, also one that was switched off because nothing arrived; what waits is sent.

    Example: distribu webhook enable 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    showing.result(
        operating.execute(data_dir, company, EditWebhook(webhook_id=WebhookId(id), is_active=True))
    )


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

    Example: distribu webhook deliveries 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    wanted = ListDeliveries(webhook_id=WebhookId(id), limit=limit, cursor=cursor)
    page = operating.execute(data_dir, company, wanted)
    showing.result(page, "createdAt", "event", "position", "status", "nextAttemptAt", "id")


@webhook.command("attempts")
@click.argument("delivery")
@operating.company_option
@operating.command
def webhook_attempts(delivery: str, company: str, data_dir: str | None) -> None:
    """Every attempt of a delivery, and what the receiver said.

    Example: distribu webhook attempts 0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10 --company acme
    """
    found = operating.execute(data_dir, company, ReadDelivery(delivery_id=DeliveryId(delivery)))
    attempts = views.plain(views.of(found))["attempts"]
    columns = ("number", "at", "status", "durationMs", "error", "body")
    showing.view({"data": attempts}, *columns, none="No attempt was made yet.")


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
