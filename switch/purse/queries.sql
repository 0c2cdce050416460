-- Intake (intake.py): what a transaction must know of its records. All arrays; LATERAL and LIMIT because the tables are empty
-- in the morning of their lives and a plan made then must stay good.

-- name: read_issuers
SELECT issuer_id, own FROM card_issuer;

-- name: read_psams
SELECT p.psam_no, p.merchant_no, p.state = 'ACTIVE', m.acquirer_id, i.role = 'CITY'
  FROM unnest(%(psams)b::text[]) AS k (psam_no)
 CROSS JOIN LATERAL (SELECT * FROM psam WHERE psam.psam_no = k.psam_no LIMIT 1) AS p
  JOIN merchant m ON m.merchant_no = p.merchant_no
  JOIN institution i ON i.institution_id = m.acquirer_id;

-- name: read_card_facts
-- Of registered cards, from the index card_facts alone. Each column as one value: thousands of rows are read at a time. Days as numbers
-- from 2000-01-01.
SELECT array_send(array_agg(pan)), array_send(array_agg(shard)), array_send(array_agg(card_no)),
       array_send(array_agg(valid_from - date '2000-01-01')), array_send(array_agg(valid_through - date '2000-01-01'))
  FROM card
 WHERE pan = ANY(%(pans)b::text[]);

-- name: read_waiting_cards
SELECT array_send(array_agg(DISTINCT card)) FROM purse_waiting WHERE card = ANY(%(cards)b::bigint[]);

-- name: find_used_atcs
-- Which of these are used up, as places from 1.
SELECT array_send(array_agg(k.at))
  FROM unnest(%(cards)b::bigint[], %(atcs)b::int[]) WITH ORDINALITY AS k (card, atc, at)
 CROSS JOIN LATERAL (SELECT FROM purse_atc WHERE purse_atc.card = k.card AND purse_atc.atc = k.atc LIMIT 1) AS g;

-- name: find_used_serials
SELECT array_send(array_agg(k.at))
  FROM unnest(%(psams)b::bigint[], %(serials)b::bigint[]) WITH ORDINALITY AS k (psam, psam_serial, at)
 CROSS JOIN LATERAL (
       SELECT FROM purse_serial
        WHERE purse_serial.psam = k.psam AND purse_serial.psam_serial = k.psam_serial LIMIT 1) AS g;

-- name: read_psam_homes
-- For records that come in files: no terminal brings them, so the registry says in which one of the sender's their PSAM is.
SELECT p.psam_no, p.terminal_no, p.merchant_no
  FROM psam p
  JOIN merchant m USING (merchant_no)
 WHERE p.psam_no = ANY(%(psams)b::text[]) AND p.terminal_no IS NOT NULL AND m.acquirer_id = %(sender)b::text;

-- name: read_cities
SELECT institution_id FROM institution WHERE role = 'CITY' AND institution_id <> %(own)s;

-- name: read_cards
-- Cards that read_card_facts did not find: those without a card row, and strays met before.
SELECT k.card, coalesce(r.shard, s.shard), coalesce(r.card_no, s.card_no),
       c.valid_from - date '2000-01-01', c.valid_through - date '2000-01-01'
  FROM unnest(%(cards)b::bigint[], %(pans)b::text[]) AS k (card, pan)
  LEFT JOIN LATERAL (SELECT shard, card_no FROM card_route WHERE card_route.pan = k.pan LIMIT 1) AS r ON true
  LEFT JOIN LATERAL (SELECT valid_from, valid_through FROM card WHERE card.shard = r.shard AND card.pan = k.pan LIMIT 1) AS c
    ON true
  LEFT JOIN LATERAL (SELECT shard, card_no FROM purse_stray WHERE purse_stray.card = k.card AND r.card_no IS NULL LIMIT 1) AS s
    ON true
 WHERE coalesce(r.card_no, s.card_no) IS NOT NULL;

-- name: find_accepted
SELECT k.card, k.atc, g.amount_fen, g.mark
  FROM unnest(%(cards)b::bigint[], %(atcs)b::int[]) AS k (card, atc)
 CROSS JOIN LATERAL (
       SELECT amount_fen, mark FROM purse_atc WHERE purse_atc.card = k.card AND purse_atc.atc = k.atc LIMIT 1) AS g;

-- name: find_waiting
SELECT k.card, k.atc, w.amount_fen, w.mark
  FROM unnest(%(cards)b::bigint[], %(atcs)b::int[]) AS k (card, atc)
 CROSS JOIN LATERAL (
       SELECT amount_fen, mark FROM purse_waiting
        WHERE purse_waiting.card = k.card AND purse_waiting.atc = k.atc LIMIT 1000) AS w;

-- name: find_serials
SELECT k.psam, k.psam_serial
  FROM unnest(%(psams)b::bigint[], %(serials)b::bigint[]) AS k (psam, psam_serial)
 CROSS JOIN LATERAL (
       SELECT FROM purse_serial
        WHERE purse_serial.psam = k.psam AND purse_serial.psam_serial = k.psam_serial LIMIT 1) AS g;

-- name: add_strays
-- DO UPDATE, so that a row which another process has just added is returned too.
INSERT INTO purse_stray AS s (card, card_no, shard, found_at)
SELECT n.card, nextval('card_no'), n.shard, %(found_at)b
  FROM unnest(%(cards)b::bigint[], %(shards)b::smallint[]) AS n (card, shard)
 ORDER BY n.card
    ON CONFLICT (card) DO UPDATE SET found_at = s.found_at
RETURNING card, shard, card_no;

-- name: write_waiting
INSERT INTO purse_waiting (card, atc, amount_fen, mark, result, entry_no, business_date, balance_fen)
SELECT n.card, n.atc, n.amount_fen, n.mark, n.result, n.entry_no, %(business_date)b::date, n.balance_fen
  FROM unnest(%(cards)b::bigint[], %(atcs)b::int[], %(amounts)b::bigint[], %(marks)b::bytea[], %(results)b::text[],
              %(entries)b::bigint[], %(balances)b::bigint[])
       AS n (card, atc, amount_fen, mark, result, entry_no, balance_fen)
 ORDER BY n.card, n.atc, n.amount_fen, n.mark;

-- name: write_quarantine
INSERT INTO purse_quarantine (entry_no, received_at, terminal_no, reason, raw)
SELECT n.entry_no, %(received_at)b, n.terminal_no, n.reason, n.raw
  FROM unnest(%(entries)b::bigint[], %(terminals)b::int[], %(reasons)b::text[], %(raws)b::bytea[])
       AS n (entry_no, terminal_no, reason, raw);

-- name: write_alarms
INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)
SELECT n.kind, n.entry_no, %(business_date)b::date, n.card, n.detail
  FROM unnest(%(kinds)b::text[], %(entries)b::bigint[], %(cards)b::bigint[], %(details)b::text[])
       AS n (kind, entry_no, card, detail);
