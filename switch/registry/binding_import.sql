-- Bindings of an import: `staged_bindings` becomes `planned_binding` (with card_no and shard settled, and what is known of each). Clear
-- numbers never come here: `sealed` and `tag` are of the vault.

-- name: make_room
ALTER TABLE staged_bindings ADD COLUMN sealed bytea, ADD COLUMN tag bytea

-- name: stored_bindings
-- As the files have it; for exports.
SELECT b.institution_id || ' ' || b.agreement_id AS subject, b.institution_id, b.agreement_id, r.pan, b.is_default, true AS holder_confirmed,
       b.confirmed_at, b.transaction_limit_fen, b.day_limit_fen, b.state
  FROM binding b JOIN card_route r ON r.card_no = b.card_no

-- name: plan_bindings
-- A binding that has ended stays as it was, whatever an old file says of it.
CREATE TEMP TABLE planned_binding ON COMMIT DROP AS
SELECT s.*, coalesce(p.shard, r.shard) AS shard, coalesce(p.card_no, r.card_no) AS card_no,
       b.binding_no IS NULL AS is_new, b.shard AS old_shard, b.binding_no, b.card_no AS old_card_no, b.tag AS old_tag, b.state AS old_state,
       b.state IS DISTINCT FROM 'ENDED'
       AND (b.is_default, b.confirmed_at, b.transaction_limit_fen, b.day_limit_fen, b.state)
           IS DISTINCT FROM (s.is_default, s.confirmed_at, s.transaction_limit_fen, s.day_limit_fen, s.state) AS differs
  FROM staged_bindings s
  LEFT JOIN planned_card p ON p.pan = s.pan
  LEFT JOIN card_route r ON r.pan = s.pan
  LEFT JOIN binding b ON b.institution_id = s.institution_id AND b.agreement_id = s.agreement_id

-- name: analyze_bindings
ANALYZE planned_binding

-- name: check_bindings
-- By institutions as they will be: those of the files first.
SELECT b.file_no, b.place, 'institution_id', 'must be of role BANK'
  FROM planned_binding b
  LEFT JOIN staged_institutions s ON s.institution_id = b.institution_id
  LEFT JOIN institution i ON i.institution_id = b.institution_id
 WHERE coalesce(s.role, i.role) <> 'BANK'
UNION ALL
SELECT file_no, place, 'bank_card', 'is missing: this agreement is new' FROM planned_binding WHERE is_new AND tag IS NULL
UNION ALL
SELECT file_no, place, 'bank_card', 'is not that of the known agreement: end it, and bind by a new one'
  FROM planned_binding WHERE tag <> old_tag
UNION ALL
SELECT file_no, place, 'pan', 'is not the card of the known agreement: end it, and bind by a new one'
  FROM planned_binding WHERE card_no <> old_card_no
UNION ALL
SELECT file_no, place, 'confirmed_at', 'must not be in the future' FROM planned_binding WHERE confirmed_at > clock_timestamp()

-- name: check_together
-- What a card's bindings will be: those of the files, and the known ones that the files do not name.
WITH coming AS MATERIALIZED (
    SELECT file_no, place, shard, card_no, is_default, coalesce(tag, old_tag) AS tag
      FROM planned_binding WHERE state = 'ACTIVE' AND old_state IS DISTINCT FROM 'ENDED'
    UNION ALL
    SELECT NULL, NULL, b.shard, b.card_no, b.is_default, b.tag
      FROM binding b
     WHERE b.state = 'ACTIVE'
       AND (b.shard, b.card_no) IN (SELECT shard, card_no FROM planned_binding)
       AND NOT EXISTS (SELECT FROM planned_binding p WHERE p.binding_no = b.binding_no)
), counted AS (
    SELECT file_no, place, is_default,
           count(*) FILTER (WHERE is_default) OVER (PARTITION BY shard, card_no) AS defaults,
           count(*) OVER (PARTITION BY shard, card_no, tag) AS alike,
           count(*) OVER (PARTITION BY shard, card_no) AS active
      FROM coming
)
SELECT file_no, place, 'is_default', 'the card would have two default bindings' FROM counted
 WHERE file_no IS NOT NULL AND is_default AND defaults > 1
