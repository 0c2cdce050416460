-- Cards of an import: `staged_cards` becomes `planned_card` (one row each, with holder, shard and card_no settled),
-- `planned_account` (accounts that the files open) and `opening` (their first postings). Opening figures count for new
-- accounts only, so that the same file can come again.

-- name: match_cards
-- A card is matched by its number, a holder by a known card or by the operator's key. Offline records may have come before
-- the card itself: then its number is settled already (purse_stray).
CREATE TEMP TABLE matched_card ON COMMIT DROP AS
SELECT s.*, r.holder_id AS route_holder, r.card_no AS known_card_no, h.holder_id AS key_holder,
       coalesce(r.shard, h.shard) AS known_shard, t.card_no AS stray_card_no, t.shard AS stray_shard,
       CASE WHEN s.holder IS NULL THEN 'card ' || s.pan ELSE 'key ' || s.holder END AS holder_group
  FROM staged_cards s
  LEFT JOIN card_route r ON r.pan = s.pan
  LEFT JOIN holder h ON h.holder_key = s.holder
  LEFT JOIN purse_stray t ON t.card = card_key(s.pan)

-- name: check_holder
SELECT m.file_no, m.place, 'holder', 'the card belongs to another holder'
  FROM matched_card m
 WHERE m.route_holder <> m.key_holder
    OR EXISTS (SELECT FROM holder h WHERE h.holder_id = m.route_holder AND h.holder_key <> m.holder)
UNION ALL
SELECT m.file_no, m.place, 'holder', 'the cards with this key belong to several holders'
  FROM matched_card m
  JOIN (SELECT holder_group FROM matched_card GROUP BY holder_group HAVING count(DISTINCT route_holder) > 1) g
    ON g.holder_group = m.holder_group
 WHERE m.key_holder IS NULL

-- name: check_openings
-- Cards of one holder share his accounts, so their figures must agree.
SELECT m.file_no, m.place, g.field, 'differs from that of another card of the same holder'
  FROM matched_card m
  JOIN (SELECT holder_group, 'online_opening_fen' AS field, min(online_opening_fen) AS least FROM matched_card
         GROUP BY holder_group HAVING min(online_opening_fen) <> max(online_opening_fen)
        UNION ALL
        SELECT holder_group, 'medical_opening_fen', min(medical_opening_fen) FROM matched_card
         GROUP BY holder_group HAVING min(medical_opening_fen) <> max(medical_opening_fen)) g
    ON g.holder_group = m.holder_group
 WHERE CASE g.field WHEN 'online_opening_fen' THEN m.online_opening_fen ELSE m.medical_opening_fen END <> g.least

-- name: plan_cards
-- New holders are numbered; their number gives the shard, so that shards fill evenly. Both are kept for ever.
CREATE TEMP TABLE planned_card ON COMMIT DROP AS
WITH grouped AS (
    SELECT holder_group, max(holder) AS holder_key, max(coalesce(route_holder, key_holder)) AS known_holder,
           coalesce(max(known_shard), max(stray_shard)) AS known_shard
      FROM matched_card
     GROUP BY holder_group
), numbered AS MATERIALIZED (
    SELECT g.*, coalesce(g.known_holder, nextval('holder_no')) AS holder_id FROM grouped g
)
SELECT m.*, n.holder_id, n.holder_key,
       coalesce(n.known_shard, n.holder_id %% %(shards)s)::smallint AS shard,
       coalesce(m.known_card_no, m.stray_card_no, nextval('card_no')) AS card_no
  FROM matched_card m
  JOIN numbered n ON n.holder_group = m.holder_group

-- name: plan_accounts
CREATE TEMP TABLE planned_account ON COMMIT DROP AS
SELECT p.shard, p.holder_id, p.kind::smallint, p.holder_id * 100 + p.kind AS account_id, p.opening_fen,
       a.account_id IS NULL AS is_new
  FROM (SELECT shard, holder_id, 10 AS kind, min(online_opening_fen) AS opening_fen
          FROM planned_card WHERE online_opening_fen IS NOT NULL GROUP BY shard, holder_id
        UNION ALL
        SELECT shard, holder_id, 40, min(medical_opening_fen)
          FROM planned_card WHERE medical_opening_fen IS NOT NULL GROUP BY shard, holder_id) p
  LEFT JOIN account a ON a.shard = p.shard AND a.account_id = p.holder_id * 100 + p.kind

