-- depends: 0003_ledger
-- Offline purse records 脫機交易記錄 and what is known of every purse 電子錢包 from them.
-- Records are taken in across shards, behind a gate of their own: these tables are not bound to one shard per statement.

-- A card number (13 to 19 digits) as a key of eight bytes: the number itself, those from 2^63 on as their two's complement.
CREATE FUNCTION card_key(pan text) RETURNS bigint LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT (CASE WHEN pan::numeric < 9223372036854775808 THEN pan::numeric
                 ELSE pan::numeric - 18446744073709551616 END)::bigint
$$;

-- And back, for people; the number of a citizen card has 19 digits.
CREATE FUNCTION card_digits(card bigint) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT lpad((CASE WHEN card >= 0 THEN card::numeric ELSE card::numeric + 18446744073709551616 END)::text, 19, '0')
$$;

-- The shadow of each purse. loaded_fen: opening balance and loads, written by import and by load confirms.
-- spent_fen: accepted purchases behind the fold's watermark; the shadow balance 賬面餘額 may be negative while a load is late.
-- next_atc: offline ATC expected next, as the card's INITIALIZE will return it. online_atc: the same for loads.
CREATE TABLE purse (
    shard       smallint NOT NULL,
    card_no     bigint NOT NULL,
    asn         text NOT NULL CHECK (asn ~ '^[0-9]{20}$'),
    loaded_fen  bigint NOT NULL DEFAULT 0 CHECK (loaded_fen >= 0),
    spent_fen   bigint NOT NULL DEFAULT 0 CHECK (spent_fen >= 0),
    balance_fen bigint GENERATED ALWAYS AS (loaded_fen - spent_fen) STORED,
    online_atc  integer NOT NULL DEFAULT 0 CHECK (online_atc BETWEEN 0 AND 65535),
    next_atc    integer NOT NULL DEFAULT 0 CHECK (next_atc BETWEEN 0 AND 65536),
    PRIMARY KEY (shard, card_no)
);

-- Own cards with valid TACs that the registry does not know: they still own float. One number per card, for ever.
CREATE TABLE purse_stray (
    card     bigint PRIMARY KEY,  -- card_key
    card_no  bigint NOT NULL UNIQUE,
    shard    smallint NOT NULL,
    found_at timestamptz NOT NULL
);

-- Every record as it came, one row and one result each; never updated. A row with result 10 or 00 and an amount is a journal
-- entry and its posting at once: debit 2002 owner card_no, credit as stated (2101 a merchant, 2102 a foreign acquirer).
-- Rows with original_entry are adjudications (00, 94) of an earlier row with 04; they are dated on the day of decision.
-- Columns parsed from raw are NULL where it cannot be read. card: card_key. happened_at: the terminal's clock, Asia/Shanghai.
-- terminal_no, merchant_no, batch_no: who uploaded it, and in which batch.
CREATE TABLE purse_record (
    entry_no       bigint NOT NULL,
    card_no        bigint,  -- NULL for cards that are not ours
    card           bigint,
    amount_fen     bigint CHECK (amount_fen >= 0),
    balance_fen    bigint CHECK (balance_fen >= 0),  -- before the transaction, as the card said
    psam           bigint,
    psam_serial    bigint,
    record_serial  bigint,
    credit_owner   bigint,
    happened_at    timestamp,
    received_at    timestamptz NOT NULL,
    txid           bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    original_entry bigint,
    business_date  date NOT NULL,
    original_date  date,
    terminal_no    integer NOT NULL,
    merchant_no    integer NOT NULL,
    batch_no       integer NOT NULL,
    atc            integer,
    shard          smallint NOT NULL,
    credit_code    smallint CHECK (credit_code IN (2101, 2102)),
    record_kind    smallint,  -- 0 normal, 1 grey, 2 card locked, 15 test
    result         text NOT NULL CHECK (length(result) = 2),
    raw            bytea NOT NULL,
    PRIMARY KEY (entry_no, business_date),
    CHECK (result NOT IN ('10', '00') OR (card_no IS NOT NULL AND amount_fen IS NOT NULL AND credit_code IS NOT NULL)),
    CHECK ((result IN ('00', '94')) = (original_entry IS NOT NULL)),
    CHECK ((original_date IS NULL) = (original_entry IS NULL))
) PARTITION BY LIST (business_date);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON purse_record
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The money of records in the shape of posting. Whoever sums postings sums these too.
CREATE VIEW purse_posting AS
SELECT shard, business_date, entry_no, 0::smallint AS line, 2002::smallint AS debit_code, card_no AS debit_owner,
       credit_code, credit_owner, amount_fen, txid
  FROM purse_record
 WHERE result IN ('10', '00') AND amount_fen > 0;

-- What is used up by accepted records (10, 00), over all days, so not partitioned. mark: date, time, PSAM number, PSAM serial
-- and TAC as in the record (21 bytes): with the amount it tells the same record again (03) from another one (02).
CREATE TABLE purse_atc (
    card          bigint NOT NULL,
    amount_fen    bigint NOT NULL,
    balance_fen   bigint NOT NULL,
    entry_no      bigint NOT NULL,
    business_date date NOT NULL,
    atc           integer NOT NULL CHECK (atc BETWEEN 0 AND 65535),
    mark          bytea NOT NULL CHECK (length(mark) = 21),
    PRIMARY KEY (card, atc)
);

