-- What `schema` describes, and what it cannot: functions, privileges and row-level security.
-- Companies are kept apart here a second time, by the server itself.
CREATE TABLE distribu.answers (
    company_id UUID NOT NULL,
    actor VARCHAR(200) COLLATE "C" NOT NULL,
    key VARCHAR(255) COLLATE "C" NOT NULL,
    customer_id UUID,
    fingerprint BYTEA NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    sealed BOOLEAN NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    PRIMARY KEY (company_id, actor, key)
);
CREATE INDEX answers_age ON distribu.answers (created_at);
CREATE TABLE distribu.api_keys (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    name VARCHAR(100) COLLATE "C" NOT NULL,
    prefix VARCHAR(8) COLLATE "C" NOT NULL,
    digest BYTEA NOT NULL,
    scopes TEXT[] NOT NULL,
    expires_at TIMESTAMP(3) WITH TIME ZONE,
    revoked_at TIMESTAMP(3) WITH TIME ZONE,
    PRIMARY KEY (company_id, id)
);
CREATE TABLE distribu.companies (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    name VARCHAR(100) COLLATE "C" NOT NULL,
    slug VARCHAR(60) COLLATE "C" NOT NULL,
    currency VARCHAR(3) COLLATE "C" NOT NULL,
    time_zone VARCHAR(64) COLLATE "C" NOT NULL,
    tax_rate NUMERIC(5, 4) NOT NULL,
    shipping NUMERIC(15, 2) NOT NULL,
    order_minimum NUMERIC(15, 2) NOT NULL,
    return_window_days INTEGER NOT NULL,
    registration VARCHAR(10) COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT companies_currency UNIQUE (company_id, currency),
    CONSTRAINT companies_id CHECK (id = company_id)
);
CREATE TABLE distribu.company_slugs (
    slug VARCHAR(60) COLLATE "C" NOT NULL,
    company_id UUID NOT NULL,
    CONSTRAINT company_slugs_pkey PRIMARY KEY (slug)
);
CREATE TABLE distribu.customers (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    email VARCHAR(254) COLLATE "C" NOT NULL,
    name VARCHAR(100) COLLATE "C" NOT NULL,
    status VARCHAR(10) COLLATE "C" NOT NULL,
    notes VARCHAR(2000) COLLATE "C" NOT NULL,
    credit_limit NUMERIC(15, 2),
    credit_used NUMERIC(15, 2),
    tax_rate_override NUMERIC(5, 4),
    email_verified BOOLEAN NOT NULL,
    payment_terms_days INTEGER NOT NULL,
    addresses JSONB NOT NULL,
    folded TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT customers_email UNIQUE (company_id, email),
    CONSTRAINT customers_credit CHECK (credit_used IS NOT NULL AND credit_used >= 0)
);
CREATE TABLE distribu.feed (
    company_id UUID NOT NULL,
    position BIGINT NOT NULL,
    id UUID NOT NULL,
    name VARCHAR(40) COLLATE "C" NOT NULL,
    occurred_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    payload TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, position)
);
CREATE TABLE distribu.feed_heads (
    company_id UUID NOT NULL,
    position BIGINT NOT NULL,
    PRIMARY KEY (company_id)
);
CREATE TABLE distribu.key_grants (
    digest BYTEA NOT NULL,
    company_id UUID NOT NULL,
    key_id UUID NOT NULL,
    name VARCHAR(100) COLLATE "C" NOT NULL,
    scopes TEXT[] NOT NULL,
    expires_at TIMESTAMP(3) WITH TIME ZONE,
    revoked BOOLEAN NOT NULL,
    CONSTRAINT key_grants_pkey PRIMARY KEY (digest)
);
CREATE TABLE distribu.order_numbers (
    company_id UUID NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (company_id)
);
CREATE TABLE distribu.outbox (
    company_id UUID NOT NULL,
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    id UUID NOT NULL,
    name VARCHAR(40) COLLATE "C" NOT NULL,
    occurred_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    payload TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, seq)
);
CREATE TABLE distribu.products (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    name VARCHAR(200) COLLATE "C" NOT NULL,
    sku VARCHAR(100) COLLATE "C",
    sku_key VARCHAR(300) COLLATE "C",
    description VARCHAR(2000) COLLATE "C" NOT NULL,
    category VARCHAR(100) COLLATE "C" NOT NULL,
    unit VARCHAR(20) COLLATE "C" NOT NULL,
    price NUMERIC(15, 2) NOT NULL,
    stock INTEGER NOT NULL,
    low_stock_threshold INTEGER NOT NULL,
    is_active BOOLEAN NOT NULL,
    image_url VARCHAR(2048) COLLATE "C",
    archived_at TIMESTAMP(3) WITH TIME ZONE,
    folded TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT products_stock CHECK (stock >= 0),
    CONSTRAINT products_price CHECK (price >= 0)
);
CREATE UNIQUE INDEX products_sku_key ON distribu.products (company_id, sku_key) WHERE archived_at IS NULL;
CREATE TABLE distribu.record_people (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    salt BYTEA NOT NULL,
    label VARCHAR(300) COLLATE "C" NOT NULL,
    ip VARCHAR(45) COLLATE "C",
    PRIMARY KEY (company_id, id)
);
CREATE TABLE distribu.records (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    actor_kind VARCHAR(10) COLLATE "C" NOT NULL,
    actor_id VARCHAR(100) COLLATE "C" NOT NULL,
    action VARCHAR(100) COLLATE "C" NOT NULL,
    entity_type VARCHAR(100) COLLATE "C" NOT NULL,
    entity_id VARCHAR(100) COLLATE "C" NOT NULL,
    person_id UUID NOT NULL,
    body TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, id)
);
CREATE INDEX records_of_entity ON distribu.records (company_id, entity_id, id);
CREATE TABLE distribu.webhooks (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    url VARCHAR(2048) COLLATE "C" NOT NULL,
    subscribed TEXT[] NOT NULL,
    is_active BOOLEAN NOT NULL,
    secret VARCHAR(500) COLLATE "C" NOT NULL,
    old_secret VARCHAR(500) COLLATE "C",
    grace_expires_at TIMESTAMP(3) WITH TIME ZONE,
    removed_at TIMESTAMP(3) WITH TIME ZONE,
    PRIMARY KEY (company_id, id)
);
CREATE TABLE distribu.deliveries (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    webhook_id UUID NOT NULL,
    position BIGINT NOT NULL,
    event_id UUID NOT NULL,
    event VARCHAR(40) COLLATE "C" NOT NULL,
    status VARCHAR(10) COLLATE "C" NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at TIMESTAMP(3) WITH TIME ZONE,
    claimed_until TIMESTAMP(3) WITH TIME ZONE,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT deliveries_webhook FOREIGN KEY(company_id, webhook_id) REFERENCES distribu.webhooks (company_id, id)
);
CREATE INDEX deliveries_due ON distribu.deliveries (next_attempt_at) WHERE status = 'PENDING';
CREATE INDEX deliveries_of_webhook ON distribu.deliveries (company_id, webhook_id, id);
CREATE TABLE distribu.orders (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    number INTEGER NOT NULL,
    customer_id UUID NOT NULL,
    status VARCHAR(10) COLLATE "C" NOT NULL,
    source VARCHAR(10) COLLATE "C" NOT NULL,
    po_number VARCHAR(100) COLLATE "C" NOT NULL,
    notes VARCHAR(2000) COLLATE "C" NOT NULL,
    currency VARCHAR(3) COLLATE "C" NOT NULL,
    subtotal NUMERIC(15, 2) NOT NULL,
    tax_rate NUMERIC(5, 4) NOT NULL,
    tax NUMERIC(15, 2) NOT NULL,
    shipping NUMERIC(15, 2) NOT NULL,
    total NUMERIC(15, 2) NOT NULL,
    paid NUMERIC(15, 2) NOT NULL,
    shipping_address JSONB,
    carrier VARCHAR(100) COLLATE "C" NOT NULL,
    tracking_number VARCHAR(100) COLLATE "C" NOT NULL,
    placed_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    delivered_at TIMESTAMP(3) WITH TIME ZONE,
    PRIMARY KEY (company_id, id),
    CONSTRAINT orders_number UNIQUE (company_id, number),
    CONSTRAINT orders_paid CHECK (paid BETWEEN 0 AND total),
    CONSTRAINT orders_customer FOREIGN KEY(company_id, customer_id) REFERENCES distribu.customers (company_id, id),
    CONSTRAINT orders_currency FOREIGN KEY(company_id, currency) REFERENCES distribu.companies (company_id, currency)
);
CREATE INDEX orders_of_customer ON distribu.orders (company_id, customer_id, id);
CREATE TABLE distribu.price_overrides (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    customer_id UUID NOT NULL,
    product_id UUID NOT NULL,
    price NUMERIC(15, 2),
    PRIMARY KEY (company_id, id),
    CONSTRAINT price_overrides_pair UNIQUE (company_id, customer_id, product_id),
    CONSTRAINT price_overrides_price CHECK (price >= 0),
    CONSTRAINT price_overrides_customer FOREIGN KEY(company_id, customer_id) REFERENCES distribu.customers (company_id, id),
    CONSTRAINT price_overrides_product FOREIGN KEY(company_id, product_id) REFERENCES distribu.products (company_id, id)
);
CREATE TABLE distribu.stock_movements (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    product_id UUID NOT NULL,
    quantity INTEGER NOT NULL,
    reason VARCHAR(10) COLLATE "C" NOT NULL,
    note VARCHAR(500) COLLATE "C" NOT NULL,
    order_id UUID,
    stock_after INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT stock_movements_quantity CHECK (quantity <> 0),
    CONSTRAINT stock_movements_product FOREIGN KEY(company_id, product_id) REFERENCES distribu.products (company_id, id)
);
CREATE INDEX stock_movements_of_product ON distribu.stock_movements (company_id, product_id, id);
CREATE TABLE distribu.attempts (
    company_id UUID NOT NULL,
    delivery_id UUID NOT NULL,
    number INTEGER NOT NULL,
    at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    duration_ms INTEGER NOT NULL,
    status INTEGER,
    headers JSONB NOT NULL,
    body VARCHAR(2000) COLLATE "C" NOT NULL,
    error VARCHAR(500) COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, delivery_id, number),
    CONSTRAINT attempts_delivery FOREIGN KEY(company_id, delivery_id) REFERENCES distribu.deliveries (company_id, id)
);
CREATE TABLE distribu.order_lines (
    company_id UUID NOT NULL,
    order_id UUID NOT NULL,
    id UUID NOT NULL,
    customer_id UUID NOT NULL,
    product_id UUID NOT NULL,
    product_name VARCHAR(200) COLLATE "C" NOT NULL,
    product_sku VARCHAR(100) COLLATE "C",
    quantity INTEGER NOT NULL,
    unit_price NUMERIC(15, 2) NOT NULL,
    PRIMARY KEY (company_id, order_id, id),
    CONSTRAINT order_lines_quantity CHECK (quantity > 0),
    CONSTRAINT order_lines_order FOREIGN KEY(company_id, order_id) REFERENCES distribu.orders (company_id, id),
    CONSTRAINT order_lines_product FOREIGN KEY(company_id, product_id) REFERENCES distribu.products (company_id, id)
);
CREATE TABLE distribu.payments (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    order_id UUID NOT NULL,
    amount NUMERIC(15, 2) NOT NULL,
    method VARCHAR(10) COLLATE "C" NOT NULL,
    reference VARCHAR(100) COLLATE "C" NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT payments_amount CHECK (amount > 0),
    CONSTRAINT payments_order FOREIGN KEY(company_id, order_id) REFERENCES distribu.orders (company_id, id)
);
CREATE INDEX payments_of_order ON distribu.payments (company_id, order_id, id);

