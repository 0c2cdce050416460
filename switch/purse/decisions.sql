-- A record that people accept after all (decisions.py): one row of the open day, which uses its counters up like any accepted record.

-- name: read_record
SELECT r.result, r.record_kind, r.card, r.card_no, r.atc, r.psam, r.psam_serial, r.amount_fen, r.credit_code, r.credit_owner, r.merchant_no,
       r.terminal_no
  FROM purse_record r
 WHERE r.entry_no = %(entry_no)s AND r.business_date = %(day)s AND r.original_entry IS NULL;

-- name: lock_waiting
-- The close takes these rows too, when evidence settles them.
SELECT verdict FROM purse_waiting WHERE entry_no = %(entry_no)s FOR UPDATE;

-- name: read_verdict
-- Of a record that does not wait: whether it was accepted before.
SELECT EXISTS (SELECT FROM purse_atc WHERE card = %(card)s AND atc = %(atc)s),
       EXISTS (SELECT FROM purse_serial WHERE psam = %(psam)s AND psam_serial = %(psam_serial)s);

-- name: write_record
INSERT INTO purse_record (entry_no, card_no, card, amount_fen, balance_fen, psam, psam_serial, record_serial, credit_owner, happened_at,
                          received_at, original_entry, business_date, original_date, terminal_no, merchant_no, batch_no, atc, shard,
                          credit_code, record_kind, result, raw)
SELECT %(number)s, o.card_no, o.card, o.amount_fen, o.balance_fen, o.psam, o.psam_serial, o.record_serial, o.credit_owner, o.happened_at,
       %(now)s, o.entry_no, %(today)s, o.business_date, o.terminal_no, o.merchant_no, o.batch_no, o.atc, o.shard, o.credit_code,
       o.record_kind, '00', o.raw
  FROM purse_record o
 WHERE o.entry_no = %(entry_no)s AND o.business_date = %(day)s;

-- name: use_up_atc
INSERT INTO purse_atc (card, atc, amount_fen, balance_fen, entry_no, business_date, mark)
SELECT card, atc, amount_fen, balance_fen, entry_no, business_date, substr(raw, 39, 21)
  FROM purse_record WHERE entry_no = %(number)s AND business_date = %(today)s
    ON CONFLICT DO NOTHING;

-- name: use_up_serial
INSERT INTO purse_serial (psam, psam_serial, card, atc)
SELECT psam, psam_serial, card, atc FROM purse_record WHERE entry_no = %(number)s AND business_date = %(today)s
    ON CONFLICT DO NOTHING;

-- name: end_waiting
UPDATE purse_waiting SET verdict = '00', decided_on = %(today)s WHERE entry_no = %(entry_no)s;
