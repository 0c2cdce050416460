-- Files that came, other cities' cards, and trips.

-- name: received_files
-- says: of a file received each line was taken once, and its receipt says what became of them
-- rows: received_file, received_chunk
WITH chunk AS (
    SELECT file_no, sum(line_count) AS lines, min(first_line) AS first_line, max(first_line + line_count - 1) AS last_line FROM received_chunk GROUP BY file_no
), became AS (
    SELECT k.file_no, r.result, count(*) AS lines, sum(('x' || encode(substr(r.raw, 31, 4), 'hex'))::bit(32)::bigint) AS fen
      FROM received_chunk k
     CROSS JOIN LATERAL generate_series(k.first_entry, k.first_entry + k.line_count - 1) AS n (entry_no)
      JOIN purse_record r ON r.entry_no = n.entry_no AND r.business_date = k.business_date AND r.batch_no <= 0 AND r.original_entry IS NULL
     GROUP BY k.file_no, r.result
), said AS (
    SELECT file_no, sum(lines) AS lines, sum(fen) AS fen, jsonb_object_agg(result, jsonb_build_array(lines, fen)) AS results FROM became GROUP BY file_no
)
SELECT 'received_file', 'file_no ' || f.file_no,
       CASE WHEN f.status <> '00' THEN 'nothing taken'
            ELSE format('%%s lines, %%s fen, %%s', coalesce(s.lines, 0), CASE WHEN f.business_date IS NULL THEN f.total_fen ELSE coalesce(s.fen, 0) END,
                        coalesce(s.results, '{}')) END,
       format('status %%s, %%s of %%s lines, %%s fen, %%s', f.status, f.lines_done, f.line_count, f.total_fen, f.results)
  FROM received_file f
  LEFT JOIN chunk c USING (file_no)
  LEFT JOIN said s USING (file_no)
 WHERE left(f.name, 2) IN ('XF', 'DF')
   AND CASE WHEN f.status <> '00' THEN f.lines_done <> 0 OR f.results <> '{}' OR c.lines IS NOT NULL OR f.business_date IS NULL
            ELSE f.lines_done <> coalesce(c.lines, 0) OR f.lines_done <> coalesce(c.last_line, 0) OR coalesce(c.first_line, 1) <> 1
                 OR f.lines_done <> coalesce(s.lines, 0) OR f.results <> coalesce(s.results, '{}')
                 OR (f.business_date IS NOT NULL AND (f.lines_done <> f.line_count OR f.total_fen <> coalesce(s.fen, 0))) END

-- name: records_of_files
-- says: a record without a batch came in a file
-- rows: purse_record, received_chunk
SELECT 'purse_record', format('entry %%s of %%s', r.entry_no, r.business_date), 'a line of a file', 'no file'
  FROM purse_record r
  LEFT JOIN (SELECT k.business_date, n.entry_no
               FROM received_chunk k CROSS JOIN LATERAL generate_series(k.first_entry, k.first_entry + k.line_count - 1) AS n (entry_no)) AS line
    ON line.business_date = r.business_date AND line.entry_no = r.entry_no
 WHERE r.batch_no <= 0 AND r.original_entry IS NULL AND line.entry_no IS NULL

-- name: answer_files
-- says: an answer of another city's centre decided as many records as its receipt says
-- rows: received_file, foreign_verdict, foreign_hold
WITH decided AS (
    SELECT file_no, result, count(*) AS lines, sum(amount_fen) AS fen FROM foreign_verdict WHERE file_no IS NOT NULL GROUP BY file_no, result
    UNION ALL
    SELECT h.file_no, '04', count(*), sum(r.amount_fen)
      FROM foreign_hold h LEFT JOIN purse_record r ON r.entry_no = h.original_entry AND r.original_entry IS NULL GROUP BY h.file_no
), said AS (
    SELECT f.file_no, r.code AS result, (r.figures ->> 0)::bigint AS lines, (r.figures ->> 1)::bigint AS fen
      FROM received_file f CROSS JOIN LATERAL jsonb_each(f.results) AS r (code, figures)
     WHERE left(f.name, 2) = 'DT' AND NOT EXISTS (SELECT FROM interop_day d WHERE d.centre_id = substr(f.name, 11, 8))  -- those: centre_answers
)
SELECT 'received_file', 'file_no ' || coalesce(s.file_no, d.file_no), format('%%s of %%s, %%s fen', coalesce(d.lines, 0), coalesce(d.result, s.result), coalesce(d.fen, 0)),
       format('%%s, %%s fen', s.lines, s.fen)
  FROM (SELECT * FROM said WHERE result NOT IN ('late', 'unknown')) AS s
  FULL JOIN decided d ON d.file_no = s.file_no AND d.result = s.result
 WHERE (s.lines, s.fen) IS DISTINCT FROM (d.lines, d.fen)
