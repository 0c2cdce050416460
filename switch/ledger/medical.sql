-- What a batch reads and writes more where a request is about a medical account. Reads come after the lock on the accounts.

-- name: read_medical_rules
-- A row at least for each merchant, so that the beginning of the policy is known where his category has none. Two days of grace: the batch decides by its
-- own business date which is in force.
SELECT m.merchant_no, (SELECT min(valid_from) FROM medical_policy), p.policy_no, m.category, p.own_pay_ppm, p.transaction_fen, p.day_fen,
       p.year_fen, p.splits, p.valid_from, p.valid_to
  FROM merchant m
  LEFT JOIN medical_policy p ON p.category = m.category
   AND coalesce(p.valid_to, 'infinity') >= current_date - 2 AND p.valid_from <= current_date + 2
 WHERE m.merchant_no = ANY(%(merchants)b::int[]);

-- name: read_medical_windows
SELECT account_id, day, day_fen, year_fen
  FROM medical_window
 WHERE shard = %(shard)b AND account_id = ANY(%(accounts)b::bigint[]);

-- name: read_splits
SELECT entry_no, business_date, account_id, policy_no, medical_fen, own_fen
  FROM purchase_split
 WHERE shard = %(shard)b AND entry_no = ANY(%(entries)b::bigint[]);

-- name: write_splits
INSERT INTO purchase_split (shard, entry_no, business_date, account_id, policy_no, medical_fen, own_fen)
SELECT %(shard)b::smallint, n.entry_no, %(business_date)b::date, n.account_id, n.policy_no, n.medical_fen, n.own_fen
  FROM unnest(%(entries)b::bigint[], %(accounts)b::bigint[], %(policies)b::int[], %(covered)b::bigint[], %(own)b::bigint[])
       AS n (entry_no, account_id, policy_no, medical_fen, own_fen);

-- name: write_medical_windows
INSERT INTO medical_window (shard, account_id, day, day_fen, year_fen)
SELECT %(shard)b::smallint, *
  FROM unnest(%(accounts)b::bigint[], %(days)b::date[], %(day_fens)b::bigint[], %(year_fens)b::bigint[])
    ON CONFLICT (shard, account_id) DO UPDATE
   SET day = excluded.day, day_fen = excluded.day_fen, year_fen = excluded.year_fen;

-- name: write_second_postings
-- Line 1 of entries that two accounts pay or get back; line 0 is written like everybody's.
INSERT INTO posting (shard, business_date, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT %(shard)b::smallint, %(business_date)b::date, n.entry_no, 1, n.debit_code, n.debit_owner, n.credit_code, n.credit_owner, n.amount_fen
  FROM unnest(%(entries)b::bigint[], %(debit_codes)b::smallint[], %(debit_owners)b::bigint[],
              %(credit_codes)b::smallint[], %(credit_owners)b::bigint[], %(amounts)b::bigint[])
       AS n (entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen);
