-- depends: 0033_settlement 0034_reconciliation 0042_binding_days
-- What became of bank entries that nobody could explain. Their money lies in 2201 until two people know whose it is.

-- fen: the suspense that the entry left behind, above zero of money that came; after this none of it lies there.
-- paid-by, paid-to: somebody's, by its parts. collection: what payout_id waited for. sent-back: other_* is its way back; that one's row names this one.
CREATE TABLE bank_resolution (
    statement_no       integer NOT NULL,
    line               integer NOT NULL,
    action             text NOT NULL CHECK (action IN ('paid-by', 'paid-to', 'collection', 'sent-back')),
    fen                bigint NOT NULL CHECK (CASE action WHEN 'paid-to' THEN fen < 0 WHEN 'sent-back' THEN fen <> 0 ELSE fen > 0 END),
    payout_id          text UNIQUE REFERENCES payout,
    other_statement_no integer,
    other_line         integer,
    decided_at         timestamptz NOT NULL,
    business_date      date NOT NULL REFERENCES business_day,
    actor              text NOT NULL CHECK (actor <> ''),
    checker            text NOT NULL CHECK (checker <> '' AND lower(checker) <> lower(actor)),
    reason             text NOT NULL CHECK (reason <> ''),
    PRIMARY KEY (statement_no, line),
    UNIQUE (other_statement_no, other_line),
    FOREIGN KEY (statement_no, line) REFERENCES bank_entry,
    FOREIGN KEY (other_statement_no, other_line) REFERENCES bank_entry,
    CHECK ((action = 'collection') = (payout_id IS NOT NULL)),
    CHECK (CASE action WHEN 'sent-back' THEN num_nonnulls(other_statement_no, other_line) = 2 ELSE num_nonnulls(other_statement_no, other_line) = 0 END)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank_resolution FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed BEFORE INSERT ON bank_resolution FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Whose it was, each party once. fen: above zero the party paid us, below zero we paid it; the parts come to the fen of the whole.
CREATE TABLE bank_resolution_part (
    statement_no integer NOT NULL,
    line         integer NOT NULL,
    part         smallint NOT NULL CHECK (part >= 1),
    party        text NOT NULL CHECK (party ~ '^([0-9A-Za-z]{15}|[0-9]{8}|FUND)$'),
    fen          bigint NOT NULL CHECK (fen <> 0 AND (fen > 0 OR party <> 'FUND')),
    PRIMARY KEY (statement_no, line, part),
    UNIQUE (statement_no, line, party),
    FOREIGN KEY (statement_no, line) REFERENCES bank_resolution
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank_resolution_part FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What decisions about a partner's differences took of a bank entry: money that came (above zero) or its way back (below), booked when the statement was taken.
CREATE TABLE bank_claim (
    step_no      bigint PRIMARY KEY REFERENCES reconcile_step,
    statement_no integer NOT NULL,
    line         integer NOT NULL,
    fen          bigint NOT NULL CHECK (fen <> 0),
    FOREIGN KEY (statement_no, line) REFERENCES bank_entry
);
CREATE INDEX ON bank_claim (statement_no, line);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON bank_claim FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What may lie in suspense is found among millions of entries.
CREATE INDEX bank_entry_odd ON bank_entry (statement_no, line) WHERE suspense_fen <> 0;

-- Why money was booked beside the statement although an entry of just that amount lay there.
ALTER TABLE reconcile_step ADD COLUMN although text NOT NULL DEFAULT '' CHECK (although = '' OR action IN ('suspense', 'sent-back'));
