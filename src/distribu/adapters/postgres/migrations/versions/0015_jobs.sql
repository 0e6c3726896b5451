CREATE TABLE distribu.jobs (
    name VARCHAR(40) COLLATE "C" NOT NULL,
    due_at TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    claim UUID,
    claimed_until TIMESTAMP(3) WITH TIME ZONE,
    ran_at TIMESTAMP(3) WITH TIME ZONE,
    outcome VARCHAR(10) COLLATE "C",
    PRIMARY KEY (name)
);
GRANT SELECT, INSERT, UPDATE ON distribu.jobs TO distribu_machine;
