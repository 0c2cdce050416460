-- What the steps of a close read and made, as one digest for each part (step_digests.py). Over the summaries of a day and never over its transactions: of
-- what may be millions of rows only the number and the sum of keys. The text under the digest is part of docs/reports.md: it may not change.

-- name: terms
SELECT concat_ws('|', to_char(c.created_at, 'YYYY-MM-DD"T"HH24:MI:SS'), c.settlement_date, c.own_id, c.centre_id, c.acquirer_code, c.shards::text)
  FROM clearing_day c WHERE c.business_date = %(day)s;

-- name: ends
SELECT concat_ws('|', begins_at, ends_at) FROM business_day WHERE business_date = %(day)s;

-- name: sealed
SELECT concat_ws('|', ends_at, sealed_at) FROM business_day WHERE business_date = %(day)s;

-- name: decisions
-- Grey records and those of other cities' cards that were decided on the day.
SELECT string_agg(concat_ws('|', entry_no, result, verdict, amount_fen), E'\n' ORDER BY entry_no) FROM purse_waiting WHERE decided_on = %(day)s;

-- name: trips
SELECT concat_ws('|', count(*), sum(entry_no), sum(amount_fen)) FROM trip_leg WHERE business_date = %(day)s;

-- name: merchants
SELECT string_agg(concat_ws('|', merchant_no, merchant_id, category, acquirer_id), E'\n' ORDER BY merchant_no) FROM clearing_merchant WHERE business_date = %(day)s;

-- name: rules
SELECT string_agg(concat_ws('|', merchant_no, account_kind, rule_date, coalesce(rule_no, 0), rate_ppm, minimum_fen, coalesce(cap_fen, -1), weight_issuer,
                            weight_switch, weight_acquirer), E'\n' ORDER BY merchant_no, account_kind, rule_date)
  FROM clearing_rule WHERE business_date = %(day)s;

-- name: frozen
SELECT concat_ws('|', l.n, l.keys, o.n, o.keys, s.n, s.keys)
  FROM (SELECT count(*) AS n, sum(entry_no) AS keys FROM clearing_leg WHERE business_date = %(day)s) AS l
 CROSS JOIN (SELECT count(*) AS n, sum(entry_no) AS keys FROM clearing_original WHERE business_date = %(day)s) AS o
 CROSS JOIN (SELECT count(*) AS n, sum(entry_no) AS keys FROM clearing_source_line WHERE business_date = %(day)s) AS s;

-- name: summary
SELECT string_agg(concat_ws('|', merchant_no, account_kind, issuer_id, payable_code, item_count, volume_fen, debit_count, debit_fen, credit_count, credit_fen,
                            amount_fen, fee_fen, issuer_fee_fen, switch_fee_fen, acquirer_fee_fen, credit_net_fen, first_entry),
                  E'\n' ORDER BY merchant_no, account_kind, issuer_id, payable_code)
  FROM clearing_summary WHERE business_date = %(day)s;

-- name: offline
SELECT string_agg(concat_ws('|', merchant_no, confirmed_count, confirmed_fen, refused_count, refused_fen, adjusted_count, adjusted_fen, adjust_refused_count,
                            adjust_refused_fen, pending_count, pending_fen), E'\n' ORDER BY merchant_no)
  FROM clearing_offline WHERE business_date = %(day)s;

-- name: transit
SELECT concat_ws('|', count(*), sum(paid_fen), sum(full_fen), sum(transfer_discount_fen), sum(other_discount_fen))
  FROM clearing_transit WHERE business_date = %(day)s;

-- name: positions
SELECT string_agg(concat_ws('|', ordinal, institution_id, issuing_count, issuing_fen, acquiring_count, acquiring_fen, issuer_fee_fen, fees_paid_fen, net_fen),
                  E'\n' ORDER BY ordinal)
  FROM clearing_position WHERE business_date = %(day)s;

-- name: movements
SELECT string_agg(concat_ws('|', debit_code, credit_code, source, move_count, amount_fen), E'\n' ORDER BY debit_code, credit_code, source)
  FROM clearing_movement WHERE business_date = %(day)s;

-- name: float
SELECT string_agg(concat_ws('|', code, opening_fen, debit_fen, credit_fen, closing_fen), E'\n' ORDER BY code) FROM clearing_float WHERE business_date = %(day)s;

-- name: files
SELECT string_agg(concat_ws('|', name, line_count, total_fen, size_bytes, encode(sm3, 'hex')), E'\n' ORDER BY ordinal) FROM clearing_file WHERE business_date = %(day)s;

-- name: reports
SELECT string_agg(concat_ws('|', name, row_count, size_bytes, encode(sm3, 'hex')), E'\n' ORDER BY ordinal) FROM clearing_report WHERE business_date = %(day)s;

-- name: root
SELECT concat_ws('|', leaf_count, encode(root, 'hex')) FROM clearing_seal WHERE business_date = %(day)s;
