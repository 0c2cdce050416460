-- Cases: what was asked, decided and moved. Actions: 01 credit and 02 debit adjustment, 03 retrieval, 04 chargeback, 05 re-presentment, 06 grey
-- and 07 refused record accepted, 08 load settled. Kinds 14 to 17 of the journal are what 01, 02, 04 and 05 moved.

-- name: dispute_steps
-- says: each step of a case follows from the one before by an action that its state allows, asked for in time and for no more than there was, and money by two people
-- rows: dispute_event, dispute_case
WITH move (before, action, after, days) AS (
    VALUES ('NEW', '01', 'CREDITED', 180), ('NEW', '02', 'COLLECTED', 30), ('NEW', '03', 'RETRIEVAL', 180), ('NEW', '04', 'CHARGED_BACK', 90),
           ('NEW', '06', 'ACCEPTED', 60), ('NEW', '07', 'ACCEPTED', 60), ('NEW', '08', 'SETTLED', 30), ('RETRIEVAL', '01', 'CREDITED', 180),
           ('RETRIEVAL', '04', 'CHARGED_BACK', 90), ('CHARGED_BACK', '05', 'REPRESENTED', 30)
), step AS (
    SELECT e.*, lag(e.seq, 1, 0) OVER w AS seq_before, lag(e.after_state, 1, '') OVER w AS state_before, lag(e.at) OVER w AS at_before,
           -- What waits is the last that was asked for, if nothing has ended it.
           max(e.seq) FILTER (WHERE e.what = 'ASKED') OVER p AS asked_seq, max(e.seq) FILTER (WHERE e.what IN ('DONE', 'DENIED')) OVER p AS ended_seq,
           max(e.business_date) FILTER (WHERE e.what = 'DONE' AND e.action = '04') OVER p AS charged_on,
           max(e.amount_fen) FILTER (WHERE e.what = 'DONE' AND e.action = '04') OVER p AS charged_fen
      FROM dispute_event e
    WINDOW w AS (PARTITION BY e.case_no ORDER BY e.seq), p AS (PARTITION BY e.case_no ORDER BY e.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
)
SELECT 'dispute_event', format('case %%s, step %%s', s.case_no, s.seq), fault,
       format('%%s %%s of %%s fen at %%s, %%s to %%s, by %%s and %%s, entry %%s', s.what, s.action, s.amount_fen, s.at, s.before_state, s.after_state, s.actor,
              s.checker, s.entry_no)
  FROM step s
  LEFT JOIN dispute_case c ON c.case_no = s.case_no
  LEFT JOIN business_day d ON d.business_date = s.business_date
  LEFT JOIN move m ON m.action = s.action AND m.before = CASE WHEN s.before_state = '' THEN 'NEW' ELSE s.before_state END
  LEFT JOIN dispute_event a ON a.case_no = s.case_no AND a.seq = s.asked_seq
  LEFT JOIN dispute_evidence v ON v.case_no = s.case_no AND v.seq = s.seq
 CROSS JOIN LATERAL (SELECT CASE
       WHEN c.case_no IS NULL THEN 'a case'
       WHEN s.seq <> s.seq_before + 1 OR s.before_state <> s.state_before OR s.at < s.at_before THEN 'a step that follows the one before'
       WHEN d.business_date IS NULL OR s.at < d.begins_at OR s.at >= least(d.ends_at, d.sealed_at) THEN 'an instant of its business day'
       WHEN s.state_before NOT IN ('', 'NEW', 'RETRIEVAL', 'CHARGED_BACK') THEN 'nothing after the end'
       WHEN (s.what = 'EVIDENCE') <> (v.case_no IS NOT NULL) THEN 'evidence with its step'
       WHEN s.what IN ('ASKED', 'DONE') AND m.action IS NULL THEN 'an action that the state allows'
       WHEN (s.what = 'ASKED' OR (s.what = 'DONE' AND s.action = '03'))
            AND (s.at AT TIME ZONE 'UTC' + interval '8 hours')::date
                > m.days + CASE WHEN s.action = '05' THEN s.charged_on ELSE coalesce(c.item_date, c.original_date) END
            THEN format('asked for within %%s days', m.days)
       WHEN s.what = 'ASKED' AND (s.asked_seq > coalesce(s.ended_seq, 0) OR s.after_state <> CASE WHEN s.before_state = '' THEN 'NEW' ELSE s.before_state END)
            THEN 'a request when none waits, and the state as it was'
       WHEN s.what = 'ASKED' AND (s.amount_fen = 0 OR s.amount_fen > CASE WHEN s.action = '05' THEN s.charged_fen ELSE c.amount_fen END
                                  OR (s.action IN ('06', '07', '08') AND s.amount_fen <> c.amount_fen)) THEN 'an amount that there was'
       WHEN s.what IN ('DONE', 'DENIED') AND s.action IS DISTINCT FROM '03' AND s.asked_seq <= coalesce(s.ended_seq, 0) THEN 'something that waited'
       WHEN s.what IN ('DONE', 'DENIED') AND s.action IS DISTINCT FROM '03' AND (s.action, s.amount_fen, s.actor) IS DISTINCT FROM (a.action, a.amount_fen, a.actor)
            THEN format('what was asked for: %%s, %%s fen by %%s', a.action, a.amount_fen, a.actor)
       WHEN s.what = 'DONE' AND s.after_state <> m.after THEN 'state ' || m.after
       WHEN s.what = 'DONE' AND s.action <> '03' AND (s.reason <> a.reason OR s.entry_no IS NULL) THEN 'the reason of the request, and what was booked'
       WHEN s.what = 'DONE' AND s.action = '03' AND (s.amount_fen <> 0 OR s.entry_no IS NOT NULL) THEN 'no money for a retrieval'
       WHEN s.what IN ('DONE', 'DENIED') AND s.action IS DISTINCT FROM '03' AND (s.checker = '' OR lower(s.checker) = lower(s.actor)) THEN 'another person who checked'
       WHEN s.what = 'DENIED' AND s.after_state <> CASE s.before_state WHEN 'NEW' THEN 'DENIED' ELSE s.before_state END THEN 'denied, or the state as it was'
       WHEN s.what = 'EVIDENCE' AND s.after_state <> s.before_state THEN 'the state as it was'
       WHEN s.what IN ('CLOSED', 'LAPSED') AND (s.after_state <> 'CLOSED' OR s.asked_seq > coalesce(s.ended_seq, 0)) THEN 'closed, with nothing that waits'
       END AS fault) AS f
 WHERE s.business_date BETWEEN %(first)s AND %(last)s AND fault IS NOT NULL

-- name: dispute_cases
-- says: a case stands where its steps have led it, with what waits, what was charged back and until when something may come
-- rows: dispute_case, dispute_event
WITH last AS (
    SELECT DISTINCT ON (case_no) case_no, seq, after_state FROM dispute_event ORDER BY case_no, seq DESC
), first AS (
    SELECT case_no, at, business_date FROM dispute_event WHERE seq = 1
), waits AS (
    SELECT a.*
      FROM dispute_event a
     WHERE a.what = 'ASKED' AND NOT EXISTS (SELECT FROM dispute_event e WHERE e.case_no = a.case_no AND e.seq > a.seq AND e.what IN ('ASKED', 'DONE', 'DENIED'))
), charged AS (
    SELECT case_no, amount_fen, business_date, entry_no FROM dispute_event WHERE what = 'DONE' AND action = '04'
), want AS (
    SELECT c.case_no, l.seq AS events, l.after_state AS state, f.at AS opened_at, f.business_date AS opened_on, w.action AS asked_action, w.amount_fen AS asked_fen,
           w.reason AS asked_reason, w.actor AS asked_by, w.at AS asked_at, k.amount_fen AS charged_fen, k.business_date AS charged_on, k.entry_no AS charged_entry,
           CASE l.after_state WHEN 'CHARGED_BACK' THEN k.business_date + 30 WHEN 'RETRIEVAL' THEN coalesce(c.item_date, c.original_date) + 180 END AS due_on
      FROM dispute_case c
      LEFT JOIN last l USING (case_no)
      LEFT JOIN first f USING (case_no)
      LEFT JOIN waits w USING (case_no)
      LEFT JOIN charged k USING (case_no)
)
SELECT 'dispute_case', 'case ' || c.case_no, to_jsonb(w)::text,
       jsonb_build_object('events', c.events, 'state', c.state, 'opened_at', c.opened_at, 'opened_on', c.opened_on, 'asked_action', c.asked_action, 'asked_fen', c.asked_fen,
                          'asked_by', c.asked_by, 'charged_fen', c.charged_fen, 'charged_on', c.charged_on, 'charged_entry', c.charged_entry, 'due_on', c.due_on)::text
  FROM dispute_case c
  JOIN want w USING (case_no)
 WHERE (c.events, c.state, c.opened_at, c.opened_on, c.asked_action, c.asked_fen, c.asked_reason, c.asked_by, c.asked_at, c.charged_fen, c.charged_on, c.charged_entry, c.due_on)
       IS DISTINCT FROM (w.events, w.state, w.opened_at, w.opened_on, w.asked_action, w.asked_fen, w.asked_reason, w.asked_by, w.asked_at, w.charged_fen, w.charged_on,
                         w.charged_entry, w.due_on)
    OR (c.asked_outcome IS NOT NULL) <> (coalesce(w.asked_action, '') = '08')
UNION ALL
SELECT 'dispute_case', 'case ' || max(case_no), 'one open case and one chargeback for a transaction', format('%%s cases of entry %%s', count(*), original_entry)
  FROM dispute_case
 GROUP BY original_entry
HAVING count(*) FILTER (WHERE state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK')) > 1 OR count(charged_fen) > 1

-- name: dispute_originals
-- says: what a case knows of its transaction is what the journal, the offline records or the loads say of it
-- rows: dispute_case, journal, purse_record, foreign_verdict, purse_load
WITH known AS (
    SELECT c.*, o.amount_fen AS own_fen, o.merchant_no AS own_merchant, o.terminal_no AS own_terminal, o.shard AS own_shard,
           coalesce(l.account_kind, o.account_id %% 100)::integer AS own_kind, CASE WHEN l.debit_owner <> 0 THEN lpad(l.debit_owner::text, 8, '0') END AS owing,
           o.kind IN (1, 8, 10) AND o.class = 0 AND (c.item_entry, c.item_date) = (c.original_entry, c.original_date) AS fits
      FROM dispute_case c
      LEFT JOIN journal o ON o.shard = c.shard AND o.business_date = c.original_date AND o.entry_no = c.original_entry
      LEFT JOIN host_leg l ON l.shard = c.shard AND l.ended_by = c.original_entry
     WHERE c.source = 1
    UNION ALL
    SELECT c.*, o.amount_fen, o.merchant_no, o.terminal_no, o.shard, 50, NULL,
           o.card_no IS NOT NULL AND o.original_entry IS NULL AND (c.item_entry IS NULL OR (i.result IN ('10', '00') AND coalesce(i.original_entry, i.entry_no) = o.entry_no))
      FROM dispute_case c
      LEFT JOIN purse_record o ON o.business_date = c.original_date AND o.entry_no = c.original_entry
      LEFT JOIN purse_record i ON i.business_date = c.item_date AND i.entry_no = c.item_entry
     WHERE c.source = 2
    UNION ALL
    SELECT c.*, v.amount_fen, v.merchant_no, v.terminal_no, 0, 50, v.issuer_id, v.result = '00' AND (v.original_entry, v.original_date, v.business_date)
           = (c.original_entry, c.original_date, c.item_date)
      FROM dispute_case c
      LEFT JOIN foreign_verdict v ON v.entry_no = c.item_entry
     WHERE c.source = 3
    UNION ALL
    SELECT c.*, o.amount_fen, j.merchant_no, j.terminal_no, o.shard, 50, CASE o.debit_code WHEN 1101 THEN lpad(o.debit_owner::text, 8, '0') END,
           c.item_entry IS NULL AND o.business_date = c.original_date
      FROM dispute_case c
      LEFT JOIN purse_load o ON o.shard = c.shard AND o.entry_no = c.original_entry
      LEFT JOIN journal j ON j.shard = o.shard AND j.business_date = o.business_date AND j.entry_no = o.entry_no
     WHERE c.source = 4
)
SELECT 'dispute_case', 'case ' || k.case_no, fault,
       format('source %%s, entry %%s of %%s, item %%s of %%s: %%s fen of kind %%s at merchant_no %%s, terminal_no %%s, shard %%s, between %%s and %%s', source, original_entry,
              original_date, item_entry, item_date, k.amount_fen, account_kind, k.merchant_no, k.terminal_no, k.shard, issuer_id, k.acquirer_id)
  FROM known k
  LEFT JOIN institution i ON i.institution_id = k.issuer_id
  LEFT JOIN institution q ON q.institution_id = k.acquirer_id
 CROSS JOIN LATERAL (SELECT CASE
       WHEN k.own_fen IS NULL OR k.fits IS NOT TRUE THEN 'a transaction of that number and date, and the entry in which it was cleared'
       WHEN k.amount_fen <> k.own_fen THEN k.own_fen || ' fen'
       WHEN (k.merchant_no, k.terminal_no, k.shard::integer, k.account_kind::integer) IS DISTINCT FROM (k.own_merchant, k.own_terminal, k.own_shard::integer, k.own_kind)
            THEN format('kind %%s at merchant_no %%s, terminal_no %%s, shard %%s', k.own_kind, k.own_merchant, k.own_terminal, k.own_shard)
       WHEN k.owing IS NOT NULL AND k.issuer_id <> k.owing THEN 'issuer ' || k.owing
       WHEN i.institution_id IS NULL OR q.institution_id IS NULL THEN 'members that are registered'
       END AS fault) AS f
 WHERE fault IS NOT NULL

-- name: adjustments
-- says: every adjustment is what one decided step of a case says: kind, amount, day and instant, and it names that case's transaction; and every such step has it
-- rows: journal, dispute_event, dispute_case
WITH kind (action, kind) AS (VALUES ('01', 14), ('02', 15), ('04', 16), ('05', 17)),
decided AS (
    SELECT e.case_no, e.seq, e.at, e.business_date, e.entry_no, e.amount_fen, e.action, k.kind, c.shard, c.source, c.original_entry, c.original_date, c.merchant_no, c.terminal_no,
           coalesce(r.at, v.at) AS record_at, c.item_entry
      FROM dispute_event e
      JOIN kind k USING (action)
      JOIN dispute_case c USING (case_no)
      LEFT JOIN (SELECT entry_no, business_date, received_at AS at FROM purse_record) AS r ON c.source = 2 AND r.entry_no = c.item_entry AND r.business_date = c.item_date
      LEFT JOIN (SELECT entry_no, decided_at AS at FROM foreign_verdict) AS v ON c.source = 3 AND v.entry_no = c.item_entry
     WHERE e.what = 'DONE' AND e.business_date BETWEEN %(first)s AND %(last)s
), booked AS (
    SELECT * FROM journal WHERE class = 3 AND business_date BETWEEN %(first)s AND %(last)s
)
SELECT CASE WHEN j.entry_no IS NULL THEN 'dispute_event' ELSE 'journal' END,
       CASE WHEN j.entry_no IS NULL THEN format('case %%s, step %%s', d.case_no, d.seq) ELSE format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard) END, fault,
       CASE WHEN j.entry_no IS NULL THEN 'no entry' ELSE format('kind %%s, %%s fen at %%s, of entry %%s of %%s', j.kind, j.amount_fen, j.decided_at, j.original_entry, j.original_date) END
  FROM decided d
  FULL JOIN booked j ON j.entry_no = d.entry_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN d.case_no IS NULL THEN 'a step of a case that decided it'
       WHEN j.entry_no IS NULL THEN format('entry %%s of %%s', d.entry_no, d.business_date)
       WHEN (j.business_date, j.decided_at, j.kind::integer, j.amount_fen) IS DISTINCT FROM (d.business_date, d.at, d.kind, d.amount_fen)
            THEN format('kind %%s, %%s fen at %%s', d.kind, d.amount_fen, d.at)
       WHEN (j.shard, j.original_entry, j.original_date, j.merchant_no, j.terminal_no) IS DISTINCT FROM (d.shard, d.original_entry, d.original_date, d.merchant_no, d.terminal_no)
            THEN format('the transaction of case %%s: entry %%s of %%s', d.case_no, d.original_entry, d.original_date)
       WHEN j.auth_code <> '' OR j.entry_mode <> '' OR j.extra IS NOT NULL THEN 'nothing that a terminal would be told'
       WHEN d.source IN (2, 3) AND j.rrn <> to_char(d.record_at AT TIME ZONE 'UTC' + interval '8 hours', 'YDDDHH24')
            || (SELECT string_agg(substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (d.item_entry / (36 ^ n)::bigint %% 36)::integer + 1, 1), '' ORDER BY n DESC)
                  FROM generate_series(0, 5) AS n) THEN 'the reference of the record'
       END AS fault) AS f
 WHERE fault IS NOT NULL

