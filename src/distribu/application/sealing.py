"""Use cases of the sealed audit log: seal it, prove it, take it out, and let a person be forgotten.

Sealing runs in the worker and belongs to the machine; reading what was sealed is the company's.
"""

import hashlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from distribu.application import exports, fields, letters, views
from distribu.application.audit import _Action, _Word
from distribu.application.exports import ExportFormat as ExportFormat, recorded as recorded
from distribu.application.kernel import Command, Distribu, Outside, Process, Query, Reads, Work
from distribu.application.ports import Notary, Sealing
from distribu.application.shapes import Id, Time, View, encode, time
from distribu.domain.access import Actor, ActorKind, Permission, Role
from distribu.domain.audit import holds
from distribu.domain.errors import Forbidden
from distribu.domain.sealing import (
    HEAD_FORMAT,
    NO_HEAD,
    Frontier,
    Head,
    LogExported,
    PersonErased,
    SealedRow,
    Tip,
    Tree,
)
from distribu.domain.values import CompanyId

log: Final = logging.getLogger("distribu.seals")

SEAL_BATCH: Final = 2_000
"""Records of one company under one new head."""

LETTERS: Final = 20
LETTER_CLAIM_S: Final = 600.0
PAGE: Final = 500
"""Records that are in memory at once while a log is taken out or examined."""

WAITS_MAX: Final = timedelta(minutes=5)
"""A record that waits longer to be sealed says that nobody seals: about a second is usual."""

BLOCK: Final = 256
"""Leaves that are hashed together when single records are to be proven: a power of two."""


_Hash = Annotated[str, Meta(examples=["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"])]


class HeadBody(View, frozen=True, kw_only=True):
    """The canonical text of a head: what is signed (format 1)."""

    type: Annotated[str, Meta(examples=["distribu.audit.head"])]
    v: Annotated[int, Meta(examples=[HEAD_FORMAT])]
    company_id: Id
    number: Annotated[int, Meta(examples=[312])]
    size: Annotated[int, Meta(examples=[10_482])]
    root: _Hash
    at: Time
    previous: _Hash
    key: Annotated[str, Meta(examples=["5f0cc6b5ad1c0b0d"])]


class HeadView(HeadBody, frozen=True, kw_only=True):
    """A signed head. Whoever keeps it can prove what the log was then."""

    signature: Annotated[str, Meta(examples=["m4Qx…"])]


def _of_head(head: Head) -> dict[str, Any]:
    return {
        "type": "distribu.audit.head",
        "v": HEAD_FORMAT,
        "company_id": head.company_id,
        "number": head.number,
        "size": head.size,
        "root": head.root,
        "at": time(head.at),
        "previous": head.previous,
        "key": head.key,
    }


def signed_text(head: Head) -> bytes:
    """What of a head is signed."""
    return encode(HeadBody(**_of_head(head)))


def head_view(head: Head) -> HeadView:
    """A head as it goes out."""
    return HeadView(**_of_head(head), signature=head.signature)


def sealing(notary: Notary, now: datetime) -> Sealing:
    """How the next head of a company is made."""

    def make(company_id: CompanyId, tip: Tip | None, leaves: Sequence[bytes]) -> Tip:
        frontier = (tip.frontier if tip else Frontier()).extended(leaves)
        head = Head(
            company_id=company_id,
            number=1 + (tip.head.number if tip else 0),
            size=frontier.size,
            root=frontier.root.hex(),
            at=max(now, tip.head.at) if tip else now,
            previous=hashlib.sha256(signed_text(tip.head)).hexdigest() if tip else NO_HEAD,
            key=notary.keys[0].id,
        )
        return Tip(head=replace(head, signature=notary.sign(signed_text(head))), frontier=frontier)

    return make


async def seal(distribu: Distribu) -> int:
    """Seal what waits, and let everybody hear of it who is to. Returns how much there was to do."""
    ports, now = distribu.ports, distribu.ports.clock.now()
    sealed = await ports.seals.seal(sealing(ports.notary, now), recorded, limit=SEAL_BATCH, now=now)
    heads = await ports.seals.tell(lambda head: encode(head_view(head)).decode(), now=now)
    due = await ports.seals.claim_letters(limit=LETTERS, now=now, claim_s=LETTER_CLAIM_S)
    for company_id in due:
        try:
            await distribu.run(Actor.system(company_id), MailHead())
            await ports.seals.mailed(company_id, now=now)
        except Exception:
            log.exception(
                "the head of company %s is not mailed; its claim runs out and it is tried again", company_id
            )
    if sealed or heads:
        distribu.wake()  # webhooks may be told of either
    return sealed + heads + len(due)


