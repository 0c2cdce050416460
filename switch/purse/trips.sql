-- Trips in transit (trips.py). A trip is never written down: it follows from its steps (view trip).

-- name: lock_watermark
SELECT folded_to FROM trip_watermark FOR UPDATE;

-- name: read_horizon
SELECT transaction_horizon();

-- name: collect
-- As the purse's fold: what is older than every transaction still running, of days that are not closed.
INSERT INTO trip_leg (card, atc, entry_no, business_date, phase, happened_at, amount_fen, full_fare_fen, merchant_no, industry, line,
                      station, entry_station, transfer, upstream)
SELECT r.card, r.atc, r.entry_no, r.business_date, get_byte(r.raw, 77), r.happened_at, r.amount_fen, full_fare(r.raw), r.merchant_no,
       get_byte(r.raw, 78), upper(encode(substr(r.raw, 80, 2), 'hex')), upper(encode(substr(r.raw, 82, 2), 'hex')),
       upper(encode(substr(r.raw, 84, 2), 'hex')), get_byte(r.raw, 93) & 2 <> 0, get_byte(r.raw, 93) & 1 <> 0
  FROM purse_record r
 WHERE r.result IN ('10', '00') AND r.record_kind <> 2 AND get_byte(r.raw, 77) <> 0
   AND r.txid >= %(folded_to)s AND r.txid < %(upto)s
   AND r.business_date >= (SELECT min(business_date) - 7 FROM business_day WHERE state < 2)
 ORDER BY r.card, r.atc
    ON CONFLICT DO NOTHING;

-- name: collect_day
-- Of a sealed day all of it, whatever still runs elsewhere.
INSERT INTO trip_leg (card, atc, entry_no, business_date, phase, happened_at, amount_fen, full_fare_fen, merchant_no, industry, line,
                      station, entry_station, transfer, upstream)
SELECT r.card, r.atc, r.entry_no, r.business_date, get_byte(r.raw, 77), r.happened_at, r.amount_fen, full_fare(r.raw), r.merchant_no,
       get_byte(r.raw, 78), upper(encode(substr(r.raw, 80, 2), 'hex')), upper(encode(substr(r.raw, 82, 2), 'hex')),
       upper(encode(substr(r.raw, 84, 2), 'hex')), get_byte(r.raw, 93) & 2 <> 0, get_byte(r.raw, 93) & 1 <> 0
  FROM purse_record r
 WHERE r.result IN ('10', '00') AND r.record_kind <> 2 AND get_byte(r.raw, 77) <> 0 AND r.business_date = %(day)s
 ORDER BY r.card, r.atc
    ON CONFLICT DO NOTHING;

-- name: move_watermark
UPDATE trip_watermark SET folded_to = greatest(folded_to, %(upto)s);

-- name: freeze_transit
-- Rides of our cards in other cities (merchant_no 0) are no merchant's here.
INSERT INTO clearing_transit SELECT %(day)s, t.* FROM transit_of_day(%(day)s) AS t WHERE t.merchant_no <> 0;

-- name: note_transit
UPDATE clearing_day SET has_transit = true WHERE business_date = %(day)s;

-- name: transit_of_day
SELECT m.merchant_id, coalesce(m.name, ''), t.* FROM transit_of_day(%(day)s) AS t JOIN merchant m USING (merchant_no)
 ORDER BY t.merchant_no, t.ride_date, t.industry, t.line;

-- name: trips_of_card
SELECT entry_atc, end_atc, state, entered_at, left_at, entry_station, end_station, industry, line, merchant_no, amount_fen, full_fare_fen,
       transfer, upstream, business_date
  FROM trip
 WHERE card = card_key(%(pan)s)
 ORDER BY coalesce(end_atc, entry_atc) DESC
 LIMIT %(limit)s;
