"""Requests in words: ``PlaceOrder customerId=... items='[...]'`` as the value to execute.

There is no list of requests to keep: they are found by walking the application. Those of people, who
sign in or have a session, are none of an operator's; secrets are in no words, which others can see.
"""

import pkgutil
import shlex
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any, Final

import msgspec

from distribu import application
from distribu.application import views
from distribu.application.fields import decimal_of
from distribu.application.kernel import Request
from distribu.application.wrong import told
from distribu.domain.access import Actor, Permission
from distribu.domain.accounts import REALM
from distribu.domain.errors import Invalid
from distribu.entrypoints.http.schemas import example as example_of

_OF_THE_PLATFORM: Final = Actor.system(None).permissions
_OF_PEOPLE: Final = frozenset(Permission) - _OF_THE_PLATFORM - Actor.system(REALM).permissions
_json = msgspec.json.Decoder(float_hook=decimal_of)


class NotUnderstood(Exception):
    """No such request, or no such field; the message names those there are."""


@cache
def requests() -> Mapping[str, type[Request[Any]]]:
    """Every request an operator can make, by name: not what only a person at a door can."""
    return {
        name: one
        for name, one in _all().items()
        if not one.internal and not one.streamed and not _of_people(one)
    }


@cache
def _all() -> Mapping[str, type[Request[Any]]]:
    return dict(sorted(_classes()))


def _classes() -> Iterator[tuple[str, type[Request[Any]]]]:
    for module in pkgutil.iter_modules(application.__path__, application.__name__ + "."):
        for name, one in vars(import_module(module.name)).items():
            # A use case says what it needs; the classes that use cases extend do not.
            if isinstance(one, type) and issubclass(one, Request) and hasattr(one, "needs"):
                yield name, one


def _of_people(kind: type[Request[Any]]) -> bool:
    """Whether it is done in a session, at its door, or with one's own password."""
    properties, needed = _schema(kind)
    return kind.needs in _OF_PEOPLE or any(_is_secret(properties[name]) for name in needed)


def of_the_platform(kind: type[Request[Any]]) -> bool:
    """Whether an operator runs it for the platform; any other is run in a company."""
    return kind.needs in _OF_THE_PLATFORM


def named(name: str) -> type[Request[Any]]:
    """The request of a name, whatever its case. Raises `NotUnderstood`."""
    by_name = {one.lower(): one for one in _all()}
    name = by_name.get(name.lower(), name)
    if name in requests():
        return requests()[name]
    if name not in _all():
        raise NotUnderstood(f"there is no request {name!r}." + _there_are(name, requests()))
    if _all()[name].internal:
        raise NotUnderstood(f"{name} is only ever run by another request.")
    if _all()[name].streamed:
        raise NotUnderstood(f"{name} answers more than fits here: it has a command of its own.")
    raise NotUnderstood(f"{name} is for people who sign in; an operator has no session and no password.")


def asked(kind: type[Request[Any]], words: Iterable[str]) -> Request[Any]:
    """A request from ``field=value`` words. Raises `NotUnderstood`, or `Invalid` with every wrong field.

    Fields have their wire names (``customerId``) or Python's. A value is text where the field is text
    (``null`` for nothing is written ``field:=null``) and JSON anywhere else.
    """
    fields = {one.encode_name: one for one in msgspec.structs.fields(kind)}
    python = {one.name: one.encode_name for one in fields.values()}
    properties, _ = _schema(kind)
    values: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for word in words:
        name, equals, text = word.partition("=")
        exact = name.endswith(":")
        name = name.removesuffix(":")
        name = python.get(name, name)
        if not equals:
            raise NotUnderstood(f"{word!r} is not of the form field=value.")
        if name not in fields:
            raise NotUnderstood(f"{kind.__name__} has no field {name!r}." + _there_are(name, fields))
        if name in values or name in wrong:
            raise NotUnderstood(f"{name} is given twice.")
        schema = properties[name]
        if _is_secret(schema):
            raise NotUnderstood(
                f"{name} is a secret, and others see what is on a command line: leave it out."
            )
        try:
            values[name] = text if _is_text(schema) and not exact else _value(text, schema)
        except ValueError:  # msgspec's own are of this kind
            wrong[name] = f"must be {_sort(schema)}{_for_instance(schema)}"
    for name, one in fields.items():
        if one.required and name not in values:
            wrong.setdefault(name, "is required")
    if wrong:
        raise Invalid("invalid_request", fields=wrong)
    try:
        request: Request[Any] = msgspec.convert(values, kind, strict=False)
    except msgspec.ValidationError as error:
        raise Invalid("invalid_request", fields=dict([told(error, kind)])) from None
    return request


