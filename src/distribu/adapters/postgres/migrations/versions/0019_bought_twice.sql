-- What is newer is told by its turn (stripe_events.turn), not by a time.
ALTER TABLE distribu.subscriptions
    DROP COLUMN known_at,
    ADD COLUMN second_ref VARCHAR(255) COLLATE "C",
    ADD COLUMN plan_set_at TIMESTAMP(3) WITH TIME ZONE;
