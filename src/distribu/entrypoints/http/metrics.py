"""``/metrics``: what this process counted, as Prometheus reads it (text format 0.0.4)."""

import asyncio
import hmac
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from litestar import Request as HttpRequest, get
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from distribu.application.counts import BUCKETS_S, Counts
from distribu.application.kernel import Distribu
from distribu.application.ports import Backlog
from distribu.domain.errors import Unauthenticated
from distribu.domain.values import Secret
from distribu.entrypoints.http.browser import Site

log: Final = logging.getLogger("distribu.http")

BACKLOG_S: Final = 2.0
"""How long the database may take to say what waits; what is counted here is told without it."""

_TYPE: Final = "text/plain; version=0.0.4"
"""The charset is added to it."""

Http = HttpRequest[Any, Any, Any]
Sample = tuple[str, float]


def metrics(distribu: Distribu, site: Site) -> list[HTTPRouteHandler]:
    """The page, or nothing where nobody may read it: then it answers as any path that is none."""
    if site.metrics_token is None and not site.open_metrics:
        return []

    @get("/metrics", include_in_schema=False)
    async def read(request: Http) -> ASGIResponse:
        """What this process has done, and what waits."""
        if site.metrics_token is not None:
            known(request, site.metrics_token)
        text = "".join(page(distribu, await _backlog(distribu)))
        headers = [("x-request-id", distribu.ports.entropy.uuid())]
        return ASGIResponse(body=text.encode(), media_type=_TYPE, headers=headers)

    return [read]


def known(request: Http, token: Secret) -> None:
    """Raises `Unauthenticated` unless a request shows a token as its bearer, in no time that tells of it."""
    shown = request.headers.get("authorization", "")
    if not hmac.compare_digest(shown.encode(), f"Bearer {token.reveal()}".encode()):
        raise Unauthenticated("unauthenticated")


async def _backlog(distribu: Distribu) -> Backlog | None:
    ports = distribu.ports
    try:
        async with asyncio.timeout(BACKLOG_S):
            return await ports.queue.backlog(now=ports.clock.now())
    except Exception as error:
        log.warning("what waits could not be counted: %s", type(error).__name__)
        return None


def page(distribu: Distribu, backlog: Backlog | None) -> Iterator[str]:
    """The page's lines, each metric with what it means; without a ``backlog`` those of it are missing."""
    counts, ports = distribu.counts, distribu.ports
    requests = [
        (_labels(request=name, outcome=what), number) for (name, what), number in counts.requests.items()
    ]
    yield from _metric("requests_total", "counter", "Requests executed, by what came of them.", requests)
    yield from _durations(counts)
    yield from _metric(
        "retries_total",
        "counter",
        "Commands run again because the database gave up on them.",
        _by("request", counts.retries),
    )
    yield from _metric(
        "http_answers_total", "counter", "HTTP answers, by class.", _by("class", counts.answers)
    )
    yield from _metric(
        "deliveries_total",
        "counter",
        "Attempts to deliver to a webhook, by what came of them.",
        _by("outcome", counts.deliveries),
    )
    yield from _metric(
        "mails_total",
        "counter",
        "Attempts to send a mail, by what came of them.",
        _by("outcome", counts.mails),
    )
    yield from _metric(
        "jobs_total",
        "counter",
        "Runs of jobs, by what came of them.",
        [(_labels(job=name, outcome=what), number) for (name, what), number in counts.jobs.items()],
    )
    yield from _metric(
        "refusals_total",
        "counter",
        "Lacks of permission, by what the audit log got of them.",
        _by("recorded", counts.refusals),
    )
    yield from _metric(
        "payment_notices_total",
        "counter",
        "What Stripe told us, by what became of it.",
        _by("outcome", counts.notices),
    )
    yield from _metric(
        "limits_away_total",
        "counter",
        "Checks of a rate limit answered by this server alone, as Redis was away.",
        [("", ports.limiter.away)],
    )
    yield from _metric(
        "passwords_under_way",
        "gauge",
        "Passwords being hashed, or waiting for it.",
        [("", ports.hasher.under_way)],
    )
    yield from _metric(
        "passwords_busy_total",
        "counter",
        "Passwords turned away because too many waited.",
        [("", ports.hasher.turned_away)],
    )
    if backlog is None:
        return
    waiting = {
        "events": backlog.events,
        "deliveries": backlog.deliveries,
        "mails": backlog.mails,
        "records": backlog.records,
        "notices": backlog.notices,
    }
    yield from _metric(
        "waiting",
        "gauge",
        "What is still to be relayed, delivered, mailed, sealed or heard of; 10000 is that or more.",
        _by("what", {name: one.count for name, one in waiting.items()}),
    )
    yield from _metric(
        "waiting_late_seconds",
        "gauge",
        "For how long the first of what waits has been due.",
        _by("what", {name: one.late_s for name, one in waiting.items()}),
    )


def _durations(counts: Counts) -> Iterator[str]:
    yield from _metric("request_seconds", "histogram", "How long requests took.", ())
    for name, buckets in counts.buckets.items():
        below = 0
        for bound, number in zip((*map(str, BUCKETS_S), "+Inf"), buckets, strict=True):
            below += number
            yield f"distribu_request_seconds_bucket{_labels(request=name, le=bound)} {below}\n"
        yield f"distribu_request_seconds_sum{_labels(request=name)} {counts.seconds[name]}\n"
        yield f"distribu_request_seconds_count{_labels(request=name)} {below}\n"


def _metric(name: str, kind: str, meaning: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP distribu_{name} {meaning}\n# TYPE distribu_{name} {kind}\n"
    for labels, value in samples:
        yield f"distribu_{name}{labels} {value}\n"


def _by(label: str, numbers: Mapping[str, float]) -> list[Sample]:
    return [(_labels(**{label: name}), number) for name, number in numbers.items()]


def _labels(**labels: str) -> str:
    """Nothing in them has to be escaped: names of classes, codes and words of ours."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"
