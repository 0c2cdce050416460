-- Reports of closed days: what was frozen for them is what the books say, and the digests of the steps are those of the tables. Days that were
-- closed before there were reports have none.

-- name: clearing_movements
-- says: the movements of a closed day are its postings and accepted records, by the accounts that they move money between
-- rows: clearing_movement, posting, purse_record
WITH @closed,
want AS (
    SELECT business_date, debit, credit, source, count(*) AS moves, sum(fen) AS fen,
           CASE WHEN source = 'DECISION' THEN 'ADJUSTMENT'
                WHEN 2201 IN (debit, credit) THEN 'SUSPENSE'
                WHEN 6001 IN (debit, credit) OR (debit IN (2101, 2102) AND credit IN (2101, 2102)) THEN 'FEE'
                WHEN debit IN (2001, 2002, 2003) AND credit IN (2001, 2002, 2003) THEN 'TRANSFER'
                WHEN (debit IN (2001, 2002, 2003) OR credit IN (2001, 2002, 2003)) AND debit NOT IN (2101, 2102) AND credit NOT IN (2101, 2102) THEN 'LOAD'
                WHEN 1001 IN (debit, credit) THEN 'SETTLEMENT'
                WHEN credit IN (2101, 2102) THEN 'PURCHASE'
                WHEN debit IN (2101, 2102) THEN 'REFUND'
                ELSE 'OTHER' END AS class
      FROM (SELECT p.business_date, p.debit_code::integer AS debit, p.credit_code::integer AS credit, 'POSTING' AS source, p.amount_fen AS fen
              FROM posting p JOIN closed c ON c.business_date = p.business_date AND c.has_reports
            UNION ALL
            SELECT r.business_date, 2002, r.credit_code, CASE WHEN r.result = '00' THEN 'DECISION' ELSE 'RECORD' END, r.amount_fen
              FROM purse_record r JOIN closed c ON c.business_date = r.business_date AND c.has_reports
             WHERE r.result IN ('10', '00') AND r.amount_fen > 0) AS every
     GROUP BY business_date, debit, credit, source
), kept AS (SELECT k.* FROM clearing_movement k JOIN closed USING (business_date))
SELECT 'clearing_movement', format('%%s to %%s, %%s, on %%s', coalesce(k.debit_code, w.debit), coalesce(k.credit_code, w.credit), coalesce(k.source, w.source),
                                   coalesce(k.business_date, w.business_date)),
       CASE WHEN w.debit IS NULL THEN 'no row' ELSE format('%%s of %%s fen, %%s', w.moves, w.fen, w.class) END,
       CASE WHEN k.debit_code IS NULL THEN 'no row' ELSE format('%%s of %%s fen, %%s', k.move_count, k.amount_fen, k.class) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.debit = k.debit_code AND w.credit = k.credit_code AND w.source = k.source
 WHERE k.debit_code IS NULL OR w.debit IS NULL OR k.move_count <> w.moves OR k.amount_fen <> w.fen OR (w.class <> k.class AND k.events <> '')

-- name: clearing_suspense
-- says: the loads in suspense at the end of a closed day are those whose moves up to it ended there, and where their money is follows from the postings
-- rows: clearing_suspense, purse_load, purse_load_move
WITH @closed,
last AS (
    SELECT c.business_date, m.shard, m.load_no, m.to_state,
           row_number() OVER (PARTITION BY c.business_date, m.shard, m.load_no ORDER BY m.at DESC, m.entry_no DESC, m.line DESC) AS back
      FROM closed c JOIN purse_load_move m ON m.business_date <= c.business_date
     WHERE c.has_reports
), want AS (
    SELECT l.business_date, l.shard, l.load_no, p.card_no, p.source::integer AS source, p.business_date AS loaded_on, p.amount_fen,
           (SELECT coalesce(sum(CASE WHEN g.credit_code = 2201 THEN g.amount_fen WHEN g.debit_code = 2201 THEN -g.amount_fen ELSE 0 END), 0) > 0
              FROM purse_load_move m JOIN posting g ON g.shard = m.shard AND g.business_date = m.business_date AND g.entry_no = m.entry_no AND g.line = m.line
             WHERE m.shard = l.shard AND m.load_no = l.load_no AND m.business_date <= l.business_date) AS on_2201
      FROM last l JOIN purse_load p ON p.shard = l.shard AND p.entry_no = l.load_no
     WHERE l.back = 1 AND l.to_state = 4
), kept AS (
    SELECT k.business_date, k.shard, k.load_no, k.card_no, k.source::integer AS source, k.loaded_on, k.amount_fen, k.on_2201
      FROM clearing_suspense k JOIN closed USING (business_date))