-- name: adjustment_postings
-- says: an adjustment moves its amount between the merchant and who paid the original: the account, the bank or city, or suspense where nobody can be paid, and out of there no more than is left of it
-- rows: journal, posting
-- Of a divided purchase split_postings says it.
WITH entry AS (
    SELECT j.shard, j.business_date, j.entry_no, j.effect_fen, j.merchant_no::bigint AS merchant_no, j.kind,
           CASE WHEN h.leg_no IS NOT NULL THEN h.debit_code WHEN c.source = 3 THEN 1102 WHEN j.account_id %% 100 = 40 THEN 2003 WHEN j.account_id IS NOT NULL THEN 2001 ELSE 2201 END AS code,
           CASE WHEN h.leg_no IS NOT NULL THEN h.debit_owner WHEN c.source = 3 THEN c.issuer_id::bigint ELSE coalesce(j.account_id, 0) END AS owner,
           h.leg_no IS NULL AND c.source <> 3 AS ours
      FROM journal j
      LEFT JOIN dispute_event e ON e.entry_no = j.entry_no
      LEFT JOIN dispute_case c ON c.case_no = e.case_no
      LEFT JOIN host_leg h ON h.shard = j.shard AND h.ended_by = j.original_entry
      LEFT JOIN purchase_split s ON s.shard = j.shard AND s.entry_no = j.original_entry
     WHERE j.class = 3 AND j.business_date BETWEEN %(first)s AND %(last)s AND s.entry_no IS NULL
)
SELECT CASE WHEN p.entry_no IS NULL THEN 'journal' ELSE 'posting' END, format('entry %%s of %%s in shard %%s', e.entry_no, e.business_date, e.shard),
       CASE WHEN e.effect_fen > 0 THEN format('%%s fen from %%s/%%s to 2101/%%s', e.effect_fen, e.code, e.owner, e.merchant_no)
            ELSE format('%%s fen from 2101/%%s to %%s/%%s', -e.effect_fen, e.merchant_no, e.code, e.owner) END,
       CASE WHEN p.entry_no IS NULL THEN 'no posting' ELSE format('%%s fen from %%s/%%s to %%s/%%s', p.amount_fen, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner) END
  FROM entry e
  LEFT JOIN posting p ON p.shard = e.shard AND p.business_date = e.business_date AND p.entry_no = e.entry_no
 CROSS JOIN LATERAL (SELECT CASE WHEN e.effect_fen > 0 THEN p.debit_code ELSE p.credit_code END::integer AS code,
                            CASE WHEN e.effect_fen > 0 THEN p.debit_owner ELSE p.credit_owner END AS owner,
                            CASE WHEN e.effect_fen > 0 THEN p.credit_code ELSE p.debit_code END::integer AS other,
                            CASE WHEN e.effect_fen > 0 THEN p.credit_owner ELSE p.debit_owner END AS shop) AS side
 WHERE p.entry_no IS NULL OR p.line <> 0 OR p.amount_fen <> abs(e.effect_fen) OR (side.other, side.shop) IS DISTINCT FROM (2101, e.merchant_no)
    OR ((side.code, side.owner) IS DISTINCT FROM (e.code, e.owner) AND NOT (e.ours AND (side.code, side.owner) = (2201, 0)))
