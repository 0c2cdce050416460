-- Files sent again (resends.py).

-- name: lock
SELECT pg_try_advisory_lock(%(space)s, hashtext(%(base)s));

-- name: unlock
SELECT pg_advisory_unlock(%(space)s, hashtext(%(base)s));

-- name: original
-- The file that goes by a name, or that was sent again under it, and the last sequence in use: a day may have several DT for one receiver.
SELECT f.name, f.business_date, encode(f.sm3, 'hex'),
       (SELECT max(right(u.name, 3)::integer)
          FROM (SELECT name FROM clearing_file WHERE business_date = %(day)s
                UNION ALL SELECT name FROM clearing_resend WHERE of_date = %(day)s) AS u
         WHERE left(u.name, 26) = %(base)s)
  FROM clearing_file f JOIN business_day b USING (business_date)
 WHERE f.business_date = %(day)s AND b.state = 2
   AND f.name = coalesce((SELECT r.original FROM clearing_resend r WHERE r.name = %(name)s), %(name)s);

-- name: resends
SELECT name, original, of_date, business_date, reason, actor, made_at, upper(encode(sm3, 'hex')), size_bytes
  FROM clearing_resend WHERE of_date = %(day)s ORDER BY name;

-- name: add_resend
INSERT INTO clearing_resend (business_date, name, of_date, original, reason, actor, sm3, size_bytes)
SELECT business_date, %(name)s, %(of_date)s, %(original)s, %(reason)s, %(actor)s, %(sm3)s, %(size_bytes)s
  FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at;