class MailHead(Command[None], frozen=True, kw_only=True):
    """Mail the newest head to the OWNER, who is to keep it."""

    needs = None
    internal = True

    async def run(self, work: Work) -> None:
        head = await work.seals.tip()
        leaders = await work.members.leaders(limit=1)
        if head is None or not leaders or leaders[0].membership.role is not Role.OWNER:
            return
        company = await work.companies.current()
        text = encode(head_view(head)).decode()
        letter = letters.LogSealed(
            company=company.name, slug=company.slug, records=head.size, at=time(head.at), head=text
        )
        work.mail(leaders[0].email, letter)


# --- reading what was sealed ------------------------------------------------------------------


class LogFilters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Which part of a log; none of them: all of it."""

    actor_kind: ActorKind | None = None
    entity_type: _Word | None = None
    entity_id: _Word | None = None
    action: _Action | None = None
    since: fields.Moment | None = None
    until: fields.Moment | None = None
    search: _Word | None = None

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}

    def let(self, row: SealedRow) -> bool:
        """Whether a record is of that part; as `ListAudit` says it."""
        it = row.fields
        return it is not None and (
            (self.actor_kind is None or it["actor_type"] == self.actor_kind)
            and (self.entity_type is None or it["entity_type"] == self.entity_type)
            and (self.entity_id is None or it["entity_id"] == self.entity_id)
            and (self.action is None or f"{it['action']}.".startswith(f"{self.action}."))
            and (self.since is None or self.since <= it["at"])
            and (self.until is None or it["at"] < self.until)
            and (self.search is None or holds(self.search, row.body, row.label))
        )


class ReadTip(Query[Head | None], frozen=True, kw_only=True):
    """The newest head."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> Head | None:
        return await reads.seals.tip()


class ReadSealed(Query[tuple[Sequence[SealedRow], Sequence[Head]]], frozen=True, kw_only=True):
    """Sealed records behind a position, and heads behind a number.

    The heads are looked at last: whatever record is seen, its head is too.
    """

    needs = None
    internal = True

    after: Annotated[int, Meta(ge=-1, le=2**62)] = -1
    head: Annotated[int, Meta(ge=0, le=2**62)] = 0

    async def run(self, reads: Reads) -> tuple[Sequence[SealedRow], Sequence[Head]]:
        return await reads.together(
            reads.seals.rows(after=self.after, limit=PAGE),
            reads.seals.heads(after=self.head, limit=PAGE),
        )


class ReadLeaves(Query[Sequence[bytes]], frozen=True, kw_only=True):
    """Leaves of the tree, from one on."""

    needs = None
    internal = True

    first: Annotated[int, Meta(ge=0, le=2**62)]
    limit: Annotated[int, Meta(ge=1, le=64 * BLOCK)]

    async def run(self, reads: Reads) -> Sequence[bytes]:
        return await reads.seals.leaves(first=self.first, limit=self.limit)


class ReadStrays(Query[Sequence[SealedRow]], frozen=True, kw_only=True):
    """Records behind an id that nobody has sealed or is going to; or, with no id, what is gone unsealed."""

    needs = None
    internal = True

    after: fields.Cursor | None = None

    async def run(self, reads: Reads) -> Sequence[SealedRow]:
        if self.after is None:
            return await reads.seals.vanished(limit=PAGE)
        return await reads.seals.strays(after=self.after, limit=PAGE)


class ReadWaiting(Query[Sequence[SealedRow]], frozen=True, kw_only=True):
    """Records that wait to be sealed, those first that have waited longest; no more than `PAGE`."""

    needs = None
    internal = True

    async def run(self, reads: Reads) -> Sequence[SealedRow]:
        return await reads.seals.waiting(before=reads.now, limit=PAGE)


_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"


async def _whole(outside: Outside, company_id: CompanyId) -> AsyncIterator[SealedRow | Head]:
    """A company's log from its first record to its newest head, each head behind the last record it signs."""
    after, number, heads = -1, 0, deque[Head]()
    while True:
        rows, more = await outside.inside(company_id, ReadSealed(after=after, head=number))
        heads += more
        for row in rows:
            while heads and heads[0].size <= (row.position or 0):
                yield heads.popleft()
            yield row
            after = row.position or 0
        number = more[-1].number if more else number
        if len(rows) < PAGE and len(more) < PAGE and (not heads or heads[-1].size <= after + 1 or not rows):
            break
    for head in heads:
        yield head
    for row in await outside.inside(company_id, ReadStrays()):
        yield row
    last = _FIRST_ID
    while strays := await outside.inside(company_id, ReadStrays(after=last)):
        for row in strays:
            yield row
        last = strays[-1].id


