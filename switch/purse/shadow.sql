-- What follows from records once they are in: shadow balances, gaps, balance chains (fold), and verdicts on grey records.

-- name: lock_watermark
SELECT folded_to FROM purse_watermark FOR UPDATE;

-- name: collect
-- Only rows older than every transaction still running, so that none can appear behind the watermark later. A day is closed
-- only after its records are folded; a week before the oldest day that is not closed is more than enough.
CREATE TEMP TABLE folding ON COMMIT DROP AS
SELECT r.entry_no, r.business_date, r.shard, r.card_no, r.card, r.atc, r.amount_fen, r.psam, r.psam_serial, r.record_serial,
       r.terminal_no, r.credit_code, r.credit_owner, r.record_kind, r.result, r.original_entry, r.batch_no
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
        -- Of other cities' PSAMs (-1: by the interop centre) only what concerns our cards ever comes.
        SELECT 2, psam, psam_serial FROM folding
         WHERE original_entry IS NULL AND card IS NOT NULL AND result <> '02' AND batch_no >= 0
        UNION ALL
        SELECT 3, terminal_no, record_serial FROM folding
         WHERE original_entry IS NULL AND card IS NOT NULL AND terminal_no <> 0  -- 0: nobody's
        UNION ALL
        SELECT 4, terminal_no, serial FROM folding_batch) n
 GROUP BY n.kind, n.owner;

-- name: report_reused_serials
-- Before the counters move. A terminal that numbers two records alike was set back, or is two devices: its count says nothing more.
-- One line a fold and terminal, however many there are. What came is held against what is missing as a whole, since a look at a value with
-- a hundred thousand holes for each record would cost minutes.
WITH said AS MATERIALIZED (
    SELECT terminal_no, record_serial, entry_no, business_date, card,
           min(entry_no) OVER (PARTITION BY terminal_no, record_serial) AS first_entry
      FROM folding
     WHERE original_entry IS NULL AND result IN ('10', '04', '11') AND terminal_no <> 0
), again AS MATERIALIZED (
    SELECT terminal_no, numbers
      FROM (SELECT c.terminal_no, c.numbers * int8multirange(int8range(s.first_no, s.next_no)) - s.missing AS numbers
              FROM (SELECT terminal_no, range_agg(int8range(record_serial, record_serial + 1)) AS numbers FROM said GROUP BY terminal_no) AS c
              JOIN purse_sequence s ON s.kind = 3 AND s.owner = c.terminal_no) AS known
     WHERE NOT isempty(numbers)
)
INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)
SELECT DISTINCT ON (f.terminal_no) 'RECORD_SERIAL_REUSED', f.entry_no, f.business_date, f.card,
       'record serial ' || f.record_serial || ' of this terminal has come before, with another record'
  FROM said f
  LEFT JOIN again USING (terminal_no)
 WHERE again.numbers @> f.record_serial OR f.entry_no > f.first_entry
 ORDER BY f.terminal_no, f.entry_no
    ON CONFLICT DO NOTHING;

-- name: add_sequences
-- A registered card begins where the registry says; everything else with the lowest number that has come.
INSERT INTO purse_sequence (kind, owner, first_no, next_no)
SELECT a.kind, a.owner, coalesce(p.next_atc, a.lowest), coalesce(p.next_atc, a.lowest)
  FROM arrived a
  LEFT JOIN card_route c ON a.kind = 1 AND c.pan = card_digits(a.owner)
   AND NOT EXISTS (SELECT FROM purse_stray t WHERE t.card = a.owner)
  LEFT JOIN purse p ON p.shard = c.shard AND p.card_no = c.card_no
 ORDER BY a.kind, a.owner
    ON CONFLICT DO NOTHING;

-- name: move_sequences
-- What lies between the numbers known and the lowest and highest that came is missing, and what came is not. A card that was registered
-- before its records came keeps its beginning: what lies below was another's to account for.
UPDATE purse_sequence s
   SET first_no = b.first_no,
       next_no = greatest(s.next_no, a.highest + 1),
       missing = s.missing + int8multirange(int8range(b.first_no, s.first_no))
               + int8multirange(int8range(s.next_no, greatest(s.next_no, a.highest + 1))) - a.got
  FROM arrived a
 CROSS JOIN LATERAL (
       SELECT CASE WHEN a.kind = 1 AND NOT EXISTS (SELECT FROM purse_stray t WHERE t.card = a.owner) THEN NULL
                   ELSE a.lowest END AS lowest) AS l
 CROSS JOIN LATERAL (SELECT q.kind, q.owner, least(q.first_no, l.lowest) AS first_no
                       FROM purse_sequence q WHERE q.kind = a.kind AND q.owner = a.owner) AS b
 WHERE s.kind = a.kind AND s.owner = a.owner;

