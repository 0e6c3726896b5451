"""Asking for things and being refused, as the contracts and the use-case tests do it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import pytest

from distribu import Harness, Refused, Shop
from distribu.application.audit import ListAudit
from distribu.application.kernel import Request
from distribu.application.notices import FindTurn, TakeNotice, Told
from distribu.application.platform import PutPlan
from distribu.application.ports import (
    Change,
    Finders,
    NewRecord,
    Page,
    Scope,
    Store,
    StoredAnswer,
    Tx,
)
from distribu.domain.access import Actor, ActorKind, ContactRole
from distribu.domain.audit import AccessRefused, Person, Record
from distribu.domain.billing import TRIAL, Plan, Subscription
from distribu.domain.customers import Customer
from distribu.domain.entity import Entity
from distribu.domain.notices import notice_id
from distribu.domain.values import CompanyId

T = TypeVar("T")


async def invoiced(shop: Shop, ref: str) -> None:
    """The company has paid an invoice of its own, as an event of this id tells."""
    invoice = Told(
        ref=ref,
        type="invoice.paid",
        happened_at=shop.distribu.ports.clock.now(),
        customer_ref=None,
        subscription_ref=None,
        invoice_ref=f"in {ref}",
        invoice_number="1",
        amount=Decimal("79.99"),
        currency="USD",
    )
    turn = (await shop.distribu.run(shop.actor, FindTurn(notice_id=notice_id(ref))))[1]
    assert await shop.distribu.run(shop.actor, TakeNotice(told=invoice, said=(), turn=turn))


async def put_plan(shop: Shop, plan: Plan) -> None:
    """Have the company be on a plan."""
    await shop.distribu.run(shop.actor, PutPlan(plan=plan))


async def put_over(shop: Shop) -> None:
    """Have the company's trial be over; it has no plan yet."""
    began = shop.distribu.ports.clock.now() - TRIAL
    async with store_of(shop).begin(scope_of(shop)) as tx:
        await write(tx, shop, Subscription.on_trial(shop.company.id, at=began))


def each(*requests: Request[Any]) -> tuple[Request[Any], ...]:
    """Requests of any kind, to be run one after the other."""
    return requests


def store_of(shop: Shop) -> Store:
    """The store behind a shop, without the executor in front of it."""
    return shop.distribu.ports.store


def scope_of(shop: Shop, customer: Customer | None = None) -> Scope:
    """A whole company, or what a contact of one customer sees of it."""
    return Scope(shop.company.id, customer.id if customer else None)


def contact_of(shop: Shop, customer: Customer, role: ContactRole = ContactRole.BUYER) -> Actor:
    """A person who signs in for a customer."""
    id = shop.distribu.ports.entropy.uuid()
    return Actor.contact(shop.company.id, customer.id, role, id=id, label="Bo Buyer", ip="192.0.2.7")


def key_of(shop: Shop, *permissions: Any) -> Actor:
    """An API key with exactly these permissions."""
    return Actor(
        kind=ActorKind.API_KEY,
        id=shop.distribu.ports.entropy.uuid(),
        label="ERP",
        company_id=shop.company.id,
        permissions=frozenset(permissions),
    )


async def walk(page: Callable[[str | None], Awaitable[Page[T]]]) -> list[T]:
    """Every item of a list, page by page."""
    items: list[T] = []
    cursor = None
    while True:
        got = await page(cursor)
        items += got.items
        cursor = got.next_cursor
        if cursor is None:
            return items


async def log_of(shop: Shop, action: str | None = None) -> list[Record]:
    """The company's audit log, or the entries of one action; oldest first."""
    records = await walk(
        lambda cursor: shop.execute(ListAudit(action=action, limit=100, cursor=cursor), shop.actor)
    )
    return records[::-1]


