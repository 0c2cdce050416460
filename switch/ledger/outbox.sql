-- What hosts must still be told: taken for sending, and what became of it. The instants are the database's: several hosts have
-- several clocks.

-- name: claim_due
-- Of each leg only the oldest open message, so that a host hears of a transaction in its order. Found by a subquery that the planner
-- cannot turn into a join, and by LATERAL and LIMIT: whatever the statistics say, each is one look into an index. Who has claimed moves
-- due_at on: nobody else sends it until then, and a crash gives it back. A message without a leg is claimed too, to be seen as one
-- that cannot be sent; else it would stand in front for ever.
WITH due AS MATERIALIZED (
    SELECT o.outbox_no
      FROM host_outbox o
     WHERE o.shard = %(shard)s AND o.host = %(host)s AND o.result IS NULL AND o.due_at <= now()
       AND o.outbox_no = (
           SELECT e.outbox_no
             FROM host_outbox e
            WHERE e.shard = %(shard)s AND e.leg_no = o.leg_no AND e.result IS NULL
            ORDER BY e.created_at, e.outbox_no
            LIMIT 1)
     ORDER BY o.due_at
     LIMIT %(limit)s
       FOR NO KEY UPDATE OF o SKIP LOCKED
), claimed AS (
    UPDATE host_outbox o
       SET due_at = now() + %(lease_s)s * interval '1 second', sending = true
      FROM due
     WHERE o.shard = %(shard)s AND o.outbox_no = due.outbox_no
    RETURNING o.shard, o.outbox_no, o.leg_no, o.step, o.service, o.reason, o.amount_fen, o.rrn, o.transmitted, o.trace,
              o.created_at, o.tries, o.due_at
)
SELECT o.shard, o.outbox_no, o.leg_no, o.step, o.service, o.reason, o.amount_fen, o.rrn, o.transmitted, o.trace, o.created_at, o.tries,
       o.due_at, l.step, l.transmitted, l.trace, l.service, l.account_kind, l.pan, l.terminal_id, l.merchant_id, l.entry_mode, l.host_auth,
       l.asked_at, l.business_date
  FROM claimed o
  LEFT JOIN LATERAL (SELECT * FROM host_leg WHERE host_leg.shard = %(shard)s AND host_leg.leg_no = o.leg_no LIMIT 1) AS l ON true
 ORDER BY o.created_at, o.outbox_no;

-- name: lock_stand_in
-- Before the messages: whoever approves in a host's place takes this first too.
SELECT outstanding_fen, outstanding_count FROM stand_in WHERE shard = %(shard)s AND host = %(host)s FOR NO KEY UPDATE;

-- name: record_ends
-- Locked in the order of their numbers, so that two that record the same messages queue. What has ended stays ended, however often it is
-- said; what is to be tried again is only put back by the one whose claim still stands.
WITH ended AS MATERIALIZED (
    SELECT *
      FROM unnest(%(numbers)s::bigint[], %(results)s::smallint[], %(said)s::text[], %(tried)s::integer[], %(waits_ms)s::bigint[],
                  %(held_until)s::timestamptz[]) AS e (outbox_no, result, said, tried, wait_ms, held_until)
), locked AS MATERIALIZED (
    SELECT outbox_no
      FROM host_outbox
     WHERE shard = %(shard)s AND outbox_no = ANY(%(numbers)s::bigint[]) AND result IS NULL
     ORDER BY outbox_no
       FOR NO KEY UPDATE
)
UPDATE host_outbox o
   SET result = nullif(e.result, 0),
       done_at = CASE WHEN e.result > 0 THEN now() END,
       due_at = CASE WHEN e.result > 0 THEN o.due_at ELSE now() + e.wait_ms * interval '1 millisecond' END,
       tries = o.tries + e.tried,
       last_end = CASE WHEN e.tried > 0 OR e.result > 0 THEN e.said ELSE o.last_end END,
       sending = false
  FROM ended e JOIN locked USING (outbox_no)
 WHERE o.shard = %(shard)s AND o.outbox_no = e.outbox_no AND o.result IS NULL
   AND (e.result > 0 OR o.sending AND o.due_at = e.held_until)
RETURNING o.outbox_no, o.result;

-- name: change_stand_in
-- Never below zero: a wrong figure must not keep the outbox from being written. It is said in the log, and found by counting again.
UPDATE stand_in
   SET outstanding_fen = greatest(outstanding_fen + %(fen)s, 0), outstanding_count = greatest(outstanding_count + %(count)s, 0)
 WHERE shard = %(shard)s AND host = %(host)s;

-- name: note_late
-- What a host said after its leg had ended, once; of one that it had declined, an approval goes before another decline. Of one that is open
-- nothing yet: whether it needs a reversal is known with its end. A leg that was decided in the host's place has asked nothing.
WITH leg AS (
    SELECT shard, leg_no, state
      FROM host_leg
     WHERE host = %(host)s AND transmitted = %(transmitted)s AND trace = %(trace)s AND state <> 5
     LIMIT 1
       FOR NO KEY UPDATE
), noted AS (
    UPDATE host_leg l
       SET late_code = %(code)s
      FROM leg
     WHERE l.shard = leg.shard AND l.leg_no = leg.leg_no AND leg.state <> 0
       AND (l.late_code IS NULL OR (l.state = 2 AND %(code)s = '00' AND l.late_code <> '00'))
    RETURNING l.state
)
SELECT leg.shard, leg.leg_no, coalesce(noted.state, leg.state), noted.state IS NOT NULL FROM leg LEFT JOIN noted ON true;

