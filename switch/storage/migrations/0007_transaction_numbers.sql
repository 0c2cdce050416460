-- depends: 0006_holder
-- The folds order postings and offline records by the number of the transaction that wrote them. A cluster counts its
-- transactions from its own beginning: a dump that is loaded into another cluster brings watermarks and numbers that the new
-- one has not reached, or has passed. So a number is the cluster's own plus an offset, and the offset is set anew whenever
-- the database finds itself in another cluster. Numbers then only grow, whatever clusters a database has lived in.

-- cluster_id: system identifier of the cluster that the offset is for.
CREATE TABLE transaction_numbers (
    the_one    boolean PRIMARY KEY DEFAULT true CHECK (the_one),
    cluster_id bigint NOT NULL,
    ahead      bigint NOT NULL CHECK (ahead >= 0)
);
INSERT INTO transaction_numbers (cluster_id, ahead) VALUES (0, 0);

-- The offset is a literal, so that both are inlined and cost a writer nothing. adopt_cluster makes them anew.
CREATE FUNCTION transaction_number() RETURNS bigint LANGUAGE sql STABLE
    AS 'SELECT pg_current_xact_id()::text::bigint + 0';
CREATE FUNCTION transaction_horizon() RETURNS bigint LANGUAGE sql STABLE
    AS 'SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint + 0';

ALTER TABLE posting ALTER COLUMN txid SET DEFAULT transaction_number();
ALTER TABLE purse_record ALTER COLUMN txid SET DEFAULT transaction_number();

-- To be called before anything is booked. True when the database was in another cluster before.
CREATE FUNCTION adopt_cluster() RETURNS boolean LANGUAGE plpgsql AS $$
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

SELECT adopt_cluster();
