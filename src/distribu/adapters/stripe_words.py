"""Stripe's objects in our words: what its API answers, and what its webhooks tell.

As of its version 2026-10-28 (docs.stripe.com/api). A webhook is rendered in the version that its
endpoint was made with, so of what it tells only that is read which has not moved for years, or from both
places.
"""

import hashlib
import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import msgspec

from distribu.application.payments import (
    NOTICE_MAX,
    REF_MAX,
    TOLERANCE_S,
    Bought,
    Invoiced,
    Offer,
    PaymentNotice,
    Prices,
)
from distribu.domain.billing import Interval, Plan, SubscriptionStatus
from distribu.domain.errors import Bug, Invalid
from distribu.domain.values import CompanyId

log: Final = logging.getLogger("distribu.payments")

COMPANY: Final = "distribu_company"
"""The key in Stripe's metadata that the company's id stands under."""

HEADER_MAX: Final = 2_000
"""Characters of the header with the signatures."""

STATUS: Final[Mapping[str, SubscriptionStatus | None]] = {
    "trialing": SubscriptionStatus.TRIALING,
    "active": SubscriptionStatus.ACTIVE,
    "past_due": SubscriptionStatus.PAST_DUE,
    "unpaid": SubscriptionStatus.CANCELED,
    "paused": SubscriptionStatus.CANCELED,
    "canceled": SubscriptionStatus.CANCELED,
    "incomplete": None,
    "incomplete_expired": None,
}
"""Stripe's statuses (docs.stripe.com/billing/subscriptions/overview#subscription-statuses). While it
is ``past_due`` Stripe tries again; which of the three below it becomes when that is over is set at Stripe.
``paused`` is a trial that ended with nothing to pay by. One whose collection is paused keeps its status
there (docs.stripe.com/billing/subscriptions/pause-payment); nothing is paid, so that here it is as those."""

_PLACES: Final = {
    **dict.fromkeys("BIF CLP DJF GNF JPY KMF KRW MGA PYG RWF UGX VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD JOD KWD OMR TND".split(), 3),
}
"""Digits after the point in Stripe's amounts, where they are not two (docs.stripe.com/currencies)."""

_WORD: Final = re.compile(rf"[!-~]{{1,{REF_MAX}}}")
_NUMBER: Final = re.compile(r"[ -~]{1,100}")
_COMPANY_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CURRENCY: Final = re.compile(r"[a-z]{3}")
_TIME: Final = re.compile(r"[0-9]{1,11}")
_AMOUNT_MAX: Final = 10**14


class NotUnderstood(Exception):
    """What Stripe answered is not what it promises to."""


class _Price(msgspec.Struct):
    id: str


class _Item(msgspec.Struct):
    price: _Price
    current_period_start: int
    current_period_end: int


class _Items(msgspec.Struct):
    data: list[_Item]


class _Subscription(msgspec.Struct):
    id: str
    customer: str
    status: str
    created: int
    items: _Items
    cancel_at_period_end: bool = False
    cancel_at: int | None = None
    trial_end: int | None = None
    pause_collection: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class _Recurring(msgspec.Struct):
    interval: str
    interval_count: int = 1


class _Priced(msgspec.Struct):
    active: bool
    currency: str
    recurring: _Recurring | None = None
    unit_amount: int | None = None


def bought(answered: Any, prices: Prices) -> Bought | None:
    """A subscription of Stripe's; None when it is for none of our prices. Raises `NotUnderstood`."""
    it = _converted(answered, _Subscription)
    kinds = {ref: kind for kind, refs in prices.items() for ref in refs}
    item = next((one for one in it.items.data if one.price.id in kinds), None)
    if item is None:
        return None
    if it.status not in STATUS:
        raise NotUnderstood(f"a status {it.status[:40]!r}")
    plan, interval = kinds[item.price.id]
    status = STATUS[it.status]
    if status is not None and it.pause_collection is not None:
        status = STATUS["paused"]
    ends = _time(item.current_period_end)
    ending = _time(it.cancel_at) if it.cancel_at is not None else None
    if ending is None and it.cancel_at_period_end:
        ending = ends
    return Bought(
        plan=plan,
        interval=interval,
        status=status,
        began_at=_time(it.created),
        period_starts_at=_time(item.current_period_start),
        period_ends_at=ends,
        trial_ends_at=_time(it.trial_end) if it.trial_end is not None else None,
        cancels_at=ending,
        customer_ref=it.customer,
        subscription_ref=it.id,
        company_id=_company(it.metadata),
    )


def offer(answered: Any, plan: Plan, interval: Interval, ref: str) -> Offer:
    """A price of Stripe's, and what keeps it from being ours. None for one that it does not have."""
    name = setting(plan, interval)
    if answered is None:
        missing = f"Stripe has no price {ref}"
        return Offer(plan=plan, interval=interval, ref=ref, setting=name, wrong=missing)
    it = _converted(answered, _Priced)
    wrong = ""
    if not it.active:
        wrong = f"the price {ref} is archived at Stripe"
    elif it.recurring is None or (it.recurring.interval, it.recurring.interval_count) != (
        interval.lower(),
        1,
    ):
        wrong = f"the price {ref} is not paid each {interval.lower()}"
    return Offer(
        plan=plan,
        interval=interval,
        ref=ref,
        setting=name,
        amount=None if it.unit_amount is None else _amount(it.unit_amount, it.currency),
        currency=it.currency.upper(),
        wrong=wrong,
    )


