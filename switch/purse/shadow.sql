-- What follows from records once they are in: shadow balances, gaps, balance chains (fold), and verdicts on grey records.

-- name: lock_watermark
SELECT folded_to FROM purse_watermark FOR UPDATE;

-- name: collect
-- Only rows older than every transaction still running, so that none can appear behind the watermark later. A day is closed
-- only after its records are folded; a week before the oldest day that is not closed is more than enough.
CREATE TEMP TABLE folding ON COMMIT DROP AS
SELECT r.entry_no, r.business_date, r.shard, r.card_no, r.card, r.atc, r.amount_fen, r.psam, r.psam_serial, r.record_serial,
       r.terminal_no, r.credit_code, r.credit_owner, r.record_kind, r.result, r.original_entry
  FROM purse_record r
 WHERE r.txid >= %(folded_to)s AND r.txid < %(upto)s
   AND r.business_date >= (SELECT min(business_date) - 7 FROM business_day WHERE state < 2);

-- name: collect_batches
CREATE TEMP TABLE folding_batch ON COMMIT DROP AS
SELECT terminal_no, serial FROM purse_batch WHERE txid >= %(folded_to)s AND txid < %(upto)s;

-- name: read_horizon
SELECT transaction_horizon();

-- name: count_collected
SELECT count(*) FROM folding;

-- name: fold_spending
-- A card that the registry does not know gets its shadow here.
INSERT INTO purse AS p (shard, card_no, asn, spent_fen)
SELECT shard, card_no, '0' || card_digits(min(card)), sum(amount_fen)
  FROM folding
 WHERE result IN ('10', '00')
 GROUP BY shard, card_no
 ORDER BY shard, card_no
    ON CONFLICT (shard, card_no) DO UPDATE SET spent_fen = p.spent_fen + excluded.spent_fen;

-- name: fold_balances
WITH sides AS (
    SELECT shard, 2002::smallint AS code, card_no AS owner, amount_fen AS debit_fen, 0::bigint AS credit_fen
      FROM folding WHERE result IN ('10', '00') AND amount_fen > 0
    UNION ALL
    SELECT shard, credit_code, credit_owner, 0, amount_fen
      FROM folding WHERE result IN ('10', '00') AND amount_fen > 0)
INSERT INTO folded_balance AS f (shard, code, owner, debit_fen, credit_fen)
SELECT shard, code, owner, sum(debit_fen), sum(credit_fen)
  FROM sides
 GROUP BY shard, code, owner
 ORDER BY shard, code, owner
    ON CONFLICT (shard, code, owner) DO UPDATE
   SET debit_fen = f.debit_fen + excluded.debit_fen, credit_fen = f.credit_fen + excluded.credit_fen;

-- name: collect_arrivals
-- kind 1: offline ATCs used up by accepted purchases; 2: serials of known PSAMs; 3: record serials of terminals; 4: their
-- serials of batches.
CREATE TEMP TABLE arrived ON COMMIT DROP AS
SELECT n.kind::smallint AS kind, n.owner, range_agg(int8range(n.number, n.number + 1)) AS got,
       min(n.number) AS lowest, max(n.number) AS highest
  FROM (SELECT 1 AS kind, card AS owner, atc::bigint AS number
          FROM folding WHERE result IN ('10', '00') AND record_kind <> 2
        UNION ALL
        SELECT 2, psam, psam_serial FROM folding WHERE original_entry IS NULL AND card IS NOT NULL AND result <> '02'
        UNION ALL
        SELECT 3, terminal_no, record_serial FROM folding WHERE original_entry IS NULL AND card IS NOT NULL
        UNION ALL
        SELECT 4, terminal_no, serial FROM folding_batch) n
 GROUP BY n.kind, n.owner;

