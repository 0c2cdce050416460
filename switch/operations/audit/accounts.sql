-- Holders, cards and accounts. No card number leaves these queries: a card is named by its card_no.

-- name: account_balance
-- says: the balance of a holder's account is what its postings come to
-- rows: account, posting
WITH moved AS (
    SELECT shard, code, owner, sum(fen) AS fen
      FROM (SELECT shard, credit_code AS code, credit_owner AS owner, amount_fen AS fen
              FROM posting WHERE credit_code IN (2001, 2003)
            UNION ALL
            SELECT shard, debit_code, debit_owner, -amount_fen
              FROM posting WHERE debit_code IN (2001, 2003)) AS side
     GROUP BY shard, code, owner
)
SELECT CASE WHEN a.account_id IS NULL THEN 'posting' ELSE 'account' END,
       format('account %%s of %%s in shard %%s', coalesce(a.account_id, m.owner),
              coalesce(m.code, CASE a.kind WHEN 10 THEN 2001 ELSE 2003 END), coalesce(a.shard, m.shard)),
       CASE WHEN a.account_id IS NULL THEN 'an account' ELSE coalesce(m.fen, 0) || ' fen' END,
       coalesce(a.balance_fen || ' fen', 'none, and postings of ' || m.fen || ' fen')
  FROM (SELECT shard, account_id, kind, balance_fen, CASE kind WHEN 10 THEN 2001 ELSE 2003 END AS code FROM account) AS a
  FULL JOIN moved m ON m.shard = a.shard AND m.owner = a.account_id AND m.code = a.code
 WHERE a.account_id IS NULL OR a.balance_fen <> coalesce(m.fen, 0) OR a.balance_fen < 0

-- name: account_form
-- says: an account's number is its holder's and its kind, and PIN tries are within bounds
-- rows: account
SELECT 'account', format('account %%s in shard %%s', account_id, shard),
       'holder, then kind 10 or 40; 0 to 6 wrong PINs; a verifier of 16 bytes or none',
       format('holder %%s, kind %%s, %%s wrong PINs', holder_id, kind, pin_failures)
  FROM account
 WHERE account_id <> holder_id * 100 + kind OR kind NOT IN (10, 40) OR NOT pin_failures BETWEEN 0 AND 6
    OR length(pin_verifier) <> 16

-- name: account_holder
-- says: a holder's accounts lie in the shard of his cards
-- rows: account, card_route
SELECT 'account', format('account %%s in shard %%s', a.account_id, a.shard), 'a card of the holder in this shard',
       coalesce('cards in shard ' || r.shards, 'no card')
  FROM account a
  LEFT JOIN (SELECT holder_id, array_agg(DISTINCT shard) AS all_shards,
                    string_agg(DISTINCT shard::text, ', ') AS shards
               FROM card_route GROUP BY holder_id) AS r USING (holder_id)
 WHERE r.all_shards IS DISTINCT FROM ARRAY[a.shard]

-- name: card_routes
-- says: a card and the way to it agree on shard, holder and number
-- rows: card, card_route
SELECT CASE WHEN r.card_no IS NULL THEN 'card' ELSE 'card_route' END,
       'card_no ' || coalesce(r.card_no, c.card_no),
       coalesce(format('shard %%s, holder %%s, card_no %%s', c.shard, c.holder_id, c.card_no), 'a card'),
       coalesce(format('shard %%s, holder %%s, card_no %%s', r.shard, r.holder_id, r.card_no), 'no route')
  FROM card c
  FULL JOIN card_route r ON r.pan = c.pan
 WHERE (c.shard, c.holder_id, c.card_no) IS DISTINCT FROM (r.shard, r.holder_id, r.card_no)

-- name: card_state
-- says: a card is in the state in which its last noted change left it, with the instants of a loss report that were noted
-- rows: card, registry_change
WITH note AS MATERIALIZED (
    SELECT DISTINCT ON (n.subject) n.subject, n.change -> 'after' AS after
      FROM registry_change n
     WHERE n.subject ~ '^card [0-9]+$' AND n.change -> 'after' ? 'state'
     ORDER BY n.subject, n.change_no DESC
)
SELECT 'card', 'card_no ' || c.card_no,
       format('state %%s, lost at %%s, lapsing at %%s', n.after ->> 'state', n.after ->> 'lost_at', n.after ->> 'loss_lapses_at'),
       format('state %%s, lost at %%s, lapsing at %%s', c.state, c.lost_at, c.loss_lapses_at)
  FROM card c
  JOIN note n ON n.subject = 'card ' || c.card_no
 WHERE c.state <> (n.after ->> 'state')::integer
    OR (n.after ? 'lost_at' AND (c.lost_at, c.loss_lapses_at)
        IS DISTINCT FROM ((n.after ->> 'lost_at')::timestamptz, (n.after ->> 'loss_lapses_at')::timestamptz))

