-- Between cities: our cards elsewhere, answers that wait, and the books of an interop centre. Fees by the tariff on the date in the record.

-- name: own_cards_elsewhere
-- says: a record that the interop centre handed on has no terminal or merchant here, and is owed to the city of its acquirer
-- rows: purse_record, institution
SELECT 'purse_record', format('entry %%s of %%s', p.entry_no, p.business_date),
       format('terminal_no 0, merchant_no 0, 2102 of %%s', coalesce(w.city, 'nobody')),
       format('terminal_no %%s, merchant_no %%s, %%s/%%s', p.terminal_no, p.merchant_no, p.credit_code, p.credit_owner)
  FROM purse_record p
 CROSS JOIN LATERAL (SELECT encode(p.raw, 'hex') AS hex) AS h
  LEFT JOIN institution i ON i.institution_id = substr(h.hex, 127, 8) AND i.role = 'CITY'
  LEFT JOIN (SELECT right(institution_id, 4) AS code, min(institution_id) AS city FROM institution WHERE role = 'CITY' GROUP BY 1 HAVING count(*) = 1) AS n
    ON n.code = substr(h.hex, 143, 4)
 CROSS JOIN LATERAL (SELECT coalesce(i.institution_id, n.city) AS city) AS w
 WHERE p.batch_no = -1
   AND (p.terminal_no <> 0 OR p.merchant_no <> 0 OR p.credit_code = 2101
        OR (p.result IN ('10', '00') AND p.amount_fen > 0 AND p.credit_owner IS DISTINCT FROM w.city::bigint))

-- name: clearing_interop
-- says: what a closed day paid other cities for our cards, and our share of their fees, is what its records say
-- rows: clearing_interop, purse_record, interop_tariff
WITH @closed,
share AS (
    SELECT r.business_date, lpad(r.credit_owner::text, 8, '0') AS institution_id, r.amount_fen AS fen,
           CASE WHEN t.valid_from IS NULL THEN 0
                ELSE div(least(greatest(round(r.amount_fen * t.rate_ppm::numeric / 1000000), t.minimum_fen), t.cap_fen, r.amount_fen) * t.weight_issuer,
                         t.weight_issuer + t.weight_centre + t.weight_acquirer) END AS issuer_fee
      FROM purse_record r
      JOIN closed USING (business_date)
      LEFT JOIN interop_tariff t ON t.valid_from = (SELECT max(valid_from) FROM interop_tariff WHERE valid_from <= r.happened_at::date)
     WHERE r.batch_no = -1 AND r.result IN ('10', '00') AND r.amount_fen > 0
), want AS (
    SELECT business_date, institution_id, count(*) AS records, sum(fen) AS fen, sum(issuer_fee) AS issuer_fee FROM share GROUP BY 1, 2
), kept AS (SELECT k.* FROM clearing_interop k JOIN closed USING (business_date))
SELECT 'clearing_interop', format('%%s on %%s', coalesce(k.institution_id, w.institution_id), coalesce(k.business_date, w.business_date)),
       coalesce(format('%%s records, %%s fen, %%s of the fees', w.records, w.fen, w.issuer_fee), 'no row'),
       CASE WHEN k.institution_id IS NULL THEN 'no row' ELSE format('%%s records, %%s fen, %%s of the fees', k.record_count, k.amount_fen, k.issuer_fee_fen) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.institution_id = k.institution_id
 WHERE (k.record_count, k.amount_fen, k.issuer_fee_fen) IS DISTINCT FROM (w.records, w.fen, w.issuer_fee)

