"""The tables. SQLAlchemy describes them; nothing here connects to anything.

Every table of a company has ``company_id`` first in its primary key, in every UNIQUE and in every
foreign key, so that the schema can be spread over machines by company. A constraint that a request
can break is named, and `refusals` says what its breaking means.
"""

from collections.abc import Mapping
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import CheckConstraint, Column, ForeignKeyConstraint, Index, Table, UniqueConstraint
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, JSONB, TIMESTAMP, UUID, ExcludeConstraint

SCHEMA: Final = "distribu"
HEAD: Final = "0019"
"""The migration this describes."""

metadata: Final = sa.MetaData(schema=SCHEMA)

Text = sa.Text(collation="C")
_Money = sa.Numeric(15, 2)
_Rate = sa.Numeric(5, 4)
_Time = TIMESTAMP(timezone=True, precision=3)
_Uuid = UUID(as_uuid=False)


def _text(size: int) -> sa.String:
    return sa.String(size, collation="C")


def _entity(name: str, *items: Any) -> Table:
    return Table(
        name,
        metadata,
        Column("company_id", _Uuid, primary_key=True),
        Column("id", _Uuid, primary_key=True),
        Column("version", sa.Integer, nullable=False),
        Column("created_at", _Time, nullable=False),
        Column("updated_at", _Time, nullable=False),
        *items,
    )


def _refers(name: str, column: str, table: str) -> ForeignKeyConstraint:
    target = [f"{SCHEMA}.{table}.company_id", f"{SCHEMA}.{table}.id"]
    return ForeignKeyConstraint(["company_id", column], target, name=name)


companies = _entity(
    "companies",
    Column("name", _text(100), nullable=False),
    Column("slug", _text(60), nullable=False),
    Column("currency", _text(3), nullable=False),
    Column("time_zone", _text(64), nullable=False),
    Column("tax_rate", _Rate, nullable=False),
    Column("shipping", _Money, nullable=False),
    Column("order_minimum", _Money, nullable=False),
    Column("return_window_days", sa.Integer, nullable=False),
    Column("registration", _text(10), nullable=False),
    Column("require_second_factor", sa.Boolean, nullable=False),
    Column("api_limit", sa.Integer),
    Column("suspended_at", _Time),
    Column("deleted_at", _Time),
    Column("closed_at", _Time),
    UniqueConstraint("company_id", "currency", name="companies_currency"),
    CheckConstraint("id = company_id", name="companies_id"),
)

company_slugs = Table(
    "company_slugs",
    metadata,
    Column("slug", _text(60), nullable=False),
    Column("company_id", _Uuid, nullable=False),
    sa.PrimaryKeyConstraint("slug", name="company_slugs_pkey"),
)

order_numbers = Table(
    "order_numbers",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("last", sa.Integer, nullable=False),
    # Orders made in a month (202702), and what the subscription says of more: how many there may be in one,
    # and from when there may be none.
    Column("month", sa.Integer, nullable=False),
    Column("made", sa.Integer, nullable=False),
    Column("allowed", sa.Integer),
    Column("closes_at", _Time),
)

subscriptions = _entity(
    "subscriptions",
    Column("plan", _text(10), nullable=False),
    Column("interval", _text(5)),
    Column("status", _text(10), nullable=False),
    Column("trial_ends_at", _Time),
    Column("period_starts_at", _Time),
    Column("period_ends_at", _Time),
    Column("cancels_at", _Time),
    Column("customer_ref", _text(255)),
    Column("subscription_ref", _text(255)),
    Column("second_ref", _text(255)),
    Column("plan_set_at", _Time),
    Column("told", sa.Integer),
    CheckConstraint("id = company_id", name="subscriptions_id"),
)
Index(
    "subscriptions_trials",
    subscriptions.c.company_id,
    subscriptions.c.trial_ends_at,
    postgresql_where=subscriptions.c.status == sa.literal_column("'TRIALING'"),
)

