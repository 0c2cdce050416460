-- Batches of terminals. Field 48 has 62 digits: debit amount 12, count 3, credit amount 12, count 3, result 1 for accounts, and the
-- same again for purses.

-- name: batch_figures
-- says: the figures of a batch that has ended are those of its entries and offline records; what was reversed counts nowhere
-- rows: terminal_batch, journal, purse_record, purse_load
WITH ended AS (
    SELECT * FROM terminal_batch WHERE closed_at IS NOT NULL
), online AS (
    SELECT b.terminal_no, b.batch_no,
           coalesce(sum(j.amount_fen) FILTER (WHERE j.kind IN (1, 8, 10)), 0) AS debit_fen,
           count(*) FILTER (WHERE j.kind IN (1, 8, 10)) AS debits,
           coalesce(sum(j.amount_fen) FILTER (WHERE j.kind IN (3, 4, 9)), 0) AS credit_fen,
           count(*) FILTER (WHERE j.kind IN (3, 4, 9)) AS credits
      FROM ended b
      JOIN journal j ON j.terminal_no = b.terminal_no AND j.batch_no = b.batch_no AND j.business_date >= b.opened_on
      LEFT JOIN journal r
        ON r.shard = j.shard AND r.original_date = j.business_date AND r.original_entry = j.entry_no AND r.kind = 5 AND r.effect_fen <> 0
     WHERE j.answer = '00' AND j.effect_fen <> 0 AND j.class = 0 AND r.entry_no IS NULL
     GROUP BY b.terminal_no, b.batch_no
), load AS (
    SELECT b.terminal_no, b.batch_no, sum(j.amount_fen) AS fen, count(*) AS loads
      FROM ended b
      JOIN journal j ON j.terminal_no = b.terminal_no AND j.batch_no = b.batch_no AND j.business_date >= b.opened_on
      JOIN purse_load l ON l.shard = j.shard AND l.entry_no = j.entry_no
      LEFT JOIN journal r ON r.shard = j.shard AND r.original_date = j.business_date AND r.original_entry = j.entry_no AND r.kind = 5
       AND r.answer = '00'
     WHERE r.entry_no IS NULL
     GROUP BY b.terminal_no, b.batch_no
), offline AS (
    SELECT b.terminal_no, b.batch_no, coalesce(sum(p.amount_fen), 0) AS fen, count(*) AS records
      FROM ended b
      JOIN purse_record p ON p.terminal_no = b.terminal_no AND p.batch_no = b.batch_no AND p.business_date >= b.opened_on
     WHERE p.result IN ('10', '04', '11')
     GROUP BY b.terminal_no, b.batch_no
), want AS (
    SELECT b.*,
           lpad(least(coalesce(o.debit_fen, 0), 999999999999)::text, 12, '0') || lpad(least(coalesce(o.debits, 0), 999)::text, 3, '0')
           || lpad(least(coalesce(o.credit_fen, 0), 999999999999)::text, 12, '0') || lpad(least(coalesce(o.credits, 0), 999)::text, 3, '0') AS accounts,
           lpad(least(coalesce(f.fen, 0), 999999999999)::text, 12, '0') || lpad(least(coalesce(f.records, 0), 999)::text, 3, '0')
           || lpad(least(coalesce(l.fen, 0), 999999999999)::text, 12, '0') || lpad(least(coalesce(l.loads, 0), 999)::text, 3, '0') AS purses
      FROM ended b
      LEFT JOIN online o USING (terminal_no, batch_no)
      LEFT JOIN offline f USING (terminal_no, batch_no)
      LEFT JOIN load l USING (terminal_no, batch_no)
)
SELECT 'terminal_batch', format('terminal_no %%s, batch %%s', terminal_no, batch_no),
       format('accounts %%s, purses %%s', accounts, purses),
       format('accounts %%s, purses %%s', substr(computed, 1, 30), substr(computed, 32, 30))
  FROM want
 WHERE (substr(computed, 1, 30), substr(computed, 32, 30), length(computed)) IS DISTINCT FROM (accounts, purses, 62)

