"""The floor: the same server and framework with routes that do nothing. The port is its argument."""

import sys
from typing import Any

import uvicorn
import uvloop
from litestar import Litestar, Request, get, post


@get("/nothing")
async def answered() -> dict[str, str]:
    return {"status": "ok"}


@post("/nothing")
async def taken(request: Request[Any, Any, Any]) -> dict[str, str]:
    await request.body()
    return {"status": "ok"}


async def main() -> None:
    config = uvicorn.Config(
        Litestar([answered, taken], openapi_config=None, logging_config=None),
        port=int(sys.argv[1]),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    await uvicorn.Server(config).serve()


uvloop.run(main())
