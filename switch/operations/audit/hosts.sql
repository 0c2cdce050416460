-- What hosts decide: intents and legs, how they ended, what hosts must still be told, what we stood in for, and who owes it.
-- Leg states: 0 asked, 1 approved, 2 declined, 3 not sent, 4 unknown, 5 stood in. Services: 1 purchase, 2 return, 3 balance,
-- 4 pre-authorisation, 5 load. Steps: 1 authorisation, 2 financial, 3 advice, 5 reversal advice. Entry kinds as in journal.sql.

-- name: host_intents
-- says: each intent has its leg, and each leg its intent or, where we stood in, its answer: key, parties, card, amount and reference
-- rows: host_leg, journal
WITH leg AS (
    SELECT l.*, t.terminal_id AS terminal_there, m.merchant_id AS merchant_there, i.institution_id AS institution_there
      FROM host_leg l
      LEFT JOIN terminal t ON t.terminal_no = l.terminal_no
      LEFT JOIN merchant m ON m.merchant_no = l.merchant_no
      LEFT JOIN institution i ON i.institution_id = lpad(l.debit_owner::text, 8, '0')
     WHERE l.business_date BETWEEN %(first)s AND %(last)s
), intent AS (
    SELECT j.*
      FROM journal j
      LEFT JOIN leg s ON s.state = 5 AND s.shard = j.shard AND s.leg_no = j.entry_no
     WHERE j.business_date BETWEEN %(first)s AND %(last)s AND (j.class = 2 OR s.leg_no IS NOT NULL)
)
SELECT CASE WHEN l.leg_no IS NULL THEN 'journal' ELSE 'host_leg' END,
       CASE WHEN l.leg_no IS NULL THEN format('entry %%s of %%s in shard %%s', i.entry_no, i.business_date, i.shard)
            ELSE format('leg %%s in shard %%s', l.leg_no, l.shard) END,
       fault,
       CASE WHEN l.leg_no IS NULL THEN 'no leg'
            ELSE format('%%s fen, service %%s, step %%s, account kind %%s, owed on %%s/%%s, asked at %%s, key %%s/%%s', l.amount_fen, l.service, l.step,
                        l.account_kind, l.debit_code, l.debit_owner, l.asked_at, l.transmitted, l.trace) END
  FROM leg l
  FULL JOIN intent i ON i.shard = l.shard AND i.entry_no = l.leg_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN l.leg_no IS NULL THEN 'a leg for the intent'
       WHEN i.entry_no IS NULL THEN 'an intent of this number'
       WHEN i.class <> CASE l.state WHEN 5 THEN 0 ELSE 2 END THEN 'an intent, or the approval where we stood in'
       WHEN (l.terminal_no, l.batch_no, l.stan, l.business_date, l.asked_at) IS DISTINCT FROM (i.terminal_no, i.batch_no, i.stan, i.business_date, i.decided_at)
            THEN format('terminal_no %%s, batch %%s, trace %%s at %%s', i.terminal_no, i.batch_no, i.stan, i.decided_at)
       WHEN (l.merchant_no, l.terminal_id, l.merchant_id) IS DISTINCT FROM (i.merchant_no, l.terminal_there, l.merchant_there)
            THEN format('terminal %%s of merchant %%s', l.terminal_there, l.merchant_there)
       WHEN (l.kind, l.amount_fen, l.entry_mode, l.rrn) IS DISTINCT FROM (i.kind, i.amount_fen, i.entry_mode, i.rrn)
            THEN format('kind %%s, %%s fen, entry mode %%s, reference %%s', i.kind, i.amount_fen, i.entry_mode, i.rrn)
       WHEN i.account_id %% 100 <> CASE l.kind WHEN 11 THEN 10 ELSE l.account_kind END THEN 'account kind ' || i.account_id %% 100
       WHEN i.account_id IS NULL AND l.pan <> i.pan THEN 'the card that came'
       WHEN l.service <> CASE l.kind WHEN 1 THEN 1 WHEN 2 THEN 3 WHEN 6 THEN 4 ELSE 5 END THEN 'the service of kind ' || l.kind
       WHEN (l.step = 3) <> (l.state = 5) THEN 'an advice where we stood in, and nowhere else'
       WHEN l.step = 1 AND l.service <> 4 THEN 'step 2'
       WHEN l.account_kind NOT IN (10, 20, 40) THEN 'account kind 10, 20 or 40'
       WHEN l.debit_code = 1103 AND (l.account_kind <> 40 OR l.debit_owner <> 0) THEN 'the fund to owe for medical accounts, without owner'
       WHEN l.debit_code = 1101 AND l.account_kind <> 20 THEN 'a bank to owe for bank accounts'
       WHEN l.debit_code <> 1103 AND l.institution_there IS NULL THEN 'an institution that is registered'
       WHEN l.gives_up_at NOT BETWEEN l.asked_at AND l.asked_at + interval '2 minutes' THEN 'given up within two minutes'
       WHEN l.transmitted <> to_char(l.asked_at AT TIME ZONE 'UTC' + interval '8 hours', 'MMDDHH24MISS') THEN 'the second in which it was asked'
       WHEN l.trace <> l.leg_no %% 999999 + 1 THEN 'trace ' || l.leg_no %% 999999 + 1
       END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: host_ends