stripe_events = _entity(
    "stripe_events",
    Column("ref", _text(255), nullable=False),
    Column("type", _text(255), nullable=False),
    Column("happened_at", _Time, nullable=False),
    Column("customer_ref", _text(255)),
    Column("subscription_ref", _text(255)),
    Column("invoice_ref", _text(255)),
    Column("invoice_number", _text(255), nullable=False),
    Column("amount", sa.Numeric),
    Column("currency", _text(3), nullable=False),
    Column("status", _text(10), nullable=False),
    Column("turn", sa.Integer),
    Column("error", _text(500), nullable=False),
    # The machine's: how often it was tried again, and when it is next.
    Column("tries", sa.Integer, nullable=False),
    Column("due_at", _Time),
    # What was applied to a company's subscription, one after the other.
    UniqueConstraint("company_id", "turn", name="stripe_events_turn"),
)
Index("stripe_events_invoice", stripe_events.c.company_id, stripe_events.c.invoice_ref)
Index("stripe_events_id", stripe_events.c.id)
Index("stripe_events_age", stripe_events.c.created_at)
Index(
    "stripe_events_due",
    stripe_events.c.due_at,
    postgresql_where=stripe_events.c.status.in_(
        [sa.literal_column("'WAITING'"), sa.literal_column("'FAILED'")]
    ),
)
Index("subscriptions_payer", subscriptions.c.customer_ref)

products = _entity(
    "products",
    Column("name", _text(200), nullable=False),
    Column("sku", _text(100)),
    Column("sku_key", _text(300)),
    Column("description", _text(2000), nullable=False),
    Column("category", _text(100), nullable=False),
    Column("unit", _text(20), nullable=False),
    Column("price", _Money, nullable=False),
    Column("stock", sa.Integer, nullable=False),
    Column("low_stock_threshold", sa.Integer, nullable=False),
    Column("is_active", sa.Boolean, nullable=False),
    Column("image_url", _text(2048)),
    Column("archived_at", _Time),
    Column("folded", Text, nullable=False),
    CheckConstraint("stock >= 0", name="products_stock"),
    CheckConstraint("price >= 0", name="products_price"),
)
Index(
    "products_sku_key",
    products.c.company_id,
    products.c.sku_key,
    unique=True,
    postgresql_where=products.c.archived_at.is_(None),
)

customers = _entity(
    "customers",
    Column("email", _text(254), nullable=False),
    Column("name", _text(100), nullable=False),
    Column("status", _text(10), nullable=False),
    Column("notes", _text(2000), nullable=False),
    Column("credit_limit", _Money),
    Column("credit_used", _Money),
    Column("tax_rate_override", _Rate),
    Column("email_verified", sa.Boolean, nullable=False),
    Column("payment_terms_days", sa.Integer, nullable=False),
    Column("addresses", JSONB, nullable=False),
    Column("folded", Text, nullable=False),
    UniqueConstraint("company_id", "email", name="customers_email"),
    # The statement that raises credit_used makes it NULL when that would pass the limit.
    CheckConstraint("credit_used IS NOT NULL AND credit_used >= 0", name="customers_credit"),
)

price_overrides = _entity(
    "price_overrides",
    Column("customer_id", _Uuid, nullable=False),
    Column("product_id", _Uuid, nullable=False),
    Column("price", _Money),
    UniqueConstraint("company_id", "customer_id", "product_id", name="price_overrides_pair"),
    CheckConstraint("price >= 0", name="price_overrides_price"),
    _refers("price_overrides_customer", "customer_id", "customers"),
    _refers("price_overrides_product", "product_id", "products"),
)

orders = _entity(
    "orders",
    Column("number", sa.Integer, nullable=False),
    Column("customer_id", _Uuid, nullable=False),
    Column("status", _text(10), nullable=False),
    Column("source", _text(10), nullable=False),
    Column("po_number", _text(100), nullable=False),
    Column("notes", _text(2000), nullable=False),
    Column("currency", _text(3), nullable=False),
    Column("subtotal", _Money, nullable=False),
    Column("tax_rate", _Rate, nullable=False),
    Column("tax", _Money, nullable=False),
    Column("shipping", _Money, nullable=False),
    Column("total", _Money, nullable=False),
    Column("paid", _Money, nullable=False),
    Column("shipping_address", JSONB),
    Column("carrier", _text(100), nullable=False),
    Column("tracking_number", _text(100), nullable=False),
    Column("placed_at", _Time, nullable=False),
    Column("delivered_at", _Time),
    UniqueConstraint("company_id", "number", name="orders_number"),
    CheckConstraint("paid BETWEEN 0 AND total", name="orders_paid"),
    _refers("orders_customer", "customer_id", "customers"),
    # A company's currency cannot change under its orders.
    ForeignKeyConstraint(
        ["company_id", "currency"],
        [f"{SCHEMA}.companies.company_id", f"{SCHEMA}.companies.currency"],
        name="orders_currency",
    ),
)
Index("orders_of_customer", orders.c.company_id, orders.c.customer_id, orders.c.id)

