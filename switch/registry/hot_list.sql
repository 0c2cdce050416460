-- The hot list: drafts, versions, and what a download sends.

-- name: lock_hot_list
-- Versions grow by one, and a draft changes only whole. Readers go on.
LOCK TABLE hot_list_version IN SHARE ROW EXCLUSIVE MODE

-- name: newest
SELECT coalesce(max(version), 0), coalesce((array_agg(entries ORDER BY version DESC))[1], 0) FROM hot_list_version

-- name: not_ours_to_list
-- Cards that are in their holders' hands and have not been replaced or cancelled: a loss report above all.
SELECT s.place
  FROM unnest(%(asns)s::text[], %(reasons)s::text[]) WITH ORDINALITY AS s (asn, reason, place)
  JOIN card_route r ON r.pan = substr(s.asn, 2)
  JOIN card c ON c.shard = r.shard AND c.pan = r.pan
 WHERE s.reason = 'REPLACED' AND c.state <> 6 OR s.reason = 'CANCELLED' AND c.state <> 8
 ORDER BY s.place
 LIMIT %(most)s

-- name: clear_draft
DELETE FROM hot_list_draft

-- name: draft_removals
-- A file that is the whole list: whoever it does not name comes off.
INSERT INTO hot_list_draft (asn, actor)
SELECT asn, %(actor)s FROM hot_list_entry WHERE until_version IS NULL

-- name: draft
INSERT INTO hot_list_draft (asn, level, reason, actor)
SELECT asn, level, reason, %(actor)s
  FROM unnest(%(asns)s::text[], %(levels)s::smallint[], %(reasons)s::text[]) AS s (asn, level, reason)
    ON CONFLICT (asn) DO UPDATE
   SET level = excluded.level, reason = excluded.reason, actor = excluded.actor, drawn_at = excluded.drawn_at

-- name: drop_idle_draft
-- What would change nothing is no change.
DELETE FROM hot_list_draft d
 WHERE CASE WHEN d.level IS NULL
            THEN NOT EXISTS (SELECT FROM hot_list_entry e WHERE e.asn = d.asn AND e.until_version IS NULL)
            ELSE EXISTS (SELECT FROM hot_list_entry e
                          WHERE e.asn = d.asn AND e.until_version IS NULL AND e.level = d.level) END

-- name: count_draft
-- A card whose level changes is both added and removed.
SELECT count(*) FILTER (WHERE d.level IS NOT NULL), count(e.asn)
  FROM hot_list_draft d LEFT JOIN hot_list_entry e ON e.asn = d.asn AND e.until_version IS NULL

-- name: add_version
INSERT INTO hot_list_version (version, actor, entries, added, removed)
VALUES (%(version)s, %(actor)s, %(entries)s, %(added)s, %(removed)s)

-- name: end_entries
UPDATE hot_list_entry e SET until_version = %(version)s
  FROM hot_list_draft d
 WHERE e.asn = d.asn AND e.until_version IS NULL

-- name: begin_entries
-- In the order of the indexes: a draft comes in any order, and half a million cards at random places take three times as long.
INSERT INTO hot_list_entry (asn, level, reason, from_version)
SELECT asn, level, reason, %(version)s FROM hot_list_draft WHERE level IS NOT NULL ORDER BY asn

-- name: versions
SELECT version, published_at, actor, entries, added, removed FROM hot_list_version ORDER BY version DESC LIMIT %(most)s

-- name: listed
SELECT asn, level, reason, from_version FROM hot_list_entry WHERE until_version IS NULL ORDER BY asn

-- name: full_list
-- Packed here: a list of hundreds of thousands would keep the event loop for a second.
SELECT coalesce(string_agg('A'::bytea || decode(asn, 'hex') || set_byte('\x00'::bytea, 0, level), ''::bytea ORDER BY asn), ''::bytea)
  FROM hot_list_at(%(version)s)

