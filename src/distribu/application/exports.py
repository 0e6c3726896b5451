"""The forms in which the audit log goes out: JSON Lines to be checked, CSV, OCSF for a SIEM, and events."""

import csv as commas
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from io import StringIO
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from distribu.application.shapes import View, encode, time
from distribu.application.views import RecordBody, RecordView
from distribu.domain.access import ActorKind
from distribu.domain.sealing import SealedRow, leaf
from distribu.domain.values import CompanyId

FORMAT: Final = 1
"""The version of what an export's lines look like."""

_decode: Final = msgspec.json.Decoder(RecordBody).decode


class ExportFormat(StrEnum):
    """JSONL can be checked offline; CSV is for a spreadsheet, OCSF for a SIEM."""

    JSONL = "JSONL"
    CSV = "CSV"
    OCSF = "OCSF"


class PersonLine(View, frozen=True, kw_only=True):
    """Who a record's ``person`` is the hash of."""

    salt: str
    label: str | None
    ip: str | None


class RecordLine(View, frozen=True, kw_only=True):
    """A record and its seal. ``record`` is the canonical text itself, to the byte, and comes last."""

    type: str = "record"
    position: int | None
    id: str
    leaf: str | None
    person: PersonLine | None
    altered: list[str] | msgspec.UnsetType
    proof: list[str] | msgspec.UnsetType
    record: msgspec.Raw | str | None


def begin(company_id: str, at: datetime, *, whole: bool, filters: Mapping[str, Any]) -> bytes:
    """The first line."""
    first = {
        "type": "distribu.audit.export",
        "v": FORMAT,
        "companyId": company_id,
        "at": time(at),
        "whole": whole,
        "filters": filters,
    }
    return encode(first) + b"\n"


def end(records: int, heads: int) -> bytes:
    """The last line: an export without it was cut off."""
    return encode({"type": "end", "records": records, "heads": heads}) + b"\n"


def line(row: SealedRow, proof: list[str] | msgspec.UnsetType = msgspec.UNSET) -> bytes:
    """The line of one record."""
    person = None
    if row.salt is not None:
        person = PersonLine(salt=row.salt.hex(), label=row.label, ip=row.ip)
    record, altered = _record(row)
    text = RecordLine(
        position=row.position,
        id=row.id,
        leaf=None if row.leaf is None else row.leaf.hex(),
        person=person,
        altered=altered or msgspec.UNSET,
        proof=proof,
        record=record,
    )
    return encode(text) + b"\n"


def _record(row: SealedRow) -> tuple[msgspec.Raw | str | None, list[str]]:
    """A record's text, and which columns of its row say something else."""
    if row.body is None:
        return None, []
    try:
        body = _decode(row.body)
    except msgspec.MsgspecError:
        return row.body, ["body"]
    if "\n" in row.body or "\r" in row.body:
        return row.body, ["body"]
    told = {**msgspec.structs.asdict(body), "actor_type": str(body.actor_type)}
    shown = {name: time(value) if name == "at" else value for name, value in (row.fields or {}).items()}
    altered = [name for name, value in shown.items() if told[name] != value]
    return msgspec.Raw(row.body.encode()), altered


# --- for people and SIEMs ---------------------------------------------------------------------

