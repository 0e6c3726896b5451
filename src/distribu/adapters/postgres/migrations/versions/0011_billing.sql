CREATE TABLE distribu.subscriptions (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    plan VARCHAR(10) COLLATE "C" NOT NULL,
    interval VARCHAR(5) COLLATE "C",
    status VARCHAR(10) COLLATE "C" NOT NULL,
    trial_ends_at TIMESTAMP(3) WITH TIME ZONE,
    period_starts_at TIMESTAMP(3) WITH TIME ZONE,
    period_ends_at TIMESTAMP(3) WITH TIME ZONE,
    cancels_at TIMESTAMP(3) WITH TIME ZONE,
    customer_ref VARCHAR(255) COLLATE "C",
    subscription_ref VARCHAR(255) COLLATE "C",
    told INTEGER,
    known_at TIMESTAMP(3) WITH TIME ZONE,
    PRIMARY KEY (company_id, id),
    CONSTRAINT subscriptions_id CHECK (id = company_id)
);

-- The companies that are there were founded where nothing is sold. When their trial was to end is kept; it ends
-- nothing. Forced row-level security would hide them from us.
ALTER TABLE distribu.companies NO FORCE ROW LEVEL SECURITY;
INSERT INTO distribu.subscriptions (company_id, id, version, created_at, updated_at, plan, status, trial_ends_at)
SELECT company_id, id, 1, created_at, updated_at, 'UNLIMITED', 'UNLIMITED', trial_ends_at
FROM distribu.companies WHERE trial_ends_at IS NOT NULL;
ALTER TABLE distribu.companies FORCE ROW LEVEL SECURITY;
ALTER TABLE distribu.companies DROP COLUMN trial_ends_at;

ALTER TABLE distribu.subscriptions ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.subscriptions FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.subscriptions TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.subscriptions TO distribu_tenant;

ALTER TABLE distribu.order_numbers
    ADD COLUMN month INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN made INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN allowed INTEGER,
    ADD COLUMN closes_at TIMESTAMP(3) WITH TIME ZONE;
ALTER TABLE distribu.order_numbers ALTER COLUMN month DROP DEFAULT, ALTER COLUMN made DROP DEFAULT;

-- What the statement that numbers an order raises, under the lock of the counter it looks at.
CREATE FUNCTION distribu.over_plan(made integer, allowed integer) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the plan allows no more orders this month'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'orders_a_month',
            DETAIL = made || ' ' || allowed;
END $$;
CREATE FUNCTION distribu.unpaid() RETURNS integer LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the trial or the subscription is over'
        USING ERRCODE = 'integrity_constraint_violation', CONSTRAINT = 'payment_required';
END $$;
