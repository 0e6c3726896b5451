"""What the audit log gets to know of those who ask for what they may not do, on any store."""

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from distribu import Actor, Distribu, Forbidden, Harness, NotFound, Refused, Role
from distribu.application.access import CreateApiKey, RevokeApiKey
from distribu.application.audit import ListAudit
from distribu.application.catalog import AdjustStock, MoveReason, ReadProduct
from distribu.application.customers import ListCustomers
from distribu.application.kernel import Once
from distribu.application.platform import ListCompanies
from distribu.application.refusals import PER_ACTOR, PER_COMPANY
from distribu.application.team import EditCompany
from distribu.domain.access import ActorKind, Permission
from distribu.domain.accounts import REALM
from distribu.domain.audit import Record
from distribu.domain.values import ApiKeyId
from tests.contracts.asking import contact_of, everything, key_of, log_of, refusals_of, store_of


async def entries(shop: Harness) -> list[Record]:
    return await refusals_of(shop.company.id, store_of(shop))


async def tried(shop: Harness, actor: Actor, request: Any, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Forbidden):
            await shop.execute(request, actor)


def member_of(shop: Harness) -> Actor:
    id = shop.distribu.ports.entropy.uuid()
    return Actor.staff(shop.company.id, Role.MEMBER, id=id, label="Mia Member", ip="192.0.2.9")


