"""What receivers of webhooks get: a published JSON Schema and an example of each event.

The schemas are made of the views that the events are sent with. What has been published is in
``docs/events``: a reader's program is written against it, so that it may only grow (see `breaking`).
"""

from collections.abc import Iterator, Mapping
from functools import cache
from operator import gt, lt
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from distribu.application.delivering import Envelope
from distribu.application.exports import RecordedView
from distribu.application.plans import InvoiceView
from distribu.application.sealing import HeadView
from distribu.application.views import CustomerView, OrderView, ProductView, View
from distribu.domain.errors import Invalid
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints.http import schemas

PATH: Final = "/api/v1/events/schemas"
"""Where they are served."""

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REF: Final = "#/$defs/{name}"


class Told(NamedTuple):
    """What an event is sent for, what it carries, and what its example is to have in some fields."""

    when: str
    carries: type[View]
    example: Mapping[str, Any] = {}


_SHIPPED: Final = {"carrier": "DHL", "trackingNumber": "JD014600003GB"}

EVENTS: Final[Mapping[WireEvent, Told]] = {
    WireEvent.ORDER_CREATED: Told("An order was placed, by whichever way.", OrderView),
    WireEvent.ORDER_STATUS_CHANGED: Told("An order moved.", OrderView, {"status": "CONFIRMED"}),
    WireEvent.ORDER_SHIPPED: Told("An order was shipped.", OrderView, {"status": "SHIPPED", **_SHIPPED}),
    WireEvent.ORDER_DELIVERED: Told(
        "An order was delivered.", OrderView, {"status": "DELIVERED", **_SHIPPED}
    ),
    WireEvent.ORDER_CANCELLED: Told(
        "An order was cancelled; its stock is back.", OrderView, {"status": "CANCELLED"}
    ),
    WireEvent.CUSTOMER_CREATED: Told("A customer was made, or registered.", CustomerView),
    WireEvent.CUSTOMER_UPDATED: Told("A customer was edited.", CustomerView),
    WireEvent.PRODUCT_CREATED: Told("A product was made.", ProductView),
    WireEvent.PRODUCT_UPDATED: Told("A product was edited.", ProductView),
    WireEvent.PRODUCT_DELETED: Told("A product was archived: no list has it any more.", ProductView),
    WireEvent.PRODUCT_LOW_STOCK: Told(
        "A product's stock fell to its threshold, or below.", ProductView, {"stock": 5}
    ),
    WireEvent.INVOICE_PAID: Told("The company's own invoice, for its plan, was paid.", InvoiceView),
    WireEvent.AUDIT_SEALED: Told("The audit log got a new signed head: keep it elsewhere.", HeadView),
    WireEvent.AUDIT_RECORDED: Told("Something was recorded in the audit log, and sealed.", RecordedView),
}
"""Every event there is."""


def envelope(event: WireEvent, ref: str) -> dict[str, Any]:
    """The schema of a delivery of this event; ``ref`` is what a reference to a view looks like."""
    whole: dict[str, Any] = schemas.components([Envelope], ref)[Envelope.__name__]
    whole["properties"]["event"] = {"enum": [event.value]}
    whole["properties"]["data"] = {"$ref": ref.format(name=EVENTS[event].carries.__name__)}
    return {"type": "object", "required": whole["required"], "properties": whole["properties"]}


@cache
def schema(event: WireEvent) -> dict[str, Any]:
    """The published schema of an event (JSON Schema 2020-12), with its example."""
    told = EVENTS[event]
    parts = schemas.components([told.carries], _REF)
    whole = envelope(event, _REF)
    shown = schemas.example(whole, parts)
    shown["data"] |= told.example
    return {
        "$schema": _DIALECT,
        "$id": f"urn:distribu:event:{event.value}",
        "title": event.value,
        "description": f"{told.when} Fields can be added: a reader leaves alone what it does not know.",
        **whole,
        "$defs": parts,
        "examples": [shown],
    }


def example(event: WireEvent) -> dict[str, Any]:
    """A delivery of this event, as its schema shows it."""
    shown: dict[str, Any] = schema(event)["examples"][0]
    return shown


def index(root: str = "") -> dict[str, Any]:
    """Every event with where its schema is; ``root`` is where the application is mounted."""
    return {
        "data": [
            {
                "event": event.value,
                "when": told.when,
                "scope": event.carries.value,
                "schema": f"{root}{PATH}/{event.value}",
            }
            for event, told in EVENTS.items()
        ]
    }


