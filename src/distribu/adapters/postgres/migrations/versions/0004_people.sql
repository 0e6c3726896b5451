ALTER TABLE distribu.companies
    ADD COLUMN require_second_factor BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN api_limit INTEGER,
    ADD COLUMN suspended_at TIMESTAMP(3) WITH TIME ZONE,
    ADD COLUMN deleted_at TIMESTAMP(3) WITH TIME ZONE;
ALTER TABLE distribu.companies ALTER COLUMN require_second_factor DROP DEFAULT;
CREATE TABLE distribu.company_cards (
    company_id UUID NOT NULL,
    name VARCHAR(100) COLLATE "C" NOT NULL,
    slug VARCHAR(60) COLLATE "C" NOT NULL,
    standing VARCHAR(10) COLLATE "C" NOT NULL,
    require_second_factor BOOLEAN NOT NULL,
    api_limit INTEGER,
    PRIMARY KEY (company_id)
);
CREATE TABLE distribu.users (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    email VARCHAR(254) COLLATE "C" NOT NULL,
    full_name VARCHAR(100) COLLATE "C" NOT NULL,
    time_zone VARCHAR(64) COLLATE "C" NOT NULL,
    is_super_admin BOOLEAN NOT NULL,
    wants_company VARCHAR(100) COLLATE "C" NOT NULL,
    company_to_be UUID,
    PRIMARY KEY (company_id, id),
    CONSTRAINT users_email UNIQUE (company_id, email)
);
CREATE TABLE distribu.credentials (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    password_hash VARCHAR(300) COLLATE "C",
    verified_at TIMESTAMP(3) WITH TIME ZONE,
    epoch INTEGER NOT NULL,
    tickets JSONB NOT NULL,
    new_email VARCHAR(254) COLLATE "C",
    PRIMARY KEY (company_id, id)
);
CREATE TABLE distribu.sessions (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    holder_id UUID NOT NULL,
    epoch INTEGER NOT NULL,
    expires_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    ended_at TIMESTAMP(3) WITH TIME ZONE,
    current UUID,
    user_agent VARCHAR(300) COLLATE "C" NOT NULL,
    ip VARCHAR(45) COLLATE "C",
    seen_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT sessions_holder FOREIGN KEY(company_id, holder_id) REFERENCES distribu.credentials (company_id, id)
);
CREATE INDEX sessions_of_holder ON distribu.sessions (company_id, holder_id, id);
CREATE TABLE distribu.memberships (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    user_id UUID NOT NULL,
    role VARCHAR(10) COLLATE "C" NOT NULL,
    removed_at TIMESTAMP(3) WITH TIME ZONE,
    PRIMARY KEY (company_id, id),
    CONSTRAINT memberships_owner EXCLUDE USING btree (company_id WITH =) WHERE (removed_at IS NULL AND role = 'OWNER') DEFERRABLE INITIALLY IMMEDIATE
);
CREATE UNIQUE INDEX memberships_user ON distribu.memberships (company_id, user_id) WHERE removed_at IS NULL;
CREATE TABLE distribu.seats (
    user_id UUID NOT NULL,
    company_id UUID NOT NULL,
    membership_id UUID NOT NULL,
    role VARCHAR(10) COLLATE "C" NOT NULL,
    removed BOOLEAN NOT NULL,
    PRIMARY KEY (user_id, company_id)
);
CREATE INDEX seats_of_company ON distribu.seats (company_id);
CREATE TABLE distribu.invitations (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    email VARCHAR(254) COLLATE "C" NOT NULL,
    role VARCHAR(10) COLLATE "C" NOT NULL,
    ticket JSONB NOT NULL,
    invited_by UUID,
    accepted_at TIMESTAMP(3) WITH TIME ZONE,
    revoked_at TIMESTAMP(3) WITH TIME ZONE,
    PRIMARY KEY (company_id, id)
);
CREATE UNIQUE INDEX invitations_open ON distribu.invitations (company_id, email) WHERE accepted_at IS NULL AND revoked_at IS NULL;
CREATE TABLE distribu.contacts (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    customer_id UUID NOT NULL,
    email VARCHAR(254) COLLATE "C" NOT NULL,
    full_name VARCHAR(100) COLLATE "C" NOT NULL,
    role VARCHAR(10) COLLATE "C" NOT NULL,
    is_active BOOLEAN NOT NULL,
    time_zone VARCHAR(64) COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, id),
    CONSTRAINT contacts_email UNIQUE (company_id, email),
    CONSTRAINT contacts_customer FOREIGN KEY(company_id, customer_id) REFERENCES distribu.customers (company_id, id)
);
CREATE INDEX contacts_of_customer ON distribu.contacts (company_id, customer_id, id);

