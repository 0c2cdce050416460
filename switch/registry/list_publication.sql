-- Lists on their way to topics: what must be out, cut into blocks, and what was signed.

-- name: lock_kind
-- One process publishes a kind; the others look in again later.
SELECT pg_try_advisory_lock(%(lock)s, %(number)s)

-- name: unlock_kind
SELECT pg_advisory_unlock(%(lock)s, %(number)s)

-- name: named
SELECT t.terminal_id
  FROM list_rollout_member m JOIN terminal t USING (terminal_no)
 WHERE m.rollout_no = %(rollout_no)s AND m.stage <= %(stage)s
 ORDER BY t.terminal_id

-- name: bases
-- Versions that terminals may hold. The newest of them first.
SELECT version FROM list_versions WHERE kind = %(kind)s AND version < %(version)s ORDER BY version DESC LIMIT %(most)s

-- name: count_full
SELECT coalesce((SELECT entries FROM list_versions WHERE kind = %(kind)s AND version = %(version)s), 0)

-- name: count_increment
SELECT count(*) FROM list_increment(%(kind)s, %(base)s, %(version)s)

-- name: full_blocks
SELECT string_agg('A'::bytea || e.key || e.said, ''::bytea ORDER BY e.key)
  FROM (SELECT key, said, (row_number() OVER (ORDER BY key) - 1) / %(size)s AS block FROM list_at(%(kind)s, %(version)s)) e
 GROUP BY e.block
 ORDER BY e.block

-- name: increment_blocks
-- What comes off first, then what comes on or is said anew.
SELECT string_agg(CASE WHEN e.said IS NULL THEN 'D'::bytea || e.key || decode(repeat('00', %(said_bytes)s), 'hex')
                       ELSE 'A'::bytea || e.key || e.said END, ''::bytea ORDER BY e.place)
  FROM (SELECT key, said, row_number() OVER w AS place, (row_number() OVER w - 1) / %(size)s AS block
          FROM list_increment(%(kind)s, %(base)s, %(version)s)
        WINDOW w AS (ORDER BY said IS NOT NULL, key)) e
 GROUP BY e.block
 ORDER BY e.block

-- name: form
SELECT blocks, entries, digest, content FROM list_form WHERE kind = %(kind)s AND version = %(version)s AND base = %(base)s

-- name: add_form
INSERT INTO list_form (kind, version, base, blocks, entries, digest, content)
VALUES (%(kind)s, %(version)s, %(base)s, %(blocks)s, %(entries)s, %(digest)s, %(content)s)
    ON CONFLICT (kind, version, base) DO UPDATE SET withdrawn_at = NULL

-- name: not_needed
SELECT version, base, blocks FROM list_form
 WHERE kind = %(kind)s AND withdrawn_at IS NULL AND version <> ALL(%(versions)s::integer[])
 ORDER BY version, base

-- name: withdraw
UPDATE list_form SET withdrawn_at = clock_timestamp() WHERE kind = %(kind)s AND version = %(version)s AND base = %(base)s

-- name: last_manifest
SELECT serial, made_at, payload, clock_timestamp() FROM list_manifest WHERE kind = %(kind)s ORDER BY serial DESC LIMIT 1

-- name: clock
SELECT clock_timestamp()

-- name: add_manifest
INSERT INTO list_manifest (kind, serial, made_at, version, previous, percent, named, payload)
VALUES (%(kind)s, %(serial)s, %(made_at)s, %(version)s, %(previous)s, %(percent)s, %(named)s, %(payload)s)