-- name: move_purses
UPDATE purse p
   SET next_atc = s.next_no
  FROM (SELECT DISTINCT shard, card_no, card FROM folding WHERE result IN ('10', '00')) f
  JOIN purse_sequence s ON s.kind = 1 AND s.owner = f.card
 WHERE p.shard = f.shard AND p.card_no = f.card_no AND p.next_atc IS DISTINCT FROM s.next_no;

-- name: collect_holes
-- What these counters lack now. The steps that follow compare sets and sort, so that a terminal with thousands of holes costs no square.
CREATE TEMP TABLE hole ON COMMIT DROP AS
SELECT s.kind, s.owner, r.missing
  FROM arrived a
  JOIN purse_sequence s ON s.kind = a.kind AND s.owner = a.owner
 CROSS JOIN unnest(s.missing) AS r (missing);

-- name: collect_closing
CREATE TEMP TABLE closing ON COMMIT DROP AS
SELECT g.gap_no, g.kind, g.owner, g.missing, g.opened_at, g.reported_at
  FROM arrived a
  JOIN purse_gap g ON g.kind = a.kind AND g.owner = a.owner AND g.closed_at IS NULL
  LEFT JOIN hole h ON h.kind = g.kind AND h.owner = g.owner AND h.missing = g.missing
 WHERE h.kind IS NULL;

-- name: analyze_holes
ANALYZE hole, closing;

-- name: open_gaps
-- Before the old ones are closed: what remains of a hole keeps its age, and was reported if the whole was. Holes of one counter do not
-- overlap, so the whole of a part is the one that begins last before it.
WITH fresh AS (
    SELECT h.kind, h.owner, h.missing
      FROM hole h
      LEFT JOIN purse_gap g ON g.kind = h.kind AND g.owner = h.owner AND g.missing = h.missing AND g.closed_at IS NULL
     WHERE g.gap_no IS NULL
), placed AS (
    SELECT kind, owner, missing, is_fresh,
           max(CASE WHEN NOT is_fresh THEN lower(missing) END)
               OVER (PARTITION BY kind, owner ORDER BY lower(missing), is_fresh ROWS UNBOUNDED PRECEDING) AS whole_from
      FROM (SELECT kind, owner, missing, true AS is_fresh FROM fresh
            UNION ALL
            SELECT kind, owner, missing, false FROM closing) AS every
)
INSERT INTO purse_gap (kind, owner, missing, opened_at, reported_at)
SELECT p.kind, p.owner, p.missing, coalesce(c.opened_at, clock_timestamp()), c.reported_at
  FROM placed p
  LEFT JOIN closing c ON c.kind = p.kind AND c.owner = p.owner AND lower(c.missing) = p.whole_from AND c.missing @> p.missing
 WHERE p.is_fresh
 ORDER BY p.kind, p.owner, p.missing;

-- name: close_gaps
UPDATE purse_gap g SET closed_at = clock_timestamp() FROM closing c WHERE g.gap_no = c.gap_no;

-- name: report_overdue_gaps
-- Each once, those of one counter by one alarm. An operator acknowledges the alarm of what will not come any more.
WITH overdue AS (
    UPDATE purse_gap g
       SET reported_at = n.at
      FROM (SELECT now() AS at) AS n, business_day d
     WHERE d.begins_at <= n.at AND n.at < d.ends_at
       AND g.gap_no IN (SELECT gap_no FROM purse_gap
                         WHERE closed_at IS NULL AND reported_at IS NULL AND opened_at < n.at - make_interval(days => %(days)s)
                         ORDER BY opened_at LIMIT %(at_once)s)
    RETURNING g.gap_no, g.kind, g.owner, g.missing, g.opened_at, n.at, d.business_date
)
INSERT INTO purse_alarm (at, kind, gap_no, business_date, card, detail)
SELECT min(at), 'GAP_OVERDUE', min(gap_no), min(business_date), CASE kind WHEN 1 THEN owner END,
       format('%%s to %%s%%s have not come since %%s', min(lower(missing)), max(upper(missing)) - 1,
              CASE WHEN count(*) > 1 THEN format(', in %%s holes,', count(*)) END,
              to_char(min(opened_at) AT TIME ZONE INTERVAL '8 hours', 'YYYY-MM-DD'))
  FROM overdue
 GROUP BY kind, owner;

