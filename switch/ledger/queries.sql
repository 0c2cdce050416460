-- The statements of one batch (batch.py, batch_rows.py). First round trip: take_gate to find_batches. Second: write_* and COMMIT.
-- Every statement after lock_accounts has a snapshot of its own, so what it reads is what the lock protects.

-- name: take_gate
SELECT pg_advisory_xact_lock_shared(%(gate)b::int, %(shard)b::int);

-- name: next_block
SELECT nextval('entry_no_block');

-- name: lock_accounts
-- In id order, so that two writers over the same accounts queue instead of deadlocking.
-- NO KEY: nothing references these rows by a key that changes.
SELECT account_id, balance_fen, frozen, pin_verifier, pin_failures, held_fen, holds_due, limited_from
  FROM account
 WHERE shard = %(shard)b AND account_id = ANY(%(account_ids)b::bigint[])
 ORDER BY account_id
   FOR NO KEY UPDATE;

-- name: read_instant
-- After the locks: the instant that decides losses, expiries and the business date of the whole batch. A clock that was set back into a day
-- that is sealed finds none: nothing is booked until it has caught up.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, d.business_date
  FROM clock JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at AND d.sealed_at IS NULL;

-- name: read_cards
-- A statement of its own after the lock: joined into the locking SELECT it could be stale.
SELECT pan, state, valid_from, valid_through, lost_at, loss_lapses_at
  FROM card
 WHERE shard = %(shard)b AND pan = ANY(%(pans)b::text[]);

-- name: read_terminals
-- After the gate: a batch frozen before this transaction took the gate is seen as frozen.
SELECT s.terminal_no, s.generation, s.batch_no, coalesce(b.state, 2)
  FROM terminal_session s
  LEFT JOIN terminal_batch b ON b.terminal_no = s.terminal_no AND b.batch_no = s.batch_no
 WHERE s.terminal_no = ANY(%(terminals)b::int[]);

-- name: find_keys
-- LATERAL and LIMIT: a fresh partition has no statistics, and a join over it was planned as a scan of everything.
-- No row is dated after the open day, so later partitions, made ahead, are not looked into. oldest: of all since. It says nothing new, but
-- lets the executor leave out the partitions before it once and for all: it opened every day ever kept, for every batch.
SELECT k.at, j.class, j.business_date, j.entry_no, j.kind, j.account_id, j.pan, j.amount_fen, j.effect_fen,
       j.answer, j.rrn, j.auth_code, j.decided_at, j.digest, j.extra, j.original_date, j.original_entry
  FROM unnest(%(keys)b::key_line[]) WITH ORDINALITY AS k (terminal_no, batch_no, stan, since, at)
 CROSS JOIN LATERAL (
       SELECT *
         FROM journal
        WHERE journal.shard = %(shard)b
          AND journal.business_date >= %(oldest)b::date
          AND journal.business_date BETWEEN k.since
              AND (SELECT max(business_date) FROM business_day WHERE begins_at <= clock_timestamp())
          AND journal.terminal_no = k.terminal_no
          AND journal.batch_no = k.batch_no
          AND journal.stan = k.stan
        LIMIT 8) AS j;

-- name: find_originals
-- Originals named by field 61, on its date or one of the next two (batch.ORIGINAL_AFTER); a row for each that is there. Of the same merchant: a terminal may have
-- been another's when it sold.
SELECT k.at, j.class, j.business_date, j.entry_no, j.kind, j.account_id, j.pan, j.amount_fen, j.effect_fen,
       j.answer, j.rrn, j.auth_code, j.decided_at, j.digest, j.extra, j.original_date, j.original_entry
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(stans)b::int[], %(dates)b::date[], %(merchants)b::int[])
       WITH ORDINALITY AS k (terminal_no, batch_no, stan, day, merchant_no, at)
 CROSS JOIN LATERAL (
       SELECT *
         FROM journal
        WHERE journal.shard = %(shard)b
          AND journal.business_date BETWEEN %(oldest)b::date AND %(newest)b::date
          AND journal.business_date BETWEEN k.day AND k.day + 2
          AND journal.terminal_no = k.terminal_no
          AND journal.batch_no = k.batch_no
          AND journal.stan = k.stan
          AND journal.class = 0
          AND journal.merchant_no = k.merchant_no
        LIMIT 1) AS j;

-- name: read_uses
SELECT entry_no, business_date, amount_fen, refunded_fen, undone_by
  FROM original_use
 WHERE shard = %(shard)b AND entry_no = ANY(%(entries)b::bigint[]);

