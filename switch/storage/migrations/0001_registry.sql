-- Everyone who takes part. Reference tables: small, read by every process, written by `registry import` and by sign-ons.

CREATE TABLE institution (
    institution_id text PRIMARY KEY CHECK (institution_id ~ '^[0-9]{8}$'),
    name           text NOT NULL,
    role           text NOT NULL CHECK (role IN ('ISSUER', 'ACQUIRER', 'BANK', 'CITY', 'CENTRE'))
);

-- Whose purse cards we know. Own ones are checked with our keys; the others are forwarded (result 11).
CREATE TABLE card_issuer (
    issuer_id      bytea PRIMARY KEY CHECK (length(issuer_id) = 8),
    institution_id text NOT NULL REFERENCES institution,
    own            boolean NOT NULL
);

CREATE TABLE merchant (
    merchant_no integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_id text NOT NULL UNIQUE CHECK (length(merchant_id) = 15),
    name        text NOT NULL,
    category    text NOT NULL CHECK (category ~ '^[0-9]{4}$'),
    acquirer_id text NOT NULL REFERENCES institution,
    state       text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'CLOSED'))
);

-- The master key of a terminal is derived from its id, so an id names one terminal in the whole city.
CREATE TABLE terminal (
    terminal_no   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    terminal_id   text NOT NULL UNIQUE CHECK (length(terminal_id) = 8),
    merchant_no   integer NOT NULL REFERENCES merchant,
    mac_algorithm smallint NOT NULL CHECK (mac_algorithm BETWEEN 1 AND 5),
    state         text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'CLOSED'))
);
CREATE INDEX ON terminal (merchant_no);

-- A PSAM may only speak for the merchant it was handed to.
CREATE TABLE psam (
    psam_no     text PRIMARY KEY CHECK (psam_no ~ '^[0-9]{12}$'),
    merchant_no integer NOT NULL REFERENCES merchant,
    terminal_no integer REFERENCES terminal,
    state       text NOT NULL DEFAULT 'ACTIVE' CHECK (state IN ('ACTIVE', 'CLOSED'))
);

-- Rates in ppm, amounts in fen. The most specific rule in force wins: merchant, then category, then neither.
CREATE TABLE fee_rule (
    rule_no         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    merchant_no     integer REFERENCES merchant,
    category        text CHECK (category ~ '^[0-9]{4}$'),
    account_kind    smallint NOT NULL CHECK (account_kind IN (10, 20, 40, 50)),
    rate_ppm        integer NOT NULL CHECK (rate_ppm BETWEEN 0 AND 1000000),
    minimum_fen     bigint NOT NULL DEFAULT 0 CHECK (minimum_fen >= 0),
    cap_fen         bigint CHECK (cap_fen >= 0),
    weight_issuer   integer NOT NULL DEFAULT 7 CHECK (weight_issuer >= 0),
    weight_switch   integer NOT NULL DEFAULT 1 CHECK (weight_switch >= 0),
    weight_acquirer integer NOT NULL DEFAULT 2 CHECK (weight_acquirer >= 0),
    valid_from      date NOT NULL,
    valid_to        date CHECK (valid_to >= valid_from),
    CHECK (merchant_no IS NULL OR category IS NULL),
    CHECK (weight_issuer + weight_switch + weight_acquirer > 0),
    EXCLUDE USING gist (
        int4range(coalesce(merchant_no, -1), coalesce(merchant_no, -1), '[]') WITH &&,
        int4range(coalesce(category, '-1')::integer, coalesce(category, '-1')::integer, '[]') WITH &&,
        int4range(account_kind::integer, account_kind::integer, '[]') WITH &&,
        daterange(valid_from, valid_to, '[]') WITH &&
    )
);

-- One session per terminal, whatever connection or process it comes by.
-- generation: which key set of terminal_key_set serves. Higher ones wait for their first good MAC (a stranger's sign-on
-- ends no session); lower ones are gone.
CREATE TABLE terminal_session (
    terminal_no     integer PRIMARY KEY REFERENCES terminal,
    generation      integer NOT NULL DEFAULT 0,
    last_generation integer NOT NULL DEFAULT 0 CHECK (last_generation >= generation),
    batch_no        integer NOT NULL DEFAULT 0 CHECK (batch_no BETWEEN 0 AND 999999),
    signed_on_at    timestamptz
);

CREATE TABLE terminal_key_set (
    terminal_no integer NOT NULL REFERENCES terminal,
    generation  integer NOT NULL,
    keys        bytea NOT NULL,  -- wrapped under the local master key
    drawn_at    timestamptz NOT NULL,
    PRIMARY KEY (terminal_no, generation)
);

-- state: 0 open, 1 frozen by 0500, 2 closed by its batch end.
-- opened_on: no key of this batch can be older, so repeats are looked for from that business date on.
CREATE TABLE terminal_batch (
    terminal_no integer NOT NULL REFERENCES terminal,
    batch_no    integer NOT NULL CHECK (batch_no BETWEEN 1 AND 999999),
    opened_on   date NOT NULL,
    state       smallint NOT NULL DEFAULT 0 CHECK (state IN (0, 1, 2)),
    settled_at  timestamptz,
    claimed     text,  -- field 48 as the terminal sent it
    computed    text,  -- the switch's figures, with the result digits
    closed_at   timestamptz,
    PRIMARY KEY (terminal_no, batch_no)
);

-- Every change of somebody who takes part: who, when, what. Append-only.
CREATE TABLE registry_change (
    change_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor     text NOT NULL,
    subject   text NOT NULL,
    change    jsonb NOT NULL
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON registry_change
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
