"""The Stripe that is none, on a socket of this machine."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import uvicorn

from distribu.adapters.memory.stripe import PretendStripe
from distribu.adapters.memory.twins import MovedClock
from distribu.entrypoints.http.browser import ALWAYS, PAGE_POLICY
from distribu.entrypoints.stubs.stripe import PATH, StripeStub

KEY = "sk_test_0123456789abcdef"
SECRETS = ("whsec_new0123456789abcdef", "whsec_old0123456789abcdef")
HEADERS = (*ALWAYS, (b"content-security-policy", PAGE_POLICY))


@asynccontextmanager
async def served(app: Any, port: int = 0) -> AsyncIterator[str]:
    """An ASGI application on a port of this machine, by default a free one; its URL."""
    listener = socket.create_server(("127.0.0.1", port))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # they are the runner's
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await serving


@asynccontextmanager
async def stripe(clock: MovedClock | None = None) -> AsyncIterator[tuple[StripeStub, str]]:
    """A stub, and the URL of its API and pages."""
    pretend = PretendStripe((clock or MovedClock()).now)
    stub = StripeStub(pretend, key=KEY, secrets=SECRETS[:1], headers=HEADERS, testable=True)
    async with served(stub) as url:
        pretend.pages = url + PATH
        try:
            yield stub, url + PATH
        finally:
            await stub.close()
