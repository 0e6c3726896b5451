"""The twin of the finders of a company's subscription, and of what it uses."""

from datetime import datetime

from distribu.adapters.memory.reading import Finder, MemoryRead
from distribu.domain.billing import Subscription, Used, month_of
from distribu.domain.catalog import Product
from distribu.domain.customers import Customer, CustomerStatus
from distribu.domain.team import Invitation, Membership


class Subscriptions(Finder):
    """Implements the port Subscriptions."""

    def current(self, *, at: datetime, lock: bool = False) -> MemoryRead[Subscription]:
        def answer() -> Subscription:
            company_id = self.tx.scope.company_id
            found: Subscription | None = self.tx.find(Subscription, company_id)
            if found is None:
                return Subscription.unlimited(company_id, at=at)
            locked: Subscription = self.tx.lock(found)
            return locked

        return MemoryRead(self.tx, answer)

    def used(self, *, at: datetime) -> MemoryRead[Used]:
        def answer() -> Used:
            mine = self.tx.mine
            members = sum(it.removed_at is None for it in mine(Membership))
            invited = sum(it.open for it in mine(Invitation))
            return Used(
                products=sum(it.archived_at is None for it in mine(Product)),
                customers=sum(it.status is CustomerStatus.ACTIVE for it in mine(Customer)),
                seats=members + invited,
                orders_a_month=self.tx.shelf.made_in(month_of(at)),
            )

        return MemoryRead(self.tx, answer)
