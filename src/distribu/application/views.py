"""What leaves Distribu, by API, webhook and ``--json`` alike: an allow-list of fields for each entity."""

from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from distribu.application import plans, profiles, subscriptions
from distribu.application.finders import Feed
from distribu.application.ports import NUMBER_TO_COME, Page
from distribu.application.shapes import (
    Id as Id,
    Price as Price,
    Time as Time,
    View as View,
    camel as camel,
    encode as encode,
    maybe as maybe,
    plain as plain,
    time as time,
)
from distribu.application.subscriptions import (
    DeliveryDetailView as DeliveryDetailView,
    DeliveryView as DeliveryView,
    EventView as EventView,
    ReplayView as ReplayView,
    TestView as TestView,
    WebhookIssuedView as WebhookIssuedView,
    WebhookView as WebhookView,
    webhook_issued as webhook_issued,
)
from distribu.domain.access import SCOPES, Actor, ActorKind, ApiKey
from distribu.domain.audit import Record
from distribu.domain.catalog import MovementReason, Product, StockMovement
from distribu.domain.customers import Customer, CustomerDetail, CustomerStatus, PriceOverride
from distribu.domain.errors import Bug, Refused
from distribu.domain.ordering import (
    Line,
    Order,
    OrderSource,
    OrderStatus,
    Payment,
    PaymentMethod,
    PaymentStatus,
    Totals,
)
from distribu.domain.team import Company, Registration
from distribu.domain.values import Address, Secret
from distribu.domain.webhooks import Delivery

_SHOWN: Final = 200
_NUMBER: Final = msgspec.Raw(NUMBER_TO_COME.encode())
Scope = Annotated[str, Meta(extra_json_schema={"enum": [scope.value for scope in SCOPES]})]

_Name = Annotated[str, Meta(examples=["Oat Flour 25 kg"])]
_Sku = Annotated[str, Meta(examples=["OAT-25"])]
_Currency = Annotated[str, Meta(examples=["USD"])]
_Country = Annotated[str, Meta(examples=["GB"])]
_Zero = Annotated[Price, Meta(examples=[0])]
_Count = Annotated[int, Meta(examples=[2])]
_Stock = Annotated[int, Meta(examples=[120])]
_Subtotal = Annotated[Price, Meta(examples=[36.8])]
_Tax = Annotated[Price, Meta(examples=[7.36])]
_Total = Annotated[Price, Meta(examples=[44.16])]
_None = Meta(examples=[None])


class CompanyView(View, frozen=True, kw_only=True):
    id: Id
    slug: Annotated[str, Meta(examples=["acme"])]
    name: Annotated[str, Meta(examples=["Acme Distributors"])]
    currency: _Currency
    time_zone: Annotated[str, Meta(examples=["Europe/London"])]
    tax_rate: Price
    shipping: Price
    order_minimum: Price
    return_window_days: int
    registration: Registration
    created_at: Time
    updated_at: Time


class ProductView(View, frozen=True, kw_only=True):
    id: Id
    sku: _Sku | None
    name: _Name
    description: Annotated[str, Meta(examples=["Fine oat flour, 25 kg bag."])]
    category: Annotated[str, Meta(examples=["Flour"])]
    unit: Annotated[str, Meta(examples=["bag"])]
    price: Price
    stock: _Stock
    low_stock_threshold: Annotated[int, Meta(examples=[5])]
    is_active: bool
    image_url: Annotated[str | None, Meta(examples=["https://acme.example/oat-flour.jpg"])]
    created_at: Time
    updated_at: Time


class StockMovementView(View, frozen=True, kw_only=True):
    id: Id
    product_id: Id
    quantity: Annotated[int, Meta(examples=[24])]
    reason: Annotated[MovementReason, Meta(examples=["RECEIVED"])]
    note: Annotated[str, Meta(examples=["Delivery note 8812"])]
    order_id: Annotated[Id | None, _None]
    stock_after: Annotated[int, Meta(examples=[144])]
    created_at: Time


class AddressView(View, frozen=True, kw_only=True):
    id: Id
    name: Annotated[str, Meta(examples=["Green Grocer"])]
    line1: Annotated[str, Meta(examples=["12 High Street"])]
    line2: str
    city: Annotated[str, Meta(examples=["Leeds"])]
    region: str
    postal_code: Annotated[str, Meta(examples=["LS1 4AB"])]
    country: _Country
    phone: str
    is_default: bool


