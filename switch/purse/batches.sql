-- Serials of batches (batches.py).

-- name: find_batches
SELECT k.terminal_no, k.serial, j.kind, j.answer, j.rrn, j.decided_at, j.business_date, j.digest, j.extra
  FROM unnest(%(shards)b::smallint[], %(terminals)b::int[], %(serials)b::bigint[]) AS k (shard, terminal_no, serial)
 CROSS JOIN LATERAL (
       SELECT batch_no, business_date
         FROM purse_batch b
        WHERE b.terminal_no = k.terminal_no AND b.serial = k.serial LIMIT 1) AS b
 CROSS JOIN LATERAL (
       SELECT *
         FROM journal
        WHERE journal.shard = k.shard
          AND journal.business_date = b.business_date
          AND journal.terminal_no = k.terminal_no
          AND journal.batch_no = b.batch_no
          AND journal.stan = -(k.serial & 2147483647)::int
          AND journal.class = 0
        LIMIT 1) AS j;

-- name: write_batches
INSERT INTO purse_batch (terminal_no, serial, batch_no, business_date)
SELECT n.terminal_no, n.serial, n.batch_no, %(business_date)b::date
  FROM unnest(%(terminals)b::int[], %(serials)b::bigint[], %(batches)b::int[]) AS n (terminal_no, serial, batch_no)
 ORDER BY n.terminal_no, n.serial;