-- name: read_holds
-- Of these accounts all that are open, of these entries whatever has become of them. After the lock on their accounts.
SELECT entry_no, business_date, account_id, amount_fen, frozen_fen, expires_at, ended_by, completed_by
  FROM hold
 WHERE shard = %(shard)b AND account_id = ANY(%(accounts)b::bigint[]) AND ended_by IS NULL
 UNION
SELECT entry_no, business_date, account_id, amount_fen, frozen_fen, expires_at, ended_by, completed_by
  FROM hold
 WHERE shard = %(shard)b AND entry_no = ANY(%(entries)b::bigint[]);

-- name: read_windows
SELECT account_id, day, day_fen, day_count, month_fen, month_count
  FROM limit_window
 WHERE shard = %(shard)b AND account_id = ANY(%(accounts)b::bigint[]);

-- name: read_limits
-- Two days of grace: the batch decides by its own business date which of them are in force.
SELECT account_kind, product, transaction_fen, day_fen, month_fen, day_count, month_count, valid_from, valid_to
  FROM limit_rule
 WHERE coalesce(valid_to, 'infinity') >= current_date - 2 AND valid_from <= current_date + 2;

-- name: write_windows
INSERT INTO limit_window (shard, account_id, day, day_fen, day_count, month_fen, month_count)
SELECT %(shard)b::smallint, *
  FROM unnest(%(accounts)b::bigint[], %(days)b::date[], %(day_fens)b::bigint[], %(day_counts)b::int[],
              %(month_fens)b::bigint[], %(month_counts)b::int[])
    ON CONFLICT (shard, account_id) DO UPDATE
   SET day = excluded.day, day_fen = excluded.day_fen, day_count = excluded.day_count,
       month_fen = excluded.month_fen, month_count = excluded.month_count;

-- name: find_batches
-- For reversals only: what was settled in a closed batch cannot be undone any more.
SELECT b.terminal_no, b.batch_no
  FROM unnest(%(terminals)b::int[], %(batches)b::int[]) AS k (terminal_no, batch_no)
  JOIN terminal_batch b ON b.terminal_no = k.terminal_no AND b.batch_no = k.batch_no
 WHERE b.state = 2;

-- name: write_accounts
UPDATE account AS a
   SET balance_fen = n.balance_fen, pin_failures = n.pin_failures
  FROM unnest(%(lines)b::account_line[]) AS n
 WHERE a.shard = %(shard)b AND a.account_id = n.account_id;

-- name: write_held_accounts
-- Balance and holds in one statement: the constraint between them is checked on every row as it is written.
UPDATE account AS a
   SET balance_fen = n.balance_fen, pin_failures = n.pin_failures, held_fen = n.held_fen,
       holds_due = nullif(n.holds_due, 'infinity')
  FROM unnest(%(account_ids)b::bigint[], %(balances)b::bigint[], %(failures)b::smallint[], %(held)b::bigint[],
              %(dues)b::timestamptz[])
       AS n (account_id, balance_fen, pin_failures, held_fen, holds_due)
 WHERE a.shard = %(shard)b AND a.account_id = n.account_id;

-- name: write_holds
INSERT INTO hold (shard, entry_no, business_date, account_id, amount_fen, frozen_fen, expires_at, ended_by, completed_by)
SELECT %(shard)b::smallint, n.entry_no, n.business_date, n.account_id, n.amount_fen, n.frozen_fen, n.expires_at,
       nullif(n.ended_by, -1), nullif(n.completed_by, -1)
  FROM unnest(%(entries)b::bigint[], %(dates)b::date[], %(accounts)b::bigint[], %(amounts)b::bigint[], %(frozen)b::bigint[],
              %(expiries)b::timestamptz[], %(ended)b::bigint[], %(completed)b::bigint[])
       AS n (entry_no, business_date, account_id, amount_fen, frozen_fen, expires_at, ended_by, completed_by)
    ON CONFLICT (shard, entry_no) DO UPDATE
   SET frozen_fen = excluded.frozen_fen, ended_by = excluded.ended_by, completed_by = excluded.completed_by;

-- name: write_journal
INSERT INTO journal (shard, business_date, decided_at, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind,
                     amount_fen, effect_fen, account_id, pan, answer, rrn, auth_code, entry_mode, digest, original_date,
                     original_entry, extra)
SELECT %(shard)b::smallint, %(business_date)b::date, %(decided_at)b::timestamptz, n.*
  FROM unnest(%(lines)b::journal_line[]) AS n;

