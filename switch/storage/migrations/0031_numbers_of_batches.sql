-- depends: 0026_transit_and_files
-- What 0022, 0024 and 0026 forgot: a database may be loaded into another cluster (0007), whose transactions count from its own beginning.

-- Batches are folded behind the same watermark as records, so they need the same numbers.
ALTER TABLE purse_batch ALTER COLUMN txid SET DEFAULT transaction_number();

-- As before, with the watermarks of trips and of rules for risk: they run on their own, and may be ahead of the purses' fold. Batches are written with
-- their records, so they end before this goes on and none has a higher number.
CREATE OR REPLACE FUNCTION adopt_cluster() RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    here    bigint := (SELECT system_identifier FROM pg_control_system());
    since   date;
    highest bigint;
    offset_ bigint;
BEGIN
    IF here = (SELECT cluster_id FROM transaction_numbers) THEN
        RETURN false;
    END IF;
    -- Writers end first, so that none goes on under numbers of the old offset; whoever adopts at the same time waits here too.
    LOCK TABLE posting, purse_record IN SHARE ROW EXCLUSIVE MODE;
    IF here = (SELECT cluster_id FROM transaction_numbers) THEN
        RETURN false;
    END IF;
    -- Older partitions are folded: their numbers lie below the watermarks.
    since := (SELECT least(current_date, min(business_date)) - 7 FROM business_day WHERE state < 2);
    highest := greatest(
        (SELECT max(folded_to) FROM fold_watermark),
        (SELECT max(folded_to) FROM purse_watermark),
        (SELECT max(folded_to) FROM trip_watermark),
        (SELECT max(done_to) FROM risk_watermark),
        (SELECT max(txid) + 1 FROM posting WHERE business_date >= since),
        (SELECT max(txid) + 1 FROM purse_record WHERE business_date >= since));
    offset_ := greatest(0, highest - pg_snapshot_xmin(pg_current_snapshot())::text::bigint);
    EXECUTE format('CREATE OR REPLACE FUNCTION transaction_number() RETURNS bigint LANGUAGE sql STABLE'
                   ' AS ''SELECT pg_current_xact_id()::text::bigint + %s''', offset_);
    EXECUTE format('CREATE OR REPLACE FUNCTION transaction_horizon() RETURNS bigint LANGUAGE sql STABLE'
                   ' AS ''SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint + %s''', offset_);
    UPDATE transaction_numbers SET cluster_id = here, ahead = offset_;
    RETURN true;
END $$;
