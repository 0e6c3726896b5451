CREATE TABLE distribu.unsealed (
    company_id UUID NOT NULL,
    seq BIGINT GENERATED ALWAYS AS IDENTITY,
    record_id UUID NOT NULL,
    PRIMARY KEY (company_id, seq)
);
CREATE TABLE distribu.seals (
    company_id UUID NOT NULL,
    position BIGINT NOT NULL,
    record_id UUID NOT NULL,
    leaf BYTEA NOT NULL,
    PRIMARY KEY (company_id, position),
    CONSTRAINT seals_record UNIQUE (company_id, record_id)
);
CREATE TABLE distribu.seal_heads (
    company_id UUID NOT NULL,
    number BIGINT NOT NULL,
    size BIGINT NOT NULL,
    root VARCHAR(64) COLLATE "C" NOT NULL,
    at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    previous VARCHAR(64) COLLATE "C" NOT NULL,
    key VARCHAR(16) COLLATE "C" NOT NULL,
    signature VARCHAR(88) COLLATE "C" NOT NULL,
    peaks BYTEA NOT NULL,
    PRIMARY KEY (company_id, number)
);
CREATE TABLE distribu.seal_tips (
    company_id UUID NOT NULL,
    told_at TIMESTAMP(3) WITH TIME ZONE,
    tell_at TIMESTAMP(3) WITH TIME ZONE,
    mailed_at TIMESTAMP(3) WITH TIME ZONE,
    mail_at TIMESTAMP(3) WITH TIME ZONE,
    claimed_until TIMESTAMP(3) WITH TIME ZONE,
    PRIMARY KEY (company_id)
);
CREATE INDEX seal_tips_mail ON distribu.seal_tips (mail_at) WHERE mail_at IS NOT NULL;
CREATE INDEX seal_tips_tell ON distribu.seal_tips (tell_at) WHERE tell_at IS NOT NULL;

-- What was recorded before there were seals is sealed too, oldest first.
ALTER TABLE distribu.records NO FORCE ROW LEVEL SECURITY;
INSERT INTO distribu.unsealed (company_id, record_id) SELECT company_id, id FROM distribu.records ORDER BY id;
ALTER TABLE distribu.records FORCE ROW LEVEL SECURITY;

-- Like the records: by privilege nobody changes them, and this keeps everybody from it.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON distribu.seals
    FOR EACH ROW EXECUTE FUNCTION distribu.append_only();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON distribu.seals
    FOR EACH STATEMENT EXECUTE FUNCTION distribu.append_only();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON distribu.seal_heads
    FOR EACH ROW EXECUTE FUNCTION distribu.append_only();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON distribu.seal_heads
    FOR EACH STATEMENT EXECUTE FUNCTION distribu.append_only();

ALTER TABLE distribu.unsealed ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.unsealed FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.unsealed FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
CREATE POLICY written ON distribu.unsealed FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT SELECT, INSERT ON distribu.unsealed TO distribu_tenant;
CREATE POLICY machine ON distribu.unsealed TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, DELETE ON distribu.unsealed TO distribu_machine;

ALTER TABLE distribu.seals ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.seals FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.seals FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT ON distribu.seals TO distribu_tenant;
CREATE POLICY machine ON distribu.seals TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON distribu.seals TO distribu_machine;

ALTER TABLE distribu.seal_heads ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.seal_heads FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.seal_heads FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT ON distribu.seal_heads TO distribu_tenant;
CREATE POLICY machine ON distribu.seal_heads TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT ON distribu.seal_heads TO distribu_machine;

ALTER TABLE distribu.seal_tips ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.seal_tips FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.seal_tips FOR SELECT TO distribu_tenant USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT ON distribu.seal_tips TO distribu_tenant;
CREATE POLICY machine ON distribu.seal_tips TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, INSERT, UPDATE ON distribu.seal_tips TO distribu_machine;

CREATE POLICY machine ON distribu.records FOR SELECT TO distribu_machine USING (true);
GRANT SELECT ON distribu.records TO distribu_machine;
GRANT INSERT ON distribu.outbox TO distribu_machine;
-- To erase a person: which rows are theirs, and nothing else of them.
CREATE POLICY machine ON distribu.record_people TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT (company_id, id, label), DELETE ON distribu.record_people TO distribu_machine;
