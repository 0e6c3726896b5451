"""Comparing what each company has here with what runs at Stripe, and taking over what does.

Stripe's list says where to look; what is told, and what is taken over, is asked once more for each
subscription that seems to differ, as for a notice (`notices.take`).
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from msgspec import structs

from distribu.application import billing, notices
from distribu.application.kernel import Distribu, Outside, Process, Query, Reads
from distribu.application.notices import Told
from distribu.application.payments import PAGE
from distribu.application.platform import FindCompanies, NoteUse
from distribu.application.ports import Bought, Payments, PaymentsAway
from distribu.application.shapes import View, camel, plain
from distribu.domain.access import Actor, Permission, Standing
from distribu.domain.accounts import REALM
from distribu.domain.billing import Subscription, SubscriptionStatus
from distribu.domain.errors import Busy, Refused
from distribu.domain.notices import notice_id
from distribu.domain.values import CompanyId

PAGES_MAX: Final = 1_000
"""Pages of Stripe's list that are read: 100,000 subscriptions."""

UNANSWERED_MAX: Final = 5
"""After so many questions that Stripe did not answer, no more are asked."""

SYNC: Final = "distribu.sync"
"""The type of a notice that nobody sent: an operator had us ask, or the job of every day."""

_COMPARED: Final = (
    *("plan", "interval", "status", "trial_ends_at", "period_starts_at", "period_ends_at", "cancels_at"),
    *("customer_ref", "subscription_ref", "second_ref"),
)


class Differing(StrEnum):
    """In what a company here and Stripe differ."""

    FIELD = "FIELD"
    """A field of the subscription that counts is another one there."""
    UNKNOWN = "UNKNOWN"
    """Stripe does not know the subscription that is known here: nothing can be taken over."""
    UNCLAIMED = "UNCLAIMED"
    """It runs at Stripe, and is of no company here."""
    TWO_RUN = "TWO_RUN"
    """Beside the one that counts another one runs at Stripe, and is paid."""
    SET_ASIDE = "SET_ASIDE"
    """It runs at Stripe, and an operator has set a plan instead."""
    DELETED = "DELETED"
    """It runs at Stripe, and the company is deleted."""
    UNANSWERED = "UNANSWERED"
    """Stripe did not say how this one stands."""


class Difference(View, frozen=True, kw_only=True):
    """One thing in which they differ, or did: ``applied`` says that what Stripe says is now here too."""

    what: Differing
    company: str | None = None
    company_id: str | None = None
    field: str | None = None
    here: str | None = None
    at_stripe: str | None = None
    applied: bool = False


@dataclass(frozen=True, slots=True)
class Looked:
    """How far it has come."""

    companies: int
    subscriptions: int


@dataclass(slots=True)
class _Held:
    """A company, the subscriptions it knows, and what Stripe's list has of it: those, and what runs.

    Both lists have the one that counts, or may, first: of what is not known the one that was bought first.
    """

    id: CompanyId
    slug: str
    deleted: bool
    it: Subscription
    listed: dict[str, Bought] = field(default_factory=dict)

    @property
    def running(self) -> list[str]:
        """What runs at Stripe."""
        return [ref for ref, one in self.listed.items() if _runs(one)]

    @property
    def aside(self) -> list[str]:
        """What runs there although an operator has set a plan instead."""
        set_at = self.it.plan_set_at
        return [ref for ref in self.running if set_at is not None and self.listed[ref].began_at <= set_at]

    @property
    def others(self) -> list[str]:
        """What runs there, counts, and is not known here."""
        return [ref for ref in self.running if ref not in (*self.aside, *self.it.refs)]

    def differing(self, what: Differing, **more: Any) -> Difference:
        return Difference(company=self.slug, company_id=self.id, what=what, **more)


