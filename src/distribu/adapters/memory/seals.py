"""The seals in memory."""

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import msgspec

from distribu.adapters.memory.reading import Finder, MemoryRead
from distribu.application.finders import Happened
from distribu.application.notary import Telling
from distribu.application.ports import Entropy, Message, Sealing
from distribu.domain.audit import Record
from distribu.domain.sealing import MAILED_EVERY, TOLD_EVERY, Head, SealedRow, Tip, leaf
from distribu.domain.values import CompanyId
from distribu.domain.webhooks import Webhook, WireEvent


@dataclass(slots=True)
class Sealed:
    """What the machine keeps of one company's log: the leaf of each record, in their order, and the heads."""

    rows: dict[str, bytes] = field(default_factory=dict)
    tips: list[Tip] = field(default_factory=list)
    told_at: datetime | None = None
    tell_at: datetime | None = None
    mailed_at: datetime | None = None
    mail_at: datetime | None = None
    claimed_until: datetime | None = None


class MemorySeals:
    """Implements the port Seals on the store in memory."""

    def __init__(self, store: Any, *, entropy: Entropy) -> None:
        self._store = store
        self._entropy = entropy

    async def seal(
        self,
        make: Sealing,
        tell: Telling,
        *,
        limit: int,
        now: datetime,
        company_id: CompanyId | None = None,
    ) -> int:
        count = 0
        for company, shelf in list(self._store.shelves.items()):
            if company_id not in (None, company):
                continue
            sealed: Sealed = self._store.seals[company]
            waiting = [record.id for record in shelf.records if record.id not in sealed.rows][:limit]
            if not waiting:
                continue
            leaves = [leaf(shelf.texts[id].body.encode()) for id in waiting]
            tip = sealed.tips[-1] if sealed.tips else None
            sealed.tips.append(make(company, tip, leaves))
            first = len(sealed.rows)
            sealed.rows.update(zip(waiting, leaves, strict=True))
            if _wanted(shelf, WireEvent.AUDIT_RECORDED):
                records = {record.id: record for record in shelf.records}
                for position, id in enumerate(waiting, first):
                    payload = tell(company, _row(shelf, records[id], position, sealed.rows[id]))
                    message = Message(id, WireEvent.AUDIT_RECORDED, payload)
                    shelf.outbox.append((message, records[id].at))
            count += len(waiting)
            if sealed.tell_at is None:
                sealed.tell_at = now if sealed.told_at is None else max(now, sealed.told_at + TOLD_EVERY)
            if sealed.mail_at is None:
                sealed.mail_at = max(now, (sealed.mailed_at or now) + MAILED_EVERY)
        return count

    async def tell(self, payload: Callable[[Head], str], *, now: datetime) -> int:
        count = 0
        for company, sealed in self._store.seals.items():
            if sealed.tell_at is None or sealed.tell_at > now:
                continue
            sealed.tell_at, sealed.told_at = None, now
            shelf, head = self._store.shelves[company], sealed.tips[-1].head
            if _wanted(shelf, WireEvent.AUDIT_SEALED, active=True):
                message = Message(self._entropy.uuid(), WireEvent.AUDIT_SEALED, payload(head))
                shelf.outbox.append((message, head.at))
                count += 1
        return count

    async def claim_letters(self, *, limit: int, now: datetime, claim_s: float) -> Sequence[CompanyId]:
        due = [
            company
            for company, sealed in self._store.seals.items()
            if sealed.mail_at is not None and sealed.mail_at <= now
            if sealed.claimed_until is None or sealed.claimed_until <= now
        ][:limit]
        for company in due:
            self._store.seals[company].claimed_until = now + timedelta(seconds=claim_s)
        return due

    async def mailed(self, company_id: CompanyId, *, now: datetime) -> None:
        sealed = self._store.seals[company_id]
        sealed.mailed_at, sealed.mail_at, sealed.claimed_until = now, None, None

    async def erase(self, company_id: CompanyId, label: str, accounts: Sequence[str] = ()) -> int:
        shelf = self._store.shelves[company_id]
        gone: set[str] = shelf.erase(label, accounts)
        shelf.outbox = [(_unnamed(message, gone, label), at) for message, at in shelf.outbox]
        feed = self._store.feeds[company_id]
        feed.events = [(_unnamed(event, gone, label), at) for event, at in feed.events]
        return len(gone)


