-- depends: 0021_clearing_legs
-- Batches of offline records that come over MQTT, each under a serial of its terminal.

-- Where the answer of each batch lies: a serial is used up once for ever, while the terminal's batch of the day changes with each
-- settlement. The journal row has the key (terminal_no, batch_no, trace) and keeps digest and results; its trace is the serial below
-- zero, where no field 11 can be. Written in the transaction that books the records, under the lock on the terminal's session.
CREATE TABLE purse_batch (
    terminal_no   integer NOT NULL,
    serial        bigint NOT NULL CHECK (serial BETWEEN 0 AND 4294967295),
    batch_no      integer NOT NULL,
    business_date date NOT NULL,
    txid          bigint NOT NULL DEFAULT transaction_number(),
    PRIMARY KEY (terminal_no, serial)
);
-- The fold takes what lies behind the horizon, as of purse_record.
CREATE INDEX ON purse_batch USING brin (txid) WITH (pages_per_range = 16);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON purse_batch
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- kind 4: a terminal's serials of batches (owner terminal_no). A hole is a batch that has not come.
ALTER TABLE purse_sequence DROP CONSTRAINT purse_sequence_kind_check;
ALTER TABLE purse_sequence ADD CONSTRAINT purse_sequence_kind_check CHECK (kind IN (1, 2, 3, 4));
