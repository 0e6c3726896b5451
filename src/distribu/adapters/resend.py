"""Mails by Resend (resend.com), over its own SDK.

The SDK keeps key, address and HTTP client as globals of its module, and reads them before it first waits.
So they are set for each mail, and are as they were before our client waits for the answer: senders in one
process, and a host that uses the SDK itself, never get hold of each other's.
"""

import asyncio
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import httpx
import resend
from resend.exceptions import NoContentError, ResendError
from resend.http_client_async import AsyncHTTPClient

from distribu.adapters.mail import Arrived, Stationery
from distribu.application.ports import Mail, MailNotSent
from distribu.domain.values import Secret

log: Final = logging.getLogger("distribu.mail")

API: Final = "https://api.resend.com"
SEND_TIMEOUT_S: Final = 10.0
"""For all of it: the connection, the request and the answer."""

CONNECTIONS: Final = 16
_READ_MAX: Final = 65_536
_KIND: Final = re.compile(r"[A-Za-z_]{1,40}")

_FINAL: Final = frozenset({400, 413, 422})
"""What is wrong with the mail itself, and stays so (https://resend.com/docs/api-reference/errors)."""

_OPERATORS: Final = frozenset({401, 403, 404, 405})
"""What the operator can put right, while the mails wait: the key, the domain, the address of the API."""

_globals: Final = threading.Lock()


@contextmanager
def _speaking_for(key: Secret, url: str, client: AsyncHTTPClient) -> Iterator[None]:
    """The SDK's globals are these for a while, during which nobody may wait for anything."""
    with _globals:
        before = resend.api_key, resend.api_url, resend.default_async_http_client
        resend.api_key, resend.api_url, resend.default_async_http_client = key.reveal(), url, client
        try:
            yield
        finally:
            resend.api_key, resend.api_url, resend.default_async_http_client = before


class _Client(AsyncHTTPClient):
    """The SDK's way out for one mail: gives its globals back, then asks over the pool.

    ``failed`` is the kind of what kept the question from being answered.
    """

    def __init__(self, pool: httpx.AsyncClient, held: ExitStack) -> None:
        self.failed = ""
        self._pool = pool
        self._held = held

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        json: dict[str, object] | list[object] | None = None,
        files: dict[str, Any] | None = None,
        data: dict[str, str] | None = None,
    ) -> tuple[bytes, int, Mapping[str, str]]:
        self._held.close()
        try:
            async with self._pool.stream(
                method, url, headers=headers, json=json, files=files, data=data
            ) as got:
                read = b""
                async for piece in got.aiter_bytes():
                    read += piece
                    if len(read) > _READ_MAX:
                        break
                return read[:_READ_MAX], got.status_code, got.headers
        except httpx.HTTPError as error:
            self.failed = type(error).__name__
            raise


class ResendMailer:
    """Implements the port Mailer. Resend knows a mail by its id for a day, which is its Idempotency-Key.

    ``base_url`` is for tests.
    """

    def __init__(self, stationery: Stationery, key: Secret, *, base_url: str | None = None) -> None:
        self.stationery = stationery
        self._key = key
        self._url = base_url or API
        self._pool: httpx.AsyncClient | None = None

    async def send(self, mail: Mail) -> None:
        arrived = self.stationery.write(mail)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._hand_over(arrived)
        except TimeoutError:
            raise MailNotSent(f"no answer within {SEND_TIMEOUT_S:g} s") from None

    async def _hand_over(self, arrived: Arrived) -> None:
        wanted: resend.Emails.SendParams = {
            "from": arrived.sender,
            "to": [arrived.to],
            "subject": arrived.subject,
            "text": arrived.text,
            "html": arrived.html,
        }
        with ExitStack() as held:
            client = _Client(self._ways(), held)
            held.enter_context(_speaking_for(self._key, self._url, client))
            try:
                taken: Any = await resend.Emails.send_async(wanted, {"idempotency_key": arrived.id})
            except (ResendError, NoContentError) as refused:
                if client.failed:
                    raise MailNotSent(f"Resend was not reached: {client.failed}") from None
                failure = _failure(arrived.id, refused)
            else:
                # The SDK takes a redirect for an answer.
                named = isinstance(taken, dict) and taken.get("id")
                failure = None if named else MailNotSent("Resend answered without an id")
        if failure is not None:
            raise failure from None

    def _ways(self) -> httpx.AsyncClient:
        if self._pool is None or self._pool.is_closed:
            self._pool = httpx.AsyncClient(
                timeout=SEND_TIMEOUT_S, limits=httpx.Limits(max_connections=CONNECTIONS)
            )
        return self._pool

    async def close(self) -> None:
        """Give back the connections."""
        if self._pool is not None:
            await self._pool.aclose()
            self._pool = None


def _failure(id: str, refused: ResendError | NoContentError) -> MailNotSent | None:
    """What a refusal means for the mail; None when it had been taken before.

    Nothing of the refusal's own words is kept: they quote the address.
    """
    if isinstance(refused, NoContentError):
        return MailNotSent("Resend answered nothing")
    code = int(refused.code) if str(refused.code).isdecimal() else 500
    kind = str(refused.error_type)
    if not _KIND.fullmatch(kind):
        kind = "unknown"
    if kind == "invalid_idempotent_request":
        log.warning("mail %s was sent before, in other words; it is not sent again", id)
        return None
    told = f"Resend answered {code} {kind}"
    if code in _OPERATORS or kind == "invalid_from_address":
        log.error("%s: look at DISTRIBU_RESEND_KEY, DISTRIBU_MAIL_FROM and the domain; mails wait", told)
        return MailNotSent(told)
    wait = refused.headers.get("retry-after", "")
    return MailNotSent(
        told,
        final=code in _FINAL,
        retry_after_s=int(wait[:9]) if wait.isascii() and wait.isdigit() else None,
    )
