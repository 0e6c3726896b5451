#!/usr/bin/env python3
"""Checks an export of Distribu's audit log, with the public key alone: no Distribu, no database, no network.

    python verify_export.py --key BASE64 [--head FILE] [--json] EXPORT.jsonl

This one file is all that it takes, with Python 3.11 and the package `cryptography`. It shares no line
with the code that seals. What it finds it names, one line each, and ends with 1; with 0 it has found
nothing; with 2 it did not understand what it was given, or lacks what it takes.

An export is JSON Lines, in the order of the log. Its first line says what it is; a line of type
``record`` holds one record, byte for byte as it was sealed; a line of type ``head`` holds a signed head
and stands behind the last record it signs; the last line counts the others. In an export of a part of
the log the one head comes first, and every record carries its inclusion proof (RFC 6962, 2.1.1).

Give it a head that you have kept (a webhook ``audit.sealed``, the text of a weekly mail, the last line but
one of an earlier export): only that can show that the end of the log was cut off, or all of it made anew.
It is checked against all of a log. Of a part it shows that every record in it was sealed as it is, and not
that none is missing from it; a head that was kept is refused there.
"""

import argparse
import base64
import hashlib
import itertools
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

if sys.version_info < (3, 11):  # noqa: UP036 - whoever checks an export brings a Python of their own
    sys.stderr.write("verify_export: this takes Python 3.11 or newer\n")
    sys.exit(2)

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError:
    if __name__ != "__main__":
        raise
    sys.stderr.write(
        "verify_export: this takes the package cryptography, which is not there:"
        f" {sys.executable} -m pip install cryptography\n"
    )
    sys.exit(2)

EXPORT: Final = "distribu.audit.export"
HEAD: Final = "distribu.audit.head"
SIGNED: Final = ("type", "v", "companyId", "number", "size", "root", "at", "previous", "key")
"""The fields of a head that are signed, in this order, as JSON without spaces."""

_HEAD_IN: Final = re.compile(r'\{"type":"distribu\.audit\.head"[^{}]*\}')

FINDINGS_MAX: Final = 1_000
"""What is found beyond is counted, not named."""

SEGMENT_MAX: Final = 10_000
"""Records since the last head that are kept, to name what is wrong with them."""

KINDS: Final = {
    "edited": "a record is not as it was sealed",
    "removed": "a sealed record is not there any more",
    "inserted": "a record is there that was never sealed",
    "reordered": "a record stands where another was sealed",
    "foreign": "a record of another company",
    "not_as_signed": "these records are not those that a head was signed over",
    "head_changed": "a head is not as it was signed",
    "head_missing": "a head is not there any more",
    "unknown_key": "a head is signed with a key that is none of ours",
    "forked": "the log is not the one that was signed in the head that was kept",
    "tail_cut": "the end of the log is not there any more",
    "not_the_kept_head": "the head that was kept is none of this log's",
    "incomplete": "the export does not end as one does",
    "malformed": "a line is none of an export",
}
"""What can be found."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: its kind, and what exactly is where."""

    kind: str
    what: str


