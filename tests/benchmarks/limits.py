"""What a check of a limit costs in this process, and in Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from distribu.adapters.limiter import InProcessLimiter
from distribu.adapters.redis import RedisLimiter
from distribu.adapters.system import SystemClock, SystemEntropy
from distribu.application.ports import Limit, RateLimiter
from tests.benchmarks.machine import cpu_s
from tests.integration.conftest import RedisServer

TOGETHER: Final = 64
"""Checks of one turn of the loop."""

CLIENTS: Final = 1_000


@dataclass(frozen=True, slots=True)
class Check:
    """Microseconds of CPU for one check: ours, and those of Redis."""

    server_us: float
    redis_us: float


@contextmanager
def redis(folder: Path) -> Iterator[RedisServer]:
    """A Redis of this run's own."""
    server = RedisServer(RedisServer.binary(), folder)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def checks(server: RedisServer, seconds: float) -> dict[str, Check]:
    """Each kind of check for so many seconds, on limits of 60 a minute for 1,000 clients."""
    return {
        "in process": uvloop.run(_measured(None, server.pid, 1, seconds)),
        "alone": uvloop.run(_measured(server.url, server.pid, 1, seconds)),
        "together": uvloop.run(_measured(server.url, server.pid, TOGETHER, seconds)),
    }


async def _measured(url: str | None, redis_pid: int, together: int, seconds: float) -> Check:
    limits = [Limit(f"api key {number}", 60, 60.0) for number in range(CLIENTS)]
    async with _limiter(url) as limiter:
        for limit in limits:
            await limiter.take(limit)
        done, end = 0, time.monotonic() + seconds
        own_s, redis_s = time.process_time(), cpu_s(redis_pid)
        while time.monotonic() < end:
            asked = [limits[(done + number) % CLIENTS] for number in range(together)]
            if together == 1:
                await limiter.take(asked[0])
            else:
                await asyncio.gather(*map(limiter.take, asked))
            done += together
        own_s, redis_s = time.process_time() - own_s, cpu_s(redis_pid) - redis_s
    return Check(own_s / done * 1e6, redis_s / done * 1e6)


@asynccontextmanager
async def _limiter(url: str | None) -> AsyncIterator[RateLimiter]:
    if url is None:
        yield InProcessLimiter(SystemClock())
        return
    limiter = RedisLimiter(url, clock=SystemClock(), entropy=SystemEntropy())
    yield limiter
    await limiter.close()