-- says: a leg's state is what the entry that ended it answered, under the same key with the same amount and reference, and none is open after its time
-- rows: host_leg, journal
WITH told AS (
    -- What of a host's answers a terminal may hear; anything else is told as 05.
    SELECT unnest(ARRAY['01', '04', '05', '12', '13', '14', '15', '34', '38', '41', '43', '51', '54', '55', '57', '58', '61', '62', '65', '91', '92',
                        '96', '98', '68', '75', '09']) AS code,
           unnest(ARRAY['01', '04', '05', '12', '13', '14', '15', '34', '38', '41', '43', '51', '54', '55', '57', '58', '61', '62', '65', '91', '92',
                        '96', '98', '98', '38', '96']) AS answer
), leg AS (
    SELECT l.*, coalesce(t.answer, '05') AS told
      FROM host_leg l
      LEFT JOIN told t ON t.code = l.host_code
     WHERE l.business_date BETWEEN %(first)s AND %(last)s
)
SELECT 'host_leg', format('leg %%s in shard %%s', l.leg_no, l.shard), fault,
       format('state %%s, host answered %%s, ended by %%s at %%s; ', l.state, coalesce(nullif(l.host_code, ''), 'nothing'), coalesce(l.ended_by::text, 'nothing'), l.ended_at)
       || coalesce(format('entry: answer %%s, %%s fen, effect %%s fen', e.answer, e.amount_fen, e.effect_fen), 'no entry')
  FROM leg l
  LEFT JOIN journal e ON e.business_date >= %(first)s AND e.class = 0 AND e.shard = l.shard AND e.entry_no = l.ended_by  -- perhaps of a later day
  LEFT JOIN journal i ON i.business_date BETWEEN %(first)s AND %(last)s AND i.class = 2 AND i.shard = l.shard AND i.entry_no = l.leg_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN l.state NOT BETWEEN 0 AND 5 THEN 'a state that there is'
       WHEN (l.state = 0) <> (l.ended_by IS NULL) OR (l.state = 0) <> (l.ended_at IS NULL) THEN 'an end where it is not asked any more'
       WHEN l.state = 0 AND l.host_code || l.host_auth || l.host_day <> '' THEN 'no answer of the host before the end'
       WHEN l.state = 0 AND transaction_timestamp() > l.gives_up_at + interval '1 hour' THEN 'an end by ' || l.gives_up_at
       WHEN l.state = 0 THEN NULL
       WHEN e.entry_no IS NULL THEN 'an answer'
       WHEN (e.terminal_no, e.batch_no, e.stan, e.merchant_no, e.kind) IS DISTINCT FROM (l.terminal_no, l.batch_no, l.stan, l.merchant_no, l.kind)
            THEN 'an answer under its key'
       WHEN (e.amount_fen, e.rrn, e.decided_at) IS DISTINCT FROM (l.amount_fen, l.rrn, l.ended_at)
            THEN format('%%s fen, reference %%s at %%s', e.amount_fen, e.rrn, e.decided_at)
       WHEN (e.account_id, e.pan, e.digest) IS DISTINCT FROM (i.account_id, i.pan, i.digest) AND i.entry_no IS NOT NULL THEN 'account, card and digest of the intent'
       WHEN l.ended_at < l.asked_at OR (l.state = 5) <> (l.ended_by = l.leg_no) THEN 'an end after it was asked, at once where we stood in'
       WHEN e.effect_fen <> CASE WHEN l.state IN (1, 5) AND l.service NOT IN (3, 5) THEN l.amount_fen ELSE 0 END THEN 'an effect of what was approved, and of nothing else'
       WHEN l.state = 1 AND (e.answer, l.host_code) <> ('00', '00') THEN 'approved by the host and by us'
       WHEN l.state = 2 AND (l.host_code IN ('', '00') OR e.answer <> l.told) THEN 'declined, and the terminal told ' || l.told
       WHEN l.state = 3 AND (l.host_code <> '' OR e.answer IN ('00', '68', '90')) THEN 'no answer of a host that was not asked, and a refusal'
       -- An approval that came after the batch was counted is taken back.
       WHEN l.state = 4 AND (l.host_code NOT IN ('', '00') OR (l.host_code = '' AND e.answer <> '68')
                             OR (l.host_code = '00' AND e.answer <> '90' AND (l.service <> 5 OR e.answer = '00')))
            THEN 'answer 68, or 90 after an approval that came too late; of a load that cannot be any more, another refusal'
       WHEN l.state = 5 AND (e.answer <> '00' OR l.service <> 1 OR l.host_code <> '') THEN 'a purchase that we approved'
       WHEN l.late_code IS NOT NULL AND l.state = 5 THEN 'no late answer where nothing was asked'
       END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: host_messages
