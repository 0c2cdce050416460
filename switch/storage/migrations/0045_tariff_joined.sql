-- depends: 0044_tariff_of_cases
-- The tariff between cities is joined to a day's charges, and not looked up for each: a query that looks up row by row, or ranks rows, PostgreSQL
-- leaves to one process, and a day was summed and written by one.

-- As before, without a window function.
CREATE OR REPLACE VIEW interop_rate AS
SELECT t.valid_from, coalesce(min(next.valid_from), 'infinity') AS until, t.rate_ppm, t.minimum_fen, t.cap_fen, t.weight_issuer,
       t.weight_centre, t.weight_issuer + t.weight_centre + t.weight_acquirer AS weight_all
  FROM interop_tariff t LEFT JOIN interop_tariff next ON next.valid_from > t.valid_from
 GROUP BY t.valid_from;

-- As before, with the date whose tariff between cities counts.
CREATE OR REPLACE VIEW clearing_item AS
SELECT j.business_date, j.entry_no, j.decided_at AS at, j.merchant_no, j.terminal_no, j.batch_no, j.stan,
       CASE WHEN l.account_kind IS NOT NULL THEN l.account_kind WHEN j.account_id IS NULL THEN 20
            ELSE j.account_id % 100 END::smallint AS account_kind,
       j.pan, j.effect_fen,
       CASE WHEN j.kind IN (8, 10) THEN j.business_date ELSE coalesce(j.original_date, j.business_date) END AS rule_date,
       2101::smallint AS payable_code, j.kind, j.rrn,
       j.auth_code, j.entry_mode, j.decided_at AT TIME ZONE INTERVAL '8 hours' AS local_time, '' AS other,
       l.issuer_id AS owing_id, coalesce(l.pan, j.pan) AS issuer_pan,
       coalesce(l.tariff_on, (j.decided_at AT TIME ZONE INTERVAL '8 hours')::date) AS tariff_on
  FROM journal j
  LEFT JOIN clearing_leg l USING (business_date, entry_no)
 WHERE j.effect_fen <> 0
UNION ALL
SELECT r.business_date, r.entry_no, r.received_at, r.merchant_no, r.terminal_no, r.batch_no,
       (coalesce(r.record_serial, 0) % 1000000)::integer, 50::smallint, c.pan,
       r.amount_fen, coalesce(r.original_date, r.business_date), r.credit_code, 20::smallint,
       reference_of(r.entry_no, r.received_at), '', '072', r.happened_at,
       upper(encode(substr(r.raw, 29, 2) || substr(r.raw, 52, 4), 'hex')), NULL, c.pan, r.happened_at::date
  FROM purse_record r
 CROSS JOIN LATERAL (SELECT substr(encode(substr(r.raw, 7, 10), 'hex'), 2) AS pan) AS c
 WHERE r.result IN ('10', '00') AND r.amount_fen > 0 AND r.batch_no >= 0
UNION ALL
SELECT v.business_date, v.entry_no, v.decided_at, v.merchant_no, v.terminal_no, v.batch_no, (v.record_serial % 1000000)::integer,
       50::smallint, c.pan, v.amount_fen, v.original_date, 2101::smallint, 20::smallint, reference_of(v.entry_no, v.decided_at), '',
       '072', v.happened_at, upper(encode(substr(v.raw, 29, 2) || substr(v.raw, 52, 4), 'hex')), v.issuer_id, c.pan, v.happened_at::date
  FROM foreign_verdict v
 CROSS JOIN LATERAL (SELECT substr(encode(substr(v.raw, 7, 10), 'hex'), 2) AS pan) AS c
 WHERE v.result = '00' AND v.amount_fen > 0;

-- As before.
CREATE OR REPLACE VIEW clearing_charge AS
SELECT i.business_date, i.entry_no, i.at, i.merchant_no, i.terminal_no, i.batch_no, i.stan, i.account_kind, i.pan, i.effect_fen, i.rule_date,
       i.payable_code, i.kind, i.rrn, i.auth_code, i.entry_mode, i.local_time, i.other, i.owing_id, i.issuer_pan,
       coalesce(i.owing_id, d.own_id) AS issuer_id, d.own_id, d.acquirer_code, m.merchant_id, m.category, m.acquirer_id, f.fee_fen,
       CASE WHEN i.account_kind = 50 AND i.owing_id IS NOT NULL AND d.interop_id IS NOT NULL
            THEN coalesce(fee_of(i.effect_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_issuer / t.weight_all, 0)
            ELSE f.fee_fen * r.weight_issuer / (r.weight_issuer + r.weight_switch + r.weight_acquirer) END AS issuer_fee_fen,
       CASE WHEN i.account_kind = 50 AND i.owing_id IS NOT NULL AND d.interop_id IS NOT NULL
            THEN coalesce(fee_of(i.effect_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_centre / t.weight_all, 0)
            ELSE f.fee_fen * r.weight_switch / (r.weight_issuer + r.weight_switch + r.weight_acquirer) END AS switch_fee_fen
  FROM clearing_item i
  LEFT JOIN clearing_day d USING (business_date)
  LEFT JOIN clearing_merchant m USING (business_date, merchant_no)
  LEFT JOIN clearing_rule r USING (business_date, merchant_no, account_kind, rule_date)
  LEFT JOIN interop_rate t ON i.account_kind = 50 AND i.owing_id IS NOT NULL AND d.interop_id IS NOT NULL
                          AND i.tariff_on >= t.valid_from AND i.tariff_on < t.until
 CROSS JOIN LATERAL (SELECT fee_of(i.effect_fen, r.rate_ppm, r.minimum_fen, r.cap_fen) AS fee_fen) AS f;
