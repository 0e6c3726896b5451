"""Receivers of webhooks to attack: right ones, and ones with a mistake that somebody makes."""

import asyncio
import hmac
import json
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from time import time
from typing import Any

from aiohttp import web
from standardwebhooks import Webhook as StandardWebhook

from tests.samples import in_python

Headers = Mapping[str, str]
Verify = Callable[[bytes, Headers, str], Any]


class Receiver:
    """Verifies, has an effect for each event once, and shows how many there were at ``/count``."""

    def __init__(self, secret: str, verify: Verify) -> None:
        self.secret, self.verify = secret, verify
        self.seen: set[str] = set()
        self.effects = 0

    async def read(self, request: web.Request) -> bytes:
        return await request.read()

    def act(self, event: Any) -> int:
        """Do what an event is for, once. Returns the status to answer."""
        if event["id"] not in self.seen:
            self.seen.add(event["id"])
            self.effects += 1
        return 200

    async def take(self, request: web.Request) -> web.Response:
        body = await self.read(request)
        try:
            event = self.verify(body, request.headers, self.secret)
        except Exception:
            return web.Response(status=400)
        return web.Response(status=self.act(event))

    async def count(self, _: web.Request) -> web.Response:
        return web.Response(text=str(self.effects))

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Where it is."""
        app = web.Application()
        app.router.add_post("/hook", self.take)
        app.router.add_get("/count", self.count)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            _, port = runner.addresses[0][:2]
            yield f"http://127.0.0.1:{port}"
        finally:
            await runner.cleanup()


# how to verify, and how not to


def fresh(event: Any) -> Any:
    """An event that was sent within five minutes."""
    if abs(time() - datetime.fromisoformat(event["timestamp"]).timestamp()) > 300:
        raise ValueError("too old")
    return event


def own_signature(body: bytes, secret: str) -> str:
    return hmac.digest(secret.encode(), body, "sha256").hex()


def signed(body: bytes, headers: Headers, secret: str, names: tuple[str, ...]) -> bool:
    made = own_signature(body, secret)
    return any(hmac.compare_digest(made, headers.get(name, "")) for name in names)


BOTH = ("X-Webhook-Signature", "X-Webhook-Signature-Old")


def by_own_header(body: bytes, headers: Headers, secret: str) -> Any:
    """Right: X-Webhook-Signature, or the old one, and the body's time."""
    if not signed(body, headers, secret, BOTH):
        raise ValueError("not from Distribu")
    return fresh(json.loads(body))


def by_the_library(body: bytes, headers: Headers, secret: str) -> Any:
    """Right: the public library as it is."""
    return StandardWebhook(secret).verify(body, dict(headers))


def by_the_sample(body: bytes, headers: Headers, secret: str) -> Any:
    """Right: the sample of the document."""
    return in_python()(body, headers, secret)


def rewrites(body: bytes, headers: Headers, secret: str) -> Any:
    """Parses, and verifies what it writes again."""
    again = json.dumps(json.loads(body), separators=(",", ":"), ensure_ascii=False).encode()
    return by_own_header(again, headers, secret)


def never_too_old(body: bytes, headers: Headers, secret: str) -> Any:
    if not signed(body, headers, secret, BOTH):
        raise ValueError("not from Distribu")
    return json.loads(body)


def never_too_new(body: bytes, headers: Headers, secret: str) -> Any:
    event = never_too_old(body, headers, secret)
    if time() - datetime.fromisoformat(event["timestamp"]).timestamp() > 300:
        raise ValueError("too old")
    return event


def unsigned_is_fine(body: bytes, headers: Headers, secret: str) -> Any:
    if any(headers.get(name) for name in BOTH):
        return by_own_header(body, headers, secret)
    return fresh(json.loads(body))


def new_key_alone(body: bytes, headers: Headers, secret: str) -> Any:
    if not signed(body, headers, secret, BOTH[:1]):
        raise ValueError("not from Distribu")
    return fresh(json.loads(body))


def wrong_encoding(body: bytes, headers: Headers, secret: str) -> Any:
    return by_own_header(body.decode("ascii", "replace").encode(), headers, secret)


def standard_signature(body: bytes, headers: Headers, secret: str) -> str:
    key = b64decode(secret.removeprefix("whsec_"))
    text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    return b64encode(hmac.digest(key, text, "sha256")).decode()


def any_version(body: bytes, headers: Headers, secret: str) -> Any:
    """Leaves alone what a signature says of itself: ``v1a`` is as good as ``v1``."""
    given = (one.partition(",")[2] for one in headers["webhook-signature"].split(" "))
    if standard_signature(body, headers, secret) not in given:
        raise ValueError("not from Distribu")
    return fresh(json.loads(body))


def first_signature_alone(body: bytes, headers: Headers, secret: str) -> Any:
    first = headers["webhook-signature"].split(" ")[0]
    if first != "v1," + standard_signature(body, headers, secret):
        raise ValueError("not from Distribu")
    return fresh(json.loads(body))


def as_far_as_given(body: bytes, headers: Headers, secret: str) -> Any:
    """Compares as many letters as there are."""
    given = headers.get("X-Webhook-Signature", "-"), headers.get("X-Webhook-Signature-Old", "-")
    if not any(own_signature(body, secret).startswith(one) for one in given):
        raise ValueError("not from Distribu")
    return fresh(json.loads(body))


def time_of_the_header(body: bytes, headers: Headers, secret: str) -> Any:
    """Goes by a time that this signature does not cover."""
    event = never_too_old(body, headers, secret)
    if abs(time() - int(headers["webhook-timestamp"])) > 300:
        raise ValueError("too old")
    return event


def believes_everything(body: bytes, headers: Headers, secret: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return {"id": "none"}


class Cuts(Receiver):
    """Reads 64 KB of a body."""

    async def read(self, request: web.Request) -> bytes:
        return (await request.read())[: 64 << 10]


class Forgets(Receiver):
    """Does everything again for an event that it knows."""

    def act(self, event: Any) -> int:
        self.effects += 1
        return 200


class Complains(Receiver):
    """Answers 409 for an event that it knows."""

    def act(self, event: Any) -> int:
        return 409 if event["id"] in self.seen else super().act(event)


class Picky(Receiver):
    """Refuses events that it does not know."""

    def act(self, event: Any) -> int:
        return super().act(event) if event["event"].startswith("order.") else 422


class ParsesFirst(Receiver):
    """Looks into a body before it knows whose it is."""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if json.loads(body) is None:
            return web.Response(status=400)
        return await super().take(request)


class Late(Receiver):
    """Has its effects after its answer."""

    def act(self, event: Any) -> int:
        asyncio.get_running_loop().call_later(0.2, super().act, event)
        return 202
