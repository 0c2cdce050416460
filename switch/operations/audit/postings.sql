-- Money moved: originals and what undoes them, postings, folded balances. 2001 online, 2003 medical, 2002 purse float,
-- 2101 merchants, 2102 other institutions, 2201 suspense, 6001 fee income.

-- name: originals
-- says: what undoes an entry fits it: kind, account, terminal, amount, and it came later
-- rows: journal
SELECT 'journal', format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard), fault,
       coalesce(format('entry %%s: kind %%s, answer %%s, %%s fen', o.entry_no, o.kind, o.answer, o.amount_fen),
                format('no entry %%s of %%s', j.original_entry, j.original_date))
  FROM journal j
  LEFT JOIN journal o ON o.business_date = j.original_date AND o.shard = j.shard AND o.entry_no = j.original_entry
 CROSS JOIN LATERAL (SELECT CASE
       -- What adjusts an offline record, or is of no case, is found by adjustments in disputes.sql.
       WHEN o.entry_no IS NULL AND j.class = 3 THEN NULL
       WHEN o.entry_no IS NULL THEN 'an original in this shard'
       WHEN (o.decided_at, o.entry_no) >= (j.decided_at, j.entry_no) THEN 'an original that came before'
       WHEN o.terminal_no <> j.terminal_no THEN 'an original of the same terminal'
       -- What is still with its host can be named by a reversal that does not fit it, and by nothing else.
       WHEN o.class <> 0 AND NOT (o.class = 2 AND j.kind = 5 AND j.answer <> '00') THEN 'an original, and no other message'
       WHEN j.kind IN (3, 5, 9) AND o.batch_no <> j.batch_no THEN 'an original of the same batch'
       WHEN j.kind = 5 AND o.stan <> j.stan THEN 'the original of the same trace'
       WHEN j.kind = 3 AND (o.kind <> 1 OR o.answer <> '00') THEN 'an approved purchase'
       WHEN j.kind = 4 AND (o.kind NOT IN (1, 8, 10) OR o.answer <> '00') THEN 'an approved purchase or completion'
       WHEN j.kind IN (7, 8, 10) AND (o.kind <> 6 OR o.answer <> '00') THEN 'an approved pre-authorisation'
       WHEN j.kind = 9 AND (o.kind NOT IN (8, 10) OR o.answer <> '00') THEN 'an approved completion'
       WHEN j.kind IN (8, 10) AND j.amount_fen * 100 > o.amount_fen * 115 THEN 'at most 115 %% of ' || o.amount_fen || ' fen'
       WHEN j.kind = 12 AND (o.kind <> 11 OR o.answer <> '00') THEN 'an approved load'
       WHEN j.kind IN (3, 7, 9, 12) AND o.amount_fen <> j.amount_fen THEN 'the whole amount, ' || o.amount_fen || ' fen'
       WHEN j.kind IN (14, 16, 17) AND (o.kind NOT IN (1, 8, 10) OR o.answer <> '00') THEN 'an approved purchase or completion'
       WHEN j.kind = 15 AND o.kind NOT IN (1, 8, 10) THEN 'a purchase or completion'
       WHEN j.kind IN (4, 14, 15, 16, 17) AND o.amount_fen < j.amount_fen THEN 'at most ' || o.amount_fen || ' fen'
       WHEN j.kind = 5 AND j.answer = '00' AND o.answer = '00'
            AND (o.kind NOT IN (1, 3, 6, 7, 8, 9, 11) OR j.effect_fen <> -o.effect_fen OR j.amount_fen <> o.amount_fen)
            THEN format('the opposite of what can be reversed, %%s fen', -o.effect_fen)
       -- Of what was refused for its form no amount may have been readable.
       WHEN j.kind = 5 AND j.answer = '00' AND o.answer <> '30' AND j.amount_fen <> o.amount_fen THEN 'the whole amount, ' || o.amount_fen || ' fen'
       WHEN j.kind = 5 AND j.answer = '00' AND o.answer <> '00' AND j.effect_fen <> 0 THEN 'no effect: the original was declined'
       WHEN j.answer = '00' AND o.answer = '00' AND o.account_id IS DISTINCT FROM j.account_id THEN 'the account of the original'
       WHEN j.answer = '00' AND o.answer = '00' AND o.account_id IS NULL AND o.pan IS DISTINCT FROM j.pan THEN 'the card of the original'
       END AS fault) AS f
 WHERE j.business_date BETWEEN %(first)s AND %(last)s AND j.original_entry IS NOT NULL AND fault IS NOT NULL

