"""The life of a subscription in the harness: no server, no database, and a clock that is moved."""

import httpx

from distribu import Actor, Harness, Plan, Role
from distribu.domain.accounts import REALM
from tests.lifecycle import NAME, TOLD, live


class InTheHarness(Harness):
    """It as whoever builds on Distribu would play it."""

    def __init__(self) -> None:
        super().__init__(NAME, sells=True)

    async def sign_up(self) -> str:
        self.first = await self.sign_in(Role.OWNER)
        return self.first.person.email

    async def owner(self) -> httpx.AsyncClient:
        return self._browser(await self.session(Actor.system(REALM), self.first.person.id))

    async def pay(self, plan: str) -> None:
        await self.stripe.pay(Plan(plan))

    async def fail(self) -> None:
        await self.stripe.fail()

    async def cancel(self) -> None:
        await self.stripe.cancel()

    async def tell_all_again(self) -> None:
        for event in self.stripe.events:
            await self.stripe.replay(event)


async def test_it_is_lived_in_the_harness() -> None:
    async with InTheHarness() as stage:
        assert await live(stage) == TOLD
