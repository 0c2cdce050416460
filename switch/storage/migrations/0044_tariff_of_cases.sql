-- depends: 0037_interop 0043_bank_entries_resolved
-- What a case moves of another city's ride mirrors the ride: its tariff is that of the ride's date, not of the decision's.

-- tariff_on: the date in the record that a case is about; NULL of whatever else is kept here.
ALTER TABLE clearing_leg ADD COLUMN tariff_on date;

-- As before, but for that date. Legs are asked for it for cases only (kinds 14 to 17).
CREATE OR REPLACE VIEW clearing_charge AS
SELECT i.*, coalesce(i.owing_id, d.own_id) AS issuer_id, d.own_id, d.acquirer_code, m.merchant_id, m.category, m.acquirer_id, f.fee_fen,
       CASE WHEN i.account_kind = 50 AND i.owing_id IS NOT NULL AND d.interop_id IS NOT NULL
            THEN coalesce((SELECT fee_of(i.effect_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_issuer
                                  / (t.weight_issuer + t.weight_centre + t.weight_acquirer)
                             FROM interop_tariff t WHERE t.valid_from <= o.tariff_on
                            ORDER BY t.valid_from DESC LIMIT 1), 0)
            ELSE f.fee_fen * r.weight_issuer / (r.weight_issuer + r.weight_switch + r.weight_acquirer) END AS issuer_fee_fen,
       CASE WHEN i.account_kind = 50 AND i.owing_id IS NOT NULL AND d.interop_id IS NOT NULL
            THEN coalesce((SELECT fee_of(i.effect_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_centre
                                  / (t.weight_issuer + t.weight_centre + t.weight_acquirer)
                             FROM interop_tariff t WHERE t.valid_from <= o.tariff_on
                            ORDER BY t.valid_from DESC LIMIT 1), 0)
            ELSE f.fee_fen * r.weight_switch / (r.weight_issuer + r.weight_switch + r.weight_acquirer) END AS switch_fee_fen
  FROM clearing_item i
  LEFT JOIN clearing_day d USING (business_date)
  LEFT JOIN clearing_merchant m USING (business_date, merchant_no)
  LEFT JOIN clearing_rule r USING (business_date, merchant_no, account_kind, rule_date)
 CROSS JOIN LATERAL (SELECT fee_of(i.effect_fen, r.rate_ppm, r.minimum_fen, r.cap_fen) AS fee_fen) AS f
 CROSS JOIN LATERAL (SELECT coalesce(CASE WHEN i.kind BETWEEN 14 AND 17
                                          THEN (SELECT l.tariff_on FROM clearing_leg l WHERE l.business_date = i.business_date AND l.entry_no = i.entry_no) END,
                                     i.local_time::date) AS tariff_on) AS o;
