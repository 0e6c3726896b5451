"""The door that Stripe knocks at: one path, no key but the signature over the bytes as they came."""

from typing import Any, Final

from litestar import Request as HttpRequest, post
from litestar.handlers import HTTPRouteHandler
from litestar.response.base import ASGIResponse

from distribu.application.kernel import Distribu
from distribu.application.notices import HearNotice
from distribu.application.payments import NOTICE_MAX
from distribu.domain.access import Actor
from distribu.domain.errors import Busy, Invalid
from distribu.entrypoints.http.wire import answer, body_in_time

PATH: Final = "/stripe/events"
HEADER_MAX: Final = 4_000
_LABEL: Final = "Stripe"

Http = HttpRequest[Any, Any, Any]


def notices(distribu: Distribu) -> list[HTTPRouteHandler]:
    """The door, or nothing where nothing is sold: then it answers as any path that is none.

    It answers 200 once a notice is kept for good, 400 for one that is not genuine, 408 for one that does not
    come in time, and 503 for one that is to be sent again, which Stripe does for three days
    (docs.stripe.com/webhooks, on retries).
    """
    if distribu.ports.payments is None:
        return []

    @post(PATH, include_in_schema=False, status_code=200, request_max_body_size=NOTICE_MAX)
    async def hear(request: Http) -> ASGIResponse:
        """Something happened at Stripe."""
        body = await body_in_time(request)
        signature = request.headers.get("stripe-signature")
        if signature is not None and len(signature) > HEADER_MAX:
            signature = None
        outcome = "stumbled"
        try:
            asked = HearNotice(body=body, signature=signature)
            outcome = (await distribu.run(Actor.system(None, _LABEL), asked)).lower()
        except Invalid:
            outcome = "refused"
            raise
        except Busy:
            outcome = "put_off"
            raise
        finally:
            distribu.counts.notices[outcome] += 1
        return answer(b'{"received":true}', 200, [], distribu.ports.entropy.uuid())

    return [hear]
