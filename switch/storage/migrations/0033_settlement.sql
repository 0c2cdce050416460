-- depends: 0031_numbers_of_batches
-- From nets to money: who is paid where, what each settlement date settles, the payouts and collections that come of it, the orders
-- to the custody bank, and what the bank says it did.

-- Where a merchant or institution is paid; the operator's own row is the custody account that pays. One person proposes, another confirms,
-- and what was proposed never changes. sealed: the account number under the local master key, bound to party and bank. mask: its end, for people.
CREATE TABLE payout_account (
    account_no   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party        text NOT NULL CHECK (party ~ '^([0-9A-Za-z]{15}|[0-9]{8})$'),  -- merchant or institution id
    account_name text NOT NULL CHECK (length(account_name) BETWEEN 1 AND 70),
    bank_code    text NOT NULL CHECK (bank_code ~ '^([0-9]{12}|[A-Z0-9]{4}[A-Z]{2}[A-Z0-9]{2}([A-Z0-9]{3})?)$'),  -- CNAPS or BIC
    sealed       bytea NOT NULL,
    mask         text NOT NULL CHECK (mask ~ '^\*+[0-9A-Za-z]{4}$'),
    valid_from   date NOT NULL,  -- the first settlement date
    reason       text NOT NULL CHECK (reason <> ''),
    proposed_by  text NOT NULL CHECK (proposed_by <> ''),
    proposed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    confirmed_by text CHECK (confirmed_by <> '' AND lower(confirmed_by) <> lower(proposed_by)),
    confirmed_at timestamptz,
    CHECK ((confirmed_by IS NULL) = (confirmed_at IS NULL))
);
CREATE INDEX ON payout_account (party);

CREATE FUNCTION keep_payout_account() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.confirmed_by IS NULL
       AND (OLD.account_no, OLD.party, OLD.account_name, OLD.bank_code, OLD.sealed, OLD.mask, OLD.valid_from, OLD.reason, OLD.proposed_by, OLD.proposed_at)
         = (NEW.account_no, NEW.party, NEW.account_name, NEW.bank_code, NEW.sealed, NEW.mask, NEW.valid_from, NEW.reason, NEW.proposed_by, NEW.proposed_at) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a payout account can only be confirmed, never rewritten' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON payout_account FOR EACH ROW EXECUTE FUNCTION keep_payout_account();

