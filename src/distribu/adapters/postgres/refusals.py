"""What the breaking of a constraint means, by its name."""

from collections.abc import Callable, Mapping
from typing import Final

from distribu.domain.billing import Counted, over_plan, unpaid
from distribu.domain.errors import Conflict, NotFound, Refused

REFUSALS: Final[Mapping[str, Callable[[], Refused]]] = {
    "companies_currency": lambda: Refused("currency_fixed"),
    "orders_currency": lambda: Refused("currency_fixed"),
    "company_slugs_pkey": lambda: Conflict("duplicate_slug"),
    "products_sku_key": lambda: Conflict("duplicate_sku"),
    "products_stock": lambda: Refused("insufficient_stock"),
    "customers_email": lambda: Conflict("duplicate_email"),
    "users_email": lambda: Conflict("duplicate_email"),
    "contacts_email": lambda: Conflict("duplicate_email"),
    "contacts_customer": lambda: NotFound("customer_not_found"),
    "memberships_user": lambda: Conflict("already_member"),
    "invitations_open": lambda: Conflict("already_invited"),
    "memberships_owner": lambda: Conflict("stale_version"),
    "customers_credit": lambda: Refused("credit_limit_exceeded"),
    "price_overrides_pair": lambda: Conflict("stale_version"),
    "price_overrides_customer": lambda: NotFound("customer_not_found"),
    "price_overrides_product": lambda: NotFound("product_not_found"),
    "orders_customer": lambda: NotFound("customer_not_found"),
    "orders_paid": lambda: Refused("overpayment"),
    "order_lines_order": lambda: NotFound("order_not_found"),
    "order_lines_product": lambda: NotFound("product_not_found"),
    "stock_movements_product": lambda: NotFound("product_not_found"),
    "payments_order": lambda: NotFound("order_not_found"),
    "stale_version": lambda: Conflict("stale_version"),
    "payment_required": unpaid,
}
"""What the breaking of a constraint, by its name, means to the caller."""

DETAILED: Final[Mapping[str, Callable[[str], Refused]]] = {
    "orders_a_month": lambda numbers: over_plan(Counted.ORDERS, *map(int, numbers.split())),
}
"""The same for those that need what the error says beside their name: what is used, and what is allowed."""

RUN_AGAIN: Final = frozenset(
    {
        "companies_pkey",
        "second_factors_pkey",
        "subscriptions_pkey",
        "stripe_events_pkey",
        "stripe_events_turn",
    }
)
"""Broken when two requests make the same thing in the same moment: run again, the second finds it."""

BUGS: Final = frozenset(
    {
        "companies_id",
        "subscriptions_id",
        "products_price",
        "price_overrides_price",
        "order_lines_quantity",
        "stock_movements_quantity",
        "payments_amount",
        "orders_number",
        "key_grants_pkey",
        "deliveries_webhook",
        "attempts_delivery",
        "sessions_holder",
        "seals_record",
    }
)
"""Constraints that no request can break: the decoder or the domain is in front of them."""
