-- Table expressions that several checks need; %(first)s and %(last)s bound the business dates.

-- part: closed
closed AS MATERIALIZED (
    SELECT c.*, b.sealed_at
      FROM clearing_day c JOIN business_day b USING (business_date)
     WHERE b.state = 2 AND c.business_date BETWEEN %(first)s AND %(last)s)

-- part: item
item AS (
    -- Who owes what a host decided was kept with the day, and is checked against its leg by clearing_legs.
    SELECT j.business_date, j.entry_no, j.decided_at AS at, j.merchant_no, coalesce(l.account_kind, j.account_id %% 100)::integer AS account_kind,
           j.effect_fen AS fen, CASE WHEN j.kind IN (8, 10) THEN j.business_date ELSE coalesce(j.original_date, j.business_date) END AS rule_date, 2101 AS payable_code,
           coalesce(l.issuer_id, closed.own_id) AS issuer_id
      FROM journal j
      JOIN closed ON closed.business_date = j.business_date
      LEFT JOIN clearing_leg l ON l.business_date = j.business_date AND l.entry_no = j.entry_no
     WHERE j.effect_fen <> 0
    UNION ALL
    SELECT r.business_date, r.entry_no, r.received_at, r.merchant_no, 50, r.amount_fen, coalesce(r.original_date, r.business_date),
           r.credit_code, own_id
      FROM purse_record r JOIN closed USING (business_date)
     WHERE r.result IN ('10', '00') AND r.amount_fen > 0 AND r.batch_no >= 0  -- below: our cards in other cities, in clearing_interop
    UNION ALL
    SELECT v.business_date, v.entry_no, v.decided_at, v.merchant_no, 50, v.amount_fen, v.original_date, 2101, v.issuer_id
      FROM foreign_verdict v JOIN closed USING (business_date)
     WHERE v.result = '00' AND v.amount_fen > 0)

-- part: offline
offline AS (
    -- Taken on the day, with the result they had at its end; then older grey ones that were decided on it.
    SELECT r.business_date, true AS taken_now, r.entry_no, r.entry_no AS taken_entry, r.business_date AS taken_on, r.merchant_no,
           coalesce(r.amount_fen, 0) AS fen, coalesce(v.result, r.result) AS result, r.batch_no
      FROM purse_record r
      JOIN closed ON closed.business_date = r.business_date
      LEFT JOIN purse_record v
        ON v.original_entry = r.entry_no AND v.original_date = r.business_date AND v.business_date = r.business_date
     WHERE r.original_entry IS NULL
    UNION ALL
    SELECT v.business_date, false, v.entry_no, v.original_entry, v.original_date, v.merchant_no, coalesce(v.amount_fen, 0), v.result, v.batch_no
      FROM purse_record v
      JOIN closed ON closed.business_date = v.business_date
     WHERE v.original_date < v.business_date
    UNION ALL
    SELECT v.business_date, false, v.entry_no, v.original_entry, v.original_date, v.merchant_no, v.amount_fen, v.result, v.batch_no
      FROM foreign_verdict v
      JOIN closed ON closed.business_date = v.business_date)

-- part: paid
paid AS (
    -- What an account paid or promised, each account its share: purchases and pre-authorisations.
    SELECT j.shard, j.entry_no, j.account_id, j.business_date, j.decided_at, j.pan, coalesce(s.medical_fen, j.amount_fen) AS amount_fen
      FROM journal j
      LEFT JOIN purchase_split s ON s.shard = j.shard AND s.entry_no = j.entry_no
      LEFT JOIN host_leg h ON h.shard = j.shard AND h.ended_by = j.entry_no  -- the limits of what a host decides are the host's
     WHERE j.answer = '00' AND j.kind IN (1, 6) AND coalesce(s.medical_fen, 1) > 0 AND h.leg_no IS NULL
    UNION ALL
    SELECT j.shard, j.entry_no, j.account_id - 30, j.business_date, j.decided_at, j.pan, s.own_fen
      FROM purchase_split s
      JOIN journal j ON j.shard = s.shard AND j.business_date = s.business_date AND j.entry_no = s.entry_no
     WHERE s.own_fen > 0)

