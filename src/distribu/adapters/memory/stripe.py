"""A Stripe that is none: customers, checkout, subscriptions, invoices and events, in memory and in a hurry.

It does what Stripe documents for a card that is charged by itself, of what Distribu uses; its time passes
when it is asked what has become of it. Over HTTP it is the stub (`entrypoints/stubs/stripe.py`), without it
the twin of the port Payments. Nothing here has ever seen a card.
"""

import copy
import hashlib
import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, Final

import msgspec

from distribu.adapters import stripe_words
from distribu.application.payments import PAGE, SOLD, Bought, Offer, PaymentNotice, PaymentsRefused, Prices
from distribu.domain.billing import Interval, Plan
from distribu.domain.errors import Invalid
from distribu.domain.values import CompanyId, Secret

Json = dict[str, Any]

DAY: Final = 86_400
WARNED_S: Final = 3 * DAY
"""How long before its end a trial is told to end (docs.stripe.com/billing/subscriptions/trials)."""

RETRIES_S: Final = (3 * DAY, 5 * DAY, 7 * DAY)
"""When a refused card is tried again, after the first time."""

KEPT_S: Final = DAY
"""How long an Idempotency-Key is known, and a checkout page is open."""

EVENTS_MAX: Final = 10_000
MOVE_MAX: Final = timedelta(days=800)

CENTS: Final = {
    (Plan.STARTER, Interval.MONTH): 7_999,
    (Plan.STARTER, Interval.YEAR): 75_999,
    (Plan.GROWTH, Interval.MONTH): 22_999,
    (Plan.GROWTH, Interval.YEAR): 219_999,
    (Plan.ENTERPRISE, Interval.MONTH): 49_900,
    (Plan.ENTERPRISE, Interval.YEAR): 479_000,
}
"""What is sold, in cents of USD."""

PRICES: Final[Prices] = {
    (plan, interval): (f"price_{plan.lower()}_{interval.lower()}",) for plan, interval in SOLD
}
"""The ids of its prices."""


