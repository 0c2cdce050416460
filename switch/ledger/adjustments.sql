-- What two people decided about a transaction, in its holder's shard (adjustments.py). Locks in the order of a batch: gate, accounts, terminal.

-- name: read_entry
-- The parts of the key that are known lead to one terminal's rows of one day.
SELECT j.kind, j.answer, j.account_id, j.pan, j.amount_fen, j.effect_fen, j.rrn, j.merchant_no, j.terminal_no
  FROM journal j
 WHERE j.shard = %(shard)s AND j.business_date = %(day)s AND j.terminal_no = %(terminal_no)s AND j.entry_no = %(entry_no)s AND j.class = 0;

-- name: read_record
-- A record of ours that is paid: as it came, or by its adjudication. Its holder is who the card belongs to, if anybody knows.
SELECT r.card_no, substr(encode(substr(r.raw, 7, 10), 'hex'), 2), r.amount_fen, reference_of(i.entry_no, i.received_at), r.merchant_no,
       r.terminal_no, i.credit_code, c.holder_id
  FROM purse_record r
  JOIN purse_record i ON i.entry_no = %(item_entry)s AND i.business_date = %(item_date)s AND i.result IN ('10', '00')
   AND coalesce(i.original_entry, i.entry_no) = r.entry_no
  LEFT JOIN card_route c ON c.card_no = r.card_no
 WHERE r.entry_no = %(entry_no)s AND r.business_date = %(day)s;

-- name: read_verdict
SELECT substr(encode(substr(v.raw, 7, 10), 'hex'), 2), v.amount_fen, reference_of(v.entry_no, v.decided_at), v.merchant_no, v.terminal_no,
       v.issuer_id
  FROM foreign_verdict v
 WHERE v.entry_no = %(item_entry)s AND v.original_entry = %(entry_no)s AND v.result = '00';

-- name: read_leg
SELECT debit_code, debit_owner, state, service FROM host_leg WHERE shard = %(shard)s AND ended_by = %(entry_no)s;

-- name: read_split
SELECT entry_no, business_date, account_id, policy_no, medical_fen, own_fen
  FROM purchase_split WHERE shard = %(shard)s AND entry_no = %(entry_no)s;

-- name: lock_accounts
SELECT account_id, balance_fen - held_fen, frozen
  FROM account
 WHERE shard = %(shard)s AND account_id = ANY(%(accounts)s)
 ORDER BY account_id
   FOR NO KEY UPDATE;

-- name: lock_terminal
SELECT pg_advisory_xact_lock(%(space)s, %(terminal_no)s);

-- name: lock_use
SELECT refunded_fen, undone_by FROM original_use WHERE shard = %(shard)s AND entry_no = %(entry_no)s FOR NO KEY UPDATE;

-- name: read_instant
-- After the locks, like everybody's.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, d.business_date
  FROM clock JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at;

-- name: read_cancelled
SELECT state = 8 FROM card WHERE shard = %(shard)s AND pan = %(pan)s;

-- name: credited_to
-- Where the money of an earlier adjustment went, share by share.
SELECT credit_code, credit_owner FROM posting WHERE shard = %(shard)s AND entry_no = %(entry_no)s AND business_date = %(day)s ORDER BY line;

-- name: left_in_suspense
-- What was given back of an original into 2201, since its card is cancelled or it has no holder, less what was taken out of there again.
SELECT coalesce(sum(CASE p.credit_code WHEN 2201 THEN p.amount_fen ELSE -p.amount_fen END), 0)::bigint
  FROM journal j
  JOIN posting p ON p.shard = j.shard AND p.business_date = j.business_date AND p.entry_no = j.entry_no
 WHERE j.shard = %(shard)s AND j.business_date >= %(day)s AND j.terminal_no = %(terminal_no)s AND j.original_entry = %(entry_no)s
   AND 2201 IN (p.debit_code, p.credit_code);

-- name: numbers
SELECT nextval('entry_no_block'), nextval('adjustment_no');

-- name: move_account
UPDATE account SET balance_fen = balance_fen + %(fen)s WHERE shard = %(shard)s AND account_id = %(account_id)s;

-- name: read_medical_window
SELECT account_id, day, day_fen, year_fen FROM medical_window WHERE shard = %(shard)s AND account_id = %(account_id)s;

-- name: write_medical_window
INSERT INTO medical_window (shard, account_id, day, day_fen, year_fen)
VALUES (%(shard)s, %(account_id)s, %(day)s, %(day_fen)s, %(year_fen)s)
    ON CONFLICT (shard, account_id) DO UPDATE SET day = excluded.day, day_fen = excluded.day_fen, year_fen = excluded.year_fen;

-- name: write_use
INSERT INTO original_use (shard, entry_no, business_date, amount_fen, refunded_fen, undone_by)
VALUES (%(shard)s, %(entry_no)s, %(day)s, %(amount_fen)s, %(refunded_fen)s, NULL)
    ON CONFLICT (shard, entry_no) DO UPDATE SET refunded_fen = excluded.refunded_fen, undone_by = NULL;

-- name: write_entry
INSERT INTO journal (shard, business_date, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, account_id, pan, amount_fen,
                     effect_fen, answer, rrn, decided_at, digest, original_date, original_entry)
VALUES (%(shard)s, %(today)s, %(terminal_no)s, %(batch_no)s, %(stan)s, 3, %(entry_no)s, %(merchant_no)s, %(kind)s, %(account_id)s, %(pan)s,
        %(amount_fen)s, %(effect_fen)s, '00', %(rrn)s, %(now)s, %(digest)s, %(day)s, %(original)s);

-- name: write_posting
INSERT INTO posting (shard, business_date, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
VALUES (%(shard)s, %(today)s, %(entry_no)s, %(line)s, %(debit_code)s, %(debit_owner)s, %(credit_code)s, %(credit_owner)s, %(amount_fen)s);
