-- Reconciliation: partners' files, what a comparison made of both sides, and what people decided.
-- Leg states: 1 approved, 5 stood in. Outbox steps: 3 advice, 5 reversal advice; service 2 is a return.

-- name: partner_files
-- says: a partner's file is of whom and of when its name says, and comes to what its lines come to
-- rows: partner_file, partner_line
SELECT CASE WHEN fault LIKE 'lines%%' THEN 'partner_line' ELSE 'partner_file' END, 'file_no ' || f.file_no, fault,
       format('%%s: %%s lines, %%s fen, %%s fen stand', f.name, l.lines, l.amount, l.effect)
  FROM partner_file f
  LEFT JOIN (SELECT file_no, count(*) AS lines, sum(amount_fen) AS amount, sum(effect_fen) AS effect, count(DISTINCT line_no) AS places, min(line_no) AS first,
                    max(line_no) AS last, count(*) FILTER (WHERE abs(effect_fen) NOT IN (0, amount_fen) OR amount_fen < 0) AS odd
               FROM partner_line GROUP BY file_no) AS l ON l.file_no = f.file_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN f.name <> concat('CM', f.partner_id, substr(f.name, 11, 8), to_char(f.business_date, 'YYYYMMDD'), lpad(f.sequence::text, 3, '0')) THEN 'the name of its sender, date and sequence'
       WHEN f.status <> '00' AND l.lines > 0 THEN 'no lines of a refused file'
       WHEN f.status <> '00' AND f.reason = '' THEN 'a reason'
       WHEN l.lines IS NULL THEN NULL  -- they are dropped after some weeks, and by a crash of the server
       WHEN (l.places, l.first, l.last) <> (f.line_count, 1, f.line_count) THEN 'lines numbered from 1 to ' || f.line_count
       WHEN l.odd > 0 THEN 'lines that stand with their amount or with nothing'
       WHEN (l.lines, l.amount, l.effect) IS DISTINCT FROM (f.line_count, f.total_fen, f.effect_fen)
            THEN format('%%s lines, %%s fen, %%s fen stand', f.line_count, f.total_fen, f.effect_fen) END AS fault) AS c
 WHERE fault IS NOT NULL

-- name: reconcile_sides
-- says: a comparison is of the partner's file of its date and of our own items of that date, and its outcomes add up to both
-- rows: reconcile_run, reconcile_total, partner_file, host_leg, host_outbox, foreign_verdict
WITH @reckoned
SELECT CASE WHEN fault LIKE 'outcomes%%' THEN 'reconcile_total' ELSE 'reconcile_run' END, 'run ' || r.run_no, fault,
       format('%%s of %%s, carried %%s: ours %%s of %%s fen, theirs %%s of %%s fen', r.partner_id, r.business_date, coalesce(r.carried_run::text, 'nothing'), r.ours_count,
              r.ours_fen, r.theirs_count, r.theirs_fen)
  FROM reconcile_run r
  LEFT JOIN partner_file f USING (file_no)
  LEFT JOIN newest n ON n.run_no = r.run_no
  LEFT JOIN reconcile_run c ON c.run_no = r.carried_run
  LEFT JOIN (SELECT run_no, sum(ours_count) AS ours, sum(ours_fen) AS ours_fen, sum(theirs_count) AS theirs, sum(theirs_fen) AS theirs_fen
               FROM reconcile_total GROUP BY run_no) AS t ON t.run_no = r.run_no
  LEFT JOIN (SELECT run_no, sum(items) AS items, sum(fen) AS fen FROM ours GROUP BY run_no) AS o ON o.run_no = r.run_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN (f.partner_id, f.business_date, f.status) IS DISTINCT FROM (r.partner_id, r.business_date, '00') THEN 'the file of its partner and date'
       WHEN (f.line_count, f.effect_fen) IS DISTINCT FROM (r.theirs_count, r.theirs_fen) THEN format('theirs %%s of %%s fen', f.line_count, f.effect_fen)
       WHEN r.carried_run IS NOT NULL AND (c.partner_id, c.business_date) IS DISTINCT FROM (r.partner_id, r.business_date - 1) THEN 'carried from the day before'
       WHEN (t.ours, t.ours_fen, t.theirs, t.theirs_fen) IS DISTINCT FROM (r.ours_count, r.ours_fen, r.theirs_count, r.theirs_fen) THEN 'outcomes that add up to it'
       WHEN n.run_no IS NOT NULL AND r.business_date BETWEEN %(first)s AND %(last)s AND (coalesce(o.items, 0), coalesce(o.fen, 0)) <> (r.ours_count, r.ours_fen) THEN format('ours %%s of %%s fen', coalesce(o.items, 0), coalesce(o.fen, 0))
       END AS fault) AS x
 WHERE fault IS NOT NULL