def setting(plan: Plan, interval: Interval) -> str:
    """The variable that names the price of a plan."""
    return f"DISTRIBU_STRIPE_PRICE_{plan}_{interval}"


def signed_at(body: bytes, signature: str | None, now: datetime) -> tuple[str, str]:
    """The body as text, and the header, once both are such as Stripe sends, and recent.

    Whether they are genuine is still to be seen. Raises `Invalid` (invalid_signature).
    """
    if signature is None or len(signature) > HEADER_MAX or not signature.isascii() or len(body) > NOTICE_MAX:
        raise Invalid("invalid_signature")
    times = [part[2:] for part in signature.split(",") if part.startswith("t=")]
    # Exactly one: of two, one could be looked at here and the other one signed.
    if len(times) != 1 or not _TIME.fullmatch(times[0]):
        raise Invalid("invalid_signature")
    if abs(now.timestamp() - int(times[0])) > TOLERANCE_S:
        raise Invalid("invalid_signature")
    try:
        return body.decode(), signature
    except UnicodeDecodeError:
        raise Invalid("invalid_signature") from None


def notice(body: bytes, *, live: bool) -> PaymentNotice:
    """What a genuine body tells. Raises `Invalid` (invalid_signature) when it is no event of Stripe's, or not
    one for us: from test mode and not ``live``, or the other way, or of a connected account."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Invalid("invalid_signature") from None
    event = _dict(told)
    if event.get("livemode") is not live or event.get("account") is not None:
        log.warning(
            "an event of Stripe's other mode, or of a connected account, is refused: is its endpoint ours?"
        )
        raise Invalid("invalid_signature")
    id, type, at = _word(event.get("id")), _word(event.get("type")), event.get("created")
    about = _dict(_dict(event.get("data")).get("object"))
    if id is None or type is None or not isinstance(at, int) or not 0 <= at < 10**11 or not about:
        raise Invalid("invalid_signature")
    kind, ref = about.get("object"), _word(about.get("id"))
    parent = _dict(_dict(about.get("parent")).get("subscription_details"))
    subscription = _ref(about.get("subscription")) or _ref(parent.get("subscription"))
    company = _company(_dict(about.get("metadata"))) or _company(_dict(parent.get("metadata")))
    return PaymentNotice(
        id=id,
        type=type,
        at=_time(at),
        customer_ref=ref if kind == "customer" else _ref(about.get("customer")),
        subscription_ref=ref if kind == "subscription" else subscription,
        company_id=company,
        invoice=_invoice(about, ref) if kind == "invoice" and ref is not None else None,
    )


def _invoice(about: dict[str, Any], ref: str) -> Invoiced | None:
    total, currency, number = about.get("total"), about.get("currency"), about.get("number")
    if not isinstance(total, int) or not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        return None
    if abs(total) > _AMOUNT_MAX:
        return None
    named = isinstance(number, str) and _NUMBER.fullmatch(number)
    return Invoiced(
        ref=ref,
        number=str(number) if named else ref,
        amount=_amount(total, currency),
        currency=currency.upper(),
    )


def _converted(answered: Any, kind: type[Any]) -> Any:
    try:
        return msgspec.convert(answered, kind)
    except msgspec.ValidationError as wrong:
        raise NotUnderstood(str(wrong)[:200]) from None


def _amount(cents: int, currency: str) -> Decimal:
    return Decimal(cents).scaleb(-_PLACES.get(currency.upper(), 2))


def _time(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise NotUnderstood("a time that is none") from None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) and _WORD.fullmatch(value) else None


def _ref(value: Any) -> str | None:
    """An id, by itself or of the object that stands in its place."""
    return _word(value) or _word(_dict(value).get("id"))


def _company(metadata: dict[str, Any] | None) -> CompanyId | None:
    id = (metadata or {}).get(COMPANY)
    return CompanyId(id) if isinstance(id, str) and _COMPANY_ID.fullmatch(id) else None


def sold_at(prices: Prices, plan: Plan, interval: Interval) -> str:
    """The id of the price that this is sold at. Raises `Bug` for what is not sold."""
    refs = prices.get((plan, interval))
    if not refs:
        raise Bug(f"{plan} by the {interval} is not sold")
    return refs[0]


def checkout(
    prices: Prices,
    *,
    company_id: CompanyId,
    plan: Plan,
    interval: Interval,
    email: str,
    customer_ref: str | None,
    back: str,
) -> dict[str, Any]:
    """What Stripe is asked for a page where this is bought: a subscription, and nothing else."""
    metadata = {COMPANY: company_id}
    begins = f"{back}{'&' if '?' in back else '?'}checkout="
    who = {"customer_email": email} if customer_ref is None else {"customer": customer_ref}
    return {
        "mode": "subscription",
        "line_items": [{"price": sold_at(prices, plan, interval), "quantity": 1}],
        "success_url": begins + "done",
        "cancel_url": begins + "left",
        "client_reference_id": company_id,
        "metadata": metadata,
        "subscription_data": {"metadata": metadata},
        **who,
    }


def once(key: str, asked: dict[str, Any]) -> str:
    """Our key as Stripe's Idempotency-Key. Stripe refuses one that comes back with something else in it, so
    that something else has its own."""
    digest = hashlib.sha256(msgspec.json.encode([key, asked], order="sorted")).hexdigest()
    return f"distribu-{digest}"