ALTER TABLE distribu.users ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.users FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.users TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.users TO distribu_tenant;

ALTER TABLE distribu.credentials ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.credentials FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.credentials TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.credentials TO distribu_tenant;

ALTER TABLE distribu.sessions ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.sessions FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.sessions TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.sessions TO distribu_tenant;

ALTER TABLE distribu.memberships ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.memberships FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.memberships TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.memberships TO distribu_tenant;

ALTER TABLE distribu.invitations ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.invitations FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.invitations TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.invitations TO distribu_tenant;

ALTER TABLE distribu.contacts ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.contacts FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.contacts TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid))
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND (nullif(current_setting('app.customer_id', true), '') IS NULL OR customer_id = nullif(current_setting('app.customer_id', true), '')::uuid));
GRANT SELECT, INSERT, UPDATE ON distribu.contacts TO distribu_tenant;
-- A contact adds another contact with credentials that it cannot see.
CREATE POLICY added ON distribu.credentials FOR INSERT TO distribu_tenant WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid);
-- A company sees who its members are; what proves that it is them is in another table.
CREATE POLICY team ON distribu.users FOR SELECT TO distribu_tenant USING (
    nullif(current_setting('app.customer_id', true), '') IS NULL AND EXISTS (
        SELECT FROM distribu.seats WHERE seats.user_id = users.id AND NOT seats.removed
            AND seats.company_id = nullif(current_setting('app.company_id', true), '')::uuid));
CREATE POLICY machine ON distribu.sessions TO distribu_machine USING (true) WITH CHECK (true);
GRANT SELECT, UPDATE (seen_at, ip) ON distribu.sessions TO distribu_machine;

-- What is looked up before a company is known, or in the realm of the platform, of every company.
ALTER TABLE distribu.seats ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.seats FORCE ROW LEVEL SECURITY;
CREATE POLICY look_up ON distribu.seats FOR SELECT TO distribu_tenant USING (
    nullif(current_setting('app.customer_id', true), '') IS NULL AND
    coalesce(nullif(current_setting('app.company_id', true), ''), '00000000-0000-7000-8000-000000000000') IN ('00000000-0000-7000-8000-000000000000', company_id::text));
CREATE POLICY own ON distribu.seats TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.seats TO distribu_tenant;

ALTER TABLE distribu.company_cards ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.company_cards FORCE ROW LEVEL SECURITY;
CREATE POLICY look_up ON distribu.company_cards FOR SELECT TO distribu_tenant USING (
    coalesce(nullif(current_setting('app.company_id', true), ''), '00000000-0000-7000-8000-000000000000') IN ('00000000-0000-7000-8000-000000000000', company_id::text));
CREATE POLICY own ON distribu.company_cards TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT, UPDATE ON distribu.company_cards TO distribu_tenant;

-- The cards of the companies that are there; forced row-level security would hide them from us.
ALTER TABLE distribu.companies NO FORCE ROW LEVEL SECURITY;
ALTER TABLE distribu.company_cards NO FORCE ROW LEVEL SECURITY;
INSERT INTO distribu.company_cards (company_id, name, slug, standing, require_second_factor, api_limit)
SELECT company_id, name, slug, 'OPEN', require_second_factor, api_limit FROM distribu.companies;
ALTER TABLE distribu.companies FORCE ROW LEVEL SECURITY;
ALTER TABLE distribu.company_cards FORCE ROW LEVEL SECURITY;
CREATE TABLE distribu.inquiries (
    company_id UUID NOT NULL,
    id UUID NOT NULL,
    version INTEGER NOT NULL,
    created_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    updated_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    kind VARCHAR(10) COLLATE "C" NOT NULL,
    full_name VARCHAR(100) COLLATE "C" NOT NULL,
    email VARCHAR(254) COLLATE "C" NOT NULL,
    text VARCHAR(5000) COLLATE "C" NOT NULL,
    PRIMARY KEY (company_id, id)
);

ALTER TABLE distribu.inquiries ENABLE ROW LEVEL SECURITY;
ALTER TABLE distribu.inquiries FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON distribu.inquiries TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT SELECT, INSERT ON distribu.inquiries TO distribu_tenant;
