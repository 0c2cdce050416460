-- The journal, row by row. Kinds: 1 purchase, 2 balance, 3 void, 4 refund, 5 reversal, 6 pre-authorisation, 7 its void, 8 completion,
-- 9 completion void, 10 completion advice, 11 load, 12 its confirm, 14 credit adjustment, 15 debit adjustment, 16 chargeback, 17 re-presentment (these four of
-- cases: disputes.sql), 20 upload, 21 settlement, 22 details, 23 batch end, 30 refused; others are always declined.
-- Class 2 is the intent of what a host is asked; what a host decided is found by its leg, which the entry or its original has ended (hosts.sql).

-- name: journal_row
-- says: answer, amount and effect of an entry fit its kind
-- rows: journal
SELECT 'journal', format('entry %%s of %%s in shard %%s', entry_no, business_date, j.shard), fault,
       format('kind %%s, class %%s, answer %%s, amount %%s fen, effect %%s fen', kind, class, answer, amount_fen, effect_fen)
  FROM journal j
  LEFT JOIN (SELECT shard, ended_by, account_kind AS leg_account FROM host_leg) AS h ON h.shard = j.shard AND h.ended_by = coalesce(j.original_entry, j.entry_no)
 CROSS JOIN LATERAL (SELECT CASE
       WHEN kind NOT IN (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 15, 16, 17, 20, 21, 22, 23, 30) THEN 'a kind that there is'
       WHEN (class = 3) <> (kind BETWEEN 14 AND 17) THEN 'class 3 for what was decided in cases, and nothing else'
       WHEN class NOT IN (0, 1, 2, 3) OR (kind = 5) > (class = 1) OR (class = 1) > (kind IN (5, 30))
            THEN 'class 1 for reversals, 0 or 2 for others'
       WHEN (class = 2) <> (answer = '09') THEN 'answer 09 of an intent, and of nothing else'
       WHEN class = 2 AND kind NOT IN (1, 2, 11) THEN 'an intent to buy, to load or to ask for a balance'
       WHEN answer !~ '^[0-9A-Z]{2}$' THEN 'an answer of two characters'
       WHEN amount_fen < 0 THEN 'no amount below zero'
       WHEN answer <> '00' AND effect_fen <> 0 THEN 'no effect of what was declined'
       WHEN answer = '00' AND kind = 30 THEN 'no approval of this kind'
       WHEN answer = '00' AND kind IN (11, 12) AND amount_fen = 0 THEN 'an amount to load'
       WHEN kind BETWEEN 14 AND 17 AND answer <> '00' THEN 'answer 00 of what was decided'
       WHEN answer = '00' AND kind IN (1, 8, 10, 15, 17) AND (effect_fen <> amount_fen OR amount_fen = 0) THEN 'effect = amount > 0'
       WHEN answer = '00' AND kind IN (3, 4, 9, 14, 16) AND (effect_fen <> -amount_fen OR amount_fen = 0) THEN 'effect = -amount < 0'
       WHEN kind = 5 AND effect_fen <> 0 AND abs(effect_fen) <> amount_fen THEN 'effect = amount or its opposite'
       WHEN kind NOT IN (1, 3, 4, 5, 8, 9, 10, 14, 15, 16, 17) AND effect_fen <> 0 THEN 'no effect of this kind'
       WHEN answer = '00' AND kind = 6 AND amount_fen = 0 THEN 'an amount to freeze'
       WHEN kind IN (2, 21, 22, 23) AND amount_fen <> 0 THEN 'no amount of this kind'
       WHEN kind = 20 AND answer <> '00' AND amount_fen <> 0 THEN 'no amount of a refused upload'
       WHEN effect_fen <> 0 AND class <> 3 AND leg_account IS NULL AND (account_id IS NULL OR account_id %% 100 NOT IN (10, 40)) THEN 'an account, online or medical'
       WHEN account_id %% 100 <> leg_account AND kind IN (1, 2) THEN 'the kind of account that its host was asked about'
       WHEN answer = '00' AND kind IN (6, 7, 8, 9, 10) AND account_id %% 100 IS DISTINCT FROM 10 THEN 'an online account'
       WHEN kind BETWEEN 20 AND 29 AND (account_id IS NOT NULL OR pan IS NOT NULL) THEN 'neither card nor account'
       WHEN length(digest) <> 32 THEN 'a digest of 32 bytes'
       WHEN answer = '00' AND kind IN (3, 4, 7, 8, 9, 10, 12, 14, 15, 16, 17) AND original_entry IS NULL THEN 'an original'
       WHEN answer = '00' AND kind = 5 AND original_entry IS NULL THEN 'an original'
       WHEN kind NOT IN (3, 4, 5, 7, 8, 9, 10, 12, 14, 15, 16, 17) AND original_entry IS NOT NULL THEN 'no original of this kind'
       WHEN answer <> '00' AND kind <> 5 AND original_entry IS NOT NULL THEN 'no original where nothing was undone'
       WHEN (original_entry IS NULL) <> (original_date IS NULL) THEN 'date and entry of the original, or neither'
       END AS fault) AS f
 WHERE business_date BETWEEN %(first)s AND %(last)s AND fault IS NOT NULL

