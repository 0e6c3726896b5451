"""The shapes in which everything leaves Distribu: names, times, amounts, and what a view is."""

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

_encoder: Final = msgspec.json.Encoder(decimal_format="number")
encode: Final[Callable[[Any], bytes]] = _encoder.encode
"""JSON as it goes out: decimals are numbers with the places they have."""

Time = Annotated[str, Meta(extra_json_schema={"format": "date-time"}, examples=["2026-01-31T09:30:00.000Z"])]
Price = Annotated[Decimal, Meta(extra_json_schema={"type": "number", "format": "decimal"}, examples=[18.4])]
Id = Annotated[str, Meta(examples=["0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10"])]


@lru_cache(maxsize=8192)  # a page shows the same rows again and again, and this costs as much as a row
def time(value: datetime) -> Time:
    """ISO 8601 in UTC with milliseconds and ``Z``."""
    return value.isoformat(timespec="milliseconds")[:-6] + "Z"


def maybe(value: datetime | None) -> Time | None:
    """A time that there may not be."""
    return None if value is None else time(value)


@lru_cache(maxsize=4096)
def camel(name: str) -> str:
    """``placed_at`` -> ``placedAt``."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def plain(value: Any, named: Callable[[str], str] = camel) -> Any:
    """Any value of the domain as JSON can hold it, names in camelCase and times as they go out.

    With ``named`` the names are what that makes of them: ``str`` leaves a caller's own as they are.
    """
    match value:
        case datetime():
            return time(value)
        case dict():
            return {named(name): plain(item, named) for name, item in value.items()}
        case tuple() | list() | frozenset():
            return [plain(item, named) for item in value]
        case _:
            return value


class View(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something that may be seen."""
