-- The fleet: what is known of every terminal, and when it was last heard.

-- name: note_seen
-- Ages, because processes have clocks of their own. A later instant is never replaced by an earlier one.
INSERT INTO terminal_seen (terminal_no, seen_at, uploaded_at, record_at)
SELECT s.terminal_no, clock_timestamp() - make_interval(secs => s.age), clock_timestamp() - make_interval(secs => s.upload_age), s.moment
  FROM unnest(%(numbers)s::integer[], %(ages)s::float8[], %(upload_ages)s::float8[], %(moments)s::timestamp[])
       AS s (terminal_no, age, upload_age, moment)
  JOIN terminal t USING (terminal_no)
    ON CONFLICT (terminal_no) DO UPDATE
   SET seen_at = greatest(terminal_seen.seen_at, excluded.seen_at),
       uploaded_at = greatest(terminal_seen.uploaded_at, excluded.uploaded_at),
       record_at = CASE WHEN excluded.uploaded_at >= coalesce(terminal_seen.uploaded_at, '-infinity') THEN excluded.record_at
                        ELSE terminal_seen.record_at END

-- name: evening
-- The last time it was that o'clock.
SELECT clock_timestamp(),
       (date_trunc('day', n.local - %(evening)s::time::interval) + %(evening)s::time::interval) AT TIME ZONE 'Asia/Shanghai'
  FROM (SELECT clock_timestamp() AT TIME ZONE 'Asia/Shanghai' AS local) n

-- name: fleet
-- What was noted of uploads may lack the last seconds before a crash. So of buses that seem not to have come home since %(since)s the journal is asked.
SELECT t.terminal_id, m.merchant_id, m.category, t.slot, greatest(s.seen_at, u.seen_at, n.signed_on_at),
       greatest(s.uploaded_at, j.uploaded_at), u.reported_at, u.reported, u.hot_list_held,
       coalesce(h.version, 0), coalesce(c.version, 0), u.parameters_held = v.version,
       s.record_at AT TIME ZONE 'Asia/Shanghai' - s.uploaded_at, q.missing, p.psams > 0, p.missing
  FROM terminal t
  JOIN merchant m ON m.merchant_no = t.merchant_no
  LEFT JOIN terminal_session n ON n.terminal_no = t.terminal_no
  LEFT JOIN terminal_status u ON u.terminal_no = t.terminal_no
  LEFT JOIN terminal_seen s ON s.terminal_no = t.terminal_no
  LEFT JOIN LATERAL list_due('HOT', t.terminal_no, t.slot, coalesce(u.hot_list_held, 0)) h ON true
  LEFT JOIN LATERAL list_due('CITY', t.terminal_no, t.slot, 0) c ON true
 CROSS JOIN LATERAL parameters_due(t.terminal_no, m.category, t.slot) v
  LEFT JOIN (SELECT owner, (SELECT sum(upper(r) - lower(r)) FROM unnest(missing) AS r)::bigint AS missing
               FROM purse_sequence WHERE kind = 3 AND missing <> '{}') q ON q.owner = t.terminal_no
  LEFT JOIN (SELECT x.terminal_no, count(*) AS psams, sum(g.missing)::bigint AS missing
               FROM psam x
               LEFT JOIN (SELECT owner, (SELECT sum(upper(r) - lower(r)) FROM unnest(missing) AS r) AS missing
                            FROM purse_sequence WHERE kind = 2 AND missing <> '{}') g ON g.owner = x.psam_no::bigint
              WHERE x.state = 'ACTIVE' GROUP BY x.terminal_no) p ON p.terminal_no = t.terminal_no
  LEFT JOIN LATERAL (
       SELECT max(j.decided_at) AS uploaded_at FROM journal j
        WHERE j.shard = mod(t.terminal_no, %(shards)s) AND j.terminal_no = t.terminal_no AND j.kind = 20
          AND j.business_date >= (%(since)s::timestamptz AT TIME ZONE 'Asia/Shanghai')::date AND j.decided_at >= %(since)s)
       j ON p.psams > 0 AND coalesce(s.uploaded_at, '-infinity') < %(since)s
 WHERE t.state = 'ACTIVE' AND m.state = 'ACTIVE'
 ORDER BY t.terminal_id