-- says: a host is to be told of each purchase or load whose end is unknown or doubtful or that we approved for it, and of what is given back of one, once; and of nothing else
-- rows: host_outbox, host_leg, journal, purse_load_move, posting
WITH leg AS (
    SELECT * FROM host_leg WHERE service IN (1, 3, 5)
), want AS (
    -- A code that does not say that nothing was done makes an end doubtful, and so does an approval behind a decline: told when it comes.
    SELECT shard, leg_no, ended_by AS entry_no, 5 AS step, service, amount_fen,
           CASE WHEN state = 4 OR host_code IN ('09', '68', '96', '98') THEN ended_at END AS at
      FROM leg WHERE service IN (1, 5) AND (state = 4 OR (state = 2 AND (host_code IN ('09', '68', '96', '98') OR late_code = '00')))
    UNION ALL
    SELECT shard, leg_no, ended_by, 3, service, amount_fen, ended_at FROM leg WHERE state = 5
    UNION ALL
    SELECT l.shard, l.leg_no, j.entry_no, CASE j.kind WHEN 5 THEN 5 ELSE 3 END, CASE j.kind WHEN 5 THEN l.service ELSE 2 END, j.amount_fen, j.decided_at
      FROM journal j
      JOIN leg l ON l.shard = j.shard AND l.ended_by = j.original_entry
     -- A case is told by ER, not by the host link.
     WHERE j.answer = '00' AND j.class <> 3 AND (j.effect_fen <> 0 OR (j.kind = 5 AND l.service = 5 AND l.state = 1 AND NOT EXISTS (
               SELECT FROM purse_load u WHERE u.shard = l.shard AND u.entry_no = l.ended_by)))
    UNION ALL
    -- A load of a purse that went back to its bank: as if it had never been, or given back once it had been in doubt.
    SELECT l.shard, l.leg_no, m.entry_no, CASE m.from_state WHEN 1 THEN 5 ELSE 3 END, CASE m.from_state WHEN 1 THEN 5 ELSE 2 END, l.amount_fen, m.at
      FROM purse_load_move m
      JOIN leg l ON l.shard = m.shard AND l.ended_by = m.load_no
      JOIN posting p ON p.shard = m.shard AND p.entry_no = m.entry_no AND p.line = m.line AND p.business_date = m.business_date
     WHERE m.to_state IN (3, 6) AND (p.credit_code, p.credit_owner) = (l.debit_code, l.debit_owner)
), kept AS (
    SELECT o.*, count(*) OVER (PARTITION BY o.shard, o.leg_no, o.entry_no) AS times, l.leg_no IS NOT NULL AS of_leg, l.host AS leg_host, l.rrn AS leg_rrn,
           l.transmitted AS leg_transmitted, l.trace AS leg_trace, l.ended_at AS leg_ended_at, l.host_code, l.state
      FROM host_outbox o
      LEFT JOIN host_leg l ON l.shard = o.shard AND l.leg_no = o.leg_no
     WHERE l.leg_no IS NULL OR l.service IN (1, 3, 5)
)
SELECT 'host_outbox',
       CASE WHEN o.outbox_no IS NULL THEN format('of entry %%s and leg %%s in shard %%s', w.entry_no, w.leg_no, w.shard)
            ELSE format('message %%s in shard %%s', o.outbox_no, o.shard) END,
       fault,
       CASE WHEN o.outbox_no IS NULL THEN 'no message'
            ELSE format('step %%s, service %%s, %%s fen for leg %%s and entry %%s, key %%s/%%s of %%s, result %%s', o.step, o.service, o.amount_fen, o.leg_no, o.entry_no,
                        o.transmitted, o.trace, o.created_at, coalesce(o.result::text, 'open')) END
  FROM kept o
  FULL JOIN want w ON w.shard = o.shard AND w.leg_no = o.leg_no AND w.entry_no = o.entry_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN o.outbox_no IS NULL THEN format('step %%s, service %%s, %%s fen', w.step, w.service, w.amount_fen)
       WHEN NOT o.of_leg THEN 'a leg'
       WHEN w.entry_no IS NULL THEN 'no message: the entry is no reason for one'
       WHEN o.times > 1 THEN 'one message for an entry'
       WHEN (o.step, o.service, o.amount_fen) IS DISTINCT FROM (w.step, w.service, w.amount_fen) THEN format('step %%s, service %%s, %%s fen', w.step, w.service, w.amount_fen)
       WHEN (o.host, o.rrn) IS DISTINCT FROM (o.leg_host, o.leg_rrn) THEN format('host %%s, reference %%s', o.leg_host, o.leg_rrn)
       WHEN o.created_at <> w.at THEN 'made with its entry, at ' || w.at
       WHEN o.created_at < o.leg_ended_at THEN 'made after the end of its leg, at ' || o.leg_ended_at
       WHEN (o.step = 5 AND o.reason NOT IN ('06', '96', '98', 'A0')) OR (o.step <> 5 AND o.reason <> '') THEN 'a reason of a reversal, and of nothing else'
       WHEN o.state = 2 AND o.step = 5 AND o.reason <> '96' THEN 'reason 96 of a doubtful answer'
       WHEN o.state = 4 AND o.host_code = '00' AND o.reason <> '06' THEN 'reason 06 of an approval that is taken back'
       -- What we approved for a host is the transaction itself; anything else has a key of its own.
       WHEN o.step = 3 AND o.service <> 2 AND (o.transmitted, o.trace) IS DISTINCT FROM (o.leg_transmitted, o.leg_trace) THEN 'the key of its leg'
       WHEN NOT (o.step = 3 AND o.service <> 2)
            AND (o.transmitted, o.trace) IS DISTINCT FROM (to_char(o.created_at AT TIME ZONE 'UTC' + interval '8 hours', 'MMDDHH24MISS'), o.outbox_no %% 999999 + 1)
            THEN 'a key of its number and the second in which it was made'
       WHEN o.tries < 0 OR o.due_at < o.created_at THEN 'due after it was made'
       WHEN (o.done_at IS NULL) <> (o.result IS NULL) OR o.result NOT IN (1, 2, 3) OR o.done_at < o.created_at THEN 'a result and its instant, or neither'
       END AS fault) AS f
 WHERE f.fault IS NOT NULL

