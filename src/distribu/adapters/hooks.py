"""Outgoing webhooks over aiohttp."""

import asyncio
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from threading import Thread
from time import perf_counter
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType
from yarl import URL

from distribu.adapters.guard import canonical_url, is_local_name, is_loopback, refusal
from distribu.application.ports import Reply
from distribu.domain.errors import Refused
from distribu.domain.webhooks import ATTEMPT_TIMEOUT_S, BODY_KEPT

_KEPT_HEADERS = ("content-type", "retry-after", "date", "server", "x-request-id")
_READ_MAX = 16_384

LOOKUP_TIMEOUT_S: Final = 4.0
"""Seconds DNS may take of an attempt's ten."""
LOOKUPS_MAX: Final = 1024
"""Names looked up at once. One that gets no answer counts until the system gives it up, 10 s and more."""


def _storable(text: str) -> str:
    """Text of the other side's without what no database takes: U+0000 and half characters."""
    return text.encode("utf-8", "replace").decode().replace("\0", "\ufffd")


class NotThere(OSError):
    """No connection is made; its text says why, and names no address: not everybody may know those."""


def addresses_of(name: str) -> list[str]:
    """All addresses of a name, by the system's resolver and without its search list. Blocks."""
    found = socket.getaddrinfo(name + ".", None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class CheckedResolver(AbstractResolver):
    """Looks a name up once, and answers with those of its addresses that webhooks may go to.

    A thread for each name, which nobody waits for at the end: the system's resolver cannot be told to
    stop. Whoever asks for a name that is being looked up waits for the same answer.
    """

    def __init__(self, *, loopback: bool, look_up: Callable[[str], Sequence[str]]) -> None:
        self._loopback = loopback
        self._look_up = look_up
        self._running: dict[str, asyncio.Future[Sequence[str] | OSError]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        local = self._loopback and is_local_name(host)
        found = ["127.0.0.1", "::1"] if local else await self._found(host)
        refusals = {address: refusal(address, loopback=local) for address in found}
        if all(refusals.values()):
            why = next(iter(refusals.values()), "it has no address")
            raise NotThere(f"{host} is where webhooks do not go: {why}")
        return [_resolved(host, address, port) for address, why in refusals.items() if not why]

    async def _found(self, name: str) -> Sequence[str]:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                while name not in self._running and len(self._running) >= LOOKUPS_MAX:
                    await asyncio.wait([*self._running.values()], return_when=asyncio.FIRST_COMPLETED)
                found = await asyncio.shield(self._running.get(name) or self._begun(name))
        except TimeoutError:
            raise NotThere(f"DNS did not answer for {name} within {LOOKUP_TIMEOUT_S:g} s") from None
        if isinstance(found, OSError):
            raise NotThere(f"DNS knows no address of {name}: {found.strerror or found}")
        return found

    def _begun(self, name: str) -> "asyncio.Future[Sequence[str] | OSError]":
        running = self._running[name] = asyncio.get_running_loop().create_future()
        running.add_done_callback(lambda _: self._running.pop(name))
        try:
            Thread(target=self._ask, args=(name, running), name="look-up", daemon=True).start()
        except RuntimeError as full:
            running.set_result(OSError(str(full)))
        return running

    def _ask(self, name: str, running: asyncio.Future[Sequence[str] | OSError]) -> None:
        found: Sequence[str] | OSError
        try:
            found = self._look_up(name)
        except (OSError, ValueError) as failed:  # ValueError: a name that cannot be encoded
            found = failed if isinstance(failed, OSError) else OSError(str(failed))
        with suppress(RuntimeError):  # the loop is gone, and whoever asked with it
            running.get_loop().call_soon_threadsafe(running.set_result, found)

    async def close(self) -> None: ...


def _resolved(host: str, address: str, port: int) -> ResolveResult:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    return ResolveResult(
        hostname=host, host=address, port=port, family=family, proto=socket.IPPROTO_TCP, flags=flags
    )


def _is_own(family: int, address: tuple[object, ...]) -> bool:
    """Whether an address is one of this machine's: what would be sent from it to itself. Sends nothing."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(address)
        except OSError:
            return False
        return bool(probe.getsockname()[0] == address[0])


class HttpHooks:
    """One pooled client for all receivers; ten seconds in all, no redirects, no proxies, a capped read.

    Two walls, each of which holds alone. Names lead to checked addresses only (`CheckedResolver`); and no
    socket is made but for an address that was checked (`guarded_socket`), which is the one it then
    connects to, and which covers URLs with an address in them, for which no resolver is asked. A pooled
    connection stays where it is.
    """

    def __init__(self, *, production: bool, look_up: Callable[[str], Sequence[str]] = addresses_of) -> None:
        self._loopback = not production
        self._look_up = look_up
        self._session: aiohttp.ClientSession | None = None

    def admit(self, url: str) -> None:
        canonical_url(url, loopback=self._loopback)

    async def post(self, url: str, *, headers: Mapping[str, str], body: bytes) -> Reply:
        started = perf_counter()
        status, kept, text, error = await self._ask(url, headers, body)
        return Reply(status, kept, text, error, round((perf_counter() - started) * 1000))

    async def _ask(
        self, url: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int | None, dict[str, str], str, str]:
        try:
            to = URL(canonical_url(url, loopback=self._loopback), encoded=True)
            async with asyncio.timeout(ATTEMPT_TIMEOUT_S):
                async with self._client().post(to, data=body, headers=headers, allow_redirects=False) as got:
                    read = b""
                    while len(read) < _READ_MAX and (piece := await got.content.readany()):
                        read += piece
                    text = _storable(read.decode("utf-8", "replace"))[:BODY_KEPT]
                    kept = {
                        name: _storable(got.headers[name])[:500]
                        for name in _KEPT_HEADERS
                        if name in got.headers
                    }
                    return got.status, kept, text, ""
        except TimeoutError:
            return None, {}, "", f"no answer within {ATTEMPT_TIMEOUT_S:g} s"
        except Refused as refused:
            return None, {}, "", refused.message
        except aiohttp.ClientConnectorError as failed:
            why = failed.os_error
            text = str(why) if isinstance(why, NotThere) else f"{type(failed).__name__}: {failed}"
            return None, {}, "", _storable(text)[:500]
        except (aiohttp.ClientError, OSError, ValueError) as failed:
            return None, {}, "", _storable(f"{type(failed).__name__}: {failed}")[:500]

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            # The worker bounds what is on its way. A bound here would have those wait that share a host with
            # a slow one, and be charged for the wait.
            connector = aiohttp.TCPConnector(
                limit=0,
                limit_per_host=0,
                ttl_dns_cache=30,
                resolver=CheckedResolver(loopback=self._loopback, look_up=self._look_up),
                socket_factory=self.guarded_socket,
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # `_ask` has one for all of it
            )
        return self._session

    def guarded_socket(self, info: AddrInfoType) -> socket.socket:
        """A socket for one numeric address, or `NotThere`: nothing is sent to it then."""
        family, kind, protocol, _, address = info
        if why := refusal(str(address[0]), loopback=self._loopback):
            raise NotThere(f"this is where webhooks do not go: {why}")
        if not (self._loopback and is_loopback(ip_address(address[0]))) and _is_own(family, address):
            raise NotThere("this is where webhooks do not go: an address of this machine")
        return socket.socket(family, kind, protocol)

    async def close(self) -> None:
        """Give back the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None
