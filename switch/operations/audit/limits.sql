-- Windows of limits. What counts: purchases (1) and pre-authorisations (6), but for those that a reversal (5) or a standing void (3, 7)
-- has undone, and but for what a host decided; of a purchase that two accounts paid each account's share.

-- name: limit_windows
-- says: a window counts what was spent on its day and in its month, since the account's limits began, and was not undone
-- rows: limit_window, journal
WITH @paid
, undoing AS MATERIALIZED (
    SELECT shard, entry_no, kind, original_entry FROM journal
     WHERE answer = '00' AND kind IN (3, 5, 7) AND original_entry IS NOT NULL
), undone AS (
    SELECT DISTINCT u.shard, u.original_entry AS entry_no
      FROM undoing u
      LEFT JOIN (SELECT DISTINCT shard, original_entry AS entry_no FROM undoing WHERE kind = 5) AS r USING (shard, entry_no)
     WHERE r.entry_no IS NULL
), spent AS (
    SELECT j.shard, j.account_id, j.business_date, j.amount_fen, u.entry_no IS NULL AS counts
      FROM paid j
      JOIN account a ON a.shard = j.shard AND a.account_id = j.account_id AND j.business_date >= a.limited_from
      LEFT JOIN undone u ON u.shard = j.shard AND u.entry_no = j.entry_no
), last AS (
    SELECT shard, account_id, max(business_date) AS day FROM spent GROUP BY shard, account_id
), want AS (
    SELECT shard, account_id, l.day AS spent_on, coalesce(w.day, l.day) AS day
      FROM last l FULL JOIN limit_window w USING (shard, account_id)
), sums AS (
    SELECT n.shard, n.account_id, n.day, n.spent_on,
           coalesce(sum(s.amount_fen) FILTER (WHERE s.counts AND s.business_date = n.day), 0)::bigint AS day_fen,
           count(*) FILTER (WHERE s.counts AND s.business_date = n.day)::integer AS day_count,
           coalesce(sum(s.amount_fen) FILTER (WHERE s.counts AND date_trunc('month', s.business_date) = date_trunc('month', n.day)), 0)::bigint
               AS month_fen,
           count(*) FILTER (WHERE s.counts AND date_trunc('month', s.business_date) = date_trunc('month', n.day))::integer AS month_count
      FROM want n
      LEFT JOIN spent s USING (shard, account_id)
     GROUP BY n.shard, n.account_id, n.day, n.spent_on
)
SELECT 'limit_window', format('account %%s in shard %%s', s.account_id, s.shard),
       CASE WHEN s.spent_on > w.day THEN 'a day not before ' || s.spent_on
            ELSE format('%%s fen in %%s on %%s, %%s fen in %%s in its month', s.day_fen, s.day_count, s.day, s.month_fen, s.month_count) END,
       CASE WHEN w.day IS NULL THEN 'no window'
            ELSE format('%%s fen in %%s on %%s, %%s fen in %%s in its month', w.day_fen, w.day_count, w.day, w.month_fen, w.month_count) END
  FROM sums s
  LEFT JOIN limit_window w USING (shard, account_id)
 WHERE w.day IS NULL OR s.spent_on > w.day
    OR (w.day_fen, w.day_count, w.month_fen, w.month_count) IS DISTINCT FROM (s.day_fen, s.day_count, s.month_fen, s.month_count)

-- name: limits_kept
-- says: nothing was approved above the limit per transaction that was in force for its account and card
-- rows: journal, limit_rule
WITH @paid,
@limited
SELECT 'journal', format('entry %%s in shard %%s', entry_no, shard), format('at most %%s fen, limit %%s', transaction_fen, rule_no),
       format('%%s fen approved', amount_fen)
  FROM limited
 WHERE sure AND amount_fen > transaction_fen

-- name: day_limits_kept
-- says: on a day of which nothing was undone, no more was approved for an account than the limit of the day that was in force
-- rows: journal, limit_rule
-- What is undone opens room, and an undone void may go beyond the limit; such a day says nothing. Nor does one of cards of several classes.
WITH @paid,
@limited, undone AS (
    SELECT DISTINCT shard, original_entry AS entry_no FROM journal
     WHERE answer = '00' AND kind IN (3, 5, 7) AND original_entry IS NOT NULL
)
SELECT 'journal', format('account %%s in shard %%s on %%s', l.account_id, l.shard, l.business_date),
       format('at most %%s fen in %%s, limit %%s', coalesce(min(l.day_fen)::text, 'any'), coalesce(min(l.day_count)::text, 'any number'),
              min(l.rule_no)),
       format('%%s fen in %%s approved', sum(l.amount_fen), count(*))
  FROM limited l
  LEFT JOIN undone u USING (shard, entry_no)
 GROUP BY l.shard, l.account_id, l.business_date
HAVING bool_and(l.sure) AND count(u.entry_no) = 0 AND count(l.rule_no) = count(*) AND min(l.rule_no) = max(l.rule_no)
   AND (sum(l.amount_fen) > min(l.day_fen) OR count(*) > min(l.day_count))

-- name: limited_accounts
-- says: where there are limits for a kind of account, all of its accounts are counted, and no others
-- rows: account, limit_rule
SELECT 'account', format('account %%s in shard %%s', a.account_id, a.shard),
       CASE WHEN r.kind IS NULL THEN 'not counted' ELSE 'counted from a business day on' END,
       coalesce('counted from ' || a.limited_from, 'not counted')
  FROM account a
  LEFT JOIN (SELECT DISTINCT account_kind AS kind FROM limit_rule) AS r ON r.kind = a.kind
 WHERE (r.kind IS NULL) <> (a.limited_from IS NULL)

-- name: limit_rules
-- says: a limit is what was noted when it was set, or when its end was
-- rows: limit_rule, registry_change
SELECT 'limit_rule', 'limit ' || r.rule_no, coalesce(n.after::text, 'a note'), (to_jsonb(r) - 'rule_no')::text
  FROM limit_rule r
  LEFT JOIN (SELECT DISTINCT ON (subject) subject, change -> 'after' AS after
               FROM registry_change WHERE subject ~ '^limit [0-9]+$' ORDER BY subject, change_no DESC) AS n
    ON n.subject = 'limit ' || r.rule_no
 WHERE n.after IS DISTINCT FROM to_jsonb(r) - 'rule_no'