-- name: plan_purses
CREATE TEMP TABLE planned_purse ON COMMIT DROP AS
SELECT c.shard, c.holder_id, c.card_no, c.asn, c.purse_opening_fen, c.purse_online_atc, c.purse_offline_atc
  FROM planned_card c
  LEFT JOIN purse p ON p.shard = c.shard AND p.card_no = c.card_no
 WHERE c.purse_opening_fen IS NOT NULL
   AND (p.card_no IS NULL OR c.known_card_no IS NULL)

-- name: analyze_plans
ANALYZE planned_card, planned_account, planned_purse

-- name: analyze_pins
ANALYZE planned_pin

-- name: pin_accounts
-- Which accounts a PIN in the files is for: all of the card's holder, no matter which card it came with.
SELECT c.file_no, c.place, a.shard, a.account_id
  FROM planned_card c
  LEFT JOIN LATERAL (
       SELECT n.shard, n.account_id FROM planned_account n WHERE n.holder_id = c.holder_id AND n.is_new
       UNION ALL
       SELECT o.shard, o.account_id FROM account o
        WHERE o.shard = c.shard AND o.account_id IN (c.holder_id * 100 + 10, c.holder_id * 100 + 40)) a ON true
 WHERE c.has_pin

-- name: index_accounts
CREATE INDEX ON planned_account (holder_id)

-- name: make_pins
CREATE TEMP TABLE planned_pin (shard smallint, account_id bigint, verifier bytea) ON COMMIT DROP

-- name: copy_pins
COPY planned_pin (shard, account_id, verifier) FROM STDIN (FORMAT BINARY)

-- name: save_holders
INSERT INTO holder (holder_id, holder_key, shard)
SELECT DISTINCT holder_id, holder_key, shard FROM planned_card WHERE holder_key IS NOT NULL
    ON CONFLICT (holder_id) DO NOTHING

-- name: save_routes
INSERT INTO card_route (pan, shard, holder_id, card_no)
SELECT pan, shard, holder_id, card_no FROM planned_card WHERE known_card_no IS NULL

-- name: note_new_cards
INSERT INTO registry_change (actor, subject, change)
SELECT %(actor)s, 'card ' || card_no,
       jsonb_build_object('before', NULL, 'after', jsonb_strip_nulls(jsonb_build_object(
           'holder_id', holder_id, 'state', state, 'valid_from', valid_from, 'valid_through', valid_through,
           'online_opening_fen', online_opening_fen, 'medical_opening_fen', medical_opening_fen,
           'purse_opening_fen', purse_opening_fen, 'purse_online_atc', purse_online_atc,
           'purse_offline_atc', purse_offline_atc)))
  FROM planned_card
 WHERE known_card_no IS NULL

-- name: save_new_cards
-- A loss report takes effect at the instant of its booking, never before.
INSERT INTO card (shard, pan, card_no, holder_id, state, valid_from, valid_through, lost_at, loss_lapses_at)
SELECT shard, pan, card_no, holder_id, state, valid_from, valid_through,
       CASE WHEN state IN (2, 3) THEN clock_timestamp() END,
       CASE WHEN state = 2 THEN loss_lapses(clock_timestamp()) END
  FROM planned_card
 WHERE known_card_no IS NULL

-- name: save_accounts
-- With the limits of the moment; count_new_accounts adds what is set until the end.
INSERT INTO account (shard, account_id, holder_id, kind, balance_fen, pin_verifier, limited_from)
SELECT a.shard, a.account_id, a.holder_id, a.kind, a.opening_fen, p.verifier,
       (SELECT min(valid_from) FROM limit_rule WHERE account_kind = a.kind)
  FROM planned_account a
  LEFT JOIN planned_pin p ON p.account_id = a.account_id
 WHERE a.is_new

-- name: save_purses
-- Of a card whose records came first, the counters have gone on already.
INSERT INTO purse (shard, card_no, asn, loaded_fen, online_atc, next_atc)
SELECT shard, card_no, asn, purse_opening_fen, purse_online_atc, purse_offline_atc FROM planned_purse
    ON CONFLICT (shard, card_no) DO UPDATE
   SET loaded_fen = purse.loaded_fen + excluded.loaded_fen,
       online_atc = greatest(purse.online_atc, excluded.online_atc),
       next_atc = greatest(purse.next_atc, excluded.next_atc)

-- name: make_following
CREATE TEMP TABLE following_state ON COMMIT DROP AS
SELECT * FROM unnest(%(before)s::smallint[], %(after)s::smallint[]) AS f (before, after)