-- name: reconcile_outcomes
-- says: what became of the items of both sides is what a second look at every one of them finds
-- rows: reconcile_total, partner_line, reconcile_finding
WITH @reckoned,
want AS (
    SELECT run_no, outcome, sum(ours_count) AS ours_count, sum(ours_fen) AS ours_fen, sum(theirs_count) AS theirs_count, sum(theirs_fen) AS theirs_fen
      FROM reckoned GROUP BY run_no, outcome
), stored AS (
    SELECT t.* FROM reconcile_total t JOIN readable USING (run_no) WHERE t.ours_count <> 0 OR t.theirs_count <> 0
)
SELECT 'reconcile_total', format('run %%s, %%s', coalesce(s.run_no, w.run_no), coalesce(s.outcome, w.outcome)), coalesce(w::text, 'nothing'), coalesce(s::text, 'nothing')
  FROM stored s
  FULL JOIN want w ON w.run_no = s.run_no AND w.outcome = s.outcome
 WHERE s.run_no IS NULL OR w.run_no IS NULL
    OR (s.ours_count, s.ours_fen, s.theirs_count, s.theirs_fen) <> (w.ours_count, w.ours_fen, w.theirs_count, w.theirs_fen)

-- name: reconcile_findings
-- says: what is listed of a comparison is what differs in it, with its money, and nothing else
-- rows: reconcile_finding, reconcile_difference
WITH @reckoned,
want AS (
    SELECT * FROM reckoned WHERE outcome NOT IN ('match', 'undone', 'shifted')
), listed AS (
    SELECT f.run_no, d.* FROM reconcile_finding f JOIN readable USING (run_no) JOIN reconcile_difference d USING (difference_no) WHERE d.outcome <> 'load'
)
SELECT 'reconcile_difference', coalesce('difference ' || s.difference_no, format('run %%s, key %%s/%%s', w.run_no, w.k1, w.k2)),
       coalesce(format('%%s: ours %%s of %%s fen, theirs %%s of %%s fen', w.outcome, w.ours_count, w.ours_fen, w.theirs_count, w.theirs_fen), 'nothing'),
       coalesce(format('%%s: ours %%s of %%s fen, theirs %%s of %%s fen', s.outcome, s.ours_count, s.ours_fen, s.theirs_count, s.theirs_fen), 'nothing')
  FROM listed s
  FULL JOIN want w ON w.run_no = s.run_no AND w.k1 = s.k1 AND w.k2 = s.k2 AND (w.outcome = 'duplicate') = (s.outcome = 'duplicate')
 WHERE s.run_no IS NULL OR w.run_no IS NULL
    OR (s.outcome, s.ours_count, s.ours_fen, s.theirs_count, s.theirs_fen) <> (w.outcome, w.ours_count, w.ours_fen, w.theirs_count, w.theirs_fen)
