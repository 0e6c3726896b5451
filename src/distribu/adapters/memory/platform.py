"""What those who run the platform see, in memory."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from distribu.adapters.memory.reading import Finder, MemoryRead, page
from distribu.application.finders import CompanyCard, FailedJob, KeptNotice, Usage
from distribu.application.ports import MailStatus, Page, Scope
from distribu.domain.access import ApiKey
from distribu.domain.accounts import REALM
from distribu.domain.billing import Subscription
from distribu.domain.catalog import Product
from distribu.domain.customers import Customer
from distribu.domain.errors import NotFound
from distribu.domain.notices import Notice, NoticeStatus
from distribu.domain.ordering import Order
from distribu.domain.team import Company, Membership
from distribu.domain.values import CompanyId
from distribu.domain.webhooks import DeliveryStatus, Webhook

T = TypeVar("T")


class Platform(Finder):
    """Implements the port Platform, for a transaction of the realm alone."""

    def companies(self, *, limit: int, cursor: str | None = None) -> MemoryRead[Page[CompanyCard]]:
        return self._of_the_realm(lambda: page(self._cards(), limit, cursor, lambda it: it.id))

    def card(self, id: CompanyId) -> MemoryRead[CompanyCard]:
        def answer() -> CompanyCard:
            found = next((card for card in self._cards() if card.id == id), None)
            if found is None:
                raise NotFound("company_not_found")
            return found

        return self._of_the_realm(answer)

    def usage(self, id: CompanyId, *, since: datetime) -> MemoryRead[Usage]:
        def answer() -> Usage:
            rows: Any = self.tx.everywhere.get(id, {})

            def count(kind: type, keep: Callable[[Any], bool] = lambda _: True) -> int:
                return sum(keep(it) for it in rows.get(kind, {}).values())

            return Usage(
                members=count(Membership, lambda it: it.removed_at is None),
                products=count(Product, lambda it: it.archived_at is None),
                customers=count(Customer),
                orders=count(Order),
                orders_this_month=count(Order, lambda it: it.placed_at >= since),
                api_keys=count(ApiKey, lambda it: it.revoked_at is None),
                webhooks=count(Webhook, lambda it: it.removed_at is None),
            )

        return self._of_the_realm(answer)

    def failed(self, *, limit: int) -> MemoryRead[Sequence[FailedJob]]:
        def answer() -> Sequence[FailedJob]:
            store = self.tx.store
            mails = [
                FailedJob(id, "mail", one.parcel.id, "mail", one.error, one.created_at)
                for id, shelf in store.shelves.items()
                for one in shelf.mails
                if one.status is MailStatus.DEAD
            ]
            sent = [
                FailedJob(
                    id,
                    "delivery",
                    one.delivery.id,
                    one.delivery.event,
                    one.delivery.attempts[-1].error if one.delivery.attempts else "",
                    one.delivery.created_at,
                )
                for id, deliveries in store.sent.items()
                for one in deliveries.values()
                if one.delivery.status is DeliveryStatus.DEAD
            ]
            return sorted([*mails, *sent], key=lambda one: (one.created_at, one.id), reverse=True)[:limit]

        return self._of_the_realm(answer)

    def notices(self, *, failed: bool, limit: int) -> MemoryRead[Sequence[KeptNotice]]:
        def answer() -> Sequence[KeptNotice]:
            open_ = {NoticeStatus.WAITING, NoticeStatus.FAILED} if failed else set(NoticeStatus)
            kept = [
                KeptNotice(id, it.ref, it.type, it.status, it.error, it.created_at)
                for id, rows in self.tx.everywhere.items()
                for it in rows.get(Notice, {}).values()
                if it.status in open_
            ]
            return sorted(kept, key=lambda it: (it.created_at, it.ref), reverse=True)[:limit]

        return self._of_the_realm(answer)

    def payer(self, notice_id: str, customer_ref: str | None) -> MemoryRead[CompanyId | None]:
        def answer() -> CompanyId | None:
            tables = list(self.tx.everywhere.items())
            keeps = [id for id, rows in tables if notice_id in rows.get(Notice, {}) and id != REALM]
            pays = [
                id
                for id, rows in tables
                for it in rows.get(Subscription, {}).values()
                if customer_ref is not None and it.customer_ref == customer_ref
            ]
            return next(iter([*keeps, *sorted(pays)]), None)

        return self._of_the_realm(answer)

    def _cards(self) -> list[CompanyCard]:
        cards = [
            CompanyCard(it.id, it.name, it.slug, it.standing, it.api_limit)
            for rows in self.tx.everywhere.values()
            for it in rows.get(Company, {}).values()
        ]
        return sorted(cards, key=lambda card: card.id, reverse=True)

    def _of_the_realm(self, answer: Callable[[], T]) -> MemoryRead[T]:
        if self.tx.scope != Scope(REALM):
            raise NotFound("not_found")
        return MemoryRead(self.tx, answer)
