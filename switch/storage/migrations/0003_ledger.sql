-- depends: 0002_keys
-- Card holders, their accounts, and the journal. Every table of the hot path leads its primary key with the shard of the
-- holder, and every statement on it says `shard = ...`: the same SQL then runs on a distributed PostgreSQL.

-- Serials of journal entries and offline records, allotted to processes in blocks. Their base-36 form ends field 37.
CREATE SEQUENCE entry_no_block AS bigint MINVALUE 1 START 1;

CREATE SEQUENCE holder_no AS bigint;
CREATE SEQUENCE card_no AS bigint;

-- The business day decides by the database's clock. state: 0 open or to come, 1 being closed, 2 closed.
CREATE TABLE business_day (
    business_date date PRIMARY KEY,
    begins_at     timestamptz NOT NULL,
    ends_at       timestamptz NOT NULL CHECK (ends_at > begins_at),
    state         smallint NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
    sealed_at     timestamptz,  -- when every shard's gate had been had after the end: no row of that day can still come
    EXCLUDE USING gist (tstzrange(begins_at, ends_at) WITH &&) DEFERRABLE INITIALLY IMMEDIATE
);

-- From a card number to its holder's shard; both never change. holder_id * 100 + account kind is the account id.
CREATE TABLE card_route (
    pan       text PRIMARY KEY,
    shard     smallint NOT NULL,
    holder_id bigint NOT NULL,
    card_no   bigint NOT NULL UNIQUE
);

-- state: 0 READY, 1 ACTIVE, 2 LOSS_TEMP, 3 LOSS_FORMAL, 4 DAMAGED, 5 EXPIRED, 6 REPLACED, 7 CANCEL_PENDING, 8 CANCELLED.
-- lost_at: a loss report takes effect at this instant, and not before.
CREATE TABLE card (
    shard         smallint NOT NULL,
    pan           text NOT NULL CHECK (pan ~ '^[0-9]{13,19}$'),
    card_no       bigint NOT NULL,
    holder_id     bigint NOT NULL,
    state         smallint NOT NULL CHECK (state BETWEEN 0 AND 8),
    valid_from    date NOT NULL,
    valid_through date NOT NULL,
    lost_at       timestamptz,
    PRIMARY KEY (shard, pan)
);
CREATE INDEX ON card (shard, holder_id);

-- kind: 10 online, 40 medical. Balances move with the transaction; the floor is a constraint as well as code.
-- frozen: 62 for every debit. pin_verifier: keyed in the vault, never a PIN; six failures block it.
-- Room is left on each page so that an update stays on it (HOT) and touches no index.
CREATE TABLE account (
    shard        smallint NOT NULL,
    account_id   bigint NOT NULL,
    holder_id    bigint NOT NULL,
    kind         smallint NOT NULL CHECK (kind IN (10, 40)),
    balance_fen  bigint NOT NULL CHECK (balance_fen >= 0),
    frozen       boolean NOT NULL DEFAULT false,
    pin_verifier bytea CHECK (length(pin_verifier) = 16),
    pin_failures smallint NOT NULL DEFAULT 0 CHECK (pin_failures BETWEEN 0 AND 6),
    PRIMARY KEY (shard, account_id),
    CHECK (account_id = holder_id * 100 + kind)
) WITH (fillfactor = 50);

-- One row per transaction, declines too; never updated. The key of a message is its primary key, so a key can be booked
-- once; over several days the lock on the holder's account makes that hold.
-- effect_fen: what the merchant gains (purchase) or gives back (void, refund, their reversals undo the sign); 0 for none.
-- digest: SM3 of the request without its secrets. extra: balances, field 48 or field 62 of the answer, as JSON.
CREATE TABLE journal (
    shard          smallint NOT NULL,
    business_date  date NOT NULL,
    terminal_no    integer NOT NULL,
    batch_no       integer NOT NULL,
    stan           integer NOT NULL,
    class          smallint NOT NULL CHECK (class IN (0, 1)),
    entry_no       bigint NOT NULL,
    merchant_no    integer NOT NULL,
    kind           smallint NOT NULL,
    account_id     bigint,
    pan            text,
    amount_fen     bigint NOT NULL CHECK (amount_fen >= 0),
    effect_fen     bigint NOT NULL DEFAULT 0 CHECK (abs(effect_fen) IN (0, amount_fen)),
    answer         text NOT NULL CHECK (length(answer) = 2),
    rrn            text NOT NULL CHECK (length(rrn) = 12),
    auth_code      text NOT NULL DEFAULT '',
    entry_mode     text NOT NULL DEFAULT '',
    decided_at     timestamptz NOT NULL,
    digest         bytea NOT NULL CHECK (length(digest) = 32),
    original_date  date,
    original_entry bigint,
    extra          bytea,
    PRIMARY KEY (shard, terminal_no, batch_no, stan, class, business_date),
    CHECK ((original_date IS NULL) = (original_entry IS NULL)),
    CHECK (effect_fen = 0 OR answer = '00')
) PARTITION BY LIST (business_date);