-- name: hasten_reversal
-- One that is on its way stays with whoever sends it.
UPDATE host_outbox
   SET due_at = now()
 WHERE shard = %(shard)s AND leg_no = %(leg_no)s AND step = 5 AND result IS NULL AND due_at > now() AND NOT sending;

-- name: reverse_declined
-- A host approved what it had declined: the one reversal, unless its doubtful code has had one made already. A block of serials of its
-- own, of which the first is taken: rare enough. Its key is made like that of any other message (serials.py, legs.trace_of).
INSERT INTO host_outbox (shard, created_at, due_at, outbox_no, leg_no, host, step, service, reason, amount_fen, entry_no, rrn,
                         transmitted, trace)
SELECT l.shard, now(), now(), s.number, l.leg_no, l.host, 5, l.service, '96', l.amount_fen, l.ended_by, l.rrn,
       to_char(now() AT TIME ZONE 'UTC' + interval '8 hours', 'MMDDHH24MISS'), s.number %% 999999 + 1
  FROM host_leg l, (SELECT (nextval('entry_no_block') - 1) * %(block)s + 1 AS number) AS s
 WHERE l.shard = %(shard)s AND l.leg_no = %(leg_no)s AND l.state = 2 AND l.service <> 3
   AND NOT EXISTS (SELECT FROM host_outbox o WHERE o.shard = l.shard AND o.leg_no = l.leg_no AND o.step = 5);

-- name: outbox_figures
-- oldest_s: of the open ones.
SELECT host, count(*) FILTER (WHERE result IS NULL), count(*) FILTER (WHERE result = 2),
       coalesce(extract(epoch FROM now() - min(created_at) FILTER (WHERE result IS NULL)), 0)::double precision
  FROM host_outbox
 WHERE shard = ANY(%(shards)s) AND (result IS NULL OR result = 2)
 GROUP BY host;

-- name: list_outbox
SELECT o.shard, o.outbox_no, o.host, o.leg_no, o.step, o.service, o.reason, o.amount_fen, o.rrn, o.transmitted, o.trace, o.created_at,
       o.due_at, o.sending AND o.due_at > now(), o.tries, o.last_end, o.result, o.done_at, coalesce(l.pan, '')
  FROM host_outbox o
  LEFT JOIN LATERAL (SELECT pan FROM host_leg WHERE host_leg.shard = o.shard AND host_leg.leg_no = o.leg_no LIMIT 1) AS l ON true
 WHERE (o.result IS NULL AND NOT %(refused)s OR o.result = 2) AND (%(host)s = '' OR o.host = %(host)s)
 ORDER BY o.created_at, o.outbox_no
 LIMIT %(limit)s;

-- name: stand_in_outstanding
SELECT host, sum(outstanding_fen)::bigint, sum(outstanding_count)::bigint FROM stand_in GROUP BY host;

-- name: find_message
SELECT shard FROM host_outbox WHERE host = %(host)s AND outbox_no = %(outbox_no)s;

-- name: lock_message
SELECT o.result, o.leg_no, o.created_at, o.amount_fen,
       o.step = 3 AND EXISTS (
           SELECT FROM host_leg l
            WHERE l.shard = o.shard AND l.leg_no = o.leg_no AND l.step = 3 AND l.transmitted = o.transmitted AND l.trace = o.trace)
  FROM host_outbox o
 WHERE o.shard = %(shard)s AND o.outbox_no = %(outbox_no)s
   FOR NO KEY UPDATE;

-- name: later_of_leg
-- A later message of the same leg that the host has confirmed, or may be reading at this moment.
SELECT outbox_no
  FROM host_outbox
 WHERE shard = %(shard)s AND leg_no = %(leg_no)s AND (created_at, outbox_no) > (%(created_at)s, %(outbox_no)s)
   AND (result = 1 OR result IS NULL AND sending AND due_at > now())
 LIMIT 1;

-- name: open_again
UPDATE host_outbox SET result = NULL, done_at = NULL, due_at = now(), sending = false
 WHERE shard = %(shard)s AND outbox_no = %(outbox_no)s;

-- name: settle
UPDATE host_outbox SET result = 3 WHERE shard = %(shard)s AND outbox_no = %(outbox_no)s;

-- name: note_outbox
INSERT INTO registry_change (actor, subject, change) VALUES (%(actor)s, %(subject)s, %(change)s);

-- name: stand_in_days
-- By the advice of each leg: 1 confirmed, 2 refused (3: and settled by an operator), else outstanding.
SELECT l.host, l.business_date, count(*), sum(l.amount_fen)::bigint,
       count(*) FILTER (WHERE o.result = 1), coalesce(sum(l.amount_fen) FILTER (WHERE o.result = 1), 0)::bigint,
       count(*) FILTER (WHERE o.result IN (2, 3)), coalesce(sum(l.amount_fen) FILTER (WHERE o.result IN (2, 3)), 0)::bigint,
       count(*) FILTER (WHERE o.result IS NULL), coalesce(sum(l.amount_fen) FILTER (WHERE o.result IS NULL), 0)::bigint
  FROM host_leg l
  LEFT JOIN host_outbox o ON o.shard = l.shard AND o.leg_no = l.leg_no AND o.step = 3
       AND o.transmitted = l.transmitted AND o.trace = l.trace
 WHERE l.state = 5 AND (%(host)s = '' OR l.host = %(host)s)
 GROUP BY l.host, l.business_date
 ORDER BY l.host, l.business_date;
