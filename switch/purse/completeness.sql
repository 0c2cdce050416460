-- What has come and what has not, by counter (completeness.py). Cards are named by card_key and masked by whoever shows them.

-- name: count_gaps
SELECT kind, count(*), sum(upper(missing) - lower(missing))::bigint, extract(epoch FROM clock_timestamp() - min(opened_at))::float8
  FROM purse_gap
 WHERE closed_at IS NULL
 GROUP BY kind;

-- name: count_alarms
SELECT kind, count(*) FROM purse_alarm_state WHERE NOT acknowledged GROUP BY kind;

-- name: names_of_terminals
SELECT t.terminal_no, t.terminal_id, m.merchant_id
  FROM terminal t JOIN merchant m USING (merchant_no)
 WHERE t.terminal_no = ANY(%(owners)s);

-- name: names_of_psams
SELECT p.psam_no::bigint, p.psam_no, m.merchant_id
  FROM psam p JOIN merchant m USING (merchant_no)
 WHERE p.psam_no = ANY(SELECT lpad(n::text, 12, '0') FROM unnest(%(owners)s::bigint[]) AS o (n));

-- name: counters_of
-- Counters of these terminals and of the PSAMs that were handed to them; NULL: of all that lack something.
SELECT s.kind, s.owner, s.first_no, s.next_no,
       (SELECT coalesce(sum(upper(r.part) - lower(r.part)), 0)::bigint FROM unnest(s.missing) AS r (part))
  FROM purse_sequence s
 WHERE s.kind = ANY(%(kinds)s::smallint[])
   AND CASE WHEN %(terminals)s::int[] IS NULL THEN NOT isempty(s.missing)
            WHEN s.kind = 2 THEN s.owner = ANY(SELECT psam_no::bigint FROM psam WHERE terminal_no = ANY(%(terminals)s::int[]))
            ELSE s.owner = ANY(%(terminals)s::int[]) END
 ORDER BY s.kind, s.owner
 LIMIT %(at_most)s;

-- name: counter
SELECT kind, owner, first_no, next_no,
       (SELECT coalesce(sum(upper(r.part) - lower(r.part)), 0)::bigint FROM unnest(missing) AS r (part))
  FROM purse_sequence WHERE kind = %(kind)s AND owner = %(owner)s;

-- name: gaps_of
-- Open ones first. The alarm of the report in which a hole was says whether somebody has given it up. Those are put together once: after a bad night
-- the server believes the table of holes to be small, and would read it again for each of them.
WITH told AS MATERIALIZED (
    SELECT w.kind, w.owner, a.at, a.acknowledged FROM purse_alarm_state a JOIN purse_gap w ON w.gap_no = a.gap_no
)
SELECT g.gap_no, g.kind, g.owner, lower(g.missing), upper(g.missing) - 1, g.opened_at, g.closed_at, g.reported_at, t.acknowledged
  FROM unnest(%(kinds)s::smallint[], %(owners)s::bigint[]) AS k (kind, owner)
  JOIN purse_gap g ON g.kind = k.kind AND g.owner = k.owner
  LEFT JOIN told t ON t.kind = g.kind AND t.owner = g.owner AND t.at = g.reported_at
 WHERE (%(closed)s OR g.closed_at IS NULL)
   AND g.opened_at <= clock_timestamp() - make_interval(days => %(older_than)s)
 ORDER BY g.kind, g.owner, g.closed_at NULLS FIRST, g.missing
 LIMIT %(at_most)s;

-- name: damaged_among
-- Records that came and could not be read, whose serial (bytes 60 to 63, for what they are worth) is among those missing; one that came again is listed once.
SELECT DISTINCT ON (q.terminal_no, n.serial, q.raw) q.terminal_no, q.entry_no, n.serial, q.reason, q.received_at
  FROM purse_quarantine q
 CROSS JOIN LATERAL (SELECT ('x' || encode(substr(q.raw, 60, 4), 'hex'))::bit(32)::bigint AS serial) AS n
  JOIN purse_sequence s ON s.kind = 3 AND s.owner = q.terminal_no AND s.missing @> n.serial
 WHERE q.terminal_no = ANY(%(terminals)s::int[]) AND length(q.raw) = 96
 ORDER BY q.terminal_no, n.serial, q.raw, q.entry_no
 LIMIT %(at_most)s;

-- name: find_terminal
SELECT terminal_no FROM terminal WHERE terminal_id = %(terminal_id)s;

-- name: find_psam
SELECT psam_no::bigint FROM psam WHERE psam_no = %(psam_no)s;

-- name: psam_place
SELECT p.state, m.merchant_id, t.terminal_id
  FROM psam p JOIN merchant m USING (merchant_no) LEFT JOIN terminal t ON t.terminal_no = p.terminal_no
 WHERE p.psam_no = %(psam_no)s;

-- name: came_on
-- Records by who brought them, on one business day. A record that came again (03) is none.
SELECT 3::smallint AS kind, terminal_no::bigint AS owner, count(*) FILTER (WHERE result <> '03'), count(*) FILTER (WHERE result IN ('10', '04', '11')),
       count(*) FILTER (WHERE happened_at < %(day)s::date)
  FROM purse_record WHERE business_date = %(day)s AND original_entry IS NULL GROUP BY terminal_no
UNION ALL
SELECT 2::smallint, psam, count(*) FILTER (WHERE result <> '03'), count(*) FILTER (WHERE result IN ('10', '04', '11')),
       count(*) FILTER (WHERE happened_at < %(day)s::date)
  FROM purse_record WHERE business_date = %(day)s AND original_entry IS NULL AND psam IS NOT NULL AND result <> '02' GROUP BY psam;

-- name: counters_for_report
-- All that lack something, and all that brought something.
SELECT s.kind, s.owner, s.first_no, s.next_no,
       (SELECT coalesce(sum(upper(r.part) - lower(r.part)), 0)::bigint FROM unnest(s.missing) AS r (part))
  FROM purse_sequence s
 WHERE s.kind <> 1
   AND (NOT isempty(s.missing) OR EXISTS (SELECT FROM unnest(%(kinds)s::smallint[], %(owners)s::bigint[]) AS c (kind, owner)
                                           WHERE c.kind = s.kind AND c.owner = s.owner))
 ORDER BY s.kind, s.owner;

-- name: alarms_of_terminal
-- Of records that this terminal brought, newest first. The alarms are few and the records many.
SELECT a.alarm_no, a.at, a.kind, a.detail, a.acknowledged
  FROM purse_alarm_state a
  JOIN purse_record r ON r.entry_no = a.entry_no AND r.business_date = a.business_date
 WHERE CASE WHEN %(psam)s::bigint IS NULL THEN r.terminal_no = %(terminal_no)s ELSE r.psam = %(psam)s END
 ORDER BY a.alarm_no DESC LIMIT %(at_most)s;
