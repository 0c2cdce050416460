-- What partners are sent and have answered (deliveries.py).

-- name: lock_partner
SELECT pg_try_advisory_lock(%(space)s, hashtext(%(partner)s));

-- name: unlock_partner
SELECT pg_advisory_unlock(%(space)s, hashtext(%(partner)s));

-- name: days_to_queue
SELECT b.business_date
  FROM business_day b
 WHERE b.state = 2 AND b.business_date >= %(since)s
   AND NOT EXISTS (SELECT FROM delivery_day d WHERE d.partner = %(partner)s AND d.business_date = b.business_date)
 ORDER BY b.business_date LIMIT %(most)s;

-- name: queue_day
-- One statement: a day is queued whole and once.
WITH queued AS (
    INSERT INTO delivery (partner, number, name, of_date, sm3, size_bytes)
    SELECT %(partner)s, before.last + row_number() OVER (ORDER BY f.ordinal), f.name, f.business_date, f.sm3, f.size_bytes
      FROM clearing_file f
     CROSS JOIN (SELECT coalesce(max(number), 0) AS last FROM delivery WHERE partner = %(partner)s) AS before
     WHERE f.business_date = %(day)s AND f.party = ANY(%(parties)s) AND left(f.name, 2) = ANY(%(types)s)
    RETURNING 1)
INSERT INTO delivery_day (partner, business_date, files) SELECT %(partner)s, %(day)s, count(*) FROM queued;

-- name: queue_resends
INSERT INTO delivery (partner, number, name, of_date, sm3, size_bytes)
SELECT %(partner)s, before.last + row_number() OVER (ORDER BY r.resend_no), r.name, r.of_date, r.sm3, r.size_bytes
  FROM clearing_resend r
  JOIN clearing_file f ON f.business_date = r.of_date AND f.name = r.original
 CROSS JOIN (SELECT coalesce(max(number), 0) AS last FROM delivery WHERE partner = %(partner)s) AS before
 WHERE r.business_date >= %(since)s AND f.party = ANY(%(parties)s) AND left(f.name, 2) = ANY(%(types)s)
   AND NOT EXISTS (SELECT FROM delivery d WHERE d.partner = %(partner)s AND d.name = r.name);

-- name: queue_centre
-- Files of the interop centre that this installation is; a date has them in two parts, DF first.
INSERT INTO delivery (partner, number, name, of_date, sm3, size_bytes)
SELECT %(partner)s, before.last + row_number() OVER (ORDER BY f.clearing_date, f.ordinal), f.name, f.clearing_date, f.sm3, f.size_bytes
  FROM interop_file f
 CROSS JOIN (SELECT coalesce(max(number), 0) AS last FROM delivery WHERE partner = %(partner)s) AS before
 WHERE f.sm3 IS NOT NULL AND f.clearing_date >= %(since)s AND f.party = ANY(%(parties)s) AND left(f.name, 2) = ANY(%(types)s)
   AND NOT EXISTS (SELECT FROM delivery d WHERE d.partner = %(partner)s AND d.name = f.name);

-- name: next_waiting
SELECT d.number, d.name, d.of_date, upper(encode(d.sm3, 'hex')), d.size_bytes, d.attempts, d.marking, s.signature
  FROM delivery d
  LEFT JOIN file_signature s ON s.name = d.name
 WHERE d.partner = %(partner)s AND d.state = 'WAITING' ORDER BY d.number LIMIT 1;

-- name: begin_attempt
-- Before a byte leaves: what an answer or a file found there later means depends on it.
UPDATE delivery SET attempts = attempts + 1 WHERE partner = %(partner)s AND number = %(number)s AND state = 'WAITING';

-- name: begin_marking
UPDATE delivery SET marking = true WHERE partner = %(partner)s AND number = %(number)s AND state = 'WAITING';

-- name: note_error
UPDATE delivery SET last_error = %(error)s WHERE partner = %(partner)s AND number = %(number)s AND state = 'WAITING';

-- name: sent
UPDATE delivery SET state = 'SENT', sent_at = clock_timestamp(), last_error = '' WHERE partner = %(partner)s AND number = %(number)s AND state = 'WAITING';

-- name: read_for_receipt
SELECT number, state, upper(encode(sm3, 'hex')), attempts FROM delivery WHERE partner = %(partner)s AND name = %(name)s FOR UPDATE;

-- name: add_receipt
INSERT INTO delivery_receipt (partner, file, sm3, written_at, outcome)
VALUES (%(partner)s, %(file)s, %(sm3)s, %(written_at)s, %(outcome)s)
ON CONFLICT DO NOTHING;

-- name: known_receipt
SELECT EXISTS (SELECT FROM delivery_receipt WHERE partner = %(partner)s AND file = %(file)s AND sm3 = %(sm3)s AND written_at = %(written_at)s);

-- name: answer
UPDATE delivery
   SET state = %(state)s, reason = %(reason)s, ended_at = clock_timestamp(), sent_at = coalesce(sent_at, clock_timestamp()), last_error = ''
 WHERE partner = %(partner)s AND number = %(number)s;

-- name: alarm
INSERT INTO delivery_alarm (partner, kind, name, detail) VALUES (%(partner)s, %(kind)s, %(name)s, %(detail)s) ON CONFLICT DO NOTHING;

-- name: behind
-- The oldest file that a partner has not got, or not answered where he answers.
SELECT name, queued_at
  FROM delivery
 WHERE partner = %(partner)s AND (state = 'WAITING' OR (state = 'SENT' AND %(answers)s))
   AND queued_at < clock_timestamp() - make_interval(hours => %(hours)s)
 ORDER BY number LIMIT 1;

