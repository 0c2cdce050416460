-- Other cities' cards at our merchants (foreign.py): records with result 11, and what became of them.

-- name: plan_forward
-- What a day forwards: not what another city's own merchants brought, who are paid by it.
SELECT count(*), coalesce(sum(r.amount_fen), 0)::bigint
  FROM purse_record r
  JOIN clearing_merchant m USING (business_date, merchant_no)
  JOIN institution i ON i.institution_id = m.acquirer_id AND i.role <> 'CITY'
 WHERE r.business_date = %(day)s AND r.result = '11';

-- name: find_answered
-- Records of the queue that were forwarded (as plan_forward says), by what tells a record from any other. In order of entry: close and
-- answers may meet.
SELECT w.entry_no, w.verdict IS NOT NULL, h.original_entry IS NOT NULL, k.n
  FROM unnest(%(cards)s::bigint[], %(atcs)s::int[], %(amounts)s::bigint[], %(marks)s::bytea[], %(raws)s::bytea[])
       WITH ORDINALITY AS k (card, atc, amount_fen, mark, raw, n)
  JOIN purse_waiting w
    ON w.card = k.card AND w.atc = k.atc AND w.amount_fen = k.amount_fen AND w.mark = k.mark AND w.result = '11'
  JOIN purse_record r ON r.entry_no = w.entry_no AND r.business_date = w.business_date AND r.raw = k.raw
  JOIN clearing_merchant m ON m.business_date = r.business_date AND m.merchant_no = r.merchant_no
  JOIN institution i ON i.institution_id = m.acquirer_id AND i.role <> 'CITY'
  JOIN clearing_file f ON f.business_date = w.business_date AND f.name LIKE 'FH%%' AND f.sm3 IS NOT NULL
  LEFT JOIN foreign_hold h ON h.original_entry = w.entry_no
 ORDER BY w.entry_no, k.n
   FOR UPDATE OF w;

-- name: find_unanswered
-- Forwarded, and the time for an answer was over when this day ended. What its city holds as grey has more time.
SELECT w.entry_no
  FROM purse_waiting w
  JOIN business_day d ON d.business_date = %(day)s
  JOIN purse_record r ON r.entry_no = w.entry_no AND r.business_date = w.business_date
  JOIN clearing_merchant m ON m.business_date = r.business_date AND m.merchant_no = r.merchant_no
  JOIN institution i ON i.institution_id = m.acquirer_id AND i.role <> 'CITY'
  JOIN clearing_file f ON f.business_date = w.business_date AND f.name LIKE 'FH%%' AND f.sm3 IS NOT NULL
  LEFT JOIN foreign_hold h ON h.original_entry = w.entry_no
 WHERE w.result = '11' AND w.verdict IS NULL AND w.business_date < %(day)s
   AND (w.business_date + CASE WHEN h.original_entry IS NULL THEN %(answer_days)s::integer ELSE %(held_days)s::integer END
        + %(answer_by)s::time) AT TIME ZONE INTERVAL '8 hours' <= d.ends_at
 ORDER BY w.entry_no
   FOR UPDATE OF w;

-- name: write_verdicts
INSERT INTO foreign_verdict (entry_no, business_date, original_entry, original_date, decided_at, result, answered_on, file_no, issuer_id,
                             merchant_no, terminal_no, batch_no, amount_fen, balance_fen, atc, psam_serial, record_serial, record_kind,
                             happened_at, raw)
SELECT n.entry_no, %(day)s, r.entry_no, r.business_date, %(now)s, n.result, n.answered_on, %(file_no)s, i.institution_id, r.merchant_no,
       r.terminal_no, r.batch_no, r.amount_fen, r.balance_fen, r.atc, r.psam_serial, r.record_serial, r.record_kind, r.happened_at, r.raw
  FROM unnest(%(entries)s::bigint[], %(originals)s::bigint[], %(results)s::text[], %(dates)s::date[])
       AS n (entry_no, original, result, answered_on)
  JOIN purse_waiting w ON w.entry_no = n.original
  JOIN purse_record r ON r.entry_no = w.entry_no AND r.business_date = w.business_date
  JOIN card_issuer i ON i.issuer_id = substr(r.raw, 17, 8);

-- name: post_verdicts
INSERT INTO posting (shard, business_date, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT 0, business_date, entry_no, 0, %(receivable)s, issuer_id::bigint, %(payable)s, merchant_no, amount_fen
  FROM foreign_verdict
 WHERE entry_no = ANY(%(entries)s::bigint[]) AND result = '00' AND amount_fen > 0;

-- name: write_holds
INSERT INTO foreign_hold (original_entry, business_date, held_at, answered_on, file_no)
SELECT n.original, %(day)s, %(now)s, n.answered_on, %(file_no)s
  FROM unnest(%(originals)s::bigint[], %(dates)s::date[]) AS n (original, answered_on);

-- name: end_waiting
UPDATE purse_waiting w
   SET verdict = CASE n.result WHEN '00' THEN '00' ELSE '94' END, decided_on = %(day)s
  FROM unnest(%(originals)s::bigint[], %(results)s::text[]) AS n (original, result)
 WHERE w.entry_no = n.original;

-- name: read_instant
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, d.business_date
  FROM clock JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at AND d.sealed_at IS NULL;

-- name: last_instant
-- Of a day that has ended: rows written by its close bear its last microsecond, so that a second run writes the same.
SELECT ends_at - interval '1 microsecond' FROM business_day WHERE business_date = %(day)s;
