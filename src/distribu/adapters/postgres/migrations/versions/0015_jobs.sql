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

-- Which trials end is all that the queue is to know of what a company pays.
CREATE INDEX subscriptions_trials ON distribu.subscriptions (company_id, trial_ends_at) WHERE status = 'TRIALING';
CREATE POLICY machine ON distribu.subscriptions FOR SELECT TO distribu_machine USING (true);
GRANT SELECT (company_id, status, trial_ends_at, told) ON distribu.subscriptions TO distribu_machine;