-- name: add_sequences
-- A registered card starts where the registry says; everything else where it was first seen.
INSERT INTO purse_sequence (kind, owner, next_no)
SELECT a.kind, a.owner, coalesce(p.next_atc, a.lowest)
  FROM arrived a
  LEFT JOIN card_route c ON a.kind = 1 AND c.pan = card_digits(a.owner)
  LEFT JOIN purse p ON p.shard = c.shard AND p.card_no = c.card_no
 ORDER BY a.kind, a.owner
    ON CONFLICT DO NOTHING;

-- name: move_sequences
-- What lies between the number expected and the highest that came is missing, and what came is not.
UPDATE purse_sequence s
   SET next_no = greatest(s.next_no, a.highest + 1),
       missing = s.missing + int8multirange(int8range(s.next_no, greatest(s.next_no, a.highest + 1))) - a.got
  FROM arrived a
 WHERE s.kind = a.kind AND s.owner = a.owner;

-- name: move_purses
UPDATE purse p
   SET next_atc = s.next_no
  FROM (SELECT DISTINCT shard, card_no, card FROM folding WHERE result IN ('10', '00')) f
  JOIN purse_sequence s ON s.kind = 1 AND s.owner = f.card
 WHERE p.shard = f.shard AND p.card_no = f.card_no AND p.next_atc IS DISTINCT FROM s.next_no;

-- name: open_gaps
-- Before the old ones are closed: what remains of a hole keeps its age.
INSERT INTO purse_gap (kind, owner, missing, opened_at)
SELECT s.kind, s.owner, r.missing,
       coalesce((SELECT min(g.opened_at) FROM purse_gap g
                  WHERE g.kind = s.kind AND g.owner = s.owner AND g.closed_at IS NULL AND g.missing && r.missing),
                clock_timestamp())
  FROM arrived a
  JOIN purse_sequence s ON s.kind = a.kind AND s.owner = a.owner
 CROSS JOIN unnest(s.missing) AS r (missing)
 WHERE NOT EXISTS (
       SELECT FROM purse_gap g
        WHERE g.kind = s.kind AND g.owner = s.owner AND g.closed_at IS NULL AND g.missing = r.missing);

-- name: close_gaps
UPDATE purse_gap g
   SET closed_at = clock_timestamp()
  FROM arrived a
  JOIN purse_sequence s ON s.kind = a.kind AND s.owner = a.owner
 WHERE g.kind = a.kind AND g.owner = a.owner AND g.closed_at IS NULL
   AND NOT EXISTS (SELECT FROM unnest(s.missing) AS r (missing) WHERE r.missing = g.missing);

-- name: report_chain_breaks
-- Neighbours by ATC whose balances do not follow from each other. A load in between explains a rise.
INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)
SELECT DISTINCT 'CHAIN_BREAK', later.entry_no, later.business_date, later.card,
       'balance before ATC ' || later.atc || ' is ' || later.balance_fen || ' fen, expected '
       || earlier.balance_fen - earlier.amount_fen
  FROM (SELECT card, atc FROM folding WHERE result IN ('10', '00') AND record_kind <> 2
         UNION
        SELECT card, atc + 1 FROM folding WHERE result IN ('10', '00') AND record_kind <> 2) f
  JOIN purse_atc later ON later.card = f.card AND later.atc = f.atc
  JOIN purse_atc earlier ON earlier.card = f.card AND earlier.atc = f.atc - 1
 WHERE later.balance_fen <> earlier.balance_fen - earlier.amount_fen
    ON CONFLICT DO NOTHING;

-- name: report_negative
INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)
SELECT 'SHADOW_NEGATIVE', f.entry_no, f.business_date, f.card, 'shadow balance is ' || p.balance_fen || ' fen'
  FROM (SELECT DISTINCT ON (shard, card_no) * FROM folding
         WHERE result IN ('10', '00') ORDER BY shard, card_no, entry_no DESC) f
  JOIN purse p ON p.shard = f.shard AND p.card_no = f.card_no
 WHERE p.balance_fen < 0
    ON CONFLICT DO NOTHING;