class Broken:
    """A store that has gone away, or does not answer."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error

    def begin(self, *_: Any, **__: Any) -> Any:
        return self

    async def __aenter__(self) -> Any:
        if self.error is not None:
            raise self.error
        await asyncio.sleep(3600)

    async def __aexit__(self, *_: object) -> None: ...


class RefusalUseCases:
    async def test_a_key_without_the_scope_is_in_the_log(self, shop: Harness) -> None:
        before, key = await everything(shop), key_of(shop, Permission.PRODUCTS_READ)
        await tried(shop, key, EditCompany(name="Mine"))
        await tried(shop, key, ListCustomers())
        mine, customers = await entries(shop)
        assert (mine.actor_kind, mine.actor_id, mine.label) == (ActorKind.API_KEY, key.id, key.label)
        assert mine.at == shop.clock.now()
        assert mine.metadata == {
            "request": "EditCompany",
            "code": "forbidden",
            "permission": "company:manage",
            "leftOut": 0,
        }
        assert customers.metadata == {
            "request": "ListCustomers",
            "code": "missing_scope",
            "permission": "customers:read",
            "leftOut": 0,
        }
        assert await everything(shop) == before

    async def test_a_person_is_in_the_log_with_name_and_address(self, shop: Harness) -> None:
        member, contact = member_of(shop), contact_of(shop, await shop.customer())
        await tried(shop, member, ListAudit())
        await tried(shop, contact, CreateApiKey(name="mine", scopes=(Permission.ORDERS_READ,)))
        for told, actor in zip(await entries(shop), (member, contact), strict=True):
            assert (told.actor_kind, told.actor_id) == (actor.kind, actor.id)
            assert (told.label, told.ip) == (actor.label, actor.ip)

    async def test_what_is_tried_under_an_idempotency_key_is_in_the_log_once(self, shop: Harness) -> None:
        once: Once[Any] = Once("k", lambda _: b"")
        with pytest.raises(Forbidden):
            await shop.distribu.execute_once(member_of(shop), EditCompany(name="Mine"), once)
        assert [one.metadata["request"] for one in await entries(shop)] == ["EditCompany"]

    async def test_a_door_that_asks_before_has_it_noted_once(self, shop: Harness) -> None:
        member = member_of(shop)
        with pytest.raises(Forbidden) as refused:
            await shop.distribu.admit(member, EditCompany)
        await shop.distribu.refusals.note(member, "Outer", refused.value)
        assert [one.metadata["request"] for one in await entries(shop)] == ["EditCompany"]

    async def test_what_has_no_company_is_in_the_log_of_the_realm(self, shop: Harness) -> None:
        id = shop.distribu.ports.entropy.uuid()
        user = Actor(
            kind=ActorKind.USER,
            id=id,
            label="Uli User",
            company_id=None,
            permissions=frozenset({Permission.ACCOUNT}),
        )
        await tried(shop, user, ListCompanies())
        await tried(shop, user, ListCustomers())
        realm = [one for one in await refusals_of(REALM, store_of(shop)) if one.actor_id == id]
        assert [one.metadata["request"] for one in realm] == ["ListCompanies", "ListCustomers"]
        assert await entries(shop) == []

    async def test_other_refusals_and_nobody_in_particular_are_not_in_the_log(self, shop: Harness) -> None:
        product = await shop.product(stock=1)
        member = member_of(shop)
        before = Counter(shop.distribu.counts.refusals)
        nobody: dict[str, Any] = {"product_id": shop.distribu.ports.entropy.uuid()}
        too_many = AdjustStock(product_id=product.id, quantity=-5, reason=MoveReason.ADJUSTED)
        revoke = RevokeApiKey(api_key_id=ApiKeyId(shop.distribu.ports.entropy.uuid()))
        cases: tuple[tuple[type[Refused], Any, Actor], ...] = (
            (Refused, too_many, member),
            (NotFound, ReadProduct(**nobody), member),
            (NotFound, revoke, shop.actor),
            (Forbidden, ListCompanies(), shop.actor),  # SYSTEM
            (Forbidden, ListCustomers(), Actor.visitor(company_id=shop.company.id)),
            (Forbidden, ListCompanies(), Actor.visitor()),
        )
        for kind, request, actor in cases:
            with pytest.raises(kind):
                await shop.execute(request, actor)
        suspended = replace(member, permissions=frozenset(), barred="suspended")
        await tried(shop, suspended, ListCustomers())
        assert await entries(shop) == []
        assert shop.distribu.counts.refusals == before

    async def test_one_who_tries_and_tries_cannot_fill_the_log(self, shop: Harness) -> None:
        member, other, before = member_of(shop), member_of(shop), Counter(shop.distribu.counts.refusals)
        await tried(shop, member, ListAudit(), PER_ACTOR + 7)
        assert len(await entries(shop)) == PER_ACTOR
        assert shop.distribu.counts.refusals - before == {"written": PER_ACTOR, "left_out": 7}
        await tried(shop, other, ListAudit())
        await tried(shop, member, EditCompany(name="Mine"))
        assert [one.metadata["leftOut"] for one in await entries(shop)] == [0] * PER_ACTOR + [7, 0]
        shop.clock.advance(seconds=60)
        await tried(shop, member, ListAudit())
        assert len(await entries(shop)) == PER_ACTOR + 3

    async def test_many_who_try_cannot_fill_the_log_of_their_company(self, shop: Harness) -> None:
        stranger = await shop.stranger()
        for _ in range(PER_COMPANY // PER_ACTOR):
            await tried(shop, member_of(shop), ListAudit(), PER_ACTOR)
        await tried(shop, member_of(shop), ListAudit(), 3)
        assert len(await entries(shop)) == PER_COMPANY
        theirs = replace(member_of(shop), company_id=stranger.company.id)
        await tried(shop, theirs, ListAudit())
        (told,) = await log_of(stranger, "access.refused")
        assert told.metadata["leftOut"] == 0, "they are another company's"
        shop.clock.advance(seconds=60)
        await tried(shop, member_of(shop), ListAudit())
        assert (await entries(shop))[-1].metadata["leftOut"] == 3

    @pytest.mark.parametrize("error", [ValueError("gone"), None], ids=["it fails", "it hangs"])
    async def test_when_it_cannot_be_recorded_the_answer_is_the_same(
        self, shop: Harness, error: Exception | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("distribu.application.refusals.NOTE_S", 0.05)
        broken: Any = Broken(error)
        member, ports = member_of(shop), shop.distribu.ports
        distribu = Distribu(replace(ports, store=broken))
        with pytest.raises(Forbidden) as refused:
            await distribu.execute(member, ListAudit())
        assert refused.value.code == "forbidden"
        assert distribu.counts.refusals == {"failed": 1}
        assert distribu.counts.requests == {("ListAudit", "forbidden"): 1}
        distribu.ports = ports
        with pytest.raises(Forbidden):
            await distribu.execute(member, ListAudit())
        (told,) = await entries(shop)
        assert told.metadata["leftOut"] == 1
