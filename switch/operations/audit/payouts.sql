-- From nets to money: settlement dates, lines, payouts, orders, and what the custody bank said.

-- name: settlement_runs
-- says: settlement dates follow each other and settle every closed day once, each on or after the date that its close gave it
-- rows: settlement_run
WITH ordered AS (
    SELECT r.*, lag(last_day) OVER (ORDER BY settlement_date) AS before FROM settlement_run r
), counted AS (
    SELECT o.*, (SELECT count(*) FROM clearing_day c WHERE c.business_date BETWEEN o.first_day AND o.last_day AND c.settlement_date > o.settlement_date) AS early,
           (SELECT count(*) FROM business_day b WHERE b.business_date BETWEEN o.first_day AND o.last_day AND b.state < 2) AS still_open,
           (SELECT min(c.business_date) FROM clearing_day c WHERE c.business_date > coalesce(o.before, '-infinity')) AS next_day
      FROM ordered o
)
SELECT 'settlement_run', settlement_date::text, format('closed days from %%s on, due by then', next_day),
       format('%%s to %%s: %%s not closed, %%s not due; prepared at %%s', first_day, last_day, still_open, early, prepared_at)
  FROM counted
 WHERE early > 0 OR still_open > 0 OR first_day IS DISTINCT FROM next_day OR last_day >= settlement_date
    OR prepared_at < (SELECT max(c.created_at) FROM clearing_day c WHERE c.business_date BETWEEN first_day AND last_day)

-- name: settlement_days
-- says: what a settled day changed of what a party is owed is what its postings and accepted records come to, payouts apart
-- rows: settlement_line_day, posting, purse_record
WITH covered AS (
    SELECT r.settlement_date, d.business_date
      FROM settlement_run r JOIN clearing_day d ON d.business_date >= r.first_day AND d.business_date <= r.last_day
), moved AS (
    SELECT p.business_date, side.code, side.owner, side.fen
      FROM posting p
      LEFT JOIN booking b ON p.shard = 0 AND b.entry_no = p.entry_no
     CROSS JOIN LATERAL (VALUES (p.debit_code::integer, p.debit_owner, -p.amount_fen), (p.credit_code::integer, p.credit_owner, p.amount_fen))
           AS side (code, owner, fen)
     WHERE left(coalesce(b.source, ''), 7) <> 'payout '
    UNION ALL
    SELECT business_date, credit_code, credit_owner, amount_fen FROM purse_record WHERE result IN ('10', '00') AND amount_fen > 0
), want AS (
    SELECT c.settlement_date, m.business_date, CASE WHEN m.code = 2101 THEN t.merchant_id WHEN m.code = 1103 THEN 'FUND' ELSE to_char(m.owner, 'FM00000000') END AS party,
           sum(m.fen) AS net_fen
      FROM moved m
      JOIN covered c ON c.business_date = m.business_date
      LEFT JOIN merchant t ON m.code = 2101 AND t.merchant_no = m.owner
     WHERE m.code IN (1101, 1102, 1103, 2101, 2102)
     GROUP BY 1, 2, 3 HAVING sum(m.fen) <> 0
)
SELECT 'settlement_line_day', format('%%s on %%s', coalesce(k.party, w.party), coalesce(k.business_date, w.business_date)),
       coalesce(format('%%s fen, settled on %%s', w.net_fen, w.settlement_date), 'no row'),
       CASE WHEN k.party IS NULL THEN 'no row' ELSE format('%%s fen, settled on %%s', k.net_fen, k.settlement_date) END
  FROM settlement_line_day k
  FULL JOIN want w ON w.business_date = k.business_date AND w.party = k.party
 WHERE (k.settlement_date, k.net_fen) IS DISTINCT FROM (w.settlement_date, w.net_fen)

