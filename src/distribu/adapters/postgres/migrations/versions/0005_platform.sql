-- Those who run the platform see figures of companies and never their rows: through two functions that
-- answer to a transaction of the realm alone. They run as the owner of the tables, whom forced row-level
-- security binds too, so the owner is let read what they count.
DO $$
DECLARE
    counted text;
BEGIN
    FOREACH counted IN ARRAY ARRAY['memberships', 'products', 'customers', 'orders', 'api_keys', 'webhooks',
                                   'mails', 'deliveries', 'attempts'] LOOP
        EXECUTE 'CREATE POLICY figures ON distribu.' || counted || ' FOR SELECT TO '
            || quote_ident(current_user) || ' USING (true)';
    END LOOP;
END $$;

CREATE FUNCTION distribu.of_the_realm() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('app.company_id', true), '') <> '00000000-0000-7000-8000-000000000000'
        OR coalesce(current_setting('app.customer_id', true), '') <> '' THEN
        RAISE EXCEPTION 'only the platform asks this' USING ERRCODE = 'insufficient_privilege';
    END IF;
END $$;

CREATE FUNCTION distribu.usage(company uuid, since timestamptz)
    RETURNS TABLE (members bigint, products bigint, customers bigint, orders bigint, orders_since bigint,
                   api_keys bigint, webhooks bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM distribu.of_the_realm();
    RETURN QUERY SELECT
        (SELECT count(*) FROM distribu.memberships t WHERE t.company_id = company AND t.removed_at IS NULL),
        (SELECT count(*) FROM distribu.products t WHERE t.company_id = company AND t.archived_at IS NULL),
        (SELECT count(*) FROM distribu.customers t WHERE t.company_id = company),
        (SELECT count(*) FROM distribu.orders t WHERE t.company_id = company),
        (SELECT count(*) FROM distribu.orders t WHERE t.company_id = company AND t.placed_at >= since),
        (SELECT count(*) FROM distribu.api_keys t WHERE t.company_id = company AND t.revoked_at IS NULL),
        (SELECT count(*) FROM distribu.webhooks t WHERE t.company_id = company AND t.removed_at IS NULL);
END $$;

CREATE FUNCTION distribu.failed_jobs(most integer)
    RETURNS TABLE (company_id uuid, kind text, id uuid, what text, error text, created_at timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM distribu.of_the_realm();
    RETURN QUERY
        SELECT * FROM (
            (SELECT m.company_id, 'mail'::text, m.id, 'mail'::text, m.error::text, m.created_at
             FROM distribu.mails m WHERE m.status = 'DEAD' ORDER BY m.id DESC LIMIT most)
            UNION ALL
            (SELECT d.company_id, 'delivery'::text, d.id, d.event::text,
                 coalesce((SELECT a.error::text FROM distribu.attempts a
                           WHERE a.company_id = d.company_id AND a.delivery_id = d.id
                           ORDER BY a.number DESC LIMIT 1), ''), d.created_at
             FROM distribu.deliveries d WHERE d.status = 'DEAD' ORDER BY d.id DESC LIMIT most)
        ) AS failed ORDER BY 6 DESC, 3 DESC LIMIT most;
END $$;

REVOKE ALL ON FUNCTION distribu.usage(uuid, timestamptz) FROM PUBLIC;
REVOKE ALL ON FUNCTION distribu.failed_jobs(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION distribu.usage(uuid, timestamptz) TO distribu_tenant;
GRANT EXECUTE ON FUNCTION distribu.failed_jobs(integer) TO distribu_tenant;
CREATE INDEX mails_dead ON distribu.mails (id) WHERE status = 'DEAD';
CREATE INDEX deliveries_dead ON distribu.deliveries (id) WHERE status = 'DEAD';