order_lines = Table(
    "order_lines",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("order_id", _Uuid, primary_key=True),
    Column("id", _Uuid, primary_key=True),
    Column("customer_id", _Uuid, nullable=False),
    Column("product_id", _Uuid, nullable=False),
    Column("product_name", _text(200), nullable=False),
    Column("product_sku", _text(100)),
    Column("quantity", sa.Integer, nullable=False),
    Column("unit_price", _Money, nullable=False),
    CheckConstraint("quantity > 0", name="order_lines_quantity"),
    _refers("order_lines_order", "order_id", "orders"),
    _refers("order_lines_product", "product_id", "products"),
)

stock_movements = Table(
    "stock_movements",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("id", _Uuid, primary_key=True),
    Column("product_id", _Uuid, nullable=False),
    Column("quantity", sa.Integer, nullable=False),
    Column("reason", _text(10), nullable=False),
    Column("note", _text(500), nullable=False),
    Column("order_id", _Uuid),
    Column("stock_after", sa.Integer, nullable=False),
    Column("created_at", _Time, nullable=False),
    CheckConstraint("quantity <> 0", name="stock_movements_quantity"),
    _refers("stock_movements_product", "product_id", "products"),
)
Index(
    "stock_movements_of_product",
    stock_movements.c.company_id,
    stock_movements.c.product_id,
    stock_movements.c.id,
)

payments = Table(
    "payments",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("id", _Uuid, primary_key=True),
    Column("order_id", _Uuid, nullable=False),
    Column("amount", _Money, nullable=False),
    Column("method", _text(10), nullable=False),
    Column("reference", _text(100), nullable=False),
    Column("created_at", _Time, nullable=False),
    CheckConstraint("amount > 0", name="payments_amount"),
    _refers("payments_order", "order_id", "orders"),
)
Index("payments_of_order", payments.c.company_id, payments.c.order_id, payments.c.id)

api_keys = _entity(
    "api_keys",
    Column("name", _text(100), nullable=False),
    Column("prefix", _text(8), nullable=False),
    Column("digest", BYTEA, nullable=False),
    Column("scopes", ARRAY(sa.Text), nullable=False),
    Column("expires_at", _Time),
    Column("revoked_at", _Time),
)

key_grants = Table(
    "key_grants",
    metadata,
    Column("digest", BYTEA, nullable=False),
    Column("company_id", _Uuid, nullable=False),
    Column("key_id", _Uuid, nullable=False),
    Column("name", _text(100), nullable=False),
    Column("scopes", ARRAY(sa.Text), nullable=False),
    Column("expires_at", _Time),
    Column("revoked", sa.Boolean, nullable=False),
    sa.PrimaryKeyConstraint("digest", name="key_grants_pkey"),
)

webhooks = _entity(
    "webhooks",
    Column("url", _text(2048), nullable=False),
    Column("subscribed", ARRAY(sa.Text), nullable=False),
    Column("is_active", sa.Boolean, nullable=False),
    Column("on_since", _Time, nullable=False),
    Column("secret", _text(500), nullable=False),
    Column("old_secret", _text(500)),
    Column("grace_expires_at", _Time),
    Column("removed_at", _Time),
)

company_cards = Table(
    "company_cards",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("name", _text(100), nullable=False),
    Column("slug", _text(60), nullable=False),
    Column("standing", _text(10), nullable=False),
    Column("require_second_factor", sa.Boolean, nullable=False),
    Column("api_limit", sa.Integer),
)

users = _entity(
    "users",
    Column("email", _text(254), nullable=False),
    Column("full_name", _text(100), nullable=False),
    Column("time_zone", _text(64), nullable=False),
    Column("is_super_admin", sa.Boolean, nullable=False),
    Column("wants_company", _text(100), nullable=False),
    Column("company_to_be", _Uuid),
    UniqueConstraint("company_id", "email", name="users_email"),
)

