-- depends: 0021_clearing_legs
-- Rules for risk on offline records: their versions, what they marked, and what people found. Nothing here changes books or refuses a record.

CREATE TABLE risk_rules (
    version    integer PRIMARY KEY CHECK (version > 0),
    rule_count integer NOT NULL CHECK (rule_count BETWEEN 1 AND 50),
    content    text NOT NULL CHECK (octet_length(content) <= 65536),  -- the file as it came, with its remarks
    digest     bytea NOT NULL CHECK (length(digest) = 32),            -- SM3 of content
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    note       text NOT NULL DEFAULT ''
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON risk_rules
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- ACTIVATE puts a version in force from an instant on, ROLLBACK takes one ACTIVATE back. In force is, of those that have begun and were not
-- taken back, the one that began last.
CREATE TABLE risk_activation (
    activation_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version       integer REFERENCES risk_rules,
    begins_at     timestamptz,
    takes_back    bigint UNIQUE REFERENCES risk_activation,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor         text NOT NULL,
    CHECK ((version IS NULL) = (begins_at IS NULL)),
    CHECK ((version IS NULL) <> (takes_back IS NULL)),
    CHECK (begins_at >= at - INTERVAL '1 minute')  -- what was in force when can be told for ever
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON risk_activation
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One matter: what a rule has found about a card (owner: card_key), a reader (PSAM number) or a terminal (terminal_no), until somebody
-- has looked at it. version: the rules that opened it. hits, amount_fen: of its rows in risk_hit.
CREATE TABLE risk_case (
    case_no    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    rule       text NOT NULL,
    matter     text NOT NULL CHECK (matter IN ('card', 'reader', 'terminal')),
    owner      bigint NOT NULL,
    version    integer NOT NULL REFERENCES risk_rules,
    opened_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    hits       integer NOT NULL DEFAULT 0 CHECK (hits >= 0),
    amount_fen bigint NOT NULL DEFAULT 0 CHECK (amount_fen >= 0),
    closed_at  timestamptz,
    verdict    text CHECK (verdict IN ('CONFIRMED', 'FALSE')),
    reason     text,
    actor      text,
    CHECK (num_nulls(closed_at, verdict, reason, actor) IN (0, 4))
);
CREATE UNIQUE INDEX ON risk_case (rule, matter, owner) WHERE closed_at IS NULL;

CREATE FUNCTION refuse_change_of_closed_case() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' OR OLD.closed_at IS NOT NULL THEN
        RAISE EXCEPTION 'case % cannot be changed', OLD.case_no USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER closed BEFORE UPDATE OR DELETE ON risk_case FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_case();

-- A record that a rule has marked, once whatever happens: a record that somebody has looked at opens no case again.
CREATE TABLE risk_hit (
    rule          text NOT NULL,
    entry_no      bigint NOT NULL,
    business_date date NOT NULL,
    case_no       bigint NOT NULL REFERENCES risk_case,
    amount_fen    bigint NOT NULL CHECK (amount_fen >= 0),
    PRIMARY KEY (rule, entry_no)
);
CREATE INDEX ON risk_hit (case_no);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON risk_hit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What was looked at, by which rules. cut: rules that found more than is marked in one run, and so say too much.
CREATE TABLE risk_run (
    run_no  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    version integer NOT NULL REFERENCES risk_rules,
    records integer NOT NULL CHECK (records > 0),
    hits    integer NOT NULL CHECK (hits >= 0),
    cut     text[] NOT NULL DEFAULT '{}'
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON risk_run
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Records of transactions with a smaller txid have been looked at, or came before any rules were in force.
CREATE TABLE risk_watermark (
    the_one boolean PRIMARY KEY DEFAULT true CHECK (the_one),
    done_to bigint NOT NULL DEFAULT 0
);
INSERT INTO risk_watermark DEFAULT VALUES;

-- An offline record as rules see it. Verdicts on grey records stand with the record that they are about, and are no records of their own.
-- at: the terminal's clock, where it can be read. serial_counts: whether it says that its PSAM's serial has come.
CREATE VIEW risk_record AS
SELECT r.entry_no, r.business_date, r.received_at, r.received_at AT TIME ZONE 'Asia/Shanghai' AS received_local, r.happened_at,
       coalesce(r.happened_at, r.received_at AT TIME ZONE 'Asia/Shanghai') AS at, r.shard, r.card_no, r.card, r.psam, r.psam_serial,
       r.record_serial, r.terminal_no, r.merchant_no, r.atc, r.amount_fen, r.balance_fen,
       coalesce(w.verdict, r.result) AS result, r.result = '04' AS grey,
       coalesce(w.verdict, r.result) IN ('10', '00') AND r.record_kind <> 2 AS ride,
       r.card IS NOT NULL AND r.result NOT IN ('02', '03') AS serial_counts,
       CASE WHEN r.card IS NOT NULL THEN (get_byte(r.raw, 73)::bigint << 24) + (get_byte(r.raw, 74) << 16)
            + (get_byte(r.raw, 75) << 8) + get_byte(r.raw, 76) END AS full_fare_fen,
       CASE WHEN r.card IS NOT NULL THEN (get_byte(r.raw, 79) << 8) + get_byte(r.raw, 80) END AS line
  FROM purse_record r
  LEFT JOIN purse_waiting w ON r.result = '04' AND w.entry_no = r.entry_no
 WHERE r.original_entry IS NULL;