-- name: original_use
-- says: what is used up of an original is what refunds and cases gave back of it, less what cases collected, and the void or reversal that stands
-- rows: original_use, journal
WITH undoing AS MATERIALIZED (
    SELECT j.shard, j.entry_no, j.kind, j.amount_fen, j.effect_fen, j.decided_at, j.original_date, j.original_entry
      FROM journal j
     WHERE j.original_entry IS NOT NULL AND j.answer = '00' AND (j.kind IN (3, 4, 9, 14, 15, 16, 17) OR (j.kind = 5 AND j.effect_fen <> 0))
), live AS (
    SELECT u.*, r.entry_no IS NULL AS stands
      FROM undoing u
      LEFT JOIN (SELECT DISTINCT shard, original_entry AS entry_no FROM undoing WHERE kind = 5) AS r
        ON r.shard = u.shard AND r.entry_no = u.entry_no
), use AS (
    SELECT shard, original_entry, min(original_date) AS original_date,
           -- A void or reversal gives back everything; what was collected after it is no longer undone.
           coalesce(sum(amount_fen) FILTER (WHERE kind IN (3, 5, 9) AND stands), 0) - coalesce(sum(effect_fen) FILTER (WHERE kind IN (4, 14, 15, 16, 17)), 0)
               AS given_fen,
           count(*) FILTER (WHERE kind IN (3, 5, 9) AND stands) - count(*) FILTER (WHERE kind = 15) AS standing,
           (array_agg(entry_no ORDER BY decided_at DESC, entry_no DESC) FILTER (WHERE kind IN (3, 5, 9) AND stands))[1] AS undone_by,
           max(decided_at) FILTER (WHERE kind IN (3, 5, 9) AND stands) AS undone_at, max(decided_at) FILTER (WHERE kind = 15) AS collected_at
      FROM live GROUP BY shard, original_entry
), root AS (
    -- Of an unknown end at a host nothing was taken, so all of it counts as given back.
    SELECT o.shard, o.business_date, o.entry_no, o.amount_fen, CASE WHEN o.effect_fen = 0 THEN o.amount_fen ELSE 0 END AS never_fen FROM journal o WHERE o.class = 0
    UNION ALL
    -- What adjusts an offline record names it as it came; of another city's card it is kept in shard 0.
    SELECT CASE WHEN r.card_no IS NULL THEN 0 ELSE r.shard END, r.business_date, r.entry_no, r.amount_fen, 0 FROM purse_record r WHERE r.original_entry IS NULL
), want AS (
    SELECT w.shard, w.original_entry AS entry_no, w.original_date AS business_date, o.amount_fen, w.standing,
           CASE WHEN w.undone_at > coalesce(w.collected_at, '-infinity') THEN w.undone_by END AS undone_by,
           CASE WHEN w.undone_at > coalesce(w.collected_at, '-infinity') THEN w.given_fen - o.amount_fen ELSE w.given_fen END + o.never_fen AS refunded_fen
      FROM use w
      LEFT JOIN root o ON o.shard = w.shard AND o.business_date = w.original_date AND o.entry_no = w.original_entry
)
SELECT 'original_use', format('entry %%s in shard %%s', coalesce(u.entry_no, w.entry_no), coalesce(u.shard, w.shard)),
       CASE WHEN w.entry_no IS NULL THEN 'nothing: no refund, void, reversal or case names it'
            WHEN w.standing > 1 THEN 'one void or reversal, not ' || w.standing
            WHEN w.undone_by IS NOT NULL AND w.refunded_fen > 0 THEN 'undone or refunded, not both'
            ELSE format('%%s fen of %%s, refunded %%s fen, undone by %%s', w.amount_fen, w.business_date, w.refunded_fen,
                        coalesce(w.undone_by::text, 'nothing')) END,
       CASE WHEN u.entry_no IS NULL THEN 'no row'
            ELSE format('%%s fen of %%s, refunded %%s fen, undone by %%s', u.amount_fen, u.business_date, u.refunded_fen,
                        coalesce(u.undone_by::text, 'nothing')) END
  FROM original_use u
  FULL JOIN want w ON w.shard = u.shard AND w.entry_no = u.entry_no
 WHERE (u.business_date, u.amount_fen, u.refunded_fen, u.undone_by)
       IS DISTINCT FROM (w.business_date, w.amount_fen, w.refunded_fen, w.undone_by)
    OR w.standing > 1 OR w.refunded_fen > w.amount_fen OR w.refunded_fen < 0