def metadata(words: Iterable[str]) -> dict[str, Any]:
    """A JSON object from ``name=value`` words; what is no JSON is text. Raises `NotUnderstood`."""
    values: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            raise NotUnderstood(f"{word!r} is not of the form name=value.")
        try:
            values[name] = _json.decode(text)
        except ValueError:
            values[name] = text
    return values


def example(kind: type[Request[Any]]) -> list[str]:
    """Words that make such a request: what it cannot do without, or for an edit one change."""
    fields = msgspec.structs.fields(kind)
    properties, _ = _schema(kind)
    names = [one.encode_name for one in fields if one.required]
    edits = [one.encode_name for one in fields if one.default is msgspec.UNSET]
    names += [name for name in edits if "examples" in properties[name]][:1]
    return [f"{name}={shlex.quote(_shown(properties[name]))}" for name in names]


def explained(kind: type[Request[Any]]) -> str:
    """What a request does, its fields and an example, for a person."""
    properties, needed = _schema(kind)
    properties = {name: schema for name, schema in properties.items() if not _is_secret(schema)}
    width = max((len(name) for name in properties), default=0)
    lines = [" ".join((kind.__doc__ or "").split()), ""]
    for name, schema in properties.items():
        rest = "required" if name in needed else _default(schema)
        lines.append(f"  {name:<{width}}  {_sort(schema)}{', ' if rest else ''}{rest}")
    company = "" if of_the_platform(kind) else " --company demo"
    lines += ["", f"  distribu do {kind.__name__}{company} {' '.join(example(kind))}".rstrip()]
    return "\n".join(lines)


def _there_are(name: str, names: Iterable[str]) -> str:
    names = list(names)
    by_lower = {one.lower(): one for one in names}
    close = [by_lower[one] for one in get_close_matches(name.lower(), by_lower, n=3)]
    meant = f" Did you mean {' or '.join(close)}?" if close else ""
    return f"{meant} There are: {', '.join(names) or 'none'}."


def _schema(kind: type[Request[Any]]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    own = _components(kind)[kind.__name__]
    return own.get("properties", {}), own.get("required", [])


@cache
def _components(kind: type[Request[Any]]) -> dict[str, Any]:
    _, components = msgspec.json.schema_components([kind], ref_template="{name}")
    resolved: dict[str, Any] = _resolve(components, components)
    return resolved


def _resolve(schema: Any, components: dict[str, Any]) -> Any:
    """A schema with what it refers to in its place; no request refers to itself."""
    match schema:
        case {"$ref": name}:
            return _resolve(components[name], components)
        case dict():
            return {key: _resolve(value, components) for key, value in schema.items()}
        case list():
            return [_resolve(value, components) for value in schema]
        case _:
            return schema


def _kinds(schema: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]


def _is_text(schema: dict[str, Any]) -> bool:
    return all(one.get("type") == "string" or "enum" in one for one in _kinds(schema))


def _is_secret(schema: dict[str, Any]) -> bool:
    return any(one.get("format") == "password" for one in _kinds(schema))


def _value(text: str, schema: dict[str, Any]) -> Any:
    """A value as JSON; a list of words may stand with commas between."""
    (one, *_) = _kinds(schema)
    if one.get("type") == "array" and _is_text(one["items"]) and not text.startswith("["):
        return text.split(",")
    return _json.decode(text)


def _sort(schema: dict[str, Any]) -> str:
    (one, *_) = _kinds(schema)
    if "enum" in one:
        return " | ".join(str(value) for value in one["enum"])
    if one.get("format") == "decimal":
        return "a number"
    if one.get("format") == "date-time":
        return "a time"
    if one.get("type") == "array":
        items = one["items"]
        return f"words: {_sort(items)}" if _is_text(items) else "a JSON list"
    return {"string": "text", "integer": "a whole number", "boolean": "true | false"}.get(
        one.get("type", ""), "JSON"
    )


def _default(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return f"by default {views.encode(default).decode()}" if default not in (None, "", [], {}) else ""


def _for_instance(schema: dict[str, Any]) -> str:
    shown = _shown(schema)
    return f", such as {shown}" if shown else ""


def _shown(schema: dict[str, Any]) -> str:
    value = example_of(schema, {}, needed=True)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return ",".join(value)
    return value if isinstance(value, str) else views.encode(value).decode()
