-- What the lines of an interop centre's files are made of, %(day)s being the clearing date. Nothing is formatted here.

-- name: days
SELECT clearing_date, centre_id, centre_fen FROM interop_day WHERE clearing_date BETWEEN %(first)s AND %(last)s ORDER BY clearing_date;

-- name: files
-- Those that are not written yet are no fault: the next run writes them.
SELECT name, party, NULL::integer, line_count, total_fen, upper(encode(sm3, 'hex')), size_bytes, created_at
  FROM interop_file WHERE clearing_date = %(day)s AND sm3 IS NOT NULL ORDER BY ordinal;

-- name: signed
SELECT s.name, s.public_key, s.signature
  FROM file_signature s JOIN interop_file f USING (name) WHERE f.clearing_date = %(day)s AND f.sm3 IS NOT NULL ORDER BY s.name;

-- name: forwarded
SELECT r.raw
  FROM interop_record r JOIN interop_arrival a USING (file_no)
 WHERE a.clearing_date = %(day)s AND r.issuer_id = %(party)s AND r.refused IS NULL
 ORDER BY r.file_no, r.line;

-- name: answered
-- What the centre refused, but for what the same city had sent before; what was decided for the date, and what was held and is not decided by then.
SELECT r.raw, CASE WHEN r.refused IS NOT NULL THEN r.refused WHEN v.counted_on = %(day)s THEN v.result ELSE '04' END,
       to_char(CASE WHEN r.refused IS NOT NULL THEN a.clearing_date WHEN v.counted_on = %(day)s THEN v.answered_on ELSE h.answered_on END, 'YYYYMMDD')
  FROM interop_record r
  JOIN received_file f USING (file_no)
  JOIN interop_arrival a USING (file_no)
  LEFT JOIN interop_verdict v USING (file_no, line)
  LEFT JOIN interop_hold h USING (file_no, line)
 WHERE f.sender_id = %(party)s
   AND (v.counted_on = %(day)s
        OR (a.clearing_date = %(day)s AND (r.refused <> '03'
             OR (r.refused = '03' AND NOT EXISTS (
                 SELECT FROM interop_record o JOIN received_file g ON g.file_no = o.file_no AND g.sender_id = %(party)s
                  WHERE o.refused IS NULL AND o.card = r.card AND o.atc = r.atc AND o.amount_fen = r.amount_fen AND o.mark = r.mark))
             OR (h.line IS NOT NULL AND coalesce(v.counted_on, 'infinity') > %(day)s))))
 ORDER BY r.file_no, r.line;

-- name: positions
SELECT institution_id, issuing_count, issuing_fen, acquiring_count, acquiring_fen, issuer_fee_fen, fees_paid_fen, net_fen
  FROM interop_position WHERE clearing_date = %(day)s ORDER BY ordinal;
