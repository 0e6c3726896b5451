"""Use cases of what a company pays for, and the check of what that allows."""

import logging
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta

from distribu.application import letters, plans
from distribu.application.kernel import Command, Distribu, Outside, Process, Query, Reads, Work
from distribu.application.payments import SOLD
from distribu.application.ports import Letter, Payments, PaymentsAway, PaymentsRefused
from distribu.domain.access import Actor, Permission, Role
from distribu.domain.billing import (
    CHANGE_AT,
    PLANS,
    WARNED,
    Counted,
    Interval,
    Plan,
    Subscription,
    SubscriptionStatus,
    Used,
)
from distribu.domain.errors import Bug, Busy, Forbidden, NotFound, Refused
from distribu.domain.values import CompanyId

AWAY_S: Final = 30
"""When to try again while Stripe is away, in seconds, if it does not say."""

PAGES_MAX: Final = 20
PAGES_S: Final = 3_600.0
"""Pages of Stripe's that one company asks for in so many seconds: what Stripe takes from us in a second, and
our connections to it, are there for all."""

log: Final = logging.getLogger("distribu.billing")

TRIALS_AT_ONCE: Final = 100
"""How many companies are looked up at once, to be gone through one after the other."""

_Plan = Annotated[Plan, Meta(examples=["GROWTH"])]


# --- what it allows ----------------------------------------------------------------------------


async def admit(work: Work, what: Counted, *, own: int = 0, take: bool = True) -> None:
    """Let one more in. Raises `PaymentRequired`, and says what is used and allowed.

    Whoever takes the last place holds the subscription's row until it is written, so that the next one
    counts it; who does not ``take`` it only looks. ``own`` are places that are counted already and are those
    of whoever asks.
    """
    if work.actor.customer_id is not None:
        raise Bug("a contact sees no subscription, and would have any number let in")
    subscription = await work.subscriptions.current(at=work.now, lock=take)
    # Counting takes a while where there are many: only for a plan that minds.
    minds = getattr(subscription.allowance, what) is not None
    used = getattr(await work.subscriptions.used(at=work.now), what) - own if minds else 0
    subscription.admit(what, used, at=work.now)


# --- looking -----------------------------------------------------------------------------------


class CameBack(StrEnum):
    """With what Stripe sends people back who were to buy there."""

    DONE = "done"
    LEFT = "left"


class ReadSubscription(Query[plans.SubscriptionView], frozen=True, kw_only=True):
    """The company's plan, how it stands, and what is used and allowed of each; null is any number.

    ``checkout`` is what people come back with from the page where they were to buy. It changes nothing.
    """

    needs = Permission.COMPANY_MANAGE

    checkout: CameBack | None = None

    async def run(self, reads: Reads) -> plans.SubscriptionView:
        subscription, used = await reads.together(
            reads.subscriptions.current(at=reads.now), reads.subscriptions.used(at=reads.now)
        )
        return plans.subscription(subscription, used, reads.now)


class PreviewPlan(Query[plans.PlanPreviewView], frozen=True, kw_only=True):
    """What another plan would allow, and of what there is more already.

    It can be bought all the same: what is there stays, and nothing is added to it until there is less.
    """

    needs = Permission.COMPANY_MANAGE

    plan: _Plan

    async def run(self, reads: Reads) -> plans.PlanPreviewView:
        used = await reads.subscriptions.used(at=reads.now)
        return plans.plan_preview(self.plan, used, _more_than(self.plan, used))


def _more_than(plan: Plan, used: Used) -> list[Counted]:
    """Of what there is more than a plan allows."""
    allowance = PLANS[plan]
    return [
        what
        for what in Counted
        if (allowed := getattr(allowance, what)) is not None and getattr(used, what) > allowed
    ]


# --- buying ------------------------------------------------------------------------------------