class CustomerView(View, frozen=True, kw_only=True):
    id: Id
    email: Annotated[str, Meta(examples=["orders@green-grocer.example"])]
    name: Annotated[str, Meta(examples=["Green Grocer"])]
    status: CustomerStatus
    notes: str
    credit_limit: Annotated[Price | None, Meta(examples=[5000])]
    credit_used: Annotated[Price, Meta(examples=[44.16])]
    tax_rate_override: Annotated[Price | None, _None]
    email_verified: Annotated[bool, Meta(examples=[False])]
    payment_terms_days: Annotated[int, Meta(examples=[30])]
    addresses: list[AddressView]
    created_at: Time
    updated_at: Time


class PriceOverrideView(View, frozen=True, kw_only=True):
    id: Id
    customer_id: Id
    product_id: Id
    price: Annotated[Price | None, Meta(examples=[17.9])]
    created_at: Time
    updated_at: Time


class CustomerDetailView(CustomerView, frozen=True, kw_only=True):
    """A customer with its prices: the newest hundred; the rest has a page of its own."""

    price_overrides: list[PriceOverrideView]


class LineView(View, frozen=True, kw_only=True):
    id: Id
    product_id: Id
    product_name: _Name
    product_sku: _Sku | None
    quantity: _Count
    unit_price: Price


class OrderView(View, frozen=True, kw_only=True):
    id: Id
    number: int | msgspec.Raw
    status: Annotated[OrderStatus, Meta(examples=["SUBMITTED"])]
    customer_id: Id
    po_number: Annotated[str, Meta(examples=["PO-7741"])]
    notes: str
    source: Annotated[OrderSource, Meta(examples=["API"])]
    subtotal: _Subtotal
    tax: _Tax
    shipping: _Zero
    total: _Total
    paid: _Zero
    balance: _Total
    payment_status: Annotated[PaymentStatus, Meta(examples=["UNPAID"])]
    currency: _Currency
    shipping_address: AddressView | None
    carrier: str
    tracking_number: str
    items: list[LineView]
    placed_at: Time
    created_at: Time
    updated_at: Time


class PaymentView(View, frozen=True, kw_only=True):
    id: Id
    order_id: Id
    amount: Annotated[Price, Meta(examples=[44.16])]
    method: Annotated[PaymentMethod, Meta(examples=["TRANSFER"])]
    reference: Annotated[str, Meta(examples=["TRF-2201"])]
    created_at: Time


class PreviewLineView(View, frozen=True, kw_only=True):
    product_id: Id
    product_name: _Name
    product_sku: _Sku | None
    quantity: _Count
    unit_price: Price


class RefusalView(View, frozen=True, kw_only=True):
    code: str
    error: str
    fields: dict[str, str]


class PreviewView(View, frozen=True, kw_only=True):
    """What an order would be: it would be accepted when ``refusals`` is empty."""

    subtotal: _Subtotal
    tax: _Tax
    shipping: _Zero
    total: _Total
    currency: _Currency
    items: list[PreviewLineView]
    refusals: Annotated[list[RefusalView], Meta(examples=[[]])]


class ApiKeyView(View, frozen=True, kw_only=True):
    id: Id
    name: Annotated[str, Meta(examples=["ERP"])]
    prefix: Annotated[str, Meta(examples=["dk_Q2hv"])]
    scopes: list[Scope]
    expires_at: Annotated[Time | None, _None]
    revoked_at: Annotated[Time | None, _None]
    created_at: Time
    updated_at: Time


class ApiKeyIssuedView(ApiKeyView, frozen=True, kw_only=True):
    """A key with its secret, which is shown this once."""

    key: Annotated[str, Meta(examples=["dk_…"])]


class RecordView(View, frozen=True, kw_only=True):
    id: str
    at: Time
    actor_type: ActorKind
    actor_id: str
    actor_label: str | None
    ip: str | None
    action: str
    entity_type: str
    entity_id: str
    metadata: dict[str, Any]


