-- What people ask and decide about clearing between cities (interop_desk.py).

-- name: read_now
SELECT clock_timestamp();

-- name: awaited
-- As an acquiring city: records that were sent to the centre and are not decided, by clearing date; held: their city waits for evidence.
SELECT w.business_date, count(*), sum(w.amount_fen)::bigint, count(h.original_entry), f.name
  FROM purse_waiting w
  JOIN clearing_file f ON f.business_date = w.business_date AND f.name LIKE 'FH%%'
  LEFT JOIN foreign_hold h ON h.original_entry = w.entry_no
 WHERE w.result = '11' AND w.verdict IS NULL
 GROUP BY w.business_date, f.name
 ORDER BY w.business_date
 LIMIT %(limit)s;

-- name: to_forward
-- As the centre: files that have come for dates that are not settled yet.
SELECT a.clearing_date, count(*), sum(f.line_count)::bigint, sum(f.total_fen)::bigint
  FROM interop_arrival a JOIN received_file f USING (file_no)
 WHERE NOT EXISTS (SELECT FROM interop_day d WHERE d.clearing_date = a.clearing_date)
 GROUP BY a.clearing_date ORDER BY a.clearing_date
 LIMIT %(limit)s;

-- name: to_answer
-- As the centre: what cities have not answered for yet.
SELECT d.clearing_date, r.issuer_id, count(*), sum(r.amount_fen)::bigint
  FROM interop_day d
  JOIN interop_arrival a USING (clearing_date)
  JOIN interop_record r USING (file_no)
  LEFT JOIN interop_verdict v USING (file_no, line)
  LEFT JOIN interop_hold h USING (file_no, line)
 WHERE d.decided_at IS NULL AND r.refused IS NULL AND v.file_no IS NULL AND h.file_no IS NULL
 GROUP BY d.clearing_date, r.issuer_id ORDER BY d.clearing_date, r.issuer_id
 LIMIT %(limit)s;

-- name: to_fund
SELECT p.clearing_date, p.institution_id, p.net_fen, p.state, d.settlement_date
  FROM interop_position p JOIN interop_day d USING (clearing_date)
 WHERE p.state IN ('DUE', 'BLOCKED')
 ORDER BY d.settlement_date, p.clearing_date, p.ordinal
 LIMIT %(limit)s;

-- name: positions
SELECT p.clearing_date, p.institution_id, p.issuing_count, p.issuing_fen, p.acquiring_count, p.acquiring_fen, p.issuer_fee_fen, p.fees_paid_fen,
       p.net_fen, p.state, p.state_at, p.actor, d.settlement_date, d.centre_id, d.centre_fen
  FROM interop_day d LEFT JOIN interop_position p USING (clearing_date)
 WHERE d.decided_at IS NOT NULL
   AND d.clearing_date = coalesce(%(date)s::date, (SELECT max(clearing_date) FROM interop_day WHERE decided_at IS NOT NULL))
 ORDER BY p.ordinal;

-- name: lock_position
SELECT net_fen, state FROM interop_position WHERE clearing_date = %(date)s AND institution_id = %(member)s FOR UPDATE;

-- name: fund
UPDATE interop_position SET state = 'FUNDED', state_at = clock_timestamp(), actor = %(actor)s
 WHERE clearing_date = %(date)s AND institution_id = %(member)s AND state IN ('DUE', 'BLOCKED');

-- name: tariffs
SELECT valid_from, rate_ppm, minimum_fen, cap_fen, weight_issuer, weight_centre, weight_acquirer, actor, set_at
  FROM interop_tariff ORDER BY valid_from;

-- name: lock_tariff
LOCK TABLE interop_tariff IN SHARE ROW EXCLUSIVE MODE;

-- name: tariff_from
-- The first date for which a tariff may still be set: days that were settled between cities stay as they were. A record may be dated a day ahead.
SELECT CASE WHEN EXISTS (SELECT FROM foreign_verdict) OR EXISTS (SELECT FROM interop_verdict)
                 OR EXISTS (SELECT FROM received_file WHERE name LIKE 'DF%%' AND status = '00')
            THEN (clock_timestamp() AT TIME ZONE INTERVAL '8 hours')::date + 2 END;

-- name: centre_is_known
SELECT EXISTS (SELECT FROM institution WHERE institution_id = %(centre)s);

-- name: add_tariff
INSERT INTO interop_tariff (valid_from, rate_ppm, minimum_fen, cap_fen, weight_issuer, weight_centre, weight_acquirer, actor)
VALUES (%(valid_from)s, %(rate_ppm)s, %(minimum_fen)s, %(cap_fen)s, %(weight_issuer)s, %(weight_centre)s, %(weight_acquirer)s, %(actor)s)
    ON CONFLICT DO NOTHING;

-- name: file_taken
SELECT file_no, sender_id, line_count, total_fen, status, reason, began_at, business_date, lines_done, results
  FROM received_file WHERE name = %(name)s ORDER BY file_no;

