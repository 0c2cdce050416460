-- Messages of terminals about their batches: uploads, settlements, details, batch ends. They are kept under their key like
-- card requests, in the shard of their terminal, and are written behind the purse gate, whichever shard that is.

-- name: take_gate
SELECT pg_advisory_xact_lock_shared(%(gate)b::int, %(shard)b::int);

-- name: lock_sessions
-- In terminal_no order. A repeat waits here for its original and then finds it.
SELECT terminal_no, generation, batch_no
  FROM terminal_session
 WHERE terminal_no = ANY(%(terminals)b::int[])
 ORDER BY terminal_no
   FOR UPDATE;

-- name: read_instant
-- After the locks: the instant that decides times, and the business date of the whole transaction.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, d.business_date, transaction_number()
  FROM clock JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at AND d.sealed_at IS NULL;

-- name: read_batches
-- closing: state 2 whose end was begun and not finished.
SELECT b.terminal_no, b.batch_no, b.opened_on, b.state, b.settled_at, b.claimed, b.computed, b.closed_at IS NOT NULL
  FROM unnest(%(terminals)b::int[], %(batches)b::int[]) AS k (terminal_no, batch_no)
  JOIN terminal_batch b ON b.terminal_no = k.terminal_no AND b.batch_no = k.batch_no;

-- name: find_messages
-- LATERAL and LIMIT: a fresh partition has no statistics. No row is dated after the open day. oldest: as in find_keys.
SELECT k.at, j.kind, j.answer, j.rrn, j.decided_at, j.business_date, j.digest, j.extra
  FROM unnest(%(shards)b::smallint[], %(terminals)b::int[], %(batches)b::int[], %(stans)b::int[], %(sinces)b::date[])
       WITH ORDINALITY AS k (shard, terminal_no, batch_no, stan, since, at)
 CROSS JOIN LATERAL (
       SELECT *
         FROM journal
        WHERE journal.shard = k.shard
          AND journal.business_date >= %(oldest)b::date
          AND journal.business_date BETWEEN k.since
              AND (SELECT max(business_date) FROM business_day WHERE begins_at <= clock_timestamp())
          AND journal.terminal_no = k.terminal_no
          AND journal.batch_no = k.batch_no
          AND journal.stan = k.stan
          AND journal.class = 0
        LIMIT 1) AS j;

-- name: write_messages
INSERT INTO journal (business_date, decided_at, shard, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind,
                     amount_fen, answer, rrn, digest, extra)
SELECT %(business_date)b::date, %(decided_at)b::timestamptz, n.shard, n.terminal_no, n.batch_no, n.stan, 0, n.entry_no,
       n.merchant_no, n.kind, n.amount_fen, n.answer, n.rrn, n.digest, nullif(n.extra, '')
  FROM unnest(%(shards)b::smallint[], %(terminals)b::int[], %(batches)b::int[], %(stans)b::int[], %(entries)b::bigint[],
              %(merchants)b::int[], %(kinds)b::smallint[], %(amounts)b::bigint[], %(answers)b::text[], %(rrns)b::text[],
              %(digests)b::bytea[], %(extras)b::bytea[])
       AS n (shard, terminal_no, batch_no, stan, entry_no, merchant_no, kind, amount_fen, answer, rrn, digest, extra);

-- name: freeze_batches
-- From the commit of this on, what takes a gate sees the batch frozen.
UPDATE terminal_batch AS b
   SET state = n.state
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(states)b::smallint[]) AS n (terminal_no, batch_no, state)
 WHERE b.terminal_no = n.terminal_no AND b.batch_no = n.batch_no AND b.state < n.state;

