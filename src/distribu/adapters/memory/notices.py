"""The twin of the finders of what Stripe told us."""

from distribu.adapters.memory.reading import Finder, MemoryRead
from distribu.domain.notices import INVOICE_PAID, Notice, NoticeStatus


class Notices(Finder):
    """Implements the port Notices."""

    def get(self, id: str) -> MemoryRead[Notice | None]:
        def answer() -> Notice | None:
            found: Notice | None = self.tx.find(Notice, id)
            return None if found is None else self.tx.lock(found)

        return MemoryRead(self.tx, answer)

    def turn(self) -> MemoryRead[int]:
        return MemoryRead(self.tx, lambda: max((it.turn or 0 for it in self.tx.mine(Notice)), default=0))

    def paid(self, invoice_ref: str) -> MemoryRead[bool]:
        return MemoryRead(
            self.tx,
            lambda: any(
                (it.invoice_ref, it.type, it.status) == (invoice_ref, INVOICE_PAID, NoticeStatus.APPLIED)
                for it in self.tx.mine(Notice)
            ),
        )
