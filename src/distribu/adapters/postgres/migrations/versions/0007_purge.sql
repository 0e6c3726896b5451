ALTER TABLE distribu.companies ADD COLUMN trial_ends_at TIMESTAMP(3) WITH TIME ZONE;

-- 720 hours are `PURGE_AFTER`; as "30 days" they would depend on the time zone. The platform's own realm never goes.
CREATE FUNCTION distribu.purgeable(company uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT company <> '00000000-0000-7000-8000-000000000000' AND EXISTS (
        SELECT FROM distribu.companies WHERE company_id = company AND deleted_at <= now() - interval '720 hours')
$$;

-- The rule is held here, whoever asks: privileges and policies are in front of it.
CREATE OR REPLACE FUNCTION distribu.append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF distribu.purgeable(OLD.company_id) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
END $$;

-- By the server's clock, so that nobody who may delete a company shortens the days it is kept. The hour is for
-- clocks that differ.
CREATE FUNCTION distribu.deleted_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF NEW.deleted_at IS NOT DISTINCT FROM OLD.deleted_at THEN
            RETURN NEW;
        END IF;
    END IF;
    IF NEW.deleted_at < now() - interval '1 hour' THEN
        RAISE EXCEPTION 'a company is deleted now, not in the past' USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER deleted_now BEFORE INSERT OR UPDATE OF deleted_at ON distribu.companies
    FOR EACH ROW EXECUTE FUNCTION distribu.deleted_now();