UNION ALL
SELECT 'reconcile_difference', 'difference ' || d.difference_no, fault, format('%%s of %%s, %%s: load %%s, ours %%s fen, theirs %%s fen', d.partner_id, d.business_date, d.outcome, d.load_no, d.ours_fen, d.theirs_fen)
  FROM reconcile_difference d
  LEFT JOIN reconcile_run r ON r.run_no = d.first_run
  LEFT JOIN host_leg l ON l.shard = d.shard AND l.leg_no = d.entry_no AND d.k2 = 0
  LEFT JOIN reconcile_finding f ON f.run_no = d.first_run AND f.difference_no = d.difference_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN (r.partner_id, r.business_date) IS DISTINCT FROM (d.partner_id, d.business_date) OR f.run_no IS NULL THEN 'first found by a comparison of its partner and date'
       WHEN d.outcome = 'load' AND (l.amount_fen, l.amount_fen, l.ended_by) IS DISTINCT FROM (d.ours_fen, d.theirs_fen, d.load_no) THEN 'the load of its leg'
       WHEN d.load_no IS NOT NULL AND (l.service, l.ended_by) IS DISTINCT FROM (5::smallint, d.load_no) THEN 'the load of its leg' END AS fault) AS x
 WHERE fault IS NOT NULL

-- name: reconcile_states
-- says: a difference is open, carried, settled or gone as comparisons and people have left it
-- rows: reconcile_difference, reconcile_run, reconcile_step
WITH @reckoned,
said AS (
    SELECT DISTINCT ON (difference_no) difference_no, to_state FROM reconcile_step WHERE to_state IN ('SUSPENSE', 'CLOSED') ORDER BY difference_no, step_no DESC
), stands AS (
    SELECT d.difference_no, d.state, CASE
           WHEN s.to_state IS NOT NULL THEN s.to_state
           WHEN f.run_no IS NULL THEN 'GONE'
           WHEN d.outcome = 'tolerated' THEN 'TOLERATED'
           WHEN d.outcome IN ('amount', 'duplicate', 'load') OR n.roll_days = 0 OR d.ours_fen = d.theirs_fen THEN 'OPEN'
           WHEN behind.run_no IS NULL THEN 'CARRIED'
           WHEN seen.run_no IS NULL THEN NULL  -- the lines of the day behind are gone
           WHEN k.run_no IS NOT NULL THEN 'SHIFTED'
           ELSE 'OPEN' END AS should
      FROM reconcile_difference d
      JOIN newest n ON n.partner_id = d.partner_id AND n.business_date = d.business_date
      LEFT JOIN said s ON s.difference_no = d.difference_no
      LEFT JOIN reconcile_finding f ON f.run_no = n.run_no AND f.difference_no = d.difference_no
      LEFT JOIN newest behind ON behind.carried_run = n.run_no
      LEFT JOIN readable seen ON seen.run_no = behind.run_no
      LEFT JOIN reckoned k ON k.run_no = behind.run_no AND k.outcome = 'shifted' AND k.k1 = d.k1 AND k.k2 = d.k2
)
SELECT 'reconcile_difference', 'difference ' || difference_no, should, state FROM stands WHERE should <> state

