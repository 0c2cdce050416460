-- What the custody bank says.

-- name: known_statement
SELECT statement_no, sm3 = decode(%(sm3)s, 'hex'), ended_at IS NOT NULL FROM bank_statement WHERE kind = %(kind)s AND statement_id = %(statement_id)s

-- name: make_room
CREATE TEMPORARY TABLE staged_entry (
    place integer, line integer, bank_ref text, end_to_end_id text, remittance text, amount_fen bigint, is_credit boolean, is_booked boolean,
    reason_code text, booked_on date
) ON COMMIT DROP

-- name: stage
COPY staged_entry FROM STDIN

-- name: add_statement
INSERT INTO bank_statement (kind, statement_id, sm3, created_at, opening_fen, closing_fen, entry_count, credit_fen, debit_fen, taken_by)
VALUES (%(kind)s, %(statement_id)s, decode(%(sm3)s, 'hex'), %(created_at)s, %(opening_fen)s, %(closing_fen)s, %(entry_count)s, %(credit_fen)s,
        %(debit_fen)s, %(actor)s)
RETURNING statement_no

-- name: add_entries
INSERT INTO bank_entry (statement_no, line, bank_ref, end_to_end_id, remittance, amount_fen, is_credit, is_booked, reason_code, booked_on)
SELECT %(statement_no)s, line, bank_ref, end_to_end_id, remittance, amount_fen, is_credit, is_booked, reason_code, booked_on
  FROM staged_entry WHERE place = %(place)s

-- name: next_entries
SELECT line, bank_ref, end_to_end_id, remittance, amount_fen, is_credit, is_booked, reason_code, booked_on
  FROM bank_entry
 WHERE statement_no = %(statement_no)s AND outcome IS NULL
 ORDER BY line LIMIT %(most)s
   FOR UPDATE

-- name: lock_payouts
SELECT p.payout_id, p.settlement_date, p.party, l.kind, l.merchant_no, p.amount_fen, p.state, p.approved_by, r.prepared_by, p.order_id
  FROM payout p JOIN settlement_line l USING (settlement_date, party) JOIN settlement_run r USING (settlement_date)
 WHERE p.payout_id = ANY(%(ids)s::text[])
 ORDER BY p.payout_id
   FOR UPDATE OF p

-- name: earlier_of_payouts
SELECT e.payout_id, e.is_credit, s.kind, e.bank_ref, e.outcome IN ('PAID', 'RETURNED', 'FUNDED')
  FROM bank_entry e JOIN bank_statement s USING (statement_no)
 WHERE e.payout_id = ANY(%(ids)s::text[]) AND e.outcome NOT IN ('WAITS', 'PENDING')

-- name: earlier_of_references
-- Of entries that name no payout: the same movement in an earlier paper has the bank's same reference.
SELECT e.bank_ref, e.is_credit, s.kind
  FROM bank_entry e JOIN bank_statement s USING (statement_no)
 WHERE e.bank_ref = ANY(%(refs)s::text[]) AND e.bank_ref <> '' AND e.payout_id IS NULL AND e.outcome NOT IN ('WAITS', 'PENDING')

-- name: institution_accounts
SELECT coalesce(sum(debit_fen - credit_fen) FILTER (WHERE code = 1101), 0)::bigint,
       coalesce(sum(debit_fen - credit_fen) FILTER (WHERE code = 1102), 0)::bigint,
       coalesce(sum(credit_fen - debit_fen) FILTER (WHERE code = 2102), 0)::bigint
  FROM folded_balance WHERE owner = %(owner)s AND code IN (1101, 1102, 2102)

-- name: decide_entries
UPDATE bank_entry e SET outcome = d.outcome, payout_id = d.payout_id, suspense_fen = d.suspense_fen
  FROM unnest(%(lines)s::integer[], %(outcomes)s::text[], %(payouts)s::text[], %(suspenses)s::bigint[]) AS d (line, outcome, payout_id, suspense_fen)
 WHERE e.statement_no = %(statement_no)s AND e.line = d.line AND e.outcome IS NULL

-- name: end_statement
-- What the bank should hold: 1001 by the books, and what was ordered and is not paid yet.
UPDATE bank_statement
   SET ended_at = clock_timestamp(),
       books_fen = (SELECT coalesce(sum(fen), 0)::bigint
                      FROM (SELECT debit_fen - credit_fen AS fen FROM folded_balance WHERE code = 1001
                            UNION ALL
                            SELECT CASE p.debit_code WHEN 1001 THEN p.amount_fen ELSE -p.amount_fen END
                              FROM posting p JOIN fold_watermark w ON w.shard = p.shard AND p.txid >= w.folded_to
                             WHERE 1001 IN (p.debit_code, p.credit_code) AND p.business_date >= %(since)s
                            UNION ALL
                            SELECT amount_fen FROM payout WHERE state = 'ORDERED') AS every)
 WHERE statement_no = %(statement_no)s AND ended_at IS NULL

-- name: counts
SELECT outcome, count(*), sum(amount_fen)::bigint, sum(suspense_fen)::bigint FROM bank_entry WHERE statement_no = %(statement_no)s GROUP BY outcome ORDER BY outcome

-- name: statement
SELECT statement_no, kind, statement_id, created_at, opening_fen, closing_fen, entry_count, credit_fen, debit_fen, taken_at, taken_by, ended_at, books_fen,
       (SELECT s.opening_fen - b.closing_fen FROM bank_statement b WHERE b.kind = 'camt.053' AND b.statement_no < s.statement_no
         ORDER BY b.statement_no DESC LIMIT 1) AS gap_fen
  FROM bank_statement s WHERE statement_no = %(statement_no)s

-- name: newest_statements
SELECT statement_no FROM bank_statement ORDER BY statement_no DESC LIMIT %(most)s

-- name: odd_entries
-- What people have to look into: rest_fen of it lies in suspense, less what people have resolved, or differences have taken of it.
SELECT s.kind, s.statement_id, e.line, e.booked_on, e.bank_ref, e.end_to_end_id, e.amount_fen, e.is_credit, e.outcome, e.payout_id, e.suspense_fen,
       e.suspense_fen - c.fen AS rest_fen
  FROM bank_entry e JOIN bank_statement s USING (statement_no)
 CROSS JOIN LATERAL (SELECT coalesce(sum(fen), 0)::bigint AS fen FROM bank_claim WHERE bank_claim.statement_no = e.statement_no AND bank_claim.line = e.line) AS c
 WHERE (e.outcome IN ('AMOUNT', 'TWICE', 'UNEXPLAINED') AND e.suspense_fen <> c.fen
        AND NOT EXISTS (SELECT FROM bank_resolution r WHERE r.statement_no = e.statement_no AND r.line = e.line))
    OR (e.outcome = 'WAITS' AND %(waiting)s)
 ORDER BY e.statement_no DESC, e.line LIMIT %(most)s
