-- What becomes of bank entries that nobody could explain.

-- name: lock_entry
-- Only statements put money into suspense.
SELECT e.statement_no, e.line, e.outcome, e.suspense_fen
  FROM bank_entry e JOIN bank_statement s USING (statement_no)
 WHERE s.kind = 'camt.053' AND s.statement_id = %(statement_id)s AND e.line = %(line)s
   FOR NO KEY UPDATE OF e

-- name: claimed
-- A later statement than the lock, so that it sees what whoever had the lock has written.
SELECT coalesce(sum(fen), 0)::bigint FROM bank_claim WHERE statement_no = %(statement_no)s AND line = %(line)s

-- name: resolved
SELECT r.action, r.fen, r.payout_id, r.other_statement_no, r.other_line, r.decided_at, r.business_date,
       (SELECT coalesce(array_agg(p.party || ':' || p.fen ORDER BY p.part), '{}') FROM bank_resolution_part p WHERE p.statement_no = r.statement_no AND p.line = r.line)
  FROM bank_resolution r WHERE r.statement_no = %(statement_no)s AND r.line = %(line)s

-- name: role
SELECT role FROM institution WHERE institution_id = %(party)s

-- name: merchant
SELECT merchant_no FROM merchant WHERE merchant_id = %(party)s

-- name: awaited_of
SELECT payout_id FROM payout WHERE party = %(party)s AND state = 'EXPECTED' AND amount_fen = %(fen)s ORDER BY payout_id LIMIT 1

-- name: add_resolution
INSERT INTO bank_resolution (statement_no, line, action, fen, payout_id, other_statement_no, other_line, decided_at, business_date, actor, checker, reason)
VALUES (%(statement_no)s, %(line)s, %(action)s, %(fen)s, %(payout_id)s, %(other_statement_no)s, %(other_line)s, %(at)s, %(day)s, %(actor)s, %(checker)s, %(reason)s)

-- name: add_part
INSERT INTO bank_resolution_part (statement_no, line, part, party, fen) VALUES (%(statement_no)s, %(line)s, %(part)s, %(party)s, %(fen)s)