class MeView(View, frozen=True, kw_only=True):
    company_id: Id
    company_name: Annotated[str, Meta(examples=["Acme Distributors"])]
    company_slug: Annotated[str, Meta(examples=["acme"])]
    key_name: Annotated[str, Meta(examples=["ERP"])]
    scopes: list[Scope]


class RecordBody(View, frozen=True, kw_only=True):
    """The canonical text of an audit record: what is stored, hashed and exported (format 1)."""

    v: int
    id: str
    company_id: str
    at: Time
    actor_type: ActorKind
    actor_id: str
    action: str
    entity_type: str
    entity_id: str
    person: str
    metadata: msgspec.Raw


def _company(it: Company) -> CompanyView:
    return CompanyView(
        id=it.id,
        slug=it.slug,
        name=it.name,
        currency=it.currency,
        time_zone=it.time_zone,
        tax_rate=it.tax_rate,
        shipping=it.shipping,
        order_minimum=it.order_minimum,
        return_window_days=it.return_window_days,
        registration=it.registration,
        created_at=time(it.created_at),
        updated_at=time(it.updated_at),
    )


def _product(it: Product) -> ProductView:
    return ProductView(
        id=it.id,
        sku=it.sku,
        name=it.name,
        description=it.description,
        category=it.category,
        unit=it.unit,
        price=it.price,
        stock=it.stock,
        low_stock_threshold=it.low_stock_threshold,
        is_active=it.is_active,
        image_url=it.image_url,
        created_at=time(it.created_at),
        updated_at=time(it.updated_at),
    )


def _movement(it: StockMovement) -> StockMovementView:
    return StockMovementView(
        id=it.id,
        product_id=it.product_id,
        quantity=it.quantity,
        reason=it.reason,
        note=it.note,
        order_id=it.order_id,
        stock_after=it.stock_after,
        created_at=time(it.created_at),
    )


def _address(it: Address) -> AddressView:
    return AddressView(
        id=it.id,
        name=it.name,
        line1=it.line1,
        line2=it.line2,
        city=it.city,
        region=it.region,
        postal_code=it.postal_code,
        country=it.country,
        phone=it.phone,
        is_default=it.is_default,
    )


def _customer_fields(it: Customer) -> dict[str, Any]:
    return {
        "id": it.id,
        "email": it.email,
        "name": it.name,
        "status": it.status,
        "notes": it.notes,
        "credit_limit": it.credit_limit,
        "credit_used": it.credit_used,
        "tax_rate_override": it.tax_rate_override,
        "email_verified": it.email_verified,
        "payment_terms_days": it.payment_terms_days,
        "addresses": [_address(address) for address in it.addresses],
        "created_at": time(it.created_at),
        "updated_at": time(it.updated_at),
    }


def _customer(it: Customer) -> CustomerView:
    return CustomerView(**_customer_fields(it))


def _customer_detail(it: CustomerDetail) -> CustomerDetailView:
    overrides = [_override(one) for one in it.price_overrides]
    return CustomerDetailView(**_customer_fields(it.customer), price_overrides=overrides)


def _override(it: PriceOverride) -> PriceOverrideView:
    return PriceOverrideView(
        id=it.id,
        customer_id=it.customer_id,
        product_id=it.product_id,
        price=it.price,
        created_at=time(it.created_at),
        updated_at=time(it.updated_at),
    )


def _order(it: Order) -> OrderView:
    return OrderView(
        id=it.id,
        number=it.number or _NUMBER,
        status=it.status,
        customer_id=it.customer_id,
        po_number=it.po_number,
        notes=it.notes,
        source=it.source,
        subtotal=it.subtotal,
        tax=it.tax,
        shipping=it.shipping,
        total=it.total,
        paid=it.paid,
        balance=it.balance,
        payment_status=it.payment_status,
        currency=it.currency,
        shipping_address=_address(it.shipping_address) if it.shipping_address else None,
        carrier=it.carrier,
        tracking_number=it.tracking_number,
        items=[
            LineView(
                id=line.id,
                product_id=line.product_id,
                product_name=line.product_name,
                product_sku=line.product_sku,
                quantity=line.quantity,
                unit_price=line.unit_price,
            )
            for line in it.lines
        ],
        placed_at=time(it.placed_at),
        created_at=time(it.created_at),
        updated_at=time(it.updated_at),
    )


