"""Limits that servers share, and what becomes of them when the server that counts is away."""

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from distribu.adapters.limiter import AGAIN_AFTER, FallbackLimiter, InProcessLimiter
from distribu.adapters.memory.twins import MovedClock
from distribu.adapters.redis import RedisLimiter
from distribu.adapters.system import SystemEntropy
from distribu.application.ports import Limit, LimiterAway
from tests.integration.conftest import RedisServer

TEN = Limit("login 203.0.113.9", 10, 900)


def counting(redis_server: RedisServer, clock: MovedClock) -> RedisLimiter:
    """The limiter of one server."""
    return RedisLimiter(redis_server.url, clock=clock, entropy=SystemEntropy())


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
async def pair(
    clock: MovedClock, redis_server: RedisServer
) -> AsyncIterator[tuple[RedisLimiter, RedisLimiter]]:
    """Two servers' limiters, on connections of their own."""
    pair = counting(redis_server, clock), counting(redis_server, clock)
    await pair[0]._redis.flushall()
    yield pair
    for one in pair:
        await one.close()


async def test_two_servers_admit_as_many_as_one(pair: tuple[RedisLimiter, RedisLimiter]) -> None:
    tries = [pair[number % 2].take(TEN) for number in range(100)]
    assert sum(one.allowed for one in await asyncio.gather(*tries)) == 10


async def test_a_clock_that_is_behind_admits_no_more(redis_server: RedisServer, clock: MovedClock) -> None:
    late = MovedClock(clock.now() - timedelta(minutes=30))
    here, there = counting(redis_server, clock), counting(redis_server, late)
    await here._redis.flushall()
    try:
        for _ in range(10):
            assert (await here.take(TEN)).allowed
        assert not (await there.take(TEN)).allowed
    finally:
        await here.close()
        await there.close()


async def test_who_is_limited_is_not_readable_there(pair: tuple[RedisLimiter, RedisLimiter]) -> None:
    await pair[0].take(TEN)
    keys = [bytes(key).decode() for key in await pair[0]._redis.keys("*")]  # type: ignore[arg-type]
    assert len(keys) == 1
    assert keys[0].startswith("distribu:limit:")
    assert "203" not in keys[0]
    assert "login" not in keys[0]
    assert 900 < await pair[0]._redis.ttl(keys[0]) <= 1800, "for two windows, and no longer"


async def test_a_great_limit_costs_one_call_as_a_small_one_does(
    pair: tuple[RedisLimiter, RedisLimiter],
) -> None:
    """A limit of 100,000 that is half used answers by the same few commands; nothing is read as a whole."""
    redis = pair[0]._redis
    great = Limit("great", 100_000, 60)
    await asyncio.gather(*(pair[0].take(great) for _ in range(5_000)))
    before = await redis.info("commandstats")
    standing = await pair[0].take(great)
    after = await redis.info("commandstats")
    assert (standing.allowed, standing.remaining) == (True, 94_999)
    ran = {
        name: stats["calls"] - before.get(name, {"calls": 0})["calls"]
        for name, stats in after.items()
        if stats["calls"] != before.get(name, {"calls": 0})["calls"]
    }
    assert ran.pop("cmdstat_info") == 1
    assert ran.pop("cmdstat_evalsha") == 1
    assert sum(ran.values()) <= 7


async def test_without_redis_each_server_counts_for_itself_and_shares_again_when_it_is_back(
    redis_server: RedisServer, clock: MovedClock, caplog: pytest.LogCaptureFixture
) -> None:
    shared = counting(redis_server, clock)
    limiter = FallbackLimiter(shared, InProcessLimiter(clock), clock=clock)
    await shared._redis.flushall()
    with caplog.at_level(logging.INFO, "distribu.limits"):
        for _ in range(10):
            assert (await limiter.take(TEN)).allowed
        assert not (await limiter.take(TEN)).allowed
        assert limiter.away == 0

        redis_server.kill()
        standings = await asyncio.gather(*(limiter.take(TEN) for _ in range(50)))
        assert sum(one.allowed for one in standings) == 10, "this server's own bucket, at the same number"
        assert limiter.away == 50
        assert [record.levelname for record in caplog.records] == ["WARNING"], "once, not for each request"
        with pytest.raises(LimiterAway):
            await shared.take(TEN)

        redis_server.start()
        assert not (await limiter.take(TEN)).allowed, "it is left alone for a second"
        assert limiter.away == 51
        clock.advance(seconds=AGAIN_AFTER.total_seconds())
        assert (await limiter.take(TEN)).allowed, "what it had counted is gone with it"
        assert limiter.away == 51
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    await shared.close()
