-- Our cards at other cities' merchants (own_cards.py): files of the interop centre (DF), and our answers (DT).

-- name: summarise
-- What the day paid other cities, and our share of the fees there, by the tariff on the date of each purchase.
INSERT INTO clearing_interop (business_date, institution_id, record_count, amount_fen, issuer_fee_fen)
SELECT %(day)s, lpad(r.credit_owner::text, 8, '0'), count(*), sum(r.amount_fen)::bigint,
       coalesce(sum(fee_of(r.amount_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_issuer / t.weight_all), 0)::bigint
  FROM purse_record r
  LEFT JOIN interop_rate t ON r.happened_at::date >= t.valid_from AND r.happened_at::date < t.until
 WHERE r.business_date = %(day)s AND r.batch_no = -1 AND r.result IN ('10', '00') AND r.amount_fen > 0
 GROUP BY r.credit_owner;

-- name: plan_answers
-- Every file that ended on the day is answered by one of ours, with all its lines.
SELECT sender_id, file_no, line_count::bigint, total_fen
  FROM received_file
 WHERE business_date = %(day)s AND status = '00' AND name LIKE 'DF%%'
 ORDER BY file_no;

-- name: plan_decided
-- Grey records of files that were answered on earlier days, decided on this one.
SELECT f.sender_id, NULL, count(*), sum(v.amount_fen)::bigint
  FROM purse_record v
 CROSS JOIN LATERAL (
       SELECT * FROM received_chunk k WHERE k.first_entry <= v.original_entry ORDER BY k.first_entry DESC LIMIT 1) AS c
  JOIN received_file f USING (file_no)
 WHERE v.business_date = %(day)s AND v.batch_no = -1 AND v.original_entry IS NOT NULL AND f.business_date < %(day)s
 GROUP BY f.sender_id ORDER BY f.sender_id;

-- name: due_answers
-- Files of the centre that our DT has not answered in writing yet: the day on which the last line was taken is not closed, or its file is not there.
SELECT f.name, f.sender_id, f.line_count, f.lines_done, f.business_date
  FROM received_file f
  LEFT JOIN clearing_file a ON a.business_date = f.business_date AND a.name LIKE 'DT%%' AND a.party_no = f.file_no AND a.sm3 IS NOT NULL
 WHERE f.status = '00' AND f.name LIKE 'DF%%' AND a.name IS NULL
 ORDER BY f.file_no
 LIMIT %(limit)s;