UNION ALL
SELECT 'received_file', 'file_no ' || f.file_no,
       CASE WHEN f.status <> '00' THEN 'nothing taken' ELSE format('results of %%s lines, %%s fen', f.lines_done, f.total_fen) END,
       format('status %%s, results of %%s lines, %%s fen', f.status, coalesce(s.lines, 0), coalesce(s.fen, 0))
  FROM received_file f
  LEFT JOIN (SELECT file_no, sum(lines) AS lines, sum(fen) AS fen FROM said GROUP BY file_no) AS s USING (file_no)
 WHERE left(f.name, 2) = 'DT' AND NOT EXISTS (SELECT FROM interop_day d WHERE d.centre_id = substr(f.name, 11, 8))
   AND CASE WHEN f.status <> '00' THEN f.lines_done <> 0 OR s.lines IS NOT NULL
            ELSE f.lines_done <> coalesce(s.lines, 0) OR (f.business_date IS NOT NULL AND (f.lines_done <> f.line_count OR f.total_fen <> coalesce(s.fen, 0))) END

-- name: foreign_verdicts
-- says: a verdict is of a record of another city's card that was forwarded, once, as it came; paid by that city to the merchant, or refused and not paid
-- rows: foreign_verdict, purse_record, posting
SELECT CASE WHEN p.entry_no IS NOT NULL AND fault = 'its posting' THEN 'posting' ELSE 'foreign_verdict' END, 'entry ' || v.entry_no,
       CASE fault WHEN 'its posting' THEN format('%%s fen from 1102/%%s to 2101/%%s in shard 0 on %%s', CASE v.result WHEN '00' THEN v.amount_fen ELSE 0 END,
                                                 v.issuer_id, v.merchant_no, v.business_date)
            ELSE fault END,
       CASE WHEN fault <> 'its posting' THEN format('result %%s, %%s fen of entry %%s of %%s', v.result, v.amount_fen, v.original_entry, v.original_date)
            WHEN p.entry_no IS NULL THEN 'no posting'
            ELSE format('%%s fen from %%s/%%s to %%s/%%s on %%s', p.amount_fen, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner, p.business_date) END
  FROM foreign_verdict v
  LEFT JOIN purse_record r ON r.entry_no = v.original_entry AND r.business_date = v.original_date AND r.original_entry IS NULL
  LEFT JOIN posting p ON p.shard = 0 AND p.entry_no = v.entry_no
  LEFT JOIN card_issuer i ON i.issuer_id = substr(v.raw, 17, 8)
  LEFT JOIN received_file f ON f.file_no = v.file_no
  LEFT JOIN business_day d ON d.business_date = v.business_date
 CROSS JOIN LATERAL (SELECT CASE
       WHEN r.entry_no IS NULL OR r.result <> '11' THEN 'a record of another city''s card (11)'
       WHEN v.raw <> r.raw
            OR (v.merchant_no, v.terminal_no, v.batch_no, v.amount_fen, v.balance_fen, v.atc, v.psam_serial, v.record_serial, v.record_kind, v.happened_at)
               IS DISTINCT FROM (r.merchant_no, r.terminal_no, r.batch_no, r.amount_fen, r.balance_fen, r.atc, r.psam_serial, r.record_serial,
                                 r.record_kind, r.happened_at)
            THEN format('the record as it came: merchant_no %%s, terminal_no %%s, %%s fen of %%s', r.merchant_no, r.terminal_no, r.amount_fen, r.balance_fen)
       WHEN i.institution_id IS NULL OR i.own OR i.institution_id <> v.issuer_id THEN 'issuer ' || coalesce(i.institution_id, 'of another city')
       WHEN NOT EXISTS (SELECT FROM clearing_file c WHERE c.business_date = v.original_date AND left(c.name, 2) = 'FH')
            OR EXISTS (SELECT FROM clearing_merchant m JOIN institution a ON a.institution_id = m.acquirer_id AND a.role = 'CITY'
                        WHERE m.business_date = v.original_date AND m.merchant_no = v.merchant_no) THEN 'a record that was forwarded'
       WHEN v.answered_on IS NULL AND v.result <> '00' THEN 'an answer that refuses'
       WHEN v.answered_on IS NOT NULL AND left(coalesce(f.name, ''), 2) <> 'DT' THEN 'a file of answers'
       WHEN v.decided_at < d.begins_at OR v.decided_at >= d.ends_at THEN format('decided from %%s until before %%s', d.begins_at, d.ends_at)
       WHEN (v.result = '00' AND v.amount_fen > 0) <> (p.entry_no IS NOT NULL)
            OR (p.line, p.business_date, p.debit_code::integer, p.debit_owner, p.credit_code::integer, p.credit_owner, p.amount_fen)
               IS DISTINCT FROM (CASE WHEN p.entry_no IS NOT NULL THEN 0 END, CASE WHEN p.entry_no IS NOT NULL THEN v.business_date END,
                                 CASE WHEN p.entry_no IS NOT NULL THEN 1102 END, CASE WHEN p.entry_no IS NOT NULL THEN v.issuer_id::bigint END,
                                 CASE WHEN p.entry_no IS NOT NULL THEN 2101 END, CASE WHEN p.entry_no IS NOT NULL THEN v.merchant_no::bigint END,
                                 CASE WHEN p.entry_no IS NOT NULL THEN v.amount_fen END) THEN 'its posting'
       END AS fault) AS c
 WHERE fault IS NOT NULL