-- name: journal_parties
-- says: terminal and merchant exist, and the card is the holder's whose account was moved, in his shard
-- rows: journal
SELECT 'journal', format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard),
       CASE WHEN t.terminal_no IS NULL OR m.merchant_no IS NULL THEN 'a terminal and a merchant that are registered'
            WHEN a.account_id IS NULL THEN 'an account in this shard'
            ELSE format('a card of holder %%s in this shard', j.account_id / 100) END,
       format('terminal_no %%s, merchant_no %%s, account %%s', j.terminal_no, j.merchant_no, j.account_id)
  FROM journal j
  LEFT JOIN terminal t ON t.terminal_no = j.terminal_no
  LEFT JOIN merchant m ON m.merchant_no = j.merchant_no
  LEFT JOIN account a ON a.shard = j.shard AND a.account_id = j.account_id
  LEFT JOIN card_route r ON r.pan = j.pan
  LEFT JOIN host_leg h ON h.shard = j.shard AND h.ended_by = coalesce(j.original_entry, j.entry_no)
 WHERE j.business_date BETWEEN %(first)s AND %(last)s
   AND (t.terminal_no IS NULL OR m.merchant_no IS NULL
        OR (j.effect_fen > 0 AND j.class <> 3 AND a.account_id IS NULL AND h.leg_no IS NULL)
        OR (j.account_id IS NOT NULL AND (r.holder_id, r.shard) IS DISTINCT FROM (j.account_id / 100, j.shard)))

-- name: journal_time
-- says: an entry was decided inside its business day, and before the day was sealed
-- rows: journal, business_day
SELECT 'journal', format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard),
       coalesce(format('from %%s until before %%s', d.begins_at, d.ends_at), 'a business day'), j.decided_at::text
  FROM journal j
  LEFT JOIN business_day d ON d.business_date = j.business_date
 WHERE j.business_date BETWEEN %(first)s AND %(last)s
   AND (d.business_date IS NULL OR j.decided_at < d.begins_at OR j.decided_at >= least(d.ends_at, d.sealed_at))

