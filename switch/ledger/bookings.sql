-- Money that people and partners' files move (bookings.py).

-- name: read_instant
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, d.business_date
  FROM clock JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at;

-- name: next_block
SELECT nextval('entry_no_block');

-- name: write_bookings
-- What a source has booked before is left out, and its number does not come back.
WITH asked AS (
    SELECT * FROM unnest(%(entries)s::bigint[], %(events)s::text[], %(amounts)s::bigint[], %(sources)s::text[], %(reasons)s::text[],
                         %(debit_codes)s::smallint[], %(debit_owners)s::bigint[], %(credit_codes)s::smallint[], %(credit_owners)s::bigint[])
           AS a (entry_no, event, amount_fen, source, reason, debit_code, debit_owner, credit_code, credit_owner)
), booked AS (
    INSERT INTO booking (entry_no, business_date, booked_at, event, amount_fen, source, actor, checker, reason)
    SELECT entry_no, %(day)s, %(now)s, event, amount_fen, source, %(actor)s, %(checker)s, reason FROM asked
        ON CONFLICT (source, event) DO NOTHING
    RETURNING entry_no
), posted AS (
    INSERT INTO posting (shard, business_date, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
    SELECT 0, %(day)s, entry_no, 0, debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM asked JOIN booked USING (entry_no)
)
SELECT entry_no FROM booked;
