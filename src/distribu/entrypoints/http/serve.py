"""Serving: the HTTP application and, unless told otherwise, a worker beside it."""

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from distribu.application.kernel import Distribu
from distribu.container import mailbox, pretend_stripe, running, sellable
from distribu.domain.errors import Bug
from distribu.entrypoints.http import wire
from distribu.entrypoints.http.app import http_app
from distribu.entrypoints.http.browser import ALWAYS, PAGE_POLICY, Site
from distribu.entrypoints.http.limits import ApiLimits
from distribu.entrypoints.http.mailbox import Postbox
from distribu.entrypoints.http.notices import PATH as STRIPE_HOOK
from distribu.entrypoints.http.sessions import Keys
from distribu.entrypoints.stubs.stripe import StripeStub
from distribu.entrypoints.worker import Worker
from distribu.settings import Settings

log: Final = logging.getLogger("distribu.worker")

GRACE_S: Final = 15
HEAD_MAX: Final = 65_536
"""Bytes of a request before its body."""

HEAD_S: Final = 10.0
"""What a connection may take for its head."""

LATE_S: Final = 10.0
"""So long after `wire.BODY_S` a body that has not ended is hung up on, whether anybody reads it or not."""


class _Bounded(HttpToolsProtocol):
    """httptools reads heads of any length, and waits for them, and for bodies that nobody reads: this one
    hangs up on those that do not end."""

    _silent = 0
    """Bytes read since a message last began, gave of its body, or ended: head, chunk extensions, trailers."""
    _in_head = True
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # always one
        super().connection_made(transport)
        self._due_in(HEAD_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        super().connection_lost(exc)

    def _due_in(self, seconds: float) -> None:
        self._in_time()
        self._late = self.loop.call_later(seconds, self.transport.close)

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def on_message_begin(self) -> None:
        self._silent, self._in_head = 0, True
        self._due_in(HEAD_S)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # trailers come by here too, and nobody reads them
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._silent, self._in_head = 0, False
        self._due_in(wire.BODY_S + LATE_S)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._silent = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._silent = 0
        self._in_time()
        super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        self._silent += len(data)
        super().data_received(data)
        if self._silent > HEAD_MAX and not self.transport.is_closing():
            self.send_400_response("The request's head is too long.")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP gets no further than here; its answer is to carry what every other does."""
        usual = self.server_state.default_headers
        self.server_state.default_headers = [*usual, *ALWAYS]
        super().send_400_response(msg)
        self.server_state.default_headers = usual


class _Server(uvicorn.Server):
    """uvicorn, with the signals left to us: what runs beside it has to end too."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(settings: Settings, *, worker: bool, ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; ``ready`` is told the URL.

    Raises `OSError` for a port in use, and `SettingsUnusable` for a price that Stripe does not have.
    """
    if settings.stripe_stub and not settings.port:  # its pages are linked to before there is a server
        settings = msgspec.structs.replace(settings, port=_free_port(settings.host))
    await sellable(settings)
    async with running(settings) as distribu, _stripe(settings) as stripe:
        loop = asyncio.get_running_loop()
        told = asyncio.Event()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, told.set)
        side = Worker(distribu, concurrency=settings.worker_concurrency) if worker else None
        tasks: list[asyncio.Task[None]] = []
        limits = ApiLimits(per_key=settings.api_limit_per_key, per_ip=settings.api_limit_per_ip)
        site = Site.of(settings)
        staff, store = settings.session_keys()
        keys = Keys(staff=tuple(staff), store=tuple(store))
        mails = mailbox(settings)
        at = (settings.host, settings.port)
        async with listening(distribu, *at, limits, site, keys, mails, stripe) as url:
            if side is not None:
                distribu.wake = side.wake
                tasks.append(asyncio.create_task(side.run()))
            _settle()
            ready(url)
            await told.wait()
        if side is not None:
            side.stop()
        await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def _stripe(settings: Settings) -> AsyncIterator[StripeStub | None]:
    """The Stripe that is none, where the settings want it: it tells this process what happens there."""
    stripe = pretend_stripe(settings)
    if stripe is None:
        yield None
        return
    secret = settings.stripe_stub_secret().reveal()
    hook = settings.loopback + STRIPE_HOOK
    page = (*ALWAYS, (b"content-security-policy", PAGE_POLICY))
    stub = StripeStub(stripe, key=secret, secrets=[secret], headers=page, hook=hook, at_once=True)
    try:
        yield stub
    finally:
        await stub.close()


@contextlib.asynccontextmanager
async def listening(
    distribu: Distribu,
    host: str,
    port: int,
    limits: ApiLimits | None = None,
    site: Site | None = None,
    keys: Keys | None = None,
    mails: Postbox | None = None,
    stripe: StripeStub | None = None,
) -> AsyncIterator[str]:
    """The HTTP application on a socket; the URL it answers at. What was asked is answered at the end.

    Raises `OSError` for a port in use.
    """
    config = uvicorn.Config(
        http_app(distribu, limits, site, keys, mails, stripe),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        timeout_keep_alive=65,
        timeout_graceful_shutdown=GRACE_S,
        backlog=2048,
        http=_Bounded,
        ws="none",  # a request to become a WebSocket is answered as any other
    )
    server = _Server(config)
    listener = _listen(host, port)
    host, port = listener.getsockname()[:2]
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not (server.started or serving.done()):  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    if serving.done():
        await serving
        raise Bug("the HTTP application did not start")
    try:
        yield f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await serving


async def work(settings: Settings, *, ready: Callable[[], None]) -> None:
    """Work without serving until SIGTERM or SIGINT."""
    async with running(settings) as distribu:
        worker = Worker(distribu, concurrency=settings.worker_concurrency)
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, worker.stop)
        _settle()
        ready()
        await worker.run()
        counts = distribu.counts
        of_jobs = {f"{job} {outcome}": times for (job, outcome), times in counts.jobs.items()}
        log.info(
            "attempted deliveries: %s; mails: %s; notices of Stripe's: %s; jobs: %s",
            dict(counts.deliveries),
            dict(counts.mails),
            dict(counts.notices),
            of_jobs,
        )


def _settle() -> None:
    """What is there now stays: the garbage collector leaves it alone, and comes less often for the rest.

    By itself it walks through every module again and again, which took a third of what a webhook cost.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def _free_port(host: str) -> int:
    listener = _listen(host, 0)
    with listener:
        return int(listener.getsockname()[1])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot serve at {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener
