-- Rules for risk: records in question and what they are compared with, hits, cases, versions.

-- name: begin_bounded
-- No statement of a run or a bench may take the server for itself. jit: a plan of thirty windows would be compiled for longer than it runs.
SELECT set_config('statement_timeout', %(milliseconds)s, true), set_config('work_mem', '64MB', true), set_config('jit', 'off', true)

-- name: one_run
-- An advisory lock and not a row's: a row lock takes a transaction number, and one that is held for minutes holds back every fold.
SELECT pg_advisory_xact_lock(hashtext('risk run'))

-- name: read_watermark
SELECT done_to FROM risk_watermark

-- name: read_bounds
-- How far a run may look: what no transaction can add to any more, at most so many records, and whole transactions.
SELECT transaction_horizon(),
       (SELECT r.txid FROM purse_record r
         WHERE r.txid >= %(done_to)s
           AND r.business_date >= (SELECT min(business_date) - 7 FROM business_day WHERE state < 2)
         ORDER BY r.txid OFFSET %(records_max)s LIMIT 1)

-- name: count_new
SELECT count(*)::integer, min(r.business_date), max(r.business_date)
  FROM purse_record r
 WHERE r.txid >= %(done_to)s AND r.txid < %(upto)s AND r.original_entry IS NULL
   AND r.business_date >= (SELECT min(business_date) - 7 FROM business_day WHERE state < 2)

-- name: scope_touched
-- Everything of the cards, readers and terminals that have sent something, since a late record changes what the others look like. What
-- came before these rules is company for the others and is not asked about; but of what no run has seen yet, only what came before any.
WITH new AS MATERIALIZED (
    SELECT r.entry_no, r.card, r.psam, r.terminal_no
      FROM purse_record r
     WHERE r.txid >= %(done_to)s AND r.txid < %(upto)s AND r.original_entry IS NULL AND r.business_date BETWEEN %(first)s AND %(last)s)
SELECT s.*, s.received_at >= %(begins_at)s
            OR (s.received_at >= (SELECT min(begins_at) FROM risk_activation) AND s.entry_no IN (SELECT entry_no FROM new)) AS asked
  FROM risk_record s
 WHERE s.business_date BETWEEN %(first)s::date - %(lookback)s::integer AND %(last)s
   AND (s.card IN (SELECT card FROM new WHERE card IS NOT NULL)
        OR s.psam IN (SELECT psam FROM new WHERE psam IS NOT NULL)
        OR s.terminal_no IN (SELECT terminal_no FROM new))

-- name: scope_days
SELECT s.*, s.business_date >= %(first)s::date AS asked
  FROM risk_record s
 WHERE s.business_date BETWEEN %(first)s::date - %(lookback)s::integer AND %(last)s

-- name: hits
SELECT rule, matter, owner, entry_no, business_date, card, money_fen FROM risk_found

-- name: make_found
CREATE TEMP TABLE risk_found (
    rule text NOT NULL, matter text NOT NULL, owner bigint NOT NULL, entry_no bigint NOT NULL, business_date date NOT NULL,
    card bigint, money_fen bigint NOT NULL
) ON COMMIT DROP

-- name: one_writer
-- Between reading which cases are open and writing hits to them nobody may close one.
SELECT pg_advisory_xact_lock(hashtext('risk cases'))

-- name: open_cases
INSERT INTO risk_case (rule, matter, owner, version)
SELECT DISTINCT rule, matter, owner, %(version)s::integer FROM risk_found ORDER BY rule, matter, owner
    ON CONFLICT (rule, matter, owner) WHERE closed_at IS NULL DO NOTHING

-- name: write_hits
WITH written AS (
    INSERT INTO risk_hit (rule, entry_no, business_date, case_no, amount_fen)
    SELECT f.rule, f.entry_no, f.business_date, c.case_no, f.money_fen
      FROM risk_found f
      JOIN risk_case c ON (c.rule, c.matter, c.owner) = (f.rule, f.matter, f.owner) AND c.closed_at IS NULL
     RETURNING case_no, amount_fen)
UPDATE risk_case c
   SET hits = c.hits + w.hits, amount_fen = c.amount_fen + w.fen
  FROM (SELECT case_no, count(*)::integer AS hits, sum(amount_fen) AS fen FROM written GROUP BY case_no) AS w
 WHERE c.case_no = w.case_no

-- name: count_found
SELECT rule, count(*)::integer FROM risk_found GROUP BY rule ORDER BY rule

-- name: write_run
INSERT INTO risk_run (version, records, hits, cut) VALUES (%(version)s, %(records)s, %(hits)s, %(cut)s)

-- name: move_watermark
UPDATE risk_watermark SET done_to = greatest(done_to, %(upto)s)

-- name: in_force
SELECT r.version, r.content, encode(r.digest, 'hex'), a.begins_at
  FROM risk_activation a
  JOIN risk_rules r USING (version)
 WHERE a.begins_at <= coalesce(%(at)s::timestamptz, clock_timestamp())
   AND NOT EXISTS (SELECT FROM risk_activation b
                    WHERE b.takes_back = a.activation_no AND b.at <= coalesce(%(at)s::timestamptz, clock_timestamp()))
 ORDER BY a.begins_at DESC, a.activation_no DESC
 LIMIT 1

-- name: version
SELECT version, content, encode(digest, 'hex') FROM risk_rules WHERE version = %(version)s

-- name: one_change
SELECT pg_advisory_xact_lock(hashtext('risk rules'))

-- name: add_version
INSERT INTO risk_rules (version, rule_count, content, digest, actor, note)
SELECT coalesce(max(version), 0) + 1, %(rules)s, %(content)s, %(digest)s, %(actor)s, %(note)s FROM risk_rules
RETURNING version

