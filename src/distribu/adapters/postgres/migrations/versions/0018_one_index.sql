-- Both begin with the company, as the key does. While a company has few deliveries, or had few when they were
-- counted, any of the three looks as good to a planner, and by another one than the key it reads all of the
-- company's. These are for who asks for a webhook's or an event's, and their predicates say so.
DROP INDEX distribu.deliveries_of_webhook;
DROP INDEX distribu.deliveries_of_event;
CREATE INDEX deliveries_of_webhook ON distribu.deliveries (company_id, webhook_id, id) WHERE webhook_id IS NOT NULL;
CREATE INDEX deliveries_of_event ON distribu.deliveries (company_id, position) WHERE position IS NOT NULL;