-- name: entry_postings
-- says: an entry with an effect has exactly its one posting, between the merchant and the account it names, or who owes what a host approved; others have none, divided purchases and loads apart
-- rows: journal, posting
-- What moves a divided purchase is looked at by split_postings.
WITH @shared
, entry AS (
    SELECT j.shard, j.business_date, j.entry_no, j.effect_fen, j.merchant_no::bigint AS merchant_no, h.leg_no IS NOT NULL AS hosted,
           CASE WHEN h.leg_no IS NOT NULL THEN h.debit_owner ELSE j.account_id END AS account_id,
           CASE WHEN h.leg_no IS NOT NULL THEN h.debit_code WHEN j.account_id %% 100 = 10 THEN 2001 WHEN j.account_id %% 100 = 40 THEN 2003 END AS code
      FROM journal j
      LEFT JOIN host_leg h ON h.shard = j.shard AND h.ended_by = coalesce(j.original_entry, j.entry_no)
     WHERE j.business_date BETWEEN %(first)s AND %(last)s
       -- Loads, their confirms and reversals: loads.sql holds their postings against their moves.
       AND j.kind NOT IN (11, 12)
       -- Cases: disputes.sql holds their postings against what they adjust.
       AND j.class <> 3
       AND NOT (j.kind = 5 AND EXISTS (SELECT FROM journal o WHERE o.shard = j.shard AND o.business_date = j.original_date
                                                               AND o.entry_no = j.original_entry AND o.kind = 11))
), line AS (
    SELECT shard, business_date, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen
      FROM posting WHERE business_date BETWEEN %(first)s AND %(last)s
)
SELECT CASE WHEN p.entry_no IS NULL THEN 'journal' ELSE 'posting' END,
       format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard) || coalesce(', line ' || nullif(p.line, 0), ''),
       CASE WHEN j.effect_fen > 0 THEN format('%%s fen from %%s/%%s to 2101/%%s', j.effect_fen, j.code, j.account_id, j.merchant_no)
            WHEN j.effect_fen < 0 THEN format('%%s fen from 2101/%%s to %%s/%%s', -j.effect_fen, j.merchant_no, j.code, j.account_id)
                                     || CASE WHEN j.hosted THEN '' ELSE ' or 2201/0' END
            ELSE 'no posting' END,
       CASE WHEN p.entry_no IS NULL THEN 'no posting'
            ELSE format('%%s fen from %%s/%%s to %%s/%%s', p.amount_fen, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner)
       END
  FROM entry j
  LEFT JOIN line p ON p.shard = j.shard AND p.business_date = j.business_date AND p.entry_no = j.entry_no
  LEFT JOIN (SELECT DISTINCT shard, entry_no FROM share) AS divided ON divided.shard = j.shard AND divided.entry_no = j.entry_no
 WHERE divided.entry_no IS NULL AND CASE WHEN j.effect_fen = 0 THEN p.entry_no IS NOT NULL
            WHEN p.entry_no IS NULL OR p.line <> 0 OR p.amount_fen <> abs(j.effect_fen) THEN true
            WHEN j.effect_fen > 0
            THEN (p.debit_code, p.debit_owner, p.credit_code, p.credit_owner)
                 IS DISTINCT FROM (j.code, j.account_id, 2101, j.merchant_no)
            ELSE (p.debit_code, p.debit_owner) IS DISTINCT FROM (2101, j.merchant_no)
                 OR ((p.credit_code, p.credit_owner) IS DISTINCT FROM (j.code, j.account_id)
                     AND (j.hosted OR (p.credit_code, p.credit_owner) <> (2201, 0))) END

