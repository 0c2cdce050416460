-- depends: 0003_ledger
-- How the operator's own records name a holder, so that a card that comes later joins the accounts of earlier ones.
-- Opaque to the switch: no name, no identity number.
CREATE TABLE holder (
    holder_id  bigint PRIMARY KEY,
    holder_key text NOT NULL UNIQUE CHECK (length(holder_key) BETWEEN 1 AND 64),
    shard      smallint NOT NULL
);
