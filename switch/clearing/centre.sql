-- The interop centre (centre.py, centre_run.py): files of cities in, files to cities out, nets between them. %(now)s: a test's instant, else the clock's.

-- name: join_in
SELECT pg_advisory_xact_lock_shared(%(space)s, 1);

-- name: shut_out
-- Whoever settles a date waits until those who take files have committed, and they see then what was settled.
SELECT pg_advisory_xact_lock(%(space)s, 1);

-- name: lock_run
SELECT pg_try_advisory_lock(%(space)s, 0);

-- name: unlock_run
SELECT pg_advisory_unlock(%(space)s, 0);

-- name: read_instant
-- Behind the lock, in a statement of its own.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS at)
SELECT coalesce(%(now)s::timestamptz, clock.at), d.business_date
  FROM clock JOIN business_day d ON d.begins_at <= clock.at AND clock.at < d.ends_at;

-- name: read_now
SELECT coalesce(%(now)s::timestamptz, clock_timestamp());

-- name: add_records
-- The first of the same records counts, whichever file brings it. In the order of their key: two files at once never wait crosswise. A card may be
-- used as far as its issuer's scope and the acquirer's reach: the wider of the circles in which the two lie around this centre holds them both.
WITH circle (name, width) AS (VALUES ('LOCAL', 1), ('HANGZHOU', 2), ('DELTA', 3), ('NATION', 4)),
acquirer AS (
    SELECT s.width AS reach,
           coalesce((SELECT min(c.width) FROM card_issuer ci JOIN circle c ON c.name = coalesce(ci.circle, CASE WHEN ci.own THEN 'LOCAL' ELSE 'NATION' END)
                      WHERE ci.institution_id = i.institution_id), 4) AS place
      FROM institution i JOIN circle s ON s.name = i.scope
     WHERE i.institution_id = %(member)s
), issuer AS (
    SELECT ci.issuer_id, ci.institution_id, place.width AS place, scope.width AS scope
      FROM card_issuer ci
      JOIN institution i ON i.institution_id = ci.institution_id AND (i.role = 'CITY' OR i.institution_id = %(own)s)
      JOIN circle place ON place.name = coalesce(ci.circle, CASE WHEN ci.own THEN 'LOCAL' ELSE 'NATION' END)
      JOIN circle scope ON scope.name = ci.scope
), judged AS MATERIALIZED (
    SELECT n.*, i.institution_id AS issuer_no,
           CASE WHEN NOT n.good OR i.institution_id = %(member)s THEN '02'
                WHEN i.issuer_id IS NULL OR greatest(i.place, a.place) > least(i.scope, a.reach) THEN '08' END AS refused
      FROM unnest(%(lines)s::int[], %(raws)s::bytea[], %(cards)s::bigint[], %(atcs)s::int[], %(amounts)s::bigint[], %(marks)s::bytea[],
                  %(good)s::boolean[]) AS n (line, raw, card, atc, amount_fen, mark, good)
     CROSS JOIN acquirer a
      LEFT JOIN issuer i ON i.issuer_id = substr(n.raw, 17, 8)
), forwarded AS (
    INSERT INTO interop_record (file_no, line, issuer_id, card, atc, amount_fen, mark, raw)
    SELECT DISTINCT ON (card, atc, amount_fen, mark) %(file_no)s, line, issuer_no, card, atc, amount_fen, mark, raw
      FROM judged WHERE refused IS NULL
     ORDER BY card, atc, amount_fen, mark, line
        ON CONFLICT (card, atc, amount_fen, mark) WHERE refused IS NULL DO NOTHING
    RETURNING line
), others AS (
    INSERT INTO interop_record (file_no, line, issuer_id, card, atc, amount_fen, mark, refused, raw)
    SELECT %(file_no)s, line, issuer_no, CASE WHEN card >= 0 OR good THEN card END, atc, amount_fen, mark, coalesce(refused, '03'), raw
      FROM judged WHERE line NOT IN (SELECT line FROM forwarded)
    RETURNING line, refused
)
SELECT coalesce(o.refused, '11'), count(*), sum(j.amount_fen)::bigint
  FROM judged j LEFT JOIN others o USING (line)
 GROUP BY 1;

-- name: add_arrival
-- A date takes files until its time on the next day, and never after its DF are settled.
INSERT INTO interop_arrival (file_no, clearing_date, arrived_at, late)
SELECT %(file_no)s, counts.on_date, %(now)s, counts.on_date > %(named)s
  FROM (SELECT greatest(%(named)s::date, ((%(now)s AT TIME ZONE INTERVAL '8 hours') - %(forward_by)s::time::interval)::date,
                        (SELECT max(clearing_date) + 1 FROM interop_day)) AS on_date) AS counts;

