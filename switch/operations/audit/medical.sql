-- Purchases from the medical account (2003) under a policy: how they were divided with the online account (2001), and what was counted.

-- name: purchase_splits
-- says: a purchase from the medical account was divided as the row of the policy in force said, by what had been covered before it
-- rows: purchase_split, journal, medical_policy
WITH @shared
, used AS (
    SELECT shard, entry_no, root_no,
           coalesce(sum(medical_fen) OVER (PARTITION BY shard, account_id, root_date ORDER BY decided_at, entry_no
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS day_fen,
           coalesce(sum(medical_fen) OVER (PARTITION BY shard, account_id, date_trunc('year', root_date) ORDER BY decided_at, entry_no
                                           ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS year_fen
      FROM share
), want AS (
    SELECT s.shard, s.entry_no,
           greatest(0, least(j.amount_fen - (j.amount_fen * p.own_pay_ppm + 500000) / 1000000, p.transaction_fen,
                             p.day_fen - u.day_fen, p.year_fen - u.year_fen)) AS medical_fen,
           j.amount_fen, p.splits, j.business_date BETWEEN p.valid_from AND coalesce(p.valid_to, 'infinity') AS in_force,
           (s.business_date, s.account_id) = (j.business_date, j.account_id) AS fits,
           EXISTS (SELECT FROM registry_change n
                    WHERE n.subject = 'medical policy ' || p.policy_no
                      AND n.at BETWEEN j.decided_at - interval '1 minute' AND j.decided_at + interval '1 minute') AS unsure
      FROM purchase_split s
      JOIN journal j ON j.shard = s.shard AND j.entry_no = s.entry_no AND j.kind = 1 AND j.answer = '00'
      JOIN medical_policy p ON p.policy_no = s.policy_no
      JOIN used u ON u.shard = s.shard AND u.entry_no = s.entry_no AND u.root_no = s.entry_no
)
SELECT 'purchase_split', format('entry %%s in shard %%s', s.entry_no, s.shard),
       CASE WHEN w.entry_no IS NULL THEN 'an approved purchase of its day, and a row of the policy'
            WHEN NOT w.fits THEN 'day and account of the purchase'
            WHEN NOT w.in_force THEN 'a row of the policy in force on ' || s.business_date
            WHEN w.medical_fen < w.amount_fen AND NOT w.splits THEN 'a refusal'
            ELSE format('%%s fen covered, %%s fen own', w.medical_fen, w.amount_fen - w.medical_fen) END,
       format('%%s fen covered, %%s fen own, row %%s', s.medical_fen, s.own_fen, s.policy_no)
  FROM purchase_split s
  LEFT JOIN want w USING (shard, entry_no)
 WHERE w.entry_no IS NULL OR NOT w.fits OR NOT (w.in_force OR w.unsure) OR (w.medical_fen < w.amount_fen AND NOT w.splits)
    OR (s.medical_fen, s.own_fen) <> (w.medical_fen, w.amount_fen - w.medical_fen)

-- name: purchases_divided
-- says: since there is a policy, no purchase was paid from the medical account without being divided by it
-- rows: journal, posting, purchase_split
WITH begun AS MATERIALIZED (
    SELECT min(p.valid_from) AS day, min(n.at) + interval '1 minute' AS seen_at
      FROM medical_policy p LEFT JOIN registry_change n ON n.subject = 'medical policy ' || p.policy_no
)
SELECT 'journal', format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard), 'divided by the policy', 'not divided'
  FROM begun
  JOIN journal j ON j.business_date >= begun.day AND j.decided_at > begun.seen_at AND j.kind = 1 AND j.answer = '00'
  JOIN posting p ON p.shard = j.shard AND p.business_date = j.business_date AND p.entry_no = j.entry_no AND p.debit_code = 2003
  LEFT JOIN purchase_split s ON s.shard = j.shard AND s.entry_no = j.entry_no
 WHERE j.business_date BETWEEN %(first)s AND %(last)s AND s.entry_no IS NULL

-- name: split_postings
-- says: what moves a divided purchase has a posting for each share that is not zero: first the medical account's, then the online account's
-- rows: posting, purchase_split, journal
WITH @shared
, want AS (
    SELECT s.shard, s.business_date, s.entry_no, s.kind, s.effect_fen, s.merchant_no, leg.code, leg.owner, leg.fen,
           row_number() OVER (PARTITION BY s.shard, s.entry_no ORDER BY leg.code DESC) - 1 AS line
      FROM share s
     CROSS JOIN LATERAL (VALUES (2003, s.account_id, abs(s.medical_fen)), (2001, s.account_id - 30, abs(s.own_fen))) AS leg (code, owner, fen)
     WHERE leg.fen <> 0
), have AS (
    SELECT p.*
      FROM posting p
      JOIN (SELECT DISTINCT shard, business_date, entry_no FROM share) AS s USING (shard, business_date, entry_no)
)
SELECT 'posting', format('entry %%s of %%s in shard %%s, line %%s', coalesce(p.entry_no, w.entry_no), coalesce(p.business_date, w.business_date),
                         coalesce(p.shard, w.shard), coalesce(p.line, w.line)),
       CASE WHEN w.entry_no IS NULL THEN 'no such line'
            WHEN w.effect_fen > 0 THEN format('%%s fen from %%s/%%s to 2101/%%s', w.fen, w.code, w.owner, w.merchant_no)
            ELSE format('%%s fen from 2101/%%s to %%s/%%s or 2201/0', w.fen, w.merchant_no, w.code, w.owner) END,
       CASE WHEN p.entry_no IS NULL THEN 'no posting'
            ELSE format('%%s fen from %%s/%%s to %%s/%%s', p.amount_fen, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner) END
  FROM want w
  FULL JOIN have p ON p.shard = w.shard AND p.business_date = w.business_date AND p.entry_no = w.entry_no AND p.line = w.line
 WHERE w.entry_no IS NULL OR p.entry_no IS NULL OR p.amount_fen <> w.fen
    OR CASE WHEN w.effect_fen > 0
            THEN (p.credit_code, p.credit_owner) IS DISTINCT FROM (2101, w.merchant_no)
                 -- What was given back of a cancelled card lies in suspense, and is collected from there.
                 OR ((p.debit_code, p.debit_owner) IS DISTINCT FROM (w.code, w.owner) AND NOT (w.kind IN (15, 17) AND (p.debit_code, p.debit_owner) = (2201, 0)))
            ELSE (p.debit_code, p.debit_owner) IS DISTINCT FROM (2101, w.merchant_no)
                 OR ((p.credit_code, p.credit_owner) IS DISTINCT FROM (w.code, w.owner) AND (p.credit_code, p.credit_owner) <> (2201, 0)) END

-- name: medical_windows
-- says: what a medical account has covered on its day and in that year is what its divided purchases gave, less what came back of them
-- rows: medical_window, purchase_split, journal
WITH @shared
, last AS (
    SELECT shard, account_id, max(root_date) AS day FROM share GROUP BY shard, account_id
), want AS (
    SELECT shard, account_id, l.day AS paid_on, coalesce(w.day, l.day) AS day
      FROM last l FULL JOIN medical_window w USING (shard, account_id)
), sums AS (
    SELECT n.shard, n.account_id, n.day, n.paid_on, coalesce(sum(s.medical_fen) FILTER (WHERE s.root_date = n.day), 0)::bigint AS day_fen,
           coalesce(sum(s.medical_fen) FILTER (WHERE date_trunc('year', s.root_date) = date_trunc('year', n.day)), 0)::bigint AS year_fen
      FROM want n
      LEFT JOIN share s USING (shard, account_id)
     GROUP BY n.shard, n.account_id, n.day, n.paid_on
)
SELECT 'medical_window', format('account %%s in shard %%s', s.account_id, s.shard),
       CASE WHEN s.paid_on > w.day THEN 'a day not before ' || s.paid_on
            ELSE format('%%s fen on %%s, %%s fen in its year', s.day_fen, s.day, s.year_fen) END,
       CASE WHEN w.day IS NULL THEN 'no window' ELSE format('%%s fen on %%s, %%s fen in its year', w.day_fen, w.day, w.year_fen) END
  FROM sums s
  LEFT JOIN medical_window w USING (shard, account_id)
 WHERE w.day IS NULL OR s.paid_on > w.day OR (w.day_fen, w.year_fen) IS DISTINCT FROM (s.day_fen, s.year_fen)

-- name: medical_policies
-- says: a row of the medical policy is what was noted when it was set, or when its end was
-- rows: medical_policy, registry_change
SELECT 'medical_policy', 'medical policy ' || coalesce(p.policy_no::text, substr(n.subject, 16)), coalesce(n.after::text, 'a note'),
       coalesce((to_jsonb(p) - 'policy_no')::text, 'no row')
  FROM medical_policy p
  FULL JOIN (SELECT DISTINCT ON (subject) subject, change -> 'after' AS after
               FROM registry_change WHERE subject ~ '^medical policy [0-9]+$' ORDER BY subject, change_no DESC) AS n
    ON n.subject = 'medical policy ' || p.policy_no
 WHERE n.after IS DISTINCT FROM to_jsonb(p) - 'policy_no'