-- name: foreign_holds
-- says: what its city holds as grey is a record that was forwarded, held by an answer, and decided after that or not at all
-- rows: foreign_hold, purse_record, received_file
SELECT 'foreign_hold', 'entry ' || h.original_entry, f.fault, format('held on %%s by file_no %%s', h.business_date, h.file_no)
  FROM foreign_hold h
  LEFT JOIN purse_record r ON r.entry_no = h.original_entry AND r.original_entry IS NULL
  LEFT JOIN received_file a ON a.file_no = h.file_no
  LEFT JOIN business_day d ON d.business_date = h.business_date
  LEFT JOIN foreign_verdict v ON v.original_entry = h.original_entry
 CROSS JOIN LATERAL (SELECT CASE
       WHEN r.entry_no IS NULL OR r.result <> '11' THEN 'a record of another city''s card (11)'
       WHEN left(coalesce(a.name, ''), 2) <> 'DT' OR NOT a.results ? '04' THEN 'a file of answers that holds records'
       WHEN h.business_date <= r.business_date OR h.held_at < d.begins_at OR h.held_at >= d.ends_at THEN 'held on a day after its own'
       WHEN v.decided_at < h.held_at THEN 'decided after ' || h.held_at END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: centre_arrivals
-- says: a city's file counts for the date in its name, or for a later one and is called late
-- rows: interop_arrival, received_file
SELECT 'interop_arrival', 'file_no ' || coalesce(a.file_no, f.file_no),
       CASE WHEN f.file_no IS NULL THEN 'a file of a city (FH) that came whole' WHEN a.file_no IS NULL THEN 'a clearing date'
            ELSE format('%%s, or a later date and late', substr(f.name, 19, 8)) END,
       CASE WHEN a.file_no IS NULL THEN 'none' ELSE format('%%s, late: %%s', a.clearing_date, a.late) END
  FROM interop_arrival a
  FULL JOIN (SELECT * FROM received_file WHERE left(name, 2) = 'FH' AND status = '00' AND business_date IS NOT NULL AND line_count > 0) AS f USING (file_no)
 WHERE f.file_no IS NULL OR a.file_no IS NULL OR a.clearing_date < to_date(substr(f.name, 19, 8), 'YYYYMMDD')
    OR a.late <> (a.clearing_date > to_date(substr(f.name, 19, 8), 'YYYYMMDD'))

-- name: centre_records
-- says: the columns of a line of a city's file are what its bytes say, its card's member is the issuer's, and a duplicate is of one that was handed on
-- rows: interop_record, card_issuer
SELECT 'interop_record', format('file_no %%s, line %%s', r.file_no, r.line), fault,
       format('%%s fen, ATC %%s, of %%s, refused: %%s', r.amount_fen, r.atc, coalesce(r.issuer_id, 'nobody'), coalesce(r.refused, 'no'))
  FROM interop_record r
 CROSS JOIN LATERAL (SELECT encode(r.raw, 'hex') AS hex) AS h
  LEFT JOIN card_issuer i ON i.issuer_id = substr(r.raw, 17, 8)
  LEFT JOIN interop_record o ON r.refused = '03' AND o.refused IS NULL AND o.card = r.card AND o.atc = r.atc AND o.amount_fen = r.amount_fen AND o.mark = r.mark
 CROSS JOIN LATERAL (SELECT CASE
       WHEN r.amount_fen <> ('x' || substr(h.hex, 61, 8))::bit(32)::bigint THEN ('x' || substr(h.hex, 61, 8))::bit(32)::bigint || ' fen'
       WHEN r.atc <> get_byte(r.raw, 28) * 256 + get_byte(r.raw, 29) THEN 'ATC ' || get_byte(r.raw, 28) * 256 + get_byte(r.raw, 29)
       WHEN r.mark <> substr(r.raw, 39, 21) THEN 'date, time, PSAM, serial and TAC as in the record'
       WHEN r.refused IS NULL AND (CASE WHEN r.card < 0 THEN r.card + 18446744073709551616 ELSE r.card END)
                                  IS DISTINCT FROM nullif(regexp_replace(substr(h.hex, 14, 19), '[a-f]', '', 'g'), '')::numeric THEN 'the card in the record'
       WHEN r.refused IS NULL AND r.issuer_id IS DISTINCT FROM i.institution_id THEN 'a card of ' || coalesce(i.institution_id, 'a member')
       WHEN r.refused = '03' AND (o.file_no IS NULL OR (o.file_no, o.line) = (r.file_no, r.line)) THEN 'the same record, handed on before'
       END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: centre_receipts
-- says: each line of a city's file is there once, and its receipt says what became of it
-- rows: received_file, interop_record
WITH became AS (
    SELECT file_no, coalesce(refused, '11') AS result, count(*) AS lines, sum(amount_fen) AS fen FROM interop_record GROUP BY 1, 2
), said AS (
    SELECT file_no, max(last_line) AS last_line, sum(lines) AS lines, sum(fen) AS fen, jsonb_object_agg(result, jsonb_build_array(lines, fen)) AS results
      FROM became JOIN (SELECT file_no, max(line) AS last_line FROM interop_record GROUP BY 1) AS last USING (file_no) GROUP BY file_no
)
SELECT 'received_file', 'file_no ' || coalesce(f.file_no, s.file_no), format('%%s lines up to %%s, %%s fen, %%s', coalesce(s.lines, 0), coalesce(s.last_line, 0), coalesce(s.fen, 0), s.results),
       format('status %%s, %%s of %%s lines, %%s fen, %%s', f.status, f.lines_done, f.line_count, f.total_fen, f.results)
  FROM (SELECT * FROM received_file WHERE left(name, 2) = 'FH') AS f
  FULL JOIN said s USING (file_no)
 WHERE f.file_no IS NULL
    OR CASE WHEN f.status <> '00' THEN s.file_no IS NOT NULL OR f.lines_done <> 0
            ELSE f.lines_done <> coalesce(s.lines, 0) OR f.lines_done <> coalesce(s.last_line, 0) OR f.results <> coalesce(s.results, '{}')
                 OR (f.business_date IS NOT NULL AND (f.lines_done <> f.line_count OR f.total_fen <> coalesce(s.fen, 0))) END

-- name: centre_answers
-- says: an answer of a city decided or held as many records as its receipt says, all of them of its own cards
-- rows: received_file, interop_verdict, interop_hold
WITH decided AS (
    SELECT answer_no AS file_no, v.result, count(*) AS lines, sum(r.amount_fen) AS fen, count(*) FILTER (WHERE r.issuer_id <> a.sender_id) AS strange
      FROM (SELECT file_no, line, result, answer_no FROM interop_verdict WHERE answer_no IS NOT NULL
            UNION ALL SELECT file_no, line, '04', answer_no FROM interop_hold) AS v
      LEFT JOIN interop_record r USING (file_no, line)
      LEFT JOIN received_file a ON a.file_no = v.answer_no
     GROUP BY 1, 2
), said AS (
    SELECT f.file_no, r.code AS result, (r.figures ->> 0)::bigint AS lines, (r.figures ->> 1)::bigint AS fen
      FROM received_file f CROSS JOIN LATERAL jsonb_each(f.results) AS r (code, figures)
     WHERE left(f.name, 2) = 'DT' AND EXISTS (SELECT FROM interop_day d WHERE d.centre_id = substr(f.name, 11, 8))
)
SELECT 'received_file', 'file_no ' || coalesce(s.file_no, d.file_no), format('%%s of %%s, %%s fen, none of other members', coalesce(d.lines, 0), coalesce(d.result, s.result), coalesce(d.fen, 0)),
       format('%%s, %%s fen, %%s of other members', s.lines, s.fen, coalesce(d.strange, 0))
  FROM (SELECT * FROM said WHERE result NOT IN ('late', 'unknown')) AS s
  FULL JOIN decided d ON d.file_no = s.file_no AND d.result = s.result
 WHERE (s.lines, s.fen) IS DISTINCT FROM (d.lines, d.fen) OR d.strange <> 0
UNION ALL
SELECT 'received_file', 'file_no ' || f.file_no, format('results of %%s lines, %%s fen', f.lines_done, f.total_fen), format('of %%s lines, %%s fen', coalesce(s.lines, 0), coalesce(s.fen, 0))
  FROM received_file f
  LEFT JOIN (SELECT file_no, sum(lines) AS lines, sum(fen) AS fen FROM said GROUP BY file_no) AS s USING (file_no)
 WHERE left(f.name, 2) = 'DT' AND f.status = '00' AND EXISTS (SELECT FROM interop_day d WHERE d.centre_id = substr(f.name, 11, 8))
   AND (f.lines_done <> coalesce(s.lines, 0) OR (f.business_date IS NOT NULL AND (f.lines_done <> f.line_count OR f.total_fen <> coalesce(s.fen, 0))))

-- name: centre_verdicts
-- says: a record is decided once, if it was handed on, and counts on its own date or a later one; a decided date has nothing open but what is held
-- rows: interop_verdict, interop_hold, interop_record, interop_arrival, interop_day
WITH record AS (
    SELECT r.file_no, r.line, r.refused, a.clearing_date, d.clearing_date AS begun, d.decided_at, v.result, v.counted_on, v.answer_no, h.line AS held_line,
           c.decided_at AS counted_at
      FROM interop_record r
      LEFT JOIN interop_arrival a USING (file_no)
      LEFT JOIN interop_day d USING (clearing_date)
      LEFT JOIN interop_verdict v USING (file_no, line)
      LEFT JOIN interop_hold h USING (file_no, line)
      LEFT JOIN interop_day c ON c.clearing_date = v.counted_on
)
SELECT CASE WHEN held_line IS NOT NULL AND result IS NULL THEN 'interop_hold' ELSE 'interop_verdict' END, format('file_no %%s, line %%s', file_no, line), fault,
       format('result %%s, counted on %%s', coalesce(result, 'none'), counted_on)
  FROM record
 CROSS JOIN LATERAL (SELECT CASE
       WHEN (result IS NOT NULL OR held_line IS NOT NULL) AND (refused IS NOT NULL OR begun IS NULL) THEN 'nothing: it was not handed on'
       WHEN decided_at IS NOT NULL AND refused IS NULL AND result IS NULL AND held_line IS NULL THEN 'a result: its date is decided'
       WHEN answer_no IS NULL AND result <> '00' THEN 'a file of answers'
       WHEN counted_on < clearing_date OR (counted_on > clearing_date AND held_line IS NULL) THEN 'counted on ' || clearing_date
       WHEN result IS NOT NULL AND counted_on IS NULL AND held_line IS NULL THEN 'counted on ' || clearing_date
       WHEN counted_on > clearing_date AND counted_at IS NULL THEN 'counted on a date that is decided' END AS fault) AS f
 WHERE fault IS NOT NULL
UNION ALL
SELECT 'interop_day', d.clearing_date::text, coalesce(n.unanswered, 0) || ' without an answer', d.unanswered || ' without an answer'
  FROM interop_day d
  LEFT JOIN (SELECT counted_on, count(*) FILTER (WHERE answer_no IS NULL) AS unanswered FROM interop_verdict GROUP BY 1) AS n ON n.counted_on = d.clearing_date
 WHERE d.decided_at IS NOT NULL AND d.unanswered <> coalesce(n.unanswered, 0)
UNION ALL
SELECT v.place, format('file_no %%s, line %%s', v.file_no, v.line), 'a line of a city''s file', 'none'
  FROM (SELECT 'interop_verdict' AS place, file_no, line FROM interop_verdict UNION ALL SELECT 'interop_hold', file_no, line FROM interop_hold) AS v
  LEFT JOIN interop_record r USING (file_no, line) WHERE r.line IS NULL

-- name: centre_positions
-- says: each member's position is what was decided on its date, with the fees by the tariff; with the centre's share all are zero, and only who owes is asked for money
-- rows: interop_position, interop_verdict, interop_record, interop_day, interop_tariff
WITH paid AS (
    SELECT v.counted_on AS clearing_date, r.issuer_id, f.sender_id AS acquirer_id, r.amount_fen AS fen, r.file_no, r.line,
           coalesce(least(greatest(round(r.amount_fen * t.rate_ppm::numeric / 1000000), t.minimum_fen), t.cap_fen, r.amount_fen), 0) AS fee,
           coalesce(t.weight_issuer, 0) AS issuer, coalesce(t.weight_centre, 0) AS centre,
           coalesce(t.weight_issuer + t.weight_centre + t.weight_acquirer, 1) AS whole
      FROM interop_verdict v
      JOIN interop_record r USING (file_no, line)
      JOIN received_file f USING (file_no)
      LEFT JOIN interop_tariff t ON t.valid_from = (SELECT max(valid_from) FROM interop_tariff
                                                     WHERE valid_from <= to_date(substr(encode(r.raw, 'hex'), 77, 8), 'YYYYMMDD'))
      JOIN interop_day d ON d.clearing_date = v.counted_on AND d.decided_at IS NOT NULL
     WHERE v.result IN ('10', '00') AND r.amount_fen > 0
), flow AS (
    SELECT clearing_date, issuer_id, acquirer_id, count(*) AS items, sum(fen) AS fen, sum(div(fee * issuer, whole)) AS issuer_fee, sum(div(fee * centre, whole)) AS centre_fee,
           rank() OVER (PARTITION BY clearing_date ORDER BY min(ARRAY[file_no, line])) AS place
      FROM paid GROUP BY 1, 2, 3
), side AS (
    SELECT clearing_date, issuer_id AS institution_id, place * 2 AS place, items AS issued, -fen AS issued_fen, 0 AS acquired, 0 AS acquired_fen,
           issuer_fee AS received, 0 AS paid FROM flow
    UNION ALL
    SELECT clearing_date, acquirer_id, place * 2 + 1, 0, 0, items, fen, 0, -(issuer_fee + centre_fee) FROM flow
), want AS (
    SELECT clearing_date, institution_id, rank() OVER (PARTITION BY clearing_date ORDER BY min(place)) AS ordinal, sum(issued) AS issuing_count,
           sum(issued_fen) AS issuing_fen, sum(acquired) AS acquiring_count, sum(acquired_fen) AS acquiring_fen, sum(received) AS issuer_fee_fen,
           sum(paid) AS fees_paid_fen, sum(issued_fen + acquired_fen + received + paid) AS net_fen
      FROM side GROUP BY 1, 2
)
SELECT 'interop_position', format('%%s on %%s', coalesce(k.institution_id, w.institution_id), coalesce(k.clearing_date, w.clearing_date)),
       CASE WHEN w.institution_id IS NULL THEN 'no row' ELSE format('%%s, %%s', w, CASE WHEN w.net_fen < 0 THEN 'DUE, FUNDED or BLOCKED' ELSE 'RECEIVES' END) END,
       CASE WHEN k.institution_id IS NULL THEN 'no row' ELSE k::text END
  FROM interop_position k
  FULL JOIN want w ON w.clearing_date = k.clearing_date AND w.institution_id = k.institution_id
 WHERE (k.ordinal, k.issuing_count, k.issuing_fen, k.acquiring_count, k.acquiring_fen, k.issuer_fee_fen, k.fees_paid_fen, k.net_fen)
       IS DISTINCT FROM
       (w.ordinal, w.issuing_count, w.issuing_fen, w.acquiring_count, w.acquiring_fen, w.issuer_fee_fen, w.fees_paid_fen, w.net_fen)
    OR (k.state = 'RECEIVES') <> (k.net_fen >= 0)
UNION ALL
SELECT 'interop_day', d.clearing_date::text, format('%%s fen for the centre', coalesce(f.fen, 0)), format('%%s fen', d.centre_fen)
  FROM interop_day d LEFT JOIN (SELECT clearing_date, sum(centre_fee) AS fen FROM flow GROUP BY 1) AS f USING (clearing_date)
 WHERE d.decided_at IS NOT NULL AND d.centre_fen IS DISTINCT FROM coalesce(f.fen, 0)
UNION ALL
SELECT 'interop_position', 'all of ' || clearing_date, 'zero with the centre', sum(fen) || ' fen'
  FROM (SELECT clearing_date, net_fen AS fen FROM interop_position UNION ALL SELECT clearing_date, centre_fen FROM interop_day) AS every
 GROUP BY clearing_date HAVING sum(fen) <> 0

-- name: centre_files
-- says: a date of the centre has a file for each city whose cards were handed on, for each that is answered, and for each that has a position
-- rows: interop_file, interop_record, interop_position
WITH forwarded AS (
    SELECT a.clearing_date, r.issuer_id AS party, count(*) AS lines, sum(r.amount_fen) AS fen
      FROM interop_arrival a JOIN interop_record r USING (file_no) JOIN interop_day d USING (clearing_date)
     WHERE r.refused IS NULL GROUP BY 1, 2
), repeated AS (
    -- What a city had sent before is answered once.
    SELECT r.file_no, r.line
      FROM interop_record r
      JOIN received_file f USING (file_no)
      JOIN interop_record o ON o.refused IS NULL AND o.card = r.card AND o.atc = r.atc AND o.amount_fen = r.amount_fen AND o.mark = r.mark
      JOIN received_file g ON g.file_no = o.file_no AND g.sender_id = f.sender_id
     WHERE r.refused = '03'
), answer AS (
    SELECT d.clearing_date, f.sender_id AS party, r.amount_fen AS fen
      FROM interop_record r
      JOIN received_file f USING (file_no)
      JOIN interop_arrival a USING (file_no)
      LEFT JOIN interop_verdict v USING (file_no, line)
      LEFT JOIN interop_hold h USING (file_no, line)
      JOIN interop_day d ON d.decided_at IS NOT NULL
       AND (d.clearing_date = v.counted_on
            OR (d.clearing_date = a.clearing_date AND ((r.refused IS NOT NULL AND (r.file_no, r.line) NOT IN (SELECT file_no, line FROM repeated)) OR (h.line IS NOT NULL AND coalesce(v.counted_on, 'infinity') > a.clearing_date))))
), net AS (
    SELECT clearing_date, count(*) AS lines, sum(greatest(fen, 0)) AS fen
      FROM (SELECT clearing_date, net_fen AS fen FROM interop_position
            UNION ALL SELECT clearing_date, centre_fen FROM interop_day WHERE decided_at IS NOT NULL) AS every GROUP BY 1
), planned AS (
    SELECT clearing_date, 'DF' AS kind, party, lines, fen, 1 AS part, party::bigint AS place FROM forwarded
    UNION ALL SELECT clearing_date, 'DT', party, count(*), sum(fen), 2, party::bigint FROM answer GROUP BY 1, 2, 3
    UNION ALL SELECT p.clearing_date, 'NP', p.institution_id, n.lines, n.fen, 3, p.ordinal FROM interop_position p JOIN net n USING (clearing_date)
    UNION ALL SELECT d.clearing_date, 'NP', d.centre_id, n.lines, n.fen, 3, 2147483647 FROM interop_day d JOIN net n USING (clearing_date)
), want AS (
    SELECT kind || d.centre_id || party || to_char(clearing_date, 'YYYYMMDD') || '001' AS name, clearing_date, party, lines, fen,
           row_number() OVER (PARTITION BY clearing_date ORDER BY part, place) AS ordinal, CASE kind WHEN 'DF' THEN d.forwarded_at ELSE d.decided_at END AS created_at
      FROM planned JOIN interop_day d USING (clearing_date)
)
SELECT 'interop_file', coalesce(k.name, w.name), CASE WHEN w.name IS NULL THEN 'no row' ELSE format('no. %%s for %%s: %%s lines, %%s fen, of %%s', w.ordinal, w.party, w.lines, w.fen, w.created_at) END,
       CASE WHEN k.name IS NULL THEN 'no row' ELSE format('no. %%s for %%s: %%s lines, %%s fen, of %%s', k.ordinal, k.party, k.line_count, k.total_fen, k.created_at) END
  FROM interop_file k
  FULL JOIN want w ON w.name = k.name
 WHERE (k.clearing_date, k.ordinal, k.party, k.line_count, k.total_fen, k.created_at) IS DISTINCT FROM (w.clearing_date, w.ordinal, w.party, w.lines, w.fen, w.created_at)
