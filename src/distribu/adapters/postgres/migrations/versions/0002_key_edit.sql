-- One policy in the place of another and not beside it: of two, a revoked row would pass the one's USING
-- and its un-revoked successor the other's WITH CHECK. What is revoked can be updated by nobody.
DROP POLICY revoke ON distribu.key_grants;
CREATE POLICY changed ON distribu.key_grants FOR UPDATE TO distribu_tenant
    USING (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL AND NOT revoked)
    WITH CHECK (company_id = nullif(current_setting('app.company_id', true), '')::uuid AND nullif(current_setting('app.customer_id', true), '') IS NULL);
GRANT UPDATE (name, scopes, expires_at) ON distribu.key_grants TO distribu_tenant;
