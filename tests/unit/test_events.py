"""The published schemas of events: they are what is sent, they are served, and they break no reader."""

import copy
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from distribu import Invalid
from distribu.domain.webhooks import WireEvent
from distribu.entrypoints.http import events
from tests.contracts.receiving import PUBLISHED, problems, published
from tests.unit.test_http import Door

EVERY = [event.value for event in WireEvent]


@pytest.mark.parametrize("name", EVERY)
def test_what_is_published_is_what_is_made(name: str) -> None:
    """`distribu webhook schemas docs/events` writes it anew, as long as it breaks nobody."""
    assert published(name) == events.schema(WireEvent(name))


def test_nothing_else_is_published() -> None:
    assert sorted(path.stem for path in PUBLISHED.iterdir()) == sorted(EVERY)


@pytest.mark.parametrize("name", EVERY)
def test_a_published_schema_breaks_no_reader_of_before(name: str) -> None:
    assert events.breaking(published(name), events.schema(WireEvent(name))) == []


@pytest.mark.parametrize("name", EVERY)
def test_an_example_is_what_its_schema_says(name: str) -> None:
    schema = published(name)
    (example,) = schema["examples"]
    assert problems(schema, example) == []
    assert example["event"] == name
    assert schema["description"].startswith(events.EVENTS[WireEvent(name)].when)
    assert problems(schema, {**example, "event": "other"})
    assert problems(schema, {**example, "data": {}})
    assert problems(schema, {**example, "timestamp": "yesterday"})


# what breaks a reader


def order() -> Any:
    return copy.deepcopy(events.schema(WireEvent.ORDER_CREATED))


def fields(schema: Any, of: str = "OrderView") -> Any:
    return schema["$defs"][of]["properties"]


def a_field_is_gone(it: Any) -> None:
    del fields(it)["total"]


def a_field_of_the_envelope_is_gone(it: Any) -> None:
    del it["properties"]["occurredAt"]


def a_field_is_renamed(it: Any) -> None:
    fields(it)["purchaseOrder"] = fields(it).pop("poNumber")


def a_field_deep_inside_is_gone(it: Any) -> None:
    del fields(it, "LineView")["unitPrice"]


def a_field_can_be_missing(it: Any) -> None:
    it["$defs"]["OrderView"]["required"].remove("notes")


def a_number_becomes_text(it: Any) -> None:
    fields(it)["total"] = {"type": "string"}


def a_whole_number_may_be_any(it: Any) -> None:
    fields(it)["number"]["type"] = "number"


def a_text_becomes_an_object(it: Any) -> None:
    fields(it)["shippingAddress"]["anyOf"][0] = {"type": "string"}


def null_comes_beside(it: Any) -> None:
    fields(it)["carrier"] = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def a_list_becomes_one(it: Any) -> None:
    fields(it)["items"] = fields(it)["items"]["items"]


def an_item_of_a_list_changes(it: Any) -> None:
    fields(it)["items"]["items"] = {"type": "string"}


def a_value_is_gone(it: Any) -> None:
    it["$defs"]["OrderStatus"]["enum"].remove("SHIPPED")


def a_value_comes_beside(it: Any) -> None:
    it["$defs"]["OrderSource"]["enum"].append("IMPORT")


def a_format_is_gone(it: Any) -> None:
    del fields(it)["placedAt"]["format"]


def a_limit_is_wider(it: Any) -> None:
    fields(it)["number"]["minimum"] = 0


BREAKING = {
    a_field_is_gone: "data.total is gone",
    a_field_of_the_envelope_is_gone: "occurredAt is gone",
    a_field_is_renamed: "data.poNumber is gone",
    a_field_deep_inside_is_gone: "data.items[].unitPrice is gone",
    a_field_can_be_missing: "data.notes can be missing",
    a_number_becomes_text: "data.total is no number any more",
    a_whole_number_may_be_any: "data.number can be number",
    a_text_becomes_an_object: "data.shippingAddress is no object any more",
    null_comes_beside: "data.carrier can be null",
    a_list_becomes_one: "data.items is no array any more",
    an_item_of_a_list_changes: "data.items[] is no object any more",
    a_value_is_gone: "data.status is never SHIPPED any more",
    a_value_comes_beside: "data.source can be IMPORT",
    a_format_is_gone: "data.placedAt has another format",
    a_limit_is_wider: "data.number has a wider minimum",
}


