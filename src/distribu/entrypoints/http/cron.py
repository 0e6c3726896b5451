"""``POST /cron/{job}``: jobs for hosts without a worker, run by whatever scheduler they have."""

from typing import Any, Final

from litestar import Request as HttpRequest, post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from distribu.application import views
from distribu.application.agenda import Outcome
from distribu.application.jobs import named, run_now
from distribu.application.kernel import Distribu
from distribu.application.ports import Limit
from distribu.domain.errors import Busy, RateLimited
from distribu.domain.values import limited_as
from distribu.entrypoints.http.browser import Site
from distribu.entrypoints.http.client import client_ip
from distribu.entrypoints.http.metrics import known
from distribu.entrypoints.http.wire import answer

MOST: Final = 60
WINDOW_S: Final = 60.0
"""Requests of one address in so many seconds, whatever they show."""

AGAIN_S: Final = 60
"""After so long a job that failed may be asked for again."""

Http = HttpRequest[Any, Any, Any]


def cron(distribu: Distribu, site: Site) -> list[HTTPRouteHandler]:
    """The route, or nothing where nobody may take it: then it answers as any path that is none."""
    token = site.cron_token
    if token is None:
        return []

    @post("/cron/{job:str}", status_code=200, include_in_schema=False)
    async def run(request: Http) -> ASGIResponse:
        """Run a job now, due or not, and answer when it has ended: in four minutes at the latest."""
        ip = client_ip(request, site.trusted) or "-"
        standing = await distribu.ports.limiter.take(Limit(f"cron ip {limited_as(ip)}", MOST, WINDOW_S))
        if not standing.allowed:
            raise RateLimited("rate_limited", retry_after_s=standing.retry_after_s)
        known(request, token)
        job = named(request.path_params["job"])
        ran = await run_now(distribu, job)
        if ran.outcome is not Outcome.DONE:
            raise Busy("job_failed", retry_after_s=AGAIN_S)
        return answer(views.encode({"data": ran}), 200, [], distribu.ports.entropy.uuid())

    return [run]
