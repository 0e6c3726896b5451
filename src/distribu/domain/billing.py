"""What a company pays Distribu for: its plan, how often it pays, how that stands, and what it may use."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, ClassVar, Final, Self

from distribu.domain.entity import Entity, Event, edited
from distribu.domain.errors import PaymentRequired, Refused
from distribu.domain.values import CompanyId


class Plan(StrEnum):
    """What a company may use. UNLIMITED is that of an installation that sells nothing."""

    STARTER = "STARTER"
    GROWTH = "GROWTH"
    ENTERPRISE = "ENTERPRISE"
    UNLIMITED = "UNLIMITED"


class Interval(StrEnum):
    """How often a plan is paid."""

    MONTH = "MONTH"
    YEAR = "YEAR"


class SubscriptionStatus(StrEnum):
    """How a company's subscription stands."""

    TRIALING = "TRIALING"
    ACTIVE = "ACTIVE"
    PAST_DUE = "PAST_DUE"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    UNLIMITED = "UNLIMITED"


class Counted(StrEnum):
    """What a plan counts, by the name of its number in `Allowance` and `Used`.

    Products are those not archived, customers those that may order (ACTIVE); seats are members and the
    invitations that are open. Orders are those made in a calendar month of UTC, whenever they were placed,
    cancelled ones too.
    """

    PRODUCTS = "products"
    CUSTOMERS = "customers"
    SEATS = "seats"
    ORDERS = "orders_a_month"


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """How many of each a plan allows; None is any number."""

    products: int | None = None
    customers: int | None = None
    seats: int | None = None
    orders_a_month: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """How many of each there are."""

    products: int
    customers: int
    seats: int
    orders_a_month: int


PLANS: Final[Mapping[Plan, Allowance]] = {
    Plan.STARTER: Allowance(products=50, customers=25, seats=3, orders_a_month=100),
    Plan.GROWTH: Allowance(products=500, customers=250, seats=10, orders_a_month=2_000),
    Plan.ENTERPRISE: Allowance(),
    Plan.UNLIMITED: Allowance(),
}

PRICES: Final[Mapping[Plan, Mapping[Interval, Decimal]]] = {
    Plan.STARTER: {Interval.MONTH: Decimal("79.99"), Interval.YEAR: Decimal("759.99")},
    Plan.GROWTH: {Interval.MONTH: Decimal("229.99"), Interval.YEAR: Decimal("2199.99")},
    Plan.ENTERPRISE: {Interval.MONTH: Decimal("499.00"), Interval.YEAR: Decimal("4790.00")},
}
"""In USD, to be shown; what is charged is what the price at Stripe says."""

TRIAL: Final = timedelta(days=14)
"""How long a company is tried out where plans are sold."""

WARNED: Final = (3, 1)
"""So many days before a trial ends its OWNER is told."""

CHANGE_AT: Final = "/account/billing"
"""Where a plan is looked at and changed."""