-- name: card_changes
-- What an import would change of the known cards among {cards}. A file's state counts where it can follow the card's own: an old
-- file neither lifts a loss nor mends a damaged card. A report that has lapsed counts for nothing: that card is ACTIVE.
SELECT p.shard, p.pan, p.card_no, p.holder_id, n.state, p.valid_from, p.valid_through, l.lapsed,
       jsonb_build_object('state', c.state, 'valid_from', c.valid_from, 'valid_through', c.valid_through) AS before,
       jsonb_build_object('state', n.state, 'valid_from', p.valid_from, 'valid_through', p.valid_through) AS after
  FROM {cards} p
  JOIN card c ON c.shard = p.shard AND c.pan = p.pan
 CROSS JOIN LATERAL (SELECT coalesce(c.loss_lapses_at <= clock_timestamp(), false) AS lapsed) AS l
  LEFT JOIN following_state f ON f.before = CASE WHEN l.lapsed THEN 1 ELSE c.state END AND f.after = p.state AND c.state <> p.state
 CROSS JOIN LATERAL (SELECT coalesce(f.after, c.state) AS state) AS n
 WHERE p.known_card_no IS NOT NULL
   AND (c.state, c.valid_from, c.valid_through) IS DISTINCT FROM (n.state, p.valid_from, p.valid_through)

-- name: suspect_cards
-- Read without a lock: whose holders are to be locked, and no more than that.
CREATE TEMP TABLE suspect_card ON COMMIT DROP AS {card_changes}

-- name: plan_card_changes
-- Under the locks, where the desk can report or close nothing any more. A card that came to differ only after the suspects were
-- read is not locked, and stays as the desk has just left it.
CREATE TEMP TABLE differing_card ON COMMIT DROP AS {card_changes}

-- name: lock_changing
-- Everything that is going to be locked, in the order in which the ledger locks accounts. A loss takes effect under this lock, so
-- that no payment that was decided before it can be dated after it. The PINs are joined: looked up for each account by EXISTS they
-- would all be read each time.
SELECT a.account_id
  FROM account a
  LEFT JOIN planned_pin p ON p.shard = a.shard AND p.account_id = a.account_id
 WHERE EXISTS (SELECT FROM suspect_card d WHERE d.shard = a.shard AND d.holder_id = a.holder_id)
    OR p.account_id IS NOT NULL AND a.pin_verifier IS DISTINCT FROM p.verifier
 ORDER BY a.shard, a.account_id
   FOR NO KEY UPDATE OF a

-- name: lock_cards
-- After the accounts, as the desk does: a holder of a purse alone has no account to lock.
SELECT c.card_no
  FROM card c
 WHERE EXISTS (SELECT FROM suspect_card d WHERE d.shard = c.shard AND d.pan = c.pan)
 ORDER BY c.shard, c.pan
   FOR NO KEY UPDATE OF c

-- name: shards_touched
SELECT DISTINCT shard FROM suspect_card
 UNION
SELECT DISTINCT p.shard
  FROM planned_pin p
  JOIN account a ON a.shard = p.shard AND a.account_id = p.account_id AND a.pin_verifier IS DISTINCT FROM p.verifier
 UNION
SELECT DISTINCT shard FROM opening
 ORDER BY shard

-- name: note_card_changes
INSERT INTO registry_change (actor, subject, change)
SELECT %(actor)s, 'card ' || card_no, jsonb_build_object('before', before, 'after', after) FROM differing_card

-- name: save_card_changes
-- The instant of a report that is in force stays; one that has lapsed counts for nothing, and its instant would back-date the next.
UPDATE card c
   SET state = d.state, valid_from = d.valid_from, valid_through = d.valid_through,
       lost_at = CASE WHEN d.state = c.state THEN c.lost_at
                      WHEN d.state IN (2, 3) THEN coalesce(CASE WHEN c.state = 2 AND NOT d.lapsed THEN c.lost_at END, clock_timestamp())
                      WHEN d.state = 1 OR d.lapsed THEN NULL
                      ELSE c.lost_at END,
       loss_lapses_at = CASE WHEN d.state = c.state THEN c.loss_lapses_at
                             WHEN d.state = 2 THEN loss_lapses(clock_timestamp()) END
  FROM differing_card d
 WHERE c.shard = d.shard AND c.pan = d.pan

-- name: plan_pin_changes
-- In the order in which the ledger locks accounts.
CREATE TEMP TABLE changing_pin ON COMMIT DROP AS
SELECT a.shard, a.account_id, p.verifier
  FROM account a
  JOIN planned_pin p ON p.shard = a.shard AND p.account_id = a.account_id
 WHERE a.pin_verifier IS DISTINCT FROM p.verifier
 ORDER BY a.shard, a.account_id
   FOR NO KEY UPDATE OF a

