"""Limits that servers share, and what becomes of them when the server that counts is away."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from distribu import Distribu, Harness, Settings
from distribu.adapters.limiter import AGAIN_AFTER, FallbackLimiter, InProcessLimiter
from distribu.adapters.memory.twins import MovedClock
from distribu.adapters.redis import RedisLimiter
from distribu.adapters.system import SystemEntropy
from distribu.application.ports import Limit, LimiterAway
from tests.integration.conftest import RedisServer
from tests.proofs.processes import Server
from tests.unit.test_limits import TestGuessing, TestHeaders, fresh_ip, fresh_mail

__all__ = ["TestGuessing", "TestHeaders"]

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


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    """In memory, but for what counts."""
    async with Harness() as shop:
        yield shop


@pytest.fixture
async def servers(shop: Harness, redis_server: RedisServer) -> AsyncIterator[list[Distribu]]:
    """Two that answer and share one Redis, each with what `distribu serve` counts with."""
    shared = [counting(redis_server, shop.clock) for _ in range(2)]
    await shared[0]._redis.flushall()
    limiters = [FallbackLimiter(one, InProcessLimiter(shop.clock), clock=shop.clock) for one in shared]
    yield [Distribu(replace(shop.distribu.ports, limiter=one)) for one in limiters]
    assert [one.away for one in limiters] == [0, 0], "every check was answered by Redis"
    for one in shared:
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
    """limits#268: a limit of 100,000 that holds 5,000 answers by the same few commands as an empty one."""
    redis = pair[0]._redis
    great = Limit("great", 100_000, 60)
    for _ in range(25):  # all at once would wait longer than a check may, on a busy machine
        await asyncio.gather(*(pair[0].take(great) for _ in range(200)))
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


class Crowd:
    """Clients of several server processes, which believe them about their addresses."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str]) -> None:
        self._session = session
        self._urls = urls
        self.statuses: list[int] = []

    async def _said(self, ip: str, server: int, method: str, path: str, **more: Any) -> tuple[int, str]:
        headers = {"x-forwarded-for": ip}
        url = self._urls[server % len(self._urls)] + path
        async with self._session.request(method, url, headers=headers, **more) as answer:
            self.statuses.append(answer.status)
            return answer.status, answer.headers.get("x-ratelimit-remaining", "")

    async def guess(self, ip: str, server: int) -> int:
        """A sign-in that cannot succeed: 401 when it was let in, 429 when it was not."""
        body = {"email": fresh_mail(), "password": "correct horse battery staple"}
        return (await self._said(ip, server, "POST", "/auth/sign-in", json=body))[0]

    async def shared(self) -> bool:
        """Whether what one server counts, the other knows."""
        ip = fresh_ip()
        return [(await self._said(ip, server, "GET", "/api/v1/me"))[1] for server in (0, 1)] == ["119", "118"]


def warnings(server: Server) -> int:
    return server.log.read_text().count("rate limits are counted by this server alone")


async def test_two_server_processes_share_their_limits_and_outlive_redis(
    settings: Settings, redis_server: RedisServer, tmp_path: Path
) -> None:
    servers = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        server = Server(
            tmp_path / name,
            "--no-worker",
            redis_url=redis_server.url,
            database_url=settings.database_url,
            queue_database_url=settings.queue_database_url,
            trusted_proxies="127.0.0.1",
            api_limit_per_ip=120,
        )
        servers.append(server)
    try:
        await asyncio.gather(*(server.started() for server in servers))
        connector = aiohttp.TCPConnector(limit=50)
        async with aiohttp.ClientSession(connector=connector) as session:
            crowd, ip = Crowd(session, [server.url for server in servers]), fresh_ip()
            tries = await asyncio.gather(*(crowd.guess(ip, number) for number in range(100)))
            assert (tries.count(401), tries.count(429)) == (10, 90)
            assert await crowd.shared()

            async def traffic() -> None:
                while not over.is_set():
                    await asyncio.gather(*(crowd.guess(fresh_ip(), server) for server in (0, 1)))

            over = asyncio.Event()
            busy = asyncio.create_task(traffic())
            await asyncio.sleep(0.2)
            redis_server.kill()
            try:
                ip = fresh_ip()
                tries = await asyncio.gather(*(crowd.guess(ip, number) for number in range(60)))
                assert (tries.count(401), tries.count(429)) == (20, 40), "each for itself, at the same number"
                assert not await crowd.shared()
            finally:
                redis_server.start()
            began = time.monotonic()
            while not await crowd.shared():
                assert time.monotonic() - began < 30, "they never shared again"
                await asyncio.sleep(0.05)
            print(f"\nshared again after {time.monotonic() - began:.1f} s")
            ip = fresh_ip()
            tries = await asyncio.gather(*(crowd.guess(ip, number) for number in range(40)))
            assert (tries.count(401), tries.count(429)) == (10, 30)
            over.set()
            await busy
            assert set(crowd.statuses) == {401, 429}, "and nothing was a mistake of ours"
        # A machine that is too busy to answer within a second may add one; 30 requests of each went without.
        assert all(1 <= warnings(server) <= 3 for server in servers), "told once, not for each request"
        assert await asyncio.gather(*(server.stop() for server in servers)) == [0, 0]
    finally:
        for server in servers:
            server.end()
