-- How often the machine tried a notice again, and when it will next. What waits already is due at once.
ALTER TABLE distribu.stripe_events
    ADD COLUMN tries INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN due_at TIMESTAMP(3) WITH TIME ZONE DEFAULT now();
ALTER TABLE distribu.stripe_events ALTER COLUMN tries DROP DEFAULT, ALTER COLUMN due_at DROP DEFAULT;
CREATE INDEX stripe_events_due ON distribu.stripe_events (due_at) WHERE status IN ('WAITING', 'FAILED');

CREATE POLICY machine ON distribu.stripe_events TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT (company_id, id, status, tries, due_at), UPDATE (tries, due_at) ON distribu.stripe_events
    TO distribu_machine;