-- name: settlement_lines
-- says: a line is what was carried, what its days came to and what came back, divided by the terms in force: paid, held, carried on
-- rows: settlement_line, settlement_line_day, payout, payout_terms, payout_account
WITH run AS (
    SELECT r.*, lag(settlement_date) OVER (ORDER BY settlement_date) AS before FROM settlement_run r
), part AS (
    SELECT r.settlement_date, l.party, l.held_fen + l.carried_fen AS carried_in_fen, 0 AS net_fen, 0 AS returned_fen
      FROM run r JOIN settlement_line l ON l.settlement_date = r.before
     WHERE l.held_fen + l.carried_fen <> 0
    UNION ALL SELECT settlement_date, party, 0, net_fen, 0 FROM settlement_line_day
    UNION ALL SELECT again_on, party, 0, 0, CASE WHEN payout_id LIKE 'C%%' THEN -amount_fen ELSE amount_fen END FROM payout WHERE again_on IS NOT NULL
), due AS (
    SELECT p.settlement_date, p.party, sum(carried_in_fen) AS carried_in_fen, sum(net_fen) AS net_fen, sum(returned_fen) AS returned_fen,
           sum(carried_in_fen + net_fen + returned_fen) AS fen
      FROM part p GROUP BY 1, 2
), terms AS (
    SELECT d.*, m.merchant_no, r.before,
           (SELECT a.account_no FROM payout_account a
             WHERE a.party = d.party AND a.confirmed_at <= r.prepared_at AND a.valid_from <= d.settlement_date
             ORDER BY a.valid_from DESC, a.confirmed_at DESC, a.account_no DESC LIMIT 1) AS account_no,
           (SELECT t FROM payout_terms t WHERE t.party = d.party AND t.valid_from <= d.settlement_date ORDER BY t.valid_from DESC, t.terms_no DESC LIMIT 1) AS t
      FROM due d JOIN run r ON r.settlement_date = d.settlement_date LEFT JOIN merchant m ON m.merchant_id = d.party
), held AS (
    SELECT x.*, greatest(fen, 0) AS claim, ((t).held_all AND ((t).held_until >= settlement_date OR (t).held_until IS NULL)) IS TRUE AS all_held,
           CASE WHEN (t).held_until < settlement_date OR (t).terms_no IS NULL THEN 0 WHEN (t).held_all THEN greatest(fen, 0)
                ELSE least((t).held_fen, greatest(fen, 0)) END AS held_fen,
           (t).terms_no IS NULL OR (t).cycle = 'DAILY' OR EXISTS (
               SELECT FROM generate_series(0, settlement_date - coalesce(before, settlement_date - 1) - 1) AS back (days)
                WHERE to_char(settlement_date - back.days, CASE (t).cycle WHEN 'WEEKLY' THEN 'ID' ELSE 'DD' END)::integer = (t).cycle_day) AS in_cycle
      FROM terms x
), want AS (
    SELECT h.*, CASE WHEN fen <= 0 THEN CASE WHEN merchant_no IS NULL AND NOT all_held THEN fen ELSE 0 END
                     WHEN account_no IS NOT NULL AND in_cycle AND claim - held_fen >= coalesce((t).minimum_fen, 0) THEN claim - held_fen ELSE 0 END AS payout_fen,
           CASE WHEN fen < 0 AND merchant_no IS NOT NULL THEN 'NEGATIVE' WHEN fen < 0 AND all_held THEN 'HELD' WHEN fen <= 0 THEN '' WHEN claim = held_fen THEN 'HELD'
                WHEN account_no IS NULL THEN 'NO_ACCOUNT' WHEN NOT in_cycle THEN 'CYCLE' WHEN claim - held_fen < (t).minimum_fen THEN 'MINIMUM'
                WHEN held_fen > 0 THEN 'HELD' ELSE '' END AS cause,
           CASE WHEN party = 'FUND' THEN 'FUND' WHEN merchant_no IS NULL THEN 'INSTITUTION' ELSE 'MERCHANT' END AS kind
      FROM held h
)
SELECT 'settlement_line', format('%%s of %%s', coalesce(k.party, w.party), coalesce(k.settlement_date, w.settlement_date)),
       CASE WHEN w.party IS NULL THEN 'no row'
            ELSE format('%%s: in %%s, nets %%s, back %%s; payout %%s, held %%s, carried %%s fen %%s', w.kind, w.carried_in_fen, w.net_fen, w.returned_fen, w.payout_fen,
                        w.held_fen, w.fen - w.payout_fen - w.held_fen, w.cause) END,
       CASE WHEN k.party IS NULL THEN 'no row'
            ELSE format('%%s: in %%s, nets %%s, back %%s; payout %%s, held %%s, carried %%s fen %%s', k.kind, k.carried_in_fen, k.net_fen, k.returned_fen, k.payout_fen,
                        k.held_fen, k.carried_fen, k.cause) END
  FROM settlement_line k
  FULL JOIN want w ON w.settlement_date = k.settlement_date AND w.party = k.party
 WHERE (k.kind, k.merchant_no, k.carried_in_fen, k.net_fen, k.returned_fen, k.payout_fen, k.held_fen, k.carried_fen, k.cause, k.account_no)
       IS DISTINCT FROM
       (w.kind, w.merchant_no, w.carried_in_fen, w.net_fen, w.returned_fen, w.payout_fen, w.held_fen, w.fen - w.payout_fen - w.held_fen, w.cause, w.account_no)