-- name: save_pin_changes
UPDATE account a
   SET pin_verifier = c.verifier, pin_failures = 0
  FROM changing_pin c
 WHERE a.shard = c.shard AND a.account_id = c.account_id

-- name: note_pin_changes
INSERT INTO registry_change (actor, subject, change)
SELECT %(actor)s, 'account ' || account_id, '{"pin": "set"}' FROM changing_pin

-- name: plan_openings
-- Customers' money that was at the custody bank before: 2001 online, 2003 medical, 2002 purse float.
CREATE TEMP TABLE opening ON COMMIT DROP AS
SELECT shard, code, owner, amount_fen, row_number() OVER (ORDER BY shard, code, owner) - 1 AS place
  FROM (SELECT shard, CASE kind WHEN 10 THEN 2001 ELSE 2003 END::smallint AS code, account_id AS owner,
               opening_fen AS amount_fen
          FROM planned_account WHERE is_new
        UNION ALL
        SELECT shard, 2002, card_no, purse_opening_fen FROM planned_purse) o
 WHERE amount_fen > 0

-- name: post_openings
-- Serials come from the same blocks as those of the journal, so that an entry number is one thing only.
INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT o.shard, %(business_date)s, (b.block - 1) * %(size)s + 1 + o.place %% %(size)s, 1001, 0, o.code, o.owner, o.amount_fen
  FROM opening o
  JOIN (SELECT row_number() OVER () - 1 AS nth, nextval('entry_no_block') AS block
          FROM generate_series(1, (SELECT (count(*) + %(size)s - 1) / %(size)s FROM opening))) b
    ON b.nth = o.place / %(size)s

-- name: wait_for_limits
-- The same lock as in ledger/limit_desk.py: a rule is stored either before this, and read below, or after the commit, and then its
-- setting finds the new accounts. After all other work on cards, so that nobody waits for long at the desk.
SELECT pg_advisory_xact_lock(hashtext('limits of accounts'))

-- name: count_new_accounts
UPDATE account a
   SET limited_from = r.first
  FROM planned_account p
  JOIN (SELECT account_kind, min(valid_from) AS first FROM limit_rule GROUP BY account_kind) r ON r.account_kind = p.kind
 WHERE p.is_new AND a.shard = p.shard AND a.account_id = p.account_id AND a.limited_from IS DISTINCT FROM r.first

-- name: opening_sums
SELECT code, count(*), sum(amount_fen)::bigint FROM opening GROUP BY code ORDER BY code

-- name: card_counts
-- A known card counts as changed when it, its holder's PIN, or what it opened is new.
SELECT count(*) FILTER (WHERE p.known_card_no IS NULL),
       count(*) FILTER (WHERE p.known_card_no IS NOT NULL AND (d.pan IS NOT NULL OR h.holder_id IS NOT NULL)),
       count(*)
  FROM planned_card p
  LEFT JOIN differing_card d ON d.pan = p.pan
  LEFT JOIN (SELECT account_id / 100 AS holder_id FROM changing_pin
              UNION SELECT holder_id FROM planned_account WHERE is_new
              UNION SELECT holder_id FROM planned_purse) h ON h.holder_id = p.holder_id

-- name: kept_states
-- Cards that are not in the state that the files say, by both states. A report that has lapsed is none.
SELECT c.state, p.state, count(*)
  FROM planned_card p
  JOIN card c ON c.shard = p.shard AND c.pan = p.pan
 WHERE c.state <> p.state AND (c.loss_lapses_at <= clock_timestamp() AND p.state = 1) IS NOT TRUE
 GROUP BY c.state, p.state
 ORDER BY c.state, p.state

-- name: stored_cards
-- As the files have it; for exports. An account's and a purse's opening figure is its balance now.
SELECT c.pan AS subject, c.pan, lpad(c.pan, 20, '0') AS asn, h.holder_key AS holder, c.state, c.valid_from, c.valid_through,
       o.balance_fen AS online_opening_fen, m.balance_fen AS medical_opening_fen,
       CASE WHEN p.balance_fen < 0 THEN 0 ELSE p.balance_fen END AS purse_opening_fen, p.online_atc AS purse_online_atc,
       CASE WHEN p.next_atc > 65535 THEN 65535 ELSE p.next_atc END AS purse_offline_atc
  FROM card c
  LEFT JOIN holder h ON h.holder_id = c.holder_id
  LEFT JOIN account o ON o.shard = c.shard AND o.account_id = c.holder_id * 100 + 10
  LEFT JOIN account m ON m.shard = c.shard AND m.account_id = c.holder_id * 100 + 40
  LEFT JOIN purse p ON p.shard = c.shard AND p.card_no = c.card_no
