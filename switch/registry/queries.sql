-- Queries of the hot tables of the registry: terminals, their sessions, and the way from a card number to its shard.

-- name: terminals_by_id
-- One statement, so that keys, generation and batch of a terminal are of one moment. Current key set first, then those
-- that wait for their first good MAC, the youngest of them first: it is the likeliest. Then what the terminal is to be asked for, NULL where
-- nothing is: the parameters to fetch, the hot list to fetch, and its status, wanted once a day (20 hours, as it signs on once a day at no fixed hour).
SELECT t.terminal_id, t.terminal_no, m.merchant_no, m.merchant_id, m.acquirer_id, t.mac_algorithm,
       t.state = 'ACTIVE', m.state = 'ACTIVE',
       coalesce(s.batch_no, 0), b.opened_on, coalesce(s.generation, 0),
       k.generation, k.keys, extract(epoch FROM k.drawn_at)::float8, m.category,
       nullif(v.version, u.parameters_held), nullif(coalesce(h.version, 0), coalesce(u.hot_list_held, 0)),
       CASE WHEN u.reported_at IS NULL OR u.reported_at < clock_timestamp() - interval '20 hours'
            THEN coalesce(extract(epoch FROM u.reported_at), 0)::bigint END,
       t.cash_loads
  FROM terminal t
  JOIN merchant m ON m.merchant_no = t.merchant_no
  LEFT JOIN terminal_session s ON s.terminal_no = t.terminal_no
  LEFT JOIN terminal_batch b ON b.terminal_no = t.terminal_no AND b.batch_no = s.batch_no
  LEFT JOIN terminal_key_set k ON k.terminal_no = t.terminal_no AND k.generation >= s.generation
  LEFT JOIN terminal_status u ON u.terminal_no = t.terminal_no
  LEFT JOIN LATERAL list_due('HOT', t.terminal_no, t.slot, coalesce(u.hot_list_held, 0)) h ON true
 CROSS JOIN LATERAL parameters_due(t.terminal_no, m.category, t.slot) v
 WHERE t.terminal_id = ANY(%(terminal_ids)b)
 ORDER BY t.terminal_no, k.generation = s.generation DESC, k.generation DESC

-- name: terminal_public_key
SELECT sm2_public_key FROM terminal WHERE terminal_no = %(terminal_no)b

-- name: merchants_by_id
SELECT merchant_id, state = 'ACTIVE'
  FROM merchant
 WHERE merchant_id = ANY(%(merchant_ids)b)

-- name: batches_opened_on
SELECT w.terminal_no, w.batch_no, b.opened_on
  FROM unnest(%(terminal_nos)b::integer[], %(batch_nos)b::integer[]) AS w (terminal_no, batch_no)
  JOIN terminal_batch b ON b.terminal_no = w.terminal_no AND b.batch_no = w.batch_no

-- name: make_session
INSERT INTO terminal_session (terminal_no) VALUES (%(terminal_no)b) ON CONFLICT DO NOTHING

-- name: lock_session
SELECT generation, last_generation, batch_no
  FROM terminal_session
 WHERE terminal_no = %(terminal_no)b
   FOR UPDATE

-- name: sign_on_facts
-- Read after the lock: the entry that the caller holds may be old, and so may the end of the day.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS instant)
SELECT t.state = 'ACTIVE', m.state = 'ACTIVE', t.mac_algorithm, b.state, d.business_date
  FROM clock
  CROSS JOIN terminal t
  JOIN merchant m ON m.merchant_no = t.merchant_no
  LEFT JOIN terminal_batch b ON b.terminal_no = t.terminal_no AND b.batch_no = %(batch_no)b
  LEFT JOIN business_day d ON d.begins_at <= clock.instant AND clock.instant < d.ends_at
 WHERE t.terminal_no = %(terminal_no)b

-- name: open_batch
-- The number may have been used 999 999 batches ago; that batch is closed and makes room.
INSERT INTO terminal_batch (terminal_no, batch_no, opened_on)
VALUES (%(terminal_no)b, %(batch_no)b, %(opened_on)b)
    ON CONFLICT (terminal_no, batch_no) DO UPDATE
   SET opened_on = excluded.opened_on, state = 0, settled_at = NULL, claimed = NULL, computed = NULL, closed_at = NULL

-- name: add_key_set
INSERT INTO terminal_key_set (terminal_no, generation, keys, drawn_at)
VALUES (%(terminal_no)b, %(generation)b, %(keys)b, clock_timestamp())

-- name: drop_surplus_key_sets
-- The youngest few wait; the one that serves stays whatever waits.
DELETE FROM terminal_key_set
 WHERE terminal_no = %(terminal_no)b
   AND generation > %(current)b
   AND generation <= %(last)b - %(pending_max)b

-- name: note_sign_on
UPDATE terminal_session
   SET last_generation = %(generation)b, batch_no = %(batch_no)b, signed_on_at = clock_timestamp()
 WHERE terminal_no = %(terminal_no)b

-- name: promote_key_set
UPDATE terminal_session s
   SET generation = %(generation)b
 WHERE terminal_no = %(terminal_no)b
   AND generation < %(generation)b
   AND EXISTS (SELECT FROM terminal_key_set k WHERE k.terminal_no = s.terminal_no AND k.generation = %(generation)b)

-- name: drop_older_key_sets
DELETE FROM terminal_key_set
 WHERE terminal_no = %(terminal_no)b
   AND generation < (SELECT generation FROM terminal_session WHERE terminal_no = %(terminal_no)b)

-- name: end_session
-- The next number becomes the generation that serves, and no keys are stored under it: what was checked under older keys
-- and is still on its way counts as old.
UPDATE terminal_session
   SET generation = last_generation + 1, last_generation = last_generation + 1
 WHERE terminal_no = %(terminal_no)b

-- name: announce_terminal
SELECT pg_notify('registry', 'terminal:' || terminal_id) FROM terminal WHERE terminal_no = %(terminal_no)b

-- name: routes_by_pan
SELECT pan, shard, holder_id, card_no
  FROM card_route
 WHERE pan = ANY(%(pans)b)
