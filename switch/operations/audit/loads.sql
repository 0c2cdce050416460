-- Loads of purses. States: 1 AUTHORISED, 2 CONFIRMED, 3 REVERSED, 4 SUSPENSE, 5 LOADED, 6 RETURNED; held: 0 with the source, 1 in the
-- float (2002), 2 in suspense (2201). Moves are in the order of their instants: numbers of another process may be smaller and yet later.

-- name: load_row
-- says: a load is the approved entry of its number: card, amount, day and instant, and who paid is of its kind
-- rows: purse_load, journal
SELECT CASE WHEN l.entry_no IS NULL THEN 'journal' ELSE 'purse_load' END,
       format('entry %%s in shard %%s', coalesce(l.entry_no, j.entry_no), coalesce(l.shard, j.shard)),
       coalesce(format('an approved load, %%s fen of card_no %%s on %%s at %%s, paid by %%s', j.amount_fen, r.card_no, j.business_date, j.decided_at,
                       CASE l.source WHEN 2 THEN '2001/' || j.account_id WHEN 4 THEN '1002/' || m.acquirer_id ELSE '1101' END), 'no load'),
       coalesce(format('%%s fen of card_no %%s on %%s at %%s, paid by %%s/%%s, source %%s', l.amount_fen, l.card_no, l.business_date, l.authorised_at,
                       l.debit_code, l.debit_owner, l.source), 'no load of this entry')
  FROM purse_load l
  FULL JOIN (SELECT j.*
               FROM journal j
               JOIN (SELECT shard, entry_no FROM purse_load UNION SELECT shard, load_no FROM purse_load_move) AS known
                 ON known.shard = j.shard AND known.entry_no = j.entry_no
              WHERE j.kind = 11 AND j.answer = '00') AS j
    ON j.shard = l.shard AND j.entry_no = l.entry_no
  LEFT JOIN card_route r ON r.pan = j.pan
  LEFT JOIN merchant m ON m.merchant_no = j.merchant_no
 WHERE (l.amount_fen, l.card_no, l.business_date, l.authorised_at) IS DISTINCT FROM (j.amount_fen, r.card_no, j.business_date, j.decided_at)
    OR CASE l.source WHEN 2 THEN (l.debit_code, l.debit_owner) IS DISTINCT FROM (2001, j.account_id)
                     WHEN 4 THEN (l.debit_code, l.debit_owner) IS DISTINCT FROM (1002, m.acquirer_id::bigint)
                     ELSE NOT EXISTS (SELECT FROM host_leg h WHERE h.shard = l.shard AND h.ended_by = l.entry_no AND h.service = 5 AND h.state = 1
                                         AND (h.debit_code, h.debit_owner, h.amount_fen) = (l.debit_code, l.debit_owner, l.amount_fen)) END
    OR l.balance_before_fen + l.amount_fen > 99999999 OR l.balance_before_fen < 0

-- name: load_states
-- says: a load is in the state to which its last move brought it, and each move began where the one before ended
-- rows: purse_load, purse_load_move
WITH step AS (
    SELECT *, lag(to_state, 1, 0::smallint) OVER w AS before, lead(entry_no) OVER w AS next_no
      FROM purse_load_move
    WINDOW w AS (PARTITION BY shard, load_no ORDER BY at, entry_no, line)
)
SELECT CASE WHEN l.entry_no IS NULL OR s.from_state <> s.before THEN 'purse_load_move' ELSE 'purse_load' END,
       format('entry %%s in shard %%s', coalesce(CASE WHEN l.entry_no IS NULL OR s.from_state <> s.before THEN s.entry_no END, l.entry_no),
              coalesce(l.shard, s.shard)),
       CASE WHEN l.entry_no IS NULL THEN 'a load that moved' WHEN s.entry_no IS NULL THEN 'moves of this load'
            WHEN s.from_state <> s.before THEN 'a move from state ' || s.before
            ELSE format('state %%s for %%s', s.to_state, s.reason) END,
       format('state %%s for %%s, moved from %%s to %%s', l.state, l.reason, s.from_state, s.to_state)
  FROM purse_load l
  FULL JOIN step s ON s.shard = l.shard AND s.load_no = l.entry_no
 WHERE l.entry_no IS NULL OR s.entry_no IS NULL OR s.from_state <> s.before
    OR (s.next_no IS NULL AND (l.state, l.reason) IS DISTINCT FROM (s.to_state, s.reason))
    OR CASE WHEN l.state IN (1, 2, 5) THEN l.held <> 1 WHEN l.state IN (3, 6) THEN l.held <> 0 ELSE l.held NOT IN (0, 2) END

