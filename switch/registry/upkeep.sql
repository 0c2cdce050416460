-- What terminals fetch and report: parameters, the hot list, their own status.

-- name: wanted_parameters
SELECT p.tag, p.value, p.scope, parameters_version(t.terminal_no, m.category)
  FROM terminal t
  JOIN merchant m ON m.merchant_no = t.merchant_no
 CROSS JOIN LATERAL parameters_in_force(t.terminal_no, m.category) p
 WHERE t.terminal_no = %(terminal_no)s
 ORDER BY p.tag

-- name: end_of_day
SELECT ends_at FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at

-- name: offer_parameters
INSERT INTO terminal_status (terminal_no, parameters_offered)
VALUES (%(terminal_no)s, %(version)s)
    ON CONFLICT (terminal_no) DO UPDATE
   SET seen_at = clock_timestamp(), parameters_offered = excluded.parameters_offered

-- name: confirm_parameters
-- A repeat, or a confirmation of what was never sent, changes nothing.
UPDATE terminal_status
   SET seen_at = clock_timestamp(), parameters_held = coalesce(parameters_offered, parameters_held),
       parameters_offered = NULL
 WHERE terminal_no = %(terminal_no)s

-- name: receive_parameters
-- The newest version of the set has come to a terminal that works by all that it says for it.
INSERT INTO list_receipt (rollout_no, terminal_no, held_at)
SELECT r.rollout_no, u.terminal_no, clock_timestamp()
  FROM terminal_status u
  JOIN terminal t ON t.terminal_no = u.terminal_no
  JOIN merchant m ON m.merchant_no = t.merchant_no
 CROSS JOIN (SELECT * FROM list_rollout WHERE kind = 'PARAM' ORDER BY version DESC LIMIT 1) r
 WHERE u.terminal_no = %(terminal_no)s AND u.parameters_held = parameters_version(t.terminal_no, m.category)
   AND (r.state IN ('COMPLETE', 'SUPERSEDED') OR list_reaches(r.rollout_no, r.stage, r.percent, t.terminal_no))
    ON CONFLICT (rollout_no, terminal_no) DO UPDATE SET held_at = coalesce(list_receipt.held_at, excluded.held_at)

-- name: store_status
-- judged: 1 it holds the version, -1 it holds other values, 0 it did not say.
INSERT INTO terminal_status (terminal_no, parameters_held, hot_list_held, reported_at, reported)
VALUES (%(terminal_no)s, CASE WHEN %(judged)s > 0 THEN %(version)s::bigint END, %(hot_list)s::integer, clock_timestamp(), %(reported)s)
    ON CONFLICT (terminal_no) DO UPDATE
   SET seen_at = clock_timestamp(), reported_at = excluded.reported_at, reported = excluded.reported,
       parameters_held = CASE WHEN %(judged)s = 0 THEN terminal_status.parameters_held ELSE excluded.parameters_held END,
       hot_list_held = coalesce(excluded.hot_list_held, terminal_status.hot_list_held)

-- name: lock_parameters
-- Numbers are given before the commit: without the lock a smaller one could appear after a larger one, and a terminal that holds
-- the larger would never hear of it. Readers go on.
LOCK TABLE terminal_parameter IN SHARE ROW EXCLUSIVE MODE

-- name: terminal_scope
SELECT t.terminal_no, m.category
  FROM terminal t JOIN merchant m ON m.merchant_no = t.merchant_no
 WHERE t.terminal_id = %(terminal_id)s

-- name: parameters_in_force
SELECT tag, value, scope FROM parameters_in_force(%(terminal_no)s::integer, %(category)s::text)

-- name: last_of_scope
SELECT value
  FROM terminal_parameter
 WHERE tag = %(tag)s AND category IS NOT DISTINCT FROM %(category)s AND terminal_no IS NOT DISTINCT FROM %(terminal_no)s
 ORDER BY parameter_no DESC
 LIMIT 1

-- name: add_parameter
INSERT INTO terminal_parameter (actor, tag, category, terminal_no, value)
VALUES (%(actor)s, %(tag)s, %(category)s, %(terminal_no)s, %(value)s)

-- name: parameter_log
SELECT p.parameter_no, p.set_at, p.actor, p.tag, p.category, t.terminal_id, p.value
  FROM terminal_parameter p LEFT JOIN terminal t ON t.terminal_no = p.terminal_no
 ORDER BY p.parameter_no DESC
 LIMIT %(most)s

-- name: statuses
SELECT t.terminal_id, m.merchant_id, s.signed_on_at, u.seen_at, u.reported_at, u.reported, u.hot_list_held,
       u.parameters_held = v.version,
       (SELECT jsonb_object_agg(p.tag, p.value) FROM parameters_in_force(t.terminal_no, m.category) p), coalesce(h.version, 0)
  FROM terminal t
  JOIN merchant m ON m.merchant_no = t.merchant_no
  LEFT JOIN terminal_session s ON s.terminal_no = t.terminal_no
  LEFT JOIN terminal_status u ON u.terminal_no = t.terminal_no
  LEFT JOIN LATERAL list_due('HOT', t.terminal_no, t.slot, coalesce(u.hot_list_held, 0)) h ON true
 CROSS JOIN LATERAL parameters_due(t.terminal_no, m.category, t.slot) v
 WHERE CASE WHEN %(terminal_ids)s::text[] IS NULL THEN t.state = 'ACTIVE' AND m.state = 'ACTIVE'
            ELSE t.terminal_id = ANY(%(terminal_ids)s::text[]) END
 ORDER BY t.terminal_id
