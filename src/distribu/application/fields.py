"""The types of request fields, each with its limit, and the checks that hold for every request.

A limit is written once, here or in a request, as `msgspec.Meta`. The JSON decoder, the checks on
values built in Python, the API's documents and the architecture test all read it from there.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from re import Pattern, compile as compiled
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, inspect

from distribu.domain import ordering, values
from distribu.domain.access import SCOPES, Permission
from distribu.domain.cards import LONG, holds_card
from distribu.domain.errors import Bug, Invalid

UUID_PATTERN: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_UUID: Final = Meta(
    pattern=UUID_PATTERN,
    min_length=36,
    max_length=36,
    examples=["0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10"],
)
_SURROGATE: Final = compiled("[\ud800-\udfff]")
_PATH: Final = Meta(extra={"in": "path"})
_IF_MATCH: Final = Meta(extra={"in": "if-match"})

ProductId = Annotated[values.ProductId, _UUID]
CustomerId = Annotated[values.CustomerId, _UUID]
AddressId = Annotated[values.AddressId, _UUID]
Cursor = Annotated[str, _UUID, Meta(description="`nextCursor` of the page before.")]

ProductIdInPath = Annotated[values.ProductId, _UUID, _PATH]
CustomerIdInPath = Annotated[values.CustomerId, _UUID, _PATH]
OrderIdInPath = Annotated[values.OrderId, _UUID, _PATH]
ApiKeyIdInPath = Annotated[values.ApiKeyId, _UUID, _PATH]
WebhookIdInPath = Annotated[values.WebhookId, _UUID, _PATH]
DeliveryIdInPath = Annotated[values.DeliveryId, _UUID, _PATH]

Uuid = Annotated[str, _UUID]
CompanyId = Annotated[values.CompanyId, _UUID]
CompanyIdInPath = Annotated[values.CompanyId, _UUID, _PATH]
MemberIdInPath = Annotated[str, _UUID, _PATH]
InvitationIdInPath = Annotated[str, _UUID, _PATH]
ContactIdInPath = Annotated[str, _UUID, _PATH]
SessionIdInPath = Annotated[str, _UUID, _PATH]
PasskeyIdInPath = Annotated[
    str, Meta(pattern="^[A-Za-z0-9_-]{1,1400}$", max_length=1400, examples=["aGVsbG8"]), _PATH
]

IfMatch = Annotated[int, Meta(ge=1, le=2**31 - 1), _IF_MATCH]
"""The version the caller means to change; the HTTP door takes it from the If-Match header."""

Amount = Annotated[
    values.Money,
    Meta(
        extra={"check": values.exact_money},
        examples=[18.4],
        extra_json_schema={
            "type": "number",
            "format": "decimal",
            "minimum": 0,
            "maximum": 10**12,
            "multipleOf": 0.01,
        },
    ),
]
TaxRate = Annotated[
    values.Rate,
    Meta(
        description="A share: 0.2 is 20 %.",
        extra={"check": values.exact_rate},
        examples=[0.2],
        extra_json_schema={
            "type": "number",
            "format": "decimal",
            "minimum": 0,
            "maximum": 0.3,
            "multipleOf": 0.0001,
        },
    ),
]
SECRET_MAX: Final = 400
"""Characters of a secret that are looked at at all; what is too long for a password is refused later."""


def _secret(value: Any) -> Any:
    if not isinstance(value, str) or not 0 < len(value) <= SECRET_MAX:
        raise ValueError(f"must have 1 to {SECRET_MAX} characters")
    if "\0" in value or _SURROGATE.search(value):
        raise ValueError("must be Unicode text without U+0000")
    return values.Secret(value)


Password = Annotated[
    str,
    Meta(
        extra={"check": _secret, "secret": True},
        extra_json_schema={"format": "password", "maxLength": SECRET_MAX},
        examples=["correct horse battery staple"],
    ),
]
"""A password or the token of a link: whatever holds it, shows it in no repr, log or error."""

Quantity = Annotated[int, Meta(ge=1, le=ordering.QUANTITY_MAX, examples=[2])]
Limit = Annotated[int, Meta(ge=1, le=100, description="At most so many.")]
Email = Annotated[str, Meta(min_length=3, max_length=254, examples=["orders@green-grocer.example"])]
Moment = Annotated[datetime, Meta(tz=True, examples=["2026-01-31T09:30:00.000Z"])]
Scopes = Annotated[tuple[Permission, ...], Meta(min_length=1, max_length=len(SCOPES))]

type_info = lru_cache(maxsize=None)(inspect.type_info)

_Check = Callable[[Any], Any]


CARD: Final = "holds what looks like the number of a payment card"


class _ShowsCard(ValueError):
    """What looks like the number of a payment card stands in a text."""


def _without_card(text: str) -> str:
    if holds_card(text):
        raise _ShowsCard(CARD)
    return text


def signed(least: int, most: int) -> Meta:
    """A text whose sender is known by a signature and types nothing: ids and numbers that look like a card's
    are none, and what they are in must not get lost for it."""
    return Meta(min_length=least, max_length=most, extra={"check": _text(least, most, None, typed=False)})


class Value(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """Something a caller sends. It cannot exist outside its limits, however it was made.

    Raises `Invalid` (invalid_request, card_number; `fields` names the field) when built with a value that
    does not fit.
    """

    def __post_init__(self) -> None:
        for name, wire, check in _checks(type(self)):
            value = getattr(self, name)
            try:
                fitting = check(value)
            except _ShowsCard as wrong:
                raise Invalid("card_number", fields={wire: str(wrong)}) from None
            except ValueError as wrong:
                raise Invalid("invalid_request", fields={wire: str(wrong)}) from None
            if fitting is not value:
                msgspec.structs.force_setattr(self, name, fitting)


@cache
def _checks(cls: type) -> tuple[tuple[str, str, _Check], ...]:
    info = type_info(cls)
    if not isinstance(info, inspect.StructType):
        raise Bug(f"{cls} is no struct")
    # msgspec tells of UNSET in a field's default, not in its type.
    unset = {one.name for one in msgspec.structs.fields(cls) if one.default is msgspec.UNSET}
    checks = ((item, _check(item.type)) for item in info.fields)
    return tuple(
        (item.name, item.encode_name, _unset_or(check) if item.name in unset else check)
        for item, check in checks
    )


def _check(info: inspect.Type) -> _Check:
    """What a value of this type must pass."""
    match info:
        case inspect.Metadata(type=inner, extra=extra):
            found: _Check | None = (extra or {}).get("check")
            return found or _check(inner)
        case inspect.UnionType(types=types):
            return _one_of(types)
        case inspect.StrType(min_length=least, max_length=most, pattern=pattern):
            return _text(least or 0, most, compiled(pattern) if pattern else None)
        case inspect.IntType(ge=least, le=most):
            return _whole(least, most)
        case inspect.VarTupleType(item_type=item, min_length=least, max_length=most):
            return _many(_check(item), least or 0, most)
        case inspect.EnumType(cls=cls):
            return _instance(cls)
        case inspect.StructType(cls=cls):
            return _instance(cls)
        case inspect.BoolType():
            return _instance(bool)
        case inspect.DateTimeType():
            return _moment
        case inspect.DictType() | inspect.AnyType():
            return _json
        case _:
            raise Bug(f"no check is known for {info}")


def _unset_or(check: _Check) -> _Check:
    return lambda value: value if value is msgspec.UNSET else check(value)


def _one_of(types: tuple[inspect.Type, ...]) -> _Check:
    rest = [info for info in types if not isinstance(info, inspect.NoneType)]
    if len(rest) != 1 or len(types) != 2:
        raise Bug(f"a field is one type, or nothing: {types}")
    check = _check(rest[0])
    return lambda value: value if value is None else check(value)


def _text(least: int, most: int | None, pattern: Pattern[str] | None, *, typed: bool = True) -> _Check:
    id = pattern if pattern is not None and pattern.pattern == UUID_PATTERN else None
    looked_through = typed and id is None

    def text(value: Any) -> Any:
        if not isinstance(value, str):
            raise ValueError("must be text")
        if id is not None and not id.fullmatch(value):
            raise ValueError("is not an id")
        if len(value) < least or (most is not None and len(value) > most):
            raise ValueError(f"must have {least} to {most} characters")
        if pattern is not None:
            if not pattern.fullmatch(value):  # `$` alone would let a last newline through
                raise ValueError("has the wrong form")
        elif "\0" in value:
            raise ValueError("must not hold U+0000")
        if _SURROGATE.search(value):
            raise ValueError("must be Unicode text")
        return _without_card(value) if looked_through else value

    return text


def _whole(least: int | None, most: int | None) -> _Check:
    def whole(value: Any) -> Any:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError("must be a whole number")
        if (least is not None and value < least) or (most is not None and value > most):
            raise ValueError(f"must be {least} to {most}")
        return value

    return whole


def _many(check: _Check, least: int, most: int | None) -> _Check:
    def many(value: Any) -> Any:
        if not isinstance(value, tuple):
            raise ValueError("must be a tuple")
        if len(value) < least or (most is not None and len(value) > most):
            raise ValueError(f"must have {least} to {most} elements")
        for item in value:
            check(item)
        return value

    return many


def _instance(cls: type) -> _Check:
    def instance(value: Any) -> Any:
        if not isinstance(value, cls):
            raise ValueError(f"must be a {cls.__name__}")
        return value

    return instance


def _moment(value: Any) -> Any:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("must be a time with a zone")
    try:
        moment = value.astimezone(UTC)
    except OverflowError:
        raise ValueError("must be a time of the years 1 to 9999 in UTC") from None
    # Whole milliseconds, as they are stored and shown: a finer time would be another one when read back.
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


JSON_MAX: Final = 65_536
"""Bytes of free JSON (the metadata of an audit entry) that are taken at all."""


def _json(value: Any) -> Any:
    try:
        text = msgspec.json.encode(value)
    except (TypeError, RecursionError):
        raise ValueError("must be JSON") from None
    if len(text) > JSON_MAX:
        raise ValueError(f"must be at most {JSON_MAX} bytes as JSON")
    for one in _texts(value):
        if "\0" in one:
            raise ValueError("must not hold U+0000")
        _without_card(one)
    return value


def _texts(value: Any) -> Iterator[str]:
    """Every text in free JSON, keys too, and every number that is no longer than a card's, as its digits."""
    rest = [value]
    while rest:
        match rest.pop():
            case str() as text:
                yield text
            case dict() as members:
                rest += [*members, *members.values()]
            case list() | tuple() | set() | frozenset() as items:
                rest += items
            case Decimal() as number if not number.is_finite():
                raise ValueError("must be JSON")
            case number if isinstance(number, int | float | Decimal) and -LONG < number < LONG:
                yield str(int(number))


def decimal_of(text: str) -> Decimal:
    """A JSON number as it was written: no float ever comes near money.

    Raises `ValueError` for an exponent beyond what a decimal can hold.
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ValueError("the number is out of range") from None