-- name: payouts
-- says: each line has the one payout or collection of its amount, to its account, numbered by party, in the state of its last move, approved by another than who prepared it
-- rows: payout, payout_account, settlement_line, payout_move, settlement_run
WITH numbered AS (
    SELECT l.*, row_number() OVER (PARTITION BY l.settlement_date, sign(l.payout_fen) ORDER BY l.party COLLATE "C") AS place
      FROM settlement_line l WHERE l.payout_fen <> 0
), want AS (
    SELECT format('%%s%%s%%s', CASE WHEN payout_fen < 0 THEN 'C' ELSE 'P' END, to_char(settlement_date, 'YYYYMMDD'), to_char(place, 'FM000000')) AS payout_id,
           settlement_date, party, abs(payout_fen) AS amount_fen
      FROM numbered
), chain AS (
    SELECT m.*, lag(to_state) OVER w AS left_at, lead(step) OVER w AS next_step, row_number() OVER w - 1 AS place,
           min(actor) FILTER (WHERE step = 0) OVER (PARTITION BY payout_id) AS preparer
      FROM payout_move m WINDOW w AS (PARTITION BY payout_id ORDER BY step)
), last AS (
    SELECT payout_id, max(to_state) FILTER (WHERE next_step IS NULL) AS state,
           (array_agg(actor ORDER BY step DESC) FILTER (WHERE to_state = 'APPROVED'))[1] AS approver,
           bool_and(place = step AND from_state IS NOT DISTINCT FROM left_at) AND min(preparer) = min(r.prepared_by) AND bool_and(to_state <> 'APPROVED' OR lower(actor) <> lower(preparer)) AS good
      FROM chain LEFT JOIN payout USING (payout_id) LEFT JOIN settlement_run r USING (settlement_date) GROUP BY payout_id
)
SELECT 'payout', coalesce(k.payout_id, w.payout_id),
       coalesce(format('%%s fen to %%s (account %%s) of %%s, %%s, approved by %%s', w.amount_fen, w.party, s.account_no, w.settlement_date, l.state, l.approver), 'no row'),
       CASE WHEN k.payout_id IS NULL THEN 'no row'
            ELSE format('%%s fen to %%s (account %%s of %%s) of %%s, %%s, approved by %%s%%s', k.amount_fen, k.party, k.account_no, a.party, k.settlement_date, k.state,
                        k.approved_by,
                        CASE WHEN l.good THEN '' ELSE '; moves do not follow each other' END) END
  FROM payout k
  FULL JOIN want w ON w.payout_id = k.payout_id
  LEFT JOIN last l ON l.payout_id = coalesce(k.payout_id, w.payout_id)
  LEFT JOIN settlement_line s ON s.settlement_date = w.settlement_date AND s.party = w.party
  LEFT JOIN payout_account a ON a.account_no = k.account_no
 WHERE (k.amount_fen, k.party, k.settlement_date, k.state) IS DISTINCT FROM (w.amount_fen, w.party, w.settlement_date, l.state) OR l.good IS NOT TRUE
    OR (k.state IN ('APPROVED', 'ORDERED', 'PAID', 'RETURNED', 'REJECTED') AND k.approved_by IS DISTINCT FROM l.approver)
    -- To the account of the line, or to another of the same party when it was prepared once more.
    OR (k.account_no IS NOT NULL AND a.party IS DISTINCT FROM k.party)
    OR (k.account_no IS DISTINCT FROM CASE WHEN w.payout_id LIKE 'P%%' THEN s.account_no END
        AND NOT EXISTS (SELECT FROM payout_move m WHERE m.payout_id = k.payout_id AND m.step > 0 AND m.to_state = 'PREPARED'))
    OR (k.again_on IS NOT NULL AND k.state NOT IN ('RETURNED', 'REJECTED', 'CANCELLED'))

