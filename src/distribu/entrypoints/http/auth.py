"""Who is at the door: bearer keys."""

from re import compile as compiled
from typing import Any, Final

from litestar import Request as HttpRequest

from distribu.application.kernel import Distribu
from distribu.domain.access import Actor, ApiKey
from distribu.domain.errors import Unauthenticated

_BEARER: Final = compiled(r"(?i:bearer) +(dk_[A-Za-z0-9_-]{43})")


async def key_holder(
    distribu: Distribu, http: HttpRequest[Any, Any, Any], ip: str | None
) -> tuple[Actor, int | None]:
    """The actor of a bearer key, and the API limit of its company's own, if it has one.

    Raises `Unauthenticated`, in the same words for every reason.
    """
    found = _BEARER.fullmatch(http.headers.get("authorization", ""))
    grant = await distribu.ports.directory.key(ApiKey.digest_of(found[1])) if found else None
    actor = grant.actor(now=distribu.ports.clock.now(), ip=ip) if grant else None
    if grant is None or actor is None:
        raise Unauthenticated("unauthenticated")
    return actor, grant.api_limit
