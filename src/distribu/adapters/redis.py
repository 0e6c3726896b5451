"""Rate limits that every server shares, in Redis or what speaks its protocol: an exact sliding window."""

import asyncio
import hashlib
from collections.abc import Awaitable
from math import ceil
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from distribu.application.ports import Clock, Entropy, Limit, LimiterAway, Standing

CONNECT_S: Final = 1.0
ANSWER_S: Final = 1.0
"""What a check may take: whoever waits longer is better served by the bucket of this server. Our own loop is
in it: less than it lags under a flood would have every server count for itself just then."""

CONNECTIONS: Final = 8
BATCH_MAX: Final = 200
"""Checks that go out together; those of one turn of the event loop share a round trip."""

_SCRIPT: Final = """
local newest = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2]
local now, window, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
if newest and tonumber(newest) > now then now = tonumber(newest) end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - window)
local held = redis.call('ZCARD', KEYS[1])
local allowed = 0
if held < most then
    allowed = 1
    held = held + 1
    redis.call('ZADD', KEYS[1], now, now .. ' ' .. ARGV[4])
    redis.call('PEXPIRE', KEYS[1], window * 2)
end
local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or tostring(now)
local free = tostring(now)
if held >= most then free = redis.call('ZRANGE', KEYS[1], held - most, held - most, 'WITHSCORES')[2] end
return {allowed, held, last, free}
"""
# Times are in milliseconds by our clock. A server whose clock is behind counts at the newest time that
# any server has written, so that it never admits more for being late; one that is ahead makes the others
# wait for as long as it is, and how long that is each says by its own clock. What was let through is a
# member of its own: the number makes it unique.


class RedisLimiter:
    """Implements the port RateLimiter with one call of one script for each key."""

    def __init__(self, url: str, *, clock: Clock, entropy: Entropy) -> None:
        self.away = 0
        self._clock = clock
        self._redis: Redis = Redis.from_url(
            url,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=ANSWER_S,
            retry=Retry(NoBackoff(), 0),  # what is away is asked again in a second, not in this request
            max_connections=CONNECTIONS * 4,
        )
        self._free = asyncio.Semaphore(CONNECTIONS)
        self._digest = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[tuple[Limit, asyncio.Future[Standing]]] = []
        self._sending: set[asyncio.Task[None]] = set()
        self._name = entropy.uuid()  # of this one alone, on whichever machine the others are
        self._number = 0

    async def close(self) -> None:
        """Give back the connections."""
        await self._redis.aclose()

    async def take(self, limit: Limit) -> Standing:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Standing] = loop.create_future()
        self._waiting.append((limit, answer))
        if len(self._waiting) == 1:
            loop.call_soon(self._send)
        return await answer

    def _send(self) -> None:
        """Everything that was asked in this turn of the loop, in one round trip for each batch."""
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), BATCH_MAX):
            task = asyncio.create_task(self._ask(waiting[start : start + BATCH_MAX]))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _ask(self, batch: list[tuple[Limit, "asyncio.Future[Standing]"]]) -> None:
        now_ms = int(self._clock.now().timestamp() * 1000)
        try:
            async with asyncio.timeout(CONNECT_S + ANSWER_S), self._free:
                rows = await self._run(now_ms, [limit for limit, _ in batch])
            standings = [_standing(limit, row, now_ms) for (limit, _), row in zip(batch, rows, strict=True)]
        except Exception as error:  # a bug is handed on too: nobody waits for ever because of it
            away = isinstance(error, (RedisError, OSError, TimeoutError))
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(LimiterAway(type(error).__name__) if away else error)
            return
        for (_, answer), standing in zip(batch, standings, strict=True):
            if not answer.done():
                answer.set_result(standing)

    async def _run(self, now_ms: int, limits: list[Limit]) -> list[Any]:
        try:
            return await self._pipelined(now_ms, limits)
        except NoScriptError:  # a server that has restarted knows it no more
            await cast(Awaitable[Any], self._redis.script_load(_SCRIPT))
            return await self._pipelined(now_ms, limits)

    async def _pipelined(self, now_ms: int, limits: list[Limit]) -> list[Any]:
        # No transaction: each key is a script of its own, and may live on a node of its own.
        pipe = self._redis.pipeline(transaction=False)
        for limit in limits:
            self._number += 1
            key = hashlib.blake2b(limit.key.encode(), digest_size=16).hexdigest()
            unique = f"{self._name}-{self._number}"
            window_ms = int(limit.window_s * 1000)
            pipe.evalsha(self._digest, 1, f"distribu:limit:{key}", now_ms, window_ms, limit.most, unique)
        rows: list[Any] = await pipe.execute()
        return rows


def _standing(limit: Limit, row: list[Any], now_ms: int) -> Standing:
    allowed, held, last_ms, free_ms = int(row[0]), int(row[1]), *(float(cell) for cell in row[2:])
    window_ms = limit.window_s * 1000
    return Standing(
        allowed=bool(allowed),
        limit=limit.most,
        remaining=max(0, limit.most - held),
        reset_at_s=ceil((last_ms + window_ms) / 1000),
        reset_in_s=ceil((last_ms + window_ms - now_ms) / 1000),
        retry_after_s=None if held < limit.most else max(1, ceil((free_ms + window_ms - now_ms) / 1000)),
    )
