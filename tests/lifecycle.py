"""The life of a subscription, told once. Whoever plays it, what comes of it is the same: `TOLD`."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import httpx

from distribu.adapters.mail import Arrived
from distribu.adapters.memory.twins import Received

NAME: Final = "Longacre Supplies"
HOOK: Final = "http://localhost:9000/hook"
EVENTS: Final = (
    "customer.created",
    "product.created",
    "order.created",
    "order.status_changed",
    "invoice.paid",
)


class Stage(Protocol):
    """Where it is played: a company where plans are sold, and the Stripe that sells them."""

    mail: list[Arrived]
    received: list[Received]

    async def sign_up(self) -> str:
        """A company called `NAME` comes to be, on trial, with an OWNER; the OWNER's address."""

    async def owner(self) -> httpx.AsyncClient:
        """The OWNER, signed in anew, at ``/account``."""

    async def work(self) -> object:
        """What is due is done."""

    async def pass_days(self, days: int) -> None:
        """Days pass, one after the other, and on each what is due is done."""

    async def pay(self, plan: str) -> None:
        """Buy a plan by the month, change to it, or pay what is open of it, by a card that works."""

    async def fail(self) -> None:
        """The card is refused from now on."""

    async def cancel(self) -> None:
        """End the subscription with its period."""

    async def tell_all_again(self) -> None:
        """Stripe sends all that it ever told once more."""


@dataclass(frozen=True, kw_only=True)
class Told:
    """What came of it: of each step how it stood and what the OWNER was mailed; what the audit log got, by
    whom and how often; and what the webhook was told, how often."""

    steps: Mapping[str, Sequence[str]]
    mails: Mapping[str, Sequence[str]]
    records: Mapping[str, int]
    events: Mapping[str, int]


@dataclass
class _Book:
    stage: Stage
    address: str
    browser: httpx.AsyncClient
    steps: dict[str, list[str]] = field(default_factory=dict)
    mails: dict[str, list[str]] = field(default_factory=dict)

    async def note(self, step: str, order: Any = None) -> None:
        """How it stands, as the OWNER sees it, and whether an order is taken."""
        await self.stage.work()
        self.browser = await self.stage.owner()
        has = await self.data("GET", "/billing")
        said = [has["plan"], has["status"]]
        if has["cancelsAt"]:
            said.append("ends")
        if order is not None:
            said.append(await self.tried("/orders", order))
        self.steps[step] = said
        before = Counter(one for mails in self.mails.values() for one in mails)
        self.mails[step] = sorted((Counter(self._about()) - before).elements())

    def _about(self) -> Iterator[str]:
        for one in self.stage.mail:
            if one.to == self.address and NAME in one.subject and "sealed" not in one.subject:
                yield re.sub(r" on \d.*", "", one.subject)

    async def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        answer = await self.browser.request(method, path, json=body)
        assert answer.status_code < 500, answer.text
        return answer

    async def data(self, method: str, path: str, body: Any = None) -> Any:
        answer = await self.ask(method, path, body)
        assert answer.is_success, answer.text
        return answer.json()["data"]

    async def tried(self, path: str, body: Any) -> str:
        """What a POST that makes something is answered."""
        answer = await self.ask("POST", path, body)
        return "taken" if answer.is_success else f"{answer.status_code} {answer.json()['code']}"


async def live(stage: Stage) -> Told:
    """From sign-up through trial, warnings, expiry, purchase, renewal, a failed card, recovery, upgrade, a
    downgrade over the limit and cancellation."""
    address = await stage.sign_up()
    book = _Book(stage, address, await stage.owner())
    await book.data("POST", "/webhooks", {"url": HOOK, "events": EVENTS})
    product = await book.data("POST", "/products", {"name": "Oat Flour", "price": 10, "stock": 1000})
    customer = await book.data("POST", "/customers", {"email": "orders@corner-shop.example"})
    wanted = {"customerId": customer["id"], "items": [{"productId": product["id"], "quantity": 1}]}
    order = await book.data("POST", "/orders", wanted)
    await book.note("signed up")

    await stage.pass_days(11)
    await book.note("three days are left")
    await stage.pass_days(2)
    await book.note("one day is left", wanted)
    await stage.pass_days(1)
    await book.note("the trial is over", wanted)
    for path, body in (
        ("/products", {"name": "Rye", "price": 1}),
        ("/customers", {"email": "new@corner-shop.example"}),
        ("/invitations", {"email": "new@longacre.example", "role": "MEMBER"}),
    ):
        book.steps[f"then {path}"] = [await book.tried(path, body)]
    moved = await book.data("PATCH", f"/orders/{order['id']}", {"status": "CONFIRMED"})
    exported = await book.ask("GET", "/audit/export?format=JSONL")
    book.steps["then what is there"] = [moved["status"], str(exported.status_code)]

    await stage.pay("STARTER")
    await book.note("bought", wanted)
    await stage.pass_days(31)
    await book.note("renewed")
    await stage.fail()
    await stage.pass_days(31)
    await book.note("the card failed", wanted)
    await stage.pay("STARTER")
    await book.note("recovered")

    await stage.pay("GROWTH")
    await book.note("a larger plan")
    answers = {await book.tried("/products", {"name": f"Flour {n}", "price": n}) for n in range(1, 51)}
    preview = await book.data("POST", "/billing/preview", {"plan": "STARTER"})
    book.steps["51 products"] = [*answers, *preview["over"]]
    await stage.pay("STARTER")
    await book.note("a smaller plan than what is used", wanted)
    full = (await book.ask("POST", "/products", {"name": "One more", "price": 1})).json()
    book.steps["then one more product"] = [full["code"], *full["fields"].values()]

    await stage.cancel()
    await book.note("to end")
    await stage.pass_days(31)
    await book.note("over", wanted)
    await stage.tell_all_again()
    await book.note("all told again", wanted)
    events = Counter(json.loads(one.body)["event"] for one in stage.received)
    return Told(steps=book.steps, mails=book.mails, records=await _records(book), events=events)