-- name: payout_bookings
-- says: a payout moved its amount out of the custody account when it was ordered and back when it came back, a collection into it when it was paid, and nothing else did
-- rows: payout, booking, posting
WITH moved AS (
    SELECT substr(b.source, 8) AS payout_id,
           sum(CASE WHEN p.credit_code = 1001 THEN p.amount_fen ELSE 0 END) AS out_fen, sum(CASE WHEN p.debit_code = 1001 THEN p.amount_fen ELSE 0 END) AS in_fen,
           count(*) FILTER (WHERE 1001 NOT IN (p.debit_code, p.credit_code)) AS set_offs, max(b.business_date) FILTER (WHERE p.debit_code = 1001) AS in_on,
           min(CASE WHEN p.debit_code = 1001 THEN p.credit_owner WHEN p.credit_code = 1001 THEN p.debit_owner ELSE p.debit_owner END) AS least_owner,
           max(CASE WHEN p.debit_code = 1001 THEN p.credit_owner ELSE p.debit_owner END) AS most_owner,
           bool_or(2101 IN (p.debit_code, p.credit_code)) AS is_merchant
      FROM booking b LEFT JOIN posting p ON p.shard = 0 AND p.entry_no = b.entry_no
     WHERE b.source LIKE 'payout %%'
     GROUP BY 1
), want AS (
    SELECT k.payout_id, k.amount_fen, k.back_on, k.state, l.kind, CASE l.kind WHEN 'MERCHANT' THEN l.merchant_no::bigint WHEN 'FUND' THEN 0 ELSE k.party::bigint END AS owner,
           CASE WHEN k.state IN ('ORDERED', 'PAID', 'RETURNED', 'REJECTED') THEN k.amount_fen ELSE 0 END AS out_fen,
           CASE WHEN k.state IN ('RETURNED', 'REJECTED', 'FUNDED') THEN k.amount_fen ELSE 0 END AS in_fen
      FROM payout k LEFT JOIN settlement_line l ON l.settlement_date = k.settlement_date AND l.party = k.party
)
SELECT 'payout', coalesce(w.payout_id, m.payout_id),
       coalesce(format('%%s fen out and %%s in of %%s for %%s', w.out_fen, w.in_fen, w.back_on, w.owner), 'no booking'),
       coalesce(format('%%s fen out and %%s in of %%s for %%s to %%s', m.out_fen, m.in_fen, m.in_on, m.least_owner, m.most_owner), 'no booking')
  FROM want w
  FULL JOIN moved m ON m.payout_id = w.payout_id
 WHERE coalesce(w.out_fen, -1) <> coalesce(m.out_fen, 0) OR coalesce(w.in_fen, -1) <> coalesce(m.in_fen, 0)
    OR (w.back_on IS NOT NULL AND w.back_on IS DISTINCT FROM m.in_on) OR (w.state IN ('RETURNED', 'REJECTED') AND w.back_on IS NULL)
    OR (m.payout_id IS NOT NULL AND (m.least_owner, m.most_owner) IS DISTINCT FROM (w.owner, w.owner))
    OR (m.payout_id IS NOT NULL AND m.is_merchant <> (w.kind = 'MERCHANT')) OR (w.kind <> 'INSTITUTION' AND m.set_offs > 0)

-- name: settlement_orders
-- says: an order is of as many payouts, and of as much, as name it, all of its settlement date, and each ordered payout has one
-- rows: settlement_order, payout
WITH want AS (
    SELECT order_id, count(*) AS payouts, sum(amount_fen) AS fen, min(settlement_date) AS first, max(settlement_date) AS last FROM payout WHERE order_id IS NOT NULL GROUP BY order_id
)
SELECT 'settlement_order', coalesce(k.order_id, w.order_id), coalesce(format('%%s payouts, %%s fen of %%s to %%s', w.payouts, w.fen, w.first, w.last), 'no payout'),
       CASE WHEN k.order_id IS NULL THEN 'no row' ELSE format('%%s payouts, %%s fen of %%s', k.payout_count, k.total_fen, k.settlement_date) END
  FROM settlement_order k
  FULL JOIN want w ON w.order_id = k.order_id
 WHERE (k.payout_count::bigint, k.total_fen, k.settlement_date, k.settlement_date) IS DISTINCT FROM (w.payouts, w.fen, w.first, w.last)
