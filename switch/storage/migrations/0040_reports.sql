-- depends: 0031_numbers_of_batches
-- What a close proves of itself, what a closed day reports, and who may read it over HTTP.

-- input_sha256, output_sha256: over what the step read and made, as sums (docs/reports.md); NULL for steps that were done before.
-- tries: how often it was begun. error: why the last try ended; cleared by the one that is done.
ALTER TABLE clearing_step
    ADD COLUMN input_sha256 bytea CHECK (length(input_sha256) = 32),
    ADD COLUMN output_sha256 bytea CHECK (length(output_sha256) = 32),
    ADD COLUMN tries integer NOT NULL DEFAULT 1 CHECK (tries >= 1),
    ADD COLUMN error text;

-- Days closed before there were reports have none.
ALTER TABLE clearing_day ADD COLUMN has_reports boolean NOT NULL DEFAULT false;

-- The money of a day by who was debited and who was credited. source: POSTING, RECORD (an accepted offline record) or DECISION (a grey one
-- that was decided in the merchant's favour). events: those of the chart that this can be, as it was then; class: what it is in the float statement.
CREATE TABLE clearing_movement (
    business_date date NOT NULL REFERENCES clearing_day,
    debit_code    smallint NOT NULL,
    credit_code   smallint NOT NULL,
    source        text NOT NULL CHECK (source IN ('POSTING', 'RECORD', 'DECISION')),
    class         text NOT NULL CHECK (class IN ('LOAD', 'PURCHASE', 'REFUND', 'ADJUSTMENT', 'FEE', 'SUSPENSE', 'TRANSFER', 'SETTLEMENT', 'OTHER')),
    events        text NOT NULL,
    move_count    bigint NOT NULL CHECK (move_count > 0),
    amount_fen    bigint NOT NULL CHECK (amount_fen > 0),
    PRIMARY KEY (business_date, debit_code, credit_code, source)
);

-- Loads that were in SUSPENSE at the end of a day. on_2201: their money is in suspense; else it is back at its source.
CREATE TABLE clearing_suspense (
    business_date date NOT NULL REFERENCES clearing_day,
    shard         smallint NOT NULL,
    load_no       bigint NOT NULL,
    card_no       bigint NOT NULL,
    source        smallint NOT NULL,
    loaded_on     date NOT NULL,
    since         timestamptz NOT NULL,
    reason        text NOT NULL,
    on_2201       boolean NOT NULL,
    amount_fen    bigint NOT NULL CHECK (amount_fen > 0),
    PRIMARY KEY (business_date, shard, load_no)
);
CREATE INDEX purse_load_move_suspense ON purse_load_move (business_date) WHERE from_state = 4 OR to_state = 4;

-- Open holes in the counters of terminals and PSAMs when the day was closed; of cards only how many numbers were missing (owner 0).
-- A late record cuts holes into pieces, so they cannot be found again later.
CREATE TABLE clearing_gap (
    business_date date NOT NULL REFERENCES clearing_day,
    kind          smallint NOT NULL,
    owner         bigint NOT NULL,
    missing_from  bigint NOT NULL,
    missing_to    bigint NOT NULL CHECK (missing_to >= missing_from),
    opened_at     timestamptz NOT NULL,
    device        text NOT NULL,
    merchant      text NOT NULL,
    PRIMARY KEY (business_date, kind, owner, missing_from)
);

-- Each alarm about offline records is in the list of one day: the first that was closed after it, and not before its own.
CREATE TABLE clearing_alarm (
    alarm_no      bigint PRIMARY KEY REFERENCES purse_alarm,
    business_date date NOT NULL REFERENCES clearing_day
);
CREATE INDEX ON clearing_alarm (business_date);

-- Terminals' batches that were opened by the end of the day and not closed when its reports were made.
CREATE TABLE clearing_open_batch (
    business_date date NOT NULL REFERENCES clearing_day,
    terminal_no   integer NOT NULL,
    batch_no      integer NOT NULL,
    opened_on     date NOT NULL,
    state         smallint NOT NULL,
    terminal      text NOT NULL,
    merchant      text NOT NULL,
    PRIMARY KEY (business_date, terminal_no, batch_no)
);
-- Who waits for batches before a day is closed looks for these every few seconds.
CREATE INDEX terminal_batch_open ON terminal_batch (opened_on) WHERE state <> 2;

-- Report files of a day. sm3, size_bytes and row_count are stored before NAME.ok is written; NULL: not written yet.
CREATE TABLE clearing_report (
    business_date date NOT NULL REFERENCES clearing_day,
    report        text NOT NULL,
    ordinal       smallint NOT NULL,
    name          text NOT NULL,
    row_count     bigint CHECK (row_count >= 0),
    size_bytes    bigint,
    sm3           bytea CHECK (length(sm3) = 32),
    PRIMARY KEY (business_date, report),
    UNIQUE (name),
    CHECK ((sm3 IS NULL) = (size_bytes IS NULL) AND (sm3 IS NULL) = (row_count IS NULL))
);

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['clearing_movement', 'clearing_suspense', 'clearing_gap', 'clearing_alarm', 'clearing_open_batch',
                                'clearing_report']
    LOOP
        EXECUTE format('CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW'
                       ' EXECUTE FUNCTION refuse_change_of_closed_day()', name);
    END LOOP;
END $$;

CREATE INDEX ON purse_waiting (decided_on) WHERE decided_on IS NOT NULL;

-- Who may read over HTTP. digest: SHA-256 of the whole token, which is 256 random bits and rests nowhere. Rows are never taken away.
CREATE TABLE api_token (
    token_no   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    role       text NOT NULL CHECK (role IN ('regulator', 'operator', 'auditor', 'member', 'merchant')),
    party      text NOT NULL DEFAULT '',
    digest     bytea NOT NULL UNIQUE CHECK (length(digest) = 32),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    created_by text NOT NULL,
    expires_at timestamptz NOT NULL,
    revoked_at timestamptz,
    revoked_by text,
    CHECK (CASE role WHEN 'member' THEN party ~ '^[0-9]{8}$' WHEN 'merchant' THEN party ~ '^[0-9A-Za-z]{15}$' ELSE party = '' END),
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE TRIGGER kept BEFORE DELETE OR TRUNCATE ON api_token FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