_COLUMNS: Final = (
    *("position", "id", "at", "actorType", "actorId", "actorLabel", "ip"),
    *("action", "entityType", "entityId", "metadata", "leaf"),
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula (OWASP, CSV Injection)."""


async def plain(form: ExportFormat, rows: AsyncIterator[SealedRow]) -> AsyncIterator[bytes]:
    """CSV or OCSF, record by record."""
    if form is ExportFormat.CSV:
        yield _row(_COLUMNS)
    write = csv if form is ExportFormat.CSV else ocsf
    async for row in rows:
        yield write(row)


def csv(row: SealedRow) -> bytes:
    """A record as a row of a table (RFC 4180). What begins like a formula gets a quote in front."""
    body = body_of(row)
    cells = (
        str(row.position),
        row.id,
        body.at,
        body.actor_type,
        body.actor_id,
        row.label or "",
        row.ip or "",
        body.action,
        body.entity_type,
        body.entity_id,
        bytes(body.metadata).decode(),
        "" if row.leaf is None else row.leaf.hex(),
    )
    return _row(["'" + cell if cell.startswith(_FORMULA) else cell for cell in cells])


def _row(cells: Any) -> bytes:
    text = StringIO()
    commas.writer(text).writerow(cells)
    return text.getvalue().encode()


def body_of(row: SealedRow) -> RecordBody:
    """What a record says; of one that cannot be read any more, that it cannot."""
    try:
        return _decode(row.body or "")
    except msgspec.MsgspecError:
        # Altered beyond reading: its place in the log is shown nevertheless.
        return RecordBody(
            v=0,
            id=row.id,
            company_id="",
            at="",
            actor_type="SYSTEM",  # type: ignore[arg-type]  # shown as it is
            actor_id="",
            action="unreadable",
            entity_type="",
            entity_id="",
            person="",
            metadata=msgspec.Raw(b"{}"),
        )


OCSF: Final = "1.3.0"
"""The version of the Open Cybersecurity Schema Framework; its category 3 is Identity & Access Management."""

_AUTHENTICATION: Final = 3002
_ENTITY_MANAGEMENT: Final = 3004
_CLASSES: Final = {_AUTHENTICATION: "Authentication", _ENTITY_MANAGEMENT: "Entity Management"}
_OTHER: Final = 99
_AUTHENTICATIONS: Final = {
    "auth.login": (1, "Logon"),
    "auth.member_login": (1, "Logon"),
    "auth.login_failed": (1, "Logon"),
    "auth.logout": (2, "Logoff"),
}
_ACTIVITIES: Final = {
    **dict.fromkeys(("created", "placed", "added", "invited", "joined", "received"), (1, "Create")),
    **dict.fromkeys(("exported",), (2, "Read")),
    **dict.fromkeys(("updated", "set", "status_changed", "adjusted", "ordered"), (3, "Update")),
    **dict.fromkeys(("restocked", "role_changed", "secret_rotated", "password_changed"), (3, "Update")),
    **dict.fromkeys(("deleted", "removed", "revoked", "purged", "person_erased"), (4, "Delete")),
    **dict.fromkeys(("disabled",), (9, "Disable")),
    **dict.fromkeys(("suspended",), (12, "Suspend")),
    **dict.fromkeys(("resumed",), (13, "Resume")),
    "stock.received": (3, "Update"),
}
"""What is done, by the last word of an action, or by all of it."""

_ACTOR_TYPES: Final = {"USER": (1, "User"), "CUSTOMER": (1, "User"), "SYSTEM": (3, "System")}
_SUCCESS: Final = 1
_FAILURE: Final = 2


def ocsf(row: SealedRow) -> bytes:
    """A record as an OCSF event: Authentication for signing in and out, Entity Management for all else.

    What the framework has no word for is ``Other``, with our own; our action is always the event's code,
    and who acted, as the log says it, is under ``unmapped``. A field that there is no value for is left out.
    """
    body = body_of(row)
    entity = {"type": body.entity_type or "Company", "uid": body.entity_id or body.company_id or "unknown"}
    type_id, type_name = _ACTOR_TYPES.get(body.actor_type, (_OTHER, str(body.actor_type)))
    user: dict[str, Any] = {"uid": body.actor_id or "unknown", "type": type_name, "type_id": type_id}
    if row.label:
        user["name"] = row.label
    unmapped: dict[str, Any] = {"actorType": body.actor_type, "metadata": body.metadata}
    if row.leaf is not None:
        unmapped["leaf"] = row.leaf.hex()
    about: dict[str, Any] = {"entity": entity}
    if body.action in _AUTHENTICATIONS:
        kind, (activity, named) = _AUTHENTICATION, _AUTHENTICATIONS[body.action]
        about = {"user": user, "service": {"name": "Distribu"}}
        unmapped["entity"] = entity
    else:
        word = body.action.rpartition(".")[2]
        other = (_OTHER, body.action)
        known = _ACTIVITIES.get(body.action, _ACTIVITIES.get(word, other))
        kind, (activity, named) = _ENTITY_MANAGEMENT, other if body.action.startswith("custom.") else known
    failed = body.action in ("auth.login_failed", "access.refused")
    event: dict[str, Any] = {
        "activity_id": activity,
        "activity_name": named,
        "category_uid": 3,
        "category_name": "Identity & Access Management",
        "class_uid": kind,
        "class_name": _CLASSES[kind],
        "type_uid": kind * 100 + activity,
        "severity_id": 2 if failed else 1,
        "status_id": _FAILURE if failed else _SUCCESS,
        "time": _milliseconds(body.at),
        "metadata": {
            "version": OCSF,
            "product": {"name": "Distribu", "vendor_name": "Distribu"},
            "uid": row.id,
            "event_code": body.action,
            "log_name": "audit",
            "sequence": row.position or 0,
            "tenant_uid": body.company_id,
        },
        "actor": {"user": user},
        **about,
        "unmapped": unmapped,
    }
    if row.ip:
        event["src_endpoint"] = {"ip": row.ip}
    return encode(event) + b"\n"


def _milliseconds(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1000) if at else 0


# --- for webhooks -------------------------------------------------------------------------------


class RecordedView(RecordView, frozen=True, kw_only=True):
    """A record of the audit log, with its place in it and the hash that is the leaf there.

    Positions follow each other without a gap, whichever webhook hears of them. ``actorLabel`` and ``ip``
    are null once the person was erased.
    """

    position: Annotated[int, Meta(examples=[10_481])]
    leaf: Annotated[str, Meta(examples=["6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"])]


def recorded(company_id: CompanyId, row: SealedRow) -> str:
    """A record as webhooks are told of it."""
    body = body_of(row)
    view = RecordedView(
        id=row.id,
        at=body.at,
        actor_type=body.actor_type,
        actor_id=body.actor_id,
        actor_label=row.label,
        ip=row.ip,
        action=body.action,
        entity_type=body.entity_type,
        entity_id=body.entity_id,
        metadata=msgspec.json.decode(body.metadata),
        position=row.position or 0,
        leaf=(row.leaf or b"").hex(),
    )
    return encode(view).decode()


# --- for whoever is to read one -----------------------------------------------------------------


def example(form: ExportFormat) -> str:
    """How an export begins: one record of it, with what is in front."""
    company, id = "0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10", "0195b2f0-8a44-7c02-9b1d-3f6e8a7c5d21"
    body = RecordBody(
        v=1,
        id=id,
        company_id=company,
        at="2026-01-31T09:30:00.000Z",
        actor_type=ActorKind.USER,
        actor_id="0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d11",
        action="product.updated",
        entity_type="Product",
        entity_id="0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d12",
        person="9f" * 32,
        metadata=msgspec.Raw(b'{"before":{"price":10.0},"after":{"price":12.5}}'),
    )
    text = encode(body).decode()
    row = SealedRow(
        id=id,
        position=41,
        leaf=leaf(text.encode()),
        body=text,
        salt=b"\x5a" * 16,
        label="ada@acme.example",
        ip="192.0.2.4",
    )
    if form is ExportFormat.CSV:
        return (_row(_COLUMNS) + csv(row)).decode()
    if form is ExportFormat.OCSF:
        return ocsf(row).decode()
    return (begin(company, datetime(2026, 2, 1, tzinfo=UTC), whole=True, filters={}) + line(row)).decode()
