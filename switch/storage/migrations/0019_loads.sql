-- depends: 0018_bindings
-- Loads of the purse 圈存: money that leaves its source before anybody knows whether it has reached the card.

-- Whether a terminal's agent 代理點 takes cash for loads. Its acquirer then owes us what it took (1002).
ALTER TABLE terminal ADD COLUMN cash_loads boolean NOT NULL DEFAULT false;

-- One row per authorised load, under its entry number; written under the lock on the purse.
-- online_atc, card_random, balance_before_fen: what the card's INITIALIZE said; with psam and the key's names they lead to the session key
-- again. No key and no MAC rests here. authorised_at: the instant whose date and time, in Shanghai, the card was told.
-- source: 1 bound bank card, 2 online account, 3 another bank card, 4 cash. debit_code, debit_owner: who paid.
-- state: 1 AUTHORISED, 2 CONFIRMED, 3 REVERSED, 4 SUSPENSE, 5 LOADED, 6 RETURNED. reason: of its last move.
-- held: where the money is: 0 with its source, 1 in the purse float (2002), 2 in suspense (2201).
-- proven: a good TAC came after the money had gone back.
CREATE TABLE purse_load (
    shard              smallint NOT NULL,
    entry_no           bigint NOT NULL,
    business_date      date NOT NULL,
    card_no            bigint NOT NULL,
    online_atc         integer NOT NULL CHECK (online_atc BETWEEN 0 AND 65534),
    psam               text NOT NULL CHECK (psam ~ '^[0-9A-F]{12}$'),
    issuer_id          bytea NOT NULL CHECK (length(issuer_id) = 8),
    key_version        smallint NOT NULL,
    algorithm_id       smallint NOT NULL CHECK (algorithm_id IN (0, 4)),
    key_index          smallint NOT NULL,
    card_random        bytea NOT NULL CHECK (length(card_random) = 4),
    amount_fen         bigint NOT NULL CHECK (amount_fen > 0),
    balance_before_fen bigint NOT NULL CHECK (balance_before_fen >= 0),
    authorised_at      timestamptz NOT NULL,
    source             smallint NOT NULL CHECK (source BETWEEN 1 AND 4),
    debit_code         smallint NOT NULL CHECK (debit_code IN (1002, 1101, 2001)),
    debit_owner        bigint NOT NULL,
    state              smallint NOT NULL CHECK (state BETWEEN 1 AND 6),
    reason             text NOT NULL,
    held               smallint NOT NULL CHECK (held BETWEEN 0 AND 2),
    proven             boolean NOT NULL DEFAULT false,
    PRIMARY KEY (shard, entry_no),
    CHECK (CASE WHEN state IN (1, 2, 5) THEN held = 1 WHEN state IN (3, 6) THEN held = 0 ELSE held IN (0, 2) END)
);
-- A counter of a card is good for one load.
CREATE UNIQUE INDEX purse_load_counter ON purse_load (shard, card_no, online_atc) WHERE state IN (1, 2, 5);
CREATE INDEX purse_load_of_card ON purse_load (shard, card_no, online_atc);
CREATE INDEX purse_load_open ON purse_load (shard, business_date) WHERE state IN (1, 4);

-- What has happened to each load, in order. entry_no: of the request that moved it; of sweeps and of people a number of its own, whose
-- posting then has no journal entry. line: that of the posting, where money moved. Append-only.
CREATE TABLE purse_load_move (
    shard         smallint NOT NULL,
    entry_no      bigint NOT NULL,
    line          smallint NOT NULL,
    business_date date NOT NULL,
    at            timestamptz NOT NULL,
    load_no       bigint NOT NULL,  -- the entry number of the load
    from_state    smallint NOT NULL CHECK (from_state BETWEEN 0 AND 6),
    to_state      smallint NOT NULL CHECK (to_state BETWEEN 1 AND 6),
    reason        text NOT NULL,
    note          text NOT NULL DEFAULT '',  -- of people: who decided, who checked, why
    PRIMARY KEY (shard, entry_no, line)
);
CREATE INDEX purse_load_move_of_load ON purse_load_move (shard, load_no);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON purse_load_move
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
