-- depends: 0012_losses
-- Limits of what may be spent from an account: per transaction, day and month, amounts and counts. Days are business days.

-- product: digits 7 and 8 of the card number, the class of the card; NULL for all classes that have no rule of their own.
-- A limit that is NULL does not bind.
CREATE TABLE limit_rule (
    rule_no         integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account_kind    smallint NOT NULL CHECK (account_kind IN (10, 40)),
    product         text CHECK (product ~ '^[0-9]{2}$'),
    transaction_fen bigint CHECK (transaction_fen >= 0),
    day_fen         bigint CHECK (day_fen >= 0),
    month_fen       bigint CHECK (month_fen >= 0),
    day_count       integer CHECK (day_count >= 0),
    month_count     integer CHECK (month_count >= 0),
    valid_from      date NOT NULL,
    valid_to        date CHECK (valid_to >= valid_from),
    CHECK (num_nonnulls(transaction_fen, day_fen, month_fen, day_count, month_count) > 0),
    EXCLUDE USING gist (
        int4range(account_kind::integer, account_kind::integer, '[]') WITH &&,
        int4range(coalesce(product, '-1')::integer, coalesce(product, '-1')::integer, '[]') WITH &&,
        daterange(valid_from, valid_to, '[]') WITH &&
    )
);

-- limited_from: from this business date on, what is spent is counted, and rules bind. NULL: no rule is for this kind of account, and
-- nobody looks further.
ALTER TABLE account ADD COLUMN limited_from date;

-- What counts of the day and of its month, up to the last day on which something changed. Written under the lock on the account.
CREATE TABLE limit_window (
    shard       smallint NOT NULL,
    account_id  bigint NOT NULL,
    day         date NOT NULL,
    day_fen     bigint NOT NULL CHECK (day_fen >= 0),
    day_count   integer NOT NULL CHECK (day_count >= 0),
    month_fen   bigint NOT NULL CHECK (month_fen >= day_fen),
    month_count integer NOT NULL CHECK (month_count >= day_count),
    PRIMARY KEY (shard, account_id)
);