-- name: file_written
SELECT 'clearing_file', business_date, party, line_count, total_fen, upper(encode(sm3, 'hex')), NULL::timestamptz FROM clearing_file WHERE name = %(name)s
UNION ALL
SELECT 'interop_file', clearing_date, party, line_count, total_fen, upper(encode(sm3, 'hex')), created_at FROM interop_file WHERE name = %(name)s;

-- name: way_at_centre
-- By PSAM number and serial, in the order in which they came.
SELECT f.name, r.line, r.amount_fen, a.clearing_date, a.late, r.issuer_id, r.refused, x.name, h.answered_on, v.result, v.answered_on, y.name, v.counted_on,
       o.name
  FROM interop_record r
  JOIN received_file f ON f.file_no = r.file_no
  LEFT JOIN interop_arrival a ON a.file_no = r.file_no
  LEFT JOIN interop_file x ON x.clearing_date = a.clearing_date AND x.party = r.issuer_id AND x.name LIKE 'DF%%' AND r.refused IS NULL
  LEFT JOIN interop_hold h ON h.file_no = r.file_no AND h.line = r.line
  LEFT JOIN interop_verdict v ON v.file_no = r.file_no AND v.line = r.line
  LEFT JOIN received_file y ON y.file_no = coalesce(v.answer_no, h.answer_no)
  LEFT JOIN interop_file o ON o.party = f.sender_id AND o.name LIKE 'DT%%'
   AND o.clearing_date = CASE WHEN r.refused IS NOT NULL THEN a.clearing_date ELSE v.counted_on END
 WHERE substr(r.raw, 46, 10) = %(key)s
 ORDER BY r.file_no, r.line
 LIMIT %(limit)s;

-- name: way_at_acquirer
-- Looks through the queue of records that wait or have waited.
SELECT r.entry_no, w.business_date, r.amount_fen, i.institution_id, f.name, h.answered_on, v.result, v.business_date, v.answered_on, y.name
  FROM purse_waiting w
  JOIN purse_record r ON r.entry_no = w.entry_no AND r.business_date = w.business_date
  LEFT JOIN card_issuer i ON i.issuer_id = substr(r.raw, 17, 8)
  LEFT JOIN clearing_file f ON f.business_date = w.business_date AND f.name LIKE 'FH%%'
  LEFT JOIN foreign_hold h ON h.original_entry = w.entry_no
  LEFT JOIN foreign_verdict v ON v.original_entry = w.entry_no
  LEFT JOIN received_file y ON y.file_no = coalesce(v.file_no, h.file_no)
 WHERE w.result = '11' AND substr(w.mark, 8, 10) = %(key)s
 ORDER BY r.entry_no
 LIMIT %(limit)s;

-- name: way_at_issuer
SELECT r.entry_no, r.business_date, r.amount_fen, lpad(r.credit_owner::text, 8, '0'), f.name, c.first_line + (r.entry_no - c.first_entry), r.result,
       v.result, v.business_date, a.name, b.name
  FROM purse_record r
 CROSS JOIN LATERAL (
       SELECT * FROM received_chunk k WHERE k.first_entry <= r.entry_no ORDER BY k.first_entry DESC LIMIT 1) AS c
  JOIN received_file f ON f.file_no = c.file_no
  LEFT JOIN purse_record v
    ON v.batch_no = -1 AND v.psam = %(psam)s AND v.psam_serial = %(serial)s AND v.original_entry = r.entry_no AND v.original_date = r.business_date
  LEFT JOIN clearing_file a ON a.business_date = f.business_date AND a.name LIKE 'DT%%' AND a.party_no = f.file_no
  LEFT JOIN clearing_file b ON b.business_date = v.business_date AND b.name LIKE 'DT%%' AND b.party_no IS NULL AND b.party = f.sender_id
 WHERE r.batch_no = -1 AND r.psam = %(psam)s AND r.psam_serial = %(serial)s AND r.original_entry IS NULL
 ORDER BY r.entry_no
 LIMIT %(limit)s;

-- name: own_to_take
-- A city and the centre in one installation: what one has for the other and has not been taken.
SELECT business_date, name FROM clearing_file
 WHERE party = %(centre)s AND left(name, 2) IN ('FH', 'DT') AND sm3 IS NOT NULL
   AND NOT EXISTS (SELECT FROM received_file r WHERE r.name = clearing_file.name AND r.business_date IS NOT NULL)
 ORDER BY business_date, ordinal;

-- name: own_to_give
SELECT clearing_date, name FROM interop_file
 WHERE party = %(own)s AND left(name, 2) IN ('DF', 'DT') AND sm3 IS NOT NULL
   AND NOT EXISTS (SELECT FROM received_file r WHERE r.name = interop_file.name AND r.business_date IS NOT NULL)
 ORDER BY clearing_date, ordinal;