CREATE TABLE purse_serial (
    psam        bigint NOT NULL,
    psam_serial bigint NOT NULL,
    card        bigint NOT NULL,
    atc         integer NOT NULL,
    PRIMARY KEY (psam, psam_serial)
);

-- Records that use nothing up: grey ones (04) waiting for evidence, those of foreign cards (11) waiting for their city, notices of
-- locked cards (10). verdict: 00 or 94, for grey ones only.
CREATE TABLE purse_waiting (
    card          bigint NOT NULL,
    atc           integer NOT NULL,
    amount_fen    bigint NOT NULL,
    mark          bytea NOT NULL CHECK (length(mark) = 21),
    result        text NOT NULL CHECK (result IN ('04', '10', '11')),
    entry_no      bigint NOT NULL UNIQUE,
    business_date date NOT NULL,
    balance_fen   bigint NOT NULL,
    verdict       text CHECK (verdict IN ('00', '94')),
    decided_on    date,
    PRIMARY KEY (card, atc, amount_fen, mark),
    CHECK ((verdict IS NULL) = (decided_on IS NULL))
);
CREATE INDEX ON purse_waiting (business_date) WHERE result = '04' AND verdict IS NULL;

-- Records of illegal form (02), raw, with the rule they break; for people to look at.
CREATE TABLE purse_quarantine (
    entry_no    bigint PRIMARY KEY,
    received_at timestamptz NOT NULL,
    terminal_no integer NOT NULL,
    reason      text NOT NULL,
    raw         bytea NOT NULL
);

-- What somebody must look into. kind: ATC_COLLISION (clone suspicion), PSAM_COLLISION, CARD_UNREGISTERED, CHAIN_BREAK,
-- SHADOW_NEGATIVE, GREY_CONTRADICTION. Append-only; one line for the same matter.
CREATE TABLE purse_alarm (
    alarm_no      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind          text NOT NULL,
    entry_no      bigint NOT NULL,
    business_date date NOT NULL,
    card          bigint,
    detail        text NOT NULL,
    UNIQUE (kind, entry_no)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON purse_alarm
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Continuity 連續性 of counters. kind: 1 a card's offline ATC (owner card_key), 2 a PSAM's serial (owner PSAM number), 3 a
-- terminal's record serial (owner terminal_no). Everything from the first number seen to before next_no has arrived but `missing`.
CREATE TABLE purse_sequence (
    kind    smallint NOT NULL CHECK (kind IN (1, 2, 3)),
    owner   bigint NOT NULL,
    next_no bigint NOT NULL,
    missing int8multirange NOT NULL DEFAULT '{}',
    PRIMARY KEY (kind, owner)
);

-- Each hole with its age. When a late record arrives in the middle of one, the two that remain keep its age.
CREATE TABLE purse_gap (
    gap_no    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind      smallint NOT NULL,
    owner     bigint NOT NULL,
    missing   int8range NOT NULL CHECK (NOT isempty(missing)),
    opened_at timestamptz NOT NULL,
    closed_at timestamptz
);
CREATE UNIQUE INDEX ON purse_gap (kind, owner, missing) WHERE closed_at IS NULL;
CREATE INDEX ON purse_gap (opened_at) WHERE closed_at IS NULL;

-- Records of transactions with a smaller txid are in purse.spent_fen, folded_balance, purse_sequence and purse_gap.
CREATE TABLE purse_watermark (
    the_one   boolean PRIMARY KEY DEFAULT true CHECK (the_one),
    folded_to bigint NOT NULL DEFAULT 0
);
INSERT INTO purse_watermark DEFAULT VALUES;

-- Detail uploads 批上送 of unbalanced batches, as the terminals sent them.
CREATE TABLE terminal_batch_detail (
    terminal_no integer NOT NULL,
    batch_no    integer NOT NULL,
    entry_no    bigint NOT NULL,  -- of the message
    line        smallint NOT NULL,
    card_class  text NOT NULL,
    stan        integer NOT NULL,
    pan         text NOT NULL,  -- without the zeros that fill field 48
    amount_fen  bigint NOT NULL,
    PRIMARY KEY (terminal_no, batch_no, entry_no, line)
);

-- The report of a batch that closed with other figures than the terminal claimed; for merchants' service. Append-only.
-- matter: TOTALS (a group's figures), COUNT (of the batch end), NOT_HERE (a detail that the switch did not book),
-- NOT_THERE (booked, but no detail came), AMOUNT, CARD.
CREATE TABLE terminal_batch_difference (
    terminal_no   integer NOT NULL,
    batch_no      integer NOT NULL,
    line          integer NOT NULL,
    business_date date NOT NULL,
    matter        text NOT NULL CHECK (matter IN ('TOTALS', 'COUNT', 'NOT_HERE', 'NOT_THERE', 'AMOUNT', 'CARD')),
    stan          integer,
    claimed       text NOT NULL,
    booked        text NOT NULL,
    PRIMARY KEY (terminal_no, batch_no, line)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON terminal_batch_difference
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- As before, with the block range index for purse_record too: its fold goes by txid as that of posting.
CREATE OR REPLACE FUNCTION make_day_partition(parent text, day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    child text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('make_day_partition'));
    IF to_regclass(child) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', child, parent);
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT day CHECK (business_date = %L)', child, day);
    IF parent IN ('posting', 'purse_record') THEN
        EXECUTE format('CREATE INDEX ON %I USING brin (txid) WITH (pages_per_range = 16)', child);
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%L)', parent, child, day);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT day', child);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', child);
END $$;
