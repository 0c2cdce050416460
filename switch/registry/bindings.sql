-- Bound bank cards, as the serving processes and operators read them.

-- name: default_bindings
SELECT b.shard, b.card_no, b.binding_no, b.institution_id, b.agreement_id, b.sealed, b.transaction_limit_fen, b.day_limit_fen
  FROM unnest(%(shards)b::smallint[], %(card_nos)b::bigint[]) AS w (shard, card_no)
  JOIN binding b ON b.shard = w.shard AND b.card_no = w.card_no AND b.state = 'ACTIVE' AND b.is_default

-- name: bindings_of_card
SELECT b.binding_no, b.institution_id, b.agreement_id, b.sealed, b.is_default, b.confirmed_at, b.transaction_limit_fen, b.day_limit_fen,
       b.state, b.bound_at, b.bound_by, b.ended_at, b.ended_by
  FROM binding b
 WHERE b.shard = %(shard)s AND b.card_no = %(card_no)s
 ORDER BY b.binding_no

-- name: bank_of_card
SELECT b.institution_id
  FROM card_route r
  JOIN binding b ON b.shard = r.shard AND b.card_no = r.card_no AND b.state = 'ACTIVE' AND b.is_default
 WHERE r.pan = %(pan)s

-- name: end_binding
UPDATE binding
   SET state = 'ENDED', ended_at = clock_timestamp(), ended_by = %(actor)s
 WHERE binding_no = %(binding_no)s AND state = 'ACTIVE'
RETURNING shard, card_no, ended_at

-- name: note_end
INSERT INTO registry_change (at, actor, subject, change)
VALUES (%(at)s, %(actor)s, 'binding ' || %(binding_no)s::bigint,
        jsonb_build_object('card_no', %(card_no)s::bigint, 'before', jsonb_build_object('state', 'ACTIVE'),
                           'after', jsonb_build_object('state', 'ENDED'), 'reason', %(reason)s::text, 'evidence', %(evidence)s::text))

-- name: state_of_binding
SELECT state FROM binding WHERE binding_no = %(binding_no)s

-- name: announce_binding
SELECT pg_notify('registry', %(payload)s)
