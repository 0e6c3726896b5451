"""A client that posts and does nothing else: the floor of what a delivery costs.

Reads a plan as JSON from its input: ``url``, ``bodies``, ``headers``, ``count`` and ``at_once``. It is
the HTTP client that webhooks are sent with, and pools as it does.
"""

import asyncio
import json
import sys
import time
from itertools import cycle, islice

import aiohttp
import uvloop


async def main() -> None:
    plan = json.load(sys.stdin)
    url, headers = plan["url"], plan["headers"]
    waiting = islice(cycle([body.encode() for body in plan["bodies"]]), plan["count"])
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:

        async def post() -> None:
            for body in waiting:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()

        began, spent = time.perf_counter(), time.process_time()
        await asyncio.gather(*(post() for _ in range(plan["at_once"])))
        seconds, cpu = time.perf_counter() - began, time.process_time() - spent
    json.dump({"per_s": plan["count"] / seconds, "ms": cpu * 1000 / plan["count"]}, sys.stdout)


uvloop.run(main())
