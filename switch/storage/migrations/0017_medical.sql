-- depends: 0016_host_legs
-- The medical account under a policy: where it pays, how much of it the holder pays himself, and how a purchase was divided.

-- One row per merchant category and time; a row is never changed but in its end. From the first valid_from of all on, the medical account
-- pays only at merchants of a category that has a row in force. Before that, and without any row, it pays everything everywhere.
-- own_pay_ppm: the part that the medical account does not cover. The _fen limit what it covers; NULL does not bind.
-- splits: what is not covered is taken from the online account; without it such a purchase is refused as a whole.
CREATE TABLE medical_policy (
    policy_no       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    category        text NOT NULL CHECK (category ~ '^[0-9]{4}$'),
    own_pay_ppm     integer NOT NULL CHECK (own_pay_ppm BETWEEN 0 AND 1000000),
    transaction_fen bigint CHECK (transaction_fen >= 0),
    day_fen         bigint CHECK (day_fen >= 0),
    year_fen        bigint CHECK (year_fen >= 0),
    splits          boolean NOT NULL,
    valid_from      date NOT NULL,
    valid_to        date CHECK (valid_to >= valid_from),
    CHECK (splits OR own_pay_ppm = 0),
    EXCLUDE USING gist (
        int4range(category::integer, category::integer, '[]') WITH &&,
        daterange(valid_from, valid_to, '[]') WITH &&
    )
);
CREATE INDEX ON medical_policy (category);
CREATE INDEX ON medical_policy (valid_from);

-- How an approved purchase under a policy was divided, under its entry number; written with it and never changed. What of each share
-- was returned follows from original_use.refunded_fen. account_id: the medical account.
CREATE TABLE purchase_split (
    shard         smallint NOT NULL,
    entry_no      bigint NOT NULL,
    business_date date NOT NULL,
    account_id    bigint NOT NULL CHECK (account_id % 100 = 40),
    policy_no     integer NOT NULL,
    medical_fen   bigint NOT NULL CHECK (medical_fen >= 0),
    own_fen       bigint NOT NULL CHECK (own_fen >= 0),
    PRIMARY KEY (shard, entry_no),
    CHECK (medical_fen + own_fen > 0)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON purchase_split
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a medical account has covered on its day and in the year of that, less what was given back. Written under the lock on the account.
CREATE TABLE medical_window (
    shard      smallint NOT NULL,
    account_id bigint NOT NULL,
    day        date NOT NULL,
    day_fen    bigint NOT NULL CHECK (day_fen >= 0),
    year_fen   bigint NOT NULL CHECK (year_fen >= day_fen),
    PRIMARY KEY (shard, account_id)
);