-- name: reconcile_steps
-- says: each decision about a difference is of two people on its day, follows the one before, and has moved the money that it says and no other
-- rows: reconcile_step, booking, bank_claim
WITH event (action, name) AS (
    VALUES ('suspense', 'money_unexplained'), ('sent-back', 'money_sent_back'), ('settled', 'money_sent_back'), ('settled', 'bank_settled'), ('settled', 'interop_received')
), step AS (
    SELECT s.*, lag(s.to_state) OVER (PARTITION BY s.difference_no ORDER BY s.step_no) AS came_from,
           EXISTS (SELECT FROM bank_claim c WHERE c.step_no = s.step_no) AS claimed
      FROM reconcile_step s
)
SELECT 'reconcile_step', 'difference ' || s.difference_no, fault,
       format('step %%s of %%s on %%s by %%s, checked by %%s, %%s to %%s', s.step_no, s.action, s.business_date, s.actor, s.checker, s.from_state, s.to_state)
  FROM step s
  LEFT JOIN business_day b ON b.business_date = s.business_date
  LEFT JOIN reconcile_difference d ON d.difference_no = s.difference_no
 CROSS JOIN LATERAL (SELECT count(*) AS made, count(*) FILTER (WHERE k.amount_fen = d.theirs_fen - d.ours_fen AND (k.actor, k.checker) = (s.actor, s.checker)
                                                                 AND k.business_date = s.business_date) AS right_made
                       FROM event e JOIN booking k ON k.event = e.name AND k.source = 'difference ' || s.difference_no
                      WHERE e.action = s.action) AS booked
 CROSS JOIN LATERAL (SELECT CASE
       WHEN d.difference_no IS NULL THEN 'a difference'
       WHEN b.business_date IS NULL OR s.decided_at < b.begins_at OR s.decided_at >= b.ends_at THEN 'the day on which it was decided'
       WHEN lower(s.actor) = lower(s.checker) OR s.actor = '' OR s.checker = '' THEN 'two people'
       WHEN s.came_from IN ('SUSPENSE', 'CLOSED') AND s.came_from <> s.from_state THEN 'to follow the one before'
       WHEN s.to_state <> CASE s.action WHEN 'suspense' THEN 'SUSPENSE' WHEN 'case' THEN s.from_state WHEN 'loaded' THEN s.to_state ELSE 'CLOSED' END THEN 'the state that its action leads to'
       WHEN s.action IN ('sent-back', 'settled') AND s.from_state <> 'SUSPENSE' THEN 'money that waited in suspense'
       WHEN s.action IN ('loaded', 'returned') AND d.load_no IS NULL THEN 'a load'
       WHEN booked.right_made <> CASE WHEN s.action = 'settled' THEN 2 WHEN s.action IN ('suspense', 'sent-back') AND NOT claimed THEN 1 ELSE 0 END OR booked.made <> booked.right_made
            THEN 'bookings of its amount, by its people' END AS fault) AS f
 WHERE fault IS NOT NULL
UNION ALL
SELECT 'booking', format('entry %%s of %%s', k.entry_no, k.business_date), 'a decision that asked for it', format('%%s of %%s fen for %%s', k.event, k.amount_fen, k.source)
  FROM booking k
 WHERE k.source LIKE 'difference %%'
   AND NOT EXISTS (SELECT FROM reconcile_step s JOIN event e ON e.action = s.action WHERE 'difference ' || s.difference_no = k.source AND e.name = k.event)

-- name: bank_claims
-- says: what a decision took of a bank entry is the amount of its difference, in the direction of its action, and entries had all that was taken of them
-- rows: bank_claim, bank_entry, reconcile_step
WITH taken AS (
    SELECT c.*, s.action, s.difference_no, d.theirs_fen - d.ours_fen AS amount_fen, e.outcome, e.suspense_fen,
           sum(c.fen) OVER (PARTITION BY c.statement_no, c.line) AS all_fen
      FROM bank_claim c
      LEFT JOIN reconcile_step s ON s.step_no = c.step_no
      LEFT JOIN reconcile_difference d ON d.difference_no = s.difference_no
      LEFT JOIN bank_entry e ON e.statement_no = c.statement_no AND e.line = c.line
)
SELECT 'bank_claim', 'step ' || step_no, fault,
       format('%%s of difference %%s: %%s of %%s fen; entry %%s/%%s, %%s, %%s in suspense, %%s taken', action, difference_no, fen, amount_fen, statement_no, line, outcome,
              suspense_fen, all_fen)
  FROM taken
 CROSS JOIN LATERAL (SELECT CASE
       WHEN action IS NULL OR action NOT IN ('suspense', 'sent-back') THEN 'a decision that takes money'
       WHEN fen IS DISTINCT FROM CASE action WHEN 'suspense' THEN amount_fen ELSE -amount_fen END THEN 'the amount of its difference'
       WHEN outcome IS NULL OR outcome NOT IN ('AMOUNT', 'TWICE', 'UNEXPLAINED') THEN 'an entry that nobody could explain'
       WHEN sign(suspense_fen) <> sign(fen) OR abs(all_fen) > abs(suspense_fen) THEN 'no more than lay in suspense' END AS fault) AS f
 WHERE fault IS NOT NULL