-- name: host_returns
-- says: of each leg a host is told to undo all of it once, or to give back no more than its amount, and not both
-- rows: host_outbox, host_leg
WITH back AS (
    SELECT shard, leg_no, count(*) FILTER (WHERE step = 5) AS undone, count(*) FILTER (WHERE service = 2) AS given,
           coalesce(sum(amount_fen) FILTER (WHERE service = 2), 0) AS given_fen
      FROM host_outbox
     WHERE step = 5 OR service = 2
     GROUP BY shard, leg_no
)
SELECT 'host_outbox', format('leg %%s in shard %%s', b.leg_no, b.shard), format('undone once, or at most %%s fen given back', coalesce(l.amount_fen, 0)),
       format('undone %%s times, %%s fen given back in %%s', b.undone, b.given_fen, b.given)
  FROM back b
  LEFT JOIN host_leg l ON l.shard = b.shard AND l.leg_no = b.leg_no
 WHERE b.undone > 1 OR (b.undone > 0 AND b.given > 0) OR b.given_fen > coalesce(l.amount_fen, 0)

-- name: host_keys
-- says: what a host is sent has a key (host, second, trace) that nothing else has within the year, in any shard
-- rows: host_leg, host_outbox
-- A leg of what we approved ourselves is not sent: its advice is.
SELECT min(of_table), format('key %%s/%%s at %%s', transmitted, trace, host), 'one message', string_agg(what, '; ' ORDER BY what)
  FROM (SELECT *, count(*) OVER (PARTITION BY host, transmitted, trace, date_trunc('year', at AT TIME ZONE 'UTC' + interval '8 hours')) AS times
          FROM (SELECT 'host_leg' AS of_table, host, transmitted, trace, asked_at AS at, format('leg %%s in shard %%s', leg_no, shard) AS what
                  FROM host_leg WHERE state <> 5
                UNION ALL
                SELECT 'host_outbox', host, transmitted, trace, created_at, format('message %%s in shard %%s', outbox_no, shard) FROM host_outbox) AS every
       ) AS counted
 WHERE times > 1
 GROUP BY host, transmitted, trace

