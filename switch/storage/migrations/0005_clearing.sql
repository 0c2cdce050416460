-- depends: 0004_purse
-- Closing a day. What a day's files are made of is kept here or in the sealed journal, so that they can be made again, byte
-- for byte, whatever has changed in the registry or the settings since.

-- Fee times weight must fit into eight bytes: a fee is below 10^12 fen.
ALTER TABLE fee_rule ADD CONSTRAINT weights_bounded
    CHECK (greatest(weight_issuer, weight_switch, weight_acquirer) <= 1000000);

-- created_at goes into every header: the instant of the first close, in whole seconds.
CREATE TABLE clearing_day (
    business_date   date PRIMARY KEY REFERENCES business_day,
    created_at      timestamptz NOT NULL CHECK (created_at = date_trunc('second', created_at)),
    settlement_date date NOT NULL CHECK (settlement_date > business_date),
    own_id          text NOT NULL CHECK (own_id ~ '^[0-9]{8}$'),
    centre_id       text NOT NULL CHECK (centre_id ~ '^[0-9]{8}$'),
    acquirer_code   text NOT NULL CHECK (acquirer_code ~ '^[0-9]{1,11}$'),
    shards          smallint[] NOT NULL
);

-- outcome: what the step found and made, as figures and digests.
CREATE TABLE clearing_step (
    business_date date NOT NULL REFERENCES clearing_day,
    step          text NOT NULL,
    ordinal       smallint NOT NULL,
    state         text NOT NULL CHECK (state IN ('RUNNING', 'DONE')),
    actor         text NOT NULL,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    outcome       jsonb,
    PRIMARY KEY (business_date, step),
    CHECK ((state = 'DONE') = (finished_at IS NOT NULL))
);

-- Merchants and rules as they were when the day was closed.
CREATE TABLE clearing_merchant (
    business_date date NOT NULL REFERENCES clearing_day,
    merchant_no   integer NOT NULL,
    merchant_id   text NOT NULL,
    category      text NOT NULL,
    acquirer_id   text NOT NULL,
    PRIMARY KEY (business_date, merchant_no)
);

-- rule_date: the day whose rule counts, that of the original for a refund, void or reversal.
-- rule_no is NULL where no rule was in force: no fee then.
CREATE TABLE clearing_rule (
    business_date   date NOT NULL REFERENCES clearing_day,
    merchant_no     integer NOT NULL,
    account_kind    smallint NOT NULL,
    rule_date       date NOT NULL,
    rule_no         integer,
    rate_ppm        integer NOT NULL,
    minimum_fen     bigint NOT NULL,
    cap_fen         bigint,
    weight_issuer   integer NOT NULL,
    weight_switch   integer NOT NULL,
    weight_acquirer integer NOT NULL,
    PRIMARY KEY (business_date, merchant_no, account_kind, rule_date)
);

-- Trace and time of the originals that the day's voids and refunds name; their partitions may be gone one day.
CREATE TABLE clearing_original (
    business_date date NOT NULL REFERENCES clearing_day,
    entry_no      bigint NOT NULL,
    original_stan integer NOT NULL,
    original_at   timestamptz NOT NULL,
    PRIMARY KEY (business_date, entry_no)
);

-- Where a record that was not accepted at once stands in the list of its acquirer's records of that day, in order of arrival.
CREATE TABLE clearing_source_line (
    business_date date NOT NULL REFERENCES clearing_day,
    entry_no      bigint NOT NULL,
    source_line   integer NOT NULL,
    PRIMARY KEY (business_date, entry_no)
);