-- name: activate
INSERT INTO risk_activation (version, begins_at, at, actor)
SELECT %(version)s, coalesce(%(begins_at)s::timestamptz, now), now, %(actor)s FROM clock_timestamp() AS now
RETURNING begins_at, at

-- name: newest_activation
SELECT a.activation_no, a.version, a.begins_at
  FROM risk_activation a
 WHERE a.version IS NOT NULL AND NOT EXISTS (SELECT FROM risk_activation b WHERE b.takes_back = a.activation_no)
 ORDER BY a.activation_no DESC LIMIT 1

-- name: take_back
INSERT INTO risk_activation (takes_back, actor) VALUES (%(activation_no)s, %(actor)s)

-- name: history
SELECT version, rule_count, encode(digest, 'hex'), at, actor, note FROM risk_rules ORDER BY version

-- name: activations
SELECT a.activation_no, coalesce(a.version, b.version), CASE WHEN a.version IS NULL THEN 'ROLLBACK' ELSE 'ACTIVATE' END,
       coalesce(a.begins_at, a.at), a.at, a.actor
  FROM risk_activation a
  LEFT JOIN risk_activation b ON b.activation_no = a.takes_back
 ORDER BY a.activation_no

-- name: list_cases
SELECT c.case_no, c.rule, c.matter,
       CASE c.matter WHEN 'card' THEN card_digits(c.owner) WHEN 'reader' THEN lpad(c.owner::text, 12, '0')
            ELSE coalesce((SELECT t.terminal_id FROM terminal t WHERE t.terminal_no = c.owner), c.owner::text) END,
       c.version, c.opened_at, c.hits, c.amount_fen, c.closed_at, c.verdict, c.reason, c.actor
  FROM risk_case c
 WHERE (%(closed)s OR c.closed_at IS NULL) AND (%(rule)s::text IS NULL OR c.rule = %(rule)s)
 ORDER BY c.case_no DESC
 LIMIT %(limit)s

-- name: close_case
UPDATE risk_case
   SET closed_at = clock_timestamp(), verdict = %(verdict)s, reason = %(reason)s, actor = %(actor)s
 WHERE case_no = %(case_no)s AND closed_at IS NULL
RETURNING rule

-- name: has_case
SELECT EXISTS (SELECT FROM risk_case WHERE case_no = %(case_no)s)

-- name: count_open
SELECT rule, count(*)::integer, min(opened_at) FROM risk_case WHERE closed_at IS NULL GROUP BY rule

-- name: labels_named
-- Of a planted set: what the file does not name is good. Of a record that came twice each coming is labelled, since the file knows it as
-- the terminal wrote it; one that cannot be read has no serial and gets no label.
SELECT s.entry_no, n.kind IS NOT NULL AS confirmed, coalesce(n.kind, '') AS kind
  FROM risk_scope s
  LEFT JOIN (SELECT t.terminal_no, n.record_serial, min(n.kind) AS kind
               FROM unnest(%(terminals)s::text[], %(serials)s::bigint[], %(kinds)s::text[]) AS n (terminal_id, record_serial, kind)
               JOIN terminal t USING (terminal_id)
              GROUP BY t.terminal_no, n.record_serial) AS n
    ON n.terminal_no = s.terminal_no AND n.record_serial = s.record_serial
 WHERE s.asked AND s.card IS NOT NULL

-- name: labels_said
-- What people said of the record in a case; if they said both, it was something. Else what became of a grey record: one that was refused in
-- the end took a ride and paid nothing, one that was paid was an accident.
SELECT DISTINCT ON (entry_no) entry_no, confirmed, kind
  FROM (SELECT h.entry_no, c.verdict = 'CONFIRMED' AS confirmed, 'case' AS kind
          FROM risk_case c
          JOIN risk_hit h USING (case_no)
         WHERE c.closed_at IS NOT NULL AND h.business_date BETWEEN %(first)s AND %(last)s
        UNION ALL
        SELECT w.entry_no, w.verdict = '94', 'grey'
          FROM purse_waiting w
         WHERE w.result = '04' AND w.verdict IS NOT NULL AND w.business_date BETWEEN %(first)s AND %(last)s) AS said
 ORDER BY entry_no, kind, confirmed DESC

-- name: scores
-- Three kinds of lines: all records, each rule, each kind of label.
SELECT 'all' AS line, '' AS name, (SELECT count(*) FROM risk_scope WHERE asked) AS records, 0::bigint AS matters, 0::bigint AS cards,
       0::bigint AS fen, count(*) FILTER (WHERE l.confirmed) AS confirmed, count(*) FILTER (WHERE NOT l.confirmed) AS false,
       '{}'::text[] AS rules
  FROM risk_label l
UNION ALL
SELECT 'rule', f.rule, count(*), count(DISTINCT f.owner), count(DISTINCT f.card), sum(f.money_fen)::bigint,
       count(*) FILTER (WHERE l.confirmed), count(*) FILTER (WHERE NOT l.confirmed), '{}'
  FROM risk_found f
  LEFT JOIN risk_label l USING (entry_no)
 GROUP BY f.rule
UNION ALL
SELECT 'kind', l.kind, count(DISTINCT l.entry_no), count(DISTINCT f.entry_no), 0, 0, 0, 0,
       coalesce(array_agg(DISTINCT f.rule) FILTER (WHERE f.rule IS NOT NULL), '{}')
  FROM risk_label l
  LEFT JOIN risk_found f USING (entry_no)
 WHERE l.kind <> ''
 GROUP BY l.kind
 ORDER BY 1, 2

-- name: now
SELECT clock_timestamp()
