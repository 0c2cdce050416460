-- depends: 0011_holds
-- Loss reports 掛失: in force from an instant to the millisecond, by the database's clock, never back-dated.

-- loss_lapses_at: a telephone report is void from this instant unless it was confirmed in writing. Whoever decides compares it with
-- the instant of his batch, so a report lapses whether or not anybody has tidied up.
ALTER TABLE card
    ADD COLUMN loss_lapses_at timestamptz,
    ADD CONSTRAINT loss_has_its_instant CHECK (state NOT IN (2, 3) OR lost_at IS NOT NULL),
    ADD CONSTRAINT only_reports_lapse CHECK (loss_lapses_at IS NULL OR lost_at < loss_lapses_at);
CREATE INDEX card_lapsing ON card (shard, loss_lapses_at) WHERE loss_lapses_at IS NOT NULL;

-- The day of the report is not counted, and the fifth ends at 24:00 in Shanghai.
CREATE FUNCTION loss_lapses(reported_at timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ((reported_at AT TIME ZONE INTERVAL '8 hours')::date + 6)::timestamp AT TIME ZONE INTERVAL '8 hours';

-- Losses before a report takes effect are the holder's, so an instant in the past would take his money.
CREATE FUNCTION refuse_back_dated_loss() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.lost_at < transaction_timestamp() AND (TG_OP = 'INSERT' OR NEW.lost_at IS DISTINCT FROM OLD.lost_at) THEN
        RAISE EXCEPTION 'a loss report cannot be back-dated' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER never_back_dated BEFORE INSERT OR UPDATE OF lost_at ON card
    FOR EACH ROW WHEN (NEW.lost_at IS NOT NULL) EXECUTE FUNCTION refuse_back_dated_loss();
