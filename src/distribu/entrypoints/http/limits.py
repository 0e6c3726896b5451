"""The public API's rate limits: so many requests a minute for a key, and for an address."""

from dataclasses import dataclass
from typing import Any, Final

from litestar import Request as HttpRequest

from distribu.application.ports import Limit, RateLimiter, Standing
from distribu.domain.access import Actor
from distribu.domain.errors import RateLimited
from distribu.domain.values import limited_as
from distribu.entrypoints.http.browser import Header, Scope

WINDOW_S: Final = 60.0
_STANDINGS: Final = "distribu_standings"

Http = HttpRequest[Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """Requests a minute, counted in a sliding window; 0 switches a limit off."""

    per_key: int = 0
    per_ip: int = 0

    async def count_address(self, limiter: RateLimiter, http: Http, ip: str | None) -> None:
        """Count a request for its address, whoever it turns out to be. Raises `RateLimited`."""
        if self.per_ip and ip:
            await _count(limiter, http, "ip", Limit(f"api ip {limited_as(ip)}", self.per_ip, WINDOW_S))

    async def count_key(self, limiter: RateLimiter, http: Http, actor: Actor, own: int | None) -> None:
        """Count a request for its key; ``own`` is the company's own limit. Raises `RateLimited`."""
        most = self.per_key and (own or self.per_key)
        if most:
            await _count(limiter, http, "key", Limit(f"api key {actor.id}", most, WINDOW_S))


async def _count(limiter: RateLimiter, http: Http, name: str, limit: Limit) -> None:
    standing = await limiter.take(limit)
    standings: list[tuple[str, Standing]] = http.scope.setdefault(_STANDINGS, [])  # type: ignore[typeddict-item]  # a key of ours
    standings.append((name, standing))
    if not standing.allowed:
        # Whoever was refused for the key has been counted for the address: that may be full for longer.
        waits = [one.retry_after_s or 0 for _, one in standings]
        raise RateLimited("rate_limited", retry_after_s=max(waits))


def told(scope: Scope) -> list[Header]:
    """The headers of every answer that was counted.

    ``X-RateLimit-*`` tell of the tighter limit, ``Reset`` in seconds since 1970. ``RateLimit-Policy`` and
    ``RateLimit`` tell of each (draft-ietf-httpapi-ratelimit-headers), ``t`` in seconds from now.

    An address that is full is refused before anybody has asked whose key it is: what is told then, and how
    long to wait, is of the address alone.
    """
    standings: list[tuple[str, Standing]] = scope.get(_STANDINGS, [])
    if not standings:
        return []
    tighter = min((one for _, one in standings), key=lambda one: (one.allowed, one.remaining))
    policies = [f'"{name}";q={one.limit};w={WINDOW_S:.0f}' for name, one in standings]
    left = [f'"{name}";r={one.remaining};t={one.reset_in_s}' for name, one in standings]
    return [
        (b"x-ratelimit-limit", b"%d" % tighter.limit),
        (b"x-ratelimit-remaining", b"%d" % tighter.remaining),
        (b"x-ratelimit-reset", b"%d" % tighter.reset_at_s),
        (b"ratelimit-policy", ", ".join(policies).encode()),
        (b"ratelimit", ", ".join(left).encode()),
    ]
