-- Partners' files (take.py).

-- name: lock
SELECT pg_try_advisory_lock(%(space)s, %(key)s);

-- name: lock_name
SELECT pg_try_advisory_lock(%(space)s, hashtext(%(name)s));

-- name: unlock_all
SELECT pg_advisory_unlock_all();

-- name: open_date
SELECT business_date FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at;

-- name: files_of_name
SELECT file_no, sm3, line_count, total_fen FROM partner_file WHERE name = %(name)s AND status = '00';

-- name: sequences_before
SELECT sequence FROM partner_file WHERE partner_id = %(partner)s AND business_date = %(day)s AND status = '00' AND sequence < %(sequence)s;

-- name: next_file
SELECT nextval(pg_get_serial_sequence('partner_file', 'file_no'))::integer;

-- name: make_lines
SELECT make_partner_lines(%(file_no)s);

-- name: add_file
INSERT INTO partner_file (file_no, name, partner_id, business_date, sequence, sm3, line_count, total_fen, effect_fen, status, actor)
OVERRIDING SYSTEM VALUE
VALUES (%(file_no)s, %(name)s, %(partner)s, %(day)s, %(sequence)s, %(sm3)s, %(line_count)s, %(total_fen)s, %(effect_fen)s, '00', %(actor)s);

-- name: add_refusal
INSERT INTO partner_file (name, partner_id, business_date, sequence, sm3, line_count, total_fen, effect_fen, status, reason, actor)
VALUES (%(name)s, %(partner)s, %(day)s, %(sequence)s, %(sm3)s, %(line_count)s, %(total_fen)s, 0, %(status)s, %(reason)s, %(actor)s)
ON CONFLICT DO NOTHING;

-- name: line_count
SELECT count(*) FROM partner_line WHERE file_no = %(file_no)s;

-- name: loose_tables
-- Lines of files that nobody has attached: of a taking that was killed, or that goes on now.
SELECT c.relname, substr(c.relname, 14)::integer
  FROM pg_class c
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname ~ '^partner_line_[0-9]+$' AND NOT c.relispartition;

-- name: old_tables
-- Lines that no comparison asks for any more: of files whose date is so many days before this one, and of files that a later one has replaced
-- so long ago. What was found in them stays in its own table.
SELECT c.relname
  FROM pg_class c
  JOIN partner_file f ON f.file_no = substr(c.relname, 14)::integer
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname ~ '^partner_line_[0-9]+$' AND c.relispartition
   AND f.business_date < %(day)s - %(days)s::integer;
