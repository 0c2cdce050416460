-- Payouts and collections: where each stands, and how it came there.

-- name: instant
SELECT clock_timestamp()

-- name: move
-- Those that still are in the state they are moved from; each move has the next step.
WITH asked AS (
    SELECT * FROM unnest(%(ids)s::text[], %(froms)s::text[], %(tos)s::text[], %(reasons)s::text[], %(accounts)s::integer[])
           AS a (payout_id, from_state, to_state, reason, account_no)
), moved AS (
    UPDATE payout p
       SET state = a.to_state,
           approved_by = CASE a.to_state WHEN 'APPROVED' THEN %(actor)s WHEN 'PREPARED' THEN NULL ELSE p.approved_by END,
           account_no = CASE a.to_state WHEN 'PREPARED' THEN a.account_no ELSE p.account_no END,
           order_id = CASE a.to_state WHEN 'ORDERED' THEN %(order_id)s ELSE p.order_id END,
           back_on = CASE WHEN a.to_state IN ('RETURNED', 'REJECTED') THEN %(day)s::date END
      FROM asked a
     WHERE p.payout_id = a.payout_id AND p.state = a.from_state
    RETURNING a.*
)
INSERT INTO payout_move (payout_id, step, from_state, to_state, at, actor, checker, reason)
SELECT m.payout_id, (SELECT max(step) + 1 FROM payout_move k WHERE k.payout_id = m.payout_id), m.from_state, m.to_state, %(at)s, %(actor)s,
       %(checker)s, m.reason
  FROM moved m
RETURNING payout_id

-- name: to_approve
SELECT p.payout_id, p.state, r.prepared_by
  FROM payout p JOIN settlement_run r USING (settlement_date)
 WHERE p.settlement_date = %(date)s AND left(p.payout_id, 1) = 'P'
   AND CASE WHEN %(all)s THEN p.state = 'PREPARED' ELSE p.payout_id = ANY(%(ids)s::text[]) END
 ORDER BY p.payout_id
   FOR UPDATE OF p

-- name: one_payout
SELECT p.payout_id, p.settlement_date, p.party, l.kind, l.merchant_no, p.amount_fen, p.state, p.approved_by, r.prepared_by, p.order_id
  FROM payout p JOIN settlement_line l USING (settlement_date, party) JOIN settlement_run r USING (settlement_date)
 WHERE p.payout_id = %(id)s
   FOR UPDATE OF p

-- name: booked_legs
-- What a payout or collection has moved so far, event by event.
SELECT source, event, amount_fen FROM booking WHERE source = ANY(%(sources)s::text[])

-- name: went_out
SELECT line FROM bank_entry WHERE payout_id = %(id)s AND NOT is_credit AND outcome NOT IN ('WAITS', 'PENDING') LIMIT 1

-- name: list_payouts
SELECT p.payout_id, p.settlement_date, p.party, l.kind, coalesce(m.name, i.name, '') AS name, p.amount_fen, p.state, a.mask AS account,
       a.bank_code, p.approved_by, p.order_id, p.again_on,
       CASE left(p.payout_id, 1) WHEN 'C' THEN p.state = 'EXPECTED' AND clock_timestamp() > (p.settlement_date + %(fund_by)s::time) AT TIME ZONE 'Asia/Shanghai'
            ELSE false END AS late
  FROM payout p
  JOIN settlement_line l USING (settlement_date, party)
  LEFT JOIN merchant m ON m.merchant_no = l.merchant_no
  LEFT JOIN institution i ON i.institution_id = p.party
  LEFT JOIN payout_account a ON a.account_no = p.account_no
 WHERE (%(date)s::date IS NULL OR p.settlement_date = %(date)s) AND (%(states)s::text[] = '{}' OR p.state = ANY(%(states)s::text[]))
   AND p.payout_id > %(after)s
 ORDER BY p.payout_id LIMIT %(most)s

-- name: list_lines
-- What was not paid, or not wholly, and why.
SELECT l.party, l.kind, coalesce(m.name, i.name, '') AS name, l.carried_in_fen, l.net_fen, l.returned_fen, l.payout_fen, l.held_fen, l.carried_fen, l.cause
  FROM settlement_line l
  LEFT JOIN merchant m ON m.merchant_no = l.merchant_no
  LEFT JOIN institution i ON i.institution_id = l.party
 WHERE l.settlement_date = %(date)s AND l.cause <> ''
 ORDER BY l.party LIMIT %(most)s

-- name: show_line
SELECT l.settlement_date, l.party, l.kind, l.carried_in_fen, l.net_fen, l.returned_fen, l.payout_fen, l.held_fen, l.carried_fen, l.cause
  FROM settlement_line l WHERE l.settlement_date = %(date)s AND l.party = %(party)s

-- name: show_days
SELECT business_date, net_fen FROM settlement_line_day WHERE settlement_date = %(date)s AND party = %(party)s ORDER BY business_date

-- name: show_moves
SELECT step, from_state, to_state, at, actor, checker, reason FROM payout_move WHERE payout_id = %(id)s ORDER BY step

-- name: show_entries
SELECT s.kind, s.statement_id, e.line, e.bank_ref, e.amount_fen, e.is_credit, e.outcome, e.reason_code
  FROM bank_entry e JOIN bank_statement s USING (statement_no)
 WHERE e.payout_id = %(id)s ORDER BY s.statement_no, e.line LIMIT 100

-- name: not_compared
-- Dates of a settlement, and partners whose word about them is waited for: no comparison yet, or one with something open.
SELECT d.business_date, p.institution
  FROM settlement_run s
  JOIN business_day d ON d.business_date BETWEEN s.first_day AND s.last_day
  JOIN unnest(%(institutions)s::text[], %(since)s::date[]) AS p (institution, since) ON d.business_date >= p.since
 WHERE s.settlement_date = %(date)s
   AND (NOT EXISTS (SELECT FROM reconcile_run r WHERE r.partner_id = p.institution AND r.business_date = d.business_date)
        OR EXISTS (SELECT FROM reconcile_difference f
                    WHERE f.partner_id = p.institution AND f.business_date = d.business_date AND f.state = 'OPEN'))
 ORDER BY 1, 2