class No(Exception):
    """It refuses, as Stripe's API does: an HTTP status, and what stands under ``error`` in the body."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        self.status = status
        self.error: Json = {"type": "invalid_request_error", "code": code, "message": message}
        if code == "idempotency_error":
            self.error["type"] = code
        if param is not None:
            self.error["param"] = param
        super().__init__(message)


class PretendStripe:
    """Its objects are dictionaries, as they are in Stripe's JSON. ``ended_as`` is what dunning ends in.

    ``pages`` is the URL that its pages are below, and ``seed`` what its ids begin with after their kind.
    """

    def __init__(self, clock: Callable[[], datetime], *, pages: str = "", seed: str = "") -> None:
        self.pages = pages
        self.ended_as = "canceled"
        self.events: list[Json] = []
        self.customers: dict[str, Json] = {}
        self.sessions: dict[str, Json] = {}
        self.portals: dict[str, Json] = {}
        self.subscriptions: dict[str, Json] = {}
        self.invoices: dict[str, Json] = {}
        self.prices: dict[str, Json] = {
            refs[0]: {
                "id": refs[0],
                "object": "price",
                "active": True,
                "currency": "usd",
                "livemode": False,
                "nickname": f"{kind[0].title()}, each {kind[1].lower()}",
                "recurring": {"interval": kind[1].lower(), "interval_count": 1},
                "type": "recurring",
                "unit_amount": CENTS[kind],
            }
            for kind, refs in PRICES.items()
        }
        self._clock = clock
        self._offset = timedelta()
        self._at: int | None = None
        self._seed = seed
        self._numbers = count(1)
        self._keys: dict[str, tuple[int, bytes, Json]] = {}
        self._refused: set[str] = set()
        self._warned: set[str] = set()

    # time

    @property
    def now(self) -> int:
        """Its time, in seconds since 1970; while it catches up, that of what it is at."""
        return int((self._clock() + self._offset).timestamp()) if self._at is None else self._at

    def move(self, span: timedelta) -> None:
        """Let time pass; whatever was due in it happens when it was."""
        if not timedelta() <= span <= MOVE_MAX:
            raise No(400, "parameter_invalid_integer", f"time moves on by at most {MOVE_MAX.days} days")
        self._offset += span
        self.settle()

    def settle(self) -> None:
        """Do what is due, in its order."""
        until = self.now
        while due := min(
            (one for it in self.subscriptions.values() for one in self._due(it) if one[0] <= until),
            key=lambda one: one[0],
            default=None,
        ):
            self._at, (at, what, subscription) = due[0], due
            try:
                what(subscription)
            finally:
                self._at = None
        for key, (at, _, _) in list(self._keys.items()):
            if at + KEPT_S <= until:
                del self._keys[key]

    def _due(self, it: Json) -> Iterator[tuple[int, Callable[[Json], None], Json]]:
        status, ends = it["status"], _item(it)["current_period_end"]
        if status in ("active", "trialing", "past_due") and it["cancel_at"] is not None:
            yield it["cancel_at"], self._end, it
        if status == "trialing":
            if it["id"] not in self._warned:
                yield it["trial_end"] - WARNED_S, self._warn, it
            yield it["trial_end"], self._renew, it
        elif status == "active" and it["cancel_at"] != ends:
            yield ends, self._renew, it
        elif status == "past_due":
            yield self.invoices[it["latest_invoice"]]["next_payment_attempt"], self._retry, it

    # what its API is asked

    def once(self, key: str | None, asked: Any, make: Callable[[], Json]) -> Json:
        """What was answered under this Idempotency-Key, or now. Raises `No`."""
        self.settle()
        print_ = hashlib.sha256(msgspec.json.encode(asked, order="sorted")).digest()
        if key is not None and key in self._keys:
            _, first, answer = self._keys[key]
            if first != print_:
                raise No(400, "idempotency_error", "This key was used with other parameters.")
            return answer
        made = make()
        if key is not None:
            self._keys[key] = (self.now, print_, made)
        return made

    def get(self, kind: str, id: str) -> Json:
        """An object by its id. Raises `No`."""
        self.settle()
        found: Json | None = getattr(self, kind).get(id)
        if found is None:
            raise No(404, "resource_missing", f"No such {kind.removesuffix('s')}: '{id}'", "id")
        return found

    def checkout(self, asked: Json) -> Json:
        """Open a checkout page. Raises `No`."""
        if asked.get("mode") != "subscription":
            raise No(400, "parameter_invalid_string", "Only subscriptions are sold here.", "mode")
        for name in ("success_url", "cancel_url"):
            if not str(asked.get(name, "")).startswith(("http://", "https://")):
                raise No(400, "url_invalid", "Not a valid URL", name)
        items = asked.get("line_items") or []
        price = self.prices.get(str(items[0].get("price"))) if items else None
        if price is None or not price["active"]:
            raise No(400, "resource_missing", "No such price", "line_items[0][price]")
        customer = asked.get("customer")
        if customer is not None and (customer not in self.customers or asked.get("customer_email")):
            raise No(400, "resource_missing", "No such customer", "customer")
        id = self._id("cs_test")
        made = self.sessions[id] = {
            "id": id,
            "object": "checkout.session",
            "cancel_url": asked["cancel_url"],
            "client_reference_id": asked.get("client_reference_id"),
            "created": self.now,
            "customer": customer,
            "customer_email": asked.get("customer_email"),
            "expires_at": self.now + KEPT_S,
            "line_items": {"data": [{"price": price["id"], "quantity": 1}]},
            "livemode": False,
            "metadata": asked.get("metadata") or {},
            "mode": "subscription",
            "payment_status": "unpaid",
            "status": "open",
            "subscription": None,
            "subscription_data": asked.get("subscription_data") or {},
            "success_url": asked["success_url"],
            "url": f"{self.pages}/checkout/{id}",
        }
        return copy.deepcopy(made)

    def portal(self, asked: Json) -> Json:
        """Open a portal. Raises `No`."""
        if asked.get("customer") not in self.customers:
            raise No(400, "resource_missing", "No such customer", "customer")
        id = self._id("bps")
        self.portals[id] = {
            "id": id,
            "object": "billing_portal.session",
            "created": self.now,
            "customer": asked["customer"],
            "livemode": False,
            "return_url": asked.get("return_url"),
            "url": f"{self.pages}/portal/{id}",
        }
        return copy.deepcopy(self.portals[id])

    def listed(self, *, status: str | None, limit: int, after: str | None) -> Json:
        """A page of subscriptions, newest first. Raises `No`."""
        self.settle()
        ids = list(reversed(self.subscriptions))
        if after is not None:
            if after not in ids:
                raise No(400, "resource_missing", "No such subscription", "starting_after")
            ids = ids[ids.index(after) + 1 :]
        found = [self.subscriptions[id] for id in ids]
        if status != "all":
            found = [it for it in found if it["status"] not in ("canceled", "incomplete_expired")]
        limit = max(1, min(limit, PAGE))
        page = {"object": "list", "url": "/v1/subscriptions", "has_more": len(found) > limit}
        return copy.deepcopy({**page, "data": found[:limit]})

    # what a payer does on its pages

    def pay(self, session_id: str) -> Json:
        """Pay what is in a checkout. Returns the subscription. Raises `No` when the page is over."""
        session = self.opened(session_id)
        if session["customer"] is None:
            session["customer"] = self._customer(session["customer_email"])
        self._refused.discard(session["customer"])
        wanted = session["subscription_data"]
        days = int(wanted.get("trial_period_days") or 0)
        price = self.prices[session["line_items"]["data"][0]["price"]]
        id, begins = self._id("sub"), self.now
        ends = begins + days * DAY if days else _later(begins, price)
        it = self.subscriptions[id] = {
            "id": id,
            "object": "subscription",
            "cancel_at": None,
            "cancel_at_period_end": False,
            "canceled_at": None,
            "created": begins,
            "currency": price["currency"],
            "customer": session["customer"],
            "ended_at": None,
            "items": {
                "object": "list",
                "data": [
                    {
                        "id": self._id("si"),
                        "object": "subscription_item",
                        "current_period_start": begins,
                        "current_period_end": ends,
                        "price": copy.deepcopy(price),
                        "quantity": 1,
                        "subscription": id,
                    }
                ],
            },
            "latest_invoice": None,
            "livemode": False,
            "metadata": wanted.get("metadata") or {},
            "status": "trialing" if days else "active",
            "trial_end": ends if days else None,
            "trial_start": begins if days else None,
        }
        session |= {"status": "complete", "payment_status": "paid", "subscription": id, "url": None}
        self._tell("customer.subscription.created", it)
        self._bill(it, "subscription_create", 0 if days else price["unit_amount"])
        self._tell("checkout.session.completed", session)
        return it

    def opened(self, session_id: str) -> Json:
        """A checkout that is still open. Raises `No`."""
        session = self.get("sessions", session_id)
        if session["status"] == "open" and session["expires_at"] <= self.now:
            session |= {"status": "expired", "url": None}
            self._tell("checkout.session.expired", session)
        if session["status"] != "open":
            raise No(400, "checkout_over", f"This page is {session['status']}.")
        return session

    def of(self, customer_id: str) -> list[Json]:
        """The subscriptions of a customer, newest first."""
        self.settle()
        return [it for it in reversed(self.subscriptions.values()) if it["customer"] == customer_id]

    def change(self, subscription_id: str, price_id: str) -> Json:
        """Change the plan, at once. Another interval begins a period, and is paid. Raises `No`."""
        it, price = self._live(subscription_id), self.get("prices", price_id)
        item = _item(it)
        before = {"items": copy.deepcopy(it["items"])}
        anew = item["price"]["recurring"] != price["recurring"]
        item["price"] = copy.deepcopy(price)
        if anew and it["status"] != "trialing":
            item |= {"current_period_start": self.now, "current_period_end": _later(self.now, price)}
            if it["cancel_at"] is not None:
                it["cancel_at"] = item["current_period_end"]
        self._tell("customer.subscription.updated", it, before)
        if anew and it["status"] == "active":
            self._bill(it, "subscription_update", price["unit_amount"])
        return it

    def cancel(self, subscription_id: str, *, now: bool = False) -> Json:
        """End a subscription at the end of its period, or now. Raises `No`."""
        it = self._live(subscription_id)
        if now:
            self._end(it)
            return it
        before = {"cancel_at_period_end": it["cancel_at_period_end"], "cancel_at": it["cancel_at"]}
        ends = _item(it)["current_period_end"]
        it |= {"cancel_at_period_end": True, "cancel_at": ends, "canceled_at": self.now}
        self._tell("customer.subscription.updated", it, before)
        return it

    def resume(self, subscription_id: str) -> Json:
        """Take back that it will end. Raises `No`."""
        it = self._live(subscription_id)
        before = {"cancel_at_period_end": it["cancel_at_period_end"], "cancel_at": it["cancel_at"]}
        it |= {"cancel_at_period_end": False, "cancel_at": None, "canceled_at": None}
        self._tell("customer.subscription.updated", it, before)
        return it

    def card(self, customer_id: str, *, works: bool) -> None:
        """Pay by another card from now on. One that works pays what is open. Raises `No`."""
        self.get("customers", customer_id)
        if not works:
            self._refused.add(customer_id)
            return
        self._refused.discard(customer_id)
        for it in self.of(customer_id):
            if it["status"] in ("past_due", "unpaid"):
                self._attempt(it, self.invoices[it["latest_invoice"]])

    # what only Stripe's people, or nobody, can do

    def delete(self, customer_id: str) -> None:
        """Delete a customer; what it bought ends. Raises `No`."""
        customer = self.get("customers", customer_id)
        for it in self.of(customer_id):
            if it["status"] not in ("canceled", "incomplete_expired"):
                self._end(it)
        del self.customers[customer_id]
        self._tell("customer.deleted", customer)

    def alter(self, subscription_id: str, fields: Json) -> Json:
        """Have a subscription be as no button makes it: its status, its price, its metadata. Raises `No`."""
        it = self.get("subscriptions", subscription_id)
        before = {name: copy.deepcopy(it.get(name)) for name in fields}
        it |= fields
        self._tell("customer.subscription.updated", it, before)
        return it

    def signed(self, event: Json, secrets: Sequence[str]) -> tuple[bytes, str]:
        """An event as it is sent: the body, and its header, with a signature by each secret, as of this
        moment (docs.stripe.com/webhooks, on verifying them by hand)."""
        body = msgspec.json.encode(event)
        at = int(self._clock().timestamp())
        sums = [hmac.new(one.encode(), b"%d." % at + body, hashlib.sha256).hexdigest() for one in secrets]
        return body, ",".join([f"t={at}", *(f"v1={one}" for one in sums)])

    # how it goes on

    def _live(self, id: str) -> Json:
        it = self.get("subscriptions", id)
        if it["status"] in ("canceled", "incomplete_expired"):
            raise No(400, "resource_missing", f"No such subscription: '{id}'", "id")
        return it

    def _customer(self, email: str | None) -> str:
        id = self._id("cus")
        made = {"id": id, "object": "customer", "created": self.now, "email": email, "metadata": {}}
        self.customers[id] = {**made, "livemode": False}
        self._tell("customer.created", self.customers[id])
        return id

    def _warn(self, it: Json) -> None:
        self._warned.add(it["id"])
        self._tell("customer.subscription.trial_will_end", it)

    def _renew(self, it: Json) -> None:
        item = _item(it)
        begins = item["current_period_end"]
        before = {"status": it["status"]} if it["status"] == "trialing" else {}
        item |= {"current_period_start": begins, "current_period_end": _later(begins, item["price"])}
        it["status"] = "active"
        self._tell("customer.subscription.updated", it, before)
        self._bill(it, "subscription_cycle", item["price"]["unit_amount"])

    def _retry(self, it: Json) -> None:
        invoice = self.invoices[it["latest_invoice"]]
        self._attempt(it, invoice)
        if invoice["status"] == "open" and invoice["next_payment_attempt"] is None:
            if self.ended_as == "canceled":
                self._end(it)
            else:
                it["status"] = self.ended_as
                self._tell("customer.subscription.updated", it, {"status": "past_due"})

    def _end(self, it: Json) -> None:
        it |= {"status": "canceled", "ended_at": self.now, "canceled_at": it["canceled_at"] or self.now}
        self._tell("customer.subscription.deleted", it)

    def _bill(self, it: Json, reason: str, cents: int) -> None:
        id, item = self._id("in"), _item(it)
        invoice = self.invoices[id] = {
            "id": id,
            "object": "invoice",
            "amount_due": cents,
            "amount_paid": 0,
            "attempt_count": 0,
            "billing_reason": reason,
            "created": self.now,
            "currency": it["currency"],
            "customer": it["customer"],
            "livemode": False,
            "next_payment_attempt": None,
            "number": f"PRETEND-{len(self.invoices) + 1:04}",
            "parent": {
                "type": "subscription_details",
                "subscription_details": {"subscription": it["id"], "metadata": it["metadata"]},
            },
            "period_end": item["current_period_end"],
            "period_start": item["current_period_start"],
            "status": "open",
            "total": cents,
        }
        it["latest_invoice"] = id
        self._tell("invoice.created", invoice)
        self._tell("invoice.finalized", invoice)
        self._attempt(it, invoice)

    def _attempt(self, it: Json, invoice: Json) -> None:
        """Charge the card, or have it refused."""
        invoice["attempt_count"] += 1
        if it["customer"] not in self._refused or not invoice["amount_due"]:
            invoice |= {"status": "paid", "amount_paid": invoice["total"], "next_payment_attempt": None}
            self._tell("invoice.paid", invoice)
            self._tell("invoice.payment_succeeded", invoice)
            if it["status"] in ("past_due", "unpaid"):
                before, it["status"] = it["status"], "active"
                self._tell("customer.subscription.updated", it, {"status": before})
            return
        tried = invoice["attempt_count"] - 1
        again = invoice["created"] + RETRIES_S[tried] if tried < len(RETRIES_S) else None
        invoice["next_payment_attempt"] = again
        self._tell("invoice.payment_failed", invoice)
        if it["status"] == "active":
            it["status"] = "past_due"
            self._tell("customer.subscription.updated", it, {"status": "active"})

    def _tell(self, type: str, about: Json, before: Json | None = None) -> None:
        data: Json = {"object": copy.deepcopy(about)}
        if before is not None:
            data["previous_attributes"] = before
        self.events.append(
            {
                "id": self._id("evt"),
                "object": "event",
                "api_version": "2026-10-28.endive",
                "created": self.now,
                "data": data,
                "livemode": False,
                "pending_webhooks": 1,
                "request": {"id": None, "idempotency_key": None},
                "type": type,
            }
        )
        del self.events[:-EVENTS_MAX]

    def _id(self, kind: str) -> str:
        return f"{kind}_{self._seed}{next(self._numbers):06}"


def _item(it: Json) -> Json:
    item: Json = it["items"]["data"][0]
    return item


def _later(seconds: int, price: Json) -> int:
    """One interval on: the same day of a later month, or its last (as Stripe's billing cycle anchors do)."""
    at = datetime.fromtimestamp(seconds, UTC)
    months = at.month - 1 + (12 if price["recurring"]["interval"] == "year" else 1)
    year, month = at.year + months // 12, months % 12 + 1
    after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    last = (after - timedelta(days=1)).day
    return int(at.replace(year=year, month=month, day=min(at.day, last)).timestamp())


class MemoryPayments:
    """The twin of the port Payments. ``stripe`` is what stands behind it, and what its payers do there.

    While ``away`` is set, it raises that.
    """

    def __init__(
        self, stripe: PretendStripe, secrets: Sequence[Secret], prices: Mapping[Any, Any] = PRICES
    ) -> None:
        self.stripe = stripe
        self.away: Exception | None = None
        self.prices_sold: Prices = prices
        self._secrets = tuple(secrets)

    async def checkout(
        self,
        *,
        company_id: CompanyId,
        plan: Plan,
        interval: Interval,
        email: str,
        customer_ref: str | None,
        back: str,
        once: str,
    ) -> str:
        asked = stripe_words.checkout(
            self.prices_sold,
            company_id=company_id,
            plan=plan,
            interval=interval,
            email=email,
            customer_ref=customer_ref,
            back=back,
        )
        key = stripe_words.once(once, asked)
        url: str = self._asked(lambda: self.stripe.once(key, asked, lambda: self.stripe.checkout(asked)))[
            "url"
        ]
        return url

    async def portal(self, *, customer_ref: str, back: str) -> str:
        asked = {"customer": customer_ref, "return_url": back}
        url: str = self._asked(lambda: self.stripe.portal(asked))["url"]
        return url

    async def subscription(self, ref: str) -> Bought | None:
        found = self._asked(lambda: self.stripe.subscriptions.get(ref))
        return None if found is None else stripe_words.bought(found, self.prices_sold)

    async def subscriptions(self, *, after: str | None = None) -> tuple[Sequence[Bought], str | None]:
        page = self._asked(lambda: self.stripe.listed(status="all", limit=PAGE, after=after))
        read = (stripe_words.bought(one, self.prices_sold) for one in page["data"])
        return [it for it in read if it], page["data"][-1]["id"] if page["has_more"] else None

    async def prices(self) -> Sequence[Offer]:
        known = self._asked(lambda: self.stripe.prices)
        refs = [(kind, stripe_words.sold_at(self.prices_sold, *kind)) for kind in SOLD]
        return [stripe_words.offer(known.get(ref), *kind, ref) for kind, ref in refs]

    def read(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentNotice:
        _, header = stripe_words.signed_at(body, signature, now)
        parts = header.split(",")
        shown = [part[3:] for part in parts if part.startswith("v1=")]
        at = next(part[2:] for part in parts if part.startswith("t="))
        wanted = [
            hmac.new(one.reveal().encode(), at.encode() + b"." + body, hashlib.sha256).hexdigest()
            for one in self._secrets
        ]
        if not any(hmac.compare_digest(one, sum) for one in shown for sum in wanted):
            raise Invalid("invalid_signature")
        return stripe_words.notice(body, live=False)

    def told(self, event: Json) -> tuple[bytes, str]:
        """What happened there as it comes in from there: a body, and the header of its signature."""
        return self.stripe.signed(event, [one.reveal() for one in self._secrets])

    async def close(self) -> None:
        """Nothing to give back."""

    def _asked(self, ask: Callable[[], Any]) -> Any:
        if self.away is not None:
            raise self.away
        self.stripe.settle()
        try:
            return ask()
        except No as no:
            raise PaymentsRefused(f"Stripe answered {no.status} {no.error['code']}") from None
