"""No sockets, no disk: Distribu in memory."""

import socket
from collections.abc import AsyncIterator

import pytest

from distribu import Harness


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a unit test opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
async def shop() -> AsyncIterator[Harness]:
    async with Harness() as shop:
        yield shop
