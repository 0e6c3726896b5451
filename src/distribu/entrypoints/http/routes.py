"""Which use case stands where. Adding one to the API is one line here."""

from typing import Any, Final

from distribu.application import catalog, customers, ordering, team, views, webhooks
from distribu.application.kernel import Request
from distribu.entrypoints.http.wire import Route, issued


def _read(path: str, request: type[Request[Any]], tag: str, result: type[views.View]) -> Route:
    return Route(method="GET", path=path, request=request, tag=tag, result=result)


def _list(path: str, request: type[Request[Any]], tag: str, result: type[views.View]) -> Route:
    return Route(method="GET", path=path, request=request, tag=tag, result=result, paged=True)


def _make(path: str, request: type[Request[Any]], tag: str, result: type[views.View]) -> Route:
    return Route(method="POST", path=path, request=request, tag=tag, result=result, status=201)


def _edit(
    path: str,
    request: type[Request[Any]],
    tag: str,
    result: type[views.View],
    method: str = "PATCH",
    **instead: str,
) -> Route:
    return Route(method=method, path=path, request=request, tag=tag, result=result, instead=instead)


def _remove(path: str, request: type[Request[Any]], tag: str) -> Route:
    return Route(
        method="DELETE", path=path, request=request, tag=tag, result=None, status=204, view=lambda _: None
    )


def _issue(path: str, request: type[Request[Any]], tag: str, result: type[views.View], status: int) -> Route:
    return Route(
        method="POST", path=path, request=request, tag=tag, result=result, status=status, view=issued
    )


_product, _products = "/products/{product_id:str}", "/products"
_customer, _customers = "/customers/{customer_id:str}", "/customers"
_order, _orders = "/orders/{order_id:str}", "/orders"
_webhook, _webhooks = "/webhooks/{webhook_id:str}", "/webhooks"
_override = f"{_customer}/price-overrides/{{product_id:str}}"

_BY_MOVEMENTS = "stock changes by movements only: POST /products/{id}/stock-movements"
_AS_PLACED = "a placed order cannot be edited: cancel it and place another"

ROUTES: Final = (
    _read("/me", team.ReadMe, "Key", views.MeView),
    _list(_products, catalog.ListProducts, "Products", views.ProductView),
    _make(_products, catalog.CreateProduct, "Products", views.ProductView),
    _read(_product, catalog.ReadProduct, "Products", views.ProductView),
    _edit(_product, catalog.EditProduct, "Products", views.ProductView, stock=_BY_MOVEMENTS),
    _remove(_product, catalog.ArchiveProduct, "Products"),
    _list(f"{_product}/stock-movements", catalog.ListMovements, "Products", views.StockMovementView),
    _make(f"{_product}/stock-movements", catalog.AdjustStock, "Products", views.ProductView),
    _list(_customers, customers.ListCustomers, "Customers", views.CustomerView),
    _make(_customers, customers.CreateCustomer, "Customers", views.CustomerView),
    _read(_customer, customers.ReadCustomer, "Customers", views.CustomerDetailView),
    _edit(_customer, customers.EditCustomer, "Customers", views.CustomerView),
    _list(f"{_customer}/price-overrides", customers.ListPriceOverrides, "Customers", views.PriceOverrideView),
    _edit(_override, customers.SetPriceOverride, "Customers", views.PriceOverrideView, "PUT"),
    _remove(_override, customers.RemovePriceOverride, "Customers"),
    _list(_orders, ordering.ListOrders, "Orders", views.OrderView),
    _make(_orders, ordering.PlaceOrder, "Orders", views.OrderView),
    _edit(f"{_orders}/preview", ordering.PreviewOrder, "Orders", views.PreviewView, "POST"),
    _read(_order, ordering.ReadOrder, "Orders", views.OrderView),
    _edit(_order, ordering.MoveOrder, "Orders", views.OrderView, items=_AS_PLACED),
    _make(f"{_order}/payments", ordering.RecordPayment, "Orders", views.OrderView),
    _list(_webhooks, webhooks.ListWebhooks, "Webhooks", views.WebhookView),
    _issue(_webhooks, webhooks.RegisterWebhook, "Webhooks", views.WebhookIssuedView, 201),
    _read(_webhook, webhooks.ReadWebhook, "Webhooks", views.WebhookView),
    _edit(_webhook, webhooks.EditWebhook, "Webhooks", views.WebhookView),
    _remove(_webhook, webhooks.RemoveWebhook, "Webhooks"),
    _issue(
        f"{_webhook}/rotate-secret", webhooks.RotateWebhookSecret, "Webhooks", views.WebhookIssuedView, 200
    ),
    _list(f"{_webhook}/deliveries", webhooks.ListDeliveries, "Webhooks", views.DeliveryView),
    _read("/deliveries/{delivery_id:str}", webhooks.ReadDelivery, "Webhooks", views.DeliveryDetailView),
)
"""The public API under `/api/v1`."""