-- name: journal_reference
-- says: the retrieval reference of an entry is its year digit, day, hour (UTC+8) and serial in base 36; a reversal, load confirm or adjustment repeats its original's, and what a host was asked its intent's
-- rows: journal
WITH own AS (
    SELECT j.shard, j.business_date, j.entry_no, j.rrn, j.original_date, j.original_entry, j.kind,
           substr(j.rrn, 1, 6) = to_char(j.decided_at AT TIME ZONE 'UTC' + interval '8 hours', 'YDDDHH24')
           AND j.rrn ~ '^[0-9]{6}[0-9A-Z]{6}$'
           AND (SELECT sum((strpos('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', substr(j.rrn, 6 + n, 1)) - 1) * (36 ^ (6 - n))::bigint)
                  FROM generate_series(1, 6) AS n) = j.entry_no %% 2176782336 AS mine
      FROM journal j
     WHERE j.business_date BETWEEN %(first)s AND %(last)s
)
SELECT 'journal', format('entry %%s of %%s in shard %%s', w.entry_no, w.business_date, w.shard),
       CASE WHEN w.kind IN (5, 12, 14, 15, 16, 17) AND w.original_entry IS NOT NULL THEN 'reference ' || coalesce(o.rrn, 'of an original')
            ELSE coalesce('reference ' || h.rrn, 'a reference made of its instant and number') END, w.rrn
  FROM own w
  LEFT JOIN journal o
    ON w.kind IN (5, 12, 14, 15, 16, 17) AND o.business_date = w.original_date AND o.shard = w.shard AND o.entry_no = w.original_entry
  LEFT JOIN host_leg h ON h.shard = w.shard AND h.ended_by = w.entry_no AND h.leg_no <> w.entry_no
 -- What adjusts an offline record has the record's, see adjustments in disputes.sql.
 WHERE CASE WHEN w.kind BETWEEN 14 AND 17 AND o.entry_no IS NULL THEN false
            WHEN w.kind IN (5, 12, 14, 15, 16, 17) AND w.original_entry IS NOT NULL THEN w.rrn IS DISTINCT FROM o.rrn
            WHEN h.leg_no IS NOT NULL THEN w.rrn <> h.rrn ELSE NOT w.mine END

-- name: journal_authorisation
-- says: an approved purchase, pre-authorisation or load has the end of its reference as authorisation code, or that of its host, a void or completion that of its original, nothing else has one
-- rows: journal
SELECT 'journal', format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard), code.expected, j.auth_code
  FROM journal j
  LEFT JOIN journal o
    ON j.kind IN (3, 7, 8, 9, 10) AND o.business_date = j.original_date AND o.shard = j.shard AND o.entry_no = j.original_entry
  LEFT JOIN host_leg h ON h.shard = j.shard AND h.ended_by = j.entry_no AND h.leg_no <> j.entry_no
 -- A host that gave none: the end of the reference that the answer would have by itself.
 CROSS JOIN LATERAL (SELECT CASE WHEN j.answer <> '00' THEN ''
                                 WHEN j.kind IN (1, 6, 11) AND h.host_auth <> '' THEN h.host_auth
                                 WHEN j.kind IN (1, 6, 11) AND h.host_auth = ''
                                 THEN (SELECT string_agg(substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (j.entry_no / (36 ^ n)::bigint %% 36)::integer + 1, 1), '' ORDER BY n DESC)
                                         FROM generate_series(0, 5) AS n)
                                 WHEN j.kind IN (1, 6, 11) THEN right(j.rrn, 6)
                                 WHEN j.kind IN (3, 7, 8, 9, 10) THEN coalesce(o.auth_code, '') ELSE '' END AS expected) AS code
 WHERE j.business_date BETWEEN %(first)s AND %(last)s AND j.auth_code <> code.expected

