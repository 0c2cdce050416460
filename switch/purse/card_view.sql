-- One card's shadow purse as people look at it (card_view.py).

-- name: card_by_number
-- A registered card, or one that is known by its records only.
SELECT card_key(pan), pan, shard, card_no, true FROM card_route WHERE pan = %(number)s
UNION ALL
SELECT card, card_digits(card), shard, card_no, false FROM purse_stray WHERE card = card_key(%(number)s)
 LIMIT 1;

-- name: card_by_no
SELECT card_key(pan), pan, shard, card_no, true FROM card_route WHERE card_no = %(number)s::bigint
UNION ALL
SELECT card, card_digits(card), shard, card_no, false FROM purse_stray WHERE card_no = %(number)s::bigint
 LIMIT 1;

-- name: purse
SELECT loaded_fen, spent_fen, balance_fen, next_atc, online_atc FROM purse WHERE shard = %(shard)s AND card_no = %(card_no)s;

-- name: accepted
-- At most one for each counter.
SELECT atc, amount_fen, balance_fen, entry_no, business_date FROM purse_atc WHERE card = %(card)s ORDER BY atc;

-- name: greys
SELECT entry_no, business_date, atc, amount_fen, balance_fen, verdict, decided_on, clock_timestamp()::date - business_date
  FROM purse_waiting WHERE card = %(card)s AND result = '04' ORDER BY atc, entry_no;

-- name: loads
SELECT entry_no, online_atc, amount_fen, balance_before_fen, state, reason, authorised_at
  FROM purse_load WHERE shard = %(shard)s AND card_no = %(card_no)s ORDER BY online_atc DESC, entry_no DESC LIMIT %(at_most)s;
