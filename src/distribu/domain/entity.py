"""Entities and events: an immutable value with an identity, and why it changed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, ClassVar, Self, TypeVar

from distribu.domain.errors import Bug, Stale
from distribu.domain.values import CompanyId

_Slot = tuple[str, Callable[[Any], Any], Callable[[Any, Any], None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Why an entity changed. ``name`` is unique, dotted, and becomes the action in the audit log."""

    name: ClassVar[str]

    def details(self) -> Iterator[tuple[str, Any]]:
        """The event's own fields, for the audit log's metadata."""
        for item in fields(self):
            yield item.name, getattr(self, item.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """Something a company owns.

    ``version`` is 1 when the entity is first written and one more with every change written after
    that. ``events`` are those not written yet: a verb adds them, and nothing else can.
    """

    company_id: CompanyId
    id: str
    version: int = 1
    created_at: datetime
    updated_at: datetime
    events: tuple[Event, ...] = field(default=(), repr=False, compare=False)

    def _after(self, *events: Event, at: datetime, **changes: object) -> Self:
        """The successor of this entity, carrying what explains it: the only way to make one.

        Written with slot descriptors because `dataclasses.replace` costs eight times as much.
        """
        if "version" not in changes:
            changes["version"] = self.version if self.events else self.version + 1
        changes["events"] = self.events + events
        changes["updated_at"] = at
        return _with(self, changes)

    def written(self) -> Self:
        """This entity once it is in the store: with nothing left to tell."""
        return _with(self, {"events": ()})

    def at(self, version: int | None) -> Self:
        """This entity, if it is at the version the caller says it has seen (None: whatever it is).

        Raises `Stale`.
        """
        if version is not None and version != self.version:
            raise Stale("precondition_failed")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered(Entity):
    """An entity its company counts, without gaps.

    ``number`` is 0 until the store gives it in the very message that commits: drawn any earlier, the
    counter's lock would make the orders of one company wait for each other's round trips.
    """

    number: int = 0

    def numbered(self, number: int) -> Self:
        """This entity with the number the store gave it."""
        return _with(self, {"number": number})


E = TypeVar("E", bound=Entity)


def _with(entity: E, changes: dict[str, object]) -> E:
    successor = object.__new__(type(entity))
    known = 0
    for name, get, put in _slots(type(entity)):
        if name in changes:
            known += 1
            put(successor, changes[name])
        else:
            put(successor, get(entity))
    if known != len(changes):
        raise Bug(f"{type(entity).__name__} has no such field among {sorted(changes)}")
    return successor


_known: dict[type, tuple[_Slot, ...]] = {}


def _slots(cls: type) -> tuple[_Slot, ...]:
    if cls not in _known:
        slots = [(item.name, getattr(cls, item.name)) for item in fields(cls)]
        _known[cls] = tuple((name, slot.__get__, slot.__set__) for name, slot in slots)
    return _known[cls]


def edited(entity: Entity, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What an edit changes: the old values and the new ones of the fields that differ, by name."""
    before = {name: getattr(entity, name) for name in changes}
    differing = [name for name in changes if before[name] != changes[name]]
    return {name: before[name] for name in differing}, {name: changes[name] for name in differing}
