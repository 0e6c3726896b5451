CREATE TABLE distribu.mails (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    recipient VARCHAR(254) COLLATE "C" NOT NULL,
    letter TEXT COLLATE "C" NOT NULL,
    sealed VARCHAR(1000) COLLATE "C",
    status VARCHAR(10) COLLATE "C" NOT NULL,
    attempts INTEGER NOT NULL,
    next_attempt_at TIMESTAMP(3) WITH TIME ZONE,
    claimed_until TIMESTAMP(3) WITH TIME ZONE,
    error VARCHAR(500) COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, id)
);
CREATE INDEX mails_due ON distribu.mails (next_attempt_at) WHERE status = 'PENDING';

ALTER TABLE distribu.mails ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.mails FORCE ROW LEVEL SECURITY;
CREATE POLICY written ON distribu.mails FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
GRANT INSERT ON distribu.mails TO distribu_tenant;
CREATE POLICY machine ON distribu.mails TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE, DELETE ON distribu.mails TO distribu_machine;
