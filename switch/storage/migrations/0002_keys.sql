-- depends: 0001_registry
-- Keys, each wrapped under the local master key of the vault; no clear key ever reaches the database.

CREATE TABLE vault_meta (
    name  text PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE key_record (
    key_name    text PRIMARY KEY,
    owner       text NOT NULL,
    key_type    text NOT NULL,
    key_index   smallint NOT NULL,
    key_version smallint NOT NULL,
    algorithm   smallint NOT NULL,
    level       text NOT NULL,
    state       text NOT NULL CHECK (state IN ('pre-active', 'active', 'verify-only', 'retired')),
    valid_from  timestamptz,
    valid_to    timestamptz,
    kcv         bytea NOT NULL,
    ciphertext  bytea NOT NULL,
    rehearsal   boolean NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Registration, declaration, maintenance and destruction of every key, with two operators. Append-only.
CREATE TABLE key_ceremony (
    ceremony_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    action      text NOT NULL,
    key_name    text NOT NULL,
    operators   text[] NOT NULL,
    kcv         bytea
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON key_ceremony
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
