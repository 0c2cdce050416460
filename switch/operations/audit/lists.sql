-- Terminals' lists: versions, how far they were rolled out, and what was signed. Digests and signatures are not computed again here: that takes
-- SM3 and the vault.

-- name: hot_list_versions
-- says: a version of the hot list lists as many cards, and changed as many, as its entries come to, and versions have no holes
-- rows: hot_list_version, hot_list_entry
WITH moved AS (
    SELECT version, sum(began) AS began, sum(ended) AS ended
      FROM (SELECT from_version AS version, count(*) AS began, 0 AS ended FROM hot_list_entry GROUP BY 1
            UNION ALL
            SELECT until_version, 0, count(*) FROM hot_list_entry WHERE until_version IS NOT NULL GROUP BY 1) AS every
     GROUP BY version
)
SELECT 'hot_list_version', 'version ' || v.version,
       format('number %%s, %%s cards, %%s added, %%s removed', v.place, v.listed, v.began, v.ended),
       format('number %%s, %%s cards, %%s added, %%s removed', v.version, v.entries, v.added, v.removed)
  FROM (SELECT h.version, h.entries, h.added, h.removed, row_number() OVER w AS place, coalesce(m.began, 0) AS began, coalesce(m.ended, 0) AS ended,
               sum(coalesce(m.began, 0) - coalesce(m.ended, 0)) OVER w AS listed
          FROM hot_list_version h LEFT JOIN moved m ON m.version = h.version
        WINDOW w AS (ORDER BY h.version)) AS v
 WHERE (v.version, v.entries, v.added, v.removed) IS DISTINCT FROM (v.place, v.listed, v.began, v.ended)

-- name: hot_list_reasons
-- says: no card of ours is on the hot list as replaced or cancelled that is neither: a loss report never leads there
-- rows: hot_list_entry, card
SELECT 'hot_list_entry', format('the card ending in %%s from version %%s', right(e.asn, 4), e.from_version), 'a card that is ' || lower(e.reason), 'state ' || c.state
  FROM hot_list_entry e
  JOIN card_route r ON r.pan = substr(e.asn, 2)
  JOIN card c ON c.shard = r.shard AND c.pan = r.pan
 WHERE e.until_version IS NULL AND (e.reason = 'REPLACED' AND c.state <> 6 OR e.reason = 'CANCELLED' AND c.state <> 8)

-- name: list_versions
-- says: a version of the white list or of the parameters holds as many entries as it says, and versions have no holes
-- rows: list_version, city_list_entry, terminal_parameter
SELECT 'list_version', format('%%s version %%s', v.kind, v.version), format('number %%s, %%s entries', v.place, v.holds), format('number %%s, %%s entries', v.version, v.entries)
  FROM (SELECT l.kind, l.version, l.entries, row_number() OVER (PARTITION BY l.kind ORDER BY l.version) AS place,
               CASE l.kind WHEN 'CITY'
                    THEN (SELECT count(*) FROM city_list_entry c
                           WHERE c.from_version <= l.version AND coalesce(c.until_version, 2147483647) > l.version)
                    ELSE (SELECT count(*) FROM terminal_parameter p
                           WHERE p.value IS NOT NULL AND p.parameter_no <= l.through
                             AND NOT EXISTS (SELECT FROM terminal_parameter n
                                              WHERE n.parameter_no > p.parameter_no AND n.parameter_no <= l.through AND n.tag = p.tag
                                                AND n.category IS NOT DISTINCT FROM p.category AND n.terminal_no IS NOT DISTINCT FROM p.terminal_no))
               END AS holds
          FROM list_version l) AS v
 WHERE (v.version, v.entries) IS DISTINCT FROM (v.place, v.holds)

