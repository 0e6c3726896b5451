"""Sessions on PostgreSQL: all that holds in memory."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx
import pytest

from distribu import Busy, Role, Shop
from distribu.adapters.postgres.queue import PostgresQueue
from distribu.entrypoints.http import sessions
from tests import people
from tests.unit.test_sessions import (
    TestCookies,
    TestEnds,
    TestIdempotency,
    TestLastUse,
    TestNobodyIsTold,
    TestOrigins,
    TestSecondFactor,
    TestTokens,
    carry,
    cookie_of,
    door,
)

__all__ = [
    "TestCookies",
    "TestEnds",
    "TestIdempotency",
    "TestLastUse",
    "TestNobodyIsTold",
    "TestOrigins",
    "TestSecondFactor",
    "TestTokens",
]


@pytest.fixture
async def browser(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with door(shop) as browser:
        yield browser


async def test_a_request_does_not_wait_for_a_queue_that_is_busy(
    shop: Shop, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its connections are taken by what is being sent."""
    queue = shop.distribu.ports.queue
    assert isinstance(queue, PostgresQueue)
    member = await people.staff(shop, Role.OWNER)
    carry(browser, *cookie_of(shop, member))
    monkeypatch.setattr(sessions, "SEEN_EVERY", timedelta(0))
    now = shop.distribu.ports.clock.now()
    async with AsyncExitStack() as taken:
        for _ in range(queue.pool.max_size):
            await taken.enter_async_context(queue.pool.connection())
        with pytest.raises(Busy):
            await queue.seen(member.session.company_id, member.session.id, at=now, ip=None)
        assert (await browser.get("/account")).status_code == 200
