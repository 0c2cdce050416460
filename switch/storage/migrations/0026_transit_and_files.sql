-- depends: 0021_clearing_legs
-- Files that come to us (depots' records, other cities' answers), other cities' cards at our merchants, and trips in transit.

-- Files received: XF, offline records of a depot; DT, answers about cards of other cities. status as in NS; 00: taken, or being taken
-- while business_date is NULL. business_date: the day on which it ended, whose NS names it. lines_done moves in the transaction that
-- writes what the lines say, so a run that was killed goes on behind them. results: what became of lines, code to [count, fen].
CREATE TABLE received_file (
    file_no       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL CHECK (name ~ '^(XF|DT)[0-9]{27}$'),
    sender_id     text NOT NULL CHECK (sender_id ~ '^[0-9]{8}$'),
    sm3           bytea NOT NULL CHECK (length(sm3) = 32),
    line_count    integer NOT NULL CHECK (line_count BETWEEN 0 AND 99999999),
    total_fen     bigint NOT NULL CHECK (total_fen >= 0),
    status        text NOT NULL CHECK (status IN ('00', '01', '02', '03', '04')),
    reason        text NOT NULL DEFAULT '',
    actor         text NOT NULL,
    began_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at      timestamptz,
    business_date date REFERENCES business_day,
    lines_done    integer NOT NULL DEFAULT 0 CHECK (lines_done BETWEEN 0 AND line_count),
    results       jsonb NOT NULL DEFAULT '{}',
    UNIQUE (name, sm3, status),
    CHECK ((business_date IS NULL) = (ended_at IS NULL)),
    CHECK (business_date IS NOT NULL OR status = '00'),
    CHECK (status <> '00' OR business_date IS NULL OR lines_done = line_count)
);
CREATE UNIQUE INDEX ON received_file (name) WHERE status = '00';
CREATE INDEX ON received_file (business_date);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON received_file FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Records of a depot file that one transaction took: consecutive lines and consecutive entries. Its records have batch_no 0, which no
-- terminal has, and terminal_no or merchant_no 0 where the PSAM is nobody's.
CREATE TABLE received_chunk (
    file_no       integer NOT NULL REFERENCES received_file,
    first_line    integer NOT NULL CHECK (first_line >= 1),
    line_count    integer NOT NULL CHECK (line_count >= 1),
    business_date date NOT NULL,
    first_entry   bigint NOT NULL,
    PRIMARY KEY (file_no, first_line)
);
CREATE INDEX ON received_chunk (first_entry);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON received_chunk
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What became of a record of another city's card (11): its city's answer, or that nobody answered in time (answered_on NULL).
-- result 00: paid, debit 1102 of the issuer's institution, credit 2101 of the merchant, as a posting of this entry in shard 0; all others: refused, and why.
-- A row of its own, and not of purse_record, because there every accepted row takes money from a purse of ours. All that a day's files
-- say of it is kept here: partitions of old days are not opened for it.
CREATE TABLE foreign_verdict (
    entry_no       bigint PRIMARY KEY,
    business_date  date NOT NULL REFERENCES business_day,
    original_entry bigint NOT NULL UNIQUE,
    original_date  date NOT NULL,
    decided_at     timestamptz NOT NULL,
    result         text NOT NULL CHECK (result IN ('00', '01', '02', '03', '05', '06', '07', '08', '09', '92', '93', '94', '95')),
    answered_on    date,
    file_no        integer REFERENCES received_file,
    issuer_id      text NOT NULL CHECK (issuer_id ~ '^[0-9]{8}$'),
    merchant_no    integer NOT NULL,
    terminal_no    integer NOT NULL,
    batch_no       integer NOT NULL,
    amount_fen     bigint NOT NULL CHECK (amount_fen >= 0),
    balance_fen    bigint NOT NULL,
    atc            integer NOT NULL,
    psam_serial    bigint NOT NULL,
    record_serial  bigint NOT NULL,
    record_kind    smallint NOT NULL,
    happened_at    timestamp NOT NULL,
    raw            bytea NOT NULL CHECK (length(raw) = 96),
    CHECK ((answered_on IS NULL) = (file_no IS NULL)),
    CHECK (answered_on IS NOT NULL OR result = '00'),
    CHECK (original_date < business_date)
);
CREATE INDEX ON foreign_verdict (business_date);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON foreign_verdict
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE INDEX ON purse_waiting (business_date) WHERE result = '11' AND verdict IS NULL;  -- verdict of these: 00 paid, 94 any refusal

