-- Versions of terminals' lists and how far they have been rolled out.

-- name: lock_lists
-- One roll-out of a kind at a time. Readers go on.
LOCK TABLE list_rollout IN SHARE ROW EXCLUSIVE MODE

-- name: newest
SELECT v.version, v.entries, r.rollout_no, r.previous, r.state, r.stage, cardinality(r.stages), r.percent, r.stages
  FROM list_versions v
  LEFT JOIN list_rollout r ON r.kind = v.kind AND r.version = v.version
 WHERE v.kind = %(kind)s
 ORDER BY v.version DESC
 LIMIT 1

-- name: begin_rollout
INSERT INTO list_rollout (kind, version, previous, stages, percent, coverage_pct, soak_s)
VALUES (%(kind)s, %(version)s, %(previous)s, %(stages)s, %(percent)s, %(coverage_pct)s, %(soak_s)s)
RETURNING rollout_no

-- name: name_members
-- A terminal in two groups belongs to the earlier stage.
INSERT INTO list_rollout_member (rollout_no, terminal_no, stage)
SELECT %(rollout_no)s, g.terminal_no, min(s.place)
  FROM unnest(%(stages)s::text[]) WITH ORDINALITY AS s (stage, place)
  JOIN terminal_group g ON g.group_name = s.stage
 GROUP BY g.terminal_no

-- name: known_groups
SELECT group_name, count(*) FROM terminal_group WHERE group_name = ANY(%(names)s) GROUP BY group_name

-- name: set_state
UPDATE list_rollout SET state = %(state)s WHERE rollout_no = %(rollout_no)s AND state = ANY(%(before)s) RETURNING stage

-- name: set_stage
-- Whoever comes second finds another stage and changes nothing.
UPDATE list_rollout
   SET stage = %(stage)s, percent = %(percent)s, staged_at = clock_timestamp()
 WHERE rollout_no = %(rollout_no)s AND state = 'RUNNING' AND stage = %(stage)s - 1
RETURNING stage

-- name: add_event
INSERT INTO list_event (actor, rollout_no, action, stage, detail)
VALUES (%(actor)s, %(rollout_no)s, %(action)s, %(stage)s, %(detail)s)

-- name: announce
SELECT pg_notify('registry', 'all')

-- name: figures
-- A terminal counts when it is active and was seen in the last week. held: it has said so, whatever it fetched. bad: it refused the list,
-- or signs on again and again since it fetched it. Silence is counted on both sides, so that a night is not mistaken for a fault.
WITH one AS (
    SELECT * FROM list_rollout WHERE rollout_no = %(rollout_no)s
), part AS (
    SELECT r.percent = 100 OR t.slot < r.percent OR m.terminal_no IS NOT NULL AS reached,
           c.fetched_at IS NOT NULL OR c.held_at IS NOT NULL AS fetched,
           coalesce(CASE r.kind WHEN 'HOT' THEN u.hot_list_held >= r.version
                                WHEN 'CITY' THEN (u.reported ->> '33')::integer >= r.version
                                ELSE (u.reported ->> '34')::integer >= r.version
                                     OR u.parameters_held = (SELECT d.version FROM parameters_due(t.terminal_no, g.category, t.slot) d) END, false) AS held,
           coalesce(c.held_at, r.started_at) AS held_at,
           c.refused_at IS NOT NULL AS refused,
           coalesce(n.last_generation - c.generation > %(sign_ons_max)s
                    + 4 * extract(epoch FROM clock_timestamp() - c.fetched_at) / 86400, false) AS restless,
           greatest(s.seen_at, u.seen_at, n.signed_on_at) < clock_timestamp() - make_interval(secs => %(silent_s)s) AS silent
      FROM one r
     CROSS JOIN terminal t
      JOIN merchant g ON g.merchant_no = t.merchant_no
      LEFT JOIN list_rollout_member m ON m.rollout_no = r.rollout_no AND m.terminal_no = t.terminal_no AND m.stage <= r.stage
      LEFT JOIN list_receipt c ON c.rollout_no = r.rollout_no AND c.terminal_no = t.terminal_no
      LEFT JOIN terminal_seen s ON s.terminal_no = t.terminal_no
      LEFT JOIN terminal_status u ON u.terminal_no = t.terminal_no
      LEFT JOIN terminal_session n ON n.terminal_no = t.terminal_no
     WHERE t.state = 'ACTIVE' AND g.state = 'ACTIVE'
       AND greatest(s.seen_at, u.seen_at, n.signed_on_at) > clock_timestamp() - interval '7 days'
)
SELECT r.rollout_no, r.kind, r.version, r.previous, r.stages, r.stage, r.percent, r.state, r.coverage_pct, r.soak_s, r.started_at, r.staged_at,
       extract(epoch FROM clock_timestamp() - r.staged_at)::float8, f.*
  FROM one r
 CROSS JOIN LATERAL (
       SELECT count(*) FILTER (WHERE reached), count(*) FILTER (WHERE reached AND held),
              count(*) FILTER (WHERE fetched), count(*) FILTER (WHERE refused), count(*) FILTER (WHERE restless AND NOT refused),
              count(*) FILTER (WHERE fetched AND silent), count(*) FILTER (WHERE NOT fetched), count(*) FILTER (WHERE NOT fetched AND silent),
              extract(epoch FROM nullif(percentile_disc(0.95) WITHIN GROUP (ORDER BY CASE WHEN held THEN held_at ELSE 'infinity' END)
                                            FILTER (WHERE reached), 'infinity') - r.started_at)::float8
         FROM part) f

