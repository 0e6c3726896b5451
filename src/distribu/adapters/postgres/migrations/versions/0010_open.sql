CREATE POLICY machine ON distribu.company_cards FOR SELECT TO distribu_machine USING (true);
GRANT SELECT (company_id, standing) ON distribu.company_cards TO distribu_machine;