-- How much and how often: the newest row by valid_from, then by number, holds. cycle_day: weekday 1 to 7 or day of the month 1 to 28; a
-- settlement date pays when such a day has come since the one before it. held: this much (NULL of held_fen with held_all: everything) stays until that settlement date and on it.
CREATE TABLE payout_terms (
    terms_no    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    party       text NOT NULL CHECK (party ~ '^([0-9A-Za-z]{15}|[0-9]{8})$'),
    valid_from  date NOT NULL,
    minimum_fen bigint NOT NULL DEFAULT 0 CHECK (minimum_fen >= 0),
    cycle       text NOT NULL DEFAULT 'DAILY' CHECK (cycle IN ('DAILY', 'WEEKLY', 'MONTHLY')),
    cycle_day   smallint,
    held_all    boolean NOT NULL DEFAULT false,
    held_fen    bigint NOT NULL DEFAULT 0 CHECK (held_fen >= 0),
    held_until  date,
    held_reason text NOT NULL DEFAULT '',
    set_by      text NOT NULL CHECK (set_by <> ''),
    set_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    reason      text NOT NULL CHECK (reason <> ''),
    CHECK (CASE cycle WHEN 'DAILY' THEN cycle_day IS NULL WHEN 'WEEKLY' THEN cycle_day BETWEEN 1 AND 7 ELSE cycle_day BETWEEN 1 AND 28 END),
    CHECK ((held_all OR held_fen > 0) = (held_reason <> '')),
    CHECK (NOT held_all OR held_fen = 0)
);
CREATE INDEX ON payout_terms (party);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payout_terms FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- One settlement date: every clearing day from first_day to last_day that no earlier one has settled.
CREATE TABLE settlement_run (
    settlement_date date PRIMARY KEY,
    first_day       date NOT NULL REFERENCES clearing_day,
    last_day        date NOT NULL UNIQUE REFERENCES clearing_day,
    prepared_at     timestamptz NOT NULL,
    prepared_by     text NOT NULL CHECK (prepared_by <> ''),
    CHECK (first_day <= last_day AND last_day < settlement_date)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement_run FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a party is owed (above zero) or owes of one settlement date, and where it goes. party: merchant id, institution id, or FUND for the
-- social-security fund. payout_fen below zero: it is to pay us. cause: why something stays, of held_fen and carried_fen.
CREATE TABLE settlement_line (
    settlement_date date NOT NULL REFERENCES settlement_run,
    party           text NOT NULL CHECK (party ~ '^([0-9A-Za-z]{15}|[0-9]{8}|FUND)$'),
    kind            text NOT NULL CHECK (kind IN ('MERCHANT', 'INSTITUTION', 'FUND')),
    merchant_no     integer REFERENCES merchant,
    carried_in_fen  bigint NOT NULL,
    net_fen         bigint NOT NULL,
    returned_fen    bigint NOT NULL,
    payout_fen      bigint NOT NULL,
    held_fen        bigint NOT NULL CHECK (held_fen >= 0),
    carried_fen     bigint NOT NULL,
    cause           text NOT NULL CHECK (cause IN ('', 'HELD', 'NO_ACCOUNT', 'CYCLE', 'MINIMUM', 'NEGATIVE')),
    account_no      integer REFERENCES payout_account,
    PRIMARY KEY (settlement_date, party),
    CHECK (carried_in_fen + net_fen + returned_fen = payout_fen + held_fen + carried_fen),
    CHECK ((kind = 'MERCHANT') = (merchant_no IS NOT NULL)),
    CHECK (payout_fen >= 0 OR kind <> 'MERCHANT'),
    CHECK (payout_fen <= 0 OR account_no IS NOT NULL)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement_line FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- net_fen of a line by the clearing days it comes from.
CREATE TABLE settlement_line_day (
    settlement_date date NOT NULL REFERENCES settlement_run,
    party           text NOT NULL,
    business_date   date NOT NULL REFERENCES clearing_day,
    net_fen         bigint NOT NULL,
    PRIMARY KEY (settlement_date, party, business_date),
    UNIQUE (party, business_date)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement_line_day FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A payment order to the custody bank. override: why it was released although something was waited for.
CREATE TABLE settlement_order (
    order_id        text PRIMARY KEY CHECK (order_id ~ '^O[0-9]{11}$'),
    settlement_date date NOT NULL REFERENCES settlement_run,
    execution_date  date NOT NULL CHECK (execution_date >= settlement_date),
    created_at      timestamptz NOT NULL CHECK (created_at = date_trunc('second', created_at)),
    created_by      text NOT NULL CHECK (created_by <> ''),
    account_no      integer NOT NULL REFERENCES payout_account,  -- ours
    payout_count    integer NOT NULL CHECK (payout_count > 0),
    total_fen       bigint NOT NULL CHECK (total_fen > 0),
    override        text NOT NULL DEFAULT '',
    sm3             bytea CHECK (length(sm3) = 32),
    size_bytes      bigint,
    CHECK ((sm3 IS NULL) = (size_bytes IS NULL))
);

-- P: we pay. C: we collect. Its number is the end-to-end reference of the payment. again_on: the settlement date whose lines took the amount
-- up again, after it came back or was never ordered. back_on: the business date on which its money was booked back.
CREATE TABLE payout (
    payout_id       text PRIMARY KEY CHECK (payout_id ~ '^[PC][0-9]{14}$'),
    settlement_date date NOT NULL,
    party           text NOT NULL,
    amount_fen      bigint NOT NULL CHECK (amount_fen > 0),
    account_no      integer REFERENCES payout_account,
    state           text NOT NULL CHECK (CASE left(payout_id, 1) WHEN 'P' THEN state IN ('PREPARED', 'APPROVED', 'ORDERED', 'PAID', 'RETURNED', 'REJECTED', 'CANCELLED')
                                              ELSE state IN ('EXPECTED', 'FUNDED', 'CANCELLED') END),
    approved_by     text,
    order_id        text REFERENCES settlement_order,
    back_on         date,
    again_on        date REFERENCES settlement_run,
    FOREIGN KEY (settlement_date, party) REFERENCES settlement_line,
    CHECK (left(payout_id, 1) = 'C' OR account_no IS NOT NULL),
    CHECK (approved_by IS NOT NULL OR state NOT IN ('APPROVED', 'ORDERED', 'PAID', 'RETURNED', 'REJECTED')),
    CHECK ((order_id IS NOT NULL) = (state IN ('ORDERED', 'PAID', 'RETURNED', 'REJECTED'))),
    CHECK ((back_on IS NOT NULL) = (state IN ('RETURNED', 'REJECTED'))),
    CHECK (again_on IS NULL OR (again_on > settlement_date AND state IN ('RETURNED', 'REJECTED', 'CANCELLED')))
);
CREATE INDEX ON payout (settlement_date);
CREATE INDEX ON payout (order_id);
CREATE INDEX payout_back ON payout (payout_id) WHERE again_on IS NULL AND state IN ('RETURNED', 'REJECTED', 'CANCELLED');

-- Who and how much never changes; an order is for ever, and what was taken up again is not taken up twice.
CREATE FUNCTION keep_payout() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE'
       AND (OLD.payout_id, OLD.settlement_date, OLD.party, OLD.amount_fen) = (NEW.payout_id, NEW.settlement_date, NEW.party, NEW.amount_fen)
       AND (OLD.order_id IS NULL OR OLD.order_id = NEW.order_id) AND (OLD.again_on IS NULL OR OLD = NEW)
       AND (OLD.account_no IS NOT DISTINCT FROM NEW.account_no OR NEW.state = 'PREPARED') THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'a payout keeps its party, amount and order' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON payout FOR EACH ROW EXECUTE FUNCTION keep_payout();

CREATE TABLE payout_move (
    payout_id  text NOT NULL REFERENCES payout,
    step       smallint NOT NULL CHECK (step >= 0),
    from_state text,
    to_state   text NOT NULL,
    at         timestamptz NOT NULL,
    actor      text NOT NULL CHECK (actor <> ''),
    checker    text NOT NULL DEFAULT '' CHECK (lower(checker) <> lower(actor)),
    reason     text NOT NULL DEFAULT '',
    PRIMARY KEY (payout_id, step),
    CHECK ((step = 0) = (from_state IS NULL))
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payout_move FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Files for merchants, one set per payout. sm3 and size_bytes are stored before NAME.ok is written.
CREATE TABLE settlement_file (
    settlement_date date NOT NULL REFERENCES settlement_run,
    name            text NOT NULL CHECK (name ~ '^P[0-9]{14}-(payout|batches|transactions)\.csv$' OR name ~ '^P[0-9]{14}\.xlsx$'),
    payout_id       text NOT NULL REFERENCES payout,
    line_count      bigint NOT NULL CHECK (line_count >= 0),
    net_fen         bigint NOT NULL,
    sm3             bytea NOT NULL CHECK (length(sm3) = 32),
    size_bytes      bigint NOT NULL,
    PRIMARY KEY (settlement_date, name)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON settlement_file FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A statement (camt.053) or notification (camt.054) of the custody bank. books_fen: what the bank should hold by our books when all its
-- entries were taken, which is 1001 and what was ordered and not paid yet.
CREATE TABLE bank_statement (
    statement_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('camt.053', 'camt.054')),
    statement_id text NOT NULL CHECK (length(statement_id) BETWEEN 1 AND 35),
    sm3          bytea NOT NULL CHECK (length(sm3) = 32),  -- of the whole file
    created_at   timestamptz NOT NULL,  -- by the bank
    opening_fen  bigint,
    closing_fen  bigint,
    entry_count  integer NOT NULL CHECK (entry_count >= 0),
    credit_fen   bigint NOT NULL CHECK (credit_fen >= 0),
    debit_fen    bigint NOT NULL CHECK (debit_fen >= 0),
    taken_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_by     text NOT NULL CHECK (taken_by <> ''),
    ended_at     timestamptz,
    books_fen    bigint,
    UNIQUE (kind, statement_id),
    CHECK ((kind = 'camt.053') = (opening_fen IS NOT NULL AND closing_fen IS NOT NULL)),
    CHECK (opening_fen + credit_fen - debit_fen = closing_fen),
    CHECK ((ended_at IS NULL) = (books_fen IS NULL))
);

CREATE TABLE bank_entry (
    statement_no  integer NOT NULL REFERENCES bank_statement,
    line          integer NOT NULL CHECK (line >= 1),
    bank_ref      text NOT NULL,
    end_to_end_id text NOT NULL,
    remittance    text NOT NULL,
    amount_fen    bigint NOT NULL CHECK (amount_fen > 0),
    is_credit     boolean NOT NULL,
    is_booked     boolean NOT NULL,  -- pending ones are not
    reason_code   text NOT NULL,
    booked_on     date,
    outcome       text CHECK (outcome IN ('PAID', 'RETURNED', 'FUNDED', 'AMOUNT', 'TWICE', 'SEEN', 'UNEXPLAINED', 'WAITS', 'PENDING')),
    payout_id     text REFERENCES payout,
    suspense_fen  bigint NOT NULL DEFAULT 0,  -- into suspense; below zero out of it
    PRIMARY KEY (statement_no, line)
);
CREATE INDEX ON bank_entry (payout_id) WHERE payout_id IS NOT NULL;
CREATE INDEX ON bank_entry (bank_ref) WHERE bank_ref <> '';
CREATE INDEX ON bank_entry (statement_no, line) WHERE outcome IS NULL;

CREATE FUNCTION keep_bank_entry() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.outcome IS NULL
       AND (OLD.statement_no, OLD.line, OLD.bank_ref, OLD.end_to_end_id, OLD.remittance, OLD.amount_fen, OLD.is_credit, OLD.is_booked, OLD.reason_code)
         = (NEW.statement_no, NEW.line, NEW.bank_ref, NEW.end_to_end_id, NEW.remittance, NEW.amount_fen, NEW.is_credit, NEW.is_booked, NEW.reason_code) THEN
        RETURN NEW;
    END IF;
    RAISE EXCEPTION 'what a bank has said is decided once and never rewritten' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER kept BEFORE UPDATE OR DELETE ON bank_entry FOR EACH ROW EXECUTE FUNCTION keep_bank_entry();
