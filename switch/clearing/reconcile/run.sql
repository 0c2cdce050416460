-- Comparing a partner's file with our books (run.py). Items are (k1, k2) as in migration 0034. What is even one to one, which is nearly everything, is
-- only counted; the keys of all that is not are set apart, and only their items are looked at one by one.

-- name: lock_partner
SELECT pg_try_advisory_lock(%(space)s, hashtext(%(partner)s));

-- name: unlock_partner
SELECT pg_advisory_unlock(%(space)s, hashtext(%(partner)s));

-- name: read_day
SELECT begins_at, ends_at, sealed_at IS NOT NULL FROM business_day WHERE business_date = %(day)s;

-- name: newest_file
SELECT file_no, name, line_count, effect_fen FROM partner_file
 WHERE partner_id = %(partner)s AND business_date = %(day)s AND status = '00' ORDER BY sequence DESC LIMIT 1;

-- name: current_run
SELECT run_no, file_no, carried_run, tolerance_fen, roll_days FROM reconcile_run
 WHERE partner_id = %(partner)s AND business_date = %(day)s ORDER BY run_no DESC LIMIT 1;

-- name: count_lines
SELECT count(*), coalesce(sum(effect_fen), 0)::bigint FROM partner_line WHERE file_no = %(file_no)s;

-- name: count_ours
SELECT count(*), coalesce(sum(fen), 0)::bigint FROM partner_item(%(partner_no)s, %(day)s, %(begins_at)s, %(ends_at)s);

-- name: make_carried
-- What the day before has left open on one side; its other side may have come today.
CREATE TEMPORARY TABLE carried AS
SELECT d.k1, d.k2, sum(d.ours_fen)::bigint AS ours_fen, sum(d.theirs_fen)::bigint AS theirs_fen
  FROM reconcile_finding f
  JOIN reconcile_difference d USING (difference_no)
 WHERE f.run_no = %(carried_run)s AND d.outcome IN ('short', 'long', 'status')
 GROUP BY d.k1, d.k2;

-- name: make_tangled
-- Keys of everything that is not one item of ours and one line of theirs that say the same.
CREATE TEMPORARY TABLE tangled AS
SELECT k1, k2 FROM carried
UNION
SELECT coalesce(o.k1, t.k1), coalesce(o.k2, t.k2)
  FROM partner_item(%(partner_no)s, %(day)s, %(begins_at)s, %(ends_at)s) AS o
  FULL JOIN (SELECT * FROM partner_line WHERE file_no = %(file_no)s) AS t ON t.k1 = o.k1 AND t.k2 = o.k2
 WHERE (o.fen = t.effect_fen AND o.fen <> 0 AND t.mti < 400 AND o.pan = t.pan AND o.rrn IN ('', t.rrn)) IS NOT TRUE;

-- name: add_repeated
-- Lines that say again what another says are even with the same item of ours, each of them: seen by their number only.
INSERT INTO tangled
SELECT k1, k2 FROM partner_line WHERE file_no = %(file_no)s GROUP BY k1, k2 HAVING count(*) > 1
EXCEPT SELECT k1, k2 FROM tangled;

-- name: make_our_part
CREATE TEMPORARY TABLE our_part AS
SELECT o.* FROM partner_item(%(partner_no)s, %(day)s, %(begins_at)s, %(ends_at)s) AS o JOIN tangled USING (k1, k2);

-- name: make_their_part
-- copy: which of the lines that say the same of the same item; the first counts, the others are duplicates.
CREATE TEMPORARY TABLE their_part AS
SELECT t.*, row_number() OVER (PARTITION BY k1, k2, mti >= 400, sign(effect_fen) ORDER BY line_no) AS copy
  FROM partner_line t JOIN tangled USING (k1, k2) WHERE t.file_no = %(file_no)s;

-- name: count_parts
SELECT (SELECT count(*) FROM our_part), (SELECT coalesce(sum(fen), 0)::bigint FROM our_part),
       (SELECT count(*) FROM their_part), (SELECT coalesce(sum(effect_fen), 0)::bigint FROM their_part);

