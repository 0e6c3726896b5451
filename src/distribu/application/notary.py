"""What sealing the audit log needs from outside: seals that are kept, and a notary who signs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from distribu.domain.sealing import Head, SealedRow, Tip
from distribu.domain.values import CompanyId

Sealing = Callable[[CompanyId, Tip | None, Sequence[bytes]], Tip]
"""Makes and signs the next head of a company, from the last one and the leaves that come behind it."""

Telling = Callable[[CompanyId, SealedRow], str]
"""Renders a record for the webhooks that want the log: its canonical text, its seal and who it names."""


class Seals(Protocol):
    """The seals of the audit logs, and what follows from them: the machine's own, like the queue."""

    async def seal(
        self,
        make: Sealing,
        tell: Telling,
        *,
        limit: int,
        now: datetime,
        company_id: CompanyId | None = None,
    ) -> int:
        """Give the records that wait a place of their own each, and sign the new head of each company.

        Returns how many records were taken up, ``limit`` at most for each company; with ``company_id`` of
        that company alone. A record that is committed late is sealed late and never skipped, the records
        of one entity stand in the order of its changes, and of two who seal at once one waits for the
        other. One that is sealed and in line again is taken out of line. A company whose newest head and
        frontier do not agree is left alone, and logged.

        Where a webhook is subscribed to records, each goes into the outbox with its seal, in the order of
        the log, all of them or none.
        """
        ...

    async def tell(self, payload: Callable[[Head], str], *, now: datetime) -> int:
        """Put the newest head of each company into the outbox for the webhooks that want it.

        Returns how many. Each company's at most once in `TOLD_EVERY`, and the last one always in the end.
        """
        ...

    async def claim_letters(self, *, limit: int, now: datetime, claim_s: float) -> Sequence[CompanyId]:
        """Take companies whose newest head is to be mailed; nobody else gets them while the claim lasts."""
        ...

    async def mailed(self, company_id: CompanyId, *, now: datetime) -> None:
        """The newest head was mailed: there is no other letter within `MAILED_EVERY`."""
        ...

    async def erase(self, company_id: CompanyId, label: str, accounts: Sequence[str] = ()) -> int:
        """Delete what names the person of this label in a company's log, addresses included.

        What is recorded of a visitor goes too where it is about an account of theirs or a session of it:
        one of ``accounts``, or of those that have acted by the label.

        Returns of how many entries. The records and their seals stay as they are. What webhooks are told
        of records, and the feed still has, names them no more either.
        """
        ...


class Inspection(Protocol):
    """Reads an export of a log, line by line, and keeps what is wrong with it."""

    def read(self, line: bytes) -> None:
        """The next line."""
        ...

    def verdict(self) -> "Examined":
        """What was found, once there are no more lines."""
        ...


@dataclass(frozen=True, slots=True)
class Examined:
    """What was examined, and what is wrong with it: pairs of a word for its kind, and what is where.

    ``nameless`` counts the records whose person was erased.
    """

    records: int
    heads: int
    nameless: int
    findings: Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SealingKey:
    """A key that heads are signed with: what it is called, and its public half in base64."""

    id: str
    public: str


class Notary(Protocol):
    """Signs heads (Ed25519, RFC 8032), and examines logs by what was signed."""

    @property
    def keys(self) -> Sequence[SealingKey]:
        """All that heads may be signed with, the one that signs now first."""
        ...

    def sign(self, text: bytes) -> str:
        """The signature of a head's text by the first key, in base64."""
        ...

    def examine(self, company_id: CompanyId, kept: str | None) -> Inspection:
        """Begin with the log of a company; ``kept`` is a head from elsewhere, as JSON.

        Raises `Invalid` for one that is none, or another company's.
        """
        ...