@pytest.mark.parametrize("change", BREAKING, ids=lambda it: it.__name__)
def test_what_breaks_a_reader_is_seen(change: Any) -> None:
    changed = order()
    change(changed)
    assert BREAKING[change] in events.breaking(order(), changed)


def a_field_more(it: Any) -> None:
    fields(it)["insurance"] = {"type": "object", "properties": {"value": {"type": "number"}}}


def a_field_more_that_is_always_there(it: Any) -> None:
    a_field_more(it)
    it["$defs"]["OrderView"]["required"].append("insurance")


def a_field_is_always_there_now(it: Any) -> None:
    it["$defs"]["OrderView"]["required"].remove("notes")


def null_goes(it: Any) -> None:
    fields(it)["shippingAddress"] = fields(it)["shippingAddress"]["anyOf"][0]


def other_words(it: Any) -> None:
    fields(it)["total"] |= {"description": "With tax.", "examples": [1]}
    it["description"] = "Something else."


def a_limit_is_narrower(it: Any) -> None:
    fields(it)["number"]["minimum"] = 1001
    fields(it)["notes"]["maxLength"] = 2000


HARMLESS = [a_field_more, a_field_more_that_is_always_there, null_goes, other_words, a_limit_is_narrower]


@pytest.mark.parametrize("change", HARMLESS, ids=lambda it: it.__name__)
def test_what_breaks_nobody_passes(change: Any) -> None:
    changed = order()
    change(changed)
    assert changed != order()
    assert events.breaking(order(), changed) == []


def test_a_field_that_is_always_there_from_now_on_breaks_nobody() -> None:
    before = order()
    a_field_is_always_there_now(before)
    assert events.breaking(before, order()) == []


def test_a_schema_that_holds_itself_is_looked_at_once() -> None:
    before = order()
    fields(before, "LineView")["parts"] = {"type": "array", "items": {"$ref": "#/$defs/LineView"}}
    after = copy.deepcopy(before)
    assert events.breaking(before, after) == []
    del fields(after, "LineView")["quantity"]
    assert events.breaking(before, after) == ["data.items[].quantity is gone"]


# writing them


def test_publishing_writes_what_is_new_and_refuses_what_breaks(tmp_path: Path) -> None:
    folder = tmp_path / "events"
    assert sorted(events.publish(folder)) == sorted(f"{name}.json" for name in EVERY)
    assert events.publish(folder) == []
    grown = order()
    del fields(grown)["notes"]  # what was published knew fewer fields
    grown["$defs"]["OrderView"]["required"].remove("notes")
    path = folder / "order.created.json"
    path.write_text(json.dumps(grown))
    assert events.publish(folder) == ["order.created.json"]
    assert json.loads(path.read_text()) == order()
    richer = order()
    fields(richer)["discount"] = {"type": "number"}
    path.write_text(json.dumps(richer))
    (folder / "order.vanished.json").write_text("{}")
    with pytest.raises(Invalid) as refused:
        events.publish(folder)
    assert refused.value.fields == {
        "order.created.json": "data.discount is gone",
        "order.vanished.json": "the event is gone",
    }
    assert json.loads(path.read_text()) == richer


# serving them


class TestServed(Door):
    async def test_they_are_served_without_a_key(self, api: httpx.AsyncClient) -> None:
        del api.headers["authorization"]
        index = await api.get("/events/schemas")
        assert index.status_code == 200
        listed = index.json()["data"]
        assert [one["event"] for one in listed] == EVERY
        for one in listed:
            answer = await api.get("http://distribu" + one["schema"])
            assert answer.headers["content-type"] == "application/schema+json"
            assert answer.json() == published(one["event"])
            assert one["scope"] == WireEvent(one["event"]).carries.value

    async def test_there_is_none_of_what_is_no_event(self, api: httpx.AsyncClient) -> None:
        answer = await api.get("/events/schemas/order.vanished")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    async def test_the_page_points_at_each(self, api: httpx.AsyncClient) -> None:
        page = (await api.get("/docs")).text
        for name in EVERY:
            assert f'href="/api/v1/events/schemas/{name}"' in page