-- name: load_moves
-- says: what moved a load is an entry that may: request, confirm or reversal of its card at its time, or a number of its own
-- rows: purse_load_move, purse_load, journal
SELECT 'purse_load_move', format('entry %%s in shard %%s, line %%s', v.entry_no, v.shard, v.line), fault,
       format('%%s, from %%s to %%s, entry of kind %%s answered %%s', v.reason, v.from_state, v.to_state, j.kind, j.answer)
  FROM purse_load_move v
  JOIN purse_load l ON l.shard = v.shard AND l.entry_no = v.load_no
  LEFT JOIN journal j ON j.shard = v.shard AND j.business_date = v.business_date AND j.entry_no = v.entry_no
  LEFT JOIN card_route r ON r.pan = j.pan
 CROSS JOIN LATERAL (SELECT CASE
       WHEN v.reason NOT IN ('request', 'confirm', 'reversal', 'card_unmoved', 'card_ahead', 'card_gone', 'no_word', 'operator', 'tac_wrong',
                             'confirm_after_return', 'reversal_contradicted') THEN 'a reason that there is'
       WHEN (v.reason IN ('no_word', 'operator')) <> (j.entry_no IS NULL) THEN 'an entry, or none for sweeps and people'
       WHEN j.entry_no IS NOT NULL AND (v.at <> j.decided_at OR r.card_no <> l.card_no) THEN 'the instant and card of its entry'
       WHEN v.reason = 'request' AND (v.from_state, v.to_state) <> (0, 1) THEN 'a beginning'
       WHEN v.reason = 'request' AND v.entry_no <> v.load_no THEN 'its own request'
       WHEN v.reason <> 'request' AND (v.at, v.entry_no) <= (l.authorised_at, v.load_no) THEN 'a move after the request'
       WHEN v.reason IN ('request', 'card_unmoved', 'card_ahead') AND j.kind <> 11 THEN 'a load'
       WHEN v.reason IN ('confirm', 'card_gone', 'tac_wrong', 'confirm_after_return')
            AND (j.kind, j.answer, j.original_entry) IS DISTINCT FROM (12::smallint, '00', v.load_no) THEN 'a confirm of it'
       WHEN v.reason IN ('reversal', 'reversal_contradicted')
            AND (j.kind, j.original_entry, j.answer) IS DISTINCT FROM
                (5::smallint, v.load_no, CASE v.reason WHEN 'reversal' THEN '00' ELSE '12' END) THEN 'a reversal of it'
       WHEN v.reason = 'no_word' AND (v.from_state, v.to_state) <> (1, 4) THEN 'suspense'
       WHEN v.reason = 'operator' AND (v.from_state <> 4 OR v.to_state NOT IN (5, 6) OR v.note = '') THEN 'a decision about suspense, with its reason'
       WHEN v.reason = 'confirm' AND v.to_state <> 2 THEN 'CONFIRMED'
       WHEN v.reason = 'card_ahead' AND v.to_state <> 5 THEN 'LOADED'
       WHEN v.reason IN ('reversal', 'card_unmoved') AND v.to_state <> CASE v.from_state WHEN 1 THEN 3 ELSE 6 END THEN 'REVERSED or RETURNED'
       END AS fault) AS f
 WHERE fault IS NOT NULL