-- name: losses_kept
-- says: no purchase, pre-authorisation or load was approved for a card while a loss report of it was in force
-- rows: journal, card, registry_change
WITH note AS MATERIALIZED (
    SELECT substr(n.subject, 6)::bigint AS card_no, n.at, n.change -> 'after' AS after,
           lead(n.at) OVER (PARTITION BY n.subject ORDER BY n.change_no) AS until
      FROM registry_change n
     WHERE n.subject ~ '^card [0-9]+$' AND n.change -> 'after' ? 'state'
), report AS (
    SELECT r.pan, (n.after ->> 'lost_at')::timestamptz AS since, least((n.after ->> 'loss_lapses_at')::timestamptz, n.until) AS until
      FROM note n
      JOIN card_route r USING (card_no)
     WHERE n.after ->> 'lost_at' IS NOT NULL
    UNION ALL
    -- An import notes no instants: what the card says now is sure from its last note on.
    SELECT c.pan, greatest(c.lost_at, n.at), c.loss_lapses_at
      FROM card c
      LEFT JOIN note n ON n.card_no = c.card_no AND n.until IS NULL
     WHERE c.lost_at IS NOT NULL AND NOT coalesce(n.after ? 'lost_at', false)
)
SELECT DISTINCT 'journal', format('entry %%s in shard %%s', j.entry_no, j.shard), 'declined: the card was lost from ' || r.since,
       format('%%s fen approved at %%s', j.amount_fen, a.at)
  FROM report r
  JOIN journal j ON j.pan = r.pan
  LEFT JOIN host_leg h ON h.shard = j.shard AND h.ended_by = j.entry_no
 -- What a host decided was promised when it was asked: the report may have come before its answer.
 CROSS JOIN LATERAL (SELECT coalesce(h.asked_at, j.decided_at) AS at) AS a
 WHERE a.at >= r.since AND (r.until IS NULL OR a.at < r.until)
   AND j.business_date BETWEEN %(first)s AND %(last)s AND j.answer = '00' AND j.kind IN (1, 6, 11) AND j.account_id IS NOT NULL

-- name: holder_shards
-- says: all cards of a holder lie in one shard, the one that is noted with him
-- rows: card_route, holder
SELECT CASE WHEN h.shard IS NULL THEN 'card_route' ELSE 'holder' END, 'holder ' || r.holder_id,
       'shard ' || r.least, coalesce('shard ' || h.shard, 'also shard ' || r.most)
  FROM (SELECT holder_id, min(shard) AS least, max(shard) AS most FROM card_route GROUP BY holder_id) AS r
  LEFT JOIN holder h USING (holder_id)
 WHERE r.least <> r.most OR h.shard <> r.least

-- name: card_numbers
-- says: a card_no means one card, registered or stray
-- rows: card_route, purse_stray
SELECT 'purse_stray', 'card_no ' || s.card_no, 'the same card as the one registered under this number or card',
       'another one'
  FROM purse_stray s
  JOIN (SELECT card_no, pan::numeric AS number FROM card_route) AS r
    ON r.card_no = s.card_no OR r.number = CASE WHEN s.card < 0 THEN s.card + 18446744073709551616 ELSE s.card END
 WHERE r.card_no <> s.card_no
    OR r.number <> CASE WHEN s.card < 0 THEN s.card + 18446744073709551616 ELSE s.card END

-- name: openings_noted
-- says: accounts and purses opened with the money that the registry noted when the cards came
-- rows: registry_change, posting
WITH note AS MATERIALIZED (
    SELECT n.change_no, substr(n.subject, 6)::bigint AS card_no, n.change -> 'after' AS after
      FROM registry_change n
     WHERE n.subject ~ '^card [0-9]+$' AND n.change ->> 'before' IS NULL AND n.change -> 'after' IS NOT NULL
), said AS (
    SELECT 2002 AS code, card_no AS owner, change_no, (after ->> 'purse_opening_fen')::bigint AS fen
      FROM note WHERE after ? 'purse_opening_fen'
    UNION ALL
    -- Figures count for new accounts only; the first card of a holder opened those that it names.
    SELECT kind.code, first.holder_id * 100 + kind.number, first.change_no, (first.after ->> kind.field)::bigint
      FROM (SELECT DISTINCT ON (after ->> 'holder_id') change_no, after, (after ->> 'holder_id')::bigint AS holder_id
              FROM note ORDER BY after ->> 'holder_id', change_no) AS first
      JOIN (VALUES (2001, 10, 'online_opening_fen'), (2003, 40, 'medical_opening_fen'))
           AS kind (code, number, field) ON first.after ? kind.field
), opened AS (
    SELECT credit_code AS code, credit_owner AS owner, sum(amount_fen) AS fen
      FROM posting WHERE debit_code = 1001 AND credit_code IN (2001, 2002, 2003)
     GROUP BY credit_code, credit_owner
)
SELECT 'registry_change', format('change_no %%s, %%s of %%s', s.change_no, s.owner, s.code), coalesce(o.fen, 0) || ' fen posted',
       s.fen || ' fen noted'
  FROM said s LEFT JOIN opened o USING (code, owner)
 WHERE s.fen <> coalesce(o.fen, 0)