-- name: rollouts
SELECT rollout_no FROM list_rollout
 WHERE kind = ANY(%(kinds)s::text[]) AND state = ANY(%(states)s::text[]) AND version IN (SELECT max(version) FROM list_rollout o WHERE o.kind = list_rollout.kind)
 ORDER BY kind

-- name: events
SELECT e.at, e.actor, r.kind, r.version, e.action, e.stage, e.detail
  FROM list_event e JOIN list_rollout r USING (rollout_no)
 WHERE r.kind = ANY(%(kinds)s::text[])
 ORDER BY e.event_no DESC
 LIMIT %(most)s

-- name: receive
-- A terminal says that it holds a version. Said again, or after another process wrote it, nothing changes.
INSERT INTO list_receipt (rollout_no, terminal_no, held_at)
SELECT r.rollout_no, %(terminal_no)s, clock_timestamp() FROM list_rollout r WHERE r.kind = %(kind)s AND r.version = %(version)s
    ON CONFLICT (rollout_no, terminal_no) DO UPDATE SET held_at = coalesce(list_receipt.held_at, excluded.held_at)

-- name: note_fetch
INSERT INTO list_receipt (rollout_no, terminal_no, fetched_at, generation)
SELECT r.rollout_no, %(terminal_no)s, clock_timestamp(),
       coalesce((SELECT last_generation FROM terminal_session WHERE terminal_no = %(terminal_no)s), 0)
  FROM list_rollout r
 WHERE r.kind = %(kind)s AND r.version = %(version)s
    ON CONFLICT (rollout_no, terminal_no) DO UPDATE
   SET fetched_at = coalesce(list_receipt.fetched_at, excluded.fetched_at),
       generation = coalesce(list_receipt.generation, excluded.generation)

-- name: note_refusal
-- Of the newest version: an older one is no longer on offer.
INSERT INTO list_receipt (rollout_no, terminal_no, refused_at, refusal)
SELECT r.rollout_no, %(terminal_no)s, clock_timestamp(), %(refusal)s
  FROM list_rollout r
 WHERE r.kind = %(kind)s
 ORDER BY r.version DESC
 LIMIT 1
    ON CONFLICT (rollout_no, terminal_no) DO UPDATE
   SET refused_at = coalesce(list_receipt.refused_at, excluded.refused_at), refusal = coalesce(list_receipt.refusal, excluded.refusal)

-- name: add_list_version
INSERT INTO list_version (kind, version, actor, entries, through) VALUES (%(kind)s, %(version)s, %(actor)s, %(entries)s, %(through)s)

-- name: city_entries
SELECT what, value, usage FROM city_list_entry WHERE until_version IS NULL ORDER BY what DESC, value

-- name: end_city_entries
UPDATE city_list_entry e SET until_version = %(version)s
 WHERE e.until_version IS NULL
   AND NOT EXISTS (SELECT FROM unnest(%(whats)s::text[], %(values)s::text[], %(usages)s::smallint[]) AS n (what, value, usage)
                    WHERE (n.what, n.value, n.usage) = (e.what, e.value, e.usage))

-- name: begin_city_entries
INSERT INTO city_list_entry (what, value, usage, from_version)
SELECT n.what, n.value, n.usage, %(version)s
  FROM unnest(%(whats)s::text[], %(values)s::text[], %(usages)s::smallint[]) AS n (what, value, usage)
 WHERE NOT EXISTS (SELECT FROM city_list_entry e WHERE e.until_version IS NULL AND (e.what, e.value) = (n.what, n.value))

-- name: city_entries_at
SELECT what, value, usage FROM city_list_entry
 WHERE from_version <= %(version)s AND (until_version IS NULL OR until_version > %(version)s)

-- name: parameter_set_state
SELECT coalesce(max(parameter_no), 0), (SELECT count(*) FROM parameter_set((SELECT max(parameter_no) FROM terminal_parameter)))
  FROM terminal_parameter

-- name: restore_parameters
-- Rows are added, never taken away: each scope says again what it said then.
INSERT INTO terminal_parameter (actor, tag, category, terminal_no, value)
SELECT %(actor)s, n.tag, n.category, n.terminal_no, o.value
  FROM (SELECT DISTINCT ON (category, terminal_no, tag) * FROM terminal_parameter ORDER BY category, terminal_no, tag, parameter_no DESC) n
  LEFT JOIN (SELECT DISTINCT ON (category, terminal_no, tag) * FROM terminal_parameter
              WHERE parameter_no <= (SELECT through FROM list_version WHERE kind = 'PARAM' AND version = %(version)s)
              ORDER BY category, terminal_no, tag, parameter_no DESC) o
         ON o.tag = n.tag AND o.category IS NOT DISTINCT FROM n.category AND o.terminal_no IS NOT DISTINCT FROM n.terminal_no
 WHERE n.value IS DISTINCT FROM o.value

-- name: add_to_group
INSERT INTO terminal_group (group_name, terminal_no)
SELECT %(name)s, terminal_no FROM terminal WHERE terminal_id = ANY(%(terminal_ids)s)
    ON CONFLICT DO NOTHING

-- name: take_from_group
DELETE FROM terminal_group
 WHERE group_name = %(name)s
   AND terminal_no IN (SELECT terminal_no FROM terminal WHERE terminal_id = ANY(%(terminal_ids)s))

-- name: unknown_terminals
SELECT i.id FROM unnest(%(terminal_ids)s::text[]) AS i (id) WHERE NOT EXISTS (SELECT FROM terminal t WHERE t.terminal_id = i.id) LIMIT 5

-- name: groups
SELECT g.group_name, array_agg(t.terminal_id ORDER BY t.terminal_id)
  FROM terminal_group g JOIN terminal t USING (terminal_no)
 GROUP BY g.group_name ORDER BY g.group_name