-- name: load_postings
-- says: each move of a load has the posting between the places of its money, each load of an account one, and nothing else has any
-- rows: posting, purse_load, purse_load_move, journal
WITH place AS MATERIALIZED (
    -- In suspense after it had gone back, the money is still with its source.
    SELECT h.*, (SELECT CASE WHEN k.to_state IN (3, 6) THEN 0 ELSE 1 END
                   FROM purse_load_move k
                  WHERE k.shard = h.shard AND k.load_no = h.load_no AND k.to_state <> 4
                    AND (k.at, k.entry_no, k.line) <= (h.at, h.entry_no, h.line)
                  ORDER BY k.at DESC, k.entry_no DESC, k.line DESC LIMIT 1) AS known
      FROM purse_load_move h
), way AS (
    SELECT p.shard, p.entry_no, p.line, p.business_date, p.load_no,
           CASE WHEN p.to_state = 4 THEN CASE p.known WHEN 0 THEN 0 ELSE 2 END ELSE p.known END AS to_place,
           lag(CASE WHEN p.to_state = 4 THEN CASE p.known WHEN 0 THEN 0 ELSE 2 END ELSE p.known END, 1, 0)
               OVER (PARTITION BY p.shard, p.load_no ORDER BY p.at, p.entry_no, p.line) AS from_place,
           lead(p.entry_no) OVER (PARTITION BY p.shard, p.load_no ORDER BY p.at, p.entry_no, p.line) IS NULL AS is_last
      FROM place p
), want AS (
    SELECT w.shard, w.entry_no, w.line, w.business_date, w.is_last, w.to_place, w.from_place, l.held, l.amount_fen, l.debit_code, l.debit_owner,
           l.card_no, l.entry_no AS load_no
      FROM way w JOIN purse_load l ON l.shard = w.shard AND l.entry_no = w.load_no
), money AS (
    SELECT p.shard, p.entry_no, p.line, p.business_date, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner, p.amount_fen
      FROM posting p
      LEFT JOIN purse_load_move v ON v.shard = p.shard AND v.entry_no = p.entry_no AND v.line = p.line
      LEFT JOIN journal j ON j.shard = p.shard AND j.business_date = p.business_date AND j.entry_no = p.entry_no
      LEFT JOIN journal o ON o.shard = j.shard AND o.business_date = j.original_date AND o.entry_no = j.original_entry
     WHERE v.entry_no IS NOT NULL OR j.kind IN (11, 12) OR (j.kind = 5 AND o.kind = 11)
), asked AS MATERIALIZED (
    -- Loads of accounts and their reversals, by the entry that was the load.
    SELECT j.shard, j.entry_no, j.business_date, j.account_id, j.amount_fen, j.kind, j.answer, j.merchant_no, coalesce(o.entry_no, j.entry_no) AS load_no
      FROM journal j
      LEFT JOIN journal o ON o.shard = j.shard AND o.business_date = j.original_date AND o.entry_no = j.original_entry
     WHERE j.kind = 11 OR (j.kind = 5 AND o.kind = 11)
), top_up AS MATERIALIZED (
    SELECT a.*, coalesce(h.debit_code, 1002) AS payer_code, coalesce(h.debit_owner, m.acquirer_id::bigint) AS payer
      FROM asked a
      JOIN merchant m ON m.merchant_no = a.merchant_no
      LEFT JOIN host_leg h ON h.shard = a.shard AND h.ended_by = a.load_no
      LEFT JOIN purse_load u ON u.shard = a.shard AND u.entry_no = a.load_no
     WHERE u.entry_no IS NULL
)
SELECT CASE WHEN p.entry_no IS NULL OR (w.is_last AND w.held <> w.to_place) THEN 'purse_load' ELSE 'posting' END,
       format('entry %%s in shard %%s, line %%s', coalesce(CASE WHEN p.entry_no IS NULL OR (w.is_last AND w.held <> w.to_place) THEN w.load_no END, p.entry_no),
              coalesce(w.shard, p.shard), coalesce(w.line, p.line)),
       CASE WHEN t.entry_no IS NOT NULL THEN format('%%s fen between %%s/%%s and 2001/%%s', t.amount_fen, t.payer_code, t.payer, t.account_id)
            WHEN w.entry_no IS NULL THEN 'no posting' ELSE format('%%s fen from place %%s to place %%s, held in %%s at last', w.amount_fen, w.from_place,
            w.to_place, w.to_place) END,
       coalesce(format('%%s fen from %%s/%%s to %%s/%%s, held in %%s', p.amount_fen, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner, w.held),
                'no posting')
  FROM want w
  FULL JOIN money p ON p.shard = w.shard AND p.entry_no = w.entry_no AND p.line = w.line
  LEFT JOIN top_up AS t
    ON t.shard = p.shard AND t.entry_no = p.entry_no AND t.business_date = p.business_date AND p.line = 0
 WHERE (w.is_last AND w.held <> w.to_place)
    OR CASE WHEN w.entry_no IS NOT NULL AND w.from_place = w.to_place THEN p.entry_no IS NOT NULL
            WHEN w.entry_no IS NULL
            THEN t.entry_no IS NULL OR t.answer <> '00' OR p.amount_fen <> t.amount_fen
                 OR CASE t.kind WHEN 11 THEN (p.debit_code, p.debit_owner, p.credit_code, p.credit_owner)
                                             IS DISTINCT FROM (t.payer_code, t.payer, 2001, t.account_id)
                         ELSE (p.debit_code, p.debit_owner, p.credit_code, p.credit_owner)
                              IS DISTINCT FROM (2001, t.account_id, t.payer_code, t.payer) END
            -- What goes back to a cancelled holder stays in suspense, and what a source cannot pay again is a claim there until it goes back.
            WHEN p.entry_no IS NULL
            THEN NOT (w.debit_code IN (1101, 2001) AND 2 IN (w.from_place, w.to_place) AND 0 IN (w.from_place, w.to_place))
            ELSE (p.amount_fen, p.business_date) IS DISTINCT FROM (w.amount_fen, w.business_date)
                 OR NOT CASE w.from_place WHEN 1 THEN (p.debit_code, p.debit_owner) = (2002, w.card_no)
                                          WHEN 2 THEN (p.debit_code, p.debit_owner) = (2201, 0)
                                          ELSE (p.debit_code, p.debit_owner) = (w.debit_code, w.debit_owner)
                                               OR (w.debit_code IN (1101, 2001) AND (p.debit_code, p.debit_owner) = (2201, 0)) END
                 OR NOT CASE w.to_place WHEN 1 THEN (p.credit_code, p.credit_owner) = (2002, w.card_no)
                                        WHEN 2 THEN (p.credit_code, p.credit_owner) = (2201, 0)
                                        ELSE (p.credit_code, p.credit_owner) = (w.debit_code, w.debit_owner)
                                             OR (w.debit_code IN (1101, 2001) AND (p.credit_code, p.credit_owner) = (2201, 0)) END END