UNION ALL
SELECT 'posting', format('original %%s of %%s in shard %%s', original_entry, original_date, shard), 'no less than nothing of it in suspense', format('%%s fen', fen)
  FROM (SELECT e.shard, e.original_entry, e.original_date, sum(CASE p.credit_code WHEN 2201 THEN p.amount_fen ELSE -p.amount_fen END) AS fen
          FROM (SELECT DISTINCT shard, terminal_no, original_entry, original_date FROM journal
                 WHERE class = 3 AND effect_fen > 0 AND business_date BETWEEN %(first)s AND %(last)s) AS e
          JOIN journal j ON j.shard = e.shard AND j.terminal_no = e.terminal_no AND j.original_entry = e.original_entry AND j.business_date >= e.original_date
          JOIN posting p ON p.shard = j.shard AND p.business_date = j.business_date AND p.entry_no = j.entry_no AND 2201 IN (p.debit_code, p.credit_code)
         GROUP BY 1, 2, 3) AS held
 WHERE fen < 0

-- name: dispute_records
-- says: an offline record that a case accepted is paid by one row of the day of decision, and a load that a case settled moved as decided
-- rows: dispute_event, dispute_case, purse_record, purse_load_move
SELECT 'dispute_event', format('case %%s, step %%s', e.case_no, e.seq),
       CASE e.action WHEN '08' THEN 'a move out of suspense by people' ELSE 'a row 00 of that record' END,
       coalesce(format('row %%s of %%s, result %%s of entry %%s', r.entry_no, r.business_date, r.result, r.original_entry),
                format('move %%s of load %%s to state %%s', m.entry_no, m.load_no, m.to_state), 'nothing')
  FROM dispute_event e
  JOIN dispute_case c USING (case_no)
  LEFT JOIN purse_record r ON e.action IN ('06', '07') AND r.entry_no = e.entry_no AND r.business_date = e.business_date
  LEFT JOIN purse_record o ON e.action IN ('06', '07') AND o.entry_no = c.original_entry AND o.business_date = c.original_date
  LEFT JOIN purse_load_move m ON e.action = '08' AND m.shard = c.shard AND m.entry_no = e.entry_no
 WHERE e.what = 'DONE' AND e.action IN ('06', '07', '08') AND e.business_date BETWEEN %(first)s AND %(last)s
   AND CASE WHEN e.action = '08'
            THEN (m.load_no, m.from_state, m.reason, m.business_date, m.at) IS DISTINCT FROM (c.original_entry, 4::smallint, 'operator', e.business_date, e.at)
            ELSE (r.result, r.original_entry, r.amount_fen, r.received_at) IS DISTINCT FROM ('00', c.original_entry, e.amount_fen, e.at)
                 OR o.result IS NULL OR (e.action = '06') <> (o.result = '04')
                 OR NOT EXISTS (SELECT FROM dispute_evidence v WHERE v.case_no = e.case_no AND v.seq < e.seq) END

