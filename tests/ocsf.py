"""What OCSF 1.3.0 asks of the two classes of events that the audit log is exported as.

Names of fields alone: which there are, which have to be there, and of which one at least. The whole schema is
published at https://schema.ocsf.io/1.3.0.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

VERSION: Final = "1.3.0"


class Object(NamedTuple):
    """An object, or a class of events: fields that have to be there, may be, and of which one has to."""

    required: frozenset[str]
    allowed: frozenset[str]
    one_of: frozenset[str] = frozenset()


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_REQUIRED: Final = "activity_id category_uid class_uid metadata severity_id time type_uid"
_BASE: Final = (
    f"{_REQUIRED} activity_name actor category_name class_name count duration end_time enrichments"
    " http_request message observables raw_data severity src_endpoint start_time status status_code"
    " status_detail status_id timezone_offset type_name unmapped"
)
_USER: Final = (
    "account credential_uid domain email_addr full_name groups ldap_person name org risk_level risk_level_id"
    " risk_score type type_id uid uid_alt"
)
_ENTITY: Final = "data name type type_id device email group org policy uid user version"
CLASSES: Final[Mapping[int, Object]] = {
    3002: Object(
        _names(f"{_REQUIRED} user"),
        _names(
            f"{_BASE} auth_factors auth_protocol auth_protocol_id certificate dst_endpoint is_cleartext"
            " is_mfa is_new_logon is_remote logon_process logon_type logon_type_id service session user"
        ),
        _names("service dst_endpoint"),
    ),
    3004: Object(
        _names(f"{_REQUIRED} entity"),
        _names(f"{_BASE} access_list access_mask comment entity entity_result"),
    ),
}
OBJECTS: Final[Mapping[str, Object]] = {
    "metadata": Object(
        _names("product version"),
        _names(
            "correlation_uid event_code extension extensions labels log_level log_name log_provider"
            " log_version logged_time loggers modified_time original_time processed_time product profiles"
            " sequence tenant_uid uid version"
        ),
    ),
    "metadata.product": Object(
        _names("vendor_name"),
        _names("cpe_name feature lang name path uid url_string vendor_name version"),
        _names("name uid"),
    ),
    "actor": Object(
        frozenset(),
        _names("app_name app_uid authorizations idp invoked_by process session user"),
        _names("process user invoked_by session app_name app_uid"),
    ),
    "actor.user": Object(frozenset(), _names(_USER), _names("account name uid")),
    "user": Object(frozenset(), _names(_USER), _names("account name uid")),
    "entity": Object(frozenset(), _names(_ENTITY), _names("name uid device group org policy user")),
    "service": Object(frozenset(), _names("labels name uid version"), _names("name uid")),
    "src_endpoint": Object(frozenset(), _names("ip port name uid hostname"), _names("ip uid name hostname")),
}
ACTIVITIES: Final[Mapping[int, frozenset[int]]] = {
    3002: frozenset({0, 1, 2, 3, 4, 5, 6, 99}),
    3004: frozenset({*range(14), 99}),
}
USERS: Final = frozenset({0, 1, 2, 3, 99})


def problems(event: Mapping[str, Any]) -> Iterator[str]:
    """What is not as the schema has it, one by one."""
    kind = event.get("class_uid", 0)
    if kind not in CLASSES:
        yield f"class {kind}"
        return
    yield from _of(event, CLASSES[kind], "the event")
    for path, expected in OBJECTS.items():
        value: Any = event
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            yield from _of(value, expected, path)
    yield from _empty(event, "")
    if event["category_uid"] != 3 or event["type_uid"] != kind * 100 + event["activity_id"]:
        yield "category or type"
    if event["activity_id"] not in ACTIVITIES[kind]:
        yield f"activity {event['activity_id']}"
    if event["metadata"]["version"] != VERSION or not isinstance(event["time"], int):
        yield "version or time"
    if not {it["type_id"] for it in (event["actor"]["user"], event.get("user")) if it} <= USERS:
        yield "type of a user"


def _of(value: Mapping[str, Any], expected: Object, where: str) -> Iterator[str]:
    yield from (f"{where}: {name} is missing" for name in sorted(expected.required - value.keys()))
    yield from (f"{where}: there is no {name}" for name in sorted(value.keys() - expected.allowed))
    if expected.one_of and not expected.one_of & value.keys():
        yield f"{where}: none of {sorted(expected.one_of)}"


def _empty(value: Any, where: str) -> Iterator[str]:
    """What of ours is null or empty; what is not of the framework is the company's own."""
    for name, item in value.items():
        if name == "unmapped":
            continue
        if item is None or item == "":
            yield f"{where}{name} is empty"
        elif isinstance(item, Mapping):
            yield from _empty(item, f"{where}{name}.")