-- name: find_mismatches
-- Neighbours by counter, at least one of them new, whose balances do not follow from each other by themselves.
SELECT DISTINCT later.entry_no, later.business_date, later.card, later.atc, earlier.balance_fen - earlier.amount_fen, later.balance_fen
  FROM (SELECT card, atc FROM folding WHERE result IN ('10', '00') AND record_kind <> 2
         UNION
        SELECT card, atc + 1 FROM folding WHERE result IN ('10', '00') AND record_kind <> 2) f
  JOIN purse_atc later ON later.card = f.card AND later.atc = f.atc
  JOIN purse_atc earlier ON earlier.card = f.card AND earlier.atc = f.atc - 1
 WHERE later.balance_fen <> earlier.balance_fen - earlier.amount_fen;

-- name: find_returned_rises
-- Rises that begin where a load began whose money went back on the day or the day before.
SELECT DISTINCT later.entry_no, later.business_date, later.card, later.atc, earlier.balance_fen - earlier.amount_fen, later.balance_fen
  FROM purse_load_move m
  JOIN purse_load l ON l.shard = m.shard AND l.entry_no = m.load_no
  JOIN purse p ON p.shard = l.shard AND p.card_no = l.card_no
  JOIN purse_atc earlier ON earlier.card = card_key(p.asn)
  JOIN purse_atc later ON later.card = earlier.card AND later.atc = earlier.atc + 1
 WHERE m.business_date BETWEEN %(day)s::date - 1 AND %(day)s AND m.to_state IN (3, 6)
   AND later.balance_fen > earlier.balance_fen - earlier.amount_fen;

-- name: read_loads_of
-- The newest loads of each card.
SELECT k.card, l.entry_no, l.online_atc, l.amount_fen, l.balance_before_fen, l.state
  FROM unnest(%(cards)s::bigint[]) AS k (card)
 CROSS JOIN LATERAL (SELECT shard, card_no FROM card_route WHERE pan = card_digits(k.card) LIMIT 1) AS r
 CROSS JOIN LATERAL (
       SELECT entry_no, online_atc, amount_fen, balance_before_fen, state FROM purse_load
        WHERE purse_load.shard = r.shard AND purse_load.card_no = r.card_no
        ORDER BY online_atc DESC, entry_no DESC LIMIT %(loads_max)s) AS l;

-- name: report_chain_breaks
INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)
SELECT 'CHAIN_BREAK', n.entry_no, n.business_date, n.card, n.detail
  FROM unnest(%(entries)s::bigint[], %(dates)s::date[], %(cards)s::bigint[], %(details)s::text[])
       AS n (entry_no, business_date, card, detail)
 ORDER BY n.entry_no
    ON CONFLICT DO NOTHING;

-- name: report_negative
-- When a shadow goes below zero, not for every ride that follows: of a card that nobody knows all would be below.
INSERT INTO purse_alarm (kind, entry_no, business_date, card, detail)
SELECT 'SHADOW_NEGATIVE', f.entry_no, f.business_date, f.card, 'shadow balance is ' || p.balance_fen || ' fen'
  FROM (SELECT DISTINCT ON (shard, card_no) shard, card_no, entry_no, business_date, card,
               sum(amount_fen) OVER (PARTITION BY shard, card_no) AS spent_fen
          FROM folding
         WHERE result IN ('10', '00') ORDER BY shard, card_no, entry_no DESC) f
  JOIN purse p ON p.shard = f.shard AND p.card_no = f.card_no
 WHERE p.balance_fen < 0
   AND (p.balance_fen + f.spent_fen >= 0
        OR NOT EXISTS (SELECT FROM purse_alarm a WHERE a.card = f.card AND a.kind = 'SHADOW_NEGATIVE'))
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
