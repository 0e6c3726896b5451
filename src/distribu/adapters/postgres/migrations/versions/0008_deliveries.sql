ALTER TABLE distribu.webhooks ADD COLUMN on_since TIMESTAMP(3) WITH TIME ZONE NOT NULL DEFAULT now();
ALTER TABLE distribu.webhooks ALTER COLUMN on_since DROP DEFAULT;
ALTER TABLE distribu.feed_heads ADD COLUMN purged BIGINT NOT NULL DEFAULT 0;
ALTER TABLE distribu.feed_heads ALTER COLUMN purged DROP DEFAULT;
ALTER TABLE distribu.feed ADD COLUMN placed_at TIMESTAMP(3) WITH TIME ZONE NOT NULL DEFAULT now();
ALTER TABLE distribu.feed ALTER COLUMN placed_at DROP DEFAULT;
ALTER TABLE distribu.deliveries
    ADD COLUMN previous BIGINT,
    ADD COLUMN attempts_before INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN replayed_at TIMESTAMP(3) WITH TIME ZONE;
ALTER TABLE distribu.deliveries ALTER COLUMN attempts_before DROP DEFAULT;
CREATE INDEX deliveries_of_event ON distribu.deliveries (company_id, position);
DROP INDEX distribu.deliveries_due;
CREATE INDEX deliveries_due ON distribu.deliveries (company_id, webhook_id, next_attempt_at, id) WHERE status = 'PENDING';
CREATE TABLE distribu.webhook_marks (
    company_id UUID NOT NULL,
    webhook_id UUID NOT NULL,
    position BIGINT NOT NULL,
    failing_since TIMESTAMP(3) WITH TIME ZONE,
    PRIMARY KEY (company_id, webhook_id)
);
-- The owner may read deliveries (0005), which forced row-level security would hide from us otherwise.
INSERT INTO distribu.webhook_marks (company_id, webhook_id, position)
SELECT company_id, webhook_id, max(position) FROM distribu.deliveries GROUP BY company_id, webhook_id;

ALTER TABLE distribu.webhook_marks ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.webhook_marks FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.webhook_marks FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT ON distribu.webhook_marks TO distribu_tenant;
CREATE POLICY machine ON distribu.webhook_marks TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON distribu.webhook_marks TO distribu_machine;
GRANT DELETE ON distribu.feed, distribu.deliveries, distribu.attempts TO distribu_machine;

-- Of a webhook that is gone nothing is kept that could sign for it.
ALTER TABLE distribu.webhooks NO FORCE ROW LEVEL SECURITY;
UPDATE distribu.webhooks SET secret = '', old_secret = NULL WHERE removed_at IS NOT NULL;
ALTER TABLE distribu.webhooks FORCE ROW LEVEL SECURITY;