credentials = _entity(
    "credentials",
    Column("password_hash", _text(300)),
    Column("verified_at", _Time),
    Column("epoch", sa.Integer, nullable=False),
    Column("tickets", JSONB, nullable=False),
    Column("new_email", _text(254)),
)

sessions = _entity(
    "sessions",
    Column("holder_id", _Uuid, nullable=False),
    Column("epoch", sa.Integer, nullable=False),
    Column("expires_at", _Time, nullable=False),
    Column("ended_at", _Time),
    Column("current", _Uuid),
    Column("user_agent", _text(300), nullable=False),
    Column("ip", _text(45)),
    Column("seen_at", _Time, nullable=False),
    Column("factor", _text(10), nullable=False),
    _refers("sessions_holder", "holder_id", "credentials"),
)
Index("sessions_of_holder", sessions.c.company_id, sessions.c.holder_id, sessions.c.id)

second_factors = _entity(
    "second_factors",
    Column("app", _text(500)),
    Column("app_step", sa.BigInteger, nullable=False),
    Column("offered", _text(500)),
    Column("recovery", ARRAY(BYTEA), nullable=False),
    Column("passkeys", JSONB, nullable=False),
)

memberships = _entity(
    "memberships",
    Column("user_id", _Uuid, nullable=False),
    Column("role", _text(10), nullable=False),
    Column("removed_at", _Time),
)
Index(
    "memberships_user",
    memberships.c.company_id,
    memberships.c.user_id,
    unique=True,
    postgresql_where=memberships.c.removed_at.is_(None),
)
# One owner. Deferrable, so that it is looked at when a statement ends: ownership goes from row to row.
memberships.append_constraint(
    ExcludeConstraint(
        (memberships.c.company_id, "="),
        name="memberships_owner",
        using="btree",
        where=sa.text("removed_at IS NULL AND role = 'OWNER'"),
        deferrable=True,
        initially="IMMEDIATE",
    )
)

seats = Table(
    "seats",
    metadata,
    Column("user_id", _Uuid, primary_key=True),
    Column("company_id", _Uuid, primary_key=True),
    Column("membership_id", _Uuid, nullable=False),
    Column("role", _text(10), nullable=False),
    Column("removed", sa.Boolean, nullable=False),
)
Index("seats_of_company", seats.c.company_id)

invitations = _entity(
    "invitations",
    Column("email", _text(254), nullable=False),
    Column("role", _text(10), nullable=False),
    Column("ticket", JSONB, nullable=False),
    Column("invited_by", _Uuid),
    Column("accepted_at", _Time),
    Column("revoked_at", _Time),
)
Index(
    "invitations_open",
    invitations.c.company_id,
    invitations.c.email,
    unique=True,
    postgresql_where=sa.text("accepted_at IS NULL AND revoked_at IS NULL"),
)

contacts = _entity(
    "contacts",
    Column("customer_id", _Uuid, nullable=False),
    Column("email", _text(254), nullable=False),
    Column("full_name", _text(100), nullable=False),
    Column("role", _text(10), nullable=False),
    Column("is_active", sa.Boolean, nullable=False),
    Column("time_zone", _text(64), nullable=False),
    UniqueConstraint("company_id", "email", name="contacts_email"),
    _refers("contacts_customer", "customer_id", "customers"),
)
Index("contacts_of_customer", contacts.c.company_id, contacts.c.customer_id, contacts.c.id)

inquiries = _entity(
    "inquiries",
    Column("kind", _text(10), nullable=False),
    Column("full_name", _text(100), nullable=False),
    Column("email", _text(254), nullable=False),
    Column("text", _text(5000), nullable=False),
)

records = Table(
    "records",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("id", _Uuid, primary_key=True),
    Column("at", _Time, nullable=False),
    Column("actor_kind", _text(10), nullable=False),
    Column("actor_id", _text(100), nullable=False),
    Column("action", _text(100), nullable=False),
    Column("entity_type", _text(100), nullable=False),
    Column("entity_id", _text(100), nullable=False),
    Column("person_id", _Uuid, nullable=False),
    Column("body", Text, nullable=False),
)
Index("records_of_entity", records.c.company_id, records.c.entity_id, records.c.id)

record_people = Table(
    "record_people",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("id", _Uuid, primary_key=True),
    Column("salt", BYTEA, nullable=False),
    Column("label", _text(300), nullable=False),
    Column("ip", _text(45)),
)

