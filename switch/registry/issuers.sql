-- Whose cards are whose, as routing reads it.

-- name: issuers
SELECT upper(encode(issuer_id, 'hex')), institution_id, own,
       coalesce(circle, CASE WHEN own THEN 'LOCAL' ELSE 'NATION' END), scope, bins
  FROM card_issuer ORDER BY issuer_id

-- name: scopes
SELECT institution_id, scope FROM institution