-- name: increment
-- What comes off first, then what comes on or changes its level.
SELECT coalesce(string_agg(CASE WHEN n.asn IS NULL THEN 'D'::bytea || decode(o.asn, 'hex') || '\x00'::bytea
                                ELSE 'A'::bytea || decode(n.asn, 'hex') || set_byte('\x00'::bytea, 0, n.level) END,
                           ''::bytea ORDER BY n.asn IS NOT NULL, coalesce(o.asn, n.asn)), ''::bytea)
  FROM hot_list_at(%(base)s) o
  FULL JOIN hot_list_at(%(version)s) n ON n.asn = o.asn
 WHERE o.level IS DISTINCT FROM n.level

-- name: offer_list
INSERT INTO terminal_status (terminal_no, hot_list_asked_mode, hot_list_asked_held, hot_list_base, hot_list_offered)
VALUES (%(terminal_no)s, %(mode)s, %(held)s, %(base)s, %(version)s)
    ON CONFLICT (terminal_no) DO UPDATE
   SET seen_at = clock_timestamp(), hot_list_asked_mode = excluded.hot_list_asked_mode,
       hot_list_asked_held = excluded.hot_list_asked_held, hot_list_base = excluded.hot_list_base,
       hot_list_offered = excluded.hot_list_offered

-- name: offered_list
SELECT hot_list_base, hot_list_offered
  FROM terminal_status
 WHERE terminal_no = %(terminal_no)s AND hot_list_asked_mode = %(mode)s AND hot_list_asked_held = %(held)s
   AND hot_list_offered IS NOT NULL

-- name: confirm_list
-- Its receipt is of the same statement: a crash leaves both or neither.
WITH confirmed AS (
    UPDATE terminal_status
       SET seen_at = clock_timestamp(), hot_list_held = coalesce(hot_list_offered, hot_list_held), hot_list_asked_mode = NULL,
           hot_list_asked_held = NULL, hot_list_base = NULL, hot_list_offered = NULL
     WHERE terminal_no = %(terminal_no)s
    RETURNING terminal_no, hot_list_held)
INSERT INTO list_receipt (rollout_no, terminal_no, held_at)
SELECT r.rollout_no, c.terminal_no, clock_timestamp()
  FROM confirmed c JOIN list_rollout r ON r.kind = 'HOT' AND r.version = c.hot_list_held
    ON CONFLICT (rollout_no, terminal_no) DO UPDATE SET held_at = coalesce(list_receipt.held_at, excluded.held_at)

-- name: count_back
-- What leads from the newest version back to the content of an older one, and how long that one is.
SELECT count(o.asn) FILTER (WHERE o.level IS DISTINCT FROM n.level), count(n.asn) FILTER (WHERE o.level IS DISTINCT FROM n.level), count(o.asn)
  FROM hot_list_at(%(base)s) o
  FULL JOIN hot_list_at(%(newest)s) n ON n.asn = o.asn

-- name: end_back
UPDATE hot_list_entry e SET until_version = %(version)s
 WHERE e.until_version IS NULL
   AND NOT EXISTS (SELECT FROM hot_list_at(%(base)s) o WHERE o.asn = e.asn AND o.level = e.level)

-- name: begin_back
INSERT INTO hot_list_entry (asn, level, reason, from_version)
SELECT e.asn, e.level, e.reason, %(version)s
  FROM hot_list_entry e
 WHERE e.from_version <= %(base)s AND (e.until_version IS NULL OR e.until_version > %(base)s)
   AND NOT EXISTS (SELECT FROM hot_list_entry l WHERE l.asn = e.asn AND l.until_version IS NULL)

-- name: wanted
-- What a terminal is given, by how far the newest version has been rolled out.
SELECT w.version, coalesce((SELECT v.entries FROM hot_list_version v WHERE v.version = w.version), 0)
  FROM list_wanted('HOT', %(terminal_no)s, %(held)s) AS w (version)
