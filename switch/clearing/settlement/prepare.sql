-- Lines and payouts of one settlement date. Set-based: what passes through Python are counts.

-- name: read_run
SELECT settlement_date, first_day, last_day, prepared_at, prepared_by FROM settlement_run WHERE settlement_date = %(date)s

-- name: due_date
-- Of the newest closed day.
SELECT settlement_date FROM clearing_day JOIN business_day USING (business_date) WHERE state = 2 ORDER BY business_date DESC LIMIT 1

-- name: not_closed
-- The first day before the settlement date that is not closed.
SELECT min(business_date) FROM business_day WHERE business_date < %(date)s AND state < 2

-- name: newest_run
SELECT settlement_date, last_day FROM settlement_run ORDER BY settlement_date DESC LIMIT 1

-- name: days_due
-- Closed days that nobody has settled, and whose money moves on this date or should have moved before.
SELECT min(c.business_date), max(c.business_date), count(*)
  FROM clearing_day c JOIN business_day b USING (business_date)
 WHERE b.state = 2 AND c.settlement_date <= %(date)s
   AND c.business_date > coalesce((SELECT max(last_day) FROM settlement_run), '-infinity')

-- name: keep_terms_still
-- An account confirmed before prepared_at is then seen, and none after it.
LOCK TABLE payout_account, payout_terms IN SHARE MODE

-- name: city_not_held
-- A city with items of these days that came by way of the interop centre, and no hold on all of it.
WITH met AS (
    SELECT issuer_id AS party FROM foreign_verdict WHERE business_date BETWEEN %(first)s AND %(last)s AND result = '00'
    UNION
    SELECT lpad(credit_owner::text, 8, '0') FROM purse_record
     WHERE business_date BETWEEN %(first)s AND %(last)s AND batch_no = -1 AND result IN ('10', '00')
)
SELECT party FROM met
 WHERE (SELECT t.held_all AND coalesce(t.held_until, 'infinity') >= %(date)s FROM payout_terms t
         WHERE t.party = met.party AND t.valid_from <= %(date)s ORDER BY t.valid_from DESC, t.terms_no DESC LIMIT 1) IS NOT TRUE
 ORDER BY party LIMIT 1

-- name: add_run
INSERT INTO settlement_run (settlement_date, first_day, last_day, prepared_at, prepared_by)
VALUES (%(date)s, %(first)s, %(last)s, clock_timestamp(), %(actor)s)

-- name: day_nets
-- What the days' postings and accepted records have changed of what is owed, account by account; payouts' own postings are no claim of anybody.
INSERT INTO settlement_line_day (settlement_date, party, business_date, net_fen)
WITH days AS MATERIALIZED (
    SELECT business_date FROM clearing_day WHERE business_date BETWEEN %(first)s AND %(last)s
), paid AS MATERIALIZED (
    SELECT entry_no FROM booking JOIN days USING (business_date) WHERE source LIKE 'payout %%'
), side AS (
    SELECT p.business_date, p.debit_code AS code, p.debit_owner AS owner, -sum(p.amount_fen) AS fen
      FROM posting p
     WHERE p.business_date BETWEEN %(first)s AND %(last)s AND p.debit_code IN (1101, 1102, 1103, 2101, 2102)
       AND NOT (p.shard = 0 AND EXISTS (SELECT FROM paid WHERE paid.entry_no = p.entry_no))
     GROUP BY 1, 2, 3
    UNION ALL
    SELECT p.business_date, p.credit_code, p.credit_owner, sum(p.amount_fen)
      FROM posting p
     WHERE p.business_date BETWEEN %(first)s AND %(last)s AND p.credit_code IN (1101, 1102, 1103, 2101, 2102)
       AND NOT (p.shard = 0 AND EXISTS (SELECT FROM paid WHERE paid.entry_no = p.entry_no))
     GROUP BY 1, 2, 3
    UNION ALL
    SELECT r.business_date, r.credit_code, r.credit_owner, sum(r.amount_fen)
      FROM purse_record r
     WHERE r.business_date BETWEEN %(first)s AND %(last)s AND r.result IN ('10', '00') AND r.credit_code IN (2101, 2102)
     GROUP BY 1, 2, 3
), net AS (
    SELECT business_date, code = 2101 AS is_merchant, CASE code WHEN 1103 THEN NULL ELSE owner END AS owner, sum(fen) AS fen
      FROM side GROUP BY 1, 2, 3
)
SELECT %(date)s, CASE WHEN n.is_merchant THEN m.merchant_id WHEN n.owner IS NULL THEN 'FUND' ELSE lpad(n.owner::text, 8, '0') END,
       n.business_date, n.fen
  FROM net n
  LEFT JOIN merchant m ON n.is_merchant AND m.merchant_no = n.owner
 WHERE n.fen <> 0

-- name: take_again
-- What came back or was never ordered is due again, once its money is of a settled day.
UPDATE payout SET again_on = %(date)s
 WHERE again_on IS NULL AND state IN ('RETURNED', 'REJECTED', 'CANCELLED') AND settlement_date < %(date)s
   AND coalesce(back_on, '-infinity') <= %(last)s

-- name: lines
-- The rule stands in prepare.py too (divide), where a property holds the two together.
INSERT INTO settlement_line (settlement_date, party, kind, merchant_no, carried_in_fen, net_fen, returned_fen, payout_fen, held_fen, carried_fen,
                             cause, account_no)
