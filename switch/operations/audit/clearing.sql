-- Closed days, computed again from the journal and the offline records. Account kinds: 10 online, 20 bank, 40 medical, 50 purse.
-- The issuer is the operator, or the bank or city that owes what its host approved (clearing_legs, in hosts.sql). Rules and merchants are
-- those that were kept when the day was closed.

-- name: business_days
-- says: days follow each other without a hole, and a closed one was sealed after its end, with every step of its close done
-- rows: business_day, clearing_step
SELECT 'business_day', business_date::text, f.fault, format('%%s until %%s, state %%s, sealed %%s', begins_at, ends_at, state, sealed_at)
  FROM (SELECT d.*, lag(d.ends_at) OVER (ORDER BY d.business_date) AS before, lead(d.state) OVER (ORDER BY d.business_date) AS after_state,
               lag(d.business_date) OVER (ORDER BY d.business_date) AS day_before, c.created_at, c.settlement_date, c.has_reports,
               lag(c.has_reports) OVER (ORDER BY d.business_date) AS reports_before,
               EXISTS (SELECT FROM clearing_step s WHERE (s.business_date, s.step, s.ordinal, s.state) = (d.business_date, 'reports', 9, 'DONE')) AS reported,
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
       WHEN state = 2 AND (has_reports <> reported OR (reports_before AND NOT has_reports)) THEN 'reports as their step says, and once there were any'
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
            WHERE s.step = 'files'
           UNION ALL SELECT 'rows', (SELECT coalesce(sum(row_count), 0) FROM clearing_report m WHERE m.business_date = s.business_date)
            WHERE s.step = 'reports') AS v (name, fen)
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
seen AS (SELECT business_date, merchant_no FROM item UNION SELECT business_date, merchant_no FROM offline WHERE merchant_no <> 0),
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
-- rows: clearing_summary, journal, purse_record, interop_tariff
WITH @closed,
@item,
terms AS (
    SELECT business_date, merchant_no, account_kind::integer AS account_kind, rule_date, rate_ppm::numeric AS ppm, minimum_fen, cap_fen,
           weight_issuer::numeric AS issuer, weight_switch::numeric AS switch,
           (weight_issuer + weight_switch + weight_acquirer)::numeric AS whole
      FROM clearing_rule
), charged AS (
    SELECT i.*, sign(i.fen::numeric) * coalesce(least(greatest(round(abs(i.fen) * t.ppm / 1000000), t.minimum_fen), t.cap_fen, abs(i.fen)), 0) AS fee,
           t.issuer, t.switch, t.whole
      FROM item i
      LEFT JOIN terms t
        ON t.business_date = i.business_date AND t.merchant_no = i.merchant_no AND t.account_kind = i.account_kind AND t.rule_date = i.rule_date
), by_tariff AS (
    -- Of another city's card, paid by way of the centre, issuer and centre get what the tariff between cities says on the record's own date,
    -- also of what a case moved of it.
    SELECT v.business_date, v.entry_no, sign(v.fen::numeric) * coalesce(least(greatest(round(abs(v.fen) * t.rate_ppm::numeric / 1000000),
                  t.minimum_fen), t.cap_fen, abs(v.fen)), 0) AS tariff_fee,
           coalesce(t.weight_issuer, 0)::numeric AS tariff_issuer, coalesce(t.weight_centre, 0)::numeric AS tariff_centre,
           coalesce(t.weight_issuer + t.weight_centre + t.weight_acquirer, 1)::numeric AS tariff_whole
      FROM (SELECT business_date, entry_no, amount_fen AS fen, happened_at::date AS charged_on FROM foreign_verdict
            UNION ALL
            SELECT j.business_date, j.entry_no, j.effect_fen, rode.happened_at::date
              FROM journal j
              JOIN dispute_event e ON e.entry_no = j.entry_no AND e.business_date = j.business_date AND e.what = 'DONE'
              JOIN dispute_case k ON k.case_no = e.case_no AND k.source = 3
              JOIN foreign_verdict rode ON rode.entry_no = k.item_entry
             WHERE j.class = 3) AS v
      JOIN closed c ON c.business_date = v.business_date AND c.interop_id IS NOT NULL
      LEFT JOIN interop_tariff t ON t.valid_from = (SELECT max(valid_from) FROM interop_tariff WHERE valid_from <= v.charged_on)
), shared AS (
    SELECT charged.*, CASE WHEN tariff_fee IS NULL THEN coalesce(div(fee * issuer, whole), 0) ELSE div(tariff_fee * tariff_issuer, tariff_whole) END AS issuer_fee,
           CASE WHEN tariff_fee IS NULL THEN coalesce(div(fee * switch, whole), 0) ELSE div(tariff_fee * tariff_centre, tariff_whole) END AS switch_fee
      FROM charged LEFT JOIN by_tariff USING (business_date, entry_no)
), want AS (
    SELECT business_date, merchant_no, account_kind, issuer_id, payable_code::integer AS payable_code,
           count(*) AS item_count, sum(abs(fen)) AS volume_fen, count(*) FILTER (WHERE fen > 0) AS debit_count,
           coalesce(sum(fen) FILTER (WHERE fen > 0), 0) AS debit_fen, count(*) FILTER (WHERE fen < 0) AS credit_count,
           coalesce(-sum(fen) FILTER (WHERE fen < 0), 0) AS credit_fen, sum(fen) AS amount_fen, sum(fee) AS fee_fen,
           sum(issuer_fee) AS issuer_fee_fen, sum(switch_fee) AS switch_fee_fen, sum(fee - issuer_fee - switch_fee) AS acquirer_fee_fen,
           coalesce(sum(fen - fee) FILTER (WHERE fen > fee), 0) AS credit_net_fen, min(at) AS first_at, min(entry_no) AS first_entry
      FROM shared GROUP BY business_date, merchant_no, account_kind, issuer_id, payable_code
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
-- says: trace, time and kind kept for a void, refund, completion or reversal are those of its original
-- rows: clearing_original, journal
WITH @closed,
want AS (
    -- What adjusts an offline record shows what that had in its line.
    SELECT j.business_date, j.entry_no, coalesce(o.stan, (coalesce(r.record_serial, v.record_serial) %% 1000000)::integer) AS stan,
           coalesce(o.decided_at, r.received_at, v.decided_at) AS decided_at, coalesce(o.kind, 20::smallint) AS kind
      FROM journal j
      JOIN closed USING (business_date)
      LEFT JOIN journal o ON o.business_date = j.original_date AND o.shard = j.shard AND o.entry_no = j.original_entry
      LEFT JOIN (dispute_event e JOIN dispute_case c USING (case_no)) ON j.class = 3 AND e.entry_no = j.entry_no AND c.source IN (2, 3)
      LEFT JOIN purse_record r ON c.source = 2 AND r.entry_no = c.item_entry AND r.business_date = c.item_date
      LEFT JOIN foreign_verdict v ON c.source = 3 AND v.entry_no = c.item_entry
     WHERE j.effect_fen <> 0 AND j.original_entry IS NOT NULL
), kept AS (SELECT k.* FROM clearing_original k JOIN closed USING (business_date))
SELECT 'clearing_original', format('entry %%s of %%s', coalesce(k.entry_no, w.entry_no), coalesce(k.business_date, w.business_date)),
       coalesce(format('trace %%s at %%s, kind %%s', w.stan, w.decided_at, w.kind), 'no row'),
       CASE WHEN k.entry_no IS NULL THEN 'no row' ELSE format('trace %%s at %%s, kind %%s', k.original_stan, k.original_at, k.original_kind) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.entry_no = k.entry_no
 WHERE k.entry_no IS NULL OR w.entry_no IS NULL OR (k.original_stan, k.original_at, coalesce(k.original_kind, w.kind)) IS DISTINCT FROM (w.stan, w.decided_at, w.kind)

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
-- says: a record that was not accepted at once stands in its acquirer's list where it came, or in its file where it stood
-- rows: clearing_source_line, purse_record, received_chunk
WITH @closed,
want AS (
    SELECT business_date, entry_no, line, NULL AS source_file, NULL AS acquirer_id
      FROM (SELECT r.business_date, r.entry_no, r.result,
                   count(*) OVER (PARTITION BY r.business_date, m.acquirer_id ORDER BY r.received_at, r.entry_no) AS line
              FROM purse_record r
              JOIN closed ON closed.business_date = r.business_date
              JOIN clearing_merchant m ON m.business_date = r.business_date AND m.merchant_no = r.merchant_no
             WHERE r.original_entry IS NULL AND r.batch_no <> 0) AS numbered
     WHERE result <> '10'
    UNION ALL
    SELECT k.business_date, n.entry_no, k.first_line + n.entry_no - k.first_entry, f.name, f.sender_id
      FROM received_chunk k
      JOIN closed ON closed.business_date = k.business_date
      JOIN received_file f USING (file_no)
     CROSS JOIN LATERAL generate_series(k.first_entry, k.first_entry + k.line_count - 1) AS n (entry_no)
      JOIN purse_record r ON r.business_date = k.business_date AND r.entry_no = n.entry_no AND r.batch_no = 0 AND r.result <> '10'
), kept AS (SELECT k.* FROM clearing_source_line k JOIN closed USING (business_date))
SELECT 'clearing_source_line', format('entry %%s of %%s', coalesce(k.entry_no, w.entry_no), coalesce(k.business_date, w.business_date)),
       coalesce(format('line %%s of %%s', w.line, coalesce(w.source_file, 'the list')), 'no row'),
       CASE WHEN k.entry_no IS NULL THEN 'no row' ELSE format('line %%s of %%s', k.source_line, coalesce(k.source_file, 'the list')) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.entry_no = k.entry_no
 WHERE (k.source_line, k.source_file, k.acquirer_id) IS DISTINCT FROM (w.line, w.source_file, w.acquirer_id)