def _payment(it: Payment) -> PaymentView:
    return PaymentView(
        id=it.id,
        order_id=it.order_id,
        amount=it.amount,
        method=it.method,
        reference=it.reference,
        created_at=time(it.created_at),
    )


def preview(lines: tuple[Line, ...], totals: Totals, currency: str, refusals: list[Refused]) -> PreviewView:
    """What an order would cost, and what would refuse it."""
    return PreviewView(
        subtotal=totals.subtotal,
        tax=totals.tax,
        shipping=totals.shipping,
        total=totals.total,
        currency=currency,
        items=[
            PreviewLineView(
                product_id=line.product_id,
                product_name=line.product_name,
                product_sku=line.product_sku,
                quantity=line.quantity,
                unit_price=line.unit_price,
            )
            for line in lines
        ],
        refusals=[RefusalView(code=no.code, error=no.message, fields=fields_of(no)) for no in refusals],
    )


def fields_of(no: Refused) -> dict[str, str]:
    """What is wrong where. Both can quote the caller, who may send a name of a million letters."""
    return {name[:_SHOWN]: told[: 2 * _SHOWN] for name, told in no.fields.items()}


def _api_key_fields(it: ApiKey) -> dict[str, Any]:
    return {
        "id": it.id,
        "name": it.name,
        "prefix": it.prefix,
        "scopes": list(it.scopes),
        "expires_at": maybe(it.expires_at),
        "revoked_at": maybe(it.revoked_at),
        "created_at": time(it.created_at),
        "updated_at": time(it.updated_at),
    }


def _api_key(it: ApiKey) -> ApiKeyView:
    return ApiKeyView(**_api_key_fields(it))


def api_key_issued(it: ApiKey, key: Secret) -> ApiKeyIssuedView:
    """A new key with its secret."""
    return ApiKeyIssuedView(**_api_key_fields(it), key=key.reveal())


def listed(it: Page[Any] | Feed) -> dict[str, Any]:
    """A page or a part of the feed, as the documented envelope; ``it`` holds what may be seen."""
    if isinstance(it, Feed):
        return {"data": it.items, "pagination": {"hasMore": it.has_more, "nextAfter": it.next_after}}
    pagination = {"hasMore": it.next_cursor is not None, "nextCursor": it.next_cursor}
    return {"data": it.items, "pagination": pagination}


def _listed(it: Any) -> Any:
    """An element of a page: deliveries are listed without their attempts."""
    return subscriptions.listed(it) if isinstance(it, Delivery) else of(it)


def _record(it: Record) -> RecordView:
    return RecordView(
        id=it.id,
        at=time(it.at),
        actor_type=it.actor_kind,
        actor_id=it.actor_id,
        actor_label=it.label,
        ip=it.ip,
        action=it.action,
        entity_type=it.entity_type,
        entity_id=it.entity_id,
        metadata=it.metadata,
    )


def me(company: Company, actor: Actor) -> MeView:
    """Who a key is."""
    return MeView(
        company_id=company.id,
        company_name=company.name,
        company_slug=company.slug,
        key_name=actor.label,
        scopes=[*sorted(actor.permissions)],
    )


_VIEWS: Final[dict[type, Callable[[Any], View]]] = {
    Company: _company,
    Product: _product,
    StockMovement: _movement,
    Customer: _customer,
    CustomerDetail: _customer_detail,
    PriceOverride: _override,
    Order: _order,
    Payment: _payment,
    ApiKey: _api_key,
    Record: _record,
    **profiles.VIEWS,
    **subscriptions.VIEWS,
    **plans.VIEWS,
}


def of(it: Any) -> Any:
    """What may be seen of a value of the domain; a view, and a page of either, is left as it is."""
    view = _VIEWS.get(type(it))
    if view is not None:
        return view(it)
    if isinstance(it, View):
        return it
    if isinstance(it, list):
        return [of(item) for item in it]
    if isinstance(it, Page):
        return Page(tuple([_listed(item) for item in it.items]), it.next_cursor)
    if isinstance(it, Feed):
        return replace(it, items=tuple([of(item) for item in it.items]))
    raise Bug(f"there is no view of {type(it).__name__}")