-- Bytes 74 to 77 of a record: the full fare before discounts, in fen.
CREATE FUNCTION full_fare(raw bytea) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN get_byte(raw, 73)::bigint * 16777216 + get_byte(raw, 74) * 65536 + get_byte(raw, 75) * 256 + get_byte(raw, 76);

-- The steps of trips: accepted records of our cards with a ride phase (1 entry, 2 exit, 3 supplement), by card and counter. What is a trip
-- follows from them alone (view trip), so late and disordered records need no repair.
CREATE TABLE trip_leg (
    card          bigint NOT NULL,  -- card_key
    atc           integer NOT NULL,
    entry_no      bigint NOT NULL,
    business_date date NOT NULL,
    phase         smallint NOT NULL CHECK (phase BETWEEN 1 AND 3),
    happened_at   timestamp NOT NULL,
    amount_fen    bigint NOT NULL,
    full_fare_fen bigint NOT NULL,
    merchant_no   integer NOT NULL,
    industry      smallint NOT NULL,
    line          text NOT NULL,
    station       text NOT NULL,
    entry_station text NOT NULL,
    transfer      boolean NOT NULL,
    upstream      boolean NOT NULL,
    PRIMARY KEY (card, atc)
);
CREATE INDEX ON trip_leg (business_date);

INSERT INTO trip_leg
SELECT r.card, r.atc, r.entry_no, r.business_date, get_byte(r.raw, 77), r.happened_at, r.amount_fen, full_fare(r.raw), r.merchant_no,
       get_byte(r.raw, 78), upper(encode(substr(r.raw, 80, 2), 'hex')), upper(encode(substr(r.raw, 82, 2), 'hex')),
       upper(encode(substr(r.raw, 84, 2), 'hex')), get_byte(r.raw, 93) & 2 <> 0, get_byte(r.raw, 93) & 1 <> 0
  FROM purse_record r
 WHERE r.result IN ('10', '00') AND r.record_kind <> 2 AND get_byte(r.raw, 77) <> 0
    ON CONFLICT DO NOTHING;

CREATE TABLE trip_watermark (
    the_one   boolean PRIMARY KEY DEFAULT true CHECK (the_one),
    folded_to bigint NOT NULL DEFAULT 0
);
INSERT INTO trip_watermark DEFAULT VALUES;

-- An entry belongs to the next step of its card by counter if that is an exit or a supplement from the same station. COMPLETE: entry and exit; INCOMPLETE: the
-- maximum fare was charged, with or without an entry; OPEN: an entry that nothing has ended, or an exit whose entry has not come.
CREATE VIEW trip AS
SELECT e.card, e.atc AS entry_atc, x.atc AS end_atc,
       CASE x.phase WHEN 2 THEN 'COMPLETE' WHEN 3 THEN 'INCOMPLETE' ELSE 'OPEN' END AS state,
       e.happened_at AS entered_at, x.happened_at AS left_at, e.station AS entry_station, x.station AS end_station,
       coalesce(x.industry, e.industry) AS industry, coalesce(x.line, e.line) AS line, coalesce(x.merchant_no, e.merchant_no) AS merchant_no,
       coalesce(x.amount_fen, 0) AS amount_fen, coalesce(x.full_fare_fen, 0) AS full_fare_fen,
       e.transfer OR coalesce(x.transfer, false) AS transfer, coalesce(x.upstream, e.upstream) AS upstream,
       greatest(e.business_date, x.business_date) AS business_date
  FROM trip_leg e
  LEFT JOIN LATERAL (
       SELECT * FROM trip_leg n WHERE n.card = e.card AND n.atc > e.atc ORDER BY n.atc LIMIT 1) AS x
    ON x.phase > 1 AND x.entry_station = e.station
 WHERE e.phase = 1
UNION ALL
SELECT x.card, NULL, x.atc, CASE x.phase WHEN 3 THEN 'INCOMPLETE' ELSE 'OPEN' END, NULL, x.happened_at, x.entry_station, x.station,
       x.industry, x.line, x.merchant_no, x.amount_fen, x.full_fare_fen, x.transfer, x.upstream, x.business_date
  FROM trip_leg x
  LEFT JOIN LATERAL (
       SELECT * FROM trip_leg b WHERE b.card = x.card AND b.atc < x.atc ORDER BY b.atc DESC LIMIT 1) AS e
    ON e.phase = 1 AND e.station = x.entry_station
 WHERE x.phase > 1 AND e.card IS NULL;

