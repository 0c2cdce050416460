-- What the seals of closed days are made of (docs/evidence.md). Nothing is formatted here but instants and dates, which PostgreSQL prints.

-- name: closed_days
-- needed: a day before this one is sealed, or its own step says that it was.
SELECT c.business_date, c.own_id, c.created_at, t.finished_at, t.outcome, s.secret, s.leaf_count, s.root, s.last_entry, s.shards, s.document, s.sm3,
       t.step IS NOT NULL OR EXISTS (SELECT FROM clearing_seal e WHERE e.business_date < c.business_date) AS needed
  FROM clearing_day c
  JOIN business_day b USING (business_date)
  LEFT JOIN clearing_seal s USING (business_date)
  LEFT JOIN clearing_step t ON t.business_date = c.business_date AND t.step = 'evidence'
 WHERE b.state = 2 AND c.business_date BETWEEN %(first)s AND %(last)s
 ORDER BY c.business_date;

-- name: before
SELECT business_date, sm3 FROM clearing_seal WHERE business_date < %(day)s ORDER BY business_date DESC LIMIT 1;

-- name: files
SELECT name, sm3, size_bytes FROM clearing_file WHERE business_date = %(day)s ORDER BY ordinal;

-- name: blocks
SELECT block_no, entry_no, shard, line, leaf_count, root FROM clearing_seal_block WHERE business_date = %(day)s ORDER BY block_no;

-- name: rows
-- Postings with the entry of their first line, entries without a posting, and records. card stands where the masked number goes.
SELECT 'E', p.entry_no, p.shard::integer, p.line::integer,
       ARRAY[p.debit_code::text, p.debit_owner::text, p.credit_code::text, p.credit_owner::text, p.amount_fen::text, j.kind::text, j.class::text,
             j.terminal_no::text, j.batch_no::text, j.stan::text, j.merchant_no::text, j.account_id::text, j.pan, j.amount_fen::text, j.effect_fen::text,
             j.answer, j.rrn, j.auth_code, j.entry_mode, j.decided_at::text, j.original_date::text, j.original_entry::text, octet_length(j.extra)::text],
       j.digest, j.extra, NULL::bytea
  FROM posting p
  LEFT JOIN journal j ON j.business_date = %(day)s AND j.shard = p.shard AND j.entry_no = p.entry_no AND p.line = 0
 WHERE p.business_date = %(day)s
UNION ALL
SELECT 'E', j.entry_no, j.shard, 0,
       ARRAY[NULL, NULL, NULL, NULL, NULL, j.kind::text, j.class::text, j.terminal_no::text, j.batch_no::text, j.stan::text, j.merchant_no::text,
             j.account_id::text, j.pan, j.amount_fen::text, j.effect_fen::text, j.answer, j.rrn, j.auth_code, j.entry_mode, j.decided_at::text,
             j.original_date::text, j.original_entry::text, octet_length(j.extra)::text],
       j.digest, j.extra, NULL
  FROM journal j
 WHERE j.business_date = %(day)s
   AND NOT EXISTS (SELECT FROM posting p WHERE p.business_date = %(day)s AND p.shard = j.shard AND p.entry_no = j.entry_no AND p.line = 0)
UNION ALL
SELECT 'R', r.entry_no, r.shard, 0,
       ARRAY[r.result, r.card_no::text, CASE WHEN r.card IS NOT NULL THEN substr(encode(substr(r.raw, 7, 10), 'hex'), 2) END, r.amount_fen::text,
             r.balance_fen::text, r.credit_code::text, r.credit_owner::text, r.psam::text, r.psam_serial::text, r.record_serial::text, r.atc::text,
             r.record_kind::text, r.happened_at::text, r.received_at::text, r.terminal_no::text, r.merchant_no::text, r.batch_no::text,
             r.original_date::text, r.original_entry::text],
       NULL, NULL, r.raw
  FROM purse_record r
 WHERE r.business_date = %(day)s
 ORDER BY 2, 3, 4;
