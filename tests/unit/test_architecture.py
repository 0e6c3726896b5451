"""The laws of the house, read off the code itself."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import msgspec
import pytest
from msgspec import inspect as shapes

import distribu
from distribu.adapters.postgres import refusals
from distribu.application import (
    agenda,
    finders,
    kernel,
    mailing,
    notary,
    payments,
    ports,
    profiles,
    reactions,
    subscriptions,
    views,
)
from distribu.application.billing import ReadSubscription
from distribu.application.fields import Value, type_info
from distribu.domain.access import SCOPES, Permission
from distribu.domain.entity import Entity, Event
from distribu.domain.errors import CODES, Refused
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints.http import wire
from distribu.entrypoints.http.routes import ROUTES
from distribu.entrypoints.http.wire import Route

SRC = Path(distribu.__file__).parent
FILES = sorted(SRC.rglob("*.py"))
LINES_MAX = 620
LONGER = {"adapters/memory/store.py", "adapters/postgres/schema.py"}
"""The twin of a whole folder is one file, and so is the description of all tables."""


def modules(package: str) -> list[ModuleType]:
    found = importlib.import_module(package)
    names = [package] + [one.name for one in pkgutil.walk_packages(found.__path__, package + ".")]
    return [importlib.import_module(name) for name in names if not name.endswith("__main__")]


DOMAIN = modules("distribu.domain")
APPLICATION = modules("distribu.application")
EVERYTHING = modules("distribu")


def descendants(of: Any) -> Iterator[Any]:
    for cls in of.__subclasses__():
        yield cls
        yield from descendants(cls)


def ours(of: Any) -> list[Any]:
    """What descends from a class in the product itself: tests may have kinds of their own.

    A dataclass with slots is made twice; the first one is nobody's, but is still a descendant.
    """
    found = {
        cls
        for cls in descendants(of)
        if cls.__module__.startswith("distribu.")
        and getattr(sys.modules[cls.__module__], cls.__name__, None) is cls
    }
    return sorted(found, key=lambda cls: cls.__qualname__)


REQUESTS: list[Any] = [cls for cls in ours(kernel.Request) if cls.__module__ != kernel.__name__]
VALUES: list[Any] = [cls for cls in ours(Value) if cls.__module__ != kernel.__name__]
EVENTS: list[Any] = [
    cls for cls in ours(Event) if not any(one is not cls and issubclass(one, cls) for one in ours(Event))
]


def defined_in(module: ModuleType) -> list[Any]:
    return [
        it
        for it in vars(module).values()
        if (inspect.isclass(it) or inspect.isfunction(it)) and it.__module__ == module.__name__
    ]


def named(cls: Any) -> str:
    return str(cls.__name__)


# --- requests --------------------------------------------------------------------------------


def test_the_walk_finds_what_there_is() -> None:
    names = {named(cls) for cls in REQUESTS}
    assert {"PlaceOrder", "ListAudit", "CreateCompany", "ReadMe", "RotateWebhookSecret"} <= names
    assert {"NewAddress", "Wanted"} <= {named(cls) for cls in VALUES}
    assert len(EVENTS) > 20


@pytest.mark.parametrize("request_type", REQUESTS, ids=named)
def test_a_request_says_what_it_does_and_what_it_needs(request_type: Any) -> None:
    own = vars(request_type)
    assert (own.get("__doc__") or "").strip()
    assert "needs" in own, "permission is declared, not inherited"
    assert own["needs"] is None or isinstance(own["needs"], Permission)
    assert "run" in own
    kinds = [
        kind for kind in (kernel.Query, kernel.Command, kernel.Process) if issubclass(request_type, kind)
    ]
    assert len(kinds) == 1


@pytest.mark.parametrize("request_type", REQUESTS, ids=named)
def test_only_what_anybody_may_know_needs_nothing(request_type: Any) -> None:
    open_to_all = named(request_type) == "ReadMe"
    assert (request_type.needs is None) == (open_to_all or request_type.internal)


@pytest.mark.parametrize("value_type", VALUES, ids=named)
def test_what_a_caller_sends_is_frozen_and_strict(value_type: Any) -> None:
    config = value_type.__struct_config__
    assert config.frozen
    assert config.forbid_unknown_fields
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.convert({"surely no field": 1}, value_type)


def unlimited(info: shapes.Type, where: str) -> Iterator[str]:
    """Everything below a type that could grow without end."""
    match info:
        case shapes.Metadata(type=inner, extra=extra):
            if not (extra or {}).get("check"):
                yield from unlimited(inner, where)
        case shapes.UnionType(types=types):
            for one in types:
                yield from unlimited(one, where)
        case shapes.StrType(max_length=None) | shapes.BytesType(max_length=None):
            yield where
        case shapes.IntType(ge=least, gt=above, le=most, lt=below):
            if (least is None and above is None) or (most is None and below is None):
                yield where
        case shapes.FloatType() | shapes.DecimalType():
            yield where  # a number with places is limited by a check of its own
        case shapes.VarTupleType() | shapes.ListType() | shapes.SetType() | shapes.FrozenSetType():
            if info.max_length is None:
                yield where
            yield from unlimited(info.item_type, where + "[]")
        case shapes.StructType(fields=inner_fields):
            for item in inner_fields:
                yield from unlimited(item.type, f"{where}.{item.encode_name}")


@pytest.mark.parametrize("value_type", VALUES, ids=named)
def test_everything_has_a_limit(value_type: Any) -> None:
    assert list(unlimited(type_info(value_type), named(value_type))) == []


def test_the_walk_for_limits_sees_every_kind_of_endless_field() -> None:
    class Inner(msgspec.Struct):
        text: str

    class Endless(msgspec.Struct):
        text: str
        whole: int
        half: float
        many: tuple[Inner, ...]
        fine: bool = True

    found = list(unlimited(shapes.type_info(Endless), "it"))
    assert found == ["it.text", "it.whole", "it.half", "it.many", "it.many[].text"]


@pytest.mark.parametrize("value_type", VALUES, ids=named)
def test_free_json_is_taken_in_one_place_alone(value_type: Any) -> None:
    info: Any = type_info(value_type)
    free = [item.name for item in info.fields if isinstance(item.type, (shapes.DictType, shapes.AnyType))]
    assert free == (["metadata"] if named(value_type) == "RecordAudit" else [])


# --- events ----------------------------------------------------------------------------------


def test_events_have_unique_dotted_names() -> None:
    names = [event.name for event in EVENTS]
    assert len(names) == len(set(names))
    wrong = [name for name in names if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", name)]
    assert wrong == ["custom"], "its dotted name is the caller's"


@pytest.mark.parametrize("event", EVENTS, ids=named)
def test_an_event_goes_out_or_is_for_the_audit_log(event: Any) -> None:
    assert (event in reactions.WIRE) != (event in reactions.AUDIT_ONLY)


def test_reactions_know_no_event_that_does_not_exist() -> None:
    assert set(reactions.WIRE) | reactions.AUDIT_ONLY == set(EVENTS)


def test_the_names_on_the_wire_are_those_one_can_subscribe_to() -> None:
    assert set(WireEvent) == reactions.WIRE_NAMES


def test_every_wire_event_carries_what_a_scope_reads() -> None:
    """But for the audit log and what the company itself pays, which no key may read."""
    outside = {event: event.carries for event in WireEvent if event.carries not in SCOPES}
    assert outside == {
        WireEvent.AUDIT_RECORDED: Permission.AUDIT_READ,
        WireEvent.INVOICE_PAID: ReadSubscription.needs,
    }


@pytest.mark.parametrize("entity", ours(Entity), ids=named)
def test_every_entity_that_goes_out_has_a_view(entity: Any) -> None:
    # What proves who somebody is, and where they are signed in, is shown to nobody but themselves.
    # A subscription is shown together with what is used of it.
    kept = {"Numbered", "Credentials", "Session", "SecondFactor", "Subscription"}
    assert (entity in views._VIEWS) != (named(entity) in kept)


# --- ports -----------------------------------------------------------------------------------


PORTS: list[Any] = [
    (get_args(field.type) or (field.type,))[0]
    for field in dataclasses.fields(kernel.Ports)
    if field.name not in ("fingerprint_key", "links_begin")
]


def test_the_ports_of_the_executor() -> None:
    assert {"Store", "Directory", "Queue", "Clock", "Entropy", "Vault", "Hooks"} <= {*map(named, PORTS)}
    assert {port.__module__ for port in PORTS} == {
        module.__name__ for module in (ports, agenda, mailing, notary, payments)
    }


@pytest.mark.parametrize("port", PORTS, ids=named)
@pytest.mark.parametrize("where", ["tests.unit.test_contracts", "tests.integration.test_contracts"])
def test_every_port_has_a_contract_run_over_its_twin_and_the_real_thing(port: Any, where: str) -> None:
    module = importlib.import_module(where)
    runs = [
        it
        for it in vars(module).values()
        if inspect.isclass(it)
        and it.__name__.startswith("Test")
        and any(base.__name__ == f"{named(port)}Contract" for base in it.__mro__[1:])
    ]
    assert runs, f"nothing in {where} runs the {named(port)}Contract"


def test_every_method_of_a_port_promises_something() -> None:
    silent = [
        f"{named(port)}.{name}"
        for port in [
            *defined_in(ports),
            *defined_in(agenda),
            *defined_in(finders),
            *defined_in(notary),
            *defined_in(mailing),
            *defined_in(payments),
        ]
        if getattr(port, "_is_protocol", False) and named(port) not in ("Read", "Finders")
        for name, method in vars(port).items()
        if inspect.isfunction(method) and not name.startswith("_") and not method.__doc__
    ]
    assert silent == []


# --- one door to write -----------------------------------------------------------------------


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_only_the_executor_writes() -> None:
    writers = [
        path.relative_to(SRC).as_posix()
        for path in FILES
        for call in calls(parsed(path))
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "write"
        and ast.unparse(call.func.value).split(".")[-1].strip("_").endswith("tx")
    ]
    assert writers == ["application/kernel.py"]


def test_a_store_cannot_be_changed_in_another_way() -> None:
    reading = {
        "begin", "ready", "loaded", "write", "together", "companies", "products", "customers", "overrides",
        "orders", "api_keys", "webhooks", "events", "records", "logins", "users", "sessions", "members",
        "invitations", "contacts", "factors", "inquiries", "platform", "seals", "subscriptions", "notices",
    }  # fmt: skip
    methods = {
        name for port in (ports.Store, ports.Tx, finders.Finders) for name in vars(port) if name[0] != "_"
    }
    assert methods <= reading


def test_successors_are_made_by_verbs_alone() -> None:
    """``_after`` belongs to entities: nobody outside the domain makes a successor."""
    outside = [
        path.relative_to(SRC).as_posix()
        for path in FILES
        if "domain" not in path.parts
        for call in calls(parsed(path))
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("_after", "_with")
    ]
    assert outside == []


def test_no_clock_and_no_randomness_but_in_their_adapters() -> None:
    forbidden = re.compile(
        r"\b(datetime\.now|utcnow|time\.time|time_ns|perf_counter|monotonic"
        r"|uuid4|uuid1|secrets\.\w+|os\.urandom|random\.)"
    )
    allowed = {
        "adapters/hooks.py",  # how long a receiver took
        "adapters/memory/twins.py",  # drawn from a seed
        "adapters/postgres/driver.py",  # the age of a connection
        "adapters/postgres/embedded.py",  # passwords, and how long a start may take
        "adapters/postgres/store.py",  # the age of a connection
        "adapters/system.py",
        "entrypoints/demo/invoices.py",  # a receiver is a program of its own
        "entrypoints/http/reference.py",  # in an example of such a program
        "settings.py",  # the name of a file while it is written
    }
    found = {path.relative_to(SRC).as_posix() for path in FILES if forbidden.search(path.read_text())}
    assert found == allowed


# --- the HTTP door ---------------------------------------------------------------------------

TABLE = """
GET    /me                                                  any key
GET    /products                                            products:read
GET    /products/{product_id}                               products:read
GET    /products/{product_id}/stock-movements               products:read
POST   /products                                            products:write
PATCH  /products/{product_id}                               products:write
DELETE /products/{product_id}                               products:write
POST   /products/{product_id}/stock-movements               products:write
GET    /orders                                              orders:read
GET    /orders/{order_id}                                   orders:read
GET    /orders/{order_id}/payments                          orders:read
POST   /orders                                              orders:write
POST   /orders/preview                                      orders:write
PATCH  /orders/{order_id}                                   orders:write
POST   /orders/{order_id}/payments                          orders:write
GET    /customers                                           customers:read
GET    /customers/{customer_id}                             customers:read
GET    /customers/{customer_id}/price-overrides             customers:read
POST   /customers                                           customers:write
PATCH  /customers/{customer_id}                             customers:write
PUT    /customers/{customer_id}/price-overrides/{product_id} customers:write
DELETE /customers/{customer_id}/price-overrides/{product_id} customers:write
GET    /webhooks                                            webhooks:read
GET    /webhooks/{webhook_id}                               webhooks:read
GET    /webhooks/{webhook_id}/deliveries                    webhooks:read
GET    /deliveries/{delivery_id}                            webhooks:read
POST   /webhooks                                            webhooks:write
PATCH  /webhooks/{webhook_id}                               webhooks:write
DELETE /webhooks/{webhook_id}                               webhooks:write
POST   /webhooks/{webhook_id}/rotate-secret                 webhooks:write
POST   /webhooks/{webhook_id}/test                          webhooks:write
POST   /webhooks/{webhook_id}/replay                        webhooks:write
POST   /deliveries/{delivery_id}/replay                     webhooks:write
GET    /events                                              webhooks:read
"""
"""The API's methods, paths and scopes, written out a second time."""


