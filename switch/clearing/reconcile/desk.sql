-- What people see and decide of differences (desk.py), and what is expected from partners (expected.py).

-- name: list_differences
-- state: as it is today: a load that waited is done with when its card has come. Age in days of the open business date.
SELECT difference_no, partner_id, business_date, outcome, differs, state, ours_count, ours_fen, theirs_count, theirs_fen, card, rrn, terminal, load_no,
       line_no, case_no, age_days
  FROM difference_today
 WHERE (%(partner)s = '' OR partner_id = %(partner)s) AND (%(day)s::date IS NULL OR business_date = %(day)s)
   AND state = ANY(%(states)s::text[])
 ORDER BY business_date, partner_id, difference_no
 LIMIT %(limit)s;

-- name: ageing
SELECT partner_id, CASE WHEN age_days <= 1 THEN '0-1' WHEN age_days <= 7 THEN '2-7' WHEN age_days <= 30 THEN '8-30' ELSE '31+' END AS bucket,
       count(*), sum(abs(ours_fen - theirs_fen))::bigint
  FROM difference_today
 WHERE state IN ('OPEN', 'CARRIED', 'SUSPENSE')
 GROUP BY partner_id, bucket ORDER BY partner_id, min(age_days);

-- name: lock_item
-- All that was ever found of the same item, in one order.
SELECT o.difference_no
  FROM reconcile_difference o
  JOIN reconcile_difference d USING (partner_id, business_date, k1, k2)
 WHERE d.difference_no = %(number)s
 ORDER BY o.difference_no
   FOR UPDATE OF o;

-- name: taken_already
-- A difference of the same item, of another generation of the partner's file, whose money was taken into suspense.
SELECT o.difference_no
  FROM reconcile_difference o
  JOIN reconcile_difference d USING (partner_id, business_date, k1, k2)
 WHERE d.difference_no = %(number)s AND o.difference_no <> d.difference_no
   AND EXISTS (SELECT FROM reconcile_step s WHERE s.difference_no = o.difference_no AND s.action = 'suspense')
 LIMIT 1;

-- name: lock_difference
SELECT d.partner_id, d.business_date, d.outcome, d.state, d.ours_fen, d.theirs_fen, d.load_no, i.role
  FROM reconcile_difference d LEFT JOIN institution i ON i.institution_id = d.partner_id
 WHERE d.difference_no = %(number)s
   FOR UPDATE OF d;

-- name: read_load
SELECT state FROM purse_load WHERE entry_no = %(load_no)s;

-- name: read_instant
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, d.business_date FROM clock JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at;

-- name: add_step
INSERT INTO reconcile_step (difference_no, decided_at, business_date, action, from_state, to_state, actor, checker, reason, although)
VALUES (%(number)s, %(now)s, %(today)s, %(action)s, %(before)s, %(after)s, %(actor)s, %(checker)s, %(reason)s, %(although)s)
RETURNING step_no;

-- name: add_claim
INSERT INTO bank_claim (step_no, statement_no, line, fen) VALUES (%(step_no)s, %(statement_no)s, %(line)s, %(fen)s);

-- name: entry_of_amount
-- A bank entry of which just this lies in suspense, below zero of money that went out.
SELECT s.statement_id || '/' || e.line
  FROM bank_entry e JOIN bank_statement s USING (statement_no)
 WHERE e.suspense_fen <> 0
   AND e.suspense_fen - (SELECT coalesce(sum(c.fen), 0) FROM bank_claim c WHERE c.statement_no = e.statement_no AND c.line = e.line) = %(fen)s
   AND NOT EXISTS (SELECT FROM bank_resolution r WHERE r.statement_no = e.statement_no AND r.line = e.line)
 ORDER BY e.statement_no DESC, e.line LIMIT 1;

-- name: set_state
UPDATE reconcile_difference SET state = %(after)s, case_no = coalesce(%(case_no)s, case_no) WHERE difference_no = %(number)s;

-- name: read_difference
SELECT t.difference_no, t.partner_id, t.business_date, t.outcome, t.differs, t.state, t.ours_count, t.ours_fen, t.theirs_count, t.theirs_fen, t.card, t.rrn,
       t.load_no, t.case_no, t.age_days, t.k1, t.k2, t.shard, t.entry_no, t.line_no
  FROM difference_today t WHERE t.difference_no = %(number)s;

-- name: read_leg
SELECT l.state, l.amount_fen, l.host, l.host_code, l.terminal_id, l.merchant_id, l.batch_no, l.stan, l.asked_at, l.ended_at, l.ended_by, l.late_code,
       terminal_says(l.terminal_no, l.batch_no, l.stan)
  FROM host_leg l WHERE l.shard = %(shard)s AND l.leg_no = %(entry_no)s;

-- name: read_tells
SELECT step, service, amount_fen, created_at, result, last_end FROM host_outbox
 WHERE shard = %(shard)s AND leg_no = %(entry_no)s ORDER BY created_at, outbox_no;

-- name: read_lines
-- In the partner's newest file of the date, if its lines are still here.
SELECT l.line_no, l.mti, l.amount_fen, l.effect_fen
  FROM partner_line l
 WHERE l.file_no = (SELECT file_no FROM reconcile_run WHERE partner_id = %(partner)s AND business_date = %(day)s ORDER BY run_no DESC LIMIT 1)
   AND l.k1 = %(k1)s AND l.k2 = %(k2)s
 ORDER BY l.line_no;

-- name: read_findings
SELECT r.run_no, r.compared_at, r.actor, f.name
  FROM reconcile_finding n JOIN reconcile_run r USING (run_no) JOIN partner_file f USING (file_no)
 WHERE n.difference_no = %(number)s ORDER BY r.run_no;

-- name: read_steps
SELECT decided_at, business_date, action, from_state, to_state, actor, checker, reason, although,
       (SELECT s.statement_id || '/' || c.line FROM bank_claim c JOIN bank_statement s USING (statement_no) WHERE c.step_no = k.step_no)
  FROM reconcile_step k WHERE difference_no = %(number)s ORDER BY step_no;

-- name: evidence_of_load
-- What partners' files say about a load.
SELECT d.difference_no, d.partner_id, d.business_date, d.outcome, d.state, d.ours_fen, d.theirs_fen
  FROM difference_today d WHERE d.load_no = %(load_no)s AND d.state <> 'GONE' ORDER BY d.difference_no;

-- name: expected
-- Files that a partner owes: one for each date that has ended since its first. carried: what waits for this file.
SELECT b.business_date, b.sealed_at IS NOT NULL, f.name, r.run_no, f.file_no = r.file_no,
       (SELECT count(*) FROM reconcile_difference c
         WHERE c.partner_id = %(partner)s AND c.business_date = b.business_date - 1 AND c.state = 'CARRIED')
  FROM business_day b
  LEFT JOIN LATERAL (SELECT file_no, name FROM partner_file
                      WHERE partner_id = %(partner)s AND partner_file.business_date = b.business_date AND status = '00'
                      ORDER BY sequence DESC LIMIT 1) AS f ON true
  LEFT JOIN LATERAL (SELECT run_no, file_no FROM reconcile_run
                      WHERE partner_id = %(partner)s AND reconcile_run.business_date = b.business_date ORDER BY run_no DESC LIMIT 1) AS r ON true
 WHERE b.ends_at <= %(now)s AND b.business_date >= %(since)s
 ORDER BY b.business_date DESC
 LIMIT %(limit)s;

-- name: open_figures
SELECT partner_id, count(*), max(age_days) FROM difference_today WHERE state IN ('OPEN', 'SUSPENSE') GROUP BY partner_id;
