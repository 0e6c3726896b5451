"""Rate limits in this process: a sliding window, exact to the clock's millisecond."""

from collections import OrderedDict, deque
from math import ceil
from typing import Final

from distribu.application.ports import Clock, Limit, Standing

KEYS_MAX: Final = 100_000
"""Windows kept at once; the one not used for longest goes first, as it is the likeliest to be empty."""


class InProcessLimiter:
    """Implements the port RateLimiter with a log of the times let through, per key."""

    def __init__(self, clock: Clock, *, keys_max: int = KEYS_MAX) -> None:
        self._clock = clock
        self._keys_max = keys_max
        self._logs: OrderedDict[str, deque[float]] = OrderedDict()

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
            # More than the limit are in the log when it was lowered: all but ``most - 1`` have to pass.
            retry_after_s=None
            if allowed
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
