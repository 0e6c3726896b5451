"""The one answer nobody can give: the connection breaks when the commit is on its way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit, urlunsplit

import msgspec
import pytest

from distribu import Refused, Settings, Shop
from distribu.application import views
from distribu.application.kernel import Once
from distribu.application.ordering import PlaceOrder, Wanted
from distribu.container import database as embedded, running
from distribu.domain.ordering import Order
from tests.proofs import books
from tests.proofs.conftest import House
from tests.proofs.processes import superuser


class Wire:
    """Between Distribu and PostgreSQL: once ``armed``, it breaks when a commit has been answered."""

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port
        self.port = 0
        self.armed = False
        self.broken = 0

    @asynccontextmanager
    async def laid(self) -> AsyncIterator["Wire"]:
        server = await asyncio.start_server(self._joined, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection(*self.target)
        await asyncio.gather(self._pass(reader, ours, False), self._pass(theirs, writer, True))

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter, answers: bool) -> None:
        try:
            while data := await source.read(65_536):
                if answers and self.armed and b"COMMIT\0" in data:
                    self.armed = False
                    self.broken += 1
                    break
                to.write(data)
                await to.drain()
        except ConnectionError:
            pass
        finally:
            to.close()


@pytest.fixture
async def wire(house: House) -> AsyncIterator[tuple[Wire, Settings]]:
    with embedded(Settings(data_dir=str(house.data_dir))) as ready:
        assert ready.database_url is not None
        parts = urlsplit(ready.database_url)
        port = int(parse_qs(parts.query)["port"][0]) if parts.query else parts.port or 0
        async with Wire("127.0.0.1", port).laid() as wire:
            user = parts.netloc.rpartition("@")[0]
            through = parts._replace(netloc=f"{user}@127.0.0.1:{wire.port}", query="sslmode=disable")
            yield wire, msgspec.structs.replace(ready, database_url=urlunsplit(through), database_pool=1)


async def test_an_order_that_was_committed_is_never_called_refused(
    house: House, shop: Shop, wire: tuple[Wire, Settings]
) -> None:
    """`Refused` means that nothing was changed; here nobody can know, and the same key finds it out."""
    line, settings = wire
    product, customer = await shop.product(stock=10), await shop.customer()
    wanted = PlaceOrder(customer_id=customer.id, items=(Wanted(product_id=product.id, quantity=1),))
    once: Once[Order] = Once("the same key", lambda order: views.encode({"data": views.of(order)}))
    async with running(settings) as distribu:
        for attempt in (
            lambda: distribu.execute(shop.actor, wanted),
            lambda: distribu.execute_once(shop.actor, wanted, once),
        ):
            line.armed = True
            with pytest.raises(Exception) as raised:  # noqa: PT011  # which one is what is looked at
                await attempt()
            assert not isinstance(raised.value, Refused), repr(raised.value)
        assert line.broken == 2
        answer = await distribu.execute_once(shop.actor, wanted, once)
        assert answer.replayed
        assert msgspec.json.decode(answer.body)["data"]["number"] == 1002
    with superuser(house.data_dir) as database:
        assert len(books.check(database, shop.company.id)) == 2