async def everything(shop: Shop) -> Any:
    """All that the company holds, to be compared with what it holds later.

    What is not in it is who was refused for lack of a permission (see `refusals_of`): that is written when
    nothing else is.
    """
    async with store_of(shop).begin(scope_of(shop), readonly=True) as tx:
        held: list[Any] = [await tx.companies.current()]
        products = await walk(lambda cursor: tx.products.page(limit=100, cursor=cursor))
        held += [
            products,
            await walk(lambda cursor: tx.customers.page(limit=100, cursor=cursor)),
            await walk(lambda cursor: tx.orders.page(limit=100, cursor=cursor)),
            await walk(lambda cursor: tx.api_keys.page(limit=100, cursor=cursor)),
            await walk(lambda cursor: tx.webhooks.page(limit=100, cursor=cursor)),
            await walk(lambda cursor: tx.members.page(limit=100, cursor=cursor)),
            await walk(lambda cursor: tx.invitations.page(limit=100, cursor=cursor)),
            [one for one in await _records(tx) if one.action != AccessRefused.name],
        ]
        for product in products:
            held.append(await tx.products.movements(product.id, limit=100))
        return held


async def _records(tx: Finders) -> list[Record]:
    return await walk(lambda cursor: tx.records.page(limit=100, cursor=cursor))


async def refusals_of(company_id: CompanyId, store: Store) -> list[Record]:
    """The entries of a company, or of the realm, that tell of a lack of permission; oldest first."""
    async with store.begin(Scope(company_id), readonly=True) as tx:
        return [one for one in await _records(tx) if one.action == AccessRefused.name][::-1]


class No:
    """A refusal that was asked for: ``refused`` is set once it came."""

    refused: Refused


@asynccontextmanager
async def refused(shop: Shop, code: str, kind: type[Refused] = Refused) -> AsyncIterator[No]:
    """What is done inside is refused with this code, and nothing of the company changes.

    A lack of permission leaves one entry in the audit log at most, which tells of this very refusal; any
    other refusal leaves none.
    """
    before = await everything(shop)
    noted = len(await refusals_of(shop.company.id, store_of(shop)))
    no = No()
    with pytest.raises(kind) as raised:
        yield no
    no.refused = raised.value
    assert raised.value.code == code
    assert await everything(shop) == before
    new = (await refusals_of(shop.company.id, store_of(shop)))[noted:]
    assert [one.metadata["code"] for one in new] in ([], [code])
    if code not in ("forbidden", "missing_scope"):
        assert new == []


@asynccontextmanager
async def refusing(shop: Shop, code: str, kind: type[Refused] = Refused) -> AsyncIterator[Tx]:
    """A transaction that is refused with this code, and leaves nothing behind."""
    async with refused(shop, code, kind), store_of(shop).begin(scope_of(shop)) as tx:
        yield tx


def told(shop: Shop, *entities: Entity, body: str = '{"metadata":{}}') -> list[NewRecord]:
    """One record for each event of these entities, which is the least a store takes."""
    entropy, now = shop.distribu.ports.entropy, shop.distribu.ports.clock.now()
    person = Person(id=entropy.uuid(), salt=entropy.bytes(16), label="test", ip=None)
    return [
        NewRecord(
            id=entropy.uuid(),
            event=event,
            at=now,
            actor_kind=ActorKind.SYSTEM,
            actor_id="",
            action=event.name,
            entity_type=type(entity).__name__,
            entity_id=entity.id,
            person=person,
            body=body,
        )
        for entity in entities
        for event in entity.events
    ]


async def write(tx: Tx, shop: Shop, *entities: Entity, answer: StoredAnswer | None = None) -> int | None:
    """Write these as they are, with a record for each event: no use case has looked at them."""
    changes = [Change(tx.loaded(entity), entity) for entity in entities]
    return await tx.write(changes, told(shop, *entities), answer)


async def outcomes(*attempts: Awaitable[Any]) -> list[Any]:
    """What came of each attempt, all made at once: its result, or the code of its refusal."""
    results = await asyncio.gather(*attempts, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, Refused):
            raise result
    return [result.code if isinstance(result, Refused) else result for result in results]


def sent_to(shop: Harness, url: str) -> list[Any]:
    """The webhooks that arrived at one address, in the order in which they did."""
    return [one for one in shop.received if one.url == url]
