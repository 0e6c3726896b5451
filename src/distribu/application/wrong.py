"""What is wrong with a value that msgspec does not take, in words for whoever sent it."""

from enum import Enum
from re import compile as compiled
from typing import Any, Final

import msgspec
from msgspec import inspect

from distribu.application.fields import UUID_PATTERN, type_info

_WHERE: Final = compiled(r"^(?P<what>.*?)(?: - at `\$?\.?(?P<where>.*)`)?$")
_UNKNOWN: Final = compiled(r"contains unknown field `(?P<name>.*)`$")
_MISSING: Final = compiled(r"missing required field `(?P<name>.*)`$")
_STEP: Final = compiled(r"[^.\[\]]+|\[(?:\d+|\.\.\.)\]")


def told(error: msgspec.ValidationError, kind: Any) -> tuple[str, str]:
    """Where the value of a type is wrong (``items[0].quantity``; empty for the whole), and how it must be."""
    found = _WHERE.match(str(error))
    what, where = (found["what"], found["where"] or "") if found else (str(error), "")
    shown = where.replace("[...]", "")  # some value of an object: msgspec does not say which
    for pattern, wrong in ((_UNKNOWN, "is no field of this"), (_MISSING, "is required")):
        if named := pattern.search(what):
            return f"{shown}.{named['name']}".strip("."), wrong
    info: inspect.Type | None = type_info(kind)
    for step in _STEP.findall(where):
        info = _inside(info, step)
    return shown, (info and _must(info, "")) or what[:1].lower() + what[1:]


def _inside(info: inspect.Type | None, step: str) -> inspect.Type | None:
    match info:
        case inspect.Metadata(type=inner):
            return _inside(inner, step)
        case inspect.UnionType(types=types):
            return next((found for one in types if (found := _inside(one, step))), None)
        case inspect.StructType(fields=fields):
            return next((one.type for one in fields if one.encode_name == step), None)
        case inspect.VarTupleType(item_type=item) if step.startswith("["):
            return item
        case _:
            return None


def _must(info: inspect.Type, such: str) -> str:
    """What a value of a type must be; ``such`` is an example of it, if there is one."""
    match info:
        case inspect.Metadata(type=inner, extra_json_schema=more):
            first = next(iter((more or {}).get("examples", ())), "")
            return _must(inner, f" such as {first}" if first else "")
        case inspect.UnionType(types=types):
            return next((said for one in types if (said := _must(one, such))), "")
        case inspect.EnumType(cls=cls):
            return f"must be one of {_values(cls)}"
        case inspect.StrType(pattern=pattern) if pattern == UUID_PATTERN:
            return "is not an id"
        case inspect.StrType(pattern=pattern) if pattern is not None:
            return f"must be text{such}"
        case inspect.StrType(min_length=least, max_length=most):
            return "must be text" + _between(least, most, " of", " characters")
        case inspect.IntType(ge=least, le=most):
            return "must be a whole number" + _between(least, most, ",", "")
        case inspect.VarTupleType(min_length=least, max_length=most):
            return "must be a list" + _between(least, most, " of", "")
        case inspect.BoolType():
            return "must be true or false"
        case inspect.DateTimeType():
            return "must be a time such as 2026-01-31T09:30:00Z"
        case inspect.DecimalType():
            return "must be a number"
        case inspect.StructType() | inspect.DictType():
            return "must be an object"
        case _:
            return ""


def _values(cls: type[Enum]) -> str:
    return ", ".join(str(one.value) for one in cls)


def _between(least: int | None, most: int | None, before: str, after: str) -> str:
    if most is None:
        return "" if not least else f"{before} at least {least}{after}"
    return f"{before} up to {most}{after}" if least is None else f"{before} {least} to {most}{after}"