-- name: host_stand_ins
-- says: what a host has not been told yet of what we approved in its place is the sum and number of the open advices
-- rows: stand_in, host_outbox
SELECT 'stand_in', format('host %%s in shard %%s', coalesce(s.host, a.host), coalesce(s.shard, a.shard)),
       format('%%s fen in %%s', coalesce(a.fen, 0), coalesce(a.advices, 0)),
       coalesce(format('%%s fen in %%s', s.outstanding_fen, s.outstanding_count), 'no row')
  FROM stand_in s
  FULL JOIN (SELECT o.shard, o.host, sum(o.amount_fen) AS fen, count(*) AS advices
               FROM host_outbox o
               JOIN host_leg l ON l.shard = o.shard AND l.leg_no = o.leg_no AND l.state = 5
              WHERE o.result IS NULL AND o.step = 3 AND o.service <> 2
              GROUP BY o.shard, o.host) AS a USING (shard, host)
 WHERE (coalesce(s.outstanding_fen, 0), coalesce(s.outstanding_count, 0)) <> (coalesce(a.fen, 0), coalesce(a.advices, 0))

-- name: clearing_legs
-- says: who owes an item of a closed day, of which kind of account, card and tariff, is what the leg says that it or its original ended
-- rows: clearing_leg, host_leg, journal
WITH @closed,
want AS (
    SELECT j.business_date, j.entry_no, l.account_kind, CASE l.debit_code WHEN 1103 THEN NULL ELSE lpad(l.debit_owner::text, 8, '0') END AS issuer_id, l.pan, NULL::date AS tariff_on
      FROM journal j
      JOIN closed ON closed.business_date = j.business_date
      JOIN host_leg l ON l.shard = j.shard AND l.ended_by = coalesce(j.original_entry, j.entry_no)
     WHERE j.effect_fen <> 0
    UNION ALL
    -- What cases moved about offline records is of the purse.
    SELECT j.business_date, j.entry_no, 50, CASE c.source WHEN 3 THEN c.issuer_id END, j.pan, v.happened_at::date
      FROM journal j
      JOIN closed ON closed.business_date = j.business_date
      JOIN dispute_event e ON e.entry_no = j.entry_no
      JOIN dispute_case c ON c.case_no = e.case_no AND c.source IN (2, 3)
      LEFT JOIN foreign_verdict v ON c.source = 3 AND v.entry_no = c.item_entry
     WHERE j.class = 3
), kept AS (SELECT k.* FROM clearing_leg k JOIN closed USING (business_date))
SELECT 'clearing_leg', format('entry %%s of %%s', coalesce(k.entry_no, w.entry_no), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.entry_no IS NULL THEN 'no row' ELSE format('account kind %%s, owed by %%s, card %%s, tariff of %%s', w.account_kind, coalesce(w.issuer_id, 'the operator'), right(w.pan, 4), w.tariff_on) END,
       CASE WHEN k.entry_no IS NULL THEN 'no row' ELSE format('account kind %%s, owed by %%s, card %%s, tariff of %%s', k.account_kind, coalesce(k.issuer_id, 'the operator'), right(k.pan, 4), k.tariff_on) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.entry_no = k.entry_no
 WHERE k.entry_no IS NULL OR w.entry_no IS NULL OR (k.account_kind, k.issuer_id, k.pan, k.tariff_on) IS DISTINCT FROM (w.account_kind, w.issuer_id, w.pan, w.tariff_on)