def key_id(public: bytes) -> str:
    """The name of a public key: the beginning of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def leaf_hash(text: bytes) -> bytes:
    """RFC 6962, 2.1."""
    return hashlib.sha256(b"\x00" + text).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962, 2.1."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def signed_text(head: Mapping[str, Any]) -> bytes:
    """What of a head is signed. Raises `KeyError` for a field that is missing."""
    return json.dumps({name: head[name] for name in SIGNED}, separators=(",", ":")).encode()


def person_hash(salt: bytes, label: str, ip: str | None) -> str:
    """What a record holds of a person: each part with its length in front."""
    parts = (salt, label.encode(), (ip or "").encode())
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).hexdigest()


class Tree:
    """The roots of the full subtrees of as many leaves as there were so far: all that a root takes."""

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[tuple[int, bytes]] = []

    def add(self, hashed: bytes) -> None:
        """One more leaf."""
        level = 0
        while self._peaks and self._peaks[-1][0] == level:
            hashed, level = node_hash(self._peaks.pop()[1], hashed), level + 1
        self._peaks.append((level, hashed))
        self.size += 1

    def root(self) -> str:
        """The hash of the whole tree, in hex."""
        if not self._peaks:
            return hashlib.sha256(b"").hexdigest()
        peaks = [peak for _, peak in self._peaks]
        root = peaks.pop()
        while peaks:
            root = node_hash(peaks.pop(), root)
        return root.hex()


def is_included(hashed: bytes, index: int, size: int, path: Sequence[bytes], root: str) -> bool:
    """RFC 9162, 2.1.3.2."""
    if not 0 <= index < size:
        return False
    at, last = index, size - 1
    for step in path:
        if last == 0:
            return False
        if at % 2 or at == last:
            hashed = node_hash(step, hashed)
            while at % 2 == 0 and at:
                at, last = at // 2, last // 2
        else:
            hashed = node_hash(hashed, step)
        at, last = at // 2, last // 2
    return last == 0 and hashed.hex() == root


@dataclass
class Segment:
    """The records since the last head: their places, ids, what was sealed and what is there."""

    first: int = 0
    rows: list[tuple[int, str, bytes, bytes | None]] = field(default_factory=list)


def _no_number(text: str) -> None:
    """JSON has no NaN and no Infinity, with which every comparison would hold, or none."""
    raise ValueError(text)


def _count(value: object) -> int:
    """A whole number from 0 on, as it stands there. Raises `ValueError` for what only compares like one."""
    if type(value) is not int or value < 0:
        raise ValueError(value)
    return value


class Inspection:
    """Reads an export line by line, and gathers what is wrong with it. Its memory does not grow.

    ``keys`` are the public keys by their names, ``kept`` is a head from elsewhere.
    """

    def __init__(
        self,
        keys: Mapping[str, bytes],
        *,
        kept: Mapping[str, Any] | None = None,
        company_id: str | None = None,
    ) -> None:
        self.findings: list[Finding] = []
        self.more = 0
        self.records = self.heads = self.nameless = 0
        self.last: Mapping[str, Any] | None = None
        self.kept = kept
        self.kept_seen = False
        self.company = company_id
        self.whole: bool | None = None
        self.filters: Any = None
        self._keys = {name: Ed25519PublicKey.from_public_bytes(key) for name, key in keys.items()}
        self._next = self._lines = 0
        self._tree = Tree()
        self._broken = self._ended = False
        self._segment = Segment()
        self._unknown: set[str] = set()
        self._number, self._previous = 0, "0" * 64
        self.unfit = None if kept is None else self._misfit(kept)
        """Why the head that was kept can say nothing about this log."""
        if kept is not None:
            self._look_at_kept(kept)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def _misfit(self, kept: Mapping[str, Any]) -> str | None:
        """Why a head can say nothing about this log, as far as that is known by now."""
        if self.company is not None and kept["companyId"] != self.company:
            return f"this head is of another company, {kept['companyId']}"
        if self.whole is False:
            return "this is a part of the log, and a head is checked against all of it: export it unfiltered"
        return None

    def _found(self, kind: str, what: str) -> None:
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(kind, what))
        else:
            self.more += 1

    def _genuine(self, head: Mapping[str, Any]) -> str | None:
        """None, or the kind of what is wrong with a head's signature."""
        try:
            text = signed_text(head)
            key = self._keys.get(head["key"])
            if head["type"] != HEAD or head["v"] != 1:
                return "head_changed"
            if key is None:
                return "unknown_key"
            key.verify(base64.b64decode(head["signature"], validate=True), text)
        except (KeyError, ValueError, TypeError, InvalidSignature):
            return "head_changed"
        return None

    def _look_at_kept(self, kept: Mapping[str, Any]) -> None:
        wrong = self._genuine(kept)
        if wrong is not None:
            self.kept = None
            known = "; `distribu audit keys` lists all" if wrong == "unknown_key" else ""
            self._found("not_the_kept_head", f"the head that was kept: {KINDS[wrong]}{known}")

    # line by line

    def read(self, line: bytes) -> None:
        """One line of the export."""
        line = line.rstrip(b"\r\n")
        self._lines += 1
        try:
            value = json.loads(line, parse_constant=_no_number)
            kind = value["type"]
            if self._ended:
                self._found("malformed", "there is more after the end")
            elif self.whole is None:
                self._begin(value)
            elif kind == "record":
                self._record(value, line)
            elif kind == HEAD:
                self._head(value)
            elif kind == "end":
                self._end(value)
            else:
                raise ValueError(kind)
        except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
            self._broken = True
            self._found("malformed", f"line {self._lines} is none of an export of this version")

    def _begin(self, value: Mapping[str, Any]) -> None:
        if value["type"] != EXPORT or _count(value["v"]) != 1:
            raise ValueError(value["type"])
        company = value["companyId"]
        if self.company is None:
            self.company = company
        if company != self.company:
            self._found("foreign", f"this is the log of company {company}")
        self.whole, self.filters = bool(value["whole"]), value.get("filters")
        if self.kept is not None and (unfit := self._misfit(self.kept)) is not None:
            self.unfit = unfit
            self._found("not_the_kept_head", unfit)
            self.kept = None

    def _record(self, value: Mapping[str, Any], line: bytes) -> None:
        position, id = value["position"], value["id"]
        # Its bytes, and not what JSON makes of them: no string has an unescaped quote, so this is the field.
        text = line[line.index(b',"record":') + 10 : -1] if value["record"] is not None else None
        if position is None:
            if text is None:
                self._found("removed", f"record {id} was removed before it was sealed")
            else:
                self._found("inserted", f"record {id} was never sealed")
            return
        _count(position)
        self.records += 1
        there = None if text is None else leaf_hash(text)
        sealed = bytes.fromhex(value["leaf"])
        if text is not None:
            self._look_into(value, f"record {id} at position {position}")
        if not self.whole:
            if position < self._next:
                self._found("inserted", f"record {id}: position {position} is taken already")
            self._next = position + 1
            self._proven(value, there)
            return
        if position > self._next:
            self._found(
                "removed", f"{_places(self._next, position - 1)}: neither records nor seals are there"
            )
            self._broken = True
        elif position < self._next:
            self._found("inserted", f"record {id}: position {position} is taken already")
            self._broken = True
        self._next = position + 1
        if len(self._segment.rows) < SEGMENT_MAX:
            self._segment.rows.append((position, id, sealed, there))
        elif there != sealed:
            self._found("edited" if there else "removed", f"record {id} at position {position}")
        self._tree.add(sealed)
        if self.kept is not None and self._tree.size == self.kept["size"] and not self._broken:
            self._compare_kept()

    def _look_into(self, value: Mapping[str, Any], name: str) -> None:
        """What a record says of itself, and what stands beside it."""
        record, person = value["record"], value["person"]
        if not isinstance(record, dict):
            self._found("edited", f"{name} is none any more")
            return
        if record["companyId"] != self.company:
            self._found("foreign", f"{name} is of company {record['companyId']}")
        if record["id"] != value["id"]:
            self._found("edited", f"{name} calls itself {record['id']}")
        if altered := value.get("altered"):
            self._found("edited", f"{name}: its row does not show the {', '.join(altered)} that was recorded")
        if person is None:
            self.nameless += 1
        elif person_hash(bytes.fromhex(person["salt"]), person["label"], person["ip"]) != record["person"]:
            self._found("edited", f"{name}: who acted, or from where, is not as it was recorded")

    def _proven(self, value: Mapping[str, Any], there: bytes | None) -> None:
        name = f"record {value['id']} at position {value['position']}"
        if self.last is None:
            raise ValueError("no head")
        if there is None:
            self._found("removed", name)
            return
        path = [bytes.fromhex(step) for step in value["proof"]]
        if not is_included(there, value["position"], self.last["size"], path, self.last["root"]):
            self._found("edited", f"{name} is not what head {self.last['number']} was signed over")

    # heads

    def _head(self, head: Mapping[str, Any]) -> None:
        self.heads += 1
        number, size = _count(head["number"]), _count(head["size"])
        wrong = self._genuine(head)
        if wrong is not None:
            self._wrong(head, number, wrong)
        elif head["companyId"] != self.company:
            self._found("foreign", f"head {number} is company {head['companyId']}'s")
        if self.whole:
            self._chained(head, number, sound=wrong is None)
            self._name_segment()
            if size != self._next:
                self._broken = True
                kind = "removed" if size > self._next else "inserted"
                self._found(kind, f"head {number} is signed over {size} records, and there are {self._next}")
            elif wrong is None and not self._broken and self._tree.root() != head["root"]:
                self._broken = True
                self._found("not_as_signed", f"{self._range()}: not what head {number} was signed over")
            self._segment = Segment(self._next if wrong is None else self._segment.first)
        if self.kept is not None and number == self.kept["number"]:
            self.kept_seen = True
            if wrong is None and signed_text(head) != signed_text(self.kept):
                self._found("forked", f"head {number} is another than the one that was kept")
        self.last = head

    def _wrong(self, head: Mapping[str, Any], number: int, wrong: str) -> None:
        if wrong != "unknown_key":
            self._found(wrong, f"head {number}")
        elif (key := head["key"]) not in self._unknown:
            if len(self._unknown) < FINDINGS_MAX:
                self._unknown.add(key)
            self._found(wrong, f"unknown key {key}, from head {number} on; `distribu audit keys` lists all")

    def _chained(self, head: Mapping[str, Any], number: int, *, sound: bool) -> None:
        if number != self._number + 1:
            between = f"between head {self._number} and head {number}"
            self._found("head_missing", between if number > self._number else f"head {number} comes twice")
        elif sound and head["previous"] != self._previous:
            self._found("head_changed", f"head {number} follows another head {self._number} than is here")
        self._number = number
        self._previous = hashlib.sha256(signed_text(head)).hexdigest()

    def _compare_kept(self) -> None:
        if self.kept is not None and self._tree.root() != self.kept["root"]:
            self._found(
                "forked",
                f"the first {self.kept['size']} records are not those of head {self.kept['number']},"
                " which was kept",
            )

    def _range(self) -> str:
        rows = self._segment.rows
        last = self._next - 1
        ids = ", ".join(id for _, id, _, _ in rows[:5]) + (" ..." if len(rows) > 5 else "")
        return f"{_places(self._segment.first, last)} ({ids})"

    def _name_segment(self) -> None:
        """The records since the last head that are not what was sealed in their place."""
        rows = self._segment.rows
        wrong = [row for row in rows if row[2] != row[3]]
        sealed = {row[2] for row in wrong}
        for position, id, _, there in wrong:
            if there is None:
                self._found("removed", f"record {id} at position {position}")
            elif there in sealed:
                self._found("reordered", f"record {id} at position {position}")
            else:
                self._found("edited", f"record {id} at position {position}")

    # the end

    def _end(self, value: Mapping[str, Any]) -> None:
        self._ended = True
        self._name_segment()
        if (value["records"], value["heads"]) != (self.records, self.heads):
            self._found("incomplete", f"there were {value['records']} records and {value['heads']} heads")
        signed = 0 if self.last is None else int(self.last["size"])
        if self.whole and self._next > signed:
            self._found("head_missing", f"no head is signed over positions {signed} to {self._next - 1}")
        if self.kept is None:
            return
        number, size = self.kept["number"], self.kept["size"]
        newest = 0 if self.last is None else int(self.last["number"])
        if size > signed or newest < number:
            self._found(
                "tail_cut",
                f"head {number}, which was kept, has {size} records; here head {newest} is the last and has"
                f" {signed}",
            )

    def finish(self) -> None:
        """There are no more lines."""
        if not self._ended:
            self._found("incomplete", "the last line is missing: the export was cut off")


