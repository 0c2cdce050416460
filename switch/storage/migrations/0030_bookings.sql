-- depends: 0029_lists_at_once
-- Money that people and partners' files move, and no terminal: payouts, what a bank settles, what a reconciliation finds. One row says
-- what, why and who, and its posting has the same entry in shard 0 (line 0) on the same day. source: what asked for it, as `payout 12`.
-- Each source can book an event once, however often it is told to.
CREATE TABLE booking (
    entry_no      bigint PRIMARY KEY,
    business_date date NOT NULL REFERENCES business_day,
    booked_at     timestamptz NOT NULL,
    event         text NOT NULL CHECK (event <> ''),
    amount_fen    bigint NOT NULL CHECK (amount_fen > 0),
    source        text NOT NULL CHECK (source ~ '^[a-z][a-z-]* [^ ].*$'),
    actor         text NOT NULL CHECK (actor <> ''),
    checker       text NOT NULL DEFAULT '' CHECK (lower(checker) <> lower(actor)),  -- '': no second person was needed
    reason        text NOT NULL DEFAULT '',
    UNIQUE (source, event)
);
CREATE INDEX ON booking (business_date);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON booking FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed BEFORE INSERT ON booking FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();