class FindBuyer(Query[tuple[Subscription, str | None]], frozen=True, kw_only=True):
    """The company's subscription and its OWNER's address, for a process."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> tuple[Subscription, str | None]:
        current, leaders = await reads.together(
            reads.subscriptions.current(at=reads.now), reads.members.leaders(limit=1)
        )
        owners = [one.email for one in leaders if one.membership.role is Role.OWNER]
        return current, owners[0] if owners else None


class StartCheckout(Process[plans.PageView], frozen=True, kw_only=True):
    """A page where a plan is bought; whoever has one is sent to where it is changed.

    Raises `Refused` (nothing_sold, payments_refused), `Busy` (payments_away), `NotFound` for no OWNER, and
    `RateLimited` after `PAGES_MAX` pages in an hour.
    """

    needs = Permission.BILLING_MANAGE

    plan: Annotated[Plan, Meta(examples=["GROWTH"])]
    interval: Annotated[Interval, Meta(examples=["MONTH"])]

    async def run(self, outside: Outside) -> plans.PageView:
        payments, company_id = await _selling(outside)
        if (self.plan, self.interval) not in SOLD:
            raise Refused("nothing_sold", "This plan cannot be bought.")
        current, owner = await outside.inside(company_id, FindBuyer())
        if current.live and current.customer_ref is not None:
            return await _asked(payments.portal(customer_ref=current.customer_ref, back=_back(outside)))
        if owner is None:  # an operator founded it, and has made nobody its OWNER yet
            raise NotFound("member_not_found")
        # The same page for who asks twice; another one once it was bought, or an hour later.
        hour = f"{outside.clock.now():%Y%m%d%H}"
        once = outside.mark("checkout", company_id, self.plan, self.interval, str(current.version), hour)
        return await _asked(
            payments.checkout(
                company_id=company_id,
                plan=self.plan,
                interval=self.interval,
                email=owner,
                customer_ref=current.customer_ref,
                back=_back(outside),
                once=once,
            )
        )


class OpenPortal(Process[plans.PageView], frozen=True, kw_only=True):
    """A page with invoices and the card, where the plan is changed or ended.

    Raises `Refused` (nothing_sold, nothing_bought, payments_refused), `Busy` (payments_away), and
    `RateLimited` after `PAGES_MAX` pages in an hour.
    """

    needs = Permission.BILLING_MANAGE

    async def run(self, outside: Outside) -> plans.PageView:
        payments, company_id = await _selling(outside)
        current, _ = await outside.inside(company_id, FindBuyer())
        if current.customer_ref is None:
            raise Refused("nothing_bought")
        return await _asked(payments.portal(customer_ref=current.customer_ref, back=_back(outside)))


async def _selling(outside: Outside) -> tuple[Payments, CompanyId]:
    """Who sells, and the company that asks for a page there, which counts."""
    if outside.payments is None:
        raise Refused("nothing_sold")
    if outside.actor.company_id is None:
        raise Forbidden("forbidden")
    await outside.limit("billing page", outside.actor.company_id, PAGES_MAX, PAGES_S)
    return outside.payments, outside.actor.company_id


def _back(outside: Outside) -> str:
    return outside.links_begin.rstrip("/") + CHANGE_AT


@contextmanager
def in_our_words() -> Iterator[None]:
    """Raises `Busy` (payments_away) and `Refused` (payments_refused) for what goes wrong at Stripe inside."""
    try:
        yield
    except PaymentsAway as away:
        raise Busy("payments_away", retry_after_s=away.retry_after_s or AWAY_S) from None
    except PaymentsRefused:
        raise Refused("payments_refused") from None


async def _asked(page: Awaitable[str]) -> plans.PageView:
    with in_our_words():
        return plans.PageView(url=await page)


# --- what Stripe says --------------------------------------------------------------------------


async def keep(work: Work, before: Subscription, after: Subscription) -> None:
    """Have a subscription be as Stripe says, and mail the OWNER what changed."""
    work.save(after)
    letter = await _about(work, before, after)
    if letter is not None:
        await tell_owner(work, letter)


async def _about(work: Work, before: Subscription, after: Subscription) -> Letter | None:
    """What the OWNER is mailed about a change, if anything."""
    company = (await work.companies.current()).name
    second = after.second_ref
    if second is not None and second != before.second_ref:
        return letters.SubscribedTwice(company=company, first=after.subscription_ref or "", second=second)
    if after.status is before.status or (
        after.status is SubscriptionStatus.ACTIVE and before.status is not SubscriptionStatus.PAST_DUE
    ):
        return _changed(company, before, after)
    if after.status is SubscriptionStatus.PAST_DUE:
        return letters.PaymentFailed(company=company)
    if after.status in (SubscriptionStatus.CANCELED, SubscriptionStatus.EXPIRED):
        return letters.SubscriptionOver(company=company)
    if before.status is SubscriptionStatus.PAST_DUE:
        return letters.PaymentRecovered(company=company)
    return None


def _changed(company: str, before: Subscription, after: Subscription) -> Letter | None:
    """What the OWNER is mailed about a subscription that begins, becomes another one, or is to end."""
    if (after.subscription_ref, after.plan, after.interval) != (
        before.subscription_ref,
        before.plan,
        before.interval,
    ):
        return letters.PlanTaken(company=company, plan=after.plan)
    if after.cancels_at is not None and after.cancels_at != before.cancels_at:
        return letters.SubscriptionEnds(company=company, at=_day(after.cancels_at))
    return None


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


async def tell_owner(work: Work, letter: Letter) -> None:
    """Mail the OWNER; a company that an operator founded may have none yet."""
    for leader in await work.members.leaders(limit=1):
        if leader.membership.role is Role.OWNER:
            work.mail(leader.email, letter)


# --- what time does ----------------------------------------------------------------------------


class EndTrial(Command[bool], frozen=True, kw_only=True):
    """Write down that the company's trial is over, and mail the OWNER, once. Returns whether it was done."""

    needs = None
    internal = True

    async def run(self, work: Work) -> bool:
        before = await work.subscriptions.current(at=work.now, lock=True)
        after = before.end_trial(at=work.now)
        if after is before:
            return False
        work.save(after)
        await tell_owner(work, letters.TrialOver(company=(await work.companies.current()).name))
        return True


