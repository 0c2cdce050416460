-- depends: 0031_numbers_of_batches
-- Interop between cities: our cards elsewhere (DF, DT), answers that wait for evidence, what cities charge each other, and the centre.

-- More types of files are taken now.
ALTER TABLE received_file DROP CONSTRAINT received_file_name_check;
ALTER TABLE received_file ADD CONSTRAINT received_file_name_check CHECK (name ~ '^[A-Z]{2}[0-9]{27}$');

-- The interop centre when the day was closed; '': none. NULL: closed before there was a tariff between cities, so its files keep the fees they had.
ALTER TABLE clearing_day ADD COLUMN interop_id text CHECK (interop_id ~ '^([0-9]{8})?$');

-- What cities charge each other for a purchase, the same in all of them and at the centre: the row with the latest date that is not after the
-- date in the record. Issuer and centre get their shares by weight, the acquirer keeps the rest. Append-only: a closed day never changes.
CREATE TABLE interop_tariff (
    valid_from      date PRIMARY KEY,
    rate_ppm        integer NOT NULL CHECK (rate_ppm BETWEEN 0 AND 1000000),
    minimum_fen     bigint NOT NULL CHECK (minimum_fen >= 0),
    cap_fen         bigint CHECK (cap_fen >= 0),
    weight_issuer   integer NOT NULL CHECK (weight_issuer BETWEEN 0 AND 1000000),
    weight_centre   integer NOT NULL CHECK (weight_centre BETWEEN 0 AND 1000000),
    weight_acquirer integer NOT NULL CHECK (weight_acquirer BETWEEN 0 AND 1000000),
    actor           text NOT NULL,
    set_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK (weight_issuer + weight_centre + weight_acquirer > 0)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON interop_tariff
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The tariff with the first date on which another counts, for sums over many records.
CREATE VIEW interop_rate AS
SELECT valid_from, lead(valid_from, 1, 'infinity') OVER (ORDER BY valid_from) AS until, rate_ppm, minimum_fen, cap_fen, weight_issuer,
       weight_centre, weight_issuer + weight_centre + weight_acquirer AS weight_all
  FROM interop_tariff;

-- As the acquiring city: a record of another city's card that its city holds as grey (04). It goes on waiting, without the usual deadline.
CREATE TABLE foreign_hold (
    original_entry bigint PRIMARY KEY,
    business_date  date NOT NULL REFERENCES business_day,
    held_at        timestamptz NOT NULL,
    answered_on    date NOT NULL,
    file_no        integer NOT NULL REFERENCES received_file
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON foreign_hold
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- As the city of the cards: what a day paid other cities for purchases of our cards there (purse_record with batch_no -1), and our share of
-- their fees (2102 of the city to 6001).
CREATE TABLE clearing_interop (
    business_date  date NOT NULL REFERENCES clearing_day,
    institution_id text NOT NULL CHECK (institution_id ~ '^[0-9]{8}$'),
    record_count   bigint NOT NULL,
    amount_fen     bigint NOT NULL,
    issuer_fee_fen bigint NOT NULL,
    PRIMARY KEY (business_date, institution_id)
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_interop FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- By which people ask for one of them. Partial, so that it costs the intake of all others nothing.
CREATE INDEX ON purse_record (psam, psam_serial) WHERE batch_no = -1;

-- ---------------------------------------------------------------- the centre

-- A clearing date of the centre: begun when its DF are settled, decided when all answers are there or their time is over. centre_fen: the
-- centre's share of the fees. decided_by: how many records nobody answered for.
CREATE TABLE interop_day (
    clearing_date   date PRIMARY KEY,
    centre_id       text NOT NULL CHECK (centre_id ~ '^[0-9]{8}$'),
    forwarded_at    timestamptz NOT NULL CHECK (forwarded_at = date_trunc('second', forwarded_at)),
    decided_at      timestamptz CHECK (decided_at = date_trunc('second', decided_at)),
    settlement_date date CHECK (settlement_date > clearing_date),
    unanswered      bigint,
    centre_fen      bigint,
    CHECK (num_nulls(decided_at, settlement_date, unanswered, centre_fen) IN (0, 4))
);

-- Files of cities (FH) that have come whole, with the clearing date they count for: that of their name, or a later one if they came after its time.
CREATE TABLE interop_arrival (
    file_no       integer PRIMARY KEY REFERENCES received_file,
    clearing_date date NOT NULL,
    arrived_at    timestamptz NOT NULL,
    late          boolean NOT NULL
);
CREATE INDEX ON interop_arrival (clearing_date);

-- Their lines. issuer_id: the member whose card it is. refused: why the centre hands it on to nobody: 02 illegal data, 03 came before (in any
-- file), 08 issuer unknown or out of its scope.
CREATE TABLE interop_record (
    file_no    integer NOT NULL REFERENCES received_file,
    line       integer NOT NULL CHECK (line >= 1),
    issuer_id  text CHECK (issuer_id ~ '^[0-9]{8}$'),
    card       bigint,  -- card_key
    atc        integer NOT NULL,
    amount_fen bigint NOT NULL,
    mark       bytea NOT NULL CHECK (length(mark) = 21),
    refused    text CHECK (refused IN ('02', '03', '08')),
    raw        bytea NOT NULL CHECK (length(raw) = 96),
    PRIMARY KEY (file_no, line),
    CHECK (refused IS NOT NULL OR num_nulls(issuer_id, card) = 0)
);
CREATE UNIQUE INDEX interop_record_once ON interop_record (card, atc, amount_fen, mark) WHERE refused IS NULL;
CREATE INDEX ON interop_record (substr(raw, 46, 10));  -- PSAM number and serial, by which people ask

-- What their cities said (answer_no: the DT), or that nobody said anything (answer_no NULL: accepted). counted_on: the clearing date whose nets
-- and DT hold it; NULL: the next one that is decided, of an answer to a record that was held.
CREATE TABLE interop_verdict (
    file_no     integer NOT NULL,
    line        integer NOT NULL,
    result      text NOT NULL CHECK (result IN ('10', '00', '01', '02', '03', '05', '06', '07', '08', '09', '92', '93', '94', '95')),
    answered_on date NOT NULL,
    answer_no   integer REFERENCES received_file,
    counted_on  date,
    PRIMARY KEY (file_no, line),
    FOREIGN KEY (file_no, line) REFERENCES interop_record,
    CHECK (answer_no IS NOT NULL OR result = '00')
);
CREATE INDEX ON interop_verdict (counted_on);

-- Records that their city holds as grey (04).
CREATE TABLE interop_hold (
    file_no     integer NOT NULL,
    line        integer NOT NULL,
    answered_on date NOT NULL,
    answer_no   integer NOT NULL REFERENCES received_file,
    PRIMARY KEY (file_no, line),
    FOREIGN KEY (file_no, line) REFERENCES interop_record
);

-- state: RECEIVES; of a negative net DUE, FUNDED, or BLOCKED when its money was not there in time.
CREATE TABLE interop_position (
    clearing_date   date NOT NULL REFERENCES interop_day,
    ordinal         integer NOT NULL,
    institution_id  text NOT NULL CHECK (institution_id ~ '^[0-9]{8}$'),
    issuing_count   bigint NOT NULL,
    issuing_fen     bigint NOT NULL,
    acquiring_count bigint NOT NULL,
    acquiring_fen   bigint NOT NULL,
    issuer_fee_fen  bigint NOT NULL,
    fees_paid_fen   bigint NOT NULL,
    net_fen         bigint NOT NULL,
    state           text NOT NULL CHECK (state IN ('RECEIVES', 'DUE', 'FUNDED', 'BLOCKED')),
    state_at        timestamptz NOT NULL,
    actor           text NOT NULL,
    PRIMARY KEY (clearing_date, institution_id),
    UNIQUE (clearing_date, ordinal),
    CHECK (net_fen = issuing_fen + acquiring_fen + issuer_fee_fen + fees_paid_fen),
    CHECK ((state = 'RECEIVES') = (net_fen >= 0))
);
CREATE INDEX ON interop_position (clearing_date) WHERE state IN ('DUE', 'BLOCKED');

-- Only its state changes: whether a member has paid is learnt later than what it owes.
CREATE FUNCTION refuse_change_of_net() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR (OLD.clearing_date, OLD.institution_id, OLD.ordinal, OLD.net_fen, OLD.issuing_fen, OLD.acquiring_fen, OLD.issuer_fee_fen,
                            OLD.fees_paid_fen)
                           IS DISTINCT FROM
                           (NEW.clearing_date, NEW.institution_id, NEW.ordinal, NEW.net_fen, NEW.issuing_fen, NEW.acquiring_fen, NEW.issuer_fee_fen,
                            NEW.fees_paid_fen) THEN
        RAISE EXCEPTION 'positions of a decided clearing date do not change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_state BEFORE UPDATE OR DELETE ON interop_position FOR EACH ROW EXECUTE FUNCTION refuse_change_of_net();

-- Files that the centre writes: DF to cities of cards, DT to acquiring cities, NP to all. sm3 NULL: not written yet.
CREATE TABLE interop_file (
    name          text PRIMARY KEY CHECK (length(name) = 29),
    clearing_date date NOT NULL REFERENCES interop_day,
    ordinal       integer NOT NULL,
    party         text NOT NULL,
    line_count    bigint NOT NULL CHECK (line_count BETWEEN 0 AND 99999999),
    total_fen     bigint NOT NULL CHECK (total_fen >= 0),
    created_at    timestamptz NOT NULL,
    sm3           bytea CHECK (length(sm3) = 32),
    size_bytes    bigint,
    UNIQUE (clearing_date, ordinal),
    CHECK ((sm3 IS NULL) = (size_bytes IS NULL))
);
CREATE INDEX ON interop_file (clearing_date) WHERE sm3 IS NULL;

-- What a city is told on a clearing date about what it sent: what the centre refused of that date's files, what was decided for it, and what is held
-- without having been decided by then (04). A record that the city itself had sent before is answered once, by what becomes of the first: 03 would refuse it.
CREATE FUNCTION interop_answers(wanted date)
    RETURNS TABLE (member_id text, file_no integer, line integer, raw bytea, amount_fen bigint, result text, answered_on date)
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT f.sender_id, r.file_no, r.line, r.raw, r.amount_fen, r.refused, a.clearing_date
      FROM interop_arrival a JOIN interop_record r USING (file_no) JOIN received_file f USING (file_no)
     WHERE a.clearing_date = wanted AND r.refused IS NOT NULL
       AND NOT (r.refused = '03' AND EXISTS (
                SELECT FROM interop_record o JOIN received_file g ON g.file_no = o.file_no
                 WHERE o.refused IS NULL AND o.card = r.card AND o.atc = r.atc AND o.amount_fen = r.amount_fen AND o.mark = r.mark
                   AND g.sender_id = f.sender_id))
    UNION ALL
    SELECT f.sender_id, r.file_no, r.line, r.raw, r.amount_fen, v.result, v.answered_on
      FROM interop_verdict v JOIN interop_record r USING (file_no, line) JOIN received_file f USING (file_no)
     WHERE v.counted_on = wanted
    UNION ALL
    SELECT f.sender_id, r.file_no, r.line, r.raw, r.amount_fen, '04', h.answered_on
      FROM interop_arrival a
      JOIN interop_record r USING (file_no)
      JOIN interop_hold h USING (file_no, line)
      JOIN received_file f USING (file_no)
      LEFT JOIN interop_verdict v USING (file_no, line)
     WHERE a.clearing_date = wanted AND (v.file_no IS NULL OR v.counted_on IS NULL OR v.counted_on > wanted)
$$;

-- An answer is final; only the date that counts it may be found later, once.
CREATE FUNCTION refuse_change_of_verdict() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.counted_on IS NOT NULL
       OR (OLD.file_no, OLD.line, OLD.result, OLD.answered_on, OLD.answer_no) IS DISTINCT FROM (NEW.file_no, NEW.line, NEW.result, NEW.answered_on, NEW.answer_no) THEN
        RAISE EXCEPTION 'an answer does not change' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER only_counted BEFORE UPDATE OR DELETE ON interop_verdict FOR EACH ROW EXECUTE FUNCTION refuse_change_of_verdict();

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['interop_arrival', 'interop_record', 'interop_hold']
    LOOP
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
END $$;

-- ---------------------------------------------------------------- views of the day

-- As before, without our cards' purchases elsewhere (batch_no -1): they have no merchant here, are in DT, and are settled by the centre's NP.
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
 WHERE r.result IN ('10', '00') AND r.amount_fen > 0 AND r.batch_no >= 0
UNION ALL
SELECT v.business_date, v.entry_no, v.decided_at, v.merchant_no, v.terminal_no, v.batch_no, (v.record_serial % 1000000)::integer,
       50::smallint, c.pan, v.amount_fen, v.original_date, 2101::smallint, 20::smallint, reference_of(v.entry_no, v.decided_at), '',
       '072', v.happened_at, upper(encode(substr(v.raw, 29, 2) || substr(v.raw, 52, 4), 'hex')), v.issuer_id, c.pan
  FROM foreign_verdict v
 CROSS JOIN LATERAL (SELECT substr(encode(substr(v.raw, 7, 10), 'hex'), 2) AS pan) AS c
 WHERE v.result = '00' AND v.amount_fen > 0;

-- As before; of a card of another city, paid by way of the centre, issuer and centre get what the tariff between cities says, and the merchant's fee
-- is what his rule says: the acquirer keeps the difference. The tariff is looked up for such rows only.
CREATE OR REPLACE VIEW clearing_charge AS
SELECT i.*, coalesce(i.owing_id, d.own_id) AS issuer_id, d.own_id, d.acquirer_code, m.merchant_id, m.category, m.acquirer_id, f.fee_fen,
       CASE WHEN i.account_kind = 50 AND i.owing_id IS NOT NULL AND d.interop_id IS NOT NULL
            THEN coalesce((SELECT fee_of(i.effect_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_issuer
                                  / (t.weight_issuer + t.weight_centre + t.weight_acquirer)
                             FROM interop_tariff t WHERE t.valid_from <= i.local_time::date
                            ORDER BY t.valid_from DESC LIMIT 1), 0)
            ELSE f.fee_fen * r.weight_issuer / (r.weight_issuer + r.weight_switch + r.weight_acquirer) END AS issuer_fee_fen,
       CASE WHEN i.account_kind = 50 AND i.owing_id IS NOT NULL AND d.interop_id IS NOT NULL
            THEN coalesce((SELECT fee_of(i.effect_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) * t.weight_centre
                                  / (t.weight_issuer + t.weight_centre + t.weight_acquirer)
                             FROM interop_tariff t WHERE t.valid_from <= i.local_time::date
                            ORDER BY t.valid_from DESC LIMIT 1), 0)
            ELSE f.fee_fen * r.weight_switch / (r.weight_issuer + r.weight_switch + r.weight_acquirer) END AS switch_fee_fen
  FROM clearing_item i
  LEFT JOIN clearing_day d USING (business_date)
  LEFT JOIN clearing_merchant m USING (business_date, merchant_no)
  LEFT JOIN clearing_rule r USING (business_date, merchant_no, account_kind, rule_date)
 CROSS JOIN LATERAL (SELECT fee_of(i.effect_fen, r.rate_ppm, r.minimum_fen, r.cap_fen) AS fee_fen) AS f;