-- What each merchant's vehicles and gates did, of the records that a day paid: by the date of the ride itself, industry and line. Discounts are what the
-- full fare was above the fare paid; subsidies are computed from them.
CREATE TABLE clearing_transit (
    business_date         date NOT NULL REFERENCES clearing_day,
    merchant_no           integer NOT NULL,
    ride_date             date NOT NULL,
    industry              smallint NOT NULL,
    line                  text NOT NULL CHECK (length(line) = 4),
    single_count          bigint NOT NULL,
    complete_count        bigint NOT NULL,
    incomplete_count      bigint NOT NULL,
    entry_count           bigint NOT NULL,
    open_count            bigint NOT NULL CHECK (open_count <= entry_count),
    transfer_count        bigint NOT NULL,
    paid_fen              bigint NOT NULL,
    maximum_fen           bigint NOT NULL CHECK (maximum_fen <= paid_fen),
    full_fen              bigint NOT NULL,
    transfer_discount_fen bigint NOT NULL,
    other_discount_fen    bigint NOT NULL,
    PRIMARY KEY (business_date, merchant_no, ride_date, industry, line),
    CHECK (full_fen = paid_fen + transfer_discount_fen + other_discount_fen)
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_transit FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- What a day paid for rides, by merchant, the ride's own date, industry and line. open: entries that no step of the card known by the
-- end of this day has ended, of our own cards. A full fare below the fare paid is no negative discount.
CREATE FUNCTION transit_of_day(wanted date)
    RETURNS TABLE (merchant_no integer, ride_date date, industry smallint, line text, single_count bigint, complete_count bigint,
                   incomplete_count bigint, entry_count bigint, open_count bigint, transfer_count bigint, paid_fen bigint,
                   maximum_fen bigint, full_fen bigint, transfer_discount_fen bigint, other_discount_fen bigint)
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT merchant_no, ride_date, industry, upper(encode(line, 'hex')),
           count(*) FILTER (WHERE phase = 0) AS single_count, count(*) FILTER (WHERE phase = 2) AS complete_count,
           count(*) FILTER (WHERE phase = 3) AS incomplete_count, count(*) FILTER (WHERE phase = 1) AS entry_count,
           count(*) FILTER (WHERE phase = 1 AND card IS NOT NULL AND ended IS NOT TRUE) AS open_count,
           count(*) FILTER (WHERE transfer AND phase <> 1) AS transfer_count,
           sum(amount_fen)::bigint AS paid_fen, coalesce(sum(amount_fen) FILTER (WHERE phase = 3), 0)::bigint AS maximum_fen,
           sum(greatest(full_fen, amount_fen))::bigint AS full_fen,
           coalesce(sum(greatest(full_fen - amount_fen, 0)) FILTER (WHERE transfer), 0)::bigint AS transfer_discount_fen,
           coalesce(sum(greatest(full_fen - amount_fen, 0)) FILTER (WHERE NOT transfer), 0)::bigint AS other_discount_fen
      FROM (SELECT r.merchant_no, r.happened_at::date AS ride_date, get_byte(r.raw, 78)::smallint AS industry,
                   substr(r.raw, 80, 2) AS line, get_byte(r.raw, 77) AS phase, r.amount_fen, full_fare(r.raw) AS full_fen,
                   get_byte(r.raw, 93) & 2 <> 0 AS transfer, r.card,
                   CASE WHEN get_byte(r.raw, 77) = 1 THEN (
                        SELECT n.phase > 1 AND n.entry_station = upper(encode(substr(r.raw, 82, 2), 'hex'))
                          FROM trip_leg n
                         WHERE n.card = r.card AND n.atc > r.atc AND n.business_date <= wanted
                         ORDER BY n.atc LIMIT 1) END AS ended
              FROM (SELECT merchant_no, happened_at, raw, amount_fen, card, atc
                      FROM purse_record
                     WHERE business_date = wanted AND result IN ('10', '00') AND record_kind <> 2
                    UNION ALL
                    SELECT merchant_no, happened_at, raw, amount_fen, NULL, NULL
                      FROM foreign_verdict WHERE business_date = wanted AND result = '00' AND record_kind <> 2) AS r
             WHERE get_byte(r.raw, 78) <> 0) AS ride
     GROUP BY merchant_no, ride_date, industry, line
$$;

-- Days closed before there was such a table have nothing in it.
ALTER TABLE clearing_day ADD COLUMN has_transit boolean NOT NULL DEFAULT false;

-- source_file: the file that holds the record, where it came in one; acquirer_id: who sent that.
ALTER TABLE clearing_source_line
    ADD COLUMN source_file text CHECK (length(source_file) = 29),
    ADD COLUMN acquirer_id text CHECK (acquirer_id ~ '^[0-9]{8}$'),
    ADD CHECK ((source_file IS NULL) = (acquirer_id IS NULL));

-- As before, with the verdicts about other cities' cards; and whether a record came in a file (batch_no 0).
CREATE OR REPLACE VIEW clearing_offline_record AS
SELECT r.business_date, r.business_date AS taken_on, r.entry_no, r.entry_no AS taken_entry, r.merchant_no, r.terminal_no,
       coalesce(r.amount_fen, 0) AS amount_fen, coalesce(v.result, r.result) AS result, r.received_at, r.raw, r.atc,
       r.psam_serial, r.balance_fen, r.happened_at, r.record_kind, r.batch_no
  FROM purse_record r
  LEFT JOIN purse_record v
    ON v.business_date = r.business_date AND v.original_entry = r.entry_no AND v.original_date = r.business_date
 WHERE r.original_entry IS NULL
UNION ALL
SELECT v.business_date, v.original_date, v.entry_no, v.original_entry, v.merchant_no, v.terminal_no,
       coalesce(v.amount_fen, 0), v.result, v.received_at, v.raw, v.atc, v.psam_serial, v.balance_fen, v.happened_at,
       v.record_kind, v.batch_no
  FROM purse_record v
 WHERE v.original_date < v.business_date
UNION ALL
SELECT v.business_date, v.original_date, v.entry_no, v.original_entry, v.merchant_no, v.terminal_no, v.amount_fen, v.result,
       v.decided_at, v.raw, v.atc, v.psam_serial, v.balance_fen, v.happened_at, v.record_kind, v.batch_no
  FROM foreign_verdict v;

-- As before, with what other cities owe for their cards.
CREATE OR REPLACE VIEW clearing_item AS
SELECT j.business_date, j.entry_no, j.decided_at AS at, j.merchant_no, j.terminal_no, j.batch_no, j.stan,
       CASE WHEN l.account_kind IS NOT NULL THEN l.account_kind WHEN j.account_id IS NULL THEN 20
            ELSE j.account_id % 100 END::smallint AS account_kind,
       j.pan, j.effect_fen,
       CASE WHEN j.kind IN (8, 10) THEN j.business_date ELSE coalesce(j.original_date, j.business_date) END AS rule_date,
       2101::smallint AS payable_code, j.kind, j.rrn,
       j.auth_code, j.entry_mode, j.decided_at AT TIME ZONE INTERVAL '8 hours' AS local_time, '' AS other,
       l.issuer_id AS owing_id, coalesce(l.pan, j.pan) AS issuer_pan
  FROM journal j
  LEFT JOIN clearing_leg l USING (business_date, entry_no)
 WHERE j.effect_fen <> 0
UNION ALL
SELECT r.business_date, r.entry_no, r.received_at, r.merchant_no, r.terminal_no, r.batch_no,
       (coalesce(r.record_serial, 0) % 1000000)::integer, 50::smallint, c.pan,
       r.amount_fen, coalesce(r.original_date, r.business_date), r.credit_code, 20::smallint,
       reference_of(r.entry_no, r.received_at), '', '072', r.happened_at,
       upper(encode(substr(r.raw, 29, 2) || substr(r.raw, 52, 4), 'hex')), NULL, c.pan
  FROM purse_record r
 CROSS JOIN LATERAL (SELECT substr(encode(substr(r.raw, 7, 10), 'hex'), 2) AS pan) AS c
 WHERE r.result IN ('10', '00') AND r.amount_fen > 0
UNION ALL
SELECT v.business_date, v.entry_no, v.decided_at, v.merchant_no, v.terminal_no, v.batch_no, (v.record_serial % 1000000)::integer,
       50::smallint, c.pan, v.amount_fen, v.original_date, 2101::smallint, 20::smallint, reference_of(v.entry_no, v.decided_at), '',
       '072', v.happened_at, upper(encode(substr(v.raw, 29, 2) || substr(v.raw, 52, 4), 'hex')), v.issuer_id, c.pan
  FROM foreign_verdict v
 CROSS JOIN LATERAL (SELECT substr(encode(substr(v.raw, 7, 10), 'hex'), 2) AS pan) AS c
 WHERE v.result = '00' AND v.amount_fen > 0;