def read_head(text: str) -> Mapping[str, Any]:
    """A head as it was kept: a line of an export, a webhook's body, or the text of a mail with it inside.

    Mail programs break lines where they like: a head has no space of its own. Raises `ValueError`.
    """
    try:
        found = _HEAD_IN.findall("".join(text.split()))
        value = json.loads(found[-1] if found else text)
        head: Mapping[str, Any] = value.get("data", value)
        signed_text(head)
        if not all(type(head[name]) is int for name in ("v", "number", "size")):
            raise ValueError("no head")
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ValueError("this is no head of an audit log") from None
    return head


def read_keys(texts: Iterable[str]) -> dict[str, bytes]:
    """Public keys by their names, from base64. Raises `ValueError`."""
    keys = {}
    for text in texts:
        try:
            public = base64.b64decode(text, validate=True)
            Ed25519PublicKey.from_public_bytes(public)
        except ValueError:
            raise ValueError(
                f"{text!r} is no public key: that is 32 bytes in base64, as `distribu audit keys` prints it"
            ) from None
        keys[key_id(public)] = public
    return keys


def _say(text: str) -> None:
    # What an export calls its records may be made to move a terminal's cursor, or be no text at all.
    shown = re.sub(r"[^ -~]", lambda odd: ascii(odd[0])[1:-1], text)
    sys.stdout.write(shown + "\n")