-- The updates of one message all count, or none does.
CREATE FUNCTION distribu.stale() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a row is not at the version it was read at'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'stale_version';
END $$;

-- Privileges keep the application from it; this keeps everybody.
CREATE FUNCTION distribu.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON distribu.records
    FOR EACH ROW EXECUTE FUNCTION distribu.append_only();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON distribu.records
    FOR EACH STATEMENT EXECUTE FUNCTION distribu.append_only();

GRANT USAGE ON SCHEMA distribu TO distribu_tenant, distribu_machine;
GRANT SELECT ON distribu.alembic_version TO distribu_tenant, distribu_machine;

ALTER TABLE distribu.answers ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.answers FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.answers TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid))
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE ON distribu.answers TO distribu_tenant;
CREATE POLICY machine ON distribu.answers TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, DELETE ON distribu.answers TO distribu_machine;

ALTER TABLE distribu.api_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.api_keys FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.api_keys TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.api_keys TO distribu_tenant;

ALTER TABLE distribu.companies ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.companies FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.companies TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
CREATE POLICY contact ON distribu.companies FOR SELECT TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON distribu.companies TO distribu_tenant;

ALTER TABLE distribu.company_slugs ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.company_slugs FORCE ROW LEVEL SECURITY;
CREATE POLICY look_up ON distribu.company_slugs FOR SELECT TO distribu_tenant USING (true);
CREATE POLICY own ON distribu.company_slugs FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT ON distribu.company_slugs TO distribu_tenant;

