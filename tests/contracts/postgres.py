"""Distribu on PostgreSQL with the clock in our hand, and every receiver and mailbox in one list."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Self

from dependency_injector import providers

from distribu import Distribu, Harness, Settings, Shop
from distribu.adapters.limiter import InProcessLimiter
from distribu.adapters.mail import Mailbox, Stationery
from distribu.adapters.memory.twins import MovedClock, Receivers
from distribu.container import Container

_FAR_FUTURE = datetime(2100, 1, 1, tzinfo=UTC)
_opened = count(1)


class OnPostgres(Harness):
    """A harness over the real store, directory, queue, vault and randomness.

    One queue serves all companies of a database, so each shop opens five days before the one opened
    last: what others have left in the queue is not due while it is open.
    """

    def __init__(self, distribu: Distribu, clock: MovedClock, receivers: Receivers, mailbox: Mailbox) -> None:
        super().__init__()
        self.distribu = distribu
        self.clock = clock
        self.receivers = receivers
        self.received = receivers.received
        self.mail = mailbox.arrived

    async def __aenter__(self) -> Self:
        queue = self.distribu.ports.queue
        while await queue.relay(limit=1000, now=_FAR_FUTURE):
            pass
        await queue.purge(now=_FAR_FUTURE)
        opens = MovedClock().now().timestamp() - next(_opened) * 5 * 86_400
        self.clock.advance(seconds=opens - self.clock.now().timestamp())
        local = self.distribu.ports.local
        assert isinstance(local, InProcessLimiter)
        local._logs.clear()  # the clock goes back, which no limit forgives
        self.received.clear()
        self.mail.clear()
        self.receivers.answer = Receivers().answer
        shop = await Shop.open(self.distribu)
        Shop.__init__(self, self.distribu, shop.company)
        return self


@asynccontextmanager
async def on_postgres(settings: Settings) -> AsyncIterator[OnPostgres]:
    """Distribu with twins of the clock, the receivers and the mailer; to be entered for each test."""
    container = Container(settings=settings)
    clock, receivers = MovedClock(), Receivers()
    mailbox = Mailbox(Stationery(settings.mail_from, settings.links_begin))
    container.override_providers(
        clock=providers.Object(clock),
        hooks=providers.Object(receivers),
        mailer=providers.Object(mailbox),
    )
    await container.store().open()
    await container.queue().open()
    try:
        yield OnPostgres(container.distribu(), clock, receivers, mailbox)
    finally:
        await container.queue().close()
        await container.store().close()
