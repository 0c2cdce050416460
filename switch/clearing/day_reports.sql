-- Reports of a closed day (day_reports.py): first what is frozen for them, then one query each. Columns of a report are its columns in
-- CSV and JSON; every report has an order that leaves no two rows equal, so that a second run gives the same bytes. %(day)s is the business date.

-- name: freeze_movements
-- Once: the postings step asks for it, and the reports step again, for a day that an older version has brought half-way.
INSERT INTO clearing_movement (business_date, debit_code, credit_code, source, class, events, move_count, amount_fen)
SELECT %(day)s, m.debit_code, m.credit_code, m.source, coalesce(k.class, 'OTHER'), coalesce(k.events, ''), m.moves, m.fen
  FROM (SELECT debit_code, credit_code, 'POSTING' AS source, count(*) AS moves, sum(amount_fen)::bigint AS fen
          FROM posting WHERE business_date = %(day)s GROUP BY debit_code, credit_code
        UNION ALL
        SELECT 2002, credit_code, CASE WHEN original_entry IS NULL THEN 'RECORD' ELSE 'DECISION' END, count(*), sum(amount_fen)::bigint
          FROM purse_record
         WHERE business_date = %(day)s AND result IN ('10', '00') AND amount_fen > 0
         GROUP BY credit_code, original_entry IS NULL) AS m
  LEFT JOIN unnest(%(debits)s::smallint[], %(credits)s::smallint[], %(sources)s::text[], %(classes)s::text[], %(events)s::text[])
         AS k (debit_code, credit_code, source, class, events)
    ON k.debit_code = m.debit_code AND k.credit_code = m.credit_code AND k.source = m.source
 WHERE NOT EXISTS (SELECT FROM clearing_movement WHERE business_date = %(day)s);

-- name: freeze_suspense
-- A load is in suspense at the end of a day when the last of its moves into or out of suspense, up to that day, was into it. Moves are dated under the
-- gate, so that none of a sealed day can come any more. Where the money was on entering, it stays.
INSERT INTO clearing_suspense (business_date, shard, load_no, card_no, source, loaded_on, since, reason, on_2201, amount_fen)
SELECT %(day)s, m.shard, m.load_no, l.card_no, l.source, l.business_date, e.at, e.reason, e.from_state NOT IN (3, 6), l.amount_fen
  FROM (SELECT DISTINCT ON (shard, load_no) shard, load_no, to_state
          FROM purse_load_move
         WHERE business_date <= %(day)s AND (from_state = 4 OR to_state = 4)
         ORDER BY shard, load_no, at DESC, entry_no DESC, line DESC) AS m
 CROSS JOIN LATERAL (
       SELECT at, reason, from_state FROM purse_load_move
        WHERE shard = m.shard AND load_no = m.load_no AND to_state = 4 AND from_state <> 4 AND business_date <= %(day)s
        ORDER BY at DESC, entry_no DESC, line DESC LIMIT 1) AS e
  JOIN purse_load l ON l.shard = m.shard AND l.entry_no = m.load_no
 WHERE m.to_state = 4;

-- name: freeze_gaps
-- Holes of a counter are disjoint; should a fold have left two that begin alike, that is no reason to leave a day open.
INSERT INTO clearing_gap (business_date, kind, owner, missing_from, missing_to, opened_at, device, merchant)
SELECT %(day)s, g.kind, g.owner, lower(g.missing), upper(g.missing) - 1, g.opened_at,
       coalesce(t.terminal_id, p.psam_no, g.owner::text), coalesce(m.merchant_id, '')
  FROM purse_gap g
  LEFT JOIN terminal t ON g.kind IN (3, 4) AND t.terminal_no = g.owner
  LEFT JOIN psam p ON g.kind = 2 AND p.psam_no = lpad(g.owner::text, 12, '0')
  LEFT JOIN merchant m ON m.merchant_no = coalesce(t.merchant_no, p.merchant_no)
 WHERE g.closed_at IS NULL AND g.kind <> 1
UNION ALL
SELECT %(day)s, 1, 0, 1, sum(upper(missing) - lower(missing))::bigint, min(opened_at), '', ''
  FROM purse_gap WHERE closed_at IS NULL AND kind = 1 HAVING count(*) > 0
    ON CONFLICT DO NOTHING;

-- name: freeze_alarms
INSERT INTO clearing_alarm (alarm_no, business_date)
SELECT alarm_no, %(day)s FROM purse_alarm a
 WHERE business_date <= %(day)s AND NOT EXISTS (SELECT FROM clearing_alarm c WHERE c.alarm_no = a.alarm_no);

