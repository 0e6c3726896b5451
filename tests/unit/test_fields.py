"""What a caller sends cannot exist outside its limits, however it was made."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from distribu import Invalid, amount
from distribu.application import fields, views
from distribu.application.access import CreateApiKey
from distribu.application.audit import RecordAudit
from distribu.application.catalog import AdjustStock, CreateProduct, EditProduct, ListProducts, MoveReason
from distribu.application.customers import CreateCustomer, EditCustomer, NewAddress
from distribu.application.ordering import ListOrders, PlaceOrder, Wanted
from distribu.domain.access import SCOPES, Permission
from distribu.domain.customers import CustomerStatus
from distribu.domain.ordering import LINES_MAX, QUANTITY_MAX

ID: Any = "0195b2f0-7c1e-7d3a-8f00-5a1c2e9b4d10"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def product(**given: Any) -> CreateProduct:
    asked: dict[str, Any] = {"name": "Oat Flour", "price": amount("1.00"), **given}
    return CreateProduct(**asked)


def refused(field: str, make: Any, **fields: Any) -> None:
    with pytest.raises(Invalid) as error:
        make(**fields)
    assert error.value.code == "invalid_request"
    assert list(error.value.fields) == [field]


@pytest.mark.parametrize(
    ("name", "wire", "wrong"),
    [
        ("name", "name", ""),
        ("name", "name", "x" * 201),
        ("name", "name", 1),
        ("name", "name", b"Oat"),
        ("name", "name", None),
        ("name", "name", msgspec.UNSET),
        ("name", "name", "Oat\0"),
        ("name", "name", "Oat\ud800"),
        ("image_url", "imageUrl", "ftp://x"),
        ("image_url", "imageUrl", "https://x y"),
        ("image_url", "imageUrl", "https://x\n"),
        ("image_url", "imageUrl", "https://x/\udfff"),
        ("price", "price", Decimal("NaN")),
        ("price", "price", Decimal("sNaN")),
        ("price", "price", Decimal("Infinity")),
        ("price", "price", Decimal("-0.01")),
        ("price", "price", Decimal("0.001")),
        ("price", "price", Decimal(10) ** 12 + Decimal("0.01")),
        ("price", "price", Decimal("1e400")),
        ("stock", "stock", -1),
        ("stock", "stock", 10**9 + 1),
        ("stock", "stock", 1.0),
        ("stock", "stock", True),
        ("is_active", "isActive", 1),
        ("low_stock_threshold", "lowStockThreshold", None),
    ],
)
def test_a_value_that_does_not_fit(name: str, wire: str, wrong: Any) -> None:
    refused(wire, product, **{name: wrong})


def test_what_fits_is_taken() -> None:
    made = product(name="x" * 200, price=Decimal("1e12"), stock=10**9, sku=None, image_url="https://x")
    assert (made.price, made.stock) == (Decimal("1000000000000.00"), 10**9)


def test_money_gets_its_two_places() -> None:
    assert str(product(price=Decimal(1)).price) == "1.00"
    assert str(product(price=Decimal("1.50000")).price) == "1.50"
    assert str(product(price=Decimal("-0.0")).price) == "0.00"


def test_what_was_not_sent_is_not_looked_at() -> None:
    edit = EditProduct(product_id=ID)
    assert edit.given("product_id", "version") == {}
    edit = EditProduct(product_id=ID, sku=None, category="Flour")
    assert edit.given("product_id", "version") == {"sku": None, "category": "Flour"}
    refused("name", EditProduct, product_id=ID, name=None)
    refused("name", EditProduct, product_id=ID, name="")
    refused("price", EditProduct, product_id=ID, price=Decimal("-1"))
    refused("version", EditProduct, product_id=ID, version=0)


@pytest.mark.parametrize(
    "wrong", ["", "1", ID.upper(), ID + "\n", " " + ID, ID + "0", ID.replace("-", ""), None, 1]
)
def test_an_id_has_one_form(wrong: Any) -> None:
    refused("productId", EditProduct, product_id=wrong)


def test_a_limit_and_a_cursor() -> None:
    assert ListProducts(limit=100, cursor=ID).limit == 100
    for wrong in (0, 101, True, 1.5, "1", None):
        refused("limit", ListProducts, limit=wrong)
    refused("cursor", ListProducts, cursor="x")


def test_a_sequence() -> None:
    one = Wanted(product_id=ID, quantity=1)
    assert len(PlaceOrder(customer_id=ID, items=(one,) * LINES_MAX).items) == LINES_MAX
    lists: list[Any] = [(), (one,) * (LINES_MAX + 1), [one], (one, "two"), ({"productId": ID},), None]
    for wrong in lists:
        refused("items", PlaceOrder, customer_id=ID, items=wrong)
    for quantity in (0, -1, QUANTITY_MAX + 1, 1.0, True, "1"):
        refused("quantity", Wanted, product_id=ID, quantity=quantity)


def test_a_choice() -> None:
    assert AdjustStock(product_id=ID, quantity=1, reason=MoveReason.RECEIVED).quantity == 1
    refused("reason", AdjustStock, product_id=ID, quantity=1, reason="RECEIVED")
    refused("status", EditCustomer, customer_id=ID, status="ACTIVE")
    assert EditCustomer(customer_id=ID, status=CustomerStatus.BLOCKED).status is CustomerStatus.BLOCKED


def test_scopes() -> None:
    assert CreateApiKey(name="ERP", scopes=SCOPES).scopes == SCOPES
    refused("scopes", CreateApiKey, name="ERP", scopes=())
    refused("scopes", CreateApiKey, name="ERP", scopes=("orders:read",))
    refused("scopes", CreateApiKey, name="ERP", scopes=(*SCOPES, Permission.ORDERS_READ))


def test_an_address() -> None:
    fine = NewAddress(line1="12 High Street", city="Leeds", country="GB")
    assert CreateCustomer(email="a@b.example", addresses=(fine,)).addresses == (fine,)
    for wrong in ("gb", "GBR", "", "G1"):
        refused("country", NewAddress, line1="x", city="Leeds", country=wrong)
    refused("addresses", CreateCustomer, email="a@b.example", addresses=(fine,) * 101)


def test_a_tax_rate() -> None:
    def customer(rate: str) -> CreateCustomer:
        given: Any = Decimal(rate)
        return CreateCustomer(email="a@b.example", tax_rate_override=given)

    assert str(customer("0.3").tax_rate_override) == "0.3000"
    assert str(customer("-0").tax_rate_override) == "0.0000"
    for wrong in ("0.30001", "-0.1", "0.12345", "NaN"):
        refused("taxRateOverride", customer, rate=wrong)


def test_a_moment_is_utc_and_whole_milliseconds() -> None:
    tokyo, hawaii = timezone(timedelta(hours=9)), timezone(timedelta(hours=-10))
    asked = ListOrders(since=datetime(2026, 1, 31, 21, 0, 0, 123_999, tzinfo=tokyo))
    assert asked.since == datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)
    assert asked.since is not None
    assert asked.since.tzinfo is UTC
    first, last = datetime(1, 1, 1, tzinfo=tokyo), datetime(9999, 12, 31, 23, tzinfo=hawaii)
    for wrong in (
        NOON.replace(tzinfo=None),
        "2026-01-31T12:00:00Z",
        first,
        last,
        NOON.date(),
    ):
        refused("since", ListOrders, since=wrong)


def test_free_json_has_a_limit_too() -> None:
    assert RecordAudit(action="report.sent", metadata={"rows": [1, "two"]}).metadata == {"rows": [1, "two"]}
    big = {"text": "x" * fields.JSON_MAX}
    nuls: list[Any] = [big, {"a": "\0"}, {"\0": 1}, {"a": [{"b": ("\0",)}]}, {"a": "\ud800"}]
    for wrong in nuls:
        refused("metadata", RecordAudit, action="report.sent", metadata=wrong)
    assert RecordAudit(action="report.sent", metadata={"a": "\\u0000"}).metadata
    for action in ("", "Report", "a..b", ".a", "a.", "a b", "x" * 81, "a\n"):
        refused("action", RecordAudit, action=action)


def test_an_unknown_field_cannot_be_built_either() -> None:
    with pytest.raises(TypeError, match="stock"):
        EditProduct(product_id=ID, stock=5)  # type: ignore[call-arg]  # that is what is tried


@given(st.text(max_size=210))
def test_a_name_is_taken_or_refused_and_never_breaks_anything(name: str) -> None:
    try:
        made = product(name=name)
    except Invalid:
        assert not name or len(name) > 200 or "\0" in name or any("\ud800" <= one <= "\udfff" for one in name)
    else:
        assert msgspec.json.decode(views.encode(made))["name"] == name


@given(st.decimals(allow_nan=True, allow_infinity=True))
def test_an_amount_is_exact_or_refused(price: Decimal) -> None:
    try:
        made = product(price=price)
    except Invalid:
        fits = price.is_finite() and 0 <= price <= 10**12 and price == round(price, 2)
        assert not fits
    else:
        assert made.price == price
        assert made.price.as_tuple().exponent == -2
        assert f'"price":{made.price}' in views.encode(made).decode()


@given(st.text(alphabet="0123456789eE+-.", max_size=30))
def test_a_number_is_read_as_it_is_written_or_refused(text: str) -> None:
    try:
        number = fields.decimal_of(text)
    except ValueError:
        return
    assert number == Decimal(text)