UNION ALL
SELECT 'payout', payout_id, 'an order exactly where it was ordered', format('%%s, order %%s', state, order_id)
  FROM payout WHERE (order_id IS NOT NULL) <> (state IN ('ORDERED', 'PAID', 'RETURNED', 'REJECTED'))

-- name: bank_statements
-- says: a statement's sums are those of its booked entries, and lead from its opening to its closing balance
-- rows: bank_statement, bank_entry
SELECT 'bank_statement', 'statement_no ' || s.statement_no, format('%%s entries, %%s in, %%s out', e.entries, e.credit_fen, e.debit_fen),
       format('%%s entries, %%s in, %%s out, from %%s to %%s', s.entry_count, s.credit_fen, s.debit_fen, s.opening_fen, s.closing_fen)
  FROM bank_statement s
  LEFT JOIN LATERAL (
       SELECT count(*) AS entries, coalesce(sum(amount_fen) FILTER (WHERE is_credit AND is_booked), 0) AS credit_fen,
              coalesce(sum(amount_fen) FILTER (WHERE NOT is_credit AND is_booked), 0) AS debit_fen, count(*) FILTER (WHERE outcome IS NULL) AS undecided,
              coalesce(max(line), 0) AS last_line
         FROM bank_entry b WHERE b.statement_no = s.statement_no) AS e ON true
 WHERE (s.entry_count, s.credit_fen, s.debit_fen) IS DISTINCT FROM (e.entries, e.credit_fen, e.debit_fen) OR e.last_line <> e.entries
    OR s.opening_fen + s.credit_fen - s.debit_fen <> s.closing_fen OR (s.kind = 'camt.053') <> (s.closing_fen IS NOT NULL)
    OR (s.ended_at IS NOT NULL AND e.undecided > 0)

-- name: bank_entries
-- says: what the bank said moved a payout as its outcome says, and what nobody can explain was booked into suspense, once
-- rows: bank_entry, booking, payout
WITH booked AS (
    SELECT b.source, sum(CASE b.event WHEN 'money_unexplained' THEN b.amount_fen WHEN 'money_sent_back' THEN -b.amount_fen END) AS fen
      FROM booking b WHERE b.source LIKE 'bank-entry %%' GROUP BY b.source
), said AS (
    SELECT e.*, s.kind, format('%%s/%%s', e.statement_no, e.line) AS key, p.amount_fen AS payout_fen, p.state, p.payout_id LIKE 'C%%' AS collects,
           CASE WHEN e.is_credit THEN e.amount_fen ELSE -e.amount_fen END AS signed_fen
      FROM bank_entry e JOIN bank_statement s ON s.statement_no = e.statement_no LEFT JOIN payout p ON p.payout_id = e.payout_id
)
SELECT 'bank_entry', 'entry ' || coalesce(e.key, substr(b.source, 12)), coalesce(f.fault, format('%%s fen in suspense', b.fen)),
       coalesce(format('%%s of %%s fen for %%s, %%s in suspense', e.outcome, e.signed_fen, e.payout_id, e.suspense_fen), 'no entry')
  FROM said e
  FULL JOIN booked b ON b.source = 'bank-entry ' || e.key
  LEFT JOIN LATERAL (SELECT CASE
       WHEN e.key IS NULL THEN NULL
       WHEN e.is_booked = (e.outcome = 'PENDING') THEN 'another outcome'
       WHEN e.outcome IN ('PAID', 'RETURNED', 'FUNDED') AND e.amount_fen IS DISTINCT FROM e.payout_fen THEN format('%%s fen', e.payout_fen)
       WHEN e.outcome = 'PAID' AND (e.is_credit OR e.collects OR e.state NOT IN ('PAID', 'RETURNED')) THEN 'money out, for a payout'
       WHEN e.outcome = 'RETURNED' AND (NOT e.is_credit OR e.collects OR e.state <> 'RETURNED') THEN 'money in, of a payout'
       WHEN e.outcome = 'FUNDED' AND (NOT e.is_credit OR NOT e.collects OR e.state <> 'FUNDED') THEN 'money in, of a collection'
       WHEN e.outcome IN ('AMOUNT', 'TWICE', 'UNEXPLAINED') AND e.kind <> 'camt.053' THEN 'WAITS'
       WHEN e.suspense_fen <> CASE WHEN e.outcome = 'AMOUNT' AND NOT e.is_credit THEN e.payout_fen - e.amount_fen
                                   WHEN e.outcome IN ('AMOUNT', 'TWICE', 'UNEXPLAINED') THEN e.signed_fen ELSE 0 END THEN 'another amount in suspense'
       END AS fault) AS f ON true
 WHERE f.fault IS NOT NULL OR coalesce(b.fen, 0) IS DISTINCT FROM coalesce(e.suspense_fen, -1) OR e.key IS NULL

