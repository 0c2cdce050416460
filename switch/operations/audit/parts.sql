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


-- part: reckoned
newest AS MATERIALIZED (
    -- The comparison that counts of each partner and date.
    SELECT r.* FROM reconcile_run r
     WHERE NOT EXISTS (SELECT FROM reconcile_run n WHERE n.partner_id = r.partner_id AND n.business_date = r.business_date AND n.run_no > r.run_no)
), moved AS MATERIALIZED (
    -- What lies between a partner and us, by the date on which it came to an end or was said. Fen as they stand with us.
    SELECT l.debit_owner AS partner, b.business_date, (l.transmitted || lpad(l.trace::text, 6, '0'))::numeric AS k1, 0::numeric AS k2,
           CASE l.state WHEN 1 THEN l.amount_fen WHEN 5 THEN l.amount_fen ELSE 0 END AS fen, l.pan, l.rrn
      FROM host_leg l JOIN business_day b ON l.ended_at >= b.begins_at AND l.ended_at < b.ends_at
     WHERE l.debit_code IN (1101, 1102) AND l.service <> 3 AND b.business_date BETWEEN %(first)s AND %(last)s
    UNION ALL
    SELECT l.debit_owner, b.business_date,
           CASE o.step WHEN 5 THEN (l.transmitted || lpad(l.trace::text, 6, '0'))::numeric ELSE (o.transmitted || lpad(o.trace::text, 6, '0'))::numeric END,
           0, -o.amount_fen, l.pan, l.rrn
      FROM host_outbox o
      JOIN host_leg l ON l.shard = o.shard AND l.leg_no = o.leg_no
      JOIN business_day b ON o.created_at >= b.begins_at AND o.created_at < b.ends_at
     WHERE b.business_date BETWEEN %(first)s AND %(last)s AND l.debit_code IN (1101, 1102) AND ((o.step = 5 AND l.state IN (1, 5)) OR o.service = 2)
    UNION ALL
    SELECT v.issuer_id::bigint, v.business_date, CASE WHEN c.pan::numeric < 2 ^ 63::numeric THEN c.pan::numeric ELSE c.pan::numeric - 2 ^ 64::numeric END,
           ('x0001' || encode(substr(v.raw, 29, 2) || substr(v.raw, 52, 4), 'hex'))::bit(64)::bigint, v.amount_fen, c.pan, NULL
      FROM foreign_verdict v
     CROSS JOIN LATERAL (SELECT right(encode(substr(v.raw, 7, 10), 'hex'), 19) AS pan) AS c
     WHERE v.result = '00' AND v.business_date BETWEEN %(first)s AND %(last)s
), ours AS MATERIALIZED (
    SELECT n.run_no, m.k1, m.k2, count(*) AS items, sum(m.fen) AS fen, min(m.pan) AS pan, min(m.rrn) AS rrn
      FROM newest n JOIN moved m ON m.partner = n.partner_id::bigint AND m.business_date = n.business_date
     GROUP BY n.run_no, m.k1, m.k2
), readable AS MATERIALIZED (
    -- Those whose partner's lines are still here: they are dropped after some weeks, and by a crash of the server.
    SELECT n.* FROM newest n JOIN partner_file f USING (file_no)
     WHERE n.business_date BETWEEN %(first)s AND %(last)s
       AND f.line_count = (SELECT count(*) FROM partner_line l WHERE l.file_no = f.file_no)
), line AS (
    SELECT r.run_no, l.k1::numeric, l.k2::numeric, l.line_no, l.effect_fen, rtrim(l.pan) AS pan, l.rrn,
           count(*) OVER (PARTITION BY l.file_no, l.k1, l.k2, l.mti IN (400, 420), sign(l.effect_fen) ORDER BY l.line_no ROWS UNBOUNDED PRECEDING) > 1 AS again
      FROM readable r JOIN partner_line l USING (file_no)
), theirs AS (
    SELECT run_no, k1, k2, count(*) AS items, sum(effect_fen) AS fen, array_agg(DISTINCT pan) AS pans, array_agg(DISTINCT rrn::text) AS rrns
      FROM line WHERE NOT again GROUP BY run_no, k1, k2
), faced AS (
    SELECT coalesce(o.run_no, t.run_no) AS run_no, coalesce(o.k1, t.k1) AS k1, coalesce(o.k2, t.k2) AS k2, coalesce(o.items, 0) AS ours_count,
           coalesce(o.fen, 0) AS ours_fen, coalesce(t.items, 0) AS theirs_count, coalesce(t.fen, 0) AS theirs_fen,
           o.pan <> ALL (t.pans) OR cardinality(t.pans) > 1 AND o.pan IS NOT NULL AS other_card, o.rrn <> ALL (t.rrns) OR cardinality(t.rrns) > 1 AND o.rrn IS NOT NULL AS other_rrn
      FROM (SELECT o.* FROM ours o JOIN readable USING (run_no)) AS o
      FULL JOIN theirs t ON t.run_no = o.run_no AND t.k1 = o.k1 AND t.k2 = o.k2
), before AS (
    -- What the comparison of the day before could not settle.
    SELECT r.run_no, d.k1::numeric, d.k2::numeric, sum(d.theirs_fen - d.ours_fen) AS owed
      FROM readable r
      JOIN reconcile_finding f ON f.run_no = r.carried_run
      JOIN reconcile_difference d USING (difference_no)
     WHERE d.outcome IN ('short', 'long', 'status')
     GROUP BY r.run_no, d.k1, d.k2
), reckoned AS MATERIALIZED (
    SELECT f.run_no, f.k1, f.k2, f.ours_count, f.ours_fen, f.theirs_count, f.theirs_fen,
           CASE WHEN f.ours_fen <> f.theirs_fen AND f.theirs_fen - f.ours_fen + b.owed = 0 THEN 'shifted'
                WHEN f.ours_fen = 0 AND f.theirs_fen = 0 THEN 'undone'
                WHEN f.ours_fen = f.theirs_fen AND NOT coalesce(f.other_card, false) AND NOT coalesce(f.other_rrn, false) THEN 'match'
                WHEN f.theirs_count = 0 THEN 'short'
                WHEN f.ours_count = 0 THEN 'long'
                WHEN f.ours_fen = f.theirs_fen OR f.ours_fen * f.theirs_fen = 0 THEN 'status'
                WHEN abs(f.ours_fen - f.theirs_fen) > r.tolerance_fen OR coalesce(f.other_card, false) OR coalesce(f.other_rrn, false) THEN 'amount'
                ELSE 'tolerated' END AS outcome
      FROM faced f JOIN readable r USING (run_no) LEFT JOIN before b ON b.run_no = f.run_no AND b.k1 = f.k1 AND b.k2 = f.k2
    UNION ALL
    SELECT run_no, k1, k2, 0, 0, count(*), sum(effect_fen), 'duplicate' FROM line WHERE again GROUP BY run_no, k1, k2)