async def _part(
    outside: Outside, company_id: CompanyId, filters: LogFilters, size: int
) -> AsyncIterator[SealedRow]:
    """Those of the first ``size`` records of a log that the filters let through."""
    after = -1
    while True:
        rows, _ = await outside.inside(company_id, ReadSealed(after=after))
        for row in rows:
            if row.position is None or row.position >= size:
                return
            if filters.let(row):
                yield row
            after = row.position
        if len(rows) < PAGE:
            return


class _Proofs:
    """Inclusion proofs against one head. It keeps one hash of each block of leaves: 32 bytes of 256."""

    def __init__(self, outside: Outside, company_id: CompanyId, size: int) -> None:
        self._outside, self._company_id, self._size = outside, company_id, size
        self._blocks = Tree.of([])
        self._block = -1
        self._inside = Tree.of([])

    async def begin(self) -> None:
        """Read every leaf once."""
        roots: list[bytes] = []
        for first in range(0, self._size, 64 * BLOCK):
            leaves = await self._leaves(first, 64 * BLOCK)
            roots += [Tree.of(leaves[at : at + BLOCK]).root for at in range(0, len(leaves), BLOCK)]
        self._blocks = Tree.of(roots)

    async def path(self, position: int) -> list[str]:
        """What proves a record, in hex."""
        block, place = divmod(position, BLOCK)
        if block != self._block:
            self._inside = Tree.of(await self._leaves(block * BLOCK, BLOCK))
            self._block = block
        path = [*self._inside.path(place), *self._blocks.path(block)]
        return [step.hex() for step in path]

    async def _leaves(self, first: int, limit: int) -> Sequence[bytes]:
        request = ReadLeaves(first=first, limit=min(limit, self._size - first))
        return await self._outside.inside(self._company_id, request)


def _company(outside: Outside) -> CompanyId:
    if outside.actor.company_id is None:
        raise Forbidden("forbidden")
    return outside.actor.company_id


async def _lines(outside: Outside, company_id: CompanyId) -> AsyncIterator[bytes]:
    """A whole log as it is examined: every record, every head, and what should not be there."""
    records = heads = 0
    yield exports.begin(company_id, outside.clock.now(), whole=True, filters={})
    async for one in _whole(outside, company_id):
        if isinstance(one, Head):
            heads += 1
            yield encode(head_view(one)) + b"\n"
        else:
            records += one.position is not None
            yield exports.line(one)
    yield exports.end(records, heads)


async def _lines_of_part(
    outside: Outside, company_id: CompanyId, filters: LogFilters
) -> AsyncIterator[bytes]:
    """Some records, each with what proves it against the one head in front."""
    yield exports.begin(company_id, outside.clock.now(), whole=False, filters=views.plain(filters.given()))
    head = await outside.inside(company_id, ReadTip())
    records = 0
    if head is not None:
        yield encode(head_view(head)) + b"\n"
        proofs = _Proofs(outside, company_id, head.size)
        await proofs.begin()
        async for row in _part(outside, company_id, filters, head.size):
            records += 1
            yield exports.line(row, await proofs.path(row.position or 0))
    yield exports.end(records, 0 if head is None else 1)


# --- at the doors -----------------------------------------------------------------------------


class NoteExport(Command[None], frozen=True, kw_only=True):
    """Record that the log is taken out, before it is."""

    needs = None
    internal = True

    format: ExportFormat
    filters: LogFilters

    async def run(self, work: Work) -> None:
        work.record(LogExported(format=self.format, filters=self.filters.given()))


class ExportAudit(Process[AsyncIterator[bytes]], frozen=True, kw_only=True):
    """Take the audit log out, oldest first, piece by piece and however long it is.

    What waits to be sealed is sealed first, the record of this export with it. As JSONL every record
    comes with what it takes to check it with the public key alone. With filters that is each record
    by itself: that others were left out does not show.
    """

    needs = Permission.AUDIT_READ
    streamed = True

    format: ExportFormat = ExportFormat.JSONL
    actor_type: ActorKind | None = None
    entity_type: _Word | None = None
    entity_id: _Word | None = None
    action: _Action | None = None
    since: fields.Moment | None = None
    until: fields.Moment | None = None
    search: _Word | None = None

    async def run(self, outside: Outside) -> AsyncIterator[bytes]:
        company_id = _company(outside)
        filters = LogFilters(
            actor_kind=self.actor_type,
            entity_type=self.entity_type,
            entity_id=self.entity_id,
            action=self.action,
            since=self.since,
            until=self.until,
            search=self.search,
        )
        await outside.inside(company_id, NoteExport(format=self.format, filters=filters))
        await _catch_up(outside, company_id)
        if self.format is not ExportFormat.JSONL:
            return exports.plain(self.format, _records(outside, company_id, filters))
        if filters.given():
            return _lines_of_part(outside, company_id, filters)
        return _lines(outside, company_id)


