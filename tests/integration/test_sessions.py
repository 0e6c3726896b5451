"""Sessions on PostgreSQL: all that holds in memory."""

from collections.abc import AsyncIterator

import httpx
import pytest

from distribu import Shop
from tests.unit.test_sessions import (
    TestCookies,
    TestEnds,
    TestNobodyIsTold,
    TestOrigins,
    TestSecondFactor,
    TestTokens,
    door,
)

__all__ = ["TestCookies", "TestEnds", "TestNobodyIsTold", "TestOrigins", "TestSecondFactor", "TestTokens"]


@pytest.fixture
async def browser(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with door(shop) as browser:
        yield browser