-- The day in sums: per merchant, account kind, issuer and payable account. volume_fen counts refunds as positive (CM's total), credit_net_fen
-- sums the nets above zero (MR's total). first_at, first_entry: which came first decides the order of positions.
CREATE TABLE clearing_summary (
    business_date    date NOT NULL REFERENCES clearing_day,
    merchant_no      integer NOT NULL,
    account_kind     smallint NOT NULL,
    issuer_id        text NOT NULL,
    payable_code     smallint NOT NULL CHECK (payable_code IN (2101, 2102)),
    item_count       bigint NOT NULL,
    volume_fen       bigint NOT NULL,
    debit_count      bigint NOT NULL,
    debit_fen        bigint NOT NULL,
    credit_count     bigint NOT NULL,
    credit_fen       bigint NOT NULL,
    amount_fen       bigint NOT NULL CHECK (amount_fen = debit_fen - credit_fen),
    fee_fen          bigint NOT NULL CHECK (fee_fen = issuer_fee_fen + switch_fee_fen + acquirer_fee_fen),
    issuer_fee_fen   bigint NOT NULL,
    switch_fee_fen   bigint NOT NULL,
    acquirer_fee_fen bigint NOT NULL,
    credit_net_fen   bigint NOT NULL,
    first_at         timestamptz NOT NULL,
    first_entry      bigint NOT NULL,
    PRIMARY KEY (business_date, merchant_no, account_kind, issuer_id, payable_code)
);

-- Offline records of the day per merchant: what QS says.
CREATE TABLE clearing_offline (
    business_date         date NOT NULL REFERENCES clearing_day,
    merchant_no           integer NOT NULL,
    confirmed_count       bigint NOT NULL,
    confirmed_fen         bigint NOT NULL,
    refused_count         bigint NOT NULL,
    refused_fen           bigint NOT NULL,
    adjusted_count        bigint NOT NULL,
    adjusted_fen          bigint NOT NULL,
    adjust_refused_count  bigint NOT NULL,
    adjust_refused_fen    bigint NOT NULL,
    pending_count         bigint NOT NULL,
    pending_fen           bigint NOT NULL,
    PRIMARY KEY (business_date, merchant_no)
);

CREATE TABLE clearing_position (
    business_date   date NOT NULL REFERENCES clearing_day,
    ordinal         integer NOT NULL,
    institution_id  text NOT NULL,
    issuing_count   bigint NOT NULL,
    issuing_fen     bigint NOT NULL,
    acquiring_count bigint NOT NULL,
    acquiring_fen   bigint NOT NULL,
    issuer_fee_fen  bigint NOT NULL,
    fees_paid_fen   bigint NOT NULL,
    net_fen         bigint NOT NULL,
    PRIMARY KEY (business_date, ordinal),
    UNIQUE (business_date, institution_id),
    CHECK (net_fen = issuing_fen + acquiring_fen + issuer_fee_fen + fees_paid_fen)
);

-- Float statement 備付金日報: every account code, debit positive.
CREATE TABLE clearing_float (
    business_date date NOT NULL REFERENCES clearing_day,
    code          smallint NOT NULL,
    opening_fen   bigint NOT NULL,
    debit_fen     bigint NOT NULL,
    credit_fen    bigint NOT NULL,
    closing_fen   bigint NOT NULL CHECK (closing_fen = opening_fen + debit_fen - credit_fen),
    PRIMARY KEY (business_date, code)
);

-- Files of a day. sm3 and size_bytes are over the whole file, stored before NAME.ok is written; NULL: not written yet.
CREATE TABLE clearing_file (
    business_date date NOT NULL REFERENCES clearing_day,
    name          text NOT NULL CHECK (length(name) = 29),
    ordinal       integer NOT NULL,
    party         text NOT NULL,  -- institution or merchant id
    party_no      integer,        -- merchant_no of an MR
    line_count    bigint NOT NULL CHECK (line_count BETWEEN 0 AND 99999999),
    total_fen     bigint NOT NULL CHECK (total_fen >= 0),
    sm3           bytea CHECK (length(sm3) = 32),
    size_bytes    bigint,
    PRIMARY KEY (business_date, name),
    UNIQUE (business_date, ordinal),
    CHECK ((sm3 IS NULL) = (size_bytes IS NULL))
);

-- Fee of one transaction in fen: round half up, then floor (not of nothing), cap, amount; the sign of the amount.
CREATE FUNCTION fee_of(amount_fen bigint, rate_ppm integer, minimum_fen bigint, cap_fen bigint) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN sign(amount_fen)::bigint * least(greatest((abs(amount_fen) * rate_ppm + 500000) / 1000000, minimum_fen),
                                            cap_fen, abs(amount_fen));

-- A closed day never changes.
CREATE FUNCTION refuse_change_of_closed_day() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    day date := CASE TG_OP WHEN 'INSERT' THEN NEW.business_date ELSE OLD.business_date END;
BEGIN
    IF (SELECT state FROM business_day WHERE business_date = day) = 2 THEN
        RAISE EXCEPTION 'business day % is closed', day USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['clearing_day', 'clearing_step', 'clearing_merchant', 'clearing_rule', 'clearing_original',
                                'clearing_source_line', 'clearing_summary', 'clearing_offline', 'clearing_position', 'clearing_float', 'clearing_file']
    LOOP
        EXECUTE format('CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW'
                       ' EXECUTE FUNCTION refuse_change_of_closed_day()', name);
    END LOOP;
END $$;

-- Retrieval reference of an offline record: as that of a journal entry, `YDDDhh` and the serial in six base-36 digits.
CREATE FUNCTION reference_of(entry_no bigint, at timestamptz) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN concat(
        right(to_char(at AT TIME ZONE INTERVAL '8 hours', 'YYYYDDDHH24'), 6),
        substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (entry_no / 60466176 % 36)::integer + 1, 1),
        substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (entry_no / 1679616 % 36)::integer + 1, 1),
        substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (entry_no / 46656 % 36)::integer + 1, 1),
        substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (entry_no / 1296 % 36)::integer + 1, 1),
        substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (entry_no / 36 % 36)::integer + 1, 1),
        substr('0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ', (entry_no % 36)::integer + 1, 1));