-- name: find_forwarded
-- LATERAL and LIMIT, so that a plan made while the tables were small stays good.
SELECT k.n, r.file_no, r.line, a.clearing_date, d.decided_at IS NOT NULL, v.file_no IS NOT NULL, h.file_no IS NOT NULL
  FROM unnest(%(cards)s::bigint[], %(atcs)s::int[], %(amounts)s::bigint[], %(marks)s::bytea[], %(raws)s::bytea[])
       WITH ORDINALITY AS k (card, atc, amount_fen, mark, raw, n)
 CROSS JOIN LATERAL (
       SELECT * FROM interop_record o
        WHERE o.card = k.card AND o.atc = k.atc AND o.amount_fen = k.amount_fen AND o.mark = k.mark AND o.refused IS NULL LIMIT 1) AS r
  JOIN interop_arrival a ON a.file_no = r.file_no
  JOIN interop_day d ON d.clearing_date = a.clearing_date
  LEFT JOIN LATERAL (SELECT o.file_no FROM interop_verdict o WHERE o.file_no = r.file_no AND o.line = r.line LIMIT 1) AS v ON true
  LEFT JOIN LATERAL (SELECT o.file_no FROM interop_hold o WHERE o.file_no = r.file_no AND o.line = r.line LIMIT 1) AS h ON true
 WHERE r.raw = k.raw AND r.issuer_id = %(member)s
 ORDER BY k.n;

-- name: add_verdicts
-- Two files that answer the same record at once: the second finds the first's answer.
INSERT INTO interop_verdict (file_no, line, result, answered_on, answer_no, counted_on)
SELECT n.file_no, n.line, n.result, n.answered_on, %(answer_no)s, n.counted_on
  FROM unnest(%(files)s::int[], %(lines)s::int[], %(results)s::text[], %(dates)s::date[], %(counted)s::date[])
       AS n (file_no, line, result, answered_on, counted_on)
 ORDER BY n.file_no, n.line
    ON CONFLICT DO NOTHING
RETURNING file_no, line;

-- name: add_holds
INSERT INTO interop_hold (file_no, line, answered_on, answer_no)
SELECT n.file_no, n.line, n.answered_on, %(answer_no)s
  FROM unnest(%(files)s::int[], %(lines)s::int[], %(dates)s::date[]) AS n (file_no, line, answered_on)
 ORDER BY n.file_no, n.line
    ON CONFLICT DO NOTHING
RETURNING file_no, line;

-- ---------------------------------------------------------------- a run

-- name: dates_to_forward
-- Dates whose files can no longer grow. The last of them also where answers wait to be counted and no file came.
SELECT a.clearing_date
  FROM interop_arrival a
 WHERE a.clearing_date <= %(last)s AND NOT EXISTS (SELECT FROM interop_day d WHERE d.clearing_date = a.clearing_date)
UNION
SELECT %(last)s
 WHERE EXISTS (SELECT FROM interop_verdict WHERE counted_on IS NULL) AND NOT EXISTS (SELECT FROM interop_day WHERE clearing_date >= %(last)s)
 ORDER BY 1;

-- name: begin_date
INSERT INTO interop_day (clearing_date, centre_id, forwarded_at) VALUES (%(date)s, %(centre)s, date_trunc('second', %(now)s::timestamptz));

-- name: plan_forwarded
SELECT r.issuer_id, count(*), sum(r.amount_fen)::bigint
  FROM interop_arrival a JOIN interop_record r USING (file_no)
 WHERE a.clearing_date = %(date)s AND r.refused IS NULL
 GROUP BY r.issuer_id ORDER BY r.issuer_id;

-- name: dates_to_decide
SELECT clearing_date FROM interop_day WHERE decided_at IS NULL ORDER BY clearing_date;

-- name: waits_for_answers
SELECT EXISTS (
       SELECT FROM interop_arrival a
         JOIN interop_record r USING (file_no)
         LEFT JOIN interop_verdict v USING (file_no, line)
         LEFT JOIN interop_hold h USING (file_no, line)
        WHERE a.clearing_date = %(date)s AND r.refused IS NULL AND v.file_no IS NULL AND h.file_no IS NULL);

-- name: accept_unanswered
-- Nobody answered in time; and what was held for so long that no answer will come.
INSERT INTO interop_verdict (file_no, line, result, answered_on, counted_on)
SELECT open.file_no, open.line, '00', %(date)s::date + %(answer_days)s::integer, %(date)s
  FROM (SELECT r.file_no, r.line
          FROM interop_arrival a
          JOIN interop_record r USING (file_no)
          LEFT JOIN interop_hold h USING (file_no, line)
         WHERE a.clearing_date = %(date)s AND r.refused IS NULL AND h.file_no IS NULL
        UNION ALL
        SELECT h.file_no, h.line
          FROM interop_hold h JOIN interop_arrival a USING (file_no)
         WHERE a.clearing_date <= %(date)s::date - %(held_days)s::integer) AS open
  LEFT JOIN interop_verdict v USING (file_no, line)
 WHERE v.file_no IS NULL;

