-- Closed days, computed again from the journal and the offline records. Account kinds: 10 online, 40 medical, 50 purse.
-- The operator is the issuer of all cards so far. Rules and merchants are those that were kept when the day was closed.

-- part: closed
closed AS MATERIALIZED (
    SELECT c.*, b.sealed_at
      FROM clearing_day c JOIN business_day b USING (business_date)
     WHERE b.state = 2 AND c.business_date BETWEEN %(first)s AND %(last)s)

-- part: item
item AS (
    SELECT j.business_date, j.entry_no, j.decided_at AS at, j.merchant_no, (j.account_id %% 100)::integer AS account_kind,
           j.effect_fen AS fen, coalesce(j.original_date, j.business_date) AS rule_date, 2101 AS payable_code
      FROM journal j JOIN closed USING (business_date)
     WHERE j.effect_fen <> 0
    UNION ALL
    SELECT r.business_date, r.entry_no, r.received_at, r.merchant_no, 50, r.amount_fen, coalesce(r.original_date, r.business_date),
           r.credit_code
      FROM purse_record r JOIN closed USING (business_date)
     WHERE r.result IN ('10', '00') AND r.amount_fen > 0)

-- part: offline
offline AS (
    -- Taken on the day, with the result they had at its end; then older grey ones that were decided on it.
    SELECT r.business_date, true AS taken_now, r.entry_no, r.entry_no AS taken_entry, r.business_date AS taken_on, r.merchant_no,
           coalesce(r.amount_fen, 0) AS fen, coalesce(v.result, r.result) AS result
      FROM purse_record r
      JOIN closed ON closed.business_date = r.business_date
      LEFT JOIN purse_record v
        ON v.original_entry = r.entry_no AND v.original_date = r.business_date AND v.business_date = r.business_date
     WHERE r.original_entry IS NULL
    UNION ALL
    SELECT v.business_date, false, v.entry_no, v.original_entry, v.original_date, v.merchant_no, coalesce(v.amount_fen, 0), v.result
      FROM purse_record v
      JOIN closed ON closed.business_date = v.business_date
     WHERE v.original_date < v.business_date)