async def _catch_up(outside: Outside, company_id: CompanyId) -> None:
    """Seal what a company has waiting now."""
    now = outside.clock.now()
    make = sealing(outside.notary, now)
    seal = outside.seals.seal
    while await seal(make, recorded, limit=SEAL_BATCH, now=now, company_id=company_id) == SEAL_BATCH:
        pass


async def _records(outside: Outside, company_id: CompanyId, filters: LogFilters) -> AsyncIterator[SealedRow]:
    head = await outside.inside(company_id, ReadTip())
    async for row in _part(outside, company_id, filters, 0 if head is None else head.size):
        if row.body is not None:
            yield row


class FindingView(View, frozen=True, kw_only=True):
    """Something that is wrong with a log: a word for its kind, and what exactly is where."""

    kind: str
    what: str


class WaitingView(View, frozen=True, kw_only=True):
    """Records that wait to be sealed: until then a change of them would not show.

    ``records`` is counted up to `PAGE`, which stands for that or more. ``first`` is the id of the one that
    has waited longest. ``overdue``: for longer than `WAITS_MAX`, so that nobody seals.
    """

    records: int
    since: Time
    first: Id
    overdue: bool


class VerdictView(View, frozen=True, kw_only=True):
    """What an examination of a log has found. ``nameless`` records name nobody any more.

    ``sound``: what was sealed is as it was. ``waiting`` is what was not, which says nothing of the rest.
    """

    sound: bool
    records: int
    heads: int
    nameless: int
    head: HeadView | None
    findings: list[FindingView]
    waiting: WaitingView | None


class VerifyAudit(Process[VerdictView], frozen=True, kw_only=True):
    """Examine the whole sealed log: that nothing in it was edited, removed, inserted or reordered.

    What waits to be sealed is told beside that (``waiting``), and whether for too long.

    ``head`` is one that was kept elsewhere, as JSON; only with it a cut-off end shows, and a log that
    was made anew.
    """

    needs = Permission.AUDIT_READ

    head: Annotated[str, Meta(min_length=1, max_length=10_000)] | None = None

    async def run(self, outside: Outside) -> VerdictView:
        company_id = _company(outside)
        inspection = outside.notary.examine(company_id, self.head)
        async for line in _lines(outside, company_id):
            inspection.read(line)
        verdict = inspection.verdict()
        findings = [FindingView(kind=kind, what=what) for kind, what in verdict.findings]
        waiting = await outside.inside(company_id, ReadWaiting())
        newest = await outside.inside(company_id, ReadTip())
        return VerdictView(
            sound=not findings,
            records=verdict.records,
            heads=verdict.heads,
            nameless=verdict.nameless,
            head=None if newest is None else head_view(newest),
            findings=findings,
            waiting=_waiting(waiting, outside.clock.now()) if waiting else None,
        )


def _waiting(rows: Sequence[SealedRow], now: datetime) -> WaitingView:
    since, first = min((row.fields["at"], row.id) for row in rows if row.fields is not None)
    return WaitingView(records=len(rows), since=time(since), first=first, overdue=since < now - WAITS_MAX)


class NoteErasure(Command[None], frozen=True, kw_only=True):
    """Record that a person is erased, and who asked for it; not who it is."""

    needs = None
    internal = True

    async def run(self, work: Work) -> None:
        work.record(PersonErased())


class ReadAccounts(Query[Sequence[str]], frozen=True, kw_only=True):
    """The accounts that go by a label at a company's doors: of its team, and of its store."""

    needs = None
    internal = True

    label: Annotated[str, Meta(min_length=1, max_length=300)]

    async def run(self, reads: Reads) -> Sequence[str]:
        member, login = await reads.together(
            reads.members.by_email(self.label), reads.logins.by_email(self.label)
        )
        return [*([member.user_id] if member else ()), *([login.id] if login else ())]


class ErasedView(View, frozen=True, kw_only=True):
    """Of how many entries a person was taken out."""

    entries: int


class ErasePerson(Process[ErasedView], frozen=True, kw_only=True):
    """Take a person out of the audit log: what it calls them, and the addresses they came from.

    ``label`` is what the log calls them, for people their email address. What it has of their signing in
    goes too. The entries stay, and every proof over them; they name nobody any more.
    """

    needs = Permission.AUDIT_ERASE

    label: Annotated[str, Meta(min_length=1, max_length=300, examples=["bo@corner-shop.example"])]

    async def run(self, outside: Outside) -> ErasedView:
        company_id = _company(outside)
        await outside.inside(company_id, NoteErasure())
        accounts = await outside.inside(company_id, ReadAccounts(label=self.label))
        return ErasedView(entries=await outside.seals.erase(company_id, self.label, accounts))
