-- The versions of the routing table, and whom its rows may name.

-- name: active
-- No row: no table was ever in force, or the last one was taken out of force.
SELECT t.version, t.content, encode(t.digest, 'hex')
  FROM (SELECT version FROM route_activation ORDER BY activation_no DESC LIMIT 1) a
  JOIN route_table t ON t.version = a.version

-- name: version
SELECT version, content, encode(digest, 'hex') FROM route_table WHERE version = %(version)s

-- name: one_change
-- One change at a time, of the table and of the registry that it was checked against.
SELECT pg_advisory_xact_lock(hashtext('registry import'))

-- name: add_version
INSERT INTO route_table (version, row_count, content, digest, actor, note)
SELECT coalesce(max(version), 0) + 1, %(rows)s, %(content)s, %(digest)s, %(actor)s, %(note)s FROM route_table
RETURNING version

-- name: activate
INSERT INTO route_activation (version, action, actor) VALUES (%(version)s, %(action)s, %(actor)s)

-- name: announce_routes
SELECT pg_notify('registry', 'routes')

-- name: history
SELECT version, row_count, encode(digest, 'hex'), at, actor, note FROM route_table ORDER BY version

-- name: activations
SELECT version, action, at, actor FROM route_activation ORDER BY activation_no

-- name: known_merchants
SELECT merchant_id FROM merchant WHERE merchant_id = ANY(%(merchants)s)

-- name: merchant
SELECT category, acquirer_id FROM merchant WHERE merchant_id = %(merchant)s

-- name: cities
SELECT institution_id FROM institution WHERE role IN ('CITY', 'CENTRE')

-- name: has_card
SELECT EXISTS (SELECT FROM card_route WHERE pan = %(pan)s)