-- name: bank_resolutions
-- says: what left suspense of a bank entry is what lay there of it, by two people, once: to its way back, to its collection, or to the parties whose parts come to it
-- rows: bank_resolution, bank_resolution_part, bank_entry, payout, booking, posting
WITH moved AS (
    SELECT split_part(substr(b.source, 15), '/', 1) || '/' || split_part(b.source, '/', 2) AS key, split_part(b.source, '/', 3) AS part,
           sum(CASE WHEN p.debit_code = 1001 THEN p.amount_fen WHEN p.credit_code = 1001 THEN -p.amount_fen ELSE 0 END) AS custody_fen,
           sum(CASE WHEN p.credit_code = 2201 THEN p.amount_fen WHEN p.debit_code = 2201 THEN -p.amount_fen ELSE 0 END) AS suspense_fen,
           bool_or(2101 IN (p.debit_code, p.credit_code)) AS to_merchant, bool_or(1103 IN (p.debit_code, p.credit_code)) AS to_fund,
           count(*) FILTER (WHERE 1001 NOT IN (p.debit_code, p.credit_code)) AS set_offs,
           min(CASE WHEN p.debit_code = 1001 THEN p.credit_owner ELSE p.debit_owner END) AS least_owner,
           max(CASE WHEN p.debit_code = 1001 OR p.credit_code <> 1001 THEN p.credit_owner ELSE p.debit_owner END) AS most_owner,
           min(format('%%s %%s %%s', b.business_date, b.actor, b.checker)) AS first, max(format('%%s %%s %%s', b.business_date, b.actor, b.checker)) AS last
      FROM booking b LEFT JOIN posting p ON p.shard = 0 AND p.entry_no = b.entry_no
     WHERE b.source LIKE 'bank-resolved %%'
     GROUP BY 1, 2
), said AS (
    SELECT r.*, format('%%s/%%s', r.statement_no, r.line) AS key, format('%%s %%s %%s', r.business_date, r.actor, r.checker) AS people
      FROM bank_resolution r
), part AS (
    SELECT s.key, s.people, p.part::text AS part, p.party, p.fen, m.merchant_no, CASE WHEN m.merchant_no IS NOT NULL THEN m.merchant_no::bigint WHEN p.party = 'FUND' THEN 0 ELSE p.party::bigint END AS owner
      FROM bank_resolution_part p JOIN said s ON s.statement_no = p.statement_no AND s.line = p.line LEFT JOIN merchant m ON m.merchant_id = p.party
)
SELECT 'bank_resolution', 'entry ' || r.key, fault,
       format('%%s of %%s fen by %%s for %%s/%%s%%s; %%s in suspense, booked %%s by %%s', r.action, r.fen, r.people, r.other_statement_no, r.other_line, r.payout_id,
              e.suspense_fen, m.suspense_fen, m.last)
  FROM said r
  LEFT JOIN bank_entry e ON e.statement_no = r.statement_no AND e.line = r.line
  LEFT JOIN business_day d ON d.business_date = r.business_date
  LEFT JOIN bank_resolution o ON o.statement_no = r.other_statement_no AND o.line = r.other_line
  LEFT JOIN payout k ON k.payout_id = r.payout_id
  LEFT JOIN moved m ON m.key = r.key AND m.part = ''
 CROSS JOIN LATERAL (SELECT coalesce(sum(c.fen), 0) AS fen FROM bank_claim c WHERE c.statement_no = r.statement_no AND c.line = r.line) AS claimed
 CROSS JOIN LATERAL (SELECT count(*) AS count, coalesce(max(p.part), 0) AS last, sum(p.fen) AS fen FROM bank_resolution_part p
                      WHERE p.statement_no = r.statement_no AND p.line = r.line) AS parts
 CROSS JOIN LATERAL (SELECT CASE
       WHEN e.outcome IS NULL OR e.outcome NOT IN ('AMOUNT', 'TWICE', 'UNEXPLAINED') THEN 'an entry that nobody could explain'
       WHEN r.fen <> e.suspense_fen - claimed.fen OR r.fen = 0 THEN format('%%s fen', e.suspense_fen - claimed.fen)
       WHEN d.business_date IS NULL OR r.decided_at < d.begins_at OR r.decided_at >= d.ends_at THEN 'the day on which it was decided'
       WHEN lower(r.actor) = lower(r.checker) OR r.actor = '' OR r.checker = '' THEN 'two people'
       WHEN r.action = 'sent-back' AND (o.action, o.fen, o.other_statement_no, o.other_line) IS DISTINCT FROM (r.action, -r.fen, r.statement_no, r.line) THEN 'a way back that names it'
       WHEN r.action = 'collection' AND (k.state, k.amount_fen) IS DISTINCT FROM ('FUNDED', r.fen) THEN 'a collection of its amount that has come'
       WHEN r.action IN ('paid-by', 'paid-to') AND (parts.fen IS DISTINCT FROM r.fen OR parts.last <> parts.count) THEN 'parts that come to it'
       WHEN r.action NOT IN ('paid-by', 'paid-to') AND parts.count > 0 THEN 'no parts'
       WHEN (r.action = 'paid-to') <> (r.fen < 0) AND r.action <> 'sent-back' THEN 'money of its direction'
       WHEN r.action = 'sent-back' AND m.key IS NOT NULL THEN 'nothing booked'
       WHEN r.action <> 'sent-back' AND (m.suspense_fen, m.custody_fen, m.first, m.last) IS DISTINCT FROM (-r.fen, -r.fen, r.people, r.people) THEN 'its amount out of suspense, by its people'
       END AS fault) AS f
 WHERE fault IS NOT NULL