-- name: line_due
SELECT coalesce((SELECT next_try_at <= clock_timestamp() FROM delivery_partner WHERE partner = %(partner)s), true);

-- name: line_good
INSERT INTO delivery_partner (partner, tried_at, good_at) VALUES (%(partner)s, clock_timestamp(), clock_timestamp())
ON CONFLICT (partner) DO UPDATE
   SET failures = 0, last_error = '', tried_at = excluded.tried_at, good_at = excluded.good_at, next_try_at = excluded.next_try_at;

-- name: line_failed
-- The pause doubles with every failure.
INSERT INTO delivery_partner AS p (partner, failures, last_error, tried_at, next_try_at)
VALUES (%(partner)s, 1, %(error)s, clock_timestamp(), clock_timestamp() + make_interval(secs => %(pause_s)s))
ON CONFLICT (partner) DO UPDATE
   SET failures = p.failures + 1, last_error = excluded.last_error, tried_at = excluded.tried_at,
       next_try_at = clock_timestamp()
                     + make_interval(secs => least(%(pause_max_s)s, %(pause_s)s * power(2, least(p.failures, 20))));

-- name: inbox
SELECT state, said, answered_at IS NOT NULL FROM delivery_inbox WHERE partner = %(partner)s AND name = %(name)s AND sm3 = %(sm3)s;

-- name: add_inbox
INSERT INTO delivery_inbox (partner, name, sm3, size_bytes) VALUES (%(partner)s, %(name)s, %(sm3)s, %(size)s) ON CONFLICT DO NOTHING;

-- name: other_version
SELECT EXISTS (SELECT FROM delivery_inbox WHERE partner = %(partner)s AND name = %(name)s AND sm3 <> %(sm3)s AND state IN ('TAKEN', 'KEPT'));

-- name: end_inbox
UPDATE delivery_inbox SET state = %(state)s, said = %(said)s, ended_at = clock_timestamp()
 WHERE partner = %(partner)s AND name = %(name)s AND sm3 = %(sm3)s AND state = 'FETCHED';

-- name: answered
UPDATE delivery_inbox SET answered_at = clock_timestamp()
 WHERE partner = %(partner)s AND name = %(name)s AND sm3 = %(sm3)s AND answered_at IS NULL;

-- name: figures
-- By partner: files that wait, files sent and not answered, seconds since the oldest of those that wait was queued, failures in a row.
SELECT p.partner, coalesce(d.waiting, 0), coalesce(d.sent, 0), coalesce(d.oldest_s, 0)::float8, p.failures
  FROM delivery_partner p
  LEFT JOIN (SELECT partner, count(*) FILTER (WHERE state = 'WAITING') AS waiting, count(*) FILTER (WHERE state = 'SENT') AS sent,
                    extract(epoch FROM clock_timestamp() - min(queued_at) FILTER (WHERE state = 'WAITING')) AS oldest_s
               FROM delivery WHERE state IN ('WAITING', 'SENT') GROUP BY partner) AS d USING (partner)
 ORDER BY p.partner;

-- name: alarm_counts
SELECT kind, count(*) FROM delivery_alarm WHERE raised_at > clock_timestamp() - interval '24 hours' GROUP BY kind;

-- name: partners
SELECT p.partner, p.failures, p.last_error, p.tried_at, p.good_at, p.next_try_at,
       (SELECT count(*) FROM delivery d WHERE d.partner = p.partner AND d.state = 'WAITING'),
       (SELECT count(*) FROM delivery d WHERE d.partner = p.partner AND d.state = 'SENT'),
       (SELECT count(*) FROM delivery d WHERE d.partner = p.partner AND d.state = 'ACKNOWLEDGED'),
       (SELECT count(*) FROM delivery d WHERE d.partner = p.partner AND d.state = 'REJECTED'),
       (SELECT count(*) FROM delivery_inbox i WHERE i.partner = p.partner),
       (SELECT count(*) FROM delivery_alarm a WHERE a.partner = p.partner)
  FROM delivery_partner p ORDER BY p.partner;

-- name: deliveries_of
-- The newest first. holds: the highest generation of the file that the partner has acknowledged.
SELECT d.number, d.name, d.state, d.attempts, d.queued_at, d.sent_at, d.ended_at, d.last_error, d.reason,
       (SELECT max(right(h.name, 3)) FROM delivery h
         WHERE h.partner = d.partner AND left(h.name, 26) = left(d.name, 26) AND h.state = 'ACKNOWLEDGED') AS holds
  FROM delivery d
 WHERE d.partner = %(partner)s AND (%(open)s IS FALSE OR d.state <> 'ACKNOWLEDGED')
 ORDER BY d.number DESC LIMIT %(most)s;

-- name: inbox_of
SELECT name, state, said, fetched_at, ended_at, answered_at FROM delivery_inbox WHERE partner = %(partner)s ORDER BY fetched_at DESC LIMIT %(most)s;

-- name: alarms_of
SELECT alarm_no, partner, kind, name, detail, raised_at FROM delivery_alarm
 WHERE %(partner)s = '' OR partner = %(partner)s ORDER BY alarm_no DESC LIMIT %(most)s;

-- name: retry_line
UPDATE delivery_partner SET next_try_at = clock_timestamp() WHERE partner = %(partner)s;

-- name: retry_waiting
UPDATE delivery SET attempts = least(attempts, 1) WHERE partner = %(partner)s AND state = 'WAITING' AND (%(name)s = '' OR name = %(name)s);

-- name: retry_rejected
UPDATE delivery SET state = 'WAITING', attempts = 0, marking = false, sent_at = NULL, ended_at = NULL
 WHERE partner = %(partner)s AND state = 'REJECTED' AND name = %(name)s;