-- name: postings_alone
-- says: a posting without an entry is an opening (1001 to a holder), a fee of a day that is being closed or closed, or moves a load; or another city pays for its card; or it was booked
-- rows: posting
SELECT 'posting', format('entry %%s of %%s in shard %%s, line %%s', p.entry_no, p.business_date, p.shard, p.line),
       'an opening from 1001/0, or a fee between 2101 or 2102 and 6001 or 2102 in shard 0',
       format('%%s fen from %%s/%%s to %%s/%%s', p.amount_fen, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner)
  FROM posting p
  LEFT JOIN journal j ON j.shard = p.shard AND j.business_date = p.business_date AND j.entry_no = p.entry_no
  LEFT JOIN clearing_day d ON d.business_date = p.business_date
  LEFT JOIN purse_load_move v ON v.shard = p.shard AND v.entry_no = p.entry_no AND v.line = p.line
  -- These are held against their verdicts by foreign_verdicts.
  LEFT JOIN foreign_verdict o ON p.shard = 0 AND o.entry_no = p.entry_no AND o.business_date = p.business_date
  -- And these against their bookings by bookings.
  LEFT JOIN booking b ON p.shard = 0 AND b.entry_no = p.entry_no AND b.business_date = p.business_date
 WHERE v.entry_no IS NULL AND o.entry_no IS NULL AND b.entry_no IS NULL AND p.business_date BETWEEN %(first)s AND %(last)s AND j.entry_no IS NULL
   AND (p.line <> 0 OR p.amount_fen <= 0
        OR NOT CASE WHEN p.debit_code = 1001
                    THEN p.debit_owner = 0 AND p.credit_code IN (2001, 2002, 2003)
                    ELSE d.business_date IS NOT NULL AND p.shard = 0
                         AND ((p.debit_code IN (2101, 2102) AND p.credit_code IN (6001, 2102))
                              OR (p.debit_code IN (6001, 2102) AND p.credit_code IN (2101, 2102))) END)

-- name: posting_owners
-- says: each side of a posting has an owner that is there: account, card, merchant, institution, or 0 where a code has one account
-- rows: posting
WITH side AS (
    SELECT shard, code, owner, min(entry_no) AS entry_no, min(business_date) AS business_date
      FROM (SELECT shard, debit_code AS code, debit_owner AS owner, entry_no, business_date FROM posting
             WHERE business_date BETWEEN %(first)s AND %(last)s
            UNION ALL
            SELECT shard, credit_code, credit_owner, entry_no, business_date FROM posting
             WHERE business_date BETWEEN %(first)s AND %(last)s) AS both_sides
     GROUP BY shard, code, owner
)
SELECT 'posting', format('entry %%s of %%s in shard %%s', s.entry_no, s.business_date, s.shard), 'an owner of ' || s.code,
       format('%%s/%%s', s.code, s.owner)
  FROM side s
  LEFT JOIN account a ON a.account_id = s.owner AND a.shard = s.shard AND s.code = CASE a.kind WHEN 10 THEN 2001 ELSE 2003 END
  LEFT JOIN card_route r ON r.card_no = s.owner AND r.shard = s.shard AND s.code = 2002
  LEFT JOIN merchant m ON m.merchant_no = s.owner AND s.code = 2101
  LEFT JOIN institution i ON i.institution_id::bigint = s.owner AND s.code IN (1101, 1102, 2102, 1002)
 WHERE coalesce(a.account_id, r.card_no, m.merchant_no, i.institution_id::bigint) IS NULL
   AND NOT (s.code IN (1001, 1103, 2201, 6001) AND s.owner = 0)

