"""The seals of the audit log: a Merkle tree over its records, and the heads that are signed over that.

The hashing is that of RFC 6962, section 2.1.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, ClassVar, Final, Self

from distribu.domain.audit import Entry
from distribu.domain.errors import Bug
from distribu.domain.values import CompanyId

HEAD_FORMAT: Final = 1
"""The version of a head's canonical text."""

NO_HEAD: Final = "0" * 64
"""What the first head names as the one before it."""

TOLD_EVERY: Final = timedelta(minutes=1)
"""How often at most a company's webhooks are told of its newest head."""

MAILED_EVERY: Final = timedelta(days=7)
"""How often at most the newest head is mailed to its OWNER."""


def leaf(text: bytes) -> bytes:
    """The hash of a record's canonical text: no text hashes like a node."""
    return hashlib.sha256(b"\x00" + text).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Frontier:
    """All that it takes to go on: the roots of the full subtrees that so many leaves fall into.

    The largest comes first; there is one for each bit that is set in ``size``.
    """

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def extended(self, leaves: Iterable[bytes]) -> Self:
        """With more leaves behind the last; each costs two hashes at most, on average."""
        size, peaks = self.size, list(self.peaks)
        for new in leaves:
            peak, full = new, size
            while full & 1:
                peak, full = node(peaks.pop(), peak), full >> 1
            peaks.append(peak)
            size += 1
        return type(self)(size=size, peaks=tuple(peaks))

    @property
    def root(self) -> bytes:
        """The hash of the whole tree."""
        if not self.peaks:
            return hashlib.sha256().digest()
        root = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            root = node(peak, root)
        return root

    @property
    def whole(self) -> bool:
        """Whether there are as many subtrees as the size asks for."""
        return len(self.peaks) == self.size.bit_count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree in memory, to prove things about: every level from the leaves to the root."""

    levels: tuple[Sequence[bytes], ...]

    @classmethod
    def of(cls, leaves: Sequence[bytes]) -> Self:
        """The tree of these. A node without a partner goes up as it is, which makes that of RFC 6962."""
        levels = [leaves]
        while len(last := levels[-1]) > 1:
            paired = [node(*last[at : at + 2]) for at in range(0, len(last) - 1, 2)]
            levels.append([*paired, last[-1]] if len(last) % 2 else paired)
        return cls(levels=tuple(levels))

    @property
    def root(self) -> bytes:
        """The hash of the whole tree."""
        return self.levels[-1][0] if self.levels[-1] else Frontier().root

    def path(self, index: int) -> list[bytes]:
        """PATH(m, D[n]) of RFC 6962, 2.1.1, which proves a leaf: its partners, from the bottom up."""
        if not 0 <= index < len(self.levels[0]):
            raise Bug("no such leaf")
        path = []
        for level in self.levels:
            if index ^ 1 < len(level):
                path.append(level[index ^ 1])
            index >>= 1
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is signed: how many records a company's log has, and the root over them. Hashes are hex.

    ``previous`` is the hash of the head before; ``key`` names the key that signed, and ``signature`` is
    base64.
    """

    company_id: CompanyId
    number: int
    size: int
    root: str
    at: datetime
    previous: str
    key: str
    signature: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """Where a company's seals end: the newest head, and what it takes to go on from it."""

    head: Head
    frontier: Frontier

    @property
    def sound(self) -> bool:
        """Whether the two agree: from one that was tampered with nobody goes on."""
        frontier = self.frontier
        return frontier.whole and (frontier.size, frontier.root.hex()) == (self.head.size, self.head.root)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedRow:
    """A record with its seal, as they lie in the store, for somebody to check.

    ``position`` and ``leaf`` are None where there is a record and no seal, ``body`` where there is a
    seal and no record. ``salt`` is None once the person was erased. ``fields`` is what the record's
    row says beside its canonical text.
    """

    id: str
    position: int | None
    leaf: bytes | None
    body: str | None
    salt: bytes | None = None
    label: str | None = None
    ip: str | None = None
    fields: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogExported(Entry):
    """Somebody has taken the log out."""

    name: ClassVar[str] = "audit.exported"
    format: str
    filters: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonErased(Entry):
    """Somebody has had a person's name and addresses taken out of the log. Whose, it does not say."""

    name: ClassVar[str] = "audit.person_erased"
