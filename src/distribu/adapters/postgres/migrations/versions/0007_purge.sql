ALTER TABLE distribu.companies ADD COLUMN trial_ends_at TIMESTAMP(3) WITH TIME ZONE;

-- When it was deleted by the server's clock. Whoever serves requests may delete a company, and says when; nobody
-- but this says since when its days are counted.
ALTER TABLE distribu.companies ADD COLUMN closed_at TIMESTAMP(3) WITH TIME ZONE;
CREATE FUNCTION distribu.closed_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.closed_at := CASE WHEN NEW.deleted_at IS NOT NULL THEN now() END;
    IF TG_OP = 'UPDATE' THEN
        IF OLD.deleted_at IS NOT NULL AND NEW.deleted_at IS NOT NULL THEN
            NEW.closed_at := OLD.closed_at;
        END IF;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER closed_now BEFORE INSERT OR UPDATE ON distribu.companies
    FOR EACH ROW EXECUTE FUNCTION distribu.closed_now();

-- 720 hours are `PURGE_AFTER`; as "30 days" they would depend on the time zone. The platform's own realm never goes.
CREATE FUNCTION distribu.purgeable(company uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT company <> '00000000-0000-7000-8000-000000000000' AND EXISTS (
        SELECT FROM distribu.companies WHERE company_id = company
            AND greatest(deleted_at, closed_at) <= now() - interval '720 hours')
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