class SyncBilling(Process[AsyncIterator[Difference | Looked]], frozen=True, kw_only=True):
    """Compare every company's subscription with Stripe's, and ``apply`` what is said there.

    It is the operator's, like setting a plan. What comes is how far it has come, and each difference. Raises
    `Refused` (nothing_sold, payments_refused, too_many) and `Busy` (payments_away), on the way too: what was
    applied by then stays.
    """

    needs = Permission.COMPANY_CREATE
    streamed = True

    apply: bool = False

    async def run(self, outside: Outside) -> AsyncIterator[Difference | Looked]:
        if outside.payments is None:
            raise Refused("nothing_sold")
        await outside.inside(REALM, NoteUse(what="sync billing" if self.apply else "compare billing"))
        return _told(_Comparing(outside, outside.payments, self.apply).run())


async def sync_billing(distribu: Distribu) -> int:
    """Take over from Stripe what we were not told, such as an end of what is paid for.

    Returns how much differed. What is for people to settle is named by `distribu billing sync`.
    """
    if distribu.ports.payments is None:
        return 0
    steps = await distribu.run(Actor.system(None, "sync_billing"), SyncBilling(apply=True))
    return len([step async for step in steps if isinstance(step, Difference)])


async def _told(steps: AsyncIterator[Difference | Looked]) -> AsyncIterator[Difference | Looked]:
    with billing.in_our_words():
        async for step in steps:
            yield step


