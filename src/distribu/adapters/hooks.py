"""Outgoing webhooks over aiohttp."""

import asyncio
import ipaddress
from collections.abc import Mapping
from dataclasses import replace
from time import perf_counter
from urllib.parse import urlsplit

import aiohttp

from distribu.application.ports import Reply
from distribu.domain.errors import Refused
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, BODY_KEPT

_KEPT_HEADERS = ("content-type", "retry-after", "date", "server", "x-request-id")
_READ_MAX = 16_384


def checked_url(url: str, *, loopback: bool) -> None:
    """Raises `Refused` (webhook_url_refused) unless webhooks may go to this URL.

    https to a name or a public address; with ``loopback`` also http to this machine. What a name
    resolves to is looked at when a delivery is made.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Refused("webhook_url_refused", "This is not a URL.") from None
    if not host or parts.username is not None or parts.password is not None or port == 0:
        raise Refused("webhook_url_refused", "The URL needs a host, and may not carry a user or password.")
    if any(ord(char) <= 32 or ord(char) == 127 or char == "\\" for char in url):
        raise Refused("webhook_url_refused", "The URL may not hold spaces or control characters.")
    local = _is_loopback(host)
    if parts.scheme == "http" and not (loopback and local):
        raise Refused("webhook_url_refused", "Webhooks go out by https.")
    if parts.scheme not in ("http", "https"):
        raise Refused("webhook_url_refused", "Webhooks go out by https.")
    if local and not loopback:
        raise Refused("webhook_url_refused", "Webhooks do not go to this machine.")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    if not (local or address.is_global):
        raise Refused("webhook_url_refused", "Webhooks do not go to private addresses.")


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _storable(text: str) -> str:
    """Text of the other side's without what no database takes: U+0000 and half characters."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class HttpHooks:
    """One pooled client for all receivers; ten seconds in all, no redirects, a capped read."""

    def __init__(self, *, production: bool) -> None:
        self._loopback = not production
        self._session: aiohttp.ClientSession | None = None

    def admit(self, url: str) -> None:
        checked_url(url, loopback=self._loopback)

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Reply:
        started = perf_counter()
        reply = await self._ask(url, headers, body)
        return replace(reply, duration_ms=round((perf_counter() - started) * 1000))

    async def _ask(self, url: str, headers: Mapping[str, str], body: bytes) -> Reply:
        try:
            checked_url(url, loopback=self._loopback)
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                async with self._client().post(url, data=body, headers=headers, allow_redirects=False) as got:
                    read = b""
                    while len(read) < _READ_MAX and (piece := await got.content.readany()):
                        read += piece
                    text = _storable(read.decode("utf-8", "replace"))[:BODY_KEPT]
                    kept = {
                        name: _storable(got.headers[name])[:500]
                        for name in _KEPT_HEADERS
                        if name in got.headers
                    }
                    return Reply(got.status, kept, text, "")
        except TimeoutError:
            return Reply(None, {}, "", f"no answer within {ATTEMPT_TIMEOUT_S:g} s")
        except Refused as refused:
            return Reply(None, {}, "", refused.message)
        except (aiohttp.ClientError, OSError, ValueError) as failed:
            return Reply(None, {}, "", _storable(f"{type(failed).__name__}: {failed}")[:500])

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=200, limit_per_host=16, ttl_dns_cache=30)
            self._session = aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False
            )
        return self._session

    async def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