-- name: dispute_received
-- says: a file of cases has its lines once each, with what became of them; a line that was not refused is a step of its case
-- rows: dispute_received, received_file, dispute_case
WITH line AS (
    SELECT file_no, count(*) AS lines, sum(greatest(amount_fen, 0)) AS fen, min(line_no) AS first, max(line_no) AS last, array_agg(DISTINCT member_id) AS members
      FROM dispute_received GROUP BY file_no
), became AS (
    SELECT r.file_no, CASE WHEN r.refusal <> '' THEN r.refusal WHEN r.action = '03' THEN 'done' ELSE 'asked' END AS code, count(*) AS lines, sum(abs(r.amount_fen)) AS fen
      FROM dispute_received r GROUP BY 1, 2
), summed AS (
    SELECT file_no, jsonb_object_agg(code, jsonb_build_array(lines, fen)) AS results FROM became GROUP BY file_no
)
SELECT 'received_file', 'file_no ' || f.file_no, format('%%s lines of %%s fen: %%s', coalesce(l.lines, 0), coalesce(l.fen, 0), coalesce(s.results, '{}')),
       format('%%s of %%s lines of %%s fen, status %%s: %%s', f.lines_done, f.line_count, f.total_fen, f.status, f.results)
  FROM received_file f
  LEFT JOIN line l USING (file_no)
  LEFT JOIN summed s USING (file_no)
 WHERE left(f.name, 2) = 'ER'
   AND ((f.status = '00' AND (f.lines_done <> coalesce(l.lines, 0) OR f.results <> coalesce(s.results, '{}') OR (l.lines > 0 AND (l.first, l.last) <> (1, l.lines))
                              OR (f.ended_at IS NOT NULL AND f.total_fen <> coalesce(l.fen, 0)) OR l.members <> ARRAY[f.sender_id]))
        OR (f.status <> '00' AND l.lines > 0))