-- part: shared
undoing AS MATERIALIZED (
    SELECT shard, entry_no, business_date, decided_at, merchant_no, kind, amount_fen, effect_fen, original_date, original_entry
      FROM journal WHERE kind IN (3, 4, 5, 14, 15, 16, 17) AND effect_fen <> 0
), direct AS MATERIALIZED (
    SELECT u.*, s.entry_no AS root_no
      FROM purchase_split s
      JOIN undoing u ON u.shard = s.shard AND u.original_date = s.business_date AND u.original_entry = s.entry_no
), moving AS (
    -- What moves a divided purchase (1) or undoes it: voids (3), refunds (4), reversals of either (5), cases (14 to 17). root_no: the purchase.
    SELECT j.shard, j.entry_no, j.business_date, j.decided_at, j.merchant_no, j.kind, j.amount_fen, j.effect_fen, s.entry_no AS root_no
      FROM purchase_split s
      JOIN journal j ON j.shard = s.shard AND j.business_date = s.business_date AND j.entry_no = s.entry_no
    UNION ALL
    SELECT shard, entry_no, business_date, decided_at, merchant_no, kind, amount_fen, effect_fen, root_no FROM direct
    UNION ALL
    SELECT u.shard, u.entry_no, u.business_date, u.decided_at, u.merchant_no, u.kind, u.amount_fen, u.effect_fen, d.root_no
      FROM direct d
      JOIN undoing u ON u.shard = d.shard AND u.original_date = d.business_date AND u.original_entry = d.entry_no
     WHERE d.kind = 3 AND u.kind = 5
), counted AS (
    SELECT m.shard, m.entry_no, m.business_date, m.decided_at, m.merchant_no::bigint AS merchant_no, m.kind, m.amount_fen, m.effect_fen,
           s.entry_no AS root_no, s.business_date AS root_date, s.account_id, s.medical_fen + s.own_fen AS root_fen, s.own_fen AS root_own_fen,
           coalesce(sum(-m.effect_fen) FILTER (WHERE m.kind = 4 OR m.kind BETWEEN 14 AND 17) OVER (PARTITION BY s.shard, s.entry_no ORDER BY m.decided_at, m.entry_no), 0)
               AS refunded_fen
      FROM moving m
      JOIN purchase_split s ON s.shard = m.shard AND s.entry_no = m.root_no
), parted AS (
    -- Of refunds and cases the own share is what is due of all so far less what was due before.
    SELECT c.*, CASE WHEN c.kind = 4 OR c.kind BETWEEN 14 AND 17
                     THEN div(root_own_fen * (refunded_fen + effect_fen) * 2 + root_fen, nullif(2 * root_fen, 0))
                          - div(root_own_fen * refunded_fen * 2 + root_fen, nullif(2 * root_fen, 0))
                     ELSE sign(effect_fen::numeric) * root_own_fen END::bigint AS own_fen
      FROM counted c
), share AS MATERIALIZED (
    SELECT p.*, p.effect_fen - p.own_fen AS medical_fen FROM parted p)

-- part: limited
limit_note AS MATERIALIZED (
    SELECT subject, at FROM registry_change WHERE subject ~ '^limit [0-9]+$'
), rule AS MATERIALIZED (
    SELECT r.*, n.at AS noted_at
      FROM limit_rule r
      LEFT JOIN (SELECT subject, min(at) AS at FROM limit_note GROUP BY subject) AS n ON n.subject = 'limit ' || r.rule_no
), limited AS MATERIALIZED (
    -- What limits bound (needs @paid), each with the rule of its card's class, else the general one. Who decides
    -- while the day turns may not see yet that a rule was set or ended: what was decided within a minute of such a note is not sure.
    SELECT j.shard, j.entry_no, j.account_id, j.business_date, j.amount_fen, r.rule_no, r.transaction_fen, r.day_fen, r.day_count,
           coalesce(j.decided_at >= r.noted_at, false)
           AND NOT EXISTS (SELECT FROM limit_note n
                            WHERE n.at BETWEEN j.decided_at - interval '1 minute' AND j.decided_at + interval '1 minute') AS sure
      FROM paid j
      JOIN account a ON a.shard = j.shard AND a.account_id = j.account_id AND j.business_date >= a.limited_from
      LEFT JOIN LATERAL (
           SELECT *
             FROM rule
            WHERE rule.account_kind = a.kind AND (rule.product IS NULL OR rule.product = substr(j.pan, 7, 2))
              AND j.business_date BETWEEN rule.valid_from AND coalesce(rule.valid_to, 'infinity')
            ORDER BY rule.product NULLS LAST
            LIMIT 1) AS r ON true
     WHERE j.business_date BETWEEN %(first)s AND %(last)s)