def route_id(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_every_route_has_the_scope_that_was_decided() -> None:
    lines = (line.split(maxsplit=2) for line in TABLE.strip().splitlines())
    decided = {(method, path): scope for method, path, scope in lines}
    served = {
        (route.method, route.path.replace(":str}", "}")): route.request.needs or "any key" for route in ROUTES
    }
    assert served == decided


def test_no_two_routes_are_one() -> None:
    assert len({route_id(route) for route in ROUTES}) == len(ROUTES)
    assert len({route.request for route in ROUTES}) == len(ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=route_id)
def test_a_route_gives_its_request_what_the_path_holds(route: Route) -> None:
    assert route.request in REQUESTS
    in_path = set(re.findall(r"\{(\w+):str\}", route.path))
    assert in_path == set(wire.plan(route.request).path)
    assert in_path <= set(route.request.__struct_fields__)


@pytest.mark.parametrize("route", ROUTES, ids=route_id)
def test_a_method_does_what_it_says(route: Route) -> None:
    changes = issubclass(route.request, kernel.Command)
    assert changes == (route.method != "GET") or route.path == "/orders/preview"
    assert route.status == (204 if route.method == "DELETE" else route.status)
    assert (route.result is None) == (route.status == 204)
    begins = {"nextCursor": "cursor", "nextAfter": "after"}[route.cursor]
    assert route.paged == (begins in route.request.__struct_fields__)


def test_a_key_needs_no_more_than_a_scope() -> None:
    assert {route.request.needs for route in ROUTES} - {None} <= set(SCOPES)


def test_every_kind_of_refusal_has_a_status() -> None:
    statuses = {**wire.STATUS, **wire._OWN_STATUS}
    assert all(any(base in statuses for base in kind.__mro__) for kind in [Refused, *ours(Refused)])
    assert {*ours(Refused)} == set(statuses) - {Refused}


# --- codes -----------------------------------------------------------------------------------

UNSPOKEN = {"not_supported"}
"""Codes that are reserved: nothing says them yet."""


def test_every_refusal_has_a_code_that_is_known() -> None:
    kinds = {"Refused", *(named(kind) for kind in ours(Refused))}
    said = {
        call.args[0].value
        for path in FILES
        for call in calls(parsed(path))
        if ast.unparse(call.func).split(".")[-1] in kinds
        and call.args
        and isinstance(call.args[0], ast.Constant)
    }
    assert len(said) > 25
    assert said <= set(CODES)


def test_every_code_is_said_somewhere() -> None:
    texts = {
        node.value
        for path in FILES
        if path.name != "errors.py"
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert set(CODES) - texts == UNSPOKEN
    assert all(text.strip() for text in CODES.values())


def test_every_path_without_a_row_has_a_code() -> None:
    """The HTTP door makes the code of an impossible id from its name."""
    ids = {name for route in ROUTES for name in wire.plan(route.request).path}
    assert {f"{name.removesuffix('_id')}_not_found" for name in ids} <= set(CODES)


def test_every_constraint_that_is_named_means_something() -> None:
    for means in refusals.REFUSALS.values():
        assert isinstance(means(), Refused)


# --- the domain, and names -------------------------------------------------------------------


def test_the_domain_is_made_of_frozen_values() -> None:
    values = [cls for module in DOMAIN for cls in defined_in(module) if hasattr(cls, "__dataclass_params__")]
    assert len(values) > 30
    for cls in values:
        assert cls.__dataclass_params__.frozen, cls
        assert all(field.kw_only for field in dataclasses.fields(cls)), cls
        assert "__slots__" in vars(cls), cls


def test_the_domain_has_no_other_kind_of_class() -> None:
    kinds = (Enum, BaseException, str)
    other = {
        named(cls)
        for module in DOMAIN
        for cls in defined_in(module)
        if inspect.isclass(cls) and not dataclasses.is_dataclass(cls) and not issubclass(cls, kinds)
    }
    assert other == set()


def test_nothing_in_the_domain_waits() -> None:
    waiting = [
        path.name
        for path in FILES
        if path.parent.name == "domain"
        for node in ast.walk(parsed(path))
        if isinstance(node, (ast.AsyncFunctionDef, ast.Await))
    ]
    assert waiting == []


def test_requests_and_views_are_structs() -> None:
    assert all(issubclass(cls, msgspec.Struct) for cls in VALUES)
    seen: list[Any] = [
        cls
        for cls in [*defined_in(views), *defined_in(profiles), *defined_in(subscriptions)]
        if isinstance(cls, type)
    ]
    assert seen
    assert all(issubclass(cls, views.View) for cls in seen)
    assert all(cls.__struct_config__.frozen for cls in seen)


def test_no_view_shows_a_secret_that_is_kept() -> None:
    hidden = {"digest", "old_secret", "company_id", "version", "events_", "salt"}
    shown = {
        f"{named(cls)}.{name}"
        for cls in [*defined_in(views), *defined_in(profiles), *defined_in(subscriptions)]
        for name in getattr(cls, "__struct_fields__", ())
        if name in hidden or name in ("secret", "key")
    }
    assert shown == {
        "ApiKeyIssuedView.key",
        "WebhookIssuedView.secret",
        "AppView.secret",
        "MeView.company_id",
        "SeatView.company_id",
        "FailedJobView.company_id",
        "RecordBody.company_id",
    }


def test_what_is_public_is_listed_and_sorted() -> None:
    assert distribu.__all__ == sorted(distribu.__all__)
    assert len(distribu.__all__) == len(set(distribu.__all__))
    imported = {
        alias.asname or alias.name
        for node in parsed(SRC / "__init__.py").body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert set(distribu.__all__) == imported


@pytest.mark.parametrize("module", DOMAIN + APPLICATION, ids=named)
def test_what_is_public_in_the_core_is_explained(module: ModuleType) -> None:
    assert module.__doc__
    silent = [
        named(it)
        for it in defined_in(module)
        if not named(it).startswith("_")
        and not (inspect.isclass(it) and issubclass(it, (Event, views.View)))  # these say all in their fields
        and not (
            getattr(it, "_is_protocol", False) and module in (ports, finders, mailing, notary, payments)
        )  # their methods promise
        and not vars(it).get("__doc__")
        and not (inspect.isfunction(it) and it.__doc__)
    ]
    assert silent == []


def test_public_verbs_of_the_domain_are_explained() -> None:
    silent = [
        f"{named(cls)}.{name}"
        for cls in ours(Entity)
        for name, method in vars(cls).items()
        if not name.startswith("_")
        and isinstance(method, (classmethod, staticmethod, property)) | inspect.isfunction(method)
        and not method.__doc__
    ]
    assert silent == []


def test_modules_have_a_docstring_and_an_end() -> None:
    for path in FILES:
        assert ast.get_docstring(parsed(path)), path
        length = len(path.read_text().splitlines())
        assert length <= LINES_MAX or path.relative_to(SRC).as_posix() in LONGER, (path, length)


def test_no_file_is_a_drawer() -> None:
    drawers = {"common", "core", "utils", "util", "helpers", "helper", "exceptions", "misc", "base", "shared"}
    assert not {path.stem for path in SRC.rglob("*")} & drawers


def test_no_class_is_named_after_a_pattern() -> None:
    pattern = re.compile(
        "service|manager|handler|interactor|bus(?!y|iness)|mapper|dto|factory|helper|util|repository", re.I
    )
    classes = [
        node.name
        for path in FILES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef) and pattern.search(node.name)
    ]
    assert classes == []


def test_the_layers_have_the_same_names() -> None:
    contexts = {
        "access", "accounts", "audit", "catalog", "contacts", "customers", "ordering", "team", "webhooks",
    }  # fmt: skip
    for layer in ("domain", "application", "adapters/postgres"):
        assert contexts <= {path.stem for path in (SRC / layer).glob("*.py")}, layer


def test_every_scope_is_a_permission_and_the_first_nine_are_all() -> None:
    assert [str(scope) for scope in SCOPES] == [
        "products:read",
        "products:write",
        "orders:read",
        "orders:write",
        "customers:read",
        "customers:write",
        "reports:read",
        "webhooks:read",
        "webhooks:write",
    ]


def test_everything_can_be_imported() -> None:
    assert len(EVERYTHING) > 40
    assert get_args(kernel.Issued[int]) == (int,)