-- name: business_days
-- says: days follow each other without a hole, and a closed one was sealed after its end, with every step of its close done
-- rows: business_day, clearing_step
SELECT 'business_day', business_date::text, f.fault, format('%%s until %%s, state %%s, sealed %%s', begins_at, ends_at, state, sealed_at)
  FROM (SELECT d.*, lag(d.ends_at) OVER (ORDER BY d.business_date) AS before, lead(d.state) OVER (ORDER BY d.business_date) AS after_state,
               lag(d.business_date) OVER (ORDER BY d.business_date) AS day_before, c.created_at, c.settlement_date,
               (SELECT count(*) FROM clearing_step s WHERE s.business_date = d.business_date AND s.state = 'DONE'
                   AND (s.step, s.ordinal) IN (('cut-over', 1), ('seal', 2), ('adjudicate', 3), ('fold', 4), ('fees', 5), ('netting', 6),
                                               ('postings', 7), ('files', 8))) AS steps
          FROM business_day d LEFT JOIN clearing_day c USING (business_date)) AS day
 CROSS JOIN LATERAL (SELECT CASE
       WHEN before <> begins_at THEN 'begin at ' || before || ', the end of the day before'
       WHEN day_before <> business_date - 1 THEN 'a day after ' || day_before
       WHEN ends_at <= begins_at THEN 'an end after the begin'
       WHEN state NOT IN (0, 1, 2) OR (state = 0) <> (sealed_at IS NULL) THEN 'state 0 before the seal, 1 or 2 after it'
       WHEN sealed_at < ends_at THEN 'a seal after the end'
       WHEN state < 2 AND after_state = 2 THEN 'closed, as the day after it is'
       WHEN state = 2 AND created_at IS NULL THEN 'the terms of a close'
       WHEN state = 2 AND steps <> 8 THEN 'eight steps done'
       WHEN created_at < date_trunc('second', begins_at) OR settlement_date <= business_date THEN 'a close after the begin, settled on a later day'
       END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: clearing_steps
-- says: the figures that the steps of a close noted are those of the tables
-- rows: clearing_step
WITH @closed,
said AS (
    SELECT s.business_date, s.step, s.outcome, s.finished_at, v.name, v.fen
      FROM clearing_step s
      JOIN closed USING (business_date)
     CROSS JOIN LATERAL (
           SELECT 'items', (SELECT coalesce(sum(item_count), 0) FROM clearing_summary m WHERE m.business_date = s.business_date)
            WHERE s.step = 'fees'
           UNION ALL SELECT 'volume_fen', (SELECT coalesce(sum(volume_fen), 0) FROM clearing_summary m WHERE m.business_date = s.business_date)
            WHERE s.step = 'fees'
           UNION ALL SELECT 'fee_fen', (SELECT coalesce(sum(fee_fen), 0) FROM clearing_summary m WHERE m.business_date = s.business_date)
            WHERE s.step = 'fees'
           UNION ALL SELECT 'centre_fen', (SELECT coalesce(sum(switch_fee_fen), 0) FROM clearing_summary m WHERE m.business_date = s.business_date)
            WHERE s.step = 'netting'
           UNION ALL SELECT 'debits_fen', (SELECT coalesce(sum(debit_fen), 0) FROM clearing_float m WHERE m.business_date = s.business_date AND code <> 9001)
            WHERE s.step = 'postings'
           UNION ALL SELECT 'credits_fen', (SELECT coalesce(sum(credit_fen), 0) FROM clearing_float m WHERE m.business_date = s.business_date AND code <> 9001)
            WHERE s.step = 'postings'
           UNION ALL SELECT 'files', (SELECT count(*) FROM clearing_file m WHERE m.business_date = s.business_date) WHERE s.step = 'files'
           UNION ALL SELECT 'bytes', (SELECT coalesce(sum(size_bytes), 0) FROM clearing_file m WHERE m.business_date = s.business_date)
            WHERE s.step = 'files'
           UNION ALL SELECT 'lines', (SELECT coalesce(sum(line_count), 0) FROM clearing_file m WHERE m.business_date = s.business_date)
            WHERE s.step = 'files') AS v (name, fen)
)
SELECT 'clearing_step', format('%%s of %%s', step, business_date), format('%%s %%s', name, fen), coalesce(outcome ->> name, 'nothing')
  FROM said WHERE outcome -> name IS DISTINCT FROM to_jsonb(fen)
UNION ALL
SELECT 'clearing_step', format('netting of %%s', s.business_date), format('net_fen of %%s: %%s', p.institution_id, p.net_fen),
       coalesce(s.outcome -> 'net_fen' ->> p.institution_id, 'nothing')
  FROM clearing_step s JOIN closed USING (business_date) JOIN clearing_position p USING (business_date)
 WHERE s.step = 'netting' AND s.outcome -> 'net_fen' -> p.institution_id IS DISTINCT FROM to_jsonb(p.net_fen)
UNION ALL
SELECT 'clearing_step', format('seal of %%s', s.business_date), c.sealed_at::text, coalesce(s.outcome ->> 'sealed_at', 'nothing')
  FROM clearing_step s JOIN closed c USING (business_date)
 WHERE s.step = 'seal' AND (s.outcome ->> 'sealed_at')::timestamptz IS DISTINCT FROM c.sealed_at

-- name: clearing_merchants
-- says: the merchants kept with a closed day are those with money or records in it
-- rows: clearing_merchant
WITH @closed,
@item,
@offline,
seen AS (SELECT business_date, merchant_no FROM item UNION SELECT business_date, merchant_no FROM offline),
kept AS (SELECT k.* FROM clearing_merchant k JOIN closed USING (business_date))
SELECT 'clearing_merchant', format('merchant_no %%s on %%s', coalesce(k.merchant_no, s.merchant_no), coalesce(k.business_date, s.business_date)),
       CASE WHEN s.merchant_no IS NULL THEN 'no row' ELSE coalesce(m.merchant_id, 'a merchant') END,
       CASE WHEN k.merchant_no IS NULL THEN 'no row' ELSE format('%%s of %%s', k.merchant_id, k.acquirer_id) END
  FROM kept k
  FULL JOIN seen s ON s.business_date = k.business_date AND s.merchant_no = k.merchant_no
  LEFT JOIN merchant m ON m.merchant_no = k.merchant_no
  LEFT JOIN institution i ON i.institution_id = k.acquirer_id
 WHERE s.merchant_no IS NULL OR k.merchant_id IS DISTINCT FROM m.merchant_id OR i.institution_id IS NULL OR k.category !~ '^[0-9]{4}$'

-- name: clearing_rules
-- says: the fee terms kept with a closed day are the most specific rule in force on the date that counts
-- rows: clearing_rule, fee_rule
WITH @closed,
@item,
needed AS (SELECT DISTINCT business_date, merchant_no, account_kind, rule_date FROM item),
want AS (
    SELECT DISTINCT ON (n.business_date, n.merchant_no, n.account_kind, n.rule_date)
           n.*, f.rule_no, coalesce(f.rate_ppm, 0) AS rate_ppm, coalesce(f.minimum_fen, 0) AS minimum_fen, f.cap_fen,
           coalesce(f.weight_issuer, 7) AS weight_issuer, coalesce(f.weight_switch, 1) AS weight_switch,
           coalesce(f.weight_acquirer, 2) AS weight_acquirer
      FROM needed n
      LEFT JOIN clearing_merchant m ON m.business_date = n.business_date AND m.merchant_no = n.merchant_no
      LEFT JOIN fee_rule f
        ON f.account_kind = n.account_kind AND coalesce(f.merchant_no, n.merchant_no) = n.merchant_no
       AND coalesce(f.category, m.category) = m.category AND daterange(f.valid_from, f.valid_to, '[]') @> n.rule_date
     ORDER BY n.business_date, n.merchant_no, n.account_kind, n.rule_date,
              CASE WHEN f.merchant_no IS NOT NULL THEN 1 WHEN f.category IS NOT NULL THEN 2 ELSE 3 END
), kept AS (SELECT k.* FROM clearing_rule k JOIN closed USING (business_date))
SELECT 'clearing_rule',
       format('merchant_no %%s, kind %%s, rule date %%s, on %%s', coalesce(k.merchant_no, w.merchant_no), coalesce(k.account_kind, w.account_kind),
              coalesce(k.rule_date, w.rule_date), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.merchant_no IS NULL THEN 'no row'
            ELSE format('fee_rule %%s: %%s ppm, at least %%s, at most %%s fen, %%s:%%s:%%s', coalesce(w.rule_no::text, 'none'), w.rate_ppm, w.minimum_fen,
                        coalesce(w.cap_fen::text, 'any'), w.weight_issuer, w.weight_switch, w.weight_acquirer) END,
       CASE WHEN k.merchant_no IS NULL THEN 'no row'
            ELSE format('fee_rule %%s: %%s ppm, at least %%s, at most %%s fen, %%s:%%s:%%s', coalesce(k.rule_no::text, 'none'), k.rate_ppm, k.minimum_fen,
                        coalesce(k.cap_fen::text, 'any'), k.weight_issuer, k.weight_switch, k.weight_acquirer) END
  FROM kept k
  FULL JOIN want w
    ON w.business_date = k.business_date AND w.merchant_no = k.merchant_no AND w.account_kind = k.account_kind AND w.rule_date = k.rule_date
 WHERE k.merchant_no IS NULL OR w.merchant_no IS NULL
    OR (k.rule_no, k.rate_ppm, k.minimum_fen, k.cap_fen, k.weight_issuer, k.weight_switch, k.weight_acquirer)
       IS DISTINCT FROM (w.rule_no, w.rate_ppm, w.minimum_fen, w.cap_fen, w.weight_issuer, w.weight_switch, w.weight_acquirer)

-- name: clearing_summary
-- says: a closed day's sums are those of its entries and records, each with the fee of its terms and the fee's shares
-- rows: clearing_summary, journal, purse_record
WITH @closed,
@item,
terms AS (
    SELECT business_date, merchant_no, account_kind::integer AS account_kind, rule_date, rate_ppm::numeric AS ppm, minimum_fen, cap_fen,
           weight_issuer::numeric AS issuer, weight_switch::numeric AS switch,
           (weight_issuer + weight_switch + weight_acquirer)::numeric AS whole
      FROM clearing_rule
), charged AS (
    SELECT i.*, c.own_id, sign(i.fen::numeric) * coalesce(least(greatest(round(abs(i.fen) * t.ppm / 1000000), t.minimum_fen), t.cap_fen, abs(i.fen)), 0) AS fee,
           t.issuer, t.switch, t.whole
      FROM item i
      JOIN closed c ON c.business_date = i.business_date
      LEFT JOIN terms t
        ON t.business_date = i.business_date AND t.merchant_no = i.merchant_no AND t.account_kind = i.account_kind AND t.rule_date = i.rule_date
), shared AS (
    SELECT *, coalesce(div(fee * issuer, whole), 0) AS issuer_fee, coalesce(div(fee * switch, whole), 0) AS switch_fee FROM charged
), want AS (
    SELECT business_date, merchant_no, account_kind, own_id AS issuer_id, payable_code::integer AS payable_code,
           count(*) AS item_count, sum(abs(fen)) AS volume_fen, count(*) FILTER (WHERE fen > 0) AS debit_count,
           coalesce(sum(fen) FILTER (WHERE fen > 0), 0) AS debit_fen, count(*) FILTER (WHERE fen < 0) AS credit_count,
           coalesce(-sum(fen) FILTER (WHERE fen < 0), 0) AS credit_fen, sum(fen) AS amount_fen, sum(fee) AS fee_fen,
           sum(issuer_fee) AS issuer_fee_fen, sum(switch_fee) AS switch_fee_fen, sum(fee - issuer_fee - switch_fee) AS acquirer_fee_fen,
           coalesce(sum(fen - fee) FILTER (WHERE fen > fee), 0) AS credit_net_fen, min(at) AS first_at, min(entry_no) AS first_entry
      FROM shared GROUP BY business_date, merchant_no, account_kind, own_id, payable_code
), kept AS (
    SELECT k.business_date, k.merchant_no, k.account_kind::integer AS account_kind, k.issuer_id, k.payable_code::integer AS payable_code, k.item_count,
           k.volume_fen, k.debit_count, k.debit_fen, k.credit_count, k.credit_fen, k.amount_fen, k.fee_fen, k.issuer_fee_fen,
           k.switch_fee_fen, k.acquirer_fee_fen, k.credit_net_fen, k.first_at, k.first_entry
      FROM clearing_summary k JOIN closed USING (business_date)
)
SELECT 'clearing_summary',
       format('merchant_no %%s, kind %%s, issuer %%s, payable %%s, on %%s', coalesce(k.merchant_no, w.merchant_no),
              coalesce(k.account_kind, w.account_kind), coalesce(k.issuer_id, w.issuer_id), coalesce(k.payable_code, w.payable_code),
              coalesce(k.business_date, w.business_date)),
       CASE WHEN w.merchant_no IS NULL THEN 'no row' ELSE w::text END, CASE WHEN k.merchant_no IS NULL THEN 'no row' ELSE k::text END
  FROM kept k
  FULL JOIN want w
    ON w.business_date = k.business_date AND w.merchant_no = k.merchant_no AND w.account_kind = k.account_kind
   AND w.issuer_id = k.issuer_id AND w.payable_code = k.payable_code
 WHERE k.merchant_no IS NULL OR w.merchant_no IS NULL
    OR (k.item_count, k.volume_fen, k.debit_count, k.debit_fen, k.credit_count, k.credit_fen, k.amount_fen, k.fee_fen, k.issuer_fee_fen,
        k.switch_fee_fen, k.acquirer_fee_fen, k.credit_net_fen, k.first_at, k.first_entry)
       IS DISTINCT FROM
       (w.item_count, w.volume_fen, w.debit_count, w.debit_fen, w.credit_count, w.credit_fen, w.amount_fen, w.fee_fen, w.issuer_fee_fen,
        w.switch_fee_fen, w.acquirer_fee_fen, w.credit_net_fen, w.first_at, w.first_entry)

-- name: clearing_originals
-- says: trace and time kept for a void, refund or reversal are those of its original
-- rows: clearing_original, journal
WITH @closed,
want AS (
    SELECT j.business_date, j.entry_no, o.stan, o.decided_at
      FROM journal j
      JOIN closed USING (business_date)
      LEFT JOIN journal o ON o.business_date = j.original_date AND o.shard = j.shard AND o.entry_no = j.original_entry
     WHERE j.effect_fen <> 0 AND j.original_entry IS NOT NULL
), kept AS (SELECT k.* FROM clearing_original k JOIN closed USING (business_date))
SELECT 'clearing_original', format('entry %%s of %%s', coalesce(k.entry_no, w.entry_no), coalesce(k.business_date, w.business_date)),
       coalesce(format('trace %%s at %%s', w.stan, w.decided_at), 'no row'),
       CASE WHEN k.entry_no IS NULL THEN 'no row' ELSE format('trace %%s at %%s', k.original_stan, k.original_at) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.entry_no = k.entry_no
 WHERE k.entry_no IS NULL OR w.entry_no IS NULL OR (k.original_stan, k.original_at) IS DISTINCT FROM (w.stan, w.decided_at)

-- name: clearing_offline
-- says: what a closed day says of each merchant's offline records is what became of them
-- rows: clearing_offline, purse_record
WITH @closed,
@offline,
want AS (
    SELECT business_date, merchant_no,
           count(*) FILTER (WHERE result = '10') AS confirmed_count, sum(CASE WHEN result = '10' THEN fen ELSE 0 END) AS confirmed_fen,
           count(*) FILTER (WHERE result NOT IN ('10', '00', '04', '11') AND taken_now) AS refused_count,
           sum(CASE WHEN result NOT IN ('10', '00', '04', '11') AND taken_now THEN fen ELSE 0 END) AS refused_fen,
           count(*) FILTER (WHERE result = '00') AS adjusted_count, sum(CASE WHEN result = '00' THEN fen ELSE 0 END) AS adjusted_fen,
           count(*) FILTER (WHERE result NOT IN ('10', '00', '04', '11') AND NOT taken_now) AS adjust_refused_count,
           sum(CASE WHEN result NOT IN ('10', '00', '04', '11') AND NOT taken_now THEN fen ELSE 0 END) AS adjust_refused_fen,
           count(*) FILTER (WHERE result IN ('04', '11')) AS pending_count,
           sum(CASE WHEN result IN ('04', '11') THEN fen ELSE 0 END) AS pending_fen
      FROM offline GROUP BY business_date, merchant_no
), kept AS (SELECT k.* FROM clearing_offline k JOIN closed USING (business_date))
SELECT 'clearing_offline', format('merchant_no %%s on %%s', coalesce(k.merchant_no, w.merchant_no), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.merchant_no IS NULL THEN 'no row' ELSE w::text END, CASE WHEN k.merchant_no IS NULL THEN 'no row' ELSE k::text END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.merchant_no = k.merchant_no
 WHERE k.merchant_no IS NULL OR w.merchant_no IS NULL
    OR (k.confirmed_count, k.confirmed_fen, k.refused_count, k.refused_fen, k.adjusted_count, k.adjusted_fen, k.adjust_refused_count,
        k.adjust_refused_fen, k.pending_count, k.pending_fen)
       IS DISTINCT FROM
       (w.confirmed_count, w.confirmed_fen, w.refused_count, w.refused_fen, w.adjusted_count, w.adjusted_fen, w.adjust_refused_count,
        w.adjust_refused_fen, w.pending_count, w.pending_fen)

-- name: clearing_source_lines
-- says: a record that was not accepted at once stands in its acquirer's list where it came
-- rows: clearing_source_line, purse_record
WITH @closed,
want AS (
    SELECT business_date, entry_no, line
      FROM (SELECT r.business_date, r.entry_no, r.result,
                   count(*) OVER (PARTITION BY r.business_date, m.acquirer_id ORDER BY r.received_at, r.entry_no) AS line
              FROM purse_record r
              JOIN closed ON closed.business_date = r.business_date
              JOIN clearing_merchant m ON m.business_date = r.business_date AND m.merchant_no = r.merchant_no
             WHERE r.original_entry IS NULL) AS numbered
     WHERE result <> '10'
), kept AS (SELECT k.* FROM clearing_source_line k JOIN closed USING (business_date))
SELECT 'clearing_source_line', format('entry %%s of %%s', coalesce(k.entry_no, w.entry_no), coalesce(k.business_date, w.business_date)),
       coalesce('line ' || w.line, 'no row'), coalesce('line ' || k.source_line, 'no row')
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.entry_no = k.entry_no
 WHERE k.source_line IS DISTINCT FROM w.line

-- name: clearing_positions
-- says: each institution's position is what it issued and acquired, with the fees between them; with the centre all are zero
-- rows: clearing_position, clearing_summary
WITH @closed,
flow AS (
    SELECT business_date, s.issuer_id, m.acquirer_id, sum(s.item_count) AS items, sum(s.amount_fen) AS fen, sum(s.issuer_fee_fen) AS issuer_fee,
           sum(s.switch_fee_fen) AS switch_fee, rank() OVER (PARTITION BY business_date ORDER BY min(s.first_at), min(s.first_entry)) AS place
      FROM clearing_summary s JOIN closed USING (business_date) JOIN clearing_merchant m USING (business_date, merchant_no)
     GROUP BY business_date, s.issuer_id, m.acquirer_id
), side AS (
    SELECT business_date, issuer_id AS institution_id, place * 2 AS place, items AS issued, -fen AS issued_fen, 0 AS acquired, 0 AS acquired_fen,
           issuer_fee AS received, 0 AS paid FROM flow
    UNION ALL
    SELECT business_date, acquirer_id, place * 2 + 1, 0, 0, items, fen, 0, -(issuer_fee + switch_fee) FROM flow
), want AS (
    SELECT business_date, rank() OVER (PARTITION BY business_date ORDER BY min(place)) AS ordinal, institution_id, sum(issued) AS issuing_count,
           sum(issued_fen) AS issuing_fen, sum(acquired) AS acquiring_count, sum(acquired_fen) AS acquiring_fen, sum(received) AS issuer_fee_fen,
           sum(paid) AS fees_paid_fen, sum(issued_fen + acquired_fen + received + paid) AS net_fen
      FROM side GROUP BY business_date, institution_id
), kept AS (SELECT k.* FROM clearing_position k JOIN closed USING (business_date))
SELECT 'clearing_position', format('%%s on %%s', coalesce(k.institution_id, w.institution_id), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.institution_id IS NULL THEN 'no row' ELSE w::text END, CASE WHEN k.institution_id IS NULL THEN 'no row' ELSE k::text END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.institution_id = k.institution_id
 WHERE k.institution_id IS NULL OR w.institution_id IS NULL
    OR (k.ordinal, k.issuing_count, k.issuing_fen, k.acquiring_count, k.acquiring_fen, k.issuer_fee_fen, k.fees_paid_fen, k.net_fen)
       IS DISTINCT FROM
       (w.ordinal, w.issuing_count, w.issuing_fen, w.acquiring_count, w.acquiring_fen, w.issuer_fee_fen, w.fees_paid_fen, w.net_fen)
UNION ALL
SELECT 'clearing_position', 'all of ' || business_date, 'zero with the centre', sum(fen) || ' fen'
  FROM (SELECT business_date, net_fen AS fen FROM kept
        UNION ALL SELECT business_date, switch_fee FROM flow) AS every
 GROUP BY business_date HAVING sum(fen) <> 0

-- name: fee_postings
-- says: a closed day's fee postings are the shares of its fees, each payer to each receiver
-- rows: posting, clearing_summary
WITH @closed,
share AS (
    SELECT s.business_date, s.payable_code::integer AS payer, CASE s.payable_code WHEN 2101 THEN s.merchant_no ELSE m.acquirer_id::bigint END AS payer_no,
           part.to_id IN (c.own_id, c.centre_id) AS ours, part.to_id, part.fen
      FROM clearing_summary s
      JOIN closed c ON c.business_date = s.business_date
      JOIN clearing_merchant m ON m.business_date = s.business_date AND m.merchant_no = s.merchant_no
     CROSS JOIN LATERAL (VALUES (s.issuer_id, s.issuer_fee_fen), (c.centre_id, s.switch_fee_fen), (m.acquirer_id, s.acquirer_fee_fen))
           AS part (to_id, fen)
), owed AS (
    SELECT business_date, payer, payer_no, CASE WHEN ours THEN 6001 ELSE 2102 END AS receiver,
           CASE WHEN ours THEN 0 ELSE to_id::bigint END AS receiver_no, fen FROM share
), want AS (
    SELECT business_date, payer, payer_no, receiver, receiver_no, sum(fen) AS fen
      FROM owed
     WHERE payer <> receiver OR payer_no <> receiver_no
     GROUP BY business_date, payer, payer_no, receiver, receiver_no HAVING sum(fen) <> 0
), directed AS (
    SELECT business_date, CASE WHEN fen > 0 THEN payer ELSE receiver END AS debit_code, CASE WHEN fen > 0 THEN payer_no ELSE receiver_no END AS debit_owner,
           CASE WHEN fen > 0 THEN receiver ELSE payer END AS credit_code, CASE WHEN fen > 0 THEN receiver_no ELSE payer_no END AS credit_owner,
           sum(abs(fen)) AS fen, count(*) AS lines
      FROM want GROUP BY 1, 2, 3, 4, 5
), posted AS (
    SELECT p.business_date, p.debit_code::integer AS debit_code, p.debit_owner, p.credit_code::integer AS credit_code, p.credit_owner, sum(p.amount_fen) AS fen,
           count(*) AS lines, min(p.entry_no) AS entry_no
      FROM posting p JOIN closed USING (business_date)
     WHERE p.debit_code IN (2101, 2102, 6001) AND p.credit_code IN (2101, 2102, 6001)
     GROUP BY 1, 2, 3, 4, 5
)
SELECT 'posting', format('%%s, fee of %%s from %%s/%%s to %%s/%%s', coalesce('entry ' || p.entry_no, 'no entry'),
              coalesce(p.business_date, w.business_date), coalesce(p.debit_code, w.debit_code), coalesce(p.debit_owner, w.debit_owner),
              coalesce(p.credit_code, w.credit_code), coalesce(p.credit_owner, w.credit_owner)),
       coalesce(w.fen || ' fen', 'none'), coalesce(format('%%s fen in %%s', p.fen, p.lines), 'none')
  FROM posted p
  FULL JOIN directed w
    ON w.business_date = p.business_date AND w.debit_code = p.debit_code AND w.debit_owner = p.debit_owner
   AND w.credit_code = p.credit_code AND w.credit_owner = p.credit_owner
 WHERE (p.fen, p.lines) IS DISTINCT FROM (w.fen, w.lines)

-- name: clearing_float
-- says: the float statement of a closed day is all postings and accepted records up to it; 9001 is grey records still open
-- rows: clearing_float, posting, purse_record
WITH @closed,
moved AS (
    SELECT business_date, code, sum(debit) AS debit, sum(credit) AS credit
      FROM (SELECT business_date, debit_code::integer AS code, amount_fen AS debit, 0 AS credit FROM posting
            UNION ALL SELECT business_date, credit_code, 0, amount_fen FROM posting
            UNION ALL SELECT business_date, 2002, amount_fen, 0 FROM purse_record WHERE result IN ('10', '00')
            UNION ALL SELECT business_date, credit_code, 0, amount_fen FROM purse_record WHERE result IN ('10', '00')
            UNION ALL SELECT business_date, 9001, amount_fen, 0 FROM purse_record WHERE result = '04'
            UNION ALL SELECT business_date, 9001, 0, amount_fen FROM purse_record WHERE result IN ('00', '94')) AS every
     WHERE code IS NOT NULL
     GROUP BY business_date, code
), want AS (
    SELECT c.business_date, n.code, coalesce(sum(m.debit - m.credit) FILTER (WHERE m.business_date < c.business_date), 0) AS opening_fen,
           coalesce(sum(m.debit) FILTER (WHERE m.business_date = c.business_date), 0) AS debit_fen,
           coalesce(sum(m.credit) FILTER (WHERE m.business_date = c.business_date), 0) AS credit_fen,
           coalesce(sum(m.debit - m.credit), 0) AS closing_fen
      FROM closed c
     CROSS JOIN unnest(ARRAY[1001, 1002, 1101, 1102, 1103, 2001, 2002, 2003, 2101, 2102, 2201, 6001, 9001]) AS n (code)
      LEFT JOIN moved m ON m.code = n.code AND m.business_date <= c.business_date
     GROUP BY c.business_date, n.code
), kept AS (
    SELECT k.business_date, k.code::integer AS code, k.opening_fen, k.debit_fen, k.credit_fen, k.closing_fen
      FROM clearing_float k JOIN closed USING (business_date))
SELECT 'clearing_float', format('%%s on %%s', coalesce(k.code, w.code), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.code IS NULL THEN 'no row' ELSE format('opening %%s, debit %%s, credit %%s, closing %%s fen', w.opening_fen, w.debit_fen, w.credit_fen, w.closing_fen) END,
       CASE WHEN k.code IS NULL THEN 'no row' ELSE format('opening %%s, debit %%s, credit %%s, closing %%s fen', k.opening_fen, k.debit_fen, k.credit_fen, k.closing_fen) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.code = k.code
 WHERE (k.opening_fen, k.debit_fen, k.credit_fen, k.closing_fen) IS DISTINCT FROM (w.opening_fen, w.debit_fen, w.credit_fen, w.closing_fen)

-- name: clearing_files
-- says: there is a file for every member, sender and merchant of a closed day, with the count and total of its lines
-- rows: clearing_file
WITH @closed,
@offline,
member AS (
    SELECT business_date, institution_id, min(place) AS place
      FROM (SELECT business_date, institution_id, ordinal AS place FROM clearing_position JOIN closed USING (business_date)
            UNION ALL SELECT business_date, own_id, 2147483647 FROM closed) AS every
     GROUP BY business_date, institution_id
), merchants AS (
    SELECT s.business_date, s.merchant_no, m.merchant_id, m.acquirer_id, s.issuer_id, s.account_kind, s.item_count, s.volume_fen, s.fee_fen,
           s.credit_net_fen
      FROM clearing_summary s
      JOIN closed c ON c.business_date = s.business_date
      JOIN clearing_merchant m ON m.business_date = s.business_date AND m.merchant_no = s.merchant_no
), quick AS (
    SELECT o.business_date, m.acquirer_id, o.merchant_no, o.confirmed_fen + o.adjusted_fen - coalesce(f.fee_fen, 0) AS net_fen
      FROM clearing_offline o
      JOIN closed c ON c.business_date = o.business_date
      JOIN clearing_merchant m ON m.business_date = o.business_date AND m.merchant_no = o.merchant_no
      LEFT JOIN (SELECT business_date, merchant_no, sum(fee_fen) AS fee_fen FROM merchants WHERE account_kind = 50 GROUP BY 1, 2) AS f
        ON f.business_date = o.business_date AND f.merchant_no = o.merchant_no
), sender AS (
    SELECT o.business_date, m.acquirer_id, count(*) FILTER (WHERE o.taken_now) AS came, sum(CASE WHEN o.taken_now THEN o.fen ELSE 0 END) AS came_fen,
           count(*) FILTER (WHERE o.result <> '10') AS listed, sum(CASE WHEN o.result <> '10' THEN o.fen ELSE 0 END) AS listed_fen
      FROM offline o JOIN clearing_merchant m ON m.business_date = o.business_date AND m.merchant_no = o.merchant_no
     GROUP BY o.business_date, m.acquirer_id
), planned AS (
    SELECT m.business_date, 'NP' AS kind, m.institution_id AS receiver, m.institution_id AS party, NULL::integer AS party_no,
           count(p.net_fen) AS lines, coalesce(sum(greatest(p.net_fen, 0)), 0) AS fen, 1 AS part, m.place::bigint AS place, 1 AS file
      FROM member m LEFT JOIN clearing_position p ON p.business_date = m.business_date GROUP BY 1, 2, 3, 4, m.place
    UNION ALL
    SELECT m.business_date, 'CM', m.institution_id, m.institution_id, NULL, coalesce(sum(s.item_count), 0), coalesce(sum(s.volume_fen), 0), 1,
           m.place, 2
      FROM member m
      LEFT JOIN (SELECT business_date, issuer_id AS member_id, item_count, volume_fen FROM merchants
                 UNION ALL
                 SELECT business_date, acquirer_id, item_count, volume_fen FROM merchants WHERE acquirer_id <> issuer_id) AS s
        ON s.business_date = m.business_date AND s.member_id = m.institution_id
     GROUP BY m.business_date, m.institution_id, m.place
    UNION ALL
    SELECT business_date, 'NS', acquirer_id, acquirer_id, NULL, CASE WHEN came > 0 THEN 1 ELSE 0 END, came_fen, 2, acquirer_id::bigint, 1 FROM sender
    UNION ALL
    SELECT s.business_date, 'QS', s.acquirer_id, s.acquirer_id, NULL, count(q.net_fen), coalesce(sum(greatest(q.net_fen, 0)), 0), 2, s.acquirer_id::bigint, 2
      FROM sender s LEFT JOIN quick q ON q.business_date = s.business_date AND q.acquirer_id = s.acquirer_id
     GROUP BY s.business_date, s.acquirer_id
    UNION ALL
    SELECT business_date, 'SS', acquirer_id, acquirer_id, NULL, listed, listed_fen, 2, acquirer_id::bigint, 3 FROM sender
    UNION ALL
    SELECT business_date, 'MR', lpad(merchant_no::text, 8, '0'), merchant_id, merchant_no, sum(item_count), sum(credit_net_fen), 3, merchant_no, 1
      FROM merchants GROUP BY business_date, merchant_no, merchant_id
), want AS (
    SELECT business_date, kind || c.centre_id || receiver || to_char(business_date, 'YYYYMMDD') || '001' AS name, party, party_no, lines, fen,
           row_number() OVER (PARTITION BY business_date ORDER BY part, place, file) AS ordinal
      FROM planned JOIN closed c USING (business_date)
), kept AS (SELECT k.* FROM clearing_file k JOIN closed USING (business_date))
SELECT 'clearing_file', format('%%s of %%s', coalesce(k.name, w.name), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.name IS NULL THEN 'no row' ELSE format('no. %%s for %%s/%%s: %%s lines, %%s fen', w.ordinal, w.party, w.party_no, w.lines, w.fen) END,
       CASE WHEN k.name IS NULL THEN 'no row' WHEN k.sm3 IS NULL THEN 'not written'
            ELSE format('no. %%s for %%s/%%s: %%s lines, %%s fen', k.ordinal, k.party, k.party_no, k.line_count, k.total_fen) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.name = k.name
 WHERE k.sm3 IS NULL OR w.name IS NULL
    OR (k.ordinal, k.party, k.party_no, k.line_count, k.total_fen) IS DISTINCT FROM (w.ordinal, w.party, w.party_no, w.lines, w.fen)