-- name: journal_answer_balances
-- says: a stored balance answer shows ledger and available balance of the account that was asked, the second not above the first; of a host's what may be spent, if it said so
-- rows: journal
SELECT 'journal', format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard),
       CASE WHEN h.leg_no IS NOT NULL THEN 'what may be spent of account kind ' || h.account_kind || ', or nothing'
            ELSE 'ledger and available balance of account kind ' || j.account_id %% 100 || ', the second not above the first' END,
       coalesce(convert_from(j.extra, 'UTF8'), 'none')
  FROM journal j
  LEFT JOIN host_leg h ON h.shard = j.shard AND h.ended_by = j.entry_no
 CROSS JOIN LATERAL (SELECT convert_from(j.extra, 'UTF8')::jsonb -> '54' AS told) AS x
 WHERE j.business_date BETWEEN %(first)s AND %(last)s AND j.kind = 2 AND j.answer = '00'
   AND CASE WHEN h.leg_no IS NOT NULL
            THEN told IS DISTINCT FROM jsonb_build_array(jsonb_build_array(h.account_kind, 2, (told #>> '{0,2}')::bigint)) AND j.extra IS NOT NULL
            ELSE j.extra IS NULL
                 OR told IS DISTINCT FROM jsonb_build_array(jsonb_build_array(j.account_id %% 100, 1, told -> 0 -> 2),
                                                            jsonb_build_array(j.account_id %% 100, 2, told -> 1 -> 2))
                 OR NOT (told #>> '{1,2}')::bigint BETWEEN 0 AND (told #>> '{0,2}')::bigint END

-- name: journal_key
-- says: a message key (terminal, batch, trace, class) stands once, in one shard and one day
-- rows: journal
SELECT 'journal', format('terminal_no %%s, batch %%s, trace %%s, class %%s', terminal_no, batch_no, stan, class),
       'one entry', string_agg(format('entry %%s of %%s in shard %%s', entry_no, business_date, shard), '; ')
  FROM (SELECT *, count(*) OVER (PARTITION BY terminal_no, batch_no, stan, class) AS times
          FROM (SELECT j.shard, j.business_date, j.terminal_no, j.batch_no, j.stan, j.class, j.entry_no
                  FROM journal j
                  -- A number is used again after 999 999 batches: what is older than the batch has another key.
                  LEFT JOIN terminal_batch b ON b.terminal_no = j.terminal_no AND b.batch_no = j.batch_no
                 WHERE j.business_date >= coalesce(b.opened_on, '-infinity')) AS current) AS counted
 WHERE times > 1
 GROUP BY terminal_no, batch_no, stan, class

-- name: journal_tombstone
-- says: nothing was approved after the reversal that came before it and was answered 25
-- rows: journal
SELECT 'journal', format('entry %%s of %%s in shard %%s', f.entry_no, f.business_date, f.shard),
       format('answer 22, since reversal %%s came first', r.entry_no), 'approved'
  FROM journal r
  JOIN journal f
    ON f.shard = r.shard AND f.terminal_no = r.terminal_no AND f.batch_no = r.batch_no AND f.stan = r.stan
   AND f.account_id IS NOT DISTINCT FROM r.account_id
 WHERE r.class = 1 AND r.answer = '25' AND f.class = 0 AND f.answer = '00'
   AND (f.decided_at, f.entry_no) > (r.decided_at, r.entry_no)
   AND f.business_date BETWEEN %(first)s AND %(last)s AND f.business_date >= r.business_date

-- name: entry_numbers
-- says: an entry number is one thing only: a journal entry, a posting without one, or an offline record
-- rows: journal, posting, purse_record
SELECT split_part(min(what), ' ', 1), 'entry ' || entry_no, 'one place', string_agg(what, '; ' ORDER BY what)
  FROM (SELECT entry_no, count(*) OVER (PARTITION BY entry_no) AS times, what
          FROM (SELECT entry_no, format('journal of %%s in shard %%s', business_date, shard) AS what FROM journal
                UNION ALL
                SELECT entry_no, format('purse_record of %%s', business_date) FROM purse_record
                UNION ALL
                SELECT p.entry_no, format('posting of %%s in shard %%s', p.business_date, p.shard)
                  FROM posting p
                  LEFT JOIN journal j ON j.shard = p.shard AND j.business_date = p.business_date AND j.entry_no = p.entry_no
                 WHERE j.entry_no IS NULL) AS every) AS counted
 WHERE times > 1
 GROUP BY entry_no
