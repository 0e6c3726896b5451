"""The audit log: who did what to what, and when. Written once, never changed."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from distribu.domain.access import ActorKind
from distribu.domain.entity import Event
from distribu.domain.values import CompanyId

METADATA_MAX: Final = 8_192
"""Bytes of metadata kept whole; what is over is shortened and marked, never dropped."""

FORMAT: Final = 1
"""The version of a record's canonical text."""


def holds(wanted: str, *parts: str | None) -> bool:
    """Whether a text is in one of the parts, ignoring the case of ASCII letters: as a store can, too."""
    return _lower(wanted) in _lower("\n".join(part or "" for part in parts))


def _lower(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass").lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Event):
    """Something that happened to what the log names, and changed no entity."""

    entity_type: str = ""
    entity_id: str = ""

    def told(self) -> tuple[str, dict[str, Any]]:
        """The action, and what else is told of it."""
        own = {name: value for name, value in self.details() if name not in ("entity_type", "entity_id")}
        return self.name, own


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomEntry(Entry):
    """An entry made from outside, by `RecordAudit`: its action begins with ``custom.``."""

    name: ClassVar[str] = "custom"
    action: str
    metadata: dict[str, Any]

    def told(self) -> tuple[str, dict[str, Any]]:
        """The caller's action and metadata."""
        return f"{self.name}.{self.action}", self.metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRefused(Entry):
    """Somebody who is known asked for what they may not do.

    ``permission`` is what they lack; None when they hold it and may still not do this to that. Of
    ``left_out`` more in this company, before this one, there is no entry: they came too fast.
    """

    name: ClassVar[str] = "access.refused"
    request: str
    code: str
    permission: str | None
    left_out: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """What of a record names a person. It stands in a row of its own and can be erased.

    The record holds `digest` alone, so that erasing this row breaks no proof over the record.
    """

    id: str
    salt: bytes
    label: str
    ip: str | None

    @property
    def digest(self) -> str:
        """Salted, and every part prefixed with its length: shifted boundaries do not hash alike."""
        parts = (self.salt, self.label.encode(), (self.ip or "").encode())
        return hashlib.sha256(b"".join(len(part).to_bytes(4) + part for part in parts)).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One row of the audit log as read back; ``label`` and ``ip`` are None once they were erased."""

    id: str
    company_id: CompanyId
    at: datetime
    actor_kind: ActorKind
    actor_id: str
    label: str | None
    ip: str | None
    action: str
    entity_type: str
    entity_id: str
    metadata: dict[str, Any]
