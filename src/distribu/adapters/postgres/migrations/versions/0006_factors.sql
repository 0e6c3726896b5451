CREATE TABLE distribu.second_factors (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    app VARCHAR(500) COLLATE "C",
    app_step BIGINT NOT NULL,
    offered VARCHAR(500) COLLATE "C",
    recovery BYTEA[] NOT NULL,
    passkeys JSONB NOT NULL,
    PRIMARY KEY (company_id, id)
);
ALTER TABLE distribu.second_factors ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.second_factors FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.second_factors TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.second_factors TO distribu_tenant;

ALTER TABLE distribu.sessions ADD COLUMN factor VARCHAR(10) COLLATE "C" NOT NULL DEFAULT 'NONE';
ALTER TABLE distribu.sessions ALTER COLUMN factor DROP DEFAULT;