unsealed = Table(
    "unsealed",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    # Drawn while the entity is locked: for one entity it is in the order of its changes.
    Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    Column("record_id", _Uuid, nullable=False),
)

seals = Table(
    "seals",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    Column("record_id", _Uuid, nullable=False),
    Column("leaf", BYTEA, nullable=False),
    UniqueConstraint("company_id", "record_id", name="seals_record"),
)

seal_heads = Table(
    "seal_heads",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    Column("size", sa.BigInteger, nullable=False),
    Column("root", _text(64), nullable=False),
    Column("at", _Time, nullable=False),
    Column("previous", _text(64), nullable=False),
    Column("key", _text(16), nullable=False),
    Column("signature", _text(88), nullable=False),
    # What it takes to go on: the roots of the full subtrees, one behind the other.
    Column("peaks", BYTEA, nullable=False),
)

seal_tips = Table(
    "seal_tips",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("told_at", _Time),
    Column("tell_at", _Time),
    Column("mailed_at", _Time),
    Column("mail_at", _Time),
    Column("claimed_until", _Time),
)
Index("seal_tips_tell", seal_tips.c.tell_at, postgresql_where=seal_tips.c.tell_at.is_not(None))
Index("seal_tips_mail", seal_tips.c.mail_at, postgresql_where=seal_tips.c.mail_at.is_not(None))

answers = Table(
    "answers",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("actor", _text(200), primary_key=True),
    Column("key", _text(255), primary_key=True),
    Column("customer_id", _Uuid),
    Column("fingerprint", BYTEA, nullable=False),
    Column("body", Text, nullable=False),
    Column("sealed", sa.Boolean, nullable=False),
    Column("created_at", _Time, nullable=False),
)
Index("answers_age", answers.c.created_at)

outbox = Table(
    "outbox",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    # Drawn while the entity is locked: for one entity it is in the order of its changes.
    Column("seq", sa.BigInteger, sa.Identity(always=True), primary_key=True),
    Column("id", _Uuid, nullable=False),
    Column("name", _text(40), nullable=False),
    Column("occurred_at", _Time, nullable=False),
    Column("payload", Text, nullable=False),
)

feed_heads = Table(
    "feed_heads",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("position", sa.BigInteger, nullable=False),
    # Events up to this position are not kept any more.
    Column("purged", sa.BigInteger, nullable=False),
)

feed = Table(
    "feed",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("position", sa.BigInteger, primary_key=True),
    Column("id", _Uuid, nullable=False),
    Column("name", _text(40), nullable=False),
    Column("occurred_at", _Time, nullable=False),
    Column("placed_at", _Time, nullable=False),
    Column("payload", Text, nullable=False),
)

webhook_marks = Table(
    "webhook_marks",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("webhook_id", _Uuid, primary_key=True),
    # Of the last event that the webhook was subscribed to, switched on or not.
    Column("position", sa.BigInteger, nullable=False),
    # Of the first failure since the last success.
    Column("failing_since", _Time),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("id", _Uuid, primary_key=True),
    Column("webhook_id", _Uuid, nullable=False),
    Column("position", sa.BigInteger, nullable=False),
    Column("previous", sa.BigInteger),
    Column("event_id", _Uuid, nullable=False),
    Column("event", _text(40), nullable=False),
    Column("status", _text(10), nullable=False),
    Column("attempts", sa.Integer, nullable=False),
    # Those made before somebody had it sent again, and when that was.
    Column("attempts_before", sa.Integer, nullable=False),
    Column("replayed_at", _Time),
    Column("next_attempt_at", _Time),
    Column("claimed_until", _Time),
    Column("created_at", _Time, nullable=False),
    _refers("deliveries_webhook", "webhook_id", "webhooks"),
    postgresql_with={"fillfactor": 50},
)
# Their predicates are always true, and keep them from whoever looks for a delivery by its key: to a planner
# that knows of few deliveries of a company, any index that begins with the company looks as good.
Index(
    "deliveries_of_webhook",
    deliveries.c.company_id,
    deliveries.c.webhook_id,
    deliveries.c.id,
    postgresql_where=deliveries.c.webhook_id.is_not(None),
)
Index(
    "deliveries_of_event",
    deliveries.c.company_id,
    deliveries.c.position,
    postgresql_where=deliveries.c.position.is_not(None),
)
Index(
    "deliveries_due",
    deliveries.c.company_id,
    deliveries.c.webhook_id,
    deliveries.c.next_attempt_at,
    deliveries.c.id,
    postgresql_where=deliveries.c.status == sa.literal_column("'PENDING'"),
)