-- name: make_compared
CREATE TEMPORARY TABLE compared AS
WITH ours AS (
    SELECT k1, k2, count(*)::integer AS items, sum(fen)::bigint AS fen, min(pan) AS pan, min(rrn) AS rrn, min(shard) AS shard, min(entry_no) AS entry_no
      FROM our_part GROUP BY k1, k2
), theirs AS (
    SELECT k1, k2, count(*)::integer AS items, sum(effect_fen)::bigint AS fen, min(line_no) AS line_no, min(pan) AS pan, max(pan) AS other_pan,
           min(rrn) AS rrn, max(rrn) AS other_rrn
      FROM their_part WHERE copy = 1 GROUP BY k1, k2
), faced AS (
    SELECT k1, k2, coalesce(o.items, 0) AS ours_count, coalesce(o.fen, 0) AS ours_fen, coalesce(t.items, 0) AS theirs_count, coalesce(t.fen, 0) AS theirs_fen,
           o.k1 IS NULL AS ours_missing, t.k1 IS NULL AS theirs_missing, o.shard, o.entry_no, t.line_no,
           rtrim(coalesce(o.pan, t.pan)) AS pan, coalesce(nullif(o.rrn, '')::text, t.rrn::text, '') AS rrn,
           concat_ws(', ', CASE WHEN o.pan <> t.pan OR o.pan <> t.other_pan THEN 'card' END,
                     CASE WHEN o.rrn <> '' AND (o.rrn <> t.rrn OR o.rrn <> t.other_rrn) THEN 'reference' END) AS differs,
           c.k1 IS NOT NULL AND coalesce(o.fen, 0) <> coalesce(t.fen, 0)
               AND coalesce(o.fen, 0) + c.ours_fen = coalesce(t.fen, 0) + c.theirs_fen AS shifted
      FROM ours o
      FULL JOIN theirs t USING (k1, k2)
      LEFT JOIN carried c USING (k1, k2)
)
SELECT k1, k2, ours_count, ours_fen, theirs_count, theirs_fen, shard, entry_no, line_no, pan, rrn,
       CASE WHEN shifted THEN 'shifted'
            WHEN ours_fen = 0 AND theirs_fen = 0 THEN 'undone'
            WHEN ours_fen = theirs_fen THEN CASE differs WHEN '' THEN 'match' ELSE 'status' END
            WHEN theirs_missing THEN 'short'
            WHEN ours_missing THEN 'long'
            WHEN ours_fen = 0 OR theirs_fen = 0 THEN 'status'
            WHEN abs(ours_fen - theirs_fen) <= %(tolerance_fen)s AND differs = '' THEN 'tolerated'
            ELSE 'amount' END AS outcome,
       CASE WHEN shifted OR ours_missing OR theirs_missing THEN ''
            ELSE concat_ws(', ', nullif(differs, ''), CASE WHEN ours_fen = 0 AND theirs_fen <> 0 THEN 'stands with the partner alone'
                                                           WHEN theirs_fen = 0 AND ours_fen <> 0 THEN 'stands with us alone' END) END AS differs
  FROM faced
UNION ALL
SELECT k1, k2, 0, 0, count(*)::integer, sum(effect_fen)::bigint, NULL, NULL, min(line_no), rtrim(min(pan)), min(rrn)::text, 'duplicate', ''
  FROM their_part WHERE copy > 1 GROUP BY k1, k2;

-- name: add_run
INSERT INTO reconcile_run (partner_id, business_date, file_no, carried_run, tolerance_fen, roll_days, actor, ours_count, ours_fen, theirs_count, theirs_fen)
VALUES (%(partner)s, %(day)s, %(file_no)s, %(carried_run)s, %(tolerance_fen)s, %(roll_days)s, %(actor)s, %(ours_count)s, %(ours_fen)s,
        %(theirs_count)s, %(theirs_fen)s)
RETURNING run_no;

-- name: add_totals
-- even: what was not set apart.
INSERT INTO reconcile_total (run_no, outcome, ours_count, ours_fen, theirs_count, theirs_fen)
SELECT %(run_no)s, outcome, sum(ours_count), sum(ours_fen), sum(theirs_count), sum(theirs_fen)
  FROM (SELECT outcome, ours_count, ours_fen, theirs_count, theirs_fen FROM compared
        UNION ALL SELECT 'match', %(even_count)s, %(even_fen)s, %(even_count)s, %(even_fen)s) AS every
 GROUP BY outcome;

-- name: make_found
-- What is kept of each: the findings, and loads that wait for their cards though both sides say the same. A load's leg ended with the load.
CREATE TEMPORARY TABLE found AS
SELECT c.k1, c.k2, c.outcome, c.differs, c.ours_count, c.ours_fen, c.theirs_count, c.theirs_fen, c.shard, c.entry_no, c.line_no, c.pan, c.rrn,
       p.entry_no AS load_no, CASE WHEN c.k2 <> 0 THEN 'offline record' ELSE terminal_says(l.terminal_no, l.batch_no, l.stan) END AS terminal
  FROM compared c
  LEFT JOIN host_leg l ON c.k2 = 0 AND l.shard = c.shard AND l.leg_no = c.entry_no
  LEFT JOIN purse_load p ON l.service = 5 AND p.shard = l.shard AND p.entry_no = l.ended_by
 WHERE c.outcome IN ('tolerated', 'amount', 'status', 'short', 'long', 'duplicate')
