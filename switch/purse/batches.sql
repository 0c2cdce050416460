-- Serials of batches (batches.py).

-- name: find_batches
SELECT k.terminal_no, k.serial, b.batch_no, b.business_date
  FROM unnest(%(terminals)b::int[], %(serials)b::bigint[]) AS k (terminal_no, serial)
 CROSS JOIN LATERAL (
       SELECT batch_no, business_date
         FROM purse_batch
        WHERE purse_batch.terminal_no = k.terminal_no AND purse_batch.serial = k.serial LIMIT 1) AS b;

-- name: read_answers
-- oldest, newest: of the days below, so that no other day is opened.
SELECT k.terminal_no, k.serial, j.kind, j.answer, j.rrn, j.decided_at, j.business_date, j.digest, j.extra
  FROM unnest(%(shards)b::smallint[], %(terminals)b::int[], %(serials)b::bigint[], %(batches)b::int[], %(stans)b::int[], %(days)b::date[])
       AS k (shard, terminal_no, serial, batch_no, stan, day)
 CROSS JOIN LATERAL (
       SELECT *
         FROM journal
        WHERE journal.shard = k.shard
          AND journal.business_date BETWEEN %(oldest)b::date AND %(newest)b::date
          AND journal.business_date = k.day
          AND journal.terminal_no = k.terminal_no
          AND journal.batch_no = k.batch_no
          AND journal.stan = k.stan
          AND journal.class = 0
        LIMIT 1) AS j;

-- name: write_batches
INSERT INTO purse_batch (terminal_no, serial, batch_no, business_date)
SELECT n.terminal_no, n.serial, n.batch_no, %(business_date)b::date
  FROM unnest(%(terminals)b::int[], %(serials)b::bigint[], %(batches)b::int[]) AS n (terminal_no, serial, batch_no)
 ORDER BY n.terminal_no, n.serial;