UNION ALL
SELECT 'bank_resolution_part', format('entry %%s, part %%s', coalesce(w.key, m.key), coalesce(w.part, m.part)), coalesce(format('%%s fen of %%s by %%s', w.fen, w.owner, w.people), 'nothing'),
       coalesce(format('%%s fen of %%s to %%s by %%s, %%s set off', m.custody_fen, m.least_owner, m.most_owner, m.last, m.set_offs), 'nothing')
  FROM part w
  FULL JOIN (SELECT * FROM moved WHERE part <> '') AS m ON m.key = w.key AND m.part = w.part
 WHERE (w.fen, w.owner, w.owner, w.people, w.people, w.merchant_no IS NOT NULL, w.party = 'FUND', 0)
       IS DISTINCT FROM (m.custody_fen, m.least_owner, m.most_owner, m.first, m.last, m.to_merchant, m.to_fund, m.suspense_fen)
    OR (m.set_offs > 0 AND (m.to_merchant OR m.to_fund))
UNION ALL
SELECT 'bank_resolution', 'entry ' || m.key, 'a decision that asked for it', format('%%s fen into suspense', m.suspense_fen)
  FROM moved m WHERE NOT EXISTS (SELECT FROM said r WHERE r.key = m.key)
UNION ALL
SELECT 'payout', k.payout_id, 'money that came for it, once', format('%%s by the entries of statements', came.count)
  FROM payout k
 CROSS JOIN LATERAL (SELECT (SELECT count(*) FROM bank_entry e WHERE e.payout_id = k.payout_id AND e.outcome = 'FUNDED')
                            + (SELECT count(*) FROM bank_resolution r WHERE r.payout_id = k.payout_id) AS count) AS came
 WHERE k.state = 'FUNDED' AND came.count <> 1

-- name: settlement_files
-- says: each payout to a merchant has its files or none, with the nets of its line
-- rows: settlement_file, settlement_line
SELECT 'settlement_file', f.name, format('%%s fen of %%s', l.net_fen, p.settlement_date), format('%%s fen of %%s', f.net_fen, f.settlement_date)
  FROM settlement_file f
  LEFT JOIN payout p ON p.payout_id = f.payout_id
  LEFT JOIN settlement_line l ON l.settlement_date = p.settlement_date AND l.party = p.party
 WHERE (f.net_fen, f.settlement_date) IS DISTINCT FROM (l.net_fen, p.settlement_date) OR left(f.name, 15) <> f.payout_id OR l.kind <> 'MERCHANT'