class WarnOfTrialEnd(Command[bool], frozen=True, kw_only=True):
    """Mail the OWNER three days and one day before the trial ends, each once. Returns whether it was done."""

    needs = None
    internal = True

    async def run(self, work: Work) -> bool:
        before = await work.subscriptions.current(at=work.now, lock=True)
        after = before.warn(at=work.now)
        if after is before:
            return False
        work.save(after)
        await warn_owner(work, after)
        return True


async def warn_owner(work: Work, it: Subscription) -> None:
    """Mail the OWNER when the trial ends."""
    if it.trial_ends_at is not None:
        company = (await work.companies.current()).name
        await tell_owner(work, letters.TrialEnds(company=company, at=_day(it.trial_ends_at)))


async def end_trials(distribu: Distribu) -> int:
    """Write down which trials are over, and mail their OWNERs."""
    return await _each(distribu, EndTrial(), ends_by=distribu.ports.clock.now())


async def warn_of_trial_ends(distribu: Distribu) -> int:
    """Mail the OWNERs whose trial ends in three days, and again in one."""
    now, told = distribu.ports.clock.now(), 0
    for days in WARNED:
        told += await _each(distribu, WarnOfTrialEnd(), ends_by=now + timedelta(days=days), untold=days)
    return told


async def _each(
    distribu: Distribu,
    request: EndTrial | WarnOfTrialEnd,
    *,
    ends_by: datetime,
    untold: int | None = None,
) -> int:
    """Run it for every company that it may be for. Returns for how many there was something to do.

    One that stumbles keeps nobody from theirs: its mistake is raised when all had their turn.
    """
    done, after, stumbled = 0, "", None
    trials = distribu.ports.queue.trials
    while found := await trials(ends_by=ends_by, untold=untold, after=after, limit=TRIALS_AT_ONCE):
        for company_id in found:
            try:
                done += await distribu.run(Actor.system(company_id), request)
            except Exception as error:
                log.exception("the trial of company %s stumbled", company_id)
                stumbled = error
        after = found[-1]
    if stumbled is not None:
        raise stumbled
    return done