UNION ALL
SELECT file_no, place, 'bank_card', 'is bound to the card by another agreement too' FROM counted WHERE file_no IS NOT NULL AND alike > 1
UNION ALL
SELECT file_no, place, 'pan', 'the card would have more than {most} active bindings' FROM counted WHERE file_no IS NOT NULL AND active > {most}

-- name: step_down
-- First those that end or are no default any more, so that another can be it.
WITH changed AS (
    UPDATE binding b
       SET is_default = p.is_default, confirmed_at = p.confirmed_at, transaction_limit_fen = p.transaction_limit_fen,
           day_limit_fen = p.day_limit_fen, state = p.state,
           ended_at = CASE WHEN p.state = 'ENDED' THEN clock_timestamp() END, ended_by = CASE WHEN p.state = 'ENDED' THEN %(actor)s END
      FROM planned_binding p
      JOIN binding old ON old.shard = p.shard AND old.card_no = p.card_no AND old.binding_no = p.binding_no
     WHERE p.differs AND b.shard = p.shard AND b.card_no = p.card_no AND b.binding_no = p.binding_no AND b.state = 'ACTIVE'
       AND (p.state = 'ENDED' OR NOT p.is_default) = %(down)s
 RETURNING b.shard, b.card_no, b.binding_no,
           jsonb_build_object('is_default', old.is_default, 'confirmed_at', old.confirmed_at,
                              'transaction_limit_fen', old.transaction_limit_fen, 'day_limit_fen', old.day_limit_fen, 'state', old.state) AS before,
           jsonb_build_object('is_default', b.is_default, 'confirmed_at', b.confirmed_at,
                              'transaction_limit_fen', b.transaction_limit_fen, 'day_limit_fen', b.day_limit_fen, 'state', b.state) AS after
), noted AS (
    INSERT INTO registry_change (actor, subject, change)
    SELECT %(actor)s, 'binding ' || binding_no,
           jsonb_strip_nulls(jsonb_build_object('card_no', card_no, 'reason', nullif(%(reason)s, '')))
           || jsonb_build_object('before', before, 'after', after)
      FROM changed
)
SELECT shard, card_no FROM changed

-- name: save_new
WITH added AS (
    INSERT INTO binding (shard, card_no, institution_id, agreement_id, sealed, tag, is_default, confirmed_at, transaction_limit_fen,
                         day_limit_fen, state, bound_by, ended_at, ended_by)
    SELECT shard, card_no, institution_id, agreement_id, sealed, tag, is_default, confirmed_at, transaction_limit_fen, day_limit_fen, state,
           %(actor)s, CASE WHEN state = 'ENDED' THEN clock_timestamp() END, CASE WHEN state = 'ENDED' THEN %(actor)s END
      FROM planned_binding
     WHERE is_new
 RETURNING *
), noted AS (
    INSERT INTO registry_change (actor, subject, change)
    SELECT %(actor)s, 'binding ' || binding_no,
           jsonb_build_object('before', NULL, 'after', jsonb_strip_nulls(jsonb_build_object(
               'card_no', card_no, 'institution_id', institution_id, 'agreement_id', agreement_id, 'is_default', is_default,
               'confirmed_at', confirmed_at, 'transaction_limit_fen', transaction_limit_fen, 'day_limit_fen', day_limit_fen, 'state', state,
               'reason', nullif(%(reason)s, ''))))
      FROM added
)
SELECT shard, card_no FROM added

-- name: binding_counts
SELECT count(*), count(*) FILTER (WHERE state = 'ACTIVE' AND old_state = 'ENDED') FROM planned_binding

-- name: announce_one
SELECT pg_notify('registry', %(payload)s)