UNION ALL
SELECT 'dispute_received', format('file_no %%s, line %%s', r.file_no, r.line_no), 'a file of cases, and a step of a case by this member for this amount unless refused',
       format('case %%s, %%s fen, action %%s, refusal %%s', r.case_no, r.amount_fen, r.action, r.refusal)
  FROM dispute_received r
  LEFT JOIN received_file f ON f.file_no = r.file_no AND left(f.name, 2) = 'ER'
  LEFT JOIN dispute_event e
    ON e.case_no = r.case_no AND e.action = r.action AND e.actor = 'member ' || r.member_id AND e.amount_fen = abs(r.amount_fen) AND e.reason = r.reason
   AND e.what = CASE r.action WHEN '03' THEN 'DONE' ELSE 'ASKED' END AND e.business_date = r.business_date
 WHERE f.file_no IS NULL OR (r.refusal = '' AND e.case_no IS NULL) OR (r.refusal <> '' AND r.case_no IS NOT NULL)

-- name: dispute_lines
-- says: the lines that a closed day said to members are its decisions, denials and refused lines, each to whom it concerns
-- rows: clearing_dispute, dispute_event, dispute_received
WITH @closed,
said AS (
    SELECT e.business_date, p.member_id, CASE WHEN k.member_id = p.member_id THEN k.member_case ELSE lpad(k.case_no::text, 16, '0') END AS case_text, e.action,
           (CASE WHEN p.member_id = k.issuer_id THEN 1 ELSE -1 END * CASE WHEN e.action IN ('01', '04') THEN 1 WHEN e.action = '03' THEN 0 ELSE -1 END * e.amount_fen)::bigint AS fen,
           e.reason, to_char(coalesce(k.item_date, e.business_date), 'YYYYMMDD') AS original_date
      FROM dispute_event e
      JOIN dispute_case k USING (case_no)
      JOIN closed c ON c.business_date = e.business_date
      LEFT JOIN journal o ON k.source = 1 AND o.business_date = k.original_date AND o.shard = k.shard AND o.entry_no = k.original_entry
      LEFT JOIN clearing_merchant m ON m.merchant_no = k.merchant_no
       AND m.business_date = CASE WHEN o.effect_fen = 0 THEN e.business_date ELSE coalesce(k.item_date, e.business_date) END
     CROSS JOIN LATERAL (SELECT k.issuer_id AS member_id UNION SELECT coalesce(m.acquirer_id, k.acquirer_id)) AS p
     WHERE e.what = 'DONE' AND e.action <> '08' AND p.member_id <> c.own_id AND p.member_id <> c.centre_id
    UNION ALL
    SELECT e.business_date, substr(e.actor, 8), CASE WHEN k.member_id = substr(e.actor, 8) THEN k.member_case ELSE lpad(k.case_no::text, 16, '0') END, e.action, 0, e.reason,
           to_char(k.item_date, 'YYYYMMDD')
      FROM dispute_event e JOIN dispute_case k USING (case_no) JOIN closed c ON c.business_date = e.business_date
     WHERE e.what = 'DENIED' AND left(e.actor, 7) = 'member '
    UNION ALL
    SELECT r.business_date, r.member_id, r.member_case, r.action, 0, r.refusal, r.original_date
      FROM dispute_received r JOIN closed c ON c.business_date = r.business_date WHERE r.refusal <> ''
), want AS (
    SELECT *, row_number() OVER (PARTITION BY business_date, member_id, case_text, action, fen, reason, original_date) AS time FROM said
), kept AS (
    SELECT l.*, row_number() OVER (PARTITION BY l.business_date, l.member_id, case_text, action, amount_fen, reason, original_date ORDER BY line_no) AS time
      FROM clearing_dispute l JOIN closed c ON c.business_date = l.business_date
)
SELECT 'clearing_dispute', format('line %%s for %%s on %%s', coalesce(k.line_no::text, 'none'), coalesce(k.member_id, w.member_id), coalesce(k.business_date, w.business_date)),
       coalesce(format('case %%s, action %%s, %%s fen, reason %%s, original of %%s', w.case_text, w.action, w.fen, w.reason, w.original_date), 'no line'),
       coalesce(format('case %%s, action %%s, %%s fen, reason %%s, original of %%s', k.case_text, k.action, k.amount_fen, k.reason, k.original_date), 'no line')
  FROM kept k
  FULL JOIN want w
    ON w.business_date = k.business_date AND w.member_id = k.member_id AND w.case_text = k.case_text AND w.action = k.action AND w.fen = k.amount_fen
   AND w.reason = k.reason AND w.original_date = k.original_date AND w.time = k.time
 WHERE k.line_no IS NULL OR w.member_id IS NULL