-- name: batch_state
-- says: a batch goes from open through settled to closed, its claim is the settled message's and its result digits are legal
-- rows: terminal_batch
SELECT 'terminal_batch', format('terminal_no %%s, batch %%s', b.terminal_no, b.batch_no), f.fault,
       format('state %%s, settled %%s, closed %%s, claimed %%s, computed %%s', b.state, b.settled_at, b.closed_at, b.claimed, b.computed)
  FROM terminal_batch b
  LEFT JOIN (SELECT terminal_no, batch_no, decided_at, convert_from(extra, 'UTF8')::jsonb ->> '48' AS said
               FROM journal WHERE kind = 21 AND answer = '00') AS s
    ON s.terminal_no = b.terminal_no AND s.batch_no = b.batch_no AND s.decided_at = b.settled_at
  LEFT JOIN (SELECT terminal_no, batch_no, decided_at FROM journal WHERE kind = 23 AND answer = '00') AS e
    ON e.terminal_no = b.terminal_no AND e.batch_no = b.batch_no AND e.decided_at = b.closed_at
 CROSS JOIN LATERAL (SELECT CASE
       WHEN b.state NOT IN (0, 1, 2) THEN 'state 0, 1 or 2'
       WHEN num_nonnulls(b.settled_at, b.claimed, b.computed) NOT IN (0, 3) THEN 'settled with claim and figures, or neither'
       WHEN b.state = 0 AND b.settled_at IS NOT NULL THEN 'a settled batch frozen or closed'
       WHEN b.closed_at IS NOT NULL AND (b.state <> 2 OR b.settled_at IS NULL OR b.closed_at < b.settled_at)
            THEN 'an ended batch settled before, and closed'
       WHEN b.settled_at IS NULL THEN NULL
       WHEN s.said IS NULL THEN 'an approved settlement of that instant'
       WHEN b.claimed !~ '^[0-9]{30}0[0-9]{30}0$' OR b.computed !~ '^[0-9]{30}[123][0-9]{30}[123]$' THEN '62 digits with results'
       WHEN s.said <> substr(b.claimed, 1, 30) || substr(b.computed, 31, 1) || substr(b.claimed, 32, 30) || substr(b.computed, 62, 1)
            THEN 'claim and results as answered: ' || s.said
       WHEN b.closed_at IS NOT NULL AND e.decided_at IS NULL THEN 'an approved batch end of that instant'
       END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: batch_results
-- says: where nothing came after the settlement, a group's result digit says whether claim and figures agree
-- rows: terminal_batch
WITH touched AS (
    SELECT terminal_no, batch_no, max(decided_at) FILTER (WHERE kind = 5) AS reversed_at,
           max(decided_at) FILTER (WHERE kind = 20 AND answer = '00') AS uploaded_at
      FROM journal WHERE kind IN (5, 20) GROUP BY terminal_no, batch_no
)
SELECT 'terminal_batch', format('terminal_no %%s, batch %%s', b.terminal_no, b.batch_no),
       format('result %%s of %%s', g.expected, g.name), 'result ' || g.found
  FROM terminal_batch b
  LEFT JOIN touched t USING (terminal_no, batch_no)
 CROSS JOIN LATERAL (
       SELECT name, found, CASE WHEN '999' IN (substr(ours, 13, 3), substr(ours, 28, 3)) THEN found
                          WHEN repeat('9', 12) IN (substr(ours, 1, 12), substr(ours, 16, 12)) THEN found WHEN theirs = ours THEN '1' ELSE '2' END AS expected
         FROM (VALUES ('accounts', substr(b.claimed, 1, 30), substr(b.computed, 1, 30), substr(b.computed, 31, 1), t.reversed_at IS NULL),
                      ('purses', substr(b.claimed, 32, 30), substr(b.computed, 32, 30), substr(b.computed, 62, 1),
                       t.reversed_at IS NULL AND coalesce(t.uploaded_at < b.settled_at, true))) AS v (name, theirs, ours, found, untouched)
        WHERE untouched) AS g
 WHERE b.computed IS NOT NULL AND g.found <> g.expected

-- name: batch_details
-- says: details were taken by a message of that batch
-- rows: terminal_batch_detail, journal
SELECT 'terminal_batch_detail', format('terminal_no %%s, batch %%s, entry %%s, line %%s', d.terminal_no, d.batch_no, d.entry_no, d.line),
       'an approved detail upload of this batch, amount not below zero',
       CASE WHEN j.entry_no IS NULL THEN 'no such entry' ELSE d.amount_fen || ' fen' END
  FROM terminal_batch_detail d
  LEFT JOIN journal j
    ON j.entry_no = d.entry_no AND j.terminal_no = d.terminal_no AND j.batch_no = d.batch_no AND j.kind = 22 AND j.answer = '00'
 WHERE j.entry_no IS NULL OR d.amount_fen < 0

-- name: batch_differences
-- says: the report of an ended batch says which figures and details differ from the books, and by how much
-- rows: terminal_batch_difference, terminal_batch_detail, journal
WITH ended AS (
    SELECT * FROM terminal_batch WHERE closed_at IS NOT NULL
), sent AS (
    SELECT d.terminal_no, d.batch_no, d.stan, min(d.amount_fen) AS fen, min(ltrim(d.pan, '0')) AS pan, count(*) AS times
      FROM terminal_batch_detail d JOIN ended USING (terminal_no, batch_no)
     GROUP BY d.terminal_no, d.batch_no, d.stan
), booked AS (
    SELECT j.terminal_no, j.batch_no, j.stan, j.amount_fen AS fen, ltrim(coalesce(j.pan, ''), '0') AS pan
      FROM ended b
      JOIN journal j ON j.terminal_no = b.terminal_no AND j.batch_no = b.batch_no AND j.business_date >= b.opened_on
      LEFT JOIN journal r
        ON r.shard = j.shard AND r.original_date = j.business_date AND r.original_entry = j.entry_no AND r.kind = 5 AND r.effect_fen <> 0
     WHERE j.class = 0 AND j.effect_fen <> 0 AND r.entry_no IS NULL
), want AS (
    SELECT terminal_no, batch_no, 'TOTALS' AS matter, group_no AS stan, theirs AS claimed, ours AS booked
      FROM ended
     CROSS JOIN LATERAL (VALUES (1, substr(claimed, 1, 30), substr(computed, 1, 30)), (2, substr(claimed, 32, 30), substr(computed, 32, 30)))
           AS v (group_no, theirs, ours)
     WHERE theirs <> ours
    UNION ALL
    SELECT b.terminal_no, b.batch_no,
           CASE WHEN k.stan IS NULL THEN 'NOT_HERE' WHEN s.stan IS NULL THEN 'NOT_THERE' WHEN s.fen <> k.fen THEN 'AMOUNT' ELSE 'CARD' END,
           coalesce(s.stan, k.stan),
           CASE WHEN s.stan IS NULL THEN '' WHEN s.fen = k.fen THEN 'another card' ELSE s.fen::text END,
           CASE WHEN k.stan IS NULL THEN '' WHEN s.fen = k.fen THEN 'see journal' ELSE k.fen::text END
      FROM (SELECT * FROM sent) AS s
      FULL JOIN booked k ON k.terminal_no = s.terminal_no AND k.batch_no = s.batch_no AND k.stan = s.stan
      JOIN ended b ON b.terminal_no = coalesce(s.terminal_no, k.terminal_no) AND b.batch_no = coalesce(s.batch_no, k.batch_no)
     WHERE substr(b.computed, 31, 1) <> '1' AND coalesce(s.times, 1) = 1 AND (s.fen, s.pan) IS DISTINCT FROM (k.fen, k.pan)
), report AS (
    SELECT d.terminal_no, d.batch_no, d.line, d.matter, d.claimed, d.booked,
           CASE WHEN d.matter <> 'TOTALS' THEN coalesce(d.stan, 0)
                WHEN substr(b.claimed, 1, 30) <> substr(b.computed, 1, 30)
                     AND d.line = min(d.line) FILTER (WHERE d.matter = 'TOTALS') OVER (PARTITION BY d.terminal_no, d.batch_no) THEN 1
                ELSE 2 END AS stan
      FROM terminal_batch_difference d
      LEFT JOIN ended b USING (terminal_no, batch_no)
      LEFT JOIN sent s ON s.terminal_no = d.terminal_no AND s.batch_no = d.batch_no AND s.stan = coalesce(d.stan, 0)
     WHERE d.matter <> 'COUNT' AND coalesce(s.times, 1) = 1
)
SELECT 'terminal_batch_difference',
       format('terminal_no %%s, batch %%s, ', coalesce(r.terminal_no, w.terminal_no), coalesce(r.batch_no, w.batch_no))
       || coalesce('line ' || r.line, format('%%s of %%s', w.matter, w.stan)),
       coalesce(format('%%s: claimed %%s, booked %%s', w.matter, w.claimed, w.booked), 'no such difference'),
       coalesce(format('%%s: claimed %%s, booked %%s', r.matter, r.claimed, r.booked), 'no line')
  FROM report r
  FULL JOIN want w ON w.terminal_no = r.terminal_no AND w.batch_no = r.batch_no AND w.matter = r.matter AND w.stan = r.stan
 WHERE (r.claimed, r.booked) IS DISTINCT FROM (w.claimed, w.booked)