-- name: trip_legs
-- says: the steps of trips are the accepted records with a ride phase, behind the watermark and of closed days all of them
-- rows: trip_leg, purse_record
WITH ride AS (
    SELECT r.*, encode(r.raw, 'hex') AS hex, r.txid < w.folded_to OR d.state = 2 AS due
      FROM purse_record r
      JOIN business_day d USING (business_date)
     CROSS JOIN trip_watermark w
     WHERE (r.result = '00' OR (r.result = '10' AND r.record_kind <> 2)) AND substr(encode(r.raw, 'hex'), 155, 2) <> '00'
)
SELECT 'trip_leg', 'entry ' || coalesce(t.entry_no, r.entry_no),
       CASE WHEN r.entry_no IS NULL THEN 'no row'
            ELSE format('phase %%s, %%s fen of %%s, line %%s, stations %%s %%s, on %%s', substr(hex, 155, 2), r.amount_fen, ('x' || substr(hex, 147, 8))::bit(32)::bigint,
                        substr(hex, 159, 4), substr(hex, 163, 4), substr(hex, 167, 4), r.business_date) END,
       CASE WHEN t.entry_no IS NULL THEN 'no row'
            ELSE format('phase %%s, %%s fen of %%s, line %%s, stations %%s %%s, on %%s', t.phase, t.amount_fen, t.full_fare_fen, t.line, t.station,
                        t.entry_station, t.business_date) END
  FROM trip_leg t
  FULL JOIN ride r ON r.card = t.card AND r.atc = t.atc
 WHERE CASE WHEN t.entry_no IS NULL THEN r.due WHEN r.entry_no IS NULL THEN true
            ELSE (t.entry_no, t.business_date, t.phase::integer, t.happened_at, t.amount_fen, t.merchant_no, t.full_fare_fen, t.industry::integer,
                  lower(t.line), lower(t.station), lower(t.entry_station), t.transfer::integer * 2 + t.upstream::integer)
                 IS DISTINCT FROM
                 (r.entry_no, r.business_date, ('x' || substr(hex, 155, 2))::bit(8)::integer, r.happened_at, r.amount_fen, r.merchant_no,
                  ('x' || substr(hex, 147, 8))::bit(32)::bigint, ('x' || substr(hex, 157, 2))::bit(8)::integer, substr(hex, 159, 4),
                  substr(hex, 163, 4), substr(hex, 167, 4), ('x' || substr(hex, 187, 2))::bit(8)::integer & 3) END