-- name: move_watermark
-- Never back: what is behind it would be folded a second time.
UPDATE purse_watermark SET folded_to = greatest(folded_to, %(upto)s);

-- name: lock_greys
SELECT card, atc, amount_fen, balance_fen, mark, entry_no, business_date
  FROM purse_waiting
 WHERE result = '04' AND verdict IS NULL AND business_date <= %(day)s
 ORDER BY entry_no
   FOR UPDATE;

-- name: find_evidence
-- Accepted records of the cards, from each grey record's ATC on: the earliest few decide.
SELECT DISTINCT k.card, a.atc, a.amount_fen, a.balance_fen
  FROM unnest(%(cards)s::bigint[], %(atcs)s::int[]) AS k (card, atc)
 CROSS JOIN LATERAL (
       SELECT atc, amount_fen, balance_fen
         FROM purse_atc g
        WHERE g.card = k.card AND g.atc >= k.atc AND g.business_date <= %(day)s
        ORDER BY g.atc
        LIMIT 2) AS a;

-- name: find_used_serials
SELECT psam, psam_serial
  FROM purse_serial
 WHERE (psam, psam_serial) IN (SELECT * FROM unnest(%(psams)s::bigint[], %(serials)s::bigint[]));

-- name: write_verdicts
-- A row of the day of decision, with everything the record's own row has.
INSERT INTO purse_record (entry_no, card_no, card, amount_fen, balance_fen, psam, psam_serial, record_serial, credit_owner,
                          happened_at, received_at, original_entry, business_date, original_date, terminal_no,
                          merchant_no, batch_no, atc, shard, credit_code, record_kind, result, raw)
SELECT n.entry_no, o.card_no, o.card, o.amount_fen, o.balance_fen, o.psam, o.psam_serial, o.record_serial, o.credit_owner,
       o.happened_at, clock_timestamp(), o.entry_no, %(day)s, o.business_date, o.terminal_no,
       o.merchant_no, o.batch_no, o.atc, o.shard, o.credit_code, o.record_kind, n.verdict, o.raw
  FROM unnest(%(entries)s::bigint[], %(originals)s::bigint[], %(dates)s::date[], %(verdicts)s::text[])
       AS n (entry_no, original, day, verdict)
  JOIN purse_record o ON o.entry_no = n.original AND o.business_date = n.day;

-- name: use_up_atcs
INSERT INTO purse_atc (card, atc, amount_fen, balance_fen, entry_no, business_date, mark)
SELECT w.card, w.atc, w.amount_fen, w.balance_fen, n.entry_no, %(day)s, w.mark
  FROM unnest(%(entries)s::bigint[], %(originals)s::bigint[], %(verdicts)s::text[]) AS n (entry_no, original, verdict)
  JOIN purse_waiting w ON w.entry_no = n.original
 WHERE n.verdict = '00'
 ORDER BY w.card, w.atc;

-- name: use_up_serials
INSERT INTO purse_serial (psam, psam_serial, card, atc)
SELECT r.psam, r.psam_serial, r.card, r.atc
  FROM unnest(%(entries)s::bigint[], %(verdicts)s::text[]) AS n (entry_no, verdict)
  JOIN purse_record r ON r.entry_no = n.entry_no AND r.business_date = %(day)s
 WHERE n.verdict = '00'
 ORDER BY r.psam, r.psam_serial;

-- name: close_greys
UPDATE purse_waiting w
   SET verdict = n.verdict, decided_on = %(day)s
  FROM unnest(%(originals)s::bigint[], %(verdicts)s::text[]) AS n (entry_no, verdict)
 WHERE w.entry_no = n.entry_no;

-- name: report_contradictions
INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)
SELECT 'GREY_CONTRADICTION', w.entry_no, w.business_date, w.card, 'the evidence about this grey record contradicts itself'
  FROM purse_waiting w
 WHERE w.entry_no = ANY(%(entries)s::bigint[])
    ON CONFLICT DO NOTHING;