def _places(first: int, last: int) -> str:
    return f"position {first}" if first == last else f"positions {first} to {last}"


def main(words: Sequence[str] | None = None) -> int:
    """Check a file, and tell."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--key", action="append", required=True, metavar="BASE64", help="a public key")
    asked.add_argument("--head", metavar="FILE", help="a head that was kept elsewhere")
    asked.add_argument("--json", action="store_true", help="tell what was found as one JSON object")
    asked.add_argument("export", metavar="EXPORT", help="the export, as JSON Lines; - for stdin")
    given = asked.parse_args(words)
    try:
        kept = _kept(given.head) if given.head else None
        inspection = _inspected(given.export, Inspection(read_keys(given.key), kept=kept))
        _tell_in_json(inspection) if given.json else _tell(inspection, kept=kept is not None)
        sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more, and Python would say so at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except OSError as wrong:
        sys.stderr.write(f"verify_export: {wrong.filename or '-'}: {wrong.strerror}\n")
        return 2
    except ValueError as wrong:
        sys.stderr.write(f"verify_export: {wrong}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("verify_export: stopped before the end\n")
        return 2
    return 0 if inspection.sound else 1


def _kept(file: str) -> Mapping[str, Any]:
    try:
        return read_head(Path(file).read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{file}: this is no head of an audit log") from None


def _inspected(file: str, inspection: Inspection) -> Inspection:
    """An export that was read to its end. Raises `ValueError` for what is none, `OSError`."""
    with open(0, "rb", closefd=False) if file == "-" else Path(file).open("rb") as lines:
        first = lines.readline()
        if EXPORT.encode() not in first:
            raise ValueError(f"{file} is no export as JSON Lines (JSONL): {_instead(first)}")
        for line in itertools.chain([first], lines):
            inspection.read(line)
            if inspection.unfit is not None:
                raise ValueError(inspection.unfit)
    inspection.finish()
    return inspection


def _instead(first: bytes) -> str:
    if not first:
        return "it is empty"
    if first.startswith(b"\x1f\x8b"):
        return "it is compressed, unpack it first (gunzip)"
    return "CSV and OCSF prove nothing"


def _tell_in_json(inspection: Inspection) -> None:
    told = {
        "sound": inspection.sound,
        "companyId": inspection.company,
        "whole": inspection.whole,
        "filters": inspection.filters,
        "records": inspection.records,
        "heads": inspection.heads,
        "nameless": inspection.nameless,
        "head": inspection.last,
        "findings": [{"kind": found.kind, "what": found.what} for found in inspection.findings],
        "notShown": inspection.more,
    }
    _say(json.dumps(told))


def _tell(inspection: Inspection, *, kept: bool) -> None:
    for found in inspection.findings:
        _say(f"{found.kind}: {found.what}")
    if inspection.more:
        _say(f"and {inspection.more} more")
    _say(
        f"{inspection.records} records, {inspection.heads} heads, {inspection.nameless} records that name"
        f" nobody any more: {'as they were sealed' if inspection.sound else 'NOT as they were sealed'}"
    )
    if (last := inspection.last) is not None:
        _say(
            f"Company {inspection.company}; the newest head is number {last['number']}, of {last.get('at')}."
        )
    if inspection.whole is False:
        _say(
            f"Part of the log (filters {json.dumps(inspection.filters)}): that records were left out does not"
            " show here, nor that all of the log was made anew."
        )
    elif not kept:
        _say("No head from elsewhere was given: that the end was cut off, or all made anew, would not show.")


if __name__ == "__main__":
    sys.exit(main())