-- name: freeze_batches
INSERT INTO clearing_open_batch (business_date, terminal_no, batch_no, opened_on, state, terminal, merchant)
SELECT %(day)s, b.terminal_no, b.batch_no, b.opened_on, b.state, t.terminal_id, m.merchant_id
  FROM terminal_batch b JOIN terminal t USING (terminal_no) JOIN merchant m USING (merchant_no)
 WHERE b.state <> 2 AND b.opened_on <= %(day)s;

-- name: plan_reports
INSERT INTO clearing_report (business_date, report, ordinal, name)
SELECT %(day)s, * FROM unnest(%(reports)s::text[], %(ordinals)s::smallint[], %(names)s::text[]);

-- name: note_reports
UPDATE clearing_day SET has_reports = true WHERE business_date = %(day)s;

-- name: has_reports
SELECT has_reports FROM clearing_day WHERE business_date = %(day)s;

-- name: planned
SELECT report, name, row_count, size_bytes, upper(encode(sm3, 'hex')) FROM clearing_report WHERE business_date = %(day)s ORDER BY ordinal;

-- name: store_report
UPDATE clearing_report SET row_count = %(rows)s, size_bytes = %(size)s, sm3 = decode(%(sm3)s, 'hex')
 WHERE business_date = %(day)s AND report = %(report)s AND sm3 IS NULL;

-- name: reports_outcome
SELECT count(*) AS reports, coalesce(sum(row_count), 0)::bigint AS rows, coalesce(sum(size_bytes), 0)::bigint AS bytes
  FROM clearing_report WHERE business_date = %(day)s;

-- name: institutions
-- Net positions; the last line is the centre's share of the fees, which is what the others lack to zero.
SELECT institution, issuing_count, issuing_fen, acquiring_count, acquiring_fen, issuer_fee_fen, fees_paid_fen, net_fen, settlement_date
  FROM (SELECT p.ordinal, p.institution_id AS institution, p.issuing_count, p.issuing_fen, p.acquiring_count, p.acquiring_fen,
               p.issuer_fee_fen, p.fees_paid_fen, p.net_fen, d.settlement_date
          FROM clearing_position p JOIN clearing_day d USING (business_date) WHERE p.business_date = %(day)s
        UNION ALL
        SELECT 2147483647, 'centre ' || d.centre_id, 0, 0, 0, 0, 0, 0,
               (SELECT coalesce(sum(switch_fee_fen), 0)::bigint FROM clearing_summary s WHERE s.business_date = d.business_date), d.settlement_date
          FROM clearing_day d WHERE d.business_date = %(day)s) AS line
 ORDER BY ordinal;

-- name: settlement
-- All clearing days up to this one whose money moves on the same settlement date: after a holiday several settle together.
SELECT d.settlement_date, d.business_date AS clearing_date, p.institution_id AS institution, p.net_fen,
       sum(p.net_fen) OVER (PARTITION BY p.institution_id ORDER BY d.business_date)::bigint AS running_fen
  FROM clearing_day today
  JOIN clearing_day d ON d.settlement_date = today.settlement_date AND d.business_date <= today.business_date
  JOIN clearing_position p ON p.business_date = d.business_date
 WHERE today.business_date = %(day)s
 ORDER BY d.business_date, p.ordinal;

-- name: merchants
SELECT m.merchant_id AS merchant, m.category, m.acquirer_id AS acquirer, coalesce(s.items, 0) AS items, coalesce(s.debit_count, 0) AS sales_count,
       coalesce(s.debit_fen, 0) AS sales_fen, coalesce(s.credit_count, 0) AS refund_count, coalesce(s.credit_fen, 0) AS refund_fen,
       coalesce(s.fee_fen, 0) AS fee_fen, coalesce(s.net_fen, 0) AS net_fen, coalesce(o.refused_count, 0) AS refused_count,
       coalesce(o.refused_fen, 0) AS refused_fen, coalesce(o.pending_count, 0) AS pending_count, coalesce(o.pending_fen, 0) AS pending_fen
  FROM clearing_merchant m
  LEFT JOIN (SELECT merchant_no, sum(item_count)::bigint AS items, sum(debit_count)::bigint AS debit_count, sum(debit_fen)::bigint AS debit_fen,
                    sum(credit_count)::bigint AS credit_count, sum(credit_fen)::bigint AS credit_fen, sum(fee_fen)::bigint AS fee_fen,
                    sum(amount_fen - fee_fen)::bigint AS net_fen
               FROM clearing_summary WHERE business_date = %(day)s GROUP BY merchant_no) AS s ON s.merchant_no = m.merchant_no
  LEFT JOIN clearing_offline o ON o.business_date = m.business_date AND o.merchant_no = m.merchant_no
 WHERE m.business_date = %(day)s
 ORDER BY m.merchant_id;

