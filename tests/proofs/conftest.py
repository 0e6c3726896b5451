"""A database of the proofs' own, seen from here and by the servers that are started on it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from distribu import Distribu, Settings, Shop, connect
from tests.proofs.net import Receiver
from tests.proofs.processes import Server


@dataclass(frozen=True, slots=True)
class House:
    """A data directory, and Distribu on it in this process."""

    data_dir: Path
    distribu: Distribu


@pytest.fixture(scope="session")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """An embedded database that outlives every server of the proofs that share it."""
    data_dir = tmp_path_factory.mktemp("house")
    async with connect(Settings(data_dir=str(data_dir))) as distribu:
        yield House(data_dir, distribu)


@pytest.fixture
async def server(house: House) -> AsyncIterator[Server]:
    """``distribu serve`` with its worker, as a process of its own."""
    server = Server(house.data_dir)
    try:
        await server.started()
        yield server
        assert await server.stop() == 0, server.said()
    finally:
        server.end()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """Whoever the webhooks are sent to."""
    async with Receiver().open() as receiver:
        yield receiver


@pytest.fixture
async def shop(house: House, receiver: Receiver) -> Shop:
    """A company whose every event is sent to the receiver, at the path ``shop``."""
    shop = await Shop.open(house.distribu)
    _, secret = await shop.webhook(url=receiver.url("shop"))
    receiver.secrets["shop"] = secret.reveal()
    return shop
