-- depends: 0031_numbers_of_batches
-- Errors and adjustments 差錯、調賬: cases with what was asked, decided and refused about them, evidence, and the lines of ER files.

-- class 3: what two people decided in a case. Its key is none that a terminal could use: batch and trace are the two halves of a number
-- of their own (adjustment_no).
ALTER TABLE journal DROP CONSTRAINT journal_class_check;
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'journal'::regclass LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS journal_class_check', part);
    END LOOP;
END $$;
ALTER TABLE journal ADD CONSTRAINT journal_class_check CHECK (class IN (0, 1, 2, 3));
CREATE SEQUENCE adjustment_no AS bigint;

-- Adjustments of offline records are items of the purse (50), whoever's account the money went to.
ALTER TABLE clearing_leg DROP CONSTRAINT clearing_leg_account_kind_check;
ALTER TABLE clearing_leg ADD CHECK (account_kind IN (10, 20, 40, 50));

-- One row for each case: what is known of its transaction, where it stands, and what waits for a second person. Everything but the first
-- two groups follows from the events.
-- source: 1 a journal entry, 2 an offline record of ours, 3 of another city's card, 4 a load. original_*: what an adjustment names; of an
-- adjudicated record the record as it came. item_*: the entry that stands in CM, and its clearing date; NULL of what never was in one.
-- amount_fen: of the transaction. issuer_id, acquirer_id: the members on both sides. member_*: who raised it by file, and his number for it.
-- charged_*: of a chargeback that was decided. due_on: the last day of what may come next, where that has a limit.
-- asked_*: what waits for a checker.
CREATE TABLE dispute_case (
    case_no        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    opened_at      timestamptz NOT NULL,
    opened_on      date NOT NULL REFERENCES business_day,
    source         smallint NOT NULL CHECK (source BETWEEN 1 AND 4),
    shard          smallint NOT NULL,
    original_entry bigint NOT NULL,
    original_date  date NOT NULL,
    item_entry     bigint,
    item_date      date,
    merchant_no    integer NOT NULL,
    terminal_no    integer NOT NULL,
    account_kind   smallint NOT NULL CHECK (account_kind IN (10, 20, 40, 50)),
    amount_fen     bigint NOT NULL CHECK (amount_fen > 0),
    issuer_id      text NOT NULL CHECK (issuer_id ~ '^[0-9]{8}$'),
    acquirer_id    text NOT NULL CHECK (acquirer_id ~ '^[0-9]{8}$'),
    member_id      text CHECK (member_id ~ '^[0-9]{8}$'),
    member_case    text NOT NULL DEFAULT '' CHECK (length(member_case) <= 16),
    state          text NOT NULL CHECK (state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK', 'CREDITED', 'COLLECTED', 'REPRESENTED', 'ACCEPTED',
                                                  'SETTLED', 'CLOSED', 'DENIED')),
    events         integer NOT NULL DEFAULT 0 CHECK (events >= 0),
    charged_fen    bigint CHECK (charged_fen BETWEEN 1 AND amount_fen),
    charged_on     date,
    charged_entry  bigint,
    due_on         date,
    asked_action   text CHECK (asked_action IN ('01', '02', '04', '05', '06', '07', '08')),
    asked_fen      bigint CHECK (asked_fen BETWEEN 1 AND amount_fen),
    asked_outcome  text CHECK (asked_outcome IN ('loaded', 'returned')),
    asked_reason   text,
    asked_by       text,
    asked_at       timestamptz,
    CHECK (num_nonnulls(asked_action, asked_fen, asked_reason, asked_by, asked_at) IN (0, 5)),
    CHECK ((asked_outcome IS NOT NULL) = (asked_action IS NOT DISTINCT FROM '08')),
    CHECK (num_nonnulls(charged_fen, charged_on, charged_entry) IN (0, 3)),
    CHECK (state <> 'CHARGED_BACK' OR charged_fen IS NOT NULL),
    CHECK (state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK') OR asked_action IS NULL),
    CHECK (state <> 'NEW' OR asked_action IS NOT NULL),
    CHECK ((item_entry IS NULL) = (item_date IS NULL)),
    CHECK ((member_id IS NULL) = (member_case = ''))
);
-- A transaction has one case at a time, and is charged back once.
CREATE UNIQUE INDEX dispute_case_open ON dispute_case (original_entry) WHERE state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK');
CREATE UNIQUE INDEX dispute_case_charged ON dispute_case (original_entry) WHERE charged_fen IS NOT NULL;
CREATE UNIQUE INDEX dispute_case_of_member ON dispute_case (member_id, member_case) WHERE member_id IS NOT NULL;
CREATE INDEX ON dispute_case (original_entry);
CREATE INDEX ON dispute_case (due_on) WHERE state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK');
CREATE INDEX ON dispute_case (merchant_no);
CREATE INDEX ON dispute_case (issuer_id);
CREATE INDEX ON dispute_case (acquirer_id);