-- name: list_rollouts
-- says: a roll-out is of a version that there is, comes from an earlier one, and is where its last event left it
-- rows: list_rollout, list_event
SELECT 'list_rollout', format('%%s version %%s', r.kind, r.version), f.fault, format('from %%s, stage %%s, %%s %%%%, %%s', r.previous, r.stage, r.percent, r.state)
  FROM list_rollout r
  LEFT JOIN (SELECT rollout_no, max(event_no) AS last, min(event_no) AS first FROM list_event GROUP BY rollout_no) b ON b.rollout_no = r.rollout_no
  LEFT JOIN list_event e ON e.event_no = b.last
  LEFT JOIN list_event g ON g.event_no = b.first
  LEFT JOIN (SELECT 'HOT' AS kind, version, published_at FROM hot_list_version
             UNION ALL SELECT kind, version, published_at FROM list_version) v ON v.kind = r.kind AND v.version = r.version
  LEFT JOIN (SELECT 'HOT' AS kind, version FROM hot_list_version UNION ALL SELECT kind, version FROM list_version) o
         ON o.kind = r.kind AND o.version = r.previous
 CROSS JOIN LATERAL (SELECT CASE
       WHEN v.version IS NULL THEN 'a version of its number'
       WHEN r.previous <> 0 AND o.version IS NULL THEN 'an earlier version that there is'
       WHEN e.rollout_no IS NULL OR g.action <> 'BEGIN' THEN 'a history that says when it began'
       WHEN r.stage <> e.stage THEN 'stage ' || e.stage
       WHEN r.state <> CASE e.action WHEN 'STOP' THEN 'STOPPED' WHEN 'COMPLETE' THEN 'COMPLETE' WHEN 'SUPERSEDE' THEN 'SUPERSEDED' ELSE 'RUNNING' END
            THEN 'the state after ' || e.action
       WHEN r.percent <> (SELECT coalesce(max(s.name::integer), 0) FROM unnest(r.stages[1:r.stage]) AS s (name) WHERE s.name ~ '^[0-9]+$')
            THEN 'the percentage of stage ' || r.stage
       WHEN r.staged_at < r.started_at OR r.started_at < v.published_at - interval '1 minute' THEN 'instants in order'
       END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: list_receipts
-- says: a terminal fetched, held or refused a version after its roll-out had begun, and a stage's named terminals are named by that stage
-- rows: list_receipt, list_rollout_member
SELECT 'list_receipt', format('rollout_no %%s, terminal_no %%s', c.rollout_no, c.terminal_no), 'nothing before ' || r.started_at,
       format('fetched %%s, held %%s, refused %%s', c.fetched_at, c.held_at, c.refused_at)
  FROM list_receipt c JOIN list_rollout r USING (rollout_no)
 WHERE least(c.fetched_at, c.held_at, c.refused_at) < r.started_at - interval '1 minute'
UNION ALL
SELECT 'list_rollout_member', format('rollout_no %%s, terminal_no %%s', m.rollout_no, m.terminal_no), 'a stage that is a group', 'stage ' || m.stage
  FROM list_rollout_member m JOIN list_rollout r USING (rollout_no)
 WHERE coalesce(r.stages[m.stage], '1') ~ '^[0-9]'

-- name: list_forms
-- says: a form of a list has as many blocks as its entries take, and a full one as many entries as its version
-- rows: list_form
SELECT 'list_form', format('%%s version %%s from %%s', f.kind, f.version, f.base), format('%%s entries, %%s blocks', coalesce(v.entries, 0), greatest(1, (f.entries + 1999) / 2000)),
       format('%%s entries, %%s blocks', f.entries, f.blocks)
  FROM list_form f
  LEFT JOIN (SELECT 'HOT' AS kind, version, entries FROM hot_list_version
             UNION ALL SELECT kind, version, entries FROM list_version) v ON v.kind = f.kind AND v.version = f.version
 WHERE f.blocks <> greatest(1, (f.entries + 1999) / 2000) OR (f.base = 0 AND f.entries <> coalesce(v.entries, 0))

-- name: list_manifests
-- says: what is noted of a signed manifest is what its bytes say, and serials have no holes
-- rows: list_manifest
SELECT 'list_manifest', format('%%s serial %%s', m.kind, m.serial), format('number %%s: %%s', m.place, b.said), b.noted
  FROM (SELECT l.*, encode(l.payload, 'hex') AS hex, row_number() OVER (PARTITION BY l.kind ORDER BY l.serial) AS place FROM list_manifest l) AS m
 CROSS JOIN LATERAL (SELECT get_byte(m.payload, 18) * 256 + get_byte(m.payload, 19) AS named) AS n
 CROSS JOIN LATERAL (SELECT 2 * (21 + 8 * n.named) + 1 AS at) AS a
 CROSS JOIN LATERAL (SELECT
       format('%%s serial %%s of %%s, %%s %%%%, %%s named, version %%s', substr(m.hex, 9, 2), ('x' || substr(m.hex, 11, 8))::bit(32)::bigint, substr(m.hex, 19, 14),
              get_byte(m.payload, 17), n.named, ('x' || substr(m.hex, a.at, 8))::bit(32)::bigint) AS said,
       format('%%s serial %%s of %%s, %%s %%%%, %%s named, version %%s', encode(convert_to(left(m.kind, 1), 'UTF8'), 'hex'), m.serial,
              to_char(m.made_at AT TIME ZONE 'Asia/Shanghai', 'YYYYMMDDHH24MISS'), m.percent, m.named, m.version) AS noted) AS b
 WHERE b.said <> b.noted OR m.place <> m.serial OR (m.previous IS NULL) <> (get_byte(m.payload, 20 + 8 * n.named) = 1)
