"""JSON Schema of what goes over the wire, and examples that fit it."""

from collections.abc import Iterable
from inspect import cleandoc
from typing import Any

import msgspec

from distribu.application.views import OrderView


def components(kinds: Iterable[type[msgspec.Struct]], ref: str) -> dict[str, Any]:
    """The schemas of these and of what they refer to, by name; ``ref`` is what a reference looks like."""
    asked = sorted(kinds, key=lambda kind: kind.__name__)
    _, found = msgspec.json.schema_components(asked, ref_template=ref)
    _as_sent(found)
    if OrderView.__name__ in found:
        # Inside, a number not given yet is raw text; on the wire it is always a number.
        number = {"type": "integer", "minimum": 1, "examples": [1001]}
        found[OrderView.__name__]["properties"]["number"] = number
    return found


def _as_sent(schema: Any) -> None:
    """msgspec says that a decimal is a string; on the wire amounts are numbers.

    It takes docstrings as they are, which before Python 3.13 are indented.
    """
    match schema:
        case dict():
            if schema.get("format") == "decimal":
                schema["type"] = "number"
            if isinstance(said := schema.get("description"), str):
                schema["description"] = cleandoc(said)
            for part in schema.values():
                _as_sent(part)
        case list():
            for part in schema:
                _as_sent(part)


def example(schema: dict[str, Any], components: dict[str, Any], *, needed: bool = False) -> Any:
    """A value that fits a schema, from its own examples; with ``needed`` only what cannot be left out."""
    match schema:
        case {"examples": [first, *_]}:
            return first
        case {"$ref": ref}:
            return example(components[ref.rpartition("/")[2]], components, needed=needed)
        case {"allOf": [only]}:
            return example(only, components, needed=needed)
        case {"enum": [first, *_]} | {"anyOf": [{"enum": [first, *_]}, *_]}:
            return first
        case {"anyOf": [first, *_]}:
            return example(first, components, needed=needed)
        case {"type": "object"}:
            return {
                name: example(part, components, needed=needed)
                for name, part in schema.get("properties", {}).items()
                if not needed or name in schema.get("required", []) or "examples" in part
            }
        case {"type": "array"}:
            return [example(schema.get("items", {}), components, needed=needed)]
        case {"type": "integer" | "number"}:
            return schema.get("default", schema.get("minimum", 1))
        case {"type": "boolean"}:
            return schema.get("default", True)
        case {"type": "string"}:
            return schema.get("default", "")
        case _:
            return None