ALTER TABLE distribu.customers ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.customers FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.customers TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR id = nullif(current_setting('app.customer_id', true), '')::uuid))
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR id = nullif(current_setting('app.customer_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE ON distribu.customers TO distribu_tenant;

ALTER TABLE distribu.feed ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.feed FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.feed FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT ON distribu.feed TO distribu_tenant;
CREATE POLICY machine ON distribu.feed TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON distribu.feed TO distribu_machine;

ALTER TABLE distribu.feed_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.feed_heads FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.feed_heads FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT ON distribu.feed_heads TO distribu_tenant;
CREATE POLICY machine ON distribu.feed_heads TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON distribu.feed_heads TO distribu_machine;

ALTER TABLE distribu.key_grants ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.key_grants FORCE ROW LEVEL SECURITY;
CREATE POLICY look_up ON distribu.key_grants FOR SELECT TO distribu_tenant USING (true);
CREATE POLICY own ON distribu.key_grants FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
CREATE POLICY revoke ON distribu.key_grants FOR UPDATE TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL AND revoked);
GRANT SELECT, INSERT, UPDATE (revoked) ON distribu.key_grants TO distribu_tenant;

ALTER TABLE distribu.order_numbers ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.order_numbers FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.order_numbers TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON distribu.order_numbers TO distribu_tenant;

ALTER TABLE distribu.outbox ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.outbox FORCE ROW LEVEL SECURITY;
CREATE POLICY written ON distribu.outbox FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT INSERT ON distribu.outbox TO distribu_tenant;
CREATE POLICY machine ON distribu.outbox TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, DELETE ON distribu.outbox TO distribu_machine;

ALTER TABLE distribu.products ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.products FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.products TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT SELECT, INSERT, UPDATE ON distribu.products TO distribu_tenant;

ALTER TABLE distribu.record_people ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.record_people FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.record_people FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
CREATE POLICY written ON distribu.record_people FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT SELECT, INSERT ON distribu.record_people TO distribu_tenant;

ALTER TABLE distribu.records ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.records FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.records FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
CREATE POLICY written ON distribu.records FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT SELECT, INSERT ON distribu.records TO distribu_tenant;

ALTER TABLE distribu.webhooks ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.webhooks FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.webhooks TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.webhooks TO distribu_tenant;
CREATE POLICY machine ON distribu.webhooks TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT ON distribu.webhooks TO distribu_machine;

ALTER TABLE distribu.deliveries ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.deliveries FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.deliveries FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT ON distribu.deliveries TO distribu_tenant;
CREATE POLICY machine ON distribu.deliveries TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON distribu.deliveries TO distribu_machine;

ALTER TABLE distribu.orders ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.orders FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.orders TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid))
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE ON distribu.orders TO distribu_tenant;

ALTER TABLE distribu.price_overrides ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.price_overrides FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.price_overrides TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
CREATE POLICY contact ON distribu.price_overrides FOR SELECT TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE ON distribu.price_overrides TO distribu_tenant;

ALTER TABLE distribu.stock_movements ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.stock_movements FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.stock_movements FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
CREATE POLICY written ON distribu.stock_movements FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT SELECT, INSERT ON distribu.stock_movements TO distribu_tenant;

ALTER TABLE distribu.attempts ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.attempts FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.attempts FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT ON distribu.attempts TO distribu_tenant;
CREATE POLICY machine ON distribu.attempts TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON distribu.attempts TO distribu_machine;

ALTER TABLE distribu.order_lines ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.order_lines FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.order_lines TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid))
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid));
GRANT SELECT, INSERT ON distribu.order_lines TO distribu_tenant;

ALTER TABLE distribu.payments ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.payments FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.payments TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT ON distribu.payments TO distribu_tenant;
