-- Legs of transactions that lie with hosts, and the outbox, as batches write them (leg_rows.py).

-- name: lock_terminals
-- In order of number, behind the accounts: what no account of ours orders is ordered by its terminal.
SELECT pg_advisory_xact_lock(%(space)b::int, terminal_no)
  FROM (SELECT unnest(%(terminals)b::int[]) AS terminal_no ORDER BY 1) AS sorted;

-- name: add_stand_ins
INSERT INTO stand_in (shard, host)
SELECT %(shard)b::smallint, host FROM unnest(%(hosts)b::text[]) AS host ORDER BY host
    ON CONFLICT DO NOTHING;

-- name: lock_stand_ins
SELECT host, outstanding_fen, outstanding_count
  FROM stand_in
 WHERE shard = %(shard)b AND host = ANY(%(hosts)b::text[])
 ORDER BY host
   FOR NO KEY UPDATE;

-- name: lock_bindings
-- In order of number: two payments by one bound card, at two terminals, are counted one after the other.
SELECT pg_advisory_xact_lock(%(space)b::int, binding_no)
  FROM (SELECT unnest(%(bindings)b::int[]) AS binding_no ORDER BY 1) AS sorted;

-- name: read_bound
-- What bound cards have paid today, or are being asked for. What was undone does not count; what was refunded does.
-- Of a load to an account that was taken back only the reversal tells. oldest: as in find_keys.
SELECT l.binding_no, sum(l.amount_fen)::bigint
  FROM business_day d
  JOIN host_leg l ON l.shard = %(shard)b AND l.binding_no = ANY(%(bindings)b::bigint[]) AND l.business_date = d.business_date AND l.state IN (0, 1, 5)
  LEFT JOIN original_use u ON u.shard = l.shard AND u.entry_no = l.ended_by AND u.undone_by IS NOT NULL
  LEFT JOIN purse_load p ON p.shard = l.shard AND p.entry_no = l.ended_by AND p.held = 0
 WHERE d.begins_at <= clock_timestamp() AND clock_timestamp() < d.ends_at AND u.entry_no IS NULL AND p.entry_no IS NULL
   AND NOT (l.service = 5
            AND EXISTS (SELECT FROM journal r
                         WHERE r.shard = %(shard)b AND r.terminal_no = l.terminal_no AND r.batch_no = l.batch_no AND r.stan = l.stan AND r.class = 1
                           AND r.business_date >= %(oldest)b::date AND r.kind = 5 AND r.answer = '00')
            AND NOT EXISTS (SELECT FROM purse_load q WHERE q.shard = l.shard AND q.entry_no = l.ended_by))
 GROUP BY l.binding_no;

-- name: read_legs
-- Of intents by their key, of transactions by the entry that is one.
SELECT l.terminal_no, l.batch_no, l.stan, l.leg_no, l.business_date, l.host, l.service, l.step, l.debit_code, l.debit_owner,
       l.amount_fen, l.rrn, l.transmitted, l.trace, l.state, l.ended_at, l.ended_by, l.host_code, l.host_auth, l.host_day
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(stans)b::int[]) AS k (terminal_no, batch_no, stan)
  JOIN host_leg l ON l.shard = %(shard)b AND l.terminal_no = k.terminal_no AND l.batch_no = k.batch_no AND l.stan = k.stan
 UNION
SELECT l.terminal_no, l.batch_no, l.stan, l.leg_no, l.business_date, l.host, l.service, l.step, l.debit_code, l.debit_owner,
       l.amount_fen, l.rrn, l.transmitted, l.trace, l.state, l.ended_at, l.ended_by, l.host_code, l.host_auth, l.host_day
  FROM host_leg l
 WHERE l.shard = %(shard)b AND l.ended_by = ANY(%(ended_by)b::bigint[]);

-- name: add_legs
INSERT INTO host_leg (shard, business_date, terminal_no, batch_no, stan, merchant_no, kind, account_kind, asked_at, gives_up_at, leg_no,
                      amount_fen, debit_code, debit_owner, service, step, trace, state, terminal_id, merchant_id, pan, entry_mode, rrn,
                      host, transmitted, ended_at, ended_by, binding_no)
SELECT %(shard)b::smallint, %(business_date)b::date, n.* FROM unnest(%(lines)b::leg_line[]) AS n;

-- name: end_legs
-- Only what is still open: whoever ended a leg first has ended it, even if the lock on its terminal were forgotten.
UPDATE host_leg AS l
   SET state = n.state, ended_at = n.ended_at, ended_by = n.ended_by, host_code = n.host_code, host_auth = n.host_auth,
       host_day = n.host_day
  FROM unnest(%(lines)b::ended_leg_line[]) AS n
 WHERE l.shard = %(shard)b AND l.leg_no = n.leg_no AND l.state = 0;

-- name: write_stand_ins
UPDATE stand_in AS s
   SET outstanding_fen = n.fen, outstanding_count = n.count
  FROM unnest(%(hosts)b::text[], %(fens)b::bigint[], %(counts)b::int[]) AS n (host, fen, count)
 WHERE s.shard = %(shard)b AND s.host = n.host;

-- name: write_outbox
INSERT INTO host_outbox (shard, created_at, due_at, outbox_no, leg_no, step, service, amount_fen, entry_no, trace, host, reason, rrn,
                         transmitted)
SELECT %(shard)b::smallint, %(now)b::timestamptz, %(now)b::timestamptz, n.* FROM unnest(%(lines)b::outbox_line[]) AS n;

-- name: find_abandoned
-- Legs that nobody has ended in time, with what their end needs.
SELECT shard, leg_no, business_date, terminal_no, batch_no, stan, merchant_no, account_kind, pan, amount_fen
  FROM host_leg
 WHERE shard = %(shard)s AND state = 0 AND gives_up_at <= clock_timestamp()
 ORDER BY gives_up_at
 LIMIT %(limit)s;

-- name: find_anywhere
-- For a request whose holder only its original knows.
SELECT j.class, j.pan
  FROM journal j
 WHERE j.shard = ANY(%(shards)s::smallint[])
   AND j.business_date >= coalesce(%(since)s::date, current_date - 6)
   AND j.terminal_no = %(terminal_no)s AND j.batch_no = %(batch_no)s AND j.stan = %(stan)s;