-- What happened to a case, in order, and never changed. what: ASKED, DONE (decided and booked), DENIED (by the checker), EVIDENCE, CLOSED (by
-- people, without money), LAPSED (nobody answered in time). entry_no: what was booked; of a load the number of its move.
CREATE TABLE dispute_event (
    case_no       bigint NOT NULL REFERENCES dispute_case,
    seq           integer NOT NULL CHECK (seq >= 1),
    at            timestamptz NOT NULL,
    business_date date NOT NULL REFERENCES business_day,
    what          text NOT NULL CHECK (what IN ('ASKED', 'DONE', 'DENIED', 'EVIDENCE', 'CLOSED', 'LAPSED')),
    action        text CHECK (action IN ('01', '02', '03', '04', '05', '06', '07', '08')),
    before_state  text NOT NULL,
    after_state   text NOT NULL,
    amount_fen    bigint CHECK (amount_fen >= 0),
    reason        text NOT NULL DEFAULT '',
    note          text NOT NULL DEFAULT '',
    actor         text NOT NULL CHECK (actor <> ''),
    checker       text NOT NULL DEFAULT '' CHECK (checker <> actor),
    entry_no      bigint,
    PRIMARY KEY (case_no, seq),
    CHECK ((action IS NULL) = (amount_fen IS NULL)),
    CHECK (what <> 'DONE' OR action = '03' OR (checker <> '' AND amount_fen > 0 AND entry_no IS NOT NULL)),
    CHECK (entry_no IS NULL OR (what = 'DONE' AND action <> '03'))
);
CREATE INDEX ON dispute_event (business_date) WHERE what = 'DONE';
CREATE UNIQUE INDEX dispute_event_entry ON dispute_event (entry_no) WHERE entry_no IS NOT NULL;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dispute_event FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed BEFORE INSERT ON dispute_event FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- What was asked for or decided and may not be: by which rule, of whom. case_no: NULL where no case came of it.
CREATE TABLE dispute_refusal (
    refusal_no     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at             timestamptz NOT NULL,
    business_date  date NOT NULL REFERENCES business_day,
    case_no        bigint REFERENCES dispute_case,
    original_entry bigint,
    action         text NOT NULL,
    amount_fen     bigint,
    rule           text NOT NULL CHECK (rule ~ '^9[0-9]$'),
    detail         text NOT NULL,
    actor          text NOT NULL,
    CHECK (num_nonnulls(case_no, original_entry) >= 1)
);
CREATE INDEX ON dispute_refusal (case_no);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dispute_refusal FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed BEFORE INSERT ON dispute_refusal FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Evidence of a case. A file lies in the evidence folder under its digest; a mere text has none.
CREATE TABLE dispute_evidence (
    case_no    bigint NOT NULL REFERENCES dispute_case,
    seq        integer NOT NULL,  -- of its event
    note       text NOT NULL CHECK (length(note) BETWEEN 1 AND 2000),
    name       text NOT NULL DEFAULT '' CHECK (length(name) <= 255),
    media_type text NOT NULL DEFAULT '',
    size_bytes bigint CHECK (size_bytes > 0),
    sm3        bytea CHECK (length(sm3) = 32),
    PRIMARY KEY (case_no, seq),
    UNIQUE (case_no, sm3),
    FOREIGN KEY (case_no, seq) REFERENCES dispute_event,
    CHECK (num_nonnulls(size_bytes, sm3) IN (0, 2) AND (sm3 IS NULL) = (name = '') AND (sm3 IS NULL) = (media_type = ''))
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dispute_evidence FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Lines of ER files that members sent, as they came, each once. refusal: the rule that it broke; '': it opened or advanced case_no.
-- original_line holds a card number in full.
CREATE TABLE dispute_received (
    file_no       integer NOT NULL REFERENCES received_file,
    line_no       integer NOT NULL CHECK (line_no >= 1),
    business_date date NOT NULL REFERENCES business_day,
    member_id     text NOT NULL CHECK (member_id ~ '^[0-9]{8}$'),
    member_case   text NOT NULL,
    action        text NOT NULL,
    original_line text NOT NULL CHECK (length(original_line) = 299),
    amount_fen    bigint NOT NULL,
    reason        text NOT NULL,
    original_date text NOT NULL CHECK (length(original_date) = 8),
    case_no       bigint REFERENCES dispute_case,
    refusal       text NOT NULL DEFAULT '' CHECK (refusal = '' OR refusal ~ '^9[0-9]$'),
    detail        text NOT NULL DEFAULT '',
    PRIMARY KEY (file_no, line_no),
    CHECK ((refusal = '') = (detail = '')),
    CHECK (refusal <> '' OR case_no IS NOT NULL)
);
CREATE INDEX ON dispute_received (business_date) WHERE refusal <> '';
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON dispute_received FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed BEFORE INSERT ON dispute_received FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Lines of the ER files that a day sends, settled once with the day's files: what was decided, and which received lines were refused.
-- case_text: the receiver's number for the case if it has one, else ours. amount_fen: signed from the receiver's side.
CREATE TABLE clearing_dispute (
    business_date date NOT NULL REFERENCES clearing_day,
    member_id     text NOT NULL,
    line_no       integer NOT NULL CHECK (line_no >= 1),
    case_text     text NOT NULL,
    action        text NOT NULL,
    original_line text NOT NULL CHECK (length(original_line) = 299),
    amount_fen    bigint NOT NULL,
    reason        text NOT NULL,
    original_date text NOT NULL CHECK (length(original_date) = 8),
    PRIMARY KEY (business_date, member_id, line_no)
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_dispute FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Adjustments of offline records in a day's sums of kind 50: QS speaks of the records only, so their fees are taken off there again.
CREATE TABLE clearing_adjusted (
    business_date date NOT NULL REFERENCES clearing_day,
    entry_no      bigint NOT NULL,
    merchant_no   integer NOT NULL,
    amount_fen    bigint NOT NULL,
    fee_fen       bigint NOT NULL,
    PRIMARY KEY (business_date, entry_no)
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_adjusted FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Members send ER too. What else may come is for the taker to say.
ALTER TABLE received_file DROP CONSTRAINT received_file_name_check;
ALTER TABLE received_file ADD CONSTRAINT received_file_name_check CHECK (name ~ '^[A-Z]{2}[0-9]{27}$');