-- name: clearing_adjusted
-- says: what a closed day keeps of adjusted offline records is each of them with the fee of its terms
-- rows: clearing_adjusted, journal, clearing_rule
WITH @closed,
want AS (
    SELECT j.business_date, j.entry_no, j.merchant_no, j.effect_fen AS fen,
           (sign(j.effect_fen::numeric) * coalesce(least(greatest(round(abs(j.effect_fen) * t.rate_ppm::numeric / 1000000), t.minimum_fen), t.cap_fen, abs(j.effect_fen)), 0))::bigint AS fee
      FROM journal j
      JOIN closed c ON c.business_date = j.business_date
      JOIN dispute_event e ON e.entry_no = j.entry_no
      JOIN dispute_case k ON k.case_no = e.case_no AND k.source IN (2, 3)
      LEFT JOIN clearing_rule t ON t.business_date = j.business_date AND t.merchant_no = j.merchant_no AND t.account_kind = 50 AND t.rule_date = j.original_date
     WHERE j.class = 3
), kept AS (SELECT a.* FROM clearing_adjusted a JOIN closed c ON c.business_date = a.business_date)
SELECT 'clearing_adjusted', format('entry %%s of %%s', coalesce(k.entry_no, w.entry_no), coalesce(k.business_date, w.business_date)),
       coalesce(format('%%s fen of merchant_no %%s, fee %%s fen', w.fen, w.merchant_no, w.fee), 'no row'),
       coalesce(format('%%s fen of merchant_no %%s, fee %%s fen', k.amount_fen, k.merchant_no, k.fee_fen), 'no row')
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.entry_no = k.entry_no
 WHERE (k.merchant_no, k.amount_fen, k.fee_fen) IS DISTINCT FROM (w.merchant_no, w.fen, w.fee)