-- name: kinds
SELECT account_kind, issuer_id AS issuer, sum(item_count)::bigint AS items, sum(debit_count)::bigint AS sales_count, sum(debit_fen)::bigint AS sales_fen,
       sum(credit_count)::bigint AS refund_count, sum(credit_fen)::bigint AS refund_fen, sum(fee_fen)::bigint AS fee_fen,
       sum(issuer_fee_fen)::bigint AS issuer_fee_fen, sum(switch_fee_fen)::bigint AS switch_fee_fen,
       sum(acquirer_fee_fen)::bigint AS acquirer_fee_fen
  FROM clearing_summary WHERE business_date = %(day)s
 GROUP BY account_kind, issuer_id ORDER BY account_kind, issuer_id;

-- name: float
-- Debit positive: opening and all columns up to closing add up. 9001 is grey records: what came less what was decided, in other_fen.
WITH side AS (
    SELECT debit_code AS code, class, amount_fen AS fen FROM clearing_movement WHERE business_date = %(day)s
    UNION ALL
    SELECT credit_code, class, -amount_fen FROM clearing_movement WHERE business_date = %(day)s
), moved AS (
    SELECT code, coalesce(sum(fen) FILTER (WHERE class = 'LOAD'), 0)::bigint AS loads_fen,
           coalesce(sum(fen) FILTER (WHERE class = 'PURCHASE'), 0)::bigint AS purchases_fen,
           coalesce(sum(fen) FILTER (WHERE class = 'REFUND'), 0)::bigint AS refunds_fen,
           coalesce(sum(fen) FILTER (WHERE class = 'ADJUSTMENT'), 0)::bigint AS adjustments_fen,
           coalesce(sum(fen) FILTER (WHERE class = 'FEE'), 0)::bigint AS fees_fen,
           coalesce(sum(fen) FILTER (WHERE class = 'SUSPENSE'), 0)::bigint AS suspense_fen,
           coalesce(sum(fen) FILTER (WHERE class = 'TRANSFER'), 0)::bigint AS transfers_fen,
           coalesce(sum(fen) FILTER (WHERE class = 'SETTLEMENT'), 0)::bigint AS settlement_fen
      FROM side GROUP BY code
)
SELECT f.code, f.opening_fen, coalesce(m.loads_fen, 0) AS loads_fen, coalesce(m.purchases_fen, 0) AS purchases_fen,
       coalesce(m.refunds_fen, 0) AS refunds_fen, coalesce(m.adjustments_fen, 0) AS adjustments_fen, coalesce(m.fees_fen, 0) AS fees_fen,
       coalesce(m.suspense_fen, 0) AS suspense_fen, coalesce(m.transfers_fen, 0) AS transfers_fen, coalesce(m.settlement_fen, 0) AS settlement_fen,
       f.closing_fen - f.opening_fen - coalesce(m.loads_fen + m.purchases_fen + m.refunds_fen + m.adjustments_fen + m.fees_fen + m.suspense_fen
                                                + m.transfers_fen + m.settlement_fen, 0) AS other_fen, f.closing_fen
  FROM clearing_float f LEFT JOIN moved m ON m.code = f.code
 WHERE f.business_date = %(day)s
 ORDER BY f.code;

-- name: movements
SELECT debit_code, credit_code, source, class, events, move_count, amount_fen
  FROM clearing_movement WHERE business_date = %(day)s ORDER BY debit_code, credit_code, source;

-- name: cover
-- ratio_ppm: what is held for each million fen that is owed, rounded down; at least 1000000, or the operator owes more than is there. Empty: nothing is owed.
WITH line AS (
    SELECT code, CASE WHEN code = ANY(%(assets)s::smallint[]) THEN closing_fen ELSE -closing_fen END AS fen, code = ANY(%(assets)s::smallint[]) AS held
      FROM clearing_float WHERE business_date = %(day)s AND code = ANY(%(assets)s::smallint[] || %(debts)s::smallint[])
), total AS (
    SELECT coalesce(sum(fen) FILTER (WHERE held), 0)::bigint AS held, coalesce(sum(fen) FILTER (WHERE NOT held), 0)::bigint AS owed FROM line
)
SELECT item, code, amount_fen, ratio_ppm
  FROM (SELECT CASE WHEN held THEN 1 ELSE 3 END AS part, CASE WHEN held THEN 'held' ELSE 'owed' END AS item, code, fen::bigint AS amount_fen, NULL::bigint AS ratio_ppm FROM line
        UNION ALL SELECT 2, 'held in all', NULL, held, NULL FROM total
        UNION ALL SELECT 4, 'owed in all', NULL, owed, NULL FROM total
        UNION ALL SELECT 5, 'cover', NULL, held - owed, div(held::numeric * 1000000, nullif(owed, 0))::bigint FROM total) AS every
 ORDER BY part, code;