-- name: sum_batches
-- One row for each kind of approved transaction of a batch, what was reversed left out. Kinds as in domain.transactions.
SELECT k.at, j.kind, count(*), sum(j.amount_fen)::bigint
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(sinces)b::date[])
       WITH ORDINALITY AS k (terminal_no, batch_no, since, at)
 CROSS JOIN unnest(%(shards)b::smallint[]) AS s (shard)
 CROSS JOIN LATERAL (
       SELECT o.kind, o.amount_fen
         FROM journal o
        WHERE o.shard = s.shard
          AND o.business_date BETWEEN k.since AND %(until)b
          AND o.terminal_no = k.terminal_no
          AND o.batch_no = k.batch_no
          AND o.class = 0
          AND o.answer = '00'
          AND o.kind IN (1, 3, 4, 8, 9, 10, 11)
          -- Of loads only those of purses, whatever has become of them since: a batch counts what its terminal did.
          AND (o.kind <> 11 OR EXISTS (SELECT FROM purse_load l WHERE l.shard = o.shard AND l.entry_no = o.entry_no))
          AND NOT EXISTS (
              SELECT
                FROM journal r
               WHERE r.shard = s.shard
                 AND r.business_date BETWEEN o.business_date AND %(until)b
                 AND r.terminal_no = o.terminal_no
                 AND r.batch_no = o.batch_no
                 AND r.stan = o.stan
                 AND r.class = 1
                 AND r.answer = '00')) AS j
 GROUP BY k.at, j.kind;

-- name: sum_uploads
-- Offline records first taken in a batch (results 10, 04, 11): their amounts are those of the upload messages.
SELECT k.at, j.amount_fen, j.decided_at, j.extra
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(sinces)b::date[], %(shards)b::smallint[])
       WITH ORDINALITY AS k (terminal_no, batch_no, since, shard, at)
  JOIN journal j
    ON j.shard = k.shard
   AND j.business_date BETWEEN k.since AND %(until)b
   AND j.terminal_no = k.terminal_no
   AND j.batch_no = k.batch_no
   AND j.class = 0
   AND j.kind = 20
   AND j.answer = '00';

-- name: list_booked
-- What a detail upload should have named: approved, not reversed, of an account.
SELECT o.stan, o.amount_fen, ltrim(coalesce(o.pan, ''), '0')
  FROM journal o
 WHERE o.shard = ANY(%(shards)b::smallint[])
   AND o.business_date BETWEEN %(since)b AND %(until)b
   AND o.terminal_no = %(terminal_no)b
   AND o.batch_no = %(batch_no)b
   AND o.class = 0
   AND o.answer = '00'
   AND o.kind IN (1, 3, 4, 8, 9, 10)
   AND NOT EXISTS (
       SELECT
         FROM journal r
        WHERE r.shard = o.shard
          AND r.business_date BETWEEN o.business_date AND %(until)b
          AND r.terminal_no = o.terminal_no
          AND r.batch_no = o.batch_no
          AND r.stan = o.stan
          AND r.class = 1
          AND r.answer = '00');

-- name: list_details
SELECT stan, amount_fen, pan
  FROM terminal_batch_detail
 WHERE terminal_no = %(terminal_no)b AND batch_no = %(batch_no)b;

-- name: write_details
INSERT INTO terminal_batch_detail (terminal_no, batch_no, entry_no, line, card_class, stan, pan, amount_fen)
SELECT *
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(entries)b::bigint[], %(lines)b::smallint[], %(classes)b::text[],
              %(stans)b::int[], %(pans)b::text[], %(amounts)b::bigint[]);

-- name: write_settlements
UPDATE terminal_batch AS b
   SET settled_at = %(settled_at)b, claimed = n.claimed, computed = n.computed
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(claims)b::text[], %(figures)b::text[])
       AS n (terminal_no, batch_no, claimed, computed)
 WHERE b.terminal_no = n.terminal_no AND b.batch_no = n.batch_no;

-- name: write_ends
-- The switch's figures as they are at the end: a reversal may have come after the settlement.
UPDATE terminal_batch AS b
   SET closed_at = %(closed_at)b, computed = n.computed
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(figures)b::text[]) AS n (terminal_no, batch_no, computed)
 WHERE b.terminal_no = n.terminal_no AND b.batch_no = n.batch_no;

-- name: write_differences
INSERT INTO terminal_batch_difference (terminal_no, batch_no, line, business_date, matter, stan, claimed, booked)
SELECT n.terminal_no, n.batch_no, n.line, %(business_date)b::date, n.matter, nullif(n.stan, 0), n.claimed, n.booked
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(lines)b::int[], %(matters)b::text[], %(stans)b::int[],
              %(claims)b::text[], %(bookings)b::text[])
       AS n (terminal_no, batch_no, line, matter, stan, claimed, booked);
