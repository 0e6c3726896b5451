"""Stripe (stripe.com), over its own SDK: checkout and portal, subscriptions, prices, and signed webhooks.

The SDK's telemetry is off in the whole process: it would keep an id in the home directory, and tell Stripe
what the machine is. What Stripe says of a mistake is not repeated: it quotes keys and addresses. The SDK
would log that at INFO, and at DEBUG what it posts, so that it is heard from WARNING on.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NoReturn, TypeVar

import aiohttp
import stripe

from distribu.adapters import stripe_words
from distribu.adapters.stripe_words import NotUnderstood
from distribu.application.payments import (
    PAGE,
    SOLD,
    Bought,
    Offer,
    PaymentNotice,
    PaymentsAway,
    PaymentsRefused,
    Prices,
)
from distribu.domain.billing import Interval, Plan
from distribu.domain.errors import Invalid
from distribu.domain.values import CompanyId, Secret

log: Final = logging.getLogger("distribu.payments")
T = TypeVar("T")

API: Final = "https://api.stripe.com"
API_VERSION: Final = "2026-10-28.endive"
"""What Stripe's answers look like. It is the SDK's own: a newer SDK is a newer version, and read about
first."""

ALL_S: Final = 9.0
"""What a call may take in all: both tries, the wait between them, and reading the answer."""

TRY_S: Final = 4.0
TRIES: Final = 2
CONNECTIONS: Final = 16
_READ_MAX: Final = 8_388_608
_WAIT_MAX_S: Final = 86_400
_KIND: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,80}")

stripe.enable_telemetry = False
logging.getLogger("stripe").setLevel(logging.WARNING)


class _Client(stripe.HTTPClient):
    """The SDK's way out: one pool, no redirects, no proxies, a capped read."""

    name = "aiohttp"

    def __init__(self) -> None:
        super().__init__()
        self._pool: aiohttp.ClientSession | None = None

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        try:
            async with (
                asyncio.timeout(TRY_S),
                self._session().request(
                    method, url, headers=headers, data=post_data, allow_redirects=False
                ) as got,
            ):
                read = b""
                while piece := await got.content.readany():
                    read += piece
                    if len(read) > _READ_MAX:
                        raise aiohttp.ClientPayloadError("too long")
                return read, got.status, got.headers
        except (aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            raise stripe.APIConnectionError(  # type: ignore[no-untyped-call]  # the SDK's is untyped
                type(error).__name__, should_retry=True
            ) from None

    def sleep_async(self, secs: float) -> Awaitable[None]:
        return asyncio.sleep(secs)

    async def close_async(self) -> None:
        if self._pool is not None:
            await self._pool.close()
            self._pool = None

    def _session(self) -> aiohttp.ClientSession:
        if self._pool is None or self._pool.closed:
            self._pool = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        return self._pool


class StripePayments:
    """Implements the port Payments. The ``secrets`` are those of the webhook endpoint, two during a rotation.

    ``base_url`` is where the API is, in place of Stripe's own.
    """

    def __init__(
        self, key: Secret, secrets: Sequence[Secret], prices: Prices, *, base_url: str | None = None
    ) -> None:
        self.prices_sold = prices
        self._secrets = tuple(secrets)
        self._live = key.reveal()[2:].startswith("_live_")
        self._client = _Client()
        self._stripe = stripe.StripeClient(
            key.reveal(),
            stripe_version=API_VERSION,
            base_addresses={"api": base_url or API},
            http_client=self._client,
            max_network_retries=TRIES - 1,
        )

    async def checkout(
        self,
        *,
        company_id: CompanyId,
        plan: Plan,
        interval: Interval,
        email: str,
        customer_ref: str | None,
        back: str,
        once: str,
    ) -> str:
        wanted: dict[str, Any] = stripe_words.checkout(
            self.prices_sold,
            company_id=company_id,
            plan=plan,
            interval=interval,
            email=email,
            customer_ref=customer_ref,
            back=back,
        )
        made = await self._asked(
            lambda: self._stripe.v1.checkout.sessions.create_async(
                wanted,  # type: ignore[arg-type]  # the SDK's TypedDict, made piece by piece
                {"idempotency_key": stripe_words.once(once, wanted)},
            )
        )
        return _url(made)

    async def portal(self, *, customer_ref: str, back: str) -> str:
        made = await self._asked(
            lambda: self._stripe.v1.billing_portal.sessions.create_async(
                {"customer": customer_ref, "return_url": back}
            )
        )
        return _url(made)

    async def subscription(self, ref: str) -> Bought | None:
        found = await self._found(lambda: self._stripe.v1.subscriptions.retrieve_async(ref))
        return None if found is None else _understood(lambda: stripe_words.bought(found, self.prices_sold))

    async def subscriptions(self, *, after: str | None = None) -> tuple[Sequence[Bought], str | None]:
        wanted: dict[str, Any] = {"status": "all", "limit": PAGE}
        if after is not None:
            wanted["starting_after"] = after
        page = await self._asked(
            lambda: self._stripe.v1.subscriptions.list_async(wanted)  # type: ignore[arg-type]  # its TypedDict again
        )
        answered = _understood(lambda: [(one, one["id"]) for one in page["data"]])
        ours = []
        for one, _ in answered:
            try:
                it = stripe_words.bought(one, self.prices_sold)
            except NotUnderstood as wrong:  # one of them must not hide the others
                log.warning("a subscription at Stripe is not understood: %s", wrong)
                continue
            if it is not None:
                ours.append(it)
        return ours, answered[-1][1] if page.get("has_more") and answered else None

    async def prices(self) -> Sequence[Offer]:
        async def offer(plan: Plan, interval: Interval) -> Offer:
            ref = stripe_words.sold_at(self.prices_sold, plan, interval)
            found = await self._found(lambda: self._stripe.v1.prices.retrieve_async(ref))
            return _understood(lambda: stripe_words.offer(found, plan, interval, ref))

        return await asyncio.gather(*(offer(*kind) for kind in SOLD))

    def read(self, body: bytes, signature: str | None, *, now: datetime) -> PaymentNotice:
        text, header = stripe_words.signed_at(body, signature, now)
        if not any(self._genuine(text, header, secret) for secret in self._secrets):
            raise Invalid("invalid_signature")
        return stripe_words.notice(body, live=self._live)

    @staticmethod
    def _genuine(text: str, header: str, secret: Secret) -> bool:
        try:
            # Without a tolerance: the SDK looks at its own clock.
            stripe.WebhookSignature.verify_header(text, header, secret.reveal())
        except stripe.SignatureVerificationError:
            return False
        return True

    async def close(self) -> None:
        """Give back the connections."""
        await self._client.close_async()

    async def _found(self, ask: Callable[[], Awaitable[Any]]) -> dict[str, Any] | None:
        """What Stripe has of this id, or None."""
        try:
            return await self._asked(ask)
        except _Missing:
            return None

    async def _asked(self, ask: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
        """Stripe's answer. Raises `PaymentsAway`, `PaymentsRefused`."""
        try:
            async with asyncio.timeout(ALL_S):
                answered = await ask()
        except TimeoutError:
            raise PaymentsAway(f"Stripe did not answer within {ALL_S:g} s") from None
        except stripe.StripeError as error:
            _say(error)
        except (AttributeError, KeyError, TypeError, ValueError) as wrong:
            # The SDK reads what it is answered as an object, whatever it is.
            log.warning("Stripe's answer is not understood: %s", type(wrong).__name__)
            raise PaymentsAway("Stripe's answer is not understood") from None
        if not isinstance(answered, stripe.StripeObject):
            raise PaymentsAway("Stripe's answer is not understood")
        return answered.to_dict()


class _Missing(PaymentsRefused):
    """Stripe has nothing of this id."""


def _say(error: stripe.StripeError) -> NoReturn:
    """An error of the SDK's in our words."""
    status = error.http_status
    if isinstance(error, stripe.APIConnectionError) or status is None:
        raise PaymentsAway(f"Stripe was not reached: {_kind(error.user_message)}") from None
    told = f"Stripe answered {status}"
    if status == 429 or status == 409 or status >= 500 or type(error) is stripe.APIError:
        raise PaymentsAway(told, retry_after_s=_wait(error.headers)) from None
    said = error.json_body.get("error") if isinstance(error.json_body, dict) else None
    named = said if isinstance(said, dict) else {}
    about = " ".join(filter(None, (_kind(named.get("code")), _kind(named.get("param")))))
    if status == 401 or status == 403:
        log.error("%s: look at DISTRIBU_STRIPE_KEY and what it may do", told)
    told = f"{told} {about}".strip()
    raise (_Missing if status == 404 else PaymentsRefused)(told) from None


def _kind(text: object) -> str:
    return text if isinstance(text, str) and _KIND.fullmatch(text) else ""


def _wait(headers: Mapping[str, str] | None) -> int | None:
    """``Retry-After`` in seconds. Stripe sends no dates."""
    said = {name.lower(): value for name, value in (headers or {}).items()}.get("retry-after", "")
    return min(int(said), _WAIT_MAX_S) if re.fullmatch(r"[0-9]{1,9}", said) else None


def _understood(read: Callable[[], T]) -> T:
    try:
        return read()
    except (NotUnderstood, KeyError, TypeError, AttributeError) as wrong:
        log.warning("Stripe's answer is not understood: %s", wrong)
        raise PaymentsAway("Stripe's answer is not understood") from None


def _url(made: dict[str, Any]) -> str:
    url = made.get("url")
    if not isinstance(url, str) or not url.startswith(("https://", "http://")):
        raise PaymentsAway("Stripe answered without the URL of a page")
    return url
