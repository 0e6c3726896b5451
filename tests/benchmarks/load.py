"""The load generator: whole HTTP requests over connections that stay open, answers counted.

Reads a plan as JSON from its input: ``port``, ``connections``, ``seconds``, ``requests`` (in turn;
``%COUNT%`` in one becomes a number of its own) and ``pause_s`` between an answer and the next request.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import cycle
from typing import Any, cast

import uvloop


class Client(asyncio.Protocol):
    """One connection, one request at a time, until the time is over."""

    def __init__(self, run: "Run") -> None:
        self.run = run
        self.over = asyncio.get_running_loop().create_future()
        self.answer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        self.asked = time.perf_counter()
        if self.asked > self.run.end:
            self.over.set_result(None)
            self.transport.close()
            return
        self.transport.write(self.run.next())

    def data_received(self, data: bytes) -> None:
        self.answer += data
        head, found, body = self.answer.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if len(body) < int(length):
            return
        self.run.waits.append(time.perf_counter() - self.asked)
        self.run.statuses[head[9:12].decode()] += 1
        self.answer = b""
        if self.run.pause_s:
            asyncio.get_running_loop().call_later(self.run.pause_s, self.ask)
        else:
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionResetError("the server hung up"))


class Run:
    """What the connections share."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.requests: Iterator[bytes] = cycle([request.encode() for request in plan["requests"]])
        self.pause_s = plan.get("pause_s", 0.0)
        self.end = time.perf_counter() + plan["seconds"]
        self.waits: list[float] = []
        self.statuses: Counter[str] = Counter()
        self.sent = 0

    def next(self) -> bytes:
        self.sent += 1
        return next(self.requests).replace(b"%COUNT%", b"%d-%d" % (os.getpid(), self.sent))


async def main() -> None:
    plan = json.load(sys.stdin)
    run = Run(plan)
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Client(run), "127.0.0.1", plan["port"]))[1]
        for _ in range(plan["connections"])
    ]
    await asyncio.gather(*(client.over for client in clients))
    seconds = time.perf_counter() - begun
    waits = sorted(run.waits)
    json.dump(
        {
            "count": len(waits),
            "per_s": len(waits) / seconds,
            "p50_ms": waits[len(waits) // 2] * 1000,
            "p99_ms": waits[len(waits) * 99 // 100] * 1000,
            "statuses": run.statuses,
        },
        sys.stdout,
    )


uvloop.run(main())