_OVER: Final = frozenset({SubscriptionStatus.CANCELED, SubscriptionStatus.EXPIRED})


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionStarted(Event):
    """A company that was founded where plans are sold is tried out."""

    name: ClassVar[str] = "subscription.started"
    plan: Plan
    trial_ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionUpdated(Event):
    """Anything about it became another, that none of the other events is for."""

    name: ClassVar[str] = "subscription.updated"
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionPastDue(Event):
    """A payment failed, and is tried again."""

    name: ClassVar[str] = "subscription.past_due"
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionRecovered(Event):
    """What had failed was paid."""

    name: ClassVar[str] = "subscription.recovered"
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionCanceled(Event):
    """It is over: by the company's wish, or because it was not paid."""

    name: ClassVar[str] = "subscription.canceled"
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribedTwice(Event):
    """A second one runs at Stripe, and is paid too; ``counts`` is the one that does."""

    name: ClassVar[str] = "subscription.doubled"
    ref: str
    counts: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnding(Event):
    """The OWNER is told that the trial ends in so many days."""

    name: ClassVar[str] = "subscription.trial_ending"
    days: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialEnded(Event):
    """The trial is over, and nothing was bought."""

    name: ClassVar[str] = "subscription.trial_ended"
    trial_ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSet(Event):
    """An operator gave the company a plan that is not paid through Stripe."""

    name: ClassVar[str] = "subscription.plan_set"
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription(Entity):
    """What a company pays for. ``id`` and ``company_id`` are the same: there is one, or none.

    A company without one was founded where nothing is sold, and is `unlimited`. ``cancels_at`` is when it
    will end, once that is known. ``told`` is how many days before the end of the trial the OWNER was told
    last. ``second_ref`` is another one that runs at Stripe, since two were bought: it counts when the first
    is over. ``plan_set_at`` is when an operator gave it a plan: what was bought before that counts no more.
    """

    id: CompanyId
    plan: Plan
    interval: Interval | None = None
    status: SubscriptionStatus
    trial_ends_at: datetime | None = None
    period_starts_at: datetime | None = None
    period_ends_at: datetime | None = None
    cancels_at: datetime | None = None
    customer_ref: str | None = None
    subscription_ref: str | None = None
    second_ref: str | None = None
    plan_set_at: datetime | None = None
    told: int | None = None

    @classmethod
    def unlimited(cls, company_id: CompanyId, *, at: datetime) -> Self:
        """That of a company that has none: it is written with its first change."""
        return cls(
            company_id=company_id,
            id=company_id,
            version=0,
            plan=Plan.UNLIMITED,
            status=SubscriptionStatus.UNLIMITED,
            created_at=at,
            updated_at=at,
        )

    @classmethod
    def on_trial(cls, company_id: CompanyId, *, at: datetime) -> Self:
        """That of a company that was founded now, where plans are sold."""
        ends_at = at + TRIAL
        return cls(
            company_id=company_id,
            id=company_id,
            plan=Plan.STARTER,
            status=SubscriptionStatus.TRIALING,
            trial_ends_at=ends_at,
            created_at=at,
            updated_at=at,
            events=(SubscriptionStarted(plan=Plan.STARTER, trial_ends_at=ends_at),),
        )

    # what it lets a company do

    @property
    def allowance(self) -> Allowance:
        """How many of each the plan allows."""
        return PLANS[self.plan]

    @property
    def closes_at(self) -> datetime | None:
        """From when nothing new is let in. Time decides, whether or not a job has run since."""
        if self.status in _OVER:
            return self.created_at
        return self.trial_ends_at if self._tried_out else None

    @property
    def _tried_out(self) -> bool:
        """Whether the trial is one of ours: at the end of one of its own Stripe charges, and tells us."""
        return self.status is SubscriptionStatus.TRIALING and self.subscription_ref is None

    def closed(self, at: datetime) -> bool:
        """Whether nothing new is let in."""
        return self.closes_at is not None and at >= self.closes_at

    def stands(self, at: datetime) -> SubscriptionStatus:
        """Its status at a time: a trial of ours whose end has passed is over, written or not."""
        over = self._tried_out and self.closed(at)
        return SubscriptionStatus.EXPIRED if over else self.status

    def admit(self, what: Counted, used: int, *, at: datetime) -> None:
        """Let one more in. Raises `PaymentRequired` (payment_required, plan_limit)."""
        if self.closed(at):
            raise unpaid()
        allowed = getattr(self.allowance, what)
        if allowed is not None and used >= allowed:
            raise over_plan(what, used, allowed)

    # how it changes

    def bought(
        self,
        *,
        plan: Plan,
        interval: Interval,
        status: SubscriptionStatus,
        period_starts_at: datetime,
        period_ends_at: datetime,
        trial_ends_at: datetime | None,
        cancels_at: datetime | None,
        customer_ref: str,
        subscription_ref: str,
        began_at: datetime,
        at: datetime,
    ) -> Self:
        """What Stripe says of one that ``began_at`` a time; itself when that is no news. It must be newer
        than what was said before.

        Of two that run the one that is known counts, and the other one is kept in mind. One that began before
        an operator set a plan counts no more: what is paid there is between the two, and a job that asks
        Stripe must not undo what a person decided. One that has ended says nothing of who paid it: the
        customer can have been deleted since.
        """
        if self.plan_set_at is not None and began_at <= self.plan_set_at:
            return self
        if subscription_ref != self.subscription_ref:
            if status in _OVER:
                return self._single(at=at) if subscription_ref == self.second_ref else self
            if self.live:
                return self if self.second_ref else self._doubled(subscription_ref, at=at)
        said = {
            "plan": plan,
            "interval": interval,
            "status": status,
            "trial_ends_at": trial_ends_at,
            "period_starts_at": period_starts_at,
            "period_ends_at": period_ends_at,
            "cancels_at": cancels_at,
            "customer_ref": self.customer_ref if status in _OVER else customer_ref,
            "subscription_ref": subscription_ref,
            "second_ref": None if subscription_ref == self.second_ref else self.second_ref,
        }
        before, after = edited(self, said)
        if not after:
            return self
        kind = _why(self.status, after.get("status"))
        return self._changed(kind(before=before, after=after), at=at, **after)

    def _doubled(self, ref: str, *, at: datetime) -> Self:
        event = SubscribedTwice(ref=ref, counts=self.subscription_ref)
        return self._changed(event, at=at, second_ref=ref)

    def _single(self, *, at: datetime) -> Self:
        event = SubscriptionUpdated(before={"second_ref": self.second_ref}, after={"second_ref": None})
        return self._changed(event, at=at, second_ref=None)

    @property
    def refs(self) -> tuple[str, ...]:
        """The subscriptions at Stripe that are known, the one that counts first."""
        return tuple(ref for ref in (self.subscription_ref, self.second_ref) if ref is not None)

    @property
    def live(self) -> bool:
        """Whether it was bought at Stripe and is not over: it is changed there, and not bought again."""
        return self.subscription_ref is not None and self.status not in _OVER

    @property
    def runs_on(self) -> bool:
        """Whether Stripe goes on charging, as far as is known here; of two, the second one does."""
        return self.live and (self.cancels_at is None or self.second_ref is not None)

    def forget_payer(self, customer_ref: str, *, at: datetime) -> Self:
        """Know that this customer is none at Stripe any more; itself when the company is another one."""
        if self.customer_ref != customer_ref:
            return self
        before, after = edited(self, {"customer_ref": None})
        return self._changed(SubscriptionUpdated(before=before, after=after), at=at, **after)

    def end_trial(self, *, at: datetime) -> Self:
        """Write down that the trial is over; itself when it is not, was none, or is one that Stripe runs."""
        if not self._tried_out or self.trial_ends_at is None or at < self.trial_ends_at:
            return self
        event = TrialEnded(trial_ends_at=self.trial_ends_at)
        return self._changed(event, at=at, status=SubscriptionStatus.EXPIRED)

    def warn(self, *, at: datetime) -> Self:
        """Say that the trial ends, on the days when that is said; itself when it was, or there is nothing.

        After a time without warnings it is said once, with the days that are left.
        """
        if self.status is not SubscriptionStatus.TRIALING or self.trial_ends_at is None:
            return self
        left = self.trial_ends_at - at
        due = [days for days in WARNED if left <= timedelta(days=days)]
        if left <= timedelta(0) or not due or (self.told is not None and self.told <= min(due)):
            return self
        return self._changed(TrialEnding(days=min(due)), at=at, told=min(due))

    def set_plan(self, plan: Plan, *, at: datetime) -> Self:
        """Give it a plan that is paid otherwise, from now on; itself when it has it.

        What Stripe says of a subscription it had counts no more, whether that still runs or not; a new one
        that is bought there does.
        """
        given = SubscriptionStatus.UNLIMITED if plan is Plan.UNLIMITED else SubscriptionStatus.ACTIVE
        at_stripe = ("interval", "period_starts_at", "period_ends_at", "cancels_at")
        refs = ("subscription_ref", "second_ref")
        nothing = dict.fromkeys((*at_stripe, *refs, "trial_ends_at"))
        before, after = edited(self, {"plan": plan, "status": given, **nothing})
        if not after:
            return self
        return self._changed(PlanSet(before=before, after=after), at=at, plan_set_at=at, **after)

    def _changed(self, event: Event, *, at: datetime, **changes: object) -> Self:
        if not self.version:
            changes["created_at"] = at
        return self._after(event, at=at, **changes)