UNION ALL
SELECT l.transmitted::bigint * 1000000 + l.trace, 0, 'load', '', 1, l.amount_fen, 1, l.amount_fen, l.shard, l.leg_no, NULL, l.pan, l.rrn,
       p.entry_no, terminal_says(l.terminal_no, l.batch_no, l.stan)
  FROM purse_load p
  JOIN host_leg l ON l.shard = p.shard AND l.ended_by = p.entry_no AND l.service = 5
  LEFT JOIN compared c ON c.k1 = l.transmitted::bigint * 1000000 + l.trace AND c.k2 = 0 AND c.outcome <> 'duplicate'
 WHERE p.state IN (1, 4) AND l.ended_at >= %(begins_at)s AND l.ended_at < %(ends_at)s AND l.debit_owner = %(partner_no)s AND l.state = 1
   AND coalesce(c.outcome, 'match') = 'match';

-- name: add_differences
INSERT INTO reconcile_difference (partner_id, business_date, k1, k2, outcome, differs, ours_count, ours_fen, theirs_count, theirs_fen, shard, entry_no,
                                  load_no, line_no, card, rrn, terminal, first_run, state)
SELECT %(partner)s, %(day)s, k1, k2, outcome, differs, ours_count, ours_fen, theirs_count, theirs_fen, shard, entry_no, load_no, line_no,
       left(pan, 6) || repeat('*', length(pan) - 10) || right(pan, 4), rrn, coalesce(terminal, ''), %(run_no)s, 'OPEN'
  FROM found ORDER BY k1, k2, outcome
    ON CONFLICT DO NOTHING;

-- name: add_findings
INSERT INTO reconcile_finding (run_no, difference_no)
SELECT %(run_no)s, d.difference_no
  FROM found f
  JOIN reconcile_difference d
    ON d.partner_id = %(partner)s AND d.business_date = %(day)s
   AND (d.k1, d.k2, d.outcome, d.differs) = (f.k1, f.k2, f.outcome, f.differs)
   AND (d.ours_count, d.ours_fen, d.theirs_count, d.theirs_fen) = (f.ours_count, f.ours_fen, f.theirs_count, f.theirs_fen);

-- name: set_states
-- Of everything that was ever found on this date. What people have decided stays as it is.
UPDATE reconcile_difference d
   SET state = n.state
  FROM (SELECT e.difference_no,
               CASE WHEN f.difference_no IS NULL THEN 'GONE'
                    WHEN e.outcome = 'tolerated' THEN 'TOLERATED'
                    WHEN e.outcome IN ('short', 'long', 'status') AND e.ours_fen <> e.theirs_fen AND %(roll_days)s = 1 THEN 'CARRIED'
                    ELSE 'OPEN' END AS state
          FROM reconcile_difference e
          LEFT JOIN reconcile_finding f ON f.run_no = %(run_no)s AND f.difference_no = e.difference_no
         WHERE e.partner_id = %(partner)s AND e.business_date = %(day)s) AS n
 WHERE d.difference_no = n.difference_no AND d.state NOT IN ('SUSPENSE', 'CLOSED') AND d.state <> n.state;

-- name: set_carried_states
-- Of the day before: what came today is settled, the rest is an error.
UPDATE reconcile_difference d
   SET state = CASE WHEN c.k1 IS NOT NULL THEN 'SHIFTED' ELSE 'OPEN' END
  FROM reconcile_finding f, reconcile_difference e
  LEFT JOIN compared c ON c.k1 = e.k1 AND c.k2 = e.k2 AND c.outcome = 'shifted'
 WHERE f.run_no = %(carried_run)s AND e.difference_no = f.difference_no AND d.difference_no = e.difference_no
   AND e.outcome IN ('short', 'long', 'status') AND d.state IN ('CARRIED', 'OPEN', 'SHIFTED');

-- name: totals
SELECT outcome, ours_count, ours_fen, theirs_count, theirs_fen FROM reconcile_total WHERE run_no = %(run_no)s ORDER BY outcome;

-- name: states
SELECT d.state, count(*) FROM reconcile_finding f JOIN reconcile_difference d USING (difference_no) WHERE f.run_no = %(run_no)s
 GROUP BY d.state ORDER BY d.state;

-- name: left_open
-- Of the day before: what did not come today.
SELECT count(*)
  FROM reconcile_run r
  JOIN reconcile_finding f ON f.run_no = r.carried_run
  JOIN reconcile_difference d USING (difference_no)
 WHERE r.run_no = %(run_no)s AND d.state = 'OPEN' AND d.outcome IN ('short', 'long', 'status');
