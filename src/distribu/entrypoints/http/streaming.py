"""Files of any size as answers: piece by piece, and no further than somebody is there to take them."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

from litestar.response.base import ASGIResponse

from distribu.domain.errors import RateLimited

log: Final = logging.getLogger("distribu.http")

PIECE: Final = 65_536
"""Bytes that are sent at once, about: lines are gathered until there are so many."""

TAKEN_S: Final = 60.0
"""How long whoever asked may take for one piece."""


AT_ONCE: Final = 2
"""Files that are made at once for one company, in one process."""

AGAIN_S: Final = 30
"""When whoever was refused for that may ask again."""


class Room:
    """Room for the files that are being made, of each company its own."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    def take(self, company: str) -> Callable[[], None]:
        """Take one place; what is returned gives it back. Raises `RateLimited` when there is none."""
        if self._taken[company] >= AT_ONCE:
            raise RateLimited("rate_limited", retry_after_s=AGAIN_S)
        self._taken[company] += 1
        return partial(self._leave, company)

    def _leave(self, company: str) -> None:
        self._taken[company] -= 1
        if not self._taken[company]:
            del self._taken[company]


class Streamed(ASGIResponse):
    """An answer that is made while it is sent.

    Whoever goes away, or takes nothing for `TAKEN_S`, ends the making: no transaction and no connection to
    the database waits for them. A mistake on the way breaks the answer off, so that half a file never
    passes for a whole one. ``over`` is called once, however it ends.
    """

    def __init__(
        self,
        pieces: AsyncIterator[bytes],
        *,
        name: str,
        media_type: str,
        request_id: str,
        over: Callable[[], None],
    ) -> None:
        super().__init__()
        self._pieces = pieces
        self._over = over
        self._head = [
            (b"content-type", media_type.encode()),
            (b"content-disposition", f'attachment; filename="{name}"'.encode()),
            (b"x-request-id", request_id.encode()),
        ]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        sending = asyncio.create_task(self._send(send))
        gone = asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sending, gone):
                task.cancel()
            try:
                await asyncio.wait((sending, gone))
            finally:
                self._over()
        if not sending.cancelled() and (wrong := sending.exception()) is not None:
            raise wrong

    async def _send(self, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self._head})
        gathered = bytearray()
        async for piece in self._pieces:
            gathered += piece
            if len(gathered) >= PIECE:
                if not await _taken(send, bytes(gathered)):
                    return
                gathered.clear()
        await _taken(send, bytes(gathered), more=False)


async def _taken(send: Any, body: bytes, *, more: bool = True) -> bool:
    """Whether a piece was taken in time."""
    try:
        async with asyncio.timeout(TAKEN_S):
            await send({"type": "http.response.body", "body": body, "more_body": more})
    except TimeoutError:
        log.warning("nobody took a piece of a file for %s s: it is broken off", TAKEN_S)
        return False
    return True


async def _gone(receive: Any) -> None:
    """Until whoever asked is not there any more."""
    while (await receive())["type"] != "http.disconnect":
        pass
