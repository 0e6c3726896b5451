"""Rate limits in this process, alone or when what counts for all servers is away."""

import logging
from collections import OrderedDict, deque
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from distribu.application.ports import Clock, Limit, LimiterAway, RateLimiter, Standing

log: Final = logging.getLogger("distribu.limits")

AGAIN_AFTER: Final = timedelta(seconds=1)
"""How long a limiter that was away is left alone before it is asked again."""

KEYS_MAX: Final = 100_000
"""Windows kept at once; the one not used for longest goes first, as it is the likeliest to be empty."""


class InProcessLimiter:
    """Implements the port RateLimiter with a log of the times let through, per key."""

    def __init__(self, clock: Clock, *, keys_max: int = KEYS_MAX) -> None:
        self._clock = clock
        self._keys_max = keys_max
        self._logs: OrderedDict[str, deque[float]] = OrderedDict()
        self.away = 0

    async def take(self, limit: Limit) -> Standing:
        now = self._clock.now().timestamp()
        log = self._log(limit, now)
        allowed = len(log) < limit.most
        if allowed:
            log.append(now)
        return Standing(
            allowed=allowed,
            limit=limit.most,
            remaining=max(0, limit.most - len(log)),
            reset_at_s=ceil(log[-1] + limit.window_s),
            reset_in_s=ceil(log[-1] + limit.window_s - now),
            # More than the limit are in the log when it was lowered: all but ``most - 1`` have to pass.
            retry_after_s=None
            if len(log) < limit.most
            else max(1, ceil(log[len(log) - limit.most] + limit.window_s - now)),
        )

    def _log(self, limit: Limit, now: float) -> deque[float]:
        log = self._logs.get(limit.key)
        if log is None:
            log = self._logs[limit.key] = deque()
            if len(self._logs) > self._keys_max:
                self._logs.popitem(last=False)
        else:
            self._logs.move_to_end(limit.key)
        while log and log[0] <= now - limit.window_s:
            log.popleft()
        return log


class FallbackLimiter:
    """Implements the port RateLimiter by the first of two limiters, and by the second while that is away.

    Nothing is ever unlimited: with the first away, each server counts for itself. ``away`` is how many
    checks the second has answered.
    """

    def __init__(self, first: RateLimiter, second: RateLimiter, *, clock: Clock) -> None:
        self._first = first
        self._second = second
        self._clock = clock
        self._since: datetime | None = None
        self._again: datetime | None = None
        self.away = 0

    async def take(self, limit: Limit) -> Standing:
        now = self._clock.now()
        if self._again is None or now >= self._again:
            if self._again is not None:
                self._again = now + AGAIN_AFTER  # one asks whether it is back; the others do not wait for it
            try:
                standing = await self._first.take(limit)
            except LimiterAway as error:
                self._gone(error)
            else:
                self._back()
                return standing
        self.away += 1
        return await self._second.take(limit)

    def _gone(self, error: LimiterAway) -> None:
        now = self._clock.now()
        if self._since is None:
            self._since = now
            log.warning("rate limits are counted by this server alone: %s", error)
        self._again = now + AGAIN_AFTER

    def _back(self) -> None:
        if self._since is not None:
            log.info("rate limits are shared again, since %s they were not", self._since.isoformat())
        self._since = self._again = None