-- name: write_postings
INSERT INTO posting (shard, business_date, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT %(shard)b::smallint, %(business_date)b::date, n.*
  FROM unnest(%(lines)b::posting_line[]) AS n;

-- name: write_uses
-- Under the lock on the holder's account; the constraints hold even if that were forgotten.
INSERT INTO original_use (shard, entry_no, business_date, amount_fen, refunded_fen, undone_by)
SELECT %(shard)b::smallint, n.entry_no, n.business_date, n.amount_fen, n.refunded_fen, nullif(n.undone_by, 0)
  FROM unnest(%(entries)b::bigint[], %(dates)b::date[], %(amounts)b::bigint[], %(refunds)b::bigint[],
              %(undone)b::bigint[])
       AS n (entry_no, business_date, amount_fen, refunded_fen, undone_by)
    ON CONFLICT (shard, entry_no) DO UPDATE
   SET refunded_fen = excluded.refunded_fen, undone_by = excluded.undone_by;

-- name: fold_postings
-- Only postings older than every transaction still running, so that none can appear behind the watermark later.
WITH line AS MATERIALIZED (
    SELECT transaction_horizon() AS upto),
moved AS (
    SELECT p.debit_code, p.debit_owner, p.credit_code, p.credit_owner, sum(p.amount_fen)::bigint AS fen
      FROM posting p
     WHERE p.shard = %(shard)b AND p.business_date >= %(since)b
       AND p.txid >= %(folded_to)b AND p.txid < (SELECT upto FROM line)
     GROUP BY 1, 2, 3, 4),
sides AS (
    SELECT debit_code AS code, debit_owner AS owner, fen AS debit_fen, 0::bigint AS credit_fen FROM moved
    UNION ALL
    SELECT credit_code, credit_owner, 0, fen FROM moved),
written AS (
    INSERT INTO folded_balance AS f (shard, code, owner, debit_fen, credit_fen)
    SELECT %(shard)b, code, owner, sum(debit_fen), sum(credit_fen)
      FROM sides
     WHERE code NOT IN (2001, 2003)  -- holders' accounts carry their own balance
     GROUP BY code, owner
     ORDER BY code, owner
        ON CONFLICT (shard, code, owner) DO UPDATE
       SET debit_fen = f.debit_fen + excluded.debit_fen, credit_fen = f.credit_fen + excluded.credit_fen)
-- Never back: what is behind it would be folded a second time.
UPDATE fold_watermark SET folded_to = greatest(folded_to, (SELECT upto FROM line)) WHERE shard = %(shard)b;

-- name: lock_watermark
SELECT folded_to FROM fold_watermark WHERE shard = %(shard)b FOR UPDATE;

-- name: add_watermark
INSERT INTO fold_watermark (shard) VALUES (%(shard)b) ON CONFLICT DO NOTHING;

-- name: find_expired
SELECT DISTINCT account_id
  FROM hold
 WHERE shard = %(shard)s AND ended_by IS NULL AND expires_at <= clock_timestamp()
 LIMIT %(limit)s;

-- name: lock_expired
-- Every one of them: a limit around this would end the locking with the first.
SELECT account_id
  FROM account
 WHERE shard = %(shard)s AND account_id = ANY(%(accounts)s)
 ORDER BY account_id
   FOR NO KEY UPDATE;

-- name: read_clock
SELECT clock_timestamp();

-- name: release_expired
-- A statement of its own after the locks, with an instant that was read under them. What is taken off an account is what was ended.
WITH due AS MATERIALIZED (
    SELECT entry_no, account_id, frozen_fen
      FROM hold
     WHERE shard = %(shard)s AND account_id = ANY(%(accounts)s) AND ended_by IS NULL AND expires_at <= %(now)s),
ended AS (
    UPDATE hold AS h
       SET frozen_fen = 0, ended_by = 0
      FROM due
     WHERE h.shard = %(shard)s AND h.entry_no = due.entry_no AND h.ended_by IS NULL
 RETURNING due.account_id, due.frozen_fen)
UPDATE account AS a
   SET held_fen = a.held_fen - d.fen,
       holds_due = (SELECT min(o.expires_at) FROM hold o
                     WHERE o.shard = %(shard)s AND o.account_id = a.account_id AND o.ended_by IS NULL AND o.expires_at > %(now)s)
  FROM (SELECT account_id, sum(frozen_fen)::bigint AS fen FROM ended GROUP BY account_id) AS d
 WHERE a.shard = %(shard)s AND a.account_id = d.account_id;

-- name: find_card_by_pan
SELECT pan, shard, holder_id, card_no FROM card_route WHERE pan = %(number)s;

-- name: find_card_by_card_no
SELECT pan, shard, holder_id, card_no FROM card_route WHERE card_no = %(number)s::bigint;

-- name: lock_holder
SELECT account_id
  FROM account
 WHERE shard = %(shard)s AND account_id IN (%(holder_id)s * 100 + 10, %(holder_id)s * 100 + 40)
 ORDER BY account_id
   FOR NO KEY UPDATE;

-- name: lock_card
SELECT card_no FROM card WHERE shard = %(shard)s AND pan = %(pan)s FOR NO KEY UPDATE;

-- name: read_card_state
SELECT state, lost_at, loss_lapses_at, clock_timestamp() FROM card WHERE shard = %(shard)s AND pan = %(pan)s;

-- name: write_card_state
UPDATE card
   SET state = %(state)s, lost_at = %(lost_at)s, loss_lapses_at = %(lapses_at)s
 WHERE shard = %(shard)s AND pan = %(pan)s;

-- name: note_card_state
INSERT INTO registry_change (at, actor, subject, change) VALUES (%(at)s, %(actor)s, %(subject)s, %(change)s);

-- name: find_lapsed
SELECT r.pan, r.shard, r.holder_id, r.card_no
  FROM card c JOIN card_route r ON r.pan = c.pan
 WHERE c.shard = %(shard)s AND c.state = 2 AND c.loss_lapses_at <= clock_timestamp()
 LIMIT %(limit)s;

-- name: open_date
SELECT business_date
  FROM (SELECT clock_timestamp() AS now OFFSET 0) AS clock
  JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at;

-- name: list_limits
SELECT rule_no, account_kind, product, transaction_fen, day_fen, month_fen, day_count, month_count, valid_from, valid_to
  FROM limit_rule ORDER BY rule_no;

-- name: save_limit
INSERT INTO limit_rule (account_kind, product, transaction_fen, day_fen, month_fen, day_count, month_count, valid_from, valid_to)
VALUES (%(account_kind)s, %(product)s, %(transaction_fen)s, %(day_fen)s, %(month_fen)s, %(day_count)s, %(month_count)s,
        %(valid_from)s, %(valid_to)s)
RETURNING rule_no;

-- name: end_limit
UPDATE limit_rule SET valid_to = %(last)s WHERE rule_no = %(rule_no)s;

-- name: note_limit
INSERT INTO registry_change (actor, subject, change) VALUES (%(actor)s, %(subject)s, %(change)s);

-- name: lock_uncounted
SELECT account_id
  FROM account
 WHERE shard = %(shard)s AND kind = %(kind)s
   AND (limited_from IS NULL
        OR limited_from > greatest(%(since)s, (SELECT business_date + 1 FROM business_day
                                                WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at)))
 ORDER BY account_id
 LIMIT %(limit)s
   FOR NO KEY UPDATE;

-- name: count_from
UPDATE account SET limited_from = %(since)s WHERE shard = %(shard)s AND account_id = ANY(%(accounts)s);

-- name: lock_purses
-- After the accounts, in the order in which the fold of offline records takes them. A card that the holder has no account for has only this.
SELECT c.pan, p.card_no, p.loaded_fen, p.online_atc
  FROM card c JOIN purse p ON p.shard = c.shard AND p.card_no = c.card_no
 WHERE c.shard = %(shard)b AND c.pan = ANY(%(pans)b::text[])
 ORDER BY p.card_no
   FOR NO KEY UPDATE OF p;

-- name: read_loads
-- Of these purses what is open or at the counter that stands, of these entries whatever has become of them, and what shares a counter
-- with one of those. The newest of each: a card whose counter never moves could gather any number.
SELECT l.entry_no, l.business_date, l.card_no, l.online_atc, l.psam, l.issuer_id, l.key_version, l.algorithm_id, l.key_index, l.card_random,
       l.amount_fen, l.balance_before_fen, l.authorised_at, l.source, l.debit_code, l.debit_owner, l.state, l.reason, l.held, l.proven, l.claimed
  FROM unnest(%(cards)b::bigint[], %(atcs)b::int[]) AS k (card_no, online_atc)
 CROSS JOIN LATERAL (
       SELECT *
         FROM purse_load n
        WHERE n.shard = %(shard)b AND n.card_no = k.card_no
          AND (n.online_atc >= k.online_atc
               OR n.online_atc IN (SELECT o.online_atc FROM purse_load o
                                    WHERE o.shard = %(shard)b AND o.card_no = k.card_no
                                      AND (o.state IN (1, 4) OR o.entry_no = ANY(%(entries)b::bigint[]))))
        ORDER BY n.entry_no = ANY(%(entries)b::bigint[]) DESC, n.authorised_at DESC
        LIMIT 200) AS l;

-- name: read_purse_maxima
SELECT t.terminal_no, p.value
  FROM terminal t
  JOIN merchant m ON m.merchant_no = t.merchant_no
 CROSS JOIN LATERAL parameters_in_force(t.terminal_no, m.category) p
 WHERE t.terminal_no = ANY(%(terminals)b::int[]) AND p.tag = '26';

-- name: write_purses
UPDATE purse AS p
   SET loaded_fen = n.loaded_fen, online_atc = n.online_atc
  FROM unnest(%(cards)b::bigint[], %(loaded)b::bigint[], %(atcs)b::int[]) AS n (card_no, loaded_fen, online_atc)
 WHERE p.shard = %(shard)b AND p.card_no = n.card_no;

-- name: write_loads
-- Those that give their counter free come first: each row is held against the index as it is written.
INSERT INTO purse_load (shard, entry_no, business_date, card_no, online_atc, psam, issuer_id, key_version, algorithm_id, key_index,
                        card_random, amount_fen, balance_before_fen, authorised_at, source, debit_code, debit_owner, state, reason,
                        held, proven, claimed)
SELECT %(shard)b::smallint, n.*
  FROM unnest(%(entries)b::bigint[], %(dates)b::date[], %(cards)b::bigint[], %(atcs)b::int[], %(psams)b::text[], %(issuers)b::bytea[],
              %(versions)b::smallint[], %(algorithms)b::smallint[], %(indexes)b::smallint[], %(randoms)b::bytea[], %(amounts)b::bigint[],
              %(balances)b::bigint[], %(instants)b::timestamptz[], %(sources)b::smallint[], %(debit_codes)b::smallint[],
              %(debit_owners)b::bigint[], %(states)b::smallint[], %(reasons)b::text[], %(held)b::smallint[], %(proven)b::smallint[]::int[]::boolean[],
              %(claimed)b::smallint[]::int[]::boolean[])
       AS n
    ON CONFLICT (shard, entry_no) DO UPDATE
   SET state = excluded.state, reason = excluded.reason, held = excluded.held, proven = excluded.proven, claimed = excluded.claimed;

-- name: write_load_moves
INSERT INTO purse_load_move (shard, business_date, at, entry_no, line, load_no, from_state, to_state, reason, note)
SELECT %(shard)b::smallint, %(business_date)b::date, %(at)b::timestamptz, n.*
  FROM unnest(%(entries)b::bigint[], %(lines)b::smallint[], %(loads)b::bigint[], %(from_states)b::smallint[], %(to_states)b::smallint[],
              %(reasons)b::text[], %(notes)b::text[]) AS n;

-- name: find_unconfirmed
-- Neither confirmed nor reversed until the cut-off of their day and a whole day more.
SELECT l.entry_no, c.pan
  FROM purse_load l
  JOIN card c ON c.shard = l.shard AND c.card_no = l.card_no
 WHERE l.shard = %(shard)b AND l.state = 1
   AND l.business_date < (SELECT business_date - 1 FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at)
 ORDER BY l.card_no, l.entry_no
 LIMIT %(limit)b::bigint;

-- name: loads_in_suspense
-- How many there are, and since when the oldest is.
SELECT count(*), min(l.authorised_at) FROM purse_load l WHERE l.shard = ANY(%(shards)s) AND l.state = 4;

-- name: find_load
SELECT l.shard, l.entry_no, r.pan, r.holder_id, l.business_date, l.state
  FROM purse_load l JOIN card_route r ON r.card_no = l.card_no
 WHERE l.entry_no = %(entry_no)s;

-- name: list_loads
-- The oldest first, as they should be looked into.
SELECT l.entry_no, l.business_date, l.authorised_at, l.card_no, l.amount_fen, l.source, l.state, l.reason, l.held, l.online_atc
  FROM purse_load l
 WHERE l.state = ANY(%(states)s)
 ORDER BY l.authorised_at, l.entry_no
 LIMIT %(limit)s;

-- name: load_history
SELECT v.at, v.from_state, v.to_state, v.reason, v.note, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner, p.amount_fen
  FROM purse_load_move v
  LEFT JOIN posting p ON p.shard = v.shard AND p.entry_no = v.entry_no AND p.line = v.line AND p.business_date = v.business_date
 WHERE v.load_no = %(entry_no)s
 ORDER BY v.at, v.entry_no, v.line;