-- name: clearing_transit
-- says: what a closed day says of rides is what its records say, and an entry is open that no step of its card had ended by then
-- rows: clearing_transit, purse_record
WITH @closed,
ride AS (
    SELECT r.business_date, r.merchant_no, r.happened_at::date AS ride_date, encode(r.raw, 'hex') AS hex, r.amount_fen AS fen, r.card, r.atc
      FROM purse_record r JOIN closed USING (business_date)
     WHERE has_transit AND (r.result = '00' OR (r.result = '10' AND r.record_kind <> 2)) AND r.batch_no >= 0  -- below: rides elsewhere
    UNION ALL
    SELECT v.business_date, v.merchant_no, v.happened_at::date, encode(v.raw, 'hex'), v.amount_fen, NULL, NULL
      FROM foreign_verdict v JOIN closed USING (business_date) WHERE v.result = '00' AND v.record_kind <> 2
), read AS (
    SELECT *, ('x' || substr(hex, 157, 2))::bit(8)::integer AS industry, upper(substr(hex, 159, 4)) AS line, substr(hex, 155, 2) AS phase,
           greatest(('x' || substr(hex, 147, 8))::bit(32)::bigint - fen, 0) AS discount,
           (('x' || substr(hex, 187, 2))::bit(8)::integer & 2) <> 0 AS transfer
      FROM ride WHERE substr(hex, 157, 2) <> '00'
), step AS (
    -- Every step of the cards, with the one that follows it: by the end of the day in question.
    SELECT c.business_date, r.card, r.atc, lead(r.phase) OVER following AS next_phase, lead(r.entry_station) OVER following AS next_from, r.station
      FROM closed c
      JOIN (SELECT business_date, card, atc, substr(encode(raw, 'hex'), 155, 2) AS phase, substr(encode(raw, 'hex'), 163, 4) AS station,
                   substr(encode(raw, 'hex'), 167, 4) AS entry_station
              FROM purse_record
             WHERE (result = '00' OR (result = '10' AND record_kind <> 2)) AND substr(encode(raw, 'hex'), 155, 2) <> '00') AS r
        ON r.business_date <= c.business_date
    WINDOW following AS (PARTITION BY c.business_date, r.card ORDER BY r.atc)
), want AS (
    SELECT r.business_date, r.merchant_no, r.ride_date, r.industry, r.line, count(*) FILTER (WHERE phase = '00') AS single_count,
           count(*) FILTER (WHERE phase = '02') AS complete_count, count(*) FILTER (WHERE phase = '03') AS incomplete_count,
           count(*) FILTER (WHERE phase = '01') AS entry_count,
           count(*) FILTER (WHERE phase = '01' AND s.card IS NOT NULL
                                  AND NOT coalesce(s.next_phase IN ('02', '03') AND s.next_from = s.station, false)) AS open_count,
           count(*) FILTER (WHERE transfer AND phase <> '01') AS transfer_count, sum(fen) AS paid_fen,
           sum(CASE WHEN phase = '03' THEN fen ELSE 0 END) AS maximum_fen, sum(fen + discount) AS full_fen,
           sum(CASE WHEN transfer THEN discount ELSE 0 END) AS transfer_discount_fen, sum(CASE WHEN transfer THEN 0 ELSE discount END) AS other_discount_fen
      FROM read r
      LEFT JOIN step s ON s.business_date = r.business_date AND s.card = r.card AND s.atc = r.atc
     GROUP BY 1, 2, 3, 4, 5
), kept AS (
    SELECT t.business_date, t.merchant_no, t.ride_date, t.industry::integer AS industry, t.line, t.single_count, t.complete_count, t.incomplete_count,
           t.entry_count, t.open_count, t.transfer_count, t.paid_fen, t.maximum_fen, t.full_fen, t.transfer_discount_fen, t.other_discount_fen
      FROM clearing_transit t JOIN closed USING (business_date))
SELECT 'clearing_transit', format('merchant_no %%s, line %%s, on %%s', coalesce(k.merchant_no, w.merchant_no), coalesce(k.line, w.line),
              coalesce(k.business_date, w.business_date)),
       CASE WHEN w.merchant_no IS NULL THEN 'no row' ELSE w::text END, CASE WHEN k.merchant_no IS NULL THEN 'no row' ELSE k::text END
  FROM kept k
  FULL JOIN want w
    ON w.business_date = k.business_date AND w.merchant_no = k.merchant_no AND w.ride_date = k.ride_date AND w.industry = k.industry AND w.line = k.line
 WHERE k.merchant_no IS NULL OR w.merchant_no IS NULL
    OR (k.single_count, k.complete_count, k.incomplete_count, k.entry_count, k.open_count, k.transfer_count, k.paid_fen, k.maximum_fen, k.full_fen,
        k.transfer_discount_fen, k.other_discount_fen)
       IS DISTINCT FROM
       (w.single_count, w.complete_count, w.incomplete_count, w.entry_count, w.open_count, w.transfer_count, w.paid_fen, w.maximum_fen, w.full_fen,
        w.transfer_discount_fen, w.other_discount_fen)
