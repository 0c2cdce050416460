-- depends: 0009_interop
-- The routing table in versions. What was ever in force, from when and by whose word can be told for ever.

CREATE TABLE route_table (
    version   integer PRIMARY KEY CHECK (version > 0),
    row_count integer NOT NULL CHECK (row_count BETWEEN 0 AND 10000),
    content   text NOT NULL CHECK (octet_length(content) <= 4194304),  -- the file, in the order and spelling of an export
    digest    bytea NOT NULL CHECK (length(digest) = 32),              -- SM3 of content
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor     text NOT NULL,
    note      text NOT NULL DEFAULT ''
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON route_table
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- The last row says which version is in force; without a version: none, only what is built in.
-- action: ACTIVATE puts a version in force, ROLLBACK takes back the last ACTIVATE that was not taken back.
CREATE TABLE route_activation (
    activation_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    version       integer REFERENCES route_table,
    action        text NOT NULL CHECK (action IN ('ACTIVATE', 'ROLLBACK')),
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor         text NOT NULL,
    CHECK (version IS NOT NULL OR action = 'ROLLBACK')
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON route_activation
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
