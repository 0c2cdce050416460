-- Files that came (received.py and who takes their lines).

-- name: lock_name
SELECT pg_try_advisory_lock(%(space)s, hashtext(%(name)s));

-- name: unlock_name
SELECT pg_advisory_unlock(%(space)s, hashtext(%(name)s));

-- name: is_member
SELECT EXISTS (SELECT FROM institution WHERE institution_id = %(sender)s
                  AND (%(role)s = '' OR role = %(role)s OR institution_id = %(own)s));

-- name: open_date
SELECT business_date FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at AND sealed_at IS NULL;

-- name: files_of_name
SELECT file_no, sm3, status, reason, line_count, total_fen, lines_done, results, business_date
  FROM received_file WHERE name = %(name)s ORDER BY file_no;

-- name: add_file
INSERT INTO received_file (name, sender_id, sm3, line_count, total_fen, status, actor)
VALUES (%(name)s, %(sender)s, %(sm3)s, %(line_count)s, %(total_fen)s, '00', %(actor)s)
RETURNING file_no;

-- name: add_refusal
-- Under the purse's gate, so that the day which names it is not closed.
INSERT INTO received_file (name, sender_id, sm3, line_count, total_fen, status, reason, actor, business_date, ended_at)
VALUES (%(name)s, %(sender)s, %(sm3)s, %(line_count)s, %(total_fen)s, %(status)s, %(reason)s, %(actor)s, %(today)s, clock_timestamp())
ON CONFLICT DO NOTHING;

-- name: add_chunk
-- Its key is what keeps two runs from taking the same lines.
INSERT INTO received_chunk (file_no, first_line, line_count, business_date, first_entry)
VALUES (%(file_no)s, %(first_line)s, %(line_count)s, %(today)s, %(first_entry)s);

-- name: move_on
UPDATE received_file
   SET lines_done = %(lines_done)s, results = %(results)s,
       business_date = CASE WHEN line_count = %(lines_done)s THEN %(today)s::date END,
       ended_at = CASE WHEN line_count = %(lines_done)s THEN clock_timestamp() END
 WHERE file_no = %(file_no)s AND business_date IS NULL;

-- name: sequences_before
-- Sequence numbers of a sender and clearing date that were taken.
SELECT DISTINCT right(name, 3)::integer
  FROM received_file
 WHERE status = '00' AND left(name, 26) = left(%(name)s, 26) AND right(name, 3) < right(%(name)s, 3);