WITH before AS (
    SELECT max(settlement_date) AS date FROM settlement_run WHERE settlement_date < %(date)s
), part AS (
    SELECT party, held_fen + carried_fen AS carried_in, 0 AS net, 0 AS returned
      FROM settlement_line WHERE settlement_date = (SELECT date FROM before) AND held_fen + carried_fen <> 0
    UNION ALL
    SELECT party, 0, net_fen, 0 FROM settlement_line_day WHERE settlement_date = %(date)s
    UNION ALL
    SELECT party, 0, 0, CASE left(payout_id, 1) WHEN 'P' THEN amount_fen ELSE -amount_fen END FROM payout WHERE again_on = %(date)s
), due AS (
    SELECT party, sum(carried_in)::bigint AS carried_in, sum(net)::bigint AS net, sum(returned)::bigint AS returned,
           sum(carried_in + net + returned)::bigint AS fen
      FROM part GROUP BY party
), known AS (
    SELECT d.*, CASE WHEN d.party = 'FUND' THEN 'FUND' WHEN length(d.party) = 8 THEN 'INSTITUTION' ELSE 'MERCHANT' END AS kind, m.merchant_no,
           a.account_no, coalesce(t.minimum_fen, 0) AS minimum_fen, coalesce(t.held_all, false) AS held_all, coalesce(t.held_fen, 0) AS held_fen,
           coalesce(t.cycle, 'DAILY') = 'DAILY' OR EXISTS (
               SELECT FROM generate_series(coalesce((SELECT date FROM before), %(date)s::date - 1) + interval '1 day', %(date)s, interval '1 day') AS g (day)
                WHERE t.cycle_day = CASE t.cycle WHEN 'WEEKLY' THEN extract(isodow FROM g.day) ELSE extract(day FROM g.day) END) AS in_cycle
      FROM due d
      LEFT JOIN merchant m ON m.merchant_id = d.party
      LEFT JOIN LATERAL (
           SELECT account_no FROM payout_account p
            WHERE p.party = d.party AND p.confirmed_by IS NOT NULL AND p.valid_from <= %(date)s
            ORDER BY p.valid_from DESC, p.confirmed_at DESC, p.account_no DESC LIMIT 1) AS a ON true
      LEFT JOIN LATERAL (
           SELECT minimum_fen, cycle, cycle_day, held_all AND coalesce(held_until, 'infinity') >= %(date)s AS held_all,
                  CASE WHEN coalesce(held_until, 'infinity') >= %(date)s THEN p.held_fen ELSE 0 END AS held_fen
             FROM payout_terms p
            WHERE p.party = d.party AND p.valid_from <= %(date)s
            ORDER BY p.valid_from DESC, p.terms_no DESC LIMIT 1) AS t ON true
), part_of AS (
    SELECT k.*, CASE WHEN held_all THEN greatest(fen, 0) ELSE least(greatest(fen, 0), held_fen) END AS held FROM known k
), decided AS (
    SELECT p.*, CASE WHEN fen < 0 THEN CASE WHEN kind = 'MERCHANT' THEN 'NEGATIVE' WHEN held_all THEN 'HELD' ELSE '' END
                     WHEN fen = 0 THEN ''
                     WHEN fen = held THEN 'HELD'
                     WHEN account_no IS NULL THEN 'NO_ACCOUNT'
                     WHEN NOT in_cycle THEN 'CYCLE'
                     WHEN fen - held < minimum_fen THEN 'MINIMUM'
                     WHEN held > 0 THEN 'HELD'
                     ELSE '' END AS cause
      FROM part_of p
)
SELECT %(date)s, party, kind, merchant_no, carried_in, net, returned, payout, held, fen - held - payout, cause, account_no
  FROM decided
 CROSS JOIN LATERAL (SELECT CASE WHEN cause IN ('', 'HELD') AND NOT (cause = 'HELD' AND fen < 0) THEN fen - held ELSE 0 END AS payout) AS p

-- name: payouts
-- Numbered by party, payouts and collections each from 1.
INSERT INTO payout (payout_id, settlement_date, party, amount_fen, account_no, state)
SELECT CASE WHEN payout_fen > 0 THEN 'P' ELSE 'C' END || to_char(settlement_date, 'YYYYMMDD')
           || lpad(row_number() OVER (PARTITION BY payout_fen > 0 ORDER BY party COLLATE "C")::text, 6, '0'),
       settlement_date, party, abs(payout_fen), CASE WHEN payout_fen > 0 THEN account_no END,
       CASE WHEN payout_fen > 0 THEN 'PREPARED' ELSE 'EXPECTED' END
  FROM settlement_line
 WHERE settlement_date = %(date)s AND payout_fen <> 0

-- name: first_moves
INSERT INTO payout_move (payout_id, step, from_state, to_state, at, actor)
SELECT p.payout_id, 0, NULL, p.state, r.prepared_at, r.prepared_by
  FROM payout p JOIN settlement_run r USING (settlement_date)
 WHERE p.settlement_date = %(date)s

-- name: figures
SELECT count(*) FILTER (WHERE kind = 'MERCHANT') AS merchants, count(*) FILTER (WHERE kind <> 'MERCHANT') AS members,
       coalesce(sum(carried_in_fen), 0)::bigint AS carried_in_fen, coalesce(sum(net_fen), 0)::bigint AS net_fen,
       coalesce(sum(returned_fen), 0)::bigint AS returned_fen, count(*) FILTER (WHERE payout_fen > 0) AS payouts,
       coalesce(sum(greatest(payout_fen, 0)), 0)::bigint AS payout_fen, count(*) FILTER (WHERE payout_fen < 0) AS collections,
       coalesce(-sum(least(payout_fen, 0)), 0)::bigint AS collection_fen, coalesce(sum(held_fen), 0)::bigint AS held_fen,
       coalesce(sum(carried_fen), 0)::bigint AS carried_fen, count(*) FILTER (WHERE cause = 'NO_ACCOUNT') AS without_account,
       count(*) FILTER (WHERE cause = 'NEGATIVE') AS negative
  FROM settlement_line WHERE settlement_date = %(date)s
