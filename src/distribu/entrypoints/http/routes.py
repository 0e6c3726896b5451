"""Which use case stands where. Adding one to the API is one line here."""

from collections.abc import Mapping
from typing import Any, Final

from distribu.application import catalog, customers, ordering, team, views, webhooks
from distribu.application.kernel import Request
from distribu.entrypoints.http.wire import File, Route, issued


def reads(path: str, request: type[Request[Any]], tag: str, result: type[views.View]) -> Route:
    """One thing."""
    return Route(method="GET", path=path, request=request, tag=tag, result=result)


def reads_all(path: str, request: type[Request[Any]], tag: str, result: type[views.View]) -> Route:
    """Things of which there are few, all at once."""
    return Route(method="GET", path=path, request=request, tag=tag, result=result, many=True)


def lists(path: str, request: type[Request[Any]], tag: str, result: type[views.View]) -> Route:
    """A page of things."""
    return Route(method="GET", path=path, request=request, tag=tag, result=result, paged=True)


def feeds(path: str, request: type[Request[Any]], tag: str, result: type[views.View]) -> Route:
    """What follows a position, oldest first."""
    return Route(
        method="GET", path=path, request=request, tag=tag, result=result, paged=True, cursor="nextAfter"
    )


def streams(path: str, request: type[Request[Any]], tag: str, files: Mapping[str, File]) -> Route:
    """A file of any size, of one of these formats."""
    return Route(method="GET", path=path, request=request, tag=tag, result=None, files=files)


def makes(path: str, request: type[Request[Any]], tag: str, result: type[views.View]) -> Route:
    """A POST that makes something: 201."""
    return Route(method="POST", path=path, request=request, tag=tag, result=result, status=201)


def edits(
    path: str,
    request: type[Request[Any]],
    tag: str,
    result: type[views.View],
    method: str = "PATCH",
    **instead: str,
) -> Route:
    """A change of something, answered with what it is then."""
    return Route(method=method, path=path, request=request, tag=tag, result=result, instead=instead)


def removes(path: str, request: type[Request[Any]], tag: str) -> Route:
    """A DELETE: 204."""
    return Route(
        method="DELETE", path=path, request=request, tag=tag, result=None, status=204, view=lambda _: None
    )


def issues(path: str, request: type[Request[Any]], tag: str, result: type[views.View], status: int) -> Route:
    """Something new with a secret that is shown this once."""
    return Route(
        method="POST", path=path, request=request, tag=tag, result=result, status=status, view=issued
    )


_product, _products = "/products/{product_id:str}", "/products"
_customer, _customers = "/customers/{customer_id:str}", "/customers"
_order, _orders = "/orders/{order_id:str}", "/orders"
_delivery = "/deliveries/{delivery_id:str}"
_webhook, _webhooks = "/webhooks/{webhook_id:str}", "/webhooks"
_override = f"{_customer}/price-overrides/{{product_id:str}}"

_BY_MOVEMENTS = "stock changes by movements only: POST /products/{id}/stock-movements"
_AS_PLACED = "a placed order cannot be edited: cancel it and place another"

ROUTES: Final = (
    reads("/me", team.ReadMe, "Key", views.MeView),
    lists(_products, catalog.ListProducts, "Products", views.ProductView),
    makes(_products, catalog.CreateProduct, "Products", views.ProductView),
    reads(_product, catalog.ReadProduct, "Products", views.ProductView),
    edits(_product, catalog.EditProduct, "Products", views.ProductView, stock=_BY_MOVEMENTS),
    removes(_product, catalog.ArchiveProduct, "Products"),
    lists(f"{_product}/stock-movements", catalog.ListMovements, "Products", views.StockMovementView),
    makes(f"{_product}/stock-movements", catalog.AdjustStock, "Products", views.ProductView),
    lists(_customers, customers.ListCustomers, "Customers", views.CustomerView),
    makes(_customers, customers.CreateCustomer, "Customers", views.CustomerView),
    reads(_customer, customers.ReadCustomer, "Customers", views.CustomerDetailView),
    edits(_customer, customers.EditCustomer, "Customers", views.CustomerView),
    lists(f"{_customer}/price-overrides", customers.ListPriceOverrides, "Customers", views.PriceOverrideView),
    edits(_override, customers.SetPriceOverride, "Customers", views.PriceOverrideView, "PUT"),
    removes(_override, customers.RemovePriceOverride, "Customers"),
    lists(_orders, ordering.ListOrders, "Orders", views.OrderView),
    makes(_orders, ordering.PlaceOrder, "Orders", views.OrderView),
    edits(f"{_orders}/preview", ordering.PreviewOrder, "Orders", views.PreviewView, "POST"),
    reads(_order, ordering.ReadOrder, "Orders", views.OrderView),
    edits(_order, ordering.MoveOrder, "Orders", views.OrderView, items=_AS_PLACED),
    lists(f"{_order}/payments", ordering.ListPayments, "Orders", views.PaymentView),
    makes(f"{_order}/payments", ordering.RecordPayment, "Orders", views.OrderView),
    lists(_webhooks, webhooks.ListWebhooks, "Webhooks", views.WebhookView),
    issues(_webhooks, webhooks.RegisterWebhook, "Webhooks", views.WebhookIssuedView, 201),
    reads(_webhook, webhooks.ReadWebhook, "Webhooks", views.WebhookView),
    edits(_webhook, webhooks.EditWebhook, "Webhooks", views.WebhookView),
    removes(_webhook, webhooks.RemoveWebhook, "Webhooks"),
    issues(
        f"{_webhook}/rotate-secret", webhooks.RotateWebhookSecret, "Webhooks", views.WebhookIssuedView, 200
    ),
    lists(f"{_webhook}/deliveries", webhooks.ListDeliveries, "Webhooks", views.DeliveryView),
    edits(f"{_webhook}/test", webhooks.SendTest, "Webhooks", views.TestView, "POST"),
    edits(f"{_webhook}/replay", webhooks.ReplayDeliveries, "Webhooks", views.ReplayView, "POST"),
    reads(_delivery, webhooks.ReadDelivery, "Webhooks", views.DeliveryDetailView),
    edits(f"{_delivery}/replay", webhooks.ReplayDelivery, "Webhooks", views.DeliveryDetailView, "POST"),
    feeds("/events", webhooks.ListEvents, "Webhooks", views.EventView),
)
"""The public API under `/api/v1`."""