-- Money moved: debit owner, credit owner, fen. Codes are those of the chart of accounts; owner is an account id (2001, 2003), a
-- card number's card_no (2002), a merchant_no (2101) or an institution id (others); 0 where a code has one account.
-- txid: the fold may pass only transactions older than every one still running.
CREATE TABLE posting (
    shard         smallint NOT NULL,
    business_date date NOT NULL,
    entry_no      bigint NOT NULL,
    line          smallint NOT NULL DEFAULT 0,
    debit_code    smallint NOT NULL,
    debit_owner   bigint NOT NULL,
    credit_code   smallint NOT NULL,
    credit_owner  bigint NOT NULL,
    amount_fen    bigint NOT NULL CHECK (amount_fen > 0),
    txid          bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,  -- xid8, which BRIN cannot index
    PRIMARY KEY (shard, entry_no, line, business_date),
    CHECK ((debit_code, debit_owner) <> (credit_code, credit_owner))
) PARTITION BY LIST (business_date);

-- What has been used up of an original, whose journal partition may be old: written under the lock on its holder's account.
CREATE TABLE original_use (
    shard         smallint NOT NULL,
    entry_no      bigint NOT NULL,
    business_date date NOT NULL,
    amount_fen    bigint NOT NULL CHECK (amount_fen > 0),
    refunded_fen  bigint NOT NULL DEFAULT 0 CHECK (refunded_fen BETWEEN 0 AND amount_fen),
    undone_by     bigint,  -- entry_no of the void or reversal
    PRIMARY KEY (shard, entry_no),
    CHECK (undone_by IS NULL OR refunded_fen = 0)
);

-- Balances of hot accounts (merchants, banks, fees, cities), folded from the postings behind the watermark.
CREATE TABLE folded_balance (
    shard      smallint NOT NULL,
    code       smallint NOT NULL,
    owner      bigint NOT NULL,
    debit_fen  bigint NOT NULL DEFAULT 0 CHECK (debit_fen >= 0),
    credit_fen bigint NOT NULL DEFAULT 0 CHECK (credit_fen >= 0),
    PRIMARY KEY (shard, code, owner)
);

CREATE TABLE fold_watermark (
    shard     smallint PRIMARY KEY,
    folded_to bigint NOT NULL DEFAULT 0  -- postings with a smaller txid are in folded_balance
);

-- Partitions are made ahead, beside the parent, and attached with their bound already proven: ATTACH then needs no scan
-- and no lock that would stop the writers. There is no default partition: a missing day is an error, seen at once.
CREATE FUNCTION make_day_partition(parent text, day date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    child text := format('%s_%s', parent, to_char(day, 'YYYYMMDD'));
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('make_day_partition'));
    IF to_regclass(child) IS NOT NULL THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES)', child, parent);
    EXECUTE format('ALTER TABLE %I ADD CONSTRAINT day CHECK (business_date = %L)', child, day);
    IF parent = 'posting' THEN
        EXECUTE format('CREATE INDEX ON %I USING brin (txid) WITH (pages_per_range = 16)', child);
    END IF;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES IN (%L)', parent, child, day);
    EXECUTE format('ALTER TABLE %I DROP CONSTRAINT day', child);
    EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', child);
END $$;

-- A statement trigger fires on the table that the statement names, so parents carry one too.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON posting
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
