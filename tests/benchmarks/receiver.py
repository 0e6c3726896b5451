"""Whoever webhooks are sent to, as cheap as can be: every POST is answered 200. The port is its argument.

``GET /heard`` tells how many deliveries came.
"""

import asyncio
import sys
from typing import cast

import uvloop

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nthanks"


class Heard:
    """What the connections share."""

    count = 0


class Receiver(asyncio.Protocol):
    """One connection that stays open."""

    def __init__(self) -> None:
        self.came = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.came += data
        while (end := self.came.find(b"\r\n\r\n")) >= 0:
            head = self.came[:end].lower()
            length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
            if len(self.came) < end + 4 + length:
                return
            self.came = self.came[end + 4 + length :]
            self.transport.write(self.told(head))

    def told(self, head: bytes) -> bytes:
        if head.startswith(b"get "):
            text = b"%d" % Heard.count
            return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text)
        Heard.count += 1
        return ANSWER


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Receiver, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


uvloop.run(main())
