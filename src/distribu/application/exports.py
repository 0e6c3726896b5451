"""The forms in which the audit log is taken out: JSON Lines to be checked, CSV, and OCSF for a SIEM."""

import csv as commas
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from io import StringIO
from typing import Any, Final

import msgspec

from distribu.application.shapes import View, encode, time
from distribu.application.views import RecordBody
from distribu.domain.sealing import SealedRow

FORMAT: Final = 1
"""The version of what an export's lines look like."""

_decode: Final = msgspec.json.Decoder(RecordBody).decode


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


async def csv(rows: AsyncIterator[SealedRow]) -> AsyncIterator[bytes]:
    """One row for each record (RFC 4180), with a header. What begins like a formula gets a quote in front."""
    yield _row(_COLUMNS)
    async for row in rows:
        body = _body(row)
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
        yield _row(["'" + cell if cell.startswith(_FORMULA) else cell for cell in cells])


def _row(cells: Any) -> bytes:
    text = StringIO()
    commas.writer(text).writerow(cells)
    return text.getvalue().encode()


def _body(row: SealedRow) -> RecordBody:
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


# Open Cybersecurity Schema Framework 1.3: Identity & Access Management is category 3.
_AUTHENTICATION: Final = 3002
_ENTITY_MANAGEMENT: Final = 3004
_OTHER: Final = 99
_AUTHENTICATIONS: Final = {"auth.login": 1, "auth.sign_in_failed": 1, "auth.logout": 2}
_ACTIVITIES: Final = {
    **dict.fromkeys(("created", "placed", "added", "invited", "registered"), 1),
    **dict.fromkeys(("exported",), 2),
    **dict.fromkeys(("updated", "status_changed", "adjusted", "role_changed", "secret_rotated"), 3),
    **dict.fromkeys(("deleted", "removed", "revoked", "person_erased"), 4),
}
_ACTOR_TYPES: Final = {"USER": 1, "CUSTOMER": 1, "SYSTEM": 3}


async def ocsf(rows: AsyncIterator[SealedRow]) -> AsyncIterator[bytes]:
    """One OCSF event a line: Authentication for sign-ins, Entity Management for everything else."""
    async for row in rows:
        body = _body(row)
        if body.action.startswith("auth."):
            kind, activity = _AUTHENTICATION, _AUTHENTICATIONS.get(body.action, _OTHER)
        else:
            kind = _ENTITY_MANAGEMENT
            activity = _ACTIVITIES.get(body.action.rpartition(".")[2], _OTHER)
        user = {
            "uid": body.actor_id,
            "name": row.label,
            "type": body.actor_type,
            "type_id": _ACTOR_TYPES.get(body.actor_type, _OTHER),
        }
        failed = body.action.endswith("failed")
        event: dict[str, Any] = {
            "activity_id": activity,
            "activity_name": body.action,
            "category_uid": 3,
            "category_name": "Identity & Access Management",
            "class_uid": kind,
            "type_uid": kind * 100 + activity,
            "severity_id": 2 if failed else 1,
            "status_id": 2 if failed else 1,
            "time": _milliseconds(body.at),
            "metadata": {
                "version": "1.3.0",
                "product": {"name": "Distribu", "vendor_name": "Distribu"},
                "uid": row.id,
                "log_name": "audit",
                "sequence": row.position,
                "tenant_uid": body.company_id,
            },
            "actor": {"user": user},
            "user": user,
            "entity": {"type": body.entity_type, "uid": body.entity_id},
            "unmapped": {"metadata": body.metadata, "leaf": None if row.leaf is None else row.leaf.hex()},
        }
        if row.ip is not None:
            event["src_endpoint"] = {"ip": row.ip}
        yield encode(event) + b"\n"


def _milliseconds(at: str) -> int:
    return round(datetime.fromisoformat(at).timestamp() * 1000) if at else 0