class _Comparing:
    def __init__(self, outside: Outside, payments: Payments, apply: bool) -> None:
        self._outside = outside
        self._payments = payments
        self._apply = apply
        self._held: dict[CompanyId, _Held] = {}
        self._looked = 0
        self._unanswered = 0

    async def run(self) -> AsyncIterator[Difference | Looked]:
        async for looked in self._companies():
            yield looked
        async for step in self._at_stripe():
            yield step
        for held in self._held.values():
            try:
                found = await self._compared(held)
            except (PaymentsAway, Busy):
                self._unanswered += 1
                if self._unanswered == UNANSWERED_MAX:
                    raise
                found = [held.differing(Differing.UNANSWERED, here=held.it.subscription_ref)]
            for difference in found:
                yield difference
            yield Looked(len(self._held), self._looked)

    async def _companies(self) -> AsyncIterator[Looked]:
        cursor = None
        while True:
            page = await self._outside.inside(REALM, FindCompanies(limit=PAGE, cursor=cursor))
            for card in page.items:
                it = await self._outside.inside(card.id, FindSubscription(), system=True)
                deleted = card.standing is Standing.DELETED
                self._held[card.id] = _Held(card.id, card.slug, deleted, it)
            yield Looked(len(self._held), self._looked)
            cursor = page.next_cursor
            if cursor is None:
                return

    async def _at_stripe(self) -> AsyncIterator[Difference | Looked]:
        """Read Stripe's list, and give each company what is its own."""
        by_ref = {ref: held for held in self._held.values() for ref in held.it.refs}
        by_payer = {held.it.customer_ref: held for held in self._held.values() if held.it.customer_ref}
        listed: list[tuple[_Held, Bought]] = []
        after = None
        for _ in range(PAGES_MAX):
            page, after = await self._payments.subscriptions(after=after)
            for it in page:
                self._looked += 1
                held = by_ref.get(it.subscription_ref) or by_payer.get(it.customer_ref)
                if held is None and it.company_id is not None:
                    held = self._held.get(it.company_id)
                if held is not None and (_runs(it) or it.subscription_ref in held.it.refs):
                    listed.append((held, it))
                elif held is None and _runs(it) and not await self._founded_since(it):
                    yield Difference(what=Differing.UNCLAIMED, at_stripe=it.subscription_ref)
            yield Looked(len(self._held), self._looked)
            if after is None:
                break
        else:
            raise Refused("too_many", f"More than {PAGES_MAX * PAGE} subscriptions are not compared.")
        for held, it in reversed(listed):  # they come newest first
            held.listed[it.subscription_ref] = it

    async def _founded_since(self, it: Bought) -> bool:
        """Whether it is of a company that was not there when they were looked through."""
        ref = notice_id(it.subscription_ref)
        whose = notices.FindPayer(notice_id=ref, customer_ref=it.customer_ref, hint=it.company_id)
        return await self._outside.inside(REALM, whose, system=True) is not None

    async def _compared(self, held: _Held) -> list[Difference]:
        """What differs for one company, after it was applied if that is wanted."""
        if held.deleted:
            return [held.differing(Differing.DELETED, at_stripe=ref) for ref in held.running]
        found = [held.differing(Differing.SET_ASIDE, at_stripe=ref) for ref in held.aside]
        refs = [*held.it.refs, *held.others]
        answers: _Answers = {ref: held.listed.get(ref) for ref in refs}
        if None in answers.values() or await self._fields(held, answers):
            answers = await self._asked(refs)
        differing = await self._fields(held, answers)
        unknown = held.it.live and None in answers.values()
        if differing and self._apply and not unknown:
            answered = [ref for ref in refs if answers[ref] is not None]
            for ref in held.others or answered[:1]:
                until_s = notices.asking(self._outside)
                await notices.take(self._outside, self._reason(held, ref), held.id, until_s)
            answers = await self._asked(refs)
            left = await self._fields(held, answers)
            still = {one.field for one in left}
            done = [structs.replace(one, applied=True) for one in differing if one.field not in still]
            differing = [*done, *left]
        gone = [ref for ref, it in answers.items() if it is None and held.it.live]
        found += [held.differing(Differing.UNKNOWN, here=ref) for ref in gone]
        run = [ref for ref, it in answers.items() if it is not None and _runs(it)]
        found += [held.differing(Differing.TWO_RUN, here=run[0], at_stripe=ref) for ref in run[1:]]
        return differing + found

    async def _asked(self, refs: Sequence[str]) -> "_Answers":
        return {ref: await self._payments.subscription(ref) for ref in refs}

    async def _fields(self, held: _Held, answers: "_Answers") -> list[Difference]:
        """In which fields the company's subscription would become another one."""
        said = [notices.said_of(it, it.status) for it in answers.values() if it and it.status]
        compare = CompareSubscription(said=tuple(said[: notices.SAID_MAX]))
        return [
            held.differing(Differing.FIELD, field=name, here=here, at_stripe=there)
            for name, here, there in await self._outside.inside(held.id, compare, system=True)
        ]

    def _reason(self, held: _Held, ref: str) -> Told:
        """A notice that nobody sent, for one to be asked about."""
        return Told(
            ref=f"sync_{self._outside.entropy.uuid()}",
            type=SYNC,
            happened_at=self._outside.clock.now(),
            customer_ref=held.it.customer_ref,
            subscription_ref=ref,
            invoice_ref=None,
            invoice_number="",
            amount=None,
            currency="",
        )


_Answers = dict[str, Bought | None]


def _runs(it: Bought) -> bool:
    return it.status not in (None, SubscriptionStatus.CANCELED)


class FindSubscription(Query[Subscription], frozen=True, kw_only=True):
    """The company's subscription, for a process."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> Subscription:
        return await reads.subscriptions.current(at=reads.now)


class CompareSubscription(Query[list[tuple[str, str | None, str | None]]], frozen=True, kw_only=True):
    """What would become another one if this was applied: each field as it is and as it would be."""

    needs = None
    internal = True

    said: notices.AllSaid

    async def run(self, reads: Reads) -> list[tuple[str, str | None, str | None]]:
        before = after = await reads.subscriptions.current(at=reads.now)
        for one in self.said:
            after = one.applied(after, at=reads.now)
        return [
            (camel(name), plain(here), plain(there))
            for name in _COMPARED
            if (here := getattr(before, name)) != (there := getattr(after, name))
        ]
