"""Resend's HTTP API on a socket of this machine, as far as a mail needs it.

What it does with idempotency keys and how it says no are written at
https://resend.com/docs/dashboard/emails/idempotency-keys and https://resend.com/docs/api-reference/errors.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from aiohttp import web


@dataclass(frozen=True)
class Asked:
    """A request as it came in."""

    headers: Mapping[str, str]
    body: Any


class Resend:
    """``asked`` holds every request, and ``sent`` each mail that was taken, by its idempotency key."""

    def __init__(self) -> None:
        self.url = ""
        self.keys = {"re_stub_key"}
        self.asked: list[Asked] = []
        self.sent: dict[str, Any] = {}
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.drops_answers = 0
        self._refusals: list[web.Response] = []
        self._ids: dict[str, str] = {}
        self._numbers = count(1)

    def refuses(self, status: int, name: str, *, times: int = 1, **headers: str) -> None:
        """The next requests are answered like this; ``retry_after`` is ``Retry-After``."""
        named = {header.replace("_", "-"): value for header, value in headers.items()}
        self._refusals += [_no(status, name, headers=named) for _ in range(times)]

    def answers(self, response: web.Response) -> None:
        """The next request is answered like this."""
        self._refusals.append(response)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = json.loads(await request.read())
        self.asked.append(Asked(dict(request.headers), body))
        await self.go_on.wait()
        if self._refusals:
            return self._refusals.pop(0)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.keys:
            return _no(403, "invalid_api_key", "API key is invalid")
        to = body["to"][0]
        if not to.rpartition("@")[0]:
            return _no(422, "validation_error", f"Invalid `to` field: {to}")
        key = request.headers["idempotency-key"]
        if key in self._ids and self.sent[key] != body:
            return _no(409, "invalid_idempotent_request")
        if key not in self._ids:
            self._ids[key] = f"stub-{next(self._numbers)}"
            self.sent[key] = body
        if self.drops_answers:
            self.drops_answers -= 1
            assert request.transport is not None
            request.transport.abort()
        return web.json_response({"id": self._ids[key]})


def _no(status: int, name: str, message: str = "", headers: Mapping[str, str] | None = None) -> web.Response:
    body = {"statusCode": status, "name": name, "message": message or name}
    return web.json_response(body, status=status, headers=headers)


@asynccontextmanager
async def resend() -> AsyncIterator[Resend]:
    """A stub of Resend, listening at its ``url``."""
    stub = Resend()
    app = web.Application()
    app.router.add_post("/emails", stub.handle)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    stub.url = f"http://{host}:{port}"
    try:
        yield stub
    finally:
        stub.go_on.set()
        await runner.cleanup()