-- name: top_ups
-- says: an approved load of an online account has its posting from the agent, and its reversal the opposite
-- rows: journal, posting
SELECT 'journal', format('entry %%s of %%s in shard %%s', j.entry_no, j.business_date, j.shard), 'a posting of ' || j.amount_fen || ' fen', 'none'
  FROM journal j
  LEFT JOIN journal o ON o.shard = j.shard AND o.business_date = j.original_date AND o.entry_no = j.original_entry
  LEFT JOIN purse_load l ON l.shard = j.shard AND l.entry_no IN (j.entry_no, o.entry_no)
  LEFT JOIN posting p ON p.shard = j.shard AND p.business_date = j.business_date AND p.entry_no = j.entry_no
 WHERE j.business_date BETWEEN %(first)s AND %(last)s AND j.answer = '00' AND l.entry_no IS NULL AND p.entry_no IS NULL
   AND (j.kind = 11 OR (j.kind = 5 AND o.kind = 11 AND o.answer = '00'))

-- name: load_counters
-- says: a card's counter is good for one load, and the shadow purse stands where its loads lead
-- rows: purse_load, purse
SELECT 'purse_load', format('entry %%s in shard %%s', max(entry_no), shard), 'one load of counter ' || online_atc,
       format('%%s loads of card_no %%s', count(*), card_no)
  FROM purse_load WHERE state IN (1, 2, 5)
 GROUP BY shard, card_no, online_atc HAVING count(*) > 1
UNION ALL
SELECT CASE WHEN p.card_no IS NULL THEN 'purse_load' ELSE 'purse' END, format('card_no %%s in shard %%s', l.card_no, l.shard),
       format('online counter %%s', greatest(l.least, n.opened)), format('online counter %%s', p.online_atc)
  FROM (SELECT shard, card_no, max(online_atc + CASE WHEN state = 2
                 OR (state = 5 AND EXISTS (SELECT FROM purse_load_move m
                                            WHERE m.shard = o.shard AND m.load_no = o.entry_no AND m.reason = 'card_ahead')) THEN 1 ELSE 0 END) AS least
          FROM purse_load o GROUP BY shard, card_no) AS l
  LEFT JOIN purse p ON p.shard = l.shard AND p.card_no = l.card_no
  LEFT JOIN (SELECT substr(subject, 6)::bigint AS card_no, max((change -> 'after' ->> 'purse_online_atc')::integer) AS opened
               FROM registry_change
              WHERE subject ~ '^card [0-9]+$' AND change -> 'after' ? 'purse_online_atc'
              GROUP BY subject) AS n ON n.card_no = l.card_no
 WHERE p.card_no IS NULL OR p.online_atc < l.least OR (n.opened IS NOT NULL AND p.online_atc <> greatest(l.least, n.opened))