SELECT 'clearing_suspense', format('load %%s on %%s', coalesce(k.load_no, w.load_no), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.load_no IS NULL THEN 'no row' ELSE format('%%s fen of %%s, card_no %%s, source %%s, on 2201 %%s', w.amount_fen, w.loaded_on, w.card_no, w.source, w.on_2201) END,
       CASE WHEN k.load_no IS NULL THEN 'no row' ELSE format('%%s fen of %%s, card_no %%s, source %%s, on 2201 %%s', k.amount_fen, k.loaded_on, k.card_no, k.source, k.on_2201) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.shard = k.shard AND w.load_no = k.load_no
 WHERE k.load_no IS NULL OR w.load_no IS NULL
    OR (k.card_no, k.source, k.loaded_on, k.amount_fen, k.on_2201) IS DISTINCT FROM (w.card_no, w.source, w.loaded_on, w.amount_fen, w.on_2201)

-- name: clearing_alarms
-- says: every alarm of a closed day is in the list of one day, its own or a later one
-- rows: clearing_alarm, purse_alarm
WITH @closed
SELECT 'clearing_alarm', format('alarm_no %%s', a.alarm_no), format('in a list from %%s on', a.business_date), coalesce('in that of ' || k.business_date, 'in none')
  FROM purse_alarm a
  LEFT JOIN clearing_alarm k USING (alarm_no)
  LEFT JOIN (SELECT max(business_date) AS last FROM closed WHERE has_reports) AS d ON true
 WHERE k.business_date < a.business_date
    OR (k.alarm_no IS NULL AND a.kind IN ('ATC_COLLISION', 'PSAM_COLLISION') AND a.business_date <= d.last AND a.at < (SELECT max(sealed_at) FROM closed WHERE has_reports))

-- name: clearing_reports
-- says: every report of a closed day was written, under its name, with as many lines as its tables have
-- rows: clearing_report
WITH @closed,
counted AS (
    SELECT c.business_date, n.report, n.lines
      FROM closed c
     CROSS JOIN LATERAL (
           SELECT 'institutions' AS report, 1 + count(*) AS lines FROM clearing_position t WHERE t.business_date = c.business_date
           UNION ALL SELECT 'merchants', count(*) FROM clearing_merchant t WHERE t.business_date = c.business_date
           UNION ALL SELECT 'float', count(*) FROM clearing_float t WHERE t.business_date = c.business_date
           UNION ALL SELECT 'movements', count(*) FROM clearing_movement t WHERE t.business_date = c.business_date
           UNION ALL SELECT 'suspense', 15
           UNION ALL SELECT 'suspense_loads', count(*) FROM clearing_suspense t WHERE t.business_date = c.business_date
           UNION ALL SELECT 'gaps', count(*) FROM clearing_gap t WHERE t.business_date = c.business_date
           UNION ALL SELECT 'collisions', count(*) FROM clearing_alarm t WHERE t.business_date = c.business_date
           UNION ALL SELECT 'batches', count(*) FROM clearing_open_batch t WHERE t.business_date = c.business_date) AS n
     WHERE c.has_reports
), kept AS (SELECT k.* FROM clearing_report k JOIN closed USING (business_date))
SELECT 'clearing_report', format('%%s of %%s', coalesce(k.report, n.report), coalesce(k.business_date, n.business_date)),
       format('%%s lines in %%s-%%s.csv', coalesce(n.lines::text, 'any'), coalesce(k.report, n.report), to_char(coalesce(k.business_date, n.business_date), 'YYYYMMDD')),
       CASE WHEN k.report IS NULL THEN 'no row' WHEN k.sm3 IS NULL THEN 'not written' ELSE format('%%s lines in %%s', k.row_count, k.name) END
  FROM kept k
  FULL JOIN counted n ON n.business_date = k.business_date AND n.report = k.report
 WHERE k.sm3 IS NULL OR k.name <> k.report || '-' || to_char(k.business_date, 'YYYYMMDD') || '.csv' OR k.row_count <> n.lines

-- name: step_digests
-- says: the digests that the steps of a close noted of what they made are those of the tables
-- rows: clearing_step, clearing_summary, clearing_position, clearing_movement, clearing_float, clearing_file, clearing_report, clearing_seal
WITH @closed,
part AS (
    SELECT c.business_date, p.step, p.name, encode(sha256(convert_to(coalesce(p.text, ''), 'UTF8')), 'hex') AS sha256, p.place
      FROM closed c
     CROSS JOIN LATERAL (
           SELECT 'netting' AS step, 'positions' AS name, 1 AS place, (
                  SELECT string_agg(concat(ordinal, '|', institution_id, '|', issuing_count, '|', issuing_fen, '|', acquiring_count, '|', acquiring_fen, '|',
                                           issuer_fee_fen, '|', fees_paid_fen, '|', net_fen), chr(10) ORDER BY ordinal)
                    FROM clearing_position t WHERE t.business_date = c.business_date) AS text
           UNION ALL SELECT 'postings', 'movements', 1, (
                  SELECT string_agg(concat(debit_code, '|', credit_code, '|', source, '|', move_count, '|', amount_fen), chr(10) ORDER BY debit_code, credit_code, source)
                    FROM clearing_movement t WHERE t.business_date = c.business_date)
           UNION ALL SELECT 'postings', 'float', 2, (
                  SELECT string_agg(concat(code, '|', opening_fen, '|', debit_fen, '|', credit_fen, '|', closing_fen), chr(10) ORDER BY code)
                    FROM clearing_float t WHERE t.business_date = c.business_date)
           UNION ALL SELECT 'files', 'files', 1, (
                  SELECT string_agg(concat(name, '|', line_count, '|', total_fen, '|', size_bytes, '|', encode(sm3, 'hex')), chr(10) ORDER BY ordinal)
                    FROM clearing_file t WHERE t.business_date = c.business_date)
           UNION ALL SELECT 'reports', 'reports', 1, (
                  SELECT string_agg(concat(name, '|', row_count, '|', size_bytes, '|', encode(sm3, 'hex')), chr(10) ORDER BY ordinal)
                    FROM clearing_report t WHERE t.business_date = c.business_date)
           UNION ALL SELECT 'evidence', 'root', 1, (
                  SELECT concat(leaf_count, '|', encode(root, 'hex')) FROM clearing_seal t WHERE t.business_date = c.business_date)) AS p
     WHERE c.has_reports
), want AS (
    SELECT business_date, step, sha256(convert_to(string_agg(name || ' ' || sha256 || chr(10), '' ORDER BY place), 'UTF8')) AS made FROM part GROUP BY business_date, step
)
SELECT 'clearing_step', format('%%s of %%s', w.step, w.business_date), 'output_sha256 ' || encode(w.made, 'hex'), coalesce(encode(s.output_sha256, 'hex'), 'nothing')
  FROM want w LEFT JOIN clearing_step s USING (business_date, step)
 WHERE s.output_sha256 IS DISTINCT FROM w.made
   AND (s.output_sha256 IS NOT NULL OR w.step = 'reports')  -- a day that an older version has brought half-way has none for its first steps
UNION ALL
SELECT 'clearing_step', format('%%s of %%s', s.step, s.business_date), 'the digest that the step made of them before', 'another'
  FROM clearing_step s
  JOIN closed c ON c.business_date = s.business_date AND c.has_reports
  JOIN clearing_step n ON n.business_date = s.business_date
 WHERE (s.step, n.step) = ('netting', 'postings') AND s.input_sha256 <> n.input_sha256
UNION ALL
SELECT 'clearing_step', format('%%s of %%s', s.step, s.business_date), 'a step begun at least once, with no error left', format('%%s tries, %%s', s.tries, coalesce(s.error, 'no error'))
  FROM clearing_step s JOIN closed USING (business_date) WHERE s.tries < 1 OR s.error IS NOT NULL