-- Offline records that a day has to answer for: those taken on it, with the result they have at its end, and older grey ones
-- adjudicated on it. taken_on: the day whose upload list holds the record.
CREATE VIEW clearing_offline_record AS
SELECT r.business_date, r.business_date AS taken_on, r.entry_no, r.entry_no AS taken_entry, r.merchant_no, r.terminal_no,
       coalesce(r.amount_fen, 0) AS amount_fen, coalesce(v.result, r.result) AS result, r.received_at, r.raw, r.atc,
       r.psam_serial, r.balance_fen, r.happened_at, r.record_kind
  FROM purse_record r
  LEFT JOIN purse_record v
    ON v.business_date = r.business_date AND v.original_entry = r.entry_no AND v.original_date = r.business_date
 WHERE r.original_entry IS NULL
UNION ALL
SELECT v.business_date, v.original_date, v.entry_no, v.original_entry, v.merchant_no, v.terminal_no,
       coalesce(v.amount_fen, 0), v.result, v.received_at, v.raw, v.atc, v.psam_serial, v.balance_fen, v.happened_at,
       v.record_kind
  FROM purse_record v
 WHERE v.original_date < v.business_date;

-- Everything that moves money between a merchant and an issuer, online and offline. payable_code: 2101 owed to the merchant,
-- 2102 to its acquirer in another city. local_time: when it happened, by the switch online, by the terminal offline.
CREATE VIEW clearing_item AS
SELECT j.business_date, j.entry_no, j.decided_at AS at, j.merchant_no, j.terminal_no, j.batch_no, j.stan,
       CASE WHEN j.account_id IS NULL THEN 20 ELSE j.account_id % 100 END::smallint AS account_kind,
       j.pan, j.effect_fen, coalesce(j.original_date, j.business_date) AS rule_date, 2101::smallint AS payable_code, j.kind, j.rrn,
       j.auth_code, j.entry_mode, j.decided_at AT TIME ZONE INTERVAL '8 hours' AS local_time, '' AS other
  FROM journal j
 WHERE j.effect_fen <> 0
UNION ALL
SELECT r.business_date, r.entry_no, r.received_at, r.merchant_no, r.terminal_no, r.batch_no,
       (coalesce(r.record_serial, 0) % 1000000)::integer, 50::smallint, substr(encode(substr(r.raw, 7, 10), 'hex'), 2),
       r.amount_fen, coalesce(r.original_date, r.business_date), r.credit_code, 20::smallint,
       reference_of(r.entry_no, r.received_at), '', '072', r.happened_at,
       upper(encode(substr(r.raw, 29, 2) || substr(r.raw, 52, 4), 'hex'))
  FROM purse_record r
 WHERE r.result IN ('10', '00') AND r.amount_fen > 0;

-- Each item with its merchant, the fee by its rule, and the fee's shares. Own cards only, so far: the issuer is the operator.
-- Integer division cuts towards zero, so a fee that is given back mirrors the one that was taken.
-- Every item has exactly one row on the other side of each join (the day's first step makes them). The joins are outer ones because
-- the planner then believes it too: with inner joins it expected one row of millions and formatted them all in one process.
CREATE VIEW clearing_charge AS
SELECT i.*, d.own_id AS issuer_id, d.own_id, d.acquirer_code, m.merchant_id, m.category, m.acquirer_id, f.fee_fen,
       f.fee_fen * r.weight_issuer / (r.weight_issuer + r.weight_switch + r.weight_acquirer) AS issuer_fee_fen,
       f.fee_fen * r.weight_switch / (r.weight_issuer + r.weight_switch + r.weight_acquirer) AS switch_fee_fen
  FROM clearing_item i
  LEFT JOIN clearing_day d USING (business_date)
  LEFT JOIN clearing_merchant m USING (business_date, merchant_no)
  LEFT JOIN clearing_rule r USING (business_date, merchant_no, account_kind, rule_date)
 CROSS JOIN LATERAL (SELECT fee_of(i.effect_fen, r.rate_ppm, r.minimum_fen, r.cap_fen) AS fee_fen) AS f;

-- All postings, those that are purse records included.
CREATE VIEW clearing_posting AS
SELECT business_date, debit_code, credit_code, amount_fen FROM posting
UNION ALL
SELECT business_date, debit_code, credit_code, amount_fen FROM purse_posting;