-- name: count_late_answers
UPDATE interop_verdict SET counted_on = %(date)s WHERE counted_on IS NULL;

-- name: flows
-- In the order in which they came.
SELECT r.issuer_id, f.sender_id, count(*), sum(r.amount_fen)::bigint,
       coalesce(sum(fee_of(r.amount_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_issuer / t.weight_all), 0)::bigint,
       coalesce(sum(fee_of(r.amount_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_centre / t.weight_all), 0)::bigint
  FROM interop_verdict v
  JOIN interop_record r USING (file_no, line)
  JOIN received_file f USING (file_no)
 CROSS JOIN LATERAL (SELECT to_date(encode(substr(r.raw, 39, 4), 'hex'), 'YYYYMMDD') AS happened_on) AS c
  LEFT JOIN interop_rate t ON c.happened_on >= t.valid_from AND c.happened_on < t.until
 WHERE v.counted_on = %(date)s AND v.result IN ('10', '00') AND r.amount_fen > 0
 GROUP BY r.issuer_id, f.sender_id
 ORDER BY min(r.file_no::bigint * 100000000 + r.line);

-- name: add_position
INSERT INTO interop_position (clearing_date, ordinal, institution_id, issuing_count, issuing_fen, acquiring_count, acquiring_fen, issuer_fee_fen,
                              fees_paid_fen, net_fen, state, state_at, actor)
VALUES (%(date)s, %(ordinal)s, %(institution)s, %(issuing_count)s, %(issuing_fen)s, %(acquiring_count)s, %(acquiring_fen)s, %(issuer_fee_fen)s,
        %(fees_paid_fen)s, %(net_fen)s, %(state)s, %(now)s, %(actor)s);

-- name: plan_answers
SELECT member_id, count(*), sum(amount_fen)::bigint FROM interop_answers(%(date)s) GROUP BY member_id ORDER BY member_id;

-- name: end_date
UPDATE interop_day
   SET decided_at = date_trunc('second', %(now)s::timestamptz), settlement_date = %(settlement_date)s, unanswered = %(unanswered)s,
       centre_fen = %(centre_fen)s
 WHERE clearing_date = %(date)s AND decided_at IS NULL;

-- name: plan_file
INSERT INTO interop_file (name, clearing_date, ordinal, party, line_count, total_fen, created_at)
SELECT n.name, %(date)s, (SELECT coalesce(max(ordinal), 0) FROM interop_file WHERE clearing_date = %(date)s) + n.place, n.party, n.lines, n.fen,
       date_trunc('second', %(now)s::timestamptz)
  FROM unnest(%(names)s::text[], %(parties)s::text[], %(counts)s::bigint[], %(totals)s::bigint[]) WITH ORDINALITY AS n (name, party, lines, fen, place);

-- name: block_overdue
-- A member whose money is not there in time holds up nobody but itself.
UPDATE interop_position p
   SET state = 'BLOCKED', state_at = %(now)s, actor = %(actor)s
  FROM interop_day d
 WHERE d.clearing_date = p.clearing_date AND p.state = 'DUE'
   AND (d.settlement_date + %(fund_by)s::time) AT TIME ZONE INTERVAL '8 hours' <= %(now)s
RETURNING p.clearing_date, p.institution_id, p.net_fen;

-- name: files
SELECT f.name, f.party, NULL, f.line_count, f.total_fen, upper(encode(f.sm3, 'hex')), f.size_bytes, encode(s.signature, 'hex'), f.created_at
  FROM interop_file f LEFT JOIN file_signature s USING (name) WHERE f.clearing_date = %(date)s ORDER BY f.ordinal;

-- name: dates_not_written
SELECT DISTINCT clearing_date FROM interop_file WHERE sm3 IS NULL ORDER BY 1;

-- name: store_digest
UPDATE interop_file SET sm3 = decode(%(sm3)s, 'hex'), size_bytes = %(size)s WHERE name = %(name)s AND sm3 IS NULL;

-- name: positions
SELECT institution_id, issuing_count, issuing_fen, acquiring_count, acquiring_fen, issuer_fee_fen, fees_paid_fen, net_fen
  FROM interop_position WHERE clearing_date = %(date)s ORDER BY ordinal;

-- name: centre_share
SELECT centre_id, centre_fen FROM interop_day WHERE clearing_date = %(date)s;
