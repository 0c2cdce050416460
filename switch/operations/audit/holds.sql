-- Pre-authorisations and what became of them. Kinds: 6 pre-authorisation, 7 its void, 8 completion, 9 completion void,
-- 10 completion advice, 5 reversal of any of these.

-- name: holds
-- says: each approved pre-authorisation has its hold: amount and last day as booked, completed in its time, ended by what ended it, else open or expired
-- rows: hold, journal
WITH family AS MATERIALIZED (
    SELECT shard, entry_no, kind, original_entry, account_id, amount_fen, decided_at, business_date
      FROM journal
     WHERE answer = '00' AND (kind = 6 OR (kind IN (5, 7, 8, 9, 10) AND original_entry IS NOT NULL))
), reversed AS (
    SELECT shard, original_entry AS entry_no, min(entry_no) AS reversal FROM family WHERE kind = 5 GROUP BY shard, original_entry
), standing AS (
    SELECT f.* FROM family f LEFT JOIN reversed r USING (shard, entry_no) WHERE r.reversal IS NULL
), ending AS (
    -- A completion that was voided counts no more, unless the void was reversed.
    SELECT s.shard, s.original_entry AS hold_entry, min(s.entry_no) AS ended_by, count(*) AS times
      FROM standing s
      LEFT JOIN (SELECT DISTINCT shard, original_entry AS entry_no FROM standing WHERE kind = 9) AS v USING (shard, entry_no)
     WHERE s.kind IN (7, 8, 10) AND v.entry_no IS NULL
     GROUP BY s.shard, s.original_entry
), undoing AS (
    SELECT e.shard, e.original_entry AS hold_entry, array_agg(u.entry_no) AS entries
      FROM family e JOIN family u ON u.shard = e.shard AND u.original_entry = e.entry_no AND u.kind IN (5, 9)
     WHERE e.kind IN (7, 8, 10)
     GROUP BY e.shard, e.original_entry
), completed AS (
    SELECT shard, original_entry AS hold_entry, (array_agg(entry_no ORDER BY decided_at DESC, entry_no DESC))[1] AS completed_by,
           max(decided_at) AS completed_at
      FROM family WHERE kind IN (8, 10) GROUP BY shard, original_entry
), want AS (
    SELECT p.shard, p.entry_no, p.business_date, p.account_id, p.amount_fen, r.reversal, e.ended_by, e.times, u.entries, c.completed_by, c.completed_at,
           date_trunc('day', p.decided_at AT TIME ZONE 'UTC' + interval '8 hours') + interval '31 days' - interval '8 hours' AS expires_at
      FROM family p
      LEFT JOIN reversed r ON r.shard = p.shard AND r.entry_no = p.entry_no
      LEFT JOIN ending e ON e.shard = p.shard AND e.hold_entry = p.entry_no
      LEFT JOIN undoing u ON u.shard = p.shard AND u.hold_entry = p.entry_no
      LEFT JOIN completed c ON c.shard = p.shard AND c.hold_entry = p.entry_no
     WHERE p.kind = 6
)
SELECT 'hold', format('entry %%s in shard %%s', coalesce(h.entry_no, w.entry_no), coalesce(h.shard, w.shard)), f.fault,
       CASE WHEN h.entry_no IS NULL THEN 'no hold'
            ELSE format('%%s fen of %%s for account %%s, %%s frozen until %%s, ended by %%s, completed by %%s', h.amount_fen, h.business_date,
                        h.account_id, h.frozen_fen, h.expires_at, coalesce(h.ended_by::text, 'nothing'),
                        coalesce(h.completed_by::text, 'nothing')) END
  FROM hold h
  FULL JOIN want w ON w.shard = h.shard AND w.entry_no = h.entry_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN w.entry_no IS NULL THEN 'no hold: no approved pre-authorisation of this number'
       WHEN h.entry_no IS NULL OR (h.business_date, h.account_id, h.amount_fen, h.expires_at AT TIME ZONE 'UTC')
                                  IS DISTINCT FROM (w.business_date, w.account_id, w.amount_fen, w.expires_at)
            THEN format('%%s fen of %%s for account %%s until %%s', w.amount_fen, w.business_date, w.account_id, w.expires_at)
       WHEN w.times > 1 OR (w.reversal IS NOT NULL AND w.ended_by IS NOT NULL) THEN 'one end, not more'
       WHEN h.completed_by IS DISTINCT FROM w.completed_by THEN 'completed by ' || coalesce(w.completed_by::text, 'nothing')
       WHEN w.completed_at >= w.expires_at THEN 'no completion after its last day, and one came at ' || w.completed_at
       WHEN w.ended_by IS NOT NULL AND h.ended_by IS DISTINCT FROM w.ended_by THEN 'ended by ' || w.ended_by
       WHEN h.ended_by = 0 AND h.expires_at > transaction_timestamp() THEN 'not expired'
       WHEN w.reversal IS NOT NULL AND h.ended_by IS DISTINCT FROM w.reversal AND h.ended_by IS DISTINCT FROM 0
            THEN 'ended by ' || w.reversal
       -- Where the account was closed meanwhile, undoing a completion or void leaves its hold ended, by itself.
       WHEN w.ended_by IS NULL AND w.reversal IS NULL AND h.ended_by <> 0 AND NOT h.ended_by = ANY(coalesce(w.entries, '{}'))
            THEN 'open or expired'
       WHEN h.ended_by IS NOT NULL AND h.frozen_fen <> 0 THEN 'nothing frozen after its end'
       WHEN h.ended_by IS NULL AND w.entries IS NULL AND h.frozen_fen <> h.amount_fen THEN 'all of it frozen'
       WHEN NOT h.frozen_fen BETWEEN 0 AND h.amount_fen THEN 'at most its amount frozen'
       END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: held
-- says: what an account says is held is the sum of its open holds, none of which expires before the instant it names
-- rows: account, hold
SELECT 'account', format('account %%s in shard %%s', coalesce(a.account_id, h.account_id), coalesce(a.shard, h.shard)),
       format('%%s fen held, due by %%s, of at least as much', coalesce(h.fen, 0), coalesce(h.due::text, 'nothing')),
       coalesce(format('%%s fen held, due by %%s, of %%s', a.held_fen, coalesce(a.holds_due::text, 'nothing'), a.balance_fen), 'no account')
  FROM account a
  FULL JOIN (SELECT shard, account_id, sum(frozen_fen) AS fen, min(expires_at) AS due
               FROM hold WHERE ended_by IS NULL GROUP BY shard, account_id) AS h USING (shard, account_id)
 WHERE a.held_fen IS DISTINCT FROM coalesce(h.fen, 0) OR a.held_fen > a.balance_fen
    OR (h.due IS NOT NULL AND (a.holds_due IS NULL OR a.holds_due > h.due))
