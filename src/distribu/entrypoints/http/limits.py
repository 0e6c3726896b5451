"""The public API's rate limits: so many requests a minute for a key, and for an address."""

from dataclasses import dataclass
from typing import Any, Final

from litestar import Request as HttpRequest

from distribu.application.ports import Limit, RateLimiter, Standing
from distribu.domain.access import Actor
from distribu.domain.errors import RateLimited

WINDOW_S: Final = 60.0
_STANDING: Final = "distribu_standing"

Http = HttpRequest[Any, Any, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiLimits:
    """Requests a minute, counted in a sliding window; 0 switches a limit off."""

    per_key: int = 0
    per_ip: int = 0

    async def count_address(self, limiter: RateLimiter, http: Http) -> None:
        """Count a request for its address, whoever it turns out to be. Raises `RateLimited`."""
        if self.per_ip and http.client:
            await _count(limiter, http, Limit(f"api ip {http.client.host}", self.per_ip, WINDOW_S))

    async def count_key(self, limiter: RateLimiter, http: Http, actor: Actor) -> None:
        """Count a request for its key. Raises `RateLimited`."""
        if self.per_key:
            await _count(limiter, http, Limit(f"api key {actor.id}", self.per_key, WINDOW_S))


async def _count(limiter: RateLimiter, http: Http, limit: Limit) -> None:
    standing = await limiter.take(limit)
    before: Standing | None = getattr(http.state, _STANDING, None)
    if before is None or standing.remaining <= before.remaining:
        setattr(http.state, _STANDING, standing)
    if not standing.allowed:
        raise RateLimited("rate_limited", retry_after_s=standing.retry_after_s)


def told(http: Http) -> list[tuple[str, str]]:
    """The headers of the tighter limit, for every answer: ``Reset`` is in seconds since 1970."""
    standing: Standing | None = getattr(http.state, _STANDING, None)
    if standing is None:
        return []
    return [
        ("x-ratelimit-limit", str(standing.limit)),
        ("x-ratelimit-remaining", str(standing.remaining)),
        ("x-ratelimit-reset", str(standing.reset_at_s)),
    ]