def publish(directory: Path) -> list[str]:
    """Write every schema into a directory, one file each. Returns the names of the files that changed.

    Raises `Invalid`, and writes nothing, when one that is there already would break its readers, or when
    one is there of an event that is none any more. To break them all the same, take the file away first.
    """
    wanted = {f"{event.value}.json": schema(event) for event in EVENTS}
    there = {path.name: path.read_bytes() for path in sorted(directory.glob("*.json"))}
    broken = dict.fromkeys(there.keys() - wanted.keys(), "the event is gone")
    for name in there.keys() & wanted.keys():
        if found := breaking(msgspec.json.decode(there[name]), wanted[name]):
            broken[name] = "; ".join(found)
    if broken:
        raise Invalid("invalid_request", "This would break who reads the events.", fields=broken)
    texts = {
        name: msgspec.json.format(msgspec.json.encode(one), indent=2) + b"\n" for name, one in wanted.items()
    }
    changed = [name for name, text in texts.items() if there.get(name) != text]
    directory.mkdir(parents=True, exist_ok=True)
    for name in changed:
        (directory / name).write_bytes(texts[name])
    return changed


def breaking(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What of a published schema a new one takes away from its readers, each in a few words; none is best.

    A reader is a program written against ``before`` that leaves alone what it does not know. It is broken
    when something is sent that ``before`` does not allow, or when what it waits for can never come:

    - a field is gone, or can be missing where it could not;
    - a type is another one, or another can stand beside it (null too). Only null may go;
    - an enum has lost a value or got one;
    - a format, pattern or constant is another one or gone, or a limit is wider.

    A field more, required or not, breaks nobody, and neither does a description, an example or a limit that
    is narrower.
    """
    return [*_broken(_Part(before, before), _Part(after, after), "", frozenset())]


class _Part(NamedTuple):
    """Some part of a schema, and the whole that its references point into."""

    schema: dict[str, Any]
    whole: dict[str, Any]

    def of(self, schema: Any) -> "_Part":
        return _Part(schema if isinstance(schema, dict) else {}, self.whole)

    def kinds(self) -> dict[str, "_Part"]:
        """What it allows, by type."""
        it = self.schema
        match it:
            case {"$ref": str(ref)}:
                return self.of(self.whole.get("$defs", {}).get(ref.rpartition("/")[2])).kinds()
            case {"anyOf": list(parts)} | {"allOf": [_] as parts}:
                return {name: part for one in parts for name, part in self.of(one).kinds().items()}
            case {"enum": _} | {"const": _}:
                return {"enum": self}
            case {"type": list(types)}:
                return {name: self.of({**it, "type": name}) for name in types}
            case _:
                return {str(it.get("type", "any")): self}


_SAME: Final = ("format", "pattern", "multipleOf", "additionalProperties")
_LEAST: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_MOST: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def _broken(old: _Part, new: _Part, path: str, inside: frozenset[str]) -> Iterator[str]:
    where = path or "the whole"
    before, after = old.kinds(), new.kinds()
    for kind in sorted(before.keys() - after.keys() - {"null"}):
        yield f"{where} is no {kind} any more"
    for kind in sorted(after.keys() - before.keys()):
        yield f"{where} can be {kind}"
    for kind in sorted(before.keys() & after.keys()):
        was, now = before[kind].schema, after[kind].schema
        if kind == "enum":
            yield from _other_values(was, now, where)
        yield from _wider(was, now, where)
        title = str(was.get("title", ""))
        if "properties" in was and title not in inside:  # one that holds itself is looked at once
            needed = now.get("required", [])
            for name, part in was["properties"].items():
                at = f"{path}.{name}" if path else name
                if name not in now.get("properties", {}):
                    yield f"{at} is gone"
                    continue
                if name in was.get("required", []) and name not in needed:
                    yield f"{at} can be missing"
                deeper = inside | {title} if title else inside
                yield from _broken(old.of(part), new.of(now["properties"][name]), at, deeper)
        if "items" in was:
            yield from _broken(old.of(was["items"]), new.of(now.get("items")), f"{path}[]", inside)


def _other_values(was: dict[str, Any], now: dict[str, Any], where: str) -> Iterator[str]:
    before, after = ([*one.get("enum", [one.get("const")])] for one in (was, now))
    yield from (f"{where} is never {value} any more" for value in before if value not in after)
    yield from (f"{where} can be {value}" for value in after if value not in before)


def _wider(was: dict[str, Any], now: dict[str, Any], where: str) -> Iterator[str]:
    for word in _SAME:
        if word in was and was[word] != now.get(word):
            yield f"{where} has another {word}"
    for words, wider in ((_LEAST, lt), (_MOST, gt)):
        for word in words:
            if word in was and (word not in now or wider(now[word], was[word])):
                yield f"{where} has a wider {word}"