_Told = TypeVar("_Told", Message, Happened)


def _unnamed(event: _Told, gone: Container[str], label: str) -> _Told:
    """What is told of a record, without a person who is gone from it."""
    if event.name != WireEvent.AUDIT_RECORDED:
        return event
    payload = msgspec.json.decode(event.payload)
    if event.id not in gone and payload["actorLabel"] != label:
        return event
    text = msgspec.json.encode(payload | {"actorLabel": None, "ip": None}).decode()
    return replace(event, payload=text)


def _wanted(shelf: Any, event: WireEvent, *, active: bool = False) -> bool:
    webhooks: Iterable[Webhook] = shelf.entities[Webhook].values()
    return any(
        it.removed_at is None and event in it.subscribed and (it.is_active or not active) for it in webhooks
    )


_EMPTY: Final = Sealed()


class Seals(Finder):
    """Implements the finder Seals."""

    @property
    def _sealed(self) -> Sealed:
        if self.tx.scope.customer_id is not None:
            return _EMPTY
        sealed: Sealed = self.tx.store.seals[self.tx.scope.company_id]
        return sealed

    def tip(self) -> MemoryRead[Head | None]:
        return MemoryRead(self.tx, lambda: self._sealed.tips[-1].head if self._sealed.tips else None)

    def heads(self, *, after: int, limit: int) -> MemoryRead[Sequence[Head]]:
        return MemoryRead(
            self.tx, lambda: [it.head for it in self._sealed.tips if it.head.number > after][:limit]
        )

    def leaves(self, *, first: int, limit: int) -> MemoryRead[Sequence[bytes]]:
        return MemoryRead(self.tx, lambda: list(self._sealed.rows.values())[first : first + limit])

    def rows(self, *, after: int, limit: int) -> MemoryRead[Sequence[SealedRow]]:
        def answer() -> list[SealedRow]:
            records = {record.id: record for record in self.tx.shelf.records}
            return [
                _row(self.tx.shelf, records[id], position, hashed)
                for position, (id, hashed) in enumerate(self._sealed.rows.items())
                if position > after
            ][:limit]

        return MemoryRead(self.tx, answer)

    def strays(self, *, after: str, limit: int) -> MemoryRead[Sequence[SealedRow]]:
        return MemoryRead(self.tx, list)

    def waiting(self, *, before: datetime, limit: int) -> MemoryRead[Sequence[SealedRow]]:
        def answer() -> list[SealedRow]:
            sealed, shelf = self._sealed, self.tx.shelf
            return [
                replace(_row(shelf, record, 0, b""), position=None, leaf=None)
                for record in shelf.records
                if sealed is not _EMPTY and record.at < before and record.id not in sealed.rows
            ][:limit]

        return MemoryRead(self.tx, answer)

    def vanished(self, *, limit: int) -> MemoryRead[Sequence[SealedRow]]:
        return MemoryRead(self.tx, list)


def _row(shelf: Any, record: Record, position: int, hashed: bytes) -> SealedRow:
    text = shelf.texts[record.id]
    return SealedRow(
        id=record.id,
        position=position,
        leaf=hashed,
        body=text.body,
        salt=None if record.label is None else text.salt,
        label=record.label,
        ip=record.ip,
        fields={
            "at": record.at,
            "actor_type": record.actor_kind,
            "actor_id": record.actor_id,
            "action": record.action,
            "entity_type": record.entity_type,
            "entity_id": record.entity_id,
        },
    )


@dataclass(frozen=True, slots=True)
class Text:
    """A record's canonical text, and the salt of its person."""

    body: str
    salt: bytes


def sealed_of() -> "defaultdict[CompanyId, Sealed]":
    """Nothing sealed yet, of any company."""
    return defaultdict(Sealed)