_Change = (
    type[SubscriptionUpdated]
    | type[SubscriptionPastDue]
    | type[SubscriptionRecovered]
    | type[SubscriptionCanceled]
)


def _why(before: SubscriptionStatus, after: SubscriptionStatus | None) -> _Change:
    if after in _OVER:
        return SubscriptionCanceled
    if after is SubscriptionStatus.PAST_DUE:
        return SubscriptionPastDue
    if after is SubscriptionStatus.ACTIVE and before is SubscriptionStatus.PAST_DUE:
        return SubscriptionRecovered
    return SubscriptionUpdated


def unpaid() -> PaymentRequired:
    """What a company is told whose trial or subscription is over."""
    return PaymentRequired("payment_required", fields={"changeAt": CHANGE_AT})


def not_accepting() -> Refused:
    """What is said of either to whoever is not of the company: nothing of what it pays for, or how much it
    has."""
    return Refused("not_accepting")


_WORDS: Final = {
    Counted.PRODUCTS: "products",
    Counted.CUSTOMERS: "customers",
    Counted.SEATS: "people in the team, those invited included,",
    Counted.ORDERS: "orders in a calendar month",
}


def wire_name(what: Counted) -> str:
    """What it is called in answers."""
    return "ordersAMonth" if what is Counted.ORDERS else str(what)


def over_plan(what: Counted, used: int, allowed: int) -> PaymentRequired:
    """What a company is told that uses all that its plan allows."""
    return PaymentRequired(
        "plan_limit",
        f"The plan allows {allowed} {_WORDS[what]} and there are {used}: choose a larger one at {CHANGE_AT}.",
        fields={
            "limit": wire_name(what),
            "used": str(used),
            "allowed": str(allowed),
            "changeAt": CHANGE_AT,
        },
    )


def month_of(at: datetime) -> int:
    """A calendar month of UTC as a number, such as 202702."""
    return at.year * 100 + at.month
