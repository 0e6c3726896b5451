"""What becomes a row of the audit log, and what the world is told with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from distribu.application import reactions, views
from distribu.application.ports import NUMBER_TO_COME, Change, Entropy, Message, NewRecord
from distribu.domain.access import Actor
from distribu.domain.audit import FORMAT, METADATA_MAX, CustomEntry, Entry, Person
from distribu.domain.entity import Entity, Event, Numbered
from distribu.domain.values import CompanyId


@dataclass(frozen=True, slots=True)
class Recorder:
    """Whoever writes into a company's log, and when."""

    actor: Actor
    company_id: CompanyId
    now: datetime
    entropy: Entropy

    def record(self, entry: Entry) -> NewRecord:
        """The row of the log, for whoever writes it."""
        (record,) = self.records((), [(entry, ())])
        return record

    def records(
        self, changes: Sequence[Change], entries: Sequence[tuple[Entry, tuple[Message, ...]]]
    ) -> list[NewRecord]:
        """What changes say to the audit log, and through it to the world, and then the entries beside
        them."""
        entropy = self.entropy
        person = Person(id=entropy.uuid(), salt=entropy.bytes(16), label=self.actor.label, ip=self.actor.ip)
        digest, at = person.digest, views.time(self.now)
        records = []
        for event, entity, wire in _told(changes):
            messages = tuple(Message(entropy.uuid(), name, payload) for name, payload in wire)
            details = dict(event.details())
            if isinstance(entity, Numbered) and not entity.number and "number" in details:
                details["number"] = msgspec.Raw(NUMBER_TO_COME.encode())
            what = (event.name, type(entity).__name__, entity.id, details)
            records.append(_record(entropy.uuid(), self, person, digest, at, event, *what, messages))
        for entry, asked in entries:
            action, metadata = entry.told()
            what = (action, entry.entity_type, entry.entity_id, metadata)
            records.append(_record(entropy.uuid(), self, person, digest, at, entry, *what, asked))
        return records


def _told(changes: Sequence[Change]) -> list[tuple[Event, Entity, list[tuple[str, str]]]]:
    """Every event with its entity and its wire messages: at most one of each name per entity."""
    told = []
    for change in changes:
        entity = change.after
        seen: set[str] = set()
        payload = ""
        for event in entity.events:
            names = [name for name in reactions.wire(event) if name not in seen]
            seen.update(names)
            if names and not payload:
                payload = views.encode(views.of(entity)).decode()
            told.append((event, entity, [(name, payload) for name in names]))
    return told


def _record(
    id: str,
    recorder: Recorder,
    person: Person,
    digest: str,
    at: str,
    event: Event,
    action: str,
    entity_type: str,
    entity_id: str,
    metadata: dict[str, Any],
    messages: tuple[Message, ...],
) -> NewRecord:
    body = views.RecordBody(
        v=FORMAT,
        id=id,
        company_id=recorder.company_id,
        at=at,
        actor_type=recorder.actor.kind,
        actor_id=recorder.actor.id,
        action=action,
        entity_type=entity_type,
        entity_id=entity_id,
        person=digest,
        metadata=_bounded(metadata, str if isinstance(event, CustomEntry) else views.camel),
    )
    return NewRecord(
        id=id,
        event=event,
        at=recorder.now,
        actor_kind=recorder.actor.kind,
        actor_id=recorder.actor.id,
        action=action,
        entity_type=entity_type,
        entity_id=entity_id,
        person=person,
        body=views.encode(body).decode(),
        messages=messages,
    )


def _bounded(metadata: dict[str, Any], named: Callable[[str], str]) -> msgspec.Raw:
    """Metadata as JSON: over its limit it is cut and says so, never dropped."""
    text = views.encode(views.plain(metadata, named))
    if len(text) > METADATA_MAX:
        # Half, since it is escaped again: quotes and backslashes double.
        kept = text[: METADATA_MAX // 2].decode("utf-8", "ignore").replace(NUMBER_TO_COME, "0")
        text = views.encode({"shortened": True, "bytes": len(text), "text": kept})
    return msgspec.Raw(text)
