-- Whoever is told of a record is told where it came from too.
GRANT SELECT (ip) ON distribu.record_people TO distribu_machine;
-- To take an erased person out of what was told of records.
GRANT UPDATE (payload) ON distribu.outbox, distribu.feed TO distribu_machine;
