"""A real PostgreSQL for the whole run: the embedded one, or that of DISTRIBU_TEST_DATABASE_URL."""

from collections.abc import AsyncIterator, Iterator

import pytest

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