-- name: folded_balance
-- says: a folded balance is the sum of the postings and accepted records behind the watermarks
-- rows: folded_balance, posting, purse_record
WITH behind AS (
    SELECT p.shard, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner, sum(p.amount_fen) AS fen
      FROM posting p JOIN fold_watermark w ON w.shard = p.shard AND p.txid < w.folded_to
     GROUP BY 1, 2, 3, 4, 5
    UNION ALL
    SELECT r.shard, 2002, r.card_no, r.credit_code, r.credit_owner, sum(r.amount_fen)
      FROM purse_record r JOIN purse_watermark w ON r.txid < w.folded_to
     WHERE r.result IN ('10', '00') AND r.amount_fen > 0
     GROUP BY 1, 3, 4, 5
), want AS (
    SELECT shard, code, owner, sum(debit_fen) AS debit_fen, sum(credit_fen) AS credit_fen
      FROM (SELECT shard, debit_code AS code, debit_owner AS owner, fen AS debit_fen, 0 AS credit_fen FROM behind
            UNION ALL
            SELECT shard, credit_code, credit_owner, 0, fen FROM behind) AS side
     WHERE code NOT IN (2001, 2003)
     GROUP BY shard, code, owner
)
SELECT 'folded_balance', format('%%s/%%s in shard %%s', coalesce(f.code, w.code), coalesce(f.owner, w.owner), coalesce(f.shard, w.shard)),
       coalesce(format('debit %%s, credit %%s fen', w.debit_fen, w.credit_fen), 'no row'),
       coalesce(format('debit %%s, credit %%s fen', f.debit_fen, f.credit_fen), 'no row')
  FROM (SELECT shard, code::integer, owner, debit_fen, credit_fen FROM folded_balance) AS f
  FULL JOIN want w ON w.shard = f.shard AND w.code = f.code AND w.owner = f.owner
 WHERE (coalesce(f.debit_fen, 0), coalesce(f.credit_fen, 0)) <> (coalesce(w.debit_fen, 0), coalesce(w.credit_fen, 0))

-- name: transaction_numbers
-- says: transactions are numbered for the cluster that the database is in, and both functions that number them agree
-- rows: transaction_numbers
SELECT 'transaction_numbers', 'the one', format('cluster %%s, offsets %%s and %%s', cluster_id, ahead, ahead),
       format('cluster %%s, offsets %%s and %%s', here, horizon, number)
  FROM (SELECT cluster_id, ahead, (SELECT system_identifier FROM pg_control_system()) AS here,
               transaction_horizon() - pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS horizon,
               transaction_number() - pg_current_xact_id()::text::bigint AS number
          FROM transaction_numbers) AS n
 WHERE (cluster_id, ahead, ahead) <> (here, horizon, number)

-- name: watermarks
-- says: no watermark is beyond the oldest transaction that is still running
-- rows: fold_watermark, purse_watermark, trip_watermark
SELECT place, key, 'at most ' || highest, folded_to::text
  FROM (SELECT 'fold_watermark' AS place, 'shard ' || shard AS key, folded_to FROM fold_watermark
        UNION ALL
        SELECT 'purse_watermark', 'the one', folded_to FROM purse_watermark
        UNION ALL
        SELECT 'trip_watermark', 'the one', folded_to FROM trip_watermark) AS mark
 CROSS JOIN (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint + ahead AS highest FROM transaction_numbers) AS n
 WHERE folded_to < 0 OR folded_to > highest

-- name: cover
-- says: deposits and receivables cover what is owed to holders, merchants and others
-- rows: posting, purse_record
SELECT 'posting', '1001 + 1002 + 1101 + 1102 + 1103', 'at least ' || owed || ' fen', held || ' fen'
  FROM (SELECT coalesce(sum(CASE WHEN debit_code IN (1001, 1002, 1101, 1102, 1103) THEN amount_fen ELSE 0 END
                            - CASE WHEN credit_code IN (1001, 1002, 1101, 1102, 1103) THEN amount_fen ELSE 0 END), 0) AS held,
               coalesce(sum(CASE WHEN credit_code IN (2001, 2002, 2003, 2101, 2102, 2201) THEN amount_fen ELSE 0 END
                            - CASE WHEN debit_code IN (2001, 2002, 2003, 2101, 2102, 2201) THEN amount_fen ELSE 0 END), 0) AS owed
          FROM (SELECT debit_code, credit_code, amount_fen FROM posting
                UNION ALL
                SELECT 2002, credit_code, amount_fen FROM purse_record WHERE result IN ('10', '00') AND amount_fen > 0) AS every
       ) AS sums
 WHERE held < owed