Index("deliveries_dead", deliveries.c.id, postgresql_where=deliveries.c.status == sa.literal_column("'DEAD'"))

attempts = Table(
    "attempts",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("delivery_id", _Uuid, primary_key=True),
    Column("number", sa.Integer, primary_key=True),
    Column("at", _Time, nullable=False),
    Column("duration_ms", sa.Integer, nullable=False),
    Column("status", sa.Integer),
    Column("headers", JSONB, nullable=False),
    Column("body", _text(2000), nullable=False),
    Column("error", _text(500), nullable=False),
    _refers("attempts_delivery", "delivery_id", "deliveries"),
)

mails = Table(
    "mails",
    metadata,
    Column("company_id", _Uuid, primary_key=True),
    Column("id", _Uuid, primary_key=True),
    Column("created_at", _Time, nullable=False),
    # Nothing of these three is left once the mail is sent or dead.
    Column("recipient", _text(254), nullable=False),
    Column("letter", Text, nullable=False),
    Column("sealed", _text(1000)),
    Column("status", _text(10), nullable=False),
    Column("attempts", sa.Integer, nullable=False),
    Column("next_attempt_at", _Time),
    Column("claimed_until", _Time),
    Column("error", _text(500), nullable=False),
)
Index("mails_dead", mails.c.id, postgresql_where=mails.c.status == sa.literal_column("'DEAD'"))
Index("mails_due", mails.c.next_attempt_at, postgresql_where=mails.c.status == sa.literal_column("'PENDING'"))

# The machine's own, of no company.
jobs = Table(
    "jobs",
    metadata,
    Column("name", _text(40), primary_key=True),
    Column("due_at", _Time, nullable=False),
    # Whose it is, and until when.
    Column("claim", _Uuid),
    Column("claimed_until", _Time),
    Column("ran_at", _Time),
    Column("outcome", _text(10)),
)

TENANT: Final = "company_id = nullif(current_setting('app.company_id', true), '')::uuid"

FOR_CONTACTS: Final[Mapping[str, str | None]] = {
    "companies": None,
    "order_numbers": None,
    "products": None,
    "answers": "customer_id",
    "customers": "id",
    "price_overrides": "customer_id",
    "orders": "customer_id",
    "order_lines": "customer_id",
    "contacts": "customer_id",
}
"""What a contact sees of its company: all rows of a table, or those with its customer in a column.

Of a table that is not here it sees nothing.
"""

APPEND_ONLY: Final = frozenset({"records", "record_people", "stock_movements", "payments", "order_lines"})
"""The application may insert into these and read them, and nothing else."""

QUEUE_TABLES: Final[Mapping[str, str]] = {
    "outbox": "SELECT, INSERT, UPDATE (payload), DELETE",
    "feed_heads": "SELECT, INSERT, UPDATE",
    "feed": "SELECT, INSERT, UPDATE (payload), DELETE",
    "webhook_marks": "SELECT, INSERT, UPDATE",
    "deliveries": "SELECT, INSERT, UPDATE, DELETE",
    "attempts": "SELECT, INSERT, DELETE",
    "webhooks": "SELECT",
    "company_cards": "SELECT (company_id, standing)",
    "answers": "SELECT, DELETE",
    "mails": "SELECT, UPDATE, DELETE",
    "sessions": "SELECT, UPDATE (seen_at, ip)",
    "records": "SELECT",
    "record_people": "SELECT (company_id, id, label, ip), DELETE",
    "unsealed": "SELECT, DELETE",
    "seals": "SELECT, INSERT",
    "seal_heads": "SELECT, INSERT",
    "seal_tips": "SELECT, INSERT, UPDATE",
    "jobs": "SELECT, INSERT, UPDATE",
    "stripe_events": "SELECT (company_id, id, status, tries, due_at), UPDATE (tries, due_at)",
    "subscriptions": "SELECT (company_id, status, trial_ends_at, told)",
}
"""All that the queue's role can reach, of every company: no entity can be changed from there."""