-- name: suspense
-- By age on this day, in calendar days. Loads in SUSPENSE are aged from the day of the load. Of account 2201 it is known which day credited how much, so what has
-- left it counts as the oldest (first in, first out).
WITH bucket (place, bucket, from_days, to_days) AS (
    VALUES (1, '0-1', 0, 1), (2, '2-7', 2, 7), (3, '8-30', 8, 30), (4, '31-90', 31, 90), (5, '91+', 91, 2147483647)
), credited AS (
    SELECT business_date, credit_fen,
           sum(credit_fen) OVER (ORDER BY business_date) - (SELECT coalesce(sum(debit_fen), 0) FROM clearing_float WHERE code = 2201 AND business_date <= %(day)s) AS reached
      FROM clearing_float WHERE code = 2201 AND business_date <= %(day)s
), item AS (
    SELECT 'load, money on 2201' AS item, %(day)s::date - loaded_on AS days, amount_fen::numeric AS fen, 1 AS n FROM clearing_suspense WHERE business_date = %(day)s AND on_2201
    UNION ALL
    SELECT 'load, money at its source', %(day)s::date - loaded_on, amount_fen, 1 FROM clearing_suspense WHERE business_date = %(day)s AND NOT on_2201
    UNION ALL
    SELECT 'account 2201', %(day)s::date - business_date, least(reached, credit_fen), 0 FROM credited WHERE reached > 0 AND credit_fen > 0
    UNION ALL
    SELECT 'account 2201', 0, min(reached), 0 FROM (SELECT reached FROM credited ORDER BY business_date DESC LIMIT 1) AS last WHERE reached < 0 HAVING count(*) > 0
), kind (kind_place, item) AS (
    VALUES (1, 'load, money on 2201'), (2, 'load, money at its source'), (3, 'account 2201')
)
SELECT k.item, b.bucket AS days, count(i.n) FILTER (WHERE i.n = 1) AS loads, coalesce(sum(i.fen), 0)::bigint AS amount_fen
  FROM kind k CROSS JOIN bucket b
  LEFT JOIN item i ON i.item = k.item AND i.days BETWEEN b.from_days AND b.to_days
 GROUP BY k.kind_place, k.item, b.place, b.bucket ORDER BY k.kind_place, b.place;

-- name: suspense_loads
SELECT load_no AS load, card_no, CASE source WHEN 1 THEN 'bound bank' WHEN 2 THEN 'online' WHEN 3 THEN 'other bank' ELSE 'cash' END AS source, loaded_on,
       %(day)s::date - loaded_on AS days, to_char(since AT TIME ZONE INTERVAL '8 hours', 'YYYY-MM-DD HH24:MI:SS') AS since, reason,
       CASE WHEN on_2201 THEN '2201' ELSE 'source' END AS money, amount_fen
  FROM clearing_suspense WHERE business_date = %(day)s ORDER BY loaded_on, load_no, shard;

-- name: gaps
SELECT CASE kind WHEN 1 THEN 'card_atc' WHEN 2 THEN 'psam_serial' WHEN 3 THEN 'record_serial' WHEN 4 THEN 'batch_serial' ELSE 'kind_' || kind END AS counter,
       CASE kind WHEN 1 THEN 'all cards' ELSE device END AS device, merchant,
       CASE kind WHEN 1 THEN NULL ELSE missing_from END AS missing_from, CASE kind WHEN 1 THEN NULL ELSE missing_to END AS missing_to,
       missing_to - missing_from + 1 AS missing_count, to_char(opened_at AT TIME ZONE INTERVAL '8 hours', 'YYYY-MM-DD') AS since,
       %(day)s::date - (opened_at AT TIME ZONE INTERVAL '8 hours')::date AS days
  FROM clearing_gap WHERE business_date = %(day)s ORDER BY kind, owner, missing_from;

-- name: collisions
-- When a fold raised an alarm is not said: how late it ran is no matter of the day.
SELECT a.alarm_no AS alarm, a.kind, a.business_date,
       CASE WHEN a.card IS NULL THEN '' ELSE left(card_digits(a.card), 6) || '*********' || right(card_digits(a.card), 4) END AS card,
       a.entry_no AS entry, a.gap_no AS gap, a.detail
  FROM clearing_alarm c JOIN purse_alarm a USING (alarm_no) WHERE c.business_date = %(day)s ORDER BY a.alarm_no;

-- name: batches
SELECT terminal, merchant, batch_no, opened_on, %(day)s::date - opened_on AS days,
       CASE state WHEN 0 THEN 'open' ELSE 'being settled' END AS state
  FROM clearing_open_batch WHERE business_date = %(day)s ORDER BY terminal, batch_no;
