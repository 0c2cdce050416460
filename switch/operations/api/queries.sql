-- The API's own questions (tokens.py, views.py); lines of reports are those of switch.clearing.

-- name: next_token_no
SELECT nextval(pg_get_serial_sequence('api_token', 'token_no'))::integer;

-- name: add_token
INSERT INTO api_token (token_no, name, role, party, digest, created_by, expires_at) OVERRIDING SYSTEM VALUE
VALUES (%(token_no)s, %(name)s, %(role)s, %(party)s, %(digest)s, %(actor)s, clock_timestamp() + make_interval(days => %(days)s))
RETURNING expires_at;

-- name: known_institution
SELECT EXISTS (SELECT FROM institution WHERE institution_id = %(party)s);

-- name: known_merchant
SELECT EXISTS (SELECT FROM merchant WHERE merchant_id = %(party)s);

-- name: find_token
-- The clock that says whether it still holds is the database's.
SELECT digest, role, party, name FROM api_token WHERE token_no = %(token_no)s AND revoked_at IS NULL AND expires_at > clock_timestamp();

-- name: list_tokens
SELECT token_no, name, role, party, created_at, created_by, expires_at, revoked_at, revoked_by, expires_at <= clock_timestamp()
  FROM api_token ORDER BY token_no LIMIT %(limit)s;

-- name: revoke_token
UPDATE api_token SET revoked_at = clock_timestamp(), revoked_by = %(actor)s WHERE token_no = %(token_no)s AND revoked_at IS NULL
RETURNING name;

-- name: days
-- Newest first. closed_only: what partners see.
SELECT d.business_date, d.state, d.begins_at, d.ends_at, d.sealed_at, c.created_at, c.settlement_date, coalesce(c.has_reports, false)
  FROM business_day d LEFT JOIN clearing_day c USING (business_date)
 WHERE d.begins_at <= clock_timestamp() AND (d.state = 2 OR NOT %(closed_only)s) AND (%(day)s::date IS NULL OR d.business_date = %(day)s)
   AND (%(before)s::date IS NULL OR d.business_date < %(before)s)
 ORDER BY d.business_date DESC OFFSET %(offset)s LIMIT %(limit)s;

-- name: files
-- party_no is there for files of merchants only, so a member of the same number sees none of them.
SELECT name, left(name, 2), party, party_no IS NOT NULL, line_count, total_fen, size_bytes, upper(encode(sm3, 'hex'))
  FROM clearing_file
 WHERE business_date = %(day)s AND sm3 IS NOT NULL AND (%(name)s::text IS NULL OR name = %(name)s)
   AND (%(member)s::text IS NULL OR (party = %(member)s AND party_no IS NULL))
   AND (%(merchant)s::text IS NULL OR (party = %(merchant)s AND party_no IS NOT NULL))
 ORDER BY ordinal OFFSET %(offset)s LIMIT %(limit)s;
