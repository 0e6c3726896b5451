CREATE TABLE distribu.stripe_events (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    ref VARCHAR(255) COLLATE "C" NOT NULL,
    type VARCHAR(255) COLLATE "C" NOT NULL,
    happened_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    customer_ref VARCHAR(255) COLLATE "C",
    subscription_ref VARCHAR(255) COLLATE "C",
    invoice_ref VARCHAR(255) COLLATE "C",
    invoice_number VARCHAR(255) COLLATE "C" NOT NULL,
    amount NUMERIC,
    currency VARCHAR(3) COLLATE "C" NOT NULL,
    status VARCHAR(10) COLLATE "C" NOT NULL,
    turn INTEGER,
    error VARCHAR(500) COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT stripe_events_turn UNIQUE (company_id, turn)
);
CREATE INDEX stripe_events_invoice ON distribu.stripe_events (company_id, invoice_ref);
CREATE INDEX stripe_events_id ON distribu.stripe_events (id);
CREATE INDEX stripe_events_age ON distribu.stripe_events (created_at);
CREATE INDEX subscriptions_payer ON distribu.subscriptions (customer_ref);

ALTER TABLE distribu.stripe_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.stripe_events FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.stripe_events TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.stripe_events TO distribu_tenant;

-- Whose a notice is, and what was told of anybody, is asked by the realm alone, through two functions that
-- run as the owner of the tables.
DO $$
DECLARE
    looked_at text;
BEGIN
    FOREACH looked_at IN ARRAY ARRAY['stripe_events', 'subscriptions'] LOOP
        EXECUTE 'CREATE POLICY figures ON distribu.' || looked_at || ' FOR SELECT TO '
            || quote_ident(current_user) || ' USING (true)';
    END LOOP;
END $$;

CREATE FUNCTION distribu.payer(notice uuid, customer text) RETURNS uuid
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM distribu.of_the_realm();
    RETURN coalesce(
        (SELECT t.company_id FROM distribu.stripe_events t
         WHERE t.id = notice AND t.company_id <> '00000000-0000-7000-8000-000000000000'
         ORDER BY t.company_id LIMIT 1),
        (SELECT t.company_id FROM distribu.subscriptions t
         WHERE t.customer_ref = customer ORDER BY t.company_id LIMIT 1));
END $$;

CREATE FUNCTION distribu.notices(failed boolean, most integer)
    RETURNS TABLE (company_id uuid, ref text, type text, status text, error text, created_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM distribu.of_the_realm();
    RETURN QUERY
        SELECT t.company_id, t.ref::text, t.type::text, t.status::text, t.error::text, t.created_at::timestamptz
        FROM distribu.stripe_events t
        WHERE NOT failed OR t.status IN ('WAITING', 'FAILED')
        ORDER BY t.created_at DESC, t.ref DESC LIMIT most;
END $$;

REVOKE ALL ON FUNCTION distribu.payer(uuid, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION distribu.notices(boolean, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION distribu.payer(uuid, text) TO distribu_tenant;
GRANT EXECUTE ON FUNCTION distribu.notices(boolean, integer) TO distribu_tenant;