async def _records(book: _Book) -> Mapping[str, int]:
    """What the audit log says of paying, and who did it; whoever signs up starts it, or the harness does."""
    found: Counter[str] = Counter()
    cursor = ""
    while True:
        page = await book.ask("GET", f"/audit?limit=100{cursor}")
        for one in page.json()["data"]:
            if one["action"].partition(".")[0] in ("subscription", "invoice", "payment_notice"):
                by = "" if one["action"] == "subscription.started" else f"{one['actorType']} "
                found[by + one["action"]] += 1
        if not (after := page.json()["pagination"]["nextCursor"]):
            return found
        cursor = f"&cursor={after}"


TOLD: Final = Told(
    steps={
        "signed up": ["STARTER", "TRIALING"],
        "three days are left": ["STARTER", "TRIALING"],
        "one day is left": ["STARTER", "TRIALING", "taken"],
        "the trial is over": ["STARTER", "EXPIRED", "402 payment_required"],
        "then /products": ["402 payment_required"],
        "then /customers": ["402 payment_required"],
        "then /invitations": ["402 payment_required"],
        "then what is there": ["CONFIRMED", "200"],
        "bought": ["STARTER", "ACTIVE", "taken"],
        "renewed": ["STARTER", "ACTIVE"],
        "the card failed": ["STARTER", "PAST_DUE", "taken"],
        "recovered": ["STARTER", "ACTIVE"],
        "a larger plan": ["GROWTH", "ACTIVE"],
        "51 products": ["taken", "products"],
        "a smaller plan than what is used": ["STARTER", "ACTIVE", "taken"],
        "then one more product": ["plan_limit", "products", "51", "50", "/account/billing"],
        "to end": ["STARTER", "ACTIVE", "ends"],
        "over": ["STARTER", "CANCELED", "ends", "402 payment_required"],
        "all told again": ["STARTER", "CANCELED", "ends", "402 payment_required"],
    },
    mails={
        "signed up": [],
        "three days are left": [f"The trial of {NAME} ends"],
        "one day is left": [f"The trial of {NAME} ends"],
        "the trial is over": [f"The trial of {NAME} is over"],
        "bought": [f"Invoice PRETEND-0001 of {NAME} was paid", f"{NAME} is on the plan STARTER"],
        "renewed": [f"Invoice PRETEND-0002 of {NAME} was paid"],
        "the card failed": [f"A payment for {NAME} failed"],
        "recovered": [f"Invoice PRETEND-0003 of {NAME} was paid", f"The payment for {NAME} went through"],
        "a larger plan": [f"{NAME} is on the plan GROWTH"],
        "a smaller plan than what is used": [f"{NAME} is on the plan STARTER"],
        "to end": [f"The subscription of {NAME} ends"],
        "over": [f"The subscription of {NAME} is over"],
        "all told again": [],
    },
    records={
        "subscription.started": 1,
        "SYSTEM subscription.trial_ending": 2,
        "SYSTEM subscription.trial_ended": 1,
        "SYSTEM subscription.updated": 5,  # bought, renewed, two other plans, to end
        "SYSTEM subscription.past_due": 1,
        "SYSTEM subscription.recovered": 1,
        "SYSTEM subscription.canceled": 1,
        "SYSTEM invoice.paid": 3,
        "SYSTEM invoice.payment_failed": 2,  # tried again after three days
        "SYSTEM payment_notice.applied": 10,
        "SYSTEM payment_notice.ignored": 10,
    },
    events={
        "customer.created": 1,
        "product.created": 51,
        "order.created": 5,
        "order.status_changed": 1,
        "invoice.paid": 3,
    },
)
